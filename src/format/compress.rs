//! Optional lz4 of a body: a codec byte, the true length, the data.

use super::codec::{FormatError, Reader, Writer};

pub(super) const CODEC_RAW: u8 = 0;
pub(super) const CODEC_LZ4: u8 = 1;
/// lz4 cannot do better than a length byte for 255 bytes: a greater claim is a lie.
const LZ4_RATIO_MAX: u64 = 255;
/// Of one compressed body, so that its length is never an excuse. A longer one stays raw.
const BODY_LEN_MAX: u64 = 1 << 30;

/// Compression must save a sixteenth, or reading pays for nothing.
pub(super) const fn pays(compressed: usize, raw: usize) -> bool {
    compressed <= raw - raw / 16
}

pub(super) fn compress(raw: &[u8]) -> Vec<u8> {
    let packed = if raw.len() as u64 <= BODY_LEN_MAX { lz4_flex::block::compress(raw) } else { vec![] };
    let compressed = !packed.is_empty() && pays(packed.len(), raw.len());
    let (codec, data) = if compressed { (CODEC_LZ4, &packed[..]) } else { (CODEC_RAW, raw) };
    let mut out = Writer::new();
    out.u8(codec).varint(raw.len() as u64).raw(data);
    out.finish()
}

pub(super) fn decompress(what: &'static str, bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut reader = Reader::new(what, bytes);
    let (codec, len) = (reader.u8()?, reader.varint()?);
    let data = reader.raw(reader.remaining())?;
    match codec {
        CODEC_RAW if data.len() as u64 == len => Ok(data.to_vec()),
        CODEC_LZ4 if len <= BODY_LEN_MAX && len <= data.len() as u64 * LZ4_RATIO_MAX => {
            let mut raw = vec![0; len as usize];
            match lz4_flex::block::decompress_into(data, &mut raw) {
                Ok(written) if written == raw.len() => Ok(raw),
                _ => Err(reader.error("broken lz4")),
            }
        }
        CODEC_RAW | CODEC_LZ4 => Err(reader.error("an impossible true length")),
        _ => Err(reader.error("an unknown codec")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bodies_round_trip(unit in proptest::collection::vec(any::<u8>(), 0..300), times in 0usize..40) {
            let raw = unit.repeat(times);
            prop_assert_eq!(decompress("test", &compress(&raw)).unwrap(), raw);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decompress("test", &bytes);
        }
    }

    #[test]
    fn lies_are_refused() {
        let why = |bytes: &[u8]| decompress("test", bytes).unwrap_err().why;
        assert_eq!(why(&[2, 0]), "an unknown codec");
        assert_eq!(why(&[CODEC_RAW, 2, 1]), "an impossible true length");
        // 2^30 bytes from three.
        assert_eq!(why(&[CODEC_LZ4, 0x80, 0x80, 0x80, 0x80, 0x04, 1, 2, 3]), "an impossible true length");
        let zeros = compress(&[0; 4096]);
        assert_eq!(zeros[0], CODEC_LZ4);
        let (mut shorter, mut longer) = (zeros.clone(), zeros.clone());
        shorter[1] -= 1;
        longer[1] += 1;
        assert!(decompress("test", &shorter).is_err() || decompress("test", &shorter).unwrap().len() != 4096);
        assert!(decompress("test", &longer).is_err());
        assert!(decompress("test", &zeros[..zeros.len() - 1]).is_err());
    }

    #[test]
    fn what_does_not_shrink_by_a_sixteenth_stays_raw() {
        let noise: Vec<u8> = (0..64).flat_map(|i| crate::crypto::blake3(&[i])).collect();
        assert_eq!(compress(&noise)[0], CODEC_RAW);
        assert!(pays(15, 16) && !pays(16, 16) && pays(0, 0));
    }
}
