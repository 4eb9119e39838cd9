//! A pack is sealed chunks one behind the other, then a sealed footer that lists them and carries the
//! padding, then a trailer of fixed length: the epoch in clear and the footer's offset, sealed. The chunks
//! need none of it to be read; the footer is for repair.
//!
//! Footer and trailer name the pack, so a pack that is renamed gets new ones; its chunks stay as they are.

use super::codec::{FormatError, Reader, Writer};
use super::envelope::OpenError;
use super::padding;
use crate::base::{ByteRange, ChunkNo, Entropy, Epoch, PackName};
use crate::crypto::{self, Context, Kind, Roots, SEAL_OVERHEAD};

/// Where one sealed chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    pub chunk: ChunkNo,
    pub offset: u32,
    /// Of the chunk's header and frames.
    pub len: u32,
}

/// Where the footer is and whose root sealed it: what a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterPlace {
    pub epoch: Epoch,
    pub range: ByteRange,
}

const WHAT: &str = "pack";
/// The last bytes of every pack.
pub const TRAILER_LEN: usize = 4 + 8 + SEAL_OVERHEAD;

/// What to append to `chunks_len` bytes of chunks: with it the pack has a padded length.
pub fn footer(entries: &[PackEntry], chunks_len: u64, name: PackName, roots: &Roots, entropy: &dyn Entropy) -> Vec<u8> {
    let mut list = Writer::new();
    list.varint(entries.len() as u64);
    for entry in entries {
        list.varint(entry.chunk.0).varint(entry.offset.into()).varint(entry.len.into());
    }
    let mut list = list.finish();
    padding::pad(&mut list, chunks_len as usize + SEAL_OVERHEAD + TRAILER_LEN);
    let (epoch, root) = roots.current();
    let mut out = Vec::with_capacity(list.len() + SEAL_OVERHEAD + TRAILER_LEN);
    let id = Id::new(epoch, name);
    let fields = id.fields();
    let context = |kind| Context { volume: roots.volume(), kind, id: &fields };
    crypto::seal_bulk_onto(&mut out, &root, &context(Kind::PackFooter), &list, entropy);
    out.extend_from_slice(&id.epoch);
    crypto::seal_bulk_onto(&mut out, &root, &context(Kind::PackTrailer), &chunks_len.to_le_bytes(), entropy);
    out
}

/// `tail` ends where the object ends and holds at least `TRAILER_LEN` bytes of it.
pub fn decode_trailer(tail: &[u8], object_len: u64, name: PackName, roots: &Roots) -> Result<FooterPlace, OpenError> {
    let trailer = tail.last_chunk::<TRAILER_LEN>().ok_or(error("cut short"))?;
    let (epoch, sealed) = trailer.split_first_chunk::<4>().ok_or(error("cut short"))?;
    let epoch = Epoch(u32::from_le_bytes(*epoch));
    let offset = open(sealed, Kind::PackTrailer, epoch, name, roots)?;
    let start = offset.try_into().map(u64::from_le_bytes).map_err(|_| error("a broken trailer"))?;
    let end = object_len.checked_sub(TRAILER_LEN as u64).filter(|end| start <= *end);
    let end = end.ok_or(error("a footer outside the pack"))?;
    Ok(FooterPlace { epoch, range: ByteRange { start, end } })
}

/// `sealed` is the range that the trailer named. Entries are ascending and apart.
pub fn decode_footer(
    place: &FooterPlace,
    sealed: &[u8],
    name: PackName,
    roots: &Roots,
) -> Result<Vec<PackEntry>, OpenError> {
    let list = open(sealed, Kind::PackFooter, place.epoch, name, roots)?;
    let around =
        usize::try_from(place.range.start).ok().and_then(|start| start.checked_add(SEAL_OVERHEAD + TRAILER_LEN));
    let list = padding::unpad(WHAT, &list, around.ok_or(error("a footer outside the pack"))?)?;
    let mut reader = Reader::new(WHAT, list);
    let count = reader.count()?;
    let mut entries = Vec::with_capacity(count.min(1024));
    let mut end = 0u64;
    for _ in 0..count {
        let (chunk, offset, len) = (ChunkNo(reader.varint()?), reader.varint32()?, reader.varint32()?);
        if u64::from(offset) < end {
            return Err(reader.error("chunks that overlap").into());
        }
        end = u64::from(offset) + u64::from(len);
        entries.push(PackEntry { chunk, offset, len });
    }
    if end > place.range.start {
        return Err(reader.error("a chunk outside the pack").into());
    }
    reader.finish()?;
    Ok(entries)
}

struct Id {
    epoch: [u8; 4],
    incarnation: [u8; 16],
    number: [u8; 8],
}

impl Id {
    fn new(epoch: Epoch, name: PackName) -> Self {
        Self { epoch: epoch.0.to_le_bytes(), incarnation: name.incarnation.0, number: name.number.to_le_bytes() }
    }

