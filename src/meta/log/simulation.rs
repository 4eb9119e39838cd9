//! Several devices on one store that loses, delays and misreports creates, while checkpoints are written and the log
//! is trimmed beneath everybody. Every step of every device is interleaved by a seed.
//!
//! What must hold: each commit is in the history exactly once, and all devices end with one history.

use super::*;
use crate::base::{Epoch, SystemEntropy, Timestamp, VolumeId};
use crate::crypto::Key;
use crate::disk::Random;
use crate::format::HighWater;
use std::collections::BTreeMap;

const DEVICES: usize = 3;
const COMMITS: u64 = 6;

/// What a replica would hold: the commits in order, and the head.
#[derive(Clone, Default, PartialEq, Debug)]
struct Replica {
    applied: Vec<[u8; 16]>,
    heads: Vec<(Seq, Hash)>,
    high_water: BTreeMap<Incarnation, HighWater>,
}

struct Device {
    machine: LogMachine,
    action: Option<Action>,
    replica: Replica,
    pending: Option<Pending>,
    done: u64,
    run: Incarnation,
}

#[derive(Default)]
struct Sea {
    log: BTreeMap<Seq, Bytes>,
    floors: Vec<Bytes>,
    manifests: BTreeMap<Seq, (Bytes, Replica)>,
    trimmed_below: Seq,
    /// Creates that may still arrive.
    late: Vec<(Seq, Bytes)>,
}

fn roots() -> Roots {
    Roots::new(VolumeId([7; 16]), Epoch(0), Key::from_bytes([9; 32]))
}

fn start(slot: usize) -> LogMachine {
    let start = Start {
        head: Head::EMPTY,
        epoch: Epoch(0),
        anchor: None,
        remembered: Head::EMPTY,
        floor: None,
        slot: DeviceSlot(slot as u16 + 1),
        attempts: vec![],
    };
    LogMachine::new(roots(), start)
}

impl Device {
    fn new(slot: usize) -> Self {
        let run = Incarnation([slot as u8 + 1; 16]);
        Self { machine: start(slot), action: None, replica: Replica::default(), pending: None, done: 0, run }
    }

    fn begin(&mut self) {
        if self.done == COMMITS {
            self.action = Some(self.machine.follow());
            return;
        }
        let number = self.done + 1;
        let mut commit_id = self.run.0;
        commit_id[15] = number as u8;
        let (high_water, high_water_hash) = (IntentNo(number * 10), Hash(self.hash(number)));
        let pending = Pending { commit_id, incarnation: self.run, high_water, high_water_hash, replayed: false };
        self.pending = Some(pending);
        self.action = Some(self.machine.commit(pending));
    }

    fn hash(&self, number: u64) -> [u8; 32] {
        [self.run.0[0] * 16 + number as u8; 32]
    }

    /// Does what its machine asks; false once it rests.
    fn step(&mut self, sea: &mut Sea, random: &mut Random) {
        let Some(action) = self.action.take() else { return self.begin() };
        let event = match action {
            Action::ReadLog { from, count } => {
                Event::Log((from.0..from.0 + u64::from(count)).map(|seq| sea.log.get(&Seq(seq)).cloned()).collect())
            }
            Action::ReadFloor(number) => Event::Floor(sea.floors.get(number as usize - 1).cloned()),
            Action::ReadManifest(seq) => Event::Manifest(sea.manifests.get(&seq).map(|(bytes, _)| bytes.clone())),
            Action::Seal { seq, prev, .. } => Event::Sealed(self.seal(seq, prev)),
            Action::Create { seq, bytes } => Event::Created(sea.create(seq, bytes, random)),
            Action::Absorb(absorb) => {
                self.replica.apply(&absorb);
                Event::Absorbed { disjoint: true }
            }
            Action::Load(manifest) => {
                let known = |seq| self.replica.heads.iter().find(|head| head.0 == seq).map(|head| head.1);
                assert_eq!(first_disagreement(&manifest, known), None);
                self.replica = sea.manifests[&manifest.seq].1.clone();
                Event::Loaded { disjoint: true }
            }
            Action::Wait(Waiting::Unconfirmed(_)) => Event::Waited,
            Action::Wait(waiting) => panic!("an honest store makes nobody wait: {waiting}"),
            Action::Finished(finished) => {
                if matches!(finished, Finished::Committed(_)) {
                    self.done += 1;
                    self.pending = None;
                } else {
                    sea.checkpoint(self, random);
                }
                return;
            }
            Action::Halt(halt) => panic!("an honest store halts nobody: {halt}"),
        };
        self.action = Some(self.machine.step(event));
    }

    fn seal(&self, seq: Seq, prev: Hash) -> Bytes {
        let pending = self.pending.unwrap();
        let record = Record {
            epoch: Epoch(0),
            seq,
            prev,
            commit_id: pending.commit_id,
            slot: DeviceSlot(u16::from(self.run.0[0])),
            incarnation: pending.incarnation,
            high_water: pending.high_water,
            high_water_hash: pending.high_water_hash,
            time: Timestamp::default(),
            rows: vec![],
            next: None,
        };
        record.seal(&roots(), &SystemEntropy).unwrap().into()
    }
}

