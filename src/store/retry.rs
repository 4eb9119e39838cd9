//! Asks again, within one deadline, for what may be asked twice.
//!
//! Reads, listings and deletes are repeated while their errors look passing, with exponential backoff of which a
//! random part is waited. **A create is sent once**: its answer may be lost after it was applied, and then a second
//! one would hear "exists" from its own first; who created reads the object and compares (see `create_idempotent`).
//! Once the store has been down for longer than a whole deadline, one try is all a read gets, so that a person who
//! is offline learns it in seconds each time; as does one whose store has not answered since the program began.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::health::Health;
use super::{Created, Op, Patience, Prefix, Store, StoreError, StoreErrorKind};
use crate::base::{ByteRange, Entropy, MIB, SystemEntropy};
use crate::format::ObjectName;

/// A whole object is read in pieces whose lengths are known, so that every request can have a deadline that fits.
/// Records and manifests fit the first.
const FIRST_PIECE_LEN: u64 = MIB;
const NEXT_PIECE_LEN: u64 = 4 * MIB;

pub struct Retry {
    inner: Arc<dyn Store>,
    health: Arc<Health>,
    patience: Patience,
}

impl Retry {
    pub fn new(inner: Arc<dyn Store>, health: Arc<Health>, patience: Patience) -> Self {
        Self { inner, health, patience }
    }

    async fn repeat<T, F>(
        &self,
        op: Op,
        name: Option<&ObjectName>,
        total: Duration,
        request: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let started = Instant::now();
        let deadline = started + total;
        let mut backoff = Backoff::new(&self.patience);
        let mut last: Option<StoreError> = None;
        loop {
            match tokio::time::timeout_at(deadline, request()).await {
                Ok(Err(error)) if error.kind.is_passing() => {
                    let is_long_down = self.health.down_for().is_some_and(|time| time > self.patience.total_timeout);
                    if is_long_down {
                        return Err(error);
                    }
                    let pause = backoff.pause();
                    let never_reached = error.kind == StoreErrorKind::Unreachable && !self.health.has_answered();
                    if never_reached && started.elapsed() >= self.patience.first_contact {
                        return Err(error);
                    }
                    if Instant::now() + pause >= deadline {
                        return Err(given_up(op, name, total, Some(error)));
                    }
                    last = Some(error);
                    tokio::time::sleep(pause).await;
                }
                Ok(outcome) => return outcome,
                Err(_) => return Err(given_up(op, name, total, last)),
            }
        }
    }
}

fn given_up(op: Op, name: Option<&ObjectName>, total: Duration, last: Option<StoreError>) -> StoreError {
    let detail = match &last {
        Some(last) => format!("gave up after {} s; the last error was {}: {}", total.as_secs(), last.kind, last.detail),
        None => format!("no answer within {} s", total.as_secs()),
    };
    let error = StoreError::new(StoreErrorKind::Timeout, op, name.copied(), detail);
    match last {
        Some(last) => error.with_source(last),
        None => error,
    }
}

/// Exponential, up to a limit, of which a random part from a half to the whole is waited.
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub fn new(patience: &Patience) -> Self {
        Self { next: patience.backoff_first, max: patience.backoff_max }
    }

    pub fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.max);
        self.next = pause * 2;
        let random = u16::from_le_bytes((&SystemEntropy as &dyn Entropy).array());
        pause.mul_f64(0.5 + f64::from(random) / f64::from(u16::MAX) / 2.0)
    }
}

