// What a person does with links, and what hostile links and servers try. Each gets a page of its own.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { assert, fs, hashFile, path } from './harness.mjs';

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const save = async (download, plan, name) => {
  const file = path.join(plan.work, name);
  await download.saveAs(file);
  return file;
};
const python = (code, ...args) => execFileSync('python3', ['-c', code, ...args], { encoding: 'utf8' });
/** An exported file whose record is whole and whose packs are not. */
const withDamagedPacks = (bytes) => {
  for (let at = 16 + Number(bytes.readBigUInt64LE(8)); at < bytes.length; ) {
    const end = at + 16 + Number(bytes.readBigUInt64LE(at + 8));
    for (let byte = at + 16; byte < end; byte += 1) bytes[byte] ^= 1;
    at = end;
  }
  return bytes;
};
const click = (page, name) => page.getByRole('button', { name, exact: true }).click();

export const scenarios = {
  async text({ visitor, page, plan, url }) {
    await visitor.open(url('text'));
    await visitor.title('Grüße.txt');
    assert.ok(!page.url().includes('#'), 'the key is still in the address bar');
    assert.ok(!(await page.evaluate(() => JSON.stringify(history.state) + location.href)).includes(plan.links.text.fragment));
    await page.waitForSelector('#preview pre');
    assert.equal(await page.textContent('#preview pre'), plan.links.text.content);
    await visitor.look('text');
    const download = await visitor.download();
    assert.equal(download.suggestedFilename(), 'Grüße.txt');
    assert.equal(fs.readFileSync(await save(download, plan, 'text'), 'utf8'), plan.links.text.content);
    await visitor.notice(/downloaded/);
    // The key is gone: a reload asks for the link, and takes it.
    await page.reload();
    await visitor.title('The key is missing');
    await visitor.look('no-key');
    await page.fill('#field', `https://elsewhere/s/${plan.links.folder.id}#${plan.links.folder.fragment}`);
    await click(page, 'Open');
    await visitor.problem(/does not open what is here/);
    await page.fill('#field', url('text'));
    await page.keyboard.press('Enter');
    await visitor.title('Grüße.txt');
  },

  async folder({ visitor, page, plan, url }) {
    await visitor.open(url('folder'));
    await visitor.title('Holiday');
    await page.waitForSelector('#list table');
    await visitor.look('folder');
    assert.match(await page.textContent('#about'), /files/);
    const names = await page.$$eval('#list tbody tr td:first-child', (cells) => cells.map((cell) => cell.textContent));
    assert.deepEqual(names, ['deep/', 'empty/', 'many/', 'link → ../../etc/passwd', 'picture.png', 'run.sh', 'sparse.bin', 'zero']);
    await click(page, 'picture.png');
    await page.waitForSelector('#preview img');
    assert.equal(await page.$eval('#preview img', (image) => image.decode().then(() => image.naturalWidth)), 64);
    await visitor.look('picture');
    await click(page, 'Holiday');
    await visitor.title('Holiday');
    // By keyboard alone, into a folder and back.
    await page.getByRole('button', { name: 'deep/', exact: true }).focus();
    await page.keyboard.press('Enter');
    await visitor.title('deep');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'title');
    await page.goBack();
    await visitor.title('Holiday');
    await click(page, 'many/');
    await visitor.title('many');
    await page.waitForSelector('#list table');
    assert.equal(await page.locator('#list tbody tr').count(), 200);
    await click(page, 'Show more');
    await page.waitForFunction(() => document.querySelectorAll('#list tbody tr').length === 250);
  },

  async zip({ visitor, plan, url }) {
    await visitor.open(url('folder'));
    await visitor.title('Holiday');
    const download = await visitor.download();
    assert.equal(download.suggestedFilename(), 'Holiday.zip');
    const file = await save(download, plan, 'folder.zip');
    await visitor.notice(/1 symbolic link left out/);
    const found = JSON.parse(python(`
import hashlib, json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
files = {i.filename: hashlib.sha256(archive.read(i)).hexdigest() for i in archive.infolist() if not i.is_dir()}
modes = {i.filename: oct(i.external_attr >> 16) for i in archive.infolist()}
print(json.dumps([files, modes, [i.filename for i in archive.infolist() if i.is_dir()]]))`, file));
    assert.deepEqual(found[0], plan.links.folder.files);
    assert.equal(found[1]['Holiday/run.sh'], '0o100755');
    assert.ok(found[2].includes('Holiday/empty/'));
  },

  async password({ visitor, page, url }) {
    await visitor.open(url('password'));
    await visitor.title('A password is needed');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'field');
    await visitor.look('password');
    await page.fill('#field', 'schwertfisch');
    await click(page, 'Open');
    await visitor.problem(/not the password/);
    await visitor.look('password-wrong');
    await page.fill('#field', 'sword fish ü');
    await page.keyboard.press('Enter');
    await visitor.title('secret plan.txt');
    await page.waitForSelector('#preview pre');
  },

  async gone({ visitor, page, plan, wire, url }) {
    await visitor.open(url('revoked'));
    await visitor.problem(/taken this link back/);
    await visitor.look('revoked');
    await visitor.open(`${wire.origin}/s/${'0'.repeat(32)}#${plan.links.text.fragment}`);
    await visitor.problem(/nothing at this link/);
    await visitor.open(`${wire.origin}/s/${plan.links.text.id}#2.abc`);
    await visitor.problem(/incomplete or of a newer version/);
    await visitor.open(`${wire.origin}/s/${plan.links.text.id}#${plan.links.folder.fragment}`);
    await visitor.problem(/does not open what is here/);
    assert.equal(await page.locator('#actions button').count(), 0);
  },

  async recipient({ visitor, page, plan, url }) {
    await visitor.open(url('recipient'));
    await visitor.title('This is for one person');
    await visitor.look('recipient');
    await page.fill('#field', plan.links.recipient.otherIdentity);
    await click(page, 'Open');
    await visitor.problem(/not shared with that age identity/);
    await page.fill('#field', `# created: today\n${plan.links.recipient.identity}\n`);
    await click(page, 'Open');
    await visitor.title('for you.txt');
  },

  // Without a picker, as in most browsers: through the service worker. The connection breaks once on the way.
  async large({ visitor, page, plan, wire, url }) {
    await page.addInitScript(() => { delete window.showSaveFilePicker; });
    await visitor.open(url('large'));
    await visitor.title('large.bin');
    wire.received = 0;
    wire.cutAfter = 40 << 20;
    const download = await visitor.download();
    await page.waitForFunction(() => document.querySelector('#download-bar').value > 0.3);
    await visitor.look('downloading');
    const file = await save(download, plan, 'large');
    assert.equal(await hashFile(file), plan.links.large.sha256);
    fs.rmSync(file);
    await visitor.notice(/downloaded/);
  },

  // With a picker that gives a file of the browser's own, as a person's choice would.
  async picked({ visitor, page, plan, wire, url }) {
    await page.addInitScript(() => {
      window.showSaveFilePicker = async ({ suggestedName }) => {
        const folder = await navigator.storage.getDirectory();
        return folder.getFileHandle(suggestedName, { create: true });
      };
    });
    await visitor.open(url('medium'));
    await visitor.title('medium.bin');
    await page.click('#actions .saves');
    await page.waitForFunction(() => document.querySelector('#download-bar').value > 0.1);
    // The network is gone for longer than the page tries by itself.
    wire.refusing = true;
    wire.cutAll();
    await visitor.problem(/connection was cut off/);
    await visitor.look('cut-off');
    wire.refusing = false;
    await page.getByRole('button', { name: 'Go on' }).click();
    await visitor.notice(/downloaded/);
    const hash = await page.evaluate(async () => {
      const folder = await navigator.storage.getDirectory();
      const file = await (await folder.getFileHandle('medium.bin')).getFile();
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()));
      await folder.removeEntry('medium.bin');
      return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
    });
    assert.equal(hash, plan.links.medium.sha256);
  },

  // By its owner's command, while the browser is in the middle of it.
  async revokedMeanwhile({ visitor, page, plan, wire, url }) {
    await page.addInitScript(() => { delete window.showSaveFilePicker; });
    await visitor.open(url('doomed'));
    await visitor.title('doomed.bin');
    const holding = wire.hold(10 << 20);
    const download = await visitor.download();
    await holding;
    const [program, ...words] = plan.revokeDoomed;
    assert.match(execFileSync(program, words, { encoding: 'utf8' }), /taken back/);
    wire.letGo();
    await visitor.problem(/taken this link back/);
    assert.notEqual(await download.failure(), null, 'half a file was kept as if it were whole');
    await visitor.look('revoked-meanwhile');
  },

  async cancelled({ visitor, page, url }) {
    await page.addInitScript(() => { delete window.showSaveFilePicker; });
    await visitor.open(url('large'));
    await visitor.title('large.bin');
    const download = await visitor.download();
    await page.waitForFunction(() => document.querySelector('#download-bar').value > 0.02);
    await click(page, 'Cancel');
    await visitor.notice(/cancelled/);
    assert.notEqual(await download.failure(), null);
    assert.ok(await page.isEnabled('#actions .saves'));
  },

  async audio({ visitor, page, url }) {
    await visitor.open(url('audio'));
    await visitor.title('tone.wav');
    await click(page, 'Play');
    await page.waitForSelector('#preview audio');
    const place = await page.$eval('#preview audio', async (audio) => {
      if (audio.readyState < 1) await new Promise((done) => { audio.onloadedmetadata = done; });
      audio.currentTime = 400;
      await new Promise((done) => { audio.onseeked = done; });
      return [Math.round(audio.duration), audio.currentTime, audio.error];
    });
    assert.deepEqual(place, [600, 400, null]);
    await visitor.look('audio');
  },

  // Far more than is looked at: a seek asks for what it needs.
  async video({ visitor, page, plan, wire, url }) {
    const { bytes, seconds } = plan.links.video;
    await visitor.open(url('video'));
    await visitor.title('film.webm');
    await click(page, 'Play');
    await page.waitForSelector('#preview video');
    const before = wire.received;
    const place = await page.$eval('#preview video', async (video, to) => {
      if (video.readyState < 1) await new Promise((done) => { video.onloadedmetadata = done; });
      video.currentTime = to;
      await new Promise((done) => { video.onseeked = done; });
      return [Math.round(video.duration), video.currentTime, video.videoWidth, video.error];
    }, seconds - 20);
    assert.deepEqual(place, [seconds, seconds - 20, 16, null]);
    assert.ok(wire.received - before < bytes / 2, `${wire.received - before} of ${bytes} bytes for one seek`);
    await visitor.look('video');
    // And it goes on from there.
    await page.$eval('#preview video', async (video) => {
      const from = video.currentTime;
      await video.play();
      while (video.currentTime < from + 1) await new Promise((done) => { setTimeout(done, 50); });
    });
  },

  async pdf({ visitor, page, url }) {
    await visitor.open(url('pdf'));
    await visitor.title('paper.pdf');
    await page.waitForSelector('#actions .saves');
    if (await page.evaluate(() => navigator.pdfViewerEnabled)) {
      await page.waitForSelector('#preview iframe');
      assert.match(await page.$eval('#preview iframe', (frame) => frame.src), /^blob:/);
      await page.waitForTimeout(1000);
      await visitor.look('pdf', { axe: false });
    }
  },

  async damaged({ visitor, page, url }) {
    await visitor.open(url('damaged'));
    await visitor.title('damaged.bin');
    await page.click('#actions .saves');
    await visitor.problem(/damaged, or not what the owner published/);
    await visitor.look('damaged');
    await visitor.open(url('climbing'));
    await visitor.problem(/damaged, or not what the owner published/);
  },

  // A server that answers with what is not this link's.
  async evilServer({ visitor, page, plan, wire, url }) {
    const record = async (link) => Buffer.from(await (await fetch(`${wire.origin}/s/${plan.links[link].id}/record`)).arrayBuffer());
    const own = await record('text');
    const other = await record('folder');
    const changed = Buffer.from(own);
    changed[changed.length - 100] ^= 1;
    const later = Buffer.from(own);
    later[50] ^= 1;
    for (const body of [other, changed, later, own.subarray(0, 100), Buffer.from(plan.stolenRecord, 'base64'), Buffer.alloc(2 << 20)]) {
      await page.route('**/record', (route) => route.fulfill({ status: 200, body }));
      await visitor.open(url('text'));
      await visitor.problem(/damaged, or not what the owner published/);
      await page.unroute('**/record');
    }
    // Another link's pack, a pack of zeros, and blocks in another order.
    const answered = await fetch(`${wire.origin}/s/${plan.links.large.id}/pk/1`, { headers: { Range: 'bytes=0-4194303' } });
    const foreign = Buffer.from(await answered.arrayBuffer());
    const block = (number) => foreign.subarray(number * 262144, (number + 1) * 262144);
    const serve = (pattern, pack) => page.route(pattern, (route) => {
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(route.request().headers().range);
      route.fulfill({ status: 206, body: pack.subarray(Number(from), Number(to) + 1) });
    });
    for (const pack of [foreign, Buffer.alloc(1 << 20)]) {
      await serve('**/pk/*', pack);
      await visitor.open(url('folder'));
      await visitor.problem(/damaged, or not what the owner published/);
      await page.unroute('**/pk/*');
    }
    await serve('**/pk/1', Buffer.concat([block(1), block(0), foreign.subarray(2 * 262144)]));
    await page.addInitScript(() => { delete window.showSaveFilePicker; });
    await visitor.open(url('large'));
    await visitor.title('large.bin');
    const download = await visitor.download();
    await visitor.problem(/damaged, or not what the owner published/);
    assert.notEqual(await download.failure(), null);
    await page.unroute('**/pk/1');
  },

  async hostile({ visitor, page, context, plan, url }) {
    await visitor.open(url('hostile'));
    await visitor.title('<script>window.ran=1<\uFFFDscript>'.replace('\uFFFD', '\\'));
    await page.waitForSelector('#list table');
    await visitor.look('hostile');
    const names = await page.$$eval('#list tbody td:first-child', (cells) => cells.map((cell) => cell.textContent));
    for (const name of names) assert.ok(!/[\x00-\x1f\x7f\u202e\u2066]/.test(name), JSON.stringify(name));
    assert.equal(await page.locator('main img, main script, main svg, main iframe').count(), 0, 'a name became an element');
    const pages = context.pages().length;
    for (const name of ['page.html', 'drawing.svg', 'named.png', 'no-ending', 'feed.xml']) {
      await click(page, name);
      await visitor.title(name);
      await page.waitForTimeout(150);
      assert.ok(await page.isHidden('#preview'), `${name} is shown`);
      const file = await save(await visitor.download(), plan, 'hostile');
      assert.equal(sha256(fs.readFileSync(file)), plan.links.hostile.hashes[name]);
      await page.goBack();
      await page.waitForSelector('#list table');
    }
    // A picture that is a script as well stays a picture.
    await click(page, 'polyglot.gif');
    await page.waitForSelector('#preview img, #notice:not(:empty)');
    await page.goBack();
    await page.waitForSelector('#list table');
    assert.equal(context.pages().length, pages);

    const file = await save(await visitor.download(), plan, 'hostile.zip');
    const members = JSON.parse(python(`
import json, os, sys, tempfile, zipfile
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
print(json.dumps(archive.namelist()))`, file));
    assert.equal(new Set(members.map((name) => name.toLowerCase())).size, members.length, 'two members of one name');
    for (const name of members) {
      assert.ok(!/[\x00-\x1f\x7f\\:\u202e]/.test(name) && !name.startsWith('/') && !name.split('/').includes('..'), JSON.stringify(name));
      assert.ok(!/(^|\/)(con|aux|nul)(\.|\/|$)/i.test(name), name);
    }
  },

  // A file that says it is a petabyte is no reason to use memory.
  async bomb({ visitor, page, url }) {
    await page.addInitScript(() => {
      delete window.showSaveFilePicker;
      Object.defineProperty(navigator, 'serviceWorker', { value: undefined });
      delete Navigator.prototype.serviceWorker;
      delete navigator.serviceWorker;
    });
    await visitor.open(url('bomb'));
    await visitor.title('bomb');
    assert.match(await page.textContent('#about'), /1\.0 PiB/);
    await page.click('#actions .saves');
    await visitor.problem(/too large for a browser/);
  },

  // A download's address answers nobody but the page that gave it, and never as something that could run.
  async serviceWorker({ visitor, page, context, wire, url }) {
    await visitor.open(url('audio'));
    await visitor.title('tone.wav');
    await click(page, 'Play');
    await page.waitForSelector('#preview audio');
    const source = await page.$eval('#preview audio', (audio) => audio.src);
    assert.match(await page.evaluate(() => navigator.serviceWorker.controller.scriptURL), /\/sw\.js$/);
    const visit = async (address) => {
      const other = await context.newPage();
      const outcome = await other.goto(address).then((answer) => String(answer.status()), (error) => error.message);
      await other.close();
      return outcome;
    };
    assert.match(await visit(source), /Download is starting/, 'it was shown and not downloaded');
    assert.match(await visit(`${wire.origin}/dl/${'0'.repeat(32)}`), /404|ERR_HTTP_RESPONSE_CODE_FAILURE/);
    // After a reload by force the page has no worker, though one runs: it is asked to come.
    const session = await context.newCDPSession(page);
    await Promise.all([page.waitForEvent('load'), session.send('Page.reload', { ignoreCache: true })]);
    await visitor.title('The key is missing');
    assert.equal(await page.evaluate(() => navigator.serviceWorker.controller), null);
    await page.fill('#field', url('audio'));
    await page.keyboard.press('Enter');
    await visitor.title('tone.wav');
    await click(page, 'Play');
    await page.waitForFunction(() => document.querySelector('#preview audio')?.readyState >= 1);
    // The page that gave it is gone, and with it what could be read.
    await visitor.open(url('text'));
    await visitor.title('Grüße.txt');
    assert.match(await visit(source), /404|ERR_HTTP_RESPONSE_CODE_FAILURE/, 'an address outlived its page');
  },

  // From a file, as from a stick.
  async exported({ visitor, page, plan }) {
    for (const { page: name, title, sha256: wanted, key, beside, password, identity } of plan.exports) {
      const file = path.join(plan.work, name);
      await visitor.open(`file://${file}`);
      if (key) {
        await visitor.title('The key is needed');
        await visitor.look('export-key');
        await page.fill('#field', plan.links.folder.fragment);
        await click(page, 'Open');
        await visitor.problem(/does not open what is here/);
        await page.fill('#field', key);
        await click(page, 'Open');
      }
      if (beside) {
        await visitor.title('Choose the file');
        await visitor.look('export-choose');
        await page.setInputFiles('#field', path.join(plan.work, 'other.hushbox'));
        await click(page, 'Open');
        await visitor.problem(/damaged|not the file/);
        const damaged = path.join(plan.work, 'damaged.hushbox');
        fs.writeFileSync(damaged, withDamagedPacks(fs.readFileSync(beside)));
        await page.setInputFiles('#field', damaged);
        await click(page, 'Open');
        await visitor.problem(/damaged, or not what/);
        await page.setInputFiles('#field', beside);
        await click(page, 'Open');
      }
      if (password) {
        await visitor.title('A password is needed');
        await page.fill('#field', 'no');
        await click(page, 'Open');
        await visitor.problem(/not the password/);
        await page.fill('#field', password);
        await click(page, 'Open');
      }
      if (identity) {
        await visitor.title('This is for one person');
        await page.fill('#field', identity);
        await click(page, 'Open');
      }
      await visitor.title(title);
      await visitor.look(`export-${name}`.replace('.html', ''));
      const saved = await save(await visitor.download(), plan, 'exported');
      assert.equal(await hashFile(saved), wanted);
      // The key is in the page only where that was asked for.
      if (key) assert.ok(!fs.readFileSync(file, 'latin1').includes(key.split('.')[1]));
    }
  },

  // Last, as it has to end first.
  async expired({ visitor, plan, url }) {
    const left = plan.links.expired.over * 1000 - Date.now();
    if (left > 0) await new Promise((done) => { setTimeout(done, left); });
    await visitor.open(url('expired'));
    await visitor.problem(/has expired/);
    await visitor.look('expired');
  },
};
