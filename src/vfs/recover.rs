//! After a crash: what the journal holds beyond the log is done again, under this run's own numbers, and
//! written to the new journal before the old one is let go.

use crate::base::{DeviceSlot, Numbers, Timestamp};
use crate::format::intent::{Change, Intent};
use crate::format::rows::RowKey;
use crate::meta::mounting::ForeignChanges;
use crate::meta::{MetaError, Rows};

use super::api::VfsResult;
use super::drive::Drive;
use super::errors::meta_error;
use super::node::Ahead;
use super::renumber::Renumber;

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub intents: u64,
    /// Intents that no longer fit the tree: they are in the daemon's log.
    pub refused: u64,
}

impl Drive {
    /// Before anything else uses the drive. Staging must hold the packs that the intents name. `twin`: a copy of this
    /// device's state folder may have given out the numbers in them, too, and has changed these inodes.
    pub fn replay(
        &self,
        intents: impl IntoIterator<Item = Intent>,
        twin: Option<ForeignChanges>,
    ) -> VfsResult<Replayed> {
        let mut done = Replayed::default();
        let mut renumber = twin.map(Renumber::new);
        for intent in intents {
            done.intents += 1;
            let translated = match &mut renumber {
                Some(renumber) => renumber.translate(self, intent)?,
                None => vec![intent],
            };
            for intent in translated {
                self.replay_one(intent, &mut done)?;
            }
        }
        if done.intents > 0 {
            // One frame, so that it stands for all earlier runs or is not there.
            self.sync_all()?;
        }
        if let Some(renumber) = renumber {
            self.staging.discard(&renumber.left_packs()).map_err(self.content_failed("replay of the journal"))?;
        }
        Ok(done)
    }

    fn replay_one(&self, intent: Intent, done: &mut Replayed) -> VfsResult<()> {
        self.pending.reserve_at_least(numbers_in(&intent, self.pending.device().slot));
        let applied = match intent {
            Intent::Write { .. } => self.replay_write(intent),
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
        Ok(())
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
            Intent::Create { .. } | Intent::Write { .. } | Intent::Fact { .. } | Intent::FileKey { .. } => {
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
    fn replay_write(&self, intent: Intent) -> Result<(), MetaError> {
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
                    state.dirty.write(offset, &data);
                }
                Change::Extent(extent) => {
                    state.dirty.discard(crate::base::ByteRange::new(extent.offset, extent.end()));
                    said.push(Change::Extent(extent));
                }
                Change::Hole(range) => {
                    state.dirty.discard(range);
                    said.push(Change::Hole(range));
                }
            }
        }
        let after = state.dirty.bytes();
        self.budget.reserve_over_limit(after.saturating_sub(before));
        self.budget.release(before.saturating_sub(after));
        state.ahead = (!state.dirty.is_empty()).then_some(Ahead { size, mtime, ctime: time });
        self.pending
            .submit(vec![Intent::Write { ino, base: row.version, size, mtime, time, key, changes: said }])
            .map(drop)
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
