use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::write::write_sized;
use super::*;
use crate::base::{
    ChunkId, ChunkNo, Entropy, Epoch, Hash, Incarnation, InodeId, IntentNo, KeyNo, Name, PackNo, SystemEntropy,
    VolumeId,
};
use crate::crypto::Key;
use crate::disk::{Random, RealDisk};
use crate::format::rows::{ChunkRow, DirentRow, KeyBytes, RowKey};
use crate::meta::replica::RecordApply;
use crate::store::{Fault, FaultStore, Faults, MemoryStore, Op, Rule, StoreErrorKind, When};

type Changes = Vec<(KeyBytes, Option<Vec<u8>>)>;

/// Some hundred rows.
const SMALL: usize = 32 << 10;

fn roots() -> Roots {
    Roots::new(VolumeId([1; 16]), Epoch(0), Key::from_bytes([9; 32]))
}

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy)
}

fn replica_key() -> Key {
    Key::from_bytes([5; 32])
}

fn incarnation(seq: u64) -> Incarnation {
    Incarnation([(seq % 3) as u8; 16])
}

fn hash(seq: u64) -> Hash {
    Hash(crate::crypto::blake3(&seq.to_le_bytes()))
}

/// The volume's rows as one device after the other has them, over one store.
struct Fixture {
    folder: TempDir,
    replica: Arc<Replica>,
    memory: MemoryStore,
    store: Arc<FaultStore>,
    faults: Faults,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let replica = Arc::new(Replica::open(&folder.path().join("first.db"), &replica_key()).unwrap());
        let memory = MemoryStore::new();
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        Self { folder, replica, memory, store: Arc::new(store), faults }
    }

    /// With some dozen segments' worth of rows.
    fn filled() -> Self {
        let fixture = Self::new();
        fixture.apply((0..3000).flat_map(file));
        fixture
    }

    fn apply(&self, rows: impl IntoIterator<Item = (KeyBytes, Option<Vec<u8>>)>) {
        apply(&self.replica, rows.into_iter().collect(), 1000);
    }

    async fn write(&self) -> Result<Option<Seq>, CheckpointError> {
        write_sized(&*self.store, &self.replica, &roots(), &entropy(), SMALL).await
    }

    async fn newest(&self) -> Manifest {
        newest(&self.keep(), &roots()).await.unwrap().expect("a checkpoint")
    }

    async fn load(&self, manifest: &Manifest) -> Result<Replica, CheckpointError> {
        let path = self.loaded_path();
        let _ = Replica::delete(&path);
        load(self.keep(), manifest, &roots(), &path, &replica_key()).await
    }

    /// Without any copies yet.
    fn keep(&self) -> Arc<Keep> {
        let folder = self.folder.path().join("kept");
        let _ = std::fs::remove_dir_all(&folder);
        Arc::new(Keep::new(self.store.clone(), Arc::new(RealDisk), folder))
    }

    fn loaded_path(&self) -> PathBuf {
        self.folder.path().join("loaded.db")
    }

    fn loaded_files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with("loaded")).collect()
    }

    /// Of objects, in the order of the requests, since there were `from`.
    fn requests(&self, wanted: Op, from: usize) -> Vec<ObjectName> {
        let requests = self.faults.requests();
        requests[from..].iter().filter(|(op, _)| *op == wanted).filter_map(|(_, name)| *name).collect()
    }

    fn segments_stored(&self) -> usize {
        self.memory.names().iter().filter(|name| matches!(name, ObjectName::Segment(_))).count()
    }
}

fn apply(replica: &Replica, rows: Changes, record_len: u64) {
    let seq = replica.head().0.0 + 1;
    let record = RecordApply {
        seq: Seq(seq),
        hash: hash(seq),
        epoch: Epoch(0),
        next_epoch: None,
        incarnation: incarnation(seq),
        high_water: IntentNo(seq * 10),
        high_water_hash: hash(seq * 10),
        rows: &rows,
        record_len,
    };
    replica.apply(&record).unwrap();
}

