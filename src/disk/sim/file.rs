//! One file of the simulated disk: its content now, its content as synced, and the versions between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::super::{DiskFile, Random};
use super::{DiskFault, DiskOp, SimDisk, State, no_power};
use crate::base::ByteRange;

const SECTOR_LEN: usize = 512;
/// The grain in which a filesystem gives out space.
const PAGE_LEN: u64 = 4096;
/// Of one sector; with more, one in the middle is forgotten.
const VERSIONS_MAX: usize = 8;

type Sector = [u8; SECTOR_LEN];

pub(super) struct SimFile {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What each sector held since the last sync, oldest first.
    versions: BTreeMap<usize, Vec<Sector>>,
    /// Sectors whose sync failed: no later sync is for them until they are written again.
    lost: BTreeSet<usize>,
    /// Pages with space of their own, by number.
    pages: BTreeSet<u64>,
    pub modified: SystemTime,
}

impl SimFile {
    pub fn new(modified: SystemTime) -> Self {
        Self {
            now: Vec::new(),
            synced: Vec::new(),
            versions: BTreeMap::new(),
            lost: BTreeSet::new(),
            pages: BTreeSet::new(),
            modified,
        }
    }

    pub fn content(&self) -> &[u8] {
        &self.now
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_LEN
    }

    pub fn rot(&mut self, offset: u64) {
        for content in [&mut self.now, &mut self.synced] {
            if let Some(byte) = content.get_mut(offset as usize) {
                *byte ^= 1;
            }
        }
    }

    pub fn crash(&mut self, random: &mut Random) {
        let (old, new) = (self.synced.len() as u64, self.now.len() as u64);
        let len = match random.below(3) {
            _ if old == new => old,
            0 => old,
            1 => new,
            // The filesystem raises the length as data arrives on the disk.
            _ => {
                let between = old.min(new) + random.below(old.abs_diff(new));
                (between / SECTOR_LEN as u64 * SECTOR_LEN as u64).max(old.min(new))
            }
        };
        let mut content = std::mem::take(&mut self.synced);
        content.resize(content.len().max(self.now.len()), 0);
        for (sector, versions) in std::mem::take(&mut self.versions) {
            let choice = random.below(versions.len() as u64 + 1) as usize;
            // One more than the versions is what was synced.
            if let Some(version) = versions.get(choice) {
                put_sector(&mut content, sector, version);
            }
        }
        content.resize(len as usize, 0);
        self.now = content.clone();
        self.synced = content;
        self.lost.clear();
        self.pages.retain(|page| page * PAGE_LEN < len);
    }

    fn write(&mut self, bytes: &[u8], offset: u64, modified: SystemTime) {
        if bytes.is_empty() {
            return;
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        self.now.resize(self.now.len().max(end), 0);
        self.now[start..end].copy_from_slice(bytes);
        self.pages.extend(offset / PAGE_LEN..=(end as u64 - 1) / PAGE_LEN);
        self.note(start, end);
        self.modified = modified;
    }

    /// Keeps what the sectors of `start..end` hold now as versions that may reach the disk.
    fn note(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR_LEN..end.div_ceil(SECTOR_LEN) {
            let versions = self.versions.entry(sector).or_default();
            if versions.len() == VERSIONS_MAX {
                versions.remove(VERSIONS_MAX / 2);
            }
            versions.push(get_sector(&self.now, sector));
            self.lost.remove(&sector);
        }
    }

    fn sync(&mut self) {
        let mut content = self.now.clone();
        for &sector in &self.lost {
            // What the disk had stays there, though reads still see the page cache.
            put_sector(&mut content, sector, &get_sector(&self.synced, sector));
        }
        self.synced = content;
        let lost = &self.lost;
        self.versions.retain(|sector, _| lost.contains(sector));
    }

    fn fail_sync(&mut self) {
        self.lost.extend(self.versions.keys());
    }

    fn set_len(&mut self, len: usize) {
        let old = self.now.len();
        self.now.truncate(len);
        self.now.resize(len, 0);
        if len < old {
            self.pages.retain(|page| page * PAGE_LEN < len as u64);
            // If the file grows again before the sync, what was cut off may be zeros on the disk or still be there.
            self.note(len, old);
        }
    }

    fn punch_hole(&mut self, range: ByteRange) {
        let end = range.end.min(self.now.len() as u64);
        if range.start >= end {
            return;
        }
        self.now[range.start as usize..end as usize].fill(0);
        let whole = range.start.div_ceil(PAGE_LEN)..range.end / PAGE_LEN;
        self.pages.retain(|page| !whole.contains(page));
        self.note(range.start as usize, end as usize);
    }

    fn data_ranges(&self) -> Vec<ByteRange> {
        let len = self.now.len() as u64;
        let mut ranges: Vec<ByteRange> = Vec::new();
        for page in &self.pages {
            let (start, end) = (page * PAGE_LEN, ((page + 1) * PAGE_LEN).min(len));
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if start < end => ranges.push(ByteRange { start, end }),
                _ => {}
            }
        }
        ranges
    }

