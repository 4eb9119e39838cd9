//! What a link has under `share/`.

use super::{Counting, Object, array, crypto_word, cut_fails, flip_fails, hex, number, place_fails};
use hushfs::base::{LinkId, Name, Timestamp};
use hushfs::crypto::{KdfParameters, Key, PrivateHalf, PublicHalf, Signer, link_content_root};
use hushfs::format::link::{
    ChunkRef, Contents, Entry, EntryKind, Header, IndexDecoder, IndexEncoder, IndexItem, LinkError, LinkKeys,
    LinkProtection, RootKind, SignedRecord, Step, decode_link_footer, decode_link_trailer, link_footer,
    open_link_chunk, seal_link_chunk, tombstone,
};
use serde_json::{Value, json};

const TIME: Timestamp = Timestamp::new(1_700_000_000, 123_456_789);

fn keys(protection: LinkProtection, recipient: Option<PublicHalf>) -> LinkKeys {
    LinkKeys { seed: Key::from_bytes([3; 32]), secret: Key::from_bytes([2; 32]), protection, recipient }
}

fn open_keys() -> LinkKeys {
    keys(LinkProtection::None, None)
}

fn with_password() -> LinkKeys {
    open_keys().with_password(b"correct horse", &Counting::new()).unwrap()
}

fn recipient() -> PrivateHalf {
    PrivateHalf::from_key(Key::from_bytes([7; 32]))
}

fn reference(pack: u64, offset: u32, len: u32) -> ChunkRef {
    let frames = (0..len.div_ceil(65_536)).map(|_| 1000).collect();
    ChunkRef { pack, offset, len, id: hushfs::base::ChunkId([0xc1; 32]), frames, sha256: [0xd2; 32] }
}

fn header() -> Header {
    let title = Name::parse("photos").unwrap();
    Header {
        title,
        published: TIME,
        kind: RootKind::Directory,
        files: 2,
        bytes: 1_048_581,
        index: vec![reference(1, 2130, 200)],
    }
}

fn make(keys: &LinkKeys, expiry: Option<Timestamp>, mut place: Value) -> (Value, Vec<u8>) {
    place["link"] = json!(hex(&keys.id().0));
    place["number"] = json!(7);
    (place, keys.seal(7, expiry, &header(), &Counting::new()).unwrap())
}

fn word(error: LinkError) -> String {
    match error {
        LinkError::Format(_) => "malformed".into(),
        LinkError::NotTheOwners | LinkError::WrongSecret | LinkError::NotRecipient => "authentication".into(),
        LinkError::Revoked => "revoked".into(),
        LinkError::PasswordNeeded | LinkError::WrongPassword => "password".into(),
        LinkError::Kdf(_) | LinkError::KdfTooCostly => "parameters".into(),
        LinkError::Damaged { source, .. } => crypto_word(source),
    }
}

fn link(place: &Value) -> LinkId {
    LinkId(array(&place["link"]))
}

fn reference_json(chunk: &ChunkRef) -> Value {
    let ChunkRef { pack, offset, len, id, frames, sha256 } = chunk;
    json!({ "pack": pack, "offset": offset, "len": len, "id": hex(&id.0), "frames": frames, "sha256": hex(sha256) })
}

fn open_record(place: &Value, bytes: &[u8]) -> Result<Value, String> {
    let record = SignedRecord::verify(link(place), number(&place["number"]), bytes.to_vec()).map_err(word)?;
    let expiry = record.expiry().map(|at| at.secs);
    if record.is_tombstone() {
        return Ok(json!({ "tombstone": true }));
    }
    let secret = match place.get("identity") {
        Some(identity) => record.secret_for(&PrivateHalf::from_key(Key::from_bytes(array(identity)))).map_err(word)?,
        None => Key::from_bytes(array(&place["secret"])),
    };
    let password = place.get("password").map(|password| password.as_str().unwrap().as_bytes());
    let Contents { header, root } = record.open(&secret).and_then(|outer| outer.contents(password)).map_err(word)?;
    Ok(json!({
        "tombstone": false,
        "expiry": expiry,
        "title": hex(header.title.as_bytes()),
        "published": [header.published.secs, header.published.nanos],
        "directory": header.kind == RootKind::Directory,
        "files": header.files,
        "bytes": header.bytes,
        "index": header.index.iter().map(reference_json).collect::<Vec<_>>(),
        "root": hex(root.expose()),
    }))
}

