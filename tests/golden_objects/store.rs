//! What lies in the store.

use super::{
    Counting, Object, array, crypto_word, cut_fails, flip_fails, hex, number, other_root, other_volume, place_fails,
    roots, under_root, unhex, word,
};
use hushfs::base::{
    ByteRange, ChunkId, ChunkNo, DeviceSlot, Epoch, Hash, Incarnation, InodeId, IntentNo, KeyNo, Name, Numbers,
    PackName, PackNo, SegmentId, Seq, Timestamp, VolumeId,
};
use hushfs::crypto::{CHUNK_HEADER_LEN, ChunkOpener, KdfParameters, Key, RecoveryWords, chunk_id, parse_identities};
use hushfs::format::chunk::{frame_span, header_span, open_frames, seal_chunk};
use hushfs::format::pack::{PackEntry, TRAILER_LEN, decode_footer, decode_trailer, footer};
use hushfs::format::rows::{
    ChunkRow, DeviceRow, DirentRow, Extent, FileKeyRow, InodeBody, InodeRow, PackRow, RowKey, XattrName, encode_window,
};
use hushfs::format::{
    EpochLink, Floor, HighWater, Manifest, NextEpoch, Record, SegmentBuilder, SegmentMeta, SegmentReader, Slot, SlotNo,
    SlotPlace, UnlockError, Unlocked, VolumeObject, VolumeParameters, object_hash,
};
use serde_json::{Value, json};

const TIME: Timestamp = Timestamp::new(1_700_000_000, 123_456_789);

pub const FILE_KEY: Object = Object {
    name: "file-key",
    about: "a file key under the root of epoch 1, as it stands in a K row",
    make: || {
        let place = under_root(json!({ "epoch": 1, "key_number": 77 }));
        let (_, wrapped) = roots(&place).wrap_file_key(KeyNo(77), &Key::from_bytes([5; 32]), &Counting::new());
        (place, wrapped)
    },
    open: |place, bytes| {
        let (epoch, key_no) = (Epoch(number(&place["epoch"]) as u32), KeyNo(number(&place["key_number"])));
        let key = roots(place).unwrap_file_key(epoch, key_no, bytes).map_err(crypto_word)?;
        Ok(json!({ "key": hex(key.expose()) }))
    },
    failures: || {
        vec![
            other_root(),
            other_volume(),
            place_fails("another epoch", json!({ "epoch": 0 })),
            place_fails("another number", json!({ "key_number": 78 })),
            cut_fails(112, "authentication"),
        ]
    },
    sealed_bits: &[0, -1],
};

/// One frame that compresses and a short one that does not.
fn chunk_plain() -> Vec<u8> {
    [vec![b'a'; 65_536], b"the end".to_vec()].concat()
}

pub const CHUNK: Object = Object {
    name: "chunk",
    about: "a chunk of 65,536 times 'a' and 'the end': an lz4 frame and a raw one; opened is the BLAKE3 of all",
    make: || {
        let plain = chunk_plain();
        let (volume, id) = (VolumeId([9; 16]), chunk_id(&plain));
        let chunk = seal_chunk(&Key::from_bytes([5; 32]), volume, &id, &plain, &Counting::new());
        let place = json!({
            "volume": hex(&volume.0), "file_key": hex(&[5; 32]), "id": hex(&id.0),
            "len": plain.len(), "frames": chunk.frames,
        });
        (place, chunk.bytes)
    },
    open: |place, bytes| {
        let frames = place["frames"].as_array().unwrap().iter().map(|len| number(len) as u32).collect();
        let (id, len) = (ChunkId(array(&place["id"])), number(&place["len"]) as u32);
        let row = ChunkRow { pack: PackNo(1), offset: 0, len, key: KeyNo(1), id, frames };
        let header = bytes.first_chunk::<CHUNK_HEADER_LEN>().ok_or("authentication")?;
        assert_eq!(header_span(&row), ByteRange::new(0, header.len() as u64));
        let (key, volume) = (Key::from_bytes(array(&place["file_key"])), VolumeId(array(&place["volume"])));
        let opener = ChunkOpener::new(&key, volume, &id, header).map_err(crypto_word)?;
        let all = ByteRange::new(0, len.into());
        let span = frame_span(&row, all).ok_or("authentication")?;
        let mut plain = vec![0; len as usize];
        open_frames(&opener, &row, &span, &bytes[header.len()..], all, &mut plain).map_err(crypto_word)?;
        Ok(json!({ "blake3": hex(&chunk_id(&plain).0), "len": plain.len() }))
    },
    failures: || {
        vec![
            place_fails("another file key", json!({ "file_key": hex(&[2; 32]) })),
            other_volume(),
            place_fails("another id", json!({ "id": hex(&[2; 32]) })),
            place_fails("a byte less", json!({ "len": 65_542 })),
            place_fails("a byte more", json!({ "len": 65_544 })),
            cut_fails(65, "authentication"),
        ]
    },
    sealed_bits: &[0, 8, 264, 520, -1],
};

