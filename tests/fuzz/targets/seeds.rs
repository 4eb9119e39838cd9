//! What a fuzzer starts from: the golden vectors, what is sealed in them, and what the frozen volume's records hold.

use super::sealing::{EPOCH, VOLUME, root};
use super::store::slot_for_words;
use hushfs::base::{Epoch, Seq};
use hushfs::crypto::{Context, Kind, RecoveryWords, Roots, SEAL_OVERHEAD, open_bulk};
use hushfs::format::{ObjectName, Record, Slot, SlotNo, SlotPlace, VolumeObject, Writer, padding};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder `tests`, from the crate of the fuzzers and from that of the tests.
fn tests() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.ends_with("tests/fuzz") { here.join("..") } else { here.join("tests") }
}

fn golden() -> PathBuf {
    tests().join("golden")
}

/// Inputs that once made this target fail, and must not again.
pub fn found(target: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(tests().join("fuzz/found").join(target)) else { return vec![] };
    entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("an input")).collect()
}

fn vector(name: &str) -> Vec<u8> {
    let text = fs::read(golden().join(format!("{name}.json"))).expect(name);
    let vector: Value = serde_json::from_slice(&text).expect(name);
    unhex(&vector["bytes"])
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// The first byte of an input chooses a way.
fn way(number: u8, data: impl AsRef<[u8]>) -> Vec<u8> {
    [&[number], data.as_ref()].concat()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn unsealed(kind: Kind, id: &[&[u8]], sealed: &[u8]) -> Vec<u8> {
    open_bulk(&root(), &Context { volume: VOLUME, kind, id }, sealed).expect("a golden vector")
}

fn unpadded(body: &[u8], around: usize) -> Vec<u8> {
    padding::unpad("a golden vector", body, around).expect("a golden vector").to_vec()
}

/// The body of what has a magic number, an epoch and one SEAL.
fn body(object: &[u8], kind: Kind, number: u64) -> Vec<u8> {
    let epoch = EPOCH.0.to_le_bytes();
    unpadded(&unsealed(kind, &[&epoch, &number.to_le_bytes()], &object[12..]), 12 + SEAL_OVERHEAD)
}

/// What a compressed body stands for.
fn decompressed(body: &[u8]) -> Vec<u8> {
    let mut reader = hushfs::format::Reader::new("a golden vector", body);
    let (codec, len) = (reader.u8().expect("a codec"), reader.varint().expect("a length"));
    let data = reader.raw(reader.remaining()).expect("the rest");
    if codec == 0 { data.to_vec() } else { lz4_flex::block::decompress(data, len as usize).expect("a golden vector") }
}

pub fn object_names() -> Vec<Vec<u8>> {
    texts(&[
        "hushfs.volume",
        "keys/0000000001/0003",
        "keys/0000000001/chain",
        "log/00000000000000000012",
        "floor/18446744073709551615",
        "ck/00000000000000000120",
        "seg/000102030405060708090a0b0c0d0e0f",
        "pk/04040404040404040404040404040404/00000000000000000003",
        "share/04040404040404040404040404040404/00000000000000000003",
        "share/04040404040404040404040404040404/pk/00000000000000000003",
    ])
}

pub fn volume() -> Vec<Vec<u8>> {
    let object = vector("volume");
    let plain = unsealed_under_epoch_0(&object);
    vec![way(0, &object), way(1, plain)]
}

fn unsealed_under_epoch_0(object: &[u8]) -> Vec<u8> {
    let plain = unsealed(Kind::VolumeParameters, &[&1u32.to_le_bytes()], &object[28..]);
    unpadded(&plain, 28 + SEAL_OVERHEAD)
}

pub fn slot() -> Vec<Vec<u8>> {
    let details = [&[0; 32][..], &[5], b"paper"].concat();
    vec![
        way(0, slot_for_words()),
        way(0, vector("slot-recovery")),
        way(0, vector("slot-password")),
        way(1, details),
        way(2, [0x5a; 32]),
        way(3, root().expose()),
    ]
}

pub fn epoch_link() -> Vec<Vec<u8>> {
    let body = [&0u32.to_le_bytes()[..], &[1; 32], &[77], &[7; 32]].concat();
    vec![way(1, body)]
}

pub fn record() -> Vec<Vec<u8>> {
    let object = vector("record");
    let body = body(&object, Kind::Record, 12);
    let rotation =
        [&[1][..], &[0; 32], &[2; 16], &[1, 0], &[4; 16], &[0], &[0; 32], &[0, 0, 0], &[2, 0, 0, 0], &[6; 32]];
    let frozen = frozen_bodies().into_iter().map(|body| way(2, body));
    [way(0, &object), way(1, decompressed(&body)), way(2, &body), way(1, rotation.concat())]
        .into_iter()
        .chain(frozen)
        .collect()
}

pub fn floor() -> Vec<Vec<u8>> {
    let object = vector("floor");
    vec![way(0, &object), way(1, body(&object, Kind::Floor, 3))]
}

pub fn manifest() -> Vec<Vec<u8>> {
    let object = vector("manifest");
    let body = body(&object, Kind::Manifest, 120);
    vec![way(0, &object), way(1, decompressed(&body)), way(2, &body)]
}

pub fn segment() -> Vec<Vec<u8>> {
    let object = vector("segment");
    let mut rows = Writer::new();
    for (key, value) in frozen_rows().into_iter().take(20) {
        rows.bytes(&key).bytes(&value);
    }
    let rows = rows.finish();
    let mut index = Writer::new();
    index.varint(1).bytes(b"C\0\0\0\0\0\0\0\x01").varint(1).varint(94).bytes(b"C\0\0\0\0\0\0\0\x01");
    let compressed = [&[1][..], &[0xac, 0x02], &lz4_flex::block::compress(&[b'x'; 300])].concat();
    vec![
        way(0, object),
        way(1, &rows),
        way(2, [&[0][..], &varint(rows.len()), &rows].concat()),
        way(2, compressed),
        way(3, index.finish()),
        way(4, 106u64.to_le_bytes()),
    ]
}

fn varint(number: usize) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(number as u64);
    out.finish()
}

pub fn pack() -> Vec<Vec<u8>> {
    let list = [0x02, 0x14, 0x00, 0xd8, 0x04, 0x15, 0xd8, 0x04, 0x90, 0x03];
    vec![way(0, vector("pack")), way(1, list), way(2, 1000u64.to_le_bytes())]
}

/// As `store::chunk` reads them: two frames, the first compressed.
pub fn chunk() -> Vec<Vec<u8>> {
    let plain = vec![b'a'; 65_536];
    let first = [&[1][..], &lz4_flex::block::compress(&plain)].concat();
    let last = b"\0the end";
    let mut row = Writer::new();
    row.varint(1).varint(0).varint(65_543).varint(1).raw(&[7; 32]);
    row.varint(first.len() as u64 + 16).varint(last.len() as u64 + 16);
    let row = row.finish();
    let input = |start: u64, len: u64, frames: [&[u8]; 2]| {
        let mut out = Writer::new();
        out.bytes(&row).varint(start).varint(len).bytes(frames[0]).bytes(frames[1]);
        out.finish()
    };
    vec![input(0, 65_543, [&first, last]), input(65_530, 10, [&first, last]), input(3, 5, [&[1, 0x10, b'a'], b"\0"])]
}

pub fn row() -> Vec<Vec<u8>> {
    let mut kinds = [0; 256];
    let mut found: Vec<_> = golden_rows().into_iter().chain(frozen_rows()).collect();
    // A few of each kind.
    found.retain(|(key, _)| {
        kinds[usize::from(key[0])] += 1;
        kinds[usize::from(key[0])] <= 4
    });
    found.into_iter().map(|(key, value)| [&varint(key.len())[..], &key, &value].concat()).collect()
}

type Row = (Vec<u8>, Vec<u8>);

fn golden_rows() -> Vec<Row> {
    let text = fs::read(golden().join("record.json")).expect("record");
    let vector: Value = serde_json::from_slice(&text).expect("record");
    let rows = vector["opened"]["rows"].as_array().expect("rows");
    rows.iter().filter(|row| row[1].is_string()).map(|row| (unhex(&row[0]), unhex(&row[1]))).collect()
}

pub fn wrapped_key() -> Vec<Vec<u8>> {
    vec![way(0, vector("file-key")), way(1, [5; 32])]
}

pub fn acl() -> Vec<Vec<u8>> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = |entries: &[Vec<u8>]| [&2u32.to_le_bytes()[..], &entries.concat()].concat();
    let none = u32::MAX;
    vec![
        list(&[entry(1, 6, none), entry(4, 4, none), entry(0x20, 4, none)]),
        list(&[
            entry(1, 7, none),
            entry(2, 7, 5),
            entry(4, 5, none),
            entry(8, 1, 6),
            entry(16, 7, none),
            entry(32, 4, none),
        ]),
        b"200GiB".to_vec(),
    ]
}

