//! Intents that change the tree.

use std::collections::BTreeSet;

use super::{ResolveError, Work};
use crate::base::{InodeId, Name, Timestamp};
use crate::format::intent::{Entry, NewInode};
use crate::format::rows::{DirentRow, InodeBody, InodeRow, RowKey, SYMLINK_LEN_MAX, mode};

impl Work<'_> {
    pub(super) fn create(
        &mut self,
        parent: InodeId,
        name: &Name,
        ino: InodeId,
        node: &NewInode,
    ) -> Result<(), ResolveError> {
        self.absent(parent, name)?;
        if self.rows.inode(ino)?.is_some() {
            return Err(ResolveError::InodeExists(ino));
        }
        let row = new_row(node)?;
        let entry = DirentRow { ino, file_type: row.mode & mode::TYPE };
        self.enter(parent, name, entry, node.time)?;
        self.inodes.insert(ino, Some(row));
        Ok(())
    }

    pub(super) fn link(
        &mut self,
        ino: InodeId,
        parent: InodeId,
        name: &Name,
        time: Timestamp,
    ) -> Result<(), ResolveError> {
        self.absent(parent, name)?;
        let row = self.inode(ino)?;
        if row.is_dir() {
            return Err(ResolveError::IsDirectory(ino));
        }
        row.nlink = row.nlink.checked_add(1).ok_or(ResolveError::TooManyLinks(ino))?;
        row.ctime = time;
        let entry = DirentRow { ino, file_type: row.mode & mode::TYPE };
        self.enter(parent, name, entry, time)
    }

    pub(super) fn unlink(
        &mut self,
        parent: InodeId,
        name: &Name,
        ino: InodeId,
        time: Timestamp,
    ) -> Result<(), ResolveError> {
        let entry = self.present(parent, name, ino)?;
        self.leave(parent, name, entry, time)?;
        self.drop_link(ino, time)
    }

    pub(super) fn rename(
        &mut self,
        ino: InodeId,
        from: &Entry,
        to: &Entry,
        replaced: Option<InodeId>,
        time: Timestamp,
    ) -> Result<(), ResolveError> {
        let entry = self.present(from.parent, &from.name, ino)?;
        let over = match replaced {
            Some(replaced) => Some(self.present(to.parent, &to.name, replaced)?),
            None => {
                self.absent(to.parent, &to.name)?;
                None
            }
        };
        if replaced == Some(ino) {
            // Two names of one file: POSIX says that nothing happens.
            return Ok(());
        }
        let is_dir = entry.file_type == mode::DIR;
        if is_dir && from.parent != to.parent {
            self.refuse_cycle(ino, to.parent)?;
        }
        if let Some(over) = over {
            match (is_dir, over.file_type == mode::DIR) {
                (true, false) => return Err(ResolveError::NotDirectory(over.ino)),
                (false, true) => return Err(ResolveError::IsDirectory(over.ino)),
                (true, true) | (false, false) => {}
            }
            self.leave(to.parent, &to.name, over, time)?;
            self.drop_link(over.ino, time)?;
        }
        self.leave(from.parent, &from.name, entry, time)?;
        self.enter(to.parent, &to.name, entry, time)?;
        self.inode(ino)?.ctime = time;
        Ok(())
    }

    pub(super) fn exchange(
        &mut self,
        (a, a_ino): (&Entry, InodeId),
        (b, b_ino): (&Entry, InodeId),
        time: Timestamp,
    ) -> Result<(), ResolveError> {
        let a_entry = self.present(a.parent, &a.name, a_ino)?;
        let b_entry = self.present(b.parent, &b.name, b_ino)?;
        if a_ino == b_ino {
            return Ok(());
        }
        for (entry, parent) in [(a_entry, b.parent), (b_entry, a.parent)] {
            if entry.file_type == mode::DIR && a.parent != b.parent {
                self.refuse_cycle(entry.ino, parent)?;
            }
        }
        self.leave(a.parent, &a.name, a_entry, time)?;
        self.leave(b.parent, &b.name, b_entry, time)?;
        self.enter(a.parent, &a.name, b_entry, time)?;
        self.enter(b.parent, &b.name, a_entry, time)?;
        self.inode(a_ino)?.ctime = time;
        self.inode(b_ino)?.ctime = time;
        Ok(())
    }

    /// The directory is there and has no such entry.
    fn absent(&mut self, parent: InodeId, name: &Name) -> Result<(), ResolveError> {
        self.directory(parent)?;
        match self.rows.dirent(parent, name)? {
            None => Ok(()),
            Some(_) => Err(ResolveError::Exists { parent, name: name.clone() }),
        }
    }

    /// The directory is there and this entry in it is that inode.
    fn present(&mut self, parent: InodeId, name: &Name, ino: InodeId) -> Result<DirentRow, ResolveError> {
        self.directory(parent)?;
        match self.rows.dirent(parent, name)? {
            None => Err(ResolveError::MissingEntry { parent, name: name.clone() }),
            Some(entry) if entry.ino != ino => {
                Err(ResolveError::OtherEntry { parent, name: name.clone(), meant: ino, found: entry.ino })
            }
            Some(entry) => Ok(entry),
        }
    }

    fn directory(&mut self, ino: InodeId) -> Result<&mut InodeRow, ResolveError> {
        let row = self.inode(ino)?;
        if row.is_dir() { Ok(row) } else { Err(ResolveError::NotDirectory(ino)) }
    }

    /// Puts the name into the directory, and counts it there if it is one of a directory.
    fn enter(&mut self, parent: InodeId, name: &Name, entry: DirentRow, time: Timestamp) -> Result<(), ResolveError> {
        let dir = self.directory(parent)?;
        (dir.mtime, dir.ctime) = (time, time);
        if entry.file_type == mode::DIR {
            dir.nlink = dir.nlink.checked_add(1).ok_or(ResolveError::TooManyLinks(parent))?;
        }
        self.put(&RowKey::Dirent(parent, name.clone()), entry.encode());
        self.put(&RowKey::Backref(entry.ino, parent, name.clone()), Vec::new());
        Ok(())
    }

    /// The reverse of `enter`.
    fn leave(&mut self, parent: InodeId, name: &Name, entry: DirentRow, time: Timestamp) -> Result<(), ResolveError> {
        let dir = self.directory(parent)?;
        (dir.mtime, dir.ctime) = (time, time);
        if entry.file_type == mode::DIR {
            dir.nlink = dir.nlink.saturating_sub(1);
        }
        self.remove(&RowKey::Dirent(parent, name.clone()));
        self.remove(&RowKey::Backref(entry.ino, parent, name.clone()));
        Ok(())
    }

    /// One name less; with the last one all that the inode has goes.
    fn drop_link(&mut self, ino: InodeId, time: Timestamp) -> Result<(), ResolveError> {
        let row = self.inode(ino)?;
        if row.is_dir() {
            if !self.rows.dir_is_empty(ino)? {
                return Err(ResolveError::NotEmpty(ino));
            }
        } else if row.nlink > 1 {
            row.nlink -= 1;
            row.ctime = time;
            return Ok(());
        }
        self.inodes.insert(ino, None);
        self.remove_all(&RowKey::prefix(b'X', ino.0))?;
        self.remove_all(&RowKey::prefix(b'A', ino.0))
    }

    /// `parent` must be neither `ino` nor inside it.
    fn refuse_cycle(&self, ino: InodeId, parent: InodeId) -> Result<(), ResolveError> {
        let mut met = BTreeSet::new();
        let mut at = parent;
        while at != InodeId::ROOT {
            // Meeting one twice means that rows which were accepted have a cycle: do not build on it.
            if at == ino || !met.insert(at) {
                return Err(ResolveError::Cycle { ino, parent });
            }
            match self.rows.backrefs(at)?.first() {
                Some((above, _)) => at = *above,
                None => return Err(ResolveError::Missing(at)),
            }
        }
        Ok(())
    }
}

