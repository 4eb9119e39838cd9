use super::*;
use crate::base::{Hash, InodeId, SystemEntropy, Timestamp};
use crate::disk::{DiskFault, DiskOp, DiskRule, Random, SimDisk};
use std::collections::BTreeMap;

const DIR: &str = "/state/journal";
/// Small, so that files fill up and are used again all the time.
const SHORT: u64 = 16 << 10;

fn try_open(disk: &SimDisk) -> Result<(Journal, Replay, Option<JournalDamage>), JournalError> {
    open_by(disk, OnDamage::SetAside)
}

fn open_by(disk: &SimDisk, on_damage: OnDamage) -> Result<(Journal, Replay, Option<JournalDamage>), JournalError> {
    open_with(disk, on_damage, 3, &|_| false)
}

fn open_with(
    disk: &SimDisk,
    on_damage: OnDamage,
    key: u8,
    is_covered: &dyn Fn(&(Incarnation, IntentNo)) -> bool,
) -> Result<(Journal, Replay, Option<JournalDamage>), JournalError> {
    let (key, entropy) = (Key::from_bytes([key; 32]), Arc::new(SystemEntropy));
    let keys = (&key, VolumeId([4; 16]), entropy as Arc<dyn Entropy>);
    Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), keys, SHORT, on_damage, is_covered)
}

fn open(disk: &SimDisk) -> (Journal, Vec<JournalPayload>) {
    let (journal, replay, damage) = try_open(disk).unwrap();
    assert_eq!(damage, None);
    (journal, replay.map(Result::unwrap).collect())
}

fn run(number: u8) -> Incarnation {
    Incarnation([number; 16])
}

/// Recognizable by run and number.
fn intent(incarnation: Incarnation, no: u64, len: usize) -> Intent {
    let data = vec![incarnation.0[0] ^ no as u8; len].into();
    let changes = vec![Change::Inline { offset: no, data }];
    let (mtime, time) = (Timestamp::new(i64::from(incarnation.0[0]), 0), Timestamp::new(no as i64, 0));
    Intent::Write { ino: InodeId(no), base: 0, size: 0, mtime, time, key: None, changes }
}

fn payload(incarnation: Incarnation, first: u64, lens: &[usize]) -> JournalPayload {
    let intents = (first..).zip(lens).map(|(no, len)| intent(incarnation, no, *len)).collect();
    JournalPayload { incarnation, first: IntentNo(first), chain_before: Hash([first as u8; 32]), intents }
}

fn append(journal: &Journal, incarnation: Incarnation, first: u64, lens: &[usize]) -> FrameNo {
    journal.append(payload(incarnation, first, lens)).unwrap()
}

fn numbers(payloads: &[JournalPayload]) -> Vec<u64> {
    payloads.iter().flat_map(|payload| (payload.first.0..).take(payload.intents.len())).collect()
}

