//! The one translation of errors into the kernel's numbers. No `_` arm: a new error must be given its number.

use crate::vfs::api::VfsError;

pub const fn errno(error: VfsError) -> i32 {
    match error {
        VfsError::NotFound => libc::ENOENT,
        VfsError::Exists => libc::EEXIST,
        VfsError::NotDirectory => libc::ENOTDIR,
        VfsError::IsDirectory => libc::EISDIR,
        VfsError::NotEmpty => libc::ENOTEMPTY,
        VfsError::NameTooLong => libc::ENAMETOOLONG,
        VfsError::Invalid => libc::EINVAL,
        VfsError::NoSpace => libc::ENOSPC,
        VfsError::Quota => libc::EDQUOT,
        VfsError::Io => libc::EIO,
        VfsError::TimedOut => libc::ETIMEDOUT,
        VfsError::ReadOnly => libc::EROFS,
        VfsError::NotPermitted => libc::EPERM,
        VfsError::Access => libc::EACCES,
        VfsError::TooManyLinks => libc::EMLINK,
        VfsError::CrossDevice => libc::EXDEV,
        VfsError::NoData => libc::ENODATA,
        VfsError::Range => libc::ERANGE,
        VfsError::TooBig => libc::E2BIG,
        VfsError::FileTooBig => libc::EFBIG,
        VfsError::Busy => libc::EBUSY,
        VfsError::BadHandle => libc::EBADF,
        VfsError::NotSupported => libc::EOPNOTSUPP,
        VfsError::Stale => libc::ESTALE,
        VfsError::NoDevice => libc::ENXIO,
        VfsError::Loop => libc::ELOOP,
        VfsError::Overflow => libc::EOVERFLOW,
        VfsError::Interrupted => libc::EINTR,
        VfsError::Again => libc::EAGAIN,
        VfsError::NoMemory => libc::ENOMEM,
        VfsError::TooManyFiles => libc::ENFILE,
    }
}
