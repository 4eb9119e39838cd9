//! What lies in the store.

use super::choice;
use super::sealing::{EPOCH, Fixed, VOLUME, enveloped, lz, root, roots, sealed, sealed_padded};
use hushfs::base::{ByteRange, Epoch, Incarnation, KeyNo, PackName, SegmentId, Seq, Timestamp};
use hushfs::crypto::{
    CHUNK_HEADER_LEN, ChunkOpener, ChunkSealer, Context, Key, Kind, PrivateHalf, RecoveryWords, SEAL_OVERHEAD, TAG_LEN,
    seal_to,
};
use hushfs::format::chunk::{frame_span, open_frames};
use hushfs::format::link::LinkRow;
use hushfs::format::pack::{PackEntry, TRAILER_LEN, decode_footer, decode_trailer, footer};
use hushfs::format::rows::{
    ChunkRow, DeviceRow, DirentRow, FileKeyRow, InodeRow, PackRow, RowKey, decode_window, encode_window, validate,
};
use hushfs::format::{
    EpochLink, Floor, Manifest, ObjectName, Reader, Record, SegmentMeta, SegmentReader, Slot, SlotKind, SlotNo,
    SlotPlace, UnlockError, VolumeObject, object_hash,
};
use hushfs::vfs::acl::Acl;

pub fn object_name(data: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(data).ok()?;
    assert_eq!(ObjectName::parse(text)?.to_string(), text, "one name has one spelling");
    Some(())
}

pub fn volume(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 2);
    let version = 1u32.to_le_bytes();
    let object = match way {
        0 => data.to_vec(),
        _ => {
            let header = [&b"hushvol1"[..], &version, &VOLUME.0].concat();
            let body = sealed_padded(Kind::VolumeParameters, &[&version], data, header.len() + SEAL_OVERHEAD);
            [header, body].concat()
        }
    };
    let parsed = VolumeObject::parse(&object).ok()?;
    assert_eq!(parsed.bytes(), object);
    let parameters = parsed.open(&root()).ok()?;
    let made = VolumeObject::create(parsed.volume(), &root(), &parameters, &Fixed);
    assert_eq!(made.open(&root()), Ok(parameters));
    Some(())
}

const PLACE: SlotPlace = match SlotNo::new(3) {
    Some(number) => SlotPlace { volume: VOLUME, epoch: EPOCH, number },
    None => panic!("a slot's number"),
};
/// Of a slot for words, before its sealed private half.
const SLOT_HEAD_LEN: usize = 18;
const SLOT_PRIVATE_LEN: usize = 113;
const SLOT_ROOT_LEN: usize = 145;

/// The words of the key that also is the root.
pub fn words() -> RecoveryWords {
    RecoveryWords::generate(&Ones)
}

struct Ones;

impl hushfs::base::Entropy for Ones {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(1);
    }
}

pub fn slot_for_words() -> Vec<u8> {
    let time = Timestamp::new(1_700_000_000, 123_456_789);
    Slot::seal_recovery(PLACE, &root(), &words(), "paper", time, &Fixed).encode()
}

pub fn slot(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 4);
    let mut object = if way == 0 { data.to_vec() } else { slot_for_words() };
    let number = PLACE.number.get().to_le_bytes();
    let epoch = EPOCH.0.to_le_bytes();
    let (private_at, root_at) = (SLOT_HEAD_LEN, SLOT_HEAD_LEN + SLOT_PRIVATE_LEN);
    let details_at = root_at + SLOT_ROOT_LEN;
    match way {
        0 => {}
        1 => {
            let id: [&[u8]; 5] =
                [&epoch, &number, &object[..private_at], &object[private_at..root_at], &object[root_at..details_at]];
            let details = sealed_padded(Kind::SlotDetails, &id, data, details_at + SEAL_OVERHEAD);
            object.truncate(details_at);
            object.extend(details);
        }
        2 => {
            let id: [&[u8]; 2] = [&number, &object[..private_at]];
            let private = sealed(Kind::SlotPrivate, &id, data);
            object.splice(private_at..root_at, private);
        }
        _ => {
            let pair = PrivateHalf::generate(&Fixed).public();
            let id: [&[u8]; 4] = [&epoch, &number, &object[..private_at], &object[private_at..root_at]];
            let context = Context { volume: VOLUME, kind: Kind::SlotRoot, id: &id };
            let sealed = seal_to(&pair, &context, data, &Fixed);
            object.splice(root_at..details_at, sealed);
        }
    }
    let slot = Slot::parse(PLACE, &object).ok()?;
    assert_eq!(slot.encode(), object);
    let _ = slot.details(&root());
    let unlocked = match slot.info().kind {
        SlotKind::Recovery => slot.unlock_recovery(&words()),
        SlotKind::Recipient => slot.unlock_recipient(PrivateHalf::generate(&Fixed)),
        // Deriving takes 64 MiB at least; what is refused is refused before.
        SlotKind::Password { kdf, .. } if kdf.check().is_ok() => return None,
        SlotKind::Password { .. } => {
            let refused = slot.unlock_password(b"password");
            assert!(matches!(refused, Err(UnlockError::Kdf(_))), "{refused:?}");
            return None;
        }
    };
    let next = slot.rotate(&unlocked.ok()?.root, Epoch(2), &root(), &Fixed).expect("what opened can be rotated");
    assert_eq!(next.info().fingerprint, slot.info().fingerprint);
    Some(())
}

