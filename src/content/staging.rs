//! Packs that are not in the store yet, or whose record has not committed.
//!
//! A staging file is byte for byte the object it will become: `<incarnation>-<number>.open` while chunks are
//! added, and `.pack` from when its footer is durable. The rename comes before any upload, so that after a
//! crash a file that may be in the store keeps every byte, and one that cannot be may be closed anew.
//!
//! Invariants: a staged pack is readable until `committed` has given it to the cache; packs are queued for
//! upload in the order they were closed; a failed fsync is reported until the pack is gone from here.
//! Knows no store, and not what refers to the chunks.

mod file;
mod folder;
mod recover;

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use self::file::{Pack, Phase};
use self::folder::Folder;
use super::ContentError;
use crate::base::{ByteRange, ChunkNo, Entropy, PACK_LEN_TARGET, PackName, PackNo};
use crate::crypto::Roots;
use crate::disk::Disk;
use crate::format::pack::{self, PackEntry};

pub use self::recover::{Recovered, Referenced, Unreferenced};

/// Where a chunk was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub pack: PackNo,
    pub name: PackName,
    pub offset: u32,
}

/// What an `append` does when the staging area is full.
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// Waits until something has been uploaded and committed, at most until then.
    WaitUntil(Instant),
    /// Goes past the limit: for a commit, which is what makes room for all others.
    Commit,
}

#[derive(Clone, Debug)]
pub struct StagingOptions {
    pub dir: PathBuf,
    /// Staged bytes past which writers wait.
    pub bytes_max: u64,
}

/// What waits for upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    pub packs: u64,
    pub bytes: u64,
    /// For how long the oldest of them has been closed.
    pub oldest: Option<Duration>,
}

/// Gives out the number and the name of the next pack. Called under the staging area's lock, so it must not wait
/// for anyone who calls in here.
pub type NewPack = Box<dyn Fn() -> (PackNo, PackName) + Send + Sync>;

pub struct Staging {
    folder: Folder,
    bytes_max: u64,
    roots: Roots,
    entropy: Arc<dyn Entropy>,
    new_pack: NewPack,
    state: Mutex<State>,
    room: Condvar,
    /// A pack was closed or uploaded.
    changed: Notify,
}

#[derive(Default)]
struct State {
    packs: BTreeMap<PackName, Staged>,
    open: Option<(PackNo, PackName)>,
    /// Closed, without running writes, not yet taken for upload; in the order they were closed.
    queue: VecDeque<PackName>,
    /// Closed, and named by no cut yet.
    not_in_a_cut: Vec<PackName>,
    /// Written to since they were last synced, or failed to sync.
    unsynced: BTreeMap<PackName, Arc<Pack>>,
    bytes: u64,
}

struct Staged {
    pack: Arc<Pack>,
    phase: Phase,
    len: u64,
    /// Written in full, in no order.
    chunks: Vec<PackEntry>,
    /// Appends that have reserved their place and are still writing.
    writing: usize,
    closed_at: Option<Instant>,
}

