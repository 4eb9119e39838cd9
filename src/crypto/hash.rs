//! BLAKE3, for content and for chains of records.

use crate::base::{ChunkId, Hash};

/// BLAKE3 of `bytes`.
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *::blake3::hash(bytes).as_bytes()
}

/// The id of a chunk is the hash of what it holds. Never shown outside sealed metadata.
pub fn chunk_id(plain: &[u8]) -> ChunkId {
    ChunkId(blake3(plain))
}

/// BLAKE3 of what comes in pieces.
#[derive(Clone, Default)]
pub struct Blake3(::blake3::Hasher);

impl Blake3 {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}
