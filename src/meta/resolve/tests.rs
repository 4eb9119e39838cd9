//! Random intents against a small tree in memory that knows POSIX's rules and nothing of rows.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use self::model::{Model, Refused, UNIT};
use super::*;
use crate::base::{ByteRange, ChunkId, KeyNo, PackNo};
use crate::content::extent::allocated;
use crate::format::intent::{Change, Entry, NewInode};
use crate::format::rows::{
    ChunkRow, DirentRow, EXTENT_WINDOW_LEN, Extent, FRAME_OVERHEAD, INLINE_EXTENTS_MAX, InodeBody, mode,
};
use crate::meta::overlay::{Layer, layer_page};

#[derive(Default)]
struct Tree(Layer);

impl Rows for Tree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        Ok(self.0.get(key).cloned().flatten())
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        let rows = layer_page(&self.0, prefix, after, limit);
        Ok(rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

/// The chunks that there are: 1 to this.
const CHUNKS: u64 = 30;

impl Tree {
    /// An empty root directory, and chunks of two units each.
    fn new() -> Self {
        let mut tree = Self::default();
        let root = NewInode { mode: mode::DIR | 0o755, uid: 0, gid: 0, rdev: 0, time: time(0), target: None };
        tree.put(&RowKey::Inode(InodeId::ROOT), names::new_row(&root).unwrap().encode());
        for no in 1..=CHUNKS {
            let len = 2 * UNIT as u32;
            let frames = vec![FRAME_OVERHEAD + 1; len as usize >> 16];
            let row = ChunkRow { pack: PackNo(1), offset: 0, len, key: KeyNo(1), id: ChunkId([0; 32]), frames };
            tree.put(&RowKey::Chunk(ChunkNo(no)), row.encode());
        }
        tree
    }

    fn put(&mut self, key: &RowKey, value: Vec<u8>) {
        self.0.insert(key.encode(), Some(value));
    }

    /// Strict: a removed row must have been there, a row is put only if it changes.
    fn apply(&mut self, changes: RowChanges) {
        for (key, value) in changes {
            match value {
                Some(value) => {
                    validate(&key, &value).unwrap();
                    self.0.insert(key, Some(value));
                }
                None => assert!(self.0.remove(&key).is_some(), "a row that is not there was removed"),
            }
        }
    }

    fn resolve(&mut self, intent: &Intent) -> Result<(), ResolveError> {
        let changes = resolve(intent, self)?;
        assert!(changes.is_sorted_by(|a, b| a.0 < b.0));
        self.apply(changes);
        Ok(())
    }

    /// What this module promises of the rows it returns.
    fn check(&self) {
        let mut inodes = BTreeMap::new();
        let (mut names, mut backrefs) = (BTreeSet::new(), BTreeSet::new());
        let mut extents: BTreeMap<InodeId, Vec<Extent>> = BTreeMap::new();
        let mut owners = BTreeSet::new();
        for (key, value) in &self.0 {
            let value = value.as_ref().unwrap();
            match RowKey::decode(key).unwrap() {
                RowKey::Inode(ino) => {
                    inodes.insert(ino, InodeRow::decode(value).unwrap());
                }
                RowKey::Extents(ino, window) => {
                    let list = crate::format::rows::decode_window(window, value).unwrap();
                    assert!(!list.is_empty(), "an empty window has a row");
                    assert!(window > 0 || list.len() > INLINE_EXTENTS_MAX, "the first window is not in the inode");
                    assert!(list[0].offset >= window * EXTENT_WINDOW_LEN);
                    extents.entry(ino).or_default().extend(list);
                    owners.insert(ino);
                }
                RowKey::Dirent(parent, name) => {
                    names.insert((DirentRow::decode(value).unwrap().ino, parent, name));
                }
                RowKey::Backref(ino, parent, name) => {
                    backrefs.insert((ino, parent, name));
                }
                RowKey::Xattr(ino, _) => {
                    owners.insert(ino);
                }
                RowKey::Chunk(_) | RowKey::FileKey(_) | RowKey::Pack(_) | RowKey::Device(_) | RowKey::Link(_) => {}
            }
        }
        assert_eq!(names, backrefs);
        assert!(owners.iter().all(|ino| inodes.contains_key(ino)), "rows of an inode that is gone");
        for (&ino, row) in &inodes {
            let links = backrefs.iter().filter(|(of, ..)| *of == ino).count();
            let inside = names.iter().filter(|(of, parent, _)| *parent == ino && inodes[of].is_dir()).count();
            match (row.is_dir(), ino) {
                (true, InodeId::ROOT) => assert_eq!(links, 0),
                (true, _) => assert_eq!(links, 1),
                (false, _) => assert_eq!(links, row.nlink as usize),
            }
            if row.is_dir() {
                assert_eq!(row.nlink as usize, 2 + inside);
            }
            if let InodeBody::File(inline) = &row.body {
                let mut all = inline.clone();
                assert!(inline.iter().all(|extent| extent.end() <= EXTENT_WINDOW_LEN));
                all.extend(extents.remove(&ino).unwrap_or_default());
                assert_eq!(row.allocated, allocated(&all));
                assert!(all.is_sorted_by(|a, b| a.end() <= b.offset));
                assert!(all.last().is_none_or(|last| last.end() <= row.size), "an extent beyond the size");
            }
        }
        assert!(extents.is_empty(), "extents of something that is no file");
        for &(ino, parent, ref name) in &names {
            assert!(inodes[&parent].is_dir());
            let entry = self.dirent(parent, name).unwrap().unwrap();
            assert_eq!(entry.file_type, inodes[&ino].mode & mode::TYPE);
            // Everything hangs on the root: no cycles, no islands.
            let (mut at, mut steps) = (parent, 0);
            while at != InodeId::ROOT {
                at = backrefs.iter().find(|(of, ..)| *of == at).unwrap().1;
                steps += 1;
                assert!(steps < 100, "a cycle");
            }
        }
    }

    /// As the model has it: where each unit of the file comes from.
    fn content(&self, ino: InodeId, size: u64) -> Vec<Option<(u64, u64)>> {
        let row = self.inode(ino).unwrap().unwrap();
        assert_eq!(row.size, size * UNIT);
        let mut units = vec![None; size as usize];
        for extent in self.extents(ino, &row, ByteRange::new(0, row.size)).unwrap() {
            for i in 0..u64::from(extent.len) / UNIT {
                let from = u64::from(extent.chunk_offset) / UNIT + i;
                units[(extent.offset / UNIT + i) as usize] = Some((extent.chunk.0, from));
            }
        }
        units
    }
}

fn time(secs: i64) -> Timestamp {
    Timestamp::new(secs, 0)
}

fn name(index: u8) -> Name {
    Name::parse(format!("n{index}")).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    Extent { at: u64, len: u64, chunk: u64, from: u64 },
    Hole { at: u64, len: u64 },
}

/// A place in the tree, chosen when the tree is known: mostly one that makes sense.
#[derive(Clone, Copy, Debug)]
struct Place(u8, u8);

impl Place {
    fn directory(self, model: &Model) -> u64 {
        let all = model.directories();
        if self.0 < 230 { all[usize::from(self.0) % all.len()] } else { u64::from(self.0) % INODES + 1 }
    }

    /// Where something could be put.
    fn any(self, model: &Model) -> (u64, u8) {
        (self.directory(model), self.1 % NAMES)
    }

    /// Where something is.
    fn taken(self, model: &Model) -> (u64, u8) {
        let names = model.names();
        match names.get(usize::from(self.0) % names.len().max(1)) {
            Some(&(parent, name, _)) if self.1 < 200 => (parent, name),
            _ => self.any(model),
        }
    }

    fn inode(self, model: &Model) -> u64 {
        let (parent, name) = self.taken(model);
        model.entry(parent, name).unwrap_or(u64::from(self.0) % INODES + 1)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        at: Place,
        kind: u32,
    },
    Link {
        ino: Place,
        at: Place,
    },
    Unlink {
        at: Place,
    },
    Rename {
        from: Place,
        to: Place,
    },
    RenameOver {
        from: Place,
        to: Place,
    },
    Exchange {
        a: Place,
        b: Place,
    },
    /// Names another inode than the entry has.
    Mistaken {
        at: Place,
        ino: u64,
    },
    SetXattr {
        ino: Place,
        name: u8,
        some: bool,
    },
    Write {
        file: usize,
        size: u64,
        pieces: Vec<Piece>,
    },
}

const NAMES: u8 = 4;
const INODES: u64 = 9;
/// More than three windows.
const UNITS: u64 = 400;

fn step() -> impl Strategy<Value = Step> {
    let place = || (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Place(a, b));
    let kind = prop_oneof![2 => Just(mode::DIR), 2 => Just(mode::FILE), 1 => Just(mode::LINK)];
    // Many extents near the start, so that the first window outgrows its inode and fits again.
    let at = || prop_oneof![2 => 0..30u64, 1 => 0..UNITS, 1 => 120..136u64];
    let piece = prop_oneof![
        5 => (at(), 1..=2u64, 1..=CHUNKS, 0..2u64)
            .prop_map(|(at, len, chunk, from)| Piece::Extent { at, len: len.min(2 - from), chunk, from }),
        1 => (at(), prop_oneof![1..8u64, 1..UNITS]).prop_map(|(at, len)| Piece::Hole { at, len }),
    ];
    let size = prop_oneof![2 => 20..30u64, 1 => 0..UNITS, 1 => Just(UNITS)];
    prop_oneof![
        8 => (place(), kind).prop_map(|(at, kind)| Step::Create { at, kind }),
        2 => (place(), place()).prop_map(|(ino, at)| Step::Link { ino, at }),
        3 => place().prop_map(|at| Step::Unlink { at }),
        3 => (place(), place()).prop_map(|(from, to)| Step::Rename { from, to }),
        3 => (place(), place()).prop_map(|(from, to)| Step::RenameOver { from, to }),
        3 => (place(), place()).prop_map(|(a, b)| Step::Exchange { a, b }),
        1 => (place(), 1..=INODES).prop_map(|(at, ino)| Step::Mistaken { at, ino }),
        1 => (place(), 0..2u8, any::<bool>()).prop_map(|(ino, name, some)| Step::SetXattr { ino, name, some }),
        6 => (0..9usize, size, proptest::collection::vec(piece, 1..14))
            .prop_map(|(file, size, pieces)| Step::Write { file, size, pieces }),
    ]
}

fn entry((parent, index): (u64, u8)) -> Entry {
    Entry { parent: InodeId(parent), name: name(index) }
}

/// The step as an intent, and what the model says of it.
fn perform(model: &mut Model, step: &Step, now: i64) -> Option<(Intent, Result<(), Refused>)> {
    let time = time(now);
    // What is not there is spoken of as inode 77.
    let there = |model: &Model, (parent, name): (u64, u8)| model.entry(parent, name).unwrap_or(77);
    Some(match *step {
        Step::Create { at, kind } => {
            let ino = (2..=INODES).find(|ino| !model.exists(*ino))?;
            let (parent, index) = at.any(model);
            let target = (kind == mode::LINK).then(|| b"target".to_vec().into());
            let node = NewInode { mode: kind | 0o644, uid: 1, gid: 2, rdev: 0, time, target };
            let intent = Intent::Create { parent: InodeId(parent), name: name(index), ino: InodeId(ino), node };
            (intent, model.create(parent, index, ino, kind))
        }
        Step::Link { ino, at } => {
            let (ino, (parent, index)) = (ino.inode(model), at.any(model));
            let intent = Intent::Link { ino: InodeId(ino), parent: InodeId(parent), name: name(index), time };
            (intent, model.link(ino, parent, index))
        }
        Step::Unlink { at } => {
            let (parent, index) = at.taken(model);
            let ino = InodeId(there(model, (parent, index)));
            let intent = Intent::Unlink { parent: InodeId(parent), name: name(index), ino, time };
            (intent, model.unlink(parent, index))
        }
        Step::Rename { from, to } | Step::RenameOver { from, to } => {
            let from = from.taken(model);
            let to = if matches!(step, Step::Rename { .. }) { to.any(model) } else { to.taken(model) };
            let ino = InodeId(there(model, from));
            let replaced = model.entry(to.0, to.1).map(InodeId);
            let intent = Intent::Rename { ino, from: entry(from), to: entry(to), replaced, time };
            (intent, model.rename(from, to))
        }
        Step::Exchange { a, b } => {
            let (a, b) = (a.taken(model), b.taken(model));
            let (a_ino, b_ino) = (InodeId(there(model, a)), InodeId(there(model, b)));
            let intent = Intent::Exchange { a: entry(a), a_ino, b: entry(b), b_ino, time };
            (intent, model.exchange(a, b))
        }
        Step::Mistaken { at, ino } => {
            let (parent, index) = at.taken(model);
            model.entry(parent, index).filter(|found| *found != ino)?;
            let intent = Intent::Unlink { parent: InodeId(parent), name: name(index), ino: InodeId(ino), time };
            (intent, Err(Refused::Other))
        }
        Step::SetXattr { ino, name, some } => {
            let ino = ino.inode(model);
            let value = some.then(|| vec![name].into());
            let name_bytes = XattrName::parse([b'a' + name]).unwrap();
            let intent = Intent::SetXattr { ino: InodeId(ino), name: name_bytes, value, time };
            (intent, model.set_xattr(ino, name, some))
        }
        Step::Write { file, size, ref pieces } => {
            let files = model.files();
            let ino = *files.get(file % files.len().max(1))?;
            let changes = pieces.iter().map(|piece| match *piece {
                Piece::Extent { at, len, chunk, from } => Change::Extent(Extent {
                    offset: at * UNIT,
                    len: (len * UNIT) as u32,
                    chunk: ChunkNo(chunk),
                    chunk_offset: (from * UNIT) as u32,
                }),
                Piece::Hole { at, len } => Change::Hole(ByteRange::at(at * UNIT, len * UNIT).unwrap()),
            });
            let (base, mtime, size_bytes) = (model.version(ino), time, size * UNIT);
            let changes = changes.collect();
            let intent = Intent::Write { ino: InodeId(ino), base, size: size_bytes, mtime, time, key: None, changes };
            model.write(ino, size, pieces);
            (intent, Ok(()))
        }
    })
}

fn refused(error: &ResolveError) -> Refused {
    match error {
        ResolveError::Missing(_) | ResolveError::MissingEntry { .. } | ResolveError::MissingXattr { .. } => {
            Refused::Missing
        }
        ResolveError::Exists { .. } => Refused::Exists,
        ResolveError::OtherEntry { .. } => Refused::Other,
        ResolveError::NotDirectory(_) => Refused::NotDirectory,
        ResolveError::IsDirectory(_) => Refused::IsDirectory,
        ResolveError::NotEmpty(_) => Refused::NotEmpty,
        ResolveError::Cycle { .. } => Refused::Cycle,
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rows_follow_the_tree(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut tree, mut model) = (Tree::new(), Model::new());
        for (now, step) in (1..).zip(&steps) {
            let before = tree.0.clone();
            let Some((intent, expected)) = perform(&mut model, step, now) else { continue };
            let got = tree.resolve(&intent);
            prop_assert_eq!(got.as_ref().copied().map_err(refused), expected, "{:?}: {:?}", intent, got);
            if got.is_err() {
                prop_assert_eq!(&tree.0, &before);
            }
            tree.check();
            for (parent, name_index, ino) in model.names() {
                let entry = tree.dirent(InodeId(parent), &name(name_index)).unwrap();
                prop_assert_eq!(entry.map(|entry| entry.ino), Some(InodeId(ino)));
            }
            let names = tree.0.keys().filter(|key| key[0] == b'D').count();
            prop_assert_eq!(names, model.names().len());
            for ino in model.files() {
                let (size, units) = model.content(ino);
                prop_assert_eq!(&tree.content(InodeId(ino), size), units);
            }
        }
    }

    #[test]
    fn intents_resolved_together_give_what_they_give_one_by_one(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut tree, mut model) = (Tree::new(), Model::new());
        let mut intents = Vec::new();
        for (now, step) in (1..).zip(&steps) {
            let Some((intent, expected)) = perform(&mut model, step, now) else { continue };
            if expected.is_ok() {
                tree.resolve(&intent).unwrap();
                intents.push(intent);
            }
        }
        let mut together = Tree::new();
        for (key, value) in resolve_all(&intents, &together).unwrap() {
            match value {
                Some(value) => drop(together.0.insert(key, Some(value))),
                None => drop(together.0.remove(&key)),
            }
        }
        prop_assert_eq!(together.0, tree.0);
    }
}

