//! Local files for the journal, staging and the cache, behind a trait so that tests can lose power and fail writes.
//!
//! Invariants: positions are always explicit, no file has a cursor; nothing is durable before `sync_data` of the
//! file and, for its name, `sync_dir` of its directory. It deliberately knows nothing of what the files hold.

mod random;
mod real;
mod sim;
mod space;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::base::ByteRange;

pub use random::Random;
pub use real::RealDisk;
pub use sim::{DiskFault, DiskOp, DiskRule, SimDisk};
pub use space::FreeSpace;

pub trait Disk: Send + Sync {
    /// Opens for reading and writing; with `create` the file is made when it is missing, and kept as it is when not.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// With the parents that are missing; private to the user. Durable when it returns.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Replaces what is at `to`. Durable after `sync_dir` of both directories.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The regular files of a directory, without order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Equal for two folders if they share their space.
    fn filesystem(&self, dir: &Path) -> io::Result<u64>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: OsString,
    pub len: u64,
    pub modified: SystemTime,
}

pub trait DiskFile: Send + Sync {
    /// As much as there is, up to the buffer's length: less only at the file's end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// The content and the length become durable; not the file's name.
    fn sync_data(&self) -> io::Result<()>;

    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Grows the file to at least `len` with zeros really written, so that later writes below it change no metadata
    /// and their fdatasync needs no journal commit of the filesystem.
    fn preallocate_written(&self, len: u64) -> io::Result<()>;

    /// The range reads as zeros from now on and uses no space, as far as the filesystem can.
    fn punch_hole(&self, range: ByteRange) -> io::Result<()>;

    /// The parts that are not holes, ascending; the whole file where the filesystem cannot tell.
    fn data_ranges(&self) -> io::Result<Vec<ByteRange>>;

    /// All of the range, or `UnexpectedEof`.
    fn read_range(&self, range: ByteRange) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; range.len() as usize];
        self.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    /// Fills the whole buffer, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buf, offset)? {
            read if read == buf.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
