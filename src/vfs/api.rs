//! What a filesystem is to whoever serves it: POSIX operations by inode number, without FUSE.
//!
//! Invariants of every implementation:
//! - An operation answers from this machine without waiting for the network. What may have to wait says so in
//!   its type (`ReadReply::Later`, `WriteReply::WouldBlock`) or in its comment ("may block").
//! - Permissions were checked by the kernel (`default_permissions`); the implementation checks what is
//!   structural only: types, existence, emptiness, cycles, limits.
//! - **References.** Each attribute handed out by `lookup`, `lookup_number`, `mknod`, `mkdir`, `symlink`, `link` and
//!   `create`, and each entry that `readdir`'s sink accepts when attributes are wanted, is one reference to its inode,
//!   given back by `forget`. An unlinked inode lives until it has neither references nor handles.
//! - Operations come from many threads at once and are atomic with regard to each other.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::base::{ByteRange, InodeId, Name, Timestamp};
use crate::format::rows::{XattrName, mode};

pub type VfsResult<T> = Result<T, VfsError>;

pub trait Vfs: Send + Sync + 'static {
    /// None: there is no such name, and the caller may remember that.
    fn lookup(&self, parent: InodeId, name: &Name) -> VfsResult<Option<Attr>>;
    /// By its number alone: what the kernel has forgotten while somebody has a file handle of it (NFS,
    /// open_by_handle_at). `NotFound` once it is unlinked, also while somebody has it open.
    fn lookup_number(&self, ino: InodeId) -> VfsResult<Attr>;
    /// Gives back `count` references.
    fn forget(&self, ino: InodeId, count: u64);
    /// The directory that holds this directory; the root's is the root.
    fn parent(&self, dir: InodeId) -> VfsResult<InodeId>;

    fn getattr(&self, ino: InodeId) -> VfsResult<Attr>;
    /// A change of owner or group, and one of size as `kill` says, clears privileges as `without_privileges` has it
    /// (unless `mode` is given). All of them drop `security.capability`. A new mode goes into the access list too.
    fn setattr(&self, ino: InodeId, set: &SetAttr) -> VfsResult<Attr>;
    fn readlink(&self, ino: InodeId) -> VfsResult<Bytes>;

    /// `mode` is type and permissions as asked for; the caller's umask, or else the directory's default list, takes
    /// from them, and `inherited` completes it and the group.
    fn mknod(&self, caller: Caller, parent: InodeId, name: &Name, mode: u32, rdev: u32) -> VfsResult<Attr>;
    fn mkdir(&self, caller: Caller, parent: InodeId, name: &Name, mode: u32) -> VfsResult<Attr>;
    fn symlink(&self, caller: Caller, parent: InodeId, name: &Name, target: &[u8]) -> VfsResult<Attr>;
    fn link(&self, ino: InodeId, parent: InodeId, name: &Name) -> VfsResult<Attr>;
    fn unlink(&self, parent: InodeId, name: &Name) -> VfsResult<()>;
    fn rmdir(&self, parent: InodeId, name: &Name) -> VfsResult<()>;
    fn rename(&self, from: (InodeId, &Name), to: (InodeId, &Name), mode: RenameMode) -> VfsResult<()>;

    fn open(&self, ino: InodeId, flags: OpenFlags) -> VfsResult<HandleId>;
    /// A regular file and a handle on it. An existing name is `Exists`, whatever the flags: the kernel has looked.
    fn create(
        &self,
        caller: Caller,
        parent: InodeId,
        name: &Name,
        mode: u32,
        flags: OpenFlags,
    ) -> VfsResult<(Attr, HandleId)>;
    /// Short only at the end of the file.
    fn read(&self, ino: InodeId, handle: HandleId, range: ByteRange) -> VfsResult<ReadReply>;
    /// All or nothing. `WouldBlock` has done nothing; the same bytes then come again by `write_blocking`.
    fn write(&self, ino: InodeId, handle: HandleId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<WriteReply>;
    /// May block until there is room.
    fn write_blocking(&self, ino: InodeId, handle: HandleId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<u32>;
    /// At every close of a descriptor. Promises nothing on disk; reports an earlier failure to write back.
    fn flush(&self, ino: InodeId, handle: HandleId) -> VfsResult<()>;
    /// The last close. Writes of a mapping may still have come just before it.
    fn release(&self, ino: InodeId, handle: HandleId);
    /// May block: returns once file and metadata are durable as the mount promises.
    fn fsync(&self, ino: InodeId, handle: HandleId, data_only: bool) -> VfsResult<()>;
    fn fallocate(
        &self,
        ino: InodeId,
        handle: HandleId,
        range: ByteRange,
        mode: FallocateMode,
        kill: Kill,
    ) -> VfsResult<()>;
    /// The first offset at or after `offset` that holds data, or a hole (the end of the file is one).
    /// `NoDevice` at or past the end.
    fn seek(&self, ino: InodeId, handle: HandleId, offset: u64, target: SeekTarget) -> VfsResult<u64>;
    /// May block. Returns how much was copied; 0 at the source's end.
    fn copy_range(&self, from: Place, to: Place, len: u64, kill: Kill) -> VfsResult<u64>;

    /// Of the flags, those that are not about content count.
    fn opendir(&self, ino: InodeId, flags: OpenFlags) -> VfsResult<HandleId>;
    /// Hands entries with cookies after `after` (0: from the start) to `sink`, until it answers false, which
    /// means that it did not take that entry. Neither `.` nor `..`; cookies start at `FIRST_COOKIE`, stay valid
    /// while entries come and go, and an entry that exists throughout appears exactly once.
    fn readdir(
        &self,
        ino: InodeId,
        handle: HandleId,
        after: u64,
        want: DirWant,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> VfsResult<()>;
    fn releasedir(&self, ino: InodeId, handle: HandleId);
    /// May block, like `fsync`.
    fn fsyncdir(&self, ino: InodeId, handle: HandleId, data_only: bool) -> VfsResult<()>;

    fn statfs(&self) -> VfsResult<StatFs>;

    /// An access list changes the mode; one that a mode says as well is not kept beside it.
    fn setxattr(&self, ino: InodeId, name: &XattrName, value: &[u8], mode: XattrMode) -> VfsResult<()>;
    fn getxattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<Bytes>;
    fn listxattr(&self, ino: InodeId) -> VfsResult<Vec<XattrName>>;
    fn removexattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<()>;
}

/// Cookies 0 to 2 are the start, `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// Who asked. The kernel has already decided whether they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// Permissions that what they make does not get, unless its directory has a default list.
    pub umask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: InodeId,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits only.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
    pub handle: Option<HandleId>,
    /// Of a change of size.
    pub kill: Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOrNow {
    Time(Timestamp),
    Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    pub read: bool,
    pub write: bool,
    /// Cut to nothing as part of opening.
    pub truncate: bool,
    /// O_NOATIME: reading by this handle is not noticed.
    pub keep_atime: bool,
}

/// Whether a change of content clears set-user-id and set-group-id, which some callers may keep (CAP_FSETID).
/// File capabilities go in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kill {
    No,
    #[default]
    Privileges,
}

pub enum ReadReply {
    Ready(Bytes),
    /// The bytes are not on this machine. Ends by itself, with an error when the store does not answer in time.
    Later(LaterRead),
}

pub type LaterRead = Pin<Box<dyn Future<Output = VfsResult<Bytes>> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteReply {
    /// So many bytes: all of them.
    Done(u32),
    WouldBlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocateMode {
    /// Reserve, and grow the file to the range's end.
    Allocate,
    /// Reserve, size unchanged.
    AllocateKeepSize,
    /// Always keeps the size.
    PunchHole,
    /// Reads as zeros after; grows the file to the range's end.
    Zero,
    ZeroKeepSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    Data,
    Hole,
}

/// An offset in an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub ino: InodeId,
    pub handle: HandleId,
    pub offset: u64,
}

/// Whether a directory's entries are wanted with attributes (each a reference, see above).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirWant {
    Names,
    Attributes,
}

