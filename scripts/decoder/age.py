"""Private keys of an age identity file: Bech32 (BIP 173) of 32 bytes."""

from .primitives import malformed

PREFIX = "age-secret-key-"
DIGITS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def identities(text):
    """The keys of all lines that are neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    keys = [identity(line) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise malformed("no identity")
    return keys


def identity(line):
    if line not in (line.upper(), line.lower()):
        raise malformed("an identity in mixed case")
    prefix, _, data = line.lower().rpartition("1")
    values = [DIGITS.find(digit) for digit in data]
    if prefix != PREFIX or len(values) < 6 or -1 in values:
        raise malformed("no age identity")
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    if polymod(expanded + values) != 1:
        raise malformed("a mistyped identity")
    bits = "".join(f"{value:05b}" for value in values[:-6])
    whole, rest = bits[: len(bits) // 8 * 8], bits[len(bits) // 8 * 8 :]
    if len(whole) != 256 or "1" in rest or len(rest) > 4:
        raise malformed("an identity of another length")
    return int(whole, 2).to_bytes(32, "big")


def polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                check ^= generator
    return check
