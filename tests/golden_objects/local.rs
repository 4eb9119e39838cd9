//! What lies in a state folder.

use super::{
    Counting, Object, array, cut_fails, flip_fails, hex, other_root, other_volume, place_fails, roots, under_root, word,
};
use hushfs::base::{ByteRange, ChunkNo, Hash, Incarnation, InodeId, IntentNo, KeyNo, Name, Timestamp, VolumeId};
use hushfs::crypto::Key;
use hushfs::format::intent::{AttrChange, Change, Entry, Intent, NewInode};
use hushfs::format::journal::{JournalPayload, chain, decode_frame, encode_frame};
use hushfs::format::rows::{Extent, PackRow, RowKey, XattrName};
use hushfs::format::{Writer, state};
use serde_json::{Value, json};

/// One of each kind of intent, and of each kind of change.
fn intents() -> Vec<Intent> {
    let (parent, ino, time) = (InodeId(1), InodeId(258), Timestamp::new(-1, 500_000_000));
    let name = |text: &str| Name::parse(text).unwrap();
    let entry = |text| Entry { parent, name: name(text) };
    let node = NewInode { mode: 0o120777, uid: 1000, gid: 100, rdev: 0, time, target: Some(b"to".as_slice().into()) };
    let set = AttrChange { mode: Some(0o600), mtime: Some(time), ..AttrChange::default() };
    let changes = vec![
        Change::Inline { offset: 3, data: b"inline".as_slice().into() },
        Change::Extent(Extent { offset: 9, len: 4, chunk: ChunkNo(8), chunk_offset: 1 }),
        Change::Hole(ByteRange::new(20, 300)),
    ];
    let pack = hushfs::base::PackName { incarnation: Incarnation([4; 16]), number: 1 };
    vec![
        Intent::Create { parent, name: name("a"), ino, node },
        Intent::Link { ino, parent, name: name("b"), time },
        Intent::Unlink { parent, name: name("b"), ino, time },
        Intent::Rename { ino, from: entry("a"), to: entry("c"), replaced: Some(InodeId(9)), time },
        Intent::Exchange { a: entry("c"), a_ino: ino, b: entry("d"), b_ino: InodeId(3), time },
        Intent::SetAttr { ino, set, time },
        Intent::SetXattr { ino, name: XattrName::parse("user.x").unwrap(), value: Some(b"v".as_slice().into()), time },
        Intent::Write { ino, base: 1, size: 300, mtime: time, time, key: Some(KeyNo(77)), changes },
        Intent::Fact {
            key: RowKey::Pack(hushfs::base::PackNo(1)),
            value: PackRow { name: pack }.encode().into_boxed_slice(),
        },
    ]
}

pub const JOURNAL: Object = Object {
    name: "journal-frame",
    about: "a journal frame with one intent of each kind; chain_after is the chain's hash behind the last",
    make: || {
        let payload = JournalPayload {
            incarnation: Incarnation([4; 16]),
            first: IntentNo(300),
            chain_before: Hash([6; 32]),
            intents: intents(),
        };
        let (key, volume) = (Key::from_bytes([3; 32]), VolumeId([9; 16]));
        let place = json!({ "volume": hex(&volume.0), "state_key": hex(&[3; 32]) });
        (place, encode_frame(11, &payload, &key, volume, &Counting::new()))
    },
    open: |place, bytes| {
        let (key, volume) = (Key::from_bytes(array(&place["state_key"])), VolumeId(array(&place["volume"])));
        let (number, payload) = decode_frame(bytes, &key, volume).map_err(word)?;
        let encoded: Vec<String> = payload.intents.iter().map(encoded).collect();
        let chain_after = payload.intents.iter().fold(payload.chain_before, |hash, intent| chain(&hash, intent));
        Ok(json!({
            "number": number,
            "incarnation": payload.incarnation.to_string(),
            "first": payload.first.0,
            "chain_before": payload.chain_before.to_string(),
            "intents": encoded,
            "chain_after": chain_after.to_string(),
        }))
    },
    failures: || {
        vec![
            place_fails("another key", json!({ "state_key": hex(&[2; 32]) })),
            other_volume(),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("another length", 32, "authentication"),
            flip_fails("another frame number", 64, "authentication"),
            cut_fails(15, "malformed"),
            cut_fails(100, "malformed"),
        ]
    },
    sealed_bits: &[128, 136, 392, 648],
};

/// The kinds of intents that came after the frame above was frozen.
pub const JOURNAL_FILE_KEY: Object = Object {
    name: "journal-file-key",
    about: "a journal frame that gives a file another key, and another file none",
    make: || {
        let payload = JournalPayload {
            incarnation: Incarnation([4; 16]),
            first: IntentNo(1),
            chain_before: Hash([0; 32]),
            intents: vec![
                Intent::FileKey { ino: InodeId(258), key: Some(KeyNo(77)) },
                Intent::FileKey { ino: InodeId(259), key: None },
            ],
        };
        let (key, volume) = (Key::from_bytes([3; 32]), VolumeId([9; 16]));
        let place = json!({ "volume": hex(&volume.0), "state_key": hex(&[3; 32]) });
        (place, encode_frame(12, &payload, &key, volume, &Counting::new()))
    },
    open: JOURNAL.open,
    failures: || vec![place_fails("another key", json!({ "state_key": hex(&[2; 32]) })), other_volume()],
    sealed_bits: &[128, 648],
};

fn encoded(intent: &Intent) -> String {
    let mut out = Writer::new();
    intent.encode(&mut out);
    hex(&out.finish())
}

pub const STATE_KEY: Object = Object {
    name: "state-key",
    about: "a state folder's key under the root of epoch 1",
    make: || {
        let place = under_root(json!({}));
        let file = state::seal_state_key(&roots(&place), &Key::from_bytes([3; 32]), &Counting::new());
        (place, file)
    },
    open: |place, bytes| {
        let key = state::open_state_key(bytes, &roots(place)).map_err(word)?;
        Ok(json!({ "epoch": state::state_key_epoch(bytes).unwrap().0, "key": hex(key.expose()) }))
    },
    failures: || {
        vec![
            other_root(),
            other_volume(),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("another epoch", 64, "authentication"),
            flip_fails("an epoch that is not known", 65, "unknown epoch"),
            cut_fails(11, "malformed"),
            cut_fails(12, "authentication"),
        ]
    },
    sealed_bits: &[96, -1],
};

pub const STATE_FILE: Object = Object {
    name: "state-file",
    about: "a small file of a state folder",
    make: || {
        let (key, volume) = (Key::from_bytes([3; 32]), VolumeId([9; 16]));
        let place = json!({ "volume": hex(&volume.0), "state_key": hex(&[3; 32]), "name": "head" });
        (place, state::seal_file(&key, volume, "head", b"content", &Counting::new()))
    },
    open: |place, bytes| {
        let (key, volume) = (Key::from_bytes(array(&place["state_key"])), VolumeId(array(&place["volume"])));
        let name: &Value = &place["name"];
        let plain = state::open_file(&key, volume, name.as_str().unwrap(), bytes).map_err(word)?;
        Ok(json!({ "plain": hex(&plain) }))
    },
    failures: || {
        vec![
            place_fails("another key", json!({ "state_key": hex(&[2; 32]) })),
            other_volume(),
            place_fails("another file", json!({ "name": "heads" })),
            cut_fails(80, "authentication"),
        ]
    },
    sealed_bits: &[0, -1],
};
