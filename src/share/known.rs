//! Which chunks of a link are in the store, so that nothing is uploaded twice: after an interruption, and when a live
//! link is published again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;

use crate::base::{ByteRange, ChunkId, LinkId, Timestamp};
use crate::crypto::Key;
use crate::format::ObjectName;
use crate::format::link::{ChunkRef, LINK_TRAILER_LEN, decode_link_footer, decode_link_trailer};
use crate::store::{Store, StoreError};

use super::waste::{self, PackUse};

const REQUESTS: usize = 16;
/// What is read of a pack at first: most footers are shorter.
const TAIL_LEN: u64 = 128 << 10;

/// About 200 bytes for each chunk.
#[derive(Default)]
pub(super) struct Known {
    /// Packs whose footers were read, and how many bytes of chunks are in each.
    packs: BTreeMap<u64, u64>,
    /// How many of them the newest version names.
    used: BTreeMap<u64, u64>,
    chunks: HashMap<ChunkId, ChunkRef>,
    /// The newest version, and when it was last begun to compare all that is shared with it.
    walked: Option<(u64, Timestamp)>,
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
        self.keep_only(there);
        let new: Vec<u64> = there.iter().copied().filter(|pack| !self.packs.contains_key(pack)).collect();
        let footers = new.into_iter().map(|pack| async move { (pack, footer(store, link, key, pack).await) });
        let mut footers = futures::stream::iter(footers).buffer_unordered(REQUESTS);
        while let Some((pack, chunks)) = footers.next().await {
            let chunks = chunks?.unwrap_or_else(|| {
                tracing::warn!("pack {pack} of link {link} is none of ours, or damaged; it is not used");
                Vec::new()
            });
            self.packs.insert(pack, chunks.iter().map(|chunk| chunk.span().len()).sum());
            chunks.into_iter().for_each(|chunk| self.add(chunk));
        }
        Ok(())
    }

    pub fn keep_only(&mut self, packs: &BTreeSet<u64>) {
        self.packs.retain(|pack, _| packs.contains(pack));
        self.chunks.retain(|_, chunk| packs.contains(&chunk.pack));
    }

    /// Packs that this device made need not be read.
    pub fn note_pack(&mut self, pack: u64, chunk_bytes: u64) {
        self.packs.insert(pack, chunk_bytes);
    }

    /// How many bytes of each pack the version names that was published now.
    pub fn note_use(&mut self, used: &BTreeMap<u64, u64>) {
        self.used.clone_from(used);
    }

    pub fn note_walk(&mut self, version: u64, begun: Timestamp) {
        self.walked = Some((version, begun));
    }

    /// When all that is shared was last found to be as that version says.
    pub fn walked(&self, version: u64) -> Option<Timestamp> {
        self.walked.filter(|(of, _)| *of == version).map(|(_, begun)| begun)
    }

    /// Packs that the next version should not name.
    pub fn to_rewrite(&self) -> BTreeSet<u64> {
        let with_size = |(pack, used): (&u64, &u64)| {
            self.packs.get(pack).map(|filled| PackUse { pack: *pack, filled: *filled, used: *used })
        };
        waste::to_rewrite(&self.used.iter().filter_map(with_size).collect::<Vec<_>>())
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
