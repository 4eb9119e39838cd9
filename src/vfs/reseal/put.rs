//! One chunk of one file, sealed anew.

use crate::base::InodeId;
use crate::content::ChunkSource;
use crate::crypto::chunk_id;
use crate::format::intent::Intent;
use crate::format::rows::InodeRow;
use crate::meta::Rows;

use crate::vfs::api::{VfsError, VfsResult};
use crate::vfs::data::Facts;
use crate::vfs::drive::Drive;
use crate::vfs::node::NodeState;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vfs) enum Put {
    Done,
    /// The file or the chunk is not what it was a moment ago: whoever changed it used new keys, or the next walk comes
    /// by again.
    Changed,
    /// It opens, and is not the content that its row names: who has the old key made it.
    Forged,
}

impl Drive {
    /// Puts what `source` held under the key that the file has in this epoch. Its number stays, and so everything that
    /// cites it.
    pub(super) fn seal_anew(&self, ino: InodeId, source: &ChunkSource, plain: &[u8]) -> VfsResult<Put> {
        if chunk_id(plain) != source.row.id {
            return Ok(Put::Forged);
        }
        self.with_row(ino, |state, row| {
            if self.view().chunk(source.chunk).map_err(self.failed("sealing anew"))?.as_ref() != Some(&source.row) {
                return Ok(Put::Changed);
            }
            self.load_file_key(state, row)?;
            let mut facts = Facts::default();
            self.stage_chunk(state, source.chunk, source.row.id, plain, &mut facts)?;
            let mut intents = facts.intents;
            let key = state.file_key.as_ref().map(|file_key| file_key.number);
            if key != row.key {
                intents.push(Intent::FileKey { ino, key });
            }
            self.submit(intents)?;
            self.note_written(plain.len() as u64);
            Ok(Put::Done)
        })
    }

    /// The file's row names no key of an earlier epoch any more. Its next write draws one.
    pub(super) fn drop_old_key(&self, ino: InodeId) -> VfsResult<Put> {
        self.with_row(ino, |state, row| {
            let Some(number) = row.key else { return Ok(Put::Changed) };
            let file_key = self.keys.get(number, self.view()).map_err(self.failed("sealing anew"))?;
            if self.keys.is_current(&file_key) {
                return Ok(Put::Changed);
            }
            state.file_key.take_if(|file_key| !self.keys.is_current(file_key));
            let key = state.file_key.as_ref().map(|file_key| file_key.number);
            self.submit(vec![Intent::FileKey { ino, key }])?;
            Ok(Put::Done)
        })
    }

    /// With a file that is in the tree, and nobody else at it.
    pub(in crate::vfs) fn with_row(
        &self,
        ino: InodeId,
        work: impl FnOnce(&mut NodeState, &InodeRow) -> VfsResult<Put>,
    ) -> VfsResult<Put> {
        let _gate = self.change()?;
        let node = self.nodes.get_or_insert(ino);
        let done = {
            let mut state = node.state.lock();
            let known = state.file_key.as_ref().map(|file_key| file_key.number);
            let done = match (&state.orphan, self.row(ino, &state)) {
                (Some(_), _) | (None, Err(VfsError::NotFound)) => Ok(Put::Changed),
                (None, Err(error)) => Err(error),
                (None, Ok(row)) => work(&mut state, &row),
            };
            // A key that no row tells of must not be used by the next write.
            if done.is_err() {
                state.file_key.take_if(|file_key| Some(file_key.number) != known);
            }
            done
        };
        drop(node);
        self.settle(ino);
        done
    }
}