/// Otherwise the two tests above would show little.
#[test]
fn the_random_steps_reach_every_case() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::<String, usize>::new();
    for _ in 0..100 {
        let steps = proptest::collection::vec(step(), 80).new_tree(&mut runner).unwrap().current();
        let (mut tree, mut model) = (Tree::new(), Model::new());
        let mut large = BTreeSet::new();
        for (now, step) in (1..).zip(&steps) {
            let Some((intent, expected)) = perform(&mut model, step, now) else { continue };
            let _ = tree.resolve(&intent);
            let debug = format!("{step:?}");
            let kind = debug.split(' ').next().unwrap();
            *met.entry(format!("{kind} {expected:?}")).or_default() += 1;
            for ino in model.files() {
                let first_window = RowKey::Extents(InodeId(ino), 0).encode();
                match tree.0.contains_key(&first_window) {
                    true => {
                        large.insert(ino);
                    }
                    false if large.remove(&ino) => *met.entry("first window fits again".into()).or_default() += 1,
                    false => {}
                }
            }
        }
    }
    let cases = [
        "Create Ok(())",
        "Create Err(Exists)",
        "Create Err(NotDirectory)",
        "Create Err(Missing)",
        "Link Ok(())",
        "Link Err(IsDirectory)",
        "Link Err(Exists)",
        "Unlink Ok(())",
        "Unlink Err(NotEmpty)",
        "Unlink Err(Missing)",
        "Rename Ok(())",
        "Rename Err(Cycle)",
        "RenameOver Ok(())",
        "RenameOver Err(NotEmpty)",
        "RenameOver Err(NotDirectory)",
        "RenameOver Err(IsDirectory)",
        "Exchange Ok(())",
        "Exchange Err(Cycle)",
        "Mistaken Err(Other)",
        "SetXattr Ok(())",
        "SetXattr Err(Missing)",
        "Write Ok(())",
        "first window fits again",
    ];
    for case in cases {
        assert!(met.get(case).is_some_and(|times| *times >= 10), "{case}: {met:#?}");
    }
}

