//! The operations. What holds them together is in the parent.

use bytes::Bytes;
use hushfs::base::{ByteRange, InodeId, MIB, Name};
use hushfs::format::rows::{SYMLINK_LEN_MAX, XATTR_LEN_MAX, XattrName, mode};
use hushfs::vfs::acl::AclKind;
use hushfs::vfs::api::*;

use super::pages::Pages;
use super::{Body, Child, Dir, MemFs};

impl Vfs for MemFs {
    fn lookup(&self, parent: InodeId, name: &Name) -> VfsResult<Option<Attr>> {
        // An entry may be unlinked between the two locks; then it was unlinked before.
        let Some(child) = self.child(parent, name)? else { return Ok(None) };
        Ok(self.node(child.ino).ok().map(|node| Self::referenced(&node)))
    }

    fn lookup_number(&self, ino: InodeId) -> VfsResult<Attr> {
        let node = self.node(ino)?;
        if node.lock().attr().nlink == 0 { Err(VfsError::NotFound) } else { Ok(Self::referenced(&node)) }
    }

    fn forget(&self, ino: InodeId, count: u64) {
        if let Ok(node) = self.node(ino) {
            let mut state = node.lock();
            state.references = state.references.saturating_sub(count);
            self.reclaim(ino, state);
        }
    }

    fn parent(&self, dir: InodeId) -> VfsResult<InodeId> {
        Ok(self.node(dir)?.lock().dir()?.parent)
    }

    fn getattr(&self, ino: InodeId) -> VfsResult<Attr> {
        Ok(self.node(ino)?.lock().attr())
    }

