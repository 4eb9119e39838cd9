//! After a crash: what the journal holds beyond the log is done again, under this run's own numbers, and
//! written to the new journal before the old one is let go.

use std::collections::{BTreeMap, HashSet};

use crate::base::{ByteRange, ChunkNo, DeviceSlot, InodeId, Numbers, Timestamp};
use crate::content::RangeSet;
use crate::format::intent::{Change, Intent};
use crate::format::rows::RowKey;
use crate::meta::{MetaError, Rows};

use super::api::VfsResult;
use super::drive::Drive;
use super::errors::meta_error;
use super::node::Ahead;

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub intents: u64,
    /// Intents that no longer fit the tree: they are in the daemon's log.
    pub refused: u64,
    /// Paths of files that have zeros now where lost bytes were.
    pub lost: Vec<String>,
}

/// Chunks that are nowhere any more, and where files would have them.
#[derive(Default)]
pub struct Lost {
    pub chunks: HashSet<ChunkNo>,
    ranges: BTreeMap<InodeId, RangeSet>,
}

impl Drive {
    /// Before anything else uses the drive. Staging or the store must hold the packs that the intents name, but for
    /// what is lost. Durable only after the next `sync_all`.
    pub fn replay(&self, intents: impl IntoIterator<Item = Intent>, mut lost: Lost) -> VfsResult<Replayed> {
        let mut done = Replayed::default();
        for intent in intents {
            done.intents += 1;
            self.pending.reserve_at_least(numbers_in(&intent, self.pending.device().slot));
            let applied = match intent {
                Intent::Write { .. } => self.replay_write(intent, &mut lost),
                // Nobody may come to refer to it.
                Intent::Fact { key: RowKey::Chunk(chunk), .. } if lost.chunks.contains(&chunk) => Ok(()),
                // This run's own row comes with its first cut.
                Intent::Fact { key: RowKey::Device(_), .. } => Ok(()),
                other => self.replay_other(other),
            };
            match applied {
                Ok(()) => {}
                Err(error @ MetaError::Resolve(_)) => {
                    done.refused += 1;
                    tracing::error!("a change from before the crash no longer fits the tree: {error}");
                }
                Err(error) => return Err(meta_error("replay of the journal", &error)),
            }
            // A long journal must not fill memory with bytes.
            if self.budget.is_above_high_water() {
                for node in self.nodes.all() {
                    self.seal_all(node.ino, &mut node.state.lock())?;
                }
            }
        }
        for (ino, _) in lost.ranges.iter().filter(|(_, ranges)| !ranges.is_empty()) {
            if self.view().inode(*ino).map_err(self.failed("replay of the journal"))?.is_some() {
                done.lost.push(self.view().path_of(*ino));
            }
        }
        Ok(done)
    }

    /// What is not a write may still change what a node has ahead of its row, or end the inode.
    fn replay_other(&self, intent: Intent) -> Result<(), MetaError> {
        let (changed, mtime, time) = match &intent {
            Intent::Unlink { ino, time, .. } | Intent::Link { ino, time, .. } | Intent::SetXattr { ino, time, .. } => {
                (vec![*ino], None, *time)
            }
            Intent::Rename { ino, replaced, time, .. } => {
                (replaced.iter().copied().chain([*ino]).collect(), None, *time)
            }
            Intent::Exchange { a_ino, b_ino, time, .. } => (vec![*a_ino, *b_ino], None, *time),
            Intent::SetAttr { ino, set, time } => (vec![*ino], set.mtime, *time),
            Intent::Create { .. } | Intent::Write { .. } | Intent::Fact { .. } => {
                (Vec::new(), None, Timestamp::default())
            }
        };
        self.pending.submit(vec![intent])?;
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
        Ok(())
    }

    /// Bytes become unsealed pieces again; extents and holes go to the rows, in the order they happened.
    fn replay_write(&self, intent: Intent, lost: &mut Lost) -> Result<(), MetaError> {
        let Intent::Write { ino, base: _, size, mtime, time, key, changes } = intent else { return Ok(()) };
        let Some(row) = self.view().inode(ino)? else {
            // Unlinked later in the same journal, or by the log.
            return Ok(());
        };
        let node = self.nodes.get_or_insert(ino);
        let mut state = node.state.lock();
        let before = state.dirty.bytes();
        let mut said = Vec::new();
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
        self.pending
            .submit(vec![Intent::Write { ino, base: row.version, size, mtime, time, key, changes: said }])
            .map(drop)
    }
}

impl Lost {
    fn written(&mut self, ino: InodeId, range: ByteRange) {
        if let Some(ranges) = self.ranges.get_mut(&ino) {
            ranges.remove(range);
        }
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
