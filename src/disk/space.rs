//! What is left on a folder's filesystem, asked for rarely enough to be cheap.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Disk;

/// In this time nobody seals more than the reserves that rest on the answer.
const AGE_MAX: Duration = Duration::from_millis(10);

pub struct FreeSpace {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    known: Mutex<Option<(Instant, u64)>>,
}

impl FreeSpace {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, known: Mutex::new(None) }
    }

    /// In bytes, as it was a moment ago. Without end where the system does not tell.
    pub fn bytes(&self) -> u64 {
        let known = *self.known.lock();
        match known {
            Some((at, bytes)) if at.elapsed() < AGE_MAX => bytes,
            _ => self.bytes_now(),
        }
    }

    /// As it is now.
    pub fn bytes_now(&self) -> u64 {
        let bytes = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        *self.known.lock() = Some((Instant::now(), bytes));
        bytes
    }

    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Whether removing files in the other folder makes room in this one.
    pub fn shares_filesystem(&self, other: &FreeSpace) -> bool {
        let (ours, theirs) = (self.disk.filesystem(&self.dir), self.disk.filesystem(&other.dir));
        matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours == theirs)
    }
}
