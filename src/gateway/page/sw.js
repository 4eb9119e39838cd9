'use strict';
// Streams downloads and media from the page to the browser. Invariant: it answers only addresses that an open page of
// this origin gives bytes for, and every answer is an attachment that could run nothing, whatever the bytes are.

const HOME = new URL('.', self.location.href).href;
const DOWNLOAD = /^dl\/([0-9a-f]{32})$/;
const TYPES = /^(audio|video)\/(mp4|webm|ogg|flac|wav|mpeg)$/;
const PATIENCE_MS = 3000;

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
// A message keeps this worker alive while it streams, and that is all that most are for.
self.addEventListener('message', (event) => {
  if (event.data === 'claim') event.waitUntil(self.clients.claim());
});

self.addEventListener('fetch', (event) => {
  const { url, headers } = event.request;
  const token = url.startsWith(HOME) && DOWNLOAD.exec(url.slice(HOME.length))?.[1];
  if (token) event.respondWith(answer(token, headers.get('Range')));
});

/** This worker may have been stopped and started meanwhile, so it asks the pages anew each time. */
async function answer(token, range) {
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const offers = pages.map((page) => offer(page, token, range));
  const late = new Promise((done) => setTimeout(done, PATIENCE_MS, null));
  const found = await Promise.race([Promise.any(offers).catch(() => null), late]);
  return found ? respond(found) : new Response(null, { status: 404 });
}

function offer(page, token, range) {
  return new Promise((done, failed) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => (data ? done({ port: port1, ...data }) : failed(new Error('not of this page')));
    page.postMessage({ token, range }, [port2]);
  });
}

function respond({ port, name, type, size, start, end }) {
  let pulled = null;
  port.onmessage = ({ data }) => pulled?.(data);
  const body = new ReadableStream({
    async pull(controller) {
      const data = await new Promise((done) => {
        pulled = done;
        port.postMessage('pull');
      });
      if (data.bytes) controller.enqueue(data.bytes);
      else if (data.end) controller.close();
      else controller.error(new Error('stopped'));
    },
    cancel() {
      port.postMessage('cancel');
    },
  }, { highWaterMark: 0 });
  const encoded = encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  const headers = {
    'Content-Type': TYPES.test(type) ? type : 'application/octet-stream',
    'Content-Disposition': `attachment; filename*=UTF-8''${encoded}`,
    'Content-Length': String(end - start),
    'Content-Security-Policy': "default-src 'none'; sandbox",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
    'Accept-Ranges': 'bytes',
  };
  if (start === 0 && end === size && !TYPES.test(type)) return new Response(body, { headers });
  headers['Content-Range'] = `bytes ${start}-${end - 1}/${size}`;
  return new Response(body, { status: 206, headers });
}
