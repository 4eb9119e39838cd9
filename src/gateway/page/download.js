'use strict';
// One download at a time, with progress; after a cut it waits for "Go on" and continues where it stopped.

const RATE_MS = 500;

let downloading = false;

/** `open` gives { stream, size } of the worker. */
async function download(client, name, open) {
  if (downloading) return;
  downloading = true;
  problem({ kind: 'cancelled' });
  setActionsDisabled(true);
  let stream = null;
  let sink = null;
  try {
    const opened = await open();
    stream = opened.stream;
    sink = await openSink(name, opened.size);
    const skipped = opened.skipped ? ` ${countText(opened.skipped, 'symbolic link')} left out.` : '';
    await transfer(client, sink, { ...opened, name });
    showProgress(null);
    notice(`${name}: downloaded, ${sizeText(opened.size)}.${skipped}`);
  } catch (error) {
    await sink?.abort()?.catch?.(() => {});
    showProgress(null);
    if (error.kind === 'cancelled') notice('Download cancelled.');
    else problem(error);
  } finally {
    if (stream !== null) client.call('close', { stream });
    setActionsDisabled(false);
    downloading = false;
  }
}

async function transfer(client, sink, { stream, size, name }) {
  const progress = new Progress(name, size);
  for (;;) {
    try {
      const bytes = await Promise.race([client.call('pull', { stream }), progress.cancelled]);
      if (!bytes) break;
      // Whatever was waited for has come.
      notice('');
      const { length } = bytes;
      await Promise.race([sink.write(bytes), progress.cancelled]);
      progress.add(length);
    } catch (error) {
      if (!PASSING.includes(error.kind)) throw error;
      await Promise.race([progress.stopped(error), progress.cancelled]);
    }
  }
  await sink.close();
}

class Progress {
  constructor(name, size) {
    this.size = size;
    this.done = 0;
    this.marks = [{ at: performance.now(), done: 0 }];
    byId('download-name').textContent = name;
    this.cancelled = new Promise((_, failed) => {
      this.cancel = element('button', { textContent: 'Cancel', onclick: () => failed(new Failure('cancelled')) });
    });
    this.cancelled.catch(() => {});
    showProgress([this.cancel]);
    this.#show();
  }

  add(length) {
    this.done += length;
    const now = performance.now();
    if (now - this.marks.at(-1).at < RATE_MS && this.done < this.size) return;
    this.marks = [...this.marks.slice(-6), { at: now, done: this.done }];
    this.#show();
  }

  /** Resolves when the person says so, or when the network is back. */
  stopped(error) {
    problem(error);
    return new Promise((go) => {
      const goOn = element('button', { textContent: 'Go on', className: 'main', onclick: go });
      showProgress([goOn, this.cancel]);
      goOn.focus();
      window.addEventListener('online', go, { once: true });
    }).then(() => {
      problem({ kind: 'cancelled' });
      showProgress([this.cancel]);
      this.cancel.focus();
    });
  }

  #show() {
    byId('download-bar').value = this.size ? this.done / this.size : 1;
    const [first, last] = [this.marks[0], this.marks.at(-1)];
    const seconds = (last.at - first.at) / 1000;
    const rate = seconds > 0 ? `, ${sizeText(Math.round((last.done - first.done) / seconds))} a second` : '';
    byId('download-state').textContent = `${sizeText(this.done)} of ${sizeText(this.size)}${rate}`;
  }
}

function showProgress(buttons) {
  byId('download').hidden = !buttons;
  byId('download-actions').replaceChildren(...(buttons || []));
}

function setActionsDisabled(disabled) {
  for (const button of byId('actions').querySelectorAll('button.saves')) button.disabled = disabled;
}
