//! Puts together again what random writes and slow appends leave in small pieces.
//!
//! A stretch of a file, as long as a chunk may be, that is in more pieces than it should be is read and sealed as one
//! chunk, by a thread of its own. Without it the row of a window grows with each commit and is written whole by the
//! next, and a read asks for every piece. What it costs: of a stretch that is written to again and again, one rewrite
//! for every so many pieces.
//!
//! Invariants: bytes, size and times stay what they are, and so does every hole of a block or more; what is written
//! meanwhile wins; users' writes come first. It remembers nothing across mounts: a window that is written to is looked
//! at again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::try_join_all;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::api::VfsResult;
use super::data::{Facts, clip};
use super::drive::Drive;
use super::errors::content_error;
use super::node::NodeState;
use super::read::SEEK_BLOCK_LEN;
use super::reseal::{Put, STAGED_MAX};
use crate::base::{ByteRange, CHUNK_LEN, InodeId};
use crate::format::intent::Change;
use crate::format::rows::{Extent, RowKey, decode_window};
use crate::meta::{MetaError, Rows};

/// What an extent takes at least in the row of its window.
const EXTENT_LEN_MIN: usize = 4;
/// Of more windows only some are looked at: the others come by again.
const WAITING_MAX: usize = 10_000;
/// How often it looks whether uploads have caught up.
const PATIENCE: Duration = Duration::from_millis(200);

/// Windows that were written to and are in pieces; None once the volume closes.
pub(super) struct Fragmented {
    windows: Mutex<Option<BTreeSet<(InodeId, u64)>>>,
    changed: Condvar,
}

impl Default for Fragmented {
    fn default() -> Self {
        Self { windows: Mutex::new(Some(BTreeSet::new())), changed: Condvar::new() }
    }
}

impl Fragmented {
    fn add(&self, ino: InodeId, window: u64) {
        if let Some(windows) = &mut *self.windows.lock()
            && windows.len() < WAITING_MAX
            && windows.insert((ino, window))
        {
            self.changed.notify_one();
        }
    }

    /// Waits for one. None when there will be no more.
    fn next(&self) -> Option<(InodeId, u64)> {
        let mut windows = self.windows.lock();
        loop {
            match windows.as_mut()?.pop_first() {
                Some(next) => return Some(next),
                None => self.changed.wait(&mut windows),
            }
        }
    }

    fn close(&self) {
        *self.windows.lock() = None;
        self.changed.notify_all();
    }
}

/// Until it is dropped.
pub(super) struct Defragmenter {
    drive: Arc<Drive>,
    stopped: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Defragmenter {
    pub fn start(drive: Arc<Drive>) -> std::io::Result<Self> {
        let (stopped, stop) = watch::channel(false);
        let worker = drive.clone();
        let work = move || {
            let drive = worker;
            while let Some((ino, window)) = drive.fragmented.next() {
                while drive.staging.bytes() > STAGED_MAX && !*stop.borrow() {
                    std::thread::sleep(PATIENCE);
                }
                if let Err(error) = drive.defragment(ino, window, &stop) {
                    tracing::debug!("inode {ino} stays in pieces for now: {error}");
                }
            }
        };
        let thread = std::thread::Builder::new().name("hushfs-defragment".into()).spawn(work)?;
        Ok(Self { drive, stopped, thread: Mutex::new(Some(thread)) })
    }

    pub fn stop(&self) {
        self.stopped.send_replace(true);
        self.drive.fragmented.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("putting files together ended by a panic");
        }
    }
}

impl Drop for Defragmenter {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Drive {
    /// After a write to those windows.
    pub(super) fn note_fragments(&self, ino: InodeId, windows: impl IntoIterator<Item = u64>) {
        for window in windows {
            // A row that cannot be read is told of by whoever needs it.
            if self.window_len(ino, window).is_ok_and(|len| len >= self.options.pieces_max * EXTENT_LEN_MIN) {
                self.fragmented.add(ino, window);
            }
        }
    }

    /// How long the window's own row is.
    pub(super) fn window_len(&self, ino: InodeId, window: u64) -> Result<usize, MetaError> {
        Ok(self.view().get(&RowKey::Extents(ino, window).encode())?.map_or(0, |row| row.len()))
    }

    fn defragment(&self, ino: InodeId, window: u64, stop: &watch::Receiver<bool>) -> VfsResult<()> {
        let failed = self.failed("putting together");
        let Some(row) = self.view().get(&RowKey::Extents(ino, window).encode()).map_err(&failed)? else {
            return Ok(());
        };
        let extents = decode_window(window, &row).map_err(|error| failed(error.into()))?;
        for run in runs(&extents, self.options.pieces_max) {
            if *stop.borrow() || !self.has_local_room(run.len()) {
                return Ok(());
            }
            let pieces = extents.iter().filter(|extent| extent.offset < run.end && extent.end() > run.start);
            self.put_together(ino, run, pieces.copied().collect(), stop)?;
        }
        Ok(())
    }

