//! What this device did and the log does not hold yet: intents are numbered and chained, resolved into the
//! overlay at once, kept for the journal, and cut into generations for the committer.
//!
//! Invariants: an intent's rows are in the view before its number is known to anyone; numbers have no gaps;
//! the journal gets intents in order; a generation's high-water covers exactly the intents whose rows it holds.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::MetaError;
use super::journal::{FrameNo, Journal};
use super::numbers::Counters;
use super::overlay::Scratch;
use super::resolve::resolve;
use super::view::{GenerationNo, View};
use crate::base::{
    ChunkNo, DeviceSlot, Hash, Incarnation, InodeId, IntentNo, KeyNo, Numbers, PackName, PackNo, Timestamp,
};
use crate::format::intent::{Content, Intent};
use crate::format::journal::{JournalPayload, chain};
use crate::format::rows::{DeviceRow, RowKey};

/// Who writes: this run of this device.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    pub slot: DeviceSlot,
    pub incarnation: Incarnation,
    pub name: String,
    pub registered: Timestamp,
}

pub struct Pending {
    view: Arc<View>,
    journal: Arc<Journal>,
    device: DeviceIdentity,
    counters: Counters,
    /// Packs are named by the incarnation's own count, from 1.
    packs: AtomicU64,
    queue: Mutex<Queue>,
    /// Held from taking intents out of the queue until they are in the journal: frames keep their order.
    journal_order: Mutex<()>,
}

/// A consistent cut, to be committed as one record.
#[derive(Clone, Debug)]
pub struct Cut {
    pub generation: GenerationNo,
    pub high_water: IntentNo,
    pub high_water_hash: Hash,
}

/// Intents taken for the journal. While it lives, nobody else writes to the journal. Dropped before `append`, it puts
/// them back: the next fsync must not return without them.
pub struct JournalBatch<'a> {
    pending: &'a Pending,
    payload: Option<JournalPayload>,
    _order: parking_lot::MutexGuard<'a, ()>,
}

struct Queue {
    /// Not in the journal yet. The first has number `last - len + 1`.
    intents: VecDeque<(Intent, Hash)>,
    /// Rough memory of `intents`.
    bytes: usize,
    last: IntentNo,
    chain: Hash,
    /// The chain before the first queued intent.
    chain_before: Hash,
    /// The log holds everything up to here.
    committed: IntentNo,
    /// Inodes that queued intents name: their bytes must be in the same frame.
    named: HashSet<InodeId>,
    /// How far earlier runs were done again into the active generation.
    replayed: Vec<(Incarnation, IntentNo)>,
    /// The same, by the intent that says so, until it is committed.
    covering: VecDeque<(IntentNo, Incarnation, IntentNo)>,
}

impl Pending {
    pub fn new(view: Arc<View>, journal: Arc<Journal>, device: DeviceIdentity, counters: Counters) -> Self {
        let queue = Queue {
            intents: VecDeque::new(),
            bytes: 0,
            last: IntentNo(0),
            chain: Hash::ZERO,
            chain_before: Hash::ZERO,
            committed: IntentNo(0),
            named: HashSet::new(),
            replayed: Vec::new(),
            covering: VecDeque::new(),
        };
        let (queue, journal_order) = (Mutex::new(queue), Mutex::new(()));
        Self { view, journal, device, counters, packs: 1.into(), queue, journal_order }
    }

    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    pub fn device(&self) -> &DeviceIdentity {
        &self.device
    }

    pub fn next_inode(&self) -> InodeId {
        self.counters.inode()
    }

    pub fn next_chunk(&self) -> ChunkNo {
        self.counters.chunk()
    }

    pub fn next_key(&self) -> KeyNo {
        self.counters.key()
    }

    pub fn next_pack(&self) -> (PackNo, PackName) {
        let number = self.packs.fetch_add(1, Ordering::Relaxed);
        (self.counters.pack(), PackName { incarnation: self.device.incarnation, number })
    }

    /// Numbers that replayed intents hold must not be given out again.
    pub fn reserve_at_least(&self, next: Numbers) {
        self.counters.skip_to(next);
    }

    /// Resolves the intents on top of one another and puts their rows into the view; all or none. Answers how many bytes
    /// of rows they change, which a record will hold, unless what the journal holds of them is more.
    pub fn submit(&self, intents: Vec<Intent>) -> Result<u64, MetaError> {
        let mut queue = self.queue.lock();
        let bytes = self.resolve_into_view(&intents)?;
        intents.into_iter().for_each(|intent| queue.push(intent));
        Ok(bytes)
    }

    /// As `submit`, for what is in the journal already, in the frames of the run that it is from.
    pub fn submit_again(&self, intents: &[Intent]) -> Result<u64, MetaError> {
        let _queue = self.queue.lock();
        self.resolve_into_view(intents)
    }

