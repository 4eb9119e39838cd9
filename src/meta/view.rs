//! All rows as they are here and now: the replica, and over it the generations of pending rows.
//!
//! Invariants: a reader sees each `apply` and each `absorb` whole or not at all within one call, or within
//! one `ViewReader`; a generation is dropped in the same moment as its rows are in the replica. Once a view
//! is made, records reach its replica through `absorb` only. It knows nothing of intents, the journal or
//! the log.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::error::MetaError;
use super::overlay::{Layer, layer_page, live, merge};
use super::replica::{RecordApply, Replica, Usage};
use super::rows::{RowChanges, Rows};
use super::spill::{Span, Spill};
use crate::base::{ChunkId, ChunkNo};
use crate::crypto::Key;
use crate::format::RowChange;
use crate::format::link::LinkRow;
use crate::format::rows::{ChunkRow, InodeRow, KeyBytes, RowKey};

const HELD_GENERATIONS_MAX: usize = 2;
const HELD_ROWS_MAX: usize = 100_000;
const CACHE_ROWS: NonZeroUsize = NonZeroUsize::new(32 << 10).unwrap();
/// Larger rows (attributes, windows with thousands of extents) stay out of the cache.
const CACHED_LEN_MAX: usize = 4 << 10;
const RECENT_CHUNKS: NonZeroUsize = NonZeroUsize::new(256 << 10).unwrap();

/// A frozen generation's number; later ones lie over earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GenerationNo(pub u64);

pub struct View {
    replica: Arc<Replica>,
    /// Held through a read, so that nothing moves from layer to layer under it. After `moves` and the
    /// replica's writer, before all connections and `cache`.
    layers: RwLock<Layers>,
    /// One at a time freezes, commits, clears: taken first.
    moves: Mutex<()>,
    spill: Spill,
    /// What lies below the layers in memory; None is a row that is not there.
    cache: Mutex<LruCache<KeyBytes, Option<Arc<[u8]>>>>,
    /// Pending chunks by the start of their id: as the replica's index, a hint.
    recent: Mutex<LruCache<[u8; 8], ChunkNo>>,
}

struct Layers {
    active: Layer,
    /// Regular files whose rows of their own are among them.
    active_files: u64,
    /// By how much the active rows change what lies below them.
    active_usage: Usage,
    /// Oldest first, without gaps in their numbers; those that were spilled come before those in memory.
    frozen: VecDeque<Generation>,
    next: GenerationNo,
}

struct Generation {
    no: GenerationNo,
    rows: usize,
    /// Those whose rows of their own are among them.
    files: u64,
    usage: Usage,
    /// None: in the spill file.
    held: Option<Arc<Layer>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewStats {
    pub active_rows: usize,
    pub frozen_generations: usize,
    pub frozen_rows: usize,
    /// Regular files that changed, each once for every generation in which it did.
    pub files: u64,
    pub spilled_generations: usize,
    pub cached_rows: usize,
}

impl View {
    /// `overlay` is a file for what memory should not hold; what it held before is thrown away.
    pub fn new(replica: Arc<Replica>, overlay: &Path, key: &Key) -> Result<Self, MetaError> {
        let (active, active_files, active_usage) = Default::default();
        let layers = Layers { active, active_files, active_usage, frozen: VecDeque::new(), next: GenerationNo(1) };
        Ok(Self {
            replica,
            layers: RwLock::new(layers),
            moves: Mutex::new(()),
            spill: Spill::open(overlay, key)?,
            cache: Mutex::new(LruCache::new(CACHE_ROWS)),
            recent: Mutex::new(LruCache::new(RECENT_CHUNKS)),
        })
    }

    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// For several reads of one state. Whoever holds one must not ask the view itself for anything.
    pub fn read(&self) -> ViewReader<'_> {
        ViewReader { view: self, layers: self.layers.read() }
    }