pub const PACK: Object = Object {
    name: "pack",
    about: "1,000 bytes that stand for two chunks, the footer and the trailer",
    make: || {
        let place = under_root(json!({ "incarnation": hex(&[4; 16]), "number": 3 }));
        let entries = [(20, 0, 600), (21, 600, 400)];
        let entries = entries.map(|(chunk, offset, len)| PackEntry { chunk: ChunkNo(chunk), offset, len });
        let mut bytes = vec![0xcc; 1000];
        bytes.extend(footer(&entries, 1000, pack_name(&place), &roots(&place), &Counting::new()));
        (place, bytes)
    },
    open: |place, bytes| {
        let (name, roots) = (pack_name(place), roots(place));
        let tail = &bytes[bytes.len().saturating_sub(TRAILER_LEN)..];
        let found = decode_trailer(tail, bytes.len() as u64, name, &roots).map_err(word)?;
        let sealed = &bytes[found.range.start as usize..found.range.end as usize];
        let entries = decode_footer(&found, sealed, name, &roots).map_err(word)?;
        let entries: Vec<Value> = entries.iter().map(|e| json!([e.chunk.0, e.offset, e.len])).collect();
        Ok(json!({ "epoch": found.epoch.0, "footer_at": found.range.start, "entries": entries }))
    },
    failures: || {
        vec![
            other_root(),
            other_volume(),
            place_fails("another pack", json!({ "number": 4 })),
            place_fails("another incarnation", json!({ "incarnation": hex(&[5; 16]) })),
            flip_fails("another epoch", 8 * (4096 - 93), "authentication"),
            cut_fails(92, "malformed"),
            cut_fails(4095, "unknown epoch"),
        ]
    },
    // The footer's suite byte and tag; the trailer's suite byte and tag.
    sealed_bits: &[8000, 8 * (4096 - 93) - 1, 8 * (4096 - 89), -1],
};

fn pack_name(place: &Value) -> PackName {
    PackName { incarnation: Incarnation(array(&place["incarnation"])), number: number(&place["number"]) }
}

pub const VOLUME: Object = Object {
    name: "volume",
    about: "the volume object; the root is that of epoch 0",
    make: || {
        let place = json!({ "root": hex(&[1; 32]) });
        let parameters = VolumeParameters { created: TIME, single_device: true };
        let object = VolumeObject::create(VolumeId([9; 16]), &Key::from_bytes([1; 32]), &parameters, &Counting::new());
        (place, object.bytes().to_vec())
    },
    open: |place, bytes| {
        let object = VolumeObject::parse(bytes).map_err(|_| "malformed")?;
        let parameters = object.open(&Key::from_bytes(array(&place["root"]))).map_err(word)?;
        Ok(json!({
            "volume": object.volume().to_string(),
            "fingerprint": object.fingerprint(),
            "created": time(parameters.created),
            "single_device": parameters.single_device,
        }))
    },
    failures: || {
        vec![
            other_root(),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("another format version", 64, "malformed"),
            flip_fails("another volume", 96, "authentication"),
            cut_fails(27, "malformed"),
            cut_fails(28, "authentication"),
        ]
    },
    sealed_bits: &[224, 232, 488, 744, -1],
};

fn time(time: Timestamp) -> Value {
    json!([time.secs, time.nanos])
}

fn slot_place(place: &Value) -> SlotPlace {
    SlotPlace {
        volume: VolumeId(array(&place["volume"])),
        epoch: Epoch(number(&place["epoch"]) as u32),
        number: SlotNo::new(number(&place["slot"]) as u16).unwrap(),
    }
}

fn unlocked(result: Result<Unlocked, UnlockError>) -> Result<Value, String> {
    match result {
        Ok(Unlocked { epoch, root, label, .. }) => {
            Ok(json!({ "epoch": epoch.0, "root": hex(root.expose()), "label": label }))
        }
        Err(UnlockError::WrongSecret) => Err("authentication".into()),
        Err(UnlockError::Damaged(error)) => Err(word(error)),
        Err(UnlockError::Kdf(_)) => Err("parameters".into()),
        Err(UnlockError::NotPassword | UnlockError::NotRecovery | UnlockError::NotRecipient) => Err("malformed".into()),
    }
}

