use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::*;
use crate::base::{ByteRange, Epoch, Hash, Incarnation, InodeId, IntentNo, KeyNo, Name, PackNo, Seq, Timestamp};
use crate::format::rows::{DirentRow, EXTENT_WINDOW_LEN, Extent, InodeBody, InodeRow, XattrName, encode_window, mode};

struct Fixture {
    _folder: TempDir,
    view: View,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let key = Key::from_bytes([3; 32]);
        let replica = Arc::new(Replica::open(&folder.path().join("replica.db"), &key).unwrap());
        let view = View::new(replica, &folder.path().join("overlay.db"), &key).unwrap();
        Self { _folder: folder, view }
    }

    fn commit(&self, rows: &RowChanges, generation: Option<GenerationNo>) {
        self.view.absorb(&self.record(rows), generation).unwrap();
    }

    fn record<'a>(&self, rows: &'a RowChanges) -> RecordApply<'a> {
        RecordApply {
            seq: Seq(self.view.replica().head().0.0 + 1),
            hash: Hash::ZERO,
            epoch: Epoch(0),
            next_epoch: None,
            incarnation: Incarnation([0; 16]),
            high_water: IntentNo(0),
            high_water_hash: Hash::ZERO,
            rows,
            record_len: 1,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Layer),
    Freeze,
    /// The oldest generation, in one step or in two.
    Commit {
        two_steps: bool,
    },
    /// Two generations by one record.
    CommitTwo,
    /// Another device's record.
    Foreign(Layer),
    Clear,
    Get(Vec<u8>),
    Scan {
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    },
}

/// Few keys, so that layers hide one another, and some that are prefixes of others.
fn key_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff)], 1..4)
}

fn changes() -> impl Strategy<Value = Layer> {
    let value = proptest::option::weighted(0.6, proptest::collection::vec(any::<u8>(), 0..3));
    proptest::collection::btree_map(key_bytes(), value, 1..12)
}

fn step() -> impl Strategy<Value = Step> {
    let prefix = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff)], 0..3);
    prop_oneof![
        6 => changes().prop_map(Step::Apply),
        6 => Just(Step::Freeze),
        3 => any::<bool>().prop_map(|two_steps| Step::Commit { two_steps }),
        1 => Just(Step::CommitTwo),
        2 => changes().prop_map(Step::Foreign),
        1 => Just(Step::Clear),
        4 => key_bytes().prop_map(Step::Get),
        6 => (prefix, proptest::option::of(key_bytes()), 1..40usize)
            .prop_map(|(prefix, after, limit)| Step::Scan { prefix, after, limit }),
    ]
}

#[derive(Default)]
struct Model {
    replica: BTreeMap<Vec<u8>, Vec<u8>>,
    frozen: Vec<(GenerationNo, Layer)>,
    active: Layer,
}

impl Model {
    fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = self.replica.clone();
        for (_, layer) in &self.frozen {
            put(&mut rows, layer);
        }
        put(&mut rows, &self.active);
        rows
    }
}

fn put(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, layer: &Layer) {
    for (key, value) in layer {
        match value {
            Some(value) => drop(rows.insert(key.clone(), value.clone())),
            None => drop(rows.remove(key)),
        }
    }
}

fn list(layer: &Layer) -> RowChanges {
    layer.clone().into_iter().collect()
}

