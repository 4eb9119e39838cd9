//! Commits cuts, in order, for ever: packs first, then the record, then the replica, and only then are journal and
//! staging told to forget.
//!
//! Between two cuts it ends an epoch, if somebody asks (`keyring::rotate` has the order of that).
//!
//! Invariants: one commit at a time; a store that fails delays commits and nothing else; while the store shows an older
//! state, and after a fork for good, nothing is uploaded. It knows neither files nor who made the cut.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use super::checkpoint;
use super::driver::{LogDriver, Need, Patience};
use super::error::MetaError;
use super::keyring::{self, Identity, Keyring, KeyringError, StateFolder};
use super::log::{Absorb, Event, Finished, Footprint, Halt, Head, Origin, Pending as PendingCommit, Waiting};
use super::pending::{Cut, Pending};
use super::replica::RecordApply;
use super::rows::{RowChanges, Rows};
use super::twin::Parting;
use crate::base::{Clock, Entropy, Epoch, Hash, InodeId, IntentNo, PackName, Seq};
use crate::content::{Staging, Uploader};
use crate::format::rows::RowKey;
use crate::format::{NextEpoch, Record, RowChange, SlotNo, WHOLE_LEN_MAX, object_hash};
use crate::store::{Keep, Store};

/// What a commit needs of the rest.
pub struct CommitParts {
    pub keyring: Arc<Keyring>,
    pub store: Arc<dyn Store>,
    pub pending: Arc<Pending>,
    pub staging: Arc<Staging>,
    pub uploader: Uploader,
    /// Through local copies: for checkpoints.
    pub kept: Arc<Keep>,
    /// Takes a staged pack's file over.
    pub adopt: Adopt,
    /// Told of rows that others changed, after they are visible here.
    pub foreign: Foreign,
    /// Runs it while nothing here changes.
    pub exclusively: Exclusively,
    /// Inodes with bytes that are in no rows yet: they are ours as well.
    pub unsealed: Box<dyn Fn() -> Vec<InodeId> + Send + Sync>,
    /// Told when the drive must not change any more.
    pub halted: Box<dyn Fn(&Halt) + Send + Sync>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// Nothing is put into the store, not even what would complete a rotation.
    pub read_only: bool,
    /// Dropped last: its lock lets the next mount in, when nothing of this one is open.
    pub folder: Arc<StateFolder>,
}

pub type Exclusively = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;
pub type Foreign = Box<dyn Fn(&[RowChange]) + Send + Sync>;
pub type Adopt = Box<dyn Fn(PackName, &std::path::Path, u64) + Send + Sync>;

/// How commits are going, for `status`.
#[derive(Clone, Debug, Default)]
pub struct CommitStatus {
    pub head: Seq,
    /// Cuts that are not in the store yet.
    pub waiting: usize,
    /// How many there were in all.
    pub queued: u64,
    pub last_commit: Option<SystemTime>,
    /// Why the log does not go on, while it does not.
    pub failing: Option<(SystemTime, String)>,
    pub halted: Option<Halt>,
    pub checkpoint: Seq,
}

impl CommitStatus {
    /// How many cuts are in the store.
    fn committed(&self) -> u64 {
        self.queued - self.waiting as u64
    }
}

/// A cut with the packs that must be in the store before its record.
#[derive(Clone, Debug)]
pub struct QueuedCut {
    pub cut: Cut,
    pub packs: Vec<PackName>,
    /// A later cut names these packs too: until then they stay in staging.
    pub packs_stay: bool,
}

/// A rotation that was asked for.
struct Rotation {
    without: Option<SlotNo>,
    /// The number of the cut that it comes after.
    after: u64,
    done: oneshot::Sender<Result<Epoch, RotateError>>,
}

#[derive(Default)]
struct Rotations {
    waiting: VecDeque<Rotation>,
    /// Why there will be no more.
    halted: Option<Halt>,
}

/// Why the volume's keys were not rotated. Nothing has changed, but for `NotCompleted`.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("{0}")]
    Halted(Halt),
    #[error("the drive is mounted read-only")]
    ReadOnly,
    #[error("the drive was closed")]
    Closed,
    #[error(
        "the new keys are in force, but the store does not let them be completed yet, and old slots still open what is \
         older ({0}); it is done when the store answers, or by the next mount"
    )]
    NotCompleted(Box<dyn std::error::Error + Send + Sync>),
}

