use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::super::seal::seal_piece;
use super::super::staging::Room;
use super::super::testing::{VOLUME, staging_on};
use super::*;
use crate::base::{CHUNK_LEN, FRAME_LEN, KeyNo, SystemEntropy};
use crate::disk::RealDisk;
use crate::format::ObjectName;
use crate::store::MemoryStore;

struct Bench {
    dir: tempfile::TempDir,
    staging: Arc<Staging>,
    cache: Arc<BlockCache>,
    store: MemoryStore,
    reader: Arc<ChunkReader>,
    file_key: Arc<Key>,
    next: AtomicU64,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let staging = Arc::new(staging_on(Arc::new(RealDisk), &dir.path().join("staging"), 1, u64::MAX));
    let store = MemoryStore::new();
    let (cache, fetcher) = cache(&dir.path().join("cache"), &store);
    let reader = Arc::new(ChunkReader::new(VOLUME, staging.clone(), cache.clone(), fetcher, Duration::from_secs(60)));
    let file_key = Arc::new(Key::generate(&SystemEntropy));
    Bench { dir, staging, cache, store, reader, file_key, next: AtomicU64::new(1) }
}

fn cache(dir: &Path, store: &MemoryStore) -> (Arc<BlockCache>, Fetcher) {
    let cache = Arc::new(BlockCache::open(Arc::new(RealDisk), dir.into(), 1 << 30));
    let fetcher = Fetcher::new(Arc::new(store.clone()), cache.clone());
    (cache, fetcher)
}

impl Bench {
    fn add(&self, plain: &[u8]) -> ChunkSource {
        let no = ChunkNo(self.next.fetch_add(1, Ordering::Relaxed));
        let (id, sealed) = seal_piece(&self.file_key, VOLUME, plain, &SystemEntropy);
        let place = self.staging.append(&sealed.bytes, no, Room::Commit).unwrap();
        let row = ChunkRow {
            pack: place.pack,
            offset: place.offset,
            len: plain.len() as u32,
            key: KeyNo(1),
            id,
            frames: sealed.frames,
        };
        ChunkSource { chunk: no, row, pack: place.name, file_key: self.file_key.clone() }
    }

    /// Everything goes to the store and leaves staging, and the cache has none of it.
    fn upload(&self) {
        for name in self.staging.rotate() {
            let object = self.staging.object(name).unwrap().unwrap();
            self.store.plant(ObjectName::Pack(name), object);
            self.staging.uploaded(name);
            self.staging.committed(&[name], |_, path, _| std::fs::remove_file(path).unwrap());
        }
    }

    fn damage(&self, source: &ChunkSource, offset_in_pack: u64) {
        let name = ObjectName::Pack(source.pack);
        let mut object = self.store.peek(&name).unwrap().to_vec();
        object[offset_in_pack as usize] ^= 1;
        self.store.plant(name, object.into());
    }

    fn try_read(&self, source: &ChunkSource, range: ByteRange) -> Result<Option<Vec<u8>>, ContentError> {
        let mut out = vec![0; range.len() as usize];
        Ok(self.reader.try_read(source, range, &mut out)?.then_some(out))
    }

    async fn read(&self, source: &ChunkSource, range: ByteRange) -> Result<Vec<u8>, ContentError> {
        let mut out = vec![0; range.len() as usize];
        self.reader.read(source, range, &mut out).await.map(|()| out)
    }
}

fn whole(source: &ChunkSource) -> ByteRange {
    ByteRange::new(0, source.row.len.into())
}

