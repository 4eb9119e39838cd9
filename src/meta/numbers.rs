//! The numbers that this device gives out: inodes, chunks, keys and packs.
//!
//! Invariant: none is given out twice, whatever becomes of the run that did: a bound above all of them is durable in
//! the state folder before the first, and the next run begins there. What the log says of the counters may be older:
//! a record can be in the store and nobody here ever hear of it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::MetaError;
use super::keyring::{KeyringError, StateFolder};
use crate::base::{ChunkNo, DeviceSlot, Entropy, InodeId, KeyNo, Numbers, PackNo, VolumeId};
use crate::crypto::Key;
use crate::format::state::{decode_numbers, encode_numbers};

/// So many numbers of each kind are reserved at a time. Each run leaves the rest of its own unused: there are enough
/// for a million runs.
const BLOCK: u64 = 1 << 28;
/// No two cuts are so many numbers apart.
const RESERVE_MIN: u64 = BLOCK / 2;
/// A run whose bound is lost begins this far above what the log says.
const UNKNOWN: u64 = 1 << 36;

const FILE: &str = "numbers";

/// Makes a bound durable.
pub type Keep = Box<dyn Fn(&Numbers) -> Result<(), MetaError> + Send + Sync>;

pub struct Counters {
    slot: DeviceSlot,
    inode: AtomicU64,
    chunk: AtomicU64,
    key: AtomicU64,
    pack: AtomicU64,
    /// All that are given out are below it.
    bound: Mutex<Numbers>,
    keep: Keep,
}

impl Counters {
    /// From `first` on.
    pub fn begin(slot: DeviceSlot, first: Numbers, keep: Keep) -> Result<Self, MetaError> {
        let bound = above(&first, BLOCK);
        if [bound.inode, bound.chunk, bound.key, bound.pack].iter().any(|bound| *bound >= 1 << DeviceSlot::COUNTER_BITS)
        {
            return Err(MetaError::NumbersUsedUp);
        }
        keep(&bound)?;
        Ok(Self {
            slot,
            inode: first.inode.into(),
            chunk: first.chunk.into(),
            key: first.key.into(),
            pack: first.pack.into(),
            bound: Mutex::new(bound),
            keep,
        })
    }

    pub fn inode(&self) -> InodeId {
        InodeId(self.number(&self.inode))
    }

    pub fn chunk(&self) -> ChunkNo {
        ChunkNo(self.number(&self.chunk))
    }

    pub fn key(&self) -> KeyNo {
        KeyNo(self.number(&self.key))
    }

    pub fn pack(&self) -> PackNo {
        PackNo(self.number(&self.pack))
    }

    fn number(&self, counter: &AtomicU64) -> u64 {
        self.slot.number(counter.fetch_add(1, Ordering::Relaxed))
    }

    /// The next ones.
    pub fn next(&self) -> Numbers {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Numbers { inode: load(&self.inode), chunk: load(&self.chunk), key: load(&self.key), pack: load(&self.pack) }
    }

    /// Those that replayed intents hold must not be given out again.
    pub fn skip_to(&self, next: Numbers) {
        for (counter, at_least) in
            [(&self.inode, next.inode), (&self.chunk, next.chunk), (&self.key, next.key), (&self.pack, next.pack)]
        {
            counter.fetch_max(at_least, Ordering::Relaxed);
        }
    }

    /// To be called at each cut: further numbers are reserved long before they are needed.
    pub fn reserve(&self) -> Result<(), MetaError> {
        let mut bound = self.bound.lock();
        let wanted = above(&self.next(), RESERVE_MIN);
        if wanted == wanted.min(*bound) {
            return Ok(());
        }
        let raised = above(&wanted.max(*bound), BLOCK);
        (self.keep)(&raised)?;
        *bound = raised;
        Ok(())
    }
}

fn above(numbers: &Numbers, by: u64) -> Numbers {
    Numbers { inode: numbers.inode + by, chunk: numbers.chunk + by, key: numbers.key + by, pack: numbers.pack + by }
}

/// What a run of this folder begins with. `logged` is what the log says.
pub(super) fn first(
    folder: &StateFolder,
    key: &Key,
    volume: VolumeId,
    logged: Option<Numbers>,
) -> Result<Numbers, KeyringError> {
    let logged = logged.unwrap_or(Numbers::FIRST);
    match folder.sealed(FILE, key, volume).map(|plain| plain.map(|plain| decode_numbers(&plain))) {
        Ok(Some(Ok(kept))) => Ok(kept.max(logged)),
        // The folder's first run.
        Ok(None) if logged == Numbers::FIRST => Ok(logged),
        Ok(None) => Ok(above(&logged, UNKNOWN)),
        Ok(Some(Err(_))) | Err(KeyringError::DamagedState { .. }) => {
            tracing::warn!("{FILE} in the state folder is damaged: numbers begin far above those in the log");
            Ok(above(&logged, UNKNOWN))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn put(
    folder: &StateFolder,
    key: &Key,
    volume: VolumeId,
    bound: &Numbers,
    entropy: &dyn Entropy,
) -> Result<(), MetaError> {
    folder.put_sealed(FILE, key, volume, &encode_numbers(bound), entropy).map_err(|error| match error {
        KeyringError::State { path, source } if source.kind() == std::io::ErrorKind::StorageFull => {
            MetaError::DiskFull { path, source: Box::new(source) }
        }
        KeyringError::State { path, source } => MetaError::Io { path, source: Box::new(source) },
        error => MetaError::Io { path: folder.dir().join(FILE), source: Box::new(error) },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::meta::error::Cause;

    const SLOT: DeviceSlot = DeviceSlot(3);

    #[test]
    fn each_number_is_below_a_bound_that_was_kept_before() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = {
            let kept = kept.clone();
            Box::new(move |bound: &Numbers| {
                kept.lock().push(*bound);
                Ok(())
            })
        };
        let counters = Counters::begin(SLOT, Numbers::FIRST, keep).unwrap();
        assert_eq!(kept.lock().as_slice(), [above(&Numbers::FIRST, BLOCK)]);
        assert_eq!(counters.inode(), InodeId(SLOT.number(2)));
        assert_eq!(counters.inode(), InodeId(SLOT.number(3)));
        counters.reserve().unwrap();
        assert_eq!(kept.lock().len(), 1, "there are enough");
        counters.skip_to(Numbers { chunk: BLOCK - 5, ..Numbers::FIRST });
        counters.reserve().unwrap();
        let bound = kept.lock().last().copied().unwrap();
        assert!(bound.chunk > BLOCK + RESERVE_MIN && bound.inode > BLOCK, "{bound:?}");
        assert_eq!(counters.chunk(), ChunkNo(SLOT.number(BLOCK - 5)));
    }

    #[test]
    fn a_bound_that_cannot_be_kept_is_an_error_each_time() {
        let failing =
            || Box::new(|_: &Numbers| Err(MetaError::Io { path: "numbers".into(), source: Cause::from("no") }));
        assert!(Counters::begin(SLOT, Numbers::FIRST, failing()).is_err());
        let last = Numbers { pack: (1 << DeviceSlot::COUNTER_BITS) - 5, ..Numbers::FIRST };
        let used_up = Counters::begin(SLOT, last, Box::new(|_| Ok(())));
        assert!(matches!(used_up, Err(MetaError::NumbersUsedUp)));
    }
}
