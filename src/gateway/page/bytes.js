'use strict';
// Reading bytes that somebody else wrote. Invariant: nothing is allocated by a length or a count before as many
// bytes are known to be there, and whatever does not fit is a Failure, never a wrong value.

/** Why the page cannot go on; `kind` chooses the message that a person reads (failures.js). */
class Failure extends Error {
  constructor(kind, detail) {
    super(detail || kind);
    this.kind = kind;
  }
}

const damaged = (detail) => new Failure('damaged', detail);

const concat = (...parts) => joined(parts);

/** Takes a list: a call has room for some ten thousand arguments only. */
function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const ascii = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

function equalBytes(left, right) {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let i = 0; i < left.length; i += 1) difference |= left[i] ^ right[i];
  return difference === 0;
}

function u32(value) {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function u64(value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

/** The one spelling of base64url without padding; null for any other text. */
function fromBase64Url(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) return null;
  const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  return toBase64Url(bytes) === text ? bytes : null;
}

function toBase64Url(bytes) {
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
  return text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** Numbers over 2^53 are refused: nothing that a browser can handle is as large. */
class Reader {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get remaining() {
    return this.bytes.length - this.at;
  }

  raw(length) {
    if (length > this.remaining) throw damaged('cut short');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  u8() {
    return this.raw(1)[0];
  }

  u32() {
    this.raw(4);
    return this.view.getUint32(this.at - 4, true);
  }

  u64() {
    this.raw(8);
    return small(this.view.getBigUint64(this.at - 8, true));
  }

  /** LEB128, the shortest form only. */
  varint() {
    let low = 0;
    let scale = 1;
    for (let i = 0; i < 10; i += 1) {
      const byte = this.u8();
      if (i > 0 && byte === 0) throw damaged('a number that is longer than need be');
      if (i === 9 && byte > 1) throw damaged('a number over 64 bits');
      low += (byte & 0x7f) * scale;
      if (low > Number.MAX_SAFE_INTEGER) return this.#large(i, byte);
      if (byte < 0x80) return low;
      scale *= 128;
    }
    throw damaged('a number over 64 bits');
  }

  /** Goes to the end of it, so that a number of a wrong form is still damage. */
  #large(i, byte) {
    while (byte >= 0x80) {
      i += 1;
      byte = this.u8();
      if (i > 9 || byte === 0 || (i === 9 && byte > 1)) throw damaged('a number over 64 bits');
    }
    throw new Failure('too-large');
  }

  varint32() {
    const value = this.varint();
    if (value > 0xffffffff) throw damaged('a number over 32 bits');
    return value;
  }

  vector() {
    return this.raw(this.varint());
  }

  /** Seconds since 1970, which may be before it; the nanoseconds are read and dropped. */
  time() {
    const coded = this.varint();
    const seconds = coded % 2 === 0 ? coded / 2 : -(coded + 1) / 2;
    if (this.varint() > 999999999) throw damaged('a time with too many nanoseconds');
    return seconds;
  }

  end() {
    if (this.remaining !== 0) throw damaged('bytes after the end');
  }
}

function small(big) {
  if (big > BigInt(Number.MAX_SAFE_INTEGER)) throw new Failure('too-large');
  return Number(big);
}
