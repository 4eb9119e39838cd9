// Opens the golden vectors by WebCrypto, in a third reader that shares no code with the other two and goes by FORMAT.md.
//
// Needs: npm ci, here or in the folder whose node_modules HUSHFS_NODE_MODULES names
// Use:   node --no-warnings check.mjs          every vector and every failure
//        node --no-warnings check.mjs record   one of them, with what it opens to

import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import * as links from "./links.mjs";
import * as objects from "./objects.mjs";
import { Refused, Roots, ascii, hash, hex, load, malformed, seal, unhex, unseal } from "./primitives.mjs";

const { mnemonicToEntropy } = load("@scure/bip39");
const { wordlist } = load("@scure/bip39/wordlists/english");

/** Epochs 0 and 1 with one root, so that only the context tells them apart. */
const roots = (place) => new Roots(unhex(place.volume), { 0: unhex(place.root), 1: unhex(place.root) });

async function linkRecord(place, data) {
    const found = await links.record(unhex(place.link), place.number, data);
    if (found.tombstone) return { tombstone: true };
    const secret = place.identity ? await links.secretFor(found, unhex(place.identity)) : unhex(place.secret);
    const opened = await links.contents(found, secret, place.password && ascii(place.password));
    return { tombstone: false, expiry: found.expiry, ...opened };
}

const readers = {
    "link-record": linkRecord,
    "link-tombstone": linkRecord,
    "link-record-costly": async (place, data) => {
        try {
            return await linkRecord(place, data);
        } catch (error) {
            return { refused: error.word };
        }
    },
    async "link-chunk"(place, data) {
        const found = { ...place, id: unhex(place.id), sha256: unhex(place.sha256) };
        const plain = await links.linkChunk(unhex(place.link), unhex(place.root), found, data);
        return { blake3: hash(plain), len: plain.length };
    },
    "link-pack": (place, data) => links.pack(unhex(place.link), unhex(place.footer_key), place.number, data),
    "link-index": (place, data) => links.index(unhex(place.title), place.directory, place.files, place.bytes, data),
    "link-row": (place, data) => links.row(data),
    "link-box": (place, data) => links.box(data),
    async seal(place, data) {
        const [key, volume, fields] = [unhex(place.key), unhex(place.volume), place.id.map(unhex)];
        const plain = await unseal(key, "record", volume, fields, data);
        // Writing, too: with the vectors' randomness it is those very bytes.
        const random = Uint8Array.from({ length: 32 }, (_, at) => at);
        const sealed = await seal(key, "record", volume, fields, plain, random);
        if (hex(sealed) !== hex(data)) throw new Error("sealing gives other bytes than the vector's");
        return { plain };
    },
    "file-key": async (place, data) => ({
        key: await objects.fileKey(roots(place), place.epoch, place.key_number, data),
    }),
    async chunk(place, data) {
        const [volume, key, id] = [place.volume, place.file_key, place.id].map(unhex);
        const plain = await objects.chunk(volume, key, id, place.len, place.frames, data);
        return { blake3: hash(plain), len: plain.length };
    },
    pack: (place, data) => objects.pack(roots(place), unhex(place.incarnation), place.number, data),
    async volume(place, data) {
        const volume = objects.volumeId(data);
        const parameters = await objects.volumeParameters(new Roots(volume, { 0: unhex(place.root) }), data);
        return { volume, fingerprint: objects.fingerprint(data), ...parameters };
    },
    async slot(place, data) {
        const found = objects.parseSlot(data);
        const secrets = {
            1: () => place.password !== undefined && objects.passwordSecret(found, ascii(place.password)),
            2: () => place.words !== undefined && mnemonicToEntropy(place.words, wordlist),
            3: () => place.identity !== undefined && objects.identitySecret(place.identity),
        };
        const secret = secrets[found.kind]();
        if (!secret) throw malformed("another kind of slot");
        const opened = await objects.openSlot(unhex(place.volume), place.epoch, place.slot, found, secret);
        return { epoch: place.epoch, ...opened };
    },
    async record(place, data) {
        const { next, ...found } = await objects.record(roots(place), place.seq, data);
        return { hash: hash(data), ...found, ...(next ? { next } : {}) };
    },
    "epoch-link": (place, data) => objects.link(unhex(place.volume), place.epoch, unhex(place.root), data),
    floor: (place, data) => objects.floor(roots(place), place.number, data),
    async segment(place, data) {
        const { id, first, last, hash: meta_hash, ...numbers } = place.meta;
        const texts = { id, first, last, hash: meta_hash };
        const bytes = Object.fromEntries(Object.entries(texts).map(([field, text]) => [field, unhex(text)]));
        const blocks = await objects.segment(roots(place), { ...numbers, ...bytes }, data);
        return { blocks: blocks.map((rows) => rows.map(([key, value]) => [key, hash(value)])) };
    },
    manifest: (place, data) => objects.manifest(roots(place), place.seq, data),
    journal: (place, data) => objects.journalFrame(unhex(place.state_key), unhex(place.volume), data),
    "state-key": (place, data) => objects.stateKey(roots(place), data),
    "state-file": async (place, data) => ({
        plain: await objects.stateFile(unhex(place.state_key), unhex(place.volume), ascii(place.name), data),
    }),
};

/** Of vectors with a longer name. */
const FAMILIES = ["slot", "record", "journal", "link-record"];

/** As the vectors write it. */
function plainValue(value) {
    if (value instanceof Uint8Array) return hex(value);
    if (typeof value === "bigint") return Number(value);
    if (Array.isArray(value)) return value.map(plainValue);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plainValue(inner)]));
}

async function outcome(name, place, data) {
    const read = readers[name] ?? readers[FAMILIES.find((family) => name.startsWith(`${family}-`))];
    if (!read) return `there is no reader for ${name}`;
    try {
        return plainValue(await read(place, data));
    } catch (error) {
        if (error instanceof Refused) return error.word;
        throw error;
    }
}

async function check(file, is_shown) {
    const vector = JSON.parse(readFileSync(file, "utf8"));
    const [name, data] = [vector.object, unhex(vector.bytes)];
    let wrong = 0;
    const opened = await outcome(name, vector.place, data);
    if (is_shown) console.log(JSON.stringify(opened, null, 2));
    if (!isDeepStrictEqual(opened, vector.opened)) {
        wrong += 1;
        console.log(`${name}: opened to ${JSON.stringify(opened)}`);
    }
    for (const failure of vector.failures) {
        const changed = data.slice(0, failure.cut_to ?? data.length);
        if (failure.flip_bit !== undefined) changed[failure.flip_bit >> 3] ^= 1 << failure.flip_bit % 8;
        const result = await outcome(name, { ...vector.place, ...failure.place }, changed);
        if (result !== failure.error) {
            wrong += 1;
            console.log(`${name}: ${JSON.stringify(failure)}: ${JSON.stringify(result)}`);
        }
    }
    console.log(`${name}: ${1 + vector.failures.length} checks, ${wrong} wrong`);
    return wrong;
}

const folder = fileURLToPath(new URL("..", import.meta.url));
const chosen = process.argv.slice(2).map((name) => `${name}.json`);
const all = readdirSync(folder).filter((file) => file.endsWith(".json")).sort();
let wrong = 0;
for (const file of chosen.length > 0 ? chosen : all) wrong += await check(folder + file, chosen.length > 0);
process.exitCode = wrong > 0 ? 1 : 0;
