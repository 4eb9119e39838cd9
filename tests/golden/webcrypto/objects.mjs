// What is in the store and in a state folder. Each opener takes the place an object was found at, which its seal binds.

import {
    Reader, Refused, SEAL_HEADER_LEN, SEAL_OVERHEAD, ascii, authentication, concat, context, decompress, gcmOpen, hash,
    hex, hkdf, load, malformed, openHeader, plainOf, same, u16, u32, u64, u8, unpad, unseal, x25519,
} from "./primitives.mjs";

const { argon2id } = load("@noble/hashes/argon2");

const TRAILER_LEN = 8 + SEAL_OVERHEAD;
const PACK_TRAILER_LEN = 4 + TRAILER_LEN;
const FRAME_LEN = 65536;

const ascending = (keys) => keys.every((key, at) => at === 0 || Buffer.compare(keys[at - 1], key) < 0);
const ascendingNumbers = (numbers) => numbers.every((number, at) => at === 0 || numbers[at - 1] < number);

function magic(data, text, len = 8) {
    if (data.length < len || !same(data.subarray(0, 8), ascii(text))) throw malformed("another kind of object");
    return new Reader(data.subarray(8));
}

async function enveloped(roots, data, text, kind, number) {
    const reader = magic(data, text, 12);
    const epoch = reader.u32();
    const plain = await roots.unseal(epoch, kind, [u32(epoch), u64(number)], reader.rest());
    return [epoch, unpad(plain, 12 + SEAL_OVERHEAD)];
}

function key32(bytes) {
    if (bytes.length !== 32) throw authentication();
    return bytes;
}

// Volume, slots, keys

export function volumeId(data) {
    const reader = magic(data, "hushvol1");
    if (reader.u32() !== 1) throw malformed("another format");
    return reader.raw(16);
}

export async function volumeParameters(roots, data) {
    const sealed = data.subarray(28);
    const reader = new Reader(unpad(await roots.unseal(0, "volume-parameters", [u32(1)], sealed), 28 + SEAL_OVERHEAD));
    const [flags, created] = [reader.u8(), reader.time()];
    reader.end();
    if (flags > 1) throw malformed("an unknown flag");
    return { created, single_device: flags === 1 };
}

export const fingerprint = (data) => hex(hash(data)).slice(0, 32).match(/.{4}/g).join("-");

export function parseSlot(data) {
    const reader = magic(data, "hushslt1");
    const slot = { kind: reader.u8() };
    if (slot.kind < 1 || slot.kind > 3) throw malformed("an unknown kind of slot");
    if (slot.kind === 1) {
        slot.kdf = { m: reader.u32(), t: reader.u32(), p: reader.u32() };
        slot.salt = reader.raw(32);
    }
    reader.time();
    slot.head = data.subarray(0, 8 + reader.at);
    slot.private = reader.raw(slot.kind === 3 ? 16 : 113);
    slot.root = reader.raw(145);
    slot.details = reader.rest();
    return slot;
}

export function passwordSecret(slot, password) {
    const { m, t, p } = slot.kdf;
    if (m < 65536 || m > 4 << 20 || t < 3 || t > 64 || p < 1 || p > 64) throw new Refused("parameters");
    return argon2id(password, slot.salt, { m, t, p, version: 0x13, dkLen: 32 });
}

const BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/** The 32 bytes of a line `AGE-SECRET-KEY-1…`: Bech32 (BIP 173). */
export function identitySecret(line) {
    const [, kind, rest] = /^(.*)1([^1]*)$/.exec(line.toLowerCase()) ?? [];
    const values = [...(rest ?? "")].map((digit) => BECH32.indexOf(digit));
    if (kind !== "age-secret-key-" || values.includes(-1)) throw malformed("not an identity");
    const codes = [...ascii(kind)];
    const expanded = [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31), ...values];
    const generator = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
    const checksum = expanded.reduce((sum, value) => {
        const shifted = ((sum & 0x1ffffff) << 5) ^ value;
        return generator.reduce((all, part, bit) => ((sum >> (25 + bit)) & 1 ? all ^ part : all), shifted);
    }, 1);
    const bits = values.slice(0, -6).map((value) => value.toString(2).padStart(5, "0")).join("");
    const bytes = (bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2));
    if (checksum !== 1 || bytes.length !== 32) throw malformed("not an identity");
    return Uint8Array.from(bytes);
}

