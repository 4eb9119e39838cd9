"""What is in the store, object by object. Each opener takes the place an object was found at, which its seal binds."""

from collections import namedtuple

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import rows
from .primitives import (
    HEADER_LEN,
    SEAL_OVERHEAD,
    Reader,
    Refused,
    ascending,
    authentication,
    blake3,
    checked_text,
    context,
    decompress,
    derive,
    gcm,
    hkdf,
    malformed,
    object_hash,
    plain_of,
    u16,
    u32,
    u64,
    unpad,
    unseal,
)

# Kinds of slots.
PASSWORD, RECOVERY, RECIPIENT = 1, 2, 3

TRAILER_LEN = 8 + SEAL_OVERHEAD
PACK_TRAILER_LEN = 4 + TRAILER_LEN

VolumeParameters = namedtuple("VolumeParameters", "created single_device")
Slot = namedtuple("Slot", "kind kdf salt created head private root details")
Record = namedtuple("Record", "epoch prev commit_id slot incarnation high_water high_water_hash time rows next")
Link = namedtuple("Link", "older root seq hash")
Floor = namedtuple("Floor", "epoch seq checkpoint checkpoint_hash")
Manifest = namedtuple("Manifest", "epoch head segments high_water past")
SegmentMeta = namedtuple("SegmentMeta", "id first last rows len hash")


def enveloped(roots, data, magic, kind, number):
    if len(data) < 12 or data[:8] != magic:
        raise malformed("another kind of object")
    epoch = int.from_bytes(data[8:12], "little")
    plain = roots.unseal(epoch, kind, [u32(epoch), u64(number)], data[12:])
    return epoch, unpad(plain, 12 + SEAL_OVERHEAD)


# Volume and slots


def volume_id(data):
    reader = Reader(data)
    if reader.raw(8) != b"hushvol1" or reader.u32() != 1:
        raise malformed("no volume of format 1")
    return reader.raw(16)


def volume_parameters(roots, data):
    body = unpad(roots.unseal(0, "volume-parameters", [u32(1)], data[28:]), 28 + SEAL_OVERHEAD)
    reader = Reader(body)
    flags, created = reader.u8(), reader.time()
    reader.end()
    if flags > 1:
        raise malformed("an unknown flag")
    return VolumeParameters(created, flags == 1)


def fingerprint(data):
    digits = object_hash(data).hex()[:32]
    return "-".join(digits[i : i + 4] for i in range(0, 32, 4))


def parse_slot(data):
    reader = Reader(data)
    if reader.raw(8) != b"hushslt1":
        raise malformed("another kind of object")
    kind, kdf, salt = reader.u8(), None, None
    if kind == PASSWORD:
        kdf, salt = (reader.u32(), reader.u32(), reader.u32()), reader.raw(32)
    elif kind not in (RECOVERY, RECIPIENT):
        raise malformed("an unknown kind of slot")
    created = reader.time()
    head, private = data[: reader.at], reader.raw(16 if kind == RECIPIENT else 113)
    return Slot(kind, kdf, salt, created, head, private, reader.raw(145), reader.rest())


def password_secret(slot, password):
    memory, passes, lanes = slot.kdf
    if not (65536 <= memory <= 4 << 20 and 3 <= passes <= 64 and 1 <= lanes <= 64):
        raise Refused("parameters", "a password derivation outside what is allowed")
    try:
        return hash_secret_raw(password, slot.salt, passes, memory, lanes, 32, Type.ID, 19)
    except HashingError as error:
        raise Refused("parameters", str(error)) from None


def open_slot(volume, epoch, number, slot, secret):
    """Root and label. `secret` is from the password, or is what the words are, or a recipient's private half."""
    private_half = secret
    if slot.kind != RECIPIENT:
        private_half = unseal(secret, "slot-private", volume, [u16(number), slot.head], slot.private)
    if len(private_half) != 32:
        raise authentication()
    key = X25519PrivateKey.from_private_bytes(private_half)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    ephemeral = slot.root[:32]
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    except ValueError:
        raise authentication() from None
    exchanged = hkdf(shared, b"", b"hushfs/v1/exchange" + ephemeral + public, 32)
    fields = [u32(epoch), u16(number), slot.head, slot.private]
    root = unseal(exchanged, "slot-root", volume, fields, slot.root[32:])
    own, label = slot_details(volume, epoch, number, slot, root)
    if own != public:
        raise authentication()
    return root, label


