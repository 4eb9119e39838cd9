// Numbers, SEAL, padding and compression by WebCrypto, as FORMAT.md has them. All cryptography that WebCrypto has is
// WebCrypto's; BLAKE3, Argon2id and the recovery words are the modules' of package.json.

import { webcrypto } from "node:crypto";
import { createRequire } from "node:module";

/** From where `npm ci` put the modules of package.json. */
const folder = process.env.HUSHFS_NODE_MODULES;
export const load = createRequire(folder ? `${folder}/of-package.json` : import.meta.url);
const { blake3 } = load("@noble/hashes/blake3");

const { subtle } = webcrypto;

export const SEAL_OVERHEAD = 81;
export const SEAL_HEADER_LEN = 65;
const BODY_LEN_MAX = 2 ** 30;
const LZ4_RATIO_MAX = 255;

/** What was read is not what it should be. `word` is one of those that the vectors use. */
export class Refused extends Error {
    constructor(word, why) {
        super(why ? `${word}: ${why}` : word);
        this.word = word;
    }
}

export const malformed = (why) => new Refused("malformed", why);
export const authentication = () => new Refused("authentication");

// Bytes and numbers

export const hex = (bytes) => Buffer.from(bytes).toString("hex");
export const unhex = (text) => new Uint8Array(Buffer.from(text, "hex"));
export const ascii = (text) => new TextEncoder().encode(text);
export const concat = (...parts) => new Uint8Array(Buffer.concat(parts));
export const hash = (bytes) => blake3(bytes);

const fixed = (len, write) => {
    const bytes = new Uint8Array(len);
    write(new DataView(bytes.buffer));
    return bytes;
};
export const u8 = (n) => Uint8Array.of(n);
export const u16 = (n) => fixed(2, (view) => view.setUint16(0, n, true));
export const u32 = (n) => fixed(4, (view) => view.setUint32(0, n, true));
export const u64 = (n) => fixed(8, (view) => view.setBigUint64(0, BigInt(n), true));

export function same(a, b) {
    return a.length === b.length && a.reduce((difference, byte, at) => difference | (byte ^ b[at]), 0) === 0;
}

export class Reader {
    constructor(data) {
        this.data = data;
        this.at = 0;
    }

    get left() {
        return this.data.length - this.at;
    }

    raw(n) {
        if (n > this.left) throw malformed("cut short");
        this.at += Number(n);
        return this.data.subarray(this.at - Number(n), this.at);
    }

    u8() {
        return this.raw(1)[0];
    }

    u16() {
        return this.u8() | (this.u8() << 8);
    }

    u32() {
        return this.u16() + this.u16() * 65536;
    }

    u64() {
        return BigInt(this.u32()) | (BigInt(this.u32()) << 32n);
    }

    /** A BigInt, as a double holds 53 bits only. */
    varint(bits = 64n) {
        let value = 0n;
        for (let shift = 0n; shift < 64n; shift += 7n) {
            const byte = this.u8();
            value |= BigInt(byte & 0x7f) << shift;
            if (byte < 0x80) {
                if (value >> bits || (byte === 0 && shift > 0n)) break;
                return value;
            }
        }
        throw malformed("a number that is too large or too long");
    }

    varint32() {
        return Number(this.varint(32n));
    }

    /** Of things that take a byte at least. */
    count() {
        const count = this.varint();
        if (count > this.left) throw malformed("a count beyond the end");
        return Number(count);
    }

    many(read) {
        return Array.from({ length: this.count() }, read);
    }

    signed() {
        const value = this.varint();
        return (value >> 1n) ^ -(value & 1n);
    }

    time() {
        const time = [this.signed(), this.varint()];
        if (time[1] > 999_999_999n) throw malformed("a second or more of nanoseconds");
        return time;
    }

    bytes() {
        return this.raw(this.varint());
    }

    name() {
        const name = this.bytes();
        const text = Buffer.from(name).toString("latin1");
        if (!/^[^/\0]{1,255}$/s.test(text) || text === "." || text === "..") throw malformed("an invalid name");
        return name;
    }

    rest() {
        return this.raw(this.left);
    }

    end() {
        if (this.left > 0) throw malformed("bytes after the end");
    }
}

// SEAL

export async function hkdf(secret, salt, info, len) {
    const key = await subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
    return new Uint8Array(await subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, 8 * len));
}

export const context = (volume, fields) => concat(...[volume, ...fields].flatMap((field) => [u32(field.length), field]));

async function derive(key, kind, ctx, salt) {
    const info = concat(ascii("hushfs/v1/"), ascii(kind), u8(1), u32(ctx.length), ctx);
    const bytes = await hkdf(key, salt, info, 76);
    return { ek: bytes.subarray(0, 32), commitment: bytes.subarray(32, 64), nonce: bytes.subarray(64) };
}

/** What decrypts, once suite and commitment are right. */
export async function openHeader(key, kind, ctx, sealed) {
    if (sealed.length < SEAL_HEADER_LEN) throw authentication();
    const derived = await derive(key, kind, ctx, sealed.subarray(1, 33));
    if (sealed[0] !== 1 || !same(derived.commitment, sealed.subarray(33, 65))) throw authentication();
    return derived;
}