fn files(disk: &SimDisk, extension: &str) -> Vec<PathBuf> {
    let listed = disk.list(Path::new(DIR)).unwrap();
    let mut paths: Vec<_> = listed.into_iter().map(|entry| Path::new(DIR).join(entry.name)).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// What a run did, as far as the journal must know it.
#[derive(Clone, Default)]
struct Promise {
    /// Lengths; the first is number 1's.
    appended: Vec<usize>,
    synced: u64,
    released: u64,
    /// Was read back, and is synced with the next sync.
    seen: u64,
}

/// Does all kinds of things at random until the power goes, again and again, and holds the journal to its promises.
struct Ordeal {
    disk: SimDisk,
    random: Random,
    promises: BTreeMap<Incarnation, Promise>,
    now: Incarnation,
}

impl Ordeal {
    fn new(seed: u64) -> Self {
        Self { disk: SimDisk::new(), random: Random::new(seed), promises: BTreeMap::new(), now: run(0) }
    }

    fn round(&mut self, faults: bool) {
        self.now = run(self.now.0[0] + 1);
        self.promises.insert(self.now, Promise::default());
        self.disk.power_off_after(self.random.below(400));
        if let Ok((journal, replay, damage)) = try_open(&self.disk) {
            assert_eq!(damage, None, "a crash is no damage");
            if let Ok(payloads) = replay.collect::<Result<Vec<_>, _>>() {
                self.check(&payloads);
                self.work(&journal, faults);
            }
        }
        // Without power a last reading proves nothing; after it, and after a mere end of the process, it must.
        if self.random.below(4) > 0 {
            self.disk.crash(self.random.number());
        } else {
            self.disk.power_off_after(u64::MAX);
            self.disk.clear_rules();
        }
        let (_, payloads) = open(&self.disk);
        self.check(&payloads);
    }

    fn check(&mut self, payloads: &[JournalPayload]) {
        let mut seen: BTreeMap<Incarnation, Vec<u64>> = BTreeMap::new();
        let mut runs = Vec::new();
        for payload in payloads {
            let promise = &self.promises[&payload.incarnation];
            runs.push(payload.incarnation);
            assert_eq!(payload.chain_before, Hash([payload.first.0 as u8; 32]));
            for (no, found) in (payload.first.0..).zip(&payload.intents) {
                let len = promise.appended.get(no as usize - 1).copied();
                assert_eq!(Some(found), len.map(|len| intent(payload.incarnation, no, len)).as_ref(), "never appended");
                seen.entry(payload.incarnation).or_default().push(no);
            }
        }
        assert!(runs.is_sorted(), "in the order they were appended");
        for (incarnation, promise) in &mut self.promises {
            let seen = seen.remove(incarnation).unwrap_or_default();
            assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "without gap or repetition: {seen:?}");
            if promise.synced > promise.released {
                assert!(seen.first().is_some_and(|first| *first <= promise.released + 1), "the oldest is lost");
                assert!(seen.last().is_some_and(|last| *last >= promise.synced), "the newest is lost");
            }
            promise.seen = seen.last().copied().unwrap_or(0);
            promise.appended.truncate(promise.seen.max(promise.released) as usize);
        }
    }

    fn work(&mut self, journal: &Journal, faults: bool) {
        let mut newest = None;
        for _ in 0..self.random.below(120) {
            match self.random.below(if faults { 12 } else { 10 }) {
                0..=4 => newest = Some(self.append(journal)),
                5..=7 => {
                    if let Some(frame) = newest
                        && journal.sync(frame).is_ok()
                    {
                        for promise in self.promises.values_mut() {
                            promise.synced = promise.synced.max(promise.seen);
                        }
                        let promise = self.promises.get_mut(&self.now).unwrap();
                        promise.synced = promise.appended.len() as u64;
                    }
                }
                8..=9 => self.release(journal),
                10 => {
                    let ops = [DiskOp::Sync, DiskOp::Write, DiskOp::Open, DiskOp::SyncDir, DiskOp::Remove];
                    let op = ops[self.random.below(ops.len() as u64) as usize];
                    let fault = if self.random.coin() { DiskFault::Io } else { DiskFault::Full };
                    self.disk.add_rule(DiskRule::on(op, DIR, fault).nth(1 + self.random.below(3)));
                }
                _ => self.disk.clear_rules(),
            }
        }
    }

    fn append(&mut self, journal: &Journal) -> FrameNo {
        let promise = self.promises.get_mut(&self.now).unwrap();
        let first = promise.appended.len() as u64 + 1;
        let lens: Vec<_> = (0..=self.random.below(3)).map(|_| self.random.below(3000) as usize).collect();
        promise.appended.extend(&lens);
        append(journal, self.now, first, &lens)
    }

    /// As a commit does it: of an earlier run first, and never more than was appended.
    fn release(&mut self, journal: &Journal) {
        for (incarnation, promise) in &mut self.promises {
            let rest = promise.appended.len() as u64 - promise.released;
            if rest > 0 {
                promise.released += if *incarnation == self.now { self.random.below(rest + 1) } else { rest };
                journal.release(*incarnation, IntentNo(promise.released));
            }
        }
    }
}

#[test]
fn what_was_synced_survives_every_loss_of_power() {
    for seed in 0..150 {
        let mut ordeal = Ordeal::new(seed);
        for _ in 0..6 {
            ordeal.round(false);
        }
    }
}

#[test]
fn what_was_synced_survives_also_beside_failing_writes_and_syncs() {
    for seed in 1000..1150 {
        let mut ordeal = Ordeal::new(seed);
        for _ in 0..6 {
            ordeal.round(true);
        }
    }
}