pub fn epoch_link(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 2);
    let epoch = EPOCH.0.to_le_bytes();
    let object = match way {
        0 => data.to_vec(),
        _ => [&b"hushchn1"[..], &epoch, &sealed_padded(Kind::EpochChain, &[&epoch], data, 12 + SEAL_OVERHEAD)].concat(),
    };
    let link = EpochLink::open(VOLUME, EPOCH, &root(), &object).ok()?;
    let again = link.seal(VOLUME, EPOCH, &root(), &Fixed);
    assert_eq!(EpochLink::open(VOLUME, EPOCH, &root(), &again).expect("what was sealed now"), link);
    Some(())
}

pub fn record(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 3);
    let object = match way {
        0 => data.to_vec(),
        _ => enveloped(b"hushlog1", Kind::Record, 12, &lz(way == 1, data)),
    };
    let record = Record::open(Seq(12), &object, &roots()).ok()?;
    let again = record.seal(&roots(), &Fixed).expect("its epoch is known");
    assert_eq!(Record::open(Seq(12), &again, &roots()).expect("what was sealed now"), record);
    Some(())
}

pub fn floor(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 2);
    let object = if way == 0 { data.to_vec() } else { enveloped(b"hushflr1", Kind::Floor, 3, data) };
    let floor = Floor::open(3, &object, &roots()).ok()?;
    let again = floor.seal(&roots(), &Fixed).expect("its epoch is known");
    assert_eq!(Floor::open(3, &again, &roots()).expect("what was sealed now"), floor);
    Some(())
}

pub fn manifest(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 3);
    let object = match way {
        0 => data.to_vec(),
        _ => enveloped(b"hushckp1", Kind::Manifest, 120, &lz(way == 1, data)),
    };
    let manifest = Manifest::open(Seq(120), &object, &roots()).ok()?;
    let again = manifest.seal(&roots(), &Fixed).expect("its epoch is known");
    assert_eq!(Manifest::open(Seq(120), &again, &roots()).expect("what was sealed now"), manifest);
    Some(())
}

const SEGMENT: SegmentId = SegmentId([0; 16]);

/// A segment with these parts, which it has a right manifest for.
struct Parts<'a> {
    block: &'a [u8],
    index: Option<&'a [u8]>,
    trailer: Option<&'a [u8]>,
}

pub fn segment(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 5);
    match way {
        0 => read_segment(data, data, 1, data),
        1 | 2 => {
            let block = lz(way == 1, data);
            let rows = rows_of(data);
            let (object, first, last) = segment_of(&Parts { block: &block, index: None, trailer: None }, &rows);
            read_segment(&object, &first, rows.len().max(1) as u64, &last)
        }
        _ => {
            let row = [&[9][..], b"C\0\0\0\0\0\0\0\x01", &[0]].concat();
            let (index, trailer) = if way == 3 { (Some(data), None) } else { (None, Some(data)) };
            let (object, first, last) = segment_of(&Parts { block: &lz(true, &row), index, trailer }, &rows_of(&row));
            read_segment(&object, &first, 1, &last)
        }
    }
}