/// What is appended to the log.
#[derive(Clone, Copy)]
enum Work<'a> {
    Cut(&'a QueuedCut),
    /// Ends the first epoch.
    Rotation(Epoch, NextEpoch),
}

/// Why something is not appended, for good.
enum Stop {
    Halt(Halt),
    /// Another device rotated first.
    Superseded,
}

/// What went wrong, and may go well the next time.
type Again = Box<dyn std::error::Error + Send + Sync>;

/// Commits until it is dropped.
pub struct Committer {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    parts: CommitParts,
    queue: Mutex<VecDeque<QueuedCut>>,
    rotations: Mutex<Rotations>,
    queued: Notify,
    status: watch::Sender<CommitStatus>,
}

/// The committing task's own.
struct Task {
    shared: Arc<Shared>,
    driver: LogDriver,
    identity: Identity,
    patience: Patience,
    /// The newest epoch for which nothing is left to do.
    noted: Option<Epoch>,
}

impl Committer {
    pub fn start(runtime: &tokio::runtime::Handle, parts: CommitParts, driver: LogDriver, identity: Identity) -> Self {
        let (head, _) = parts.pending.view().replica().head();
        let (status, _) = watch::channel(CommitStatus { head, ..CommitStatus::default() });
        let shared = Arc::new(Shared {
            parts,
            queue: Mutex::default(),
            rotations: Mutex::default(),
            queued: Notify::new(),
            status,
        });
        let task = Task { shared: shared.clone(), driver, identity, patience: Patience::new(), noted: None };
        let watched = shared.clone();
        let running = async move {
            let outcome = AssertUnwindSafe(task.run()).catch_unwind().await;
            watched.halt(outcome.unwrap_or(Halt::Bug));
        };
        Self { shared, task: runtime.spawn(running) }
    }

    pub fn enqueue(&self, cut: QueuedCut) {
        {
            let mut queue = self.shared.queue.lock();
            queue.push_back(cut);
            // With the lock: who waits for nothing to be queued must not see an older length after a newer one.
            self.shared.status.send_modify(|status| {
                status.waiting = queue.len();
                status.queued += 1;
            });
        }
        self.shared.queued.notify_one();
    }

    /// Ends the epoch, after what is queued now, and lets all slots but `without` into the next.
    pub async fn rotate(&self, without: Option<SlotNo>) -> Result<Epoch, RotateError> {
        if self.shared.parts.read_only {
            return Err(RotateError::ReadOnly);
        }
        let (done, outcome) = oneshot::channel();
        {
            let mut rotations = self.shared.rotations.lock();
            if let Some(halt) = &rotations.halted {
                return Err(RotateError::Halted(halt.clone()));
            }
            let after = self.shared.status.borrow().queued;
            rotations.waiting.push_back(Rotation { without, after, done });
        }
        self.shared.queued.notify_one();
        outcome.await.unwrap_or(Err(RotateError::Closed))
    }

    pub fn status(&self) -> CommitStatus {
        self.shared.status.borrow().clone()
    }

    pub fn uploader(&self) -> &Uploader {
        &self.shared.parts.uploader
    }

    /// For `wait_committed`: all that is queued now.
    pub fn queued(&self) -> u64 {
        self.shared.status.borrow().queued
    }