pub fn link_record() -> Vec<Vec<u8>> {
    let record = vector("link-record");
    let chunk = reference(1, 2130, 200);
    let mut header = Writer::new();
    header.bytes(b"photos").time(hushfs::base::Timestamp::new(1_700_000_000, 5)).u8(2).varint(2).varint(7).varint(1);
    let header = [header.finish(), chunk].concat();
    let body = [&[0, 0][..], &varint(header.len()), &header].concat();
    vec![
        way(0, vector("link-tombstone")),
        way(0, &record),
        way(1, &record[..record.len() - 64]),
        way(2, &body),
        way(2, [&[1][..], &[0; 12], &[5; 32], &[7; 90]].concat()),
        way(3, &header),
        way(4, [2; 32]),
    ]
}

/// A chunk's, as an index and a record have it.
fn reference(pack: u64, offset: u64, len: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(pack).varint(offset).varint(len).raw(&[0xc1; 32]).varint(len + 17).raw(&[0xd2; 32]);
    out.finish()
}

pub fn link_index() -> Vec<Vec<u8>> {
    let index = vector("link-index");
    let input = |piece: u8| [&[1, 2][..], &varint((1 << 20) + 5), &[piece], &index].concat();
    vec![input(0), input(255)]
}

pub fn link_chunk() -> Vec<Vec<u8>> {
    let text = fs::read(golden().join("link-chunk.json")).expect("link-chunk");
    let vector: Value = serde_json::from_slice(&text).expect("link-chunk");
    let place = &vector["place"];
    let number = |field: &str| place[field].as_u64().expect("a number");
    let mut out = Writer::new();
    out.varint(number("pack")).varint(number("offset")).varint(number("len")).raw(&unhex(&place["id"]));
    for frame in place["frames"].as_array().expect("frames") {
        out.varint(frame.as_u64().expect("a number"));
    }
    out.raw(&unhex(&place["sha256"])).raw(&unhex(&vector["bytes"]));
    vec![out.finish()]
}

