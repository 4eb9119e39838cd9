//! Makes a link's tree on disk. Every name is one component, opened from its directory's descriptor and never through a
//! symlink; so whatever the names and symlinks of a link are, nothing is made outside.
//!
//! What is there of an earlier try is gone on with if it is this user's own, and held to the link like what is fetched:
//! nothing else may lie between, no other name may lead to a file, nobody else may write to it, and what is no chunk of
//! the link is made zeros.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fallocate,
    fchmod, flock, fstat, futimens, mkdirat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::{GetError, Place};
use crate::base::{LinkId, Timestamp};
use crate::crypto::chunk_id;
use crate::format::link::{ChunkRef, Entry, EntryKind, PIECE_LEN};

/// For others than the owner.
const WRITABLE: Mode = Mode::WGRP.union(Mode::WOTH);
const SPECIAL: Mode = Mode::SUID.union(Mode::SGID).union(Mode::SVTX);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

pub(super) struct Target<'a> {
    place: &'a Place,
    part: OsString,
    /// The open directories, the outermost first.
    open: Vec<OpenDirectory>,
    /// Symlinks that lead out of what is shared.
    pub refused_symlinks: u64,
    umask: Mode,
}

struct OpenDirectory {
    number: u64,
    dir: OwnedFd,
    path: PathBuf,
    mtime: Timestamp,
    /// An earlier try has made it.
    is_resumed: bool,
    /// What the link has in it.
    made: HashSet<FileId>,
    /// And the names, if an earlier try has made it. Either may change by itself: vfat numbers inodes as it reads them,
    /// and drops a dot at the end of a name.
    names: HashSet<OsString>,
}

/// Device and inode.
type FileId = (u64, u64);

/// A file while its chunks come.
pub(super) struct TargetFile {
    file: File,
    path: PathBuf,
    mtime: Timestamp,
    /// Something was there before: an earlier try's.
    is_resumed: bool,
}

impl<'a> Target<'a> {
    pub fn new(place: &'a Place, link: LinkId, number: u64) -> Self {
        let part = place.part(link, number);
        place.clear_others(link, &part);
        Self { place, part, open: Vec::new(), refused_symlinks: 0, umask: umask() }
    }

