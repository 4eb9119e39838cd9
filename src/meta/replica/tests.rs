use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::base::{Epoch, InodeId, KeyNo, PackNo, SegmentId};
use crate::format::rows::{InodeBody, mode};

type Changes = Vec<(KeyBytes, Option<Vec<u8>>)>;

const INCARNATION: Incarnation = Incarnation([7; 16]);

fn key() -> Key {
    Key::from_bytes([0x5a; 32])
}

struct Fixture {
    _folder: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("replica.db");
        Self { _folder: folder, path }
    }

    fn open(&self) -> Replica {
        Replica::open(&self.path, &key()).unwrap()
    }
}

fn record(seq: u64, rows: &Changes) -> RecordApply<'_> {
    RecordApply {
        seq: Seq(seq),
        hash: Hash([seq as u8; 32]),
        epoch: Epoch(0),
        next_epoch: None,
        incarnation: INCARNATION,
        high_water: IntentNo(seq * 10),
        high_water_hash: Hash([seq as u8 + 1; 32]),
        rows,
        record_len: 100,
    }
}

fn put(key: &[u8], value: &[u8]) -> (KeyBytes, Option<Vec<u8>>) {
    (key.to_vec(), Some(value.to_vec()))
}

fn chunk(no: u64, content: &[u8]) -> (KeyBytes, Vec<u8>, ChunkId) {
    let id = ChunkId(crate::crypto::blake3(content));
    let row = ChunkRow { pack: PackNo(1), offset: 0, len: 5, key: KeyNo(1), id, frames: vec![22] };
    (RowKey::Chunk(ChunkNo(no)).encode(), row.encode(), id)
}

fn inode_row(ino: u64, allocated: u64) -> (KeyBytes, Option<Vec<u8>>) {
    let time = crate::base::Timestamp::default();
    let row = InodeRow {
        mode: mode::FILE,
        uid: 0,
        gid: 0,
        rdev: 0,
        nlink: 1,
        size: 1 << 30,
        allocated,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 0,
        key: None,
        body: InodeBody::File(Vec::new()),
    };
    (RowKey::Inode(InodeId(ino)).encode(), Some(row.encode()))
}

fn is_damaged<T>(result: Result<T, MetaError>) -> bool {
    matches!(result, Err(MetaError::ReplicaDamaged { .. }))
}

#[test]
fn records_survive_reopening() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    assert_eq!(replica.head(), (Seq(0), Hash::ZERO));
    replica.apply(&record(1, &vec![put(b"a", b"1"), put(b"b", b"2")])).unwrap();
    replica.apply(&record(2, &vec![put(b"a", b"3"), (b"b".to_vec(), None), put(b"c", b"")])).unwrap();
    drop(replica);

    let replica = fixture.open();
    assert_eq!(replica.head(), (Seq(2), Hash([2; 32])));
    assert_eq!(replica.get(b"a").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(replica.get(b"b").unwrap(), None);
    assert_eq!(replica.get(b"c").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(replica.high_water(&INCARNATION).unwrap(), Some((IntentNo(20), Hash([3; 32]))));
    assert_eq!(replica.high_water(&Incarnation([8; 16])).unwrap(), None);
    assert_eq!(replica.past_head(Seq(1)).unwrap(), Some(Hash([1; 32])));
    replica.quick_check().unwrap();
}

#[test]
fn scans_stop_at_the_prefix_and_the_limit() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    let keys: [&[u8]; 6] = [b"a", b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"c"];
    replica.apply(&record(1, &keys.iter().map(|key| put(key, b"")).collect())).unwrap();
    let scan = |prefix: &[u8], after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
        replica.scan(prefix, after, limit).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(scan(b"b", None, 9), keys[1..5]);
    assert_eq!(scan(b"b", Some(b"b"), 2), keys[2..4]);
    assert_eq!(scan(b"b\xff", None, 9), keys[3..5]);
    assert_eq!(scan(b"", None, 9), keys);
    assert_eq!(scan(b"b", Some(b"c"), 9), Vec::<Vec<u8>>::new());
    assert_eq!(scan(b"c", Some(b"a"), usize::MAX), keys[5..]);
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    let rows = vec![put(b"a", b"1")];
    for seq in [0, 2, 200] {
        let error = replica.apply(&record(seq, &rows)).unwrap_err();
        assert!(matches!(error, MetaError::OutOfOrder { head: Seq(0), .. }), "{error}");
    }
    assert_eq!(replica.get(b"a").unwrap(), None);
}