    /// Waits until the first so many cuts are in the store, whatever is queued behind them. Err: they never will be, and
    /// why.
    pub async fn wait_committed(&self, queued: u64) -> Result<(), String> {
        let mut status = self.shared.status.subscribe();
        let done = status.wait_for(|status| status.committed() >= queued || status.halted.is_some()).await;
        match done {
            Ok(status) if status.committed() >= queued => Ok(()),
            Ok(status) => Err(status.halted.as_ref().map_or_else(String::new, Halt::to_string)),
            Err(_) => Err("the committer ended".into()),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Nothing more is committed or uploaded, and everyone who waits for it is told.
    fn halt(&self, halt: Halt) {
        self.parts.uploader.hold(true);
        tracing::error!("{halt}");
        (self.parts.halted)(&halt);
        let waiting = {
            let mut rotations = self.rotations.lock();
            rotations.halted = Some(halt.clone());
            std::mem::take(&mut rotations.waiting)
        };
        for rotation in waiting {
            // Whoever asked may be gone.
            let _ = rotation.done.send(Err(RotateError::Halted(halt.clone())));
        }
        self.status.send_modify(|status| status.halted = Some(halt));
    }
}

impl Task {
    async fn run(mut self) -> Halt {
        self.note_epoch().await;
        loop {
            let halted = match self.due_rotation() {
                Some(rotation) => self.rotate(rotation).await,
                None => {
                    let next = self.shared.queue.lock().front().cloned();
                    match next {
                        Some(cut) => self.commit(&cut).await,
                        None => {
                            self.shared.queued.notified().await;
                            None
                        }
                    }
                }
            };
            if let Some(halt) = halted {
                if matches!(halt, Halt::Twin { .. } | Halt::TwinPack { .. }) {
                    self.give_up_slot();
                }
                return halt;
            }
        }
    }

    /// The next one, if what it comes after is in the store.
    fn due_rotation(&self) -> Option<Rotation> {
        let committed = self.shared.status.borrow().committed();
        self.shared.rotations.lock().waiting.pop_front_if(|rotation| rotation.after <= committed)
    }

    async fn commit(&mut self, cut: &QueuedCut) -> Option<Halt> {
        let uploaded = self.shared.parts.uploader.wait_uploaded(&cut.packs).await;
        let appended = match uploaded {
            Ok(()) => self.append(Work::Cut(cut)).await,
            Err(pack) => Err(Stop::Halt(Halt::TwinPack { pack })),
        };
        match appended {
            Ok(head) => {
                self.finish(cut, head);
                self.note_epoch().await;
                self.checkpoint_if_due().await;
                None
            }
            Err(Stop::Halt(halt)) => Some(halt),
            // A cut goes into whatever epoch there is.
            Err(Stop::Superseded) => None,
        }
    }

    /// The next mount takes another number, even if it sees nothing of the twin.
    fn give_up_slot(&mut self) {
        let replica = self.shared.parts.pending.view().replica();
        let given_up = match Parting::new(replica.head().0, replica, &self.identity.incarnations) {
            Ok(parting) => {
                self.identity.give_up_slot(parting);
                self.put_identity().map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = given_up {
            tracing::error!(
                "that this device needs another number is not remembered, and will be noticed again: {error}"
            );
        }
    }

    fn put_identity(&self) -> Result<(), KeyringError> {
        let parts = &self.shared.parts;
        let (volume, entropy) = (parts.keyring.volume(), parts.entropy.as_ref());
        parts.folder.put_identity(&parts.keyring.state_key, volume, &self.identity, entropy)
    }

    async fn rotate(&mut self, rotation: Rotation) -> Option<Halt> {
        let outcome = self.try_rotate(rotation.without).await;
        let halt = match &outcome {
            Err(RotateError::Halted(halt)) => Some(halt.clone()),
            _ => None,
        };
        // Whoever asked may be gone.
        let _ = rotation.done.send(outcome);
        halt
    }

    async fn try_rotate(&mut self, without: Option<SlotNo>) -> Result<Epoch, RotateError> {
        let parts = &self.shared.parts;
        let (keyring, store, entropy) = (parts.keyring.clone(), parts.store.clone(), parts.entropy.clone());
        // Each epoch leads to the one before it: first that.
        self.complete_rotation().await.map_err(RotateError::NotCompleted)?;
        let prepared = keyring::prepare(store.as_ref(), &keyring, without, entropy.as_ref()).await?;
        let next = prepared.next;
        match self.append(Work::Rotation(keyring.roots.epoch(), next)).await {
            Ok(_) => {}
            Err(Stop::Halt(halt)) => {
                prepared.abandon(store.as_ref()).await;
                return Err(RotateError::Halted(halt));
            }
            Err(Stop::Superseded) => {
                prepared.abandon(store.as_ref()).await;
                return Err(KeyringError::RotatedMeanwhile.into());
            }
        }
        self.complete_rotation().await.map_err(RotateError::NotCompleted)?;
        tracing::info!("the volume's keys were rotated: epoch {} began", next.epoch);
        Ok(next.epoch)
    }

    /// After another device's rotation, or one that an earlier run did not bring to its end.
    async fn note_epoch(&mut self) {
        let epoch = self.shared.parts.keyring.roots.epoch();
        if self.noted == Some(epoch) {
            return;
        }
        match self.complete_rotation().await {
            Ok(()) => self.noted = Some(epoch),
            Err(error) => tracing::warn!("the rotation of the volume's keys is not completed yet: {error}"),
        }
    }

    /// What is left to do for the newest epoch; mostly nothing.
    async fn complete_rotation(&mut self) -> Result<(), Again> {
        let parts = &self.shared.parts;
        let (store, entropy) = (parts.store.as_ref(), parts.entropy.as_ref());
        let replica = parts.pending.view().replica();
        let Some((older, seq, hash)) = replica.ended()? else { return Ok(()) };
        if keyring::is_incomplete(store, replica.epoch()).await? {
            if parts.read_only {
                return Ok(());
            }
            // What a new device starts from must not rest on the old keys.
            checkpoint::write(parts.kept.as_ref(), replica, &parts.keyring.roots, &parts.entropy).await?;
            keyring::complete(store, &parts.keyring, older, Head { seq, hash }, entropy).await?;
        }
        // Only now, when the next mount is let into the epoch.
        Ok(parts.keyring.remember(store, &parts.folder, entropy).await?)
    }

    /// Until it is in the log, however long that takes.
    async fn append(&mut self, work: Work<'_>) -> Result<Head, Stop> {
        let outcome = self.try_append(work).await;
        if !matches!(outcome, Err(Stop::Halt(_))) {
            // The store shows our history again, if it ever did not.
            self.shared.parts.uploader.hold(false);
        }
        outcome
    }

    async fn try_append(&mut self, work: Work<'_>) -> Result<Head, Stop> {
        let shared = self.shared.clone();
        let incarnation = shared.parts.pending.device().incarnation;
        let (high_water, high_water_hash) = match work {
            Work::Cut(cut) => (cut.cut.high_water, cut.cut.high_water_hash),
            // No intents: what the records before it cover.
            Work::Rotation(..) => loop {
                match shared.parts.pending.view().replica().high_water(&incarnation) {
                    Ok(covered) => break covered.unwrap_or((IntentNo(0), Hash::ZERO)),
                    Err(error) => self.failing(&error).await,
                }
            },
        };
        let pending = PendingCommit {
            commit_id: self.shared.parts.entropy.array(),
            incarnation,
            high_water,
            high_water_hash,
            replayed: false,
        };
        'again: loop {
            let action = self.driver.machine.commit(pending);
            let mut need = self.driver.run(action).await;
            loop {
                let event = match need {
                    Ok(Need::Finished(Finished::Committed(head) | Finished::AtHead(head))) => return Ok(head),
                    Ok(Need::Halt(halt)) => return Err(Stop::Halt(halt)),
                    Ok(Need::Seal { epoch, .. }) if matches!(work, Work::Rotation(from, _) if from != epoch) => {
                        return Err(Stop::Superseded);
                    }
                    Ok(Need::Seal { epoch, seq, prev }) => match self.seal(work, &pending, epoch, seq, prev).await {
                        Ok(bytes) => match self.note_attempt(Head { seq, hash: object_hash(&bytes) }) {
                            Ok(()) => Event::Sealed(bytes),
                            Err(error) => {
                                self.failing(&format!("record {seq} could not be noted as this device's own: {error}"))
                                    .await;
                                continue 'again;
                            }
                        },
                        Err(error) => {
                            self.failing(&error).await;
                            continue 'again;
                        }
                    },
                    Ok(Need::Absorb(absorb)) => match self.absorb(work, absorb).await {
                        Ok(Ok(())) => Event::Absorbed { disjoint: true },
                        Ok(Err(halt)) => return Err(Stop::Halt(halt)),
                        Err(error) => {
                            self.failing(&error).await;
                            continue 'again;
                        }
                    },
                    Ok(Need::Load(manifest)) => {
                        // The log was trimmed while we were away: the rows under a mounted drive are not replaced.
                        return Err(Stop::Halt(Halt::Trimmed { checkpoint: manifest.seq }));
                    }
                    Ok(Need::Wait(waiting)) => {
                        // This cut's packs are there, or so the store said; the next ones' wait with their records.
                        if matches!(waiting, Waiting::Stale { .. }) {
                            self.shared.parts.uploader.hold(true);
                        }
                        self.failing(&waiting).await;
                        Event::Waited
                    }
                    Err(error) => {
                        self.failing(&error).await;
                        continue 'again;
                    }
                };
                need = self.driver.answer(event).await;
            }
        }
    }

    /// By this the next mount tells the record from a twin's, if nobody hears that it was created. Without it nothing is
    /// sent: what is pending here would be done again over what the record did.
    fn note_attempt(&mut self, attempt: Head) -> Result<(), KeyringError> {
        self.identity.note_attempt(attempt);
        self.put_identity()
    }

    async fn seal(
        &self,
        work: Work<'_>,
        pending: &PendingCommit,
        epoch: Epoch,
        seq: Seq,
        prev: Hash,
    ) -> Result<Bytes, Again> {
        let (shared, pending) = (self.shared.clone(), *pending);
        let (generation, next) = match work {
            Work::Cut(cut) => (Some(cut.cut.generation), None),
            Work::Rotation(_, next) => (None, Some(next)),
        };
        let sealing = tokio::task::spawn_blocking(move || {
            let parts = &shared.parts;
            let record = Record {
                epoch,
                seq,
                prev,
                commit_id: pending.commit_id,
                slot: parts.pending.device().slot,
                incarnation: pending.incarnation,
                high_water: pending.high_water,
                high_water_hash: pending.high_water_hash,
                time: parts.clock.now(),
                rows: match generation {
                    Some(generation) => parts.pending.view().generation_rows(generation)?,
                    None => Vec::new(),
                },
                next,
            };
            // A record that does not decode would stop every device at its number.
            record.check()?;
            let bytes = record.seal(&parts.keyring.roots, parts.entropy.as_ref())?;
            if bytes.len() as u64 > WHOLE_LEN_MAX {
                return Err(format!("record {seq} would be longer than any device reads").into());
            }
            Ok::<_, Again>(bytes)
        });
        Ok(sealing.await??.into())
    }

    /// Applies the record, unless it touches something that is pending.
    async fn absorb(&self, work: Work<'_>, absorb: Box<Absorb>) -> Result<Result<(), Halt>, Again> {
        let shared = self.shared.clone();
        if let Some(next) = &absorb.record.next {
            match shared.parts.keyring.follow(shared.parts.store.as_ref(), next).await {
                Ok(()) => {}
                Err(error @ KeyringError::Store(_)) => return Err(error.into()),
                Err(why) => {
                    return Ok(Err(Halt::LockedOut { seq: absorb.head.seq, why: why.to_string() }));
                }
            }
        }
        let is_own = absorb.origin == Origin::Own;
        let own = match work {
            Work::Cut(cut) if is_own => Some(cut.cut.generation),
            _ => None,
        };
        let is_late = self.identity.attempts.contains(&absorb.head);
        let absorbing = tokio::task::spawn_blocking(move || {
            let view = shared.parts.pending.view();
            let Absorb { record, head, bytes, .. } = *absorb;
            let apply = RecordApply {
                seq: head.seq,
                hash: head.hash,
                epoch: record.epoch,
                next_epoch: record.next.map(|next| next.epoch),
                incarnation: record.incarnation,
                high_water: record.high_water,
                high_water_hash: record.high_water_hash,
                rows: &record.rows,
                record_len: bytes.len() as u64,
            };
            if is_own {
                view.absorb(&apply, own)?;
                return Ok(Ok(()));
            }
            let foreign = Footprint::of(&record.rows);
            let is_touched = |rows: &RowChanges| foreign.touches(&Footprint::of(rows));
            // One at a time, for there may be weeks of them. What is made from here on has a later number.
            let frozen = view.generations();
            let mut ours = Vec::new();
            for generation in &frozen {
                ours.extend(Some(view.generation_rows(*generation)?).filter(is_touched));
            }
            let mut applied = Ok(());
            (shared.parts.exclusively)(&mut || {
                // What changes now would lie over what it has not seen: so nothing does.
                let unsealed = (shared.parts.unsealed)().into_iter();
                let unsealed = unsealed.map(|ino| (RowKey::Inode(ino).encode(), None)).collect();
                ours.extend([view.active_rows(), unsealed].into_iter().filter(is_touched));
                applied = (|| {
                    for generation in view.generations().iter().filter(|generation| !frozen.contains(generation)) {
                        ours.extend(Some(view.generation_rows(*generation)?).filter(is_touched));
                    }
                    if ours.is_empty() { view.absorb(&apply, None) } else { Ok(()) }
                })();
            });
            applied?;
            if !ours.is_empty() {
                // It was not applied: what is here stays what it was, over what it was made on.
                let seq = head.seq;
                let halt = match is_late {
                    true => Halt::Late { seq },
                    false => Halt::Overlap { seq, files: common_files(view.as_ref(), &record.rows, &ours) },
                };
                return Ok(Err(halt));
            }
            (shared.parts.foreign)(&record.rows);
            Ok::<_, MetaError>(Ok(()))
        });
        Ok(absorbing.await??)
    }

    /// The record is in the log and the replica: everything else may forget what it covers.
    fn finish(&mut self, cut: &QueuedCut, head: Head) {
        let parts = &self.shared.parts;
        // Else a machine that loses its power now could not go on without the store.
        if let Err(error) = parts.pending.view().replica().sync(parts.folder.disk().as_ref()) {
            tracing::error!("this machine's copy of the tree is not on its disk yet: {error}");
        }
        self.identity.remembered = self.driver.machine.remembered();
        self.identity.floor = self.driver.machine.floor().copied();
        if let Err(error) = self.put_identity() {
            // An older head that is remembered still notices a rollback below it.
            tracing::error!("the newest head could not be remembered: {error}");
        }
        tracing::debug!(seq = head.seq.0, high_water = cut.cut.high_water.0, "committed");
        parts.pending.committed(cut.cut.high_water);
        if !cut.packs_stay {
            parts.staging.committed(&cut.packs, &parts.adopt);
        }
        self.patience.renew();
        let mut queue = self.shared.queue.lock();
        queue.pop_front();
        self.shared.status.send_modify(|status| {
            status.head = head.seq;
            status.waiting = queue.len();
            status.last_commit = Some(SystemTime::now());
            status.failing = None;
        });
    }

    async fn checkpoint_if_due(&mut self) {
        let parts = &self.shared.parts;
        let replica = parts.pending.view().replica();
        let due = match checkpoint::due(replica) {
            Ok(due) => due,
            Err(error) => return tracing::error!("whether a checkpoint is due could not be read: {error}"),
        };
        if !due {
            return;
        }
        match checkpoint::write(parts.kept.as_ref(), replica, &parts.keyring.roots, &parts.entropy).await {
            Ok(Some(seq)) => {
                self.shared.status.send_modify(|status| status.checkpoint = seq);
                self.forget_copies(seq).await;
            }
            Ok(None) => {}
            // The next commit tries again; until then new devices read a longer log.
            Err(error) => tracing::warn!("the checkpoint could not be written: {error}"),
        }
    }

    /// What the newest checkpoint replaces is needed here no more.
    async fn forget_copies(&self, checkpoint: Seq) {
        let parts = &self.shared.parts;
        let (kept, pending) = (parts.kept.clone(), parts.pending.clone());
        let forgetting = tokio::task::spawn_blocking(move || {
            let segments = pending.view().replica().snapshot()?.segments()?;
            let wanted: HashSet<_> = segments.into_iter().map(|(segment, _)| segment.id).collect();
            kept.forget_below(checkpoint);
            kept.retain_segments(|segment| wanted.contains(segment));
            Ok::<_, MetaError>(())
        });
        if let Ok(Err(error)) = forgetting.await {
            tracing::warn!("local copies that are needed no more stay: {error}");
        }
    }

    async fn failing(&mut self, error: &(impl std::fmt::Display + ?Sized)) {
        let text = error.to_string();
        self.shared.status.send_modify(|status| {
            let since = status.failing.take().map_or_else(SystemTime::now, |(since, _)| since);
            status.failing = Some((since, text.clone()));
        });
        tracing::warn!("the log does not go on yet: {text}");
        self.patience.wait().await;
    }
}

/// The first of what both changed.
fn common_files(rows: &dyn Rows, foreign: &[RowChange], ours: &[RowChanges]) -> Vec<InodeId> {
    const SHOWN: usize = 10;
    let changed = |rows: &[RowChange]| rows.iter().flat_map(|(key, _)| inodes_in(key)).collect::<BTreeSet<_>>();
    let own: BTreeSet<InodeId> = ours.iter().flat_map(|rows| changed(rows)).collect();
    let foreign = changed(foreign);
    let mut common: Vec<InodeId> = foreign.intersection(&own).copied().collect();
    if common.is_empty() {
        common = foreign.into_iter().collect();
    }
    // A directory says less than what is in it.
    let is_dir = |ino: &InodeId| rows.inode(*ino).ok().flatten().is_some_and(|row| row.is_dir());
    common.sort_by_key(is_dir);
    common.truncate(SHOWN);
    common
}

fn inodes_in(key: &[u8]) -> Option<InodeId> {
    match RowKey::decode(key).ok()? {
        RowKey::Inode(ino) | RowKey::Extents(ino, _) | RowKey::Xattr(ino, _) | RowKey::Backref(ino, ..) => Some(ino),
        RowKey::Dirent(parent, _) => Some(parent),
        _ => None,
    }
}