/** Root and label. `secret` is from the password, or is what the words are, or a recipient's private half. */
export async function openSlot(volume, epoch, number, slot, secret) {
    const place = [u16(number), slot.head];
    const half = slot.kind === 3 ? secret : await unseal(secret, "slot-private", volume, place, slot.private);
    const { own, exchange } = await x25519(key32(half));
    const ephemeral = slot.root.subarray(0, 32);
    const info = concat(ascii("hushfs/v1/exchange"), ephemeral, own);
    const shared = await hkdf(await exchange(ephemeral), u8(0).subarray(1), info, 32);
    const fields = [u32(epoch), ...place, slot.private];
    const root = key32(await unseal(shared, "slot-root", volume, fields, slot.root.subarray(32)));
    const padded = await unseal(root, "slot-details", volume, [...fields, slot.root], slot.details);
    const around = slot.head.length + slot.private.length + slot.root.length + SEAL_OVERHEAD;
    const reader = new Reader(unpad(padded, around));
    const [public_half, label] = [reader.raw(32), reader.bytes()];
    reader.end();
    if (label.length > 255) throw malformed("a label over 255 bytes");
    if (!same(public_half, own)) throw authentication();
    return { root, label: new TextDecoder("utf-8", { fatal: true }).decode(label) };
}

export async function link(volume, epoch, root, data) {
    const reader = magic(data, "hushchn1");
    if (reader.u32() !== epoch) throw malformed("of another epoch");
    const plain = await unseal(root, "epoch-chain", volume, [u32(epoch)], reader.rest());
    const body = new Reader(unpad(plain, 12 + SEAL_OVERHEAD));
    const found = { older: body.u32(), root: body.raw(32), ended_at: body.varint(), ended_hash: body.raw(32) };
    body.end();
    if (found.older >= epoch) throw malformed("an older epoch that is not older");
    return found;
}

export const fileKey = async (roots, epoch, number, wrapped) =>
    key32(await roots.unseal(epoch, "file-key", [u32(epoch), u64(number)], wrapped));

// Log, floors, checkpoints

export async function record(roots, seq, data) {
    const [epoch, body] = await enveloped(roots, data, "hushlog1", "record", seq);
    const reader = new Reader(decompress(body));
    const kind = reader.u8();
    if (kind > 1) throw malformed("an unknown kind of record");
    const found = {
        epoch,
        prev: reader.raw(32),
        commit_id: reader.raw(16),
        slot: reader.u16(),
        incarnation: reader.raw(16),
        high_water: reader.varint(),
        high_water_hash: reader.raw(32),
        time: reader.time(),
        rows: reader.many(() => {
            const [key, len] = [reader.bytes(), reader.varint()];
            return [key, len === 0n ? null : reader.raw(len - 1n)];
        }),
        next: kind === 1 ? [reader.u32(), reader.raw(32)] : null,
    };
    reader.end();
    if (!ascending(found.rows.map(([key]) => key))) throw malformed("rows out of order");
    if (found.next && found.next[0] <= epoch) throw malformed("an epoch that does not follow");
    return found;
}

export async function floor(roots, number, data) {
    const [epoch, body] = await enveloped(roots, data, "hushflr1", "floor", number);
    const reader = new Reader(body);
    const found = { epoch, seq: reader.varint(), checkpoint: reader.varint(), checkpoint_hash: reader.raw(32) };
    reader.end();
    if (found.seq > found.checkpoint + 1n) throw malformed("a gap between the checkpoint and the log");
    return found;
}

export async function manifest(roots, seq, data) {
    const [epoch, body] = await enveloped(roots, data, "hushckp1", "manifest", seq);
    const reader = new Reader(decompress(body));
    const found = {
        epoch,
        head: reader.raw(32),
        segments: reader.many(() => ({
            id: reader.raw(16),
            first: reader.bytes(),
            last: reader.bytes(),
            rows: reader.varint(),
            len: reader.varint(),
            hash: reader.raw(32),
        })),
        high_water: reader.many(() => [reader.raw(16), reader.varint(), reader.raw(32)]),
        past: reader.many(() => [reader.varint(), reader.raw(32)]),
    };
    reader.end();
    const ranges = found.segments.every(
        ({ first, last, rows }, at, all) =>
            rows > 0n &&
            Buffer.compare(first, last) <= 0 &&
            (at === 0 || Buffer.compare(all[at - 1].last, first) < 0),
    );
    if (!ranges) throw malformed("segments out of order");
    if (!ascending(found.high_water.map(([incarnation]) => incarnation))) throw malformed("incarnations out of order");
    if (!ascendingNumbers([...found.past.map(([at]) => at), BigInt(seq)])) throw malformed("past heads out of order");
    return found;
}