/// Compressible or not.
fn content(seed: u64, len: usize, compressible: bool) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if compressible { (state >> 62) as u8 } else { (state >> 40) as u8 }
    };
    (0..len).map(|_| next()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_range_reads_the_same_from_staging_the_store_and_the_cache(
        seed in any::<u64>(), len in 1..=CHUNK_LEN as usize, compressible in any::<bool>(),
        before in 0..300_000usize, cuts in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 4),
    ) {
        let bench = bench();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let neighbour = bench.add(&content(!seed, before + 1, false));
        let plain = content(seed, len, compressible);
        let source = bench.add(&plain);
        let ranges: Vec<_> = cuts.iter().map(|(start, end)| {
            let start = (start * len as f64) as u64;
            ByteRange::new(start, start + 1 + (end * (len as u64 - start - 1) as f64) as u64)
        }).collect();
        let expected = |range: &ByteRange| &plain[range.start as usize..range.end as usize];
        for range in &ranges {
            prop_assert_eq!(bench.try_read(&source, *range).unwrap().unwrap(), expected(range));
        }
        bench.upload();
        prop_assert_eq!(bench.try_read(&neighbour, whole(&neighbour)).unwrap(), None);
        for range in &ranges {
            prop_assert_eq!(runtime.block_on(bench.read(&source, *range)).unwrap(), expected(range));
            prop_assert_eq!(bench.try_read(&source, *range).unwrap().unwrap(), expected(range));
        }
        prop_assert!(!bench.reader.is_damaged(source.chunk));
    }

    #[test]
    fn a_range_is_put_together_from_whole_blocks_or_not_at_all(
        start in 0..3 * BLOCK_LEN, len in 1..2 * BLOCK_LEN, missing in 0..8u32, object_len in 1..5 * BLOCK_LEN,
    ) {
        let object: Vec<u8> = (0..object_len).map(|at| (at / 1000) as u8).collect();
        let range = ByteRange::new(start, start + len);
        let block = |no: u32| {
            let at = no as usize * BLOCK_LEN as usize;
            let bytes = object.get(at..(at + BLOCK_LEN as usize).min(object.len()))?;
            (no != missing).then(|| Bytes::copy_from_slice(bytes))
        };
        let is_there = range.end <= object_len && !blocks_of(range).contains(&missing);
        let expected = is_there.then(|| Bytes::copy_from_slice(&object[start as usize..range.end as usize]));
        prop_assert_eq!(from_blocks(range, block), expected);
    }
}

#[tokio::test]
async fn damaged_blocks_of_the_cache_are_replaced_from_the_store() {
    let bench = bench();
    let plain = content(1, 3 * FRAME_LEN as usize, false);
    let source = bench.add(&plain);
    bench.upload();
    for place in [0, 40, CHUNK_HEADER_LEN as u64, 100_000] {
        bench.read(&source, whole(&source)).await.unwrap();
        let mut block = bench.cache.get(source.pack, 0).unwrap().to_vec();
        block[(u64::from(source.row.offset) + place) as usize] ^= 1;
        bench.cache.drop_block(source.pack, 0);
        bench.cache.put(source.pack, 0, &block);
        bench.reader.openers.remove(&source);
        assert_eq!(bench.try_read(&source, whole(&source)).unwrap(), None, "changed at {place}");
        assert_eq!(bench.read(&source, whole(&source)).await.unwrap(), plain);
        assert!(!bench.reader.is_damaged(source.chunk));
    }
}

#[tokio::test]
async fn what_is_damaged_in_the_store_is_an_error_and_remembered() {
    let bench = bench();
    let plain = content(1, 3 * FRAME_LEN as usize, false);
    let source = bench.add(&plain);
    bench.upload();
    let place = u64::from(source.row.offset) + 70_000;
    bench.damage(&source, place);
    let error = bench.read(&source, whole(&source)).await.unwrap_err();
    assert!(matches!(error, ContentError::Damaged { pack, chunk } if (pack, chunk) == (source.pack, source.chunk)));
    assert!(bench.reader.is_damaged(source.chunk));
    let first_frame = ByteRange::new(0, FRAME_LEN);
    assert_eq!(bench.read(&source, first_frame).await.unwrap(), plain[..FRAME_LEN as usize], "other frames still read");
    assert!(bench.reader.is_damaged(source.chunk), "equal content must be stored anew");
    bench.damage(&source, place);
    assert_eq!(bench.read(&source, whole(&source)).await.unwrap(), plain, "nothing of the damage was cached");
}

#[tokio::test]
async fn a_pack_that_was_cut_or_is_gone_is_an_error() {
    let bench = bench();
    let source = bench.add(&content(1, CHUNK_LEN as usize, false));
    bench.upload();
    let name = ObjectName::Pack(source.pack);
    let object = bench.store.peek(&name).unwrap();
    bench.store.plant(name, object.slice(..500_000));
    assert!(matches!(bench.read(&source, whole(&source)).await, Err(ContentError::Damaged { .. })));

    let bench = self::bench();
    let source = bench.add(&content(1, 1000, false));
    bench.upload();
    crate::store::Store::delete(&bench.store, &ObjectName::Pack(source.pack)).await.unwrap();
    let error = bench.read(&source, whole(&source)).await.unwrap_err();
    assert!(matches!(error, ContentError::Missing { pack } if pack == source.pack));
}