fn file(tree: &mut Tree, ino: u64) {
    let node = NewInode { mode: mode::FILE | 0o644, uid: 1, gid: 2, rdev: 0, time: time(1), target: None };
    let intent = Intent::Create { parent: InodeId::ROOT, name: name(ino as u8), ino: InodeId(ino), node };
    tree.resolve(&intent).unwrap();
}

fn write(ino: u64, base: u64, size: u64, changes: Vec<Change>) -> Intent {
    Intent::Write { ino: InodeId(ino), base, size, mtime: time(8), time: time(9), key: None, changes }
}

fn extent(offset: u64, len: u32, chunk: u64) -> Change {
    Change::Extent(Extent { offset, len, chunk: ChunkNo(chunk), chunk_offset: 0 })
}

#[test]
fn a_write_changes_what_it_says_and_counts_the_version() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    let mut intent = write(5, 0, 5000, vec![extent(100, 50, 1)]);
    if let Intent::Write { key, .. } = &mut intent {
        *key = Some(KeyNo(3));
    }
    tree.resolve(&intent).unwrap();
    let row = tree.inode(InodeId(5)).unwrap().unwrap();
    assert_eq!((row.version, row.size, row.allocated, row.key), (1, 5000, 50, Some(KeyNo(3))));
    assert_eq!((row.mtime, row.ctime, row.btime), (time(8), time(9), time(1)));
    // A later write without a key keeps the one there is.
    tree.resolve(&write(5, 1, 120, vec![])).unwrap();
    let row = tree.inode(InodeId(5)).unwrap().unwrap();
    assert_eq!((row.version, row.size, row.allocated, row.key), (2, 120, 20, Some(KeyNo(3))));
}