#[test]
fn a_file_that_can_no_longer_be_synced_is_left_for_another() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    journal.sync(append(&journal, run(1), 1, &[100])).unwrap();
    disk.add_rule(DiskRule::on(DiskOp::Sync, &files(&disk, "journal")[0], DiskFault::Io));
    let second = append(&journal, run(1), 2, &[100]);
    journal.sync(second).unwrap_err();
    journal.sync(second).unwrap();
    journal.sync(append(&journal, run(1), 3, &[100])).unwrap();
    disk.crash(3);
    assert_eq!(numbers(&open(&disk).1), [1, 2, 3]);
}

#[test]
fn nothing_to_append_is_no_frame() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let frame = append(&journal, run(1), 1, &[10]);
    assert_eq!(append(&journal, run(1), 2, &[]), frame);
    journal.sync(append(&journal, run(1), 2, &[10])).unwrap();
    assert_eq!(numbers(&open(&disk).1), [1, 2]);
}

#[test]
fn a_failed_sync_is_told_to_all_and_made_good_in_another_file() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let first = append(&journal, run(1), 1, &[100]);
    journal.sync(first).unwrap();
    disk.add_rule(DiskRule::on(DiskOp::Sync, DIR, DiskFault::Io));
    let second = append(&journal, run(1), 2, &[100]);
    for _ in 0..3 {
        let error = journal.sync(second).unwrap_err();
        assert!(matches!(error, JournalError::Io { what: "sync", .. }), "{error}");
    }
    journal.sync(first).unwrap();
    disk.clear_rules();
    let third = append(&journal, run(1), 3, &[100]);
    journal.sync(third).unwrap();
    for seed in 0..50 {
        disk.crash(seed);
        assert_eq!(numbers(&open(&disk).1), [1, 2, 3]);
    }
}

#[test]
fn a_full_disk_fails_the_sync_and_loses_nothing_once_there_is_space() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let mut last = append(&journal, run(1), 1, &[100]);
    journal.sync(last).unwrap();
    disk.set_capacity(Some(SHORT + 1024));
    let mut no = 1;
    let refused = loop {
        no += 1;
        last = append(&journal, run(1), no, &[3000]);
        if let Err(error) = journal.sync(last) {
            break error;
        }
    };
    assert!(
        matches!(&refused, JournalError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{refused}"
    );
    assert_eq!(files(&disk, "journal").len(), 1, "what could not be made does not take space");
    disk.set_capacity(None);
    journal.sync(last).unwrap();
    disk.crash(1);
    assert_eq!(numbers(&open(&disk).1), (1..=no).collect::<Vec<_>>());
}

#[test]
fn a_payload_longer_than_a_file_is_one_frame_in_a_file_of_its_own() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    journal.sync(append(&journal, run(1), 1, &[10])).unwrap();
    journal.sync(append(&journal, run(1), 2, &[30_000, 40_000])).unwrap();
    journal.sync(append(&journal, run(1), 4, &[10])).unwrap();
    disk.crash(5);
    let (journal, payloads) = open(&disk);
    assert_eq!(payloads.iter().map(|payload| payload.intents.len()).collect::<Vec<_>>(), [1, 2, 1]);
    assert!(disk.list(Path::new(DIR)).unwrap().iter().any(|entry| entry.len > 70_000));
    journal.release(run(1), IntentNo(3));
    assert!(disk.list(Path::new(DIR)).unwrap().iter().all(|entry| entry.len == SHORT), "it is not kept for use");
    assert_eq!(numbers(&open(&disk).1), [4]);
}

#[test]
fn files_are_used_again_and_what_they_held_is_not_replayed() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    for no in 1..=400 {
        journal.sync(append(&journal, run(1), no, &[1500])).unwrap();
        journal.release(run(1), IntentNo(no.saturating_sub(3)));
    }
    assert!(files(&disk, "journal").len() <= 3, "{:?}", files(&disk, "journal"));
    assert!(journal.bytes() <= 2 * SHORT);
    disk.crash(9);
    let (_, payloads) = open(&disk);
    let found = numbers(&payloads);
    assert!(found.len() <= 2 * SHORT as usize / 1500, "only what its files hold now: {found:?}");
    assert_eq!(*found.last().unwrap(), 400);
}

#[test]
fn concurrent_callers_are_all_served_and_share_frames() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = Mutex::new(1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let frame = {
                        let mut next = next.lock();
                        *next += 1;
                        append(&journal, run(1), *next - 1, &[50])
                    };
                    journal.sync(frame).unwrap();
                }
            });
        }
    });
    disk.crash(2);
    assert_eq!(numbers(&open(&disk).1), (1..=400).collect::<Vec<_>>());
}

