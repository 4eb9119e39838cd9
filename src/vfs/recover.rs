//! After a crash: what the journal holds beyond the log is done again, under this run's own numbers. It stays in the
//! journal where it is until the log has it.
//!
//! What another copy of the state folder may have numbered as well is numbered anew (`renumber`), in frames of this run,
//! which stand for the earlier ones from when the state folder says so.
//!
//! Invariants: all of it fits, or the drive is not opened; memory and records stay small, however much it is. What
//! other devices did meanwhile is not merged, and never written over.

use std::collections::{BTreeMap, HashSet};

use crate::base::{ByteRange, ChunkNo, DeviceSlot, InodeId, Name, Numbers, PackName, Timestamp};
use crate::content::RangeSet;
use crate::format::intent::{Change, Content, Intent};
use crate::format::journal::JournalPayload;
use crate::format::rows::RowKey;
use crate::meta::leftover::Leftover;
use crate::meta::resolve::ResolveError;
use crate::meta::{Cut, MetaError, Rows};

use super::api::VfsResult;
use super::drive::Drive;
use super::errors::meta_error;
use super::node::Ahead;
use super::renumber::Renumber;

/// Roughly, in bytes of intents: a record is far from the longest that devices read.
const GENERATION_BYTES: u64 = 8 << 20;

/// Enough to tell what it is about.
const REFUSED_MAX: usize = 100;

/// What a replay came to, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub intents: u64,
    /// Paths of files that have zeros now where lost bytes were.
    pub lost: Vec<(InodeId, String)>,
}

/// A replay: nothing of it is to be seen outside before `Drive::keep_replay`.
#[derive(Default)]
pub struct Replay {
    pub done: Replayed,
    /// What did not fit the tree, by path. With any of them the rest must not be kept.
    pub refused: Vec<String>,
    /// To be committed in this order.
    pub cuts: Vec<(Cut, Vec<PackName>)>,
    /// Packs that nothing refers to any more, once it is kept.
    pub left_packs: Vec<PackName>,
    frames: Vec<JournalPayload>,
}

/// What a replay knows while it lasts.
struct Work<'a> {
    leftover: &'a Leftover,
    lost: Lost,
    /// Files that it wrote to.
    written: HashSet<InodeId>,
    renumber: Option<Renumber<'a>>,
}

/// Chunks that are nowhere any more, and where files would have them.
#[derive(Default)]
pub struct Lost {
    pub chunks: HashSet<ChunkNo>,
    ranges: BTreeMap<InodeId, RangeSet>,
}

impl Drive {
    /// Before anything else uses the drive. Staging or the store must hold the packs that the intents name, but for
    /// what is lost.
    pub fn replay(&self, leftover: &Leftover, lost: Lost) -> VfsResult<Replay> {
        let mut replay = Replay::default();
        let renumber = leftover.twin.as_ref().map(Renumber::new);
        let mut work = Work { leftover, lost, written: HashSet::new(), renumber };
        let mut lately = HashSet::new();
        let mut bytes = 0;
        for part in leftover.parts() {
            let part = part.map_err(|error| meta_error("replay of the journal", &error.into()))?;
            for intent in part.intents {
                replay.done.intents += 1;
                self.pending.reserve_at_least(numbers_in(&intent, self.pending.device().slot));
                for intent in self.as_it_is_now(intent, &mut work)? {
                    if let Intent::Write { ino, .. } = &intent {
                        lately.insert(*ino);
                    }
                    bytes += self.replay_or_refuse(intent, &mut work, &mut replay)?;
                }
                // A long journal must not fill memory with bytes.
                if self.budget.is_above_high_water() {
                    for node in self.nodes.all() {
                        self.seal_all(node.ino, &mut node.state.lock())?;
                    }
                }
            }
            if work.renumber.is_none() {
                self.pending.note_replayed(part.incarnation, part.last);
            }
            if bytes >= GENERATION_BYTES && replay.refused.is_empty() {
                self.end_replayed(&mut replay, &work, std::mem::take(&mut lately))?;
                bytes = 0;
            }
        }
        for (ino, _) in work.lost.ranges.iter().filter(|(_, ranges)| !ranges.is_empty()) {
            if self.view().inode(*ino).map_err(self.failed("replay of the journal"))?.is_some() {
                replay.done.lost.push((*ino, self.view().path_of(*ino)));
            }
        }
        if replay.refused.is_empty() {
            self.end_replayed(&mut replay, &work, lately)?;
        }
        if let Some(renumber) = &work.renumber {
            replay.left_packs = renumber.left_packs();
        }
        Ok(replay)
    }

    /// The intent, or what stands for it.
    fn as_it_is_now(&self, intent: Intent, work: &mut Work<'_>) -> VfsResult<Vec<Intent>> {
        // Of chunks that are nowhere the old number is what tells that.
        let is_lost =
            matches!(&intent, Intent::Fact { key: RowKey::Chunk(chunk), .. } if work.lost.chunks.contains(chunk));
        match &mut work.renumber {
            Some(renumber) if !is_lost => renumber.translate(self, work.leftover, intent),
            _ => Ok(vec![intent]),
        }
    }

