'use strict';
// A link's record (FORMAT.md): who signed it, until when it is good, and what the link's secret opens in it.

const RECORD_MAX = 1 << 20;
const SIGNATURE = 64;

/** Verified against the id in the link: the id is the hash of the key that signed. */
async function readRecord(bytes, id) {
  if (bytes.length > RECORD_MAX) throw damaged('a record that is too long');
  const reader = new Reader(bytes.subarray(0, Math.max(0, bytes.length - SIGNATURE)));
  if (!equalBytes(reader.raw(8), ascii('hushlnk1'))) throw damaged('no record of a link');
  const kind = reader.u8();
  const flags = reader.u8();
  const owner = reader.raw(32);
  const number = reader.u64();
  const expiry = reader.u64();
  if (kind + flags > 1 || number === 0) throw damaged('a record of another version');
  if (!equalBytes((await sha256(owner)).subarray(0, 16), id)) throw damaged('the record of another link');
  const signed = concat(ascii('hushfs/v1/link-record'), Uint8Array.of(0), reader.bytes);
  if (!(await isSigned(owner, bytes.subarray(-SIGNATURE), signed))) throw damaged('a signature that does not fit');
  if (kind === 1) throw new Failure('revoked');
  if (expiry !== 0 && expiry * 1000 <= Date.now()) throw new Failure('expired');
  const sealedSecret = flags & 1 ? reader.raw(145) : null;
  const before = bytes.subarray(0, reader.at);
  return { id, number, expiry, sealedSecret, before, outer: reader.raw(reader.remaining), length: bytes.length };
}

async function isSigned(owner, signature, message) {
  let key;
  try {
    key = await crypto.subtle.importKey('raw', owner, 'Ed25519', false, ['verify']);
  } catch (error) {
    throw error.name === 'NotSupportedError' ? new Failure('unsupported') : damaged('an impossible key');
  }
  return crypto.subtle.verify('Ed25519', key, signature, message);
}

/** What stands in the outer seal. The secret is right and the bytes are the owner's, or this fails. */
async function openOuter(record, secret) {
  const fields = [u64(record.number), record.before];
  const padded = await openSeal(secret, 'link-outer', record.id, fields, record.outer);
  if (!padded) throw new Failure('wrong-key');
  const body = new Reader(unpad(padded, record.length - padded.length));
  const protection = body.u8();
  if (protection === 0) return { inner: body.raw(body.remaining) };
  if (protection !== 1) throw damaged('a protection of another version');
  const parameters = { memory: body.u32(), passes: body.u32(), lanes: body.u32(), salt: body.raw(32) };
  return { parameters, sealed: body.raw(body.remaining) };
}

const contentRoot = (...secrets) => plainHkdf(concat(...secrets), ascii('hushfs/v1/link-content'));

/** The content root and what the record tells; without a password where one is needed, a Failure that says so. */
async function openRecord(record, secret, password) {
  const outer = await openOuter(record, secret);
  let root;
  let { inner } = outer;
  if (inner) {
    root = await contentRoot(secret);
  } else {
    if (password === null) throw new Failure('password-needed');
    root = await contentRoot(secret, await passwordKey(password, outer.parameters));
    inner = await openSeal(root, 'link-inner', record.id, [u64(record.number)], outer.sealed);
    if (!inner) throw new Failure('password-wrong');
  }
  return { root, ...readInner(inner) };
}

function readInner(sealed) {
  const reader = new Reader(decompress(sealed, RECORD_MAX));
  const title = reader.vector();
  const published = reader.time();
  const type = reader.u8();
  const files = reader.varint();
  const bytes = reader.varint();
  const count = reader.varint();
  if (!isName(title) || count === 0) throw damaged('an impossible record');
  if (type !== FILE && type !== DIRECTORY) throw damaged('an impossible kind of link');
  const index = [];
  let length = 0;
  for (let i = 0; i < count; i += 1) {
    const reference = readReference(reader);
    length += reference.length;
    index.push(reference);
  }
  reader.end();
  if (length > INDEX_MAX) throw new Failure('too-large');
  return { title, published, type, files, bytes, index, indexLength: length };
}