pub const RECORD: Object = Object {
    name: "link-record",
    about: "record 7 of an open link, which expires",
    make: || make(&open_keys(), Some(Timestamp::new(1_800_000_000, 0)), json!({ "secret": hex(&[2; 32]) })),
    open: open_record,
    failures: || {
        vec![
            place_fails("another secret", json!({ "secret": hex(&[1; 32]) })),
            place_fails("another link", json!({ "link": hex(&[9; 16]) })),
            place_fails("another number than its name says", json!({ "number": 8 })),
            flip_fails("another magic number", 0, "malformed"),
            flip_fails("a tombstone", 8 * 8, "authentication"),
            flip_fails("for a recipient", 8 * 9, "authentication"),
            flip_fails("another number", 8 * 42, "authentication"),
            flip_fails("another expiry", 8 * 50, "authentication"),
            cut_fails(63, "malformed"),
            cut_fails(4032, "authentication"),
        ]
    },
    // The public key, the sealed body, the signature.
    sealed_bits: &[8 * 10, 8 * 58, 8 * 100, 8 * 2000, -512, -1],
};

pub const RECORD_PASSWORD: Object = Object {
    name: "link-record-password",
    about: "record 7 of a link with a password",
    make: || make(&with_password(), None, json!({ "secret": hex(&[2; 32]), "password": "correct horse" })),
    open: open_record,
    failures: || {
        vec![
            json!({ "why": "another password", "place": { "password": "correct hors" }, "error": "password" }),
            place_fails("another secret", json!({ "secret": hex(&[1; 32]) })),
        ]
    },
    sealed_bits: &[-1],
};

pub const RECORD_COSTLY: Object = Object {
    name: "link-record-costly",
    about: "a record that asks for more passes than any link may: refused before anything is derived",
    make: || {
        let kdf = KdfParameters { passes: 17, ..KdfParameters::FLOOR };
        let protection = LinkProtection::Password { kdf, salt: [5; 32], root: Key::from_bytes([6; 32]) };
        let place = json!({ "secret": hex(&[2; 32]), "password": "correct horse" });
        make(&keys(protection, None), None, place)
    },
    open: |place, bytes| match open_record(place, bytes) {
        Err(word) => Ok(json!({ "refused": word })),
        Ok(_) => Err("opened".into()),
    },
    failures: Vec::new,
    sealed_bits: &[],
};

pub const RECORD_RECIPIENT: Object = Object {
    name: "link-record-recipient",
    about: "record 7 of a link whose secret is sealed to a recipient with the private half 07…07",
    make: || {
        let keys = keys(LinkProtection::None, Some(recipient().public()));
        make(&keys, None, json!({ "identity": hex(&[7; 32]) }))
    },
    open: open_record,
    failures: || vec![place_fails("somebody else", json!({ "identity": hex(&[8; 32]) }))],
    sealed_bits: &[8 * 58, 8 * 90, 8 * 203, -1],
};

pub const TOMBSTONE: Object = Object {
    name: "link-tombstone",
    about: "the record that takes a link back",
    make: || {
        let signer = Signer::from_seed(&Key::from_bytes([3; 32]));
        let id = signer.verifying_key().link_id();
        (json!({ "link": hex(&id.0), "number": 8 }), tombstone(&signer, 8))
    },
    open: open_record,
    failures: || {
        vec![
            place_fails("another link", json!({ "link": hex(&[9; 16]) })),
            place_fails("another number", json!({ "number": 9 })),
            flip_fails("a record instead", 8 * 8, "authentication"),
            cut_fails(121, "malformed"),
        ]
    },
    sealed_bits: &[8 * 10, -1],
};

pub const CHUNK: Object = Object {
    name: "link-chunk",
    about: "a link's chunk of 65,536 times 'a' and 'the end'; opened is the BLAKE3 of all",
    make: || {
        let plain = [vec![b'a'; 65_536], b"the end".to_vec()].concat();
        let (bytes, chunk) =
            seal_link_chunk(LinkId([9; 16]), &Key::from_bytes([5; 32]), &plain, (1, 0), &Counting::new());
        let mut place = reference_json(&chunk);
        place["link"] = json!(hex(&[9; 16]));
        place["root"] = json!(hex(&[5; 32]));
        (place, bytes)
    },
    open: |place, bytes| {
        let chunk = ChunkRef {
            pack: number(&place["pack"]),
            offset: number(&place["offset"]) as u32,
            len: number(&place["len"]) as u32,
            id: hushfs::base::ChunkId(array(&place["id"])),
            frames: place["frames"].as_array().unwrap().iter().map(|len| number(len) as u32).collect(),
            sha256: array(&place["sha256"]),
        };
        let root = Key::from_bytes(array(&place["root"]));
        let plain = open_link_chunk(link(place), &root, &chunk, bytes).map_err(word)?;
        Ok(json!({ "blake3": hex(&hushfs::crypto::chunk_id(&plain).0), "len": plain.len() }))
    },
    failures: || {
        vec![
            place_fails("another root", json!({ "root": hex(&[6; 32]) })),
            place_fails("another link", json!({ "link": hex(&[8; 16]) })),
            place_fails("another id", json!({ "id": hex(&[8; 32]) })),
            place_fails("other sealed bytes than the owner's", json!({ "sha256": hex(&[8; 32]) })),
            place_fails("a byte less", json!({ "len": 65_542 })),
            cut_fails(65, "authentication"),
        ]
    },
    sealed_bits: &[0, 8, 264, 520, -1],
};

