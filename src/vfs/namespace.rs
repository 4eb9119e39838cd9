//! Names: lookup, create, link, unlink, rename, readdir.
//!
//! The namespace lock serialises these, so that what an operation checked still holds when its intent
//! resolves.

use crate::base::{InodeId, Name, Timestamp};
use crate::format::intent::{Entry, Intent, NewInode};
use crate::format::rows::{DirentRow, InodeRow, SYMLINK_LEN_MAX, mode};
use crate::meta::Rows;

use super::api::{Attr, Caller, DirEntry, DirWant, HandleId, RenameMode, VfsError, VfsResult, inherited};
use super::drive::Drive;
use super::node::{Node, Orphan};

/// ext4's own limit is 65,000; ours is the row's.
const LINKS_MAX: u32 = u32::MAX - 1;
const READDIR_PAGE: usize = 256;

impl Drive {
    pub(super) fn lookup_name(&self, parent: InodeId, name: &Name) -> VfsResult<Option<Attr>> {
        self.directory(parent)?;
        let Some(entry) = self.dirent(parent, name)? else { return Ok(None) };
        let attr = self.attr(entry.ino)?;
        self.nodes.looked_up(entry.ino);
        Ok(Some(attr))
    }

    pub(super) fn create_inode(
        &self,
        caller: Caller,
        parent: InodeId,
        name: &Name,
        mode: u32,
        rdev: u32,
        target: Option<&[u8]>,
    ) -> VfsResult<Attr> {
        if target.is_some_and(|target| target.is_empty() || target.contains(&0)) {
            return Err(VfsError::Invalid);
        }
        if target.is_some_and(|target| target.len() > SYMLINK_LEN_MAX) {
            return Err(VfsError::NameTooLong);
        }
        self.check_names_room()?;
        let _gate = self.change()?;
        let _namespace = self.namespace.lock();
        let directory = self.live_directory(parent)?;
        if self.dirent(parent, name)?.is_some() {
            return Err(VfsError::Exists);
        }
        let ino = self.pending.next_inode();
        let (lists, mode) = self.inherited_lists(parent, mode, caller.umask)?;
        let (gid, mode) = inherited(caller, &self.attr_of(parent, &directory), mode);
        let time = self.now();
        let node = NewInode { mode, uid: caller.uid, gid, rdev, time, target: target.map(|target| target.into()) };
        let mut intents = vec![Intent::Create { parent, name: name.clone(), ino, node }];
        intents.extend(lists.into_iter().map(|(kind, list)| Intent::SetXattr {
            ino,
            name: kind.name(),
            value: Some(list.encode().into()),
            time,
        }));
        self.submit(intents)?;
        let attr = self.attr(ino)?;
        self.nodes.looked_up(ino);
        Ok(attr)
    }

    pub(super) fn add_link(&self, ino: InodeId, parent: InodeId, name: &Name) -> VfsResult<Attr> {
        self.check_names_room()?;
        let _gate = self.change()?;
        let _namespace = self.namespace.lock();
        self.live_directory(parent)?;
        // An unlinked inode has no rows to link to.
        let row = self.view().inode(ino).map_err(self.failed("link"))?.ok_or(VfsError::NotFound)?;
        if row.is_dir() {
            return Err(VfsError::NotPermitted);
        }
        if row.nlink >= LINKS_MAX {
            return Err(VfsError::TooManyLinks);
        }
        if self.dirent(parent, name)?.is_some() {
            return Err(VfsError::Exists);
        }
        let time = self.now();
        self.submit(vec![Intent::Link { ino, parent, name: name.clone(), time }])?;
        self.ctime_passed(ino, time);
        let attr = self.attr(ino)?;
        self.nodes.looked_up(ino);
        Ok(attr)
    }

    pub(super) fn remove(&self, parent: InodeId, name: &Name, directory: bool) -> VfsResult<()> {
        let _gate = self.change()?;
        let _namespace = self.namespace.lock();
        self.directory(parent)?;
        let entry = self.dirent(parent, name)?.ok_or(VfsError::NotFound)?;
        match (entry.file_type == mode::DIR, directory) {
            (true, false) => return Err(VfsError::IsDirectory),
            (false, true) => return Err(VfsError::NotDirectory),
            (true, true) if !self.view().dir_is_empty(entry.ino).map_err(self.failed("rmdir"))? => {
                return Err(VfsError::NotEmpty);
            }
            _ => {}
        }
        let time = self.now();
        let intent = Intent::Unlink { parent, name: name.clone(), ino: entry.ino, time };
        self.removing(entry.ino, time, |drive| drive.submit(vec![intent]))
    }

    pub(super) fn rename_entry(&self, from: (InodeId, &Name), to: (InodeId, &Name), how: RenameMode) -> VfsResult<()> {
        let _gate = self.change()?;
        let _namespace = self.namespace.lock();
        self.directory(from.0)?;
        self.live_directory(to.0)?;
        let source = self.dirent(from.0, from.1)?.ok_or(VfsError::NotFound)?;
        let target = self.dirent(to.0, to.1)?;
        let time = self.now();
        let entry = |(parent, name): (InodeId, &Name)| Entry { parent, name: name.clone() };
        if how == RenameMode::Exchange {
            let target = target.ok_or(VfsError::NotFound)?;
            self.no_cycle(&source, to.0)?;
            self.no_cycle(&target, from.0)?;
            if source.ino == target.ino {
                return Ok(());
            }
            let (a, b) = (entry(from), entry(to));
            self.submit(vec![Intent::Exchange { a, a_ino: source.ino, b, b_ino: target.ino, time }])?;
            self.ctime_passed(target.ino, time);
            self.ctime_passed(source.ino, time);
            return Ok(());
        }
        if how == RenameMode::NoReplace && target.is_some() {
            return Err(VfsError::Exists);
        }
        self.no_cycle(&source, to.0)?;
        if let Some(target) = target {
            if target.ino == source.ino {
                return Ok(());
            }
            match (source.file_type == mode::DIR, target.file_type == mode::DIR) {
                (true, false) => return Err(VfsError::NotDirectory),
                (false, true) => return Err(VfsError::IsDirectory),
                (true, true) if !self.view().dir_is_empty(target.ino).map_err(self.failed("rename"))? => {
                    return Err(VfsError::NotEmpty);
                }
                _ => {}
            }
        }
        let replaced = target.map(|target| target.ino);
        let intent = Intent::Rename { ino: source.ino, from: entry(from), to: entry(to), replaced, time };
        match replaced {
            None => self.submit(vec![intent])?,
            Some(replaced) => self.removing(replaced, time, |drive| drive.submit(vec![intent]))?,
        }
        self.ctime_passed(source.ino, time);
        Ok(())
    }

