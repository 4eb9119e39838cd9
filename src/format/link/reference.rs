//! Where a link's chunk is, what it holds, and the hash of its sealed bytes.

use super::LinkError;
use crate::base::{ByteRange, CHUNK_LEN, ChunkId, Entropy, FRAME_LEN, LinkId};
use crate::crypto::{CHUNK_HEADER_LEN, CryptoError, Key, chunk_id, sha256};
use crate::format::chunk::{open_chunk, seal_chunk};
use crate::format::codec::{FormatError, Reader, Writer};
use crate::format::rows::FRAME_OVERHEAD;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// The link's pack, from 1.
    pub pack: u64,
    /// Of the chunk's header in the pack.
    pub offset: u32,
    /// Of the plaintext, 1 to `CHUNK_LEN`.
    pub len: u32,
    pub id: ChunkId,
    /// Each frame's sealed length.
    pub frames: Box<[u32]>,
    /// Of header and frames.
    pub sha256: [u8; 32],
}

const FRAMES_MAX: usize = (CHUNK_LEN / FRAME_LEN) as usize;
/// No encoded reference is longer.
pub const REFERENCE_LEN_MAX: usize = 10 + 5 + 3 + 32 + 3 * FRAMES_MAX + 32;

impl ChunkRef {
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.pack);
        self.encode_in_pack(out);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let pack = reader.varint()?;
        if pack == 0 {
            return Err(reader.error("a pack that there cannot be"));
        }
        Self::decode_in_pack(pack, reader)
    }

    /// All but the pack's number.
    pub(super) fn encode_in_pack(&self, out: &mut Writer) {
        out.varint(self.offset.into()).varint(self.len.into()).raw(&self.id.0);
        for frame in &self.frames {
            out.varint((*frame).into());
        }
        out.raw(&self.sha256);
    }

    pub(super) fn decode_in_pack(pack: u64, reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let (offset, len, id) = (reader.varint32()?, reader.varint32()?, ChunkId(reader.array()?));
        if len == 0 || u64::from(len) > CHUNK_LEN {
            return Err(reader.error("an impossible chunk length"));
        }
        let mut frames = Vec::with_capacity(FRAMES_MAX);
        for _ in 0..u64::from(len).div_ceil(FRAME_LEN) {
            let frame = reader.varint32()?;
            if frame <= FRAME_OVERHEAD || u64::from(frame) > FRAME_LEN + u64::from(FRAME_OVERHEAD) {
                return Err(reader.error("an impossible frame length"));
            }
            frames.push(frame);
        }
        Ok(Self { pack, offset, len, id, frames: frames.into(), sha256: reader.array()? })
    }

    /// Where header and frames are in the pack.
    pub fn span(&self) -> ByteRange {
        let start = u64::from(self.offset);
        ByteRange::new(start, start + self.sealed_len())
    }

    pub fn sealed_len(&self) -> u64 {
        CHUNK_HEADER_LEN as u64 + self.frames.iter().map(|len| u64::from(*len)).sum::<u64>()
    }
}

/// The sealed bytes, and the reference to them at `offset` in pack `pack`. `plain` is 1 byte to `CHUNK_LEN`.
pub fn seal_link_chunk(
    link: LinkId,
    root: &Key,
    plain: &[u8],
    (pack, offset): (u64, u32),
    entropy: &dyn Entropy,
) -> (Vec<u8>, ChunkRef) {
    let id = chunk_id(plain);
    let sealed = seal_chunk(root, link, &id, plain, entropy);
    let sha256 = sha256(&sealed.bytes);
    let reference = ChunkRef { pack, offset, len: plain.len() as u32, id, frames: sealed.frames.into(), sha256 };
    (sealed.bytes, reference)
}