pub const PACK: Object = Object {
    name: "link-pack",
    about: "2,000 bytes that stand for two chunks, the footer and the trailer",
    make: || {
        let place = json!({ "link": hex(&[9; 16]), "footer_key": hex(&[5; 32]), "number": 3 });
        let chunks = [reference(3, 0, 5), reference(3, 1065, 6)];
        let mut bytes = vec![0xcc; 2130];
        bytes.extend(link_footer(&chunks, 2130, link(&place), 3, &Key::from_bytes([5; 32]), &Counting::new()));
        (place, bytes)
    },
    open: |place, bytes| {
        let (link, number, key) = (link(place), number(&place["number"]), Key::from_bytes(array(&place["footer_key"])));
        let found = decode_link_trailer(bytes, bytes.len() as u64, link, number, &key).map_err(word)?;
        let sealed = &bytes[found.start as usize..found.end as usize];
        let chunks = decode_link_footer(found, sealed, link, number, &key).map_err(word)?;
        Ok(json!({ "footer_at": found.start, "chunks": chunks.iter().map(reference_json).collect::<Vec<_>>() }))
    },
    failures: || {
        vec![
            place_fails("another link", json!({ "link": hex(&[8; 16]) })),
            place_fails("another key", json!({ "footer_key": hex(&[6; 32]) })),
            place_fails("another pack", json!({ "number": 4 })),
            cut_fails(88, "malformed"),
            cut_fails(4000, "authentication"),
        ]
    },
    sealed_bits: &[8 * 2130, 8 * 2300, 8 * 3900, -712, -1],
};

/// A folder with a symlink, a folder, and in it a file whose first MiB is zeros.
fn index() -> (Header, Vec<IndexItem>) {
    let entry = |parent, name, kind| Entry { parent, name: Name::parse(name).unwrap(), mtime: TIME, kind };
    let file = EntryKind::File { size: (1 << 20) + 5, executable: true, chunks: 1 };
    let empty = EntryKind::File { size: 0, executable: false, chunks: 0 };
    let items = vec![
        IndexItem::Entry(0, entry(0, "photos", EntryKind::Directory)),
        IndexItem::Entry(1, entry(0, "2024", EntryKind::Directory)),
        IndexItem::Entry(2, entry(1, "a.jpg", file)),
        IndexItem::Chunk { piece: 1, chunk: reference(1, 0, 5) },
        IndexItem::Entry(3, entry(0, "empty", empty)),
        IndexItem::Entry(4, entry(0, "link", EntryKind::Symlink(b"2024/a.jpg".as_slice().into()))),
    ];
    (header(), items)
}

pub const INDEX: Object = Object {
    name: "link-index",
    about: "the plaintext of an index: a folder with a folder, two files and a symlink",
    make: || {
        let (header, items) = index();
        let mut encoder = IndexEncoder::new();
        for item in &items {
            match item {
                IndexItem::Entry(_, entry) => {
                    encoder.entry(entry);
                }
                IndexItem::Chunk { piece, chunk } => encoder.chunk(*piece, chunk),
            }
        }
        let place = json!({
            "title": hex(header.title.as_bytes()), "directory": true, "files": header.files, "bytes": header.bytes,
        });
        (place, encoder.take())
    },
    open: |place, bytes| {
        let title = hex_name(&place["title"]);
        let kind = if place["directory"] == json!(true) { RootKind::Directory } else { RootKind::File };
        let (files, total) = (number(&place["files"]), number(&place["bytes"]));
        let header = Header { title, published: TIME, kind, files, bytes: total, index: vec![] };
        let mut decoder = IndexDecoder::new(&header);
        decoder.push(bytes);
        decoder.end();
        let mut found = vec![];
        loop {
            match decoder.step().map_err(|_| "malformed")? {
                Step::Item(item) => found.push(item_json(&item)),
                Step::End => return Ok(json!(found)),
                Step::More => unreachable!("all was pushed"),
            }
        }
    },
    failures: || {
        let malformed = |why: &str, place: Value| json!({ "why": why, "place": place, "error": "malformed" });
        vec![
            malformed("another title", json!({ "title": hex(b"photo") })),
            malformed("a file", json!({ "directory": false })),
            malformed("a file more than there are", json!({ "files": 3 })),
            malformed("a byte less than there are", json!({ "bytes": 1_048_580 })),
            // Entry 0: parent 0, length 6, photos, type, flag, nine bytes of time; entry 1: parent at 19.
            flip_fails("a parent that there is not", 8 * 19 + 1, "malformed"),
            flip_fails("a directory that is executable", 8 * 9, "malformed"),
            cut_fails(0, "malformed"),
            cut_fails(60, "malformed"),
        ]
    },
    sealed_bits: &[],
};

