'use strict';
// What each failure is called for a person: what happened, and what to do.

const MESSAGES = {
  'no-key': 'This address has no key in it. Paste the whole link as you got it, with everything behind the # sign.',
  'key-needed': 'This page opens with its key, which came apart from it. Paste all of it.',
  'bad-link': 'This link is incomplete or of a newer version. Copy it again, with everything behind the # sign.',
  'wrong-key': 'This key does not open what is here. Copy the link, or the key, again and whole.',
  'not-found': 'There is nothing at this link. It may have been mistyped.',
  revoked: 'The owner has taken this link back. Ask them for a new one.',
  expired: 'This link has expired. Ask its owner for a new one.',
  changed: 'The owner has just changed what is shared. Open the link again to see it.',
  damaged: 'What came is damaged, or not what the owner published. Nothing of it was kept. Try again later, or ask the owner.',
  'cut-off': 'The connection was cut off. Check it, then go on.',
  busy: 'The server has too much to do, or you have used up what one visitor may. Wait a little, then go on.',
  'password-needed': 'The owner protected this with a password.',
  'password-wrong': 'That is not the password. Capital letters and spaces count.',
  'identity-needed': 'This was shared with one person only, and opens with their age identity.',
  'identity-wrong': 'This was not shared with that age identity, or it is none.',
  'no-memory': 'There is not enough memory on this device to check the password. Close other tabs, or use another device.',
  'too-large': 'This is too large for a browser. In a terminal, `hushfs get` with the same link fetches it.',
  'no-service': 'This browser does not stream it. Close this tab, open the link in a new one, or download the file.',
  'file-wrong': 'That is not the file that belongs to this page. Choose the one that lay beside it.',
  'file-unreadable': 'The file cannot be read. If it is on a stick, is that still plugged in?',
  'disk-full': 'The file could not be written. Is there room on this device?',
  unsupported: 'This browser is too old: it lacks the ciphers that are needed (Ed25519 and X25519). Update it, or use another.',
  insecure: 'Browsers decrypt only on pages that come over https. Ask whoever sent the link for an https one.',
  bug: 'Something went wrong in this page. Load it again from the whole link.',
};

/** After these, the same again may work; what is said while the page tries by itself. */
const TRYING = {
  'cut-off': 'The connection was cut off. Trying again.',
  busy: 'The server asks for a little patience. Waiting.',
};
const PASSING = Object.keys(TRYING);

function messageOf(error) {
  return MESSAGES[error.kind] || MESSAGES.bug;
}