#[async_trait]
impl Store for Retry {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        self.inner.create(name, bytes).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let Some(first) = self.get_range(name, ByteRange::new(0, FIRST_PIECE_LEN)).await? else { return Ok(None) };
        if (first.len() as u64) < FIRST_PIECE_LEN {
            return Ok(Some(first));
        }
        let mut whole = BytesMut::from(first);
        loop {
            let at = whole.len() as u64;
            if at >= name.len_max() {
                // Nobody writes such an object. What there is of it fails verification, as the damage that it is.
                tracing::error!("{name} is longer than any such object can be");
                return Ok(Some(whole.freeze()));
            }
            // An object is never changed, but it can be deleted between two pieces.
            let Some(piece) = self.get_range(name, ByteRange::new(at, at + NEXT_PIECE_LEN)).await? else {
                return Ok(None);
            };
            whole.extend_from_slice(&piece);
            if (piece.len() as u64) < NEXT_PIECE_LEN {
                return Ok(Some(whole.freeze()));
            }
        }
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let total = self.patience.all_tries(range.len());
        self.repeat(Op::Get, Some(name), total, || self.inner.get_range(name, range)).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.repeat(Op::Size, Some(name), self.patience.all_tries(0), || self.inner.size(name)).await
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        self.repeat(Op::List, None, self.patience.list_timeout, || self.inner.list(prefix)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.repeat(Op::Delete, Some(name), self.patience.all_tries(0), || self.inner.delete(name)).await
    }
}

/// How a create of bytes that belong to this name alone ended, such as a pack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// They are there, by this create or an earlier one whose answer was lost.
    Ours,
    /// Something else has the name.
    Other,
}

