//! The journal: sealed frames of intents in local files, so that what `fsync` returned for survives a crash.
//!
//! Invariants:
//! - One frame is one batch: all that was appended until a leader takes it. It is durable before the next is written,
//!   so at most one frame is ever in doubt, and a readable frame behind an unreadable one can only be damage.
//! - Frame numbers grow by one and never begin again above old content: an unwritten file is wiped before use, and
//!   what a recycled file still holds has lower numbers.
//! - Files are released from the oldest on, each wiped durably before the next: what remains is always without a gap.
//!
//! It deliberately knows nothing of what intents mean, nor of the log: whoever replays it drops what a record covers.

mod recover;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::base::{Entropy, Incarnation, IntentNo, MIB, VolumeId};
use crate::crypto::Key;
use crate::disk::{Disk, DiskFile};
use crate::format::intent::{Change, Intent};
use crate::format::journal::{self as format, JournalPayload};

pub use recover::{JournalDamage, OnDamage, Replay};

/// A file's length. A frame that is longer gets a file of its own.
pub const FILE_LEN: u64 = 8 * MIB;
/// Wiped files that wait to be used again; more are removed.
const SPARES_MAX: usize = 3;
/// A batch takes no further payload beyond this.
const BATCH_LEN_MAX: usize = 4 << 20;

const _: () = assert!(FILE_LEN.is_multiple_of(format::FRAME_ALIGN as u64));

/// A frame's number, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u64);

impl std::fmt::Display for FrameNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Cheap to clone: one failed fdatasync is told to all who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {what} the journal file {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: Arc<io::Error> },
    #[error("an intent was appended out of order: {got} where {expected} comes next")]
    OutOfOrder { expected: IntentNo, got: IntentNo },
    #[error("frame {0} was never appended")]
    NeverAppended(FrameNo),
    #[error("frame {0} of the journal was readable and no longer is")]
    Unreadable(FrameNo),
    #[error(
        "{damage}. Nothing was changed. If the disk cannot read it the next time either, bring {} back from a backup, or \
         mount with --accept-loss: that does without what comes after the damage, and keeps a copy of it", dir.display()
    )]
    Damaged { dir: PathBuf, damage: JournalDamage },
}

impl JournalError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source: Arc::new(source) }
    }
}

/// The lock order is `releasing`, `files`, `queue`.
pub struct Journal {
    sealer: Sealer,
    /// Held by whoever writes to the active file, through its fdatasync.
    files: Mutex<Files>,
    queue: Mutex<Queue>,
    /// Told whenever `durable`, `writing` or `failures` change.
    changed: Condvar,
    releasing: Mutex<()>,
    bytes: AtomicU64,
}

/// What opens and seals frames; also the replay's.
struct Sealer {
    key: Key,
    volume: VolumeId,
    entropy: Arc<dyn Entropy>,
}

struct Queue {
    /// Consecutive frames to come; the first will be `next`.
    pending: VecDeque<(JournalPayload, usize)>,
    next: FrameNo,
    durable: u64,
    writing: bool,
    /// Counts failed attempts, so that followers of one learn of it.
    failures: u64,
    error: Option<JournalError>,
    /// The last intent appended, per this run.
    last: Option<(Incarnation, IntentNo)>,
}

struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Of most files.
    file_len: u64,
    next_name: u64,
    active: Option<Active>,
    /// Oldest first.
    closed: VecDeque<Closed>,
    spares: Vec<OpenFile>,
    released: HashMap<Incarnation, IntentNo>,
    /// Sealed, perhaps written, not durable. Written again byte for byte until it is: two copies that both
    /// survive are the same frame.
    in_doubt: Option<Sealed>,
}

struct OpenFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

struct Active {
    file: OpenFile,
    /// Where the next frame goes.
    end: u64,
    /// The last intent of each incarnation in it.
    lasts: HashMap<Incarnation, IntentNo>,
    /// A write or fdatasync failed: its unsynced pages may be lost though the system calls them clean.
    failed: bool,
}

struct Closed {
    file: OpenFile,
    end: u64,
    lasts: HashMap<Incarnation, IntentNo>,
}

struct Sealed {
    no: FrameNo,
    bytes: Vec<u8>,
    last: (Incarnation, IntentNo),
}