/** The rows of each block. */
export async function segment(roots, meta, data) {
    if (data.length !== meta.len || !same(hash(data), meta.hash)) throw authentication();
    const epoch = magic(data, "hushseg1", 12 + TRAILER_LEN).u32();
    const fields = [u32(epoch), meta.id];
    const end = data.length - TRAILER_LEN;
    const start = trailer(await roots.unseal(epoch, "segment-trailer", fields, data.subarray(end)), 12, end);
    const padded = await roots.unseal(epoch, "segment-index", fields, data.subarray(start, end));
    const reader = new Reader(unpad(padded, start + SEAL_OVERHEAD + TRAILER_LEN));
    const index = reader.many(() => ({ first: reader.bytes(), rows: reader.varint(), len: Number(reader.varint()) }));
    const last = reader.bytes();
    reader.end();
    const is_the_manifests =
        index.length > 0 &&
        same(index[0].first, meta.first) &&
        same(last, meta.last) &&
        12 + index.reduce((sum, block) => sum + block.len, 0) === start &&
        index.reduce((sum, block) => sum + block.rows, 0n) === BigInt(meta.rows);
    if (!is_the_manifests) throw malformed("an index that is not the manifest's");
    const blocks = [];
    let at = 12;
    for (const [number, { first, rows, len }] of index.entries()) {
        const place = [...fields, u32(number), u8(number + 1 === index.length ? 1 : 0)];
        const plain = decompress(await roots.unseal(epoch, "segment-block", place, data.subarray(at, at + len)));
        const found = blockRows(plain);
        if (BigInt(found.length) !== rows || !same(found[0][0], first)) throw malformed("a block outside its range");
        blocks.push(found);
        at += len;
    }
    const keys = blocks.flat().map(([key]) => key);
    if (!ascending(keys) || !same(keys.at(-1), last)) throw malformed("rows out of order");
    return blocks;
}

function blockRows(plain) {
    const [reader, rows] = [new Reader(plain), []];
    while (reader.left > 0) rows.push([reader.bytes(), reader.bytes()]);
    if (rows.length === 0) throw malformed("a block without rows");
    return rows;
}

/** An offset within `least` and `most`. */
function trailer(plain, least, most) {
    const reader = new Reader(plain);
    const at = Number(reader.u64());
    reader.end();
    if (at < least || at > most) throw malformed("outside the object");
    return at;
}

// Packs and chunks

export async function pack(roots, incarnation, number, data) {
    const end = data.length - PACK_TRAILER_LEN;
    if (end < 0) throw malformed("cut short");
    const tail = new Reader(data.subarray(end));
    const epoch = tail.u32();
    const name = [u32(epoch), incarnation, u64(number)];
    const start = trailer(await roots.unseal(epoch, "pack-trailer", name, tail.rest()), 0, end);
    const plain = await roots.unseal(epoch, "pack-footer", name, data.subarray(start, end));
    const reader = new Reader(unpad(plain, start + SEAL_OVERHEAD + PACK_TRAILER_LEN));
    const entries = reader.many(() => [reader.varint(), reader.varint32(), reader.varint32()]);
    reader.end();
    let at = 0;
    for (const [, offset, len] of entries) {
        if (offset < at) throw malformed("chunks that overlap");
        at = offset + len;
    }
    if (at > start) throw malformed("a chunk outside the pack");
    return { epoch, footer_at: start, entries };
}

/** Whose chunk it is: the kind in its context, and what its key is derived for. */
const OF_VOLUME = { kind: "chunk", purpose: "hushfs/v1/chunk-key" };

