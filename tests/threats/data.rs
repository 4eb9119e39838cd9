//! T5, T6, T7, T11, T13, T14: what holds the files' bytes.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hushfs::base::{BLOCK_LEN, ByteRange, Clock, Entropy, Timestamp};
use hushfs::disk::Random;
use hushfs::format::{ObjectName, Prefix};
use hushfs::store::{Created, Store, StoreError};
use hushfs::vfs::api::VfsError;
use parking_lot::Mutex;

use crate::rig::{Rig, noise};
use crate::{change, contents, new_machine, nothing_is_wrong, pack_of, packs, restore, swap, try_new_machine, volume};

const SMALL: std::ops::Range<usize> = 0..1 << 20;
const LARGE: std::ops::Range<usize> = 3 << 20..4 << 20;

/// Seafile's and Icedrive's ciphertext could be changed bit by bit, and the plaintext with it.
#[test]
fn t5_no_bit_of_any_object_can_be_turned_without_an_error() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    for (index, name) in rig.objects(Prefix::Everything).into_iter().enumerate() {
        let len = whole.peek(&name).expect("the object").len();
        // Head, salt, commitment, ciphertext, and the end.
        for byte in [0, 9, 20, 40, 70, len / 2, len - 1] {
            change(&rig, name, |bytes| bytes[byte] ^= 1 << (index % 8));
            if let Ok(files) = try_new_machine(&mut rig) {
                nothing_is_wrong(&files);
                let is_of_a_chunk = matches!(name, ObjectName::Pack(_)) && byte <= len / 2;
                let errors = contents().iter().filter(|(file, _)| files.read(file) == Err(VfsError::Io)).count();
                assert_eq!(errors, usize::from(is_of_a_chunk), "{name}, byte {byte}");
                rig.close();
            }
            restore(&rig, &whole);
        }
    }
}

/// A full chunk of noise: a header, and sixteen frames of 64 KiB with a codec byte and a tag each.
const HEADER: usize = 65;
const FRAME: usize = (64 << 10) + 17;
const CHUNK: usize = HEADER + 16 * FRAME;

/// What is done to an object.
type Attack = Box<dyn Fn(&mut Vec<u8>)>;

/// pCloud, Icedrive and Seafile sealed pieces that could be put in another order, left out, or given twice.
#[test]
fn t6_pieces_in_another_order_left_out_or_given_twice_are_errors() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    let [pack] = pack_of(&rig, LARGE)[..] else { panic!("one pack") };
    let frame = |chunk: usize, frame: usize| chunk * CHUNK + HEADER + frame * FRAME;
    let copy = |from: usize, to: usize, len: usize| move |bytes: &mut Vec<u8>| bytes.copy_within(from..from + len, to);
    let exchange = |one: usize, other: usize, len: usize| {
        move |bytes: &mut Vec<u8>| {
            let first = bytes[one..one + len].to_vec();
            bytes.copy_within(other..other + len, one);
            bytes[other..other + len].copy_from_slice(&first);
        }
    };
    let mut attacks: Vec<(String, Attack)> = vec![
        ("chunks exchanged".into(), Box::new(exchange(0, CHUNK, CHUNK))),
        ("a chunk doubled".into(), Box::new(copy(0, CHUNK, CHUNK))),
        ("headers exchanged".into(), Box::new(exchange(0, CHUNK, HEADER))),
        ("frames exchanged".into(), Box::new(exchange(frame(1, 2), frame(1, 3), FRAME))),
        ("the last frame moved forward".into(), Box::new(exchange(frame(1, 0), frame(1, 15), FRAME))),
        ("a frame doubled".into(), Box::new(copy(frame(0, 4), frame(0, 5), FRAME))),
        ("frames of two chunks exchanged".into(), Box::new(exchange(frame(0, 7), frame(1, 7), FRAME))),
        ("a frame left out".into(), Box::new(move |bytes| drop(bytes.drain(frame(2, 3)..frame(2, 4))))),
        ("a chunk left out".into(), Box::new(move |bytes| drop(bytes.drain(CHUNK..2 * CHUNK)))),
    ];
    for boundary in (0..3).flat_map(|chunk| [chunk * CHUNK, chunk * CHUNK + HEADER, frame(chunk, 1), frame(chunk, 15)])
    {
        attacks.push((format!("cut at {boundary}"), Box::new(move |bytes| bytes.truncate(boundary))));
    }
    for (what, attack) in attacks {
        change(&rig, pack, attack);
        assert_ne!(rig.memory.peek(&pack), whole.peek(&pack), "{what}: nothing was changed");
        let files = new_machine(&mut rig);
        assert_eq!(files.read("large"), Err(VfsError::Io), "{what}");
        nothing_is_wrong(&files);
        rig.close();
        restore(&rig, &whole);
    }
    assert_eq!(new_machine(&mut rig).read("large").expect("read"), noise(3, 3 << 20));
}

