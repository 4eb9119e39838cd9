//! Sealing anew what lies under keys of epochs that have ended: `hushfs key rotate --data`.
//!
//! A thread walks over the files, reads each old chunk, and puts it under a key that the file drew in this epoch. A
//! chunk keeps its number, and its row gets another place and another key. So nothing changes that cites it: no extent,
//! no time, no version, and what several files share they go on sharing. What was sealed before stays in the store
//! until it is collected there.
//!
//! Invariants: rows alone say what is left, so that a crash at any point costs what was not in the log or the journal;
//! only content that is what its row says is sealed anew; users' writes come first. The wish for it is kept in the
//! state folder from before the first chunk until all is in the store.

mod put;
mod walk;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub(super) use self::put::Put;
use self::walk::{OldChunk, OldFile, Walk};
use super::api::VfsError;
use super::drive::Drive;
use super::node::NodeState;
use crate::base::{ByteRange, ByteSize, ChunkNo, Epoch, InodeId, MIB};
use crate::content::{ChunkSource, ContentError};
use crate::meta::MetaError;

/// Read at once, so that a distant store does not cost a round trip for each.
const BATCH_CHUNKS: usize = 32;
const BATCH_BYTES: u64 = 8 * MIB;
/// While more is staged, it is users' turn.
pub(super) const STAGED_MAX: u64 = 64 * MIB;
const PATIENCE: Duration = Duration::from_millis(50);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How often it looks whether the volume was rotated.
const IDLE: Duration = Duration::from_secs(1);
/// Between two pages of a count that nobody waits for.
const COURTESY: Duration = Duration::from_millis(1);

/// Bytes of content a second; None: as fast as it goes.
pub type Rate = Option<u64>;

/// Keeps across mounts that there is work to do, and how fast; None when there is none.
pub type KeepWish = Box<dyn Fn(Option<Rate>) -> Result<(), String> + Send + Sync>;

/// What files have under keys of an epoch that has ended. A chunk that several share counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldData {
    pub files: u64,
    pub chunks: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldKeys {
    /// None while it is counted for the first time.
    pub left: Option<OldData>,
    pub resealing: bool,
    /// Chunks that could not be read in this walk.
    pub unreadable: u64,
    /// Why it does not go on, while it does not.
    pub trouble: Option<String>,
}

/// Why not everything is under new keys. What is done stays done.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    #[error("the drive is mounted read-only")]
    ReadOnly,
    #[error("{0}")]
    Stopped(String),
    #[error("the drive was closed; it goes on with the next mount")]
    Closed,
    #[error(
        "interrupted: {} are still sealed with old keys; it goes on with the next mount, or with the same command",
        ByteSize(.0.bytes)
    )]
    Interrupted(OldData),
    #[error("{0} pieces of files cannot be read, and stay under old keys; the log names the objects")]
    Unreadable(u64),
}

pub struct Resealer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    drive: Arc<Drive>,
    keep: KeepWish,
    state: Mutex<State>,
    changed: Condvar,
    stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// What is being done.
    wish: Option<Rate>,
    status: OldKeys,
    /// Of the last wish.
    outcome: Option<Result<(), Failure>>,
}

#[derive(Clone, Debug)]
enum Failure {
    Stopped(String),
    Unreadable(u64),
}

struct Taken {
    at: Instant,
    bytes: u64,
}

/// Why a step was not done.
enum Trouble {
    /// The volume closes.
    Closing,
    Later(String),
    Never(String),
}

