//! How the store does, for `status` and for whoever waits differently when it is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Created, Prefix, Store, StoreError};
use crate::base::ByteRange;
use crate::format::ObjectName;

/// So many failures in a row and the store counts as down.
const FAILURES_UNTIL_DOWN: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthLevel {
    /// The last request was answered. "No such object" is an answer.
    Ok,
    /// The last request failed, which passes by itself more often than not.
    Degraded,
    /// Several failed in a row, or the last one for a reason that does not pass by itself.
    Down,
}

/// What the counts are kept for; the kinds of object names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Volume,
    Slot,
    Log,
    Floor,
    Checkpoint,
    Segment,
    Pack,
    Share,
}

impl ObjectKind {
    pub const ALL: [Self; 8] =
        [Self::Volume, Self::Slot, Self::Log, Self::Floor, Self::Checkpoint, Self::Segment, Self::Pack, Self::Share];

    pub fn of(name: &ObjectName) -> Self {
        match name {
            ObjectName::Volume => Self::Volume,
            ObjectName::Slot(..) | ObjectName::Chain(_) => Self::Slot,
            ObjectName::Log(_) => Self::Log,
            ObjectName::Floor(_) => Self::Floor,
            ObjectName::Checkpoint(_) => Self::Checkpoint,
            ObjectName::Segment(_) => Self::Segment,
            ObjectName::Pack(_) => Self::Pack,
            ObjectName::Share(..) | ObjectName::SharePack(..) => Self::Share,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// One look at it.
#[derive(Clone, Debug)]
pub struct HealthState {
    pub level: HealthLevel,
    /// When the level became what it is.
    pub since: SystemTime,
    /// The last failure and its time, kept also when all is well again.
    pub last_error: Option<(SystemTime, String)>,
    pub requests: u64,
    pub failures: u64,
    /// By kind, in the order of `ObjectKind::ALL`.
    pub traffic: [Traffic; 8],
}

/// Shared by the store's decorators and `status`. Counting takes no lock; only a change of level does.
pub struct Health {
    requests: AtomicU64,
    failures: AtomicU64,
    sent_bytes: [AtomicU64; 8],
    received_bytes: [AtomicU64; 8],
    /// Failures since the last success; read without the lock on every success.
    failures_in_row: AtomicU64,
    level: Mutex<Level>,
}

struct Level {
    level: HealthLevel,
    since: SystemTime,
    since_instant: Instant,
    last_error: Option<(SystemTime, String)>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            failures: AtomicU64::default(),
            sent_bytes: Default::default(),
            received_bytes: Default::default(),
            failures_in_row: AtomicU64::default(),
            level: Mutex::new(Level {
                level: HealthLevel::Ok,
                since: SystemTime::now(),
                since_instant: Instant::now(),
                last_error: None,
            }),
        }
    }
}

impl Health {
    /// Whether any request has been answered since this was made.
    pub fn has_answered(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > self.failures.load(Ordering::Relaxed)
    }

    pub fn snapshot(&self) -> HealthState {
        let level = self.level.lock();
        HealthState {
            level: level.level,
            since: level.since,
            last_error: level.last_error.clone(),
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            traffic: std::array::from_fn(|kind| Traffic {
                sent_bytes: self.sent_bytes[kind].load(Ordering::Relaxed),
                received_bytes: self.received_bytes[kind].load(Ordering::Relaxed),
            }),
        }
    }

    /// For how long the store has been down, if it is.
    pub fn down_for(&self) -> Option<Duration> {
        if self.failures_in_row.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let level = self.level.lock();
        (level.level == HealthLevel::Down).then(|| level.since_instant.elapsed())
    }

    fn record<T>(&self, outcome: &Result<T, StoreError>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(_) => {
                if self.failures_in_row.swap(0, Ordering::Relaxed) > 0 {
                    self.level.lock().change(HealthLevel::Ok);
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let row = self.failures_in_row.fetch_add(1, Ordering::Relaxed) + 1;
                let is_down = row >= u64::from(FAILURES_UNTIL_DOWN) || !error.kind.is_passing();
                let mut level = self.level.lock();
                level.last_error = Some((SystemTime::now(), error.to_string()));
                level.change(if is_down { HealthLevel::Down } else { HealthLevel::Degraded });
            }
        }
    }

    fn sent(&self, name: &ObjectName, bytes: u64) {
        self.sent_bytes[ObjectKind::of(name) as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    fn received(&self, name: &ObjectName, found: &Result<Option<Bytes>, StoreError>) {
        if let Ok(Some(bytes)) = found {
            self.received_bytes[ObjectKind::of(name) as usize].fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Level {
    fn change(&mut self, to: HealthLevel) {
        if self.level != to {
            self.level = to;
            self.since = SystemTime::now();
            self.since_instant = Instant::now();
        }
    }
}

/// Counts every request of the store beneath.
pub struct Watched {
    inner: Arc<dyn Store>,
    health: Arc<Health>,
}

impl Watched {
    pub fn new(inner: Arc<dyn Store>, health: Arc<Health>) -> Self {
        Self { inner, health }
    }

    fn note<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        self.health.record(&outcome);
        outcome
    }
}

#[async_trait]
impl Store for Watched {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let len = bytes.len() as u64;
        let outcome = self.inner.create(name, bytes).await;
        if outcome.is_ok() {
            self.health.sent(name, len);
        }
        self.note(outcome)
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let found = self.inner.get(name).await;
        self.health.received(name, &found);
        self.note(found)
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let found = self.inner.get_range(name, range).await;
        self.health.received(name, &found);
        self.note(found)
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.note(self.inner.size(name).await)
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        self.note(self.inner.list(prefix).await)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.note(self.inner.delete(name).await)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, FaultStore, MemoryStore, Op, Rule, StoreErrorKind};
    use super::*;
    use crate::base::Seq;

    #[tokio::test]
    async fn the_level_follows_failures_and_recovers_with_the_first_answer() {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        let health = Arc::new(Health::default());
        let store = Watched::new(Arc::new(store), health.clone());
        let name = ObjectName::Log(Seq(1));
        store.create(&name, Bytes::from_static(b"12345")).await.unwrap();
        store.get(&name).await.unwrap();
        assert_eq!(store.get(&ObjectName::Log(Seq(2))).await.unwrap(), None);
        assert_eq!(health.snapshot().level, HealthLevel::Ok);

        faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Unreachable)));
        for (failures, level) in
            [(1, HealthLevel::Degraded), (2, HealthLevel::Degraded), (3, HealthLevel::Down), (4, HealthLevel::Down)]
        {
            store.get(&name).await.unwrap_err();
            assert_eq!(health.snapshot().level, level);
            assert_eq!(health.snapshot().failures, failures);
        }
        assert!(health.down_for().is_some());
        faults.clear();
        store.get(&name).await.unwrap();
        let state = health.snapshot();
        assert_eq!(state.level, HealthLevel::Ok);
        assert!(state.last_error.unwrap().1.contains("store unreachable"));
        assert_eq!(health.down_for(), None);
        assert_eq!(state.requests, 8);
        assert_eq!(state.traffic[ObjectKind::Log as usize], Traffic { sent_bytes: 5, received_bytes: 10 });
    }

    #[tokio::test]
    async fn what_does_not_pass_by_itself_is_down_at_once() {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        let health = Arc::new(Health::default());
        let store = Watched::new(Arc::new(store), health.clone());
        faults.add(Rule::always(Fault::Fail(StoreErrorKind::CredentialsExpired)));
        store.size(&ObjectName::Volume).await.unwrap_err();
        assert_eq!(health.snapshot().level, HealthLevel::Down);
    }
}
