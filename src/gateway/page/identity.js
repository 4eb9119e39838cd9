'use strict';
// An age identity: how the secret of a link for one recipient is opened. Nothing of it leaves the worker.

const BECH32 = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
const PKCS8_X25519 = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20);

/** The private halves in an age identity file, or in one line of it. */
function readIdentities(text) {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const keys = lines.filter((line) => line && !line.startsWith('#')).map(readIdentity);
  if (keys.length === 0 || keys.includes(null)) throw new Failure('identity-wrong');
  return keys;
}

function readIdentity(line) {
  const text = line.toLowerCase();
  if (text !== line && text.toUpperCase() !== line) return null;
  const [prefix, data] = [text.slice(0, text.lastIndexOf('1')), text.slice(text.lastIndexOf('1') + 1)];
  const values = Array.from(data, (letter) => BECH32.indexOf(letter));
  if (prefix !== 'age-secret-key-' || values.includes(-1) || values.length < 6) return null;
  const expanded = [...prefix].map((letter) => letter.charCodeAt(0));
  const checked = [...expanded.map((code) => code >> 5), 0, ...expanded.map((code) => code & 31), ...values];
  if (bech32Checksum(checked) !== 1) return null;
  const bits = values.slice(0, -6).map((value) => value.toString(2).padStart(5, '0')).join('');
  if (bits.length !== 260 || /1/.test(bits.slice(256))) return null;
  return Uint8Array.from({ length: 32 }, (_, i) => parseInt(bits.slice(8 * i, 8 * i + 8), 2));
}

function bech32Checksum(values) {
  const generator = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
  return values.reduce((sum, value) => {
    const top = sum >>> 25;
    const next = ((sum & 0x1ffffff) << 5) ^ value;
    return generator.reduce((mixed, word, i) => ((top >> i) & 1 ? mixed ^ word : mixed), next);
  }, 1);
}

/** The link's secret, if one of the identities is the recipient's. */
async function openSecret(record, identities) {
  const ephemeral = record.sealedSecret.subarray(0, 32);
  for (const identity of identities) {
    const shared = await exchange(identity, ephemeral);
    // X25519 of a point and the base point is the public half.
    const own = await exchange(identity, Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 9 : 0)));
    const key = shared && (await plainHkdf(shared, ascii('hushfs/v1/exchange'), ephemeral, own));
    const sealed = record.sealedSecret.subarray(32);
    const secret = key && (await openSeal(key, 'link-secret', record.id, [], sealed));
    if (secret) return secret;
  }
  throw new Failure('identity-wrong');
}

/** Null where the other half is one of those with which every exchange gives zeros. */
async function exchange(privateHalf, publicHalf) {
  try {
    const pkcs8 = concat(PKCS8_X25519, privateHalf);
    const own = await crypto.subtle.importKey('pkcs8', pkcs8, 'X25519', false, ['deriveBits']);
    const other = await crypto.subtle.importKey('raw', publicHalf, 'X25519', false, []);
    const shared = new Uint8Array(await crypto.subtle.deriveBits({ name: 'X25519', public: other }, own, 256));
    return shared.some((byte) => byte !== 0) ? shared : null;
  } catch (error) {
    if (error.name === 'NotSupportedError') throw new Failure('unsupported');
    return null;
  }
}
