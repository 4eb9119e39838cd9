'use strict';
// Names that the sender chose, as text for people and as names for disk and ZIP. Invariant: what comes out holds no
// control character, no mark that turns text around, and, for a disk, nothing that any system takes for a path.

const UNSEEN = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
const DEVICES = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)/i;
const NAME_BYTES_MAX = 255;

/** For people: what cannot be seen is shown as a replacement character. */
function shownName(bytes) {
  return new TextDecoder().decode(bytes).replace(UNSEEN, '\ufffd');
}

/** For a disk, of whatever system. */
function diskName(bytes) {
  let name = shownName(bytes).replace(/[\ufffd/\\:*?"<>|]/g, '_');
  // Windows drops dots and spaces at the end, and would find another name then.
  name = name.replace(/[. ]+$/, (end) => '_'.repeat(end.length));
  if (DEVICES.test(name)) name = `_${name}`;
  return shortened(name || '_');
}

/** Keeps the ending, by which systems choose what opens a file. */
function shortened(name) {
  const length = (text) => new TextEncoder().encode(text).length;
  if (length(name) <= NAME_BYTES_MAX) return name;
  const ending = /\.[^.]{1,16}$/.exec(name)?.[0] ?? '';
  const letters = [...name.slice(0, name.length - ending.length)];
  while (length(letters.join('') + ending) > NAME_BYTES_MAX) letters.pop();
  return letters.join('') + ending;
}

/** A name that no other of the folder has, whether or not the system tells upper from lower case. */
function uniqueName(name, taken) {
  const ending = /\.[^.]{1,16}$/.exec(name)?.[0] ?? '';
  const stem = name.slice(0, name.length - ending.length);
  let unique = name;
  for (let i = 2; taken.has(folded(unique)); i += 1) unique = `${stem} (${i})${ending}`;
  taken.add(folded(unique));
  return unique;
}

const folded = (name) => name.normalize('NFC').toLowerCase();
