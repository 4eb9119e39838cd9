'use strict';
// Numbers and times for people, and elements without markup: all text goes in as text.

const byId = (id) => document.getElementById(id);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function sizeText(bytes) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  if (unit === 0) return bytes === 1 ? '1 byte' : `${bytes} bytes`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Empty for a time that no calendar has. */
function dateText(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? '' : date.toLocaleDateString(undefined, { dateStyle: 'medium' });
}

const countText = (count, one) => `${count.toLocaleString()} ${one}${count === 1 ? '' : 's'}`;

/** Says it to who sees the page and to who hears it. */
function notice(text) {
  byId('notice').textContent = text;
}

function problem(error) {
  notice('');
  byId('problem').textContent = error.kind === 'cancelled' ? '' : messageOf(error);
}
