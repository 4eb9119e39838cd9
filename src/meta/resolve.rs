//! What an intent does to the rows, or which of its preconditions does not hold. Pure: it reads rows and
//! returns rows.
//!
//! Invariants of what it returns, given rows that have them: a file's `nlink` is how many `B` rows it has,
//! a directory's 2 and one for each directory inside; each `D` row has its `B` row and both their inodes; no
//! directory is inside itself; no extent reaches beyond its file's size or cites a chunk without a row.
//! It knows nothing of permissions, open files or conflicts: what to do when a precondition fails is for
//! the caller.

mod file;
mod names;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

use super::error::MetaError;
use super::overlay::Scratch;
use super::rows::{RowChanges, Rows};
use crate::base::{ChunkNo, InodeId, KeyNo, Name, Timestamp};
use crate::format::FormatError;
use crate::format::intent::{AttrChange, Intent};
use crate::format::link::LinkRow;
use crate::format::rows::{ChunkRow, InodeRow, KeyBytes, RowKey, XATTR_LEN_MAX, XattrName, validate};

/// The precondition that failed.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("inode {0} is not there")]
    Missing(InodeId),
    #[error("directory {parent} has no such entry")]
    MissingEntry { parent: InodeId, name: Name },
    #[error("directory {parent} has such an entry already")]
    Exists { parent: InodeId, name: Name },
    /// The name is now that of another inode than the one that was meant.
    #[error("the entry in directory {parent} is inode {found}, not {meant}")]
    OtherEntry { parent: InodeId, name: Name, meant: InodeId, found: InodeId },
    #[error("inode {0} is there already")]
    InodeExists(InodeId),
    #[error("inode {0} is not a directory")]
    NotDirectory(InodeId),
    #[error("inode {0} is a directory")]
    IsDirectory(InodeId),
    #[error("inode {0} is not a regular file")]
    NotFile(InodeId),
    #[error("directory {0} is not empty")]
    NotEmpty(InodeId),
    #[error("directory {ino} would be inside itself, in {parent}")]
    Cycle { ino: InodeId, parent: InodeId },
    #[error("inode {ino} is at version {version}, the write began at {base}")]
    OtherVersion { ino: InodeId, base: u64, version: u64 },
    #[error("chunk {0} has no row that covers what is cited")]
    MissingChunk(ChunkNo),
    /// Its number is another thing's already.
    #[error("{0:?} is there already, and says something else")]
    OtherFact(RowKey),
    #[error("inode {ino} has no such attribute")]
    MissingXattr { ino: InodeId, name: XattrName },
    #[error("inode {0} has too many links")]
    TooManyLinks(InodeId),
    /// Nothing that could become right by waiting or merging.
    #[error("an intent that cannot be: {0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl From<FormatError> for ResolveError {
    fn from(error: FormatError) -> Self {
        Self::Meta(error.into())
    }
}

/// The row changes of one intent, in key order.
pub fn resolve(intent: &Intent, rows: &dyn Rows) -> Result<RowChanges, ResolveError> {
    let mut work = Work { rows, inodes: BTreeMap::new(), out: BTreeMap::new() };
    match intent {
        Intent::Create { parent, name, ino, node } => work.create(*parent, name, *ino, node)?,
        Intent::Link { ino, parent, name, time } => work.link(*ino, *parent, name, *time)?,
        Intent::Unlink { parent, name, ino, time } => work.unlink(*parent, name, *ino, *time)?,
        Intent::Rename { ino, from, to, replaced, time } => work.rename(*ino, from, to, *replaced, *time)?,
        Intent::Exchange { a, a_ino, b, b_ino, time } => work.exchange((a, *a_ino), (b, *b_ino), *time)?,
        Intent::SetAttr { ino, set, time } => work.set_attr(*ino, set, *time)?,
        Intent::SetXattr { ino, name, value, time } => work.set_xattr(*ino, name, value.as_deref(), *time)?,
        Intent::Write { ino, base, size, mtime, time, key, changes } => {
            let write = file::Write { base: *base, size: *size, mtime: *mtime, time: *time, key: *key, changes };
            work.write(*ino, &write)?;
        }
        Intent::Fact { key, value } => work.fact(key, value)?,
        Intent::Replayed { .. } => {}
        Intent::FileKey { ino, key } => work.file_key(*ino, *key)?,
    }
    Ok(work.finish())
}

/// The row changes of intents that see one another, in key order. On failure also which one it was.
pub fn resolve_all<'a>(
    intents: impl IntoIterator<Item = &'a Intent>,
    rows: &dyn Rows,
) -> Result<RowChanges, (usize, ResolveError)> {
    let mut scratch = Scratch::new(rows);
    for (index, intent) in intents.into_iter().enumerate() {
        let changes = resolve(intent, &scratch).map_err(|error| (index, error))?;
        scratch.apply(changes);
    }
    Ok(scratch.into_changes())
}

