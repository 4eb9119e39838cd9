// The worker's decoders without a browser: node units.mjs WORKER.js VECTORS.json GOLDEN-FOLDER
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';

const [, , script, vectorFile, goldenFolder] = process.argv;
const vectors = JSON.parse(fs.readFileSync(vectorFile, 'utf8'));
const names = ['lz4Decode', 'Reader', 'Failure', 'paddedLength', 'unpad', 'decompress', 'fromBase64Url', 'toBase64Url', 'readIdentity',
  'shownName', 'diskName', 'uniqueName', 'Tree', 'Zip', 'crc32', 'concat', 'u64', 'readReference', 'isName', 'LIMIT32', 'Pieces', 'openSeal', 'hex', 'readRecord', 'openRecord', 'openSecret', 'openChunk'];
const globals = { self: {}, crypto, performance, TextDecoder, TextEncoder, atob, btoa, setTimeout, clearTimeout, Intl, postMessage() {}, WebAssembly };
vm.createContext(globals);
vm.runInContext(`${fs.readFileSync(script, 'utf8')}\nglobalThis.exports = { ${names} };`, globals);
const page = globals.exports;
const bytes = (text) => new Uint8Array(Buffer.from(text, 'hex'));
const refused = (work, kind = 'damaged') => assert.throws(work, (error) => error.kind === kind, work.toString());
const same = (left, right) => assert.equal(Buffer.from(left).toString('hex'), Buffer.from(right).toString('hex'));
let passed = 0;

function test(name, work) {
  work();
  passed += 1;
  console.log(`ok ${name}`);
}

test('lz4: what Rust compresses comes back', () => {
  for (const { packed, plain } of vectors.lz4) same(page.lz4Decode(bytes(packed), plain.length / 2), bytes(plain));
});

test('lz4: cut, lengthened and changed blocks end in a failure or in that many bytes', () => {
  for (const { packed, plain } of vectors.lz4) {
    const [block, length] = [bytes(packed), plain.length / 2];
    for (const wrong of [length - 1, length + 1, 0, 65536]) if (wrong !== length && length > 0) refused(() => page.lz4Decode(block, wrong));
    for (let cut = 0; cut < block.length; cut += Math.ceil(block.length / 50)) refused(() => page.lz4Decode(block.subarray(0, cut), length));
    for (let i = 0; i < 300; i += 1) {
      const changed = block.slice();
      changed[(i * 7919) % block.length] ^= 1 + (i % 255);
      try {
        assert.equal(page.lz4Decode(changed, length).length, length);
      } catch (error) {
        assert.equal(error.kind, 'damaged');
      }
    }
  }
  refused(() => page.lz4Decode(bytes(''), 0));
  refused(() => page.lz4Decode(bytes('0000000000'), 4));
  refused(() => page.lz4Decode(bytes('104100ff00'), 10));
  refused(() => page.lz4Decode(bytes(`f0${'ff'.repeat(1000)}00`), 65536));
});

test('numbers have one form, and what a browser cannot hold is said to be too large', () => {
  const varint = (text) => new page.Reader(bytes(text)).varint();
  assert.equal(varint('ac02'), 300);
  assert.equal(varint('ffffffffffffff0f'), Number.MAX_SAFE_INTEGER);
  refused(() => varint('8080808080808010'), 'too-large');
  refused(() => varint('ffffffffffffffffff01'), 'too-large');
  for (const wrong of ['', '80', '8000', 'ffffffffffffffffff02', '80808080808080808000', '8080808080808080808001']) refused(() => varint(wrong));
  const time = (text) => new page.Reader(bytes(text)).time();
  assert.equal(time('80c49fd50c959aef3a'), 1700000000);
  assert.equal(time('0100'), -1);
  refused(() => time('0080a8d6b907'));
});