def slot_details(volume, epoch, number, slot, root):
    """Public half and label, for who has the root."""
    fields = [u32(epoch), u16(number), slot.head, slot.private, slot.root]
    plain = unseal(root, "slot-details", volume, fields, slot.details)
    reader = Reader(unpad(plain, len(slot.head) + len(slot.private) + 145 + SEAL_OVERHEAD))
    public, label = reader.raw(32), checked_text(reader.bytes(), "label")
    reader.end()
    return public, label


def link(volume, epoch, root, data):
    if data[:8] != b"hushchn1" or data[8:12] != u32(epoch):
        raise malformed("another kind of object, or of another epoch")
    plain = unseal(root, "epoch-chain", volume, [u32(epoch)], data[12:])
    reader = Reader(unpad(plain, 12 + SEAL_OVERHEAD))
    found = Link(reader.u32(), reader.raw(32), reader.varint(), reader.raw(32))
    reader.end()
    if found.older >= epoch:
        raise malformed("an older epoch that is not older")
    return found


def file_key(roots, epoch, number, wrapped):
    key = roots.unseal(epoch, "file-key", [u32(epoch), u64(number)], wrapped)
    if len(key) != 32:
        raise authentication()
    return key


# Log and floors


def record(roots, seq, data):
    epoch, body = enveloped(roots, data, b"hushlog1", "record", seq)
    reader = Reader(decompress(body))
    kind = reader.u8()
    if kind > 1:
        raise malformed("an unknown kind of record")
    fields = [reader.raw(32), reader.raw(16), reader.u16(), reader.raw(16)]
    fields += [reader.varint(), reader.raw(32), reader.time(), []]
    for _ in range(reader.count()):
        key, length = reader.bytes(), reader.varint()
        fields[-1].append((key, reader.raw(length - 1) if length else None))
    following = (reader.u32(), reader.raw(32)) if kind == 1 else None
    reader.end()
    check_rows(fields[-1])
    if following and following[0] <= epoch:
        raise malformed("an epoch that does not follow")
    return Record(epoch, *fields, following)


def check_rows(found):
    if not ascending([key for key, _ in found]):
        raise malformed("rows out of order")
    for key, value in found:
        tag, parts = rows.parse_key(key)
        if value is not None:
            rows.parse_value(tag, parts, value)


def floor(roots, number, data):
    epoch, body = enveloped(roots, data, b"hushflr1", "floor", number)
    reader = Reader(body)
    found = Floor(epoch, reader.varint(), reader.varint(), reader.raw(32))
    reader.end()
    if found.seq > found.checkpoint + 1:
        raise malformed("a gap between the checkpoint and the log")
    return found


# Checkpoints


def manifest(roots, seq, data):
    epoch, body = enveloped(roots, data, b"hushckp1", "manifest", seq)
    reader = Reader(decompress(body))
    head, segments = reader.raw(32), [segment_meta(reader) for _ in range(reader.count())]
    high_water = [(reader.raw(16), reader.varint(), reader.raw(32)) for _ in range(reader.count())]
    past = [(reader.varint(), reader.raw(32)) for _ in range(reader.count())]
    reader.end()
    bounds = [bound for meta in segments for bound in (meta.first, meta.last)]
    if any(b < a for a, b in zip(bounds, bounds[1:])) or any(
        a.last == b.first for a, b in zip(segments, segments[1:])
    ):
        raise malformed("segments out of order")
    if not ascending([incarnation for incarnation, _, _ in high_water]):
        raise malformed("incarnations out of order")
    if not ascending([number for number, _ in past] + [seq]):
        raise malformed("past heads out of order")
    return Manifest(epoch, head, segments, high_water, past)


def segment_meta(reader):
    meta = SegmentMeta(
        reader.raw(16), reader.bytes(), reader.bytes(), reader.varint(), reader.varint(), reader.raw(32)
    )
    if meta.rows == 0:
        raise malformed("a segment without rows")
    return meta