/// Rows such as a file has.
fn file(no: u64) -> Changes {
    let (parent, ino, name) = (InodeId(no / 100), InodeId(1 << 32 | no), format!("a file's name {no}"));
    let name = Name::parse(name.as_bytes()).unwrap();
    let chunk = ChunkRow {
        pack: PackNo(no / 50),
        offset: no as u32 % 50 * 4096,
        len: 1000,
        key: KeyNo(no),
        id: ChunkId(crate::crypto::blake3(&no.to_le_bytes())),
        frames: vec![1017],
    };
    vec![
        (RowKey::Backref(ino, parent, name.clone()).encode(), Some(Vec::new())),
        (RowKey::Chunk(ChunkNo(no)).encode(), Some(chunk.encode())),
        (RowKey::Dirent(parent, name).encode(), Some(DirentRow { ino, file_type: 0o100000 }.encode())),
    ]
}

fn removed(no: u64) -> Changes {
    file(no).into_iter().map(|(key, _)| (key, None)).collect()
}

/// Of the volume, not of this device.
#[track_caller]
fn assert_same(left: &Replica, right: &Replica) {
    let (left, right) = (left.snapshot().unwrap(), right.snapshot().unwrap());
    assert_eq!(left.head(), right.head());
    assert!(left.dump(b"", None).map(Result::unwrap).eq(right.dump(b"", None).map(Result::unwrap)));
    assert_eq!(left.high_waters().unwrap(), right.high_waters().unwrap());
    assert_eq!(left.past_heads().unwrap(), right.past_heads().unwrap());
    assert_eq!(left.checkpoint().unwrap(), right.checkpoint().unwrap());
    assert_eq!(left.segments().unwrap(), right.segments().unwrap());
}

#[tokio::test]
async fn what_was_written_is_loaded() {
    let fixture = Fixture::new();
    let files = 60_000;
    fixture.apply((0..files / 2).flat_map(file));
    fixture.apply((files / 2..files).flat_map(file));
    let start = Instant::now();
    let seq = write(&*fixture.store, &fixture.replica, &roots(), &entropy()).await.unwrap();
    assert_eq!(seq, Some(Seq(2)));
    let written = start.elapsed();

    let manifest = fixture.newest().await;
    assert_eq!((manifest.seq, manifest.head), (Seq(2), hash(2)));
    assert_eq!(manifest.past, [(Seq(1), hash(1))]);
    assert_eq!(manifest.segments.iter().map(|segment| segment.rows).sum::<u64>(), files * 3);
    let start = Instant::now();
    let loaded = fixture.load(&manifest).await.unwrap();
    println!("{} rows: written in {written:?}, loaded in {:?}", files * 3, start.elapsed());
    assert_same(&loaded, &fixture.replica);
    loaded.quick_check().unwrap();
    assert_eq!(loaded.chunk_by_prefix(&ChunkId(crate::crypto::blake3(&7u64.to_le_bytes()))).unwrap(), Some(ChunkNo(7)));

    // It goes on from there.
    apply(&loaded, file(files), 1);
    fixture.apply(file(files));
    let loaded = Arc::new(loaded);
    let seq = write(&*fixture.store, &loaded, &roots(), &entropy()).await.unwrap();
    assert_eq!(seq, Some(Seq(3)));
    let again = fixture.load(&fixture.newest().await).await.unwrap();
    assert!(again.get(&file(files)[0].0).unwrap().is_some());
}

#[tokio::test]
async fn only_changed_ranges_are_written_again() {
    let fixture = Fixture::filled();
    assert_eq!(fixture.write().await.unwrap(), Some(Seq(1)));
    let before = fixture.newest().await;
    assert!(before.segments.len() > 10, "{}", before.segments.len());
    assert_eq!(fixture.write().await.unwrap(), None);

    let from = fixture.faults.requests().len();
    let [backref, ..] = &file(1500)[..] else { panic!() };
    fixture.apply([(backref.0.clone(), None)]);
    assert_eq!(fixture.write().await.unwrap(), Some(Seq(2)));
    let after = fixture.newest().await;
    let created = fixture.requests(Op::Create, from);
    let [ObjectName::Segment(id), ObjectName::Checkpoint(Seq(2))] = created[..] else { panic!("{created:?}") };
    let new: Vec<_> = after.segments.iter().filter(|segment| !before.segments.contains(segment)).collect();
    assert_eq!(new.iter().map(|segment| segment.id).collect::<Vec<_>>(), [id]);
    assert_eq!(after.segments.len(), before.segments.len());
    assert_eq!(after.past, [(Seq(1), hash(1))]);
    assert_same(&fixture.load(&after).await.unwrap(), &fixture.replica);
}