#[test]
fn a_write_from_another_version_is_refused() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    let error = tree.resolve(&write(5, 1, 10, vec![])).unwrap_err();
    assert!(matches!(error, ResolveError::OtherVersion { base: 1, version: 0, .. }));
}

#[test]
fn a_write_may_cite_only_chunks_that_there_are() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    let error = tree.resolve(&write(5, 0, 10, vec![extent(0, 10, CHUNKS + 1)])).unwrap_err();
    assert!(matches!(error, ResolveError::MissingChunk(ChunkNo(no)) if no == CHUNKS + 1));
    let beyond = Change::Extent(Extent { offset: 0, len: 2, chunk: ChunkNo(1), chunk_offset: 2 * UNIT as u32 - 1 });
    assert!(matches!(tree.resolve(&write(5, 0, 10, vec![beyond])), Err(ResolveError::MissingChunk(_))));
    // What the write itself covered again is not cited.
    tree.resolve(&write(5, 0, 10, vec![extent(0, 10, CHUNKS + 1), extent(0, 10, 1)])).unwrap();
}

#[test]
fn chunks_swept_under_old_extents_do_not_refuse_a_write_elsewhere() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    tree.resolve(&write(5, 0, 100, vec![extent(0, 100, 1)])).unwrap();
    tree.0.remove(&RowKey::Chunk(ChunkNo(1)).encode());
    tree.resolve(&write(5, 1, 100, vec![extent(40, 20, 2)])).unwrap();
    let error = tree.resolve(&write(5, 2, 100, vec![extent(45, 5, 1)])).unwrap_err();
    assert!(matches!(error, ResolveError::MissingChunk(_)));
}