/// Creates, and after an unclear or "exists" answer reads back and compares. An error means that it is not known to
/// be there; calling again with the same bytes is always right.
pub async fn create_idempotent(store: &dyn Store, name: &ObjectName, bytes: Bytes) -> Result<Stored, StoreError> {
    let unclear = match store.create(name, bytes.clone()).await {
        Ok(Created::New) => return Ok(Stored::Ours),
        Ok(Created::Exists) => None,
        Err(error) if error.kind == StoreErrorKind::Unknown => Some(error),
        Err(error) => return Err(error),
    };
    // The size is cheap and settles most of what is not ours.
    let is_same = match store.size(name).await? {
        Some(size) if size != bytes.len() as u64 => Some(false),
        Some(_) => store.get(name).await?.map(|found| found == bytes),
        None => None,
    };
    match (is_same, unclear) {
        (Some(true), _) => Ok(Stored::Ours),
        (Some(false), _) => Ok(Stored::Other),
        (None, Some(unclear)) => Err(unclear),
        (None, None) => Err(StoreError::new(
            StoreErrorKind::Server,
            Op::Create,
            Some(*name),
            "the store says that the object exists and does not give it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Evil, EvilWorld, Fault, FaultStore, Faults, MemoryStore, Rule, When};
    use super::*;
    use crate::base::Seq;

    const NAME: ObjectName = ObjectName::Log(Seq(1));

    fn store() -> (Retry, Faults, MemoryStore) {
        let memory = MemoryStore::new();
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        (Retry::new(Arc::new(store), Arc::default(), Patience::default()), faults, memory)
    }

    #[tokio::test]
    async fn an_object_without_end_is_read_up_to_a_limit() {
        let world = EvilWorld::new([(NAME, Bytes::from_static(b"record"))], Vec::new());
        let store = Retry::new(Arc::new(world.store()), Arc::default(), Patience::default());
        world.act(0, Evil::Endless { object: 0 });
        let got = store.get(&NAME).await.unwrap().unwrap().len() as u64;
        assert!((NAME.len_max()..NAME.len_max() + NEXT_PIECE_LEN).contains(&got), "{got}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_outlives_passing_errors() {
        let (store, faults, memory) = store();
        memory.plant(NAME, Bytes::from_static(b"x"));
        faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Throttled)).when(When::First(5)));
        assert_eq!(store.get(&NAME).await.unwrap().unwrap(), "x");
        assert_eq!(faults.requests().len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_ends_at_its_deadline_whether_the_store_hangs_or_fails() {
        let start = Instant::now();
        for fault in [Fault::Hang, Fault::Fail(StoreErrorKind::Throttled)] {
            let (store, faults, _) = store();
            faults.add(Rule::always(fault));
            assert_eq!(store.size(&NAME).await.unwrap_err().kind, StoreErrorKind::Timeout);
        }
        let taken = start.elapsed();
        assert!(taken > Duration::from_secs(100) && taken < Duration::from_secs(121), "{taken:?}");
    }

    #[tokio::test]
    async fn a_store_that_has_been_down_for_long_is_tried_once_by_each_read() {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        let patience = Patience {
            total_timeout: Duration::from_millis(40),
            bytes_per_second_min: u64::MAX,
            backoff_first: Duration::from_millis(1),
            ..Patience::default()
        };
        let connected = super::super::decorate(Arc::new(store), patience);
        faults.add(Rule::always(Fault::Fail(StoreErrorKind::Unreachable)));
        assert_eq!(connected.store.size(&NAME).await.unwrap_err().kind, StoreErrorKind::Timeout);
        assert!(connected.health.down_for().is_some());
        tokio::time::sleep(Duration::from_millis(60)).await;
        let before = faults.requests().len();
        assert_eq!(connected.store.size(&NAME).await.unwrap_err().kind, StoreErrorKind::Unreachable);
        assert_eq!(faults.requests().len(), before + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_never_reached_is_given_up_in_seconds() {
        let (store, faults, _) = store();
        faults.add(Rule::always(Fault::Fail(StoreErrorKind::Unreachable)));
        let start = Instant::now();
        assert_eq!(store.size(&NAME).await.unwrap_err().kind, StoreErrorKind::Unreachable);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(faults.requests().len() > 3);
    }

    #[tokio::test]
    async fn an_error_that_stays_is_told_at_once() {
        let (store, faults, _) = store();
        faults.add(Rule::always(Fault::Fail(StoreErrorKind::Denied)));
        assert_eq!(store.get(&NAME).await.unwrap_err().kind, StoreErrorKind::Denied);
        assert_eq!(faults.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_create_is_sent_once() {
        let (store, faults, memory) = store();
        faults.add(Rule::always(Fault::ApplyThenFail(StoreErrorKind::Unknown)).when(When::First(1)));
        let outcome = store.create(&NAME, Bytes::from_static(b"x")).await;
        assert_eq!(outcome.unwrap_err().kind, StoreErrorKind::Unknown);
        assert_eq!(faults.requests(), [(Op::Create, Some(NAME))]);
        assert!(memory.peek(&NAME).is_some());
    }

    #[tokio::test]
    async fn an_object_of_any_length_is_read_whole() {
        for len in [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB, 5 * MIB + 7] {
            let (store, _, memory) = store();
            let bytes: Bytes = (0..len).map(|at| (at % 251) as u8).collect();
            memory.plant(NAME, bytes.clone());
            assert!(store.get(&NAME).await.unwrap().unwrap() == bytes, "{len}");
        }
    }

    #[tokio::test]
    async fn a_repeated_create_knows_its_own_bytes() {
        let bytes = Bytes::from_static(b"mine");
        let (store, faults, memory) = store();
        faults.add(Rule::on(Op::Create, Fault::ApplyThenFail(StoreErrorKind::Unknown)).when(When::Nth(1)));
        assert_eq!(create_idempotent(&store, &NAME, bytes.clone()).await.unwrap(), Stored::Ours);
        assert_eq!(create_idempotent(&store, &NAME, bytes.clone()).await.unwrap(), Stored::Ours);
        memory.plant(NAME, Bytes::from_static(b"them"));
        assert_eq!(create_idempotent(&store, &NAME, bytes.clone()).await.unwrap(), Stored::Other);
        memory.plant(NAME, Bytes::from_static(b"longer"));
        assert_eq!(create_idempotent(&store, &NAME, bytes.clone()).await.unwrap(), Stored::Other);
        faults.clear();
        faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unknown)));
        let name = ObjectName::Log(Seq(2));
        let lost = create_idempotent(&store, &name, bytes).await.unwrap_err();
        assert_eq!(lost.kind, StoreErrorKind::Unknown);
    }
}
