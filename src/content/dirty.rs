//! Bytes that were written and are not sealed yet.
//!
//! Invariants: pieces of one inode do not overlap and none crosses a `CHUNK_LEN` boundary, so that each can
//! become one chunk. Every byte that was written since the last `mark_journaled` is in the unjournaled
//! ranges. Knows neither files' sizes nor extents: a truncation is a `discard`.
//!
//! Writes in any order cost amortised O(n log n) copying: a write grows the piece it touches at the left,
//! and takes in the one at its right only when that is at most twice as large. What stays apart is put
//! together once, when it is taken.

mod budget;
mod chunk;
mod ranges;

use std::collections::BTreeMap;

use self::chunk::Chunk;
use crate::base::{ByteRange, CHUNK_LEN};

pub use self::budget::DirtyBudget;
pub use self::ranges::RangeSet;

/// A run of unsealed bytes within one aligned chunk of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyPiece {
    pub offset: u64,
    pub data: Vec<u8>,
}

/// The unsealed bytes of one inode.
#[derive(Default)]
pub struct DirtyPieces {
    chunks: BTreeMap<u64, Chunk>,
    /// Chunks that were complete when last written to.
    full: Vec<u64>,
    unjournaled: RangeSet,
    bytes: u64,
}

impl DirtyPieces {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many bytes are dirty: what the budget counts.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many bytes are dirty now that were not before. The caller has seen to it that a file can be
    /// so long.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> u64 {
        let before = self.bytes;
        for (index, range) in by_chunk(range_of(offset, data.len())) {
            let part = &data[(range.start - offset) as usize..(range.end - offset) as usize];
            let chunk = self.chunks.entry(index).or_default();
            let bytes = chunk.bytes;
            chunk.write((range.start % CHUNK_LEN) as u32, part);
            self.bytes += u64::from(chunk.bytes - bytes);
            if u64::from(chunk.bytes) == CHUNK_LEN && !self.full.contains(&index) {
                self.full.push(index);
            }
        }
        self.unjournaled.insert(range_of(offset, data.len()));
        self.bytes - before
    }

    /// Gives back what `take_*` took and could not be sealed. Bytes written since then stay on top; all of it
    /// counts as unjournaled again. Returns how many bytes it added.
    pub fn restore(&mut self, piece: DirtyPiece) -> u64 {
        let before = self.bytes;
        let whole = range_of(piece.offset, piece.data.len());
        let newer: Vec<_> = self.within(whole).map(|(offset, data)| range_of(offset, data.len())).collect();
        let mut at = whole.start;
        for newer in newer.into_iter().chain([ByteRange::new(whole.end, whole.end)]) {
            let gap = ByteRange::new(at, newer.start);
            self.write(gap.start, &piece.data[(gap.start - whole.start) as usize..(gap.end - whole.start) as usize]);
            at = newer.end;
        }
        self.bytes - before
    }

    /// Copies the dirty bytes of `range` over what was read into `out`, which is as long as the range.
    pub fn overlay(&self, range: ByteRange, out: &mut [u8]) {
        for (offset, data) in self.within(range) {
            let at = (offset - range.start) as usize;
            out[at..at + data.len()].copy_from_slice(data);
        }
    }

    /// True if a read of `range` needs nothing but `overlay`.
    pub fn covers(&self, range: ByteRange) -> bool {
        self.within(range).map(|(_, data)| data.len() as u64).sum::<u64>() == range.len()
    }

    /// The parts of `range` that are dirty, in order; neighbours may be separate.
    pub fn ranges(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> {
        self.within(range).map(|(offset, data)| range_of(offset, data.len()))
    }

    /// Forgets the bytes of `range` (a truncation, a hole). Returns how many were dirty.
    pub fn discard(&mut self, range: ByteRange) -> u64 {
        let before = self.bytes;
        self.unjournaled.remove(range);
        let touched: Vec<u64> = match range.is_empty() {
            true => Vec::new(),
            false => {
                self.chunks.range(range.start / CHUNK_LEN..=(range.end - 1) / CHUNK_LEN).map(|(i, _)| *i).collect()
            }
        };
        for index in touched {
            let Some(chunk) = self.chunks.get_mut(&index) else { continue };
            let bytes = chunk.bytes;
            let start = range.start.saturating_sub(index * CHUNK_LEN).min(CHUNK_LEN);
            let end = (range.end - index * CHUNK_LEN).min(CHUNK_LEN);
            chunk.discard(start as u32, end as u32);
            self.bytes -= u64::from(bytes - chunk.bytes);
            if chunk.bytes == 0 {
                self.chunks.remove(&index);
            }
        }
        before - self.bytes
    }

    /// Takes out every aligned chunk that is dirty as a whole, in the order they were completed.
    pub fn take_full_chunks(&mut self) -> Vec<DirtyPiece> {
        let full = std::mem::take(&mut self.full);
        let is_full = |index: &u64| self.chunks.get(index).is_some_and(|chunk| u64::from(chunk.bytes) == CHUNK_LEN);
        let full: Vec<u64> = full.into_iter().filter(is_full).collect();
        full.into_iter().flat_map(|index| self.take_chunk(index)).collect()
    }

    /// Takes out everything, neighbours within a chunk put together, in the order of offsets.
    pub fn take_all(&mut self) -> Vec<DirtyPiece> {
        self.full.clear();
        let all: Vec<u64> = self.chunks.keys().copied().collect();
        all.into_iter().flat_map(|index| self.take_chunk(index)).collect()
    }

    /// All pieces in the order of offsets; neighbours may be separate.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.within(ByteRange::new(0, u64::MAX))
    }

    /// What was written since the last `mark_journaled`, in the order of offsets.
    pub fn unjournaled(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.unjournaled.iter().flat_map(|range| self.within(range))
    }

    pub fn mark_journaled(&mut self) {
        self.unjournaled.clear();
    }

    pub fn is_journaled(&self) -> bool {
        self.unjournaled.is_empty()
    }

    /// The dirty bytes in `range`, in the order of offsets.
    fn within(&self, range: ByteRange) -> impl Iterator<Item = (u64, &[u8])> {
        let chunks = self.chunks.range(range.start / CHUNK_LEN..);
        let chunks = chunks.take_while(move |(index, _)| *index * CHUNK_LEN < range.end);
        let pieces = chunks.flat_map(move |(index, chunk)| {
            let base = index * CHUNK_LEN;
            let start = range.start.saturating_sub(base).min(CHUNK_LEN) as u32;
            chunk.pieces.range(chunk.first_touching(start)..).map(move |(at, data)| (base + u64::from(*at), &data[..]))
        });
        pieces.take_while(move |(offset, _)| *offset < range.end).filter_map(move |(offset, data)| {
            let part = range_of(offset, data.len()).intersect(range)?;
            Some((part.start, &data[(part.start - offset) as usize..(part.end - offset) as usize]))
        })
    }

    fn take_chunk(&mut self, index: u64) -> Vec<DirtyPiece> {
        let Some(chunk) = self.chunks.remove(&index) else { return Vec::new() };
        self.bytes -= u64::from(chunk.bytes);
        let base = index * CHUNK_LEN;
        self.unjournaled.remove(range_of(base, CHUNK_LEN as usize));
        let mut taken: Vec<DirtyPiece> = Vec::new();
        for (at, mut data) in chunk.pieces {
            let offset = base + u64::from(at);
            match taken.last_mut() {
                Some(last) if last.offset + last.data.len() as u64 == offset => last.data.append(&mut data),
                _ => taken.push(DirtyPiece { offset, data }),
            }
        }
        taken
    }
}

fn range_of(offset: u64, len: usize) -> ByteRange {
    ByteRange::new(offset, offset + len as u64)
}

fn by_chunk(range: ByteRange) -> impl Iterator<Item = (u64, ByteRange)> {
    let last = range.end.div_ceil(CHUNK_LEN);
    let first = if range.is_empty() { last } else { range.start / CHUNK_LEN };
    (first..last).filter_map(move |index| {
        let whole = ByteRange::new(index * CHUNK_LEN, (index + 1) * CHUNK_LEN);
        Some((index, whole.intersect(range)?))
    })
}

#[cfg(test)]
mod tests;
