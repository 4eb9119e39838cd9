//! BLAKE3, for content and for chains of records. SHA-256, for what a browser has to hold against a hash.

use crate::base::{ChunkId, Hash};
use sha2::{Digest, Sha256};

/// BLAKE3 of `bytes`.
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *::blake3::hash(bytes).as_bytes()
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
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
