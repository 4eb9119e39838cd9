//! The thread that cuts: 16 MiB, 5 seconds, or on demand. It seals what is dirty, hands the cut to the
//! committer, and keeps the journal from falling behind when the store does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::PackName;
use crate::meta::Cut;

use super::api::VfsResult;
use super::drive::Drive;
use super::sync::FrozenCut;

/// Who commits cuts, in order.
pub trait CutSink: Send + Sync + 'static {
    fn enqueue(&self, cut: Cut, packs: Vec<PackName>);
    /// These packs leave staging once they are in the store, and all cuts that were queued before.
    fn let_go(&self, packs: Vec<PackName>);
    /// Cuts that are not in the store yet.
    fn waiting(&self) -> usize;
}

#[derive(Clone, Copy, Debug)]
pub struct CycleOptions {
    /// The oldest change waits no longer than this for its cut.
    pub age_max: Duration,
}

impl Default for CycleOptions {
    fn default() -> Self {
        Self { age_max: Duration::from_secs(5) }
    }
}

pub struct Cycle {
    drive: Arc<Drive>,
    sink: Arc<dyn CutSink>,
    stop: Arc<AtomicBool>,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
    /// One cut at a time, and in order into the sink.
    cutting: Arc<parking_lot::Mutex<()>>,
}

impl Cycle {
    pub fn start(drive: Arc<Drive>, sink: Arc<dyn CutSink>, options: CycleOptions) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let cutting = Arc::new(parking_lot::Mutex::new(()));
        let run = {
            let (drive, sink, stop, cutting) = (drive.clone(), sink.clone(), stop.clone(), cutting.clone());
            move || {
                while !stop.load(Ordering::SeqCst) {
                    turn(&drive, sink.as_ref(), &cutting, options, &stop);
                }
            }
        };
        let thread = std::thread::Builder::new().name("hushfs-cycle".into()).spawn(run)?;
        Ok(Self { drive, sink, stop, thread: parking_lot::Mutex::new(Some(thread)), cutting })
    }

    /// Cuts now, on the caller's thread.
    pub fn cut(&self) -> VfsResult<()> {
        cut(&self.drive, self.sink.as_ref(), &self.cutting)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.drive.wake_cycle();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the commit cycle ended by a panic");
        }
    }
}

impl Drop for Cycle {
    fn drop(&mut self) {
        self.stop();
    }
}

fn turn(drive: &Drive, sink: &dyn CutSink, cutting: &parking_lot::Mutex<()>, options: CycleOptions, stop: &AtomicBool) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let due = drive.wait_due(options.age_max, PATIENCE);
    drive.atimes.keep_now_and_then();
    drive.keep_local_room();
    // Woken to end, which is no reason to cut.
    if stop.load(Ordering::SeqCst) {
        return;
    }
    if due && let Err(error) = cut(drive, sink, cutting) {
        tracing::warn!("what was written could not be staged yet: {error}");
        std::thread::sleep(PATIENCE);
    }
    // With the store in step, the log itself makes things durable within seconds. Otherwise the journal does.
    let (intents, bytes) = drive.pending().queued();
    let behind = sink.waiting() > 1 && intents > 0 && due;
    if (behind || intents > QUEUED_INTENTS_MAX || bytes > QUEUED_BYTES_MAX)
        && let Err(error) = drive.sync_all()
    {
        tracing::error!("the journal could not be written: {error}");
        std::thread::sleep(PATIENCE);
    }
}

/// Memory for intents that the journal has not got.
const QUEUED_INTENTS_MAX: usize = 100_000;
const QUEUED_BYTES_MAX: usize = 32 << 20;

fn cut(drive: &Drive, sink: &dyn CutSink, cutting: &parking_lot::Mutex<()>) -> VfsResult<()> {
    let _one = cutting.lock();
    let FrozenCut { cut, packs } = drive.freeze()?;
    match cut {
        Some(cut) => sink.enqueue(cut, packs),
        // No commit will come for them, and they would fill staging.
        None if !packs.is_empty() => sink.let_go(packs),
        None => {}
    }
    Ok(())
}
