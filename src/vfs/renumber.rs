//! What was pending when this device found that a copy of its state folder goes on under its number: it is done again
//! under a number of its own, on top of what the copy did.
//!
//! Invariants: a number that a pending intent gave out means nothing any more, since the copy may have given it out as
//! well; bytes that were acknowledged stay in the tree, under a name that says so where the copy changed the same; and
//! nothing that the copy did is undone. Sealed chunks move to packs of this run as they are.

use std::collections::HashMap;

use crate::base::{ByteRange, ChunkNo, InodeId, KeyNo, Name, PackName, PackNo, Timestamp};
use crate::content::Room;
use crate::format::chunk::chunk_span;
use crate::format::intent::{Change, Entry, Intent, NewInode};
use crate::format::rows::{ChunkRow, FILE_LEN_MAX, FileKeyRow, InodeRow, PackRow, RowKey, mode};
use crate::meta::Rows;
use crate::meta::mounting::ForeignChanges;

use super::api::{VfsError, VfsResult};
use super::drive::Drive;
use super::errors::meta_error;

pub(super) struct Renumber {
    changed: ForeignChanges,
    /// The pending ones', and copies that stand in for what was changed elsewhere.
    inodes: HashMap<InodeId, InodeId>,
    chunks: HashMap<ChunkNo, ChunkNo>,
    keys: HashMap<KeyNo, KeyNo>,
    packs: HashMap<PackNo, Pack>,
    /// Names that were taken when an intent wanted them.
    renamed: HashMap<(InodeId, Name), Name>,
}

struct Pack {
    name: PackName,
    /// Its number, once something needs it as it is.
    number: Option<PackNo>,
}

impl Renumber {
    pub fn new(changed: ForeignChanges) -> Self {
        let (inodes, chunks, keys, packs, renamed) = Default::default();
        Self { changed, inodes, chunks, keys, packs, renamed }
    }

    /// Packs that nothing refers to once all of it is done again.
    pub fn left_packs(&self) -> Vec<PackName> {
        self.packs.values().filter(|pack| pack.number.is_none()).map(|pack| pack.name).collect()
    }

    /// What stands for the intent here and now.
    pub fn translate(&mut self, drive: &Drive, intent: Intent) -> VfsResult<Vec<Intent>> {
        Ok(match intent {
            Intent::Create { parent, name, ino, node } => self.create(drive, parent, name, ino, node)?,
            Intent::Link { ino, parent, name, time } => {
                let (ino, parent) = (self.inode(ino), self.inode(parent));
                let name = self.free_name(drive, parent, name)?;
                vec![Intent::Link { ino, parent, name, time }]
            }
            Intent::Unlink { parent, name, ino, time } => {
                if self.is_others(ino) {
                    tracing::warn!("inode {ino}, which was removed here, was changed elsewhere, and stays");
                    return Ok(Vec::new());
                }
                let Entry { parent, name } = self.entry(Entry { parent, name });
                vec![Intent::Unlink { parent, name, ino: self.inode(ino), time }]
            }
            Intent::Rename { ino, from, to, replaced, time } => {
                let (from, ino) = (self.entry(from), self.inode(ino));
                let (parent, name) = (self.inode(to.parent), to.name);
                let found = drive.view().dirent(parent, &name).map_err(drive.failed("replay"))?;
                let replaced = replaced.filter(|replaced| !self.is_others(*replaced)).map(|ino| self.inode(ino));
                let replaced = replaced.filter(|replaced| found.as_ref().is_some_and(|found| found.ino == *replaced));
                let name = if replaced.is_some() { name } else { self.free_name(drive, parent, name)? };
                vec![Intent::Rename { ino, from, to: Entry { parent, name }, replaced, time }]
            }
            Intent::Exchange { a, a_ino, b, b_ino, time } => {
                let (a, b) = (self.entry(a), self.entry(b));
                vec![Intent::Exchange { a, a_ino: self.inode(a_ino), b, b_ino: self.inode(b_ino), time }]
            }
            Intent::SetAttr { ino, set, time } => vec![Intent::SetAttr { ino: self.inode(ino), set, time }],
            Intent::SetXattr { ino, name, value, time } => {
                vec![Intent::SetXattr { ino: self.inode(ino), name, value, time }]
            }
            Intent::Write { ino, base, size, mtime, time, key, changes } => {
                let mut out = self.stand_in(drive, ino, base, time)?;
                let ino = self.inode(ino);
                let changes = changes.into_iter().map(|change| self.change(change)).collect();
                let key = key.map(|key| self.key(key));
                out.push(Intent::Write { ino, base: 0, size, mtime, time, key, changes });
                out
            }
            Intent::Fact { key: RowKey::Chunk(number), value } => {
                let row = ChunkRow::decode(&value).map_err(|error| meta_error("replay", &error.into()))?;
                self.chunk(drive, number, row)?
            }
            Intent::Fact { key: RowKey::FileKey(number), value } => {
                let row = FileKeyRow::decode(&value).map_err(|error| meta_error("replay", &error.into()))?;
                let new = drive.pending.next_key();
                self.keys.insert(number, new);
                let row = drive.keys.renumber(number, &row, new).map_err(drive.failed("replay"))?;
                vec![Intent::Fact { key: RowKey::FileKey(new), value: row.encode().into_boxed_slice() }]
            }
            Intent::Fact { key: RowKey::Pack(number), value } => {
                let row = PackRow::decode(&value).map_err(|error| meta_error("replay", &error.into()))?;
                self.packs.insert(number, Pack { name: row.name, number: None });
                Vec::new()
            }
            Intent::Fact { .. } => Vec::new(),
            Intent::FileKey { ino, key } => {
                vec![Intent::FileKey { ino: self.inode(ino), key: key.map(|key| self.key(key)) }]
            }
        })
    }