impl Replica {
    fn apply(&mut self, absorb: &Absorb) {
        let record = &absorb.record;
        let entry =
            HighWater { incarnation: record.incarnation, intent: record.high_water, hash: record.high_water_hash };
        self.applied.push(record.commit_id);
        self.heads.push((absorb.head.seq, absorb.head.hash));
        self.high_water.insert(record.incarnation, entry);
    }
}

impl Sea {
    fn create(&mut self, seq: Seq, bytes: Bytes, random: &mut Random) -> CreateOutcome {
        match random.below(8) {
            0 => return CreateOutcome::Unknown,
            1 => {
                self.late.push((seq, bytes));
                return CreateOutcome::Unknown;
            }
            2 => {
                self.land(seq, bytes);
                return CreateOutcome::Unknown;
            }
            3 => {
                self.land(seq, bytes);
                return CreateOutcome::Exists;
            }
            _ => {}
        }
        if self.land(seq, bytes) { CreateOutcome::New } else { CreateOutcome::Exists }
    }

    fn land(&mut self, seq: Seq, bytes: Bytes) -> bool {
        let free = !self.log.contains_key(&seq);
        if free {
            self.log.insert(seq, bytes);
        }
        free
    }

    fn something_late_arrives(&mut self, random: &mut Random) {
        if !self.late.is_empty() {
            let (seq, bytes) = self.late.swap_remove(random.below(self.late.len() as u64) as usize);
            self.land(seq, bytes);
        }
    }

    /// By a device that stands at the head; then everything below goes, at once or not at all.
    fn checkpoint(&mut self, device: &Device, random: &mut Random) {
        let head = device.machine.head();
        let floor = Seq(head.seq.0 + 1);
        if head.seq == Seq(0) || self.manifests.contains_key(&head.seq) || floor <= self.trimmed_below {
            return;
        }
        if device.machine.floor().map_or(0, |floor| floor.number) != self.floors.len() as u64 {
            return;
        }
        let mut past: Vec<_> = device.replica.heads.iter().copied().filter(|(seq, _)| *seq < head.seq).collect();
        thin_past(head.seq, &mut past);
        let high_water = device.replica.high_water.values().copied().collect();
        let manifest = Manifest { epoch: Epoch(0), seq: head.seq, head: head.hash, segments: vec![], high_water, past };
        let bytes: Bytes = manifest.seal(&roots(), &SystemEntropy).unwrap().into();
        let checkpoint_hash = object_hash(&bytes);
        self.manifests.insert(head.seq, (bytes, device.replica.clone()));
        if random.below(2) == 0 {
            return;
        }
        let number = self.floors.len() as u64 + 1;
        let raised = Floor { epoch: Epoch(0), number, seq: floor, checkpoint: head.seq, checkpoint_hash };
        self.floors.push(raised.seal(&roots(), &SystemEntropy).unwrap().into());
        self.trimmed_below = floor;
        self.log.retain(|seq, _| *seq >= floor);
    }
}

fn simulate(seed: u64) {
    let mut random = Random::new(seed);
    let mut sea = Sea::default();
    let mut devices: Vec<_> = (0..DEVICES).map(Device::new).collect();
    for _ in 0..100_000 {
        let resting = devices.iter().all(|device| device.done == COMMITS && device.action.is_none());
        if resting && sea.late.is_empty() {
            break;
        }
        match random.below(20) {
            0 => sea.something_late_arrives(&mut random),
            1 => {
                // A restful device looks what is new, and trims.
                let idle = devices.iter_mut().find(|device| device.action.is_none() && device.pending.is_none());
                if let Some(device) = idle {
                    device.action = Some(device.machine.follow());
                }
            }
            _ => {
                let index = random.below(DEVICES as u64) as usize;
                if devices[index].done < COMMITS || devices[index].action.is_some() {
                    devices[index].step(&mut sea, &mut random);
                }
            }
        }
    }
    for device in &mut devices {
        assert_eq!(device.done, COMMITS, "seed {seed}: everybody gets their turn");
        device.action = Some(device.machine.follow());
        while device.action.is_some() {
            // Nothing is created any more.
            device.step(&mut sea, &mut random);
        }
    }
    let mut applied = devices[0].replica.applied.clone();
    for device in &devices {
        assert_eq!(device.replica.applied, applied, "seed {seed}: one history");
        assert_eq!(device.machine.head(), devices[0].machine.head(), "seed {seed}");
    }
    applied.sort_unstable();
    let count = applied.len();
    applied.dedup();
    assert_eq!((applied.len(), count), (DEVICES * COMMITS as usize, applied.len()), "seed {seed}: each once");
}

#[test]
fn every_commit_is_in_the_one_history_exactly_once() {
    for seed in 0..400 {
        simulate(seed);
    }
}
