use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::ContentError;
use super::*;

const CHUNK: usize = CHUNK_LEN as usize;
/// The file of the model: around a chunk boundary, where the interesting things are.
const BASE: u64 = CHUNK_LEN - 300;
const LEN: usize = 600;

#[derive(Clone, Debug)]
enum Step {
    Write(ByteRange, u8),
    Discard(ByteRange),
    MarkJournaled,
    TakeAll,
    TakeAndRestore { written_meanwhile: ByteRange, fill: u8 },
}

fn range() -> impl Strategy<Value = ByteRange> {
    (0..LEN as u64, 0..80u64).prop_map(|(at, len)| ByteRange::new(BASE + at, BASE + (at + len).min(LEN as u64)))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (range(), any::<u8>()).prop_map(|(range, fill)| Step::Write(range, fill)),
        4 => range().prop_map(Step::Discard),
        2 => Just(Step::MarkJournaled),
        1 => Just(Step::TakeAll),
        1 => (range(), any::<u8>()).prop_map(|(written_meanwhile, fill)| Step::TakeAndRestore { written_meanwhile, fill }),
    ]
}

/// A byte of the file: its value if dirty, and whether the journal lacks it.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Byte {
    dirty: Option<u8>,
    unjournaled: bool,
}

fn model_of<'a>(pieces: impl Iterator<Item = (u64, &'a [u8])>) -> Vec<Option<u8>> {
    let mut out = vec![None; LEN];
    for (offset, data) in pieces {
        for (at, byte) in data.iter().enumerate() {
            let byte = out[(offset - BASE) as usize + at].replace(*byte);
            assert_eq!(byte, None, "a byte twice");
        }
    }
    out
}

fn span(range: ByteRange) -> std::ops::Range<usize> {
    (range.start - BASE) as usize..(range.end - BASE) as usize
}

fn data(range: ByteRange, fill: u8) -> Vec<u8> {
    (0..range.len()).map(|at| fill.wrapping_add(at as u8)).collect()
}

fn write(dirty: &mut DirtyPieces, model: &mut [Byte], range: ByteRange, fill: u8) -> u64 {
    let bytes = data(range, fill);
    for (byte, value) in model[span(range)].iter_mut().zip(&bytes) {
        *byte = Byte { dirty: Some(*value), unjournaled: true };
    }
    dirty.write(range.start, &bytes)
}

proptest! {
    #[test]
    fn pieces_are_the_bytes_written_and_not_discarded(
        steps in prop::collection::vec(step(), 0..80), look in range(),
    ) {
        let (mut dirty, mut model) = (DirtyPieces::new(), vec![Byte::default(); LEN]);
        for step in steps {
            let before = dirty.bytes();
            match step {
                Step::Write(range, fill) => {
                    let added = write(&mut dirty, &mut model, range, fill);
                    prop_assert_eq!(dirty.bytes(), before + added);
                }
                Step::Discard(range) => {
                    let removed = dirty.discard(range);
                    prop_assert_eq!(dirty.bytes(), before - removed);
                    model[span(range)].fill(Byte::default());
                }
                Step::MarkJournaled => {
                    dirty.mark_journaled();
                    model.iter_mut().for_each(|byte| byte.unjournaled = false);
                }
                Step::TakeAll => {
                    let taken = dirty.take_all();
                    let joined = taken.windows(2).all(|pair| {
                        let end = pair[0].offset + pair[0].data.len() as u64;
                        end < pair[1].offset || end == pair[1].offset && end.is_multiple_of(CHUNK_LEN)
                    });
                    prop_assert!(joined);
                    let taken = model_of(taken.iter().map(|piece| (piece.offset, &piece.data[..])));
                    prop_assert_eq!(taken, model.iter().map(|byte| byte.dirty).collect::<Vec<_>>());
                    prop_assert!(dirty.is_empty());
                    model.fill(Byte::default());
                }
                Step::TakeAndRestore { written_meanwhile, fill } => {
                    let taken = dirty.take_all();
                    write(&mut dirty, &mut model, written_meanwhile, fill);
                    let before = dirty.bytes();
                    let added: u64 = taken.into_iter().map(|piece| dirty.restore(piece)).sum();
                    prop_assert_eq!(dirty.bytes(), before + added);
                    model.iter_mut().for_each(|byte| byte.unjournaled = byte.dirty.is_some());
                }
            }
            for (offset, piece) in dirty.iter() {
                prop_assert_eq!(offset / CHUNK_LEN, (offset + piece.len() as u64 - 1) / CHUNK_LEN);
            }
            let bytes: Vec<_> = model.iter().map(|byte| byte.dirty).collect();
            prop_assert_eq!(dirty.bytes(), bytes.iter().flatten().count() as u64);
            prop_assert_eq!(dirty.is_empty(), bytes.iter().flatten().count() == 0);
            prop_assert_eq!(model_of(dirty.iter()), bytes);
            let unjournaled: Vec<_> = model.iter().map(|byte| byte.dirty.filter(|_| byte.unjournaled)).collect();
            prop_assert_eq!(dirty.is_journaled(), unjournaled.iter().flatten().count() == 0);
            prop_assert_eq!(model_of(dirty.unjournaled()), unjournaled);
        }
        let mut out = vec![7; look.len() as usize];
        dirty.overlay(look, &mut out);
        let expected: Vec<u8> = model[span(look)].iter().map(|byte| byte.dirty.unwrap_or(7)).collect();
        prop_assert_eq!(out, expected);
        prop_assert_eq!(dirty.covers(look), model[span(look)].iter().all(|byte| byte.dirty.is_some()));

        let in_ranges: Vec<u64> = dirty.ranges(look).flat_map(|range| range.start..range.end).collect();
        let is_dirty = |at: &u64| model[(at - BASE) as usize].dirty.is_some();
        prop_assert_eq!(in_ranges, (look.start..look.end).filter(is_dirty).collect::<Vec<_>>());
    }
}

