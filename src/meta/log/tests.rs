//! Each rule of following and committing by itself. `simulation.rs` runs them all against one another.

use super::*;
use crate::base::{Epoch, SystemEntropy, Timestamp, VolumeId};
use crate::crypto::Key;
use crate::format::HighWater;
use std::collections::BTreeMap;

const ME: DeviceSlot = DeviceSlot(1);
const OTHER: DeviceSlot = DeviceSlot(2);
const MY_RUN: Incarnation = Incarnation([1; 16]);
const OTHER_RUN: Incarnation = Incarnation([2; 16]);

fn roots() -> Roots {
    Roots::new(VolumeId([7; 16]), Epoch(0), Key::from_bytes([9; 32]))
}

/// A store's log, floors and checkpoints, and how it answers creates.
#[derive(Clone, Default)]
struct World {
    log: BTreeMap<Seq, Bytes>,
    floors: Vec<Bytes>,
    manifests: BTreeMap<Seq, Bytes>,
    /// For the next creates; then they are honest.
    creates: VecDeque<Answer>,
    created: Vec<(Seq, Bytes)>,
    absorbed: Vec<Seq>,
    /// What the ground says of foreign records.
    touched: bool,
}

#[derive(Clone, Copy)]
enum Answer {
    Lost,
    AppliedAndLost,
    ToldExists,
    /// Somebody else's record gets there first.
    Beaten,
    /// The log is trimmed before it arrives; the checkpoint has so many records more than we know.
    Trimmed(u64),
    /// It arrives, and then the log is trimmed.
    AppliedThenTrimmed,
}

enum End {
    Finished(Finished),
    Waiting(Waiting),
    Halted(Halt),
}

impl World {
    fn with_records(count: u64) -> (Self, Vec<Head>) {
        let mut world = Self::default();
        let mut heads = vec![Head::EMPTY];
        for seq in 1..=count {
            heads.push(world.append(heads[seq as usize - 1], OTHER, OTHER_RUN, seq));
        }
        (world, heads)
    }

    /// Another history with the same past up to `from`.
    fn fork(&self, heads: &[Head], from: u64) -> (Self, Vec<Head>) {
        let mut fork =
            Self { log: self.log.range(..=Seq(from)).map(|(k, v)| (*k, v.clone())).collect(), ..Self::default() };
        let mut theirs = heads[..=from as usize].to_vec();
        for seq in from + 1..heads.len() as u64 {
            theirs.push(fork.append(theirs[seq as usize - 1], OTHER, Incarnation([3; 16]), 1000 + seq));
        }
        (fork, theirs)
    }

    fn append(&mut self, prev: Head, slot: DeviceSlot, incarnation: Incarnation, high_water: u64) -> Head {
        let seq = Seq(prev.seq.0 + 1);
        let bytes = record(seq, prev.hash, slot, incarnation, high_water, high_water as u8);
        let head = Head { seq, hash: object_hash(&bytes) };
        self.log.insert(seq, bytes);
        head
    }

    /// A checkpoint at this head, and a floor that trims all up to it.
    fn trim(&mut self, head: Head, past: &[Head], high_water: Vec<HighWater>) {
        let past =
            past.iter().filter(|past| past.seq < head.seq && past.seq > Seq(0)).map(|past| (past.seq, past.hash));
        let manifest = Manifest {
            epoch: Epoch(0),
            seq: head.seq,
            head: head.hash,
            segments: vec![],
            high_water,
            past: past.collect(),
        };
        let manifest = manifest.seal(&roots(), &SystemEntropy).unwrap();
        let floor = Floor {
            epoch: Epoch(0),
            number: self.floors.len() as u64 + 1,
            seq: Seq(head.seq.0 + 1),
            checkpoint: head.seq,
            checkpoint_hash: object_hash(&manifest),
        };
        self.manifests.insert(head.seq, manifest.into());
        self.floors.push(floor.seal(&roots(), &SystemEntropy).unwrap().into());
        self.log.retain(|seq, _| *seq > head.seq);
    }

