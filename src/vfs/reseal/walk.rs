//! Which files have anything under keys of an epoch that has ended: a walk over all inodes, a page at a time.
//!
//! It goes by rows alone, so it needs no notes of what was done. Each page sees the state of its moment: what comes in
//! behind the walk is met by the next one. Chunks that no file cites are met by none.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::base::{ChunkNo, Epoch, InodeId, KeyNo};
use crate::format::rows::{Extent, InodeBody, InodeRow, KeyBytes, RowKey, decode_window};
use crate::meta::{MetaError, Rows};

const PAGE_INODES: usize = 256;
const PAGE_WINDOWS: usize = 16;
const EPOCHS_REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).unwrap();

/// What of one file is under old keys, without the chunks that this walk has shown before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OldFile {
    pub ino: InodeId,
    pub chunks: Vec<OldChunk>,
    /// Its row names an old key, though nothing new goes under it.
    pub names_old_key: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OldChunk {
    pub chunk: ChunkNo,
    pub len: u32,
}

pub(super) struct Walk {
    /// What is before it is old.
    epoch: Epoch,
    after: Option<KeyBytes>,
    seen: ChunkSet,
    epochs: LruCache<KeyNo, Epoch>,
}

impl Walk {
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, after: None, seen: ChunkSet::default(), epochs: LruCache::new(EPOCHS_REMEMBERED) }
    }

    /// The old ones among the next inodes; None at the end.
    pub fn page(&mut self, rows: &dyn Rows) -> Result<Option<Vec<OldFile>>, MetaError> {
        let inodes = rows.scan(b"I", self.after.as_deref(), PAGE_INODES)?;
        let Some((last, _)) = inodes.last() else { return Ok(None) };
        self.after = Some(last.clone());
        let mut old = Vec::new();
        for (key, value) in inodes {
            let RowKey::Inode(ino) = RowKey::decode(&key)? else { continue };
            let row = InodeRow::decode(&value)?;
            let InodeBody::File(inline) = &row.body else { continue };
            let mut chunks = Vec::new();
            self.note(inline, rows, &mut chunks)?;
            self.windows(ino, rows, &mut chunks)?;
            let names_old_key = match row.key {
                Some(key) => self.is_old(key, rows)?,
                None => false,
            };
            if names_old_key || !chunks.is_empty() {
                old.push(OldFile { ino, chunks, names_old_key });
            }
        }
        Ok(Some(old))
    }

    fn windows(&mut self, ino: InodeId, rows: &dyn Rows, chunks: &mut Vec<OldChunk>) -> Result<(), MetaError> {
        let prefix = RowKey::prefix(b'X', ino.0);
        let mut after: Option<KeyBytes> = None;
        loop {
            let windows = rows.scan(&prefix, after.as_deref(), PAGE_WINDOWS)?;
            for (key, value) in &windows {
                if let RowKey::Extents(_, window) = RowKey::decode(key)? {
                    self.note(&decode_window(window, value)?, rows, chunks)?;
                }
            }
            match windows.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    fn note(&mut self, extents: &[Extent], rows: &dyn Rows, chunks: &mut Vec<OldChunk>) -> Result<(), MetaError> {
        for extent in extents {
            if self.seen.has(extent.chunk) {
                continue;
            }
            // A chunk without a row is damage that a read tells of.
            let Some(row) = rows.chunk(extent.chunk)? else { continue };
            if self.is_old(row.key, rows)? {
                self.seen.insert(extent.chunk);
                chunks.push(OldChunk { chunk: extent.chunk, len: row.len });
            }
        }
        Ok(())
    }

    fn is_old(&mut self, key: KeyNo, rows: &dyn Rows) -> Result<bool, MetaError> {
        let epoch = match self.epochs.get(&key) {
            Some(epoch) => *epoch,
            None => {
                // Nobody can open it in either case, and a read tells of it.
                let Some(row) = rows.file_key(key)? else { return Ok(false) };
                self.epochs.put(key, row.epoch);
                row.epoch
            }
        };
        Ok(epoch < self.epoch)
    }
}

/// Numbers of chunks, which are counted: dense, so a bit each.
#[derive(Default)]
pub(super) struct ChunkSet {
    blocks: HashMap<u64, Box<[u64; WORDS]>>,
}

const WORDS: usize = 64;
const BLOCK: u64 = WORDS as u64 * 64;

impl ChunkSet {
    pub fn has(&self, chunk: ChunkNo) -> bool {
        let (block, word, bit) = place(chunk);
        self.blocks.get(&block).is_some_and(|words| words[word] & bit != 0)
    }

    pub fn insert(&mut self, chunk: ChunkNo) {
        let (block, word, bit) = place(chunk);
        self.blocks.entry(block).or_insert_with(|| Box::new([0; WORDS]))[word] |= bit;
    }
}

fn place(chunk: ChunkNo) -> (u64, usize, u64) {
    (chunk.0 / BLOCK, (chunk.0 % BLOCK / 64) as usize, 1 << (chunk.0 % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_chunks_holds_what_was_put_into_it(numbers in prop::collection::hash_set(0..20_000u64, 0..200)) {
            let mut set = ChunkSet::default();
            numbers.iter().for_each(|number| set.insert(ChunkNo(*number)));
            for number in 0..20_000 {
                prop_assert_eq!(set.has(ChunkNo(number)), numbers.contains(&number));
            }
        }
    }
}
