// A wire between browser and gateway that keeps every byte, and can be cut. What the browser sends by itself, from
// workers or service workers too, goes through here, whatever the tools of the browser show.
import net from 'node:net';

export class Wire {
  constructor(port) {
    this.port = port;
    this.sent = [];
    this.open = new Set();
    this.cutAfter = null;
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
    gateway.on('data', (bytes) => {
      this.received += bytes.length;
      if (this.cutAfter !== null && this.received >= this.cutAfter) {
        this.cutAfter = null;
        end();
        return;
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