#[test]
fn what_is_appended_before_a_sync_is_one_frame() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let frames: Vec<_> = (1..=5).map(|no| append(&journal, run(1), no, &[10])).collect();
    assert!(frames.windows(2).all(|pair| pair[0] == pair[1]));
    journal.sync(frames[0]).unwrap();
    // Not with the ones before: what is between them was committed without ever coming here.
    let later = append(&journal, run(1), 9, &[10]);
    journal.sync(later).unwrap();
    let (_, payloads) = open(&disk);
    assert_eq!(payloads.len(), 2);
    assert_eq!(numbers(&payloads), [1, 2, 3, 4, 5, 9]);
}

#[test]
fn a_gap_between_payloads_ends_a_batch() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    append(&journal, run(1), 1, &[10]);
    let last = append(&journal, run(1), 5, &[10]);
    journal.sync(last).unwrap();
    assert_eq!(open(&disk).1.iter().map(|payload| payload.first.0).collect::<Vec<_>>(), [1, 5]);
}

#[test]
fn numbers_that_go_back_and_frames_that_do_not_exist_are_refused() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let frame = append(&journal, run(1), 4, &[10, 10]);
    let error = journal.append(payload(run(1), 5, &[10])).unwrap_err();
    assert!(matches!(error, JournalError::OutOfOrder { expected: IntentNo(6), got: IntentNo(5) }), "{error}");
    assert!(matches!(journal.sync(FrameNo(frame.0 + 1)), Err(JournalError::NeverAppended(_))));
    journal.sync(frame).unwrap();
    journal.sync(FrameNo(0)).unwrap();
}

/// Several files of frames; where each one begins.
fn several_files(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let (journal, _) = open(disk);
    for no in 1..=20 {
        journal.sync(append(&journal, run(1), no, &[2300])).unwrap();
    }
    let mut places = Vec::new();
    for path in files(disk, "journal") {
        let content = disk.peek(&path).unwrap();
        let mut at = 0;
        while let Some(header) = content.get(at..).and_then(format::peek_header) {
            places.push((path.clone(), at as u64));
            at += header.len as usize;
        }
    }
    assert_eq!((places.len(), files(disk, "journal").len()), (20, 4));
    places
}

#[test]
fn a_frame_that_rots_is_told_by_its_number_and_what_was_before_it_is_kept() {
    for bad in [1, 2, 7, 8, 14, 19] {
        let disk = SimDisk::new();
        let (path, offset) = several_files(&disk)[bad - 1].clone();
        disk.rot(&path, offset + 700);
        let (journal, replay, damage) = try_open(&disk).unwrap();
        let found: Vec<_> = replay.map(Result::unwrap).collect();
        assert_eq!(numbers(&found), (1..bad as u64).collect::<Vec<_>>());
        let damage = damage.unwrap();
        assert_eq!((damage.first_lost, damage.later), (FrameNo(bad as u64), 20 - bad));
        assert!(!damage.unreadable);
        assert_eq!(damage.set_aside, files(&disk, "damaged").into_iter().rev().collect::<Vec<_>>());
        assert!(damage.to_string().contains(&format!("from frame {bad} on")), "{damage}");

        // It goes on, and what it takes from now on is not lost behind the old damage.
        journal.sync(append(&journal, run(2), 1, &[100])).unwrap();
        disk.crash(bad as u64);
        let (_, payloads) = open(&disk);
        let expected: Vec<_> = (1..bad as u64).chain([1]).collect();
        assert_eq!(numbers(&payloads), expected);
    }
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |entry: crate::disk::DirEntry| {
        let path = Path::new(DIR).join(&entry.name);
        let bytes = disk.open(&path, false).unwrap().read_range(crate::base::ByteRange::new(0, entry.len)).unwrap();
        (path, bytes)
    };
    let mut all: Vec<_> = disk.list(Path::new(DIR)).unwrap().into_iter().map(read).collect();
    all.sort();
    all
}

