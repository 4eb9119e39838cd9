//! A link's objects as one file, for where there is no store: what `share export` writes and the exported page reads.
//! Nothing in it is sealed again, and nothing is believed: the objects prove themselves.

use super::codec::{FormatError, Reader};

const WHAT: &str = "exported link";
const MAGIC: &[u8; 8] = b"hushbox1";
/// Magic or number, then a length.
pub const BOX_HEAD_LEN: usize = 16;

/// What stands before the record.
pub fn box_head(record_len: u64) -> [u8; BOX_HEAD_LEN] {
    head(*MAGIC, record_len)
}

/// What stands before each pack.
pub fn box_pack_head(number: u64, len: u64) -> [u8; BOX_HEAD_LEN] {
    head(number.to_le_bytes(), len)
}

fn head(first: [u8; 8], len: u64) -> [u8; BOX_HEAD_LEN] {
    let mut head = [0; BOX_HEAD_LEN];
    head[..8].copy_from_slice(&first);
    head[8..].copy_from_slice(&len.to_le_bytes());
    head
}

/// Record, and each pack with its number.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenBox<'a> {
    pub record: &'a [u8],
    pub packs: Vec<(u64, &'a [u8])>,
}

pub fn decode_box(bytes: &[u8]) -> Result<OpenBox<'_>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    if &reader.array()? != MAGIC {
        return Err(reader.error("another kind of file"));
    }
    let record = part(&mut reader)?;
    let mut packs: Vec<(u64, &[u8])> = Vec::new();
    while reader.remaining() > 0 {
        let number = reader.u64()?;
        let pack = part(&mut reader)?;
        if pack.is_empty() || packs.iter().any(|(other, _)| *other == number) {
            return Err(reader.error("a pack that is empty or there twice"));
        }
        packs.push((number, pack));
    }
    Ok(OpenBox { record, packs })
}

fn part<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], FormatError> {
    let len = usize::try_from(reader.u64()?).map_err(|_| reader.error("cut short"))?;
    reader.raw(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(record: &[u8], packs: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = [&box_head(record.len() as u64), record].concat();
        for (number, pack) in packs {
            out.extend([&box_pack_head(*number, pack.len() as u64), *pack].concat());
        }
        out
    }

    #[test]
    fn boxes_round_trip() {
        let packs: [(u64, &[u8]); 2] = [(1, b"first"), (3, b"third")];
        let bytes = boxed(b"record", &packs);
        assert_eq!(bytes[..16], *b"hushbox1\x06\0\0\0\0\0\0\0");
        assert_eq!(decode_box(&bytes).unwrap(), OpenBox { record: b"record", packs: packs.to_vec() });
    }

    #[test]
    fn what_is_cut_or_doubled_is_refused() {
        let bytes = boxed(b"record", &[(1, b"first")]);
        let wholes = [16 + 6, bytes.len()];
        for len in (0..=bytes.len()).filter(|len| !wholes.contains(len)) {
            assert!(decode_box(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(decode_box(&boxed(b"record", &[(1, b"first"), (1, b"again")])).is_err());
        assert!(decode_box(&boxed(b"record", &[(1, b"")])).is_err());
        assert!(decode_box(&box_head(u64::MAX)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_box(&[&MAGIC[..], &bytes].concat());
        }
    }
}