/// gocryptfs names its files, and leaves it at that: the store may give one for the other.
#[test]
fn t7_two_objects_exchanged_are_never_read_one_for_the_other() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    let small = pack_of(&rig, SMALL);
    assert_eq!(small.len(), 2, "{small:?}");
    swap(&rig, small[0], small[1]);
    let files = new_machine(&mut rig);
    for file in ["one", "two"] {
        assert_eq!(files.read(file), Err(VfsError::Io), "{file}");
    }
    rig.close();
    restore(&rig, &whole);
    let objects = rig.objects(Prefix::Everything);
    for (at, one) in objects.iter().enumerate() {
        for other in &objects[at + 1..] {
            swap(&rig, *one, *other);
            if let Ok(files) = try_new_machine(&mut rig) {
                nothing_is_wrong(&files);
                rig.close();
            }
            restore(&rig, &whole);
        }
    }
}

/// The same from each start, as a machine that is resumed from a snapshot has it.
pub struct Resumed(Mutex<Random>);

impl Resumed {
    pub fn start() -> Arc<dyn Entropy> {
        Arc::new(Self(Mutex::new(Random::new(11))))
    }
}

impl Entropy for Resumed {
    fn fill(&self, bytes: &mut [u8]) {
        let mut random = self.0.lock();
        bytes.iter_mut().for_each(|byte| *byte = random.number() as u8);
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::new(1_800_000_000, 5)
    }
}

/// Borg 1 counted its nonces in a file, which a restored backup set back.
#[test]
fn t11_a_cloned_device_with_repeated_randomness_seals_no_two_plaintexts_alike() {
    let mut rig = Rig::in_virtual_time();
    rig.entropy = Resumed::start;
    rig.clock = || Arc::new(Stopped);
    let files = rig.mount();
    files.save("file", b"before").expect("saved");
    rig.flush();
    rig.close();
    let (origin, whole) = (rig.root.path().join(&rig.machine), rig.memory.fork());

    // Salt of each seal whose place is known, and what stands behind it.
    let mut seals: HashMap<Vec<u8>, Bytes> = HashMap::new();
    let mut names = HashSet::new();
    let mut is_repeated = false;
    for (clone, text) in ["one way", "the other"].into_iter().enumerate() {
        restore(&rig, &whole);
        let machine = format!("clone{clone}");
        copy_folder(&origin, &rig.root.path().join(&machine));
        rig.become_new_machine(&machine);
        let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{error}"));
        for file in ["file", "another"] {
            files.save(file, format!("{file} went {text}").as_bytes()).expect("saved");
        }
        files.save("large", &noise(clone as u64, 100_000)).expect("saved");
        rig.flush();
        rig.close();
        for name in rig.objects(Prefix::Everything).into_iter().filter(|name| whole.peek(name).is_none()) {
            let bytes = rig.memory.peek(&name).expect("the object");
            let (salt, sealed) = match name {
                ObjectName::Pack(_) => (1, bytes.slice(33..)),
                ObjectName::Log(_) => (13, bytes.slice(45..)),
                other => panic!("{other} was not expected"),
            };
            is_repeated |= !names.insert(name) && matches!(name, ObjectName::Pack(_));
            let earlier = seals.entry(bytes[salt..salt + 32].to_vec()).or_insert_with(|| sealed.clone());
            assert_eq!(*earlier, sealed, "{name}: one key and nonce for two plaintexts");
        }
    }
    // Packs are named by random numbers: if none came twice, the clones did not repeat one another.
    assert!(is_repeated && seals.len() >= 4, "{} seals", seals.len());
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else if let Err(error) = std::fs::copy(&path, &target) {
            // SQLite's log goes when its last reader does, which may be now.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", path.display());
        }
    }
}

