//! Reading rows, typed: the same for the view, for a guard on it, and for a scratch layer over it.

use super::error::MetaError;
use crate::base::{ByteRange, ChunkNo, DeviceSlot, InodeId, KeyNo, LinkId, Name, PackNo};
use crate::format::link::LinkRow;
use crate::format::rows::{
    ChunkRow, DeviceRow, DirentRow, EXTENT_WINDOW_LEN, Extent, FileKeyRow, InodeBody, InodeRow, KeyBytes, PackRow,
    RowKey, XattrName, decode_window,
};

/// Rows to put, or with None to remove, each key once.
pub type RowChanges = Vec<(KeyBytes, Option<Vec<u8>>)>;

const ALL: usize = usize::MAX;

/// Several calls may see several states, unless what implements this says otherwise.
pub trait Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError>;

    /// At most `limit` rows whose keys begin with `prefix`, in key order, from the first key behind `after`.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError>;

    fn inode(&self, ino: InodeId) -> Result<Option<InodeRow>, MetaError> {
        self.get(&RowKey::Inode(ino).encode())?.map(|row| Ok(InodeRow::decode(&row)?)).transpose()
    }

    fn dirent(&self, parent: InodeId, name: &Name) -> Result<Option<DirentRow>, MetaError> {
        let key = RowKey::Dirent(parent, name.clone()).encode();
        self.get(&key)?.map(|row| Ok(DirentRow::decode(&row)?)).transpose()
    }

    /// Entries whose cookie is greater than `after`, in the order of cookies; about `limit` of them, since
    /// those of one cookie are never split.
    fn dir_page(&self, parent: InodeId, after: u64, limit: usize) -> Result<Vec<(u64, Name, DirentRow)>, MetaError> {
        let prefix = RowKey::prefix(b'D', parent.0);
        let Some(next) = after.checked_add(1) else { return Ok(Vec::new()) };
        // No key is only a cookie: this one lies before all names that have it.
        let start = [&prefix[..], &next.to_be_bytes()].concat();
        let mut rows = self.scan(&prefix, Some(&start), limit)?;
        if rows.len() >= limit
            && let Some((last, _)) = rows.last()
            && let Some(same_cookie) = last.get(..start.len())
        {
            let rest = self.scan(same_cookie, Some(last), ALL)?;
            rows.extend(rest);
        }
        rows.iter().map(|(key, row)| dir_entry(key, row)).collect()
    }

    fn dir_is_empty(&self, dir: InodeId) -> Result<bool, MetaError> {
        Ok(self.scan(&RowKey::prefix(b'D', dir.0), None, 1)?.is_empty())
    }

    /// Every name the inode has: its parents and the name in each.
    fn backrefs(&self, ino: InodeId) -> Result<Vec<(InodeId, Name)>, MetaError> {
        let rows = self.scan(&RowKey::prefix(b'B', ino.0), None, ALL)?;
        rows.iter()
            .map(|(key, _)| match RowKey::decode(key)? {
                RowKey::Backref(_, parent, name) => Ok((parent, name)),
                _ => Err(unexpected("backref row")),
            })
            .collect()
    }

    /// The extents that reach into `range`, whole and in order. `row` must be of the same state: the first
    /// window moves between the inode's row and one of its own.
    fn extents(&self, ino: InodeId, row: &InodeRow, range: ByteRange) -> Result<Vec<Extent>, MetaError> {
        let InodeBody::File(inline) = &row.body else { return Ok(Vec::new()) };
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut extents = inline.clone();
        let windows = range.start / EXTENT_WINDOW_LEN..=(range.end - 1) / EXTENT_WINDOW_LEN;
        for (_, window) in self.windows(ino, windows)? {
            extents.extend(window);
        }
        extents.retain(|extent| extent.offset < range.end && extent.end() > range.start);
        Ok(extents)
    }

    /// The `X` rows there are among those windows.
    fn windows(
        &self,
        ino: InodeId,
        windows: std::ops::RangeInclusive<u64>,
    ) -> Result<Vec<(u64, Vec<Extent>)>, MetaError> {
        const PAGE: usize = 64;
        let prefix = RowKey::prefix(b'X', ino.0);
        let before = windows.start().checked_sub(1);
        let mut after = before.map(|window| RowKey::Extents(ino, window).encode());
        let mut out = Vec::new();
        loop {
            // Mostly one window is asked for, and a full one is a large row.
            let want = windows.end().saturating_sub(*windows.start()).saturating_add(1).min(PAGE as u64) as usize;
            let rows = self.scan(&prefix, after.as_deref(), want)?;
            for (key, row) in &rows {
                let RowKey::Extents(_, window) = RowKey::decode(key)? else {
                    return Err(unexpected("extents row"));
                };
                if window > *windows.end() {
                    return Ok(out);
                }
                out.push((window, decode_window(window, row)?));
            }
            if rows.len() < want {
                return Ok(out);
            }
            after = rows.into_iter().next_back().map(|(key, _)| key);
        }
    }

    fn xattr(&self, ino: InodeId, name: &XattrName) -> Result<Option<Vec<u8>>, MetaError> {
        self.get(&RowKey::Xattr(ino, name.clone()).encode())
    }

    fn xattrs(&self, ino: InodeId) -> Result<Vec<XattrName>, MetaError> {
        let rows = self.scan(&RowKey::prefix(b'A', ino.0), None, ALL)?;
        rows.iter()
            .map(|(key, _)| match RowKey::decode(key)? {
                RowKey::Xattr(_, name) => Ok(name),
                _ => Err(unexpected("xattr row")),
            })
            .collect()
    }

    /// For people: one of the inode's paths, or its number where there is none.
    fn path_of(&self, ino: InodeId) -> String {
        const DEPTH_MAX: usize = 4096;
        let mut names = Vec::new();
        let mut at = ino;
        while at != InodeId::ROOT && names.len() < DEPTH_MAX {
            let Some((parent, name)) = self.backrefs(at).ok().and_then(|names| names.into_iter().next()) else {
                return format!("inode {ino}");
            };
            names.push(String::from_utf8_lossy(name.as_bytes()).into_owned());
            at = parent;
        }
        names.reverse();
        if names.is_empty() { "/".into() } else { names.join("/") }
    }

    fn chunk(&self, no: ChunkNo) -> Result<Option<ChunkRow>, MetaError> {
        self.get(&RowKey::Chunk(no).encode())?.map(|row| Ok(ChunkRow::decode(&row)?)).transpose()
    }

    fn file_key(&self, no: KeyNo) -> Result<Option<FileKeyRow>, MetaError> {
        self.get(&RowKey::FileKey(no).encode())?.map(|row| Ok(FileKeyRow::decode(&row)?)).transpose()
    }

    fn pack(&self, no: PackNo) -> Result<Option<PackRow>, MetaError> {
        self.get(&RowKey::Pack(no).encode())?.map(|row| Ok(PackRow::decode(&row)?)).transpose()
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRow>, MetaError> {
        self.get(&RowKey::Link(id).encode())?.map(|row| Ok(LinkRow::decode(&row)?)).transpose()
    }

    fn links(&self) -> Result<Vec<(LinkId, LinkRow)>, MetaError> {
        let rows = self.scan(b"L", None, ALL)?;
        rows.iter()
            .map(|(key, row)| match RowKey::decode(key)? {
                RowKey::Link(id) => Ok((id, LinkRow::decode(row)?)),
                _ => Err(unexpected("link row")),
            })
            .collect()
    }

    fn devices(&self) -> Result<Vec<(DeviceSlot, DeviceRow)>, MetaError> {
        let rows = self.scan(b"V", None, ALL)?;
        rows.iter()
            .map(|(key, row)| match RowKey::decode(key)? {
                RowKey::Device(slot) => Ok((slot, DeviceRow::decode(row)?)),
                _ => Err(unexpected("device row")),
            })
            .collect()
    }
}

fn dir_entry(key: &[u8], row: &[u8]) -> Result<(u64, Name, DirentRow), MetaError> {
    let RowKey::Dirent(_, name) = RowKey::decode(key)? else { return Err(unexpected("dirent row")) };
    Ok((crate::format::rows::dir_cookie(&name), name, DirentRow::decode(row)?))
}

fn unexpected(what: &'static str) -> MetaError {
    MetaError::Row(crate::format::FormatError { what, why: "a key of another kind" })
}