fn run(fixture: &Fixture, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let view = &fixture.view;
    match step {
        Step::Apply(changes) => {
            view.apply(list(&changes));
            model.active.extend(changes);
        }
        Step::Freeze => {
            let frozen = view.freeze();
            prop_assert_eq!(frozen.is_some(), !model.active.is_empty());
            if let Some(no) = frozen {
                prop_assert!(model.frozen.iter().all(|(older, _)| *older < no));
                model.frozen.push((no, std::mem::take(&mut model.active)));
            }
        }
        Step::Commit { two_steps } if !model.frozen.is_empty() => {
            let (no, layer) = model.frozen.remove(0);
            let rows = view.generation_rows(no).unwrap();
            prop_assert_eq!(&rows, &list(&layer));
            if two_steps {
                view.replica().apply(&fixture.record(&rows)).unwrap();
                view.committed(no).unwrap();
            } else {
                fixture.commit(&rows, Some(no));
            }
            prop_assert!(view.generation_rows(no).unwrap().is_empty());
            put(&mut model.replica, &layer);
        }
        Step::CommitTwo if model.frozen.len() >= 2 => {
            let (_, mut merged) = model.frozen.remove(0);
            let (no, layer) = model.frozen.remove(0);
            merged.extend(layer);
            fixture.commit(&list(&merged), Some(no));
            put(&mut model.replica, &merged);
        }
        Step::Commit { .. } | Step::CommitTwo => {}
        Step::Foreign(changes) => {
            fixture.commit(&list(&changes), None);
            put(&mut model.replica, &changes);
        }
        Step::Clear => {
            view.clear().unwrap();
            (model.active, model.frozen) = Default::default();
        }
        Step::Get(key) => prop_assert_eq!(view.get(&key).unwrap(), model.rows().get(&key).cloned()),
        Step::Scan { prefix, after, limit } => {
            let rows = model.rows();
            let expected = rows
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after))
                .take(limit);
            let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(view.scan(&prefix, after.as_deref(), limit).unwrap(), expected);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_view_is_its_replica_under_its_generations(steps in proptest::collection::vec(step(), 1..120)) {
        let fixture = Fixture::new();
        let mut model = Model::default();
        for step in steps {
            run(&fixture, &mut model, step)?;
        }
        let all: Vec<_> = model.rows().into_iter().collect();
        for (key, value) in &all {
            prop_assert_eq!(fixture.view.get(key).unwrap(), Some(value.clone()));
        }
        prop_assert_eq!(fixture.view.scan(b"", None, usize::MAX).unwrap(), all);
        let stats = fixture.view.stats();
        prop_assert_eq!(stats.frozen_generations, model.frozen.len());
        prop_assert_eq!(stats.spilled_generations, model.frozen.len().saturating_sub(HELD_GENERATIONS_MAX));
    }

    #[test]
    fn merged_pages_are_exact_across_limits(
        layers in proptest::collection::vec(proptest::collection::btree_map(
            0..500u16, proptest::option::weighted(0.3, Just(())), 0..300), 1..5),
        limit in 1..200usize,
        start in any::<Index>(),
    ) {
        let layers: Vec<Layer> = layers
            .into_iter()
            .map(|rows| rows.into_iter().map(|(k, v)| (k.to_be_bytes().to_vec(), v.map(|()| Vec::new()))).collect())
            .collect();
        let mut rows = BTreeMap::new();
        layers.iter().rev().for_each(|layer| put(&mut rows, layer));
        let after = (start.index(500) as u16).to_be_bytes();
        let expected: Vec<_> = rows.into_iter().filter(|(key, _)| key[..] > after[..]).take(limit).collect();
        let got = merge(Some(&after), limit, layers.len(), |layer, after, want| {
            Ok(layer_page(&layers[layer], b"", after, want))
        });
        prop_assert_eq!(got.unwrap(), expected);
    }
}

#[test]
fn a_large_generation_goes_to_the_file_and_comes_back_whole() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let row = |i: u32| (i.to_be_bytes().to_vec(), (!i.is_multiple_of(7)).then(|| vec![i as u8; 20]));
    let rows: RowChanges = (0..HELD_ROWS_MAX as u32 + 1).map(row).collect();
    view.apply(rows.clone());
    let no = view.freeze().unwrap();
    assert_eq!(view.stats().spilled_generations, 1);
    assert_eq!(view.get(&8u32.to_be_bytes()).unwrap(), Some(vec![8; 20]));
    assert_eq!(view.get(&7u32.to_be_bytes()).unwrap(), None);
    assert!(view.generation_rows(no).unwrap() == rows);
    fixture.commit(&rows, Some(no));
    assert_eq!(view.stats().frozen_generations, 0);
    assert_eq!(view.spill.rows(no).unwrap(), []);
    assert_eq!(view.get(&8u32.to_be_bytes()).unwrap(), Some(vec![8; 20]));
}

