#!/usr/bin/env python3
"""Reads a hushfs volume from a copy of its bucket, without hushfs, by src/format/FORMAT.md.

Needs: python3 -m venv venv && venv/bin/pip install -r scripts/decode-requirements.txt

  venv/bin/python scripts/decode.py COPY --password-file F list
  venv/bin/python scripts/decode.py COPY --password-file F extract DEST [PATH...]
  venv/bin/python scripts/decode.py COPY --recovery-words-file F verify
  venv/bin/python scripts/decode.py COPY link LINK list
  venv/bin/python scripts/decode.py COPY --password-file F link LINK extract DEST
  venv/bin/python scripts/decode.py COPY --identity-file F link LINK extract DEST
  venv/bin/python scripts/decode.py COPY --identity-file F list

COPY holds hushfs.volume, keys/, log/ and so on, as `aws s3 sync` or rclone copy them. A link needs share/ alone, and its
password if it has one, or its recipient's identity. What is damaged is named, one line each on standard error, and the rest is read.

Exit codes: 0 done and whole; 1 something is damaged, missing or could not be extracted; 2 wrong usage, or a Python
module is missing; 3 the secret opens nothing here; 4 there is no volume here; 10 the link was taken back, has expired,
or is not there.
"""

import argparse
import datetime
import os
import stat
import sys
import time

from decoder.extract import Extraction, device_numbers
from decoder.primitives import Refused
from decoder.shared import Gone, NotALink, Shared
from decoder.tree import Tree
from decoder.volume import Contents, NoVolume, Reading, Store, WrongSecret, slot_name, slots, unlock
from decoder import age, objects
from mnemonic import Mnemonic

DAMAGED, USAGE, WRONG_SECRET, NO_VOLUME, LINK_GONE = 1, 2, 3, 4, 10


class Complaints:
    """Each is printed once."""

    def __init__(self):
        self.made = set()

    def __call__(self, what, error):
        complaint = f"{printable(os.fsencode(what))}: {error}"
        if complaint not in self.made:
            self.made.add(complaint)
            print(complaint, file=sys.stderr)


def main():
    arguments = parse_arguments()
    complain = Complaints()
    store = Store(arguments.store)
    try:
        kind, secrets = secret_of(arguments)
        if arguments.command == "link":
            link(arguments, kind, secrets, complain)
            return DAMAGED if complain.made else 0
        roots, created = unlock(store, kind, secrets, arguments.kdf_memory_max << 20, complain)
        reading = Reading(store, roots, complain)
        state = reading.all_ways() if arguments.command == "verify" else reading.newest()
        tree = Tree(state.rows)
        # A volume that no device has mounted yet has no log.
        for what, error in tree.check() if state.seq else ():
            complain(what, error)
        contents = Contents(store, roots, tree)
        if arguments.command == "list":
            for path, number in tree.walk():
                print(line(tree, path, number))
        elif arguments.command == "extract":
            extract(arguments, tree, contents, complain)
        else:
            verify(store, roots, tree, contents, complain)
            volume = objects.fingerprint(store.read("hushfs.volume"))
            print(f"volume {volume}, made {moment(created)}")
            print(f"head {state.seq}, hash {state.hash.hex()}")
            counts = f"{len(tree.inodes)} inodes, {len(tree.chunks)} chunks, {len(tree.packs)} packs"
            print(f"{len(state.rows)} rows, {counts}")
    except NoVolume as error:
        return fail(NO_VOLUME, error)
    except WrongSecret as error:
        return fail(WRONG_SECRET, error)
    except NotALink as error:
        return fail(USAGE, error)
    except Gone as error:
        return fail(LINK_GONE, error)
    except (Refused, OSError, MemoryError) as error:
        return fail(DAMAGED, str(error) or "not enough memory")
    return DAMAGED if complain.made else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="COPY", help="a folder that is a copy of the bucket")
    secret = parser.add_mutually_exclusive_group()
    help = "the volume's or the link's password, without its last line break"
    secret.add_argument("--password-file", metavar="F", help=help)
    secret.add_argument("--recovery-words-file", metavar="F", help="the 24 words")
    secret.add_argument("--identity-file", metavar="F", help="the age identity of somebody who was let in, or whom the link is for")
    parser.add_argument(
        "--kdf-memory-max",
        metavar="MIB",
        type=int,
        default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 >> 20,
        help="what a password's derivation may take (default: a quarter of this machine's memory, %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|extract|verify|link")
    commands.add_parser("list", help="mode, links, owner, size, time and path of everything")
    extract = commands.add_parser("extract", help="write files; as root with owners and device nodes")
    extract.add_argument("destination", metavar="DEST", help="a new or empty folder")
    extract.add_argument("paths", metavar="PATH", nargs="*", help="only these and what is below them")
    commands.add_parser("verify", help="check every object that the head reaches, and every way to the head")
    link = commands.add_parser("link", help="what a link shares, which needs nothing of the volume")
    link.add_argument("link", metavar="LINK", help="https://HOST/s/ID#1.SECRET, or ID#1.SECRET; a recipient's has no SECRET")
    of_link = link.add_subparsers(dest="link_command", required=True, metavar="list|extract")
    of_link.add_parser("list", help="type, size, time and path of everything")
    of_link.add_parser("extract", help="write files").add_argument("destination", metavar="DEST", help="a new folder")
    arguments = parser.parse_args()
    secrets = (arguments.password_file, arguments.recovery_words_file, arguments.identity_file)
    if arguments.command != "link" and not any(secrets):
        parser.error("one of the arguments --password-file --recovery-words-file --identity-file is required")
    return arguments


