//! Requests and bytes that a visitor or a link may still use. A bucket refills evenly with time.
//!
//! Invariant: as many keys are remembered as the limit says, the least recently seen is forgotten first, and with it
//! what it used; a flood of new addresses is bounded by the cap on open requests instead.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::limits::{Budget, REMEMBERED};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;

pub struct Budgets<K: Hash + Eq> {
    budget: Budget,
    buckets: Mutex<LruCache<K, Bucket>>,
}

struct Bucket {
    requests: f64,
    /// May be below zero: an answer that was admitted is given whole.
    bytes: f64,
    at: Instant,
}

impl<K: Hash + Eq> Budgets<K> {
    pub fn new(budget: Budget) -> Self {
        const CAPACITY: NonZeroUsize = NonZeroUsize::new(REMEMBERED).unwrap();
        Self { budget, buckets: Mutex::new(LruCache::new(CAPACITY)) }
    }

    /// Takes one request; or says after how long one is free.
    pub fn admit(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.with(key, now, |bucket, budget| {
            let requests_in = (1.0 - bucket.requests) * MINUTE / budget.requests_per_minute as f64;
            let bytes_in = -bucket.bytes * HOUR / budget.bytes_per_hour as f64;
            let wait = requests_in.max(bytes_in);
            if wait > 0.0 {
                return Err(Duration::from_secs_f64(wait.min(HOUR)));
            }
            bucket.requests -= 1.0;
            Ok(())
        })
    }

    /// What was sent.
    pub fn charge(&self, key: K, bytes: u64, now: Instant) {
        self.with(key, now, |bucket, _| bucket.bytes -= bytes as f64);
    }

    fn with<T>(&self, key: K, now: Instant, change: impl FnOnce(&mut Bucket, &Budget) -> T) -> T {
        let Budget { requests_per_minute, bytes_per_hour } = self.budget;
        let (requests_max, bytes_max) = (requests_per_minute as f64, bytes_per_hour as f64);
        let mut buckets = self.buckets.lock();
        let full = || Bucket { requests: requests_max, bytes: bytes_max, at: now };
        let bucket = buckets.get_or_insert_mut(key, full);
        let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.requests = (bucket.requests + seconds * requests_max / MINUTE).min(requests_max);
        bucket.bytes = (bucket.bytes + seconds * bytes_max / HOUR).min(bytes_max);
        bucket.at = now;
        change(bucket, &self.budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { requests_per_minute: 60, bytes_per_hour: 3600 };

    #[test]
    fn requests_run_out_and_come_back_evenly() {
        let (budgets, start) = (Budgets::new(BUDGET), Instant::now());
        for _ in 0..60 {
            assert_eq!(budgets.admit(1, start), Ok(()));
        }
        let wait = budgets.admit(1, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(budgets.admit(2, start), Ok(()), "another visitor has a budget of their own");
        assert!(budgets.admit(1, start + wait / 2).is_err());
        assert_eq!(budgets.admit(1, start + wait), Ok(()));
        assert!(budgets.admit(1, start + wait).is_err());
    }

    #[test]
    fn bytes_may_be_overdrawn_once_and_then_have_to_come_back() {
        let (budgets, start) = (Budgets::new(BUDGET), Instant::now());
        budgets.charge(1, 3600 + 100, start);
        assert_eq!(budgets.admit(1, start), Err(Duration::from_secs(100)));
        assert_eq!(budgets.admit(1, start + Duration::from_secs(100)), Ok(()));
        budgets.charge(1, u64::MAX, start);
        assert_eq!(budgets.admit(1, start).unwrap_err(), Duration::from_secs(3600), "no one is sent away for ever");
    }
}
