//! Access times, which stay on this device: reading a file must not write to the store.
//!
//! They outlive the mount in the state folder, which gets them now and then and at the end; what a crash takes of
//! them is no loss. They enter the log with another change of the inode's attributes only.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::base::{Clock, InodeId, Timestamp};
use crate::format::rows::InodeRow;
use crate::format::state::Access;

/// As mount(8) has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtimeMode {
    /// relatime: when the old one is not newer than the last change, or a day old.
    Relative,
    Never,
    Strict,
}

const DAY_SECS: i64 = 86_400;
/// Access times of this many files are remembered; the oldest fall back to what the row says.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// So rarely that keeping them costs nothing, even where every read is noticed.
const KEEP_EVERY: Duration = Duration::from_secs(600);

/// Puts them where the next mount finds them, the least recent first.
pub type KeepAccesses = Box<dyn Fn(&[Access]) + Send + Sync>;

/// What an earlier mount kept, and where this one keeps them.
pub struct KeptAtimes {
    /// The least recent first.
    pub accesses: Vec<Access>,
    pub keep: KeepAccesses,
}

pub struct Atimes {
    mode: AtimeMode,
    /// Whether directories have them too.
    of_directories: bool,
    newer: Mutex<Newer>,
    keep: KeepAccesses,
}

struct Newer {
    accesses: LruCache<InodeId, Access>,
    /// Since when there are some that were not kept.
    unkept: Option<Instant>,
}

impl Atimes {
    pub fn new(mode: AtimeMode, of_directories: bool, kept: KeptAtimes) -> Self {
        // Unbounded at first, since `new` takes the whole table's memory at once.
        let mut newer = Newer { accesses: LruCache::unbounded(), unkept: None };
        kept.accesses.into_iter().for_each(|access| newer.put(access));
        Self { mode, of_directories, newer: Mutex::new(newer), keep: kept.keep }
    }

    pub fn get(&self, ino: InodeId, row: &InodeRow) -> Timestamp {
        self.newer.lock().get(ino, row.atime)
    }

    pub fn touch(&self, ino: InodeId, row: &InodeRow, clock: &dyn Clock) {
        if self.mode == AtimeMode::Never || row.is_dir() && !self.of_directories {
            return;
        }
        let now = clock.now();
        let mut newer = self.newer.lock();
        let old = newer.get(ino, row.atime);
        let stale = old <= row.mtime || old <= row.ctime || now.secs - old.secs >= DAY_SECS;
        if self.mode == AtimeMode::Strict || stale {
            newer.put(Access { ino, atime: now, row_atime: row.atime });
            newer.unkept.get_or_insert_with(Instant::now);
        }
    }

    /// For the row, which gets another change: from here on it says it itself.
    pub fn take(&self, ino: InodeId) -> Option<Access> {
        let mut newer = self.newer.lock();
        let access = newer.accesses.pop(&ino)?;
        newer.unkept.get_or_insert_with(Instant::now);
        Some(access)
    }

    /// Keeps them if that was not done for long.
    pub fn keep_now_and_then(&self) {
        if self.newer.lock().unkept.is_some_and(|since| since.elapsed() >= KEEP_EVERY) {
            self.keep();
        }
    }

    pub fn keep(&self) {
        let accesses: Vec<Access> = {
            let mut newer = self.newer.lock();
            if newer.unkept.take().is_none() {
                return;
            }
            newer.accesses.iter().rev().map(|(_, access)| *access).collect()
        };
        (self.keep)(&accesses);
    }
}

impl Newer {
    /// An access counts while the row says what it said then: a time that was set explicitly, perhaps on another
    /// device, is newer whatever it is.
    fn get(&self, ino: InodeId, row_atime: Timestamp) -> Timestamp {
        let access = self.accesses.peek(&ino).filter(|access| access.row_atime == row_atime);
        access.map_or(row_atime, |access| access.atime)
    }

    fn put(&mut self, access: Access) {
        self.accesses.put(access.ino, access);
        if self.accesses.len() > REMEMBERED.get() {
            self.accesses.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn access(ino: u64) -> Access {
        Access { ino: InodeId(ino), atime: Timestamp::new(9, 0), row_atime: Timestamp::new(5, 0) }
    }

    fn atimes(accesses: Vec<Access>) -> (Atimes, Arc<Mutex<Vec<Vec<Access>>>>) {
        let kept: Arc<Mutex<Vec<Vec<Access>>>> = Arc::default();
        let keep = {
            let kept = kept.clone();
            Box::new(move |accesses: &[Access]| kept.lock().push(accesses.to_vec()))
        };
        (Atimes::new(AtimeMode::Relative, true, KeptAtimes { accesses, keep }), kept)
    }

    #[test]
    fn an_access_counts_until_the_rows_time_is_set() {
        let (atimes, _) = atimes(vec![access(1)]);
        let newer = atimes.newer.lock();
        assert_eq!(newer.get(InodeId(1), Timestamp::new(5, 0)), Timestamp::new(9, 0));
        assert_eq!(newer.get(InodeId(1), Timestamp::new(4, 0)), Timestamp::new(4, 0));
        assert_eq!(newer.get(InodeId(2), Timestamp::new(5, 0)), Timestamp::new(5, 0));
    }

    #[test]
    fn the_least_recent_are_forgotten_and_the_order_is_kept() {
        let surplus = 10;
        let all: Vec<_> = (0..REMEMBERED.get() as u64 + surplus).map(access).collect();
        let (atimes, kept) = atimes(all.clone());
        atimes.keep();
        assert!(kept.lock().is_empty(), "nothing changed");
        assert!(atimes.take(InodeId(0)).is_none());
        assert_eq!(atimes.take(InodeId(surplus)), Some(access(surplus)));
        atimes.keep();
        atimes.keep();
        assert_eq!(*kept.lock(), [all[surplus as usize + 1..].to_vec()], "once");
    }
}
