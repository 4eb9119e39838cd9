'use strict';
// A folder as a table, and the way to it.

const FILE_ENTRY = 1;
const FOLDER_ENTRY = 2;
const LINK_ENTRY = 3;

/** The rows that the worker gave, and a button for more of them. */
async function showFolder(client, folder, go, isCurrent) {
  const section = byId('list');
  const { entries, count } = await client.call('list', { number: folder.number, from: 0 });
  if (!isCurrent()) return;
  if (count === 0) {
    section.replaceChildren(element('p', { textContent: 'This folder is empty.' }));
    section.hidden = false;
    return;
  }
  const body = element('tbody', {});
  const head = element('tr', {}, ...['Name', 'Size', 'Changed'].map((name) => element('th', { scope: 'col', textContent: name })));
  const more = element('button', { textContent: 'Show more' });
  const add = (added) => {
    body.append(...added.map((entry) => row(entry, go)));
    more.hidden = body.rows.length >= count;
  };
  more.onclick = async () => {
    const from = body.rows.length;
    const next = await client.call('list', { number: folder.number, from });
    add(next.entries);
    notice(`${body.rows.length.toLocaleString()} of ${count.toLocaleString()} are shown.`);
    body.rows[from]?.querySelector('button')?.focus();
  };
  section.replaceChildren(element('table', {}, element('thead', {}, head), body), more);
  add(entries);
  section.hidden = false;
}

function row(entry, go) {
  const kinds = { [FOLDER_ENTRY]: 'Folder', [LINK_ENTRY]: 'Symbolic link' };
  const shown = entry.type === FOLDER_ENTRY ? `${entry.name}/` : entry.name;
  const name = entry.type === LINK_ENTRY
    ? element('span', { textContent: `${shown} \u2192 ${entry.target}` })
    : element('button', { textContent: shown, onclick: () => go(entry) });
  return element('tr', {}, element('td', {}, name),
    element('td', { textContent: kinds[entry.type] ?? sizeText(entry.size) }),
    element('td', { textContent: dateText(entry.modified) }));
}

/** The folders above, each a button. */
function showPath(trail, go) {
  const items = trail.slice(0, -1).map((entry) => element('li', {}, element('button', { textContent: entry.name, onclick: () => go(entry) })));
  byId('path').replaceChildren(element('ol', {}, ...items));
  byId('path').hidden = items.length === 0;
}