impl Staging {
    /// Call `recover` before the first `append`.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: StagingOptions,
        roots: Roots,
        entropy: Arc<dyn Entropy>,
        new_pack: NewPack,
    ) -> Result<Self, ContentError> {
        Ok(Self {
            folder: Folder::open(disk, options.dir)?,
            bytes_max: options.bytes_max,
            roots,
            entropy,
            new_pack,
            state: Mutex::default(),
            room: Condvar::new(),
            changed: Notify::new(),
        })
    }

    /// Adds a sealed chunk to the open pack. Several threads write at once; only the place is reserved in turn.
    pub fn append(&self, sealed: &[u8], chunk: ChunkNo, room: Room) -> Result<Place, ContentError> {
        let len = sealed.len() as u32;
        let (pack, offset) = self.reserve(len, room)?;
        let written = pack.write(sealed, offset.into(), &self.folder);
        let done = written.is_ok().then_some(PackEntry { chunk, offset, len });
        self.finish_write(&pack, done);
        written.map(|()| Place { pack: pack.no, name: pack.name, offset })
    }

    /// Whether a writer may go on.
    pub fn has_room(&self) -> bool {
        self.state.lock().bytes < self.bytes_max
    }

    /// Waits for that. To be called without anything that a commit needs.
    pub fn wait_room(&self, deadline: Instant) -> Result<(), ContentError> {
        self.wait_for_room(&mut self.state.lock(), 1, Room::WaitUntil(deadline))
    }

    /// Closes the open pack. Returns those that were closed since the last cut, which a commit of everything written so
    /// far has to see uploaded; what is older, the commits before it have seen. `in_a_cut` is to follow.
    pub fn rotate(&self) -> Vec<PackName> {
        let mut state = self.state.lock();
        self.close_open(&mut state);
        state.not_in_a_cut.clone()
    }

    /// Somebody sees to it that these are uploaded and leave.
    pub fn in_a_cut(&self, names: &[PackName]) {
        let names: HashSet<_> = names.iter().collect();
        self.state.lock().not_in_a_cut.retain(|name| !names.contains(name));
    }

    pub fn has(&self, name: PackName) -> bool {
        self.state.lock().packs.contains_key(&name)
    }

    /// None if the pack is not here (any more). `range` is one that a finished `append` filled.
    pub fn read(&self, name: PackName, range: ByteRange) -> Result<Option<Vec<u8>>, ContentError> {
        let Some(pack) = self.state.lock().packs.get(&name).map(|staged| staged.pack.clone()) else { return Ok(None) };
        let read = pack.read(range, &self.folder)?;
        if read.is_none() && !self.is_uploaded(name) {
            return Err(file_is_gone(name));
        }
        // Else it has just left.
        Ok(read)
    }

    /// After this, chunks whose `append` has returned survive a power loss. Costs nothing when all are synced.
    pub fn sync(&self) -> Result<(), ContentError> {
        let packs: Vec<Arc<Pack>> = self.state.lock().unsynced.values().cloned().collect();
        let mut result = Ok(());
        for pack in packs {
            let synced = pack.sync(&self.folder);
            self.forget_synced(&pack);
            result = result.and(synced);
        }
        result
    }

    /// Takes the next closed pack to be uploaded.
    pub fn take_closed(&self) -> Option<PackName> {
        self.state.lock().queue.pop_front()
    }

    /// Makes a closed pack's footer durable and returns the whole object. Nothing of a pack may be sent before
    /// this; it can be called again.
    pub fn object(&self, name: PackName) -> Result<Option<Bytes>, ContentError> {
        let (pack, mut chunks, body_len, phase) = match self.state.lock().packs.get(&name) {
            Some(staged) => (staged.pack.clone(), staged.chunks.clone(), staged.len, staged.phase),
            None => return Ok(None),
        };
        let len = match phase {
            Phase::Open => return Ok(None),
            Phase::Sealed | Phase::Uploaded => body_len,
            Phase::Closed => {
                chunks.sort_unstable_by_key(|chunk| chunk.offset);
                let footer = pack::footer(&chunks, body_len, name, &self.roots, self.entropy.as_ref());
                pack.end(&footer, body_len, &self.folder)?;
                let len = body_len + footer.len() as u64;
                self.sealed(name, len);
                len
            }
        };
        let bytes = pack.read(ByteRange::new(0, len), &self.folder)?.ok_or_else(|| file_is_gone(name))?;
        Ok(Some(bytes.into()))
    }

    /// The chunks that something may refer to.
    pub fn chunks(&self, name: PackName) -> Vec<PackEntry> {
        self.state.lock().packs.get(&name).map(|staged| staged.chunks.clone()).unwrap_or_default()
    }

    /// The pack is in the store. It stays here until its record has committed.
    pub fn uploaded(&self, name: PackName) {
        if let Some(staged) = self.state.lock().packs.get_mut(&name) {
            staged.phase = Phase::Uploaded;
        }
        self.changed.notify_waiters();
    }

    /// True also of packs that are not here: they have left after their commit.
    pub fn is_uploaded(&self, name: PackName) -> bool {
        self.state.lock().packs.get(&name).is_none_or(|staged| staged.phase == Phase::Uploaded)
    }

    /// The records that name these packs are in the log: those that are uploaded leave. `adopt` gets each one's
    /// file and length, moves it away or removes it, and from then on answers reads of it.
    pub fn committed(&self, names: &[PackName], adopt: impl Fn(PackName, &std::path::Path, u64)) {
        for name in names {
            let (path, len) = match self.state.lock().packs.get(name) {
                Some(staged) if staged.phase == Phase::Uploaded => (self.folder.sealed_path(*name), staged.len),
                _ => continue,
            };
            adopt(*name, &path, len);
            // Only now, so that a reader finds the bytes here or there at any time.
            let mut state = self.state.lock();
            if state.packs.remove(name).is_some() {
                state.bytes -= len;
            }
            state.unsynced.remove(name);
            self.room.notify_all();
        }
    }

    /// Nothing refers to these packs any more, durably.
    pub fn discard(&self, names: &[PackName]) -> Result<(), ContentError> {
        for name in names {
            let mut state = self.state.lock();
            if let Some(staged) = state.packs.remove(name) {
                state.bytes -= staged.len;
            }
            state.queue.retain(|queued| queued != name);
            state.not_in_a_cut.retain(|closed| closed != name);
            state.unsynced.remove(name);
            drop(state);
            self.folder.remove_all_of(*name)?;
        }
        self.room.notify_all();
        self.changed.notify_waiters();
        Ok(())
    }

    /// Wakes at the next change of what is closed or uploaded. Make it before asking for the state.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Whoever waits for a change looks again.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    pub fn pending(&self) -> Pending {
        let state = self.state.lock();
        let waiting = state.packs.values().filter(|staged| staged.phase != Phase::Uploaded && staged.len > 0);
        let oldest = waiting.clone().filter_map(|staged| staged.closed_at).min();
        Pending {
            packs: waiting.clone().count() as u64,
            bytes: waiting.map(|staged| staged.len).sum(),
            oldest: oldest.map(|closed| closed.elapsed()),
        }
    }

    /// Bytes of all packs here, uploaded or not.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    fn reserve(&self, len: u32, room: Room) -> Result<(Arc<Pack>, u32), ContentError> {
        let mut guard = self.state.lock();
        self.wait_for_room(&mut guard, len.into(), room)?;
        let state = &mut *guard;
        let (no, name) = state.open.unwrap_or_else(&self.new_pack);
        let staged = match state.packs.entry(name) {
            Entry::Occupied(open) => open.into_mut(),
            // Under the lock, but once in 16 MiB and without a sync.
            Entry::Vacant(new) => new.insert(Staged::new(Arc::new(Pack::create(no, name, &self.folder)?), Phase::Open)),
        };
        let (pack, offset) = (staged.pack.clone(), staged.len as u32);
        staged.len += u64::from(len);
        staged.writing += 1;
        let is_full = staged.len >= PACK_LEN_TARGET;
        state.open = Some((no, name));
        state.bytes += u64::from(len);
        if is_full {
            self.close_open(state);
        }
        Ok((pack, offset))
    }

    fn wait_for_room(&self, state: &mut MutexGuard<'_, State>, len: u64, room: Room) -> Result<(), ContentError> {
        let Room::WaitUntil(deadline) = room else { return Ok(()) };
        while state.bytes > 0 && state.bytes + len > self.bytes_max {
            // What is in the open pack would wait for a commit that may wait for us.
            self.close_open(state);
            let timed_out = self.room.wait_until(state, deadline).timed_out();
            if timed_out && state.bytes > 0 && state.bytes + len > self.bytes_max {
                return Err(ContentError::StagingFull { staged: state.bytes, limit: self.bytes_max });
            }
        }
        Ok(())
    }

    fn finish_write(&self, pack: &Arc<Pack>, done: Option<PackEntry>) {
        let mut state = self.state.lock();
        let Some(staged) = state.packs.get_mut(&pack.name) else { return };
        staged.writing -= 1;
        staged.chunks.extend(done);
        if done.is_some() {
            pack.note_write();
            state.unsynced.insert(pack.name, pack.clone());
        }
        self.queue_if_complete(&mut state, pack.name);
    }

    fn close_open(&self, state: &mut State) {
        let Some((_, name)) = state.open.take() else { return };
        if let Some(staged) = state.packs.get_mut(&name) {
            staged.phase = Phase::Closed;
            staged.closed_at = Some(Instant::now());
        }
        state.not_in_a_cut.push(name);
        self.queue_if_complete(state, name);
    }

    /// A closed pack is queued by whoever sees its last write end: the writer or the closer.
    fn queue_if_complete(&self, state: &mut State, name: PackName) {
        let Some(staged) = state.packs.get(&name) else { return };
        if staged.phase != Phase::Closed || staged.writing > 0 {
            return;
        }
        if staged.chunks.is_empty() {
            // Every write failed, so nothing can refer to it.
            state.bytes -= staged.len;
            state.packs.remove(&name);
            state.not_in_a_cut.retain(|closed| *closed != name);
            self.folder.remove_open(name);
            self.room.notify_all();
        } else {
            staged.close_if_synced();
            state.queue.push_back(name);
        }
        self.changed.notify_waiters();
    }

    fn sealed(&self, name: PackName, len: u64) {
        let mut state = self.state.lock();
        let Some(staged) = state.packs.get_mut(&name) else { return };
        let grown = len - staged.len;
        (staged.phase, staged.len) = (Phase::Sealed, len);
        let pack = staged.pack.clone();
        state.bytes += grown;
        drop(state);
        self.forget_synced(&pack);
    }

    fn forget_synced(&self, pack: &Pack) {
        let mut state = self.state.lock();
        if pack.is_synced() {
            state.unsynced.remove(&pack.name);
            if let Some(staged) = state.packs.get(&pack.name) {
                staged.close_if_synced();
            }
        }
    }
}

fn file_is_gone(name: PackName) -> ContentError {
    file::pack_error(name, "open", std::io::ErrorKind::NotFound.into())
}

impl Staged {
    fn new(pack: Arc<Pack>, phase: Phase) -> Self {
        Self { pack, phase, len: 0, chunks: Vec::new(), writing: 0, closed_at: None }
    }

    fn close_if_synced(&self) {
        if self.phase != Phase::Open && self.writing == 0 && self.pack.is_synced() {
            self.pack.close();
        }
    }
}

#[cfg(test)]
mod tests;