#[test]
fn nothing_of_a_damaged_journal_is_changed_unless_somebody_says_so() {
    let disk = SimDisk::new();
    let (path, offset) = several_files(&disk)[6].clone();
    let whole = contents(&disk);
    disk.rot(&path, offset + 700);
    let before = contents(&disk);
    assert_ne!(before, whole);
    for _ in 0..2 {
        let refused = open_by(&disk, OnDamage::Refuse).err().unwrap();
        assert!(
            matches!(&refused, JournalError::Damaged { damage, .. } if (damage.first_lost, damage.later) == (FrameNo(7), 13)),
            "{refused}"
        );
        assert!(refused.to_string().contains("--accept-loss"), "{refused}");
        let (_, replay, damage) = open_by(&disk, OnDamage::Leave).unwrap();
        assert_eq!((replay.count(), damage.unwrap().set_aside), (6, vec![]));
        assert!(contents(&disk) == before);
    }
    // A disk that reads it after all has lost nothing.
    disk.rot(&path, offset + 700);
    assert!(contents(&disk) == whole, "the test's disk turns the same bit back");
    let (_, replay, damage) = open_by(&disk, OnDamage::Refuse).unwrap();
    assert_eq!((replay.count(), damage), (20, None));
}

#[test]
fn damage_of_what_the_log_has_is_no_loss() {
    for covered in [19, 20] {
        let disk = SimDisk::new();
        let (path, offset) = several_files(&disk)[6].clone();
        disk.rot(&path, offset + 700);
        let is_covered = |(incarnation, last): &(Incarnation, IntentNo)| *incarnation == run(1) && last.0 <= covered;
        let opened = open_with(&disk, OnDamage::Refuse, 3, &is_covered);
        if covered < 20 {
            assert!(matches!(opened, Err(JournalError::Damaged { .. })));
            continue;
        }
        let (journal, replay, damage) = opened.unwrap();
        assert_eq!((replay.count(), damage), (6, None));
        assert_eq!(files(&disk, "damaged"), Vec::<PathBuf>::new());
        journal.sync(append(&journal, run(2), 1, &[100])).unwrap();
        assert_eq!(numbers(&open(&disk).1), [1, 2, 3, 4, 5, 6, 1]);
    }
}

#[test]
fn a_file_that_is_gone_is_a_gap() {
    let disk = SimDisk::new();
    let places = several_files(&disk);
    disk.remove(&files(&disk, "journal")[1]).unwrap();
    let (_, replay, damage) = try_open(&disk).unwrap();
    let damage = damage.unwrap();
    assert_eq!(replay.count() as u64 + 1, damage.first_lost.0);
    assert!(damage.later > 0 && damage.later + (damage.first_lost.0 as usize) < places.len());
}

#[test]
fn a_part_that_the_disk_cannot_read_is_told_as_such() {
    let disk = SimDisk::new();
    several_files(&disk);
    let last = files(&disk, "journal")[2].clone();
    disk.add_rule(DiskRule::on(DiskOp::Read, &last, DiskFault::Io).nth(1));
    let (_, replay, damage) = try_open(&disk).unwrap();
    let damage = damage.unwrap();
    assert!(damage.unreadable);
    assert_eq!(replay.count() as u64 + 1, damage.first_lost.0);
}

#[test]
fn a_rotten_last_frame_cannot_be_told_from_a_torn_one() {
    let disk = SimDisk::new();
    let (path, offset) = several_files(&disk)[19].clone();
    disk.rot(&path, offset + 700);
    assert_eq!(numbers(&open(&disk).1), (1..=19).collect::<Vec<_>>());
}

#[test]
fn another_key_opens_nothing_and_throws_nothing_away() {
    let disk = SimDisk::new();
    several_files(&disk);
    let opened = open_with(&disk, OnDamage::Refuse, 8, &|_| false);
    let (_, replay, damage) = opened.unwrap();
    assert!(replay.is_empty() && damage.is_none());
    assert_eq!(files(&disk, "unread").len(), 4);
}

#[test]
fn its_files_hold_no_plaintext() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let frame = journal.append(JournalPayload {
        intents: vec![Intent::Write {
            ino: InodeId(5),
            base: 0,
            size: 6,
            mtime: Timestamp::default(),
            time: Timestamp::default(),
            key: None,
            changes: vec![Change::Inline { offset: 0, data: (*b"canary").into() }],
        }],
        ..payload(run(1), 1, &[])
    });
    journal.sync(frame.unwrap()).unwrap();
    let content = disk.peek(&files(&disk, "journal")[0]).unwrap();
    assert!(!content.windows(6).any(|window| window == b"canary"));
}