impl Journal {
    /// Opens or makes the journal in `dir`, and gives what is in it in order, up to where it is damaged.
    /// `is_covered` tells whether the log has a run's intents up to one: what it has is no loss.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        key: &Key,
        volume: VolumeId,
        entropy: Arc<dyn Entropy>,
        on_damage: OnDamage,
        is_covered: &dyn Fn(&(Incarnation, IntentNo)) -> bool,
    ) -> Result<(Self, Replay, Option<JournalDamage>), JournalError> {
        Self::open_with(disk, dir, (key, volume, entropy), FILE_LEN, on_damage, is_covered)
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        (key, volume, entropy): (&Key, VolumeId, Arc<dyn Entropy>),
        file_len: u64,
        on_damage: OnDamage,
        is_covered: &dyn Fn(&(Incarnation, IntentNo)) -> bool,
    ) -> Result<(Self, Replay, Option<JournalDamage>), JournalError> {
        let sealer = Sealer { key: key.duplicate(), volume, entropy };
        disk.create_dir_all(dir).map_err(JournalError::io("create", dir))?;
        let recovered = recover::recover(disk, dir, &sealer, file_len, on_damage, is_covered)?;
        let last = recovered.last.map_or(0, |no| no.0);
        let queue = Queue {
            pending: VecDeque::new(),
            next: FrameNo(last + 1),
            // The last one is in doubt until it has been written again.
            durable: last.saturating_sub(1),
            writing: false,
            failures: 0,
            error: None,
            last: None,
        };
        let bytes = AtomicU64::new(recovered.files.bytes());
        let journal = Self {
            sealer,
            files: Mutex::new(recovered.files),
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            releasing: Mutex::new(()),
            bytes,
        };
        Ok((journal, recovered.replay, recovered.damage))
    }

    /// Buffers a payload. Its frame is durable once `sync` of the number has returned.
    ///
    /// Numbers rise, with gaps: what a record covers before anybody asked for its durability never comes here.
    pub fn append(&self, payload: JournalPayload) -> Result<FrameNo, JournalError> {
        let mut queue = self.queue.lock();
        let expected =
            queue.last.filter(|(incarnation, _)| *incarnation == payload.incarnation).map(|(_, last)| last.0);
        let expected = expected.map(|last| IntentNo(last.saturating_add(1)));
        if let Some(expected) = expected.filter(|expected| payload.first < *expected) {
            return Err(JournalError::OutOfOrder { expected, got: payload.first });
        }
        if payload.intents.is_empty() {
            return Ok(FrameNo(queue.next.0 + queue.pending.len() as u64 - 1));
        }
        queue.last = Some(last_intent(&payload));
        let len = estimated_len(&payload.intents);
        match queue.pending.back_mut() {
            // Consecutive intents of one run are one batch: the first's number and chain hash stand for all.
            Some((batch, batch_len)) if expected == Some(payload.first) && *batch_len + len <= BATCH_LEN_MAX => {
                batch.intents.extend(payload.intents);
                *batch_len += len;
            }
            _ => queue.pending.push_back((payload, len)),
        }
        Ok(FrameNo(queue.next.0 + queue.pending.len() as u64 - 1))
    }

    /// The last frame that was appended, durable or not; also an earlier run's.
    pub fn newest(&self) -> Option<FrameNo> {
        let queue = self.queue.lock();
        let newest = queue.next.0 + queue.pending.len() as u64 - 1;
        (newest > 0).then_some(FrameNo(newest))
    }

    /// Returns once the frame and all before it are durable. One caller writes for all who wait.
    ///
    /// After a failure every caller gets the error, until a new file took all that is not known to be durable.
    pub fn sync(&self, no: FrameNo) -> Result<(), JournalError> {
        let mut queue = self.queue.lock();
        if no.0 >= queue.next.0 + queue.pending.len() as u64 {
            return Err(JournalError::NeverAppended(no));
        }
        let failures = queue.failures;
        while queue.writing && queue.durable < no.0 {
            self.changed.wait(&mut queue);
            if queue.failures != failures
                && queue.durable < no.0
                && let Some(error) = &queue.error
            {
                return Err(error.clone());
            }
        }
        if queue.durable >= no.0 {
            return Ok(());
        }
        queue.writing = true;
        drop(queue);

        let result = self.write_until(no);

        let mut queue = self.queue.lock();
        queue.writing = false;
        match &result {
            Ok(()) => queue.error = None,
            Err(error) => {
                queue.failures += 1;
                queue.error = Some(error.clone());
            }
        }
        self.changed.notify_all();
        result
    }

    /// All intents of this run of a device up to this one are in the log. Files that hold nothing else are wiped
    /// and used again. Failures are left for the next call: a file too many is no loss.
    pub fn release(&self, incarnation: Incarnation, upto: IntentNo) {
        let _one_at_a_time = self.releasing.lock();
        let (disk, dir) = {
            let files = self.files.lock();
            (files.disk.clone(), files.dir.clone())
        };
        let mut removed = false;
        loop {
            let taken = self.files.lock().take_released(incarnation, upto);
            let Some((closed, keep)) = taken else { break };
            // Durable before the next file's wipe: a crash in between leaves the newer frames, never a gap.
            if let Err(error) = wipe(&closed.file) {
                tracing::warn!(%error, "a journal file stays until the next release");
                self.files.lock().closed.push_front(closed);
                break;
            }
            {
                let mut files = self.files.lock();
                self.bytes.store(files.bytes(), Ordering::Relaxed);
                if keep {
                    files.spares.push(closed.file);
                    continue;
                }
            }
            if let Err(error) = disk.remove(&closed.file.path) {
                tracing::warn!(%error, path = %closed.file.path.display(), "a wiped journal file cannot be removed");
            } else {
                removed = true;
            }
        }
        if removed && let Err(error) = disk.sync_dir(&dir) {
            tracing::warn!(%error, "the journal's directory cannot be synced");
        }
    }

    /// Bytes of frames in files that are not released.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The leader's part: frame after frame, each durable before the next.
    fn write_until(&self, no: FrameNo) -> Result<(), JournalError> {
        let mut files = self.files.lock();
        loop {
            let sealed = match files.in_doubt.take() {
                Some(sealed) => sealed,
                None => match self.next_batch() {
                    Some((no, payload)) => self.sealer.seal(no, &payload),
                    None => return Ok(()),
                },
            };
            let result = files.write(&sealed);
            self.bytes.store(files.bytes(), Ordering::Relaxed);
            if let Err(error) = result {
                files.in_doubt = Some(sealed);
                return Err(error);
            }
            let mut queue = self.queue.lock();
            queue.durable = sealed.no.0;
            self.changed.notify_all();
            if queue.durable >= no.0 {
                return Ok(());
            }
        }
    }

    fn next_batch(&self) -> Option<(FrameNo, JournalPayload)> {
        let mut queue = self.queue.lock();
        let (payload, _) = queue.pending.pop_front()?;
        let no = queue.next;
        queue.next = FrameNo(no.0 + 1);
        Some((no, payload))
    }
}