    /// Until it ends or wants to wait.
    fn run(&mut self, machine: &mut LogMachine, first: Action) -> End {
        let mut action = first;
        for _ in 0..10_000 {
            let event = match action {
                Action::ReadLog { from, count } => {
                    assert!(count <= READ_AHEAD + 1);
                    Event::Log(
                        (from.0..from.0 + u64::from(count)).map(|seq| self.log.get(&Seq(seq)).cloned()).collect(),
                    )
                }
                Action::ReadFloor(number) => Event::Floor(self.floors.get(number as usize - 1).cloned()),
                Action::ReadManifest(seq) => Event::Manifest(self.manifests.get(&seq).cloned()),
                Action::Seal { seq, prev, .. } => Event::Sealed(record(seq, prev, ME, MY_RUN, 5, 5)),
                Action::Create { seq, bytes } => Event::Created(self.create(machine, seq, bytes)),
                Action::Absorb(absorb) => {
                    self.absorbed.push(absorb.head.seq);
                    Event::Absorbed { disjoint: !self.touched }
                }
                Action::Load(_) => Event::Loaded { disjoint: !self.touched },
                Action::Wait(waiting) => return End::Waiting(waiting),
                Action::Finished(finished) => return End::Finished(finished),
                Action::Halt(halt) => return End::Halted(halt),
            };
            action = machine.step(event);
        }
        panic!("it never ends");
    }

    fn create(&mut self, machine: &LogMachine, seq: Seq, bytes: Bytes) -> CreateOutcome {
        self.created.push((seq, bytes.clone()));
        let head = machine.head();
        match self.creates.pop_front() {
            Some(Answer::Lost) => return CreateOutcome::Unknown,
            Some(Answer::AppliedAndLost) => {
                self.put(seq, bytes);
                return CreateOutcome::Unknown;
            }
            Some(Answer::ToldExists) => {
                self.put(seq, bytes);
                return CreateOutcome::Exists;
            }
            Some(Answer::Beaten) => {
                self.append(head, OTHER, OTHER_RUN, 77);
            }
            Some(Answer::Trimmed(further)) => {
                let mut newest = head;
                for further in 0..further {
                    newest = self.append(newest, OTHER, OTHER_RUN, 80 + further);
                }
                self.trim(newest, &[head], vec![]);
            }
            Some(Answer::AppliedThenTrimmed) => {
                let ours = Head { seq, hash: object_hash(&bytes) };
                self.put(seq, bytes);
                let newest = self.append(ours, OTHER, OTHER_RUN, 80);
                let entry = HighWater { incarnation: MY_RUN, intent: IntentNo(5), hash: Hash([5; 32]) };
                self.trim(newest, &[head, ours], vec![entry]);
                return CreateOutcome::New;
            }
            None => {}
        }
        if self.log.contains_key(&seq) {
            return CreateOutcome::Exists;
        }
        self.put(seq, bytes);
        CreateOutcome::New
    }

    fn put(&mut self, seq: Seq, bytes: Bytes) {
        assert!(self.log.insert(seq, bytes).is_none(), "written over");
    }
}

fn record(seq: Seq, prev: Hash, slot: DeviceSlot, incarnation: Incarnation, high_water: u64, hash: u8) -> Bytes {
    let commit_id = if incarnation == MY_RUN && hash == 5 { pending().commit_id } else { [seq.0 as u8; 16] };
    record_of(seq, prev, slot, incarnation, high_water, hash, commit_id)
}

