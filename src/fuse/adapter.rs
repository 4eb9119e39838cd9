//! fuser's trait over the vfs's. Thin: translate, call, answer.
//!
//! What this machine can answer is answered from the FUSE thread that read the request; a hop to another thread
//! costs as much as the whole request. What may wait goes to the runtime, with the reply.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, WriteFlags,
};
use tokio::runtime::Handle;

use super::answer::{self, GENERATION, TTL, guarded};
use super::convert::{self, file_attr, ino};
use super::credentials::{self, kill, may_see, may_set};
use super::errno::errno;
use super::turns::Turns;
use super::{capabilities, listing};
use crate::base::{InodeId, MIB, NAME_LEN_MAX};
use crate::format::rows::mode;
use crate::vfs::acl::AclKind;
use crate::vfs::api::{
    Caller, HandleId, Kill, Place, ReadReply, SET_GID, SetAttr, Vfs, VfsError, VfsResult, WriteReply,
};

/// One answer's worth of copying, which is of references; the caller asks again for the rest.
const COPY_LEN_MAX: u64 = 1024 * MIB;
const PERMISSIONS: u32 = 0o7777;

pub struct Adapter {
    vfs: Arc<dyn Vfs>,
    runtime: Handle,
    turns: Turns,
    forget_pages: bool,
}

impl Adapter {
    pub fn new(vfs: Arc<dyn Vfs>, runtime: Handle, forget_pages: bool) -> Self {
        let turns = Turns::new(runtime.clone());
        Self { vfs, runtime, turns, forget_pages }
    }

    /// The page cache outlives the last close: changes made elsewhere are announced. A descriptor that cannot write
    /// has nothing to flush, which saves a request at each close.
    fn opened_flags(&self, writes: bool) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, !self.forget_pages);
        flags.set(FopenFlags::FOPEN_NOFLUSH, !writes);
        flags
    }

    /// Runs `work` where it may block.
    fn blocking(&self, work: impl FnOnce(&dyn Vfs) + Send + 'static) {
        let vfs = self.vfs.clone();
        // The task's end is its reply; a dropped task drops the reply, which answers EIO.
        self.turns.run(move || work(&*vfs));
    }

    /// Who gives a file an access list and is not in its group does not make it run as that group. The kernel says
    /// so in a flag that fuser 0.18 cannot read.
    fn drop_foreign_set_gid(&self, request: &Request, node: InodeId) -> VfsResult<()> {
        let attr = self.vfs.getattr(node)?;
        if attr.mode & SET_GID == 0 || kill(request) == Kill::No || credentials::is_in_group(request, attr.gid) {
            return Ok(());
        }
        let mode = Some(attr.mode & PERMISSIONS & !SET_GID);
        self.vfs.setattr(node, &SetAttr { mode, ..SetAttr::default() }).map(drop)
    }
}

fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask }
}

fn handle(handle: FileHandle) -> HandleId {
    HandleId(handle.0)
}

