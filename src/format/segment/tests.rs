use super::super::rows::{RowKey, XattrName};
use super::super::testing::{chunk_row, noise, of_epoch_0, roots, roots_of_another_volume, rows};
use super::*;
use crate::base::{InodeId, SystemEntropy};
use proptest::prelude::*;

fn build(rows: impl IntoIterator<Item = Row>) -> (Vec<u8>, SegmentMeta) {
    let roots = roots();
    let mut builder = SegmentBuilder::new(&roots, &SystemEntropy);
    rows.into_iter().for_each(|(key, value)| builder.push(&key, &value).unwrap());
    builder.finish().unwrap()
}

fn read_with(object: &[u8], meta: &SegmentMeta, roots: &Roots) -> Result<Vec<Row>, OpenError> {
    let reader = SegmentReader::open(meta, object, roots)?;
    let blocks = reader.blocks().collect::<Result<Vec<_>, _>>()?;
    Ok(blocks.concat())
}

/// Reads it as if the manifest meant just these bytes: behind the hash, the seals must hold.
fn read_unhashed(object: &[u8], meta: &SegmentMeta) -> Result<Vec<Row>, OpenError> {
    let meta = SegmentMeta { hash: object_hash(object), len: object.len() as u64, ..meta.clone() };
    read_with(object, &meta, &roots())
}

/// 3 KiB that do not compress: 22 of them fill a block.
fn noise_row(number: u64) -> Row {
    let value = (0..94u64).flat_map(|i| crypto::blake3(&(94 * number + i).to_le_bytes())).collect();
    (RowKey::Xattr(InodeId(number), XattrName::parse("user.noise").unwrap()).encode(), value)
}

fn big() -> (Vec<u8>, SegmentMeta, Vec<Row>) {
    let rows: Vec<Row> = (0..50).map(noise_row).collect();
    let (object, meta) = build(rows.clone());
    assert_eq!(SegmentReader::open(&meta, &object, &roots()).unwrap().block_count(), 3);
    (object, meta, rows)
}

fn places(object: &[u8], meta: &SegmentMeta) -> Vec<Range<usize>> {
    SegmentReader::open(meta, object, &roots()).unwrap().blocks.into_iter().map(|(place, _)| place).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn segments_round_trip(rows in rows(1..300)) {
        let (object, meta) = build(rows.clone());
        prop_assert_eq!(padding::padded_len(object.len() as u64), object.len() as u64);
        prop_assert_eq!((meta.rows, meta.len), (rows.len() as u64, object.len() as u64));
        prop_assert_eq!(Some(&meta.first), rows.keys().next());
        prop_assert_eq!(Some(&meta.last), rows.keys().last());
        prop_assert_eq!(read_with(&object, &meta, &roots()).unwrap(), rows.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn any_index_and_block_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300), count: u64) {
        let (_, meta) = build([chunk_row(1)]);
        let _ = decode_index(&bytes, 5000, &meta);
        let _ = decode_block(&bytes, count);
    }
}

#[test]
fn blocks_come_one_by_one_and_together_are_all_rows() {
    let (object, meta, rows) = big();
    assert_eq!(read_with(&object, &meta, &roots()).unwrap(), rows);
    assert!(SegmentReader::open(&meta, &object, &roots()).unwrap().block(3).unwrap().is_empty());
}

#[test]
fn a_row_that_is_in_two_blocks_is_refused() {
    let roots = roots();
    let mut builder = SegmentBuilder::new(&roots, &SystemEntropy);
    let mut rows = (0..).map(noise_row);
    let (key, value) = loop {
        let (key, value) = rows.next().unwrap();
        builder.push(&key, &value).unwrap();
        if builder.open.as_ref().unwrap().bytes.len() >= BLOCK_LEN_TARGET {
            break (key, value);
        }
    };
    builder.last.clear();
    builder.push(&key, &value).unwrap();
    let (object, meta) = builder.finish().unwrap();
    let error = read_with(&object, &meta, &roots).unwrap_err();
    assert!(matches!(error, OpenError::Format(FormatError { why: "a block outside its range", .. })), "{error:?}");
}

#[test]
fn a_builder_refuses_disorder_and_emptiness() {
    let roots = roots();
    let mut builder = SegmentBuilder::new(&roots, &SystemEntropy);
    assert!(builder.is_empty());
    builder.push(&chunk_row(2).0, &chunk_row(2).1).unwrap();
    assert!(!builder.is_empty());
    assert!(builder.push(&chunk_row(2).0, &chunk_row(2).1).is_err());
    assert!(builder.push(&chunk_row(1).0, &chunk_row(1).1).is_err());
    assert!(SegmentBuilder::new(&roots, &SystemEntropy).finish().is_err());
}

#[test]
fn only_the_bytes_the_manifest_means_are_accepted() {
    let (object, meta) = build([chunk_row(1)]);
    let with = |change: &dyn Fn(&mut SegmentMeta)| {
        let mut meta = meta.clone();
        change(&mut meta);
        read_with(&object, &meta, &roots())
    };
    assert!(with(&|meta| meta.hash.0[0] ^= 1).unwrap_err().is_authentication());
    assert!(with(&|meta| meta.len += 1).unwrap_err().is_authentication());
    assert!(with(&|meta| meta.id.0[0] ^= 1).unwrap_err().is_authentication());
    assert!(with(&|meta| meta.rows += 1).is_err());
    assert!(with(&|meta| meta.first = vec![]).is_err());
    assert!(with(&|meta| meta.last.push(0)).is_err());
    assert!(with(&|_| ()).is_ok());
}