impl Resealer {
    /// Goes on with what an earlier mount was asked for.
    pub fn start(drive: Arc<Drive>, wish: Option<Rate>, keep: KeepWish) -> std::io::Result<Self> {
        let status = OldKeys { resealing: wish.is_some(), ..OldKeys::default() };
        let state = State { wish, status, outcome: None };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { drive, keep, state, changed, stopped: watch::Sender::new(false) });
        let run = shared.clone();
        let thread = std::thread::Builder::new().name("hushfs-reseal".into()).spawn(move || run.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub fn status(&self) -> OldKeys {
        self.shared.state.lock().status.clone()
    }

    /// Returns when the wish is kept. Under way already, it goes on at the new rate.
    pub fn begin(&self, rate: Rate) -> Result<(), ResealError> {
        if self.shared.drive.is_read_only() {
            return Err(ResealError::ReadOnly);
        }
        // Under the lock, so that work that ends just now does not take the new wish with it.
        let mut state = self.shared.state.lock();
        (self.shared.keep)(Some(rate)).map_err(ResealError::Stopped)?;
        state.wish = Some(rate);
        state.status.resealing = true;
        state.outcome = None;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Until all is under new keys and in the store. `progress` ends the wait, not the work, by answering false.
    pub fn wait(&self, progress: &mut dyn FnMut(&OldKeys) -> bool) -> Result<(), ResealError> {
        const REPORT: Duration = Duration::from_millis(200);
        loop {
            let status = {
                let mut state = self.shared.state.lock();
                if state.wish.is_some() && !self.shared.is_stopped() {
                    self.shared.changed.wait_for(&mut state, REPORT);
                }
                match (&state.outcome, state.wish) {
                    (Some(Ok(())), None) | (None, None) => return Ok(()),
                    (Some(Err(Failure::Unreadable(chunks))), None) => return Err(ResealError::Unreadable(*chunks)),
                    (Some(Err(Failure::Stopped(why))), _) => return Err(ResealError::Stopped(why.clone())),
                    (_, Some(_)) if self.shared.is_stopped() => return Err(ResealError::Closed),
                    (_, Some(_)) => state.status.clone(),
                }
            };
            if !progress(&status) {
                return Err(ResealError::Interrupted(status.left.unwrap_or_default()));
            }
        }
    }

    /// What is not done goes on with the next mount.
    pub fn stop(&self) {
        self.shared.stopped.send_replace(true);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("sealing anew ended by a panic");
        }
    }
}

impl Drop for Resealer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut counted = None;
        while !self.is_stopped() {
            let epoch = self.drive.keys.epoch();
            let is_wanted = {
                let state = self.state.lock();
                state.wish.is_some() && state.outcome.is_none()
            };
            let turn = match is_wanted {
                true => self.work(),
                false if counted == Some(epoch) => self.sleep(IDLE),
                false => self.patiently(|| self.count(epoch, COURTESY)),
            };
            match turn {
                Ok(()) => counted = Some(epoch),
                Err(Trouble::Closing) => return,
                // The wish stays kept: the next mount tries again.
                Err(Trouble::Later(why) | Trouble::Never(why)) => {
                    tracing::error!("old keys: {why}");
                    counted = Some(epoch);
                    self.end(Failure::Stopped(why));
                }
            }
        }
    }

    /// Walks until a walk finds nothing that it can do.
    fn work(&self) -> Result<(), Trouble> {
        tracing::info!("what is under old keys is being sealed anew");
        loop {
            let epoch = self.drive.keys.epoch();
            self.patiently(|| self.count(epoch, Duration::ZERO))?;
            let (done, unreadable) = self.walk(epoch)?;
            if done > 0 {
                continue;
            }
            self.flush()?;
            let mut state = self.state.lock();
            // Meanwhile the volume may have been rotated, and the same asked for anew.
            if self.drive.keys.epoch() != epoch {
                continue;
            }
            (self.keep)(None).map_err(Trouble::Never)?;
            state.wish = None;
            state.status.resealing = false;
            state.outcome = Some(if unreadable == 0 { Ok(()) } else { Err(Failure::Unreadable(unreadable)) });
            self.changed.notify_all();
            tracing::info!(unreadable, "sealing anew has come to its end");
            return Ok(());
        }
    }

    fn end(&self, failure: Failure) {
        let mut state = self.state.lock();
        if state.wish.is_some() {
            if let Failure::Stopped(why) = &failure {
                state.status.trouble = Some(why.clone());
            }
            state.outcome = Some(Err(failure));
        }
        self.changed.notify_all();
    }

    fn count(&self, epoch: Epoch, courtesy: Duration) -> Result<(), Trouble> {
        let mut left = OldData::default();
        // Before the first rotation nothing is old.
        let mut walk = (epoch > Epoch(0)).then(|| Walk::new(epoch));
        while let Some(walk) = &mut walk
            && let Some(files) = walk.page(self.drive.view()).map_err(meta_trouble)?
        {
            for file in files.iter().filter(|file| !file.chunks.is_empty()) {
                left.files += 1;
                left.chunks += file.chunks.len() as u64;
                left.bytes += file.chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
            }
            self.sleep(courtesy)?;
        }
        self.state.lock().status.left = Some(left);
        Ok(())
    }

    /// Once over all files: how many changes it made, and how many chunks it could not read.
    fn walk(&self, epoch: Epoch) -> Result<(u64, u64), Trouble> {
        let (mut walk, mut done, mut unreadable) = (Walk::new(epoch), 0, HashSet::new());
        let mut taken = Taken { at: Instant::now(), bytes: 0 };
        while let Some(files) = self.patiently(|| walk.page(self.drive.view()).map_err(meta_trouble))? {
            let chunks: Vec<_> = files.iter().flat_map(chunks_of).collect();
            for batch in batches(&chunks, self.rate().unwrap_or(BATCH_BYTES).min(BATCH_BYTES)) {
                let bytes = batch.iter().map(|(_, chunk)| u64::from(chunk.len)).sum();
                self.pace(bytes, &mut taken)?;
                done += self.patiently(|| self.reseal(batch, epoch, &mut unreadable))?;
                self.state.lock().status.unreadable = unreadable.len() as u64;
            }
            for file in &files {
                if file.names_old_key
                    && self.patiently(|| self.drive.drop_old_key(file.ino).map_err(vfs_trouble))? == Put::Done
                {
                    done += 1;
                }
                if !file.chunks.is_empty() {
                    self.note_done(1, 0, 0);
                }
            }
        }
        Ok((done, unreadable.len() as u64))
    }

    /// How many of them are under new keys now.
    fn reseal(
        &self,
        batch: &[(InodeId, OldChunk)],
        epoch: Epoch,
        unreadable: &mut HashSet<ChunkNo>,
    ) -> Result<u64, Trouble> {
        self.wait_room()?;
        let mut sources = Vec::new();
        for (ino, chunk) in batch {
            match self.drive.old_source(chunk.chunk, epoch) {
                Ok(Some(source)) => sources.push((*ino, source)),
                // A try before this one was further.
                Ok(None) => {}
                Err(_) => drop(unreadable.insert(chunk.chunk)),
            }
        }
        let read = self.read(&sources)?;
        let (mut done, mut later) = (0, None);
        for ((ino, source), plain) in sources.iter().zip(read) {
            match plain {
                Ok(plain) => match self.drive.seal_anew(*ino, source, &plain).map_err(vfs_trouble)? {
                    Put::Done => {
                        done += 1;
                        self.note_done(0, 1, plain.len() as u64);
                    }
                    Put::Changed => {}
                    Put::Forged => {
                        tracing::error!(
                            "chunk {} in {} is not what was written: forged by a holder of its key",
                            source.chunk,
                            source.pack
                        );
                        unreadable.insert(source.chunk);
                    }
                },
                Err(
                    error @ (ContentError::Damaged { .. } | ContentError::BadRow { .. } | ContentError::Missing { .. }),
                ) => {
                    tracing::error!("chunk {} stays under an old key: {error}", source.chunk);
                    unreadable.insert(source.chunk);
                }
                Err(error) => later = Some(Trouble::Later(error.to_string())),
            }
        }
        match later {
            Some(later) if done == 0 => Err(later),
            // Some of it went well: no reason to wait longer and longer.
            Some(_) => Ok(done + self.reseal(batch, epoch, unreadable)?),
            None => Ok(done),
        }
    }

    fn read(&self, sources: &[(InodeId, ChunkSource)]) -> Result<Vec<Result<Vec<u8>, ContentError>>, Trouble> {
        let reads = sources.iter().map(|(_, source)| async {
            let mut plain = vec![0; source.row.len as usize];
            let whole = ByteRange::new(0, source.row.len.into());
            self.drive.reader.read(source, whole, &mut plain).await.map(|()| plain)
        });
        let mut stopped = self.stopped.subscribe();
        self.drive.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => Err(Trouble::Closing),
                read = futures::future::join_all(reads) => Ok(read),
            }
        })
    }

    fn flush(&self) -> Result<(), Trouble> {
        const STEP: Duration = Duration::from_secs(1);
        loop {
            let Some(remote) = self.drive.remote() else { return Err(Trouble::Closing) };
            match remote.flush(STEP) {
                Ok(()) => return Ok(()),
                Err(VfsError::TimedOut) => self.sleep(PATIENCE)?,
                Err(error) => return Err(vfs_trouble(error)),
            }
        }
    }

    fn note_done(&self, files: u64, chunks: u64, bytes: u64) {
        if let Some(left) = &mut self.state.lock().status.left {
            left.files = left.files.saturating_sub(files);
            left.chunks = left.chunks.saturating_sub(chunks);
            left.bytes = left.bytes.saturating_sub(bytes);
        }
    }

    /// Until uploads have caught up, so that what users write never waits behind this.
    fn wait_room(&self) -> Result<(), Trouble> {
        while self.drive.staging.bytes() > STAGED_MAX {
            self.sleep(PATIENCE)?;
        }
        match self.drive.has_local_room(BATCH_BYTES) {
            true => Ok(()),
            false => Err(Trouble::Later(self.drive.space.complaint().unwrap_or_else(|| "the disk is full".into()))),
        }
    }

    /// Until the time of what was taken last is over. A new rate counts at once.
    fn pace(&self, bytes: u64, taken: &mut Taken) -> Result<(), Trouble> {
        let mut state = self.state.lock();
        while !self.is_stopped() {
            let rate = state.wish.flatten();
            let takes = |rate| Duration::try_from_secs_f64(taken.bytes as f64 / rate as f64).unwrap_or(Duration::MAX);
            let (now, due) = (Instant::now(), rate.and_then(|rate| taken.at.checked_add(takes(rate))));
            match due {
                Some(due) if now < due => drop(self.changed.wait_until(&mut state, due)),
                _ => {
                    *taken = Taken { at: now, bytes };
                    return Ok(());
                }
            }
        }
        Err(Trouble::Closing)
    }

    fn rate(&self) -> Rate {
        self.state.lock().wish.flatten()
    }

    /// Again and again, while it may go well later.
    fn patiently<T>(&self, mut work: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut backoff = BACKOFF_MIN;
        loop {
            match work() {
                Err(Trouble::Later(why)) => {
                    tracing::warn!(retry_in = ?backoff, "old keys: {why}");
                    self.state.lock().status.trouble = Some(why);
                    self.sleep(backoff)?;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                done => {
                    self.state.lock().status.trouble = None;
                    return done;
                }
            }
        }
    }

    fn sleep(&self, wait: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        let is_idle = state.wish.is_none();
        while !self.is_stopped() {
            if is_idle && state.wish.is_some() || self.changed.wait_until(&mut state, deadline).timed_out() {
                return Ok(());
            }
        }
        Err(Trouble::Closing)
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }
}

