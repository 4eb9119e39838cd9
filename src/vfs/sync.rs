//! Durability on this machine: fsync, and the cut that a commit takes.
//!
//! Order: bytes, then the frame that names them. A frame holds all queued intents and the unsealed bytes of
//! every inode they name, so that after a crash no name or size shows without its content.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::{InodeId, PackName};
use crate::format::intent::{Change, Intent};
use crate::meta::{Cut, MetaError, Rows};

use super::api::VfsResult;
use super::drive::Drive;
use super::node::{Ahead, Node, NodeState};

/// Unsealed bytes of one inode beyond this go to staging instead of into the journal, where they would be
/// written twice.
const INLINE_BYTES_MAX: u64 = 256 << 10;

/// A cut and the packs that must be in the store before its record.
#[derive(Debug)]
pub struct FrozenCut {
    /// None when nothing changed. The packs then hold nothing that rows name: only what unlinked files had written.
    pub cut: Option<Cut>,
    pub packs: Vec<PackName>,
}

impl Drive {
    /// Everything acknowledged for `ino`, and every name given out so far, is on this machine's disk after.
    pub(super) fn sync_inode(&self, ino: InodeId) -> VfsResult<()> {
        self.sync_inodes(Some(ino))
    }

    /// The same for all inodes.
    pub fn sync_all(&self) -> VfsResult<()> {
        let dirty = self.nodes.all().iter().map(|node| node.ino).collect::<Vec<_>>();
        self.sync_inodes(dirty)
    }

    fn sync_inodes(&self, wanted: impl IntoIterator<Item = InodeId>) -> VfsResult<()> {
        let mut inodes: BTreeSet<InodeId> = wanted.into_iter().collect();
        inodes.extend(self.pending.named());
        for &ino in &inodes {
            let Some(node) = self.nodes.get(ino) else { continue };
            let gate = self.gate.read();
            let mut state = node.state.lock();
            if state.orphan.is_none() && unjournaled_bytes(&state) > INLINE_BYTES_MAX {
                match self.seal_all(ino, &mut state) {
                    // What can be sealed no more goes into the journal as it is.
                    Err(error) if !self.is_overtaken(ino, &state) => return Err(error),
                    _ => {}
                }
            }
            drop((state, gate));
        }
        let mut batch = self.pending.journal_turn();
        {
            // Nothing changes while the frame's content is taken: it is one moment of the tree.
            let _gate = self.gate.write();
            inodes.extend(self.pending.named());
            let mut inline = Vec::new();
            for &ino in &inodes {
                let Some(node) = self.nodes.get(ino) else { continue };
                inline.extend(inline_write(ino, &mut node.state.lock()));
            }
            batch.take(inline);
        }
        // From here on a failure puts back what was taken.
        self.staging.sync().map_err(self.content_failed("fsync"))?;
        // Also when there was nothing left to take: whoever took it may still be writing, or have failed to.
        if let Some(frame) = batch.append().map_err(self.failed("fsync"))? {
            self.pending.sync_journal(frame).map_err(self.failed("fsync"))?;
        }
        Ok(())
    }

    /// Ends the active generation at one moment of the whole tree.
    pub fn freeze(&self) -> VfsResult<FrozenCut> {
        let (cut, packs) = self.freeze_by(|| self.pending.freeze())?;
        Ok(FrozenCut { cut, packs })
    }

    /// `end` ends the generation, when everything is sealed and nothing changes.
    pub(super) fn freeze_by<T>(&self, end: impl FnOnce() -> Result<T, MetaError>) -> VfsResult<(T, Vec<PackName>)> {
        // Most of the work is done while others go on; what they add meanwhile is little.
        for node in self.nodes.all() {
            let _gate = self.gate.read();
            let mut state = node.state.lock();
            if state.orphan.is_none() || self.budget.is_above_high_water() {
                self.seal_for_cut(node.ino, &mut state)?;
            }
            drop(state);
            let ino = node.ino;
            drop(node);
            self.settle(ino);
        }
        let _gate = self.gate.write();
        for node in self.nodes.all() {
            let mut state = node.state.lock();
            if state.orphan.is_none() {
                self.seal_for_cut(node.ino, &mut state)?;
            }
        }
        // Closed here, so that no pack spans two cuts.
        let packs = self.staging.rotate();
        let cut = end().map_err(self.failed("commit"))?;
        self.staging.in_a_cut(&packs);
        self.start_counting_anew();
        Ok((cut, packs))
    }

    /// No cut goes without what it should hold. What another device's change has overtaken can never be sealed: then
    /// nothing more is cut, and what is here stays in the journal.
    fn seal_for_cut(&self, ino: InodeId, state: &mut NodeState) -> VfsResult<()> {
        let sealed = self.seal_all(ino, state);
        if sealed.is_err() && self.is_overtaken(ino, state) && !self.is_frozen_for_good() {
            tracing::error!(
                "inode {ino} was changed by another device while it was written here: the drive takes no more changes, \
                 and what was written stays in the state folder; unmount and mount again"
            );
            self.refuse_changes();
        }
        sealed
    }

    fn is_overtaken(&self, ino: InodeId, state: &NodeState) -> bool {
        let Some(ahead) = state.ahead.filter(|_| state.orphan.is_none()) else { return false };
        match self.view().inode(ino) {
            Ok(row) => row.is_none_or(|row| row.version != ahead.base),
            Err(_) => false,
        }
    }

    /// Inodes with bytes that no intent has said yet.
    pub fn unsealed(&self) -> Vec<InodeId> {
        let is_unsealed = |node: &Arc<Node>| {
            let state = node.state.lock();
            state.ahead.is_some() && state.orphan.is_none()
        };
        self.nodes.all().iter().filter(|node| is_unsealed(node)).map(|node| node.ino).collect()
    }
}

/// What was written to the inode since the journal last heard of it, as bytes.
fn inline_write(ino: InodeId, state: &mut NodeState) -> Option<Intent> {
    let ahead = state.ahead.filter(|_| state.orphan.is_none() && !state.dirty.is_journaled())?;
    let pieces = state.dirty.unjournaled();
    let changes = pieces.map(|(offset, bytes)| Change::Inline { offset, data: bytes.into() }).collect();
    state.dirty.mark_journaled();
    let Ahead { base, size, mtime, ctime } = ahead;
    Some(Intent::Write { ino, base, size, mtime, time: ctime, key: None, changes })
}

fn unjournaled_bytes(state: &NodeState) -> u64 {
    state.dirty.unjournaled().map(|(_, bytes)| bytes.len() as u64).sum()
}
