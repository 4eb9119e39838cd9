//! Blocks of links' packs: from memory, or from the store, neighbours in one request.
//!
//! Invariants: ciphertext only, bounded in bytes, what is on its way included; one request to the store for a block
//! however many wait for it.

use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bounded::Bounded;
use super::flight::{Flight, Flights};
use super::limits::{READS_MAX, RUN_BLOCKS};
use super::metrics::Metrics;
use crate::base::{BLOCK_LEN, ByteRange, LinkId};
use crate::format::ObjectName;
use crate::store::{Store, StoreError};

/// A pack of a link.
pub type Pack = (LinkId, u64);
type Block = (LinkId, u64, u64);
/// Neighbours, each with its number; None when there is no such pack.
type Run = Option<Arc<Vec<(u64, Bytes)>>>;
type Fetch = Flight<Result<Run, StoreError>>;

pub struct Blocks {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    kept: Arc<Mutex<Bounded<Block, Bytes>>>,
    flights: Flights<Block, Result<Run, StoreError>>,
    reads: Arc<Semaphore>,
    sizes: Mutex<LruCache<Pack, u64>>,
    size_flights: Flights<Pack, Result<Option<u64>, StoreError>>,
}

/// Sizes are small, and asked for with every answer.
const SIZES_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1 << 16).unwrap();

impl Blocks {
    pub fn new(store: Arc<dyn Store>, bytes_max: u64, metrics: Arc<Metrics>) -> Self {
        let kept = Arc::new(Mutex::new(Bounded::new(bytes_max)));
        let sizes = Mutex::new(LruCache::new(SIZES_MAX));
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Self { store, metrics, kept, flights: Flights::new(), reads, sizes, size_flights: Flights::new() }
    }

    /// Of the object; None when there is none.
    pub async fn size(&self, pack: Pack) -> Result<Option<u64>, StoreError> {
        if let Some(size) = self.sizes.lock().get(&pack) {
            return Ok(Some(*size));
        }
        let store = self.store.clone();
        let ask = || async move { store.size(&ObjectName::SharePack(pack.0, pack.1)).await };
        let size = match self.size_flights.start(&[pack], ask) {
            Some(flight) => flight.await.unwrap_or(Ok(None))?,
            None => None,
        };
        if let Some(size) = size {
            self.sizes.lock().put(pack, size);
        }
        Ok(size)
    }

    /// The block; on the way to it, if it is not here, those up to `until` too. None when the pack is gone.
    pub async fn get(&self, pack: Pack, block: u64, until: u64) -> Result<Option<Bytes>, StoreError> {
        let key = move |block| (pack.0, pack.1, block);
        if let Some(bytes) = self.kept.lock().get(&key(block)).cloned() {
            self.metrics.cache_hits.add(1);
            return Ok(Some(bytes));
        }
        self.metrics.cache_misses.add(1);
        let flight = match self.flights.get(&key(block)) {
            Some(flight) => Some(flight),
            // Waits in the request itself: who goes away before its turn causes nothing.
            None => match self.reads.clone().acquire_owned().await {
                Ok(permit) => self.fetch(pack, block, until, permit),
                Err(_) => None,
            },
        };
        let Some(flight) = flight else { return Ok(None) };
        let Some(blocks) = flight.await.unwrap_or(Ok(None))? else {
            self.sizes.lock().pop(&pack);
            return Ok(None);
        };
        let found = blocks.iter().find(|(number, _)| *number == block);
        Ok(Some(found.map(|(_, bytes)| bytes.clone()).unwrap_or_default()))
    }

    fn fetch(&self, pack: Pack, block: u64, until: u64, permit: OwnedSemaphorePermit) -> Option<Fetch> {
        let key = move |block| (pack.0, pack.1, block);
        let end = until.min(block + RUN_BLOCKS).max(block + 1);
        let is_here = |next: &u64| self.kept.lock().contains(&key(*next)) || self.flights.get(&key(*next)).is_some();
        let run: Vec<Block> =
            std::iter::once(block).chain((block + 1..end).take_while(|next| !is_here(next))).map(key).collect();
        let len = run.len() as u64;
        let (store, kept, metrics) = (self.store.clone(), self.kept.clone(), self.metrics.clone());
        let fetch = move || async move {
            let _permit = permit;
            // It may have come in while this was prepared.
            if let Some(bytes) = kept.lock().get(&key(block)).cloned() {
                return Ok(Some(Arc::new(vec![(block, bytes)])));
            }
            metrics.store_reads.add(1);
            let range = ByteRange::new(block * BLOCK_LEN, (block + len) * BLOCK_LEN);
            let answer = store.get_range(&ObjectName::SharePack(pack.0, pack.1), range).await?;
            let blocks = answer.map(|bytes| Arc::new(split(&bytes, block, len)));
            for (number, bytes) in blocks.iter().flat_map(|blocks| blocks.iter()) {
                kept.lock().put(key(*number), bytes.len() as u64, bytes.clone());
            }
            Ok(blocks)
        };
        self.flights.start(&run, fetch)
    }