pub const SLOT_PASSWORD: Object = Object {
    name: "slot-password",
    about: "a slot with the cheapest allowed derivation",
    make: || {
        let place = json!({ "volume": hex(&[9; 16]), "epoch": 1, "slot": 3, "password": "correct horse" });
        let (root, kdf) = (Key::from_bytes([1; 32]), KdfParameters::FLOOR);
        let at = slot_place(&place);
        let slot = Slot::seal_password(at, &root, b"correct horse", kdf, "laptop", TIME, &Counting::new());
        (place, slot.unwrap().encode())
    },
    open: |place, bytes| {
        let slot = Slot::parse(slot_place(place), bytes).map_err(|_| "malformed")?;
        unlocked(slot.unlock_password(place["password"].as_str().unwrap().as_bytes()))
    },
    failures: || {
        vec![
            place_fails("another password", json!({ "password": "correct hors" })),
            flip_fails("4 TiB of memory", 8 * 12 + 7, "parameters"),
            flip_fails("no memory to speak of", 8 * 11, "parameters"),
            flip_fails("a pass fewer", 8 * 13, "parameters"),
            flip_fails("no lanes", 8 * 17, "parameters"),
            flip_fails("a pass more", 8 * 13 + 2, "authentication"),
            flip_fails("another salt", 8 * 21, "authentication"),
            flip_fails("recovery words instead", 8 * 8 + 1, "malformed"),
        ]
    },
    sealed_bits: &[-1],
};

pub const SLOT_RECOVERY: Object = Object {
    name: "slot-recovery",
    about: "a slot for recovery words: 'abandon' 23 times and 'art', which is 32 zero bytes",
    make: || {
        let words = format!("{}art", "abandon ".repeat(23));
        let place = json!({ "volume": hex(&[9; 16]), "epoch": 1, "slot": 4, "words": words });
        let words = RecoveryWords::parse(&words).unwrap();
        let slot =
            Slot::seal_recovery(slot_place(&place), &Key::from_bytes([1; 32]), &words, "paper", TIME, &Counting::new());
        (place, slot.encode())
    },
    open: |place, bytes| {
        let slot = Slot::parse(slot_place(place), bytes).map_err(|_| "malformed")?;
        unlocked(slot.unlock_recovery(&RecoveryWords::parse(place["words"].as_str().unwrap()).unwrap()))
    },
    failures: || {
        vec![
            other_volume(),
            place_fails("another epoch", json!({ "epoch": 0 })),
            place_fails("another slot", json!({ "slot": 5 })),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("another time", 8 * 9 + 1, "authentication"),
            cut_fails(8, "malformed"),
            cut_fails(200, "malformed"),
        ]
    },
    // The sealed private half, the ephemeral public half, the sealed root, the details.
    sealed_bits: &[8 * 20, 8 * 140, 8 * 200, 8 * 300, -1],
};

pub const SLOT_RECIPIENT: Object = Object {
    name: "slot-recipient",
    about: "a slot for an age identity, whose private half is 32 times 42",
    make: || {
        let identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        let place = json!({ "volume": hex(&[9; 16]), "epoch": 1, "slot": 5, "identity": identity });
        let (root, public) = (Key::from_bytes([1; 32]), parse_identities(identity).unwrap()[0].public());
        let slot = Slot::seal_recipient(slot_place(&place), &root, public, "server", TIME, &Counting::new());
        (place, slot.encode())
    },
    open: |place, bytes| {
        let slot = Slot::parse(slot_place(place), bytes).map_err(|_| "malformed")?;
        let identities = parse_identities(place["identity"].as_str().unwrap()).unwrap();
        unlocked(slot.unlock_recipient(identities[0].duplicate()))
    },
    failures: || {
        let other = "AGE-SECRET-KEY-1GDP5XS6RGDP5XS6RGDP5XS6RGDP5XS6RGDP5XS6RGDP5XS6RGDPSST380Y";
        vec![
            other_volume(),
            place_fails("another identity", json!({ "identity": other })),
            place_fails("another epoch", json!({ "epoch": 0 })),
            place_fails("another slot", json!({ "slot": 4 })),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("recovery words instead", 8 * 8, "malformed"),
            flip_fails("another time", 8 * 9 + 1, "authentication"),
            cut_fails(8, "malformed"),
            cut_fails(170, "malformed"),
        ]
    },
    // The random bytes, the ephemeral public half, the sealed root, the details.
    sealed_bits: &[8 * 20, 8 * 40, 8 * 100, 8 * 300, -1],
};

