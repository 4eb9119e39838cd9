//! The Range header of a request for a pack: whole blocks, or nothing. What is asked for then says how many blocks
//! somebody needs, and not where their file begins.

use crate::base::{BLOCK_LEN, ByteRange};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRefusal {
    /// There is none: the whole object is no unit.
    Missing,
    /// Not aligned, outside the object, of another form, or several.
    Unfit,
}

/// From the header's text and the object's size. An end beyond the object's is its end.
pub fn aligned_range(header: Option<&str>, size: u64) -> Result<ByteRange, RangeRefusal> {
    let text = header.ok_or(RangeRefusal::Missing)?;
    let (start, last) = parse(text).ok_or(RangeRefusal::Unfit)?;
    let end = match last {
        Some(last) => last.checked_add(1).ok_or(RangeRefusal::Unfit)?,
        None => size,
    };
    let is_aligned = start.is_multiple_of(BLOCK_LEN) && (end.is_multiple_of(BLOCK_LEN) || end >= size);
    let end = end.min(size);
    if is_aligned && start < end { Ok(ByteRange::new(start, end)) } else { Err(RangeRefusal::Unfit) }
}

/// `bytes=FIRST-LAST`, or without the last one.
fn parse(text: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some((number(first)?, if last.is_empty() { None } else { Some(number(last)?) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 3 * BLOCK_LEN + 100;

    #[test]
    fn whole_blocks_are_answered() {
        for (text, start, end) in [
            ("bytes=0-262143", 0, BLOCK_LEN),
            ("bytes=262144-786431", BLOCK_LEN, 3 * BLOCK_LEN),
            ("bytes=786432-786531", 3 * BLOCK_LEN, SIZE),
            ("bytes=786432-1048575", 3 * BLOCK_LEN, SIZE),
            ("bytes=0-9999999999", 0, SIZE),
            ("bytes=0-", 0, SIZE),
        ] {
            assert_eq!(aligned_range(Some(text), SIZE), Ok(ByteRange::new(start, end)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(aligned_range(None, SIZE), Err(RangeRefusal::Missing));
        for text in [
            "bytes=1-262143",
            "bytes=0-262142",
            "bytes=0-0",
            "bytes=1048576-1310719",
            "bytes=262144-262143",
            "bytes=-262144",
            "bytes=0-262143,262144-524287",
            "bytes=0 - 262143",
            "bytes=+0-262143",
            "bytes=0-18446744073709551615",
            "bytes=0-99999999999999999999999",
            "bytes=",
            "items=0-262143",
            "",
        ] {
            assert_eq!(aligned_range(Some(text), SIZE), Err(RangeRefusal::Unfit), "{text}");
        }
        assert_eq!(aligned_range(Some("bytes=0-"), 0), Err(RangeRefusal::Unfit));
    }

    proptest! {
        #[test]
        fn what_is_answered_is_aligned_and_inside(text in "bytes=[0-9,-]{0,24}|[ -~]{0,40}", size in 0..1u64 << 40) {
            if let Ok(range) = aligned_range(Some(&text), size) {
                prop_assert!(range.start.is_multiple_of(BLOCK_LEN) && range.start < range.end && range.end <= size);
                prop_assert!(range.end.is_multiple_of(BLOCK_LEN) || range.end == size);
            }
        }
    }
}
