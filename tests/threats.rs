//! The ways in which real end-to-end encrypted storage fell, each as an attack on a whole volume: what the store has is
//! changed, and what a device then shows, says and sends is looked at. A test's name begins with the threat's number.
//!
//! What stands beside the code, because it needs what is private there: T12, one ciphertext under two keys, and the
//! forgery by additional data (`crypto::attacks`); every bit of a slot (T1), every order of frames and blocks (T6).

#[path = "threats/data.rs"]
mod data;
#[path = "threats/history.rs"]
mod history;
#[path = "threats/keys.rs"]
mod keys;
#[path = "threats/planted.rs"]
mod planted;
#[path = "support/rig.rs"]
mod rig;
#[path = "threats/rotation.rs"]
mod rotation;
#[path = "threats/twins.rs"]
mod twins;

use hushfs::format::{ObjectName, Prefix};
use hushfs::store::Op;
use hushfs::vfs::OpenError;

use rig::{Files, Rig, noise};

/// Two files of one length, each in a pack of its own, and a larger one.
fn volume() -> Rig {
    let mut rig = Rig::in_virtual_time();
    let files = rig.mount();
    for (name, content) in contents() {
        files.save(name, &content).expect("saved");
        rig.flush();
    }
    rig.close();
    rig
}

fn contents() -> [(&'static str, Vec<u8>); 3] {
    [("one", noise(1, 100_000)), ("two", noise(2, 100_000)), ("large", noise(3, 3 << 20))]
}

/// A machine that has never seen the volume.
fn try_new_machine(rig: &mut Rig) -> Result<Files, OpenError> {
    let next = format!("{}+", rig.machine);
    rig.become_new_machine(&next);
    rig.try_mount_by_words()
}

fn new_machine(rig: &mut Rig) -> Files {
    try_new_machine(rig).unwrap_or_else(|error| panic!("{}", rig::chain(&error)))
}

/// The rule of all: what can be read is right.
fn nothing_is_wrong(files: &Files) {
    let names = files.names("").expect("the names");
    assert!(names.iter().all(|name| contents().iter().any(|(known, _)| known == name)), "{names:?}");
    for (name, content) in contents() {
        if let Ok(read) = files.read(name) {
            assert!(read == content, "{name} is not what was written");
        }
    }
}

fn all_is_right(files: &Files) {
    for (name, content) in contents() {
        assert!(files.read(name).expect(name) == content, "{name} is not what was written");
    }
}

/// What was sent since there were `from` requests.
fn creates(rig: &Rig, from: usize) -> Vec<ObjectName> {
    let requests = rig.faults.requests();
    requests[from..].iter().filter(|(op, _)| *op == Op::Create).filter_map(|(_, name)| *name).collect()
}

fn change(rig: &Rig, name: ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = rig.memory.peek(&name).expect("the object").to_vec();
    change(&mut bytes);
    rig.memory.plant(name, bytes.into());
}

fn swap(rig: &Rig, one: ObjectName, other: ObjectName) {
    let [first, second] = [one, other].map(|name| rig.memory.peek(&name).expect("the object"));
    rig.memory.plant(one, second);
    rig.memory.plant(other, first);
}

/// Puts back what a test changed.
fn restore(rig: &Rig, from: &hushfs::store::MemoryStore) {
    for name in rig.memory.names() {
        rig.delete(&name);
    }
    for name in from.names() {
        rig.memory.plant(name, from.peek(&name).expect("the object"));
    }
}

fn packs(rig: &Rig) -> Vec<ObjectName> {
    rig.objects(Prefix::Packs)
}

/// The pack that a file of its own length fills alone.
fn pack_of(rig: &Rig, len: std::ops::Range<usize>) -> Vec<ObjectName> {
    let fits = |name: &ObjectName| len.contains(&rig.memory.peek(name).expect("the object").len());
    packs(rig).into_iter().filter(fits).collect()
}
