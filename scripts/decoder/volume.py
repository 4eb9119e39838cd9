"""From a copied bucket and a secret to the rows at the log's head.

What is damaged is reported through `complain(object, error)`, and the rest is read if it can be.
"""

import functools
import itertools
import os
import re
import stat

from . import objects
from .primitives import Refused, Roots, malformed, object_hash

SLOTS_TRIED_MAX = 16
# Of all kinds.
SLOTS_READ_MAX = 64
SMALL_LEN_MAX = 1 << 20
WHOLE_LEN_MAX = 128 << 20


class Missing(Refused):
    def __init__(self, why="it is not there"):
        super().__init__("missing", why)


class NoVolume(Exception):
    pass


class WrongSecret(Exception):
    pass


class Store:
    """A folder that is a copy of a bucket."""

    def __init__(self, folder):
        self.folder = folder

    def size(self, name):
        with self.opened(name) as file:
            return os.fstat(file.fileno()).st_size

    def read(self, name, len_max=WHOLE_LEN_MAX):
        with self.opened(name) as file:
            length = os.fstat(file.fileno()).st_size
            if length > len_max:
                raise malformed(f"{length} bytes, where {len_max} are the most")
            return file.read(length)

    def read_range(self, name, offset, length):
        with self.opened(name) as file:
            if offset + length > os.fstat(file.fileno()).st_size:
                raise malformed("it ends before that")
            return os.pread(file.fileno(), length, offset)

    def opened(self, name):
        path = os.path.join(self.folder, name)
        try:
            file = open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
        except (FileNotFoundError, NotADirectoryError):
            raise Missing() from None
        except OSError as error:
            raise Refused("unreadable", error.strerror) from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise malformed("no file")
        return file

    def has(self, name):
        return os.path.lexists(os.path.join(self.folder, name))

    def numbers(self, folder, digits, bits=64):
        """The numbers that are names in a folder, ascending."""
        try:
            names = os.listdir(os.path.join(self.folder, folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = sorted(int(name) for name in names if re.fullmatch(f"[0-9]{{{digits}}}", name))
        return [number for number in found if number < 1 << bits]


def log_name(seq):
    return f"log/{seq:020}"


def floor_name(number):
    return f"floor/{number:020}"


def checkpoint_name(seq):
    return f"ck/{seq:020}"


def pack_name(incarnation, number):
    return f"pk/{incarnation.hex()}/{number:020}"


# Keys


def unlock(store, kind, secrets, memory_max, complain):
    """Roots, and when the volume was made. The secrets are for slots of that kind, each to be tried."""
    try:
        data = store.read("hushfs.volume", SMALL_LEN_MAX)
    except Missing:
        raise NoVolume(f"no volume in {store.folder}") from None
    volume = objects.volume_id(data)
    tried, opened = 0, None
    for epoch, number, slot in slots(store, complain):
        if tried == SLOTS_TRIED_MAX or slot.kind != kind:
            continue
        tried += 1
        for secret in secrets:
            try:
                if kind == objects.PASSWORD:
                    secret = derive_password(slot, secret, memory_max)
                opened = objects.open_slot(volume, epoch, number, slot, secret)
                break
            except Refused as error:
                # Who tries a secret on a slot of somebody else's sees the same.
                if error.word != "authentication":
                    complain(slot_name(epoch, number), error)
        if opened is not None:
            break
    if opened is None:
        raise WrongSecret(f"the secret opens none of the {tried} slots of its kind")
    root, _ = opened
    roots = Roots(volume, {epoch: root})
    while epoch > 0:
        found = objects.link(volume, epoch, root, store.read(link_name(epoch), SMALL_LEN_MAX))
        roots.anchor = roots.anchor or (found.seq, found.hash)
        epoch, root = found.older, found.root
        roots.roots[epoch] = root
    return roots, objects.volume_parameters(roots, data).created


def derive_password(slot, password, memory_max):
    memory = slot.kdf[0] << 10
    if memory > memory_max and memory <= 4 << 30:
        raise Refused("parameters", f"it takes {memory >> 20} MiB of memory: allow that with --kdf-memory-max")
    return objects.password_secret(slot, password)


def slots(store, complain):
    """Epoch, number and slot of those that there are, the highest epoch's first."""
    epochs = sorted(store.numbers("keys", 10, 32), reverse=True)
    begun = [epoch for epoch in epochs if epoch == 0 or store.has(link_name(epoch))]
    places = ((epoch, number) for epoch in begun for number in store.numbers(f"keys/{epoch:010}", 4))
    for epoch, number in itertools.islice(places, SLOTS_READ_MAX):
        name = slot_name(epoch, number)
        try:
            yield epoch, number, objects.parse_slot(store.read(name, SMALL_LEN_MAX))
        except Refused as error:
            complain(name, error)


def link_name(epoch):
    return f"keys/{epoch:010}/chain"


def slot_name(epoch, number):
    return f"keys/{epoch:010}/{number:04}"


# Rows


class State:
    """All rows at one head."""

    def __init__(self):
        self.seq, self.hash, self.epoch = 0, bytes(32), 0
        self.rows, self.high_water = {}, {}
        # Heads that the checkpoint names which this came from, its own included.
        self.past = []

    def apply(self, roots, seq, digest, record):
        if record.prev != self.hash or (roots.anchor and seq == roots.anchor[0] and digest != roots.anchor[1]):
            raise malformed(f"it does not follow the {log_name(self.seq)} that is here: another history")
        if record.epoch != self.epoch:
            raise malformed(f"it is of epoch {record.epoch}, and the log of {self.epoch}")
        if record.next:
            self.epoch, commitment = record.next
            if roots.commitment(self.epoch) != commitment:
                raise malformed("it begins an epoch with another root")
        for key, value in record.rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.high_water[record.incarnation] = (record.high_water, record.high_water_hash)
        self.seq, self.hash = seq, digest

    def is_as(self, other):
        mine, others = (self.seq, self.hash, self.high_water), (other.seq, other.hash, other.high_water)
        return mine == others and self.rows == other.rows


class Reading:
    """The volume's objects, opened with its roots."""

    def __init__(self, store, roots, complain):
        self.store, self.roots, self.complain = store, roots, complain

    def floor(self):
        """The last of the floors, or None. Below it there may be records or none; they mean nothing."""
        last, number = None, 1
        while self.store.has(name := floor_name(number)):
            try:
                floor = objects.floor(self.roots, number, self.store.read(name))
                if last and floor.seq < last.seq:
                    raise malformed("lower than the one before")
            except Refused as error:
                self.complain(name, error)
                break
            last, number = floor, number + 1
        return last

    def newest(self):
        """The state at the head, from the newest checkpoint that opens."""
        floor = self.floor()
        for seq in reversed(self.checkpoints(floor)):
            state = self.checkpoint(seq, floor)
            if state:
                return self.followed(state)
        if floor and floor.seq > 1:
            raise Missing(f"the log below {log_name(floor.seq)} is trimmed, and no checkpoint opens")
        return self.followed(State())

    def checkpoints(self, floor):
        """Those that the log goes on from."""
        first_kept = floor.seq if floor else 1
        listed = set(self.store.numbers("ck", 20)) | ({floor.checkpoint} if floor else set())
        return sorted(seq for seq in listed if seq + 1 >= first_kept)

    def checkpoint(self, seq, floor):
        """The state that a checkpoint holds, or None."""
        name = checkpoint_name(seq)
        try:
            data = self.store.read(name)
            if floor and floor.checkpoint == seq and object_hash(data) != floor.checkpoint_hash:
                raise Refused("authentication", "not the checkpoint that the floor names")
            manifest = objects.manifest(self.roots, seq, data)
            if manifest.epoch < self.roots.newest():
                return None
            state = State()
            state.epoch = manifest.epoch
            state.seq, state.hash, state.past = seq, manifest.head, [*manifest.past, (seq, manifest.head)]
            state.high_water = {incarnation: (number, digest) for incarnation, number, digest in manifest.high_water}
            for meta in manifest.segments:
                name = f"seg/{meta.id.hex()}"
                for block in objects.segment(self.roots, meta, self.store.read(name)):
                    state.rows.update(block)
            return state
        except Refused as error:
            self.complain(name, error)
            return None

    def followed(self, state):
        """The log from there to its head."""
        while self.store.has(name := log_name(state.seq + 1)):
            try:
                data = self.store.read(name)
                state.apply(self.roots, state.seq + 1, object_hash(data), objects.record(self.roots, state.seq + 1, data))
            except Refused as error:
                self.complain(name, error)
                return state
        beyond = [seq for seq in self.store.numbers("log", 20) if seq > state.seq]
        if beyond:
            self.complain(name, Missing(f"it is not there, though {log_name(beyond[0])} is"))
        elif self.roots.anchor and state.seq < self.roots.anchor[0]:
            self.complain(name, Missing(f"it is not there, though the keys name {log_name(self.roots.anchor[0])}"))
        return state

    def all_ways(self):
        """The state at the head, reached from each checkpoint and, if nothing is trimmed, by the log alone."""
        newest, floor = self.newest(), self.floor()
        starts = [self.checkpoint(seq, floor) for seq in self.checkpoints(floor)]
        if not floor or floor.seq <= 1:
            starts.append(State())
        for start in filter(None, starts):
            name = checkpoint_name(start.seq) if start.seq else "the whole log"
            self.check_past(start, floor.seq if floor else 1)
            if not self.followed(start).is_as(newest):
                self.complain(name, malformed("it leads to other rows than the newest checkpoint"))
        return newest

    def check_past(self, state, first_kept):
        """Heads that a checkpoint names are those of the log, as far as that is kept."""
        for seq, digest in state.past:
            if seq < first_kept:
                continue
            try:
                data = self.store.read(log_name(seq))
                if object_hash(data) != digest:
                    objects.record(self.roots, seq, data)
                    raise malformed(f"{checkpoint_name(state.seq)} names another head here: another history")
            except Refused as error:
                self.complain(log_name(seq), error)


class Contents:
    """Chunks, by the rows that say where they are."""

    def __init__(self, store, roots, tree):
        self.store, self.roots, self.tree = store, roots, tree
        self.chunk = functools.lru_cache(maxsize=16)(self.read_chunk)

    def read_chunk(self, number):
        row = self.tree.chunks.get(number)
        if row is None or row.key not in self.tree.keys or row.pack not in self.tree.packs:
            raise malformed(f"chunk {number:#x}, its key or its pack does not exist")
        epoch, wrapped = self.tree.keys[row.key]
        name = pack_name(*self.tree.packs[row.pack])
        try:
            key = objects.file_key(self.roots, epoch, row.key, wrapped)
            sealed = self.store.read_range(name, row.offset, row.sealed_len)
            plain = objects.chunk(objects.of_volume(self.roots.volume), key, row.id, row.len, row.frames, sealed)
            objects.check_id(row.id, plain)
            return plain
        except Refused as error:
            raise Refused(error.word, f"chunk {number:#x} in {name}: {error.why}") from None

    def check_pack(self, number):
        """Its footer lists what the rows say is in it; it may list what no row names any more."""
        incarnation, own = self.tree.packs[number]
        name = pack_name(incarnation, own)

        def read(offset, length):
            return self.store.read_range(name, offset, length)

        _, _, entries = objects.pack(self.roots, incarnation, own, self.store.size(name), read)
        listed = {chunk: (offset, length) for chunk, offset, length in entries}
        for chunk in self.tree.chunks_of_pack[number]:
            row = self.tree.chunks[chunk]
            if listed.get(chunk) != (row.offset, row.sealed_len):
                raise malformed(f"its footer does not list chunk {chunk:#x} where the rows have it")
