//! Durability on this machine: fsync, and the cut that a commit takes.
//!
//! Order: bytes, then the frame that names them. A frame holds all queued intents and the unsealed bytes of
//! every inode they name, so that after a crash no name or size shows without its content.

use std::collections::BTreeSet;

use crate::base::{InodeId, PackName};
use crate::format::intent::{Change, Intent};
use crate::meta::Cut;

use super::api::VfsResult;
use super::drive::Drive;
use super::node::NodeState;

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
                self.seal_all(ino, &mut state)?;
            }
            drop((state, gate));
        }
        let mut batch = self.pending.journal_turn();
        let mut unread = Ok(());
        {
            // Nothing changes while the frame's content is taken: it is one moment of the tree.
            let _gate = self.gate.write();
            inodes.extend(self.pending.named());
            let mut inline = Vec::new();
            for &ino in &inodes {
                let Some(node) = self.nodes.get(ino) else { continue };
                let mut state = node.state.lock();
                match self.inline_write(ino, &mut state) {
                    Ok(write) => inline.extend(write),
                    Err(error) => unread = Err(error),
                }
            }
            batch.take(inline);
        }
        // From here on a failure puts back what was taken.
        unread?;
        self.staging.sync().map_err(self.content_failed("fsync"))?;
        // Also when there was nothing left to take: whoever took it may still be writing, or have failed to.
        if let Some(frame) = batch.append().map_err(self.failed("fsync"))? {
            self.pending.sync_journal(frame).map_err(self.failed("fsync"))?;
        }
        Ok(())
    }

    /// What was written to the inode since the journal last heard of it, as bytes.
    fn inline_write(&self, ino: InodeId, state: &mut NodeState) -> VfsResult<Option<Intent>> {
        let Some(ahead) = state.ahead.filter(|_| state.orphan.is_none() && !state.dirty.is_journaled()) else {
            return Ok(None);
        };
        let row = self.row(ino, state)?;
        let pieces = state.dirty.unjournaled();
        let changes = pieces.map(|(offset, bytes)| Change::Inline { offset, data: bytes.into() }).collect();
        state.dirty.mark_journaled();
        Ok(Some(Intent::Write {
            ino,
            base: row.version,
            size: ahead.size,
            mtime: ahead.mtime,
            time: ahead.ctime,
            key: None,
            changes,
        }))
    }

    /// Ends the active generation at one moment of the whole tree.
    pub fn freeze(&self) -> VfsResult<FrozenCut> {
        // Most of the work is done while others go on; what they add meanwhile is little.
        for node in self.nodes.all() {
            let _gate = self.gate.read();
            let mut state = node.state.lock();
            if state.orphan.is_none() || self.budget.is_above_high_water() {
                self.seal_all(node.ino, &mut state)?;
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
                self.seal_all(node.ino, &mut state)?;
            }
        }
        // Closed here, so that no pack spans two cuts.
        let packs = self.staging.rotate();
        let cut = self.pending.freeze().map_err(self.failed("commit"))?;
        self.start_counting_anew();
        Ok(FrozenCut { cut, packs })
    }
}

fn unjournaled_bytes(state: &NodeState) -> u64 {
    state.dirty.unjournaled().map(|(_, bytes)| bytes.len() as u64).sum()
}
