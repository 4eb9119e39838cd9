"""A link: its record, its index, its chunks. Nothing here needs the volume or any key of it."""

import hashlib
import hmac
from collections import namedtuple

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import objects, rows
from .primitives import (
    SEAL_OVERHEAD,
    Reader,
    Refused,
    authentication,
    decompress,
    hkdf,
    malformed,
    u64,
    unpad,
    unseal,
)

RECORD_LEN_MAX = 1 << 20
INNER_LEN_MAX = 1 << 20
SIGNATURE_LEN = 64
RECIPIENT_LEN = 145
TRAILER_LEN = 8 + SEAL_OVERHEAD
PIECE_LEN = 1 << 20
DEPTH_MAX = 256
FILE, DIRECTORY, SYMLINK = 1, 2, 3

Record = namedtuple("Record", "link number tombstone expiry head recipient sealed")
Chunk = namedtuple("Chunk", "pack offset len id frames sha256")
Header = namedtuple("Header", "title published directory files bytes index")
# `kind` is FILE (then size and executable count), DIRECTORY or SYMLINK (then target does).
Entry = namedtuple("Entry", "number parent name mtime kind size executable chunks target")


# Records


def record(link, number, data):
    """What anyone can check. `link` and `number` are from the object's name."""
    if len(data) > RECORD_LEN_MAX:
        raise malformed("over 1 MiB")
    if len(data) < SIGNATURE_LEN:
        raise malformed("cut short")
    signed, signature = data[:-SIGNATURE_LEN], data[-SIGNATURE_LEN:]
    reader = Reader(signed)
    if reader.raw(8) != b"hushlnk1":
        raise malformed("another kind of object")
    kind, flags, public = reader.u8(), reader.u8(), reader.raw(32)
    said, expiry = reader.u64(), reader.u64()
    if hashlib.sha256(public).digest()[:16] != link or said != number:
        raise authentication()
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, b"hushfs/v1/link-record\0" + signed)
    except (InvalidSignature, ValueError):
        raise authentication() from None
    if (kind, flags) not in ((0, 0), (0, 1), (1, 0)) or number == 0:
        raise malformed("a kind, flag or number that is not known")
    if kind == 1:
        reader.end()
        if expiry:
            raise malformed("a tombstone that holds something")
        return Record(link, number, True, None, None, None, None)
    recipient = reader.raw(RECIPIENT_LEN) if flags == 1 else None
    head, sealed = signed[: reader.at], reader.rest()
    if len(sealed) < SEAL_OVERHEAD:
        raise malformed("cut short")
    return Record(link, number, False, expiry or None, head, recipient, sealed)


def secret_for(found, private_half):
    """The secret of a link that was sealed to a recipient."""
    if found.recipient is None:
        raise authentication()
    secret = objects.open_exchanged(private_half, "link-secret", found.link, [], found.recipient)
    if len(secret) != 32:
        raise authentication()
    return secret


def needs_password(found, secret):
    return body(found, secret)[:1] == b"\x01"


def body(found, secret):
    plain = unseal(secret, "link-outer", found.link, [u64(found.number), found.head], found.sealed)
    return unpad(plain, len(found.head) + SEAL_OVERHEAD + SIGNATURE_LEN)


def contents(found, secret, password=None):
    """The header, and the content root."""
    reader = Reader(body(found, secret))
    protection = reader.u8()
    if protection == 0:
        root, inner = content_root(secret), reader.rest()
    elif protection == 1:
        kdf, salt = (reader.u32(), reader.u32(), reader.u32()), reader.raw(32)
        memory, passes, lanes = kdf
        if not (65536 <= memory <= 1 << 20 and 3 <= passes <= 16 and 1 <= lanes <= 16):
            raise Refused("parameters", "a password derivation outside what is allowed")
        if password is None:
            raise Refused("password", "the link needs a password")
        try:
            derived = hash_secret_raw(password, salt, passes, memory, lanes, 32, Type.ID, 19)
        except HashingError as error:
            raise Refused("parameters", str(error)) from None
        root = content_root(secret + derived)
        try:
            inner = unseal(root, "link-inner", found.link, [u64(found.number)], reader.rest())
        except Refused:
            raise Refused("password", "the password is wrong") from None
    else:
        raise malformed("an unknown protection")
    return header(inner), root


def content_root(secret):
    return hkdf(secret, b"", b"hushfs/v1/link-content", 32)


def header(inner):
    said = Reader(inner)
    said.u8()
    if said.varint() > INNER_LEN_MAX:
        raise malformed("a body over 1 MiB")
    reader = Reader(decompress(inner))
    title, published, kind = reader.name(), reader.time(), reader.u8()
    if kind not in (FILE, DIRECTORY):
        raise malformed("neither a file nor a directory")
    files, total = reader.varint(), reader.varint()
    index = [chunk_reference(reader) for _ in range(reader.count())]
    reader.end()
    if not index:
        raise malformed("no index")
    return Header(title, published, kind == DIRECTORY, files, total, index)


# Chunks and packs