#[tokio::test]
async fn ranges_that_were_emptied_vanish() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    let full = fixture.newest().await.segments.len();
    fixture.apply((500..2500).flat_map(removed));
    fixture.write().await.unwrap();
    let manifest = fixture.newest().await;
    assert!(manifest.segments.len() < full / 2, "{} of {full}", manifest.segments.len());
    assert_same(&fixture.load(&manifest).await.unwrap(), &fixture.replica);

    fixture.apply((0..3000).flat_map(removed));
    assert_eq!(fixture.write().await.unwrap(), Some(Seq(3)));
    let manifest = fixture.newest().await;
    assert!(manifest.segments.is_empty());
    assert_same(&fixture.load(&manifest).await.unwrap(), &fixture.replica);
    fixture.apply(file(1));
    assert_eq!(fixture.write().await.unwrap(), Some(Seq(4)));
    assert_eq!(fixture.newest().await.segments.len(), 1);
}

#[tokio::test]
async fn many_checkpoints_hold_what_the_replica_holds_in_few_segments() {
    for seed in 0..4 {
        let (fixture, mut random) = (Fixture::new(), Random::new(seed));
        for round in 0..20 {
            for _ in 0..1 + random.below(3) {
                let (at, count, put) = (random.below(4000), random.below(300), random.below(5) > 1);
                fixture.apply((at..at + count).flat_map(|no| if put { file(no) } else { removed(no) }));
            }
            assert!(fixture.write().await.unwrap().is_some());
            if round % 4 == 0 {
                assert_same(&fixture.load(&fixture.newest().await).await.unwrap(), &fixture.replica);
            }
        }
        let manifest = fixture.newest().await;
        let rows_len: usize = fixture
            .replica
            .snapshot()
            .unwrap()
            .dump(b"", None)
            .map(|row| row.map(|(key, value)| key.len() + value.len()).unwrap())
            .sum();
        let needed = rows_len / SMALL + 1;
        assert!(manifest.segments.len() <= 4 * needed, "{} for {needed}", manifest.segments.len());
    }
}

#[tokio::test]
async fn records_that_come_meanwhile_are_left_to_the_next() {
    let fixture = Fixture::filled();
    fixture.faults.add(Rule::on(Op::Create, Fault::Delay(Duration::from_millis(300))).under(Prefix::Checkpoints));
    let meanwhile = async {
        while fixture.segments_stored() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fixture.apply((100..200).flat_map(removed));
    };
    let (written, ()) = tokio::join!(fixture.write(), meanwhile);
    assert_eq!(written.unwrap(), Some(Seq(1)));
    let loaded = fixture.load(&fixture.newest().await).await.unwrap();
    assert_eq!(loaded.head().0, Seq(1));
    assert!(loaded.get(&file(150)[1].0).unwrap().is_some());
    assert_eq!(fixture.replica.log_len().unwrap(), 1000);

    assert_eq!(fixture.write().await.unwrap(), Some(Seq(2)));
    drop(loaded);
    assert_same(&fixture.load(&fixture.newest().await).await.unwrap(), &fixture.replica);
}

#[tokio::test]
async fn a_bad_segment_is_named_and_leaves_no_replica() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    let manifest = fixture.newest().await;
    let middle = manifest.segments.len() / 2;
    let (bad, other) = (&manifest.segments[middle], &manifest.segments[0]);
    let bad = ObjectName::Segment(bad.id);
    for fault in [
        Fault::FlipBit(12_345),
        Fault::Truncate(5000),
        Fault::Truncate(0),
        Fault::Swap(ObjectName::Segment(other.id)),
        Fault::Swap(ObjectName::Checkpoint(Seq(1))),
    ] {
        fixture.faults.add(Rule::on(Op::Get, fault.clone()).named(bad));
        let error = fixture.load(&manifest).await.err().expect("an error");
        assert!(matches!(error, CheckpointError::Damaged { object, .. } if object == bad), "{fault:?}: {error}");
        assert_eq!(fixture.loaded_files(), Vec::<String>::new());
        fixture.faults.clear();
    }
    fixture.faults.add(Rule::on(Op::Get, Fault::Missing).named(bad));
    let error = fixture.load(&manifest).await.err().expect("an error");
    assert!(matches!(error, CheckpointError::Missing { object } if object == bad), "{error}");
    fixture.faults.clear();
    fixture.faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Unreachable)).named(bad));
    let error = fixture.load(&manifest).await.err().expect("an error");
    assert!(matches!(&error, CheckpointError::Store(error) if error.object == Some(bad)), "{error}");
    assert_eq!(fixture.loaded_files(), Vec::<String>::new());

    // Another volume's, however well named.
    let stranger = Roots::new(VolumeId([2; 16]), Epoch(0), Key::from_bytes([9; 32]));
    let path = fixture.loaded_path();
    fixture.faults.clear();
    let result = load(fixture.keep(), &manifest, &stranger, &path, &replica_key()).await;
    assert!(matches!(result, Err(CheckpointError::Damaged { .. })));
}