#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    pub ino: InodeId,
    pub name: &'a Name,
    /// `S_IFMT` bits.
    pub file_type: u32,
    pub cookie: u64,
    /// None with `DirWant::Names`, and where an inode cannot be read.
    pub attr: Option<Attr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    pub block_len: u32,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    Set,
    /// `Exists` if it is there.
    Create,
    /// `NoData` if it is not.
    Replace,
}

/// What changed behind the kernel's back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// The attributes only; the right one for files with open handles, as it waits for no read.
    Attributes(InodeId),
    /// Attributes and all cached pages.
    Content(InodeId),
    /// The name means something else now, or nothing.
    Entry { parent: InodeId, name: Name },
}

/// Told of changes that did not come through this mount. Must be called after the new state is visible, and
/// returns at once.
pub trait KernelCache: Send + Sync {
    fn invalidate(&self, what: Invalidation);
}

/// The errors an operation can end with. Small and closed: the sources were logged where they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VfsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("the name exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("the name is too long")]
    NameTooLong,
    #[error("an invalid argument")]
    Invalid,
    #[error("no space is left on this machine")]
    NoSpace,
    #[error("over a quota")]
    Quota,
    #[error("an input or output error")]
    Io,
    #[error("the store did not answer in time")]
    TimedOut,
    #[error("the drive is read-only")]
    ReadOnly,
    #[error("not permitted")]
    NotPermitted,
    #[error("access denied")]
    Access,
    #[error("too many links")]
    TooManyLinks,
    #[error("not on one filesystem")]
    CrossDevice,
    #[error("no such attribute")]
    NoData,
    #[error("the result does not fit the buffer")]
    Range,
    #[error("the argument is too big")]
    TooBig,
    #[error("the file would be too big")]
    FileTooBig,
    #[error("busy")]
    Busy,
    #[error("a bad handle")]
    BadHandle,
    #[error("not supported")]
    NotSupported,
    #[error("the file is gone")]
    Stale,
    #[error("nothing there at or after this offset")]
    NoDevice,
    #[error("too many symbolic links")]
    Loop,
    #[error("a value is too large for its type")]
    Overflow,
    #[error("interrupted")]
    Interrupted,
    #[error("try again")]
    Again,
    #[error("out of memory")]
    NoMemory,
    #[error("too many open files")]
    TooManyFiles,
}

