//! Which blocks are here, and which of them goes first.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::files::Files;
use crate::base::{BLOCK_LEN, ByteRange, MIB, PackName};
use crate::disk::{Disk, FreeSpace};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub bytes: u64,
    pub bytes_max: u64,
    pub blocks: u64,
    pub hits: u64,
    pub misses: u64,
    /// What the local disk said last, if it failed.
    pub failing: Option<String>,
}

/// What the cache leaves free on its disk, for others who cannot fetch what they write there a second time.
const KEEP_FREE: u64 = 128 * MIB;
/// Removed in one go when there is less, so that this is not asked for at every block.
const SHRINK_STEP: u64 = 16 * MIB;

pub struct BlockCache {
    files: Files,
    bytes_max: u64,
    free_space: FreeSpace,
    index: Mutex<Index>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// What the disk said when it failed: logged once, not at every read.
    complaint: Mutex<Option<String>>,
}

struct Index {
    /// Block to its length; the least recently used goes first.
    blocks: LruCache<(PackName, u32), u32>,
    /// How many blocks of each pack are here.
    packs: HashMap<PackName, u32>,
    bytes: u64,
}

impl BlockCache {
    /// Takes up what an earlier run left in `dir`, the oldest files first to go. A folder that does not work is no
    /// reason not to read files: then nothing is kept, and `stats` says why.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf, bytes_max: u64) -> Self {
        let free_space = FreeSpace::new(disk.clone(), dir.clone());
        let files = Files::new(disk, dir);
        let scanned = files.scan();
        let index = Index { blocks: LruCache::unbounded(), packs: HashMap::new(), bytes: 0 };
        let cache = Self {
            files,
            bytes_max,
            free_space,
            index: Mutex::new(index),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            complaint: Mutex::default(),
        };
        let mut found = Vec::new();
        for file in scanned.unwrap_or_else(|error| vec![Err(error)]) {
            match file {
                Ok(file) => found.push(file),
                Err(error) => drop(cache.note(Err(error))),
            }
        }
        found.sort_by_key(|found| found.modified);
        for found in found {
            if found.blocks.is_empty() {
                cache.note(cache.files.remove(found.pack));
            }
            cache.insert(found.pack, found.blocks);
        }
        cache
    }

    /// A block, shorter than `BLOCK_LEN` at the pack's end. None: it is not here.
    pub fn get(&self, pack: PackName, block: u32) -> Option<Bytes> {
        let len = self.index.lock().blocks.get(&(pack, block)).copied();
        let start = u64::from(block) * BLOCK_LEN;
        self.read_present(pack, len.map(|len| ByteRange::new(start, start + u64::from(len))))
    }

    /// Bytes of a pack, if all blocks that hold them are here.
    pub fn read(&self, pack: PackName, range: ByteRange) -> Option<Bytes> {
        let present = {
            let mut index = self.index.lock();
            (range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN)).all(|block| {
                let end = (range.end - block * BLOCK_LEN).min(BLOCK_LEN);
                index.blocks.get(&(pack, block as u32)).is_some_and(|len| u64::from(*len) >= end)
            })
        };
        self.read_present(pack, present.then_some(range))
    }

    /// Whether all these blocks are here, without a look at the disk or a change of what goes first.
    pub fn has(&self, pack: PackName, mut blocks: Range<u32>) -> bool {
        let index = self.index.lock();
        blocks.all(|block| index.blocks.contains(&(pack, block)))
    }

    /// Keeps a block. Failures are no concern of the caller's.
    pub fn put(&self, pack: PackName, block: u32, bytes: &[u8]) {
        if bytes.is_empty() || bytes.len() as u64 > BLOCK_LEN || self.bytes_max == 0 {
            return;
        }
        let written = self.files.write(pack, bytes, u64::from(block) * BLOCK_LEN);
        if self.note(written) {
            self.insert(pack, vec![(block, bytes.len() as u32)]);
        }
    }

    /// Takes over a staged pack's file, which is in the store by now.
    pub fn adopt(&self, pack: PackName, staged: &Path, len: u64) {
        if len > self.bytes_max {
            return self.files.discard(staged);
        }
        let adopted = self.files.adopt(pack, staged, len);
        if !self.note(adopted) {
            return self.files.discard(staged);
        }
        let blocks = (0..len.div_ceil(BLOCK_LEN)).map(|block| {
            let len = (len - block * BLOCK_LEN).min(BLOCK_LEN);
            (block as u32, len as u32)
        });
        self.insert(pack, blocks.collect());
    }

    /// It did not authenticate: the next read takes it from the store.
    pub fn drop_block(&self, pack: PackName, block: u32) {
        let Some(len) = self.index.lock().forget(pack, block) else { return };
        self.free(pack, block, len);
    }

    pub fn stats(&self) -> CacheStats {
        let index = self.index.lock();
        CacheStats {
            bytes: index.bytes,
            bytes_max: self.bytes_max,
            blocks: index.blocks.len() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            failing: self.complaint.lock().clone(),
        }
    }

    fn read_present(&self, pack: PackName, range: Option<ByteRange>) -> Option<Bytes> {
        let read = range.and_then(|range| {
            // It may have been evicted a moment ago: then this is zeros or an error, and not what was sealed.
            match self.files.read(pack, range) {
                Ok(bytes) => Some(Bytes::from(bytes)),
                Err(error) => {
                    self.note(Err(error));
                    None
                }
            }
        });
        let counter = if read.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        read
    }

    fn insert(&self, pack: PackName, blocks: Vec<(u32, u32)>) {
        let mut evicted = Vec::new();
        {
            let mut index = self.index.lock();
            for (block, len) in blocks {
                index.add(pack, block, len);
            }
            let lacking = KEEP_FREE.saturating_sub(self.free_space.bytes());
            let shrunk = index.bytes.saturating_sub(if lacking > 0 { lacking + SHRINK_STEP } else { 0 });
            index.evict(self.bytes_max.min(shrunk), &mut evicted);
        }
        self.free_all(evicted);
    }

    /// Gives room to others: at least so many bytes, as far as there are.
    pub fn shrink_by(&self, bytes: u64) {
        let mut evicted = Vec::new();
        {
            let mut index = self.index.lock();
            let left = index.bytes.saturating_sub(bytes.saturating_add(SHRINK_STEP));
            index.evict(left, &mut evicted);
        }
        self.free_all(evicted);
    }

    pub fn free_space(&self) -> &FreeSpace {
        &self.free_space
    }

    fn free_all(&self, evicted: Vec<(PackName, u32, u32)>) {
        for (pack, block, len) in evicted {
            self.free(pack, block, len);
        }
    }

    fn free(&self, pack: PackName, block: u32, len: u32) {
        let empty = !self.index.lock().packs.contains_key(&pack);
        let start = u64::from(block) * BLOCK_LEN;
        let freed = match empty {
            true => self.files.remove(pack),
            false => self.files.punch(pack, ByteRange::new(start, start + u64::from(len))),
        };
        self.note(freed);
    }

    /// True if it went well. A file that is gone is what was wanted, or a miss.
    fn note(&self, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                let expected = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof);
                if !expected && self.complaint.lock().replace(error.to_string()).is_none() {
                    tracing::warn!(%error, "the cache's disk fails; reads go on without it");
                }
                false
            }
        }
    }
}