#[tokio::test]
async fn a_row_that_does_not_fit_its_chunk_gives_no_bytes() {
    let bench = bench();
    let source = bench.add(&content(1, 200_000, false));
    let other = bench.add(&content(2, 200_000, false));
    let beyond = ByteRange::new(199_999, 200_001);
    assert!(matches!(bench.try_read(&source, beyond), Err(ContentError::BadRow { .. })));
    assert!(matches!(bench.read(&source, ByteRange::new(5, 5)).await, Err(ContentError::BadRow { .. })));

    let with_row = |change: &dyn Fn(&mut ChunkRow)| {
        let mut row = source.row.clone();
        change(&mut row);
        ChunkSource { row, ..source.clone() }
    };
    let forged = [
        with_row(&|row| row.offset = other.row.offset),
        with_row(&|row| row.id = other.row.id),
        ChunkSource { file_key: Arc::new(Key::generate(&SystemEntropy)), ..source.clone() },
    ];
    for source in &forged {
        bench.reader.openers.remove(source);
        assert!(matches!(bench.try_read(source, whole(source)), Err(ContentError::Damaged { .. })));
    }
    bench.upload();
    for source in &forged {
        assert!(matches!(bench.read(source, whole(source)).await, Err(ContentError::Damaged { .. })));
    }
}

#[tokio::test]
async fn a_staging_file_that_rots_after_its_upload_is_read_from_the_store() {
    let bench = bench();
    let plain = content(1, 1000, false);
    let source = bench.add(&plain);
    bench.staging.rotate();
    let object = bench.staging.object(source.pack).unwrap().unwrap();
    let path = std::fs::read_dir(bench.dir.path().join("staging")).unwrap().next().unwrap().unwrap().path();
    let mut rotten = object.to_vec();
    rotten[500] ^= 1;
    std::fs::write(path, rotten).unwrap();
    assert!(matches!(bench.try_read(&source, whole(&source)), Err(ContentError::Damaged { .. })));
    bench.store.plant(ObjectName::Pack(source.pack), object);
    bench.staging.uploaded(source.pack);
    assert_eq!(bench.try_read(&source, whole(&source)).unwrap(), None);
    assert_eq!(bench.read(&source, whole(&source)).await.unwrap(), plain);
}

#[tokio::test]
async fn what_was_fetched_ahead_reads_without_the_network() {
    let bench = bench();
    let plain = content(1, CHUNK_LEN as usize, false);
    let source = bench.add(&plain);
    bench.upload();
    bench.reader.warm(&source, whole(&source)).await;
    assert_eq!(bench.try_read(&source, whole(&source)).unwrap().unwrap(), plain);
}

#[tokio::test]
async fn a_known_opener_serves_its_own_chunk_only() {
    let bench = bench();
    let contents = [1, 2, 3].map(|seed| content(seed, 1000, false));
    // Two whose openers share a slot, and one that is the first one's content sealed again under its number.
    let first = bench.add(&contents[0]);
    bench.next.store(first.chunk.0 + 256, Ordering::Relaxed);
    let neighbour = bench.add(&contents[1]);
    bench.next.store(first.chunk.0, Ordering::Relaxed);
    let again = bench.add(&contents[0]);
    bench.upload();
    for (source, plain) in
        [(&first, &contents[0]), (&neighbour, &contents[1]), (&first, &contents[0]), (&again, &contents[0])]
    {
        assert!(bench.reader.openers.get(source).is_none());
        assert_eq!(&bench.read(source, whole(source)).await.unwrap(), plain);
        assert!(bench.reader.openers.get(source).is_some());
    }
    bench.reader.openers.remove(&first);
    assert!(bench.reader.openers.get(&again).is_some());
    bench.reader.openers.remove(&again);
    assert!(bench.reader.openers.get(&again).is_none());
}

#[test]
fn blocks_of_header_and_frames_are_one_run_if_they_meet() {
    let runs = |frames_at: u64| {
        let header = ByteRange::new(10, 10 + CHUNK_HEADER_LEN as u64);
        let need = Need { key: KeyNeed::Header(header), frames: ByteRange::new(frames_at, frames_at + 50) };
        need.block_runs().map(|run| (run.start, run.end)).collect::<Vec<_>>()
    };
    assert_eq!(runs(10 + CHUNK_HEADER_LEN as u64), [(0, 1)]);
    assert_eq!(runs(BLOCK_LEN), [(0, 2)]);
    assert_eq!(runs(2 * BLOCK_LEN), [(0, 1), (2, 3)]);
}