    /// With the queue locked: rows and queue have one order.
    fn resolve_into_view(&self, intents: &[Intent]) -> Result<u64, MetaError> {
        let mut scratch = Scratch::new(self.view.as_ref());
        for intent in intents {
            let changes = resolve(intent, &scratch)?;
            scratch.apply(changes);
        }
        let changes = scratch.into_changes();
        let rows: usize =
            changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |row| row.len())).sum();
        self.view.apply(changes);
        let intents: usize = intents.iter().map(rough_len).sum();
        Ok(rows.max(intents) as u64)
    }

    /// Inodes whose acknowledged bytes must go into the next journal frame.
    pub fn named(&self) -> Vec<InodeId> {
        self.queue.lock().named.iter().copied().collect()
    }

    /// How much is queued for the journal: intents, and their rough bytes.
    pub fn queued(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.intents.len(), queue.bytes)
    }

    /// Waits for whoever writes to the journal now.
    pub fn journal_turn(&self) -> JournalBatch<'_> {
        JournalBatch { pending: self, payload: None, _order: self.journal_order.lock() }
    }

    /// Ends the active generation; None when nothing changed since the last. The caller has seen to it that
    /// no acknowledged bytes are outside the rows.
    pub fn freeze(&self) -> Result<Option<Cut>, MetaError> {
        self.counters.reserve()?;
        let mut queue = self.queue.lock();
        if self.view.is_still() {
            return Ok(None);
        }
        self.end_generation(&mut queue)
    }

    /// The intents of an earlier run up to that one are in the rows, as far as the log did not have them. They stay in
    /// that run's frames until these rows are committed.
    pub fn note_replayed(&self, incarnation: Incarnation, through: IntentNo) {
        let mut queue = self.queue.lock();
        match queue.replayed.last_mut().filter(|(last, _)| *last == incarnation) {
            Some((_, last)) => *last = through,
            None => queue.replayed.push((incarnation, through)),
        }
    }

    /// Ends a generation of what was done again. The payload says what that was, and must be in the journal before the
    /// generation is committed. `contents` are those that were written in it. None when the log had all of it.
    pub fn freeze_replayed(&self, contents: Vec<Content>) -> Result<Option<(Cut, JournalPayload)>, MetaError> {
        self.counters.reserve()?;
        let mut queue = self.queue.lock();
        // What was sealed on the way is only half in the frames of the runs that it is from: the bytes are there, and
        // are sealed again if need be. But what is written later may name these keys, chunks and packs.
        let sealed = std::mem::take(&mut queue.intents).into_iter().map(|(intent, _)| intent);
        let facts: Vec<_> = sealed.filter(|intent| matches!(intent, Intent::Fact { .. })).collect();
        queue.forget_queued();
        let replayed = std::mem::take(&mut queue.replayed);
        if self.view.is_still() {
            replayed.into_iter().for_each(|(incarnation, through)| self.journal.release(incarnation, through));
            return Ok(None);
        }
        facts.into_iter().for_each(|fact| queue.push(fact));
        let mut contents = Some(contents);
        for (incarnation, through) in replayed {
            let contents = contents.take().unwrap_or_default();
            queue.push(Intent::Replayed { incarnation, through, contents });
            let covering = (queue.last, incarnation, through);
            queue.covering.push_back(covering);
        }
        let cut = self.end_generation(&mut queue)?;
        Ok(cut.zip(queue.take(self.device.incarnation)))
    }

    fn end_generation(&self, queue: &mut Queue) -> Result<Option<Cut>, MetaError> {
        let fact = Intent::Fact {
            key: RowKey::Device(self.device.slot),
            value: self.device_row().encode().into_boxed_slice(),
        };
        self.view.apply(resolve(&fact, self.view.as_ref())?);
        queue.push(fact);
        let Some(generation) = self.view.freeze() else { return Ok(None) };
        tracing::debug!(high_water = queue.last.0, generation = generation.0, "cut");
        Ok(Some(Cut { generation, high_water: queue.last, high_water_hash: queue.chain }))
    }

    pub fn sync_journal(&self, frame: FrameNo) -> Result<(), MetaError> {
        Ok(self.journal.sync(frame)?)
    }

    /// The log holds everything up to `high_water`: the journal and the queue may forget it.
    pub fn committed(&self, high_water: IntentNo) {
        let covered = {
            let mut queue = self.queue.lock();
            queue.forget_through(high_water);
            let covered = queue.covering.iter().take_while(|(by, ..)| *by <= high_water).count();
            queue.covering.drain(..covered).collect::<Vec<_>>()
        };
        covered.into_iter().for_each(|(_, incarnation, through)| self.journal.release(incarnation, through));
        self.journal.release(self.device.incarnation, high_water);
    }

    fn device_row(&self) -> DeviceRow {
        DeviceRow {
            name: self.device.name.clone(),
            incarnation: self.device.incarnation,
            next: self.counters.next(),
            registered: self.device.registered,
        }
    }
}

