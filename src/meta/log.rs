//! Following the log and committing to it, as a state machine without I/O, clock or randomness: it says what to do
//! (`Action`), is told how that went (`Event`), and decides. The daemon and the simulator drive it alike.
//!
//! Invariants:
//! - Nothing that was read or created is trusted before the floors were read to their end after it: a log below the
//!   floor is gone, and a create there succeeds without meaning anything.
//! - A record is taken only if it opens, stands where it says, and names the hash of our head as its predecessor's.
//! - One commit has one id, and one place of the log sees the same bytes of it however often it is tried: whatever
//!   was heard of a create, what stands in the log decides.
//! - A record under our number is ours if it is one that we tried to create, byte for byte, and else a twin's: a copy
//!   of this device may have its number, its run, its random numbers and so its commit ids.
//! - Once a fork is found nothing more is created.
//! - A record is of the epoch that the log is in, and a checkpoint of none that has ended: who was locked out by a
//!   rotation still knows the older root, and could seal either.
//!
//! It deliberately knows nothing of what rows mean: whoever absorbs a foreign record says whether it is disjoint.

mod check;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{DeviceSlot, Epoch, Hash, Incarnation, InodeId, IntentNo, PackName, Seq};
use crate::crypto::Roots;
use crate::format::{Floor, Manifest, Record, object_hash};

pub use check::{Footprint, first_disagreement, thin_past};

/// Records read at once when there is much to read.
pub const READ_AHEAD: u32 = 32;

/// A record's place and hash; the hash of the whole past with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: Seq,
    pub hash: Hash,
}

impl Head {
    pub const EMPTY: Self = Self { seq: Seq(0), hash: Hash::ZERO };
}

/// What is to be committed. The rows stay with whoever seals them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub commit_id: [u8; 16],
    pub incarnation: Incarnation,
    pub high_water: IntentNo,
    pub high_water_hash: Hash,
    /// Replayed from an earlier run's journal: a record of that run which reaches further covers it all.
    pub replayed: bool,
}

#[derive(Debug)]
pub enum Action {
    /// Read these places, all at once. Answer `Log` with as many.
    ReadLog { from: Seq, count: u32 },
    /// Answer `Floor`.
    ReadFloor(u64),
    /// Answer `Manifest`.
    ReadManifest(Seq),
    /// Make the record of what is pending for this place. Answer `Sealed`.
    Seal { epoch: Epoch, seq: Seq, prev: Hash },
    /// Answer `Created`.
    Create { seq: Seq, bytes: Bytes },
    /// Apply it. Answer `Absorbed`.
    Absorb(Box<Absorb>),
    /// Replace all rows by this checkpoint's, if no past head disagrees. Answer `Loaded` or `Disagreed`.
    Load(Box<Manifest>),
    /// Try again after a while. Answer `Waited`.
    Wait(Waiting),
    /// Nothing more to do: at the head, or committed.
    Finished(Finished),
    /// It cannot go on.
    Halt(Halt),
}

#[derive(Debug)]
pub enum Event {
    Log(Vec<Option<Bytes>>),
    Floor(Option<Bytes>),
    Manifest(Option<Bytes>),
    Sealed(Bytes),
    Created(CreateOutcome),
    /// `disjoint`: nothing that is pending rests on what the record changed.
    Absorbed {
        disjoint: bool,
    },
    Loaded {
        disjoint: bool,
    },
    Disagreed {
        seq: Seq,
    },
    Waited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    New,
    Exists,
    Unknown,
}

#[derive(Debug)]
pub struct Absorb {
    pub record: Arc<Record>,
    pub head: Head,
    /// The object in the store.
    pub bytes: Bytes,
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The pending commit, or an earlier run's record that holds all of it.
    Own,
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    AtHead(Head),
    /// Here, or before it.
    Committed(Head),
}

/// Why it waits. Nothing is lost, and nothing is to be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    #[error("the store shows an older state: record {known} is known and missing; waiting for it to come back")]
    Stale { known: Seq },
    #[error("record {0} is missing from the log though later ones are there")]
    Gap(Seq),
    #[error("record {0} of the log is damaged")]
    DamagedRecord(Seq),
    #[error("record {0} of the log is sealed with keys that a rotation had ended before it")]
    EndedEpoch(Seq),
    #[error("floor {0} is damaged")]
    DamagedFloor(u64),
    #[error("checkpoint {0}, which replaces the trimmed log, is missing")]
    MissingCheckpoint(Seq),
    #[error("checkpoint {0}, which replaces the trimmed log, is damaged, or of keys that a rotation ended")]
    DamagedCheckpoint(Seq),
    #[error("it is not known whether record {0} was stored")]
    Unconfirmed(Seq),
}

