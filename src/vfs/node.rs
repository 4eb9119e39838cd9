//! What is known of an inode beyond its rows: unsealed bytes, open handles, the kernel's lookups.
//!
//! Invariant: a node is in the table while it is open, has unsealed bytes, or is unlinked but still known to
//! the kernel. Everything else about an inode is its rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::{ChunkNo, InodeId, KeyNo, Timestamp};
use crate::content::{DirtyPieces, Prefetch};
use crate::format::rows::{ChunkRow, Extent, InodeRow, XattrName};
use crate::meta::FileKey;

use super::api::HandleId;

pub struct Node {
    pub ino: InodeId,
    /// At most one node is locked at a time, but by `copy_file_range`: ascending `InodeId`.
    pub state: Mutex<NodeState>,
}

#[derive(Default)]
pub struct NodeState {
    pub opens: u32,
    pub dirty: DirtyPieces,
    /// Windows whose rows are counted for the next record, since that is what sealing will change.
    pub counted: BTreeSet<u64>,
    /// Newer than the row: what writes changed that no intent has said yet.
    pub ahead: Option<Ahead>,
    /// Unlinked, but open or known to the kernel: its rows are gone from the view and live on here.
    pub orphan: Option<Box<Orphan>>,
    /// What new chunks of this file are sealed under.
    pub file_key: Option<FileKey>,
    /// Whether it has file capabilities, once that was looked up.
    pub capability: Option<bool>,
    /// One for each handle that reads.
    pub prefetch: HashMap<HandleId, Prefetch>,
    /// Handles whose reads leave the access time as it is.
    pub keep_atime: Vec<HandleId>,
}

#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// The row's version that the bytes were written over. Another device's change of the file raises it: what is here
    /// must then not be laid over that.
    pub base: u64,
    pub size: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

pub struct Orphan {
    pub row: InodeRow,
    pub extents: Vec<Extent>,
    pub xattrs: Vec<(XattrName, Vec<u8>)>,
    /// Chunks that were sealed after the unlink: no record will ever name them.
    pub chunks: HashMap<ChunkNo, ChunkRow>,
    /// Of those chunks: they have no rows either.
    pub keys: HashMap<KeyNo, FileKey>,
}

#[derive(Default)]
pub struct NodeTable {
    nodes: Mutex<HashMap<InodeId, Arc<Node>>>,
    /// How often the kernel was told of an inode and has not forgotten it.
    lookups: Mutex<HashMap<InodeId, u64>>,
}

impl NodeTable {
    pub fn get(&self, ino: InodeId) -> Option<Arc<Node>> {
        self.nodes.lock().get(&ino).cloned()
    }

    pub fn get_or_insert(&self, ino: InodeId) -> Arc<Node> {
        let insert = || Arc::new(Node { ino, state: Mutex::default() });
        self.nodes.lock().entry(ino).or_insert_with(insert).clone()
    }

    /// Removes the node if nothing needs it any more. Returns how many unsealed bytes went with it.
    pub fn settle(&self, ino: InodeId) -> u64 {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.get(&ino) else { return 0 };
        // Somebody else may be about to open or write it.
        if Arc::strong_count(node) > 1 {
            return 0;
        }
        let known = self.lookups.lock().contains_key(&ino);
        let state = node.state.lock();
        let unneeded = state.opens == 0
            && if state.orphan.is_some() { !known } else { state.dirty.is_empty() && state.ahead.is_none() };
        let dropped = if unneeded { state.dirty.bytes() } else { 0 };
        drop(state);
        if unneeded {
            nodes.remove(&ino);
        }
        dropped
    }

    pub fn looked_up(&self, ino: InodeId) {
        *self.lookups.lock().entry(ino).or_insert(0) += 1;
    }

    pub fn is_known(&self, ino: InodeId) -> bool {
        self.lookups.lock().contains_key(&ino)
    }

    pub fn forget(&self, ino: InodeId, count: u64) {
        let mut lookups = self.lookups.lock();
        if let std::collections::hash_map::Entry::Occupied(mut entry) = lookups.entry(ino) {
            *entry.get_mut() = entry.get().saturating_sub(count);
            if *entry.get() == 0 {
                entry.remove();
                // A burst of forgets gives its memory back.
                if lookups.len() * 4 < lookups.capacity() {
                    lookups.shrink_to_fit();
                }
            }
        }
    }

    /// Nodes with anything that the rows do not say.
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().values().cloned().collect()
    }
}