/// Keys, as far as these are rows.
fn rows_of(data: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Reader::new("rows", data);
    let mut keys = Vec::new();
    while let (Ok(key), Ok(_)) = (reader.bytes(), reader.bytes()) {
        keys.push(key.to_vec());
    }
    keys
}

fn segment_of(parts: &Parts<'_>, keys: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let epoch = EPOCH.0.to_le_bytes();
    let (first, last) = (keys.first().cloned().unwrap_or_default(), keys.last().cloned().unwrap_or_default());
    let mut object = [&b"hushseg1"[..], &epoch].concat();
    let block = sealed(Kind::SegmentBlock, &[&epoch, &SEGMENT.0, &[0; 4], &[1]], parts.block);
    let mut index = hushfs::format::Writer::new();
    index.varint(1).bytes(&first).varint(keys.len().max(1) as u64).varint(block.len() as u64).bytes(&last);
    let index = parts.index.map_or(index.finish(), <[u8]>::to_vec);
    object.extend(block);
    let index_at = (object.len() as u64).to_le_bytes();
    let around = object.len() + 2 * SEAL_OVERHEAD + 8;
    object.extend(sealed_padded(Kind::SegmentIndex, &[&epoch, &SEGMENT.0], &index, around));
    object.extend(sealed(Kind::SegmentTrailer, &[&epoch, &SEGMENT.0], parts.trailer.unwrap_or(&index_at)));
    (object, first, last)
}

fn read_segment(object: &[u8], first: &[u8], rows: u64, last: &[u8]) -> Option<()> {
    let (first, last) = (first.to_vec(), last.to_vec());
    let meta = SegmentMeta { id: SEGMENT, first, last, rows, len: object.len() as u64, hash: object_hash(object) };
    let roots = roots();
    let reader = SegmentReader::open(&meta, object, &roots).ok()?;
    let mut before: Option<Vec<u8>> = None;
    for block in reader.blocks() {
        for (key, value) in block.ok()? {
            validate(&key, &value).expect("only valid rows come out");
            assert!(before.is_none_or(|before| before < key), "rows ascend");
            before = Some(key);
        }
    }
    Some(())
}

const PACK: PackName = PackName { incarnation: Incarnation([4; 16]), number: 3 };

pub fn pack(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 3);
    let epoch = EPOCH.0.to_le_bytes();
    let number = PACK.number.to_le_bytes();
    let name: [&[u8]; 3] = [&epoch, &PACK.incarnation.0, &number];
    let chunks = [0xcc; 1000];
    let object = match way {
        0 => data.to_vec(),
        1 => {
            let list = sealed_padded(Kind::PackFooter, &name, data, chunks.len() + SEAL_OVERHEAD + TRAILER_LEN);
            let trailer = sealed(Kind::PackTrailer, &name, &(chunks.len() as u64).to_le_bytes());
            [&chunks[..], &list, &epoch, &trailer].concat()
        }
        _ => [&chunks[..], &epoch, &sealed(Kind::PackTrailer, &name, data)].concat(),
    };
    let tail = &object[object.len().saturating_sub(TRAILER_LEN)..];
    let place = decode_trailer(tail, object.len() as u64, PACK, &roots()).ok()?;
    let sealed = &object[place.range.start as usize..place.range.end as usize];
    let entries = decode_footer(&place, sealed, PACK, &roots()).ok()?;
    let ends = |entry: &PackEntry| u64::from(entry.offset) + u64::from(entry.len);
    assert!(entries.iter().all(|entry| ends(entry) <= place.range.start));
    assert!(entries.is_sorted_by(|a, b| ends(a) <= u64::from(b.offset)));
    let again = footer(&entries, place.range.start, PACK, &roots(), &Fixed);
    assert_eq!(again.len() as u64, object.len() as u64 - place.range.start);
    Some(())
}

