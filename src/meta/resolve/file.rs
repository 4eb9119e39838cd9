//! A write: its changes are laid over the file's extents, window by window.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

use super::{ResolveError, Work};
use crate::base::{ByteRange, InodeId, KeyNo, Timestamp};
use crate::content::extent::{allocated, cover, punch, split_at_windows};
use crate::format::intent::Change;
use crate::format::rows::{
    EXTENT_WINDOW_LEN, Extent, FILE_LEN_MAX, INLINE_EXTENTS_MAX, InodeBody, RowKey, decode_window, encode_window,
};
use crate::meta::rows::Rows;

pub(super) struct Write<'a> {
    pub base: u64,
    pub size: u64,
    pub mtime: Timestamp,
    pub time: Timestamp,
    pub key: Option<KeyNo>,
    pub changes: &'a [Change],
}

impl Work<'_> {
    /// Inline data changes no extent: it is in the journal only, and its bytes come as extents before the
    /// commit.
    pub(super) fn write(&mut self, ino: InodeId, write: &Write<'_>) -> Result<(), ResolveError> {
        let rows = self.rows;
        let row = self.inode(ino)?;
        let InodeBody::File(inline) = &mut row.body else { return Err(ResolveError::NotFile(ino)) };
        if row.version != write.base {
            return Err(ResolveError::OtherVersion { ino, base: write.base, version: row.version });
        }
        if write.size > FILE_LEN_MAX {
            return Err(ResolveError::Invalid("a size over 2^63"));
        }
        let mut windows = Windows { rows, ino, inline: std::mem::take(inline), touched: BTreeMap::new() };
        for change in write.changes {
            match change {
                Change::Inline { .. } => {}
                Change::Extent(extent) => windows.cover(extent)?,
                Change::Hole(range) => windows.punch(*range)?,
            }
        }
        windows.truncate(row.size, write.size)?;
        windows.check_chunks()?;

        let (before, after) = windows.allocated();
        row.allocated = row.allocated.saturating_sub(before).saturating_add(after);
        row.size = write.size;
        row.mtime = write.mtime;
        row.ctime = write.time;
        row.version += 1;
        row.key = write.key.or(row.key);
        let changed = windows.finish();
        row.body = InodeBody::File(changed.inline);
        self.out.extend(changed.rows);
        Ok(())
    }
}

/// The windows of one file that are being changed.
struct Windows<'a> {
    rows: &'a dyn Rows,
    ino: InodeId,
    /// The first window's, when the inode's own row has it.
    inline: Vec<Extent>,
    touched: BTreeMap<u64, Window>,
}

struct Window {
    before: Vec<Extent>,
    after: Vec<Extent>,
    has_row: bool,
}

struct Changed {
    inline: Vec<Extent>,
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Windows<'_> {
    fn cover(&mut self, extent: &Extent) -> Result<(), ResolveError> {
        if extent.end() > FILE_LEN_MAX {
            return Err(ResolveError::Invalid("an extent beyond 2^63"));
        }
        for (window, part) in split_at_windows(*extent) {
            cover(self.window(window)?, part);
        }
        Ok(())
    }

    fn punch(&mut self, hole: ByteRange) -> Result<(), ResolveError> {
        if hole.is_empty() {
            return Ok(());
        }
        let (first, last) = (hole.start / EXTENT_WINDOW_LEN, (hole.end - 1) / EXTENT_WINDOW_LEN);
        // A hole may span 2^37 windows, of which few are there.
        for (window, extents) in self.rows.windows(self.ino, first..=last)? {
            self.note(window, Some(extents));
        }
        if first == 0 {
            self.window(0)?;
        }
        for (window, state) in self.touched.range_mut(first..=last) {
            let start = window * EXTENT_WINDOW_LEN;
            let whole = ByteRange::new(start, start.saturating_add(EXTENT_WINDOW_LEN));
            if let Some(part) = hole.intersect(whole) {
                punch(&mut state.after, part);
            }
        }
        Ok(())
    }

    /// Nothing stays beyond `size`. Beyond the size before there was nothing, so a file that does not shrink
    /// has it at most where it was touched.
    fn truncate(&mut self, size_before: u64, size: u64) -> Result<(), ResolveError> {
        let beyond = ByteRange::new(size, u64::MAX);
        if size < size_before {
            return self.punch(beyond);
        }
        for state in self.touched.values_mut() {
            punch(&mut state.after, beyond);
        }
        Ok(())
    }

    /// New extents cite chunks that have rows, and no more of them than there is.
    fn check_chunks(&self) -> Result<(), ResolveError> {
        for state in self.touched.values() {
            for extent in state.after.iter().filter(|extent| !state.had(extent)) {
                let row = self.rows.chunk(extent.chunk)?;
                let end = u64::from(extent.chunk_offset) + u64::from(extent.len);
                if row.is_none_or(|row| end > u64::from(row.len)) {
                    return Err(ResolveError::MissingChunk(extent.chunk));
                }
            }
        }
        Ok(())
    }

    /// Bytes that the touched windows' extents covered, and cover now.
    fn allocated(&self) -> (u64, u64) {
        let sum = |extents: fn(&Window) -> &Vec<Extent>| self.touched.values().map(|w| allocated(extents(w))).sum();
        (sum(|window| &window.before), sum(|window| &window.after))
    }

    fn window(&mut self, window: u64) -> Result<&mut Vec<Extent>, ResolveError> {
        if !self.touched.contains_key(&window) {
            let row = self.rows.get(&RowKey::Extents(self.ino, window).encode())?;
            let extents = row.map(|row| decode_window(window, &row)).transpose()?;
            self.note(window, extents);
        }
        let state = self.touched.entry(window).or_insert_with(|| Window::new(None));
        Ok(&mut state.after)
    }

    /// A window as it was before these changes, unless it is known already.
    fn note(&mut self, window: u64, row: Option<Vec<Extent>>) {
        if let MapEntry::Vacant(slot) = self.touched.entry(window) {
            let mut state = Window::new(row);
            if window == 0 && !self.inline.is_empty() {
                state.before.clone_from(&self.inline);
                state.after.clone_from(&self.inline);
            }
            slot.insert(state);
        }
    }

    fn finish(self) -> Changed {
        let Self { ino, mut inline, touched, .. } = self;
        let mut rows = Vec::new();
        for (window, state) in touched {
            let in_inode = window == 0 && state.after.len() <= INLINE_EXTENTS_MAX;
            if window == 0 {
                inline = if in_inode { state.after.clone() } else { Vec::new() };
            }
            let key = RowKey::Extents(ino, window).encode();
            if in_inode || state.after.is_empty() {
                if state.has_row {
                    rows.push((key, None));
                }
            } else if !state.has_row || state.after != state.before {
                rows.push((key, Some(encode_window(&state.after))));
            }
        }
        Changed { inline, rows }
    }
}

impl Window {
    fn new(row: Option<Vec<Extent>>) -> Self {
        let has_row = row.is_some();
        let before = row.unwrap_or_default();
        Self { after: before.clone(), before, has_row }
    }

    /// Whether the extent, or one that it is a part of, was there before.
    fn had(&self, extent: &Extent) -> bool {
        let at = self.before.partition_point(|old| old.end() <= extent.offset);
        self.before.get(at).is_some_and(|old| {
            let into_chunk = u64::from(extent.chunk_offset).checked_sub(old.chunk_offset.into());
            let into_old = extent.offset.checked_sub(old.offset);
            old.chunk == extent.chunk && extent.end() <= old.end() && into_old.is_some() && into_chunk == into_old
        })
    }
}