    pub fn apply(&self, changes: RowChanges) {
        for (key, value) in &changes {
            self.note_chunk(key, value.as_deref());
        }
        let grown = self.growth(&changes);
        let mut layers = self.layers.write();
        layers.active_usage += grown;
        for (key, value) in changes {
            let is_inode = key.first() == Some(&b'I');
            let is_now = is_inode && is_file(value.as_deref());
            let was = is_inode && is_file(layers.active.get(&key).and_then(Option::as_deref));
            layers.active_files = layers.active_files + u64::from(is_now) - u64::from(was);
            layers.active.insert(key, value);
        }
    }

    /// Whether a freeze would find nothing.
    pub fn is_still(&self) -> bool {
        self.layers.read().active.is_empty()
    }

    /// What all files together take, with what is pending.
    pub fn usage(&self) -> Usage {
        let layers = self.layers.read();
        let mut sum = self.replica.usage();
        sum += layers.active_usage;
        layers.frozen.iter().for_each(|generation| sum += generation.usage);
        sum
    }

    /// By how much `changes` would change the usage. A row that cannot be read is not counted: whoever needs it gets
    /// the error.
    fn growth(&self, changes: &RowChanges) -> Usage {
        let rows = self.read();
        let mut usage = Usage::default();
        for (key, value) in changes.iter().filter(|(key, _)| key.first() == Some(&b'I')) {
            usage.count(value.as_deref(), 1);
            usage.count(rows.get(key).ok().flatten().as_deref(), -1);
        }
        usage
    }

    /// Ends the active generation and begins another. None when it has no rows.
    pub fn freeze(&self) -> Option<GenerationNo> {
        let _moves = self.moves.lock();
        let no = {
            let mut layers = self.layers.write();
            if layers.active.is_empty() {
                return None;
            }
            let no = layers.next;
            layers.next = GenerationNo(no.0 + 1);
            let rows = std::mem::take(&mut layers.active);
            let usage = std::mem::take(&mut layers.active_usage);
            let files = std::mem::take(&mut layers.active_files);
            layers.frozen.push_back(Generation { no, rows: rows.len(), files, usage, held: Some(Arc::new(rows)) });
            no
        };
        if let Err(error) = self.spill_oldest() {
            // It stays in memory, and the next freeze tries again.
            tracing::warn!(%error, "pending rows stay in memory");
        }
        Some(no)
    }