pub const EPOCH_LINK: Object = Object {
    name: "epoch-link",
    about: "the link of epoch 2 to epoch 1, which record 12 ended",
    make: || {
        let place = json!({ "volume": hex(&[9; 16]), "epoch": 2, "root": hex(&[2; 32]) });
        let link = EpochLink {
            older: Epoch(1),
            root: Key::from_bytes([1; 32]),
            ended_at: Seq(12),
            ended_hash: Hash([0x55; 32]),
        };
        (place, link.seal(VolumeId([9; 16]), Epoch(2), &Key::from_bytes([2; 32]), &Counting::new()))
    },
    open: |place, bytes| {
        let (volume, epoch) = (VolumeId(array(&place["volume"])), Epoch(number(&place["epoch"]) as u32));
        let link = EpochLink::open(volume, epoch, &Key::from_bytes(array(&place["root"])), bytes).map_err(word)?;
        Ok(json!({
            "older": link.older.0,
            "root": hex(link.root.expose()),
            "ended_at": link.ended_at.0,
            "ended_hash": link.ended_hash.to_string(),
        }))
    },
    failures: || {
        vec![
            place_fails("the older root", json!({ "root": hex(&[1; 32]) })),
            other_volume(),
            json!({ "why": "another epoch's name", "place": { "epoch": 3 }, "error": "malformed" }),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("another epoch", 64, "malformed"),
            cut_fails(11, "malformed"),
            cut_fails(12, "authentication"),
            cut_fails(4000, "authentication"),
        ]
    },
    sealed_bits: ENVELOPED_BITS,
};

/// One row of each kind, ascending.
fn rows() -> Vec<(Vec<u8>, Vec<u8>)> {
    let (root, file, name) = (InodeId::ROOT, InodeId((1 << 48) | 2), Name::parse("a file").unwrap());
    let extent = |offset, len| Extent { offset, len, chunk: ChunkNo((1 << 48) | 1), chunk_offset: 0 };
    let inode = InodeRow {
        mode: 0o100644,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        nlink: 1,
        size: (64 << 20) + 10,
        allocated: 20,
        atime: TIME,
        mtime: TIME,
        ctime: TIME,
        btime: Timestamp::new(-1, 0),
        version: 2,
        key: Some(KeyNo((1 << 48) | 1)),
        body: InodeBody::File(vec![extent(0, 10)]),
    };
    let chunk = ChunkRow {
        pack: PackNo((1 << 48) | 1),
        offset: 0,
        len: 10,
        key: KeyNo((1 << 48) | 1),
        id: ChunkId([0xc1; 32]),
        frames: vec![27],
    };
    let pack = PackRow { name: PackName { incarnation: Incarnation([4; 16]), number: 1 } };
    let next = Numbers { inode: 3, chunk: 2, key: 2, pack: 2 };
    let device = DeviceRow { name: "laptop".into(), incarnation: Incarnation([4; 16]), next, registered: TIME };
    let wrapped = vec![0xee; 113].into_boxed_slice();
    vec![
        (RowKey::Xattr(file, XattrName::parse("user.x").unwrap()).encode(), b"value".to_vec()),
        (RowKey::Backref(file, root, name.clone()).encode(), vec![]),
        (RowKey::Chunk(ChunkNo((1 << 48) | 1)).encode(), chunk.encode()),
        (RowKey::Dirent(root, name).encode(), DirentRow { ino: file, file_type: 0o100000 }.encode()),
        (RowKey::Inode(file).encode(), inode.encode()),
        (RowKey::FileKey(KeyNo((1 << 48) | 1)).encode(), FileKeyRow { epoch: Epoch(1), wrapped }.encode()),
        (RowKey::Pack(PackNo((1 << 48) | 1)).encode(), pack.encode()),
        (RowKey::Device(DeviceSlot(1)).encode(), device.encode()),
        (RowKey::Extents(file, 1).encode(), encode_window(&[extent(64 << 20, 10)])),
    ]
}

fn row_json(key: &[u8], value: Option<&[u8]>) -> Value {
    json!([hex(key), value.map(hex)])
}

