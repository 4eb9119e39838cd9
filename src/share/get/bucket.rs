//! A link in the bucket that it was published to.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;

use super::{GetError, Gone, LinkSource};
use crate::base::{ByteRange, LinkId};
use crate::format::link::SignedRecord;
use crate::format::{ObjectName, Prefix};
use crate::store::Store;

/// So many of the newest are looked at. A tombstone is the newest when it is made, and what is older is deleted then; a
/// device that lagged behind may have put one or two after it.
const RECORDS_MAX: usize = 8;

pub struct BucketSource {
    store: Arc<dyn Store>,
}

impl BucketSource {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

/// What is listed of a link: records and packs, ascending.
pub(crate) async fn listed(store: &dyn Store, link: LinkId) -> Result<(Vec<u64>, Vec<u64>), crate::store::StoreError> {
    let (mut records, mut packs) = (Vec::new(), Vec::new());
    for name in store.list(Prefix::ShareOf(link)).await? {
        match name {
            ObjectName::Share(_, number) => records.push(number),
            ObjectName::SharePack(_, number) => packs.push(number),
            _ => {}
        }
    }
    records.sort_unstable();
    packs.sort_unstable();
    Ok((records, packs))
}

/// None: it is not there (any more).
pub(crate) async fn record(store: &dyn Store, link: LinkId, number: u64) -> Result<Option<SignedRecord>, GetError> {
    let Some(bytes) = store.get(&ObjectName::Share(link, number)).await? else { return Ok(None) };
    Ok(Some(SignedRecord::verify(link, number, bytes.to_vec())?))
}

#[async_trait]
impl LinkSource for BucketSource {
    /// A tombstone counts whatever its number. What is no record of the owner's does not hide the one before it.
    async fn newest(&self, link: LinkId) -> Result<SignedRecord, GetError> {
        let (records, _) = listed(self.store.as_ref(), link).await?;
        let (mut newest, mut refused) = (None, None);
        let looked_at = records.into_iter().rev().take(RECORDS_MAX);
        for found in join_all(looked_at.map(|number| record(self.store.as_ref(), link, number))).await {
            match found {
                Ok(Some(record)) if record.is_tombstone() => return Err(Gone::Revoked.into()),
                Ok(Some(record)) => newest = newest.or(Some(record)),
                Ok(None) => {}
                Err(error @ GetError::Link(_)) => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match (newest, refused) {
            (Some(newest), _) => Ok(newest),
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(Gone::Missing.into()),
        }
    }

    async fn read(&self, link: LinkId, pack: u64, range: ByteRange) -> Result<Bytes, GetError> {
        match self.store.get_range(&ObjectName::SharePack(link, pack), range).await? {
            Some(bytes) if bytes.len() as u64 == range.len() => Ok(bytes),
            Some(_) => Err(GetError::Damaged),
            None => Err(Gone::Missing.into()),
        }
    }
}
