//! From a piece of plaintext to the chunk that holds it.

use crate::base::{ChunkId, Entropy, VolumeId};
use crate::crypto::{Key, chunk_id};
use crate::format::chunk::{SealedChunk, seal_chunk};

/// `plain` is one byte to `CHUNK_LEN`. Ask the index of known chunks with the id (`crypto::chunk_id`) first if
/// the content may be stored already.
pub fn seal_piece(file_key: &Key, volume: VolumeId, plain: &[u8], entropy: &dyn Entropy) -> (ChunkId, SealedChunk) {
    let id = chunk_id(plain);
    let sealed = seal_chunk(file_key, volume, &id, plain, entropy);
    (id, sealed)
}
