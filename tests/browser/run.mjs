// Runs the scenarios against a gateway: node run.mjs PLAN.json. The plan is written by tests/browser.rs.
import { assert, fs, launch, path, Visitor } from './harness.mjs';
import { scenarios } from './scenarios.mjs';
import { Wire } from './wire.mjs';

const plan = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
// Names of scenarios, for whoever works on one.
const only = process.env.HUSHFS_BROWSER_ONLY?.split(',');
const failures = [];
let passed = 0;

const secrets = Object.entries(plan.secrets).flatMap(([what, texts]) => texts.map((text) => [what, Buffer.from(text, 'utf8')]));
const wire = await new Wire(plan.port, secrets.map(([, bytes]) => bytes)).listen();
const context = await launch(path.join(plan.work, 'profile'));
// Long enough for a machine that has other things to do.
context.setDefaultTimeout(90_000);

for (const [name, scenario] of Object.entries(scenarios)) {
  if (only && !only.includes(name)) continue;
  const page = await context.newPage();
  const visitor = new Visitor(page, plan.shots);
  const begun = Date.now();
  try {
    await scenario({ visitor, page, context, wire, plan, url: (link) => `${wire.origin}/s/${plan.links[link].id}#${plan.links[link].fragment}` });
    await visitor.isClean();
    passed += 1;
    console.log(`ok ${name} (${Date.now() - begun} ms)`);
  } catch (error) {
    failures.push(name);
    await page.screenshot({ path: path.join(plan.shots, `failed-${name}.png`) }).catch(() => {});
    console.log(`FAILED ${name}: ${error.stack}\n  ${visitor.trouble.join('\n  ')}`);
  }
  await page.close();
}

try {
  const sent = wire.everythingSent();
  assert.ok(sent.includes('GET /s/') && sent.includes('Range: bytes='), 'nothing was captured');
  for (const [what, bytes] of secrets) assert.ok(!sent.includes(bytes.toString('latin1')), `${what} was sent to the server`);
  assert.deepEqual(wire.found.map(String), [], 'the gateway has what it should not know');
  const requests = sent.split(/(?=(?:GET|HEAD|POST|PUT|OPTIONS) \/)/);
  // A browser that looks for a newer service worker names the old one, which every link has.
  const own = (request) => request.startsWith('GET /sw.js ') && /\r\nReferer: [^ ]*\/sw\.js\r\n/.test(request);
  for (const request of requests) {
    assert.ok(own(request) || !/\r\n(Referer|Cookie):/i.test(request), `more than need be was sent:\n${request}`);
  }
} catch (error) {
  failures.push('capture');
  console.log(`FAILED capture: ${error.message}`);
}

await context.close();
wire.close();
console.log(`${passed} passed, ${failures.length} failed`);
process.exit(failures.length > 0 ? 1 : 0);