export async function chunk(volume, file_key, id, len, frames, data, home = OF_VOLUME) {
    const key = await hkdf(file_key, u8(0).subarray(1), concat(ascii(home.purpose), id), 32);
    const ctx = context(volume, [id]);
    const { ek, nonce } = await openHeader(key, home.kind, ctx, data);
    const total = frames.reduce((sum, frame) => sum + frame, SEAL_HEADER_LEN);
    if (data.length !== total || frames.length !== Math.ceil(len / FRAME_LEN)) throw authentication();
    const plain = [];
    let at = SEAL_HEADER_LEN;
    for (const [index, sealed_len] of frames.entries()) {
        const own = new Uint8Array(nonce);
        const view = new DataView(own.buffer);
        view.setUint32(8, view.getUint32(8) ^ index);
        if (index + 1 === frames.length) own[0] ^= 0x80;
        const frame = await gcmOpen(ek, own, data.subarray(at, at + sealed_len), ctx);
        const expected = Math.min(FRAME_LEN, len - FRAME_LEN * index);
        plain.push(plainOf(frame[0], frame.subarray(1), expected, authentication()));
        at += sealed_len;
    }
    return concat(...plain);
}

// A state folder

export async function stateKey(roots, data) {
    const reader = magic(data, "hushstk1");
    const epoch = reader.u32();
    return { epoch, key: key32(await roots.unseal(epoch, "state-key", [u32(epoch), u8(0).subarray(1)], reader.rest())) };
}

export const stateFile = (key, volume, name, data) => unseal(key, "state-file", volume, [name], data);

export async function journalFrame(key, volume, data) {
    const header = new Reader(data);
    if (!same(header.raw(4), ascii("hjf1"))) throw malformed("another kind of file");
    const [len, number] = [header.u32(), header.u64()];
    if (len < SEAL_OVERHEAD) throw malformed("cut short");
    const plain = await unseal(key, "journal-frame", volume, [u64(number)], header.raw(len));
    const reader = new Reader(plain);
    const found = { number, incarnation: reader.raw(16), first: reader.varint(), chain_before: reader.raw(32) };
    let chain = found.chain_before;
    found.intents = reader.many(() => {
        const [start, inline] = [reader.at, []];
        intent(reader, inline);
        const bytes = plain.subarray(start, reader.at);
        // The chain hashes all but the bytes of inline data.
        const ends = [start, ...inline.flat(), reader.at];
        const kept = ends.flatMap((from, at) => (at % 2 ? [] : [plain.subarray(from, ends[at + 1])]));
        chain = hash(concat(chain, ...kept));
        return bytes;
    });
    reader.end();
    return { ...found, chain_after: chain };
}

/** Goes over one intent; `inline` gets where inline data begins and ends. */
function intent(reader, inline) {
    const numbers = (count) => Array.from({ length: count }, () => reader.varint());
    const entry = () => [reader.varint(), reader.name()];
    const optional = (read) => {
        const present = reader.u8();
        if (present > 1) throw malformed("neither absent nor present");
        if (present) read();
    };
    const time = () => reader.time();
    const kinds = {
        1: () => [entry(), numbers(5), time(), reader.bytes()],
        2: () => [reader.varint(), entry(), time()],
        3: () => [entry(), reader.varint(), time()],
        4: () => [reader.varint(), entry(), entry(), reader.varint(), time()],
        5: () => [entry(), reader.varint(), entry(), reader.varint(), time()],
        6: () => {
            reader.varint();
            for (const read of [() => reader.varint32(), () => reader.varint32(), () => reader.varint32(), time, time]) {
                optional(read);
            }
            time();
        },
        7: () => [reader.varint(), reader.bytes(), reader.u8(), reader.bytes(), time()],
        8: () => [numbers(3), time(), time(), reader.varint(), reader.many(() => change(reader, inline))],
        9: () => [reader.bytes(), reader.bytes()],
        10: () => [reader.raw(16), reader.varint(), reader.many(() => [numbers(2), time()])],
        11: () => numbers(2),
    };
    const read = kinds[reader.u8()];
    if (!read) throw malformed("an unknown intent");
    read();
}

function change(reader, inline) {
    const kind = reader.u8();
    if (kind === 1) {
        reader.varint();
        const data = reader.bytes();
        inline.push([reader.at - data.length, reader.at]);
    } else if (kind === 2 || kind === 3) {
        for (let field = 0; field < (kind === 2 ? 4 : 2); field++) reader.varint();
    } else {
        throw malformed("an unknown change");
    }
}
