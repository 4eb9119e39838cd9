'use strict';
// Shows a file, if magic.js knows it. What is shown is an image, a media element, text as text, or a PDF in the
// browser's own viewer, each by a blob or stream of a fixed type.

const HEAD = 65536;
const UNASKED_MAX = 8 * MIB;

let shownUrl = null;
let shownAddress = null;

function endPreview() {
  byId('preview').replaceChildren();
  byId('preview').hidden = true;
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  if (shownAddress) withdraw(shownAddress);
  [shownUrl, shownAddress] = [null, null];
}

/** How the file can be shown, or null. */
async function previewOf(client, entry) {
  if (entry.type !== FILE_ENTRY || entry.size === 0) return null;
  const shown = shownAs(await readAll(client, entry, Math.min(HEAD, entry.size)), entry.name);
  if (!shown) return null;
  if (shown.kind === 'pdf' && !navigator.pdfViewerEnabled) return null;
  const streams = shown.kind === 'audio' || shown.kind === 'video';
  if (entry.size > shown.most && shown.kind !== 'text' && !(streams && canServe())) return null;
  return { ...shown, unasked: !streams && (shown.kind === 'text' || entry.size <= UNASKED_MAX) };
}

async function readAll(client, { number }, length) {
  const { stream } = await client.call('file', { number, start: 0, end: length });
  const parts = [];
  for (let bytes = await client.call('pull', { stream }); bytes; bytes = await client.call('pull', { stream })) {
    parts.push(bytes);
  }
  return concat(...parts);
}

/** `isCurrent` tells whether the person still looks at this entry. */
async function showPreview(client, entry, shown, isCurrent) {
  const made = await makers[shown.kind](client, entry, shown);
  if (!isCurrent()) return;
  endPreview();
  [shownUrl, shownAddress] = [made.url ?? null, made.address ?? null];
  byId('preview').replaceChildren(made.node, ...(made.after ? [element('p', { textContent: made.after })] : []));
  byId('preview').hidden = false;
}

const makers = {
  async image(client, entry, shown) {
    const url = await blobUrl(client, entry, shown);
    const node = element('img', { src: url, alt: `Picture: ${entry.name}` });
    node.onerror = () => {
      endPreview();
      notice('This browser cannot show the picture. It can be downloaded.');
    };
    return { node, url };
  },

  async text(client, entry, shown) {
    const length = Math.min(entry.size, shown.most);
    const text = textOf(await readAll(client, entry, length)) ?? '';
    const node = element('pre', { textContent: text, tabIndex: 0 });
    node.setAttribute('aria-label', `Text of ${entry.name}`);
    node.setAttribute('role', 'region');
    const after = length < entry.size ? `The first ${sizeText(length)} are shown.` : '';
    return { node, after };
  },

  async pdf(client, entry, shown) {
    const url = await blobUrl(client, entry, shown);
    return { node: element('iframe', { src: url, title: `PDF: ${entry.name}` }), url };
  },

  audio: (client, entry, shown) => media('audio', client, entry, shown),
  video: (client, entry, shown) => media('video', client, entry, shown),
};

async function blobUrl(client, entry, { type }) {
  return URL.createObjectURL(new Blob([await readAll(client, entry, entry.size)], { type }));
}

async function media(tag, client, entry, shown) {
  const node = element(tag, { controls: true, preload: 'metadata' });
  node.setAttribute('aria-label', entry.name);
  node.onerror = () => notice('This browser cannot play it. It can be downloaded.');
  if (!canServe()) {
    node.src = await blobUrl(client, entry, shown);
    return { node, url: node.src };
  }
  const open = async (start, end) => {
    const { stream } = await client.call('file', { number: entry.number, start, end });
    return { pull: () => client.call('pull', { stream }), close: () => client.call('close', { stream }) };
  };
  const address = await serve({ name: entry.disk, type: shown.type, size: entry.size, open });
  node.src = address;
  return { node, address };
}