test('padding and bodies', () => {
  assert.deepEqual([0, 4096, 4097, 65536, 65537, 2 ** 24 + 1].map(page.paddedLength), [4096, 4096, 4352, 65536, 67584, 2 ** 24 + 2 ** 19]);
  const padded = page.concat(bytes('0102'), new Uint8Array(4096 - 10 - 100), page.u64(2));
  same(page.unpad(padded, 100), bytes('0102'));
  refused(() => page.unpad(padded, 101));
  refused(() => page.unpad(padded.map((byte, i) => (i === 50 ? 1 : byte)), 100));
  refused(() => page.unpad(bytes('00'), 4095));
  for (const { packed, plain } of vectors.bodies) {
    same(page.decompress(bytes(packed), 1 << 20), bytes(plain));
    if (plain.length > 2) refused(() => page.decompress(bytes(packed), plain.length / 2 - 1));
  }
  refused(() => page.decompress(bytes('0200'), 100));
  refused(() => page.decompress(bytes('01808004010203'), 1 << 30));
});

test('base64url has one spelling', () => {
  same(page.fromBase64Url('AAECAw'), bytes('00010203'));
  assert.equal(page.toBase64Url(bytes('fbff')), '-_8');
  for (const wrong of ['AAECAw==', 'AAECAx', 'A', 'AA A', 'AA+/']) assert.equal(page.fromBase64Url(wrong), null);
});

test('age identities', () => {
  const { text, key } = vectors.identity;
  same(page.readIdentity(text), bytes(key));
  same(page.readIdentity(text.toLowerCase()), bytes(key));
  const changed = text.slice(0, 30) + (text[30] === 'Q' ? 'P' : 'Q') + text.slice(31);
  for (const wrong of [changed, text.slice(0, -1), `${text}Q`, text.replace('S', 's'), 'age1', '', vectors.identity.recipient]) {
    assert.equal(page.readIdentity(wrong), null, wrong);
  }
});

test('names for people and for disks', () => {
  const text = (string) => new TextEncoder().encode(string);
  const disk = (string) => page.diskName(text(string));
  assert.equal(page.shownName(bytes('ff41')), '\ufffdA');
  assert.equal(page.shownName(text('a\u202eb\u0007c\u2028d')), 'a\ufffdb\ufffdc\ufffdd');
  assert.equal(page.shownName(text('👩\u200d👧 ok')), '👩\u200d👧 ok');
  assert.equal(disk('..\\..\\evil'), '.._.._evil');
  assert.equal(disk('C:evil'), 'C_evil');
  assert.equal(disk('con.txt'), '_con.txt');
  assert.equal(disk('COM¹'), '_COM¹');
  assert.equal(disk('console'), 'console');
  assert.equal(disk('end. .'), 'end___');
  assert.equal(disk('...'), '___');
  assert.equal(disk('a\nb'), 'a_b');
  const long = disk(`${'ä'.repeat(300)}.jpeg`);
  assert.ok(Buffer.byteLength(long) <= 255 && long.endsWith('ä.jpeg'));
  const taken = new Set();
  assert.deepEqual(['Same.txt', 'same.txt', 'SAME.TXT', 'other'].map((name) => page.uniqueName(name, taken)),
    ['Same.txt', 'same (2).txt', 'SAME (3).TXT', 'other']);
});

