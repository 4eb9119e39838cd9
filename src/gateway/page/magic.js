'use strict';
// What may be shown, by what the bytes are and never by what the sender calls them. Invariant: nothing that a browser
// could run is on this list; HTML, SVG and other XML are only ever downloaded.

const MIB = 1 << 20;
const RUNS = /\.(html?|xhtml?|xht|shtml|svgz?|xml|xsl|xslt|mht|mhtml|hta|js|mjs)$/i;
const MARKUP = /^\ufeff?\s*<[!?a-z]/i;

const at = (offset, ...texts) => (head) =>
  texts.some((text) => equalBytes(head.subarray(offset, offset + text.length), ascii(text)));
const both = (...tests) => (head) => tests.every((test) => test(head));

/** Test, kind, type, and how much is read into memory for it. */
const SHOWN = [
  [at(0, '\x89PNG\r\n\x1a\n'), 'image', 'image/png', 64 * MIB],
  [at(0, '\xff\xd8\xff'), 'image', 'image/jpeg', 64 * MIB],
  [at(0, 'GIF87a', 'GIF89a'), 'image', 'image/gif', 64 * MIB],
  [both(at(0, 'RIFF'), at(8, 'WEBP')), 'image', 'image/webp', 64 * MIB],
  [both(at(4, 'ftyp'), at(8, 'avif', 'avis')), 'image', 'image/avif', 64 * MIB],
  [at(0, '%PDF-'), 'pdf', 'application/pdf', 128 * MIB],
  [both(at(4, 'ftyp'), at(8, 'M4A ', 'M4B ')), 'audio', 'audio/mp4', 256 * MIB],
  [at(4, 'ftypisom', 'ftypiso2', 'ftypiso5', 'ftypiso6', 'ftypmp41', 'ftypmp42', 'ftypM4V ', 'ftypavc1', 'ftypqt  '),
    'video', 'video/mp4', 256 * MIB],
  [at(0, '\x1a\x45\xdf\xa3'), 'video', 'video/webm', 256 * MIB],
  [at(0, 'OggS'), 'audio', 'audio/ogg', 256 * MIB],
  [at(0, 'fLaC'), 'audio', 'audio/flac', 256 * MIB],
  [both(at(0, 'RIFF'), at(8, 'WAVE')), 'audio', 'audio/wav', 256 * MIB],
  [at(0, 'ID3', '\xff\xfb', '\xff\xf3', '\xff\xf2'), 'audio', 'audio/mpeg', 256 * MIB],
];

/** How to show it, or null. `head` is the first bytes of the file. */
function shownAs(head, name) {
  for (const [test, kind, type, most] of SHOWN) {
    if (test(head)) return { kind, type, most };
  }
  const text = RUNS.test(name) ? null : textOf(head);
  return text === null || MARKUP.test(text) ? null : { kind: 'text', type: 'text/plain', most: MIB };
}

/** The bytes as text; null if they are none. A letter may be cut at the end. */
function textOf(bytes) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
    return /[\x00-\x08\x0e-\x1a\x1c-\x1f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}
