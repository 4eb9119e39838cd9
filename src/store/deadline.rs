//! No single request waits for ever.
//!
//! A try may take `try_timeout` and, for what it moves, as long as `bytes_per_second_min` needs: so a slow link
//! carries a big pack, and a silent server is noticed. The HTTP client has no timeout of its own but five seconds
//! to connect, because one for the whole request with its body would forbid big packs on slow links.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Created, Op, Prefix, Store, StoreError, StoreErrorKind};
use crate::base::{ByteRange, KIB, PACK_LEN_TARGET};
use crate::format::ObjectName;

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a store, and how often to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one request that moves nothing.
    pub try_timeout: Duration,
    /// The slowest link that is still waited for.
    pub bytes_per_second_min: u64,
    /// For a read, size or delete with all its tries, beside the time for what it moves.
    pub total_timeout: Duration,
    /// For a whole listing, which can take many requests and which no user waits for.
    pub list_timeout: Duration,
    /// For a store that cannot be reached and has not answered once: the address may be wrong, or the machine
    /// offline.
    pub first_contact: Duration,
    /// Before the second try; doubled before each further one, up to `backoff_max`, and then a random part of it.
    pub backoff_first: Duration,
    pub backoff_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            try_timeout: Duration::from_secs(30),
            bytes_per_second_min: 64 * KIB,
            total_timeout: Duration::from_secs(60),
            list_timeout: Duration::from_secs(300),
            first_contact: Duration::from_secs(4),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// What the slowest link needs for so many bytes.
    pub fn transfer(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second_min.max(1) as f64)
    }

    pub fn one_try(&self, bytes: u64) -> Duration {
        self.try_timeout + self.transfer(bytes)
    }

    pub fn all_tries(&self, bytes: u64) -> Duration {
        self.total_timeout + self.transfer(bytes)
    }
}

pub struct Deadline {
    inner: Arc<dyn Store>,
    patience: Patience,
}

impl Deadline {
    pub fn new(inner: Arc<dyn Store>, patience: Patience) -> Self {
        Self { inner, patience }
    }

    async fn within<T>(
        &self,
        op: Op,
        name: Option<&ObjectName>,
        limit: Duration,
        request: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(limit, request).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Giving up on a create does not take it back.
                let kind = if op == Op::Create { StoreErrorKind::Unknown } else { StoreErrorKind::Timeout };
                Err(StoreError::new(kind, op, name.copied(), format!("no answer within {} s", limit.as_secs())))
            }
        }
    }
}

#[async_trait]
impl Store for Deadline {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let limit = self.patience.one_try(bytes.len() as u64);
        self.within(Op::Create, Some(name), limit, self.inner.create(name, bytes)).await
    }

    /// The length is not known before the answer, so this waits as for a full pack. `Retry` reads in ranges instead.
    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let limit = self.patience.one_try(PACK_LEN_TARGET);
        self.within(Op::Get, Some(name), limit, self.inner.get(name)).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let limit = self.patience.one_try(range.len());
        self.within(Op::Get, Some(name), limit, self.inner.get_range(name, range)).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.within(Op::Size, Some(name), self.patience.try_timeout, self.inner.size(name)).await
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        self.within(Op::List, None, self.patience.list_timeout, self.inner.list(prefix)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.within(Op::Delete, Some(name), self.patience.try_timeout, self.inner.delete(name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, FaultStore, MemoryStore, Rule};
    use super::*;
    use crate::base::Seq;

    #[test]
    fn a_slow_link_may_carry_a_full_pack() {
        assert_eq!(Patience::default().one_try(PACK_LEN_TARGET), Duration::from_secs(30 + 256));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_read_times_out_and_a_hanging_create_is_unknown() {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        let store = Deadline::new(Arc::new(store), Patience::default());
        faults.add(Rule::always(Fault::Hang));
        let name = ObjectName::Log(Seq(1));
        assert_eq!(store.get(&name).await.unwrap_err().kind, StoreErrorKind::Timeout);
        assert_eq!(store.size(&name).await.unwrap_err().kind, StoreErrorKind::Timeout);
        assert_eq!(store.list(Prefix::Everything).await.unwrap_err().kind, StoreErrorKind::Timeout);
        let created = store.create(&name, Bytes::from_static(b"x")).await;
        assert_eq!(created.unwrap_err().kind, StoreErrorKind::Unknown);
    }
}