#[test]
fn a_chunk_is_taken_once_it_is_whole_in_whatever_order_it_was_written() {
    for backwards in [false, true] {
        let mut dirty = DirtyPieces::new();
        let mut offsets: Vec<u64> = (0..CHUNK_LEN).step_by(4096).map(|at| CHUNK_LEN + at).collect();
        if backwards {
            offsets.reverse();
        }
        for (nth, offset) in offsets.iter().enumerate() {
            assert!(dirty.take_full_chunks().is_empty());
            dirty.write(*offset, &[(*offset / 4096) as u8; 4096]);
            // Forwards it is one piece; backwards their number stays logarithmic.
            assert!(dirty.iter().count() <= if backwards { 10 } else { 1 }, "{nth}");
        }
        let taken = dirty.take_full_chunks();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].offset, taken[0].data.len()), (CHUNK_LEN, CHUNK));
        assert!(taken[0].data.chunks(4096).enumerate().all(|(nth, page)| page == [(256 + nth) as u8; 4096]));
        assert!(dirty.is_empty() && dirty.is_journaled() && dirty.bytes() == 0);
    }
}

#[test]
fn a_write_over_several_chunks_leaves_only_its_ends() {
    let mut dirty = DirtyPieces::new();
    assert_eq!(dirty.write(10, &vec![1; 3 * CHUNK]), 3 * CHUNK_LEN);
    let full: Vec<u64> = dirty.take_full_chunks().iter().map(|piece| piece.offset).collect();
    assert_eq!(full, [CHUNK_LEN, 2 * CHUNK_LEN]);
    let rest: Vec<_> = dirty.iter().map(|(offset, data)| (offset, data.len())).collect();
    assert_eq!(rest, [(10, CHUNK - 10), (3 * CHUNK_LEN, 10)]);
}

#[test]
fn a_chunk_that_was_cut_after_it_was_whole_is_not_taken_as_full() {
    let mut dirty = DirtyPieces::new();
    dirty.write(0, &vec![1; CHUNK]);
    dirty.discard(ByteRange::new(CHUNK_LEN - 1, u64::MAX));
    assert!(dirty.take_full_chunks().is_empty());
    dirty.write(CHUNK_LEN - 1, &[2]);
    assert_eq!(dirty.take_full_chunks().len(), 1);
}

#[test]
fn a_piece_never_has_room_for_more_than_its_chunk() {
    let mut dirty = DirtyPieces::new();
    for offset in (0..CHUNK_LEN).step_by(3000) {
        dirty.write(offset, &vec![1; 3000.min(CHUNK - offset as usize)]);
    }
    assert_eq!(dirty.take_full_chunks()[0].data.capacity(), CHUNK);
}

#[test]
fn fsync_sees_only_bytes_written_since_the_last() {
    let mut dirty = DirtyPieces::new();
    dirty.write(0, &[1; 100]);
    dirty.mark_journaled();
    dirty.write(100, &[2; 10]);
    dirty.write(50, &[3; 1]);
    let new: Vec<_> = dirty.unjournaled().map(|(offset, data)| (offset, data.to_vec())).collect();
    assert_eq!(new, [(50, vec![3]), (100, vec![2; 10])]);
}

#[test]
fn a_writer_past_the_budget_waits_until_bytes_are_released() {
    let budget = Arc::new(DirtyBudget::new(100));
    assert!(budget.try_reserve(80));
    assert!(budget.is_above_high_water());
    assert!(!budget.try_reserve(21));
    let soon = Instant::now() + Duration::from_millis(5);
    assert!(matches!(budget.reserve_wait(21, soon), Err(ContentError::DirtyFull)));
    let waiter = {
        let budget = budget.clone();
        std::thread::spawn(move || budget.reserve_wait(21, Instant::now() + Duration::from_secs(60)))
    };
    budget.release(40);
    waiter.join().unwrap().unwrap();
    assert_eq!(budget.used(), 61);
}

#[test]
fn a_write_larger_than_the_budget_passes_alone() {
    let budget = DirtyBudget::new(100);
    assert!(budget.try_reserve(1000));
    assert!(!budget.try_reserve(1));
    budget.release(1000);
    assert!(budget.try_reserve(1));
}
