'use strict';
// The page's side of the worker that holds the keys, and of the two scripts that this page starts.

/** The only addresses that scripts may come from; browsers with Trusted Types hold the page to it. */
const scriptUrl = (() => {
  const allowed = (url) => {
    if (url === `${home}worker.js` || url === `${home}sw.js` || (exported && url.startsWith('blob:'))) return url;
    throw new TypeError('no script of this page');
  };
  if (!window.trustedTypes) return allowed;
  const policy = trustedTypes.createPolicy('hushfs', { createScriptURL: allowed });
  return (url) => policy.createScriptURL(url);
})();

class Client {
  constructor(onWait) {
    this.waiting = new Map();
    this.seq = 0;
    this.worker = new Worker(scriptUrl(exported ? this.#embedded() : `${home}worker.js`));
    this.worker.onmessage = ({ data }) => {
      if (data.wait) {
        onWait(data.wait);
        return;
      }
      const { done, failed } = this.waiting.get(data.seq);
      this.waiting.delete(data.seq);
      if (data.failure) failed(new Failure(data.failure.kind, data.failure.detail));
      else done(data.result);
    };
    this.worker.onerror = () => this.#failAll();
  }

  call(op, given) {
    this.seq += 1;
    const { seq } = this;
    return new Promise((done, failed) => {
      this.waiting.set(seq, { done, failed });
      this.worker.postMessage({ seq, op, ...given });
    });
  }

  #embedded() {
    const source = document.getElementById('worker').textContent;
    return URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  }

  #failAll() {
    for (const { failed } of this.waiting.values()) failed(new Failure('bug'));
    this.waiting.clear();
  }
}