impl Index {
    fn add(&mut self, pack: PackName, block: u32, len: u32) {
        match self.blocks.put((pack, block), len) {
            Some(old) => self.bytes -= u64::from(old),
            None => *self.packs.entry(pack).or_insert(0) += 1,
        }
        self.bytes += u64::from(len);
    }

    /// The least recently used go until no more than `bytes` are left.
    fn evict(&mut self, bytes: u64, evicted: &mut Vec<(PackName, u32, u32)>) {
        while self.bytes > bytes
            && let Some((pack, block)) = self.blocks.peek_lru().map(|(key, _)| *key)
        {
            evicted.extend(self.forget(pack, block).map(|len| (pack, block, len)));
        }
    }

    fn forget(&mut self, pack: PackName, block: u32) -> Option<u32> {
        let len = self.blocks.pop(&(pack, block))?;
        self.bytes -= u64::from(len);
        if let Some(count) = self.packs.get_mut(&pack) {
            *count -= 1;
            if *count == 0 {
                self.packs.remove(&pack);
            }
        }
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Incarnation;
    use crate::disk::RealDisk;

    fn pack(number: u64) -> PackName {
        PackName { incarnation: Incarnation([1; 16]), number }
    }

    fn open(dir: &Path, blocks: u64) -> BlockCache {
        BlockCache::open(Arc::new(RealDisk), dir.into(), blocks * BLOCK_LEN)
    }

    fn block(byte: u8) -> Vec<u8> {
        vec![byte; BLOCK_LEN as usize]
    }

    /// What the folder's files really take.
    fn used(dir: &Path) -> u64 {
        let files = std::fs::read_dir(dir).expect("readdir");
        files
            .map(|file| std::os::unix::fs::MetadataExt::blocks(&file.expect("a file").metadata().expect("stat")) * 512)
            .sum()
    }

    #[test]
    fn it_keeps_to_its_size_and_the_least_recently_used_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = open(dir.path(), 3);
        for number in 1..=3 {
            cache.put(pack(number), 0, &block(number as u8));
        }
        assert!(cache.get(pack(1), 0).is_some());
        cache.put(pack(4), 7, &block(4));
        assert!(cache.get(pack(2), 0).is_none(), "the oldest stayed");
        assert_eq!(cache.get(pack(1), 0).expect("still here"), block(1));
        assert_eq!(cache.get(pack(4), 7).expect("still here"), block(4));
        assert_eq!(cache.stats().bytes, 3 * BLOCK_LEN);
        assert!(used(dir.path()) <= 3 * BLOCK_LEN + 64 * 1024, "{} bytes on disk", used(dir.path()));
    }