fn hex_name(value: &Value) -> Name {
    Name::parse(super::unhex(value.as_str().unwrap())).unwrap()
}

fn item_json(item: &IndexItem) -> Value {
    match item {
        IndexItem::Chunk { piece, chunk } => json!({ "piece": piece, "chunk": reference_json(chunk) }),
        IndexItem::Entry(entry_number, Entry { parent, name, mtime, kind }) => {
            let kind = match kind {
                EntryKind::File { size, executable, chunks } => {
                    json!({ "size": size, "executable": executable, "chunks": chunks })
                }
                EntryKind::Directory => json!("directory"),
                EntryKind::Symlink(target) => json!({ "target": hex(target) }),
            };
            let mtime = [json!(mtime.secs), json!(mtime.nanos)];
            json!({ "entry": entry_number, "parent": parent, "name": hex(name.as_bytes()), "mtime": mtime, "kind": kind })
        }
    }
}

/// The row that the owner keeps, in a volume's record.
pub fn row() -> (Vec<u8>, Vec<u8>) {
    use hushfs::base::InodeId;
    use hushfs::format::link::{LinkRow, LinkState};
    use hushfs::format::rows::RowKey;
    let salt = [5; 32];
    let root = link_content_root(&Key::from_bytes([2; 32]), Some(&Key::from_bytes([6; 32])));
    let protection = LinkProtection::Password { kdf: KdfParameters::FLOOR, salt, root };
    let keys = keys(protection, Some(recipient().public()));
    let id = keys.id();
    let row = LinkRow {
        state: LinkState::Published(keys),
        inode: InodeId((1 << 48) | 2),
        path: b"a file".as_slice().into(),
        title: Name::parse("a file").unwrap(),
        live: true,
        created: TIME,
        expiry: Some(Timestamp::new(1_800_000_000, 0)),
        newest: 3,
        files: 1,
        bytes: 20,
    };
    (RowKey::Link(id).encode(), row.encode().to_vec())
}

pub const ROW: Object = Object {
    name: "link-row",
    about: "what the owner keeps of a link: key and value of an L row, with a password and a recipient",
    make: || {
        let (key, value) = row();
        (json!({ "key": hex(&key) }), value)
    },
    open: |place, bytes| {
        use hushfs::format::link::{LinkRow, LinkState};
        use hushfs::format::rows::validate;
        validate(&super::unhex(place["key"].as_str().unwrap()), bytes).map_err(|_| "malformed")?;
        let row = LinkRow::decode(bytes).map_err(|_| "malformed")?;
        let state = match &row.state {
            LinkState::Publishing(_) => 0,
            LinkState::Published(_) => 1,
            LinkState::Revoked => 2,
        };
        let keys = row.state.keys().map(|keys| {
            let protection = match &keys.protection {
                LinkProtection::None => Value::Null,
                LinkProtection::Password { kdf, salt, root } => json!({
                    "kdf": [kdf.memory_kib, kdf.passes, kdf.lanes], "salt": hex(salt), "root": hex(root.expose()),
                }),
            };
            json!({
                "seed": hex(keys.seed.expose()), "secret": hex(keys.secret.expose()), "protection": protection,
                "recipient": keys.recipient.map(|half| hex(&half.0)),
            })
        });
        Ok(json!({
            "state": state, "inode": row.inode.0, "path": hex(&row.path), "title": hex(row.title.as_bytes()),
            "live": row.live, "created": [row.created.secs, row.created.nanos],
            "expiry": row.expiry.map_or(0, |at| at.secs), "newest": row.newest, "files": row.files,
            "bytes": row.bytes, "keys": keys,
        }))
    },
    failures: || {
        vec![
            flip_fails("a state that is not known", 7, "malformed"),
            cut_fails(0, "malformed"),
            cut_fails(100, "malformed"),
        ]
    },
    sealed_bits: &[],
};