#[test]
fn a_hole_to_the_end_of_everything_is_quick_and_exact() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    let far = 1u64 << 62;
    tree.resolve(&write(5, 0, far + 10, vec![extent(0, 10, 1), extent(far, 10, 2)])).unwrap();
    tree.resolve(&write(5, 1, far + 10, vec![Change::Hole(ByteRange::new(5, u64::MAX))])).unwrap();
    tree.check();
    assert_eq!(tree.inode(InodeId(5)).unwrap().unwrap().allocated, 5);
}

#[test]
fn inline_data_changes_no_extent() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    let inline = Change::Inline { offset: 0, data: b"abc".to_vec().into() };
    tree.resolve(&write(5, 0, 3, vec![inline])).unwrap();
    let row = tree.inode(InodeId(5)).unwrap().unwrap();
    assert_eq!((row.size, row.allocated, row.body), (3, 0, InodeBody::File(Vec::new())));
}

#[test]
fn attributes_change_by_field_and_never_the_type() {
    let mut tree = Tree::new();
    file(&mut tree, 5);
    let set = AttrChange { mode: Some(mode::DIR | 0o4711), gid: Some(9), atime: Some(time(4)), ..Default::default() };
    tree.resolve(&Intent::SetAttr { ino: InodeId(5), set, time: time(7) }).unwrap();
    let row = tree.inode(InodeId(5)).unwrap().unwrap();
    assert_eq!((row.mode, row.uid, row.gid), (mode::FILE | 0o4711, 1, 9));
    assert_eq!((row.atime, row.mtime, row.ctime), (time(4), time(1), time(7)));
}