#[test]
fn a_prepared_record_is_invisible_and_leaves_nothing_when_dropped() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    let rows = vec![put(b"a", b"1")];
    let prepared = replica.prepare(&record(1, &rows)).unwrap();
    assert_eq!(replica.get(b"a").unwrap(), None);
    drop(prepared);
    assert_eq!(replica.head().0, Seq(0));
    replica.apply(&record(1, &rows)).unwrap();
    assert_eq!(replica.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn nothing_is_written_in_the_clear() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    replica.apply(&record(1, &vec![put(b"canary-key", &b"canary-value".repeat(2000))])).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let bytes = fs::read(with_suffix(&fixture.path, suffix)).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{suffix}");
    }
    assert!(!fs::read(&fixture.path).unwrap().starts_with(b"SQLite format 3"));
}

#[test]
fn a_file_of_another_key_or_version_is_damaged() {
    let fixture = Fixture::new();
    drop(fixture.open());
    assert!(is_damaged(Replica::open(&fixture.path, &Key::from_bytes([1; 32]))));

    let db = sqlite::open(&fixture.path, &key(), 100).unwrap();
    db.execute_batch("PRAGMA user_version = 999").unwrap();
    drop(db);
    assert!(is_damaged(Replica::open(&fixture.path, &key())));

    fs::write(&fixture.path, b"something else altogether".repeat(1000)).unwrap();
    assert!(is_damaged(Replica::open(&fixture.path, &key())));
    Replica::delete(&fixture.path).unwrap();
    assert_eq!(fixture.open().head().0, Seq(0));
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_and_never_returned() {
    let fixture = Fixture::new();
    let rows: Changes = (0..2000u32).map(|i| put(&i.to_be_bytes(), &[i as u8; 50])).collect();
    fixture.open().apply(&record(1, &rows)).unwrap();
    // Closing the last connection moved the write-ahead log into the file.
    let good = fs::read(&fixture.path).unwrap();
    let pages = good.len() / 4096;
    assert!(pages > 20 && !with_suffix(&fixture.path, "-wal").exists());
    for page in 0..pages {
        let mut bad = good.clone();
        bad[page * 4096 + 100 + page * 37 % 3900] ^= 1;
        Replica::delete(&fixture.path).unwrap();
        fs::write(&fixture.path, &bad).unwrap();
        let Ok(replica) = Replica::open(&fixture.path, &key()) else {
            assert!(is_damaged(Replica::open(&fixture.path, &key())), "page {page}");
            continue;
        };
        assert!(is_damaged(replica.quick_check()), "page {page}");
        match replica.scan(b"", None, usize::MAX) {
            Ok(all) => assert!(all.iter().cloned().eq(rows.iter().cloned().map(|(k, v)| (k, v.unwrap())))),
            Err(error) => assert!(is_damaged::<()>(Err(error)), "page {page}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_the_record_and_loses_nothing() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    replica.apply(&record(1, &vec![put(b"a", b"1")])).unwrap();
    let limit = |pages: u32| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        replica.writer.lock().db.query_row(&sql, [], |_| Ok(())).unwrap();
    };
    limit(20);
    let large: Changes = (0..100u8).map(|i| put(&[b'x', i], &[i; 3000])).collect();
    assert!(matches!(replica.apply(&record(2, &large)), Err(MetaError::DiskFull { .. })));
    assert_eq!(replica.head().0, Seq(1));
    assert_eq!(replica.scan(b"", None, 9).unwrap().len(), 1);
    limit(1 << 20);
    replica.apply(&record(2, &large)).unwrap();
    assert_eq!(replica.scan(b"", None, 999).unwrap().len(), 101);
}

#[test]
fn a_missing_folder_is_an_io_error_with_the_path() {
    let error = Replica::open(Path::new("/nonexistent/replica.db"), &key()).err().unwrap();
    assert!(matches!(error, MetaError::Io { .. }));
    assert!(error.to_string().contains("/nonexistent/replica.db"));
}

#[test]
fn chunks_are_found_by_content_until_removed_or_forgotten() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    let (key_1, row_1, id_1) = chunk(1, b"one");
    let (key_2, row_2, id_2) = chunk(2, b"two");
    let rows = vec![(key_1.clone(), Some(row_1.clone())), (key_2, Some(row_2))];
    replica.apply(&record(1, &rows)).unwrap();
    assert_eq!(replica.chunk_by_prefix(&id_1).unwrap(), Some(ChunkNo(1)));
    replica.forget_dedup(&id_2).unwrap();
    assert_eq!(replica.chunk_by_prefix(&id_2).unwrap(), None);
    // A newer chunk has the same content: removing the old one must not forget the new one.
    let again = RowKey::Chunk(ChunkNo(3)).encode();
    replica.apply(&record(2, &vec![(again.clone(), Some(row_1))])).unwrap();
    replica.apply(&record(3, &vec![(key_1, None)])).unwrap();
    assert_eq!(replica.chunk_by_prefix(&id_1).unwrap(), Some(ChunkNo(3)));
    replica.apply(&record(4, &vec![(again, None)])).unwrap();
    assert_eq!(replica.chunk_by_prefix(&id_1).unwrap(), None);
}

#[test]
fn the_largest_slot_is_found() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    assert_eq!(replica.max_device_slot().unwrap(), None);
    let device = |slot| put(&RowKey::Device(DeviceSlot(slot)).encode(), b"");
    replica.apply(&record(1, &vec![device(2), device(300), put(b"W", b"")])).unwrap();
    assert_eq!(replica.max_device_slot().unwrap(), Some(DeviceSlot(300)));
}

#[test]
fn what_files_take_is_counted_and_kept() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    replica.apply(&record(1, &vec![inode_row(1, 100), inode_row(2, 50)])).unwrap();
    assert_eq!(replica.usage(), Usage { inodes: 2, bytes: 150 });
    let gone = (inode_row(2, 0).0, None);
    replica.apply(&record(2, &vec![inode_row(1, 30), gone, inode_row(3, 1)])).unwrap();
    drop(replica.prepare(&record(3, &vec![inode_row(9, 9)])).unwrap());
    assert_eq!(replica.usage(), Usage { inodes: 2, bytes: 31 });
    drop(replica);
    assert_eq!(fixture.open().usage(), Usage { inodes: 2, bytes: 31 });

    let mut load = Replica::bulk_load(&fixture.path, &key()).unwrap();
    let (key, row) = inode_row(5, 7);
    load.push(&key, &row.unwrap()).unwrap();
    let replica = load.finish((Seq(9), Hash::ZERO), &LoadedHead::default()).unwrap();
    assert_eq!(replica.usage(), Usage { inodes: 1, bytes: 7 });
}