def segment(roots, meta, data):
    """Its rows, a block at a time."""
    if len(data) != meta.len or object_hash(data) != meta.hash:
        raise authentication()
    if len(data) < 12 + TRAILER_LEN or data[:8] != b"hushseg1":
        raise malformed("another kind of object")
    epoch = int.from_bytes(data[8:12], "little")
    fields = [u32(epoch), meta.id]
    start = footer_start(roots, epoch, "segment-trailer", fields, data[-TRAILER_LEN:])
    if not 12 <= start <= len(data) - TRAILER_LEN:
        raise malformed("an index outside the object")
    index = roots.unseal(epoch, "segment-index", fields, data[start:-TRAILER_LEN])
    reader = Reader(unpad(index, start + SEAL_OVERHEAD + TRAILER_LEN))
    blocks = [(reader.bytes(), reader.varint(), reader.varint()) for _ in range(reader.count())]
    last = reader.bytes()
    reader.end()
    if (
        not blocks
        or (blocks[0][0], last) != (meta.first, meta.last)
        or 12 + sum(length for _, _, length in blocks) != start
        or sum(count for _, count, _ in blocks) != meta.rows
    ):
        raise malformed("an index that is not the manifest's")
    at, before = 12, b""
    for number, (first, count, length) in enumerate(blocks):
        is_last = number + 1 == len(blocks)
        place = [*fields, u32(number), bytes([is_last])]
        found = block(decompress(roots.unseal(epoch, "segment-block", place, data[at : at + length])))
        check_rows(found)
        if len(found) != count or found[0][0] != first or first <= before or (is_last and found[-1][0] != last):
            raise malformed("a block outside its range")
        yield found
        at, before = at + length, found[-1][0]


def block(plain):
    reader, found = Reader(plain), []
    while not reader.is_at_end():
        found.append((reader.bytes(), reader.bytes()))
    if not found:
        raise malformed("a block without rows")
    return found


def footer_start(roots, epoch, kind, fields, sealed):
    plain = roots.unseal(epoch, kind, fields, sealed)
    if len(plain) != 8:
        raise malformed("a broken trailer")
    return int.from_bytes(plain, "little")


# Packs and chunks


def pack(roots, incarnation, number, length, read):
    """Epoch, where the chunks end, and (chunk, offset, length) of each. `read(offset, length)` reads the object."""
    if length < PACK_TRAILER_LEN:
        raise malformed("cut short")
    end = length - PACK_TRAILER_LEN
    trailer = read(end, PACK_TRAILER_LEN)
    epoch = int.from_bytes(trailer[:4], "little")
    name = [u32(epoch), incarnation, u64(number)]
    start = footer_start(roots, epoch, "pack-trailer", name, trailer[4:])
    if start > end:
        raise malformed("a footer outside the pack")
    plain = roots.unseal(epoch, "pack-footer", name, read(start, end - start))
    reader = Reader(unpad(plain, start + SEAL_OVERHEAD + PACK_TRAILER_LEN))
    entries = [(reader.varint(), reader.varint32(), reader.varint32()) for _ in range(reader.count())]
    reader.end()
    at = 0
    for _, offset, size in entries:
        if offset < at:
            raise malformed("chunks that overlap")
        at = offset + size
    if at > start:
        raise malformed("a chunk outside the pack")
    return epoch, start, entries


def chunk(volume, key, name, length, frames, data):
    """The plaintext; `check_id` says whether it is the one that is meant."""
    chunk_key = hkdf(key, b"", b"hushfs/v1/chunk-key" + name, 32)
    ctx = context(volume, [name])
    ek, nonce = derive(chunk_key, "chunk", ctx, data[:HEADER_LEN])
    if len(data) != HEADER_LEN + sum(frames):
        raise authentication()
    plain, at = [], HEADER_LEN
    for index, sealed_len in enumerate(frames):
        own = bytearray(nonce[:8] + (int.from_bytes(nonce[8:], "big") ^ index).to_bytes(4, "big"))
        if index + 1 == len(frames):
            own[0] ^= 0x80
        frame = gcm(ek, bytes(own), data[at : at + sealed_len], ctx)
        if not frame:
            raise authentication()
        expected = min(rows.FRAME_LEN, length - rows.FRAME_LEN * index)
        plain.append(plain_of(frame[0], frame[1:], expected, authentication()))
        at += sealed_len
    return b"".join(plain)


def check_id(name, plain):
    if blake3(plain).digest() != name:
        raise Refused("authentication", "the content is not the one that its id names")