pub fn link_pack() -> Vec<Vec<u8>> {
    // Two chunks, without the pack's number.
    let list = [&[2][..], &reference(7, 0, 5)[1..], &reference(7, 150, 6)[1..]].concat();
    vec![way(0, vector("link-pack")), way(1, 100u64.to_le_bytes()), way(2, list)]
}

pub fn link_box() -> Vec<Vec<u8>> {
    vec![vector("link-box"), [&b"hushbox1"[..], &[0; 8]].concat()]
}

pub fn link_url() -> Vec<Vec<u8>> {
    texts(&[
        "https://share.example.org:8443/path/s/000102030405060708090a0b0c0d0e0f#1.AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI",
        "000102030405060708090a0b0c0d0e0f#1",
        "http://[::1]:8080/s/000102030405060708090a0b0c0d0e0f#2.x",
    ])
}

pub fn gateway_request() -> Vec<Vec<u8>> {
    texts(&[
        "/s/000102030405060708090a0b0c0d0e0f\n\n198.51.100.7",
        "/s/000102030405060708090a0b0c0d0e0f/record\nbytes=0-262143\n2001:db8::1, 10.0.0.1\n10.2.3.4",
        "/s/000102030405060708090a0b0c0d0e0f/pk/00000000000000000012\nbytes=262144-1310726",
        "/s/000102030405060708090a0b0c0d0e0f/pk/7\nbytes=1310720-\nunknown",
        "/metrics\nbytes=-5",
    ])
}

pub fn journal_frame() -> Vec<Vec<u8>> {
    let payload = journal_payload();
    // The vector's state key is another than the one here, so that only what is behind the seal opens.
    vec![way(0, vector("journal-frame")), way(1, payload)]
}

fn journal_payload() -> Vec<u8> {
    let intents = intents();
    let head = [&[4; 16][..], &[0xac, 0x02], &[6; 32], &[intents.len() as u8]].concat();
    [head, intents.concat()].concat()
}

fn intents() -> Vec<Vec<u8>> {
    let text = fs::read(golden().join("journal-frame.json")).expect("journal-frame");
    let vector: Value = serde_json::from_slice(&text).expect("journal-frame");
    vector["opened"]["intents"].as_array().expect("intents").iter().map(unhex).collect()
}

pub fn intent() -> Vec<Vec<u8>> {
    let mut seeds = intents();
    seeds.push(seeds.concat());
    seeds
}

pub fn state_file() -> Vec<Vec<u8>> {
    let identity = [&[1, 1, 0, 1][..], &[4; 16], &[12], &[0x55; 32], &[1], &[1, 0, 0, 0], &[3, 101, 120], &[0x44; 32]];
    vec![
        way(0, vector("state-key")),
        way(1, [3; 32]),
        way(2, vector("state-file")),
        way(3, [&b"hushpin1"[..], &VOLUME.0, &[1, 0, 0, 0], &[0x66; 32]].concat()),
        way(4, identity.concat()),
        way(5, [0x01, 0x01, 0x82, 0x02, 0x04, 0xac, 0x02, 0x01, 0x00]),
    ]
}

pub fn kept_copy() -> Vec<Vec<u8>> {
    // Magic, length and checksum of nothing, and of nothing that fits.
    let empty = [&b"hushkeep"[..], &[0; 8], &0xcbf2_9ce4_8422_2325u64.to_le_bytes()].concat();
    vec![[&empty[..], b"more"].concat(), empty]
}