/// Early Tahoe derived keys from content: who guesses a file sees whether somebody has it.
#[test]
fn t13_one_file_in_two_volumes_has_nothing_in_common() {
    let content = [noise(1, 200_000), vec![b'a'; 200_000]].concat();
    let stored = [(); 2].map(|()| {
        let mut rig = Rig::in_virtual_time();
        rig.mount().save("the same name", &content).expect("saved");
        rig.flush();
        rig.close();
        rig.objects(Prefix::Everything)
            .into_iter()
            .map(|name| (name, rig.memory.peek(&name).expect("the object")))
            .collect::<Vec<_>>()
    });
    let [one, other] = &stored;
    assert!(one.iter().any(|(name, bytes)| matches!(name, ObjectName::Pack(_)) && bytes.len() > 200_000));
    let is_pack = |name: &ObjectName| matches!(name, ObjectName::Pack(_));
    assert!(one.iter().filter(|(name, _)| is_pack(name)).all(|(name, _)| other.iter().all(|(other, _)| other != name)));
    // What is in clear, of fixed values, is shorter than this.
    const WINDOW: usize = 24;
    let windows: HashSet<&[u8]> = one.iter().flat_map(|(_, bytes)| bytes.windows(WINDOW)).collect();
    for (name, bytes) in other {
        let common = bytes.windows(WINDOW).position(|window| windows.contains(window));
        assert_eq!(common, None, "{name} has bytes of the other volume");
    }
}

/// Writes down which parts of packs are asked for.
struct Recorder {
    inner: Arc<dyn Store>,
    ranges: Arc<Mutex<Vec<ByteRange>>>,
}

#[async_trait]
impl Store for Recorder {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        self.inner.create(name, bytes).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        if matches!(name, ObjectName::Pack(_)) {
            self.ranges.lock().push(range);
        }
        self.inner.get_range(name, range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.inner.size(name).await
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}

/// As FORMAT.md has it: the length with all but so many of its upper bits zero.
fn is_padded(len: u64) -> bool {
    if len <= 4096 {
        return len == 4096;
    }
    let exponent = len.ilog2();
    let free = exponent - (exponent.ilog2() + 1);
    len.trailing_zeros() >= free
}

/// Borg, restic and Tarsnap cut by content, and the lengths of the pieces tell which files there are.
#[test]
fn t14_sizes_are_padded_and_reads_are_of_whole_blocks() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let mut rig = Rig::over(|inner| Arc::new(Recorder { inner, ranges }));
    let files = rig.mount();
    // Whatever the content, and however much of it: pieces are cut by their place.
    for (seed, len) in (1..).zip([1, 900, 5_000, 70_001, 262_144, 1_048_577, 2_345_678]) {
        files.save(&format!("file{seed}"), &noise(seed, len)).expect("saved");
        rig.flush();
    }
    files.set_xattr("file1", "user.large", &noise(9, 50_000)).expect("set");
    rig.flush();
    rig.close();
    for name in rig.objects(Prefix::Everything) {
        let len = rig.memory.peek(&name).expect("the object").len() as u64;
        assert!(is_padded(len), "{name} has {len} bytes");
    }
    assert!(packs(&rig).len() >= 7);
    seen.lock().clear();
    let files = new_machine(&mut rig);
    files.read("file7").expect("read");
    files.read("file4").expect("read");
    let ranges = seen.lock().clone();
    assert!(!ranges.is_empty());
    for range in ranges {
        assert!(range.start % BLOCK_LEN == 0 && range.len() % BLOCK_LEN == 0, "{range:?} was asked for");
    }
}