    /// Answers roughly how many bytes it is.
    fn replay_or_refuse(&self, intent: Intent, work: &mut Work<'_>, replay: &mut Replay) -> VfsResult<u64> {
        let place = place_of(&intent);
        // What only moves, removes or marks holds no content that could be lost, and the copy was there first.
        let yields = work.renumber.is_some()
            && !matches!(
                intent,
                Intent::Create { .. } | Intent::Link { .. } | Intent::Write { .. } | Intent::Fact { .. }
            );
        match self.replay_one(intent, work) {
            Ok(bytes) => return Ok(bytes),
            Err(MetaError::Resolve(error)) if yields => {
                let ino = place.0;
                tracing::warn!(
                    "a change of inode {ino} that was not in the store gives way to another copy's: {error}"
                );
            }
            Err(MetaError::Resolve(error)) => {
                tracing::error!("a change of inode {} from before does not fit the tree any more: {error}", place.0);
                let place = self.path_at(place);
                if replay.refused.len() < REFUSED_MAX && !replay.refused.contains(&place) {
                    replay.refused.push(place);
                }
            }
            Err(error) => return Err(meta_error("replay of the journal", &error)),
        }
        Ok(0)
    }

    /// Makes it durable how far the replay came; its cuts may be committed after that.
    pub fn keep_replay(&self, replay: &mut Replay) -> VfsResult<()> {
        let failed = self.failed("replay of the journal");
        // As for any frame: the chunks that it names are there when it is.
        self.staging.sync().map_err(self.content_failed("replay of the journal"))?;
        let mut last = None;
        for payload in replay.frames.drain(..) {
            last = Some(self.pending.journal().append(payload).map_err(|error| failed(error.into()))?);
        }
        last.map_or(Ok(()), |frame| self.pending.sync_journal(frame).map_err(failed))
    }

    /// `written` are the files that were written in it.
    fn end_replayed(&self, replay: &mut Replay, work: &Work<'_>, written: HashSet<InodeId>) -> VfsResult<()> {
        if work.renumber.is_some() {
            // The journal has all of it anew, before anything refers to it.
            let (cut, packs) = self.freeze_by(|| self.pending.freeze())?;
            replay.cuts.extend(cut.map(|cut| (cut, packs)));
            return self.sync_all();
        }
        let content = |ino: InodeId| match self.view().inode(ino) {
            Ok(row) => row.map(|row| Ok(Content { ino, size: row.size, mtime: row.mtime })),
            Err(error) => Some(Err(error)),
        };
        let (ended, packs) = self.freeze_by(|| {
            let contents = written.into_iter().filter_map(content).collect::<Result<_, MetaError>>()?;
            self.pending.freeze_replayed(contents)
        })?;
        if let Some((cut, frame)) = ended {
            replay.cuts.push((cut, packs));
            replay.frames.push(frame);
        }
        Ok(())
    }

    /// Answers roughly how many bytes it is.
    fn replay_one(&self, intent: Intent, work: &mut Work<'_>) -> Result<u64, MetaError> {
        match intent {
            Intent::Write { ino, base, .. } => {
                // Of several only the first: the others lie over what was done again just now.
                if work.written.insert(ino) && work.renumber.is_none() {
                    self.check_base(ino, base, work.leftover)?;
                }
                self.replay_write(intent, work)
            }
            // Nobody may come to refer to it.
            Intent::Fact { key: RowKey::Chunk(chunk), .. } if work.lost.chunks.contains(&chunk) => Ok(0),
            // This run's own row comes with each cut, and so does what it says of earlier runs.
            Intent::Fact { key: RowKey::Device(_), .. } | Intent::Replayed { .. } => Ok(0),
            other => self.replay_other(other, work),
        }
    }

    fn say_again(&self, intent: Intent, work: &Work<'_>) -> Result<u64, MetaError> {
        match work.renumber {
            Some(_) => self.pending.submit(vec![intent]),
            None => self.pending.submit_again(&[intent]),
        }
    }

    /// The file is as it was when these bytes were written to it, or as a record made it that had the same.
    pub(super) fn check_base(&self, ino: InodeId, base: u64, leftover: &Leftover) -> Result<(), MetaError> {
        let row = self.view().inode(ino)?.ok_or(ResolveError::Missing(ino))?;
        if row.version == base || leftover.logged.get(&ino) == Some(&(row.size, row.mtime)) {
            return Ok(());
        }
        Err(ResolveError::OtherVersion { ino, base, version: row.version }.into())
    }