#[test]
fn a_full_disk_keeps_generations_in_memory_and_tries_again() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    view.spill.limit_pages(10);
    for i in 0..5u8 {
        view.apply(vec![(vec![i], Some(vec![i; 40_000]))]);
        view.freeze().unwrap();
    }
    assert_eq!((view.stats().frozen_generations, view.stats().spilled_generations), (5, 0));
    view.spill.limit_pages(1 << 20);
    view.apply(vec![(vec![5], Some(vec![5; 40_000]))]);
    view.freeze().unwrap();
    assert_eq!(view.stats().spilled_generations, 4);
    for i in 0..6u8 {
        assert_eq!(view.get(&[i]).unwrap(), Some(vec![i; 40_000]));
    }
}

/// A writer sets two keys to one value, and generations are frozen, spilled and committed under the readers.
#[test]
fn readers_see_changes_whole() {
    const ROUNDS: u32 = 400;
    let fixture = Fixture::new();
    let view = &fixture.view;
    let (a, z) = (b"ka".to_vec(), b"kz".to_vec());
    let pair = |value: u32| {
        let value = Some(value.to_be_bytes().to_vec());
        vec![(a.clone(), value.clone()), (z.clone(), value)]
    };
    view.apply(pair(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = vec![0; 4];
                while !done.load(Ordering::Relaxed) {
                    let rows = view.scan(b"k", None, 9).unwrap();
                    assert_eq!(rows.len(), 2);
                    assert_eq!(rows[0].1, rows[1].1);
                    assert!(rows[0].1 >= last, "a committing generation was in neither place");
                    last.clone_from(&rows[0].1);
                    let reader = view.read();
                    assert_eq!(reader.get(&a).unwrap(), reader.get(&z).unwrap());
                }
            });
        }
        for round in 1..ROUNDS {
            view.apply(pair(round));
            view.freeze().unwrap();
            // In bursts, so that some are spilled.
            if round % 8 == 0 {
                let frozen: Vec<_> = view.layers.read().frozen.iter().map(|generation| generation.no).collect();
                for no in frozen {
                    fixture.commit(&view.generation_rows(no).unwrap(), Some(no));
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn chunks_are_found_by_content_while_pending_and_when_committed() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let id = ChunkId([9; 32]);
    let row = ChunkRow { pack: PackNo(1), offset: 0, len: 5, key: KeyNo(1), id, frames: vec![22] };
    let rows = vec![(RowKey::Chunk(ChunkNo(4)).encode(), Some(row.encode()))];
    assert_eq!(view.find_chunk(&id).unwrap(), None);
    view.apply(rows.clone());
    assert_eq!(view.find_chunk(&id).unwrap(), Some((ChunkNo(4), row.clone())));
    // The same first bytes are not the same content.
    let mut other = id;
    other.0[31] = 0;
    assert_eq!(view.find_chunk(&other).unwrap(), None);
    let no = view.freeze().unwrap();
    fixture.commit(&rows, Some(no));
    view.recent.lock().clear();
    assert_eq!(view.find_chunk(&id).unwrap(), Some((ChunkNo(4), row)));
    view.forget_dedup(&id).unwrap();
    assert_eq!(view.find_chunk(&id).unwrap(), None);
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn a_directory_is_listed_by_cookie_in_pages() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let dir = InodeId(1);
    let entry = |i: u64| {
        let row = DirentRow { ino: InodeId(100 + i), file_type: mode::FILE };
        (RowKey::Dirent(dir, name(&format!("f{i}"))).encode(), Some(row.encode()))
    };
    assert!(view.dir_is_empty(dir).unwrap());
    fixture.commit(&(0..50).map(entry).collect(), None);
    view.apply((50..100).map(entry).collect());
    view.apply((0..100).step_by(5).map(|i| (entry(i).0, None)).collect());
    let other = RowKey::Dirent(InodeId(2), name("other")).encode();
    view.apply(vec![(other, entry(0).1)]);
    assert!(!view.dir_is_empty(dir).unwrap());

    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let page = view.dir_page(dir, after, 7).unwrap();
        let Some((last, ..)) = page.last() else { break };
        assert!(page.iter().all(|(cookie, ..)| *cookie > after) && page.is_sorted_by_key(|(cookie, ..)| *cookie));
        after = *last;
        seen.extend(page.into_iter().map(|(_, _, row)| row.ino.0 - 100));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq((0..100).filter(|i: &u64| !i.is_multiple_of(5))));
    assert_eq!(view.dir_page(dir, u64::MAX, 7).unwrap(), []);
}

#[test]
fn extents_come_from_the_inode_or_its_windows() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let ino = InodeId(5);
    let at = |offset: u64| Extent { offset, len: 100, chunk: ChunkNo(1), chunk_offset: 0 };
    let time = Timestamp::default();
    let row = |inline| InodeRow {
        mode: mode::FILE | 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        nlink: 1,
        size: 1 << 40,
        allocated: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 0,
        key: None,
        body: InodeBody::File(inline),
    };
    let inline = row(vec![at(0), at(200)]);
    let windows = [1, 2, 300];
    let windows =
        windows.map(|w| (RowKey::Extents(ino, w).encode(), Some(encode_window(&[at(w * EXTENT_WINDOW_LEN)]))));
    view.apply(windows.into());
    view.apply(vec![(RowKey::Inode(ino).encode(), Some(inline.encode()))]);
    let starts = |start, end| -> Vec<u64> {
        let extents = view.extents(ino, &inline, ByteRange::new(start, end)).unwrap();
        extents.iter().map(|extent| extent.offset).collect()
    };
    assert_eq!(view.inode(ino).unwrap().as_ref(), Some(&inline));
    assert_eq!(starts(0, 1 << 50), [0, 200, 1 << 26, 2 << 26, 300 << 26]);
    assert_eq!(starts(99, 201), [0, 200]);
    assert!(starts(100, 200).is_empty());
    assert_eq!(starts(200, 1 << 26), [200]);
    assert_eq!(starts((1 << 26) + 99, (2 << 26) + 1), [1 << 26, 2 << 26]);
    assert!(starts(5, 5).is_empty());
    // With more extents the first window has a row of its own.
    let moved = row(Vec::new());
    view.apply(vec![(RowKey::Extents(ino, 0).encode(), Some(encode_window(&[at(50)])))]);
    assert_eq!(view.extents(ino, &moved, ByteRange::new(0, 1000)).unwrap(), [at(50)]);
}

