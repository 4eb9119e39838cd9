//! A store in memory, for tests. Clones share one content, as devices share one bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Created, Prefix, Store, StoreError, is_under, slice};
use crate::base::ByteRange;
use crate::format::ObjectName;

#[derive(Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<ObjectName, Bytes>>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<ObjectName> {
        self.objects.lock().keys().copied().collect()
    }

    /// The content without a request, for tests that look at what the store sees.
    pub fn peek(&self, name: &ObjectName) -> Option<Bytes> {
        self.objects.lock().get(name).cloned()
    }

    /// Overwrites, as only an evil store does.
    pub fn plant(&self, name: ObjectName, bytes: Bytes) {
        self.objects.lock().insert(name, bytes);
    }

    /// A store with the same objects that goes its own way from now on: a rollback or a fork in waiting.
    pub fn fork(&self) -> Self {
        Self { objects: Arc::new(Mutex::new(self.objects.lock().clone())) }
    }

    pub fn bytes_total(&self) -> u64 {
        self.objects.lock().values().map(|bytes| bytes.len() as u64).sum()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let mut objects = self.objects.lock();
        if objects.contains_key(name) {
            return Ok(Created::Exists);
        }
        objects.insert(*name, bytes);
        Ok(Created::New)
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        Ok(self.peek(name))
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        Ok(self.peek(name).map(|bytes| slice(&bytes, range)))
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        Ok(self.peek(name).map(|bytes| bytes.len() as u64))
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        Ok(self.objects.lock().keys().filter(|name| is_under(prefix, name)).copied().collect())
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects.lock().remove(name);
        Ok(())
    }
}
