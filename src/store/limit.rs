//! A cap on requests in flight, which the HTTP client does not have.
//!
//! Creates have places of their own, so that a long upload never makes a reader wait.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Created, Prefix, Store, StoreError};
use crate::base::ByteRange;
use crate::format::ObjectName;

pub const READS_MAX: usize = 48;
pub const CREATES_MAX: usize = 12;

pub struct Limited {
    inner: Arc<dyn Store>,
    reads: Semaphore,
    creates: Semaphore,
}

impl Limited {
    pub fn new(inner: Arc<dyn Store>, reads_max: usize, creates_max: usize) -> Self {
        Self { inner, reads: Semaphore::new(reads_max.max(1)), creates: Semaphore::new(creates_max.max(1)) }
    }
}

#[async_trait]
impl Store for Limited {
    // An acquire fails only when the semaphore is closed, which nobody does.
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let _place = self.creates.acquire().await;
        self.inner.create(name, bytes).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let _place = self.reads.acquire().await;
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let _place = self.reads.acquire().await;
        self.inner.get_range(name, range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        let _place = self.reads.acquire().await;
        self.inner.size(name).await
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        let _place = self.reads.acquire().await;
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let _place = self.reads.acquire().await;
        self.inner.delete(name).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Fault, FaultStore, MemoryStore, Op, Rule};
    use super::*;
    use crate::base::Seq;

    #[tokio::test(start_paused = true)]
    async fn creates_that_hang_do_not_hold_up_a_read() {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        faults.add(Rule::on(Op::Create, Fault::Hang));
        let store = Arc::new(Limited::new(Arc::new(store), 1, 2));
        for seq in 0..4 {
            let store = store.clone();
            tokio::spawn(async move { store.create(&ObjectName::Log(Seq(seq)), Bytes::new()).await });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(faults.requests().len(), 2);
        assert_eq!(store.get(&ObjectName::Volume).await.unwrap(), None);
    }
}