#[test]
fn names_and_attributes_are_listed() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let ino = InodeId(5);
    let attribute = |text: &str| XattrName::parse(text).unwrap();
    view.apply(vec![
        (RowKey::Backref(ino, InodeId(2), name("b")).encode(), Some(Vec::new())),
        (RowKey::Backref(ino, InodeId(1), name("a")).encode(), Some(Vec::new())),
        (RowKey::Backref(InodeId(6), InodeId(1), name("c")).encode(), Some(Vec::new())),
        (RowKey::Xattr(ino, attribute("user.x")).encode(), Some(b"1".to_vec())),
        (RowKey::Xattr(ino, attribute("user.y")).encode(), Some(Vec::new())),
    ]);
    assert_eq!(view.backrefs(ino).unwrap(), [(InodeId(1), name("a")), (InodeId(2), name("b"))]);
    assert_eq!(view.xattrs(ino).unwrap(), [attribute("user.x"), attribute("user.y")]);
    assert_eq!(view.xattr(ino, &attribute("user.x")).unwrap(), Some(b"1".to_vec()));
    assert_eq!(view.xattr(ino, &attribute("user.z")).unwrap(), None);
}

fn file_of(allocated: u64) -> Vec<u8> {
    let time = Timestamp::default();
    let row = InodeRow {
        mode: mode::FILE | 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        nlink: 1,
        size: allocated,
        allocated,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 0,
        key: None,
        body: InodeBody::File(Vec::new()),
    };
    row.encode()
}

