'use strict';
// Puts the page together: asks for what is missing, opens the link, shows what it holds.

const given = { id: null, home, secret: null, identity: null, password: null, file: null };
const trail = [];
let client = null;
let summary = null;

start(takeFragment());

function start(fragment) {
  try {
    if (!window.isSecureContext || !window.crypto?.subtle) throw new Failure('insecure');
    given.id = idOfPage();
    if (!given.id) throw new Failure('not-found');
    client = new Client((kind) => notice(TRYING[kind]));
    const key = fragment || exported?.fragment;
    if (!key) return askForLink(new Failure(exported ? 'key-needed' : 'no-key'));
    given.secret = secretFrom(key);
    return openWhenFileIsThere();
  } catch (error) {
    return failed(error);
  }
}

function openWhenFileIsThere() {
  if (!exported) return open();
  if (!exported.box) return askForFile(null);
  const bytes = Uint8Array.from(atob(exported.box), (letter) => letter.charCodeAt(0));
  given.file = new Blob([bytes]);
  return open();
}

async function open() {
  byId('title').textContent = 'Opening the link';
  byId('ask').hidden = true;
  problem({ kind: 'cancelled' });
  notice(given.password === null ? 'Fetching and checking.' : 'Checking the password.');
  try {
    summary = await client.call('open', given);
  } catch (error) {
    failed(error);
    return;
  }
  Object.assign(given, { password: null, identity: null, secret: null });
  notice('');
  history.replaceState({ trail: [0] }, '');
  trail.splice(0, trail.length, { ...summary.top, name: summary.title });
  await show();
}

/** Asks for what is missing, or says what went wrong and offers what may help. */
function failed(error) {
  const asks = {
    'no-key': askForLink, 'key-needed': askForLink, 'bad-link': askForLink, 'wrong-key': askForLink,
    'password-needed': askForPassword, 'password-wrong': askForPassword, 'no-memory': askForPassword,
    'identity-needed': askForIdentity, 'identity-wrong': askForIdentity,
    'file-wrong': askForFile, 'file-unreadable': askForFile,
  };
  const isOtherFile = error.kind === 'damaged' && exported && !exported.box;
  const askAgain = isOtherFile ? askForFile : asks[error.kind];
  if (askAgain && client) {
    askAgain(error);
    return;
  }
  byId('title').textContent = 'This cannot be opened';
  problem(error);
  const again = element('button', { textContent: 'Try again', className: 'main', onclick: () => open() });
  byId('actions').replaceChildren(...(PASSING.includes(error.kind) && client ? [again] : []));
}

/** A form of one field; `take` gets the element when it is sent. */
function ask(title, error, label, field, button, take) {
  byId('title').textContent = title;
  byId('actions').replaceChildren();
  const isNeeded = error === null || error.kind.endsWith('-needed');
  problem(isNeeded ? { kind: 'cancelled' } : error);
  notice(isNeeded && error ? messageOf(error) : '');
  field.id = 'field';
  field.required = true;
  const text = element('label', { htmlFor: 'field', textContent: label });
  byId('ask').replaceChildren(text, field, element('button', { className: 'main', textContent: button }));
  byId('ask').onsubmit = (event) => {
    event.preventDefault();
    try {
      take(field);
    } catch (wrong) {
      failed(wrong);
    }
  };
  byId('ask').hidden = false;
  field.focus();
}

function askForLink(error) {
  const field = element('input', { type: 'text', autocomplete: 'off', spellcheck: false });
  const [title, label] = exported ? ['The key is needed', 'The key'] : ['The key is missing', 'The whole link'];
  ask(title, error, label, field, 'Open', ({ value }) => {
    given.secret = secretFromPasted(value);
    openWhenFileIsThere();
  });
}

function askForPassword(error) {
  const field = element('input', { type: 'password', autocomplete: 'current-password' });
  ask('A password is needed', error, 'Password', field, 'Open', ({ value }) => {
    given.password = value;
    open();
  });
}

function askForIdentity(error) {
  const field = element('textarea', { rows: 4, autocomplete: 'off', spellcheck: false });
  const label = 'Your age identity (AGE-SECRET-KEY-1\u2026). It stays in this browser and is kept nowhere.';
  ask('This is for one person', error, label, field, 'Open', ({ value }) => {
    given.identity = value;
    open();
  });
}

function askForFile(error) {
  const field = element('input', { type: 'file' });
  ask('Choose the file', error, `The file ${exported.file} that lay beside this page`, field, 'Open', ({ files }) => {
    [given.file] = files;
    open();
  });
}

/** What the end of the trail is. */
async function show() {
  const entry = trail.at(-1);
  const isCurrent = () => trail.at(-1) === entry;
  endPreview();
  byId('list').hidden = true;
  byId('list').replaceChildren();
  problem({ kind: 'cancelled' });
  notice('');
  showPath(trail, goBack);
  byId('title').textContent = entry.name;
  byId('about').textContent = about(entry);
  byId('actions').replaceChildren(...actions(entry));
  byId('title').focus();
  try {
    if (entry.type === FOLDER_ENTRY) {
      await showFolder(client, entry, goInto, isCurrent);
    } else {
      await offerPreview(entry, isCurrent);
    }
  } catch (error) {
    if (isCurrent()) problem(error);
  }
}

function about(entry) {
  const isTop = trail.length === 1;
  const parts = [];
  if (entry.type === FILE_ENTRY) parts.push(sizeText(entry.size));
  else if (isTop) parts.push(countText(summary.files, 'file'), sizeText(summary.bytes));
  else parts.push('Folder');
  if (isTop) parts.push(`shared ${dateText(summary.published)}`);
  else if (dateText(entry.modified)) parts.push(`changed ${dateText(entry.modified)}`);
  if (isTop && summary.expiry) parts.push(`open until ${dateText(summary.expiry)}`);
  return parts.join(' \u00b7 ');
}

function actions(entry) {
  const { number } = entry;
  const isFolder = entry.type === FOLDER_ENTRY;
  const open = () => client.call(isFolder ? 'zip' : 'file', { number, start: 0, end: null });
  const name = isFolder ? `${entry.disk}.zip` : entry.disk;
  const onclick = () => download(client, name, open);
  const textContent = isFolder ? 'Download all as ZIP' : 'Download';
  return [element('button', { textContent, className: 'main saves', onclick, disabled: downloading })];
}

async function offerPreview(entry, isCurrent) {
  const shown = await previewOf(client, entry);
  if (!shown || !isCurrent()) return;
  const view = () => showPreview(client, entry, shown, isCurrent).catch((error) => isCurrent() && problem(error));
  if (shown.unasked) {
    await view();
    return;
  }
  const button = element('button', { textContent: shown.kind === 'audio' || shown.kind === 'video' ? 'Play' : 'Show' });
  button.onclick = () => {
    button.remove();
    view();
  };
  byId('actions').append(button);
}

function goInto(entry) {
  trail.push(entry);
  history.pushState({ depth: trail.length }, '');
  show();
}

function goBack(entry) {
  trail.splice(trail.indexOf(entry) + 1);
  history.pushState({ depth: trail.length }, '');
  show();
}

/** The browser's back button goes up; forward has nothing to go to. */
window.addEventListener('popstate', () => {
  if (trail.length > 1) {
    trail.pop();
    show();
  }
});

/** Another link to this page, pasted into the address bar. */
window.addEventListener('hashchange', () => {
  const fragment = takeFragment();
  if (!fragment) return;
  client?.worker.terminate();
  trail.splice(0);
  start(fragment);
});