    /// A directory must not move into itself or below.
    fn no_cycle(&self, moved: &DirentRow, parent: InodeId) -> VfsResult<()> {
        let mut at = parent;
        while moved.file_type == mode::DIR && at != InodeId::ROOT {
            if at == moved.ino {
                return Err(VfsError::Invalid);
            }
            at = self.parent_of(at)?;
        }
        Ok(())
    }

    /// Runs `change`, which takes one name from `ino`, and keeps what is left of it for those who hold it.
    fn removing(&self, ino: InodeId, time: Timestamp, change: impl FnOnce(&Self) -> VfsResult<()>) -> VfsResult<()> {
        let node = self.nodes.get_or_insert(ino);
        let mut state = node.state.lock();
        let row = self.row(ino, &state)?;
        let last = row.is_dir() || row.nlink <= 1;
        let in_use = state.opens > 0 || self.nodes.is_known(ino);
        let orphan = if last && in_use { Some(self.orphan(ino, row, time)?) } else { None };
        change(self)?;
        if let Some(orphan) = orphan {
            state.orphan = Some(Box::new(orphan));
            state.ahead = None;
        } else if last {
            self.budget.release(state.dirty.bytes());
            state.dirty = Default::default();
            state.ahead = None;
        }
        drop(state);
        drop(node);
        if !last {
            self.ctime_passed(ino, time);
        }
        self.settle(ino);
        Ok(())
    }

    fn orphan(&self, ino: InodeId, mut row: InodeRow, time: Timestamp) -> VfsResult<Orphan> {
        let view = self.view();
        let whole = crate::base::ByteRange::new(0, u64::MAX);
        let extents = match row.is_file() && row.allocated > 0 {
            true => view.extents(ino, &row, whole).map_err(self.failed("unlink"))?,
            false => Vec::new(),
        };
        let mut xattrs = Vec::new();
        for name in view.xattrs(ino).map_err(self.failed("unlink"))? {
            let value = view.xattr(ino, &name).map_err(self.failed("unlink"))?;
            xattrs.extend(value.map(|value| (name, value)));
        }
        row.nlink = 0;
        row.ctime = time;
        Ok(Orphan { row, extents, xattrs, chunks: Default::default(), keys: Default::default() })
    }

    pub(super) fn parent_of(&self, dir: InodeId) -> VfsResult<InodeId> {
        if dir == InodeId::ROOT {
            return Ok(dir);
        }
        let backrefs = self.view().backrefs(dir).map_err(self.failed("lookup of .."))?;
        backrefs.first().map(|(parent, _)| *parent).ok_or(VfsError::NotFound)
    }

    pub(super) fn list(
        &self,
        (dir, handle): (InodeId, HandleId),
        after: u64,
        want: DirWant,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        let mut after = after.max(super::api::FIRST_COOKIE - 1);
        let keeps = |node: &Node| node.state.lock().keep_atime.contains(&handle);
        if !self.nodes.get(dir).is_some_and(|node| keeps(&node)) {
            self.atimes.touch(dir, &self.current_row(dir)?, self.clock.as_ref());
        }
        loop {
            let page = self.view().dir_page(dir, after, READDIR_PAGE).map_err(self.failed("readdir"))?;
            let Some(&(last, ..)) = page.last() else { return Ok(()) };
            for (cookie, name, row) in &page {
                let attr = match want {
                    DirWant::Names => None,
                    DirWant::Attributes => self.attr(row.ino).ok(),
                };
                let entry = DirEntry { ino: row.ino, name, file_type: row.file_type, cookie: *cookie, attr };
                // Counted first: the kernel may know of it, and forget it, before we get the answer.
                if want == DirWant::Attributes {
                    self.nodes.looked_up(row.ino);
                }
                if !sink(&entry) {
                    if want == DirWant::Attributes {
                        self.nodes.forget(row.ino, 1);
                    }
                    return Ok(());
                }
            }
            after = last;
        }
    }

    fn dirent(&self, parent: InodeId, name: &Name) -> VfsResult<Option<DirentRow>> {
        self.view().dirent(parent, name).map_err(self.failed("lookup"))
    }

    /// The row of a directory, which may be unlinked.
    fn directory(&self, ino: InodeId) -> VfsResult<InodeRow> {
        let row = self.current_row(ino)?;
        if row.is_dir() { Ok(row) } else { Err(VfsError::NotDirectory) }
    }

    /// The row of a directory that things can be put into.
    fn live_directory(&self, ino: InodeId) -> VfsResult<InodeRow> {
        let row = self.directory(ino)?;
        if row.nlink == 0 { Err(VfsError::NotFound) } else { Ok(row) }
    }
}
