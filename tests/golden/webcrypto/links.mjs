// A link: its record, chunks, packs and index, and the row that its owner keeps. All by WebCrypto but BLAKE3 and Argon2id.

import { webcrypto } from "node:crypto";
import { chunk } from "./objects.mjs";
import {
    Reader, Refused, SEAL_HEADER_LEN, SEAL_OVERHEAD, ascii, authentication, concat, decompress, hash, hkdf, load,
    malformed, same, u8, u64, unpad, unseal, x25519,
} from "./primitives.mjs";

const { argon2id } = load("@noble/hashes/argon2");
const { subtle } = webcrypto;

const LEN_MAX = 1 << 20;
const SIGNATURE_LEN = 64;
const TRAILER_LEN = 8 + SEAL_OVERHEAD;
const PIECE_LEN = 1n << 20n;
const DEPTH_MAX = 256;
const NONE = new Uint8Array();

const sha256 = async (bytes) => new Uint8Array(await subtle.digest("SHA-256", bytes));

/** What anyone can check, without a key. */
export async function record(link, number, data) {
    if (data.length > LEN_MAX || data.length < SIGNATURE_LEN) throw malformed("an impossible length");
    const [signed, signature] = [data.slice(0, -SIGNATURE_LEN), data.slice(-SIGNATURE_LEN)];
    const reader = new Reader(signed);
    if (!same(reader.raw(8), ascii("hushlnk1"))) throw malformed("another kind of object");
    const [kind, flags, owner] = [reader.u8(), reader.u8(), reader.raw(32)];
    const [said, expiry] = [reader.u64(), reader.u64()];
    const id = (await sha256(owner)).subarray(0, 16);
    if (!same(id, link) || said !== BigInt(number) || !(await isSigned(owner, signature, signed))) throw authentication();
    if ((kind === 1 ? flags !== 0 : kind !== 0 || flags > 1) || number === 0) throw malformed("an unknown kind");
    if (kind === 1) {
        reader.end();
        if (expiry !== 0n) throw malformed("a tombstone that holds something");
        return { link, number, tombstone: true };
    }
    const recipient = flags === 1 ? reader.raw(145) : null;
    const head = signed.subarray(0, reader.at);
    const sealed = reader.rest();
    if (sealed.length < SEAL_OVERHEAD) throw malformed("cut short");
    return { link, number, tombstone: false, expiry: expiry === 0n ? null : expiry, recipient, head, sealed };
}

async function isSigned(owner, signature, signed) {
    try {
        const key = await subtle.importKey("raw", owner, "Ed25519", false, ["verify"]);
        return await subtle.verify("Ed25519", key, signature, concat(ascii("hushfs/v1/link-record"), u8(0), signed));
    } catch {
        return false;
    }
}

export async function secretFor(found, half) {
    if (!found.recipient) throw authentication();
    const { own, exchange } = await x25519(half);
    const ephemeral = found.recipient.subarray(0, 32);
    const info = concat(ascii("hushfs/v1/exchange"), ephemeral, own);
    const shared = await hkdf(await exchange(ephemeral), NONE, info, 32);
    return unseal(shared, "link-secret", found.link, [], found.recipient.subarray(32));
}

const contentRoot = (secret) => hkdf(secret, NONE, ascii("hushfs/v1/link-content"), 32);

/** The header and the content root. */
export async function contents(found, secret, password) {
    const fields = [u64(found.number), found.head];
    const padded = await unseal(secret, "link-outer", found.link, fields, found.sealed);
    const reader = new Reader(unpad(padded, found.head.length + SEAL_OVERHEAD + SIGNATURE_LEN));
    const protection = reader.u8();
    if (protection === 0) return { ...header(reader.rest()), root: await contentRoot(secret) };
    if (protection !== 1) throw malformed("an unknown protection");
    const [m, t, p] = [reader.u32(), reader.u32(), reader.u32()];
    if (m < 65536 || m > 1 << 20 || t < 3 || t > 16 || p < 1 || p > 16) throw new Refused("parameters");
    const derived = argon2id(password, reader.raw(32), { m, t, p, version: 0x13, dkLen: 32 });
    const root = await contentRoot(concat(secret, derived));
    const inner = await unseal(root, "link-inner", found.link, [u64(found.number)], reader.rest()).catch((error) => {
        throw error.word === "authentication" ? new Refused("password") : error;
    });
    return { ...header(inner), root };
}

function header(inner) {
    const said = new Reader(inner);
    said.u8();
    if (said.varint() > LEN_MAX) throw malformed("a body over 1 MiB");
    const reader = new Reader(decompress(inner));
    const [title, published, kind] = [reader.name(), reader.time(), reader.u8()];
    if (kind !== 1 && kind !== 2) throw malformed("neither a file nor a directory");
    const [files, bytes] = [reader.varint(), reader.varint()];
    const index = reader.many(() => reference(reader));
    reader.end();
    if (index.length === 0) throw malformed("no index");
    return { title, published, directory: kind === 2, files, bytes, index };
}

function reference(reader, pack = reader.varint()) {
    if (pack === 0n) throw malformed("a pack that there cannot be");
    const [offset, len, id] = [reader.varint32(), reader.varint32(), reader.raw(32)];
    if (len < 1 || len > Number(PIECE_LEN)) throw malformed("an impossible chunk length");
    const frames = Array.from({ length: Math.ceil(len / 65536) }, () => reader.varint32());
    if (frames.some((frame) => frame < 18 || frame > 65553)) throw malformed("an impossible frame length");
    return { pack, offset, len, id, frames, sha256: reader.raw(32) };
}

