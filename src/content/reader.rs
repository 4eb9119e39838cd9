//! From a chunk's row to its plaintext: out of the staging file, the cache, or the store.
//!
//! Invariants: only bytes that authenticated are handed out; only the frames that hold what was asked for are
//! opened; cached blocks that fail are dropped and fetched anew once before the chunk is called damaged.
//! Knows no files: the layer above turns a file's range into chunks and ranges in them.

mod openers;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::openers::Openers;
use super::ContentError;
use super::staging::Staging;
use crate::base::{BLOCK_LEN, ByteRange, ChunkNo, PackName, VolumeId};
use crate::cache::{BlockCache, Fetcher};
use crate::crypto::{CHUNK_HEADER_LEN, ChunkOpener, CryptoError, Key};
use crate::format::chunk::{FrameSpan, frame_span, header_span, open_frames};
use crate::format::rows::ChunkRow;

/// Fetches ahead that may run at once; more are left to the reads themselves.
const WARMING_MAX: usize = 32;

/// All that it takes to read a chunk.
#[derive(Clone)]
pub struct ChunkSource {
    pub chunk: ChunkNo,
    pub row: ChunkRow,
    /// The name of the row's pack.
    pub pack: PackName,
    /// The key that the row names.
    pub file_key: Arc<Key>,
}

pub struct ChunkReader {
    volume: VolumeId,
    staging: Arc<Staging>,
    cache: Arc<BlockCache>,
    fetcher: Fetcher,
    /// How long a read waits for the store.
    patience: Duration,
    openers: Openers,
    damaged: Mutex<HashSet<ChunkNo>>,
    warming: Semaphore,
}

/// What a read needs to open its frames, and where in the pack it is.
struct Need {
    key: KeyNeed,
    frames: ByteRange,
}

enum KeyNeed {
    Known(Arc<ChunkOpener>),
    Header(ByteRange),
}

/// Where blocks may come from.
#[derive(Clone, Copy)]
enum Origin {
    Anywhere,
    Store,
}

/// The sealed bytes; the header only if it was needed.
struct Sealed {
    header: Option<Bytes>,
    frames: Bytes,
}

impl ChunkReader {
    pub fn new(
        volume: VolumeId,
        staging: Arc<Staging>,
        cache: Arc<BlockCache>,
        fetcher: Fetcher,
        patience: Duration,
    ) -> Self {
        Self {
            volume,
            staging,
            cache,
            fetcher,
            patience,
            openers: Openers::new(),
            damaged: Mutex::default(),
            warming: Semaphore::new(WARMING_MAX),
        }
    }

    /// Fills `out` with what `range` of the chunk holds, which is as long; false if that would take the network.
    pub fn try_read(&self, source: &ChunkSource, range: ByteRange, out: &mut [u8]) -> Result<bool, ContentError> {
        let span = source.span(range)?;
        let need = self.need(source, &span);
        if let Some(sealed) = self.staged(source, &need)? {
            return match self.open(source, &span, &need, &sealed, range, out) {
                Ok(()) => Ok(true),
                Err(_) if self.staging.is_uploaded(source.pack) => Ok(false),
                // There is no other copy to try.
                Err(_) => Err(self.note_damaged(source)),
            };
        }
        let Some(sealed) = need.collect(|range| self.cache.read(source.pack, range)) else { return Ok(false) };
        if self.open(source, &span, &need, &sealed, range, out).is_ok() {
            return Ok(true);
        }
        self.forget(source, &need);
        Ok(false)
    }

