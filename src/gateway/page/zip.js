'use strict';
// A folder as one ZIP, made while it is read: stored, not compressed, with 64-bit sizes where need be. Its length is
// known before the first byte. Symbolic links are left out: on the receiver's disk they could point anywhere.

const LIMIT32 = 0xffffffff;
const LIMIT16 = 0xffff;
const PATH_MAX = 4096;
/** A descriptor with the checksum follows each file, and names are UTF-8. */
const FLAGS_FILE = 0x0808;
const FLAGS_FOLDER = 0x0800;

const CRC_TABLES = (() => {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let i = 0; i < 256; i += 1) {
    let value = i;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    tables[0][i] = value;
  }
  for (let i = 0; i < 256; i += 1) {
    for (let k = 1; k < 8; k += 1) tables[k][i] = tables[0][tables[k - 1][i] & 255] ^ (tables[k - 1][i] >>> 8);
  }
  return tables;
})();

/** Continues `crc` (0 at the start), eight bytes at a time. */
function crc32(crc, bytes) {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES;
  let sum = ~crc;
  let at = 0;
  for (const end = bytes.length - 7; at < end; at += 8) {
    sum ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    sum =
      t7[sum & 255] ^ t6[(sum >>> 8) & 255] ^ t5[(sum >>> 16) & 255] ^ t4[sum >>> 24] ^
      t3[bytes[at + 4]] ^ t2[bytes[at + 5]] ^ t1[bytes[at + 6]] ^ t0[bytes[at + 7]];
  }
  for (; at < bytes.length; at += 1) sum = t0[(sum ^ bytes[at]) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

class Zip {
  constructor(tree, number) {
    this.tree = tree;
    this.members = [];
    this.skipped = 0;
    this.#plan(number);
    let at = 0;
    for (const member of this.members) {
      member.offset = at;
      member.crc = 0;
      at += localHeader(member).length + member.size + (member.folder ? 0 : descriptor(member).length);
    }
    this.centralAt = at;
    this.size = at + this.#central().length;
  }

  #plan(top) {
    const folders = new Map();
    const count = this.tree.starts.length;
    // A folder's number is below those of what it holds.
    for (let number = top; number < count; number += 1) {
      const entry = this.tree.entry(number);
      const parent = folders.get(entry.parent);
      if (number !== top && !parent) continue;
      if (entry.type === SYMLINK) {
        this.skipped += 1;
        continue;
      }
      const name = diskName(entry.name);
      const path = number === top ? name : `${parent.path}/${uniqueName(name, parent.taken)}`;
      if (path.length > PATH_MAX) throw new Failure('too-large');
      const folder = entry.type === DIRECTORY;
      if (folder) folders.set(number, { path, taken: new Set() });
      const bytes = new TextEncoder().encode(folder ? `${path}/` : path);
      const { modified, executable, size } = entry;
      this.members.push({ number, name: bytes, folder, modified, executable, size });
    }
  }

  *tasks(content) {
    const now = (bytes) => ({ run: async () => new Uint8Array(0), finish: bytes, cost: 0 });
    for (const member of this.members) {
      yield now(() => localHeader(member));
      if (!member.folder) {
        const finish = (bytes) => {
          member.crc = crc32(member.crc, bytes);
          return bytes;
        };
        for (const task of content.tasks(this.tree, member.number, 0, member.size)) yield { ...task, finish };
        yield now(() => descriptor(member));
      }
    }
    yield now(() => this.#central());
  }

  #central() {
    const headers = joined(this.members.map(centralHeader));
    const count = this.members.length;
    const large = count >= LIMIT16 || headers.length >= LIMIT32 || this.centralAt >= LIMIT32;
    const end = concat(
      u32(0x06054b50), u16(0), u16(0), u16(Math.min(count, LIMIT16)), u16(Math.min(count, LIMIT16)),
      u32(Math.min(headers.length, LIMIT32)), u32(Math.min(this.centralAt, LIMIT32)), u16(0),
    );
    if (!large) return concat(headers, end);
    const end64 = concat(
      u32(0x06064b50), u64(44), u16(0x032d), u16(45), u32(0), u32(0),
      u64(count), u64(count), u64(headers.length), u64(this.centralAt),
    );
    const locator = concat(u32(0x07064b50), u32(0), u64(this.centralAt + headers.length), u32(1));
    return concat(headers, end64, locator, end);
  }
}

function u16(value) {
  return Uint8Array.of(value & 255, value >> 8);
}

const isLarge = (member) => member.size >= LIMIT32;

function localHeader(member) {
  const large = isLarge(member);
  // The sizes stand in the descriptor, but an empty 64-bit field here says how wide they are there.
  const extra = concat(unixTime(member), large ? concat(u16(1), u16(16), u64(0), u64(0)) : new Uint8Array(0));
  return concat(u32(0x04034b50), shared(member), u32(0), u32(large ? LIMIT32 : 0), u32(large ? LIMIT32 : 0),
    u16(member.name.length), u16(extra.length), member.name, extra);
}

function descriptor(member) {
  const size = isLarge(member) ? u64(member.size) : u32(member.size);
  return concat(u32(0x08074b50), u32(member.crc), size, size);
}

function centralHeader(member) {
  const large = isLarge(member);
  const far = member.offset >= LIMIT32;
  const wide = concat(
    large ? concat(u64(member.size), u64(member.size)) : new Uint8Array(0), far ? u64(member.offset) : new Uint8Array(0),
  );
  const extra = concat(unixTime(member), wide.length ? concat(u16(1), u16(wide.length), wide) : new Uint8Array(0));
  const size = u32(large ? LIMIT32 : member.size);
  const mode = member.folder ? 0o40755 : member.executable ? 0o100755 : 0o100644;
  return concat(u32(0x02014b50), u16(0x032d), shared(member), u32(member.crc), size, size, u16(member.name.length),
    u16(extra.length), u16(0), u16(0), u16(0), u32(mode * 65536 + (member.folder ? 16 : 0)),
    u32(far ? LIMIT32 : member.offset), member.name, extra);
}

/** What both headers have: version, flags, method, time. */
function shared(member) {
  const version = u16(isLarge(member) || member.offset >= LIMIT32 ? 45 : 20);
  return concat(version, u16(member.folder ? FLAGS_FOLDER : FLAGS_FILE), u16(0), dosTime(member.modified));
}

function dosTime(seconds) {
  const date = new Date(seconds * 1000);
  const year = date.getFullYear();
  if (!(year >= 1980)) return concat(u16(0), u16(0x21));
  if (year > 2107) return concat(u16(0xbf7d), u16(0xff9f));
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  return concat(u16(time), u16(((year - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate()));
}

/** To the second and in no time zone, where it fits. */
function unixTime({ modified }) {
  if (Math.abs(modified) >= 2 ** 31) return new Uint8Array(0);
  return concat(u16(0x5455), u16(5), Uint8Array.of(1), u32(modified >>> 0));
}