/// Why it stops. Nothing is lost: what is pending stays in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(
        "the store's history is not the one this device knows: they part at record {seq}; the drive is read-only and \
         nothing is uploaded until you decide which is right"
    )]
    Fork { seq: Seq },
    #[error("another device changed the same files in record {seq}; merging is not in this version")]
    Conflict { seq: Seq },
    /// The same, from whoever knows the files.
    #[error(
        "another device changed in record {seq} what this one changed (inodes {}); merging is not in this version. The \
         drive takes no more changes, and what it has not sent stays in the state folder",
        listed(files)
    )]
    Overlap { seq: Seq, files: Vec<InodeId> },
    #[error("the log was trimmed up to checkpoint {checkpoint} while this drive was away; unmount and mount again")]
    Trimmed { checkpoint: Seq },
    #[error(
        "record {seq} was written under this device's own number by another copy of its state folder; unmount and mount \
         again: it then goes on under a number of its own, and nothing is lost"
    )]
    Twin { seq: Seq },
    #[error(
        "another copy of this device's state folder has uploaded {pack}; unmount and mount again: it then goes on under \
         a number of its own, and nothing is lost"
    )]
    TwinPack { pack: PackName },
    #[error("record {seq}, of an earlier run of this device, arrived late; unmount and mount again: nothing is lost")]
    Late { seq: Seq },
    #[error("the volume's keys were rotated in record {seq}, and this device is not let in any more: {why}")]
    LockedOut { seq: Seq, why: String },
    #[error(
        "a fault in hushfs itself stopped its uploads, and its log says where; what was written stays on this machine: \
         unmount and mount again"
    )]
    Bug,
}

fn listed(inodes: &[InodeId]) -> String {
    inodes.iter().map(InodeId::to_string).collect::<Vec<_>>().join(", ")
}

/// What a machine starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// What the replica holds.
    pub head: Head,
    /// Of the record after it.
    pub epoch: Epoch,
    /// A record that the volume's keys prove: the log goes through it.
    pub anchor: Option<Head>,
    /// The newest head this device ever trusted.
    pub remembered: Head,
    /// The newest floor known.
    pub floor: Option<Floor>,
    pub slot: DeviceSlot,
    /// Records that this state folder tried to create, and that may have arrived unheard.
    pub attempts: Vec<Head>,
}

pub struct LogMachine {
    roots: Roots,
    start: Start,
    pending: Option<Pending>,
    /// The pending commit's bytes for one place.
    sealed: Option<(Head, Bytes)>,
    ahead: u32,
    /// A gap may only be two reads of different ages: the first is read again.
    gaps: u32,
    state: State,
}

enum State {
    Idle,
    Reading { from: Seq, unconfirmed: bool },
    Floors(Unproven),
    Absorbing { queue: VecDeque<(Seq, Bytes)>, more: bool, absorbed: Absorbed },
    Sealing,
    Creating,
    Manifest,
    Loading(Box<Manifest>),
    Waiting,
    Halted(Halt),
}

#[derive(Clone, Copy)]
struct Absorbed {
    head: Head,
    epoch: Epoch,
    origin: Origin,
}

/// What a floor check is to prove.
enum Unproven {
    Read { from: Seq, slots: Vec<Option<Bytes>>, unconfirmed: bool },
    Created,
}

impl LogMachine {
    pub fn new(roots: Roots, start: Start) -> Self {
        // Who knows no record yet has much to read, and nothing but what stands behind a gap tells it of one.
        let ahead = if start.remembered == Head::EMPTY { READ_AHEAD } else { 1 };
        Self { roots, start, pending: None, sealed: None, ahead, gaps: 0, state: State::Idle }
    }

    /// Whether nothing more can be done with it.
    pub fn halted(&self) -> Option<&Halt> {
        match &self.state {
            State::Halted(halt) => Some(halt),
            _ => None,
        }
    }

    pub fn head(&self) -> Head {
        self.start.head
    }

    /// Of the next record.
    pub fn epoch(&self) -> Epoch {
        self.start.epoch
    }

