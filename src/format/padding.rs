//! Padmé: an object's length keeps only the upper bits that its magnitude needs, so that the store learns
//! little of the true one and at most 12% is added. Nothing is under 4 KiB.

use super::codec::FormatError;

pub const PADDED_LEN_MIN: u64 = 4096;
/// The true length, behind the zeros.
pub const LENGTH_LEN: usize = 8;

/// The least length at or over `len` that an object may have.
pub const fn padded_len(len: u64) -> u64 {
    if len <= PADDED_LEN_MIN {
        return PADDED_LEN_MIN;
    }
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1u64 << (exponent - kept)) - 1;
    // Past 2^63 there is no such length left; no object is near it.
    len.saturating_add(mask) & !mask
}

/// Lengthens a plaintext by zeros and its true length, so that with `around` more bytes outside it the
/// object has a padded length.
pub fn pad(plain: &mut Vec<u8>, around: usize) {
    let true_len = plain.len();
    let target = padded_len((true_len + LENGTH_LEN + around) as u64) as usize;
    plain.resize(target - around - LENGTH_LEN, 0);
    plain.extend_from_slice(&(true_len as u64).to_le_bytes());
}

/// What `pad` lengthened. One plaintext has one padding: other lengths, and bytes that are not zero, are
/// refused.
pub fn unpad<'a>(what: &'static str, padded: &'a [u8], around: usize) -> Result<&'a [u8], FormatError> {
    let error = |why| FormatError { what, why };
    let (rest, len) = padded.split_last_chunk::<LENGTH_LEN>().ok_or_else(|| error("cut short"))?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| error("a true length beyond the end"))?;
    let (plain, zeros) = rest.split_at_checked(len).ok_or_else(|| error("a true length beyond the end"))?;
    let total = |inside: usize| (inside as u64).saturating_add(around as u64);
    if total(padded.len()) != padded_len(total(len + LENGTH_LEN)) || zeros.iter().any(|&byte| byte != 0) {
        return Err(error("padding that is not the one its length has"));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_those_of_padme() {
        // From the paper's definition: E = floor(log2 L), S = floor(log2 E) + 1, the lower E - S bits clear.
        for (len, padded) in
            [(0, 4096), (1, 4096), (4096, 4096), (4097, 4352), (65_536, 65_536), (65_537, 67_584), (1 << 24, 1 << 24)]
        {
            assert_eq!(padded_len(len), padded, "of {len}");
        }
        assert_eq!(padded_len((1 << 24) + 1), (1 << 24) + (1 << 19));
    }

    #[test]
    fn up_to_16_mib_an_object_has_one_of_321_lengths() {
        let (mut lengths, mut len) = (0, 0);
        while len < 1 << 24 {
            len = padded_len(len + 1);
            lengths += 1;
        }
        assert_eq!((lengths, len), (321, 1 << 24));
    }

    proptest! {
        #[test]
        fn at_most_an_eighth_is_added_and_padding_is_stable(len in 4096u64..1 << 40) {
            let padded = padded_len(len);
            prop_assert!(padded >= len && padded - len <= len / 8);
            prop_assert_eq!(padded_len(padded), padded);
        }

        #[test]
        fn padding_round_trips(plain in proptest::collection::vec(any::<u8>(), 0..9000), around in 0usize..200) {
            let mut padded = plain.clone();
            pad(&mut padded, around);
            let total = (padded.len() + around) as u64;
            prop_assert_eq!(padded_len(total), total);
            prop_assert_eq!(unpad("test", &padded, around).unwrap(), &plain[..]);
        }

        #[test]
        fn any_bytes_are_refused_or_are_the_one_padding(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(unpad("test", &bytes, 93).is_err());
        }
    }

    #[test]
    fn a_lying_length_and_other_padding_are_refused() {
        let mut padded = b"body".to_vec();
        pad(&mut padded, 0);
        let with = |at: usize, value: u8| {
            let mut bytes = padded.clone();
            bytes[at] = value;
            unpad("test", &bytes, 0).map(<[u8]>::to_vec).unwrap_err().why
        };
        assert_eq!(with(4095, 0xff), "a true length beyond the end");
        assert_eq!(with(4089, 0x10), "a true length beyond the end");
        assert_eq!(with(100, 1), "padding that is not the one its length has");
        // One byte fewer is said to be true: then the last byte is padding that is not zero.
        assert_eq!(with(4088, 3), "padding that is not the one its length has");
        assert!(unpad("test", &padded[1..], 0).is_err());
        assert!(unpad("test", &padded, 1).is_err());
    }
}