#[test]
fn a_snapshot_keeps_its_state() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    let rows: Changes = (0..10_000u32).map(|i| put(&i.to_be_bytes(), b"old")).collect();
    replica.apply(&record(1, &rows)).unwrap();
    let snapshot = replica.snapshot().unwrap();
    replica.apply(&record(2, &vec![put(&5u32.to_be_bytes(), b"new"), (6u32.to_be_bytes().to_vec(), None)])).unwrap();
    assert_eq!(snapshot.head(), (Seq(1), Hash([1; 32])));
    let dumped: Vec<_> = snapshot.dump(b"", None).collect::<Result<_, _>>().unwrap();
    assert!(dumped.iter().cloned().eq(rows.into_iter().map(|(key, value)| (key, value.unwrap()))));
    let (start, end) = (5u32.to_be_bytes(), 7u32.to_be_bytes());
    assert_eq!(snapshot.dump(&start, Some(&end)).count(), 2);
    assert_eq!(snapshot.high_waters().unwrap(), [(INCARNATION, IntentNo(10), Hash([2; 32]))]);
    assert_eq!(replica.snapshot().unwrap().dump(&start, Some(&end)).count(), 1);
}

fn segment(first: &[u8], last: &[u8]) -> Segment {
    let (first, last) = (first.to_vec(), last.to_vec());
    Segment { id: SegmentId([first[0]; 16]), first, last, rows: 1, len: 2, hash: Hash([3; 32]) }
}

#[test]
fn changed_segments_are_known_across_checkpoints_and_reopening() {
    let fixture = Fixture::new();
    let replica = fixture.open();
    replica.apply(&record(1, &vec![put(b"b", b""), put(b"m", b""), put(b"x", b"")])).unwrap();
    let three = [segment(b"b", b"c"), segment(b"m", b"n"), segment(b"x", b"y")];
    replica.checkpointed(Seq(1), &three, &[(Seq(1), Hash([1; 32]))]).unwrap();
    let touched = |replica: &Replica| -> Vec<bool> {
        replica.snapshot().unwrap().segments().unwrap().into_iter().map(|(_, touched)| touched).collect()
    };
    assert_eq!(touched(&replica), [false, false, false]);
    assert_eq!(replica.log_len().unwrap(), 0);

    // Before all segments is the first's, a gap is that of the segment before it.
    replica.apply(&record(2, &vec![put(b"a", b"")])).unwrap();
    assert_eq!(touched(&replica), [true, false, false]);
    replica.apply(&record(3, &vec![put(b"q", b"")])).unwrap();
    assert_eq!(touched(&replica), [true, true, false]);
    // A record that is rolled back changes nothing.
    drop(replica.prepare(&record(4, &vec![put(b"z", b"")])).unwrap());
    assert_eq!(touched(&replica), [true, true, false]);
    drop(replica);
    let replica = fixture.open();
    assert_eq!(touched(&replica), [true, true, false]);
    assert_eq!(replica.log_len().unwrap(), 200);

    // A checkpoint of record 2 does not hold record 3, which changed something between "m" and "x".
    let other = [segment(b"a", b"n"), segment(b"r", b"s"), segment(b"x", b"z")];
    replica.checkpointed(Seq(2), &other, &[(Seq(2), Hash([2; 32]))]).unwrap();
    assert_eq!(touched(&replica), [true, true, false]);
    assert_eq!(replica.log_len().unwrap(), 100);
    assert_eq!(replica.checkpoint().unwrap(), Seq(2));
    let heads: Vec<u64> = replica.snapshot().unwrap().past_heads().unwrap().iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(heads, [2, 3]);
}

