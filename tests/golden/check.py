#!/usr/bin/env python3
"""Opens the golden vectors with the decoder that goes by FORMAT.md and shares no code with the program.

Needs: pip install -r scripts/decode-requirements.txt
Use:   python3 check.py          every vector and every failure in this folder
       python3 check.py record   one of them, with what it opens to
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))

from decoder import age, local, objects, primitives  # noqa: E402
from mnemonic import Mnemonic  # noqa: E402


def h(place, field):
    return bytes.fromhex(place[field])


def roots(place):
    """Epochs 0 and 1 with one root, so that only the context tells them apart."""
    return primitives.Roots(h(place, "volume"), {0: h(place, "root"), 1: h(place, "root")})


def seal(place, data):
    fields = [bytes.fromhex(f) for f in place["id"]]
    return {"plain": primitives.unseal(h(place, "key"), "record", h(place, "volume"), fields, data).hex()}


def file_key(place, data):
    return {"key": objects.file_key(roots(place), place["epoch"], place["key_number"], data).hex()}


def chunk(place, data):
    volume, key = h(place, "volume"), h(place, "file_key")
    plain = objects.chunk(volume, key, h(place, "id"), place["len"], place["frames"], data)
    return {"blake3": primitives.object_hash(plain).hex(), "len": len(plain)}


def pack(place, data):
    def read(offset, length):
        return data[offset : offset + length]

    own = (h(place, "incarnation"), place["number"])
    epoch, start, entries = objects.pack(roots(place), *own, len(data), read)
    return {"epoch": epoch, "footer_at": start, "entries": [list(entry) for entry in entries]}


def volume(place, data):
    own = objects.volume_id(data)
    parameters = objects.volume_parameters(primitives.Roots(own, {0: h(place, "root")}), data)
    return {
        "volume": own.hex(),
        "fingerprint": objects.fingerprint(data),
        "created": list(parameters.created),
        "single_device": parameters.single_device,
    }


def slot(place, data):
    found = objects.parse_slot(data)
    kinds = {objects.PASSWORD: "password", objects.RECOVERY: "words", objects.RECIPIENT: "identity"}
    if kinds[found.kind] not in place:
        raise primitives.malformed("another kind of slot")
    if found.kind == objects.PASSWORD:
        secret = objects.password_secret(found, place["password"].encode())
    elif found.kind == objects.RECOVERY:
        secret = bytes(Mnemonic("english").to_entropy(place["words"]))
    else:
        secret = age.identity(place["identity"])
    root, label = objects.open_slot(h(place, "volume"), place["epoch"], place["slot"], found, secret)
    return {"epoch": place["epoch"], "root": root.hex(), "label": label}


def record(place, data):
    found = objects.record(roots(place), place["seq"], data)
    return {
        "hash": primitives.object_hash(data).hex(),
        "epoch": found.epoch,
        "prev": found.prev.hex(),
        "commit_id": found.commit_id.hex(),
        "slot": found.slot,
        "incarnation": found.incarnation.hex(),
        "high_water": found.high_water,
        "high_water_hash": found.high_water_hash.hex(),
        "time": list(found.time),
        "rows": [[key.hex(), None if value is None else value.hex()] for key, value in found.rows],
    }


def record_rotation(place, data):
    epoch, commitment = objects.record(roots(place), place["seq"], data).next
    return record(place, data) | {"next": [epoch, commitment.hex()]}


def epoch_link(place, data):
    found = objects.link(h(place, "volume"), place["epoch"], h(place, "root"), data)
    return {"older": found.older, "root": found.root.hex(), "ended_at": found.seq, "ended_hash": found.hash.hex()}


def floor(place, data):
    found = objects.floor(roots(place), place["number"], data)
    return found._asdict() | {"checkpoint_hash": found.checkpoint_hash.hex()}


def segment(place, data):
    meta = place["meta"]
    values = (bytes.fromhex(value) if isinstance(value, str) else value for value in meta.values())
    meta = objects.SegmentMeta(**dict(zip(meta, values)))
    blocks = objects.segment(roots(place), meta, data)
    return {"blocks": [[[key.hex(), primitives.object_hash(value).hex()] for key, value in rows] for rows in blocks]}


def manifest(place, data):
    found = objects.manifest(roots(place), place["seq"], data)

    def texts(values):
        return [value.hex() if isinstance(value, bytes) else value for value in values]

    return {
        "epoch": found.epoch,
        "head": found.head.hex(),
        "segments": [dict(zip(meta._fields, texts(meta))) for meta in found.segments],
        "high_water": [texts(entry) for entry in found.high_water],
        "past": [texts(entry) for entry in found.past],
    }


def journal_frame(place, data):
    frame = local.journal_frame(h(place, "state_key"), h(place, "volume"), data)
    number, incarnation, first, before, after, intents = frame
    return {
        "number": number,
        "incarnation": incarnation.hex(),
        "first": first,
        "chain_before": before.hex(),
        "intents": [intent.hex() for intent in intents],
        "chain_after": after.hex(),
    }


def journal_file_key(place, data):
    return journal_frame(place, data)


def state_key(place, data):
    epoch, key = local.state_key(roots(place), data)
    return {"epoch": epoch, "key": key.hex()}


def state_file(place, data):
    plain = local.state_file(h(place, "state_key"), h(place, "volume"), place["name"].encode(), data)
    return {"plain": plain.hex()}


def outcome(name, place, data):
    reader = slot if name.startswith("slot-") else globals()[name.replace("-", "_")]
    try:
        return reader(place, data)
    except primitives.Refused as refused:
        return refused.word


def check(path, is_shown):
    vector = json.loads(path.read_text())
    name, data, wrong = vector["object"], bytes.fromhex(vector["bytes"]), 0
    opened = outcome(name, vector["place"], data)
    if is_shown:
        print(json.dumps(opened, indent=2))
    if opened != vector["opened"]:
        wrong += 1
        print(f"{name}: opened to {opened}")
    for case in vector["failures"]:
        changed = bytearray(data[: case.get("cut_to", len(data))])
        if "flip_bit" in case:
            changed[case["flip_bit"] // 8] ^= 1 << case["flip_bit"] % 8
        result = outcome(name, vector["place"] | case.get("place", {}), bytes(changed))
        if result != case["error"]:
            wrong += 1
            print(f"{name}: {case}: {result}")
    print(f"{name}: {1 + len(vector['failures'])} checks, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    chosen = [HERE / f"{name}.json" for name in sys.argv[1:]] or sorted(HERE.glob("*.json"))
    sys.exit(1 if sum(check(path, len(sys.argv) > 1) for path in chosen) else 0)