#[test]
fn facts_are_put_and_only_about_what_is_no_tree() {
    let mut tree = Tree::new();
    let key = RowKey::Pack(PackNo(4));
    let value: Box<[u8]> = [0; 17].into();
    tree.resolve(&Intent::Fact { key: key.clone(), value: value.clone() }).unwrap();
    assert_eq!(tree.get(&key.encode()).unwrap().as_deref(), Some(&value[..]));
    for (key, value) in [(RowKey::Inode(InodeId(1)), value), (key, [0].into())] {
        assert!(matches!(tree.resolve(&Intent::Fact { key, value }), Err(ResolveError::Invalid(_))));
    }
}

#[test]
fn a_link_changes_and_stays_taken_back() {
    use crate::base::{LinkId, SystemEntropy};
    use crate::format::link::{LinkKeys, LinkRow, LinkState};
    let row = |state, newest| {
        let title = Name::parse("title").unwrap();
        let (path, created, expiry) = (b"path".as_slice().into(), time(1), None);
        LinkRow { state, inode: InodeId(1), path, title, live: true, created, expiry, newest, files: 1, bytes: 2 }
    };
    let key = RowKey::Link(LinkId([1; 16]));
    let mut tree = Tree::new();
    let mut say = |row: &LinkRow| {
        tree.resolve(&Intent::Fact { key: key.clone(), value: row.encode().as_slice().into() }).unwrap();
        LinkRow::decode(&tree.get(&key.encode()).unwrap().unwrap()).unwrap()
    };
    let keys = || LinkKeys::generate(None, &SystemEntropy);
    for known in [row(LinkState::Publishing(keys()), 0), row(LinkState::Published(keys()), 1)] {
        assert_eq!(say(&known), known);
    }
    let revoked = LinkRow { live: false, ..row(LinkState::Revoked, 2) };
    assert_eq!(say(&revoked), revoked);
    let said = say(&row(LinkState::Published(keys()), 3));
    assert_eq!((said.state, said.live), (LinkState::Revoked, false));
}