test('a tree that is not one is refused', () => {
  const entry = (parent, name, kind, rest = '') => parent + Buffer.from([name.length]).toString('hex') + Buffer.from(name).toString('hex') + kind + '0000' + rest;
  const folder = (parent, name) => entry(parent, name, '0200');
  const file = (parent, name) => entry(parent, name, '0100', '0000');
  const tree = (...entries) => new page.Tree(bytes(entries.join('')));
  const good = tree(folder('00', 'top'), folder('00', 'a'), file('01', 'x'), file('00', 'b'));
  assert.deepEqual([good.files, good.total, Array.from(good.children.get(0))], [2, 0, [1, 3]]);
  assert.equal(tree(file('00', 'one')).files, 1);
  refused(() => tree());
  refused(() => tree(file('00', 'one'), file('00', 'two')));
  refused(() => tree(folder('00', 'top'), file('00', 'b'), file('00', 'a')));
  refused(() => tree(folder('00', 'top'), file('00', 'a'), file('00', 'a')));
  refused(() => tree(folder('00', 'top'), file('01', 'a')));
  refused(() => tree(folder('00', 'top'), folder('00', 'a'), file('00', 'b'), file('01', 'x')));
  refused(() => tree(folder('01', 'top')));
  refused(() => tree(entry('00', 'l', '0300', '0161')));
  for (const name of ['', '.', '..', 'a/b', 'a\0b', '../x', 'n'.repeat(256)].slice(0, 6)) refused(() => tree(folder('00', 'top'), file('00', name)));
  refused(() => tree(entry('00', 'top', '0201')));
  refused(() => tree(entry('00', 'top', '0400')));
  refused(() => tree(entry('00', 'f', '0100', '0501')));
  refused(() => tree(entry('00', 'f', '0100', `0a0100${vectors.reference}`)));
  assert.equal(tree(entry('00', 'f', '0100', `${vectors.referenceSize}0100${vectors.reference}`)).total, vectors.referenceLength);
  refused(() => tree(entry('00', 'f', '0100', `${vectors.referenceSize}0101${vectors.reference}`)));
  const deep = [folder('00', 't')];
  for (let i = 0; i < 255; i += 1) deep.push(folder(i < 128 ? Buffer.from([i]).toString('hex') : `${Buffer.from([(i & 127) | 128]).toString('hex')}01`, 'd'));
  assert.equal(tree(...deep).starts.length, 256);
  refused(() => tree(...deep, folder('ff01', 'd')));
});

test('a ZIP of more than four gigabytes has 64-bit numbers where they belong', () => {
  const size = 5 * 2 ** 30;
  const entries = [{ number: 0, parent: 0, name: Buffer.from('top'), type: 2, modified: 0, size: 0 },
    { number: 1, parent: 0, name: Buffer.from('large'), type: 1, modified: 1700000000, size },
    { number: 2, parent: 0, name: Buffer.from('late'), type: 1, modified: -1e12, size: 3 }];
  const zip = new page.Zip({ starts: entries.map(() => 0), entry: (number) => entries[number] }, 0);
  const content = { tasks: (tree, number) => (number === 2 ? [{ run: async () => bytes('616263'), cost: 1 }] : []) };
  let length = 0;
  const ends = [];
  for (const { finish, run } of zip.tasks(content)) if (!run || finish.length === 0) ends.push(finish());
  const central = Buffer.from(ends.at(-1));
  for (const end of ends) length += end.length;
  assert.equal(length + size + 3, zip.size);
  const end64 = central.indexOf(Buffer.from([0x50, 0x4b, 6, 6]));
  assert.equal(central.readBigUInt64LE(end64 + 24), 3n);
  assert.equal(Number(central.readBigUInt64LE(end64 + 48)), zip.centralAt);
  assert.ok(zip.centralAt > size && central.includes(Buffer.from(page.u64(size))));
});

test('a ZIP has room for more members than a call has for arguments', () => {
  const count = 200_000;
  const entry = (number) => ({ number, parent: 0, name: Buffer.from(number ? `f${number}` : 'top'), type: number ? 1 : 2, modified: 0, size: 0 });
  const zip = new page.Zip({ starts: { length: count }, entry }, 0);
  let last;
  for (const { finish } of zip.tasks({ tasks: () => [] })) last = finish(new Uint8Array(0));
  const end64 = Buffer.from(last).indexOf(Buffer.from([0x50, 0x4b, 6, 6]));
  assert.equal(Buffer.from(last).readBigUInt64LE(end64 + 24), BigInt(count));
});

test('checksums', () => {
  assert.equal(page.crc32(0, Buffer.from('123456789')), 0xcbf43926);
  assert.equal(page.crc32(page.crc32(0, Buffer.from('1234')), Buffer.from('56789')), 0xcbf43926);
});

