use super::super::intent::{AttrChange, Change, Entry, NewInode};
use super::super::rows::{Extent, RowKey, XattrName};
use super::super::testing::{VOLUME, chunk_row, key};
use super::*;
use crate::base::{ByteRange, ChunkNo, InodeId, KeyNo, Name, SystemEntropy, Timestamp};
use proptest::prelude::*;

const TIME: Timestamp = Timestamp::new(-5, 999);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn write(data: &[u8]) -> Intent {
    let changes = vec![
        Change::Inline { offset: 3, data: data.into() },
        Change::Extent(Extent { offset: 9, len: 4, chunk: ChunkNo(8), chunk_offset: 1 }),
        Change::Hole(ByteRange::new(20, 30)),
    ];
    Intent::Write { ino: InodeId(2), base: 1, size: 30, mtime: TIME, time: TIME, key: Some(KeyNo(7)), changes }
}

/// One of each.
fn intents() -> Vec<Intent> {
    let (parent, ino, time) = (InodeId(1), InodeId(2), TIME);
    let entry = |text| Entry { parent, name: name(text) };
    let node = |target| NewInode { mode: 0o100644, uid: 1, gid: 2, rdev: 0, time, target };
    let (chunk_key, value) = chunk_row(8);
    let xattr = XattrName::parse("user.a").unwrap();
    vec![
        Intent::Create { parent, name: name("a"), ino, node: node(None) },
        Intent::Create { parent, name: name("l"), ino: InodeId(3), node: node(Some(b"a".as_slice().into())) },
        Intent::Link { ino, parent, name: name("b"), time },
        Intent::Unlink { parent, name: name("b"), ino, time },
        Intent::Rename { ino, from: entry("a"), to: entry("c"), replaced: Some(InodeId(9)), time },
        Intent::Exchange { a: entry("c"), a_ino: ino, b: entry("l"), b_ino: InodeId(3), time },
        Intent::SetAttr {
            ino,
            set: AttrChange { mode: Some(0o600), mtime: Some(TIME), ..AttrChange::default() },
            time,
        },
        Intent::SetXattr { ino, name: xattr.clone(), value: Some(b"".as_slice().into()), time },
        Intent::SetXattr { ino, name: xattr, value: None, time },
        write(b"inline"),
        Intent::Fact { key: RowKey::decode(&chunk_key).unwrap(), value: value.into() },
        Intent::FileKey { ino, key: Some(KeyNo(300)) },
        Intent::FileKey { ino, key: None },
    ]
}

fn payload(intents: Vec<Intent>) -> JournalPayload {
    JournalPayload { incarnation: Incarnation([4; 16]), first: IntentNo(70), chain_before: Hash([6; 32]), intents }
}

fn frame() -> Vec<u8> {
    encode_frame(11, &payload(intents()), &key(1), VOLUME, &SystemEntropy)
}

#[test]
fn a_frame_round_trips_in_whole_sectors() {
    let frame = frame();
    assert_eq!(frame.len() % FRAME_ALIGN, 0);
    assert_eq!(peek_header(&frame[..16]), Some(FrameHeader { number: 11, len: frame.len() as u64 }));
    assert_eq!(decode_frame(&frame, &key(1), VOLUME).unwrap(), (11, payload(intents())));
    let followed = [&frame[..], &[0xaa; 700]].concat();
    assert_eq!(decode_frame(&followed, &key(1), VOLUME).unwrap().1, payload(intents()));
}

#[test]
fn a_frame_opens_with_its_own_key_volume_and_number_only() {
    let mut frame = frame();
    assert!(decode_frame(&frame, &key(2), VOLUME).unwrap_err().is_authentication());
    assert!(decode_frame(&frame, &key(1), VolumeId([8; 16])).unwrap_err().is_authentication());
    frame[8] = 12;
    assert_eq!(peek_header(&frame).unwrap().number, 12);
    assert!(decode_frame(&frame, &key(1), VOLUME).unwrap_err().is_authentication());
}

#[test]
fn every_torn_sector_is_found() {
    let frame = encode_frame(11, &payload(vec![write(&[7; 3000])]), &key(1), VOLUME, &SystemEntropy);
    for sector in 0..frame.len() / FRAME_ALIGN {
        let mut torn = frame.clone();
        torn[sector * FRAME_ALIGN..][..FRAME_ALIGN].fill(0);
        assert!(decode_frame(&torn, &key(1), VOLUME).is_err(), "sector {sector}");
    }
}

#[test]
fn a_header_that_lies_about_its_length_costs_nothing() {
    let mut frame = frame();
    frame[4..8].fill(0xff);
    assert_eq!(peek_header(&frame).unwrap().len, (16 + u64::from(u32::MAX)).next_multiple_of(512));
    assert!(matches!(decode_frame(&frame, &key(1), VOLUME), Err(OpenError::Format(_))));
    frame[4..8].copy_from_slice(&80u32.to_le_bytes());
    assert_eq!(peek_header(&frame), None);
    assert_eq!(peek_header(&frame[..15]), None);
    assert_eq!(peek_header(&[0; 512]), None);
}

#[test]
fn intent_numbers_cannot_pass_2_to_the_64() {
    let last = JournalPayload { first: IntentNo(u64::MAX), ..payload(intents()) };
    let frame = encode_frame(1, &last, &key(1), VOLUME, &SystemEntropy);
    assert!(matches!(decode_frame(&frame, &key(1), VOLUME), Err(OpenError::Format(_))));
}

#[test]
fn the_chain_depends_on_every_intent_and_their_order() {
    let fold = |intents: &[Intent]| intents.iter().fold(Hash::ZERO, |hash, intent| chain(&hash, intent));
    let all = intents();
    let whole = fold(&all);
    assert_eq!(whole, fold(&intents()));
    for skipped in 0..all.len() {
        let mut fewer = all.clone();
        fewer.remove(skipped);
        assert_ne!(fold(&fewer), whole);
    }
    let mut swapped = all.clone();
    swapped.swap(0, 1);
    assert_ne!(fold(&swapped), whole);
    assert_ne!(chain(&Hash([1; 32]), &all[0]), chain(&Hash([2; 32]), &all[0]));
}

#[test]
fn the_chain_knows_how_long_inline_data_is_but_not_what_it_is() {
    assert_eq!(chain(&Hash::ZERO, &write(b"abc")), chain(&Hash::ZERO, &write(b"xyz")));
    assert_ne!(chain(&Hash::ZERO, &write(b"abc")), chain(&Hash::ZERO, &write(b"abcd")));
}

proptest! {
    #[test]
    fn inline_data_round_trips(data in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let payload = payload(vec![write(&data)]);
        let frame = encode_frame(1, &payload, &key(1), VOLUME, &SystemEntropy);
        prop_assert_eq!(decode_frame(&frame, &key(1), VOLUME).unwrap().1, payload);
    }

    #[test]
    fn any_intent_bytes_decode_or_fail(at: prop::sample::Index, byte: u8, which in 0usize..11) {
        let mut out = Writer::new();
        intents()[which].encode(&mut out);
        let mut bytes = out.finish();
        let at = at.index(bytes.len());
        prop_assert!(Intent::decode(&mut Reader::new("test", &bytes[..at])).is_err());
        bytes[at] = byte;
        let _ = Intent::decode(&mut Reader::new("test", &bytes));
    }
}