#[test]
fn a_bulk_load_takes_the_old_files_place_only_when_finished() {
    let fixture = Fixture::new();
    fixture.open().apply(&record(1, &vec![put(b"old", b"1")])).unwrap();
    let (chunk_key, chunk_row, id) = chunk(9, b"content");

    let mut load = Replica::bulk_load(&fixture.path, &key()).unwrap();
    load.push(b"half", b"").unwrap();
    drop(load);
    assert_eq!(fixture.open().head().0, Seq(1));

    let mut load = Replica::bulk_load(&fixture.path, &key()).unwrap();
    load.push(&chunk_key, &chunk_row).unwrap();
    load.push(b"new", b"2").unwrap();
    let rest = LoadedHead {
        segments: vec![segment(b"C", b"new")],
        high_waters: vec![(INCARNATION, IntentNo(5), Hash([6; 32]))],
        past: vec![(Seq(20), Hash([20; 32]))],
        epoch: Epoch(3),
    };
    let replica = load.finish((Seq(40), Hash([40; 32])), &rest).unwrap();
    assert_eq!(replica.head(), (Seq(40), Hash([40; 32])));
    assert_eq!(replica.epoch(), Epoch(3));
    assert_eq!(replica.get(b"old").unwrap(), None);
    assert_eq!(replica.get(b"new").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(replica.chunk_by_prefix(&id).unwrap(), Some(ChunkNo(9)));
    assert_eq!(replica.high_water(&INCARNATION).unwrap(), Some((IntentNo(5), Hash([6; 32]))));
    assert_eq!(replica.past_head(Seq(20)).unwrap(), Some(Hash([20; 32])));
    assert_eq!(replica.snapshot().unwrap().segments().unwrap(), [(segment(b"C", b"new"), false)]);
    replica.apply(&record(41, &vec![put(b"old", b"3")])).unwrap();
    drop(replica);
    let replica = fixture.open();
    assert_eq!((replica.head().0, replica.get(b"old").unwrap()), (Seq(41), Some(b"3".to_vec())));
}

#[test]
fn a_bulk_load_refuses_a_key_twice() {
    let fixture = Fixture::new();
    let mut load = Replica::bulk_load(&fixture.path, &key()).unwrap();
    load.push(b"a", b"1").unwrap();
    assert!(load.push(b"a", b"2").is_err());
}

/// Prints how fast it is; on a busy machine that says little, so nothing is asserted.
#[test]
fn speeds() {
    const ROWS: u64 = 100_000;
    let fixture = Fixture::new();
    let inode = |i: u64| RowKey::Inode(InodeId(i)).encode();
    let started = Instant::now();
    let mut load = Replica::bulk_load(&fixture.path, &key()).unwrap();
    for i in 0..ROWS {
        load.push(&inode(i), &[i as u8; 60]).unwrap();
    }
    let replica = load.finish((Seq(1), Hash::ZERO), &LoadedHead::default()).unwrap();
    let loaded = started.elapsed();
    let started = Instant::now();
    for i in 0..ROWS {
        assert!(replica.get(&inode(i * 7919 % ROWS)).unwrap().is_some());
    }
    let got = started.elapsed();
    let started = Instant::now();
    for seq in 2..12 {
        let rows: Changes = (0..5000).map(|i| put(&inode(seq * ROWS + i), &[1; 60])).collect();
        replica.apply(&record(seq, &rows)).unwrap();
    }
    let applied = started.elapsed();
    println!(
        "bulk load {:.0} rows/s, get {:.1} µs, apply {:.0} rows/s",
        ROWS as f64 / loaded.as_secs_f64(),
        got.as_secs_f64() * 1e6 / ROWS as f64,
        50_000.0 / applied.as_secs_f64()
    );
}