#[test]
fn a_fact_may_be_said_twice_and_never_becomes_another() {
    let mut tree = Tree::new();
    let (key, value): (_, Box<[u8]>) = (RowKey::Pack(PackNo(4)), [0; 17].into());
    let fact = Intent::Fact { key: key.clone(), value: value.clone() };
    tree.resolve(&fact).unwrap();
    tree.resolve(&fact).unwrap();
    let mut other = value.clone();
    other[0] = 1;
    let replacing = tree.resolve(&Intent::Fact { key: key.clone(), value: other });
    assert!(matches!(replacing, Err(ResolveError::OtherFact(_))), "{replacing:?}");
    assert_eq!(tree.get(&key.encode()).unwrap().as_deref(), Some(&value[..]));
}

#[test]
fn impossible_inodes_are_not_created() {
    let mut tree = Tree::new();
    let node = |mode, target: Option<&[u8]>| NewInode {
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        time: time(1),
        target: target.map(Into::into),
    };
    let impossible = [
        node(mode::LINK, None),
        node(mode::LINK, Some(b"")),
        node(mode::LINK, Some(b"a\0b")),
        node(mode::FILE, Some(b"a")),
        node(0, None),
        node(mode::FILE | 1 << 20, None),
    ];
    for node in impossible {
        let intent = Intent::Create { parent: InodeId::ROOT, name: name(1), ino: InodeId(5), node };
        assert!(matches!(tree.resolve(&intent), Err(ResolveError::Invalid(_))));
    }
    file(&mut tree, 5);
    let intent = Intent::Create { parent: InodeId::ROOT, name: name(1), ino: InodeId(5), node: node(mode::FIFO, None) };
    assert!(matches!(tree.resolve(&intent), Err(ResolveError::InodeExists(InodeId(5)))));
}

#[test]
fn a_failing_intent_is_named() {
    let tree = Tree::new();
    let node = NewInode { mode: mode::DIR, uid: 0, gid: 0, rdev: 0, time: time(1), target: None };
    let create =
        |ino, parent| Intent::Create { parent: InodeId(parent), name: name(1), ino: InodeId(ino), node: node.clone() };
    let (index, error) = resolve_all(&[create(5, 1), create(6, 5), create(7, 1)], &tree).unwrap_err();
    assert!(index == 2 && matches!(error, ResolveError::Exists { .. }));
}
