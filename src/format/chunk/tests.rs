use super::super::testing::{VOLUME, key, noise};
use super::*;
use crate::base::{KeyNo, PackNo, SystemEntropy};
use crate::crypto::chunk_id;
use proptest::prelude::*;

const AT: u32 = 1000;

fn row_of(plain: &[u8], frames: Vec<u32>) -> ChunkRow {
    let (pack, key, id) = (PackNo(1), KeyNo(1), chunk_id(plain));
    ChunkRow { pack, offset: AT, len: plain.len() as u32, key, id, frames }
}

/// The chunk as it lies in a pack, from the pack's start, and its row.
fn sealed(plain: &[u8]) -> (Vec<u8>, ChunkRow) {
    let chunk = seal_chunk(&key(1), VOLUME, &chunk_id(plain), plain, &SystemEntropy);
    let row = row_of(plain, chunk.frames);
    assert_eq!(ChunkRow::decode(&row.encode()).unwrap(), row);
    (packed(&chunk.bytes), row)
}

fn packed(chunk: &[u8]) -> Vec<u8> {
    [&[0; AT as usize], chunk].concat()
}

fn slice(pack: &[u8], range: ByteRange) -> &[u8] {
    &pack[range.start as usize..range.end as usize]
}

fn opener(pack: &[u8], row: &ChunkRow) -> ChunkOpener {
    let header = slice(pack, header_span(row)).try_into().unwrap();
    ChunkOpener::new(&key(1), VOLUME, &row.id, header).unwrap()
}

fn read(pack: &[u8], row: &ChunkRow, wanted: ByteRange) -> Result<Vec<u8>, CryptoError> {
    let span = frame_span(row, wanted).unwrap();
    let mut out = vec![0; wanted.len() as usize];
    open_frames(&opener(pack, row), row, &span, slice(pack, span.sealed), wanted, &mut out).map(|()| out)
}

/// Plaintext of all kinds: repetitive, noise, and changing between the two at frames' bounds and elsewhere.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((any::<bool>(), 1usize..90_000), 1..5).prop_map(|parts| {
        parts.into_iter().flat_map(|(dense, len)| if dense { noise(len) } else { vec![7; len] }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_range_of_a_chunk_reads_back(plain in plain(), a: prop::sample::Index, b: prop::sample::Index) {
        let (pack, row) = sealed(&plain);
        prop_assert_eq!(chunk_span(&row).end, pack.len() as u64);
        let (a, b) = (a.index(plain.len()), b.index(plain.len()));
        let (start, end) = (a.min(b), a.max(b) + 1);
        let wanted = ByteRange::new(start as u64, end as u64);
        prop_assert_eq!(read(&pack, &row, wanted).unwrap(), &plain[start..end]);
        prop_assert_eq!(read(&pack, &row, ByteRange::new(0, plain.len() as u64)).unwrap(), plain);
    }
}

#[test]
fn spans_are_whole_frames_and_nothing_past_the_chunk() {
    let row = row_of(&[1; 3 * FRAME - 10], vec![100, 200, 300]);
    let span = |start, end| frame_span(&row, ByteRange { start, end });
    let (base, frame) = (u64::from(AT) + CHUNK_HEADER_LEN as u64, FRAME_LEN);
    let expect = |frames, sealed: (u64, u64), plain: (u64, u64)| {
        Some(FrameSpan {
            frames,
            sealed: ByteRange::new(base + sealed.0, base + sealed.1),
            plain: ByteRange::new(plain.0, plain.1),
        })
    };
    assert_eq!(span(0, 1), expect(0..1, (0, 100), (0, frame)));
    assert_eq!(span(frame - 1, frame), expect(0..1, (0, 100), (0, frame)));
    assert_eq!(span(frame - 1, frame + 1), expect(0..2, (0, 300), (0, 2 * frame)));
    assert_eq!(span(frame, 2 * frame), expect(1..2, (100, 300), (frame, 2 * frame)));
    assert_eq!(span(2 * frame, 3 * frame - 10), expect(2..3, (300, 600), (2 * frame, 3 * frame - 10)));
    assert_eq!(span(0, 3 * frame - 9), None);
    assert_eq!(span(5, 5), None);
    assert_eq!(span(6, 5), None);
    assert_eq!(span(u64::MAX - 1, u64::MAX), None);
    let fewer_frames_than_its_length_has = row_of(&[1; 2 * FRAME], vec![100]);
    assert_eq!(frame_span(&fewer_frames_than_its_length_has, ByteRange::new(0, 2 * frame)), None);
}

#[test]
fn lz4_is_given_up_when_the_first_frame_does_not_compress_and_only_then() {
    let zeros = vec![0; FRAME];
    let frames = |plain: Vec<u8>| sealed(&plain).1.frames;
    let raw = FRAME as u32 + FRAME_OVERHEAD;
    assert_eq!(frames([noise(FRAME), zeros.clone()].concat()), [raw, raw]);
    let mixed = frames([zeros.clone(), noise(FRAME), zeros].concat());
    assert!(mixed[0] < 1000 && mixed[1] == raw && mixed[2] < 1000, "{mixed:?}");
}