    /// Never behind `head`.
    pub fn remembered(&self) -> Head {
        self.start.remembered
    }

    pub fn floor(&self) -> Option<&Floor> {
        self.start.floor.as_ref()
    }

    /// Reads to the head of the log. After a fork it only says so again.
    pub fn follow(&mut self) -> Action {
        self.pending = None;
        self.sealed = None;
        self.begin()
    }

    /// Reads to the head and appends a record there. Given the same commit again it goes on with it.
    pub fn commit(&mut self, pending: Pending) -> Action {
        if self.pending != Some(pending) {
            self.sealed = None;
        }
        self.pending = Some(pending);
        self.begin()
    }

    /// An event that does not answer the last action changes nothing but starts the reading again.
    pub fn step(&mut self, event: Event) -> Action {
        match (std::mem::replace(&mut self.state, State::Idle), event) {
            (State::Reading { from, unconfirmed }, Event::Log(slots)) => {
                self.check_floors(Unproven::Read { from, slots, unconfirmed })
            }
            (State::Floors(unproven), Event::Floor(Some(bytes))) => self.raise_floor(&bytes, unproven),
            (State::Floors(Unproven::Read { from, slots, unconfirmed }), Event::Floor(None)) => {
                self.take(from, slots, unconfirmed)
            }
            (State::Floors(Unproven::Created), Event::Floor(None)) => self.take_created(),
            (State::Absorbing { queue, more, absorbed }, Event::Absorbed { disjoint }) => {
                self.absorbed(queue, more, absorbed, disjoint)
            }
            (State::Sealing, Event::Sealed(bytes)) => {
                self.sealed = Some((self.start.head, bytes.clone()));
                self.create(bytes)
            }
            (State::Creating, Event::Created(CreateOutcome::New)) => self.check_floors(Unproven::Created),
            (State::Creating, Event::Created(CreateOutcome::Exists | CreateOutcome::Unknown)) => {
                // The reply was lost, or told the loser's news to the winner: what stands there decides.
                let from = self.next();
                self.state = State::Reading { from, unconfirmed: true };
                Action::ReadLog { from, count: 1 }
            }
            (State::Manifest, Event::Manifest(bytes)) => self.read_manifest(bytes),
            (State::Loading(manifest), Event::Loaded { disjoint }) => self.loaded(&manifest, disjoint),
            (State::Loading(_), Event::Disagreed { seq }) => self.halt(Halt::Fork { seq }),
            (State::Halted(halt), _) => self.halt(halt),
            (
                State::Idle
                | State::Reading { .. }
                | State::Floors(_)
                | State::Absorbing { .. }
                | State::Sealing
                | State::Creating
                | State::Manifest
                | State::Loading(_)
                | State::Waiting,
                _,
            ) => self.survey(),
        }
    }

    fn next(&self) -> Seq {
        Seq(self.start.head.seq.0.saturating_add(1))
    }

    fn next_floor(&self) -> u64 {
        self.start.floor.as_ref().map_or(0, |floor| floor.number).saturating_add(1)
    }

    /// What the log has below this means nothing.
    fn trimmed_below(&self) -> Seq {
        self.start.floor.as_ref().map_or(Seq(0), |floor| floor.seq)
    }