pub fn control() -> Vec<Vec<u8>> {
    let status = hushfs::cli::control::Reply::Status(Box::default());
    let mut seeds = texts(&[
        r#"{"op":"status"}"#,
        r#"{"op":"rotate","without":3}"#,
        r#"{"op":"umount","wait":true}"#,
        r#"{"event":"progress","files":3,"bytes":70000,"trouble":"the store does not answer"}"#,
        r#"{"event":"done"}"#,
    ]);
    seeds.push(serde_json::to_vec(&status).expect("plain values"));
    seeds
}

pub fn aws_profile() -> Vec<Vec<u8>> {
    texts(&[
        "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = a/b+c=\n",
        "[profile me]\nregion=eu-west-1\ns3 =\n  endpoint_url = http://127.0.0.1\n[default]\n# none\ncredential_process = \"x\" y\n",
    ])
}

pub fn arguments() -> Vec<Vec<u8>> {
    texts(&[
        "hushfs\nmount\ns3://bucket/prefix\n/mnt\n-o\nro,allow_other",
        "hushfs\ninit\n/path\n--password-file\nfile\n--kdf-memory\n64MiB",
        "hushfs\nkey\nadd\nURL\n--recipient\nage1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        "hushfs\nkey\nrotate\nURL",
        "hushfs\nstatus\n--json",
        "/sbin/mount.hushfs\ns3://bucket\n/mnt\n-sfn\n-o\nrw\n-t\nhushfs",
    ])
}

pub fn mount_options() -> Vec<Vec<u8>> {
    texts(&[
        "ro,allow_other,cache-size=20GiB,fsync=remote,x-systemd.automount,nofail",
        "suid,dev,exec,strictatime,quota=0,password-command=pass show it,profile=me",
    ])
}

pub fn store_url() -> Vec<Vec<u8>> {
    texts(&[
        "s3://bucket/a/b",
        "gs://bucket",
        "az://container/x/",
        "file:///a%20b",
        "/a/../b",
        "relative",
        "1.5GiB",
        "20K",
        "name",
        "s3:bucket",
        "s3://user:password@host/x",
    ])
}

pub fn secrets() -> Vec<Vec<u8>> {
    let words = super::store::words().text();
    texts(&[
        &words,
        &format!("1. {}", words.to_uppercase()),
        "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        "# created: 2026-01-01\n\nAGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n",
    ])
}

/// The frozen volume's roots.
fn frozen_roots() -> Roots {
    let words = fs::read_to_string(golden().join("volume-v1/recovery-words")).expect("words");
    let words = RecoveryWords::parse(&words).expect("words");
    let volume = VolumeObject::parse(&frozen_object("hushfs.volume")).expect("a volume").volume();
    let (epoch, number) = (Epoch(0), SlotNo::new(2).expect("a slot's number"));
    let name = ObjectName::Slot(epoch, number).to_string();
    let slot = Slot::parse(SlotPlace { volume, epoch, number }, &frozen_object(&name)).expect("a slot");
    Roots::new(volume, epoch, slot.unlock_recovery(&words).expect("the words").root)
}

fn frozen_object(name: &str) -> Vec<u8> {
    fs::read(golden().join("volume-v1/store").join(name)).expect(name)
}

fn frozen_log() -> Vec<(Seq, Vec<u8>)> {
    let entries = fs::read_dir(golden().join("volume-v1/store/log")).expect("a log");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut log: Vec<_> =
        names.map(|name| (Seq(name.parse().expect("a number")), frozen_object(&format!("log/{name}")))).collect();
    log.sort();
    log
}

/// Compressed bodies of the frozen volume's records, for another volume's records.
fn frozen_bodies() -> Vec<Vec<u8>> {
    let roots = frozen_roots();
    let root = roots.root(Epoch(0)).expect("a root");
    let open = |(seq, object): (Seq, Vec<u8>)| {
        let id: [&[u8]; 2] = [&0u32.to_le_bytes(), &seq.0.to_le_bytes()];
        let context = Context { volume: roots.volume(), kind: Kind::Record, id: &id };
        unpadded(&open_bulk(&root, &context, &object[12..]).expect("a record"), 12 + SEAL_OVERHEAD)
    };
    frozen_log().into_iter().map(open).collect()
}

fn frozen_rows() -> Vec<Row> {
    let roots = frozen_roots();
    let records = frozen_log().into_iter().map(|(seq, object)| Record::open(seq, &object, &roots).expect("a record"));
    let mut rows: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = std::collections::BTreeMap::new();
    for (key, value) in records.flat_map(|record| record.rows) {
        if let Some(value) = value {
            rows.insert(key, value);
        }
    }
    rows.into_iter().collect()
}