#[tokio::test]
async fn a_failed_load_leaves_the_old_replica() {
    let fixture = Fixture::filled();
    fixture.apply(file(5000));
    fixture.write().await.unwrap();
    let manifest = fixture.newest().await;
    let path = fixture.loaded_path();
    apply(&Replica::open(&path, &replica_key()).unwrap(), file(1), 1);
    fixture.faults.add(Rule::on(Op::Get, Fault::Missing).under(Prefix::Segments).when(When::After(3)));
    load(fixture.keep(), &manifest, &roots(), &path, &replica_key()).await.err().expect("an error");
    assert_eq!(Replica::open(&path, &replica_key()).unwrap().head(), (Seq(1), hash(1)));
    assert!(fixture.loaded_files().iter().all(|name| !name.contains("partial")));
}

#[tokio::test]
async fn a_load_that_failed_asks_for_little_more() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    let manifest = fixture.newest().await;
    fixture.faults.add(Rule::on(Op::Get, Fault::Missing).named(ObjectName::Segment(manifest.segments[0].id)));
    let from = fixture.faults.requests().len();
    fixture.load(&manifest).await.err().expect("an error");
    assert!(fixture.requests(Op::Get, from).len() < manifest.segments.len());
}

#[tokio::test]
async fn copies_are_kept_of_what_the_manifest_means_and_used_if_they_are_still_that() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    let manifest = fixture.newest().await;
    let (keep, path) = (fixture.keep(), fixture.loaded_path());
    let segments: Vec<_> = manifest.segments.iter().map(|segment| ObjectName::Segment(segment.id)).collect();
    fixture.faults.add(Rule::on(Op::Get, Fault::FlipBit(1000)).named(segments[1]));
    load(keep.clone(), &manifest, &roots(), &path, &replica_key()).await.err().expect("an error");
    assert!(keep.copy(&segments[0]).await.is_some() && keep.copy(&segments[1]).await.is_none());
    fixture.faults.clear();
    keep.put_copy(&segments[0], Bytes::from_static(b"rotten")).await;
    for asked in [true, false] {
        let from = fixture.faults.requests().len();
        let loaded = load(keep.clone(), &manifest, &roots(), &path, &replica_key()).await.unwrap();
        assert_same(&loaded, &fixture.replica);
        assert_eq!(fixture.requests(Op::Get, from).contains(&segments[0]), asked);
        assert_eq!(fixture.requests(Op::Get, from).is_empty(), !asked);
    }
}