    fn begin(&mut self) -> Action {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Halted(halt) => self.halt(halt),
            _ => self.survey(),
        }
    }

    /// The head itself is read again: a store that went back to an older state would else take a record behind a gap.
    fn survey(&mut self) -> Action {
        let (from, known) = match self.start.head.seq {
            Seq(0) => (Seq(1), 0),
            head => (head, 1),
        };
        self.state = State::Reading { from, unconfirmed: false };
        Action::ReadLog { from, count: self.ahead + known }
    }

    fn check_floors(&mut self, unproven: Unproven) -> Action {
        self.state = State::Floors(unproven);
        Action::ReadFloor(self.next_floor())
    }

    fn raise_floor(&mut self, bytes: &[u8], unproven: Unproven) -> Action {
        let n = self.next_floor();
        // A floor only rises.
        match Floor::open(n, bytes, &self.roots) {
            Ok(floor) if floor.seq >= self.trimmed_below() => {
                self.start.floor = Some(floor);
                self.check_floors(unproven)
            }
            _ => self.wait(Waiting::DamagedFloor(n)),
        }
    }

    /// All floors are read: what was read before them holds, if it is not below.
    fn take(&mut self, from: Seq, slots: Vec<Option<Bytes>>, unconfirmed: bool) -> Action {
        let (head, trimmed_below) = (self.start.head, self.trimmed_below());
        if trimmed_below > self.next() {
            return self.jump();
        }
        let mut slots = (from.0..).map(Seq).zip(slots).peekable();
        if let Some((_, known)) = slots.next_if(|(seq, _)| *seq == head.seq)
            && trimmed_below <= head.seq
        {
            match known {
                Some(bytes) if object_hash(&bytes) == head.hash => {}
                // Only who has the key can write another history; a bit that fell over is no reason for an alarm.
                Some(bytes) if Record::open(head.seq, &bytes, &self.roots).is_err() => {
                    return self.wait(Waiting::DamagedRecord(head.seq));
                }
                Some(_) => return self.halt(Halt::Fork { seq: head.seq }),
                None => return self.wait(Waiting::Stale { known: self.start.remembered.seq }),
            }
        }
        let mut queue = VecDeque::new();
        while let Some((seq, Some(bytes))) = slots.next_if(|(_, slot)| slot.is_some()) {
            queue.push_back((seq, bytes));
        }
        let reached_end = slots.peek().is_some();
        let gap = slots.any(|(_, slot)| slot.is_some());
        if unconfirmed && queue.is_empty() {
            return self.wait(Waiting::Unconfirmed(self.next()));
        }
        if gap && queue.is_empty() {
            self.gaps += 1;
            return if self.gaps > 1 { self.wait(Waiting::Gap(self.next())) } else { self.survey() };
        }
        self.gaps = 0;
        self.ahead = match (reached_end, gap) {
            (true, false) => 1,
            // As far again, to see whether what was beyond the gap is still there.
            (true, true) => self.ahead,
            (false, _) => (self.ahead * 2).min(READ_AHEAD),
        };
        self.absorb_next(queue, !reached_end || gap)
    }

    fn absorb_next(&mut self, mut queue: VecDeque<(Seq, Bytes)>, more: bool) -> Action {
        let Some((seq, bytes)) = queue.pop_front() else {
            return if more { self.survey() } else { self.at_head() };
        };
        let Ok(record) = Record::open(seq, &bytes, &self.roots) else {
            return self.wait(Waiting::DamagedRecord(seq));
        };
        let head = Head { seq, hash: object_hash(&bytes) };
        let (before, remembered) = (self.start.head, self.start.remembered);
        if record.prev != before.hash {
            return self.halt(Halt::Fork { seq: before.seq });
        }
        let known = [Some(remembered), self.start.anchor];
        if known.iter().flatten().any(|known| seq == known.seq && head.hash != known.hash) {
            return self.halt(Halt::Fork { seq });
        }
        if record.epoch != self.start.epoch {
            return self.wait(Waiting::EndedEpoch(seq));
        }
        match self.origin(&record, head) {
            Some(origin) => {
                let epoch = record.epoch_after();
                self.state = State::Absorbing { queue, more, absorbed: Absorbed { head, epoch, origin } };
                Action::Absorb(Box::new(Absorb { record: Arc::new(record), head, bytes, origin }))
            }
            None => self.halt(Halt::Twin { seq }),
        }
    }

    /// None: it was written under our number, and not by us.
    fn origin(&self, record: &Record, head: Head) -> Option<Origin> {
        if let Some(pending) = &self.pending
            && record.incarnation == pending.incarnation
        {
            let same = record.high_water == pending.high_water && record.high_water_hash == pending.high_water_hash;
            let covered = pending.replayed && (same || record.high_water > pending.high_water);
            if covered || same && record.commit_id == pending.commit_id {
                return Some(Origin::Own);
            }
        }
        // What is below the remembered head was looked at when it was new.
        let looked_at = record.seq <= self.start.remembered.seq;
        let ours = self.start.attempts.contains(&head);
        (record.slot != self.start.slot || ours || looked_at).then_some(Origin::Foreign)
    }

    fn absorbed(&mut self, queue: VecDeque<(Seq, Bytes)>, more: bool, absorbed: Absorbed, disjoint: bool) -> Action {
        let Absorbed { head, epoch, origin } = absorbed;
        self.advance(head, epoch);
        match origin {
            Origin::Own => self.committed(),
            Origin::Foreign if self.pending.is_some() && !disjoint => self.halt(Halt::Conflict { seq: head.seq }),
            Origin::Foreign => self.absorb_next(queue, more),
        }
    }

    fn advance(&mut self, head: Head, epoch: Epoch) {
        self.start.head = head;
        self.start.epoch = epoch;
        if head.seq > self.start.remembered.seq {
            self.start.remembered = head;
        }
    }

    fn at_head(&mut self) -> Action {
        let head = self.start.head;
        let known = self.start.anchor.map_or(Seq(0), |anchor| anchor.seq).max(self.start.remembered.seq);
        if head.seq < known {
            return self.wait(Waiting::Stale { known });
        }
        match (&self.pending, &self.sealed) {
            (None, _) => Action::Finished(Finished::AtHead(head)),
            // The same bytes again: if an earlier create is still under way, it makes no difference which lands.
            (Some(_), Some((before, bytes))) if *before == head => {
                let bytes = bytes.clone();
                self.create(bytes)
            }
            (Some(_), _) => {
                self.state = State::Sealing;
                Action::Seal { epoch: self.start.epoch, seq: self.next(), prev: head.hash }
            }
        }
    }

    fn create(&mut self, bytes: Bytes) -> Action {
        self.state = State::Creating;
        Action::Create { seq: self.next(), bytes }
    }

    /// The create was answered as new, and the floors are read.
    fn take_created(&mut self) -> Action {
        let seq = self.next();
        if self.trimmed_below() > seq {
            // Before the trim, and the checkpoint has it; or after it, and it never counted. The checkpoint tells.
            return self.jump();
        }
        let Some((_, bytes)) = &self.sealed else { return self.survey() };
        // Told as new only to us, or so the store says; it is absorbed like any other, from the bytes we sent.
        self.absorb_next(VecDeque::from([(seq, bytes.clone())]), false)
    }

    fn committed(&mut self) -> Action {
        self.pending = None;
        self.sealed = None;
        Action::Finished(Finished::Committed(self.start.head))
    }

    fn jump(&mut self) -> Action {
        let Some(floor) = &self.start.floor else { return self.survey() };
        self.state = State::Manifest;
        Action::ReadManifest(floor.checkpoint)
    }

    fn read_manifest(&mut self, bytes: Option<Bytes>) -> Action {
        let Some(floor) = &self.start.floor else { return self.survey() };
        let seq = floor.checkpoint;
        let Some(bytes) = bytes else { return self.wait(Waiting::MissingCheckpoint(seq)) };
        if object_hash(&bytes) != floor.checkpoint_hash {
            return self.wait(Waiting::DamagedCheckpoint(seq));
        }
        let Ok(manifest) = Manifest::open(seq, &bytes, &self.roots) else {
            return self.wait(Waiting::DamagedCheckpoint(seq));
        };
        if manifest.epoch < self.roots.epoch() {
            return self.wait(Waiting::DamagedCheckpoint(seq));
        }
        let known = [Some(self.start.head), Some(self.start.remembered), self.start.anchor];
        let known_at = |seq| known.iter().flatten().find(|known| known.seq == seq).map(|known| known.hash);
        if let Some(seq) = first_disagreement(&manifest, known_at) {
            return self.halt(Halt::Fork { seq });
        }
        let manifest = Box::new(manifest);
        self.state = State::Loading(manifest.clone());
        Action::Load(manifest)
    }

    fn loaded(&mut self, manifest: &Manifest, disjoint: bool) -> Action {
        self.advance(Head { seq: manifest.seq, hash: manifest.head }, manifest.epoch);
        self.sealed = None;
        let Some(pending) = &self.pending else { return self.survey() };
        match manifest.high_water.iter().find(|entry| entry.incarnation == pending.incarnation) {
            Some(entry) if entry.intent == pending.high_water && entry.hash == pending.high_water_hash => {
                self.committed()
            }
            Some(entry) if entry.intent > pending.high_water && pending.replayed => self.committed(),
            Some(entry) if entry.intent >= pending.high_water => self.halt(Halt::Twin { seq: manifest.seq }),
            _ if disjoint => self.survey(),
            _ => self.halt(Halt::Conflict { seq: manifest.seq }),
        }
    }

    fn wait(&mut self, waiting: Waiting) -> Action {
        self.state = State::Waiting;
        Action::Wait(waiting)
    }

    fn halt(&mut self, halt: Halt) -> Action {
        self.state = State::Halted(halt.clone());
        Action::Halt(halt)
    }
}
