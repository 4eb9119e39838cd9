"""The metadata: what each row's key and value mean. Nothing impossible gets past `parse_key` and `parse_value`."""

import stat
from dataclasses import dataclass, field

from blake3 import blake3

from .primitives import Reader, checked_name, checked_text, malformed

WINDOW_LEN = 64 << 20
CHUNK_LEN = 1 << 20
FRAME_LEN = 65536
XATTR_LEN_MAX = 65536
SYMLINK_LEN_MAX = 4095
INLINE_EXTENTS_MAX = 8
TYPES = {stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFBLK, stat.S_IFREG, stat.S_IFLNK, stat.S_IFSOCK}
ROOT = 1


@dataclass(frozen=True)
class Extent:
    offset: int
    len: int
    chunk: int
    chunk_offset: int

    @property
    def end(self):
        return self.offset + self.len


@dataclass
class Inode:
    mode: int
    uid: int
    gid: int
    rdev: int
    nlink: int
    size: int
    allocated: int
    atime: tuple
    mtime: tuple
    ctime: tuple
    btime: tuple
    version: int
    key: int
    target: bytes = b""
    extents: list = field(default_factory=list)

    @property
    def type(self):
        return stat.S_IFMT(self.mode)


@dataclass(frozen=True)
class Chunk:
    pack: int
    offset: int
    len: int
    key: int
    id: bytes
    frames: tuple

    @property
    def sealed_len(self):
        return 65 + sum(self.frames)


def cookie(name):
    return (int.from_bytes(blake3(name).digest()[:8], "big") >> 2) + 3


def parse_key(key):
    """The tag, and the parts of the key behind it."""
    reader = Reader(key)
    tag = chr(reader.u8())

    def number():
        return int.from_bytes(reader.raw(8), "big")

    if tag in "ICKP":
        parts = (number(),)
    elif tag == "X":
        parts = (number(), number())
    elif tag == "D":
        parent, place, name = number(), number(), checked_name(reader.rest())
        if place != cookie(name):
            raise malformed("a cookie that is not the name's")
        parts = (parent, name)
    elif tag == "B":
        parts = (number(), number(), checked_name(reader.rest()))
    elif tag == "A":
        parts = (number(), reader.rest())
        if not 1 <= len(parts[1]) <= 255 or b"\0" in parts[1]:
            raise malformed("an invalid attribute name")
    elif tag == "V":
        parts = (int.from_bytes(reader.raw(2), "big"),)
    elif tag == "L":
        parts = (reader.raw(16),)
    else:
        raise malformed("an unknown kind of row")
    reader.end()
    return tag, parts


def parse_value(tag, parts, value):
    reader = Reader(value)
    parsed = VALUES[tag](reader, parts)
    reader.end()
    return parsed


def inode(reader, _):
    numbers = [reader.varint32() for _ in range(5)] + [reader.varint() for _ in range(2)]
    times = [reader.time() for _ in range(4)]
    parsed = Inode(*numbers, *times, reader.varint(), reader.varint())
    if parsed.type not in TYPES or parsed.mode >> 16 or parsed.size >> 63:
        raise malformed("an impossible mode or size")
    if parsed.type == stat.S_IFLNK:
        parsed.target = reader.bytes()
        if not 1 <= len(parsed.target) <= SYMLINK_LEN_MAX or b"\0" in parsed.target:
            raise malformed("an invalid symlink target")
    elif parsed.type == stat.S_IFREG:
        parsed.extents = extents(reader, 0)
        if len(parsed.extents) > INLINE_EXTENTS_MAX:
            raise malformed("too many extents in an inode")
    return parsed


def extents(reader, window):
    end, chunk, found = window * WINDOW_LEN, 0, []
    if end >> 63:
        raise malformed("a window beyond 2^63")
    for _ in range(reader.count()):
        offset, length = end + reader.varint(), reader.varint32()
        chunk = (chunk + reader.signed()) % (1 << 64)
        chunk_offset = reader.varint32()
        end = offset + length
        if length == 0 or length + chunk_offset > CHUNK_LEN or end > (window + 1) * WINDOW_LEN:
            raise malformed("an impossible extent")
        found.append(Extent(offset, length, chunk, chunk_offset))
    return found


def dirent(reader, _):
    number, kind = reader.varint(), reader.u8() << 12
    if kind not in TYPES:
        raise malformed("an unknown file type")
    return number, kind


def xattr(reader, _):
    value = reader.rest()
    if len(value) > XATTR_LEN_MAX:
        raise malformed("an attribute over 64 KiB")
    return value


def chunk(reader, _):
    pack, offset, length = reader.varint(), reader.varint32(), reader.varint32()
    key, name = reader.varint(), reader.raw(32)
    if not 1 <= length <= CHUNK_LEN:
        raise malformed("an impossible chunk length")
    frames = tuple(reader.varint32() for _ in range((length + FRAME_LEN - 1) // FRAME_LEN))
    if not all(18 <= frame <= FRAME_LEN + 17 for frame in frames):
        raise malformed("an impossible frame length")
    return Chunk(pack, offset, length, key, name, frames)


def device(reader, _):
    name, incarnation = checked_text(reader.bytes(), "device name"), reader.raw(16)
    counters = [reader.varint(48) for _ in range(4)]
    return name, incarnation, counters, reader.time()


def link(reader, _):
    state, inode, path, title = reader.u8(), reader.varint(), reader.bytes(), reader.name()
    live, created, expiry = flag(reader), reader.time(), reader.varint(63)
    newest, files, total = reader.varint(), reader.varint(), reader.varint()
    if len(path) > 4096 or state > 2:
        raise malformed("an impossible path or state")
    keys = None if state == 2 else link_keys(reader)
    return {
        "state": state,
        "inode": inode,
        "path": path,
        "title": title,
        "live": live,
        "created": created,
        "expiry": expiry,
        "newest": newest,
        "files": files,
        "bytes": total,
        "keys": keys,
    }


def link_keys(reader):
    seed, secret, protection = reader.raw(32), reader.raw(32), None
    if flag(reader):
        kdf = [reader.u32(), reader.u32(), reader.u32()]
        protection = {"kdf": kdf, "salt": reader.raw(32), "root": reader.raw(32)}
    recipient = reader.raw(32) if flag(reader) else None
    return {"seed": seed, "secret": secret, "protection": protection, "recipient": recipient}


def flag(reader):
    value = reader.u8()
    if value > 1:
        raise malformed("neither yes nor no")
    return value == 1


VALUES = {
    "I": inode,
    "X": lambda reader, parts: extents(reader, parts[1]),
    "D": dirent,
    "B": lambda reader, _: None,
    "A": xattr,
    "C": chunk,
    "K": lambda reader, _: (reader.varint32(), reader.bytes()),
    "P": lambda reader, _: (reader.raw(16), reader.varint()),
    "V": device,
    "L": link,
}
