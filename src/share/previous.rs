//! What was published before, walked beside the tree as it is now: a file with the same path, size and modification
//! time, whose inode has not changed since, has the same chunks and is not read again.

use std::cmp::Ordering;

use crate::base::{Name, Timestamp};
use crate::format::link::{ChunkRef, Entry, EntryKind, IndexItem};
use crate::vfs::api::Attr;

use super::get::{GetError, Index, LinkSource};

pub(super) struct Previous<'a> {
    source: &'a dyn LinkSource,
    index: Index,
    /// When it was last begun to look whether all is as it says.
    looked: Timestamp,
    /// Of the entry that was read last, and the entries it is in.
    path: Vec<Name>,
    numbers: Vec<u64>,
    entry: Option<Entry>,
    chunks: Vec<(u64, ChunkRef)>,
}

impl<'a> Previous<'a> {
    pub fn new(source: &'a dyn LinkSource, index: Index, looked: Timestamp) -> Self {
        let (path, numbers, entry, chunks) = Default::default();
        Self { source, index, looked, path, numbers, entry, chunks }
    }

    /// The chunks of the file at `path`, if it has not changed. Paths are asked for in the order of the index.
    pub async fn file(&mut self, path: &[Name], attr: &Attr) -> Result<Option<Vec<(u64, ChunkRef)>>, GetError> {
        loop {
            if self.entry.is_none() && !self.advance().await? {
                return Ok(None);
            }
            match self.path.as_slice().cmp(path) {
                Ordering::Less => self.entry = None,
                Ordering::Greater => return Ok(None),
                Ordering::Equal => break,
            }
        }
        let entry = self.entry.take();
        // Programs set a modification time back after they wrote; the time of the inode's change they cannot set.
        let same = entry.is_some_and(|entry| {
            let has_size = matches!(entry.kind, EntryKind::File { size, .. } if size == attr.size);
            has_size && entry.mtime == attr.mtime && attr.ctime < self.looked
        });
        Ok(same.then(|| std::mem::take(&mut self.chunks)))
    }

    /// To the next entry, with its chunks. False at the end.
    async fn advance(&mut self) -> Result<bool, GetError> {
        self.chunks.clear();
        let Some(IndexItem::Entry(number, entry)) = self.index.next(self.source).await? else { return Ok(false) };
        // Its directory is the one that it is in now, or one of those above.
        let depth = self.numbers.iter().rposition(|open| *open == entry.parent).map_or(0, |at| at + 1);
        let depth = if number == 0 { 0 } else { depth };
        self.path.truncate(depth);
        self.numbers.truncate(depth);
        self.path.push(entry.name.clone());
        self.numbers.push(number);
        if let EntryKind::File { chunks, .. } = entry.kind {
            for _ in 0..chunks {
                match self.index.next(self.source).await? {
                    Some(IndexItem::Chunk { piece, chunk }) => self.chunks.push((piece, chunk)),
                    Some(IndexItem::Entry(..)) | None => return Ok(false),
                }
            }
        }
        self.entry = Some(entry);
        Ok(true)
    }
}
