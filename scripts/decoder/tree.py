"""From rows to files, and what must hold among the rows."""

import os
import stat
from collections import defaultdict

from . import rows
from .primitives import malformed


class Tree:
    def __init__(self, raw):
        self.inodes, self.chunks, self.keys, self.packs = {}, {}, {}, {}
        self.entries = defaultdict(dict)
        self.types = {}
        self.backrefs = defaultdict(set)
        self.xattrs = defaultdict(list)
        self.windows = defaultdict(dict)
        self.chunks_of_pack = defaultdict(list)
        for key, value in sorted(raw.items()):
            tag, parts = rows.parse_key(key)
            self.take(tag, parts, rows.parse_value(tag, parts, value))

    def take(self, tag, parts, value):
        if tag == "I":
            self.inodes[parts[0]] = value
        elif tag == "X":
            self.windows[parts[0]][parts[1]] = value
        elif tag == "D":
            self.entries[parts[0]][parts[1]], self.types[parts] = value
        elif tag == "B":
            self.backrefs[parts[0]].add(parts[1:])
        elif tag == "A":
            self.xattrs[parts[0]].append((parts[1], value))
        elif tag == "C":
            self.chunks[parts[0]] = value
            self.chunks_of_pack[value.pack].append(parts[0])
        elif tag == "K":
            self.keys[parts[0]] = value
        elif tag == "P":
            self.packs[parts[0]] = value

    def extents(self, number):
        """All of a file's, ascending. What lies between them is zeros."""
        found = list(self.inodes[number].extents)
        for _, window in sorted(self.windows.get(number, {}).items()):
            found += window
        return found

    def walk(self, path=b"", number=rows.ROOT):
        """(path, inode number) of everything there and below, by name, each directory before what is in it.

        Entries of what does not exist are left out, and no directory is entered twice: `check` has named them.
        """
        waiting = [(path, number)]
        entered = set()
        while waiting:
            path, number = waiting.pop()
            if number not in self.inodes:
                continue
            if path:
                yield path, number
            if self.inodes[number].type == stat.S_IFDIR and number not in entered:
                entered.add(number)
                names = sorted(self.entries.get(number, {}).items(), reverse=True)
                waiting += [(path + b"/" + name if path else name, child) for name, child in names]

    def find(self, path):
        """The inode number, or None."""
        number = rows.ROOT
        for name in filter(None, path.split(b"/")):
            number = self.entries.get(number, {}).get(name)
        return number if number in self.inodes else None

    def check(self):
        """What contradicts itself among the rows: (what, error) of each."""
        root = self.inodes.get(rows.ROOT)
        if root is None or root.type != stat.S_IFDIR:
            yield "inode 0x1", malformed("there is no root directory")
        for number, inode in self.inodes.items():
            for why in self.check_inode(number, inode):
                yield f"inode {number:#x}", malformed(why)
        for parent, names in self.entries.items():
            for name, number in names.items():
                for why in self.check_entry(parent, name, number):
                    yield f"entry {os.fsdecode(name)} of inode {parent:#x}", malformed(why)
        for owned in (self.windows, self.xattrs, self.backrefs):
            for number in owned.keys() - self.inodes.keys():
                yield f"inode {number:#x}", malformed("rows of an inode that does not exist")
        for number, chunk in self.chunks.items():
            if chunk.pack not in self.packs or chunk.key not in self.keys:
                yield f"chunk {number:#x}", malformed("its pack or its key does not exist")
        reached = {number for _, number in self.walk()} | {rows.ROOT}
        for number in self.inodes.keys() - reached:
            yield f"inode {number:#x}", malformed("it cannot be reached from the root")

    def check_entry(self, parent, name, number):
        inode = self.inodes.get(number)
        if inode is None or self.types[parent, name] != inode.type:
            yield "no such inode, or one of another type"
        if parent not in self.inodes or self.inodes[parent].type != stat.S_IFDIR:
            yield "it is in no directory"
        if (parent, name) not in self.backrefs.get(number, set()):
            yield "its inode does not know it"

    def check_inode(self, number, inode):
        links = self.backrefs.get(number, set())
        for parent, name in links:
            if self.entries.get(parent, {}).get(name) != number:
                yield f"a link {os.fsdecode(name)} that its directory does not know"
        if inode.type == stat.S_IFDIR:
            inside = sum(self.types[number, name] == stat.S_IFDIR for name in self.entries.get(number, {}))
            if inode.nlink != 2 + inside or len(links) != (0 if number == rows.ROOT else 1):
                yield "a directory with a wrong number of links"
        elif inode.nlink != len(links) or not links:
            yield f"{inode.nlink} links counted where there are {len(links)}"
        if inode.type == stat.S_IFLNK and inode.size != len(inode.target):
            yield "a symlink whose size is not its target's"
        if inode.type == stat.S_IFREG:
            yield from self.check_content(number, inode)
        elif number in self.windows:
            yield "extents of what is no file"

    def check_content(self, number, inode):
        windows = self.windows.get(number, {})
        if inode.extents and 0 in windows:
            yield "extents of the first window in two places"
        if not all(windows.values()):
            yield "a window without extents"
        extents = self.extents(number)
        if inode.allocated != sum(extent.len for extent in extents):
            yield "allocated bytes that are not its extents'"
        if extents and extents[-1].end > inode.size:
            yield "extents beyond its size"
        if inode.key and inode.key not in self.keys:
            yield "a key that does not exist"
        for extent in extents:
            chunk = self.chunks.get(extent.chunk)
            if chunk is None or extent.chunk_offset + extent.len > chunk.len:
                yield f"an extent of chunk {extent.chunk:#x}, which does not have those bytes"