    /// What the entry says, or goes on with what is there of it. Of a file, where its chunks go.
    pub fn make(&mut self, number: u64, entry: &Entry) -> Result<Option<Arc<TargetFile>>, GetError> {
        while number > 0 && self.open.last().is_some_and(|open| open.number != entry.parent) {
            self.leave()?;
        }
        let (parent, name, path) = match self.open.last() {
            Some(open) => (&open.dir, entry.name.as_os_str().to_owned(), open.path.join(entry.name.as_os_str())),
            None => (&self.place.parent, self.part.clone(), self.place.part_path(&self.part)),
        };
        let failed = |error: Errno| GetError::local(&path)(error.into());
        match &entry.kind {
            EntryKind::Directory => {
                let is_resumed = match mkdirat(parent, &name, Mode::from_raw_mode(0o777)) {
                    Ok(()) => false,
                    Err(Errno::EXIST) => true,
                    Err(error) => return Err(failed(error)),
                };
                let dir = openat(parent, &name, DIRECTORY, Mode::empty()).map_err(failed)?;
                if number == 0 {
                    lock(&dir, &path)?;
                }
                let stat = own(&dir, is_resumed, &path)?;
                let mode = Mode::from_raw_mode(stat.st_mode);
                let excess = mode & self.umask & WRITABLE;
                if is_resumed && !excess.is_empty() {
                    fchmod(&dir, mode - excess).map_err(failed)?;
                }
                self.note(&stat, &name, &path)?;
                self.open.push(OpenDirectory {
                    number,
                    dir,
                    path,
                    mtime: entry.mtime,
                    is_resumed,
                    made: HashSet::new(),
                    names: HashSet::new(),
                });
                Ok(None)
            }
            EntryKind::File { size, executable, .. } => {
                let mode = Mode::from_raw_mode(if *executable { 0o777 } else { 0o666 });
                let create = || openat(parent, &name, FILE | OFlags::EXCL, mode);
                let (mut file, mut is_resumed) = match create() {
                    Ok(file) => (file, false),
                    Err(Errno::EXIST) => (openat(parent, &name, FILE, mode).map_err(failed)?, true),
                    Err(error) => return Err(failed(error)),
                };
                if number == 0 {
                    lock(&file, &path)?;
                }
                let mut stat = own(&file, is_resumed, &path)?;
                // Somebody else may have it open for writing, or it is set to run as its owner.
                let excess = SPECIAL | self.umask & WRITABLE;
                if is_resumed && Mode::from_raw_mode(stat.st_mode).intersects(excess) {
                    unlinkat(parent, &name, AtFlags::empty()).map_err(failed)?;
                    (file, is_resumed) = (create().map_err(failed)?, false);
                    if number == 0 {
                        lock(&file, &path)?;
                    }
                    stat = own(&file, is_resumed, &path)?;
                }
                self.note(&stat, &name, &path)?;
                let file = TargetFile::new(file.into(), *size, path, entry.mtime, is_resumed)?;
                Ok(Some(Arc::new(file)))
            }
            EntryKind::Symlink(target) => {
                let depth = self.open.len().saturating_sub(1);
                if !stays_inside(target, depth) {
                    self.refused_symlinks += 1;
                    return Ok(None);
                }
                match symlinkat(target.as_ref(), parent, &name) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                let stat = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                let found = readlinkat(parent, &name, Vec::new());
                self.note(&stat, &name, &path)?;
                // What was there is as good if it leads to the same: nobody can change a symlink.
                if !found.is_ok_and(|found| found.to_bytes() == target.as_ref()) {
                    return Err(GetError::Foreign(path));
                }
                let Some(OpenDirectory { dir: parent, .. }) = self.open.last() else { return Ok(None) };
                // Cosmetic: some filesystems keep no time for symlinks.
                let _ = utimensat(parent, &name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW);
                Ok(None)
            }
        }
    }

    /// Where names differ only in what the filesystem does not tell apart (case, mostly), two of them are one file.
    fn note(&mut self, stat: &Stat, name: &OsStr, path: &Path) -> Result<(), GetError> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if open.is_resumed {
            open.names.insert(name.to_owned());
        }
        if open.made.insert(file_id(stat)) { Ok(()) } else { Err(GetError::SameName(path.to_owned())) }
    }

    fn leave(&mut self) -> Result<(), GetError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        if open.is_resumed {
            open.has_nothing_else()?;
        }
        futimens(&open.dir, &times(open.mtime)).map_err(|error| GetError::local(open.path)(error.into()))
    }

    /// All files have their chunks.
    pub fn finish(mut self) -> Result<(), GetError> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        self.place.keep(&self.part)
    }
}

impl OpenDirectory {
    fn has_nothing_else(&self) -> Result<(), GetError> {
        let failed = |error: Errno| GetError::local(&self.path)(error.into());
        for entry in Dir::read_from(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || self.names.contains(name) {
                continue;
            }
            let stat = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if !self.made.contains(&file_id(&stat)) {
                return Err(GetError::Foreign(self.path.join(name)));
            }
        }
        Ok(())
    }
}

impl TargetFile {
    fn new(file: File, size: u64, path: PathBuf, mtime: Timestamp, is_resumed: bool) -> Result<Self, GetError> {
        let failed = GetError::local(path.clone());
        let prepared = file.metadata().and_then(|meta| match meta.is_file() {
            true => file.set_len(size),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        });
        prepared.map_err(failed)?;
        Ok(Self { file, path, mtime, is_resumed })
    }

