//! What was pending when this device found that a copy of its state folder goes on under its number: it is done again
//! under a number of its own, on top of what the copy did.
//!
//! Invariants: a number that a pending intent gave out means nothing any more, since the copy may have given it out as
//! well; bytes that were acknowledged stay in the tree, under a name that says so where the copy changed the same; and
//! nothing that the copy did is undone. Sealed chunks move to packs of this run as they are.
//!
//! It remembers two numbers for each thing that is pending, and so is as large as what came of one time without a store.

use std::collections::{HashMap, HashSet};

use crate::base::{ByteRange, ChunkNo, InodeId, KeyNo, Name, PackName, PackNo, Timestamp};
use crate::content::Room;
use crate::format::chunk::chunk_span;
use crate::format::intent::{AttrChange, Change, Entry, Intent, NewInode};
use crate::format::link::LinkRow;
use crate::format::rows::{ChunkRow, FILE_LEN_MAX, FileKeyRow, InodeRow, PackRow, RowKey, mode};
use crate::meta::leftover::Leftover;
use crate::meta::twin::{Before, ForeignChanges};
use crate::meta::{MetaError, Rows};

use super::api::{VfsError, VfsResult};
use super::data::Facts;
use super::drive::Drive;
use super::errors::meta_error;

const WHAT: &str = "numbering anew of the journal";

pub(super) struct Renumber<'a> {
    changes: &'a ForeignChanges,
    /// The pending ones', and copies that stand in for what was changed elsewhere.
    inodes: HashMap<InodeId, InodeId>,
    /// Directories that both made.
    merged: HashSet<InodeId>,
    chunks: HashMap<ChunkNo, ChunkNo>,
    keys: HashMap<KeyNo, KeyNo>,
    packs: HashMap<PackNo, Pack>,
    /// Where that is now which intents know under a name that was taken when they wanted it.
    moved: HashMap<(InodeId, Name), Entry>,
}

struct Pack {
    name: PackName,
    /// Its number, once something needs it as it is.
    number: Option<PackNo>,
}

impl<'a> Renumber<'a> {
    pub fn new(changes: &'a ForeignChanges) -> Self {
        let (inodes, merged, chunks, keys, packs, moved) = Default::default();
        Self { changes, inodes, merged, chunks, keys, packs, moved }
    }

    /// Packs that nothing refers to once all of it is done again.
    pub fn left_packs(&self) -> Vec<PackName> {
        self.packs.values().filter(|pack| pack.number.is_none()).map(|pack| pack.name).collect()
    }

    /// What stands for the intent here and now.
    pub fn translate(&mut self, drive: &Drive, leftover: &Leftover, intent: Intent) -> VfsResult<Vec<Intent>> {
        Ok(match intent {
            Intent::Create { parent, name, ino, node } => self.create(drive, parent, name, ino, node)?,
            Intent::Link { ino, parent, name, time } => {
                let mut out = self.bring_back(drive, ino, time)?;
                let Entry { parent, name } = self.free_place(drive, self.inode(parent), name)?;
                out.push(Intent::Link { ino: self.inode(ino), parent, name, time });
                out
            }
            Intent::Unlink { parent, name, ino, time } => {
                let Entry { parent, name } = self.leave(parent, name);
                if self.is_others(ino) {
                    tracing::warn!("inode {ino}, which was removed here, was changed elsewhere, and stays");
                    return Ok(Vec::new());
                }
                vec![Intent::Unlink { parent, name, ino: self.inode(ino), time }]
            }
            Intent::Rename { ino, from, to, replaced, time } => self.rename(drive, ino, from, to, replaced, time)?,
            Intent::Exchange { a, a_ino, b, b_ino, time } => {
                let (a, b) = (self.place(a.parent, a.name), self.place(b.parent, b.name));
                vec![Intent::Exchange { a, a_ino: self.inode(a_ino), b, b_ino: self.inode(b_ino), time }]
            }
            Intent::SetAttr { ino, set, time } => self.set_attr(drive, ino, set, time)?,
            Intent::SetXattr { ino, name, value, time } => {
                vec![Intent::SetXattr { ino: self.inode(ino), name, value, time }]
            }
            Intent::Write { ino, base, size, mtime, time, key, changes } => {
                let mut out = self.stand_in(drive, leftover, ino, base, time)?;
                let changes = changes.into_iter().map(|change| self.change(change)).collect();
                let key = key.map(|key| self.key(key));
                out.push(Intent::Write { ino: self.inode(ino), base: 0, size, mtime, time, key, changes });
                out
            }
            Intent::Fact { key: RowKey::Chunk(number), value } => {
                let row = ChunkRow::decode(&value).map_err(damaged)?;
                self.chunk(drive, number, row)?
            }
            Intent::Fact { key: RowKey::FileKey(number), value } => {
                let row = FileKeyRow::decode(&value).map_err(damaged)?;
                let new = drive.pending.next_key();
                self.keys.insert(number, new);
                let row = drive.keys.renumber(number, &row, new).map_err(drive.failed(WHAT))?;
                vec![Intent::Fact { key: RowKey::FileKey(new), value: row.encode().into_boxed_slice() }]
            }
            Intent::Fact { key: RowKey::Pack(number), value } => {
                let row = PackRow::decode(&value).map_err(damaged)?;
                self.packs.entry(number).or_insert(Pack { name: row.name, number: None });
                Vec::new()
            }
            Intent::Fact { key: RowKey::Link(id), value } => {
                let mut row = LinkRow::decode(&value).map_err(damaged)?;
                row.inode = self.inode(row.inode);
                vec![Intent::Fact { key: RowKey::Link(id), value: row.encode().as_slice().into() }]
            }
            // This run says both of itself.
            Intent::Fact { .. } | Intent::Replayed { .. } => Vec::new(),
            Intent::FileKey { ino, key } => {
                vec![Intent::FileKey { ino: self.inode(ino), key: key.map(|key| self.key(key)) }]
            }
        })
    }

