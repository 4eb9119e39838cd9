//! A link's pack: chunks, a sealed footer that lists them with the padding in it, a sealed trailer that says where the
//! footer begins. Readers need neither; from the footers a publisher that was interrupted knows what it had stored.
//!
//! Both are sealed under a key that only the owner's devices have. What a footer says goes into signed records, so
//! another holder of the link, who could plant a pack together with the store, must not be able to make one.

use super::{ChunkRef, LinkError, REFERENCE_LEN_MAX};
use crate::base::{ByteRange, Entropy, LinkId};
use crate::crypto::{self, Context, Key, Kind, SEAL_OVERHEAD};
use crate::format::codec::{FormatError, Reader, Writer};
use crate::format::padding;

const WHAT: &str = "a link's pack";
/// The last bytes of every pack of a link.
pub const LINK_TRAILER_LEN: usize = 8 + SEAL_OVERHEAD;

/// What to append to `chunks_len` bytes of chunks: with it the pack has a padded length.
pub fn link_footer(
    chunks: &[ChunkRef],
    chunks_len: u64,
    link: LinkId,
    number: u64,
    key: &Key,
    entropy: &dyn Entropy,
) -> Vec<u8> {
    let mut list = Writer::new();
    list.varint(chunks.len() as u64);
    chunks.iter().for_each(|chunk| chunk.encode_in_pack(&mut list));
    let mut list = list.finish();
    padding::pad(&mut list, chunks_len as usize + SEAL_OVERHEAD + LINK_TRAILER_LEN);
    let number = number.to_le_bytes();
    let fields: [&[u8]; 1] = [&number];
    let mut out = Vec::with_capacity(list.len() + SEAL_OVERHEAD + LINK_TRAILER_LEN);
    let context = |kind| Context::of_link(link, kind, &fields);
    crypto::seal_bulk_onto(&mut out, key, &context(Kind::LinkPackFooter), &list, entropy);
    crypto::seal_bulk_onto(&mut out, key, &context(Kind::LinkPackTrailer), &chunks_len.to_le_bytes(), entropy);
    out
}

/// A footer of so many chunks and its trailer take no more than this, padding aside.
pub const fn link_footer_len_max(chunks: usize) -> usize {
    chunks * REFERENCE_LEN_MAX + 10 + padding::LENGTH_LEN + SEAL_OVERHEAD + LINK_TRAILER_LEN
}

/// Where the footer is. `tail` ends where the object ends and holds at least `LINK_TRAILER_LEN` bytes of it.
pub fn decode_link_trailer(
    tail: &[u8],
    object_len: u64,
    link: LinkId,
    number: u64,
    key: &Key,
) -> Result<ByteRange, LinkError> {
    let trailer = tail.last_chunk::<LINK_TRAILER_LEN>().ok_or(error("cut short"))?;
    let offset = open(trailer, Kind::LinkPackTrailer, link, number, key)?;
    let start = offset.try_into().map(u64::from_le_bytes).map_err(|_| error("a broken trailer"))?;
    let end = object_len.checked_sub(LINK_TRAILER_LEN as u64).filter(|end| start <= *end);
    Ok(ByteRange { start, end: end.ok_or(error("a footer outside the pack"))? })
}

/// `sealed` is the range that the trailer named. Chunks are ascending and apart.
pub fn decode_link_footer(
    place: ByteRange,
    sealed: &[u8],
    link: LinkId,
    number: u64,
    key: &Key,
) -> Result<Vec<ChunkRef>, LinkError> {
    let list = open(sealed, Kind::LinkPackFooter, link, number, key)?;
    let around =
        usize::try_from(place.start).ok().and_then(|start| start.checked_add(SEAL_OVERHEAD + LINK_TRAILER_LEN));
    let list = padding::unpad(WHAT, &list, around.ok_or(error("a footer outside the pack"))?)?;
    let mut reader = Reader::new(WHAT, list);
    let count = reader.count()?;
    let mut chunks = Vec::with_capacity(count.min(1024));
    let mut end = 0u64;
    for _ in 0..count {
        let chunk = ChunkRef::decode_in_pack(number, &mut reader)?;
        if chunk.span().start < end {
            return Err(reader.error("chunks that overlap").into());
        }
        end = chunk.span().end;
        chunks.push(chunk);
    }
    if end > place.start {
        return Err(reader.error("a chunk outside the pack").into());
    }
    reader.finish()?;
    Ok(chunks)
}

