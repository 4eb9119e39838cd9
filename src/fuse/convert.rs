//! Pure translations between fuser's types and the vfs's.

use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, RenameFlags};

use crate::base::{ByteRange, InodeId, Name, NameError, Timestamp};
use crate::format::rows::{FILE_LEN_MAX, XattrName, mode};
use crate::vfs::acl::AclKind;
use crate::vfs::api::{
    Attr, FallocateMode, OpenFlags, RenameMode, SeekTarget, TimeOrNow, VfsError, VfsResult, XattrMode,
};
use crate::vfs::quota::OWN_PREFIX;

const PERMISSIONS: u32 = 0o7777;

/// None for a mode that no inode can have.
pub fn file_type(mode: u32) -> Option<FileType> {
    Some(match mode & mode::TYPE {
        mode::FILE => FileType::RegularFile,
        mode::DIR => FileType::Directory,
        mode::LINK => FileType::Symlink,
        mode::FIFO => FileType::NamedPipe,
        mode::SOCKET => FileType::Socket,
        mode::CHAR => FileType::CharDevice,
        mode::BLOCK => FileType::BlockDevice,
        _ => return None,
    })
}

pub fn file_attr(attr: &Attr) -> VfsResult<FileAttr> {
    Ok(FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.btime.into(),
        kind: file_type(attr.mode).ok_or(VfsError::Io)?,
        perm: (attr.mode & PERMISSIONS) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: 0,
    })
}

/// What the kernel takes as "there is no such name, remember that": an entry whose inode is 0.
pub fn no_entry() -> FileAttr {
    bare_attr(InodeId(0), FileType::RegularFile)
}

/// For entries whose attributes must not be believed; they go out with a lifetime of zero.
pub fn bare_attr(ino: InodeId, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub fn ino(ino: INodeNo) -> InodeId {
    InodeId(ino.0)
}

pub fn name(bytes: &std::ffi::OsStr) -> VfsResult<Name> {
    Name::parse(bytes.as_encoded_bytes()).map_err(|error| match error {
        NameError::TooLong => VfsError::NameTooLong,
        NameError::Empty | NameError::Character | NameError::Dots => VfsError::Invalid,
    })
}

/// Of the namespaces that Linux has. What is in `system` has a meaning that has to be kept: access control lists are,
/// and nothing else.
pub fn xattr_name(bytes: &std::ffi::OsStr) -> VfsResult<XattrName> {
    let bytes = bytes.as_encoded_bytes();
    let name = XattrName::parse(bytes).ok_or(VfsError::Range)?;
    let namespaces: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", OWN_PREFIX];
    match namespaces.into_iter().find_map(|namespace| bytes.strip_prefix(namespace)) {
        Some([]) => Err(VfsError::Invalid),
        Some(_) => Ok(name),
        None if AclKind::of(&name).is_some() => Ok(name),
        None => Err(VfsError::NotSupported),
    }
}

pub fn xattr_mode(flags: i32) -> VfsResult<XattrMode> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(VfsError::Invalid),
    }
}

pub fn rename_mode(flags: RenameFlags) -> VfsResult<RenameMode> {
    match flags.bits() {
        0 => Ok(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(VfsError::Invalid),
    }
}

pub fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    OpenFlags {
        read: access == libc::O_RDONLY || access == libc::O_RDWR,
        write: access == libc::O_WRONLY || access == libc::O_RDWR,
        truncate: flags & libc::O_TRUNC != 0,
        keep_atime: flags & libc::O_NOATIME != 0,
    }
}

pub fn fallocate_mode(mode: i32) -> VfsResult<FallocateMode> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH_AND_KEEP: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO_AND_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | KEEP;
    match mode {
        0 => Ok(FallocateMode::Allocate),
        KEEP => Ok(FallocateMode::AllocateKeepSize),
        PUNCH_AND_KEEP => Ok(FallocateMode::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Ok(FallocateMode::Zero),
        ZERO_AND_KEEP => Ok(FallocateMode::ZeroKeepSize),
        _ => Err(VfsError::NotSupported),
    }
}

pub fn seek_target(whence: i32) -> VfsResult<SeekTarget> {
    match whence {
        libc::SEEK_DATA => Ok(SeekTarget::Data),
        libc::SEEK_HOLE => Ok(SeekTarget::Hole),
        _ => Err(VfsError::Invalid),
    }
}

/// A range that is to be read. Past the largest file there is only the end.
pub fn read_range(offset: u64, len: u32) -> VfsResult<ByteRange> {
    ByteRange::at(offset, len.into()).ok_or(VfsError::Invalid)
}

/// A range that is to hold data, and so must end within the largest file.
pub fn data_range(offset: u64, len: u64) -> VfsResult<ByteRange> {
    ByteRange::at(offset, len).filter(|range| range.end <= FILE_LEN_MAX).ok_or(VfsError::FileTooBig)
}

pub fn time_or_now(time: fuser::TimeOrNow) -> TimeOrNow {
    match time {
        fuser::TimeOrNow::Now => TimeOrNow::Now,
        fuser::TimeOrNow::SpecificTime(time) => TimeOrNow::Time(received_time(time)),
    }
}

/// fuser 0.18 reads (-s, n) from the kernel as -(s + n) where -s + n is meant; this undoes it.
fn received_time(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => time.into(),
        Err(before) => {
            let (secs, nanos) = (before.duration().as_secs(), before.duration().subsec_nanos());
            Timestamp::new(0i64.checked_sub_unsigned(secs).unwrap_or(i64::MIN), nanos)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_before_1970_is_what_the_kernel_sent() {
        // As fuser 0.18's `system_time_from_time(-2, 300_000_000)` computes it.
        let received = UNIX_EPOCH - Duration::new(2, 300_000_000);
        assert_eq!(received_time(received), Timestamp::new(-2, 300_000_000));
        assert_eq!(received_time(UNIX_EPOCH + Duration::new(5, 7)), Timestamp::new(5, 7));
        assert_eq!(received_time(UNIX_EPOCH - Duration::new(1 << 63, 0)), Timestamp::new(i64::MIN, 0));
    }

    #[test]
    fn dots_are_not_names() {
        assert_eq!(name("..".as_ref()), Err(VfsError::Invalid));
        assert_eq!(name("x".repeat(256).as_ref()), Err(VfsError::NameTooLong));
    }

    #[test]
    fn ranges_end_within_the_largest_file() {
        assert_eq!(data_range(FILE_LEN_MAX, 1), Err(VfsError::FileTooBig));
        assert_eq!(data_range(u64::MAX, 2), Err(VfsError::FileTooBig));
        assert!(data_range(FILE_LEN_MAX - 1, 1).is_ok());
    }

    #[test]
    fn of_the_system_attributes_only_lists_are_kept_and_of_unknown_namespaces_none() {
        assert!(xattr_name("system.posix_acl_access".as_ref()).is_ok());
        assert_eq!(xattr_name("system.nfs4_acl".as_ref()), Err(VfsError::NotSupported));
        assert!(xattr_name("user.system.x".as_ref()).is_ok());
        assert_eq!(xattr_name("users.x".as_ref()), Err(VfsError::NotSupported));
        assert_eq!(xattr_name("user.".as_ref()), Err(VfsError::Invalid));
        assert!(xattr_name("hushfs.quota".as_ref()).is_ok());
    }

    #[test]
    fn an_exchange_that_must_not_replace_is_refused() {
        let both = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        assert_eq!(rename_mode(both), Err(VfsError::Invalid));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), Err(VfsError::Invalid));
    }
}