    fn path_at(&self, (ino, name): (InodeId, Option<Name>)) -> String {
        let path = self.view().path_of(ino);
        match name.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()) {
            Some(name) if ino == InodeId::ROOT => name,
            Some(name) => format!("{path}/{name}"),
            None => path,
        }
    }

    /// What is not a write may still change what a node has ahead of its row, or end the inode.
    fn replay_other(&self, intent: Intent, work: &Work<'_>) -> Result<u64, MetaError> {
        let (changed, mtime, time) = match &intent {
            Intent::Unlink { ino, time, .. } | Intent::Link { ino, time, .. } | Intent::SetXattr { ino, time, .. } => {
                (vec![*ino], None, *time)
            }
            Intent::Rename { ino, replaced, time, .. } => {
                (replaced.iter().copied().chain([*ino]).collect(), None, *time)
            }
            Intent::Exchange { a_ino, b_ino, time, .. } => (vec![*a_ino, *b_ino], None, *time),
            Intent::SetAttr { ino, set, time } => (vec![*ino], set.mtime, *time),
            Intent::Create { .. }
            | Intent::Write { .. }
            | Intent::Fact { .. }
            | Intent::Replayed { .. }
            | Intent::FileKey { .. } => (Vec::new(), None, Timestamp::default()),
        };
        let bytes = self.say_again(intent, work)?;
        for ino in changed {
            let Some(node) = self.nodes.get(ino) else { continue };
            let mut state = node.state.lock();
            if self.view().inode(ino)?.is_none() {
                self.budget.release(state.dirty.bytes());
                (state.dirty, state.ahead) = Default::default();
            } else if let Some(ahead) = &mut state.ahead {
                ahead.mtime = mtime.unwrap_or(ahead.mtime);
                ahead.ctime = time;
            }
            drop(state);
            drop(node);
            self.settle(ino);
        }
        Ok(bytes)
    }

    /// Bytes become unsealed pieces again; extents and holes go to the rows, in the order they happened.
    fn replay_write(&self, intent: Intent, work: &mut Work<'_>) -> Result<u64, MetaError> {
        let Intent::Write { ino, base: _, size, mtime, time, key, changes } = intent else { return Ok(0) };
        let row = self.view().inode(ino)?.ok_or(ResolveError::Missing(ino))?;
        let node = self.nodes.get_or_insert(ino);
        let mut state = node.state.lock();
        let before = state.dirty.bytes();
        let (mut said, lost) = (Vec::new(), &mut work.lost);
        for change in changes {
            match change {
                Change::Inline { offset, data } => {
                    lost.written(ino, ByteRange::new(offset, offset + data.len() as u64));
                    state.dirty.write(offset, &data);
                }
                Change::Extent(extent) => {
                    let range = ByteRange::new(extent.offset, extent.end());
                    state.dirty.discard(range);
                    if lost.chunks.contains(&extent.chunk) {
                        lost.ranges.entry(ino).or_default().insert(range);
                        said.push(Change::Hole(range));
                    } else {
                        lost.written(ino, range);
                        said.push(Change::Extent(extent));
                    }
                }
                Change::Hole(range) => {
                    lost.written(ino, range);
                    state.dirty.discard(range);
                    said.push(Change::Hole(range));
                }
            }
        }
        let after = state.dirty.bytes();
        self.budget.reserve_over_limit(after.saturating_sub(before));
        self.budget.release(before.saturating_sub(after));
        let base = row.version + 1;
        state.ahead = (!state.dirty.is_empty()).then_some(Ahead { base, size, mtime, ctime: time });
        self.say_again(Intent::Write { ino, base: row.version, size, mtime, time, key, changes: said }, work)
    }
}

impl Lost {
    fn written(&mut self, ino: InodeId, range: ByteRange) {
        if let Some(ranges) = self.ranges.get_mut(&ino) {
            ranges.remove(range);
        }
    }
}

/// Where a change is, for people.
fn place_of(intent: &Intent) -> (InodeId, Option<Name>) {
    match intent {
        Intent::Create { parent, name, .. }
        | Intent::Link { parent, name, .. }
        | Intent::Unlink { parent, name, .. } => (*parent, Some(name.clone())),
        Intent::Rename { from, .. } => (from.parent, Some(from.name.clone())),
        Intent::Exchange { a, .. } => (a.parent, Some(a.name.clone())),
        Intent::Write { ino, .. }
        | Intent::SetAttr { ino, .. }
        | Intent::SetXattr { ino, .. }
        | Intent::FileKey { ino, .. } => (*ino, None),
        Intent::Fact { .. } | Intent::Replayed { .. } => (InodeId::ROOT, None),
    }
}

/// The numbers of `slot` that an intent uses, each plus one.
fn numbers_in(intent: &Intent, slot: DeviceSlot) -> Numbers {
    let after = |number: u64| match DeviceSlot::split(number) {
        (owner, counter) if owner == slot => counter + 1,
        _ => 0,
    };
    let mut next = Numbers { inode: 0, chunk: 0, key: 0, pack: 0 };
    match intent {
        Intent::Create { ino, .. } => next.inode = after(ino.0),
        Intent::Fact { key: RowKey::Chunk(number), .. } => next.chunk = after(number.0),
        Intent::Fact { key: RowKey::FileKey(number), .. } => next.key = after(number.0),
        Intent::Fact { key: RowKey::Pack(number), .. } => next.pack = after(number.0),
        _ => {}
    }
    next
}