    fn fields(&self) -> [&[u8]; 3] {
        [&self.epoch, &self.incarnation, &self.number]
    }
}

fn open(sealed: &[u8], kind: Kind, epoch: Epoch, name: PackName, roots: &Roots) -> Result<Vec<u8>, OpenError> {
    let id = Id::new(epoch, name);
    let fields = id.fields();
    let context = Context { volume: roots.volume(), kind, id: &fields };
    roots.root(epoch).and_then(|root| crypto::open_bulk(&root, &context, sealed)).map_err(OpenError::crypto(WHAT))
}

fn error(why: &'static str) -> FormatError {
    FormatError { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, roots, roots_of_another_volume};
    use super::*;
    use crate::base::{Incarnation, SystemEntropy};
    use proptest::prelude::*;

    const NAME: PackName = PackName { incarnation: Incarnation([5; 16]), number: 3 };

    fn pack(lens: &[u32]) -> (Vec<u8>, Vec<PackEntry>) {
        let mut entries = vec![];
        let mut end = 0;
        for (len, number) in lens.iter().zip(10..) {
            entries.push(PackEntry { chunk: ChunkNo(number), offset: end, len: *len });
            end += len;
        }
        let mut object = noise(end as usize);
        object.extend(footer(&entries, end.into(), NAME, &roots(), &SystemEntropy));
        (object, entries)
    }

    fn read(object: &[u8], name: PackName, roots: &Roots) -> Result<Vec<PackEntry>, OpenError> {
        let place = decode_trailer(&object[object.len() - TRAILER_LEN..], object.len() as u64, name, roots)?;
        let sealed = &object[place.range.start as usize..place.range.end as usize];
        decode_footer(&place, sealed, name, roots)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn footers_round_trip_and_packs_have_padded_lengths(lens in proptest::collection::vec(1u32..200_000, 0..20)) {
            let (object, entries) = pack(&lens);
            prop_assert_eq!(padding::padded_len(object.len() as u64), object.len() as u64);
            prop_assert_eq!(read(&object, NAME, &roots()).unwrap(), entries);
        }
    }

    #[test]
    fn a_footer_belongs_to_its_pack_volume_and_epoch() {
        let (mut object, _) = pack(&[1000, 2000]);
        let failed = |object: &[u8], name, roots: &Roots| read(object, name, roots).unwrap_err().is_authentication();
        assert!(failed(&object, PackName { number: 4, ..NAME }, &roots()));
        assert!(failed(&object, PackName { incarnation: Incarnation([6; 16]), ..NAME }, &roots()));
        assert!(failed(&object, NAME, &roots_of_another_volume()));
        let epoch_at = object.len() - TRAILER_LEN;
        object[epoch_at] = 0;
        assert!(failed(&object, NAME, &roots()));
    }

    #[test]
    fn a_trailer_and_a_footer_do_not_open_as_each_other() {
        let (object, _) = pack(&[1000]);
        let place = decode_trailer(&object, object.len() as u64, NAME, &roots()).unwrap();
        let (footer, trailer) = object[place.range.start as usize..].split_at(place.range.len() as usize);
        assert!(decode_footer(&place, &trailer[4..], NAME, &roots()).unwrap_err().is_authentication());
        let forged = [&trailer[..4], &footer[..TRAILER_LEN - 4]].concat();
        assert!(decode_trailer(&forged, object.len() as u64, NAME, &roots()).unwrap_err().is_authentication());
    }

    #[test]
    fn a_cut_pack_is_refused() {
        let (object, _) = pack(&[1000]);
        for len in [0, 92, 93, 4000, object.len() - 1] {
            assert!(decode_trailer(&object[..len], len as u64, NAME, &roots()).is_err(), "{len} bytes");
        }
        // A true trailer in an object that is too short for what it says.
        assert!(decode_trailer(&object, 1000, NAME, &roots()).is_err());
        assert!(decode_trailer(&object, 10, NAME, &roots()).is_err());
    }

    #[test]
    fn entries_that_overlap_or_reach_into_the_footer_are_refused() {
        let entry = |offset, len| PackEntry { chunk: ChunkNo(1), offset, len };
        let why = |entries: &[PackEntry]| {
            let object = [noise(1000), footer(entries, 1000, NAME, &roots(), &SystemEntropy)].concat();
            match read(&object, NAME, &roots()).unwrap_err() {
                OpenError::Format(error) => error.why,
                OpenError::Crypto { .. } => "authentication",
            }
        };
        assert_eq!(why(&[entry(0, 600), entry(599, 1)]), "chunks that overlap");
        assert_eq!(why(&[entry(0, 1001)]), "a chunk outside the pack");
        assert_eq!(why(&[entry(u32::MAX, u32::MAX)]), "a chunk outside the pack");
    }
}
