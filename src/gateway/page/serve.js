'use strict';
// The page's side of the service worker: what it may ask for, by a random address, and who gives the bytes.

const PING_MS = 10000;
// To fetch, compile and start a script over a slow network; and to answer for a page once it runs.
const READY_MS = 60000;
const CONTROL_MS = 5000;

/** Token to { name, type, size, open(start, end) }, whose `open` gives { pull, close }. */
const served = new Map();
let registered = null;

/** True when the browser lets a service worker answer for this page. */
function canServe() {
  return !exported && 'serviceWorker' in navigator;
}

/** The address under which `offer` can be read until `withdraw`. */
async function serve(offer) {
  registered ??= register().catch((error) => {
    registered = null;
    throw error;
  });
  await registered;
  const token = hex(crypto.getRandomValues(new Uint8Array(16)));
  served.set(token, offer);
  return `${home}dl/${token}`;
}

function withdraw(address) {
  served.delete(address.slice(-32));
}

async function register() {
  navigator.serviceWorker.onmessage = ({ data, ports }) => give(data, ports[0]);
  const controlled = new Promise((done) => {
    navigator.serviceWorker.oncontrollerchange = done;
  });
  const ready = navigator.serviceWorker.register(scriptUrl(`${home}sw.js`)).then(() => navigator.serviceWorker.ready);
  const { active } = await within(ready, READY_MS);
  if (!navigator.serviceWorker.controller) {
    // After a reload by force a page has no worker, though one runs.
    active.postMessage('claim');
    await within(controlled, CONTROL_MS);
  }
  setInterval(() => served.size > 0 && active.postMessage('ping'), PING_MS);
}

function within(work, ms) {
  const late = new Promise((done, failed) => {
    setTimeout(failed, ms, new Failure('no-service'));
  });
  return Promise.race([work, late]);
}

async function give({ token, range }, port) {
  const offer = served.get(token);
  const span = offer && spanOf(range, offer.size);
  if (!span) {
    port.postMessage(null);
    return;
  }
  const [start, end] = span;
  let bytes = null;
  port.onmessage = async ({ data }) => {
    try {
      bytes ??= await offer.open(start, end);
      if (data === 'cancel') await bytes.close();
      else {
        const piece = await bytes.pull();
        port.postMessage(piece ? { bytes: piece } : { end: true }, piece ? [piece.buffer] : []);
      }
    } catch {
      port.postMessage({});
    }
  };
  port.postMessage({ name: offer.name, type: offer.type, size: offer.size, start, end });
}

/** From a Range header, as media elements send it. */
function spanOf(range, size) {
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? 'bytes=0-');
  if (!match) return null;
  const start = Number(match[1]);
  const end = match[2] ? Math.min(Number(match[2]) + 1, size) : size;
  return start < end || size === 0 ? [start, end] : null;
}