#[tokio::test]
async fn a_load_that_is_dropped_leaves_no_replica() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    let manifest = fixture.newest().await;
    fixture.faults.add(Rule::on(Op::Get, Fault::Hang).under(Prefix::Segments).when(When::After(3)));
    let loading = tokio::time::timeout(Duration::from_millis(100), fixture.load(&manifest));
    assert!(loading.await.is_err());
    let start = Instant::now();
    while !fixture.loaded_files().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", fixture.loaded_files());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_bad_manifest_is_passed_over_for_an_older_one() {
    let fixture = Fixture::filled();
    assert!(newest(&fixture.keep(), &roots()).await.unwrap().is_none());
    for no in 0..3 {
        fixture.apply(file(10_000 + no));
        fixture.write().await.unwrap();
    }
    assert_eq!(fixture.newest().await.seq, Seq(4));
    let last = ObjectName::Checkpoint(Seq(4));
    for fault in [
        Fault::FlipBit(999),
        Fault::Truncate(100),
        Fault::Missing,
        Fault::Swap(ObjectName::Checkpoint(Seq(3))),
        Fault::Swap(ObjectName::Checkpoint(Seq(2))),
    ] {
        fixture.faults.add(Rule::on(Op::Get, fault).named(last));
        assert_eq!(fixture.newest().await.seq, Seq(3));
        fixture.faults.clear();
    }
    let before = newest_before(&fixture.keep(), &roots(), Seq(3)).await.unwrap();
    assert_eq!(before.map(|manifest| manifest.seq), Some(Seq(2)));
    // What is only out of reach is no reason to take an older one.
    fixture.faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Timeout)).named(last));
    assert!(matches!(newest(&fixture.keep(), &roots()).await, Err(CheckpointError::Store(_))));
}

#[tokio::test]
async fn lost_answers_are_read_back() {
    for fault in [
        Fault::ApplyThenFail(StoreErrorKind::Unknown),
        // What a repeated create is told about its own first.
        Fault::LieExists,
    ] {
        let fixture = Fixture::filled();
        fixture.faults.add(Rule::on(Op::Create, fault));
        assert_eq!(fixture.write().await.unwrap(), Some(Seq(1)));
        assert_eq!(fixture.requests(Op::Delete, 0), []);
        fixture.faults.clear();
        assert_same(&fixture.load(&fixture.newest().await).await.unwrap(), &fixture.replica);
    }
}

#[tokio::test]
async fn a_create_that_may_still_arrive_keeps_its_segments() {
    let fixture = Fixture::filled();
    let fault = Fault::Fail(StoreErrorKind::Unknown);
    fixture.faults.add(Rule::on(Op::Create, fault).under(Prefix::Checkpoints));
    let error = fixture.write().await.unwrap_err();
    assert!(matches!(&error, CheckpointError::Store(error) if error.kind == StoreErrorKind::Unknown), "{error}");
    assert_eq!(fixture.requests(Op::Delete, 0), []);

    // Nor does it count as lost when the store falls silent before it can be read.
    let fixture = Fixture::filled();
    let fault = Fault::ApplyThenFail(StoreErrorKind::Unknown);
    fixture.faults.add(Rule::on(Op::Create, fault).under(Prefix::Checkpoints));
    fixture.faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Unreachable)));
    fixture.write().await.unwrap_err();
    assert_eq!(fixture.requests(Op::Delete, 0), []);
    fixture.faults.clear();
    fixture.load(&fixture.newest().await).await.unwrap();
}

#[tokio::test]
async fn a_failure_before_the_manifest_leaves_nothing_and_may_be_tried_again() {
    let kinds = [StoreErrorKind::Unreachable, StoreErrorKind::Denied, StoreErrorKind::Unknown];
    let mut rules: Vec<Rule> = kinds
        .into_iter()
        .map(|kind| Rule::on(Op::Create, Fault::Fail(kind)).under(Prefix::Segments).when(When::Nth(4)))
        .collect();
    rules.push(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Denied)).under(Prefix::Checkpoints));
    for rule in rules {
        let fixture = Fixture::filled();
        fixture.faults.add(rule);
        assert!(matches!(fixture.write().await, Err(CheckpointError::Store(_))));
        assert_eq!(fixture.memory.names(), []);
        assert_eq!(fixture.replica.checkpoint().unwrap(), Seq(0));
        fixture.faults.clear();
        assert_eq!(fixture.write().await.unwrap(), Some(Seq(1)));
    }
}