#[test]
fn a_full_chunk_of_noise_costs_a_header_and_17_bytes_a_frame() {
    let plain = noise(CHUNK_LEN as usize);
    let chunk = seal_chunk(&key(1), VOLUME, &chunk_id(&plain), &plain, &SystemEntropy);
    assert_eq!(chunk.bytes.len(), plain.len() + CHUNK_HEADER_LEN + 16 * FRAME_OVERHEAD as usize);
}

#[test]
fn equal_plaintext_gives_unrelated_bytes_each_time() {
    assert_ne!(sealed(b"same").0, sealed(b"same").0);
}

/// A chunk of one frame that decrypts to `frame`, as a broken writer with the key might make it.
fn forged(plain_len: usize, frame: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let plain = vec![0; plain_len];
    let sealer = ChunkSealer::new(&key(1), VOLUME, &chunk_id(&plain), &SystemEntropy);
    let mut bytes = frame.to_vec();
    let tag = sealer.seal_frame(0, true, &mut bytes);
    let row = row_of(&plain, vec![(bytes.len() + TAG_LEN) as u32]);
    let pack = packed(&[&sealer.header()[..], &bytes, &tag].concat());
    read(&pack, &row, ByteRange::new(0, plain_len as u64))
}

#[test]
fn a_codec_that_is_not_known_is_a_failed_authentication() {
    assert_eq!(forged(3, &[0, 1, 2, 3]).unwrap(), [1, 2, 3]);
    for codec in 2..=255 {
        assert_eq!(forged(3, &[codec, 1, 2, 3]), Err(CryptoError::Authentication));
    }
    assert_eq!(forged(1, &[]), Err(CryptoError::Authentication));
}

#[test]
fn a_frame_that_holds_more_or_less_than_the_row_says_is_a_failed_authentication() {
    assert_eq!(forged(3, &[0, 1, 2]), Err(CryptoError::Authentication));
    assert_eq!(forged(3, &[0, 1, 2, 3, 4]), Err(CryptoError::Authentication));
    let lz4 = |len: usize| [&[CODEC_LZ4][..], &lz4_flex::block::compress(&vec![5; len])].concat();
    assert_eq!(forged(2000, &lz4(2000)).unwrap(), vec![5; 2000]);
    assert_eq!(forged(2000, &lz4(1999)), Err(CryptoError::Authentication));
    assert_eq!(forged(2000, &lz4(2001)), Err(CryptoError::Authentication));
    assert_eq!(forged(2000, &lz4(1 << 24)), Err(CryptoError::Authentication));
    assert_eq!(forged(2000, &[CODEC_LZ4, 0xff, 0xff]), Err(CryptoError::Authentication));
}

#[test]
fn frames_in_another_order_or_number_are_refused() {
    let plain = noise(3 * FRAME);
    let (pack, row) = sealed(&plain);
    let all = ByteRange::new(0, 3 * FRAME_LEN);
    let start = header_span(&row).end as usize;
    let len = row.frames[0] as usize;
    let mut swapped = pack.clone();
    swapped[start..start + len].copy_from_slice(&pack[start + len..start + 2 * len]);
    swapped[start + len..start + 2 * len].copy_from_slice(&pack[start..start + len]);
    assert_eq!(read(&swapped, &row, all), Err(CryptoError::Authentication));

    // A row that cuts the chunk: the frame that becomes the last was not sealed as the last.
    let cut = ChunkRow { len: 2 * FRAME as u32, frames: row.frames[..2].to_vec(), ..row.clone() };
    assert_eq!(read(&pack, &cut, ByteRange::new(0, 2 * FRAME_LEN)), Err(CryptoError::Authentication));
    assert!(read(&pack, &row, all).is_ok());
}

#[test]
fn sealed_bytes_of_another_length_and_ranges_outside_the_span_are_refused() {
    let plain = noise(2 * FRAME);
    let (pack, row) = sealed(&plain);
    let wanted = ByteRange::new(0, 10);
    let span = frame_span(&row, wanted).unwrap();
    let bytes = slice(&pack, span.sealed);
    let open = |sealed: &[u8], wanted: ByteRange| {
        let mut out = vec![0; wanted.len() as usize];
        open_frames(&opener(&pack, &row), &row, &span, sealed, wanted, &mut out).map(|()| out)
    };
    let short = open_frames(&opener(&pack, &row), &row, &span, bytes, wanted, &mut [0; 9]);
    assert_eq!(short, Err(CryptoError::Authentication), "a buffer that is not as long as the range");
    assert!(open(bytes, wanted).is_ok());
    assert!(open(&bytes[1..], wanted).is_err());
    assert!(open(&[bytes, &[0]].concat(), wanted).is_err());
    assert!(open(bytes, ByteRange::new(0, FRAME_LEN + 1)).is_err());
}

#[test]
fn a_chunk_is_not_bound_to_its_pack_or_number() {
    // Packs are renamed and repacked without sealing again.
    let (pack, row) = sealed(b"content");
    let moved = ChunkRow { pack: PackNo(77), offset: 0, key: KeyNo(9), ..row };
    assert_eq!(read(&pack[AT as usize..], &moved, ByteRange::new(0, 7)).unwrap(), b"content");
}
