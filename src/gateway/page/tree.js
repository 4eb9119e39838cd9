'use strict';
// What a link holds, from its index (FORMAT.md). The index stays as the bytes it is, with a few numbers for each
// entry: a hundred thousand files are a few megabytes. Everything is checked here, once; later reads trust it.

const FILE = 1;
const DIRECTORY = 2;
const SYMLINK = 3;
const INDEX_MAX = 1 << 28;
const DEPTH_MAX = 256;

class Tree {
  constructor(bytes) {
    this.bytes = bytes;
    this.starts = [];
    this.children = new Map();
    this.files = 0;
    this.total = 0;
    // The open folders, the outermost first: the tree is walked downward and a folder's names ascend, so no name
    // comes twice and no parent is missing.
    this.open = [];
    const reader = new Reader(bytes);
    while (reader.remaining > 0) {
      const start = reader.at;
      this.#take(readEntry(reader, true));
      this.starts.push(start);
    }
    if (this.starts.length === 0) throw damaged('an index without an entry');
  }

  #take(entry) {
    const number = this.starts.length;
    if (number === 0) {
      if (entry.parent !== 0 || entry.type === SYMLINK) throw damaged('an impossible first entry');
    } else {
      while (this.open.length > 0 && this.open.at(-1).number !== entry.parent) this.open.pop();
      const folder = this.open.at(-1);
      if (!folder) throw damaged('an entry outside of a folder');
      if (folder.last && compareBytes(folder.last, entry.name) >= 0) throw damaged('names that do not ascend');
      folder.last = entry.name;
      this.children.get(entry.parent).push(number);
    }
    if (entry.type === DIRECTORY) {
      if (this.open.length === DEPTH_MAX) throw damaged('folders too deep in each other');
      this.open.push({ number, last: null });
      this.children.set(number, []);
    }
    if (entry.type === FILE) {
      this.files += 1;
      this.total += entry.size;
      if (this.total > Number.MAX_SAFE_INTEGER) throw new Failure('too-large');
    }
  }

  entry(number) {
    return { number, ...readEntry(new Reader(this.bytes, this.starts[number]), false) };
  }

  /** Where each chunk's reference is: pairs of its place in the file (in chunks) and in the index. */
  chunks(number) {
    const { count, chunksAt } = this.entry(number);
    const reader = new Reader(this.bytes, chunksAt);
    const places = new Map();
    for (let i = 0; i < count; i += 1) {
      const place = reader.varint();
      places.set(place, reader.at);
      readReference(reader);
    }
    return places;
  }

  reference(at) {
    return readReference(new Reader(this.bytes, at));
  }
}

/** With `check`, up to its end and everything in it; without, only what describes it. */
function readEntry(reader, check) {
  const parent = reader.varint();
  const name = reader.vector();
  const type = reader.u8();
  const executable = reader.u8();
  const modified = reader.time();
  if (check && !isName(name)) throw damaged('an impossible name');
  if (executable > (type === FILE ? 1 : 0)) throw damaged('an impossible entry');
  const entry = { parent, name, type, executable: executable === 1, modified, size: 0 };
  if (type === SYMLINK) {
    entry.target = reader.vector();
    const { length } = entry.target;
    if (length === 0 || length > 4095 || entry.target.includes(0)) throw damaged('an impossible symbolic link');
  } else if (type === FILE) {
    entry.size = reader.varint();
    entry.count = reader.varint();
    entry.chunksAt = reader.at;
    if (check) checkChunks(reader, entry);
  } else if (type !== DIRECTORY) {
    throw damaged('an impossible kind of entry');
  }
  return entry;
}

function checkChunks(reader, { size, count }) {
  let least = 0;
  for (let i = 0; i < count; i += 1) {
    const place = reader.varint();
    const start = place * CHUNK;
    const { length } = readReference(reader);
    const wanted = Math.min(CHUNK, size - start);
    if (place < least || length !== wanted) throw damaged('a size that does not fit its chunks');
    least = place + 1;
  }
}

function compareBytes(left, right) {
  const shorter = Math.min(left.length, right.length);
  for (let i = 0; i < shorter; i += 1) {
    if (left[i] !== right[i]) return left[i] - right[i];
  }
  return left.length - right.length;
}

/** 1 to 255 bytes without a slash and NUL, and neither `.` nor `..`. */
function isName(name) {
  const dots = name.length <= 2 && name.every((byte) => byte === 0x2e);
  return name.length > 0 && name.length <= 255 && !dots && !name.includes(0) && !name.includes(0x2f);
}