/** The sealed bytes are the owner's before anything of them is opened. */
export async function linkChunk(link, root, found, data) {
    if (!same(await sha256(data), found.sha256)) throw authentication();
    const home = { kind: "link-chunk", purpose: "hushfs/v1/link-chunk-key" };
    const plain = await chunk(link, root, found.id, found.len, found.frames, data, home);
    if (!same(hash(plain), found.id)) throw authentication();
    return plain;
}

export async function pack(link, key, number, data) {
    if (data.length < TRAILER_LEN) throw malformed("cut short");
    const end = data.length - TRAILER_LEN;
    const offset = new Reader(await unseal(key, "link-pack-trailer", link, [u64(number)], data.subarray(end)));
    const start = Number(offset.u64());
    offset.end();
    if (start > end) throw malformed("a footer outside the pack");
    const sealed = data.subarray(start, end);
    const padded = await unseal(key, "link-pack-footer", link, [u64(number)], sealed);
    const reader = new Reader(unpad(padded, start + SEAL_OVERHEAD + TRAILER_LEN));
    const chunks = reader.many(() => reference(reader, BigInt(number)));
    reader.end();
    let at = 0;
    for (const { offset: from, frames } of chunks) {
        if (from < at) throw malformed("chunks that overlap");
        at = from + frames.reduce((sum, frame) => sum + frame, SEAL_HEADER_LEN);
    }
    if (at > start) throw malformed("a chunk outside the pack");
    return { footer_at: start, chunks };
}

export function index(title, directory, files, bytes, data) {
    const [reader, found, open] = [new Reader(data), [], []];
    let [number, seen_files, seen_bytes] = [0, 0n, 0n];
    for (; reader.left > 0; number += 1) {
        const [parent, name, type, executable] = [Number(reader.varint()), reader.name(), reader.u8(), reader.u8()];
        const mtime = reader.time();
        if (type < 1 || type > 3 || executable > (type === 1 ? 1 : 0)) throw malformed("an unknown type or flag");
        const [kind, pieces] = entryKind(reader, type, executable === 1);
        place(open, { number, parent, name, type }, { title, directory });
        found.push({ entry: number, parent, name, mtime, kind });
        if (type === 2 && open.push({ number, last: null }) > DEPTH_MAX) throw malformed("too deep");
        if (type !== 1) continue;
        [seen_files, seen_bytes] = [seen_files + 1n, seen_bytes + kind.size];
        found.push(...fileChunks(reader, kind, pieces));
    }
    const is_promised = seen_files === BigInt(files) && seen_bytes === BigInt(bytes);
    if (number === 0 || !is_promised) throw malformed("not the files that the record promised");
    return found;
}

function entryKind(reader, type, executable) {
    if (type === 2) return ["directory"];
    if (type === 3) {
        const target = reader.bytes();
        if (target.length < 1 || target.length > 4095 || target.includes(0)) throw malformed("an invalid target");
        return [{ target }];
    }
    const [size, chunks] = [reader.varint(), reader.varint()];
    const pieces = (size + PIECE_LEN - 1n) / PIECE_LEN;
    if (size >> 63n || chunks > pieces) throw malformed("an impossible size");
    return [{ size, executable, chunks }, pieces];
}

function place(open, { number, parent, name, type }, { title, directory }) {
    if (number === 0) {
        if (parent !== 0 || !same(name, title) || type !== (directory ? 2 : 1)) throw malformed("another first entry");
        return;
    }
    while (open.length > 0 && open.at(-1).number !== parent) open.pop();
    if (open.length === 0) throw malformed("a parent that is no open directory");
    const { last } = open.at(-1);
    if (last && Buffer.compare(last, name) >= 0) throw malformed("names that do not ascend");
    open.at(-1).last = name;
}

function fileChunks(reader, { size, chunks }, pieces) {
    let least = 0n;
    return Array.from({ length: Number(chunks) }, () => {
        const piece = reader.varint();
        if (piece < least || piece >= pieces) throw malformed("chunks that do not ascend within the file");
        const found = reference(reader);
        const rest = size - piece * PIECE_LEN;
        if (BigInt(found.len) !== (rest < PIECE_LEN ? rest : PIECE_LEN)) throw malformed("a chunk that does not fit");
        least = piece + 1n;
        return { piece, chunk: found };
    });
}

export function row(data) {
    const reader = new Reader(data);
    const flag = () => {
        const value = reader.u8();
        if (value > 1) throw malformed("neither yes nor no");
        return value === 1;
    };
    const found = { state: reader.u8(), inode: reader.varint(), path: reader.bytes(), title: reader.name() };
    Object.assign(found, { live: flag(), created: reader.time(), expiry: reader.varint(63n) });
    Object.assign(found, { newest: reader.varint(), files: reader.varint(), bytes: reader.varint(), keys: null });
    if (found.state > 2 || found.path.length > 4096) throw malformed("an impossible state or path");
    if (found.state < 2) {
        const [seed, secret] = [reader.raw(32), reader.raw(32)];
        const kdf = () => [reader.u32(), reader.u32(), reader.u32()];
        const protection = flag() ? { kdf: kdf(), salt: reader.raw(32), root: reader.raw(32) } : null;
        found.keys = { seed, secret, protection, recipient: flag() ? reader.raw(32) : null };
    }
    reader.end();
    return found;
}

/** An exported link. Its parts prove themselves elsewhere. */
export function box(data) {
    const reader = new Reader(data);
    if (!same(reader.raw(8), ascii("hushbox1"))) throw malformed("another kind of file");
    const own = reader.raw(reader.u64());
    const packs = new Map();
    while (reader.left > 0) {
        const number = Number(reader.u64());
        const pack = reader.raw(reader.u64());
        if (pack.length === 0 || packs.has(number)) throw malformed("a pack that is empty or there twice");
        packs.set(number, pack);
    }
    return { record: own, packs: [...packs] };
}
