"""Numbers, SEAL, padding and compression. Every length is held against what is there before anything is allocated."""

import hashlib
import hmac
import struct

import lz4.block
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEAL_OVERHEAD = 81
HEADER_LEN = 65
BODY_LEN_MAX = 1 << 30
LZ4_RATIO_MAX = 255


class Refused(Exception):
    """What was read is not what it should be. `word` is one of those that the golden vectors use."""

    def __init__(self, word, why=None):
        super().__init__(f"{word}: {why}" if why else word)
        self.word, self.why = word, why


def malformed(why):
    return Refused("malformed", why)


def authentication():
    """One error for every cause, as for the first reader."""
    return Refused("authentication", "changed, in another's place, or sealed under another key")


def u16(n):
    return struct.pack("<H", n)


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def object_hash(data):
    return blake3(data).digest()


class Roots:
    """The volume's id, and the root key of each epoch that is known."""

    def __init__(self, volume, roots):
        self.volume, self.roots = volume, roots
        # Seq and hash of the record before the newest epoch.
        self.anchor = None

    def newest(self):
        return max(self.roots)

    def commitment(self, epoch):
        info = b"hushfs/v1/root-commitment" + self.volume + u32(epoch)
        return hkdf(self.root(epoch), b"", info, 32)

    def root(self, epoch):
        if epoch not in self.roots:
            raise Refused("unknown epoch", f"no root for epoch {epoch}")
        return self.roots[epoch]

    def unseal(self, epoch, kind, fields, sealed):
        return unseal(self.root(epoch), kind, self.volume, fields, sealed)


# SEAL


def hkdf(secret, salt, info, length):
    key = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + info + bytes([count]), hashlib.sha256).digest()
        out, count = out + block, count + 1
    return out[:length]


def context(volume, fields):
    return b"".join(u32(len(field)) + field for field in [volume, *fields])


def derive(key, kind, ctx, header):
    """Encryption key and nonce, once suite and commitment have been checked."""
    if len(header) < HEADER_LEN:
        raise authentication()
    info = b"hushfs/v1/" + kind.encode() + b"\x01" + u32(len(ctx)) + ctx
    okm = hkdf(key, header[1:33], info, 76)
    if header[0] != 1 or not hmac.compare_digest(okm[32:64], header[33:65]):
        raise authentication()
    return okm[:32], okm[64:]


def gcm(key, nonce, sealed, aad):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except (InvalidTag, ValueError):
        raise authentication() from None


def unseal(key, kind, volume, fields, sealed):
    ctx = context(volume, fields)
    ek, nonce = derive(key, kind, ctx, sealed[:HEADER_LEN])
    if len(sealed) < SEAL_OVERHEAD:
        raise authentication()
    return gcm(ek, nonce, sealed[HEADER_LEN:], ctx)


# Padding


def padded_len(n):
    if n <= 4096:
        return 4096
    e = n.bit_length() - 1
    mask = (1 << (e - e.bit_length())) - 1
    return (n + mask) & ~mask


def unpad(padded, around):
    """`around`: what the object has beside this plaintext."""
    if len(padded) < 8:
        raise malformed("cut short")
    true = int.from_bytes(padded[-8:], "little")
    if true > len(padded) - 8 or any(padded[true:-8]) or len(padded) + around != padded_len(true + 8 + around):
        raise malformed("padding that is not the one its length has")
    return padded[:true]


# Compression


def decompress(data):
    reader = Reader(data)
    codec, true = reader.u8(), reader.varint()
    return plain_of(codec, reader.rest(), true, malformed("a broken body"))


def plain_of(codec, data, length, error):
    """`data` as codec 0 or 1 has it, of just that length, or `error`."""
    if codec == 1:
        if length > BODY_LEN_MAX or length > LZ4_RATIO_MAX * len(data):
            raise error
        try:
            data = lz4.block.decompress(data, uncompressed_size=length)
        except lz4.block.LZ4BlockError:
            raise error from None
    elif codec != 0:
        raise error
    if len(data) != length:
        raise error
    return data


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, n):
        if n > len(self.data) - self.at:
            raise malformed("cut short")
        self.at += n
        return self.data[self.at - n : self.at]

    def u8(self):
        return self.raw(1)[0]

    def u16(self):
        return int.from_bytes(self.raw(2), "little")

    def u32(self):
        return int.from_bytes(self.raw(4), "little")

    def u64(self):
        return int.from_bytes(self.raw(8), "little")

    def varint(self, bits=64):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << bits or (byte == 0 and shift):
                    raise malformed("a number that is too large or too long")
                return value
            shift += 7
            if shift > 63:
                raise malformed("a number that is too large or too long")

    def varint32(self):
        return self.varint(32)

    def count(self):
        """Of entries of one byte at least: never more than bytes that are left."""
        count = self.varint()
        if count > len(self.data) - self.at:
            raise malformed("a count beyond the end")
        return count

    def signed(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def time(self):
        seconds, nanoseconds = self.signed(), self.varint()
        if nanoseconds > 999_999_999:
            raise malformed("a second or more of nanoseconds")
        return seconds, nanoseconds

    def bytes(self):
        return self.raw(self.varint())

    def name(self):
        return checked_name(self.bytes())

    def rest(self):
        return self.raw(len(self.data) - self.at)

    def is_at_end(self):
        return self.at == len(self.data)

    def end(self):
        if not self.is_at_end():
            raise malformed("bytes after the end")


def checked_name(name):
    if not 1 <= len(name) <= 255 or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise malformed("an invalid name")
    return name


def checked_text(text, what):
    if len(text) > 255:
        raise malformed(f"a {what} over 255 bytes")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise malformed(f"a {what} that is not UTF-8") from None


def ascending(keys):
    return all(a < b for a, b in zip(keys, keys[1:]))
