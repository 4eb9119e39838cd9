'use strict';
// Ways onto the disk: a blob while it is small, else a file that the person chose, else the browser's own download
// through the service worker, else a larger blob. Each sink is { write, close, abort }.

const BLOB_SMALL = 32 * MIB;
const BLOB_MAX = 1024 * MIB;

/** To be called while the click that asked for it counts: a picker opens only then. */
async function openSink(name, size) {
  if (size > BLOB_SMALL && window.showSaveFilePicker) {
    const picked = await pickedSink(name);
    if (picked) return picked;
  }
  if (size > BLOB_SMALL && canServe()) {
    const streamed = await streamedSink(name, size).catch(() => null);
    if (streamed) return streamed;
  }
  if (size > BLOB_MAX) throw new Failure('too-large');
  return blobSink(name);
}

/** Null where no picker may open; a person who closes it has changed their mind. */
async function pickedSink(name) {
  let handle;
  try {
    handle = await window.showSaveFilePicker({ suggestedName: name });
  } catch (error) {
    if (error.name === 'AbortError') throw new Failure('cancelled');
    return null;
  }
  const file = await handle.createWritable().catch(() => {
    throw new Failure('disk-full');
  });
  const written = (result) =>
    result.catch(() => {
      throw new Failure('disk-full');
    });
  return { write: (bytes) => written(file.write(bytes)), close: () => written(file.close()), abort: () => file.abort() };
}

async function streamedSink(name, size) {
  let wanted = null;
  let state = 'open';
  const ended = () => state !== 'open';
  // What was written last, until the browser takes it.
  let ready = null;
  const hand = () => {
    if (!wanted || (!ready && !ended())) return;
    if (ready) wanted.done(ready.bytes);
    else if (state === 'closed') wanted.done(null);
    else wanted.failed(new Failure('cancelled'));
    ready?.taken();
    [wanted, ready] = [null, null];
  };
  const refuse = () => {
    state = 'aborted';
    ready?.failed(new Failure('cancelled'));
    ready = null;
    hand();
  };
  const source = {
    pull: () => new Promise((done, failed) => {
      wanted = { done, failed };
      hand();
    }),
    close: async () => refuse(),
  };
  let opened = false;
  const address = await serve({
    name, size, type: 'application/octet-stream',
    open: async () => {
      if (opened) throw new Failure('cancelled');
      opened = true;
      return source;
    },
  });
  const frame = document.createElement('iframe');
  frame.className = 'sink';
  frame.title = 'Download';
  frame.src = address;
  document.body.append(frame);
  const leave = () => {
    withdraw(address);
    frame.remove();
  };
  return {
    streamed: true,
    write: (bytes) => new Promise((taken, failed) => {
      if (ended()) return failed(new Failure('cancelled'));
      ready = { bytes, taken, failed };
      return hand();
    }),
    close: async () => {
      state = 'closed';
      hand();
      // The frame stays until the browser has taken the end.
      setTimeout(leave, PING_MS);
    },
    abort: async () => {
      refuse();
      leave();
    },
  };
}

function blobSink(name) {
  const parts = [];
  return {
    write: async (bytes) => parts.push(bytes),
    close: async () => {
      // A type that no browser opens by itself.
      const url = URL.createObjectURL(new Blob(parts, { type: 'application/octet-stream' }));
      const anchor = document.createElement('a');
      anchor.href = url;
      anchor.download = name;
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    },
    abort: async () => parts.splice(0),
  };
}
