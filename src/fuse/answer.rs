//! Results of the vfs as replies to the kernel, each sent exactly once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fuser::{Errno, Generation, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};

use super::convert::file_attr;
use super::errno::errno;
use crate::vfs::api::{Attr, VfsResult};

/// Changes made elsewhere are announced by notifications, so nothing has to expire soon.
pub const TTL: Duration = Duration::from_secs(3600);
/// Inode numbers are never given out twice.
pub const GENERATION: Generation = Generation(0);

/// A panic becomes EIO here, so that it neither ends the session nor loses the reply.
pub fn guarded<T>(operation: &'static str, work: impl FnOnce() -> VfsResult<T>) -> Result<T, Errno> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| Errno::from_i32(errno(error))),
        Err(_) => {
            tracing::error!(operation, "an operation panicked; it was answered with EIO");
            Err(Errno::EIO)
        }
    }
}

pub fn entry(reply: ReplyEntry, result: Result<Attr, Errno>) {
    match result.and_then(|attr| guarded("attributes", || file_attr(&attr))) {
        Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
        Err(error) => reply.error(error),
    }
}

pub fn attr(reply: ReplyAttr, result: Result<Attr, Errno>) {
    match result.and_then(|attr| guarded("attributes", || file_attr(&attr))) {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(error) => reply.error(error),
    }
}

pub fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

pub fn data(reply: ReplyData, result: Result<bytes::Bytes, Errno>) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(error),
    }
}

pub fn written(reply: ReplyWrite, result: Result<u32, Errno>) {
    match result {
        Ok(len) => reply.written(len),
        Err(error) => reply.error(error),
    }
}

/// A buffer of no length asks how much there is.
pub fn xattr(reply: ReplyXattr, size: u32, result: Result<impl AsRef<[u8]>, Errno>) {
    match result {
        Ok(value) if size == 0 => match u32::try_from(value.as_ref().len()) {
            Ok(len) => reply.size(len),
            Err(_) => reply.error(Errno::E2BIG),
        },
        Ok(value) if value.as_ref().len() <= size as usize => reply.data(value.as_ref()),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(error) => reply.error(error),
    }
}