    /// As `try_read`, with the network, and with a deadline for it.
    pub async fn read(&self, source: &ChunkSource, range: ByteRange, out: &mut [u8]) -> Result<(), ContentError> {
        if self.try_read(source, range, out)? {
            return Ok(());
        }
        let span = source.span(range)?;
        let deadline = Instant::now() + self.patience;
        // What the fetcher gives may be from the cache, where a block can be evicted as it is read.
        for from in [Origin::Anywhere, Origin::Store] {
            let need = self.need(source, &span);
            let blocks = match self.fetch(source.pack, &need, from, deadline).await {
                Ok(blocks) => blocks,
                Err(error @ ContentError::Missing { .. }) => {
                    self.note_damaged(source);
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            let block = |wanted| blocks.iter().find(|(no, _)| *no == wanted).map(|(_, bytes)| bytes.clone());
            let sealed = need.collect(|range| from_blocks(range, block));
            if sealed.is_some_and(|sealed| self.open(source, &span, &need, &sealed, range, out).is_ok()) {
                return Ok(());
            }
            self.forget(source, &need);
        }
        Err(self.note_damaged(source))
    }

    /// Brings what `range` of the chunk needs into the cache. Does nothing if it is here or too much is under way,
    /// and hides failures: the read itself will meet them, if it comes to it.
    pub async fn warm(&self, source: &ChunkSource, range: ByteRange) {
        let Ok(span) = source.span(range) else { return };
        let Ok(_permit) = self.warming.try_acquire() else { return };
        if self.staging.has(source.pack) {
            return;
        }
        let need = self.need(source, &span);
        if need.block_runs().all(|run| self.cache.has(source.pack, run)) {
            return;
        }
        let fetched = self.fetch(source.pack, &need, Origin::Anywhere, Instant::now() + self.patience).await;
        if let Err(error) = fetched {
            tracing::debug!(pack = %source.pack, %error, "fetching ahead failed");
        }
    }

    /// Some of it has failed verification, or its pack is gone: content that is equal must be stored anew. That other frames still
    /// read does not change it.
    pub fn is_damaged(&self, chunk: ChunkNo) -> bool {
        self.damaged.lock().contains(&chunk)
    }

    pub fn damaged_chunks(&self) -> u64 {
        self.damaged.lock().len() as u64
    }

    fn need(&self, source: &ChunkSource, span: &FrameSpan) -> Need {
        let key = match self.openers.get(source) {
            Some(opener) => KeyNeed::Known(opener),
            None => KeyNeed::Header(header_span(&source.row)),
        };
        Need { key, frames: span.sealed }
    }

    fn staged(&self, source: &ChunkSource, need: &Need) -> Result<Option<Sealed>, ContentError> {
        let mut failed = None;
        let sealed = need.collect(|range| match self.staging.read(source.pack, range) {
            Ok(bytes) => bytes.map(Bytes::from),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        failed.map_or(Ok(sealed), Err)
    }

    async fn fetch(
        &self,
        pack: PackName,
        need: &Need,
        from: Origin,
        deadline: Instant,
    ) -> Result<Vec<(u32, Bytes)>, ContentError> {
        let fetches = need.block_runs().map(|run| async move {
            let blocks = match from {
                Origin::Anywhere => self.fetcher.fetch(pack, run.clone(), deadline).await?,
                Origin::Store => self.fetcher.fetch_anew(pack, run.clone(), deadline).await?,
            };
            Ok::<_, ContentError>(run.zip(blocks).collect::<Vec<_>>())
        });
        Ok(futures::future::try_join_all(fetches).await?.concat())
    }

    fn open(
        &self,
        source: &ChunkSource,
        span: &FrameSpan,
        need: &Need,
        sealed: &Sealed,
        wanted: ByteRange,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        let opener = match (&need.key, &sealed.header) {
            (KeyNeed::Known(opener), _) => opener.clone(),
            (KeyNeed::Header(_), header) => {
                let header = header.as_ref().and_then(|header| header.first_chunk::<CHUNK_HEADER_LEN>());
                let header = header.ok_or(CryptoError::Authentication)?;
                let opener = Arc::new(ChunkOpener::new(&source.file_key, self.volume, &source.row.id, header)?);
                self.openers.put(source, opener.clone());
                opener
            }
        };
        open_frames(&opener, &source.row, span, &sealed.frames, wanted, out)
    }

    /// So that the next try takes all of it from the store.
    fn forget(&self, source: &ChunkSource, need: &Need) {
        self.openers.remove(source);
        for block in need.block_runs().flatten() {
            self.cache.drop_block(source.pack, block);
        }
    }

    fn note_damaged(&self, source: &ChunkSource) -> ContentError {
        self.damaged.lock().insert(source.chunk);
        self.openers.remove(source);
        ContentError::Damaged { pack: source.pack, chunk: source.chunk }
    }
}

impl ChunkSource {
    fn span(&self, range: ByteRange) -> Result<FrameSpan, ContentError> {
        frame_span(&self.row, range).ok_or(ContentError::BadRow { pack: self.pack, chunk: self.chunk })
    }
}

impl Need {
    fn header(&self) -> Option<ByteRange> {
        match self.key {
            KeyNeed::Known(_) => None,
            KeyNeed::Header(range) => Some(range),
        }
    }

    /// Reads all that is needed; None if some of it is not there.
    fn collect(&self, mut read: impl FnMut(ByteRange) -> Option<Bytes>) -> Option<Sealed> {
        let Some(header) = self.header() else {
            return Some(Sealed { header: None, frames: read(self.frames)? });
        };
        if header.end == self.frames.start {
            // Neighbours: one read gets both.
            let mut header = read(ByteRange::new(header.start, self.frames.end))?;
            let frames = header.split_off(CHUNK_HEADER_LEN);
            return Some(Sealed { header: Some(header), frames });
        }
        Some(Sealed { header: Some(read(header)?), frames: read(self.frames)? })
    }

    /// Runs of neighbouring blocks, one or two.
    fn block_runs(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let frames = blocks_of(self.frames);
        let runs = match self.header().map(blocks_of) {
            None => [None, Some(frames)],
            Some(header) if header.end >= frames.start => [None, Some(header.start..frames.end)],
            Some(header) => [Some(header), Some(frames)],
        };
        runs.into_iter().flatten()
    }
}

fn blocks_of(range: ByteRange) -> Range<u32> {
    (range.start / BLOCK_LEN) as u32..range.end.div_ceil(BLOCK_LEN) as u32
}

/// From whole blocks; None if one is missing or too short. Without a copy if one block has all of it.
fn from_blocks(range: ByteRange, block: impl Fn(u32) -> Option<Bytes>) -> Option<Bytes> {
    let part = |no: u32| {
        let start = u64::from(no) * BLOCK_LEN;
        let wanted = ByteRange::new(start, start + BLOCK_LEN).intersect(range)?;
        let (from, to) = ((wanted.start - start) as usize, (wanted.end - start) as usize);
        let bytes = block(no)?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    };
    let blocks = blocks_of(range);
    if blocks.len() == 1 {
        return part(blocks.start);
    }
    let mut out = Vec::with_capacity(range.len() as usize);
    for no in blocks {
        out.extend_from_slice(&part(no)?);
    }
    Some(out.into())
}

#[cfg(test)]
mod tests;
