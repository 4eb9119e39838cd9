//! How many dirty bytes there may be in all files together.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::super::ContentError;

pub struct DirtyBudget {
    limit: u64,
    used: Mutex<u64>,
    released: Condvar,
}

impl DirtyBudget {
    pub const DEFAULT_BYTES: u64 = 64 << 20;

    pub fn new(limit: u64) -> Self {
        Self { limit, used: Mutex::new(0), released: Condvar::new() }
    }

    /// A write larger than the whole budget passes when nothing else is dirty.
    fn fits(&self, used: u64, bytes: u64) -> bool {
        used == 0 || used.saturating_add(bytes) <= self.limit
    }

    /// True if `bytes` were reserved.
    #[must_use]
    pub fn try_reserve(&self, bytes: u64) -> bool {
        let mut used = self.used.lock();
        let fits = self.fits(*used, bytes);
        if fits {
            *used += bytes;
        }
        fits
    }

    /// Waits for other bytes to be released. `DirtyFull` past the deadline.
    pub fn reserve_wait(&self, bytes: u64, deadline: Instant) -> Result<(), ContentError> {
        let mut used = self.used.lock();
        while !self.fits(*used, bytes) {
            if self.released.wait_until(&mut used, deadline).timed_out() && !self.fits(*used, bytes) {
                return Err(ContentError::DirtyFull);
            }
        }
        *used += bytes;
        Ok(())
    }

    /// For bytes that are there whatever the limit says, such as a replayed journal's.
    pub fn reserve_over_limit(&self, bytes: u64) {
        *self.used.lock() += bytes;
    }

    pub fn release(&self, bytes: u64) {
        if bytes > 0 {
            let mut used = self.used.lock();
            *used = used.saturating_sub(bytes);
            self.released.notify_all();
        }
    }

    pub fn used(&self) -> u64 {
        *self.used.lock()
    }

    /// Half full: time to seal something, before writers must wait.
    pub fn is_above_high_water(&self) -> bool {
        self.used() > self.limit / 2
    }
}