fn open(sealed: &[u8], kind: Kind, link: LinkId, number: u64, key: &Key) -> Result<Vec<u8>, LinkError> {
    let number = number.to_le_bytes();
    let fields: [&[u8]; 1] = [&number];
    crypto::open_bulk(key, &Context::of_link(link, kind, &fields), sealed).map_err(LinkError::damaged(WHAT))
}

fn error(why: &'static str) -> FormatError {
    FormatError { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SystemEntropy;
    use crate::format::link::seal_link_chunk;
    use crate::format::testing::{key, noise};

    const LINK: LinkId = LinkId([9; 16]);

    fn pack(lens: &[usize]) -> (Vec<u8>, Vec<ChunkRef>) {
        let (mut object, mut chunks) = (vec![], vec![]);
        for len in lens {
            let (bytes, chunk) = seal_link_chunk(LINK, &key(1), &noise(*len), (5, object.len() as u32), &SystemEntropy);
            object.extend(bytes);
            chunks.push(chunk);
        }
        let footer = link_footer(&chunks, object.len() as u64, LINK, 5, &key(1), &SystemEntropy);
        object.extend(footer);
        (object, chunks)
    }

    fn read(object: &[u8], link: LinkId, number: u64, own: &Key) -> Result<Vec<ChunkRef>, LinkError> {
        let place = decode_link_trailer(object, object.len() as u64, link, number, own)?;
        decode_link_footer(place, &object[place.start as usize..place.end as usize], link, number, own)
    }

    #[test]
    fn footers_round_trip_and_packs_have_padded_lengths() {
        for lens in [&[][..], &[1], &[65_536, 70_000, 1], &[1 << 20; 3]] {
            let (object, chunks) = pack(lens);
            assert_eq!(padding::padded_len(object.len() as u64), object.len() as u64);
            assert_eq!(read(&object, LINK, 5, &key(1)).unwrap(), chunks);
        }
    }

    #[test]
    fn a_footer_belongs_to_its_pack_link_and_root() {
        let (object, _) = pack(&[1000, 2000]);
        assert!(read(&object, LINK, 6, &key(1)).is_err());
        assert!(read(&object, LinkId([8; 16]), 5, &key(1)).is_err());
        assert!(read(&object, LINK, 5, &key(2)).is_err());
        for len in [0, 88, 89, 4000, object.len() - 1] {
            assert!(read(&object[..len], LINK, 5, &key(1)).is_err(), "{len} bytes");
        }
        assert!(decode_link_trailer(&object, 1000, LINK, 5, &key(1)).is_err());
    }

    #[test]
    fn chunks_that_overlap_or_reach_into_the_footer_are_refused() {
        let why = |offsets: [u32; 2]| {
            let mut chunks = pack(&[100, 200]).1;
            chunks.iter_mut().zip(offsets).for_each(|(chunk, offset)| chunk.offset = offset);
            let footer = link_footer(&chunks, 1000, LINK, 5, &key(1), &SystemEntropy);
            let object = [noise(1000), footer].concat();
            match read(&object, LINK, 5, &key(1)).unwrap_err() {
                LinkError::Format(error) => error.why,
                _ => "another error",
            }
        };
        assert_eq!(why([0, 100]), "chunks that overlap");
        assert_eq!(why([0, 999]), "a chunk outside the pack");
        assert_eq!(why([u32::MAX - 1, u32::MAX]), "chunks that overlap");
    }
}
