//! Contents: write, truncate, punch, copy, and the sealing of what was written.
//!
//! Invariants: a write never reads from the store; bytes leave a node's dirty pieces only once an intent names
//! the chunk that holds them; memory for dirty pieces is reserved before they are taken in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::base::{ByteRange, CHUNK_LEN, ChunkId, ChunkNo, InodeId, KeyNo, PackNo, Timestamp};
use crate::content::{DirtyPiece, Place as StagedPlace, Room, extent};
use crate::crypto::{Key, chunk_id};
use crate::format::chunk::seal_chunk;
use crate::format::intent::{Change, Intent};
use crate::format::rows::{ChunkRow, EXTENT_WINDOW_LEN, Extent, FILE_LEN_MAX, InodeBody, InodeRow, PackRow, RowKey};
use crate::meta::Rows;

use super::api::{FallocateMode, Kill, Place, VfsError, VfsResult, WriteReply};
use super::drive::Drive;
use super::node::{Ahead, Node, NodeState};

/// What is to be said before the extents that cite it.
#[derive(Default)]
pub(super) struct Facts {
    pub intents: Vec<Intent>,
    /// The pack whose row is there, or among the intents.
    pack: Option<PackNo>,
}

impl Drive {
    pub(super) fn write_now(&self, ino: InodeId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<WriteReply> {
        check_end(offset, data.len() as u64)?;
        let bytes = data.len() as u64;
        if !self.has_local_room(bytes)
            || !self.staging.has_room()
            || self.has_rows_max()
            || !self.budget.try_reserve(bytes)
        {
            self.wake_cycle();
            return Ok(WriteReply::WouldBlock);
        }
        self.write_reserved(ino, offset, data, kill).map(WriteReply::Done)
    }

    pub(super) fn write_waiting(&self, ino: InodeId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<u32> {
        check_end(offset, data.len() as u64)?;
        self.wake_cycle();
        let deadline = Instant::now() + self.options.write_deadline;
        // Here, where nothing is held that a commit needs: further in, what is written goes past the limit.
        self.wait_local_room(data.len() as u64, deadline)?;
        self.staging.wait_room(deadline).map_err(self.content_failed("write"))?;
        self.budget.reserve_wait(data.len() as u64, deadline).map_err(self.content_failed("write"))?;
        self.write_reserved(ino, offset, data, kill)
    }

    fn write_reserved(&self, ino: InodeId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<u32> {
        let reserved = data.len() as u64;
        let node = self.nodes.get_or_insert(ino);
        let result = {
            let gate = self.change();
            let mut state = node.state.lock();
            let before = state.dirty.bytes();
            let result = gate.and_then(|_gate| self.write_locked(&node, &mut state, offset, data, kill));
            // What is held is what the pieces grew by; sealing may even have made them less.
            self.budget.release(reserved + before - state.dirty.bytes());
            result
        };
        drop(node);
        self.note_written(reserved);
        result
    }

    fn write_locked(&self, node: &Node, state: &mut NodeState, offset: u64, data: &[u8], kill: Kill) -> VfsResult<u32> {
        let row = self.row(node.ino, state)?;
        if !row.is_file() {
            return Err(VfsError::Invalid);
        }
        let range = ByteRange::at(offset, data.len() as u64).ok_or(VfsError::FileTooBig)?;
        self.check_room(node.ino, &row, state, range, range.len())?;
        let now = self.now();
        self.drop_privileges(node.ino, state, row.mode, now, kill)?;
        state.dirty.write(offset, data);
        self.count_rows(node.ino, state, &row, range)?;
        let size = row.size.max(offset + data.len() as u64);
        state.ahead = Some(Ahead { base: row.version, size, mtime: now, ctime: now });
        let full = state.dirty.take_full_chunks();
        if !full.is_empty() {
            self.seal(node.ino, state, full)?;
        }
        Ok(data.len() as u32)
    }

    /// What a write will change in the rows, before it is sealed: its own, and the windows it lies in, each once.
    fn count_rows(&self, ino: InodeId, state: &mut NodeState, row: &InodeRow, range: ByteRange) -> VfsResult<()> {
        const OWN: u64 = 128;
        if state.orphan.is_some() {
            return Ok(());
        }
        let mut bytes = OWN;
        let InodeBody::File(inline) = &row.body else { return Ok(()) };
        // Beyond the end there are none, and the first may be in the inode's own row.
        let has_row = |window: u64| window * EXTENT_WINDOW_LEN < row.size && (window > 0 || inline.is_empty());
        for (window, _) in extent::windows(range) {
            if has_row(window) && state.counted.insert(window) {
                bytes += self.window_len(ino, window).map_err(self.failed("write"))? as u64;
            }
        }
        self.note_rows(bytes);
        Ok(())
    }

    /// Seals all that is dirty in the node.
    pub(super) fn seal_all(&self, ino: InodeId, state: &mut NodeState) -> VfsResult<()> {
        let before = state.dirty.bytes();
        state.counted.clear();
        let pieces = state.dirty.take_all();
        let sealed = self.seal(ino, state, pieces);
        self.budget.release(before - state.dirty.bytes());
        sealed
    }

    /// Seals pieces and says so in one `Write`. What no intent names in the end goes back to the dirty pieces.
    fn seal(&self, ino: InodeId, state: &mut NodeState, pieces: Vec<DirtyPiece>) -> VfsResult<()> {
        if pieces.is_empty() && state.ahead.is_none() {
            return Ok(());
        }
        let (named, sealed) = self.seal_pieces(ino, state, &pieces);
        for piece in pieces.into_iter().skip(named) {
            state.dirty.restore(piece);
        }
        if state.dirty.is_empty() && sealed.is_ok() {
            state.ahead = None;
        }
        sealed
    }

    /// How many of the pieces, from the first on, are in the rows after it.
    fn seal_pieces(&self, ino: InodeId, state: &mut NodeState, pieces: &[DirtyPiece]) -> (usize, VfsResult<()>) {
        let row = match self.row(ino, state) {
            Ok(row) => row,
            Err(error) => return (0, Err(error)),
        };
        let key_before = state.file_key.clone();
        let mut facts = Facts::default();
        let mut changes = Vec::new();
        let mut failure = Ok(());
        for piece in pieces {
            match self.chunk_for(state, &piece.data, &mut facts) {
                Ok(chunk) => {
                    let (offset, len) = (piece.offset, piece.data.len() as u32);
                    changes.push(Change::Extent(Extent { offset, len, chunk, chunk_offset: 0 }));
                }
                Err(error) => {
                    failure = Err(error);
                    break;
                }
            }
        }
        let named = changes.len();
        if named == 0 && failure.is_err() {
            state.file_key = key_before;
            return (0, failure);
        }
        match self.say_write(ino, state, &row, facts.intents, changes) {
            Ok(()) => (named, failure),
            Err(error) => {
                // The row of a key that was new went with the rest.
                state.file_key = key_before;
                (0, Err(error))
            }
        }
    }

    /// Puts `changes` into the rows, or into the orphan.
    pub(super) fn say_write(
        &self,
        ino: InodeId,
        state: &mut NodeState,
        row: &InodeRow,
        mut intents: Vec<Intent>,
        changes: Vec<Change>,
    ) -> VfsResult<()> {
        if let Some(orphan) = &mut state.orphan {
            for change in changes {
                match change {
                    Change::Extent(new) => extent::cover(&mut orphan.extents, new),
                    Change::Hole(range) => extent::punch(&mut orphan.extents, range),
                    Change::Inline { .. } => {}
                }
            }
            (orphan.row.size, orphan.row.mtime, orphan.row.ctime) = (row.size, row.mtime, row.ctime);
            orphan.row.allocated = extent::allocated(&orphan.extents);
            return Ok(());
        }
        let key = state.file_key.as_ref().map(|file_key| file_key.number).filter(|number| row.key != Some(*number));
        let windows: BTreeSet<u64> = changes.iter().flat_map(written_windows).collect();
        intents.push(Intent::Write {
            ino,
            base: row.version,
            size: row.size,
            mtime: row.mtime,
            time: row.ctime,
            key,
            changes,
        });
        self.submit(intents)?;
        if let Some(ahead) = &mut state.ahead {
            ahead.base = row.version + 1;
        }
        self.note_fragments(ino, windows);
        Ok(())
    }

    /// The chunk that holds `piece`: one that is there, or a new one in staging with the facts about it.
    pub(super) fn chunk_for(&self, state: &mut NodeState, piece: &[u8], facts: &mut Facts) -> VfsResult<ChunkNo> {
        let id = chunk_id(piece);
        let orphaned = state.orphan.is_some();
        if !orphaned && let Some(chunk) = self.known_chunk(&id, piece.len())? {
            return Ok(chunk);
        }
        let number = self.pending.next_chunk();
        self.stage_chunk(state, number, id, piece, facts)?;
        Ok(number)
    }

    /// Seals a chunk into staging, under the file's key of this epoch, with the facts about it.
    pub(super) fn stage_chunk(
        &self,
        state: &mut NodeState,
        number: ChunkNo,
        id: ChunkId,
        piece: &[u8],
        facts: &mut Facts,
    ) -> VfsResult<()> {
        let (key_no, key) = self.file_key(state, &mut facts.intents)?;
        let sealed = seal_chunk(&key, self.volume, &id, piece, self.entropy.as_ref());
        let place = self.staging.append(&sealed.bytes, number, Room::Commit).map_err(self.content_failed("write"))?;
        let row = ChunkRow {
            pack: place.pack,
            offset: place.offset,
            len: piece.len() as u32,
            key: key_no,
            id,
            frames: sealed.frames,
        };
        if let Some(orphan) = &mut state.orphan {
            self.orphan_packs.lock().insert(place.pack, place.name);
            orphan.chunks.insert(number, row);
            return Ok(());
        }
        self.announce_pack(&place, facts)?;
        facts.intents.push(Intent::Fact { key: RowKey::Chunk(number), value: row.encode().into_boxed_slice() });
        Ok(())
    }

    /// The pack's own row comes with its first chunk in the rows. Asked each time: whoever sealed into it before may
    /// have failed to say so, or be about to, and twice does no harm.
    pub(super) fn announce_pack(&self, place: &StagedPlace, facts: &mut Facts) -> VfsResult<()> {
        if facts.pack.replace(place.pack) != Some(place.pack)
            && self.view().pack(place.pack).map_err(self.failed("write"))?.is_none()
        {
            let value = PackRow { name: place.name }.encode().into_boxed_slice();
            facts.intents.push(Intent::Fact { key: RowKey::Pack(place.pack), value });
        }
        Ok(())
    }

    /// Content that is in the volume already, by what this device knows, and under keys of this epoch.
    fn known_chunk(&self, id: &ChunkId, len: usize) -> VfsResult<Option<ChunkNo>> {
        if !self.options.dedup {
            return Ok(None);
        }
        let found = self.view().find_chunk(id).map_err(self.failed("write"))?;
        let fits = |(chunk, row): &(ChunkNo, ChunkRow)| row.len as usize == len && !self.reader.is_damaged(*chunk);
        let Some((chunk, row)) = found.filter(fits) else { return Ok(None) };
        let file_key = self.keys.get(row.key, self.view()).map_err(self.failed("write"))?;
        Ok(self.keys.is_current(&file_key).then_some(chunk))
    }

    /// The key that a file's row names, which its node may not have been told yet.
    pub(super) fn load_file_key(&self, state: &mut NodeState, row: &InodeRow) -> VfsResult<()> {
        if state.file_key.is_none()
            && let Some(number) = row.key
        {
            state.file_key = Some(self.keys.get(number, self.view()).map_err(self.failed("open"))?);
        }
        Ok(())
    }

    /// The file's own key: the one its row names, or a new one; so also after a rotation.
    fn file_key(&self, state: &mut NodeState, intents: &mut Vec<Intent>) -> VfsResult<(KeyNo, Arc<Key>)> {
        if let Some(file_key) = state.file_key.as_ref().filter(|file_key| self.keys.is_current(file_key)) {
            return Ok((file_key.number, file_key.key.clone()));
        }
        let number = self.pending.next_key();
        let (file_key, row) = self.keys.create(number);
        match &mut state.orphan {
            Some(orphan) => {
                orphan.keys.insert(number, file_key.clone());
            }
            None => {
                let value = row.encode().into_boxed_slice();
                intents.push(Intent::Fact { key: RowKey::FileKey(number), value });
            }
        }
        let key = file_key.key.clone();
        state.file_key = Some(file_key);
        Ok((number, key))
    }

    pub(super) fn truncate(
        &self,
        ino: InodeId,
        state: &mut NodeState,
        row: &InodeRow,
        size: u64,
        now: Timestamp,
    ) -> VfsResult<()> {
        if row.is_dir() {
            return Err(VfsError::IsDirectory);
        }
        if !row.is_file() {
            return Err(VfsError::Invalid);
        }
        check_end(size, 0)?;
        let cut = ByteRange::new(size, u64::MAX);
        let hole = if size < row.size { vec![Change::Hole(cut)] } else { Vec::new() };
        self.change_content(ino, state, row, (size < row.size).then_some(cut), size, now, hole)
    }

    /// Drops the dirty bytes in `discard`, and says `changes` with the new size.
    #[expect(clippy::too_many_arguments, reason = "one step of three operations; a struct would be named for it alone")]
    fn change_content(
        &self,
        ino: InodeId,
        state: &mut NodeState,
        row: &InodeRow,
        discard: Option<ByteRange>,
        size: u64,
        now: Timestamp,
        changes: Vec<Change>,
    ) -> VfsResult<()> {
        let row = InodeRow { size, mtime: now, ctime: now, ..row.clone() };
        self.say_write(ino, state, &row, Vec::new(), changes)?;
        // Only now: what could not be said changed nothing.
        if let Some(range) = discard {
            self.budget.release(state.dirty.discard(range));
        }
        let base = row.version + 1;
        state.ahead = (!state.dirty.is_empty()).then_some(Ahead { base, size, mtime: now, ctime: now });
        Ok(())
    }

    pub(super) fn allocate(&self, ino: InodeId, range: ByteRange, how: FallocateMode, kill: Kill) -> VfsResult<()> {
        check_end(range.end, 0)?;
        let _gate = self.change()?;
        let node = self.nodes.get_or_insert(ino);
        let mut state = node.state.lock();
        let row = self.row(ino, &state)?;
        if !row.is_file() {
            return Err(if row.is_dir() { VfsError::IsDirectory } else { VfsError::NoDevice });
        }
        if matches!(how, FallocateMode::Allocate | FallocateMode::AllocateKeepSize) {
            self.check_room(ino, &row, &state, range, 0)?;
        }
        let now = self.now();
        let grown = row.size.max(range.end);
        let size = match how {
            FallocateMode::Allocate | FallocateMode::Zero => grown,
            FallocateMode::AllocateKeepSize | FallocateMode::PunchHole | FallocateMode::ZeroKeepSize => row.size,
        };
        let (discard, changes) = match how {
            // There is nothing to reserve in a bucket; the times change all the same, as on a disk.
            FallocateMode::Allocate | FallocateMode::AllocateKeepSize => (None, Vec::new()),
            FallocateMode::PunchHole | FallocateMode::Zero | FallocateMode::ZeroKeepSize => {
                (Some(range), vec![Change::Hole(range)])
            }
        };
        self.change_content(ino, &mut state, &row, discard, size, now, changes)?;
        self.drop_privileges(ino, &mut state, row.mode, now, kill)
    }

    /// Copies references, not bytes.
    pub(super) fn copy_extents(&self, from: Place, to: Place, len: u64, kill: Kill) -> VfsResult<u64> {
        check_end(to.offset, len)?;
        let _gate = self.change()?;
        let (source, target) = (self.nodes.get_or_insert(from.ino), self.nodes.get_or_insert(to.ino));
        // Sealed, so that everything is extents; then read in one lock's time.
        let (range, extents) = {
            let mut state = source.state.lock();
            self.seal_all(from.ino, &mut state)?;
            let row = self.row(from.ino, &state)?;
            if !row.is_file() {
                return Err(VfsError::Invalid);
            }
            let end = row.size.min(from.offset.saturating_add(len));
            if from.offset >= end {
                return Ok(0);
            }
            let range = ByteRange::new(from.offset, end);
            if state.orphan.is_some() {
                // Its chunks may be known to nobody else; the kernel copies by read and write instead.
                return Err(VfsError::NotSupported);
            }
            let mut extents = self.view().extents(from.ino, &row, range).map_err(self.failed("copy"))?;
            extents.retain_mut(|extent| clip(extent, range));
            (range, extents)
        };
        let copied = range.len();
        if from.ino == to.ino && ByteRange::new(to.offset, to.offset + copied).intersect(range).is_some() {
            return Err(VfsError::Invalid);
        }
        let mut state = target.state.lock();
        if state.orphan.is_some() {
            return Err(VfsError::NotSupported);
        }
        let row = self.row(to.ino, &state)?;
        if !row.is_file() {
            return Err(VfsError::Invalid);
        }
        let covered = ByteRange::new(to.offset, to.offset + copied);
        self.check_room(to.ino, &row, &state, covered, 0)?;
        let moved = extents
            .into_iter()
            .map(|extent| Change::Extent(Extent { offset: extent.offset - from.offset + to.offset, ..extent }));
        let changes = std::iter::once(Change::Hole(covered)).chain(moved).collect();
        let size = row.size.max(covered.end);
        let now = self.now();
        self.change_content(to.ino, &mut state, &row, Some(covered), size, now, changes)?;
        self.drop_privileges(to.ino, &mut state, row.mode, now, kill)?;
        Ok(copied)
    }
}

/// Cuts an extent to a range; false when nothing is left.
pub(super) fn clip(extent: &mut Extent, range: ByteRange) -> bool {
    let own = ByteRange::new(extent.offset, extent.end());
    let Some(kept) = own.intersect(range) else { return false };
    extent.chunk_offset += (kept.start - own.start) as u32;
    (extent.offset, extent.len) = (kept.start, kept.len() as u32);
    true
}

fn written_windows(change: &Change) -> impl Iterator<Item = u64> + use<> {
    let written = match change {
        Change::Extent(extent) => ByteRange::new(extent.offset, extent.end()),
        Change::Hole(_) | Change::Inline { .. } => ByteRange::new(0, 0),
    };
    extent::windows(written).map(|(window, _)| window)
}

/// A file ends at 2^63 - 1 at the latest.
fn check_end(offset: u64, len: u64) -> VfsResult<()> {
    const _: () = assert!(CHUNK_LEN < FILE_LEN_MAX);
    match offset.checked_add(len) {
        Some(end) if end <= FILE_LEN_MAX => Ok(()),
        _ => Err(VfsError::FileTooBig),
    }
}