    /// Of two changes of one attribute the later stands, and it keeps its time.
    fn set_attr(&self, drive: &Drive, ino: InodeId, mut set: AttrChange, time: Timestamp) -> VfsResult<Vec<Intent>> {
        let here = self.inode(ino);
        let row = drive.view().inode(here).map_err(drive.failed(WHAT))?;
        let Some(row) = row.filter(|row| self.is_others(ino) && row.ctime > time) else {
            return Ok(vec![Intent::SetAttr { ino: here, set, time }]);
        };
        let before = self.changes.before(ino).map(|before| &before.row);
        let is_as_before = |same: fn(&InodeRow, &InodeRow) -> bool| before.is_some_and(|before| same(before, &row));
        set.mode = set.mode.filter(|_| is_as_before(|before, row| before.mode == row.mode));
        set.uid = set.uid.filter(|_| is_as_before(|before, row| before.uid == row.uid));
        set.gid = set.gid.filter(|_| is_as_before(|before, row| before.gid == row.gid));
        set.atime = set.atime.filter(|_| is_as_before(|before, row| before.atime == row.atime));
        set.mtime = set.mtime.filter(|_| is_as_before(|before, row| before.mtime == row.mtime));
        Ok(match set == AttrChange::default() {
            true => Vec::new(),
            false => vec![Intent::SetAttr { ino: here, set, time: row.ctime }],
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
        match self.inodes.get(&ino) {
            Some(here) => self.merged.contains(here),
            None => self.changes.has(ino),
        }
    }

    /// Where an earlier intent put what it calls that, or where it was before.
    fn place(&self, parent: InodeId, name: Name) -> Entry {
        let parent = self.inode(parent);
        let there = (parent, name);
        self.moved.get(&there).cloned().unwrap_or(Entry { parent, name: there.1 })
    }

    /// The same, when nothing is called so any more.
    fn leave(&mut self, parent: InodeId, name: Name) -> Entry {
        let parent = self.inode(parent);
        let there = (parent, name);
        self.moved.remove(&there).unwrap_or(Entry { parent, name: there.1 })
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
        let found = drive.view().dirent(parent, &name).map_err(drive.failed(WHAT))?;
        let is_dir = node.mode & mode::TYPE == mode::DIR;
        // Two that made one directory have one.
        if let Some(found) = found.filter(|found| is_dir && found.file_type == mode::DIR) {
            self.inodes.insert(ino, found.ino);
            self.merged.insert(found.ino);
            return Ok(Vec::new());
        }
        let Entry { parent, name } = self.free_place(drive, parent, name)?;
        let new = drive.pending.next_inode();
        self.inodes.insert(ino, new);
        Ok(vec![Intent::Create { parent, name, ino: new, node }])
    }

    fn rename(
        &mut self,
        drive: &Drive,
        ino: InodeId,
        from: Entry,
        to: Entry,
        replaced: Option<InodeId>,
        time: Timestamp,
    ) -> VfsResult<Vec<Intent>> {
        let mut out = self.bring_back(drive, ino, time)?;
        let ino_here = self.inode(ino);
        let mut from = self.leave(from.parent, from.name);
        let is_there = |entry: &Entry, ino: InodeId| {
            let found = drive.view().dirent(entry.parent, &entry.name).map_err(drive.failed(WHAT))?;
            Ok::<_, VfsError>(found.is_some_and(|found| found.ino == ino))
        };
        // The last one to move a thing has it; what was brought back just now has only one name.
        if out.is_empty() && !is_there(&from, ino_here)? {
            let names = drive.view().backrefs(ino_here).map_err(drive.failed(WHAT))?;
            if let Some((parent, name)) = names.into_iter().next() {
                from = Entry { parent, name };
            }
        }
        if let Some(Intent::Create { parent, name, .. }) = out.first() {
            from = Entry { parent: *parent, name: name.clone() };
        }
        if let Some(replaced) = replaced.filter(|replaced| !self.is_others(*replaced)) {
            let (over, replaced) = (self.place(to.parent, to.name.clone()), self.inode(replaced));
            if is_there(&over, replaced)? {
                out.push(Intent::Rename { ino: ino_here, from, to: over, replaced: Some(replaced), time });
                return Ok(out);
            }
        }
        let to = self.free_place(drive, self.inode(to.parent), to.name)?;
        out.push(Intent::Rename { ino: ino_here, from, to, replaced: None, time });
        Ok(out)
    }

    /// The name, or one that says whose it is; in the root directory if its own is gone. `parent` is as it is here.
    fn free_place(&mut self, drive: &Drive, parent: InodeId, name: Name) -> VfsResult<Entry> {
        let there = drive.view().inode(parent).map_err(drive.failed(WHAT))?.is_some_and(|row| row.is_dir());
        let home = if there { parent } else { InodeId::ROOT };
        let free = free_name(drive, home, &name)?;
        if (home, &free) == (parent, &name) {
            self.moved.remove(&(parent, name.clone()));
        } else {
            tracing::warn!("a name in directory {parent} was taken or removed elsewhere: this device's says so");
            self.moved.insert((parent, name), Entry { parent: home, name: free.clone() });
        }
        Ok(Entry { parent: home, name: free })
    }

    /// For a file that was changed elsewhere: a copy, which gets this device's writes.
    fn stand_in(
        &mut self,
        drive: &Drive,
        leftover: &Leftover,
        ino: InodeId,
        base: u64,
        time: Timestamp,
    ) -> VfsResult<Vec<Intent>> {
        if self.inodes.contains_key(&ino) {
            return Ok(Vec::new());
        }
        match drive.check_base(ino, base, leftover) {
            Ok(()) => {
                // As this device knew it, and from here on as it is here.
                self.inodes.insert(ino, ino);
                Ok(Vec::new())
            }
            Err(MetaError::Resolve(_)) => self.copy(drive, ino, Some(base), time),
            Err(error) => Err(meta_error(WHAT, &error)),
        }
    }

    /// A file that was removed elsewhere, for what this device did with it.
    fn bring_back(&mut self, drive: &Drive, ino: InodeId, time: Timestamp) -> VfsResult<Vec<Intent>> {
        let is_file = self.changes.before(ino).is_some_and(|before| before.row.is_file());
        if self.inodes.contains_key(&ino) || !is_file || drive.view().inode(ino).map_err(drive.failed(WHAT))?.is_some()
        {
            return Ok(Vec::new());
        }
        self.copy(drive, ino, None, time)
    }

    /// As it was before others changed it, if that is known, and else as it is now.
    fn copy(&mut self, drive: &Drive, ino: InodeId, base: Option<u64>, time: Timestamp) -> VfsResult<Vec<Intent>> {
        let failed = drive.failed(WHAT);
        let copy = drive.pending.next_inode();
        self.inodes.insert(ino, copy);
        let known = self.changes.before(ino).filter(|before| base.is_none_or(|base| before.row.version == base));
        let now = drive.view().inode(ino).map_err(&failed)?;
        let before = match (known, &now) {
            (Some(before), _) => Some(before.clone()),
            (None, Some(row)) => {
                tracing::warn!("what inode {ino} was when it was written here is not known");
                let extents = drive.view().extents(ino, row, ByteRange::new(0, FILE_LEN_MAX)).map_err(&failed)?;
                Some(Before { row: row.clone(), extents, names: Vec::new() })
            }
            (None, None) => None,
        };
        let names = drive.view().backrefs(ino).map_err(&failed)?;
        let names = match &before {
            Some(before) if names.is_empty() => before.names.clone(),
            _ => names,
        };
        let mut names = names.into_iter();
        let (parent, name) = match names.next() {
            Some(first) => first,
            None => (InodeId::ROOT, Name::parse("removed file").map_err(|_| VfsError::Invalid)?),
        };
        let Entry { parent, name } = self.free_place(drive, parent, name)?;
        tracing::warn!("inode {ino} was changed here and elsewhere: this device's version is inode {copy}");
        let (row, extents) = match before {
            Some(Before { row, extents, .. }) => (Some(row), extents),
            None => (None, Vec::new()),
        };
        let node = match now.as_ref().or(row.as_ref()) {
            Some(InodeRow { mode, uid, gid, rdev, .. }) => {
                NewInode { mode: *mode, uid: *uid, gid: *gid, rdev: *rdev, time, target: None }
            }
            None => NewInode { mode: mode::FILE | 0o600, uid: 0, gid: 0, rdev: 0, time, target: None },
        };
        let mut out = vec![Intent::Create { parent, name, ino: copy, node }];
        for (parent, name) in names {
            let Entry { parent, name } = self.free_place(drive, parent, name)?;
            out.push(Intent::Link { ino: copy, parent, name, time });
        }
        if let Some(InodeRow { size, mtime, .. }) = row {
            let changes = extents.into_iter().map(Change::Extent).collect();
            out.push(Intent::Write { ino: copy, base: 0, size, mtime, time, key: None, changes });
        }
        for name in drive.view().xattrs(ino).map_err(&failed)? {
            let value = drive.view().xattr(ino, &name).map_err(&failed)?.map(Vec::into_boxed_slice);
            out.extend(value.map(|value| Intent::SetXattr { ino: copy, name, value: Some(value), time }));
        }
        Ok(out)
    }

    fn chunk(&mut self, drive: &Drive, number: ChunkNo, row: ChunkRow) -> VfsResult<Vec<Intent>> {
        let found = drive.view().chunk(number).map_err(drive.failed(WHAT))?;
        // One that was there and was sealed anew keeps its number.
        let new = match found.is_some_and(|found| (found.id, found.len) == (row.id, row.len)) {
            true => number,
            false => drive.pending.next_chunk(),
        };
        self.chunks.insert(number, new);
        let mut facts = Facts::default();
        let (mut pack, mut offset) = (row.pack, row.offset);
        if let Some(known) = self.packs.get_mut(&row.pack) {
            let failed = drive.content_failed(WHAT);
            match drive.staging.read(known.name, chunk_span(&row)).map_err(&failed)? {
                Some(sealed) => {
                    let place = drive.staging.append(&sealed, new, Room::Commit).map_err(&failed)?;
                    drive.announce_pack(&place, &mut facts)?;
                    (pack, offset) = (place.pack, place.offset);
                }
                // In the store already, under the name that it had.
                None => {
                    let is_new = known.number.is_none();
                    pack = *known.number.get_or_insert_with(|| drive.pending.next_pack().0);
                    if is_new {
                        let value = PackRow { name: known.name }.encode().into_boxed_slice();
                        facts.intents.push(Intent::Fact { key: RowKey::Pack(pack), value });
                    }
                }
            }
        }
        let row = ChunkRow { pack, offset, key: self.key(row.key), ..row };
        facts.intents.push(Intent::Fact { key: RowKey::Chunk(new), value: row.encode().into_boxed_slice() });
        Ok(facts.intents)
    }
}

fn damaged(error: crate::format::FormatError) -> VfsError {
    meta_error(WHAT, &error.into())
}

/// `name`, or if there is such an entry, `name (conflict DEVICE DATE).ext` with as high a number as it takes.
fn free_name(drive: &Drive, parent: InodeId, name: &Name) -> VfsResult<Name> {
    let is_free = |name: &Name| Ok(drive.view().dirent(parent, name).map_err(drive.failed(WHAT))?.is_none());
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
