//! The simulated disk's names: those of now, those that were synced, and the changes between, in order.
//!
//! Invariant: replaying all pending changes over the synced names gives the names of now.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::super::Random;
use super::not_found;

type Map = BTreeMap<PathBuf, usize>;

#[derive(Default)]
pub(super) struct Names {
    now: Map,
    synced: Map,
    pending: Vec<Change>,
    /// Made durable at once, as `Disk::create_dir_all` promises.
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone)]
struct Change {
    what: What,
    /// Directories that were not synced since.
    unsynced: BTreeSet<PathBuf>,
}

#[derive(Clone)]
enum What {
    Create(PathBuf, usize),
    /// The file too: a name that was replaced meanwhile means another.
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf, usize),
}

impl Names {
    pub fn get(&self, path: &Path) -> Option<usize> {
        self.now.get(path).copied()
    }

    /// The files that have a name now.
    pub fn indexes(&self) -> impl Iterator<Item = usize> {
        self.now.values().copied()
    }

    pub fn check_parent(&self, path: &Path) -> io::Result<()> {
        if self.dirs.contains(path) {
            return Err(Errno::ISDIR.into());
        }
        self.check_dir(parent(path))
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let is_dir = dir.parent().is_none() || self.dirs.contains(dir);
        if is_dir { Ok(()) } else { Err(not_found()) }
    }

    pub fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        if dir.ancestors().any(|dir| self.now.contains_key(dir)) {
            return Err(Errno::NOTDIR.into());
        }
        self.dirs.extend(dir.ancestors().filter(|dir| dir.parent().is_some()).map(Path::to_owned));
        Ok(())
    }

    pub fn create(&mut self, path: &Path, index: usize) {
        self.change(What::Create(path.to_owned(), index));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let index = self.get(from).ok_or_else(not_found)?;
        self.check_parent(to)?;
        if from != to {
            self.change(What::Rename(from.to_owned(), to.to_owned(), index));
        }
        Ok(())
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let index = self.get(path).ok_or_else(not_found)?;
        self.change(What::Remove(path.to_owned(), index));
        Ok(())
    }

    pub fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, usize)>> {
        self.check_dir(dir)?;
        let inside = self.now.iter().filter(|(path, _)| parent(path) == dir);
        Ok(inside.filter_map(|(path, index)| Some((path.file_name()?.to_owned(), *index))).collect())
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.check_dir(dir)?;
        let mut left: Vec<Change> = Vec::new();
        for mut change in std::mem::take(&mut self.pending) {
            change.unsynced.remove(dir);
            // What came before it about the same file or name comes before it on the disk too.
            let is_free = change.unsynced.is_empty() && !left.iter().any(|earlier| earlier.what.touches(&change.what));
            if is_free { change.what.apply(&mut self.synced) } else { left.push(change) }
        }
        self.pending = left;
        Ok(())
    }

    pub fn crash(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            if random.coin() {
                change.what.apply(&mut self.synced);
            }
        }
        self.now = self.synced.clone();
    }

    fn change(&mut self, what: What) {
        what.apply(&mut self.now);
        let unsynced = match &what {
            What::Create(path, _) | What::Remove(path, _) => [parent(path).to_owned()].into(),
            What::Rename(from, to, _) => [parent(from).to_owned(), parent(to).to_owned()].into(),
        };
        self.pending.push(Change { what, unsynced });
    }
}

impl What {
    fn touches(&self, other: &Self) -> bool {
        let (paths, index) = self.subject();
        let (others, other_index) = other.subject();
        index == other_index || paths.iter().flatten().any(|path| others.contains(&Some(path)))
    }

    fn subject(&self) -> ([Option<&Path>; 2], usize) {
        match self {
            Self::Create(path, index) | Self::Remove(path, index) => ([Some(path), None], *index),
            Self::Rename(from, to, index) => ([Some(from), Some(to)], *index),
        }
    }

    /// Does nothing when what it builds upon was lost.
    fn apply(&self, names: &mut Map) {
        match self {
            Self::Create(path, index) => {
                names.insert(path.clone(), *index);
            }
            Self::Rename(from, to, index) => {
                if names.get(from) == Some(index) {
                    names.remove(from);
                    names.insert(to.clone(), *index);
                }
            }
            Self::Remove(path, index) => {
                if names.get(path) == Some(index) {
                    names.remove(path);
                }
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