def secret_of(arguments):
    """The kind of slot that it opens, and what to try on one: a password, what the words are, or private halves. None
    for a link without a password."""
    if not (arguments.password_file or arguments.recovery_words_file or arguments.identity_file):
        return None, []
    if arguments.password_file:
        with open(arguments.password_file, "rb") as file:
            password = file.read()
        if password.endswith(b"\n"):
            password = password[:-1].removesuffix(b"\r")
        return objects.PASSWORD, [password]
    if arguments.identity_file:
        with open(arguments.identity_file) as file:
            try:
                return objects.RECIPIENT, age.identities(file.read())
            except Refused as error:
                raise WrongSecret(f"{arguments.identity_file}: {error.why}") from None
    with open(arguments.recovery_words_file) as file:
        words = file.read().lower().split()
    try:
        if len(words) != 24:
            raise ValueError(f"there are {len(words)}")
        return objects.RECOVERY, [bytes(Mnemonic("english").to_entropy(words))]
    except (ValueError, LookupError) as error:
        raise WrongSecret(f"the recovery words are not 24 that belong together: {error}") from None


def fail(code, error):
    print(f"decode.py: {error}", file=sys.stderr)
    return code


def line(tree, path, number):
    inode = tree.inodes[number]
    shown = printable(path)
    if inode.type == stat.S_IFLNK:
        shown += f" -> {printable(inode.target)}"
    if inode.type in (stat.S_IFCHR, stat.S_IFBLK):
        shown += " ({}, {})".format(*device_numbers(inode.rdev))
    owner = f"{inode.uid}:{inode.gid}"
    return f"{stat.filemode(inode.mode)} {inode.nlink} {owner} {inode.size} {moment(inode.mtime)} {shown}"


def moment(time):
    seconds, nanoseconds = time
    try:
        whole = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return f"@{seconds}.{nanoseconds:09}"
    return f"{whole.isoformat(sep=' ')}.{nanoseconds:09} +0000"


def printable(name):
    """No byte of a name reaches the terminal that could do something there."""
    text = name.decode(errors="surrogateescape")
    return "".join(c if c.isprintable() and c != "\\" else escaped(c) for c in text)


def escaped(character):
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def extract(arguments, tree, contents, complain):
    wanted = [os.fsencode(path).strip(b"/") for path in arguments.paths] or [b""]
    for path in wanted:
        if tree.find(path) is None:
            raise FileNotFoundError(f"{printable(path)} is not in the volume")
    Extraction(tree, contents, os.fsencode(arguments.destination), complain).run(wanted)


def link(arguments, kind, secrets, complain):
    password = secrets[0] if kind == objects.PASSWORD else None
    identities = secrets if kind == objects.RECIPIENT else []
    try:
        shared = Shared(arguments.store, arguments.link, password, identities, time.time())
    except Refused as refused:
        if refused.word in ("password", "identity"):
            raise WrongSecret(refused.why) from None
        raise
    if arguments.link_command == "extract":
        shared.extract(os.fsencode(arguments.destination), complain)
        return
    for path, entry, _ in shared.items():
        kind = "-xdl"[entry.kind if entry.kind > 1 else entry.executable]
        target = f" -> {printable(entry.target)}" if entry.target else ""
        print(f"{kind} {entry.size} {moment(entry.mtime)} {printable(path)}{target}")


def verify(store, roots, tree, contents, complain):
    for epoch, number, slot in slots(store, lambda what, error: None):
        place = (roots.volume, epoch, number)
        attempt(complain, slot_name(epoch, number), objects.slot_details, *place, slot, roots.root(epoch))
    for number in sorted(tree.packs):
        attempt(complain, f"pack {number:#x}", contents.check_pack, number)
    for number in sorted(tree.chunks, key=lambda number: (tree.chunks[number].pack, tree.chunks[number].offset)):
        attempt(complain, f"chunk {number:#x}", contents.read_chunk, number)


def attempt(complain, what, check, *arguments):
    try:
        check(*arguments)
    except Refused as error:
        complain(what, error)


if __name__ == "__main__":
    sys.exit(main())