pub const RECORD: Object = Object {
    name: "record",
    about: "a record with a row of each kind and a deletion, which comes last",
    make: || {
        let place = under_root(json!({ "seq": 12 }));
        let mut rows: Vec<_> = rows().into_iter().map(|(key, value)| (key, Some(value))).collect();
        rows.push((RowKey::Extents(InodeId((1 << 48) | 2), 2).encode(), None));
        let record = Record {
            epoch: Epoch(1),
            seq: Seq(12),
            prev: Hash([0x11; 32]),
            commit_id: [0x22; 16],
            slot: DeviceSlot(1),
            incarnation: Incarnation([4; 16]),
            high_water: IntentNo(300),
            high_water_hash: Hash([0x33; 32]),
            time: TIME,
            rows,
            next: None,
        };
        let bytes = record.seal(&roots(&place), &Counting::new()).unwrap();
        (place, bytes)
    },
    open: |place, bytes| {
        let record = Record::open(Seq(number(&place["seq"])), bytes, &roots(place)).map_err(word)?;
        let rows: Vec<Value> = record.rows.iter().map(|(key, value)| row_json(key, value.as_deref())).collect();
        Ok(json!({
            "hash": object_hash(bytes).to_string(),
            "epoch": record.epoch.0,
            "prev": record.prev.to_string(),
            "commit_id": hex(&record.commit_id),
            "slot": record.slot.0,
            "incarnation": record.incarnation.to_string(),
            "high_water": record.high_water.0,
            "high_water_hash": record.high_water_hash.to_string(),
            "time": time(record.time),
            "rows": rows,
        }))
    },
    failures: || enveloped_failures("seq", 13),
    sealed_bits: ENVELOPED_BITS,
};

pub const RECORD_ROTATION: Object = Object {
    name: "record-rotation",
    about: "a record that ends epoch 1 and begins epoch 3",
    make: || {
        let place = under_root(json!({ "seq": 12 }));
        let record = Record {
            epoch: Epoch(1),
            seq: Seq(12),
            prev: Hash([0x11; 32]),
            commit_id: [0x22; 16],
            slot: DeviceSlot(1),
            incarnation: Incarnation([4; 16]),
            high_water: IntentNo(300),
            high_water_hash: Hash([0x33; 32]),
            time: TIME,
            rows: Vec::new(),
            next: Some(NextEpoch { epoch: Epoch(3), commitment: Hash([0x66; 32]) }),
        };
        let bytes = record.seal(&roots(&place), &Counting::new()).unwrap();
        (place, bytes)
    },
    open: |place, bytes| {
        let mut opened = (RECORD.open)(place, bytes)?;
        let next = Record::open(Seq(number(&place["seq"])), bytes, &roots(place)).map_err(word)?.next.unwrap();
        opened["next"] = json!([next.epoch.0, next.commitment.to_string()]);
        Ok(opened)
    },
    failures: || enveloped_failures("seq", 13),
    sealed_bits: ENVELOPED_BITS,
};

/// Of what has a magic number, an epoch and one SEAL.
fn enveloped_failures(field: &str, other: u64) -> Vec<Value> {
    vec![
        other_root(),
        other_volume(),
        place_fails("another number", json!({ field: other })),
        flip_fails("another magic number", 0, "malformed"),
        flip_fails("another epoch", 64, "authentication"),
        flip_fails("an epoch that is not known", 65, "unknown epoch"),
        cut_fails(11, "malformed"),
        cut_fails(12, "authentication"),
        cut_fails(4000, "authentication"),
    ]
}

const ENVELOPED_BITS: &[i64] = &[96, 104, 360, 616, -1];

pub const FLOOR: Object = Object {
    name: "floor",
    about: "a floor: the log before record 101 is trimmed",
    make: || {
        let place = under_root(json!({ "number": 3 }));
        let checkpoint_hash = Hash([0x44; 32]);
        let floor = Floor { epoch: Epoch(1), number: 3, seq: Seq(101), checkpoint: Seq(120), checkpoint_hash };
        let bytes = floor.seal(&roots(&place), &Counting::new()).unwrap();
        (place, bytes)
    },
    open: |place, bytes| {
        let floor = Floor::open(number(&place["number"]), bytes, &roots(place)).map_err(word)?;
        Ok(json!({
            "epoch": floor.epoch.0,
            "seq": floor.seq.0,
            "checkpoint": floor.checkpoint.0,
            "checkpoint_hash": floor.checkpoint_hash.to_string(),
        }))
    },
    failures: || enveloped_failures("number", 4),
    sealed_bits: ENVELOPED_BITS,
};