impl Drive {
    /// Where a chunk is that is still under a key of before `epoch`.
    fn old_source(&self, chunk: ChunkNo, epoch: Epoch) -> Result<Option<ChunkSource>, VfsError> {
        let source = self.source(&NodeState::default(), chunk)?;
        let file_key = self.keys.get(source.row.key, self.view()).map_err(self.failed("sealing anew"))?;
        Ok((file_key.epoch < epoch).then_some(source))
    }
}

fn chunks_of(file: &OldFile) -> impl Iterator<Item = (InodeId, OldChunk)> + '_ {
    file.chunks.iter().map(|chunk| (file.ino, *chunk))
}

/// Of at most so many bytes, if a single chunk has not more.
fn batches(chunks: &[(InodeId, OldChunk)], bytes_max: u64) -> impl Iterator<Item = &[(InodeId, OldChunk)]> {
    let mut rest = chunks;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(_, chunk): &&(InodeId, OldChunk)| {
            bytes += u64::from(chunk.len);
            bytes <= bytes_max
        };
        let count = rest.iter().take(BATCH_CHUNKS).take_while(fits).count().max(1);
        let (batch, others) = rest.split_at_checked(count)?;
        rest = others;
        Some(batch)
    })
}

fn meta_trouble(error: MetaError) -> Trouble {
    match error {
        // A damaged tree does not mend itself.
        MetaError::Row(_) | MetaError::MissingRow(_) => Trouble::Never(error.to_string()),
        error => Trouble::Later(error.to_string()),
    }
}

fn vfs_trouble(error: VfsError) -> Trouble {
    match error {
        VfsError::ReadOnly => Trouble::Never("the drive takes no more changes".into()),
        error => Trouble::Later(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_hold_every_chunk_once() {
        let chunk = |number: u64, len: u32| (InodeId(1), OldChunk { chunk: ChunkNo(number), len });
        let large = (0..20).map(|number| chunk(number, 1 << 20));
        let small = (20..120).map(|number| chunk(number, 5));
        let all: Vec<_> = large.chain(small).collect();
        let bytes = |batch: &[(InodeId, OldChunk)]| batch.iter().map(|(_, chunk)| u64::from(chunk.len)).sum::<u64>();
        for bytes_max in [BATCH_BYTES, 3 << 20, 100, 1] {
            let batches: Vec<_> = batches(&all, bytes_max).collect();
            assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= BATCH_CHUNKS));
            assert!(batches.iter().all(|batch| bytes(batch) <= bytes_max || batch.len() == 1));
            assert_eq!(batches.concat(), all);
        }
    }
}