fn record_of(
    seq: Seq,
    prev: Hash,
    slot: DeviceSlot,
    incarnation: Incarnation,
    high_water: u64,
    hash: u8,
    commit_id: [u8; 16],
) -> Bytes {
    let record = Record {
        epoch: Epoch(0),
        seq,
        prev,
        commit_id,
        slot,
        incarnation,
        high_water: IntentNo(high_water),
        high_water_hash: Hash([hash; 32]),
        time: Timestamp::default(),
        rows: vec![],
        next: None,
    };
    record.seal(&roots(), &SystemEntropy).unwrap().into()
}

fn pending() -> Pending {
    Pending {
        commit_id: [0xaa; 16],
        incarnation: MY_RUN,
        high_water: IntentNo(5),
        high_water_hash: Hash([5; 32]),
        replayed: false,
    }
}

fn machine(head: Head, remembered: Head) -> LogMachine {
    machine_that_tried(head, remembered, vec![])
}

fn machine_that_tried(head: Head, remembered: Head, attempts: Vec<Head>) -> LogMachine {
    LogMachine::new(roots(), Start { head, epoch: Epoch(0), anchor: None, remembered, floor: None, slot: ME, attempts })
}

fn fresh() -> LogMachine {
    machine(Head::EMPTY, Head::EMPTY)
}

#[track_caller]
fn committed(end: End) -> Head {
    match end {
        End::Finished(Finished::Committed(head)) => head,
        End::Finished(Finished::AtHead(head)) => panic!("only at head {head:?}"),
        End::Waiting(waiting) => panic!("waits: {waiting}"),
        End::Halted(halt) => panic!("halted: {halt}"),
    }
}

#[track_caller]
fn at_head(end: End) -> Head {
    match end {
        End::Finished(Finished::AtHead(head)) => head,
        End::Finished(Finished::Committed(head)) => panic!("committed {head:?}"),
        End::Waiting(waiting) => panic!("waits: {waiting}"),
        End::Halted(halt) => panic!("halted: {halt}"),
    }
}

#[track_caller]
fn waits(end: End) -> Waiting {
    match end {
        End::Waiting(waiting) => waiting,
        End::Finished(finished) => panic!("{finished:?}"),
        End::Halted(halt) => panic!("halted: {halt}"),
    }
}

#[track_caller]
fn halts(end: End) -> Halt {
    match end {
        End::Halted(halt) => halt,
        End::Finished(finished) => panic!("{finished:?}"),
        End::Waiting(waiting) => panic!("waits: {waiting}"),
    }
}

fn follow(world: &mut World, machine: &mut LogMachine) -> End {
    let first = machine.follow();
    world.run(machine, first)
}

fn commit(world: &mut World, machine: &mut LogMachine) -> End {
    let first = machine.commit(pending());
    world.run(machine, first)
}

fn go_on(world: &mut World, machine: &mut LogMachine) -> End {
    let next = machine.step(Event::Waited);
    world.run(machine, next)
}

#[test]
fn a_new_device_sees_a_record_behind_a_gap_and_takes_none_of_the_places_before_it() {
    let (mut world, _) = World::with_records(5);
    world.log.remove(&Seq(3));
    world.log.remove(&Seq(4));
    let mut machine = fresh();
    let first = machine.commit(pending());
    assert!(matches!(world.run(&mut machine, first), End::Waiting(Waiting::Gap(Seq(3)))));
    assert_eq!(world.log.len(), 3);
}

#[test]
fn following_takes_every_record_once_and_in_order() {
    for count in [0, 1, 2, 3, 31, 32, 33, 200] {
        let (mut world, heads) = World::with_records(count);
        let mut machine = fresh();
        assert_eq!(at_head(follow(&mut world, &mut machine)), heads[count as usize]);
        assert_eq!(world.absorbed, (1..=count).map(Seq).collect::<Vec<_>>());
        assert_eq!(machine.remembered(), heads[count as usize]);
    }
}