    /// Makes zeros of what no chunk says anything about. Only an earlier try's file can have something else there.
    pub fn clear(&self, from: u64, to: u64) -> Result<(), GetError> {
        if !self.is_resumed || from >= to {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let cleared = match fallocate(&self.file, flags, from, to - from) {
            // Not on this filesystem, which then has no holes to keep either.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(from, to),
            cleared => cleared.map_err(io::Error::from),
        };
        cleared.map_err(GetError::local(&self.path))
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; PIECE_LEN.min(to - from) as usize];
        let mut at = from;
        while at < to {
            let len = (to - at).min(zeros.len() as u64) as usize;
            self.file.write_all_at(&zeros[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }

    /// Whether an earlier try has stored this piece already. It is held to the same id as one that is fetched.
    pub fn holds(&self, piece: u64, chunk: &ChunkRef) -> bool {
        let mut plain = vec![0; chunk.len as usize];
        self.is_resumed
            && self.file.read_exact_at(&mut plain, piece * PIECE_LEN).is_ok()
            && chunk_id(&plain) == chunk.id
    }

    /// Of verified bytes.
    pub fn write(&self, piece: u64, plain: &[u8]) -> Result<(), GetError> {
        self.file.write_all_at(plain, piece * PIECE_LEN).map_err(GetError::local(&self.path))
    }
}

/// The last of a file is its time, which every write changes.
impl Drop for TargetFile {
    fn drop(&mut self) {
        if let Err(error) = futimens(&self.file, &times(self.mtime)) {
            tracing::debug!("a file's time could not be set: {error}");
        }
    }
}

fn lock(file: &impl std::os::fd::AsFd, path: &std::path::Path) -> Result<(), GetError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            Err(GetError::local(path)(io::Error::other("another process is fetching the same link here")))
        }
        // Filesystems without locks have nobody to wait for.
        _ => Ok(()),
    }
}

/// Of what was opened. What an earlier try made is this user's own, and has one name.
fn own(file: &OwnedFd, is_resumed: bool, path: &Path) -> Result<Stat, GetError> {
    let stat = fstat(file).map_err(|error| GetError::local(path)(error.into()))?;
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
    if is_resumed && !(is_own && (is_directory || stat.st_nlink == 1)) {
        return Err(GetError::Foreign(path.to_owned()));
    }
    Ok(stat)
}

fn file_id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

/// What this process's new files are not. The system call that tells it would also set it.
fn umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let bits = line.and_then(|bits| u32::from_str_radix(bits.trim(), 8).ok());
    bits.map_or(WRITABLE, Mode::from_raw_mode)
}

fn times(mtime: Timestamp) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: omit, last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() } }
}

/// Whether a symlink in a folder `depth` folders below what is shared can lead nowhere but inside. Upward steps stand
/// first, and there are not more than folders: so what the names behind them mean, symlinks again or not, is inside.
fn stays_inside(target: &[u8], depth: usize) -> bool {
    if target.starts_with(b"/") {
        return false;
    }
    let mut steps = target.split(|byte| *byte == b'/').filter(|step| !step.is_empty() && *step != b".").peekable();
    let mut upward = 0;
    while steps.next_if(|step| *step == b"..").is_some() {
        upward += 1;
    }
    upward <= depth && steps.all(|step| step != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_lead_inside_or_are_refused() {
        for (target, depth) in [
            (&b"a"[..], 0),
            (b"a/b", 0),
            (b"./a", 0),
            (b"../a", 1),
            (b"../../x/y", 2),
            (b"..", 1),
            (b".", 0),
            (b"..a", 0),
        ] {
            assert!(stays_inside(target, depth), "{target:?} at {depth}");
        }
        for (target, depth) in [
            (&b"/etc/passwd"[..], 5),
            (b"..", 0),
            (b"../a", 0),
            (b"../../a", 1),
            (b"./../a", 0),
            // With `d` a symlink to `.`, this leads three folders up.
            (b"d/d/d/../../..", 3),
            (b"a/..", 1),
            (b"//x", 3),
        ] {
            assert!(!stays_inside(target, depth), "{target:?} at {depth}");
        }
    }
}
