//! A chunk is one SEAL header and then frames, each with its own tag. The nonce of a frame is the derived one
//! XOR its index, and its first bit is flipped for the last: a frame opens alone, and a chunk that was cut or
//! put in another order does not.
//!
//! The context is the volume (or the link) and the chunk's id only, never a pack or a place, so that chunks move
//! freely.

use super::seal::{
    HEADER_LEN, NONCE_LEN, SUITE, TAG_LEN, bulk_key, decrypt_into, derive, encrypt_in_place, fresh_salt, hkdf,
    open_header,
};
use super::{Context, CryptoError, Key, Kind};
use crate::base::{ChunkId, Entropy, LinkId, VolumeId};
use aws_lc_rs::aead::LessSafeKey;

pub const CHUNK_HEADER_LEN: usize = HEADER_LEN;

const _: () = assert!(CHUNK_HEADER_LEN == 65);

/// Whose chunk it is: a file's of a volume, or a link's. Nothing of one opens as the other's, whatever the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkHome {
    Volume(VolumeId),
    Link(LinkId),
}

impl From<VolumeId> for ChunkHome {
    fn from(volume: VolumeId) -> Self {
        Self::Volume(volume)
    }
}

impl From<LinkId> for ChunkHome {
    fn from(link: LinkId) -> Self {
        Self::Link(link)
    }
}

impl ChunkHome {
    fn context<'a>(self, id: &'a [&'a [u8]]) -> Context<'a> {
        match self {
            Self::Volume(volume) => Context { volume, kind: Kind::Chunk, id },
            Self::Link(link) => Context::of_link(link, Kind::LinkChunk, id),
        }
    }

    /// The key of one chunk, so that it can be handed on without the file's or the link's.
    fn chunk_key(self, key: &Key, id: &ChunkId) -> Key {
        let purpose: &[u8] = match self {
            Self::Volume(_) => b"hushfs/v1/chunk-key",
            Self::Link(_) => b"hushfs/v1/link-chunk-key",
        };
        Key::filled(|out| hkdf(key.expose(), b"", &[purpose, &id.0], out))
    }
}

pub struct ChunkSealer {
    header: [u8; CHUNK_HEADER_LEN],
    frames: Frames,
}

impl ChunkSealer {
    /// The id hedges the salt: it is the hash of all the plaintext.
    pub fn new(key: &Key, home: impl Into<ChunkHome>, id: &ChunkId, entropy: &dyn Entropy) -> Self {
        let home = home.into();
        let key = home.chunk_key(key, id);
        let fields: [&[u8]; 1] = [&id.0];
        let context = home.context(&fields);
        let aad = context.encode();
        let salt = fresh_salt(&key, &id.0, entropy);
        let derived = derive(&key, &salt, &context, &aad);
        let mut header = [SUITE; CHUNK_HEADER_LEN];
        header[1..33].copy_from_slice(&salt);
        header[33..].copy_from_slice(&derived.commit);
        Self { header, frames: Frames { key: bulk_key(&derived.key), nonce: derived.nonce, aad } }
    }

    pub fn header(&self) -> &[u8; CHUNK_HEADER_LEN] {
        &self.header
    }

    /// Encrypts in place; the tag goes behind it. Every index is sealed once.
    pub fn seal_frame(&self, index: u32, last: bool, frame: &mut [u8]) -> [u8; TAG_LEN] {
        let Frames { key, aad, .. } = &self.frames;
        encrypt_in_place(key, self.frames.nonce(index, last), aad, frame)
    }
}

pub struct ChunkOpener {
    frames: Frames,
}

impl ChunkOpener {
    pub fn new(
        key: &Key,
        home: impl Into<ChunkHome>,
        id: &ChunkId,
        header: &[u8; CHUNK_HEADER_LEN],
    ) -> Result<Self, CryptoError> {
        let home = home.into();
        let fields: [&[u8]; 1] = [&id.0];
        let context = home.context(&fields);
        let aad = context.encode();
        let derived = open_header(&home.chunk_key(key, id), &context, &aad, header)?;
        Ok(Self { frames: Frames { key: bulk_key(&derived.key), nonce: derived.nonce, aad } })
    }

    /// `sealed` is ciphertext and tag, `out` exactly as long as the ciphertext. After an error `out` is zeros.
    pub fn open_frame(&self, index: u32, last: bool, sealed: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
        let Frames { key, aad, .. } = &self.frames;
        decrypt_into(key, self.frames.nonce(index, last), aad, sealed, out)
    }
}

struct Frames {
    key: LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: Vec<u8>,
}

impl Frames {
    fn nonce(&self, index: u32, last: bool) -> [u8; NONCE_LEN] {
        let mut nonce = self.nonce;
        for (byte, index) in nonce[NONCE_LEN - 4..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= index;
        }
        nonce[0] ^= u8::from(last) << 7;
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frames_number_is_at_the_nonces_end_and_the_last_ones_mark_at_its_start() {
        let frames = Frames { key: bulk_key(&[0; 32]), nonce: [0x11; NONCE_LEN], aad: vec![] };
        let start = [0x11; 8];
        assert_eq!(frames.nonce(0, false), [0x11; NONCE_LEN]);
        assert_eq!(frames.nonce(0x0102_0304, false)[..], [&start[..], &[0x10, 0x13, 0x12, 0x15]].concat()[..]);
        let mut last = [0x11; NONCE_LEN];
        last[0] = 0x91;
        assert_eq!(frames.nonce(0, true), last);
    }
}