    /// Pages that a write of this range would have to be given.
    fn pages_missing(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        (offset / PAGE_LEN..=(offset + len - 1) / PAGE_LEN).filter(|page| !self.pages.contains(page)).count() as u64
    }
}

fn get_sector(content: &[u8], sector: usize) -> Sector {
    let mut bytes = [0; SECTOR_LEN];
    let start = (sector * SECTOR_LEN).min(content.len());
    let part = &content[start..(start + SECTOR_LEN).min(content.len())];
    bytes[..part.len()].copy_from_slice(part);
    bytes
}

/// What of the sector lies within the content.
fn put_sector(content: &mut [u8], sector: usize, bytes: &Sector) {
    let start = (sector * SECTOR_LEN).min(content.len());
    let end = (start + SECTOR_LEN).min(content.len());
    content[start..end].copy_from_slice(&bytes[..end - start]);
}

pub(super) struct Handle {
    pub disk: SimDisk,
    pub index: usize,
    pub boot: u64,
    pub path: PathBuf,
}

impl Handle {
    fn with<T>(&self, op: DiskOp, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.boot != self.boot {
            return Err(no_power());
        }
        let is_dead = state.power == Some(0);
        if let Err(error) = state.admit(op, &self.path, op != DiskOp::Read) {
            // Power that is off harms nothing more than `crash` does; a disk that refuses a sync has lost its data.
            if op == DiskOp::Sync && !is_dead {
                state.files[self.index].fail_sync();
            }
            return Err(error);
        }
        work(&mut state)
    }
}

impl DiskFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(DiskOp::Read, |state| {
            let content = state.files[self.index].content();
            let start = (offset as usize).min(content.len());
            let len = buf.len().min(content.len() - start);
            buf[..len].copy_from_slice(&content[start..start + len]);
            Ok(len)
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(DiskOp::Write, |state| {
            let mut fits = bytes.len();
            if let Some(capacity) = state.capacity {
                let mut free_pages = capacity.saturating_sub(state.used_bytes()) / PAGE_LEN;
                // As much as there is room for, page by page, as a real disk takes it.
                fits = 0;
                while fits < bytes.len() {
                    let at = offset + fits as u64;
                    let step = (PAGE_LEN - at % PAGE_LEN).min((bytes.len() - fits) as u64);
                    let missing = state.files[self.index].pages_missing(at, step);
                    if missing > free_pages {
                        break;
                    }
                    free_pages -= missing;
                    fits += step as usize;
                }
            }
            let modified = state.tick();
            state.files[self.index].write(&bytes[..fits], offset, modified);
            if fits < bytes.len() { Err(DiskFault::Full.into()) } else { Ok(()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(DiskOp::Sync, |state| {
            state.files[self.index].sync();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(DiskOp::Read, |state| Ok(state.files[self.index].content().len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(DiskOp::SetLen, |state| {
            state.files[self.index].set_len(len as usize);
            Ok(())
        })
    }

    fn preallocate_written(&self, len: u64) -> io::Result<()> {
        let at = self.len()?;
        if at < len { self.write_all_at(&vec![0; (len - at) as usize], at) } else { Ok(()) }
    }

    fn punch_hole(&self, range: ByteRange) -> io::Result<()> {
        self.with(DiskOp::PunchHole, |state| {
            state.files[self.index].punch_hole(range);
            Ok(())
        })
    }

    fn data_ranges(&self) -> io::Result<Vec<ByteRange>> {
        self.with(DiskOp::Read, |state| Ok(state.files[self.index].data_ranges()))
    }
}
