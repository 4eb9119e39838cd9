//! Room on this machine's disk. The last of it belongs to commits and the journal, so that also on a full disk
//! what was acknowledged stays durable, gets into the store, and makes room by that.
//!
//! Before a change is refused, the cache gives way as far as it lies on the same filesystem.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::{ByteSize, MIB};
use crate::cache::BlockCache;
use crate::disk::FreeSpace;

use super::api::{VfsError, VfsResult};
use super::drive::Drive;

/// What no content may take: for rows in the replica, footers, and the journal's next files.
pub const COMMIT_RESERVE: u64 = 64 * MIB;
/// What no new name may take: for what brings into the store what is there.
const NAMES_RESERVE: u64 = COMMIT_RESERVE / 2;
/// What a mount needs at least.
pub const MOUNT_RESERVE: u64 = 16 * MIB;

pub struct LocalSpace {
    free: FreeSpace,
    cache: Arc<BlockCache>,
    cache_gives_way: bool,
    is_full: AtomicBool,
}

impl LocalSpace {
    pub fn new(free: FreeSpace, cache: Arc<BlockCache>) -> Self {
        let cache_gives_way = free.shares_filesystem(cache.free_space());
        Self { free, cache, cache_gives_way, is_full: AtomicBool::new(false) }
    }

    /// Whether `bytes` are free, if need be after the cache gave way.
    pub fn has(&self, bytes: u64) -> bool {
        let mut free = self.free.bytes();
        if free < bytes && self.cache_gives_way {
            self.cache.shrink_by(bytes - free);
            free = self.free.bytes_now();
        }
        free >= bytes
    }

    /// What to do, if changes are refused for want of room.
    pub fn complaint(&self) -> Option<String> {
        self.is_full.load(Ordering::Relaxed).then(|| self.advice(COMMIT_RESERVE))
    }

    pub fn advice(&self, needed: u64) -> String {
        let (free, dir) = (self.free.bytes_now(), self.free.dir().display());
        let (free, needed) = (ByteSize(free), ByteSize(needed));
        format!("the disk of {dir} is full: {free} are free, {needed} are needed to go on; nothing is lost")
    }

    fn note(&self, has_room: bool) {
        let was_full = self.is_full.swap(!has_room, Ordering::Relaxed);
        if !has_room && !was_full {
            tracing::error!("changes are refused: {}", self.advice(COMMIT_RESERVE));
        }
    }
}

impl Drive {
    /// Whether content of so many bytes may be taken in.
    pub(super) fn has_local_room(&self, bytes: u64) -> bool {
        let has_room = self.space.has(COMMIT_RESERVE + self.budget.used() + bytes);
        self.space.note(has_room);
        has_room
    }

    /// Waits as long as uploads go on, which make room.
    pub(super) fn wait_local_room(&self, bytes: u64, deadline: Instant) -> VfsResult<()> {
        const PATIENCE: Duration = Duration::from_millis(50);
        while !self.has_local_room(bytes) {
            if Instant::now() >= deadline || !self.is_draining() {
                return Err(VfsError::NoSpace);
            }
            self.wake_cycle();
            std::thread::sleep(PATIENCE);
        }
        Ok(())
    }

    /// Whether a name, an attribute or the like may be added.
    pub(super) fn check_names_room(&self) -> VfsResult<()> {
        if self.space.has(NAMES_RESERVE) {
            return Ok(());
        }
        self.space.note(false);
        Err(VfsError::NoSpace)
    }

    /// Others fill the disk too: called now and then, so that commits find their room.
    pub(super) fn keep_local_room(&self) {
        let has_room = self.space.has(COMMIT_RESERVE);
        // Writers may need more than this; only they know that there is enough.
        if has_room && self.space.has(COMMIT_RESERVE + self.budget.used()) {
            self.space.note(true);
        }
    }
}
