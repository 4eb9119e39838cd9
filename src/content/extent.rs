//! Arithmetic on the extents of one window of a file.
//!
//! Invariant: a list is sorted by offset, without overlaps and without empty extents; every function keeps
//! it so. Knows nothing of rows, inodes or bytes: which window a list belongs to is the caller's business.

use crate::base::{ByteRange, CHUNK_LEN, ChunkNo};
use crate::format::rows::{EXTENT_WINDOW_LEN, Extent};

const _: () = assert!(EXTENT_WINDOW_LEN.is_multiple_of(CHUNK_LEN));

/// One step through a range of a file: where its bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Hole(ByteRange),
    Data { range: ByteRange, chunk: ChunkNo, chunk_offset: u32 },
}

impl Span {
    pub fn range(&self) -> ByteRange {
        match self {
            Self::Hole(range) | Self::Data { range, .. } => *range,
        }
    }
}

/// Puts `new` over what was there: older extents are trimmed, split or dropped. All of `new` must lie in the
/// window (see `split_at_windows`).
pub fn cover(extents: &mut Vec<Extent>, new: Extent) {
    if new.len == 0 {
        return;
    }
    replace(extents, ByteRange::new(new.offset, new.end()), Some(new));
}

/// Leaves a hole.
pub fn punch(extents: &mut Vec<Extent>, hole: ByteRange) {
    if !hole.is_empty() {
        replace(extents, hole, None);
    }
}

/// Bytes that extents cover.
pub fn allocated(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| u64::from(extent.len)).sum()
}

/// Where the bytes of `range` come from, in order and without gaps.
pub fn spans(extents: &[Extent], range: ByteRange) -> Vec<Span> {
    let first = extents.partition_point(|extent| extent.end() <= range.start);
    let mut out = Vec::new();
    let mut at = range.start;
    for part in extents[first..].iter().map_while(|extent| clip(extent, range)) {
        if at < part.offset {
            out.push(Span::Hole(ByteRange::new(at, part.offset)));
        }
        at = part.end();
        let range = ByteRange::new(part.offset, at);
        out.push(Span::Data { range, chunk: part.chunk, chunk_offset: part.chunk_offset });
    }
    if at < range.end {
        out.push(Span::Hole(ByteRange::new(at, range.end)));
    }
    out
}

/// The parts of `range` that no extent covers.
pub fn holes(extents: &[Extent], range: ByteRange) -> impl Iterator<Item = ByteRange> {
    spans(extents, range).into_iter().filter_map(|span| match span {
        Span::Hole(hole) => Some(hole),
        Span::Data { .. } => None,
    })
}

/// The pieces of an extent by the window each lies in: one, or two where a boundary cuts it.
pub fn split_at_windows(extent: Extent) -> impl Iterator<Item = (u64, Extent)> {
    windows(ByteRange::new(extent.offset, extent.end()))
        .filter_map(move |(window, range)| Some((window, clip(&extent, range)?)))
}

/// The pieces of a range by window.
pub fn windows(range: ByteRange) -> impl Iterator<Item = (u64, ByteRange)> {
    let last = if range.is_empty() { None } else { Some((range.end - 1) / EXTENT_WINDOW_LEN) };
    let first = range.start / EXTENT_WINDOW_LEN;
    last.into_iter().flat_map(move |last| first..=last).filter_map(move |window| {
        let start = window * EXTENT_WINDOW_LEN;
        let whole = ByteRange::new(start, start.saturating_add(EXTENT_WINDOW_LEN));
        Some((window, whole.intersect(range)?))
    })
}

/// What of the extent lies in `range`.
fn clip(extent: &Extent, range: ByteRange) -> Option<Extent> {
    let part = ByteRange::new(extent.offset, extent.end()).intersect(range)?;
    Some(Extent {
        offset: part.start,
        len: part.len() as u32,
        chunk: extent.chunk,
        chunk_offset: extent.chunk_offset + (part.start - extent.offset) as u32,
    })
}