#[test]
fn usage_counts_what_is_pending_and_not_twice_what_is_committed() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let inode = |number: u64| RowKey::Inode(InodeId(number)).encode();
    let usage = |inodes, bytes| assert_eq!(view.usage(), Usage { inodes, bytes });
    fixture.commit(&vec![(inode(1), Some(file_of(100))), (inode(2), Some(file_of(50)))], None);
    usage(2, 150);
    view.apply(vec![(inode(1), Some(file_of(300))), (inode(3), Some(file_of(7)))]);
    usage(3, 357);
    let first = view.freeze().unwrap();
    view.apply(vec![(inode(3), None), (inode(1), Some(file_of(200)))]);
    usage(2, 250);
    fixture.commit(&view.generation_rows(first).unwrap(), Some(first));
    usage(2, 250);
    let second = view.freeze().unwrap();
    usage(2, 250);
    fixture.commit(&view.generation_rows(second).unwrap(), Some(second));
    usage(2, 250);
    assert_eq!(view.replica().usage(), Usage { inodes: 2, bytes: 250 });
    view.apply(vec![(inode(9), Some(file_of(1)))]);
    view.clear().unwrap();
    usage(2, 250);
}

/// In memory, in the file, and in what is no generation yet.
#[test]
fn what_another_device_said_of_a_link_is_in_what_is_pending_of_it() {
    use crate::base::{LinkId, SystemEntropy};
    use crate::format::link::{LinkKeys, LinkState};
    let fixture = Fixture::new();
    let view = &fixture.view;
    let key = RowKey::Link(LinkId([1; 16])).encode();
    let row = |state, live, newest| {
        let (path, created) = (b"path".as_slice().into(), Timestamp::new(1, 0));
        let title = Name::parse("title").unwrap();
        LinkRow { state, inode: InodeId(5), path, title, live, created, expiry: None, newest, files: newest, bytes: 0 }
    };
    let first = row(LinkState::Published(LinkKeys::generate(None, &SystemEntropy)), true, 0).encode();
    let published = |newest| LinkRow { newest, files: newest, ..LinkRow::decode(&first).unwrap() };
    let mut frozen = Vec::new();
    for newest in 1..=4 {
        view.apply(vec![(key.clone(), Some(published(newest).encode().to_vec()))]);
        frozen.push(view.freeze().unwrap());
    }
    view.apply(vec![(key.clone(), Some(published(5).encode().to_vec()))]);
    assert_eq!(view.stats().spilled_generations, 2);
    let said = |rows: RowChanges| LinkRow::decode(rows[0].1.as_deref().unwrap()).unwrap();
    let pending = || {
        let frozen = frozen.iter().map(|no| said(view.generation_rows(*no).unwrap()));
        frozen.chain([said(view.active_rows())]).collect::<Vec<_>>()
    };
    // The newer version counts, whoever made it.
    let theirs = vec![(key.clone(), Some(published(3).encode().to_vec()))];
    fixture.commit(&theirs, None);
    assert_eq!(
        pending().iter().map(|row| (row.newest, row.files)).collect::<Vec<_>>(),
        [3, 3, 3, 4, 5].map(|n| (n, n))
    );
    assert_eq!(LinkRow::decode(&view.get(&key).unwrap().unwrap()).unwrap(), published(5));
    // And what was taken back stays so.
    fixture.commit(&vec![(key.clone(), Some(row(LinkState::Revoked, false, 4).encode().to_vec()))], None);
    assert!(pending().iter().all(|row| row.state == LinkState::Revoked && !row.live));
    assert_eq!(pending().iter().map(|row| row.newest).collect::<Vec<_>>(), [4, 4, 4, 4, 5]);
    // A record of this device's own is what was pending.
    let own = view.generation_rows(frozen[0]).unwrap();
    fixture.commit(&own, Some(frozen[0]));
    assert_eq!(view.generations(), frozen[1..]);
}

#[test]
fn files_that_are_pending_are_counted_as_they_change() {
    let fixture = Fixture::new();
    let view = &fixture.view;
    let file = |ino: u64, len| (RowKey::Inode(InodeId(ino)).encode(), Some(file_of(len)));
    view.apply(vec![file(5, 1), file(6, 1), file(5, 2)]);
    assert_eq!(view.stats().files, 2);
    view.apply(vec![(RowKey::Inode(InodeId(5)).encode(), None)]);
    assert_eq!(view.stats().files, 1);
    view.freeze().unwrap();
    assert!(view.is_still());
    view.apply(vec![file(6, 3)]);
    assert_eq!((view.stats().files, view.is_still()), (2, false));
    view.clear().unwrap();
    assert_eq!(view.stats().files, 0);
}