/// A new inode with one name, or the root directory.
pub(super) fn new_row(node: &NewInode) -> Result<InodeRow, ResolveError> {
    if node.mode & !(mode::TYPE | 0o7777) != 0 {
        return Err(ResolveError::Invalid("a mode"));
    }
    let body = match (node.mode & mode::TYPE, &node.target) {
        (mode::LINK, Some(target)) => match target.len() {
            1..=SYMLINK_LEN_MAX if !target.contains(&0) => InodeBody::Symlink(target.clone()),
            _ => return Err(ResolveError::Invalid("a symlink's target")),
        },
        (mode::LINK, None) => return Err(ResolveError::Invalid("a symlink without a target")),
        (_, Some(_)) => return Err(ResolveError::Invalid("a target of something that is no symlink")),
        (mode::FILE, None) => InodeBody::File(Vec::new()),
        (mode::DIR | mode::FIFO | mode::CHAR | mode::BLOCK | mode::SOCKET, None) => InodeBody::None,
        (_, None) => return Err(ResolveError::Invalid("a file type")),
    };
    Ok(InodeRow {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        nlink: if node.mode & mode::TYPE == mode::DIR { 2 } else { 1 },
        size: node.target.as_ref().map_or(0, |target| target.len() as u64),
        allocated: 0,
        atime: node.time,
        mtime: node.time,
        ctime: node.time,
        btime: node.time,
        version: 0,
        key: None,
        body,
    })
}
