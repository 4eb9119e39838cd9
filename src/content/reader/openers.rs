//! Openers of chunks that were read a moment ago: deriving one's keys takes as long as opening a small frame.

use std::sync::Arc;

use parking_lot::Mutex;

use super::ChunkSource;
use crate::base::{ChunkId, PackName};
use crate::crypto::ChunkOpener;

/// Direct-mapped: a chunk has one slot, and the last one read there keeps it.
pub(super) struct Openers {
    slots: Box<[Mutex<Option<Slot>>]>,
}

struct Slot {
    pack: PackName,
    offset: u32,
    id: ChunkId,
    opener: Arc<ChunkOpener>,
}

const SLOTS: usize = 256;

impl Openers {
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::new(None)).collect() }
    }

    pub fn get(&self, source: &ChunkSource) -> Option<Arc<ChunkOpener>> {
        self.slot(source).lock().as_ref().filter(|slot| slot.is_of(source)).map(|slot| slot.opener.clone())
    }

    pub fn put(&self, source: &ChunkSource, opener: Arc<ChunkOpener>) {
        let slot = Slot { pack: source.pack, offset: source.row.offset, id: source.row.id, opener };
        *self.slot(source).lock() = Some(slot);
    }

    pub fn remove(&self, source: &ChunkSource) {
        let mut slot = self.slot(source).lock();
        if slot.as_ref().is_some_and(|slot| slot.is_of(source)) {
            *slot = None;
        }
    }

    /// Chunk numbers are counted, so neighbours in a file get neighbouring slots.
    fn slot(&self, source: &ChunkSource) -> &Mutex<Option<Slot>> {
        &self.slots[source.chunk.0 as usize % SLOTS]
    }
}

impl Slot {
    /// Its place too: the same content sealed again elsewhere has other keys.
    fn is_of(&self, source: &ChunkSource) -> bool {
        (self.pack, self.offset, self.id) == (source.pack, source.row.offset, source.row.id)
    }
}
