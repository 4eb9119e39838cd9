'use strict';
// The page's side of the service worker: what it may ask for, by a random address, and who gives the bytes.

const PING_MS = 10000;
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
  const controlled = new Promise((done, failed) => {
    navigator.serviceWorker.oncontrollerchange = done;
    setTimeout(failed, CONTROL_MS, new Failure('no-service'));
  });
  controlled.catch(() => {});
  await navigator.serviceWorker.register(scriptUrl(`${home}sw.js`));
  const { active } = await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    // After a reload by force a page has no worker, though one runs.
    active.postMessage('claim');
    await controlled;
  }
  setInterval(() => served.size > 0 && active.postMessage('ping'), PING_MS);
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
