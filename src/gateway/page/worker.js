'use strict';
// The only part that holds keys. It answers one message with one message: { seq, op, ... } with { seq, result } or
// { seq, failure }. Keys, passwords and identities never go back to the page.

const PULL_BYTES = 1 << 18;
const NAMES_PER_LIST = 200;

const link = { source: null, record: null, content: null, tree: null };
const streams = new Map();
const order = new Intl.Collator(undefined, { numeric: true });
let listed = { number: -1, entries: [] };
let lastStream = 0;

const operations = {
  /** The link, as far as what was given opens it. May be called again, with a password for instance. */
  async open({ id, home, secret, identity, password, file }) {
    // A file is chosen anew when the one before was damaged.
    if (!link.record || file) {
      const source = file ? new FileSource(file) : new GatewaySource(home, hex(id), (wait) => postMessage({ wait }));
      const record = await readRecord(await source.record(), id);
      Object.assign(link, { source, record });
    }
    const opened = await openRecord(link.record, await secretOf(secret, identity), password);
    const content = new Content(link.source, id, opened.root);
    const tree = await content.tree(opened.index, opened.indexLength);
    const top = tree.entry(0);
    const isTop = top.type === opened.type && equalBytes(top.name, opened.title);
    if (!isTop || tree.files !== opened.files || tree.total !== opened.bytes) {
      throw damaged('an index that is not the one published');
    }
    Object.assign(link, { content, tree });
    const { published, files, bytes } = opened;
    const { expiry } = link.record;
    return { title: shownName(opened.title), published, expiry, files, bytes, top: described(top) };
  },

  /** What a folder holds, folders first, from the `from`th on. */
  async list({ number, from }) {
    if (listed.number !== number) {
      const entries = (link.tree.children.get(number) || []).map((child) => {
        const { type, name } = link.tree.entry(child);
        return { child, folder: type === DIRECTORY, name: shownName(name) };
      });
      entries.sort((a, b) => b.folder - a.folder || order.compare(a.name, b.name));
      listed = { number, entries };
    }
    const page = listed.entries.slice(from, from + NAMES_PER_LIST);
    const entries = page.map(({ child }) => described(link.tree.entry(child)));
    return { entries, count: listed.entries.length };
  },

  async file({ number, start, end }) {
    const { size } = link.tree.entry(number);
    const tasks = link.content.tasks(link.tree, number, start, Math.min(end ?? size, size));
    return { stream: addStream(tasks), size: Math.min(end ?? size, size) - start };
  },

  async zip({ number }) {
    const zip = new Zip(link.tree, number);
    return { stream: addStream(zip.tasks(link.content)), size: zip.size, skipped: zip.skipped };
  },

  /** The next bytes; null at the end. After a failure the next pull goes on at the same place. */
  async pull({ stream }) {
    const state = streams.get(stream);
    if (!state) return null;
    while (state.length < PULL_BYTES) {
      const piece = await state.pieces.next();
      if (!piece) break;
      state.ready.push(piece);
      state.length += piece.length;
    }
    const bytes = concat(...state.ready);
    Object.assign(state, { ready: [], length: 0 });
    if (bytes.length === 0) streams.delete(stream);
    return bytes.length > 0 ? bytes : null;
  },

  async close({ stream }) {
    streams.delete(stream);
    return null;
  },
};

async function secretOf(secret, identity) {
  const { sealedSecret } = link.record;
  if (secret) {
    if (sealedSecret) throw new Failure('wrong-key');
    return secret;
  }
  if (!sealedSecret) throw new Failure('no-key');
  if (!identity) throw new Failure('identity-needed');
  return openSecret(link.record, readIdentities(identity));
}

function addStream(tasks) {
  lastStream += 1;
  streams.set(lastStream, { pieces: new Pieces(tasks), ready: [], length: 0 });
  return lastStream;
}

function described({ number, parent, name, type, executable, modified, size, target }) {
  const shown = { number, parent, type, executable, modified, size, name: shownName(name), disk: diskName(name) };
  return target ? { ...shown, target: shownName(target) } : shown;
}

/** A failure that nobody foresaw is told as one, without what it was about. */
function told(error) {
  return error instanceof Failure ? { kind: error.kind, detail: error.message } : { kind: 'bug', detail: error.name };
}

self.onmessage = async ({ data }) => {
  const { seq, op, ...given } = data;
  try {
    const result = await operations[op](given);
    const bytes = result instanceof Uint8Array ? [result.buffer] : [];
    postMessage({ seq, result }, bytes);
  } catch (error) {
    postMessage({ seq, failure: told(error) });
  }
};