fn meta_json(meta: &SegmentMeta) -> Value {
    json!({
        "id": meta.id.to_string(), "first": hex(&meta.first), "last": hex(&meta.last),
        "rows": meta.rows, "len": meta.len, "hash": meta.hash.to_string(),
    })
}

fn meta(place: &Value) -> SegmentMeta {
    let meta = &place["meta"];
    SegmentMeta {
        id: SegmentId(array(&meta["id"])),
        first: unhex(meta["first"].as_str().unwrap()),
        last: unhex(meta["last"].as_str().unwrap()),
        rows: number(&meta["rows"]),
        len: number(&meta["len"]),
        hash: Hash(array(&meta["hash"])),
    }
}

/// A value per row so large that there are two blocks.
fn segment() -> (Vec<u8>, SegmentMeta) {
    let roots = roots(&under_root(json!({})));
    let entropy = Counting::new();
    let mut builder = SegmentBuilder::new(&roots, &entropy);
    for ino in 1..=3 {
        let key = RowKey::Xattr(InodeId(ino), XattrName::parse("user.x").unwrap()).encode();
        builder.push(&key, &[ino as u8; 40_000]).unwrap();
    }
    builder.finish().unwrap()
}

pub const SEGMENT: Object = Object {
    name: "segment",
    about: "a segment of three attributes of 40,000 bytes each, in two blocks; opened says each value's BLAKE3",
    make: || {
        let (bytes, meta) = segment();
        (under_root(json!({ "meta": meta_json(&meta) })), bytes)
    },
    open: |place, bytes| {
        let (meta, roots) = (meta(place), roots(place));
        let reader = SegmentReader::open(&meta, bytes, &roots).map_err(word)?;
        let blocks = reader.blocks().collect::<Result<Vec<_>, _>>().map_err(word)?;
        let row = |(key, value): &(Vec<u8>, Vec<u8>)| json!([hex(key), hex(&chunk_id(value).0)]);
        let blocks: Vec<Vec<Value>> = blocks.iter().map(|rows| rows.iter().map(row).collect()).collect();
        Ok(json!({ "blocks": blocks }))
    },
    failures: || {
        let (_, meta) = segment();
        let mut other_hash = meta.clone();
        other_hash.hash.0[0] ^= 1;
        let mut other_id = meta.clone();
        other_id.id.0[0] ^= 1;
        vec![
            other_root(),
            other_volume(),
            place_fails("another hash in the manifest", json!({ "meta": meta_json(&other_hash) })),
            place_fails("another segment", json!({ "meta": meta_json(&other_id) })),
            cut_fails(4000, "authentication"),
        ]
    },
    sealed_bits: &[0, 96, -1],
};

pub const MANIFEST: Object = Object {
    name: "manifest",
    about: "a checkpoint of one segment at record 120",
    make: || {
        let place = under_root(json!({ "seq": 120 }));
        let (_, meta) = segment();
        let high_water = HighWater { incarnation: Incarnation([4; 16]), intent: IntentNo(300), hash: Hash([0x33; 32]) };
        let manifest = Manifest {
            epoch: Epoch(1),
            seq: Seq(120),
            head: Hash([0x55; 32]),
            segments: vec![meta],
            high_water: vec![high_water],
            past: vec![(Seq(50), Hash([0x66; 32])), (Seq(100), Hash([0x77; 32]))],
        };
        let bytes = manifest.seal(&roots(&place), &Counting::new()).unwrap();
        (place, bytes)
    },
    open: |place, bytes| {
        let manifest = Manifest::open(Seq(number(&place["seq"])), bytes, &roots(place)).map_err(word)?;
        let high_water = manifest.high_water.iter();
        let high_water: Vec<Value> =
            high_water.map(|h| json!([h.incarnation.to_string(), h.intent.0, h.hash.to_string()])).collect();
        let past: Vec<Value> = manifest.past.iter().map(|(seq, hash)| json!([seq.0, hash.to_string()])).collect();
        Ok(json!({
            "epoch": manifest.epoch.0,
            "head": manifest.head.to_string(),
            "segments": manifest.segments.iter().map(meta_json).collect::<Vec<_>>(),
            "high_water": high_water,
            "past": past,
        }))
    },
    failures: || enveloped_failures("seq", 121),
    sealed_bits: ENVELOPED_BITS,
};