export async function gcmOpen(ek, nonce, sealed, aad) {
    const key = await subtle.importKey("raw", ek, "AES-GCM", false, ["decrypt"]);
    try {
        return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv: nonce, additionalData: aad }, key, sealed));
    } catch {
        throw authentication();
    }
}

export async function unseal(key, kind, volume, fields, sealed) {
    const ctx = context(volume, fields);
    const { ek, nonce } = await openHeader(key, kind, ctx, sealed);
    return gcmOpen(ek, nonce, sealed.subarray(SEAL_HEADER_LEN), ctx);
}

/** What a writer with these 32 random bytes makes of it. */
export async function seal(key, kind, volume, fields, plain, random) {
    const mac = await subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const salt = new Uint8Array(await subtle.sign("HMAC", mac, concat(random, plain)));
    const ctx = context(volume, fields);
    const { ek, commitment, nonce } = await derive(key, kind, ctx, salt);
    const aes = await subtle.importKey("raw", ek, "AES-GCM", false, ["encrypt"]);
    const body = await subtle.encrypt({ name: "AES-GCM", iv: nonce, additionalData: ctx }, aes, plain);
    return concat(u8(1), salt, commitment, new Uint8Array(body));
}

/** The volume's id, and the root of each epoch that is known. */
export class Roots {
    constructor(volume, roots) {
        this.volume = volume;
        this.roots = roots;
    }

    root(epoch) {
        if (!(epoch in this.roots)) throw new Refused("unknown epoch", `${epoch}`);
        return this.roots[epoch];
    }

    unseal(epoch, kind, fields, sealed) {
        return unseal(this.root(epoch), kind, this.volume, fields, sealed);
    }
}

// X25519: WebCrypto takes a private half as PKCS #8 and gives the public one as JWK.

const PKCS8 = unhex("302e020100300506032b656e04220420");

/** The public half, and a function from a public half to the secret that both share. */
export async function x25519(half) {
    const key = await subtle.importKey("pkcs8", concat(PKCS8, half), "X25519", true, ["deriveBits"]);
    const own = new Uint8Array(Buffer.from((await subtle.exportKey("jwk", key)).x, "base64url"));
    const exchange = async (other) => {
        const theirs = await subtle.importKey("raw", other, "X25519", false, []);
        try {
            const shared = new Uint8Array(await subtle.deriveBits({ name: "X25519", public: theirs }, key, 256));
            if (shared.some((byte) => byte !== 0)) return shared;
        } catch {
            // A half of low order.
        }
        throw authentication();
    };
    return { own, exchange };
}

// Padding and compression

export function paddedLen(n) {
    if (n <= 4096) return 4096;
    const e = Math.floor(Math.log2(n));
    const unit = 2 ** (e - (Math.floor(Math.log2(e)) + 1));
    return Math.ceil(n / unit) * unit;
}

/** `around`: what the object has beside this plaintext. */
export function unpad(padded, around) {
    if (padded.length < 8) throw malformed("cut short");
    const inside = padded.length - 8;
    const length = new Reader(padded.subarray(inside)).u64();
    if (length > inside) throw malformed("a true length beyond the end");
    const is_zeros = padded.subarray(Number(length), inside).every((byte) => byte === 0);
    if (!is_zeros || padded.length + around !== paddedLen(Number(length) + 8 + around)) {
        throw malformed("padding that is not the one its length has");
    }
    return padded.subarray(0, Number(length));
}

export function decompress(data) {
    const reader = new Reader(data);
    const [codec, length] = [reader.u8(), Number(reader.varint())];
    return plainOf(codec, reader.rest(), length, malformed("a broken body"));
}

/** `data` as codec 0 or 1 has it, of just that length, or `error`. */
export function plainOf(codec, data, length, error) {
    if (codec === 0 && data.length === length) return data;
    if (codec !== 1 || length > BODY_LEN_MAX || length > LZ4_RATIO_MAX * data.length) throw error;
    const plain = lz4(data, length);
    if (plain === null) throw error;
    return plain;
}

/** One lz4 block of `length` bytes, or null. */
function lz4(data, length) {
    const out = new Uint8Array(length);
    let [at, filled] = [0, 0];
    const more = (nibble) => {
        let len = nibble;
        if (nibble === 15) {
            let byte;
            do {
                byte = data[at++];
                len += byte;
            } while (byte === 255);
        }
        return len;
    };
    while (at < data.length) {
        const token = data[at++];
        const literals = more(token >> 4);
        // Also when `more` ran past the end: then it is not a number.
        if (!(at + literals <= data.length && filled + literals <= length)) return null;
        out.set(data.subarray(at, at + literals), filled);
        at += literals;
        filled += literals;
        if (at === data.length) break;
        const offset = data[at] | (data[at + 1] << 8);
        at += 2;
        const match = more(token & 15) + 4;
        if (!(at <= data.length && offset > 0 && offset <= filled && filled + match <= length)) return null;
        // Byte by byte, as a match may reach into what it writes.
        for (const end = filled + match; filled < end; filled++) out[filled] = out[filled - offset];
    }
    return filled === length ? out : null;
}