/** A frozen vector as it is, and changed in each way that must make it fail. */
async function golden(name, open, check) {
  const vector = JSON.parse(fs.readFileSync(path.join(goldenFolder, `${name}.json`), 'utf8'));
  const whole = await open(vector.place, bytes(vector.bytes));
  test(`${name} opens`, () => check(whole, vector.opened));
  for (const { why, place, flip_bit: bit, cut_to: cut } of vector.failures) {
    // The page asks for the newest record, and does not know what number that has.
    if (place && 'number' in place) continue;
    const object = bytes(vector.bytes).slice(0, cut);
    if (bit !== undefined) object[bit >> 3] ^= 1 << (bit & 7);
    const outcome = await open({ ...vector.place, ...place }, object).then((found) => found ?? 'failed', (error) => error.kind && 'failed');
    test(`${name}: ${why}`, () => assert.equal(outcome, 'failed'));
  }
}

await golden('seal', async ({ key, volume, id }, object) => page.openSeal(bytes(key), 'record', bytes(volume), id.map(bytes), object),
  (plain, opened) => same(plain, bytes(opened.plain)));

// The vectors are of a fixed time.
vm.runInContext('Date.now = () => 1750000000000', globals);

async function openRecord({ link, secret, identity, password }, object) {
  const record = await page.readRecord(object, bytes(link));
  const key = identity ? await page.openSecret(record, [bytes(identity)]) : bytes(secret);
  return page.openRecord(record, key, password ?? null);
}

function isHeader(found, opened) {
  same(found.title, bytes(opened.title));
  same(found.root, bytes(opened.root));
  assert.deepEqual([found.published, found.files, found.bytes, found.type === 2], [opened.published[0], opened.files, opened.bytes, opened.directory]);
  // Through text: what is of another realm is never deeply equal.
  assert.deepEqual(JSON.parse(JSON.stringify(found.index.map(({ pack, offset, length, frames }) => [pack, offset, length, ...frames]))),
    opened.index.map(({ pack, offset, len, frames }) => [pack, offset, len, ...frames]));
}

for (const name of ['link-record', 'link-record-password', 'link-record-recipient']) await golden(name, openRecord, isHeader);
const failsAs = (open) => (place, object) => open(place, object).then(() => null, (error) => error.kind);
await golden('link-record-costly', failsAs(openRecord), (kind) => assert.equal(kind, 'damaged'));
const { place: grave, bytes: tombstone } = JSON.parse(fs.readFileSync(path.join(goldenFolder, 'link-tombstone.json'), 'utf8'));
const told = await failsAs(openRecord)(grave, bytes(tombstone));
test('link-tombstone', () => assert.equal(told, 'revoked'));

await golden('link-chunk', ({ link, root, id, len, frames, sha256 }, object) => {
  const reference = { id: bytes(id), length: len, frames, sha256: bytes(sha256) };
  return page.openChunk(bytes(root), bytes(link), reference, object);
}, (plain) => assert.equal(Buffer.from(plain).toString(), `${'a'.repeat(65536)}the end`));

await golden('link-index', async ({ title, directory, files, bytes: total }, object) => {
  const tree = new page.Tree(object);
  const top = tree.entry(0);
  if (page.hex(top.name) !== title || (top.type === 2) !== directory || tree.files !== files || tree.total !== total) throw new page.Failure('damaged');
  return tree;
}, (tree, opened) => {
  const entries = opened.filter((item) => 'entry' in item);
  assert.deepEqual(Array.from(tree.starts, (_, number) => page.hex(tree.entry(number).name)), entries.map(({ name }) => name));
});

const order = [];
let failures = 1;
const pieces = new page.Pieces([1, 2, 3].map((n) => ({
  cost: 1,
  run: async () => {
    if (n === 2 && failures > 0) {
      failures -= 1;
      throw new page.Failure('cut-off');
    }
    return new Uint8Array([n]);
  },
})));
order.push((await pieces.next())[0]);
await assert.rejects(pieces.next(), (error) => error.kind === 'cut-off');
for (let piece = await pieces.next(); piece; piece = await pieces.next()) order.push(piece[0]);
test('a download goes on at the piece that failed', () => assert.deepEqual(order, [1, 2, 3]));

console.log(`${passed} passed, 0 failed`);