#[test]
fn a_segment_belongs_to_its_volume_and_epoch() {
    let (object, meta) = build([chunk_row(1)]);
    assert!(read_with(&object, &meta, &roots_of_another_volume()).unwrap_err().is_authentication());
    assert!(read_unhashed(&of_epoch_0(&object), &meta).unwrap_err().is_authentication());
}

#[test]
fn blocks_in_another_order_do_not_open() {
    let (object, meta, _) = big();
    let places = places(&object, &meta);
    assert_eq!(places[0].len(), places[1].len(), "or this test swaps nothing that could fit");
    let mut swapped = object.clone();
    swapped[places[0].clone()].copy_from_slice(&object[places[1].clone()]);
    swapped[places[1].clone()].copy_from_slice(&object[places[0].clone()]);
    assert!(read_unhashed(&swapped, &meta).unwrap_err().is_authentication());
}

/// A segment of the same id with these sealed blocks, under an index that says so.
fn reassemble(object: &[u8], meta: &SegmentMeta, blocks: Vec<Block>) -> (Vec<u8>, SegmentMeta) {
    let (epoch, roots) = (Epoch(1), roots());
    let mut forged = object[..HEADER_LEN].to_vec();
    blocks.iter().for_each(|(place, _)| forged.extend_from_slice(&object[place.clone()]));
    let entries: Vec<BlockEntry> = blocks.into_iter().map(|(_, entry)| entry).collect();
    let last = noise_row(entries.iter().map(|entry| entry.rows).sum::<u64>() - 1).0;
    let rows = entries.iter().map(|entry| entry.rows).sum();
    let mut index = encode_index(&entries, &last);
    let index_at = forged.len() as u64;
    padding::pad(&mut index, forged.len() + SEAL_OVERHEAD + TRAILER_LEN);
    let id: [&[u8]; 1] = [&meta.id.0];
    seal_part(&mut forged, &roots, epoch, Kind::SegmentIndex, &id, &index, &SystemEntropy).unwrap();
    seal_part(&mut forged, &roots, epoch, Kind::SegmentTrailer, &id, &index_at.to_le_bytes(), &SystemEntropy).unwrap();
    (forged, SegmentMeta { last, rows, ..meta.clone() })
}

#[test]
fn a_segment_without_its_last_block_does_not_open_even_under_an_index_that_says_so() {
    let (object, meta, rows) = big();
    let blocks = || SegmentReader::open(&meta, &object, &roots()).unwrap().blocks;
    let (whole, whole_meta) = reassemble(&object, &meta, blocks());
    assert_eq!(read_unhashed(&whole, &whole_meta).unwrap(), rows);
    let mut fewer = blocks();
    fewer.pop();
    let (forged, forged_meta) = reassemble(&object, &meta, fewer);
    assert!(read_unhashed(&forged, &forged_meta).unwrap_err().is_authentication());
}

#[test]
fn an_index_that_lies_about_a_block_is_refused() {
    let (object, meta, _) = big();
    let lie = |change: &dyn Fn(&mut Vec<Block>)| {
        let mut blocks = SegmentReader::open(&meta, &object, &roots()).unwrap().blocks;
        change(&mut blocks);
        let (forged, forged_meta) = reassemble(&object, &meta, blocks);
        match read_unhashed(&forged, &forged_meta).unwrap_err() {
            OpenError::Format(error) => error.why,
            OpenError::Crypto { .. } => "authentication",
        }
    };
    let within_range = "a block outside its range";
    assert_eq!(lie(&|blocks| blocks[1].1.first = noise_row(3).0), within_range);
    assert_eq!(
        lie(&|blocks| {
            blocks[0].1.rows += 1;
            blocks[1].1.rows -= 1;
        }),
        "a block with another number of rows"
    );
    assert_eq!(lie(&|blocks| blocks[1].1.sealed_len -= 1), "an index that is not what the manifest says");
    assert_eq!(lie(&|blocks| blocks[1].1.sealed_len = u64::MAX), "a block outside the object");
    assert_eq!(lie(&|blocks| blocks[2].1.sealed_len += 1), "a block outside the object");
    assert_eq!(lie(&|blocks| blocks[1].1.first = noise_row(9999).0), "blocks out of order");
}

#[test]
fn an_invalid_row_is_refused_though_the_segment_is_authentic() {
    let (key, _) = chunk_row(1);
    let (object, meta) = build([(key, vec![0])]);
    assert!(matches!(read_with(&object, &meta, &roots()), Err(OpenError::Format(_))));
}

#[test]
fn a_trailer_that_points_anywhere_is_refused() {
    let (object, meta) = build([chunk_row(1)]);
    for at in [0u64, 11, 13, object.len() as u64, u64::MAX] {
        let mut forged = object[..object.len() - TRAILER_LEN].to_vec();
        let id: [&[u8]; 1] = [&meta.id.0];
        seal_part(&mut forged, &roots(), Epoch(1), Kind::SegmentTrailer, &id, &at.to_le_bytes(), &SystemEntropy)
            .unwrap();
        assert!(read_unhashed(&forged, &meta).is_err(), "index at {at}");
    }
}

#[test]
fn stumps_are_refused() {
    let (object, meta) = build([chunk_row(1)]);
    for len in [0, 8, 12, 50, 100, 101, 200, object.len() - 1] {
        assert!(read_unhashed(&object[..len], &meta).is_err(), "{len} bytes");
    }
    assert!(read_unhashed(&noise(4096), &meta).is_err());
}
