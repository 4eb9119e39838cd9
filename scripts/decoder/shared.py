"""What a link shares, from a copy of the bucket: listed, and written to a folder."""

import base64
import binascii
import os
import re

from . import links
from .extract import nanoseconds, said, write_all
from .primitives import Refused, malformed

LINK = re.compile(r"(?:.*/s/)?([0-9a-f]{32})#1(?:\.([A-Za-z0-9_-]{43}))?")


class NotALink(Exception):
    pass


class Gone(Exception):
    pass


def parse(text):
    """Id and secret; no secret in a recipient's link."""
    found = LINK.fullmatch(text)
    if not found:
        raise NotALink("a link looks like https://HOST/s/ID#1.SECRET, or ID#1 for a recipient")
    if found[2] is None:
        return bytes.fromhex(found[1]), None
    try:
        secret = base64.urlsafe_b64decode(found[2] + "=")
    except binascii.Error:
        raise NotALink("the secret in the link was not copied whole") from None
    if base64.urlsafe_b64encode(secret).decode().rstrip("=") != found[2]:
        raise NotALink("the secret in the link was not copied whole")
    return bytes.fromhex(found[1]), secret


class Shared:
    def __init__(self, folder, text, password, identities, now):
        self.folder, (self.id, secret) = os.path.join(folder, "share"), parse(text)
        record = self.newest()
        if record.expiry and now >= record.expiry:
            raise Gone("the link has expired")
        if secret is None:
            secret = secret_for(record, identities)
        self.header, self.root = links.contents(record, secret, password)

    def newest(self):
        own = os.path.join(self.folder, self.id.hex())
        names = sorted(os.listdir(own)) if os.path.isdir(own) else []
        found, refused = [], None
        for name in names:
            if re.fullmatch(r"[0-9]{20}", name):
                try:
                    found.append(self.record(own, name))
                except Refused as error:
                    # Anybody who can write to the bucket may have put it there: it hides nothing of the owner's.
                    refused = error
        if not found:
            raise refused or Gone("there is no such link here")
        if any(record.tombstone for record in found):
            raise Gone("the link was taken back by who shared it")
        return found[-1]

    def record(self, own, name):
        with open(os.path.join(own, name), "rb") as file:
            return links.record(self.id, int(name), file.read(links.RECORD_LEN_MAX + 1))

    def chunk(self, chunk):
        path = os.path.join(self.folder, self.id.hex(), "pk", f"{chunk.pack:020}")
        with open(path, "rb") as file:
            file.seek(chunk.offset)
            sealed = file.read(links.sealed_len(chunk))
        return links.chunk(self.id, self.root, chunk, sealed)

    def items(self):
        """(path, entry, chunks) of each, what is shared first: its path is the title."""
        header = self.header
        data = b"".join(self.chunk(chunk) for chunk in header.index)
        found = links.index(header.title, header.directory, header.files, header.bytes, data)
        paths, last = {}, None
        for item in found:
            if isinstance(item, links.Entry):
                if last:
                    yield last
                above = paths[item.parent] + b"/" if item.number else b""
                if item.kind == links.DIRECTORY:
                    paths[item.number] = above + item.name
                last = (above + item.name, item, [])
            else:
                last[2].append(item)
        yield last

    def extract(self, destination, complain):
        """Below a folder that is made now. Symlinks only where they stay inside."""
        os.mkdir(destination)
        directories = []
        for path, entry, chunks in self.items():
            place = os.path.join(destination, path)
            try:
                if entry.kind == links.DIRECTORY:
                    os.mkdir(place)
                    directories.append((place, entry))
                elif entry.kind == links.FILE:
                    self.write_file(place, entry, chunks)
                    set_time(place, entry)
                elif stays_inside(entry.target, path.count(b"/") - 1):
                    os.symlink(entry.target, place)
                    set_time(place, entry)
                else:
                    raise malformed("a symlink that leads out of what is shared")
            except (OSError, Refused) as error:
                complain(os.fsdecode(path), said(error))
        for place, entry in reversed(directories):
            set_time(place, entry)

    def write_file(self, place, entry, chunks):
        mode = 0o777 if entry.executable else 0o666
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.ftruncate(file, entry.size)
            for piece, chunk in chunks:
                write_all(file, self.chunk(chunk), piece * links.PIECE_LEN)
        except (OSError, Refused):
            os.unlink(place)
            raise
        finally:
            os.close(file)


def secret_for(record, identities):
    """What the record has sealed to one of them."""
    if record.recipient is None:
        raise NotALink("the secret of the link, behind '#1.', is missing")
    for identity in identities:
        try:
            return links.secret_for(record, identity)
        except Refused:
            pass
    raise Refused("identity", "the link is for a recipient, and opens with their --identity-file")


def set_time(place, entry):
    os.utime(place, ns=(nanoseconds(entry.mtime),) * 2, follow_symlinks=False)


def stays_inside(target, depth):
    """Upward steps stand first, and are no more than the folders above."""
    steps = [step for step in target.split(b"/") if step not in (b"", b".")]
    upward = next((at for at, step in enumerate(steps) if step != b".."), len(steps))
    return not target.startswith(b"/") and upward <= depth and b".." not in steps[upward:]
