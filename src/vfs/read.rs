//! Reading: extents to chunks to plaintext, with the unsealed bytes on top.
//!
//! A read that finds everything on this machine is answered at once. Otherwise it takes with it what it needs
//! (places, keys, and a copy of the unsealed bytes in its range) and ends without this layer's locks.

use bytes::Bytes;

use crate::base::{ByteRange, ChunkNo, InodeId};
use crate::content::extent::Span;
use crate::content::{ChunkSource, ContentError, extent};
use crate::format::rows::{ChunkRow, EXTENT_WINDOW_LEN, InodeRow};
use crate::meta::Rows;

use super::api::{HandleId, ReadReply, SeekTarget, VfsError, VfsResult};
use super::drive::Drive;
use super::errors::content_error;
use super::node::NodeState;

/// Data and holes are told apart in steps as local disks have them: programs find out the step by trying, and take it
/// that a block with one byte in it is data.
pub(super) const SEEK_BLOCK_LEN: u64 = 4096;

/// Part of a read that one chunk answers.
struct Part {
    source: ChunkSource,
    in_chunk: ByteRange,
    /// Where it goes in the reply.
    at: usize,
}

impl Drive {
    pub(super) fn read_range(&self, ino: InodeId, handle: HandleId, range: ByteRange) -> VfsResult<ReadReply> {
        let node = self.nodes.get_or_insert(ino);
        let mut state = node.state.lock();
        let row = self.row(ino, &state)?;
        if !row.is_file() {
            return Err(if row.is_dir() { VfsError::IsDirectory } else { VfsError::Invalid });
        }
        let Some(range) = range.intersect(ByteRange::new(0, row.size)) else {
            return Ok(ReadReply::Ready(Bytes::new()));
        };
        if !state.keep_atime.contains(&handle) {
            self.atimes.touch(ino, &row, self.clock.as_ref());
        }
        let parts = self.parts(ino, &state, &row, range)?;
        let mut out = Vec::with_capacity(range.len() as usize);
        let mut here = true;
        for part in &parts {
            out.resize(part.at + part.in_chunk.len() as usize, 0);
            let read = self.reader.try_read(&part.source, part.in_chunk, &mut out[part.at..]);
            if !read.map_err(|error| content_error("read", &error))? {
                here = false;
                break;
            }
        }
        self.read_ahead(ino, handle, &mut state, &row, range, !here);
        if here {
            out.resize(range.len() as usize, 0);
            state.dirty.overlay(range, &mut out);
            return Ok(ReadReply::Ready(out.into()));
        }
        let unsealed = state.dirty.iter().filter_map(|(offset, bytes)| {
            let part = ByteRange::at(offset, bytes.len() as u64)?.intersect(range)?;
            Some((
                (part.start - range.start) as usize,
                bytes[(part.start - offset) as usize..(part.end - offset) as usize].to_vec(),
            ))
        });
        let unsealed: Vec<_> = unsealed.collect();
        let reader = self.reader.clone();
        Ok(ReadReply::Later(Box::pin(async move {
            // All at once; they are put together in order.
            let reads = parts.iter().map(|part| {
                let reader = &reader;
                async move {
                    let mut bytes = vec![0; part.in_chunk.len() as usize];
                    reader.read(&part.source, part.in_chunk, &mut bytes).await.map(|()| bytes)
                }
            });
            let read: Result<Vec<_>, ContentError> = futures::future::try_join_all(reads).await;
            out.clear();
            for (part, bytes) in parts.iter().zip(read.map_err(|error| content_error("read", &error))?) {
                out.resize(part.at, 0);
                out.extend_from_slice(&bytes);
            }
            out.resize(range.len() as usize, 0);
            for (at, bytes) in unsealed {
                out[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Ok(Bytes::from(out))
        })))
    }

    fn parts(&self, ino: InodeId, state: &NodeState, row: &InodeRow, range: ByteRange) -> VfsResult<Vec<Part>> {
        let stored;
        let extents = match &state.orphan {
            Some(orphan) => &orphan.extents,
            None => {
                stored = self.view().extents(ino, row, range).map_err(self.failed("read"))?;
                &stored
            }
        };
        let mut parts = Vec::new();
        for span in extent::spans(extents, range) {
            let Span::Data { range: data, chunk, chunk_offset } = span else { continue };
            // Unsealed bytes will cover it: nothing needs to come from anywhere.
            if state.dirty.covers(data) {
                continue;
            }
            let start = u64::from(chunk_offset);
            let source = self.source(state, chunk)?;
            parts.push(Part {
                source,
                in_chunk: ByteRange::new(start, start + data.len()),
                at: (data.start - range.start) as usize,
            });
        }
        Ok(parts)
    }

    /// Where a chunk is and what opens it. A row that is missing or names what is not there is damage.
    pub(super) fn source(&self, state: &NodeState, chunk: ChunkNo) -> VfsResult<ChunkSource> {
        let private = state.orphan.as_ref().and_then(|orphan| orphan.chunks.get(&chunk).cloned());
        let row: ChunkRow = match private {
            Some(row) => row,
            None => self.view().chunk(chunk).map_err(self.failed("read"))?.ok_or_else(|| {
                tracing::error!("chunk {chunk} has no row: the volume's metadata is damaged");
                VfsError::Io
            })?,
        };
        let pack = match self.orphan_packs.lock().get(&row.pack) {
            Some(name) => Some(*name),
            None => self.view().pack(row.pack).map_err(self.failed("read"))?.map(|pack| pack.name),
        };
        let pack = pack.ok_or_else(|| {
            tracing::error!("pack {} of chunk {chunk} has no row: the volume's metadata is damaged", row.pack);
            VfsError::Io
        })?;
        let private = state.orphan.as_ref().and_then(|orphan| orphan.keys.get(&row.key).cloned());
        let file_key = match private {
            Some(file_key) => file_key,
            None => self.keys.get(row.key, self.view()).map_err(self.failed("read"))?,
        };
        Ok(ChunkSource { chunk, row, pack, file_key: file_key.key })
    }

    /// Fetches what a sequential reader will want next.
    fn read_ahead(
        &self,
        ino: InodeId,
        handle: HandleId,
        state: &mut NodeState,
        row: &InodeRow,
        range: ByteRange,
        waited: bool,
    ) {
        let size = row.size;
        let Some(ahead) = state.prefetch.entry(handle).or_default().on_read(range, waited, size) else {
            return;
        };
        // Only a hint: what fails here fails again, and plainly, when it is read.
        let Ok(parts) = self.parts(ino, state, row, ahead) else { return };
        for part in parts {
            let reader = self.reader.clone();
            self.runtime.spawn(async move { reader.warm(&part.source, part.in_chunk).await });
        }
    }

    pub(super) fn seek_from(&self, ino: InodeId, offset: u64, target: SeekTarget) -> VfsResult<u64> {
        let node = self.nodes.get_or_insert(ino);
        let state = node.state.lock();
        let row = self.row(ino, &state)?;
        if offset >= row.size {
            return Err(VfsError::NoDevice);
        }
        // What is sought is mostly near, in a file of however many extents; so the range grows.
        let (mut start, mut len) = (offset, EXTENT_WINDOW_LEN);
        while start < row.size {
            let range = ByteRange::new(start, row.size.min(start.saturating_add(len)));
            let covered = self.covered(ino, &state, &row, range)?;
            match target {
                SeekTarget::Data => {
                    if let Some(first) = covered.first() {
                        return Ok(first.start);
                    }
                }
                SeekTarget::Hole => {
                    let end = end_of_data(start, &covered);
                    if end < range.end {
                        return Ok(end);
                    }
                }
            }
            (start, len) = (range.end, len.saturating_mul(2));
        }
        match target {
            SeekTarget::Data => Err(VfsError::NoDevice),
            SeekTarget::Hole => Ok(row.size),
        }
    }

    /// The parts of `range` in blocks that hold data, sealed or not, in order; they may overlap.
    fn covered(&self, ino: InodeId, state: &NodeState, row: &InodeRow, range: ByteRange) -> VfsResult<Vec<ByteRange>> {
        let blocks = whole_blocks(range);
        let stored;
        let extents = match &state.orphan {
            Some(orphan) => &orphan.extents,
            None => {
                stored = self.view().extents(ino, row, blocks).map_err(self.failed("lseek"))?;
                &stored
            }
        };
        let sealed = extents.iter().map(|extent| ByteRange::new(extent.offset, extent.end()));
        let data = sealed.chain(state.dirty.ranges(blocks)).filter(|data| data.intersect(blocks).is_some());
        let mut covered: Vec<ByteRange> = data.filter_map(|data| whole_blocks(data).intersect(range)).collect();
        covered.sort_by_key(|range| range.start);
        Ok(covered)
    }
}

/// The blocks that `range` touches.
fn whole_blocks(range: ByteRange) -> ByteRange {
    ByteRange::new(range.start / SEEK_BLOCK_LEN * SEEK_BLOCK_LEN, range.end.next_multiple_of(SEEK_BLOCK_LEN))
}

/// Where the data that begins at `start` ends.
fn end_of_data(start: u64, covered: &[ByteRange]) -> u64 {
    let mut end = start;
    for range in covered {
        if range.start > end {
            break;
        }
        end = end.max(range.end);
    }
    end
}
