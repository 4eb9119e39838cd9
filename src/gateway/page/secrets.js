'use strict';
// The link, from the address or from what was pasted. Invariant: the fragment leaves the address bar, and so the
// history, before anything else happens.

const KEY_PATTERN = /^1(?:\.([A-Za-z0-9_-]{43}))?$/;

/** What `share export` put into the page; null in a page from a gateway. */
const exported = (() => {
  const data = document.getElementById('export');
  return data && JSON.parse(data.textContent);
})();

/** Reads the fragment and takes it away. */
function takeFragment() {
  const fragment = location.hash.slice(1);
  if (fragment) history.replaceState(null, '', location.href.split('#')[0]);
  return fragment;
}

/** Where the gateway is: `/`, or longer behind a proxy that gave it a folder. */
const home = exported ? '' : location.pathname.replace(/s\/[^/]*$/, '');

function idOfPage() {
  const text = exported ? exported.id : /\/s\/([0-9a-f]{32})$/.exec(location.pathname)?.[1];
  return text ? Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16)) : null;
}

/** The link's secret from its fragment; null for a recipient's, which has none. */
function secretFrom(fragment) {
  if (!fragment) throw new Failure('no-key');
  const match = KEY_PATTERN.exec(fragment);
  if (!match) throw new Failure('bad-link');
  if (!match[1]) return null;
  const secret = fromBase64Url(match[1]);
  if (!secret) throw new Failure('bad-link');
  return secret;
}

/** From a whole pasted link, or only what stands behind its #. It must be the link of this page. */
function secretFromPasted(text) {
  const trimmed = text.trim();
  const [before, fragment] = trimmed.includes('#') ? trimmed.split('#') : ['', trimmed];
  const id = /([0-9a-f]{32})$/.exec(before)?.[1];
  if (id && id !== hex(idOfPage())) throw new Failure('wrong-key');
  return secretFrom(fragment);
}
