//! Where a fetched link comes to stand, and under which name it is made until it is whole.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, openat, renameat, renameat_with, statat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::GetError;
use crate::base::{LinkId, Name};

pub struct Place {
    pub(super) parent: OwnedFd,
    folder: PathBuf,
    name: OsString,
}

impl Place {
    /// A folder that exists: inside it, by the link's own name. Else the whole path, whose last part does not exist.
    pub fn choose(given: Option<&Path>, title: &Name) -> Result<Self, GetError> {
        let (folder, name) = match given {
            Some(path) if !path.is_dir() => {
                let name = path.file_name().unwrap_or(OsStr::new("/"));
                (path.parent().unwrap_or(Path::new("")), name)
            }
            // The sender chose it: what hides itself, or what a program obeys in a home folder, takes a decision.
            _ if title.as_bytes().starts_with(b".") => return Err(GetError::HiddenName),
            Some(folder) => (folder, title.as_os_str()),
            None => (Path::new(""), title.as_os_str()),
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(folder, flags, Mode::empty());
        let parent = parent.map_err(|error| GetError::local(folder)(error.into()))?;
        let place = Self { parent, folder: folder.to_owned(), name: name.to_owned() };
        match statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(GetError::Exists(place.path())),
            Err(Errno::NOENT) => Ok(place),
            Err(error) => Err(GetError::local(place.path())(error.into())),
        }
    }

    pub fn path(&self) -> PathBuf {
        if self.folder == Path::new(".") { PathBuf::from(&self.name) } else { self.folder.join(&self.name) }
    }

    /// What is there of one version of a link stays usable for that version only.
    pub(super) fn part(&self, link: LinkId, number: u64) -> OsString {
        format!(".hushfs-{link}-{number}.part").into()
    }

    pub(super) fn part_path(&self, part: &OsStr) -> PathBuf {
        self.folder.join(part)
    }

    /// Takes away what is there of other versions of the link, which nobody can go on with. Only where nobody can have
    /// given that name to something else.
    pub(super) fn clear_others(&self, link: LinkId, part: &OsStr) {
        if !keeps_names(&self.parent) {
            return;
        }
        let prefix = format!(".hushfs-{link}-");
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_part = name.as_bytes().starts_with(prefix.as_bytes()) && name.as_bytes().ends_with(b".part");
            if !is_part || name == part {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(held) = openat(&self.parent, &name, flags, Mode::empty()) else { continue };
            if !is_own(&held) {
                continue;
            }
            // Somebody is at it.
            if flock(&held, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                continue;
            }
            let path = entry.path();
            let removed = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            if let Err(error) = removed {
                tracing::debug!("what is left of an older version could not be removed: {error}");
            }
        }
    }

    /// Gives what is whole its name.
    pub(super) fn keep(&self, part: &OsStr) -> Result<(), GetError> {
        let synced = openat(&self.parent, part, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        // Of the whole filesystem: one call for however many files there are.
        synced.and_then(rustix::fs::syncfs).map_err(|error| GetError::local(self.path())(error.into()))?;
        let renamed = match renameat_with(&self.parent, part, &self.parent, &self.name, RenameFlags::NOREPLACE) {
            // Not on this filesystem: then as well as can be.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match openat(&self.parent, &self.name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(_) => Err(Errno::EXIST),
                    Err(_) => renameat(&self.parent, part, &self.parent, &self.name),
                }
            }
            renamed => renamed,
        };
        match renamed {
            Ok(()) => match rustix::fs::fsync(&self.parent) {
                // Not on this filesystem.
                Ok(()) | Err(Errno::INVAL) => Ok(()),
                Err(error) => Err(GetError::local(&self.folder)(error.into())),
            },
            Err(Errno::EXIST) => Err(GetError::Exists(self.path())),
            Err(error) => Err(GetError::local(self.path())(error.into())),
        }
    }
}

/// Whether nobody else, but root, can rename in this folder what is this user's.
pub fn keeps_names(folder: &impl AsFd) -> bool {
    let Ok(stat) = fstat(folder) else { return false };
    let mode = Mode::from_raw_mode(stat.st_mode);
    let is_ours = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    is_ours && (mode.contains(Mode::SVTX) || !mode.intersects(Mode::WGRP | Mode::WOTH))
}

fn is_own(file: &impl AsFd) -> bool {
    fstat(file).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
}