    /// The rows of a frozen generation, in key order; empty when it was committed or cleared.
    pub fn generation_rows(&self, no: GenerationNo) -> Result<RowChanges, MetaError> {
        let held = match self.layers.read().frozen.iter().find(|generation| generation.no == no) {
            Some(generation) => generation.held.clone(),
            None => return Ok(RowChanges::new()),
        };
        match held {
            Some(rows) => Ok(rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
            None => self.spill.rows(no),
        }
    }

    /// Those that are frozen and not committed.
    pub fn generations(&self) -> Vec<GenerationNo> {
        self.layers.read().frozen.iter().map(|generation| generation.no).collect()
    }

    /// The rows of no generation yet, sorted.
    pub fn active_rows(&self) -> RowChanges {
        let layers = self.layers.read();
        layers.active.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Applies the record that follows the head, and in the same moment drops the generation it holds (and
    /// all before that one). None for a record that others wrote.
    pub fn absorb(&self, record: &RecordApply<'_>, committed: Option<GenerationNo>) -> Result<(), MetaError> {
        let mut prepared = self.replica.prepare(record)?;
        // Not before: a freeze waits for it, and all changes for the freeze.
        let _moves = self.moves.lock();
        if committed.is_none() {
            self.merge_links(record.rows)?;
        }
        let spilled = {
            let mut layers = self.layers.write();
            prepared.publish()?;
            self.forget_cached(record.rows.iter().map(|(key, _)| key), record.rows.len());
            committed.and_then(|no| self.drop_generations(&mut layers, no))
        };
        prepared.tidy();
        drop(prepared);
        if let Err(error) = self.empty_spill(spilled) {
            // The record is in the replica, and nobody reads a spilled generation that is dropped.
            tracing::warn!(%error, "rows that are committed stay in the overlay's file");
        }
        Ok(())
    }

    /// What is pending of links that another device's record is about says from now on what both say: it comes after
    /// that record in the log. With `moves` locked, and while nothing is applied.
    fn merge_links(&self, theirs: &[RowChange]) -> Result<(), MetaError> {
        for (key, there) in theirs.iter().filter(|(key, _)| key.first() == Some(&b'L')) {
            let Some(there) = there else { continue };
            let mut layers = self.layers.write();
            let Layers { active, frozen, .. } = &mut *layers;
            if let Some(Some(said)) = active.get_mut(key) {
                *said = LinkRow::merge(said, there)?;
            }
            for Generation { no, held, .. } in frozen {
                match held {
                    Some(rows) if rows.contains_key(key) => {
                        if let Some(Some(said)) = Arc::make_mut(rows).get_mut(key) {
                            *said = LinkRow::merge(said, there)?;
                        }
                    }
                    Some(_) => {}
                    None => {
                        let span = Span { first: *no, last: *no };
                        if let Some(Some(said)) = self.spill.get(key, span)? {
                            self.spill.put(*no, [(key, &Some(LinkRow::merge(&said, there)?))].into_iter())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops a generation, and all before it, whose rows are in the replica already.
    pub fn committed(&self, no: GenerationNo) -> Result<(), MetaError> {
        let _moves = self.moves.lock();
        let spilled = self.drop_generations(&mut self.layers.write(), no);
        self.empty_spill(spilled)
    }

    /// Forgets all that is pending.
    pub fn clear(&self) -> Result<(), MetaError> {
        let _moves = self.moves.lock();
        let spilled = {
            let mut layers = self.layers.write();
            layers.active.clear();
            layers.active_files = 0;
            layers.active_usage = Usage::default();
            let newest = layers.frozen.back().map(|generation| generation.no);
            newest.and_then(|no| self.drop_generations(&mut layers, no))
        };
        self.empty_spill(spilled)
    }

    /// The chunk with this content, and its row.
    pub fn find_chunk(&self, id: &ChunkId) -> Result<Option<(ChunkNo, ChunkRow)>, MetaError> {
        let recent = self.recent.lock().get(&prefix(id)).copied();
        let rows = self.read();
        let older = std::iter::once_with(|| self.replica.chunk_by_prefix(id));
        for no in recent.into_iter().map(|no| Ok(Some(no))).chain(older) {
            if let Some(no) = no?
                && let Some(row) = rows.chunk(no)?
                && row.id == *id
            {
                return Ok(Some((no, row)));
            }
        }
        Ok(None)
    }

    /// The next write of this content stores it anew.
    pub fn forget_dedup(&self, id: &ChunkId) -> Result<(), MetaError> {
        self.recent.lock().pop(&prefix(id));
        self.replica.forget_dedup(id)
    }

    pub fn stats(&self) -> ViewStats {
        let layers = self.layers.read();
        ViewStats {
            active_rows: layers.active.len(),
            frozen_generations: layers.frozen.len(),
            frozen_rows: layers.frozen.iter().map(|generation| generation.rows).sum(),
            files: layers.frozen.iter().map(|generation| generation.files).sum::<u64>() + layers.active_files,
            spilled_generations: layers.frozen.iter().filter(|generation| generation.held.is_none()).count(),
            cached_rows: self.cache.lock().len(),
        }
    }

    /// Readers go on with the rows in memory until all of them are in the file.
    fn spill_oldest(&self) -> Result<(), MetaError> {
        loop {
            let Some((no, rows)) = self.layers.read().to_spill() else { return Ok(()) };
            self.spill.put(no, rows.iter())?;
            let mut layers = self.layers.write();
            self.forget_cached(rows.keys(), rows.len());
            if let Some(generation) = layers.frozen.iter_mut().find(|generation| generation.no == no) {
                generation.held = None;
            }
        }
    }

    /// The last of them that was in the spill file. With the layers locked: the cache must not be filled
    /// from an older state meanwhile.
    fn drop_generations(&self, layers: &mut Layers, until: GenerationNo) -> Option<GenerationNo> {
        let mut spilled = None;
        while layers.frozen.front().is_some_and(|generation| generation.no <= until) {
            let Some(generation) = layers.frozen.pop_front() else { break };
            match generation.held {
                Some(rows) => self.forget_cached(rows.keys(), rows.len()),
                None => {
                    spilled = Some(generation.no);
                    self.cache.lock().clear();
                }
            }
        }
        spilled
    }

    fn empty_spill(&self, until: Option<GenerationNo>) -> Result<(), MetaError> {
        until.map_or(Ok(()), |until| self.spill.delete(until))
    }

    fn forget_cached<'a>(&self, keys: impl Iterator<Item = &'a KeyBytes>, count: usize) {
        let mut cache = self.cache.lock();
        if count > cache.len() {
            return cache.clear();
        }
        for key in keys {
            cache.pop(key);
        }
    }

    fn note_chunk(&self, key: &[u8], value: Option<&[u8]>) {
        if key.first() == Some(&b'C')
            && let (Ok(RowKey::Chunk(no)), Some(Ok(row))) = (RowKey::decode(key), value.map(ChunkRow::decode))
        {
            self.recent.lock().put(prefix(&row.id), no);
        }
    }
}

impl Layers {
    fn spilled(&self) -> Option<Span> {
        let first = self.frozen.front().filter(|generation| generation.held.is_none())?;
        let last = self.frozen.iter().take_while(|generation| generation.held.is_none()).last()?;
        Some(Span { first: first.no, last: last.no })
    }

    /// The oldest in memory, when there is too much.
    fn to_spill(&self) -> Option<(GenerationNo, Arc<Layer>)> {
        let mut held = self.frozen.iter().filter_map(|generation| Some((generation.no, generation.held.as_ref()?)));
        let rows: usize = held.clone().map(|(_, rows)| rows.len()).sum();
        let too_much = held.clone().count() > HELD_GENERATIONS_MAX || rows > HELD_ROWS_MAX;
        let (no, rows) = held.next().filter(|_| too_much)?;
        Some((no, rows.clone()))
    }

    /// Newest first.
    fn held(&self) -> impl Iterator<Item = &Layer> {
        [&self.active].into_iter().chain(self.frozen.iter().rev().filter_map(|generation| generation.held.as_deref()))
    }
}

/// One state of the view. Writers wait for it, so it is for a few rows at a time.
pub struct ViewReader<'a> {
    view: &'a View,
    layers: RwLockReadGuard<'a, Layers>,
}

impl Rows for ViewReader<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        if let Some(value) = self.layers.held().find_map(|layer| layer.get(key)) {
            return Ok(value.clone());
        }
        if let Some(value) = self.view.cache.lock().get(key) {
            return Ok(value.as_deref().map(<[u8]>::to_vec));
        }
        let spilled = match self.layers.spilled() {
            Some(span) => self.view.spill.get(key, span)?,
            None => None,
        };
        let value = match spilled {
            Some(value) => value,
            None => self.view.replica.get(key)?,
        };
        if value.as_ref().is_none_or(|value| value.len() <= CACHED_LEN_MAX) {
            self.view.cache.lock().put(key.to_vec(), value.as_deref().map(Arc::from));
        }
        Ok(value)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        let held: Vec<&Layer> = self.layers.held().filter(|layer| !layer.is_empty()).collect();
        let spilled = self.layers.spilled();
        if held.is_empty() && spilled.is_none() {
            return self.view.replica.scan(prefix, after, limit);
        }
        let spilled_at = held.len();
        let layers = held.len() + 1 + usize::from(spilled.is_some());
        merge(after, limit, layers, |layer, after, want| match (held.get(layer), spilled) {
            (Some(held), _) => Ok(layer_page(held, prefix, after, want)),
            (None, Some(span)) if layer == spilled_at => self.view.spill.page(prefix, after, want, span),
            (None, _) => Ok(live(self.view.replica.scan(prefix, after, want)?)),
        })
    }
}

/// Each call by itself sees one state.
impl Rows for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        self.read().get(key)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        self.read().scan(prefix, after, limit)
    }
}

fn prefix(id: &ChunkId) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    [a, b, c, d, e, f, g, h]
}

/// Of an inode's row.
fn is_file(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| InodeRow::decode(value).is_ok_and(|row| row.is_file()))
}

#[cfg(test)]
mod tests;