    pub fn kept_bytes(&self) -> u64 {
        self.kept.lock().weight()
    }
}

/// Each block in memory of its own, so that what is kept is what is counted.
fn split(bytes: &Bytes, first: u64, count: u64) -> Vec<(u64, Bytes)> {
    let pieces = bytes.chunks(BLOCK_LEN as usize).take(count as usize);
    (first..).zip(pieces).map(|(number, piece)| (number, Bytes::copy_from_slice(piece))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Fault, FaultStore, Faults, MemoryStore, Op, Rule, StoreErrorKind};

    const PACK: Pack = (LinkId([7; 16]), 1);

    fn rig(blocks_max: u64) -> (Blocks, Faults) {
        let memory = MemoryStore::default();
        let bytes: Vec<u8> = (0..6 * BLOCK_LEN + 10).map(|at| (at / BLOCK_LEN) as u8).collect();
        memory.plant(ObjectName::SharePack(PACK.0, PACK.1), bytes.into());
        let (store, faults) = FaultStore::new(Arc::new(memory));
        (Blocks::new(Arc::new(store), blocks_max * BLOCK_LEN, Arc::default()), faults)
    }

    fn gets(faults: &Faults) -> usize {
        faults.requests().iter().filter(|(op, _)| *op == Op::Get).count()
    }

    #[tokio::test]
    async fn a_thousand_who_want_a_block_cause_one_read() {
        let (blocks, faults) = rig(100);
        let all = futures::future::join_all((0..1000).map(|_| blocks.get(PACK, 2, 3))).await;
        for answer in all {
            let bytes = answer.unwrap().unwrap();
            assert!(bytes.len() as u64 == BLOCK_LEN && bytes.iter().all(|byte| *byte == 2));
        }
        assert_eq!(gets(&faults), 1);
    }

    #[tokio::test]
    async fn neighbours_come_in_one_read_and_the_last_is_short() {
        let (blocks, faults) = rig(100);
        for block in 0..7 {
            let bytes = blocks.get(PACK, block, 7).await.unwrap().unwrap();
            assert!(bytes.iter().all(|byte| u64::from(*byte) == block));
            assert_eq!(bytes.len() as u64, if block == 6 { 10 } else { BLOCK_LEN });
        }
        assert_eq!(gets(&faults), 2, "seven blocks, four in a read");
        assert!(blocks.get(PACK, 9, 10).await.unwrap().unwrap().is_empty());
        assert_eq!(blocks.size(PACK).await.unwrap(), Some(6 * BLOCK_LEN + 10));
    }

    #[tokio::test]
    async fn what_is_kept_stays_within_its_bytes() {
        let (blocks, faults) = rig(2);
        for block in 0..7 {
            blocks.get(PACK, block, block + 1).await.unwrap();
            assert!(blocks.kept_bytes() <= 2 * BLOCK_LEN);
        }
        let before = gets(&faults);
        blocks.get(PACK, 0, 1).await.unwrap();
        assert_eq!(gets(&faults), before + 1, "the first had to go");
    }

    /// However many ask a store that does not answer, and go away.
    #[tokio::test]
    async fn reads_on_their_way_are_bounded_and_who_went_away_in_line_causes_none() {
        let (blocks, faults) = rig(100);
        faults.add(Rule::on(Op::Get, Fault::Hang));
        for round in 0..3 {
            let all = futures::future::join_all((0..200).map(|pack| blocks.get((PACK.0, pack), round, round + 1)));
            tokio::time::timeout(std::time::Duration::from_millis(50), all).await.expect_err("it hangs");
            assert_eq!(gets(&faults), READS_MAX, "in round {round}");
        }
    }

    #[tokio::test]
    async fn errors_and_absence_reach_who_waits_and_are_not_kept() {
        let (blocks, faults) = rig(100);
        assert_eq!(blocks.get((PACK.0, 9), 0, 1).await.unwrap(), None);
        assert_eq!(blocks.size((PACK.0, 9)).await.unwrap(), None);
        faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Unreachable)));
        assert!(blocks.get(PACK, 0, 1).await.is_err());
        faults.clear();
        assert!(blocks.get(PACK, 0, 1).await.unwrap().is_some());
    }
}