impl Sealer {
    fn seal(&self, no: FrameNo, payload: &JournalPayload) -> Sealed {
        let bytes = format::encode_frame(no.0, payload, &self.key, self.volume, &*self.entropy);
        Sealed { no, bytes, last: last_intent(payload) }
    }
}

impl Files {
    fn new(disk: Arc<dyn Disk>, dir: &Path, file_len: u64, next_name: u64) -> Self {
        Self {
            disk,
            dir: dir.into(),
            file_len,
            next_name,
            active: None,
            closed: VecDeque::new(),
            spares: Vec::new(),
            released: HashMap::new(),
            in_doubt: None,
        }
    }

    fn bytes(&self) -> u64 {
        self.closed.iter().map(|closed| closed.end).sum::<u64>() + self.active.as_ref().map_or(0, |active| active.end)
    }

    /// Writes the frame and makes it durable, in a fresh file when the active one is full or has failed.
    fn write(&mut self, sealed: &Sealed) -> Result<(), JournalError> {
        let len = sealed.bytes.len() as u64;
        let fits = self.active.as_ref().is_some_and(|active| !active.failed && active.end + len <= active.file.len);
        if !fits {
            let file = self.fresh(len)?;
            let full = self.active.replace(Active { file, end: 0, lasts: HashMap::new(), failed: false });
            // Also one that failed: what it may still hold is released in its turn, or it would turn up as a gap.
            self.closed.extend(full.map(|full| Closed { file: full.file, end: full.end, lasts: full.lasts }));
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        note_last(&mut active.lasts, sealed.last);
        let path = &active.file.path;
        let written = active.file.file.write_all_at(&sealed.bytes, active.end).map_err(JournalError::io("write", path));
        let synced = written.and_then(|()| active.file.file.sync_data().map_err(JournalError::io("sync", path)));
        active.failed = synced.is_err();
        synced?;
        active.end += len;
        Ok(())
    }

    /// A file whose name and zeros are durable.
    fn fresh(&mut self, len: u64) -> Result<OpenFile, JournalError> {
        if len <= self.file_len
            && let Some(spare) = self.spares.pop()
        {
            return Ok(spare);
        }
        let path = self.dir.join(format!("{:010}.journal", self.next_name));
        self.next_name += 1;
        let made = make(&*self.disk, &self.dir, &path, len.max(self.file_len));
        if made.is_err()
            && let Err(error) = self.disk.remove(&path)
        {
            tracing::debug!(%error, path = %path.display(), "an unfinished journal file stays");
        }
        made
    }

    /// The oldest closed file if all its frames are released, and whether to keep it for use.
    fn take_released(&mut self, incarnation: Incarnation, upto: IntentNo) -> Option<(Closed, bool)> {
        let released = self.released.entry(incarnation).or_insert(upto);
        *released = (*released).max(upto);
        let is_released = |(incarnation, last): (&Incarnation, &IntentNo)| {
            self.released.get(incarnation).is_some_and(|released| last <= released)
        };
        if !self.closed.front()?.lasts.iter().all(is_released) {
            return None;
        }
        let closed = self.closed.pop_front()?;
        let keep = closed.file.len == self.file_len && self.spares.len() < SPARES_MAX;
        Some((closed, keep))
    }
}

fn make(disk: &dyn Disk, dir: &Path, path: &Path, len: u64) -> Result<OpenFile, JournalError> {
    let file = disk.open(path, true).map_err(JournalError::io("create", path))?;
    file.preallocate_written(len).map_err(JournalError::io("fill", path))?;
    file.sync_data().map_err(JournalError::io("sync", path))?;
    disk.sync_dir(dir).map_err(JournalError::io("sync the directory of", path))?;
    Ok(OpenFile { path: path.into(), file, len: len.next_multiple_of(format::FRAME_ALIGN as u64) })
}

/// After this the file has no frames: a scan begins at its start, and finds none.
fn wipe(file: &OpenFile) -> Result<(), JournalError> {
    file.file.write_all_at(&[0; format::FRAME_ALIGN], 0).map_err(JournalError::io("wipe", &file.path))?;
    file.file.sync_data().map_err(JournalError::io("sync", &file.path))
}

fn last_intent(payload: &JournalPayload) -> (Incarnation, IntentNo) {
    let further = (payload.intents.len() as u64).saturating_sub(1);
    (payload.incarnation, IntentNo(payload.first.0.saturating_add(further)))
}

fn note_last(lasts: &mut HashMap<Incarnation, IntentNo>, (incarnation, last): (Incarnation, IntentNo)) {
    let noted = lasts.entry(incarnation).or_insert(last);
    *noted = (*noted).max(last);
}

/// Near enough to bound a batch.
fn estimated_len(intents: &[Intent]) -> usize {
    let of_change = |change: &Change| match change {
        Change::Inline { data, .. } => data.len() + 16,
        Change::Extent(_) | Change::Hole(_) => 32,
    };
    let of_intent = |intent: &Intent| match intent {
        Intent::Write { changes, .. } => 64 + changes.iter().map(of_change).sum::<usize>(),
        Intent::Replayed { contents, .. } => 64 + contents.len() * 32,
        Intent::Fact { value, .. } => 64 + value.len(),
        Intent::FileKey { .. } => 64,
        Intent::SetXattr { value, .. } => 320 + value.as_ref().map_or(0, |value| value.len()),
        Intent::Create { .. } | Intent::Link { .. } | Intent::Unlink { .. } => 512,
        Intent::Rename { .. } | Intent::Exchange { .. } | Intent::SetAttr { .. } => 1024,
    };
    intents.iter().map(of_intent).sum()
}