impl JournalBatch<'_> {
    /// Takes all queued intents and, behind them, `inline`: the unsealed bytes of the inodes they name.
    pub fn take(&mut self, inline: Vec<Intent>) {
        let mut queue = self.pending.queue.lock();
        inline.into_iter().for_each(|intent| queue.push(intent));
        self.payload = queue.take(self.pending.device.incarnation);
    }

    /// Hands the frame to the journal. Packs that it names must be on disk by now. Returns the newest frame, which is
    /// another's when there was nothing to write; it need not be durable yet, or its write failed and is to be done
    /// again. None: there never was any.
    pub fn append(mut self) -> Result<Option<FrameNo>, MetaError> {
        match self.payload.take() {
            Some(payload) => {
                let (first, count) = (payload.first, payload.intents.len());
                let frame = self.pending.journal.append(payload)?;
                tracing::debug!(frame = frame.0, first = first.0, count, "journaled");
                Ok(Some(frame))
            }
            None => Ok(self.pending.journal.newest()),
        }
    }
}

impl Drop for JournalBatch<'_> {
    fn drop(&mut self) {
        if let Some(payload) = self.payload.take() {
            self.pending.queue.lock().put_back(payload);
        }
    }
}

impl Queue {
    fn push(&mut self, intent: Intent) {
        self.last.0 += 1;
        self.chain = chain(&self.chain, &intent);
        self.bytes += rough_len(&intent);
        name_inodes(&intent, &mut self.named);
        self.intents.push_back((intent, self.chain));
    }

    /// All that is queued, for the journal.
    fn take(&mut self, incarnation: Incarnation) -> Option<JournalPayload> {
        let first = IntentNo(self.last.0 + 1 - self.intents.len() as u64);
        let chain_before = self.chain_before;
        let intents: Vec<_> = std::mem::take(&mut self.intents).into_iter().map(|(intent, _)| intent).collect();
        self.forget_queued();
        (!intents.is_empty()).then_some(JournalPayload { incarnation, first, chain_before, intents })
    }

    fn forget_queued(&mut self) {
        self.intents.clear();
        self.chain_before = self.chain;
        self.bytes = 0;
        self.named.clear();
    }

    /// What was taken last, before what has come since.
    fn put_back(&mut self, payload: JournalPayload) {
        let last = IntentNo(payload.first.0 + payload.intents.len() as u64 - 1);
        if last <= self.committed {
            return;
        }
        let mut before = payload.chain_before;
        let chained = payload.intents.into_iter().map(|intent| {
            before = chain(&before, &intent);
            (intent, before)
        });
        let chained: Vec<_> = chained.collect();
        for (intent, chain) in chained.into_iter().rev() {
            self.bytes += rough_len(&intent);
            name_inodes(&intent, &mut self.named);
            self.intents.push_front((intent, chain));
        }
        self.chain_before = payload.chain_before;
        self.forget_through(self.committed);
    }

    fn forget_through(&mut self, high_water: IntentNo) {
        self.committed = self.committed.max(high_water);
        while !self.intents.is_empty() && self.last.0 - (self.intents.len() as u64) < high_water.0 {
            if let Some((intent, chain)) = self.intents.pop_front() {
                self.bytes -= rough_len(&intent).min(self.bytes);
                self.chain_before = chain;
            }
        }
        if self.intents.is_empty() {
            self.named.clear();
        }
    }
}

/// Creates, links, renames, sizes and times: what would show a file whose bytes are elsewhere, or a time that says
/// they are here (rsync goes by size and mtime).
fn name_inodes(intent: &Intent, named: &mut HashSet<InodeId>) {
    match intent {
        Intent::Create { ino, .. } | Intent::Link { ino, .. } | Intent::Rename { ino, .. } => {
            named.insert(*ino);
        }
        Intent::Write { ino, .. } | Intent::SetAttr { ino, .. } => {
            named.insert(*ino);
        }
        Intent::Exchange { a_ino, b_ino, .. } => named.extend([*a_ino, *b_ino]),
        Intent::Unlink { .. }
        | Intent::SetXattr { .. }
        | Intent::Fact { .. }
        | Intent::Replayed { .. }
        | Intent::FileKey { .. } => {}
    }
}

fn rough_len(intent: &Intent) -> usize {
    let inside = match intent {
        Intent::SetXattr { value: Some(value), .. } => value.len(),
        Intent::Fact { value, .. } => value.len(),
        Intent::Write { changes, .. } => changes.len() * size_of::<crate::format::intent::Change>(),
        _ => 64,
    };
    size_of::<Intent>() + inside
}
