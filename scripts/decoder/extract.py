"""Files from a tree, with all that the volume knows of them."""

import os
import stat

from . import rows
from .primitives import Refused


class Extraction:
    def __init__(self, tree, contents, destination, complain):
        self.tree, self.contents, self.destination, self.complain = tree, contents, destination, complain
        self.is_root = os.geteuid() == 0
        # Where an inode's first link is.
        self.placed = {}

    def run(self, wanted):
        """What is at these paths and below."""
        os.makedirs(self.destination, exist_ok=True)
        if os.listdir(self.destination):
            raise FileExistsError(f"{os.fsdecode(self.destination)} is not empty")
        directories = [(self.destination, rows.ROOT)] if b"" in wanted else []
        for path, number in self.chosen(wanted):
            place = os.path.join(self.destination, path)
            try:
                self.make(place, number)
                if self.tree.inodes[number].type == stat.S_IFDIR:
                    directories.append((place, number))
            except (OSError, OverflowError, Refused) as error:
                self.complain(os.fsdecode(path), said(error))
        # What is made inside a directory changes its times, so they come last, and what is deeper before.
        for place, number in reversed(directories):
            try:
                self.finish(place, number)
            except (OSError, OverflowError) as error:
                self.complain(os.fsdecode(place), said(error))

    def chosen(self, wanted):
        for path in wanted:
            parent = os.path.dirname(path)
            if parent:
                os.makedirs(os.path.join(self.destination, parent), exist_ok=True)
            yield from self.tree.walk(path, self.tree.find(path))

    def make(self, place, number):
        inode = self.tree.inodes[number]
        if inode.type == stat.S_IFDIR:
            os.mkdir(place, 0o700)
            return
        if number in self.placed:
            os.link(self.placed[number], place, follow_symlinks=False)
            return
        if inode.type == stat.S_IFREG:
            self.write_file(place, number)
        elif inode.type == stat.S_IFLNK:
            os.symlink(inode.target, place)
        else:
            os.mknod(place, inode.type | 0o600, device(inode.rdev))
        self.placed[number] = place
        self.finish(place, number)

    def write_file(self, place, number):
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, self.tree.inodes[number].size)
            for extent in self.tree.extents(number):
                plain = self.contents.chunk(extent.chunk)
                write_all(file, plain[extent.chunk_offset : extent.chunk_offset + extent.len], extent.offset)
        except (OSError, Refused):
            # The committed bytes or none.
            os.unlink(place)
            raise
        finally:
            os.close(file)

    def finish(self, place, number):
        """Owner before mode, which a change of owner would clear of setuid; times last."""
        inode = self.tree.inodes[number]
        if self.is_root:
            os.chown(place, inode.uid, inode.gid, follow_symlinks=False)
        for name, value in self.tree.xattrs.get(number, []):
            try:
                os.setxattr(place, name, value, follow_symlinks=False)
            except OSError as error:
                self.complain(os.fsdecode(place), f"attribute {os.fsdecode(name)}: {error.strerror}")
        if inode.type != stat.S_IFLNK:
            os.chmod(place, stat.S_IMODE(inode.mode))
        os.utime(place, ns=(nanoseconds(inode.atime), nanoseconds(inode.mtime)), follow_symlinks=False)


def said(error):
    """Without the paths, which the complaint begins with."""
    return error.strerror if isinstance(error, OSError) else error


def nanoseconds(time):
    seconds, fraction = time
    return seconds * 1_000_000_000 + fraction


def device(rdev):
    return os.makedev(*device_numbers(rdev))


def device_numbers(rdev):
    """Major and minor, from Linux's own 32 bits of both."""
    return rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00


def write_all(file, data, offset):
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
