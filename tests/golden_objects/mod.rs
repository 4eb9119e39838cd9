//! How each object of the golden vectors is made and opened.

mod local;
mod store;

use hushfs::base::{Entropy, Epoch, VolumeId};
use hushfs::crypto::{Context, CryptoError, Key, Kind, Roots, open, seal};
use hushfs::format::OpenError;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU8, Ordering};

pub struct Object {
    pub name: &'static str,
    pub about: &'static str,
    /// Where it belongs, and its bytes.
    pub make: fn() -> (Value, Vec<u8>),
    /// What it opens to, or the word for the failure.
    pub open: fn(place: &Value, bytes: &[u8]) -> Result<Value, String>,
    pub failures: fn() -> Vec<Value>,
    /// Bits whose flip fails authentication; a negative one counts from the end.
    pub sealed_bits: &'static [i64],
}

pub const ALL: &[Object] = &[
    SEAL,
    store::FILE_KEY,
    store::CHUNK,
    store::PACK,
    store::VOLUME,
    store::SLOT_PASSWORD,
    store::SLOT_RECOVERY,
    store::SLOT_RECIPIENT,
    store::EPOCH_LINK,
    store::RECORD,
    store::RECORD_ROTATION,
    store::FLOOR,
    store::SEGMENT,
    store::MANIFEST,
    local::JOURNAL,
    local::JOURNAL_FILE_KEY,
    local::STATE_KEY,
    local::STATE_FILE,
];

const SEAL: Object = Object {
    name: "seal",
    about: "SEAL itself: a record's kind, two fields of context",
    make: || {
        let place = json!({ "key": hex(&[1; 32]), "volume": hex(&[9; 16]), "id": [hex(b"first"), hex(b"")] });
        let context = Context { volume: VolumeId([9; 16]), kind: Kind::Record, id: &[b"first", b""] };
        (place, seal(&Key::from_bytes([1; 32]), &context, b"plaintext", &Counting::new()))
    },
    open: |place, bytes| {
        let fields: Vec<Vec<u8>> = place["id"].as_array().unwrap().iter().map(|f| unhex(f.as_str().unwrap())).collect();
        let id: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        let context = Context { volume: VolumeId(array(&place["volume"])), kind: Kind::Record, id: &id };
        let plain = open(&Key::from_bytes(array(&place["key"])), &context, bytes).map_err(crypto_word)?;
        Ok(json!({ "plain": hex(&plain) }))
    },
    failures: || {
        vec![
            place_fails("another key", json!({ "key": hex(&[2; 32]) })),
            place_fails("another volume", json!({ "volume": hex(&[8; 16]) })),
            place_fails("another field", json!({ "id": [hex(b"First"), hex(b"")] })),
            place_fails("a field fewer", json!({ "id": [hex(b"first")] })),
            place_fails("bytes in the next field", json!({ "id": [hex(b"firs"), hex(b"t")] })),
            cut_fails(0, "authentication"),
            cut_fails(80, "authentication"),
        ]
    },
    // Suite, salt, commitment, ciphertext, tag.
    sealed_bits: &[0, 7, 8, 264, 519, 520, -128, -1],
};

/// Byte after byte: 0, 1, 2, … and from 255 on again from 0.
pub struct Counting(AtomicU8);

impl Counting {
    pub fn new() -> Self {
        Self(AtomicU8::new(0))
    }
}

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.0.fetch_add(1, Ordering::Relaxed));
    }
}

pub fn place_fails(why: &str, place: Value) -> Value {
    json!({ "why": why, "place": place, "error": "authentication" })
}

pub fn cut_fails(len: u64, error: &str) -> Value {
    json!({ "why": "cut short", "cut_to": len, "error": error })
}

pub fn flip_fails(why: &str, bit: u64, error: &str) -> Value {
    json!({ "why": why, "flip_bit": bit, "error": error })
}

/// Epochs 0 and 1 with one root, so that only the context tells them apart.
pub fn roots(place: &Value) -> Roots {
    let volume = VolumeId(array(&place["volume"]));
    let roots = Roots::new(volume, Epoch(1), Key::from_bytes(array(&place["root"])));
    assert!(roots.insert(Epoch(0), Key::from_bytes(array(&place["root"]))));
    roots
}

/// The fields that every object under a root has.
pub fn under_root(more: Value) -> Value {
    let mut place = json!({ "volume": hex(&[9; 16]), "root": hex(&[1; 32]) });
    place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    place
}

pub fn other_root() -> Value {
    place_fails("another root", json!({ "root": hex(&[2; 32]) }))
}

pub fn other_volume() -> Value {
    place_fails("another volume", json!({ "volume": hex(&[8; 16]) }))
}

pub fn word(error: OpenError) -> String {
    match error {
        OpenError::Crypto { source, .. } => crypto_word(source),
        OpenError::Format(_) => "malformed".into(),
    }
}

pub fn crypto_word(error: CryptoError) -> String {
    match error {
        CryptoError::Authentication => "authentication".into(),
        CryptoError::UnknownEpoch(_) => "unknown epoch".into(),
    }
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

pub fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value.as_str().expect("hexadecimal")).try_into().expect("its length")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}