def chunk_reference(reader, pack=None):
    if pack is None:
        pack = reader.varint()
    if pack == 0:
        raise malformed("a pack that there cannot be")
    offset, length, name = reader.varint32(), reader.varint32(), reader.raw(32)
    if not 1 <= length <= rows.CHUNK_LEN:
        raise malformed("an impossible chunk length")
    frames = [reader.varint32() for _ in range((length + rows.FRAME_LEN - 1) // rows.FRAME_LEN)]
    if not all(18 <= frame <= rows.FRAME_LEN + 17 for frame in frames):
        raise malformed("an impossible frame length")
    return Chunk(pack, offset, length, name, frames, reader.raw(32))


def sealed_len(found):
    return 65 + sum(found.frames)


def chunk(link, root, found, data):
    """The sealed bytes are the owner's before anything of them is opened."""
    if not hmac.compare_digest(hashlib.sha256(data).digest(), found.sha256):
        raise authentication()
    home = objects.Home(link, "link-chunk", b"hushfs/v1/link-chunk-key")
    plain = objects.chunk(home, root, found.id, found.len, found.frames, data)
    objects.check_id(found.id, plain)
    return plain


def pack(link, key, number, data):
    """Where the chunks end, and the reference to each."""
    if len(data) < TRAILER_LEN:
        raise malformed("cut short")
    end = len(data) - TRAILER_LEN
    offset = unseal(key, "link-pack-trailer", link, [u64(number)], data[end:])
    if len(offset) != 8:
        raise malformed("a broken trailer")
    start = int.from_bytes(offset, "little")
    if start > end:
        raise malformed("a footer outside the pack")
    plain = unseal(key, "link-pack-footer", link, [u64(number)], data[start:end])
    reader = Reader(unpad(plain, start + SEAL_OVERHEAD + TRAILER_LEN))
    found = [chunk_reference(reader, number) for _ in range(reader.count())]
    reader.end()
    at = 0
    for one in found:
        if one.offset < at:
            raise malformed("chunks that overlap")
        at = one.offset + sealed_len(one)
    if at > start:
        raise malformed("a chunk outside the pack")
    return start, found


# The index


def index(title, directory, files, total, data):
    """Entries, each file followed by (piece, chunk) pairs."""
    reader, number, open_directories = Reader(data), 0, []
    seen_files = seen_bytes = 0
    while not reader.is_at_end():
        entry = index_entry(reader, number)
        if number == 0:
            if (entry.name, entry.parent, entry.kind) != (title, 0, DIRECTORY if directory else FILE):
                raise malformed("a first entry that is not the record's")
        else:
            while open_directories and open_directories[-1][0] != entry.parent:
                open_directories.pop()
            if not open_directories:
                raise malformed("a parent that is no open directory")
            if open_directories[-1][1] >= entry.name:
                raise malformed("names that do not ascend")
            open_directories[-1][1] = entry.name
        if entry.kind == DIRECTORY:
            if len(open_directories) == DEPTH_MAX:
                raise malformed("directories too deep in each other")
            open_directories.append([number, b""])
        yield entry
        if entry.kind == FILE:
            seen_files, seen_bytes = seen_files + 1, seen_bytes + entry.size
            yield from file_chunks(reader, entry)
        number += 1
    if number == 0 or (seen_files, seen_bytes) != (files, total):
        raise malformed("not the files that the record promised")


def index_entry(reader, number):
    parent, name, kind, executable = reader.varint(), reader.name(), reader.u8(), reader.u8()
    mtime, size, chunks, target = reader.time(), 0, 0, b""
    if kind not in (FILE, DIRECTORY, SYMLINK) or executable > (kind == FILE):
        raise malformed("an unknown type or flag")
    if kind == FILE:
        size, chunks = reader.varint(), reader.varint()
        if size >> 63 or chunks > pieces(size):
            raise malformed("an impossible size, or more chunks than the file has")
    elif kind == SYMLINK:
        target = reader.bytes()
        if not 1 <= len(target) <= rows.SYMLINK_LEN_MAX or b"\0" in target:
            raise malformed("an invalid symlink target")
    return Entry(number, parent, name, mtime, kind, size, bool(executable), chunks, target)


def file_chunks(reader, entry):
    least = 0
    for _ in range(entry.chunks):
        piece = reader.varint()
        if not least <= piece < pieces(entry.size):
            raise malformed("chunks that do not ascend within the file")
        found = chunk_reference(reader)
        if found.len != min(PIECE_LEN, entry.size - piece * PIECE_LEN):
            raise malformed("a chunk that does not fit the file")
        least = piece + 1
        yield piece, found


def pieces(size):
    return (size + PIECE_LEN - 1) // PIECE_LEN


# As one file


def box(data):
    """An exported link: the record, and (number, pack) of each pack. None of them is believed here."""
    reader = Reader(data)
    if reader.raw(8) != b"hushbox1":
        raise malformed("another kind of file")
    record_object = reader.raw(reader.u64())
    packs = []
    while reader.at < len(data):
        number = reader.u64()
        pack_object = reader.raw(reader.u64())
        if not pack_object or number in dict(packs):
            raise malformed("a pack that is empty or there twice")
        packs.append((number, pack_object))
    return record_object, packs
