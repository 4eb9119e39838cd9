//! Where staging files are and what they are called.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::ContentError;
use crate::base::{Incarnation, PackName};
use crate::disk::{Disk, DiskFile};

pub(super) struct Folder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// A staging file as its name tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub name: PackName,
    pub sealed: bool,
    pub len: u64,
}

impl Folder {
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<Self, ContentError> {
        disk.create_dir_all(&dir).map_err(folder_error)?;
        Ok(Self { disk, dir })
    }

    pub fn open_path(&self, name: PackName) -> PathBuf {
        self.dir.join(format!("{}-{}.open", name.incarnation, name.number))
    }

    pub fn sealed_path(&self, name: PackName) -> PathBuf {
        self.dir.join(format!("{}-{}.pack", name.incarnation, name.number))
    }

    pub fn create(&self, name: PackName) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.open_path(name), true)
    }

    /// In this order: it may be renamed meanwhile.
    pub fn open_either(&self, name: PackName) -> io::Result<Arc<dyn DiskFile>> {
        match self.disk.open(&self.open_path(name), false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.open(&self.sealed_path(name), false),
            opened => opened,
        }
    }

    pub fn rename_sealed(&self, name: PackName) -> io::Result<()> {
        self.disk.rename(&self.open_path(name), &self.sealed_path(name))
    }

    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)
    }

    /// A file that stays is found and removed at the next start.
    pub fn remove_open(&self, name: PackName) {
        if let Err(error) = self.disk.remove(&self.open_path(name)) {
            tracing::warn!(%name, %error, "an empty staging file could not be removed");
        }
    }

    pub fn remove_found(&self, found: Found) -> Result<(), ContentError> {
        self.disk.remove(&self.path_of(found)).map_err(folder_error)
    }

    pub fn set_aside(&self, found: Found) -> Result<(), ContentError> {
        let path = self.path_of(found);
        let mut aside = path.clone().into_os_string();
        aside.push(".damaged");
        tracing::warn!(path = %PathBuf::from(&aside).display(), "a staged pack is set aside");
        self.disk.rename(&path, &PathBuf::from(aside)).map_err(folder_error)
    }

    pub fn remove_all_of(&self, name: PackName) -> Result<(), ContentError> {
        let mut found = self.list()?;
        found.retain(|found| found.name == name);
        found.into_iter().try_for_each(|found| self.remove_found(found))
    }

    /// Files with foreign names are left out, and left alone.
    pub fn list(&self) -> Result<Vec<Found>, ContentError> {
        let entries = self.disk.list(&self.dir).map_err(folder_error)?;
        Ok(entries.into_iter().filter_map(|entry| Found::parse(&entry.name, entry.len)).collect())
    }

    fn path_of(&self, found: Found) -> PathBuf {
        if found.sealed { self.sealed_path(found.name) } else { self.open_path(found.name) }
    }
}

impl Found {
    fn parse(file_name: &OsStr, len: u64) -> Option<Self> {
        let (stem, extension) = file_name.to_str()?.split_once('.')?;
        let sealed = match extension {
            "open" => false,
            "pack" => true,
            _ => return None,
        };
        let (incarnation, number) = stem.split_once('-')?;
        let name = PackName { incarnation: Incarnation::parse_hex(incarnation)?, number: number.parse().ok()? };
        (name.number.to_string() == number).then_some(Self { name, sealed, len })
    }
}

pub(super) fn folder_error(error: io::Error) -> ContentError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ContentError::DiskFull(Arc::new(error)),
        _ => ContentError::StagingFolder(Arc::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_taken_for_staging_files() {
        let name = PackName { incarnation: Incarnation([0xab; 16]), number: 12 };
        let text = format!("{}-12", name.incarnation);
        let parse = |text: String| Found::parse(OsStr::new(&text), 5);
        assert_eq!(parse(format!("{text}.open")), Some(Found { name, sealed: false, len: 5 }));
        assert_eq!(parse(format!("{text}.pack")), Some(Found { name, sealed: true, len: 5 }));
        for foreign in [format!("{text}.old"), text.clone(), "notes.pack".into(), text.replace("-12", "-012.pack")] {
            assert_eq!(parse(foreign), None);
        }
    }
}
