// A wire between browser and gateway that keeps every byte that the browser sends, looks through every byte that it
// gets, and can be cut and held. What the browser sends by itself, from workers or service workers too, goes through
// here, whatever the tools of the browser show.
import net from 'node:net';

export class Wire {
  /** `needles` are bytes that may not come from the gateway. */
  constructor(port, needles) {
    this.port = port;
    this.needles = needles;
    this.longest = Math.max(...needles.map((needle) => needle.length));
    this.found = [];
    this.sent = [];
    this.open = new Set();
    this.cutAfter = null;
    this.holdAfter = null;
    this.held = null;
    this.refusing = false;
    this.received = 0;
  }

  async listen() {
    this.server = net.createServer((browser) => this.#carry(browser));
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.origin = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  #carry(browser) {
    if (this.refusing) {
      browser.destroy();
      return;
    }
    const gateway = net.connect(this.port, '127.0.0.1');
    const end = () => {
      browser.destroy();
      gateway.destroy();
      this.open.delete(end);
    };
    this.open.add(end);
    browser.on('data', (bytes) => {
      this.sent.push(bytes);
      gateway.write(bytes);
    });
    let tail = Buffer.alloc(0);
    gateway.on('data', async (bytes) => {
      this.received += bytes.length;
      // What lies across two pieces is found as well.
      const seen = Buffer.concat([tail, bytes]);
      this.found.push(...this.needles.filter((needle) => seen.includes(needle)));
      tail = seen.subarray(Math.max(0, seen.length - this.longest + 1));
      if (this.cutAfter !== null && this.received >= this.cutAfter) {
        this.cutAfter = null;
        end();
        return;
      }
      if (this.holdAfter !== null && this.received >= this.holdAfter) {
        gateway.pause();
        this.isHolding();
        await this.held;
        gateway.resume();
      }
      if (!browser.write(bytes)) {
        gateway.pause();
        browser.once('drain', () => gateway.resume());
      }
    });
    for (const side of [browser, gateway]) {
      side.on('error', end);
      side.on('close', end);
    }
  }

  /** After so many bytes nothing more comes through, until `letGo`. Resolves when it has come to that. */
  hold(after) {
    this.received = 0;
    this.holdAfter = after;
    this.held = new Promise((done) => { this.release = done; });
    return new Promise((done) => { this.isHolding = done; });
  }

  letGo() {
    this.holdAfter = null;
    this.release();
  }

  cutAll() {
    for (const end of [...this.open]) end();
  }

  /** Everything that any browser sent, as one text of bytes. */
  everythingSent() {
    return Buffer.concat(this.sent).toString('latin1');
  }

  close() {
    this.cutAll();
    this.server.close();
  }
}