    fn setattr(&self, ino: InodeId, set: &SetAttr) -> VfsResult<Attr> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        if let Some(size) = set.size {
            state.resize(size, self.now(), set.kill)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            state.attr.uid = set.uid.unwrap_or(state.attr.uid);
            state.attr.gid = set.gid.unwrap_or(state.attr.gid);
            state.drop_privileges(Kill::Privileges);
        }
        if let Some(bits) = set.mode {
            state.attr.mode = (state.attr.mode & mode::TYPE) | bits;
        }
        let now = self.now();
        let time = |time: TimeOrNow| match time {
            TimeOrNow::Time(time) => time,
            TimeOrNow::Now => now,
        };
        state.attr.atime = set.atime.map_or(state.attr.atime, time);
        state.attr.mtime = set.mtime.map_or(state.attr.mtime, time);
        state.attr.ctime = now;
        Ok(state.attr())
    }

    fn readlink(&self, ino: InodeId) -> VfsResult<Bytes> {
        match &self.node(ino)?.lock().body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(VfsError::Invalid),
        }
    }

    fn mknod(&self, caller: Caller, parent: InodeId, name: &Name, mode: u32, rdev: u32) -> VfsResult<Attr> {
        let _tree = self.tree.lock();
        let body = if mode & mode::TYPE == mode::FILE { Body::File(Pages::default()) } else { Body::Other };
        Ok(Self::referenced(&*self.add(caller, parent, name, (mode, rdev), body)?))
    }

    fn mkdir(&self, caller: Caller, parent: InodeId, name: &Name, mode: u32) -> VfsResult<Attr> {
        let _tree = self.tree.lock();
        Ok(Self::referenced(&*self.add(caller, parent, name, (mode, 0), Body::Dir(Dir::new(parent)))?))
    }

    fn symlink(&self, caller: Caller, parent: InodeId, name: &Name, target: &[u8]) -> VfsResult<Attr> {
        if target.len() > SYMLINK_LEN_MAX {
            return Err(VfsError::NameTooLong);
        }
        let _tree = self.tree.lock();
        let body = Body::Symlink(Bytes::copy_from_slice(target));
        Ok(Self::referenced(&*self.add(caller, parent, name, (mode::LINK | 0o777, 0), body)?))
    }

    fn link(&self, ino: InodeId, parent: InodeId, name: &Name) -> VfsResult<Attr> {
        let _tree = self.tree.lock();
        let node = self.node(ino)?;
        let attr = node.lock().attr;
        if attr.mode & mode::TYPE == mode::DIR {
            return Err(VfsError::NotPermitted);
        }
        if attr.nlink == 0 {
            return Err(VfsError::NotFound);
        }
        let parent = self.node(parent)?;
        let mut parent = parent.lock();
        if parent.dir()?.names.contains_key(name) {
            return Err(VfsError::Exists);
        }
        if parent.attr.nlink == 0 {
            return Err(VfsError::NotFound);
        }
        parent.dir_mut()?.insert(Child { name: name.clone(), ino, file_type: attr.mode & mode::TYPE });
        parent.content_changed(self.now(), Kill::No);
        drop(parent);
        let mut state = node.lock();
        state.attr.nlink += 1;
        state.attr.ctime = self.now();
        state.references += 1;
        Ok(state.attr())
    }

    fn unlink(&self, parent: InodeId, name: &Name) -> VfsResult<()> {
        let _tree = self.tree.lock();
        let child = self.child(parent, name)?.ok_or(VfsError::NotFound)?;
        if child.file_type == mode::DIR {
            return Err(VfsError::IsDirectory);
        }
        self.remove(parent, &child)
    }

    fn rmdir(&self, parent: InodeId, name: &Name) -> VfsResult<()> {
        let _tree = self.tree.lock();
        let child = self.child(parent, name)?.ok_or(VfsError::NotFound)?;
        if !self.is_empty_dir(child.ino)? {
            return Err(VfsError::NotEmpty);
        }
        self.remove(parent, &child)
    }

    fn rename(&self, from: (InodeId, &Name), to: (InodeId, &Name), mode: RenameMode) -> VfsResult<()> {
        let _tree = self.tree.lock();
        let moving = self.child(from.0, from.1)?.ok_or(VfsError::NotFound)?;
        let replaced = self.child(to.0, to.1)?;
        match (mode, &replaced) {
            (RenameMode::NoReplace, Some(_)) => return Err(VfsError::Exists),
            (RenameMode::Exchange, None) => return Err(VfsError::NotFound),
            _ => {}
        }
        if moving.file_type == mode::DIR && self.is_within(to.0, moving.ino)? {
            return Err(VfsError::Invalid);
        }
        match (mode, replaced) {
            // Two names of one file: POSIX has nothing happen.
            (_, Some(other)) if other.ino == moving.ino => return Ok(()),
            (RenameMode::Exchange, Some(other)) => {
                if other.file_type == mode::DIR && self.is_within(from.0, other.ino)? {
                    return Err(VfsError::Invalid);
                }
                self.node(from.0)?.lock().dir_mut()?.replace(from.1, other.ino, other.file_type);
                self.node(to.0)?.lock().dir_mut()?.replace(to.1, moving.ino, moving.file_type);
                self.moved(&other, to.0, from.0)?;
            }
            (_, Some(other)) => {
                match (moving.file_type == mode::DIR, other.file_type == mode::DIR) {
                    (true, false) => return Err(VfsError::NotDirectory),
                    (false, true) => return Err(VfsError::IsDirectory),
                    (true, true) if !self.is_empty_dir(other.ino)? => return Err(VfsError::NotEmpty),
                    _ => {}
                }
                self.node(from.0)?.lock().dir_mut()?.remove(from.1);
                let parent = self.node(to.0)?;
                let mut parent = parent.lock();
                parent.dir_mut()?.replace(to.1, moving.ino, moving.file_type);
                if other.file_type == mode::DIR {
                    parent.attr.nlink -= 1;
                }
                drop(parent);
                self.unlinked(&other)?;
            }
            (_, None) => {
                let target = self.node(to.0)?;
                if target.lock().attr.nlink == 0 {
                    return Err(VfsError::NotFound);
                }
                self.node(from.0)?.lock().dir_mut()?.remove(from.1);
                target.lock().dir_mut()?.insert(Child { name: to.1.clone(), ..moving.clone() });
            }
        }
        self.moved(&moving, from.0, to.0)?;
        self.touch(from.0)?;
        self.touch(to.0)
    }

    fn open(&self, ino: InodeId, flags: OpenFlags) -> VfsResult<HandleId> {
        self.behave.perhaps_panic();
        let node = self.node(ino)?;
        let mut state = node.lock();
        state.pages()?;
        if flags.truncate {
            state.resize(0, self.now(), Kill::Privileges)?;
        }
        Ok(self.new_handle(&mut state))
    }

    fn create(
        &self,
        caller: Caller,
        parent: InodeId,
        name: &Name,
        mode: u32,
        _flags: OpenFlags,
    ) -> VfsResult<(Attr, HandleId)> {
        let _tree = self.tree.lock();
        let node = self.add(caller, parent, name, (mode, 0), Body::File(Pages::default()))?;
        let attr = Self::referenced(&node);
        let handle = self.new_handle(&mut node.lock());
        Ok((attr, handle))
    }

    fn read(&self, ino: InodeId, _handle: HandleId, range: ByteRange) -> VfsResult<ReadReply> {
        self.behave.perhaps_panic();
        let data = self.read_now(ino, range)?;
        if !self.behave.is_slow() {
            return Ok(ReadReply::Ready(data));
        }
        Ok(ReadReply::Later(Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(data)
        })))
    }

    fn write(&self, ino: InodeId, handle: HandleId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<WriteReply> {
        if self.behave.is_slow() {
            return Ok(WriteReply::WouldBlock);
        }
        self.write_blocking(ino, handle, offset, data, kill).map(WriteReply::Done)
    }

    fn write_blocking(&self, ino: InodeId, _handle: HandleId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<u32> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        state.pages()?.write(offset, data);
        state.attr.size = state.attr.size.max(offset + data.len() as u64);
        state.content_changed(self.now(), kill);
        Ok(data.len() as u32)
    }

    fn flush(&self, _ino: InodeId, _handle: HandleId) -> VfsResult<()> {
        Ok(())
    }

    fn release(&self, ino: InodeId, _handle: HandleId) {
        self.close(ino);
    }

    fn fsync(&self, ino: InodeId, _handle: HandleId, _data_only: bool) -> VfsResult<()> {
        self.node(ino).map(drop)
    }

    fn fallocate(
        &self,
        ino: InodeId,
        _handle: HandleId,
        range: ByteRange,
        mode: FallocateMode,
        kill: Kill,
    ) -> VfsResult<()> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        let pages = state.pages()?;
        if matches!(mode, FallocateMode::PunchHole | FallocateMode::Zero | FallocateMode::ZeroKeepSize) {
            pages.clear(range);
        }
        if matches!(mode, FallocateMode::Allocate | FallocateMode::Zero) {
            state.attr.size = state.attr.size.max(range.end);
        }
        state.content_changed(self.now(), kill);
        Ok(())
    }

    fn seek(&self, ino: InodeId, _handle: HandleId, offset: u64, target: SeekTarget) -> VfsResult<u64> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        let size = state.attr.size;
        if offset >= size {
            return Err(VfsError::NoDevice);
        }
        let pages = state.pages()?;
        match target {
            SeekTarget::Data => pages.next_data(offset).filter(|data| *data < size).ok_or(VfsError::NoDevice),
            SeekTarget::Hole => Ok(pages.next_hole(offset).min(size)),
        }
    }

    fn copy_range(&self, from: Place, to: Place, len: u64, kill: Kill) -> VfsResult<u64> {
        let size = self.getattr(from.ino)?.size;
        let len = len.min(size.saturating_sub(from.offset));
        if from.ino == to.ino && from.offset < to.offset + len && to.offset < from.offset + len {
            return Err(VfsError::Invalid);
        }
        let mut copied = 0;
        while copied < len {
            let wanted = (len - copied).min(MIB);
            let range = ByteRange::at(from.offset + copied, wanted).ok_or(VfsError::Invalid)?;
            let data = self.read_now(from.ino, range)?;
            if data.is_empty() {
                break;
            }
            self.write_blocking(to.ino, to.handle, to.offset + copied, &data, kill)?;
            copied += data.len() as u64;
        }
        Ok(copied)
    }

    fn opendir(&self, ino: InodeId, _flags: OpenFlags) -> VfsResult<HandleId> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        state.dir()?;
        Ok(self.new_handle(&mut state))
    }

    fn readdir(
        &self,
        ino: InodeId,
        _handle: HandleId,
        after: u64,
        want: DirWant,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        let dir = self.node(ino)?;
        // `tree` keeps the entries from losing their nodes meanwhile.
        let _tree = self.tree.lock();
        let dir = dir.lock();
        for (cookie, child) in dir.dir()?.entries.range(after + 1..) {
            let node = if want == DirWant::Attributes { self.node(child.ino).ok() } else { None };
            let attr = node.as_ref().map(|node| node.lock().attr());
            let entry =
                DirEntry { ino: child.ino, name: &child.name, file_type: child.file_type, cookie: *cookie, attr };
            if !sink(&entry) {
                break;
            }
            if let Some(node) = node {
                node.lock().references += 1;
            }
        }
        Ok(())
    }

    fn releasedir(&self, ino: InodeId, _handle: HandleId) {
        self.close(ino);
    }

    fn fsyncdir(&self, ino: InodeId, _handle: HandleId, _data_only: bool) -> VfsResult<()> {
        self.node(ino).map(drop)
    }

    fn statfs(&self) -> VfsResult<StatFs> {
        let blocks = 1 << 28;
        Ok(StatFs {
            block_len: 4096,
            blocks,
            blocks_free: blocks,
            blocks_available: blocks,
            files: 1 << 32,
            files_free: (1 << 32) - self.node_count() as u64,
        })
    }

    fn setxattr(&self, ino: InodeId, name: &XattrName, value: &[u8], mode: XattrMode) -> VfsResult<()> {
        if value.len() > XATTR_LEN_MAX {
            return Err(VfsError::TooBig);
        }
        // Kept without their meaning they would look enforced and not be.
        if AclKind::of(name).is_some() {
            return Err(VfsError::NotSupported);
        }
        let node = self.node(ino)?;
        let mut state = node.lock();
        match (mode, state.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(VfsError::Exists),
            (XattrMode::Replace, false) => return Err(VfsError::NoData),
            _ => {}
        }
        state.xattrs.insert(name.clone(), Bytes::copy_from_slice(value));
        state.attr.ctime = self.now();
        Ok(())
    }

    fn getxattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<Bytes> {
        self.node(ino)?.lock().xattrs.get(name).cloned().ok_or(VfsError::NoData)
    }

    fn listxattr(&self, ino: InodeId) -> VfsResult<Vec<XattrName>> {
        Ok(self.node(ino)?.lock().xattrs.keys().cloned().collect())
    }

    fn removexattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<()> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        state.xattrs.remove(name).ok_or(VfsError::NoData)?;
        state.attr.ctime = self.now();
        Ok(())
    }
}
