//! Blocks from the store: one request for each block however many wait for it, neighbours in one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::blocks::BlockCache;
use crate::base::{BLOCK_LEN, ByteRange, PackName};
use crate::format::ObjectName;
use crate::store::{Store, StoreError};

/// Cheap to clone: everyone who waited is told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0} is missing from the store")]
    Missing(PackName),
    #[error("no answer from the store in time for {0}")]
    Timeout(PackName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Run = Shared<BoxFuture<'static, Result<Arc<Vec<Bytes>>, FetchError>>>;

#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    cache: Arc<BlockCache>,
    /// A block that is on its way: the run it is in, and the run's first block.
    flying: Mutex<HashMap<(PackName, u32), (u32, Run)>>,
}

impl Fetcher {
    pub fn new(store: Arc<dyn Store>, cache: Arc<BlockCache>) -> Self {
        Self { shared: Arc::new(Inner { store, cache, flying: Mutex::default() }) }
    }

    /// The blocks, from the cache or the store. Those at and behind the pack's end are short or empty.
    pub async fn fetch(&self, pack: PackName, blocks: Range<u32>, deadline: Instant) -> Result<Vec<Bytes>, FetchError> {
        let all = futures::future::try_join_all(self.plan(pack, blocks.clone()).into_iter().map(Planned::wait));
        match tokio::time::timeout_at(deadline, all).await {
            Ok(result) => result,
            Err(_) => {
                // Who comes later asks anew instead of waiting for what does not come.
                let mut flying = self.shared.flying.lock();
                blocks.for_each(|block| drop(flying.remove(&(pack, block))));
                Err(FetchError::Timeout(pack))
            }
        }
    }

    /// As `fetch`, from the store whatever is here.
    pub async fn fetch_anew(
        &self,
        pack: PackName,
        blocks: Range<u32>,
        deadline: Instant,
    ) -> Result<Vec<Bytes>, FetchError> {
        match tokio::time::timeout_at(deadline, self.shared.clone().get(pack, blocks)).await {
            Ok(result) => result.map(|blocks| blocks.to_vec()),
            Err(_) => Err(FetchError::Timeout(pack)),
        }
    }

    fn plan(&self, pack: PackName, blocks: Range<u32>) -> Vec<Planned> {
        let cached: Vec<Option<Bytes>> = blocks.clone().map(|block| self.shared.cache.get(pack, block)).collect();
        let mut flying = self.shared.flying.lock();
        let mut planned: Vec<Planned> = Vec::new();
        let mut missing: Option<Range<u32>> = None;
        for (block, cached) in blocks.clone().zip(cached) {
            let known = match cached {
                Some(bytes) => Some(Planned::Here(bytes)),
                None => flying.get(&(pack, block)).map(|(first, run)| Planned::Flying(block - first, run.clone())),
            };
            match known {
                Some(known) => {
                    self.start(&mut flying, pack, missing.take(), &mut planned);
                    planned.push(known);
                }
                None => missing = Some(missing.map_or(block, |run| run.start)..block + 1),
            }
        }
        self.start(&mut flying, pack, missing, &mut planned);
        planned
    }

    fn start(
        &self,
        flying: &mut HashMap<(PackName, u32), (u32, Run)>,
        pack: PackName,
        run: Option<Range<u32>>,
        planned: &mut Vec<Planned>,
    ) {
        let Some(blocks) = run else { return };
        // On its own: it must end, and leave `flying`, also if nobody waits for it any more.
        let running = tokio::spawn(self.shared.clone().get(pack, blocks.clone()));
        let future = async move { running.await.unwrap_or(Err(FetchError::Timeout(pack))) }.boxed().shared();
        for block in blocks.clone() {
            flying.insert((pack, block), (blocks.start, future.clone()));
            planned.push(Planned::Flying(block - blocks.start, future.clone()));
        }
    }
}

enum Planned {
    Here(Bytes),
    /// The block's place in the run.
    Flying(u32, Run),
}

impl Planned {
    async fn wait(self) -> Result<Bytes, FetchError> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::Flying(at, run) => Ok(run.await?.get(at as usize).cloned().unwrap_or_default()),
        }
    }
}

impl Inner {
    async fn get(self: Arc<Self>, pack: PackName, blocks: Range<u32>) -> Result<Arc<Vec<Bytes>>, FetchError> {
        let range = ByteRange::new(u64::from(blocks.start) * BLOCK_LEN, u64::from(blocks.end) * BLOCK_LEN);
        let answer = self.store.get_range(&ObjectName::Pack(pack), range).await;
        let result = match answer {
            Ok(Some(bytes)) => Ok(Arc::new(split(&bytes, blocks.len()))),
            Ok(None) => Err(FetchError::Missing(pack)),
            Err(error) => Err(FetchError::Store(error)),
        };
        if let Ok(parts) = &result {
            for (block, bytes) in blocks.clone().zip(parts.iter()) {
                self.cache.put(pack, block, bytes);
            }
        }
        // In the cache first: who comes in between finds it there or here.
        let mut flying = self.flying.lock();
        for block in blocks {
            flying.remove(&(pack, block));
        }
        result
    }
}