    fn inode(&self, ino: InodeId) -> InodeId {
        self.inodes.get(&ino).copied().unwrap_or(ino)
    }

    fn key(&self, key: KeyNo) -> KeyNo {
        self.keys.get(&key).copied().unwrap_or(key)
    }

    /// Not one that came with these intents, and not as they knew it.
    fn is_others(&self, ino: InodeId) -> bool {
        !self.inodes.contains_key(&ino) && self.changed.has(ino)
    }

    /// An entry that an earlier intent made, or that was there before.
    fn entry(&mut self, entry: Entry) -> Entry {
        let parent = self.inode(entry.parent);
        let name = self.renamed.remove(&(parent, entry.name.clone())).unwrap_or(entry.name);
        Entry { parent, name }
    }

    fn change(&self, change: Change) -> Change {
        match change {
            Change::Extent(mut extent) => {
                extent.chunk = self.chunks.get(&extent.chunk).copied().unwrap_or(extent.chunk);
                Change::Extent(extent)
            }
            Change::Inline { .. } | Change::Hole(_) => change,
        }
    }

    fn create(
        &mut self,
        drive: &Drive,
        parent: InodeId,
        name: Name,
        ino: InodeId,
        node: NewInode,
    ) -> VfsResult<Vec<Intent>> {
        let parent = self.inode(parent);
        let found = drive.view().dirent(parent, &name).map_err(drive.failed("replay"))?;
        let is_dir = node.mode & mode::TYPE == mode::DIR;
        // Two that made one directory have one.
        if let Some(found) = found.filter(|found| is_dir && found.file_type == mode::DIR) {
            self.inodes.insert(ino, found.ino);
            return Ok(Vec::new());
        }
        let name = self.free_name(drive, parent, name)?;
        let new = drive.pending.next_inode();
        self.inodes.insert(ino, new);
        Ok(vec![Intent::Create { parent, name, ino: new, node }])
    }

    /// The name, or one that says whose it is.
    fn free_name(&mut self, drive: &Drive, parent: InodeId, name: Name) -> VfsResult<Name> {
        let free = free_name(drive, parent, &name)?;
        if free != name {
            tracing::warn!("a name in directory {parent} was taken elsewhere: this device's file has another now");
            self.renamed.insert((parent, name), free.clone());
        }
        Ok(free)
    }

    /// For a file that was changed elsewhere: a copy, which gets this device's writes.
    fn stand_in(&mut self, drive: &Drive, ino: InodeId, base: u64, time: Timestamp) -> VfsResult<Vec<Intent>> {
        if self.inodes.contains_key(&ino) {
            return Ok(Vec::new());
        }
        let row = drive.view().inode(ino).map_err(drive.failed("replay"))?;
        if row.as_ref().is_some_and(|row| row.version == base) {
            // As this device knew it, and from here on as it is here.
            self.inodes.insert(ino, ino);
            return Ok(Vec::new());
        }
        let copy = drive.pending.next_inode();
        self.inodes.insert(ino, copy);
        let Some(row) = row else {
            // It was removed elsewhere, and with it its name.
            let name = free_name(drive, InodeId::ROOT, &Name::parse("removed file").map_err(|_| VfsError::Invalid)?)?;
            tracing::warn!(
                "a file that was written here was removed elsewhere: what was written is in the root directory"
            );
            let node = NewInode { mode: mode::FILE | 0o600, uid: 0, gid: 0, rdev: 0, time, target: None };
            return Ok(vec![Intent::Create { parent: InodeId::ROOT, name, ino: copy, node }]);
        };
        let names = drive.view().backrefs(ino).map_err(drive.failed("replay"))?;
        let (parent, name) = names.into_iter().next().ok_or(VfsError::NotFound)?;
        let name = free_name(drive, parent, &name)?;
        tracing::warn!("inode {ino} was written here and elsewhere: this device's version is a copy beside it");
        copy_of(drive, (ino, &row), copy, Entry { parent, name }, time)
    }