/// Before anything is opened the sealed bytes are held to the owner's hash: another holder of the link has the keys.
pub fn open_link_chunk(link: LinkId, root: &Key, chunk: &ChunkRef, sealed: &[u8]) -> Result<Vec<u8>, LinkError> {
    const WHAT: &str = "a chunk of the link";
    if sha256(sealed) != chunk.sha256 {
        return Err(LinkError::damaged(WHAT)(CryptoError::Authentication));
    }
    open_chunk(root, link, &chunk.id, chunk.len, &chunk.frames, sealed).map_err(LinkError::damaged(WHAT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SystemEntropy, VolumeId};
    use crate::format::testing::{key, noise};
    use proptest::prelude::*;

    const LINK: LinkId = LinkId([9; 16]);

    fn sealed(plain: &[u8]) -> (Vec<u8>, ChunkRef) {
        seal_link_chunk(LINK, &key(1), plain, (3, 1000), &SystemEntropy)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn references_round_trip_and_stay_within_their_length(len in 1usize..1 << 20, pack in 1u64.., offset: u32) {
            let (_, chunk) = seal_link_chunk(LINK, &key(1), &noise(len), (pack, offset), &SystemEntropy);
            let mut out = Writer::new();
            chunk.encode(&mut out);
            let bytes = out.finish();
            prop_assert!(bytes.len() <= REFERENCE_LEN_MAX);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(ChunkRef::decode(&mut reader).unwrap(), chunk);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn a_chunk_opens_for_its_link_and_root_only() {
        let plain = noise(200_000);
        let (bytes, chunk) = sealed(&plain);
        assert_eq!(bytes.len() as u64, chunk.span().len());
        assert_eq!(open_link_chunk(LINK, &key(1), &chunk, &bytes).unwrap(), plain);
        assert!(open_link_chunk(LinkId([8; 16]), &key(1), &chunk, &bytes).is_err());
        assert!(open_link_chunk(LINK, &key(2), &chunk, &bytes).is_err());
        // The same key and the same sixteen bytes, of a volume.
        assert!(open_chunk(&key(1), VolumeId(LINK.0), &chunk.id, chunk.len, &chunk.frames, &bytes).is_err());
    }

    #[test]
    fn what_another_holder_of_the_keys_seals_is_refused_though_it_would_open() {
        let (_, chunk) = sealed(b"the owner's");
        let (forged, other) = sealed(b"the owner's");
        assert_eq!((chunk.id, &chunk.frames), (other.id, &other.frames));
        assert!(open_chunk(&key(1), LINK, &chunk.id, chunk.len, &chunk.frames, &forged).is_ok());
        assert!(open_link_chunk(LINK, &key(1), &chunk, &forged).is_err());
    }

    #[test]
    fn a_chunk_whose_plaintext_is_not_its_ids_is_refused() {
        let (plain, id) = (noise(100), chunk_id(&noise(101)));
        let forged = seal_chunk(&key(1), LINK, &id, &plain, &SystemEntropy);
        assert_eq!(
            open_chunk(&key(1), LINK, &id, 100, &forged.frames, &forged.bytes),
            Err(CryptoError::Authentication)
        );
    }

    #[test]
    fn cut_lengthened_and_impossible_chunks_are_refused() {
        let (bytes, chunk) = sealed(&noise(70_000));
        let id = chunk.id;
        for len in [0, 64, 65, bytes.len() - 1] {
            assert!(open_chunk(&key(1), LINK, &id, chunk.len, &chunk.frames, &bytes[..len]).is_err());
        }
        assert!(open_chunk(&key(1), LINK, &id, chunk.len - 1, &chunk.frames, &bytes).is_err());
        let why = |change: &dyn Fn(&mut ChunkRef)| {
            let mut chunk = sealed(&noise(70_000)).1;
            change(&mut chunk);
            let mut out = Writer::new();
            chunk.encode(&mut out);
            ChunkRef::decode(&mut Reader::new("test", &out.finish())).unwrap_err().why
        };
        assert_eq!(why(&|chunk| chunk.pack = 0), "a pack that there cannot be");
        assert_eq!(why(&|chunk| chunk.len = 0), "an impossible chunk length");
        assert_eq!(why(&|chunk| chunk.len = 1 << 21), "an impossible chunk length");
        assert_eq!(why(&|chunk| chunk.frames[0] = 17), "an impossible frame length");
        assert_eq!(why(&|chunk| chunk.frames[1] = 65_554), "an impossible frame length");
    }
}