/// Cuts a reply into `count` blocks; what a short reply lacks is empty. A longer one than asked is cut off.
fn split(bytes: &Bytes, count: usize) -> Vec<Bytes> {
    let len = BLOCK_LEN as usize;
    (0..count).map(|block| bytes.slice((block * len).min(bytes.len())..((block + 1) * len).min(bytes.len()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Incarnation;
    use crate::disk::RealDisk;
    use crate::store::{Fault, FaultStore, Faults, MemoryStore, Op, Rule};

    const PACK: PackName = PackName { incarnation: Incarnation([2; 16]), number: 1 };

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn rig(dir: &std::path::Path) -> (Faults, Arc<BlockCache>, Fetcher) {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::default()));
        let bytes: Vec<u8> = (0..3 * BLOCK_LEN + 10).map(|at| (at / BLOCK_LEN) as u8).collect();
        store.create(&ObjectName::Pack(PACK), bytes.into()).await.expect("create");
        let cache = Arc::new(BlockCache::open(Arc::new(RealDisk), dir.into(), 1 << 30));
        let fetcher = Fetcher::new(Arc::new(store), cache.clone());
        (faults, cache, fetcher)
    }

    fn gets(faults: &Faults) -> usize {
        faults.requests().iter().filter(|(op, _)| *op == Op::Get).count()
    }

    #[tokio::test]
    async fn many_who_wait_for_a_block_cause_one_request() {
        let dir = tempfile::tempdir().expect("a folder");
        let (faults, cache, fetcher) = rig(dir.path()).await;
        let before = gets(&faults);
        let waits = (0..20).map(|_| fetcher.fetch(PACK, 0..4, soon()));
        for blocks in futures::future::try_join_all(waits).await.expect("fetched") {
            assert_eq!(blocks.iter().map(Bytes::len).collect::<Vec<_>>(), [262_144, 262_144, 262_144, 10]);
            assert!(blocks.iter().enumerate().all(|(at, block)| block.iter().all(|byte| usize::from(*byte) == at)));
        }
        assert_eq!(gets(&faults) - before, 1);
        assert!(cache.get(PACK, 3).is_some_and(|block| block.len() == 10));
        fetcher.fetch(PACK, 1..3, soon()).await.expect("cached");
        assert_eq!(gets(&faults) - before, 1, "a cached block was asked for");
    }

    #[tokio::test]
    async fn a_dropped_block_is_fetched_again_and_only_that() {
        let dir = tempfile::tempdir().expect("a folder");
        let (_, cache, fetcher) = rig(dir.path()).await;
        fetcher.fetch(PACK, 0..4, soon()).await.expect("fetched");
        cache.drop_block(PACK, 1);
        assert!(cache.get(PACK, 1).is_none());
        let blocks = fetcher.fetch(PACK, 0..3, soon()).await.expect("fetched");
        assert!(blocks[1].iter().all(|byte| *byte == 1));
        assert!(cache.get(PACK, 1).is_some());
    }

    #[tokio::test]
    async fn a_fetch_whose_waiter_is_gone_ends_all_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let (_, cache, fetcher) = rig(dir.path()).await;
        let mut fetch = Box::pin(fetcher.fetch(PACK, 0..4, soon()));
        assert!(futures::poll!(&mut fetch).is_pending());
        drop(fetch);
        for _ in 0..100 {
            if cache.get(PACK, 3).is_some() && fetcher.shared.flying.lock().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the blocks are not here, and whoever wants them waits for nobody");
    }

    #[tokio::test]
    async fn errors_reach_everyone_and_are_not_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        let (faults, _, fetcher) = rig(dir.path()).await;
        let missing = PackName { number: 9, ..PACK };
        assert!(
            matches!(fetcher.fetch(missing, 0..1, soon()).await, Err(FetchError::Missing(name)) if name == missing)
        );
        faults.add(Rule::on(Op::Get, Fault::Hang));
        let deadline = Instant::now() + Duration::from_millis(50);
        assert!(matches!(fetcher.fetch(PACK, 0..1, deadline).await, Err(FetchError::Timeout(_))));
        faults.clear();
        // Who comes later does not wait for the one that hung.
        assert!(fetcher.fetch(PACK, 0..1, soon()).await.is_ok());
    }
}
