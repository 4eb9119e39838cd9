// Chromium, pages and checks for the scenarios.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.env.HUSHFS_BROWSER_MODULES, 'package.json'));
const { chromium } = require('playwright-core');
const axeSource = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

export async function launch(profile) {
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.HUSHFS_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    viewport: DESKTOP,
    acceptDownloads: true,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
}

/** A page that remembers what it should never do. */
export class Visitor {
  constructor(page, shots) {
    this.page = page;
    this.shots = shots;
    this.trouble = [];
    page.on('dialog', (dialog) => {
      this.trouble.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on('popup', () => this.trouble.push('a popup'));
    page.on('pageerror', (error) => this.trouble.push(`an error of the page: ${error}`));
    page.on('console', (message) => {
      // A refused status is a console error of the browser's own, and here often what is tested.
      const expected = /Failed to load resource/.test(message.text());
      if (message.type() === 'error' && !expected) this.trouble.push(`on the console: ${message.text()}`);
    });
  }

  async open(url) {
    // Another fragment alone would be no new page.
    await this.page.goto('about:blank');
    await this.page.goto(url);
  }

  title(text) {
    return this.page.waitForFunction((wanted) => document.querySelector('h1').textContent === wanted, text);
  }

  async problem(pattern) {
    await this.page.waitForFunction(() => document.querySelector('#problem').textContent !== '');
    assert.match(await this.page.textContent('#problem'), pattern);
  }

  async notice(pattern) {
    await this.page.waitForFunction((source) => new RegExp(source).test(document.querySelector('#notice').textContent),
      pattern.source);
  }

  async download(button = '#actions .saves') {
    const [download] = await Promise.all([this.page.waitForEvent('download'), this.page.click(button)]);
    return download;
  }

  /** The page as it looks, and what axe says of it. */
  async look(name, { axe = true } = {}) {
    for (const [kind, size, scheme] of [['desktop', DESKTOP, 'light'], ['desktop-dark', DESKTOP, 'dark'], ['phone', PHONE, 'light']]) {
      await this.page.setViewportSize(size);
      await this.page.emulateMedia({ colorScheme: scheme });
      await this.page.screenshot({ path: path.join(this.shots, `${name}-${kind}.png`) });
      const overflow = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${name} is ${overflow} pixels too wide (${kind})`);
      if (axe && kind !== 'phone') await this.axe(`${name} (${kind})`);
    }
    await this.page.setViewportSize(DESKTOP);
    await this.page.emulateMedia({ colorScheme: 'light' });
  }

  async axe(name) {
    // By the debugger, as the page's own policy lets no such script in.
    const session = await this.page.context().newCDPSession(this.page);
    const evaluate = async (expression) => {
      const { result, exceptionDetails } = await session.send('Runtime.evaluate',
        { expression, awaitPromise: true, returnByValue: true, allowUnsafeEvalBlockedByCSP: true });
      assert.ok(!exceptionDetails, JSON.stringify(exceptionDetails));
      return result.value;
    };
    await evaluate(`${axeSource}; 0`);
    const found = JSON.parse(await evaluate('axe.run().then((r) => JSON.stringify(r.violations.map((v) => [v.id, v.nodes.map((n) => n.html)])))'));
    assert.deepEqual(found, [], `axe finds something in ${name}`);
    await session.detach();
  }

  /** Nothing ran that the sender chose, and nothing broke. */
  async isClean() {
    const ran = await this.page.evaluate(() => window.ran ?? null);
    assert.equal(ran, null, 'a script of the sender ran');
    assert.deepEqual(this.trouble, []);
  }
}

export function hashFile(file) {
  return new Promise((done, failed) => {
    const hash = crypto.createHash('sha256');
    fs.createReadStream(file).on('data', (part) => hash.update(part)).on('error', failed).on('end', () => done(hash.digest('hex')));
  });
}

export { assert, fs, path };
