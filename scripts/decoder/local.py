"""What is in a state folder: journal frames, its key, its files."""

from .primitives import Reader, blake3, malformed, u32, u64, unseal


def state_key(roots, data):
    reader = Reader(data)
    if reader.raw(8) != b"hushstk1":
        raise malformed("another kind of file")
    epoch = reader.u32()
    return epoch, roots.unseal(epoch, "state-key", [u32(epoch), b""], reader.rest())


def state_file(key, volume, name, data):
    return unseal(key, "state-file", volume, [name], data)


def journal_frame(key, volume, data):
    """Frame number, incarnation, first intent, chain before and after, and the intents' bytes."""
    reader = Reader(data)
    if reader.raw(4) != b"hjf1":
        raise malformed("another kind of file")
    length, number = reader.u32(), reader.u64()
    if length < 81:
        raise malformed("cut short")
    reader = Reader(unseal(key, "journal-frame", volume, [u64(number)], reader.raw(length)))
    incarnation, first, before = reader.raw(16), reader.varint(), reader.raw(32)
    chain, intents = before, []
    for _ in range(reader.count()):
        encoded, outline = intent(reader)
        intents.append(encoded)
        chain = blake3(chain + outline).digest()
    reader.end()
    return number, incarnation, first, before, chain, intents


def intent(reader):
    """Goes over one intent: its bytes, and those that the chain hashes."""
    start, inline = reader.at, []

    def entry():
        reader.varint(), reader.name()

    def optional(read):
        present = reader.u8()
        if present > 1:
            raise malformed("neither absent nor present")
        if present:
            read()

    kind = reader.u8()
    if kind == 1:
        entry(), [reader.varint() for _ in range(5)], reader.time(), reader.bytes()
    elif kind == 2:
        reader.varint(), entry(), reader.time()
    elif kind == 3:
        entry(), reader.varint(), reader.time()
    elif kind == 4:
        reader.varint(), entry(), entry(), reader.varint(), reader.time()
    elif kind == 5:
        entry(), reader.varint(), entry(), reader.varint(), reader.time()
    elif kind == 6:
        reader.varint(), [optional(reader.varint32) for _ in range(3)], [optional(reader.time) for _ in range(2)]
        reader.time()
    elif kind == 7:
        reader.varint(), reader.bytes(), reader.u8(), reader.bytes(), reader.time()
    elif kind == 8:
        [reader.varint() for _ in range(3)], reader.time(), reader.time(), reader.varint()
        for _ in range(reader.count()):
            change(reader, inline)
    elif kind == 9:
        reader.bytes(), reader.bytes()
    elif kind == 10:
        reader.varint(), reader.varint()
    else:
        raise malformed("an unknown intent")
    kept, at = b"", start
    for begin, end in inline:
        kept, at = kept + reader.data[at:begin], end
    return reader.data[start : reader.at], kept + reader.data[at : reader.at]


def change(reader, inline):
    kind = reader.u8()
    if kind == 1:
        reader.varint()
        data = reader.bytes()
        inline.append((reader.at - len(data), reader.at))
    elif kind == 2:
        [reader.varint() for _ in range(4)]
    elif kind == 3:
        [reader.varint() for _ in range(2)]
    else:
        raise malformed("an unknown change")
