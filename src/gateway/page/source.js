'use strict';
// Where the link's objects come from: the gateway that served this page, or a file. Both give the record, and blocks
// of packs by number. Nothing is believed here: whoever opens the bytes verifies them.

const BLOCK = 262144;
const BLOCKS_KEPT = 128;
const BLOCKS_PER_REQUEST = 16;
const TRIES = 6;
const STALL_MS = 30000;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class GatewaySource {
  constructor(home, id, onWait) {
    this.base = `${home}s/${id}`;
    this.onWait = onWait;
  }

  record() {
    return this.#get(`${this.base}/record`, {}, RECORD_MAX);
  }

  /** The whole of the blocks `first` to `end`, less at the pack's end. */
  blocks(pack, first, end) {
    const range = `bytes=${first * BLOCK}-${end * BLOCK - 1}`;
    return this.#get(`${this.base}/pk/${pack}`, { Range: range }, (end - first) * BLOCK).catch((error) => {
      // Of a link that is there: a newer version does without this pack.
      throw error.kind === 'not-found' ? new Failure('changed') : error;
    });
  }

  /** A connection that breaks is tried again; an answer that says no is not. */
  async #get(path, headers, lengthMax) {
    let kind = 'cut-off';
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      const answer = await this.#once(path, headers, lengthMax);
      if (answer.bytes) return answer.bytes;
      kind = answer.kind;
      const seconds = Math.min(answer.after || 0.5 * 2 ** attempt, 30);
      if (attempt + 1 < TRIES) {
        this.onWait(kind);
        await pause(seconds * 1000);
      }
    }
    throw new Failure(kind);
  }

  async #once(path, headers, lengthMax) {
    const stop = new AbortController();
    let timer = setTimeout(() => stop.abort(), STALL_MS);
    try {
      const options = { cache: 'no-store', credentials: 'omit', redirect: 'error', mode: 'same-origin' };
      const response = await fetch(path, { ...options, headers, signal: stop.signal });
      if (!response.ok) return await refused(response);
      const parts = [];
      let length = 0;
      const body = response.body.getReader();
      for (;;) {
        clearTimeout(timer);
        timer = setTimeout(() => stop.abort(), STALL_MS);
        const { done, value } = await body.read();
        if (done) return { bytes: concat(...parts) };
        length += value.length;
        if (length > lengthMax) throw damaged('more than was asked for');
        parts.push(value);
      }
    } catch (error) {
      if (error instanceof Failure) throw error;
      return { kind: 'cut-off' };
    } finally {
      clearTimeout(timer);
      stop.abort();
    }
  }
}

/** What a status means: a reason to wait, or a Failure. */
async function refused(response) {
  if (response.status === 429) return { kind: 'busy', after: Number(response.headers.get('Retry-After')) || 1 };
  if (response.status >= 500) return { kind: 'cut-off' };
  if (response.status === 404) throw new Failure('not-found');
  if (response.status === 410) {
    const why = await response.json().then((answer) => answer.why, () => 'revoked');
    throw new Failure(why === 'expired' ? 'expired' : 'revoked');
  }
  throw damaged(`status ${response.status}`);
}

/** What `share export` wrote: `hushbox1`, then the record and the packs, each with its length. */
class FileSource {
  constructor(file) {
    this.file = file;
    this.packs = new Map();
  }

  async #slice(start, length) {
    const part = this.file.slice(start, start + length);
    try {
      return new Uint8Array(await part.arrayBuffer());
    } catch {
      throw new Failure('file-unreadable');
    }
  }

  async record() {
    const head = new Reader(await this.#slice(0, 16));
    if (head.remaining !== 16 || !equalBytes(head.raw(8), ascii('hushbox1'))) throw new Failure('file-wrong');
    const length = head.u64();
    if (length > RECORD_MAX) throw damaged('a record that is too long');
    const record = await this.#slice(16, length);
    for (let at = 16 + length; at < this.file.size; ) {
      const pack = new Reader(await this.#slice(at, 16));
      if (pack.remaining !== 16) throw damaged('a file that was cut short');
      const [number, size] = [pack.u64(), pack.u64()];
      if (size === 0 || at + 16 + size > this.file.size || this.packs.has(number)) {
        throw damaged('a file that was cut short');
      }
      this.packs.set(number, { start: at + 16, size });
      at += 16 + size;
    }
    return record;
  }

  async blocks(pack, first, end) {
    const place = this.packs.get(pack);
    if (!place) throw damaged('a pack that is missing');
    const start = Math.min(first * BLOCK, place.size);
    return this.#slice(place.start + start, Math.min(end * BLOCK, place.size) - start);
  }
}

/** Blocks that were read or are on their way, so that chunks that share one ask once. */
class Blocks {
  constructor(source) {
    this.source = source;
    this.kept = new Map();
  }

  /** `length` bytes of the pack; what is asked for anew anyway goes on to `ahead` blocks. */
  async read(pack, start, length, ahead) {
    const [first, end] = [Math.floor(start / BLOCK), Math.ceil((start + length) / BLOCK)];
    const blocks = [];
    for (let block = first; block < end; block += 1) {
      if (!this.kept.has(`${pack}/${block}`)) this.#ask(pack, block, Math.max(end, block + ahead));
      blocks.push(this.#touch(`${pack}/${block}`));
    }
    const whole = concat(...(await Promise.all(blocks)));
    return whole.subarray(start - first * BLOCK, start - first * BLOCK + length);
  }

  forget(pack, start, length) {
    const end = Math.ceil((start + length) / BLOCK);
    for (let block = Math.floor(start / BLOCK); block < end; block += 1) this.kept.delete(`${pack}/${block}`);
  }

  #touch(key) {
    const block = this.kept.get(key);
    this.kept.delete(key);
    this.kept.set(key, block);
    return block;
  }

  #ask(pack, first, wantedEnd) {
    let end = first + 1;
    const last = Math.min(wantedEnd, first + BLOCKS_PER_REQUEST);
    while (end < last && !this.kept.has(`${pack}/${end}`)) end += 1;
    const run = this.source.blocks(pack, first, end);
    for (let block = first; block < end; block += 1) {
      const key = `${pack}/${block}`;
      const from = (block - first) * BLOCK;
      const bytes = run.then((all) => all.subarray(from, from + BLOCK));
      // Who waits is told; the next one asks anew.
      bytes.catch(() => this.kept.get(key) === bytes && this.kept.delete(key));
      this.kept.set(key, bytes);
    }
    for (const key of this.kept.keys()) {
      if (this.kept.size <= BLOCKS_KEPT) break;
      this.kept.delete(key);
    }
  }
}