fn new_mode(file_type: u32, mode: u32) -> u32 {
    file_type | (mode & PERMISSIONS)
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        capabilities::negotiate(config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = ino(parent);
        let result = guarded("lookup", || match name.as_encoded_bytes() {
            // The kernel has a file handle and no inode to it; the parent's number is the inode's own.
            b"." => self.vfs.lookup_number(parent).map(Some),
            b".." => self.vfs.lookup_number(self.vfs.parent(parent)?).map(Some),
            _ => self.vfs.lookup(parent, &convert::name(name)?),
        });
        match result {
            Ok(Some(attr)) => answer::entry(reply, Ok(attr)),
            Ok(None) => reply.entry(&TTL, &convert::no_entry(), GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _request: &Request, node: INodeNo, nlookup: u64) {
        let _ = guarded("forget", || {
            self.vfs.forget(ino(node), nlookup);
            Ok(())
        });
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        answer::attr(reply, guarded("getattr", || self.vfs.getattr(ino(node))));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<fuser::TimeOrNow>,
        mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| mode & PERMISSIONS),
            uid,
            gid,
            size,
            atime: atime.map(convert::time_or_now),
            mtime: mtime.map(convert::time_or_now),
            handle: fh.map(handle),
            kill: kill(request),
        };
        let result = guarded("setattr", || {
            convert::data_range(0, size.unwrap_or(0))?;
            self.vfs.setattr(ino(node), &set)
        });
        answer::attr(reply, result);
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        answer::data(reply, guarded("readlink", || self.vfs.readlink(ino(node))));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let result = guarded("mknod", || {
            let kind = match mode & mode::TYPE {
                0 => mode::FILE,
                kind @ (mode::FILE | mode::FIFO | mode::CHAR | mode::BLOCK | mode::SOCKET) => kind,
                _ => return Err(VfsError::Invalid),
            };
            let rdev = if kind == mode::CHAR || kind == mode::BLOCK { rdev } else { 0 };
            let name = convert::name(name)?;
            self.vfs.mknod(caller(request, umask), ino(parent), &name, new_mode(kind, mode), rdev)
        });
        answer::entry(reply, result);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (caller, mode) = (caller(request, umask), new_mode(mode::DIR, mode));
        let result = guarded("mkdir", || self.vfs.mkdir(caller, ino(parent), &convert::name(name)?, mode));
        answer::entry(reply, result);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer::empty(reply, guarded("unlink", || self.vfs.unlink(ino(parent), &convert::name(name)?)));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer::empty(reply, guarded("rmdir", || self.vfs.rmdir(ino(parent), &convert::name(name)?)));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_encoded_bytes();
        let result =
            guarded("symlink", || self.vfs.symlink(caller(request, 0), ino(parent), &convert::name(name)?, target));
        answer::entry(reply, result);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let result = guarded("rename", || {
            let (from, to) = (convert::name(name)?, convert::name(new_name)?);
            self.vfs.rename((ino(parent), &from), (ino(new_parent), &to), convert::rename_mode(flags)?)
        });
        answer::empty(reply, result);
    }

    fn link(&self, _request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer::entry(reply, guarded("link", || self.vfs.link(ino(node), ino(parent), &convert::name(name)?)));
    }

    fn open(&self, _request: &Request, node: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        let flags = convert::open_flags(flags.0);
        match guarded("open", || self.vfs.open(ino(node), flags)) {
            Ok(handle) => reply.opened(FileHandle(handle.0), self.opened_flags(flags.write)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let opened = convert::open_flags(flags);
        let result = guarded("create", || {
            let name = convert::name(name)?;
            let mode = new_mode(mode::FILE, mode);
            let (attr, handle) = match self.vfs.create(caller(request, umask), ino(parent), &name, mode, opened) {
                // The kernel's memory of an absent name was out of date. ESTALE makes it look again and open
                // what is there, with the permission checks that an existing file needs.
                Err(VfsError::Exists) if flags & libc::O_EXCL == 0 => return Err(VfsError::Stale),
                result => result?,
            };
            Ok((file_attr(&attr)?, handle))
        });
        match result {
            Ok((attr, handle)) => {
                reply.created(&TTL, &attr, GENERATION, FileHandle(handle.0), self.opened_flags(opened.write));
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match guarded("read", || self.vfs.read(ino(node), handle(fh), convert::read_range(offset, size)?)) {
            Ok(ReadReply::Ready(bytes)) => reply.data(&bytes),
            Ok(ReadReply::Later(bytes)) => {
                // A panic in the task drops the reply, which answers EIO.
                drop(self.runtime.spawn(async move {
                    answer::data(reply, bytes.await.map_err(|error| Errno::from_i32(errno(error))));
                }));
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (node, fh) = (ino(node), handle(fh));
        let kill = if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) { Kill::Privileges } else { Kill::No };
        let result = guarded("write", || {
            convert::data_range(offset, data.len() as u64)?;
            self.vfs.write(node, fh, offset, data, kill)
        });
        match result {
            Ok(WriteReply::Done(len)) => reply.written(len),
            Ok(WriteReply::WouldBlock) => {
                // The buffer belongs to the loop that reads requests.
                let data = data.to_vec();
                self.blocking(move |vfs| {
                    answer::written(reply, guarded("write", || vfs.write_blocking(node, fh, offset, &data, kill)));
                });
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _request: &Request, node: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        answer::empty(reply, guarded("flush", || self.vfs.flush(ino(node), handle(fh))));
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let result = guarded("release", || {
            self.vfs.release(ino(node), handle(fh));
            Ok(())
        });
        answer::empty(reply, result);
    }

    fn fsync(&self, _request: &Request, node: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.blocking(move |vfs| {
            answer::empty(reply, guarded("fsync", || vfs.fsync(ino(node), handle(fh), datasync)));
        });
    }

    fn opendir(&self, _request: &Request, node: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        match guarded("opendir", || self.vfs.opendir(ino(node), convert::open_flags(flags.0))) {
            Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _request: &Request, node: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match guarded("readdir", || listing::names(&*self.vfs, node, fh, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match guarded("readdirplus", || listing::entries(&*self.vfs, node, fh, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        node: INodeNo,
        fh: FileHandle,
        _flags: fuser::OpenFlags,
        reply: ReplyEmpty,
    ) {
        let result = guarded("releasedir", || {
            self.vfs.releasedir(ino(node), handle(fh));
            Ok(())
        });
        answer::empty(reply, result);
    }

    fn fsyncdir(&self, _request: &Request, node: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.blocking(move |vfs| {
            answer::empty(reply, guarded("fsyncdir", || vfs.fsyncdir(ino(node), handle(fh), datasync)));
        });
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        match guarded("statfs", || self.vfs.statfs()) {
            Ok(stat) => reply.statfs(
                stat.blocks,
                stat.blocks_free,
                stat.blocks_available,
                stat.files,
                stat.files_free,
                stat.block_len,
                NAME_LEN_MAX as u32,
                stat.block_len,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let result = guarded("setxattr", || {
            let (node, name) = (ino(node), convert::xattr_name(name)?);
            may_set(request, &name)?;
            self.vfs.setxattr(node, &name, value, convert::xattr_mode(flags)?)?;
            if AclKind::of(&name) == Some(AclKind::Access) { self.drop_foreign_set_gid(request, node) } else { Ok(()) }
        });
        answer::empty(reply, result);
    }

    fn getxattr(&self, _request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let result = guarded("getxattr", || self.vfs.getxattr(ino(node), &convert::xattr_name(name)?));
        answer::xattr(reply, size, result);
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let result = guarded("listxattr", || {
            let mut names = self.vfs.listxattr(ino(node))?;
            names.retain(|name| may_see(request, name));
            Ok(names.iter().flat_map(|name| name.as_bytes().iter().copied().chain([0])).collect::<Vec<u8>>())
        });
        answer::xattr(reply, size, result);
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = guarded("removexattr", || {
            let name = convert::xattr_name(name)?;
            may_set(request, &name)?;
            self.vfs.removexattr(ino(node), &name)
        });
        answer::empty(reply, result);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = guarded("fallocate", || {
            let range = convert::data_range(offset, length)?;
            self.vfs.fallocate(ino(node), handle(fh), range, convert::fallocate_mode(mode)?, kill(request))
        });
        answer::empty(reply, result);
    }

    fn lseek(&self, _request: &Request, node: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let result = guarded("lseek", || {
            let target = convert::seek_target(whence)?;
            let offset = u64::try_from(offset).map_err(|_| VfsError::NoDevice)?;
            let found = self.vfs.seek(ino(node), handle(fh), offset, target)?;
            i64::try_from(found).map_err(|_| VfsError::Overflow)
        });
        match result {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(error),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        node_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        node_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = Place { ino: ino(node_in), handle: handle(fh_in), offset: offset_in };
        let to = Place { ino: ino(node_out), handle: handle(fh_out), offset: offset_out };
        let (len, kill) = (len.min(COPY_LEN_MAX), kill(request));
        self.blocking(move |vfs| {
            let result = guarded("copy_file_range", || {
                convert::data_range(offset_out, len)?;
                vfs.copy_range(from, to, len, kill).and_then(|len| u32::try_from(len).map_err(|_| VfsError::Overflow))
            });
            answer::written(reply, result);
        });
    }
}