pub const SET_UID: u32 = 0o4000;
pub const SET_GID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;

/// The mode of anything but a directory after a write, a truncation or a change of owner: set-user-id goes, and
/// set-group-id where the group may execute (without that bit it once meant mandatory locking).
pub const fn without_privileges(mode: u32) -> u32 {
    if mode & mode::TYPE == mode::DIR {
        return mode;
    }
    let kept = mode & !SET_UID;
    if kept & GROUP_EXECUTE != 0 { kept & !SET_GID } else { kept }
}

/// Group and mode of a new inode: a set-group-id directory hands on its group, and to directories the bit too.
pub const fn inherited(caller: Caller, parent: &Attr, mode: u32) -> (u32, u32) {
    if parent.mode & SET_GID == 0 {
        return (caller.gid, mode);
    }
    let mode = if mode & mode::TYPE == mode::DIR { mode | SET_GID } else { mode };
    (parent.gid, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_stay_with_directories_only_and_set_gid_goes_only_where_the_group_executes() {
        assert_eq!(without_privileges(mode::FILE | 0o6775), mode::FILE | 0o775);
        assert_eq!(without_privileges(mode::FILE | 0o6765), mode::FILE | 0o2765);
        assert_eq!(without_privileges(mode::FIFO | 0o6775), mode::FIFO | 0o775);
        assert_eq!(without_privileges(mode::DIR | 0o6775), mode::DIR | 0o6775);
    }
}
