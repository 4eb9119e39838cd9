//! One staging file: its writes, its syncs and its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::ContentError;
use super::folder::Folder;
use crate::base::{ByteRange, PackName, PackNo};
use crate::disk::DiskFile;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes chunks.
    Open,
    /// Takes no more; its footer is not written, or not known to be durable.
    Closed,
    /// Byte for byte the object, and durable.
    Sealed,
    /// In the store as well.
    Uploaded,
}

pub(super) struct Pack {
    pub no: PackNo,
    pub name: PackName,
    /// Not of a pack that is closed and synced: without the store there may be any number of those, and a process may
    /// have only so many files open. Before a sync it must stay, for only who had the file open when it failed to reach
    /// the disk is told so.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// How many writes have ended.
    written: AtomicU64,
    synced: Mutex<Synced>,
}

#[derive(Default)]
struct Synced {
    /// The value of `written` that a sync has covered.
    upto: u64,
    /// The file's name is durable.
    named: bool,
    /// It has its final name.
    renamed: bool,
    /// After a failed fsync the kernel may have dropped the bytes and call the next one a success, so the first
    /// failure is the answer for good.
    failed: Option<ContentError>,
}

impl Pack {
    pub fn create(no: PackNo, name: PackName, folder: &Folder) -> Result<Self, ContentError> {
        let file = folder.create(name).map_err(|error| pack_error(name, "create", error))?;
        Ok(Self { no, name, file: Mutex::new(Some(file)), written: AtomicU64::new(0), synced: Mutex::default() })
    }

    /// What is there was synced before anything referred to it.
    pub fn found(no: PackNo, name: PackName) -> Self {
        let synced = Mutex::new(Synced { named: true, ..Synced::default() });
        Self { no, name, file: Mutex::default(), written: AtomicU64::new(0), synced }
    }

    pub fn write(&self, bytes: &[u8], offset: u64, folder: &Folder) -> Result<(), ContentError> {
        self.open(folder)
            .and_then(|file| file.write_all_at(bytes, offset))
            .map_err(|error| pack_error(self.name, "write", error))
    }

    /// None if there is no file any more.
    pub fn read(&self, range: ByteRange, folder: &Folder) -> Result<Option<Vec<u8>>, ContentError> {
        match self.open(folder).and_then(|file| file.read_range(range)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(pack_error(self.name, "read", error)),
        }
    }

    pub fn truncate(&self, len: u64, folder: &Folder) -> Result<(), ContentError> {
        self.open(folder).and_then(|file| file.set_len(len)).map_err(|error| pack_error(self.name, "truncate", error))
    }

    /// The file itself goes away when who works with it has ended.
    pub fn close(&self) {
        self.file.lock().take();
    }

    fn open(&self, folder: &Folder) -> io::Result<Arc<dyn DiskFile>> {
        match self.file.lock().clone() {
            Some(file) => Ok(file),
            None => folder.open_either(self.name),
        }
    }

    /// For what is written from here to the next sync, which must be told of its failures.
    fn keep_open(&self, folder: &Folder) -> io::Result<Arc<dyn DiskFile>> {
        let mut file = self.file.lock();
        match &*file {
            Some(file) => Ok(file.clone()),
            None => Ok(file.insert(folder.open_either(self.name)?).clone()),
        }
    }

    /// Counts a write that has ended: the next sync must cover it.
    pub fn note_write(&self) {
        self.written.fetch_add(1, Ordering::Release);
    }

    pub fn is_synced(&self) -> bool {
        let synced = self.synced.lock();
        synced.failed.is_none() && synced.named && synced.upto == self.written.load(Ordering::Acquire)
    }

    /// Whoever waits for the lock while another syncs mostly finds its own writes covered.
    pub fn sync(&self, folder: &Folder) -> Result<(), ContentError> {
        let mut synced = self.synced.lock();
        if let Some(failed) = &synced.failed {
            return Err(failed.clone());
        }
        let written = self.written.load(Ordering::Acquire);
        if synced.upto < written {
            let result = self.open(folder).and_then(|file| file.sync_data());
            let result = result.map_err(|error| pack_error(self.name, "sync", error));
            if let Err(error) = result {
                synced.failed = Some(error.clone());
                return Err(error);
            }
            synced.upto = written;
        }
        if !synced.named {
            folder.sync().map_err(|error| pack_error(self.name, "sync of the folder", error))?;
            synced.named = true;
        }
        Ok(())
    }

    /// Writes the footer, then makes all of it durable, then renames. The rename is the mark that the bytes are
    /// final, so it comes last.
    pub fn end(&self, footer: &[u8], body_len: u64, folder: &Folder) -> Result<(), ContentError> {
        let file = self.keep_open(folder).map_err(|error| pack_error(self.name, "open", error))?;
        file.write_all_at(footer, body_len).map_err(|error| pack_error(self.name, "write", error))?;
        self.note_write();
        if let Err(error) = self.sync(folder) {
            // The bytes may be damaged on this disk, but as far as the kernel still has them the store gets
            // them, which is the best that can be done for them. Syncs go on reporting it.
            tracing::error!(name = %self.name, %error, "uploading a pack that could not be synced");
        }
        let mut synced = self.synced.lock();
        if !synced.renamed {
            folder.rename_sealed(self.name).map_err(|error| pack_error(self.name, "rename", error))?;
            synced.renamed = true;
        }
        folder.sync().map_err(|error| pack_error(self.name, "sync of the folder", error))
    }
}

pub(super) fn pack_error(pack: PackName, action: &'static str, error: io::Error) -> ContentError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ContentError::DiskFull(Arc::new(error)),
        _ => ContentError::Staging { pack, action, source: Arc::new(error) },
    }
}
