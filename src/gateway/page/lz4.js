'use strict';
// One lz4 block. Invariant: writes exactly `length` bytes, reads no byte outside of what was given and copies from
// none that was not written before.

function lz4Decode(source, length) {
  const out = new Uint8Array(length);
  let from = 0;
  let to = 0;
  const extended = (nibble) => {
    let run = nibble;
    if (nibble !== 15) return run;
    for (;;) {
      if (from >= source.length) throw damaged('lz4: cut short');
      const more = source[from];
      from += 1;
      run += more;
      // No run is longer than what is made of it.
      if (run > length) throw damaged('lz4: too long');
      if (more !== 255) return run;
    }
  };
  for (;;) {
    if (from >= source.length) throw damaged('lz4: cut short');
    const token = source[from];
    from += 1;
    const literals = extended(token >> 4);
    if (literals > source.length - from || literals > length - to) throw damaged('lz4: literals beyond the end');
    out.set(source.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    // The last sequence is literals only.
    if (from === source.length) break;
    if (source.length - from < 2) throw damaged('lz4: cut short');
    const distance = source[from] | (source[from + 1] << 8);
    from += 2;
    const match = extended(token & 15) + 4;
    if (distance === 0 || distance > to) throw damaged('lz4: a copy from before the start');
    if (match > length - to) throw damaged('lz4: a copy beyond the end');
    if (distance >= match) {
      out.copyWithin(to, to - distance, to - distance + match);
      to += match;
    } else {
      // The copy overlaps what it writes: byte by byte is its meaning.
      for (const end = to + match; to < end; to += 1) out[to] = out[to - distance];
    }
  }
  if (to !== length) throw damaged('lz4: another length than was said');
  return out;
}
