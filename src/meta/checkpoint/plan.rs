//! Which segments of the last checkpoint are taken over, and which key ranges are written anew. Pure.

use crate::format::rows::KeyBytes;
use crate::meta::replica::Segment;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Keep(Segment),
    /// All rows with `start <= key < end`.
    Dump {
        start: KeyBytes,
        end: Option<KeyBytes>,
    },
}

/// In key order; together all keys. A segment counts for all keys from its first to the next one's first, the first
/// one for those before it too.
///
/// A small segment beside a range that is written anyway goes into it. So two small ones are never neighbours for
/// long, and there are at most about twice as many segments as there had to be.
pub(super) fn plan(segments: Vec<(Segment, bool)>, small_len: u64) -> Vec<Part> {
    let mut is_dumped: Vec<bool> = segments.iter().map(|(_, touched)| *touched).collect();
    let is_small: Vec<bool> = segments.iter().map(|(segment, _)| segment.len < small_len).collect();
    for index in 1..segments.len() {
        is_dumped[index] |= is_small[index] && is_dumped[index - 1];
    }
    for index in (1..segments.len()).rev() {
        is_dumped[index - 1] |= is_small[index - 1] && is_dumped[index];
    }

    let mut parts = Vec::new();
    let mut open: Option<KeyBytes> = segments.is_empty().then(Vec::new);
    for (index, ((segment, _), is_dumped)) in segments.into_iter().zip(is_dumped).enumerate() {
        if is_dumped {
            open.get_or_insert_with(|| if index == 0 { Vec::new() } else { segment.first });
            continue;
        }
        if let Some(start) = open.take() {
            parts.push(Part::Dump { start, end: Some(segment.first.clone()) });
        }
        parts.push(Part::Keep(segment));
    }
    if let Some(start) = open {
        parts.push(Part::Dump { start, end: None });
    }
    parts
}

/// Whether a segment of rows of `len` bytes that ends with `last` ends before `next`. Rows of another kind change at
/// other times, so they had better be in another segment.
pub(super) fn ends_here(len: usize, last: &[u8], next: &[u8], target_len: usize) -> bool {
    len >= target_len || (len >= target_len / 4 && last.first() != next.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Hash, SegmentId};

    fn segment(first: &[u8], len: u64) -> Segment {
        let last = [first, b"~"].concat();
        Segment { id: SegmentId([first[0]; 16]), first: first.to_vec(), last, rows: 1, len, hash: Hash::ZERO }
    }

    fn planned(segments: &[(&str, u64, bool)]) -> String {
        let segments = segments.iter().map(|(first, len, touched)| (segment(first.as_bytes(), *len), *touched));
        let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
        let parts = plan(segments.collect(), 10).into_iter().map(|part| match part {
            Part::Keep(segment) => text(segment.first),
            Part::Dump { start, end } => format!("[{}..{}]", text(start), end.map(text).unwrap_or_default()),
        });
        parts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn without_a_checkpoint_all_is_written() {
        assert_eq!(planned(&[]), "[..]");
    }

    #[test]
    fn what_was_touched_is_written_up_to_the_next_that_was_not() {
        assert_eq!(planned(&[("b", 99, false), ("d", 99, true), ("f", 99, true), ("h", 99, false)]), "b [d..h] h");
        assert_eq!(planned(&[("b", 99, true), ("d", 99, false), ("f", 99, true)]), "[..d] d [f..]");
        assert_eq!(planned(&[("b", 99, false), ("d", 99, false)]), "b d");
    }

    #[test]
    fn small_neighbours_of_what_is_written_go_into_it() {
        let before = [("b", 99, false), ("c", 1, false), ("d", 1, false), ("e", 99, true)];
        assert_eq!(planned(&before), "b [c..]");
        let behind = [("b", 99, true), ("c", 1, false), ("d", 1, false), ("e", 99, false), ("f", 1, false)];
        assert_eq!(planned(&behind), "[..e] e f");
    }

    #[test]
    fn a_segment_ends_when_full_or_where_the_kind_changes() {
        assert!(ends_here(100, b"Ca", b"Cb", 100));
        assert!(!ends_here(99, b"Ca", b"Cb", 100));
        assert!(ends_here(25, b"Ca", b"Da", 100));
        assert!(!ends_here(24, b"Ca", b"Da", 100));
    }
}