#[test]
fn a_commit_goes_behind_all_that_is_there() {
    let (mut world, _) = World::with_records(40);
    let mut machine = fresh();
    let head = committed(commit(&mut world, &mut machine));
    assert_eq!(head.seq, Seq(41));
    assert_eq!(object_hash(&world.log[&Seq(41)]), head.hash);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_lost_race_is_absorbed_and_the_next_place_taken() {
    let (mut world, heads) = World::with_records(3);
    world.creates = [Answer::Beaten, Answer::Beaten].into();
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(committed(commit(&mut world, &mut machine)).seq, Seq(6));
    assert_eq!(world.absorbed, [Seq(4), Seq(5), Seq(6)]);
    let ours = Record::open(Seq(6), &world.log[&Seq(6)], &roots()).unwrap();
    assert_eq!(ours.prev, object_hash(&world.log[&Seq(5)]));
}

#[test]
fn a_create_that_landed_unheard_is_found_and_not_done_again() {
    for answer in [Answer::AppliedAndLost, Answer::ToldExists] {
        let (mut world, heads) = World::with_records(2);
        world.creates = [answer].into();
        let mut machine = machine(heads[2], heads[2]);
        assert_eq!(committed(commit(&mut world, &mut machine)).seq, Seq(3));
        assert_eq!((world.created.len(), world.log.len()), (1, 3));
    }
}

#[test]
fn a_create_that_may_still_land_is_repeated_with_the_same_bytes() {
    let (mut world, heads) = World::with_records(2);
    world.creates = [Answer::Lost, Answer::Lost].into();
    let mut machine = machine(heads[2], heads[2]);
    assert_eq!(waits(commit(&mut world, &mut machine)), Waiting::Unconfirmed(Seq(3)));
    assert_eq!(waits(go_on(&mut world, &mut machine)), Waiting::Unconfirmed(Seq(3)));
    // The first one arrives after all.
    world.put(Seq(3), world.created[0].1.clone());
    assert_eq!(committed(go_on(&mut world, &mut machine)).seq, Seq(3));
    assert!(world.created.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_commit_that_is_asked_for_again_has_the_same_bytes_and_another_one_has_its_own() {
    let (mut world, heads) = World::with_records(2);
    world.creates = [Answer::Lost, Answer::Lost, Answer::Lost].into();
    let mut machine = machine(heads[2], heads[2]);
    for commit_id in [pending().commit_id, pending().commit_id, [0xbb; 16]] {
        let first = machine.commit(Pending { commit_id, ..pending() });
        assert_eq!(waits(world.run(&mut machine, first)), Waiting::Unconfirmed(Seq(3)));
    }
    assert_eq!(world.created[0], world.created[1]);
    assert_ne!(world.created[1], world.created[2]);
}

#[test]
fn a_gap_that_the_next_read_does_not_show_is_none() {
    let (mut world, heads) = World::with_records(5);
    let later = world.log.remove(&Seq(3)).unwrap();
    let mut machine = fresh();
    let end = follow(&mut world, &mut machine);
    assert_eq!(waits(end), Waiting::Gap(Seq(3)));
    assert_eq!(waits(go_on(&mut world, &mut machine)), Waiting::Gap(Seq(3)), "for as long as it is there");
    // Once it was filled, another one is read twice, too.
    world.put(Seq(3), later);
    assert_eq!(at_head(go_on(&mut world, &mut machine)), heads[5]);
    let Action::ReadLog { from, count } = machine.follow() else { panic!("it does not read") };
    let last = world.append(heads[5], OTHER, OTHER_RUN, 6);
    let torn =
        (from.0..from.0 + u64::from(count) + 1).map(|seq| world.log.get(&Seq(seq)).filter(|_| seq != 6).cloned());
    let torn = [torn.collect::<Vec<_>>(), vec![Some(Bytes::new())]].concat();
    assert!(matches!(machine.step(Event::Log(torn)), Action::ReadFloor(1)));
    let again = machine.step(Event::Floor(None));
    assert!(matches!(again, Action::ReadLog { .. }), "{again:?}");
    assert_eq!(at_head(world.run(&mut machine, again)), last);
}

#[test]
fn an_unclear_create_that_another_device_beat_is_made_anew_behind_it() {
    let (mut world, heads) = World::with_records(2);
    world.creates = [Answer::Lost].into();
    let mut machine = machine(heads[2], heads[2]);
    waits(commit(&mut world, &mut machine));
    world.append(heads[2], OTHER, OTHER_RUN, 9);
    assert_eq!(committed(go_on(&mut world, &mut machine)).seq, Seq(4));
}

#[test]
fn a_create_below_a_raised_floor_means_nothing_though_the_store_took_it() {
    let (mut world, heads) = World::with_records(3);
    world.creates = [Answer::Trimmed(4)].into();
    let mut machine = machine(heads[3], heads[3]);
    let head = committed(commit(&mut world, &mut machine));
    assert_eq!(world.created[0].0, Seq(4), "the store took a create of a trimmed place");
    assert_eq!(head.seq, Seq(8), "the record stands behind the checkpoint");
    assert_eq!(machine.floor().map(|floor| floor.number), Some(1));
}

#[test]
fn a_create_that_a_checkpoint_already_holds_is_not_done_again() {
    let (mut world, heads) = World::with_records(3);
    world.creates = [Answer::AppliedThenTrimmed].into();
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(committed(commit(&mut world, &mut machine)).seq, Seq(5));
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_create_at_a_raised_floor_counts() {
    let (mut world, heads) = World::with_records(3);
    world.creates = [Answer::Trimmed(0)].into();
    world.touched = true;
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(committed(commit(&mut world, &mut machine)).seq, Seq(4));
    assert_eq!(machine.floor().map(|floor| floor.seq), Some(Seq(4)));
}

#[test]
fn what_a_checkpoint_says_of_our_run_tells_whether_it_has_what_is_pending() {
    enum Tells {
        Has,
        HasNot,
        IsATwins,
    }
    for (intent, hash, replayed, tells) in [
        (5, 5, false, Tells::Has),
        (5, 5, true, Tells::Has),
        (8, 8, true, Tells::Has),
        (4, 4, false, Tells::HasNot),
        (4, 4, true, Tells::HasNot),
        (4, 5, false, Tells::HasNot),
        (5, 6, false, Tells::IsATwins),
        (5, 6, true, Tells::IsATwins),
        (8, 8, false, Tells::IsATwins),
    ] {
        let (mut world, heads) = World::with_records(6);
        let entry = HighWater { incarnation: MY_RUN, intent: IntentNo(intent), hash: Hash([hash; 32]) };
        world.trim(heads[6], &heads, vec![entry]);
        let mut machine = machine(heads[3], heads[3]);
        let first = machine.commit(Pending { replayed, ..pending() });
        let end = world.run(&mut machine, first);
        match tells {
            Tells::Has => assert_eq!((committed(end), world.created.len()), (heads[6], 0)),
            Tells::HasNot => assert_eq!((committed(end).seq, world.created.len()), (Seq(7), 1)),
            Tells::IsATwins => assert_eq!(halts(end), Halt::Twin { seq: Seq(6) }),
        }
    }
}

#[test]
fn records_read_below_a_raised_floor_are_not_taken() {
    let (mut world, heads) = World::with_records(6);
    world.trim(heads[6], &heads, vec![]);
    // A stalled writer's create of an old place, with a valid predecessor.
    world.append(heads[3], OTHER, OTHER_RUN, 50);
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(at_head(follow(&mut world, &mut machine)), heads[6]);
    assert_eq!(world.absorbed, []);
}

#[test]
fn a_trimmed_head_that_somebody_wrote_over_is_no_fork() {
    let (mut world, heads) = World::with_records(4);
    world.trim(heads[4], &heads, vec![]);
    world.append(heads[3], OTHER, OTHER_RUN, 50);
    let mut machine = machine(heads[4], heads[4]);
    assert_eq!(at_head(follow(&mut world, &mut machine)), heads[4]);
}

#[test]
fn a_fork_is_found_wherever_it_begins_and_nothing_is_created() {
    let (world, heads) = World::with_records(6);
    for parted in 0..6 {
        let (fork, theirs) = world.fork(&heads, parted);
        for at in parted + 1..=6 {
            // With the whole replica, and while it is being rebuilt.
            for head in [at, parted, 0] {
                let mut fork = fork.clone();
                let mut machine = machine(heads[head as usize], heads[at as usize]);
                let halt = halts(commit(&mut fork, &mut machine));
                assert!(matches!(halt, Halt::Fork { seq } if seq.0 == at), "{halt:?}");
                assert_eq!(halts(follow(&mut fork, &mut machine)), halt, "it stays halted");
                assert_eq!(fork.created, []);
            }
        }
        assert_ne!(theirs, heads);
    }
}

#[test]
fn a_record_with_another_predecessor_is_a_fork() {
    let (mut world, heads) = World::with_records(3);
    let (_, theirs) = world.fork(&heads, 1);
    world.append(theirs[3], OTHER, OTHER_RUN, 9);
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(halts(commit(&mut world, &mut machine)), Halt::Fork { seq: Seq(3) });
    assert_eq!(world.created, []);
}

#[test]
fn an_older_state_of_the_store_is_waited_out() {
    let (world, heads) = World::with_records(5);
    for shown in 0..5 {
        for head in [5, shown] {
            let mut stale = World {
                log: world.log.range(..=Seq(shown)).map(|(k, v)| (*k, v.clone())).collect(),
                ..World::default()
            };
            let mut machine = machine(heads[head as usize], heads[5]);
            assert_eq!(waits(commit(&mut stale, &mut machine)), Waiting::Stale { known: Seq(5) });
            assert_eq!(waits(go_on(&mut stale, &mut machine)), Waiting::Stale { known: Seq(5) });
            assert_eq!(stale.created, []);
            stale.log = world.log.clone();
            assert_eq!(committed(go_on(&mut stale, &mut machine)).seq, Seq(6));
        }
    }
}

#[test]
fn a_jump_onto_another_history_is_refused() {
    let (world, heads) = World::with_records(6);
    let (mut fork, theirs) = world.fork(&heads, 2);
    fork.trim(theirs[6], &theirs, vec![]);
    for (head, remembered) in [(4, 4), (2, 4), (0, 4), (2, 6)] {
        let mut machine = machine(heads[head], heads[remembered]);
        assert!(matches!(halts(follow(&mut fork.clone(), &mut machine)), Halt::Fork { .. }), "{head} {remembered}");
    }
    let mut machine = machine(heads[2], heads[2]);
    assert_eq!(at_head(follow(&mut fork, &mut machine)), theirs[6]);
}

#[test]
fn a_checkpoint_that_is_not_the_floors_is_waited_out() {
    let (mut world, heads) = World::with_records(6);
    world.trim(heads[6], &heads, vec![]);
    let good = world.manifests.remove(&Seq(6)).unwrap();
    let mut machine = machine(heads[2], heads[2]);
    assert_eq!(waits(follow(&mut world, &mut machine)), Waiting::MissingCheckpoint(Seq(6)));
    // Sealed anew it is authentic, and still another one.
    let other = Manifest::open(Seq(6), &good, &roots()).unwrap().seal(&roots(), &SystemEntropy).unwrap();
    world.manifests.insert(Seq(6), other.into());
    assert_eq!(waits(go_on(&mut world, &mut machine)), Waiting::DamagedCheckpoint(Seq(6)));
    world.manifests.insert(Seq(6), good);
    assert_eq!(at_head(go_on(&mut world, &mut machine)), heads[6]);
}

#[test]
fn a_checkpoint_of_keys_that_a_rotation_ended_is_not_loaded() {
    let (mut world, heads) = World::with_records(6);
    world.trim(heads[6], &heads, vec![]);
    let newer = roots();
    assert!(newer.insert(Epoch(1), Key::from_bytes([8; 32])));
    newer.advance(Epoch(1)).unwrap();
    let (start, mut of_older) = (machine(heads[3], heads[3]).start, machine(heads[3], heads[3]));
    let mut machine = LogMachine::new(newer, start);
    assert_eq!(waits(follow(&mut world, &mut machine)), Waiting::DamagedCheckpoint(Seq(6)));
    assert_eq!(at_head(follow(&mut world, &mut of_older)), heads[6]);
}

#[test]
fn damage_is_waited_out_and_is_no_fork() {
    let (world, heads) = World::with_records(4);
    let bytes = world.log[&Seq(3)].clone();
    let flipped = |at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    for bad in
        [flipped(0), flipped(bytes.len() / 2), bytes.slice(..bytes.len() - 1), world.log[&Seq(2)].clone(), Bytes::new()]
    {
        let mut world = world.clone();
        world.log.insert(Seq(3), bad);
        let mut machine = fresh();
        assert_eq!(waits(commit(&mut world, &mut machine)), Waiting::DamagedRecord(Seq(3)));
        assert_eq!(machine.head(), heads[2]);
        assert_eq!(world.created, []);
        world.log.insert(Seq(3), bytes.clone());
        assert_eq!(committed(go_on(&mut world, &mut machine)).seq, Seq(5));
    }
}

#[test]
fn a_floor_that_cannot_be_read_is_not_passed() {
    let (mut world, heads) = World::with_records(4);
    world.trim(heads[2], &heads, vec![]);
    let good = std::mem::replace(&mut world.floors[0], Bytes::from_static(b"nonsense"));
    let mut machine = machine(heads[4], heads[4]);
    assert_eq!(waits(commit(&mut world, &mut machine)), Waiting::DamagedFloor(1));
    assert_eq!(world.created, []);
    world.floors[0] = good;
    assert_eq!(committed(go_on(&mut world, &mut machine)).seq, Seq(5));
}

#[test]
fn a_record_missing_in_the_middle_is_not_written_over() {
    let (mut world, heads) = World::with_records(40);
    world.log.remove(&Seq(20));
    let mut machine = machine(heads[10], heads[10]);
    assert_eq!(waits(commit(&mut world, &mut machine)), Waiting::Gap(Seq(20)));
    assert_eq!(world.created, []);
}

#[test]
fn what_touches_the_pending_rows_stops_the_commit_and_what_does_not_goes_by() {
    let (mut world, heads) = World::with_records(3);
    world.touched = true;
    let mut machine = machine(heads[2], heads[2]);
    assert_eq!(halts(commit(&mut world, &mut machine)), Halt::Conflict { seq: Seq(3) });
    assert_eq!((machine.head(), world.created.len()), (heads[3], 0));
    let mut fresh = fresh();
    assert_eq!(at_head(follow(&mut world, &mut fresh)), heads[3], "nothing is pending, so nothing is touched");
}

#[test]
fn what_a_jump_may_have_changed_stops_the_commit() {
    let (mut world, heads) = World::with_records(6);
    world.trim(heads[6], &heads, vec![]);
    world.touched = true;
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(halts(commit(&mut world, &mut machine)), Halt::Conflict { seq: Seq(6) });
}

#[test]
fn a_copy_of_this_device_is_noticed() {
    let stranger = Incarnation([4; 16]);
    let (mut world, heads) = World::with_records(3);
    world.append(heads[3], ME, stranger, 1);
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(halts(follow(&mut world, &mut machine)), Halt::Twin { seq: Seq(4) });

    // Under this very run, with another chain of intents.
    let (mut world, heads) = World::with_records(3);
    let bytes = record(Seq(4), heads[3].hash, ME, MY_RUN, 5, 6);
    world.put(Seq(4), bytes);
    let mut machine = super::tests::machine(heads[3], heads[3]);
    assert_eq!(halts(commit(&mut world, &mut machine)), Halt::Twin { seq: Seq(4) });
    assert_eq!(world.created, []);
}

/// With its random numbers a copy has our commit ids, too.
#[test]
fn a_copy_with_the_same_id_and_other_intents_is_noticed() {
    let (mut world, heads) = World::with_records(3);
    let bytes = record_of(Seq(4), heads[3].hash, ME, MY_RUN, 5, 6, pending().commit_id);
    world.put(Seq(4), bytes);
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(halts(commit(&mut world, &mut machine)), Halt::Twin { seq: Seq(4) });
    assert_eq!(world.created, []);
}

/// A rotation says the same of intents as the record before it.
#[test]
fn a_copy_that_says_the_same_of_intents_in_another_commit_is_noticed() {
    let (mut world, heads) = World::with_records(3);
    let bytes = record_of(Seq(4), heads[3].hash, ME, MY_RUN, 5, 5, [9; 16]);
    world.put(Seq(4), bytes);
    let mut machine = machine(heads[3], heads[3]);
    assert_eq!(halts(commit(&mut world, &mut machine)), Halt::Twin { seq: Seq(4) });
}

#[test]
fn of_the_records_under_our_number_those_are_ours_that_we_tried_to_create() {
    let (mut world, heads) = World::with_records(3);
    let landed = world.append(heads[3], ME, MY_RUN, 1);
    let mut machine = machine_that_tried(heads[3], heads[3], vec![landed]);
    assert_eq!(at_head(follow(&mut world, &mut machine)), landed);
    // An earlier run of ours, but another record, or another place.
    for other in [Head { hash: Hash([9; 32]), ..landed }, Head { seq: Seq(5), ..landed }] {
        let mut machine = machine_that_tried(heads[3], heads[3], vec![other]);
        assert_eq!(halts(follow(&mut world, &mut machine)), Halt::Twin { seq: Seq(4) });
    }
}

#[test]
fn what_was_trusted_before_is_no_twin_when_the_replica_is_rebuilt() {
    let (mut world, heads) = World::with_records(3);
    let mine = world.append(heads[3], ME, Incarnation([4; 16]), 1);
    let mut machine = machine(Head::EMPTY, mine);
    assert_eq!(at_head(follow(&mut world, &mut machine)), mine);
}

#[test]
fn an_earlier_runs_record_that_arrived_late_covers_what_was_replayed() {
    // The last one says as much of other intents.
    for (high_water, hash, covers) in [(4, 4, false), (5, 5, true), (8, 8, true), (5, 6, false)] {
        let (mut world, heads) = World::with_records(3);
        world.put(Seq(4), record(Seq(4), heads[3].hash, ME, MY_RUN, high_water, hash));
        let mut machine = machine(heads[3], heads[3]);
        let first = machine.commit(Pending { commit_id: [0xbb; 16], replayed: true, ..pending() });
        let end = world.run(&mut machine, first);
        if covers {
            assert_eq!(committed(end).seq, Seq(4));
        } else {
            assert_eq!(halts(end), Halt::Twin { seq: Seq(4) });
        }
        assert_eq!(world.created, []);
    }
}

#[test]
fn an_answer_to_another_question_only_starts_the_reading_again() {
    let (mut world, heads) = World::with_records(3);
    let mut machine = machine(heads[1], heads[1]);
    machine.commit(pending());
    for event in [Event::Waited, Event::Created(CreateOutcome::New), Event::Loaded { disjoint: true }] {
        let action = machine.step(event);
        assert!(matches!(action, Action::ReadLog { .. }));
    }
    let action = machine.step(Event::Sealed(Bytes::new()));
    assert_eq!(committed(world.run(&mut machine, action)).seq, Seq(4));
}
