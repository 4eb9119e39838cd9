'use strict';
// Opens what hushfs seals (FORMAT.md: SEAL, padding, compressed body, chunk). Invariant: nothing comes out of here
// that did not authenticate; commitments are compared before GCM runs.

const SUITE = 1;
const SEAL_HEADER = 65;
const SEAL_OVERHEAD = 81;
const FRAME = 65536;
const CHUNK = 1 << 20;
const KDF_FLOOR = { memory: 65536, passes: 3, lanes: 1 };
const KDF_CEILING = { memory: 1048576, passes: 16, lanes: 16 };

async function hkdf(secret, salt, info, length) {
  const key = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits']);
  const parameters = { name: 'HKDF', hash: 'SHA-256', salt, info };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, key, length * 8));
}

const plainHkdf = (secret, ...info) => hkdf(secret, new Uint8Array(0), concat(...info), 32);

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));

/** Of the link `id`, whatever the kind: so nothing of another link opens. */
function context(id, fields) {
  return concat(...[id, ...fields].flatMap((field) => [u32(field.length), field]));
}

/** The key, the nonce and the context of a sealed thing; null when this key is not its key. */
async function unlock(key, kind, id, fields, header) {
  if (header.length < SEAL_HEADER || header[0] !== SUITE) return null;
  const aad = context(id, fields);
  const info = concat(ascii(`hushfs/v1/${kind}`), Uint8Array.of(SUITE), u32(aad.length), aad);
  const derived = await hkdf(key, header.subarray(1, 33), info, 76);
  if (!equalBytes(derived.subarray(32, 64), header.subarray(33, SEAL_HEADER))) return null;
  const cipher = await crypto.subtle.importKey('raw', derived.subarray(0, 32), 'AES-GCM', false, ['decrypt']);
  return { cipher, nonce: derived.subarray(64), aad };
}

async function decrypt({ cipher, aad }, nonce, sealed) {
  try {
    const parameters = { name: 'AES-GCM', iv: nonce, additionalData: aad };
    return new Uint8Array(await crypto.subtle.decrypt(parameters, cipher, sealed));
  } catch {
    throw damaged('does not authenticate');
  }
}

/** The plaintext; null when `key` is not the key of it. Changed bytes behind the header are a Failure. */
async function openSeal(key, kind, id, fields, sealed) {
  if (sealed.length < SEAL_OVERHEAD) throw damaged('cut short');
  const opened = await unlock(key, kind, id, fields, sealed.subarray(0, SEAL_HEADER));
  return opened && decrypt(opened, opened.nonce, sealed.subarray(SEAL_HEADER));
}

function paddedLength(length) {
  if (length <= 4096) return 4096;
  const exponent = Math.floor(Math.log2(length));
  const unit = 2 ** (exponent - Math.floor(Math.log2(exponent)) - 1);
  return Math.ceil(length / unit) * unit;
}

/** What was padded; `around` is how much of the object stands outside. */
function unpad(padded, around) {
  if (padded.length < 8) throw damaged('cut short');
  const length = new Reader(padded, padded.length - 8).u64();
  const zeros = padded.subarray(length, -8);
  const fits = length + 8 <= padded.length && padded.length + around === paddedLength(length + 8 + around);
  if (!fits || zeros.some((byte) => byte !== 0)) throw damaged('padding that is not the one its length has');
  return padded.subarray(0, length);
}

/** A body that may be compressed, of at most `lengthMax`. */
function decompress(bytes, lengthMax) {
  const reader = new Reader(bytes);
  const codec = reader.u8();
  const length = reader.varint();
  const data = reader.raw(reader.remaining);
  if (length > lengthMax) throw damaged('an impossible body');
  if (codec === 0 && data.length === length) return data;
  if (codec !== 1 || length > data.length * 255) throw damaged('an impossible body');
  return lz4Decode(data, length);
}

/**
 * The plaintext of a whole chunk. Its hash, which the signed record vouches for, is compared first: another holder
 * of the link has every key, but cannot change what the owner published.
 */
async function openChunk(contentRoot, id, reference, sealed) {
  if (!equalBytes(await sha256(sealed), reference.sha256)) throw damaged('a chunk that is not the one published');
  const key = await plainHkdf(contentRoot, ascii('hushfs/v1/link-chunk-key'), reference.id);
  const opened = await unlock(key, 'link-chunk', id, [reference.id], sealed.subarray(0, SEAL_HEADER));
  if (!opened) throw damaged('a chunk of another key');
  const plain = new Uint8Array(reference.length);
  let from = SEAL_HEADER;
  // All frames at once: the browser has threads for that.
  const frames = reference.frames.map((length, index) => {
    const nonce = opened.nonce.slice();
    const view = new DataView(nonce.buffer);
    view.setUint32(8, view.getUint32(8) ^ index);
    if (index + 1 === reference.frames.length) nonce[0] ^= 0x80;
    from += length;
    return decrypt(opened, nonce, sealed.subarray(from - length, from));
  });
  for (const [index, frame] of (await Promise.all(frames)).entries()) {
    const start = index * FRAME;
    const length = Math.min(FRAME, reference.length - start);
    const data = frame.subarray(1);
    if (frame[0] === 0 && data.length === length) plain.set(data, start);
    else if (frame[0] === 1) plain.set(lz4Decode(data, length), start);
    else throw damaged('an impossible frame');
  }
  return plain;
}

/** Where a chunk is and what it must be. */
function readReference(reader) {
  const pack = reader.varint();
  const offset = reader.varint32();
  const length = reader.varint32();
  if (pack === 0 || length === 0 || length > CHUNK) throw damaged('an impossible chunk');
  const id = reader.raw(32);
  const count = Math.ceil(length / FRAME);
  const frames = [];
  let sealed = SEAL_HEADER;
  for (let i = 0; i < count; i += 1) {
    const frame = reader.varint32();
    if (frame < 18 || frame > FRAME + 17) throw damaged('an impossible frame');
    frames.push(frame);
    sealed += frame;
  }
  return { pack, offset, length, id, frames, sealed, sha256: reader.raw(32) };
}

async function passwordKey(password, { memory, passes, lanes, salt }) {
  const parameters = { memory, passes, lanes };
  for (const [name, value] of Object.entries(parameters)) {
    // Before anything is derived: the sender chose them.
    if (value < KDF_FLOOR[name] || value > KDF_CEILING[name]) throw damaged('impossible password parameters');
  }
  const options = { salt, parallelism: lanes, iterations: passes, memorySize: memory, hashLength: 32 };
  try {
    return await hashwasm.argon2id({ ...options, password, outputType: 'binary' });
  } catch (error) {
    throw new Failure('no-memory', String(error));
  }
}