#[tokio::test]
async fn of_two_writers_one_wins_and_the_other_leaves_nothing() {
    let (ours, theirs) = (Fixture::filled(), Fixture::filled());
    ours.faults.add(Rule::on(Op::Create, Fault::Delay(Duration::from_millis(50))).under(Prefix::Checkpoints));
    let (roots, entropy) = (roots(), entropy());
    let rival = write_sized(&*ours.store, &theirs.replica, &roots, &entropy, SMALL);
    let (mine, rival) = tokio::join!(ours.write(), rival);
    let (mine, rival) = (mine.unwrap(), rival.unwrap());
    assert!(mine.is_some() != rival.is_some(), "{mine:?} {rival:?}");
    let manifest = ours.newest().await;
    assert_eq!(ours.segments_stored(), manifest.segments.len());
    let (winner, loser) = if mine.is_some() { (&ours, &theirs) } else { (&theirs, &ours) };
    assert_same(&ours.load(&manifest).await.unwrap(), &winner.replica);
    assert_eq!(loser.replica.checkpoint().unwrap(), Seq(0));

    // Who comes later sees it at once.
    let from = ours.faults.requests().len();
    let late = write_sized(&*ours.store, &loser.replica, &roots, &entropy, SMALL).await;
    assert_eq!(late.unwrap(), None);
    assert_eq!(ours.requests(Op::Create, from), []);
}

#[tokio::test]
async fn a_store_that_changes_what_it_is_given_is_noticed() {
    let fixture = Fixture::filled();
    fixture.faults.add(Rule::on(Op::Create, Fault::ApplyThenFail(StoreErrorKind::Unknown)).when(When::Nth(2)));
    fixture.faults.add(Rule::on(Op::Get, Fault::FlipBit(77)));
    assert!(matches!(fixture.write().await, Err(CheckpointError::Damaged { .. })));
    assert_eq!(fixture.memory.names(), []);
}

#[tokio::test]
async fn a_malformed_row_is_never_written() {
    let fixture = Fixture::filled();
    fixture.apply([(b"Q".to_vec(), Some(b"unknown".to_vec()))]);
    assert!(matches!(fixture.write().await, Err(CheckpointError::Meta(MetaError::Row(_)))));
    assert_eq!(fixture.memory.names(), []);
}

#[tokio::test]
async fn it_is_due_after_enough_log() {
    let fixture = Fixture::new();
    assert!(!due(&fixture.replica).unwrap());
    apply(&fixture.replica, file(1), MIB - 1);
    assert!(!due(&fixture.replica).unwrap());
    apply(&fixture.replica, file(2), 1);
    assert!(due(&fixture.replica).unwrap());
    fixture.write().await.unwrap();
    assert!(!due(&fixture.replica).unwrap());

    // After a large one a quarter of it, but 8 MiB is always enough.
    let mut segments: Vec<Segment> = fixture.newest().await.segments.iter().map(segment).collect();
    segments[0].len = 12 * MIB;
    segments[1..].iter_mut().for_each(|segment| segment.len = 0);
    fixture.replica.checkpointed(Seq(2), &segments, &[]).unwrap();
    apply(&fixture.replica, file(3), 3 * MIB - 1);
    assert!(!due(&fixture.replica).unwrap());
    apply(&fixture.replica, file(4), 1);
    assert!(due(&fixture.replica).unwrap());
    segments[0].len = 1 << 40;
    fixture.replica.checkpointed(Seq(2), &segments, &[]).unwrap();
    assert!(!due(&fixture.replica).unwrap());
    apply(&fixture.replica, file(5), 5 * MIB);
    assert!(due(&fixture.replica).unwrap());
}

#[tokio::test]
async fn old_segments_stay_readable_after_a_rotation() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    let rotated = roots();
    assert!(rotated.insert(Epoch(1), Key::from_bytes([8; 32])));
    rotated.advance(Epoch(1)).unwrap();
    fixture.apply(file(5000));
    let written = write_sized(&*fixture.store, &fixture.replica, &rotated, &entropy(), SMALL).await;
    assert_eq!(written.unwrap(), Some(Seq(2)));
    let manifest = newest(&fixture.keep(), &rotated).await.unwrap().unwrap();
    assert_eq!(manifest.epoch, Epoch(1));
    let path = fixture.loaded_path();
    let loaded = load(fixture.keep(), &manifest, &rotated, &path, &replica_key()).await.unwrap();
    assert_same(&loaded, &fixture.replica);
    // Without the new root there is still the older checkpoint.
    assert_eq!(fixture.newest().await.seq, Seq(1));
}

#[tokio::test]
async fn nothing_is_stored_in_the_clear() {
    let fixture = Fixture::filled();
    fixture.write().await.unwrap();
    for name in fixture.memory.names() {
        let bytes: Bytes = fixture.memory.peek(&name).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"a file"), "{name}");
    }
}
