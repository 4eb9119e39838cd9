//! A disk in memory that loses power, fills up and fails as told, for tests of what must survive that.
//!
//! What `crash(seed)` keeps is all that was synced and a random part of the rest, as POSIX allows and no more kindly:
//! - of every 512-byte sector written since the file's last sync, the synced content or any version since;
//! - a length between the synced one and the present one, cut at a sector if it is neither;
//! - of names made, renamed and removed since their directory's last sync, any subset that makes sense; a rename
//!   is whole or not at all, and between two directories it is safe once both were synced;
//! - after a sync that failed, the sectors it was for count as written although they are not, and a later sync does
//!   not bring them back: the kernel behaves so.
//!
//! The same operations and the same seed give the same disk. Clones share it.

mod file;
mod names;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use self::file::SimFile;
use self::names::Names;
use super::{DirEntry, Disk, DiskFile, Random};

/// What a rule can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskOp {
    Open,
    Read,
    Write,
    Sync,
    SetLen,
    PunchHole,
    Rename,
    Remove,
    List,
    SyncDir,
}

/// As the system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// EIO. A sync that fails so has lost what it was for.
    Io,
    /// ENOSPC. A write may have put down a part.
    Full,
    /// EROFS.
    ReadOnly,
}

#[derive(Clone, Debug)]
pub struct DiskRule {
    pub op: Option<DiskOp>,
    /// Files are known by the path they were opened with.
    pub under: PathBuf,
    /// Counted from 1; 0 is every time.
    pub nth: u64,
    pub fault: DiskFault,
    seen: u64,
}

impl DiskRule {
    pub fn on(op: DiskOp, under: impl Into<PathBuf>, fault: DiskFault) -> Self {
        Self { op: Some(op), under: under.into(), nth: 0, fault, seen: 0 }
    }

    pub fn any(under: impl Into<PathBuf>, fault: DiskFault) -> Self {
        Self { op: None, under: under.into(), nth: 0, fault, seen: 0 }
    }

    pub fn nth(self, nth: u64) -> Self {
        Self { nth, ..self }
    }
}

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<SimFile>,
    names: Names,
    rules: Vec<DiskRule>,
    capacity: Option<u64>,
    /// Grows with every crash: what was open before is dead.
    boot: u64,
    /// Operations that are still done before the power goes.
    power: Option<u64>,
    /// Counts changes; stands in for the clock, so that runs repeat.
    ticks: u64,
    changes: u64,
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// The power goes and comes back. All open files are dead, and rules and a coming power failure are gone.
    pub fn crash(&self, seed: u64) {
        let mut state = self.0.lock();
        let mut random = Random::new(seed);
        state.names.crash(&mut random);
        for file in &mut state.files {
            file.crash(&mut random);
        }
        state.boot += 1;
        state.power = None;
        state.rules.clear();
    }

    /// The program is killed and the machine goes on: what was open is dead, and everything that was written is there,
    /// as little durable as before. Rules and a coming power failure are gone.
    pub fn restart(&self) {
        let mut state = self.0.lock();
        state.boot += 1;
        state.power = None;
        state.rules.clear();
    }

    /// So many more changes of the disk are done, and then everything fails until `crash`: for tests that try every
    /// point of failure.
    pub fn power_off_after(&self, changes: u64) {
        self.0.lock().power = Some(changes);
    }

    /// Changes so far: writes, syncs and names.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    pub fn add_rule(&self, rule: DiskRule) {
        self.0.lock().rules.push(rule);
    }

    pub fn clear_rules(&self) {
        self.0.lock().rules.clear();
    }

    /// ENOSPC beyond so many bytes; `None` is endless.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// What a file holds now, without a handle and whatever the rules say.
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let index = state.names.get(path)?;
        Some(state.files[index].content().to_vec())
    }

    /// Changes a byte behind everybody's back: a disk that rots.
    pub fn rot(&self, path: &Path, offset: u64) {
        let mut state = self.0.lock();
        if let Some(index) = state.names.get(path) {
            state.files[index].rot(offset);
        }
    }
}

impl State {
    /// Rules and power, for every operation.
    fn admit(&mut self, op: DiskOp, path: &Path, is_change: bool) -> io::Result<()> {
        if self.power == Some(0) {
            return Err(no_power());
        }
        if is_change {
            self.changes += 1;
            self.power = self.power.map(|left| left - 1);
        }
        let mut fault = None;
        for rule in &mut self.rules {
            if rule.op.is_none_or(|wanted| wanted == op) && path.starts_with(&rule.under) {
                rule.seen += 1;
                if (rule.nth == 0 || rule.nth == rule.seen) && fault.is_none() {
                    fault = Some(rule.fault);
                }
            }
        }
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.names.indexes().map(|index| self.files[index].allocated_bytes()).sum()
    }

    fn tick(&mut self) -> SystemTime {
        self.ticks += 1;
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.ticks)
    }
}

impl From<DiskFault> for io::Error {
    fn from(fault: DiskFault) -> Self {
        let errno = match fault {
            DiskFault::Io => rustix::io::Errno::IO,
            DiskFault::Full => rustix::io::Errno::NOSPC,
            DiskFault::ReadOnly => rustix::io::Errno::ROFS,
        };
        errno.into()
    }
}

fn no_power() -> io::Error {
    DiskFault::Io.into()
}

fn not_found() -> io::Error {
    rustix::io::Errno::NOENT.into()
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let found = state.names.get(path);
        state.admit(DiskOp::Open, path, create && found.is_none())?;
        let index = match found {
            Some(index) => index,
            None if !create => return Err(not_found()),
            None => {
                state.names.check_parent(path)?;
                let modified = state.tick();
                state.files.push(SimFile::new(modified));
                let index = state.files.len() - 1;
                state.names.create(path, index);
                index
            }
        };
        let boot = state.boot;
        drop(state);
        Ok(Arc::new(file::Handle { disk: self.clone(), index, boot, path: path.to_owned() }))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.power == Some(0) {
            return Err(no_power());
        }
        state.names.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.admit(DiskOp::Rename, from, true)?;
        state.names.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.admit(DiskOp::Remove, path, true)?;
        state.names.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.0.lock();
        state.admit(DiskOp::List, dir, false)?;
        let entries = state.names.list(dir)?;
        let entry = |(name, index): (_, usize)| {
            let file = &state.files[index];
            DirEntry { name, len: file.content().len() as u64, modified: file.modified }
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.admit(DiskOp::SyncDir, dir, true)?;
        state.names.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn filesystem(&self, _dir: &Path) -> io::Result<u64> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