/// A row's value, a range to read, and what the frames decrypt to, each behind its length.
pub fn chunk(data: &[u8]) -> Option<()> {
    let mut reader = Reader::new("input", data);
    let (row, start, len) = (reader.bytes().ok()?, reader.varint32().ok()?, reader.varint32().ok()?);
    let mut row = ChunkRow::decode(row).ok()?;
    let key = Key::from_bytes([5; 32]);
    let sealer = ChunkSealer::new(&key, VOLUME, &row.id, &Fixed);
    let mut sealed = Vec::new();
    let count = row.frames.len();
    for (index, frame_len) in row.frames.iter_mut().enumerate() {
        let Ok(plain) = reader.bytes() else { break };
        let mut frame = plain.to_vec();
        let tag = sealer.seal_frame(index as u32, index + 1 == count, &mut frame);
        frame.extend_from_slice(&tag);
        *frame_len = frame.len() as u32;
        sealed.extend(frame);
    }
    let header: &[u8; CHUNK_HEADER_LEN] = sealer.header();
    let opener = ChunkOpener::new(&key, VOLUME, &row.id, header).expect("what was sealed now");
    let wanted = ByteRange { start: start.into(), end: u64::from(start).saturating_add(len.into()) };
    let span = frame_span(&row, wanted)?;
    let at = span.sealed.start - u64::from(row.offset) - CHUNK_HEADER_LEN as u64;
    let frames = sealed.get(at as usize..)?.get(..span.sealed.len() as usize)?;
    let mut out = vec![0; wanted.len() as usize];
    open_frames(&opener, &row, &span, frames, wanted, &mut out).ok()?;
    // A part is a part of the whole.
    let mut whole = vec![0; span.plain.len() as usize];
    if open_frames(&opener, &row, &span, frames, span.plain, &mut whole).is_ok() {
        let from = (wanted.start - span.plain.start) as usize;
        assert_eq!(whole[from..from + out.len()], out);
    }
    assert!(frames.len() > TAG_LEN);
    Some(())
}

/// A key behind its length, then a value.
pub fn row(data: &[u8]) -> Option<()> {
    let mut reader = Reader::new("input", data);
    let key = reader.bytes().ok()?;
    let value = reader.raw(reader.remaining()).ok()?;
    let decoded = RowKey::decode(key);
    if let Ok(decoded) = &decoded {
        assert_eq!(decoded.encode(), key, "one key has one encoding");
    }
    let is_valid = validate(key, value).is_ok();
    let _ = InodeRow::decode_allocated(value);
    let Ok(decoded) = decoded else {
        assert!(!is_valid);
        return None;
    };
    let encoded = match decoded {
        RowKey::Inode(_) => InodeRow::decode(value).map(|row| {
            assert_eq!(InodeRow::decode_allocated(value), Ok(row.allocated));
            row.encode()
        }),
        RowKey::Extents(_, window) => decode_window(window, value).map(|extents| encode_window(&extents)),
        RowKey::Dirent(..) => DirentRow::decode(value).map(|row| row.encode()),
        RowKey::Chunk(_) => ChunkRow::decode(value).map(|row| row.encode()),
        RowKey::FileKey(_) => FileKeyRow::decode(value).map(|row| row.encode()),
        RowKey::Pack(_) => PackRow::decode(value).map(|row| row.encode()),
        RowKey::Device(_) => DeviceRow::decode(value).map(|row| row.encode()),
        RowKey::Link(_) => LinkRow::decode(value).map(|row| row.encode().to_vec()),
        RowKey::Backref(..) | RowKey::Xattr(..) => return is_valid.then_some(()),
    };
    assert_eq!(encoded.is_ok(), is_valid);
    assert_eq!(encoded.ok()?, value, "one value has one encoding");
    Some(())
}

/// A file's key in its row: as it is, and what is sealed in its place.
pub fn wrapped_key(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 2);
    let (epoch, number) = (EPOCH.0.to_le_bytes(), 77u64.to_le_bytes());
    let wrapped = if way == 0 { data.to_vec() } else { sealed(Kind::FileKey, &[&epoch, &number], data) };
    let key = roots().unwrap_file_key(EPOCH, KeyNo(77), &wrapped);
    assert!(way == 0 || key.is_ok() == (data.len() == 32));
    key.ok().map(drop)
}

/// An attribute's value, as somebody set it and as a row has it.
pub fn acl(data: &[u8]) -> Option<()> {
    let _ = hushfs::vfs::quota::parse_quota(data);
    let acl = Acl::parse(data).ok()?;
    assert_eq!(acl.encode(), data);
    let mode = acl.mode(0o100_644);
    assert_eq!(acl.with_mode(mode).mode(mode), mode);
    Some(())
}
