//! Which chunks of a link are in the store, so that nothing is uploaded twice: after an interruption, and when a live
//! link is published again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;

use crate::base::{ByteRange, ChunkId, LinkId};
use crate::crypto::Key;
use crate::format::ObjectName;
use crate::format::link::{ChunkRef, LINK_TRAILER_LEN, decode_link_footer, decode_link_trailer};
use crate::store::{Store, StoreError};

const REQUESTS: usize = 16;
/// What is read of a pack at first: most footers are shorter.
const TAIL_LEN: u64 = 128 << 10;

/// About 200 bytes for each chunk.
#[derive(Default)]
pub(super) struct Known {
    /// Packs whose footers were read.
    packs: BTreeSet<u64>,
    chunks: HashMap<ChunkId, ChunkRef>,
}

impl Known {
    pub fn get(&self, id: &ChunkId) -> Option<&ChunkRef> {
        self.chunks.get(id)
    }

    pub fn add(&mut self, chunk: ChunkRef) {
        self.chunks.insert(chunk.id, chunk);
    }

    /// Reads the footers of packs that are new here, and forgets packs that are not there any more. A pack without a
    /// footer of ours is left alone: nothing refers to it.
    pub async fn follow(
        &mut self,
        store: &Arc<dyn Store>,
        link: LinkId,
        key: &Key,
        there: &BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        self.packs.retain(|pack| there.contains(pack));
        self.chunks.retain(|_, chunk| there.contains(&chunk.pack));
        let new: Vec<u64> = there.difference(&self.packs).copied().collect();
        let footers = new.into_iter().map(|pack| async move { (pack, footer(store, link, key, pack).await) });
        let mut footers = futures::stream::iter(footers).buffer_unordered(REQUESTS);
        while let Some((pack, chunks)) = footers.next().await {
            match chunks? {
                Some(chunks) => chunks.into_iter().for_each(|chunk| self.add(chunk)),
                None => tracing::warn!("pack {pack} of link {link} is none of ours, or damaged; it is not used"),
            }
            self.packs.insert(pack);
        }
        Ok(())
    }

    /// Packs that this device made need not be read.
    pub fn note_pack(&mut self, pack: u64) {
        self.packs.insert(pack);
    }
}

/// None: it cannot be read as one of ours.
async fn footer(
    store: &Arc<dyn Store>,
    link: LinkId,
    key: &Key,
    pack: u64,
) -> Result<Option<Vec<ChunkRef>>, StoreError> {
    let name = ObjectName::SharePack(link, pack);
    let Some(len) = store.size(&name).await? else { return Ok(None) };
    let start = len.saturating_sub(TAIL_LEN);
    let Some(tail) = store.get_range(&name, ByteRange::new(start, len)).await? else { return Ok(None) };
    let Ok(place) = decode_link_trailer(&tail, len, link, pack, key) else { return Ok(None) };
    let sealed = match place.start.checked_sub(start) {
        Some(at) if tail.len() as u64 == len - start => tail.slice(at as usize..tail.len() - LINK_TRAILER_LEN),
        Some(_) => return Ok(None),
        None => match store.get_range(&name, place).await? {
            Some(sealed) => sealed,
            None => return Ok(None),
        },
    };
    Ok(decode_link_footer(place, &sealed, link, pack, key).ok())
}