    fn chunk(&mut self, drive: &Drive, number: ChunkNo, row: ChunkRow) -> VfsResult<Vec<Intent>> {
        let found = drive.view().chunk(number).map_err(drive.failed("replay"))?;
        // One that was there and was sealed anew keeps its number.
        let new = match found.is_some_and(|found| (found.id, found.len) == (row.id, row.len)) {
            true => number,
            false => drive.pending.next_chunk(),
        };
        self.chunks.insert(number, new);
        let mut out = Vec::new();
        let (mut pack, mut offset) = (row.pack, row.offset);
        if let Some(known) = self.packs.get_mut(&row.pack) {
            let staged = drive.staging.read(known.name, chunk_span(&row)).map_err(drive.content_failed("replay"))?;
            match staged {
                Some(sealed) => {
                    let place =
                        drive.staging.append(&sealed, new, Room::Commit).map_err(drive.content_failed("replay"))?;
                    drive.announce_pack(&place, &mut out)?;
                    (pack, offset) = (place.pack, place.offset);
                }
                // In the store already, under the name that it had.
                None => {
                    let is_new = known.number.is_none();
                    pack = *known.number.get_or_insert_with(|| drive.pending.next_pack().0);
                    if is_new {
                        let value = PackRow { name: known.name }.encode().into_boxed_slice();
                        out.push(Intent::Fact { key: RowKey::Pack(pack), value });
                    }
                }
            }
        }
        let row = ChunkRow { pack, offset, key: self.key(row.key), ..row };
        out.push(Intent::Fact { key: RowKey::Chunk(new), value: row.encode().into_boxed_slice() });
        Ok(out)
    }
}

fn copy_of(
    drive: &Drive,
    (ino, row): (InodeId, &InodeRow),
    copy: InodeId,
    to: Entry,
    time: Timestamp,
) -> VfsResult<Vec<Intent>> {
    let whole = ByteRange::new(0, FILE_LEN_MAX);
    let extents = drive.view().extents(ino, row, whole).map_err(drive.failed("replay"))?;
    let InodeRow { mode, uid, gid, rdev, size, mtime, .. } = *row;
    let node = NewInode { mode, uid, gid, rdev, time, target: None };
    let changes = extents.into_iter().map(Change::Extent).collect();
    Ok(vec![
        Intent::Create { parent: to.parent, name: to.name, ino: copy, node },
        Intent::Write { ino: copy, base: 0, size, mtime, time, key: None, changes },
    ])
}

/// `name`, or if there is such an entry, `name (conflict DEVICE DATE).ext` with as high a number as it takes.
fn free_name(drive: &Drive, parent: InodeId, name: &Name) -> VfsResult<Name> {
    let is_free = |name: &Name| Ok(drive.view().dirent(parent, name).map_err(drive.failed("replay"))?.is_none());
    if is_free(name)? {
        return Ok(name.clone());
    }
    let (year, month, day) = drive.now().date();
    let date = format!("{year:04}-{month:02}-{day:02}");
    for number in 1..=u32::MAX {
        let name = conflict_name(name, &drive.pending.device().name, &date, number);
        if is_free(&name)? {
            return Ok(name);
        }
    }
    Err(VfsError::Exists)
}

fn conflict_name(name: &Name, device: &str, date: &str, number: u32) -> Name {
    const DEVICE_LEN_MAX: usize = 40;
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0 && bytes.len() - dot <= 16);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let device: String = device.chars().filter(|c| !matches!(c, '/' | '\0')).collect();
    let device = &device[..device.floor_char_boundary(DEVICE_LEN_MAX)];
    let again = if number > 1 { format!(" {number}") } else { String::new() };
    let mark = format!(" (conflict {device} {date}{again})");
    let room = crate::base::NAME_LEN_MAX - mark.len() - extension.len();
    let stem = match std::str::from_utf8(stem) {
        Ok(text) => &stem[..text.floor_char_boundary(room)],
        Err(_) => &stem[..stem.len().min(room)],
    };
    // Longer than what it was made of, and shorter than the most: a name like that one.
    Name::parse([stem, mark.as_bytes(), extension].concat()).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflicts_name_keeps_its_extension_and_stays_a_name() {
        let named = |name: &str, device: &str, number| {
            let name = conflict_name(&Name::parse(name).unwrap(), device, "2026-01-02", number);
            String::from_utf8(name.as_bytes().to_vec()).unwrap()
        };
        assert_eq!(named("a.txt", "laptop", 1), "a (conflict laptop 2026-01-02).txt");
        assert_eq!(named(".profile", "laptop", 2), ".profile (conflict laptop 2026-01-02 2)");
        assert_eq!(named("x", "a/b\0", 1), "x (conflict ab 2026-01-02)");
        let long = named(&format!("{}.jpeg", "é".repeat(124)), &"ü".repeat(300), u32::MAX);
        assert!(long.len() <= 255 && long.ends_with(".jpeg") && long.contains("conflict"), "{long}");
    }
}