fn replace(extents: &mut Vec<Extent>, range: ByteRange, new: Option<Extent>) {
    let first = extents.partition_point(|extent| extent.end() <= range.start);
    let last = first + extents[first..].partition_point(|extent| extent.offset < range.end);
    let before = extents.get(first).and_then(|extent| clip(extent, ByteRange::new(0, range.start)));
    let after = extents[first..last].last().and_then(|extent| clip(extent, ByteRange::new(range.end, u64::MAX)));
    // An extent right behind the range, which `first` may be, is no part of what is replaced.
    let before = before.filter(|_| first < last);
    extents.splice(first..last, [before, new, after].into_iter().flatten());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 200;

    /// What a byte of the file is: which chunk and which byte of it.
    type Model = Vec<Option<(u64, u32)>>;

    fn extent(offset: u64, len: u32, chunk: u64, chunk_offset: u32) -> Extent {
        Extent { offset, len, chunk: ChunkNo(chunk), chunk_offset }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Cover(Extent),
        Punch(ByteRange),
    }

    fn step() -> impl Strategy<Value = Step> {
        let range = (0..LEN, 0..40u64).prop_map(|(start, len)| ByteRange::new(start, (start + len).min(LEN)));
        prop_oneof![
            3 => (range.clone(), 1..50u64, 0..1000u32)
                .prop_map(|(r, chunk, at)| Step::Cover(extent(r.start, r.len() as u32, chunk, at))),
            1 => range.prop_map(Step::Punch),
        ]
    }

    fn bytes_of(spans: &[Span]) -> Model {
        let mut out = Vec::new();
        for span in spans {
            match *span {
                Span::Hole(range) => out.extend(range_iter(range).map(|_| None)),
                Span::Data { range, chunk, chunk_offset } => {
                    out.extend(range_iter(range).map(|at| Some((chunk.0, chunk_offset + (at - range.start) as u32))));
                }
            }
        }
        out
    }

    fn range_iter(range: ByteRange) -> std::ops::Range<u64> {
        range.start..range.end
    }

    proptest! {
        #[test]
        fn a_list_of_extents_is_the_file_that_the_writes_make(
            steps in prop::collection::vec(step(), 0..60), from in 0..LEN, len in 0..LEN,
        ) {
            let (mut extents, mut model) = (Vec::new(), vec![None; LEN as usize]);
            for step in steps {
                match step {
                    Step::Cover(new) => {
                        cover(&mut extents, new);
                        for at in 0..new.len {
                            model[new.offset as usize + at as usize] = Some((new.chunk.0, new.chunk_offset + at));
                        }
                    }
                    Step::Punch(hole) => {
                        punch(&mut extents, hole);
                        model[hole.start as usize..hole.end as usize].fill(None);
                    }
                }
                prop_assert!(extents.iter().all(|extent| extent.len > 0));
                prop_assert!(extents.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
            }
            prop_assert_eq!(allocated(&extents), model.iter().flatten().count() as u64);
            let range = ByteRange::new(from, (from + len).min(LEN));
            let spans = spans(&extents, range);
            prop_assert!(spans.iter().all(|span| !span.range().is_empty()));
            prop_assert_eq!(bytes_of(&spans), &model[range.start as usize..range.end as usize]);
        }

        #[test]
        fn splitting_at_windows_loses_no_byte(offset in 0..4 * EXTENT_WINDOW_LEN, len in 1..=CHUNK_LEN as u32) {
            let whole = extent(offset, len, 7, 0);
            let parts: Vec<_> = split_at_windows(whole).collect();
            prop_assert!(parts.len() <= 2);
            let mut at = whole.offset;
            for (window, part) in parts {
                prop_assert_eq!(part.offset, at);
                prop_assert_eq!(u64::from(part.chunk_offset), at - offset);
                prop_assert_eq!(part.offset / EXTENT_WINDOW_LEN, window);
                prop_assert_eq!((part.end() - 1) / EXTENT_WINDOW_LEN, window);
                at = part.end();
            }
            prop_assert_eq!(at, whole.end());
        }
    }

    #[test]
    fn an_extent_right_behind_a_hole_stays() {
        let mut extents = vec![extent(10, 5, 1, 0)];
        punch(&mut extents, ByteRange::new(0, 10));
        punch(&mut extents, ByteRange::new(15, 20));
        assert_eq!(extents, [extent(10, 5, 1, 0)]);
        cover(&mut extents, extent(5, 5, 2, 0));
        assert_eq!(extents, [extent(5, 5, 2, 0), extent(10, 5, 1, 0)]);
    }

    #[test]
    fn a_write_inside_an_extent_splits_it() {
        let mut extents = vec![extent(0, 100, 1, 50)];
        cover(&mut extents, extent(40, 20, 2, 0));
        assert_eq!(extents, [extent(0, 40, 1, 50), extent(40, 20, 2, 0), extent(60, 40, 1, 110)]);
    }

    #[test]
    fn windows_of_the_largest_range_end_at_its_end() {
        let range = ByteRange::new(u64::MAX - 10, u64::MAX);
        assert_eq!(windows(range).collect::<Vec<_>>(), [(u64::MAX / EXTENT_WINDOW_LEN, range)]);
        assert_eq!(windows(ByteRange::new(5, 5)).count(), 0);
    }
}