    #[test]
    fn a_restart_finds_what_was_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = open(dir.path(), 10);
        cache.put(pack(1), 2, &block(2));
        cache.put(pack(1), 3, &[3; 1000]);
        drop(cache);
        let cache = open(dir.path(), 10);
        assert_eq!(cache.get(pack(1), 2).expect("found"), block(2));
        assert_eq!(cache.get(pack(1), 3).expect("found"), vec![3; 1000]);
        assert!(cache.get(pack(1), 0).is_none());
        assert_eq!(cache.stats().bytes, BLOCK_LEN + 1000);
        // And it still keeps to a smaller size.
        drop(cache);
        assert!(open(dir.path(), 1).stats().bytes <= BLOCK_LEN);
    }

    #[test]
    fn a_range_is_read_only_if_all_of_it_is_here() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = open(dir.path(), 10);
        cache.put(pack(1), 0, &block(1));
        cache.put(pack(1), 1, &[2; 100]);
        let across = ByteRange::new(BLOCK_LEN - 10, BLOCK_LEN + 10);
        assert_eq!(cache.read(pack(1), across).expect("here"), [vec![1; 10], vec![2; 10]].concat());
        assert!(cache.read(pack(1), ByteRange::new(BLOCK_LEN, BLOCK_LEN + 101)).is_none());
        cache.drop_block(pack(1), 0);
        assert!(cache.read(pack(1), across).is_none());
        assert!(cache.get(pack(1), 1).is_some());
    }

    #[test]
    fn a_staged_pack_is_taken_over_without_a_copy() {
        let dir = tempfile::tempdir().expect("a folder");
        let staged = dir.path().join("staged");
        std::fs::write(&staged, [block(1), vec![9; 5]].concat()).expect("write");
        let cache = open(&dir.path().join("cache"), 10);
        cache.adopt(pack(5), &staged, BLOCK_LEN + 5);
        assert!(!staged.exists());
        assert_eq!(cache.get(pack(5), 1).expect("here"), vec![9; 5]);
        assert_eq!(cache.get(pack(5), 0).expect("here"), block(1));
    }

    #[test]
    fn a_cache_whose_files_vanish_only_misses() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = open(dir.path(), 10);
        cache.put(pack(1), 0, &block(1));
        cache.files.remove(pack(1)).expect("remove");
        assert!(cache.get(pack(1), 0).is_none());
        std::fs::remove_dir_all(dir.path()).expect("remove");
        cache.put(pack(2), 0, &block(1));
        assert!(cache.get(pack(2), 0).is_none());
    }
}