/// One intent being resolved.
struct Work<'a> {
    rows: &'a dyn Rows,
    /// Inodes that were looked at and may have changed; None was removed.
    inodes: BTreeMap<InodeId, Option<InodeRow>>,
    /// All other rows.
    out: BTreeMap<KeyBytes, Option<Vec<u8>>>,
}

impl Work<'_> {
    fn finish(self) -> RowChanges {
        let mut out = self.out;
        for (ino, row) in self.inodes {
            out.insert(RowKey::Inode(ino).encode(), row.map(|row| row.encode()));
        }
        out.into_iter().collect()
    }

    /// To be changed.
    fn inode(&mut self, ino: InodeId) -> Result<&mut InodeRow, ResolveError> {
        let slot = match self.inodes.entry(ino) {
            MapEntry::Occupied(slot) => slot.into_mut(),
            MapEntry::Vacant(slot) => slot.insert(self.rows.inode(ino)?),
        };
        match slot {
            Some(row) => Ok(row),
            None => Err(ResolveError::Missing(ino)),
        }
    }

    fn put(&mut self, key: &RowKey, value: Vec<u8>) {
        self.out.insert(key.encode(), Some(value));
    }

    fn remove(&mut self, key: &RowKey) {
        self.out.insert(key.encode(), None);
    }

    fn remove_all(&mut self, prefix: &[u8]) -> Result<(), ResolveError> {
        for (key, _) in self.rows.scan(prefix, None, usize::MAX)? {
            self.out.insert(key, None);
        }
        Ok(())
    }

    fn set_attr(&mut self, ino: InodeId, set: &AttrChange, time: Timestamp) -> Result<(), ResolveError> {
        const PERMISSIONS: u32 = 0o7777;
        let row = self.inode(ino)?;
        if let Some(mode) = set.mode {
            row.mode = row.mode & !PERMISSIONS | mode & PERMISSIONS;
        }
        row.uid = set.uid.unwrap_or(row.uid);
        row.gid = set.gid.unwrap_or(row.gid);
        row.atime = set.atime.unwrap_or(row.atime);
        row.mtime = set.mtime.unwrap_or(row.mtime);
        row.ctime = time;
        Ok(())
    }

    fn set_xattr(
        &mut self,
        ino: InodeId,
        name: &XattrName,
        value: Option<&[u8]>,
        time: Timestamp,
    ) -> Result<(), ResolveError> {
        self.inode(ino)?.ctime = time;
        let key = RowKey::Xattr(ino, name.clone());
        match value {
            Some(value) if value.len() > XATTR_LEN_MAX => return Err(ResolveError::Invalid("an attribute's length")),
            Some(value) => self.put(&key, value.to_vec()),
            None if self.rows.get(&key.encode())?.is_none() => {
                return Err(ResolveError::MissingXattr { ino, name: name.clone() });
            }
            None => self.remove(&key),
        }
        Ok(())
    }

    fn fact(&mut self, key: &RowKey, value: &[u8]) -> Result<(), ResolveError> {
        match key {
            RowKey::Chunk(_) | RowKey::FileKey(_) | RowKey::Pack(_) | RowKey::Device(_) | RowKey::Link(_) => {}
            RowKey::Inode(_) | RowKey::Extents(..) | RowKey::Dirent(..) | RowKey::Backref(..) | RowKey::Xattr(..) => {
                return Err(ResolveError::Invalid("a fact about the tree"));
            }
        }
        let encoded = key.encode();
        validate(&encoded, value).map_err(|_| ResolveError::Invalid("a malformed fact"))?;
        let there = self.rows.get(&encoded)?;
        match (key, there) {
            (RowKey::Device(_), _) | (_, None) => {}
            (RowKey::Link(_), Some(there)) => {
                self.put(key, LinkRow::merge(value, &there)?);
                return Ok(());
            }
            // A number says one thing for good: what cites it must not come to mean something else.
            (_, Some(there)) if there != value && !is_same_content(key, &there, value)? => {
                return Err(ResolveError::OtherFact(key.clone()));
            }
            _ => {}
        }
        self.put(key, value.to_vec());
        Ok(())
    }

    fn file_key(&mut self, ino: InodeId, key: Option<KeyNo>) -> Result<(), ResolveError> {
        let row = self.inode(ino)?;
        if !row.is_file() {
            return Err(ResolveError::NotFile(ino));
        }
        row.key = key;
        Ok(())
    }
}

/// A chunk may be sealed anew elsewhere, under another key.
fn is_same_content(key: &RowKey, there: &[u8], value: &[u8]) -> Result<bool, ResolveError> {
    let RowKey::Chunk(_) = key else { return Ok(false) };
    let (there, value) = (ChunkRow::decode(there)?, ChunkRow::decode(value)?);
    Ok((there.id, there.len) == (value.id, value.len))
}

#[cfg(test)]
mod tests;