    fn put_together(
        &self,
        ino: InodeId,
        run: ByteRange,
        pieces: Vec<Extent>,
        stop: &watch::Receiver<bool>,
    ) -> VfsResult<()> {
        let Some(bytes) = self.read_pieces(&pieces, run, stop)? else { return Ok(()) };
        self.with_row(ino, |state, row| {
            let now = self.view().extents(ino, row, run).map_err(self.failed("putting together"))?;
            // What is not sealed yet may be in the journal, and must not be covered by older bytes when that is replayed.
            if now != pieces || state.dirty.ranges(run).next().is_some() {
                return Ok(Put::Changed);
            }
            self.load_file_key(state, row)?;
            let mut facts = Facts::default();
            let chunk = self.chunk_for(state, &bytes, &mut facts)?;
            let whole = Extent { offset: run.start, len: run.len() as u32, chunk, chunk_offset: 0 };
            self.say_write(ino, state, row, facts.intents, vec![Change::Extent(whole)])?;
            self.note_written(run.len());
            Ok(Put::Done)
        })?;
        Ok(())
    }

    /// What the file has in `run`; None when the volume closes meanwhile.
    fn read_pieces(
        &self,
        extents: &[Extent],
        run: ByteRange,
        stop: &watch::Receiver<bool>,
    ) -> VfsResult<Option<Vec<u8>>> {
        let mut pieces = Vec::new();
        for extent in extents {
            let mut extent = *extent;
            if clip(&mut extent, run) {
                pieces.push((extent, self.source(&NodeState::default(), extent.chunk)?));
            }
        }
        let reads = pieces.iter().map(|(extent, source)| async {
            let mut bytes = vec![0; extent.len as usize];
            let in_chunk = ByteRange::new(extent.chunk_offset.into(), (extent.chunk_offset + extent.len).into());
            self.reader.read(source, in_chunk, &mut bytes).await.map(|()| bytes)
        });
        let mut stop = stop.clone();
        let read = self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => None,
                read = try_join_all(reads) => Some(read),
            }
        });
        let Some(read) = read else { return Ok(None) };
        let read = read.map_err(|error| content_error("putting together", &error))?;
        let mut whole = vec![0; run.len() as usize];
        for ((extent, _), bytes) in pieces.iter().zip(read) {
            let at = (extent.offset - run.start) as usize;
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(Some(whole))
    }
}

/// What of a window is to be put together: in each stretch of more than `pieces_max` pieces the runs between holes. A
/// gap shorter than a block is none that anybody can find.
fn runs(extents: &[Extent], pieces_max: usize) -> Vec<ByteRange> {
    let mut runs = Vec::new();
    let mut rest = extents;
    while let Some(first) = rest.first() {
        let start = first.offset / CHUNK_LEN * CHUNK_LEN;
        let stretch = ByteRange::new(start, start + CHUNK_LEN);
        let count = rest.partition_point(|extent| extent.offset < stretch.end);
        let (pieces, others) = rest.split_at(count);
        rest = others;
        if pieces.len() <= pieces_max {
            continue;
        }
        let close = |one: &Extent, next: &Extent| next.offset - one.end() < SEEK_BLOCK_LEN;
        for run in pieces.chunk_by(close).filter(|run| run.len() > 1) {
            let end = run.last().map_or(start, Extent::end).min(stretch.end);
            runs.push(ByteRange::new(run[0].offset, end));
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ChunkNo;

    fn extents(steps: &[(u64, u32)]) -> Vec<Extent> {
        let mut at = 0;
        let extent = |(number, (gap, len)): (usize, &(u64, u32))| {
            let offset = at + gap;
            at = offset + u64::from(*len);
            Extent { offset, len: *len, chunk: ChunkNo(number as u64), chunk_offset: 0 }
        };
        steps.iter().enumerate().map(extent).collect()
    }

    #[test]
    fn few_pieces_and_lone_ones_stay_as_they_are() {
        let together = extents(&[(0, 4096); 64]);
        assert_eq!(runs(&together, 64), []);
        assert_eq!(runs(&together, 63), [ByteRange::new(0, 64 * 4096)]);
        assert_eq!(runs(&extents(&[(4096, 4096); 100]), 63), []);
        assert_eq!(runs(&extents(&[(4095, 1); 100]), 63), [ByteRange::new(4095, 100 * 4096)]);
    }

    proptest! {
        #[test]
        fn runs_begin_and_end_with_data_and_cover_no_hole_that_shows(
            steps in prop::collection::vec((prop_oneof![Just(0), 0..20_000u64], 1..300_000u32), 1..200),
            pieces_max in 0..8usize,
        ) {
            let extents = extents(&steps);
            let runs = runs(&extents, pieces_max);
            for run in &runs {
                prop_assert!(run.len() <= CHUNK_LEN && run.start / CHUNK_LEN == (run.end - 1) / CHUNK_LEN);
                let inside: Vec<_> = extents.iter().filter(|e| e.end() > run.start && e.offset < run.end).collect();
                prop_assert!(inside.len() > 1);
                prop_assert!(inside[0].offset <= run.start && inside[inside.len() - 1].end() >= run.end);
                prop_assert!(inside.windows(2).all(|two| two[1].offset - two[0].end() < SEEK_BLOCK_LEN));
            }
            prop_assert!(runs.windows(2).all(|two| two[0].end <= two[1].start));
        }
    }
}
