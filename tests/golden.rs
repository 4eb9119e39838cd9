//! Frozen bytes of every object. `tests/golden/*.json` describe themselves: the inputs, the bytes, what they
//! open to, and which changes must make opening fail, and how. Two more readers go over the same files:
//! `tests/golden/check.py` with the decoder in `scripts/decoder`, and `tests/golden/webcrypto` with WebCrypto.
//!
//! A vector never changes once a volume of its format exists; a new format gets new files. To write those
//! that are missing: `cargo test --test golden -- --ignored`.

mod golden_objects;

use golden_objects::{ALL, Object};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn path(object: &Object) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{}.json", object.name))
}

fn read(object: &Object) -> Value {
    serde_json::from_slice(&fs::read(path(object)).expect(object.name)).expect(object.name)
}

fn unhex(value: &Value) -> Vec<u8> {
    golden_objects::unhex(value.as_str().expect("hexadecimal"))
}

/// The place with some of its fields changed.
fn moved(place: &Value, change: &Value) -> Value {
    let mut place: Map<String, Value> = place.as_object().expect("a place").clone();
    for (field, value) in change.as_object().expect("fields") {
        assert!(place.insert(field.clone(), value.clone()).is_some(), "no field {field}");
    }
    Value::Object(place)
}

#[test]
fn every_vector_opens_to_what_it_says() {
    for object in ALL {
        let vector = read(object);
        let opened = (object.open)(&vector["place"], &unhex(&vector["bytes"]));
        assert_eq!(opened, Ok(vector["opened"].clone()), "{}", object.name);
    }
}

#[test]
fn every_vector_fails_as_it_says_once_something_is_changed() {
    for object in ALL {
        let vector = read(object);
        for failure in vector["failures"].as_array().expect("failures") {
            let (mut place, mut bytes) = (vector["place"].clone(), unhex(&vector["bytes"]));
            if let Some(change) = failure.get("place") {
                place = moved(&place, change);
            }
            if let Some(bit) = failure.get("flip_bit").and_then(Value::as_u64) {
                bytes[bit as usize / 8] ^= 1 << (bit % 8);
            }
            if let Some(len) = failure.get("cut_to").and_then(Value::as_u64) {
                bytes.truncate(len as usize);
            }
            let error = failure["error"].as_str().expect("an error").to_owned();
            assert_eq!((object.open)(&place, &bytes), Err(error), "{}: {failure}", object.name);
        }
    }
}

#[test]
fn every_vector_opens_and_fails_by_webcrypto_as_it_says() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let modules = target.join("webcrypto/node_modules");
    assert!(modules.exists(), "{} is missing: scripts/install.sh test makes it", modules.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/webcrypto/check.mjs");
    let mut node = Command::new("node");
    let output = node.arg("--no-warnings").arg(script).env("HUSHFS_NODE_MODULES", modules).output().expect("node");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for object in ALL {
        assert!(said.contains(&format!("{}: ", object.name)), "{} was not read: {said}", object.name);
    }
}

/// With the randomness of the vectors. A change of lz4_flex may fail this and nothing else: then the files
/// stay, and this test exempts what it compresses.
#[test]
fn what_is_written_today_is_what_the_vectors_hold() {
    for object in ALL {
        assert_eq!(read(object), vector(object), "{}", object.name);
    }
}

#[test]
#[ignore = "writes files"]
fn write_missing_vectors() {
    for object in ALL.iter().filter(|object| !path(object).exists()) {
        let text = serde_json::to_string_pretty(&vector(object)).expect("plain values");
        fs::write(path(object), text + "\n").expect(object.name);
    }
}

/// Beyond each object's own failures, these hold for all of them.
fn vector(object: &Object) -> Value {
    let (place, bytes) = (object.make)();
    let opened = (object.open)(&place, &bytes).expect(object.name);
    let mut failures = (object.failures)();
    let len = bytes.len() as u64;
    for bit in object.sealed_bits.iter().map(|bit| if *bit < 0 { 8 * len - bit.unsigned_abs() } else { *bit as u64 }) {
        failures.push(json!({ "why": "a bit of what is sealed", "flip_bit": bit, "error": "authentication" }));
    }
    json!({
        "object": object.name,
        "about": object.about,
        "place": place,
        "bytes": golden_objects::hex(&bytes),
        "opened": opened,
        "failures": failures,
    })
}
