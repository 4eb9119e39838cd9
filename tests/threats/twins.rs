//! T8, T11: a device's state folder that was copied: back from a backup, or onto another machine, also while it was in
//! use and with the same random numbers. Both go on, under two numbers, and nothing that either acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hushfs::base::{Clock, DeviceSlot, SystemClock, Timestamp};
use hushfs::format::{ObjectName, Prefix, Record};
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};

use crate::data::{Resumed, copy_folder};
use crate::rig::{Files, Rig, chain, eventually, noise};

/// With a directory for each copy, so that what they do does not touch.
fn volume_with_folders() -> Rig {
    let mut rig = Rig::in_virtual_time();
    let files = mount(&mut rig);
    for folder in ["one", "two"] {
        files.mkdir(folder).expect("made");
    }
    files.save("one/before", &noise(1, 3000)).expect("saved");
    rig.flush();
    rig
}

fn mount(rig: &mut Rig) -> Files {
    rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}: {}", rig.machine, chain(&error)))
}

fn folder(rig: &Rig, machine: &str) -> PathBuf {
    rig.root.path().join(machine)
}

/// Of a machine, as a backup or a snapshot of its disk takes it.
fn copy(rig: &Rig, from: &str, to: &str) {
    let _ = std::fs::remove_dir_all(folder(rig, to));
    copy_folder(&folder(rig, from), &folder(rig, to));
}

/// By a machine that was never there, whatever others still have mounted: what is where, and by which devices.
fn seen_anew(rig: &mut Rig, expected: &[(&str, Vec<u8>)]) {
    let name = format!("new{}", rig.objects(Prefix::Log).len());
    rig.become_new_machine(&name);
    let files = mount(rig);
    for (path, content) in expected {
        assert!(files.read(path).unwrap_or_else(|error| panic!("{path}: {error}")) == *content, "{path}");
    }
    let inodes: BTreeSet<_> = expected.iter().map(|(path, _)| files.find(path).expect(path)).collect();
    assert_eq!(inodes.len(), expected.len(), "two files have one number");
    let mut names: Vec<String> = Vec::new();
    for folder in ["one", "two"] {
        names.extend(files.names(folder).expect("the names").iter().map(|name| format!("{folder}/{name}")));
    }
    let mut wanted: Vec<_> = expected.iter().map(|(path, _)| (*path).to_owned()).collect();
    wanted.sort();
    assert_eq!(names, wanted);
    rig.close();
}

/// Which runs wrote under which number.
fn runs(rig: &Rig) -> BTreeMap<DeviceSlot, BTreeSet<String>> {
    let roots = rig.roots();
    let mut runs: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for name in rig.objects(Prefix::Log) {
        let ObjectName::Log(seq) = name else { panic!("{name}") };
        let record = Record::open(seq, &rig.memory.peek(&name).expect("the record"), &roots).expect("a record");
        runs.entry(record.slot).or_default().insert(record.incarnation.to_string());
    }
    runs
}

fn is_halted_by_a_twin(rig: &Rig) {
    eventually("it halts", || rig.status().commits.halted.is_some());
    let why = rig.status().commits.halted.expect("halted");
    assert!(why.contains("another copy of") && why.contains("a number of its own"), "{why}");
    assert!(rig.files().save("two/refused", b"").is_err(), "it takes more");
}

#[test]
fn t8_a_folder_from_a_backup_goes_on_under_another_number_and_keeps_what_came_after() {
    let mut rig = volume_with_folders();
    rig.close();
    copy(&rig, "one", "backup");
    let files = mount(&mut rig);
    for number in 0..5u64 {
        files.save(&format!("one/after{number}"), &noise(10 + number, 5000)).expect("saved");
    }
    rig.flush();
    rig.close();

    copy(&rig, "backup", "one");
    let files = mount(&mut rig);
    assert_eq!(files.read("one/after4").expect("read"), noise(14, 5000));
    for number in 0..5u64 {
        files.save(&format!("two/restored{number}"), &noise(20 + number, 5000)).expect("saved");
    }
    rig.flush();
    rig.close();
    assert_eq!(runs(&rig).len(), 2, "the old number was used again: {:?}", runs(&rig));
    // From here on it is a device like any other.
    mount(&mut rig).save("two/later", b"later").expect("saved");
    rig.flush();
    rig.close();
    assert_eq!(runs(&rig).len(), 2);
    let names: Vec<_> =
        (0..5).flat_map(|n| [(format!("one/after{n}"), n + 10), (format!("two/restored{n}"), n + 20)]).collect();
    let mut expected: Vec<_> = names.iter().map(|(name, seed)| (name.as_str(), noise(*seed, 5000))).collect();
    expected.extend([("one/before", noise(1, 3000)), ("two/later", b"later".to_vec())]);
    seen_anew(&mut rig, &expected);
}

/// What was pending when the backup was made was committed since: it is not done twice, and not over what came later.
#[test]
fn t8_what_was_pending_in_a_backup_and_got_into_the_log_is_not_done_again() {
    let mut rig = volume_with_folders();
    rig.faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unreachable)));
    let files = rig.files();
    files.save("one/pending", &noise(2, 200_000)).expect("saved");
    files.save("one/before", &noise(3, 3000)).expect("saved");
    files.remove("one/pending").expect("removed");
    files.save("one/pending", &noise(4, 100_000)).expect("saved");
    rig.kill();
    copy(&rig, "one", "backup");
    rig.faults.clear();
    let files = mount(&mut rig);
    rig.flush();
    files.save("one/before", &noise(5, 3000)).expect("saved");
    rig.flush();
    rig.close();

    copy(&rig, "backup", "one");
    let files = mount(&mut rig);
    files.save("two/new", b"new").expect("saved");
    rig.flush();
    rig.close();
    let mut expected = vec![("one/before", noise(5, 3000)), ("one/pending", noise(4, 100_000))];
    expected.push(("two/new", b"new".to_vec()));
    seen_anew(&mut rig, &expected);
}

#[test]
fn t8_a_copy_of_a_folder_in_use_and_its_origin_both_go_on_and_lose_nothing() {
    let mut rig = volume_with_folders();
    copy(&rig, "one", "two");
    let first = rig.leave();
    rig.become_new_machine("two");
    mount(&mut rig);
    let second = rig.leave();

    rig.return_to(first);
    rig.files().save("one/file", &noise(2, 150_000)).expect("saved");
    rig.flush();
    let first = rig.leave();
    // The same numbers, and other content.
    rig.return_to(second);
    rig.files().save("two/file", &noise(3, 150_000)).expect("saved");
    rig.files().write("two/unsynced", &noise(4, 1000)).expect("written");
    assert!(rig.try_flush(std::time::Duration::from_secs(20)).is_err(), "the copy commits under the same number");
    is_halted_by_a_twin(&rig);
    rig.close();
    let files = mount(&mut rig);
    assert_eq!(files.read("two/file").expect("read"), noise(3, 150_000));
    rig.flush();
    files.save("two/more", &noise(5, 1000)).expect("saved");
    rig.flush();
    rig.close();
    // The origin never noticed.
    rig.return_to(first);
    rig.files().save("one/more", &noise(6, 1000)).expect("saved");
    rig.flush();
    rig.close();
    assert_eq!(runs(&rig).len(), 2);
    let expected = [
        ("one/before", noise(1, 3000)),
        ("one/file", noise(2, 150_000)),
        ("two/file", noise(3, 150_000)),
        ("two/unsynced", noise(4, 1000)),
        ("two/more", noise(5, 1000)),
        ("one/more", noise(6, 1000)),
    ];
    seen_anew(&mut rig, &expected);
}

/// What both changed is there twice.
#[test]
fn t8_what_two_copies_did_to_one_file_or_name_is_kept_of_both() {
    let mut rig = volume_with_folders();
    copy(&rig, "one", "two");
    let first = rig.leave();
    rig.become_new_machine("two");
    mount(&mut rig);
    let second = rig.leave();
    rig.return_to(first);
    rig.files().save("one/before", &noise(2, 4000)).expect("saved");
    rig.files().save("one/new.txt", &noise(3, 4000)).expect("saved");
    rig.flush();
    rig.close();
    rig.return_to(second);
    rig.files().save("one/before", &noise(4, 5000)).expect("saved");
    rig.files().save("one/new.txt", &noise(5, 5000)).expect("saved");
    rig.files().rename("one/new.txt", "one/moved.txt").expect("renamed");
    assert!(rig.try_flush(std::time::Duration::from_secs(20)).is_err());
    rig.close();
    mount(&mut rig);
    rig.flush();
    rig.close();

    rig.become_new_machine("three");
    let files = mount(&mut rig);
    assert_eq!(files.read("one/before").expect("read"), noise(2, 4000));
    assert_eq!(files.read("one/new.txt").expect("read"), noise(3, 4000));
    assert_eq!(files.read("one/moved.txt").expect("read"), noise(5, 5000));
    let names = files.names("one").expect("the names");
    let conflict = names.iter().find(|name| name.starts_with("before (conflict two ")).expect("the other version");
    assert_eq!(files.read(&format!("one/{conflict}")).expect("read"), noise(4, 5000));
    assert_eq!(names.len(), 4, "{names:?}");
}

/// The same time at first, and then each its own.
#[derive(Default)]
struct Resuming(AtomicBool);

impl Clock for Resuming {
    fn now(&self) -> Timestamp {
        match self.0.swap(true, Ordering::SeqCst) {
            false => Timestamp::new(1_800_000_000, 5),
            true => SystemClock.now(),
        }
    }
}

/// Two virtual machines of one snapshot: the same folder, random numbers and time, and so the same run.
fn snapshots(rig: &mut Rig) -> [crate::rig::Away; 2] {
    rig.close();
    rig.entropy = Resumed::start;
    rig.clock = || Arc::new(Resuming::default());
    copy(rig, "one", "two");
    mount(rig);
    let first = rig.leave();
    rig.become_new_machine("two");
    mount(rig);
    [first, rig.leave()]
}

/// Salt of each seal whose place is known, and what stands behind it.
fn no_nonce_twice(rig: &Rig) {
    let mut seals: HashMap<Vec<u8>, Bytes> = HashMap::new();
    for name in rig.objects(Prefix::Everything) {
        let bytes = rig.memory.peek(&name).expect("the object");
        let at = match name {
            ObjectName::Pack(_) => 1,
            ObjectName::Log(_) => 13,
            _ => continue,
        };
        let sealed = bytes.slice(at + 32..);
        let earlier = seals.entry(bytes[at..at + 32].to_vec()).or_insert_with(|| sealed.clone());
        // A chunk that moved to another pack is the same, and what is behind it is not.
        let common = earlier.len().min(sealed.len()).min(100);
        assert_eq!(earlier[..common], sealed[..common], "{name}: one key and nonce for two plaintexts");
    }
    assert!(seals.len() > 3);
}

#[test]
fn t11_two_machines_of_one_snapshot_that_run_at_once_part_without_loss_or_a_nonce_used_twice() {
    for is_stuck in [false, true] {
        let mut rig = volume_with_folders();
        let [first, second] = snapshots(&mut rig);
        rig.return_to(first);
        let packs = rig.objects(Prefix::Packs).len();
        if is_stuck {
            // The pack is in the store, and its record is not.
            rig.faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unreachable)).under(Prefix::Log));
        }
        rig.files().save("one/file", &noise(2, 150_000)).expect("saved");
        if is_stuck {
            eventually("the pack is there", || rig.objects(Prefix::Packs).len() > packs);
            let _ = rig.try_flush(std::time::Duration::from_millis(500));
        } else {
            rig.flush();
        }
        let first = rig.leave();

        rig.return_to(second);
        rig.files().save("two/file", &noise(3, 150_000)).expect("saved");
        assert!(rig.try_flush(std::time::Duration::from_secs(20)).is_err());
        is_halted_by_a_twin(&rig);
        rig.faults.clear();
        rig.kill();
        assert_eq!(mount(&mut rig).read("two/file").expect("read"), noise(3, 150_000));
        rig.flush();
        rig.close();
        rig.return_to(first);
        let _ = rig.try_flush(std::time::Duration::from_secs(20));
        rig.kill();
        rig.become_new_machine("one");
        mount(&mut rig);
        rig.flush();
        rig.close();
        no_nonce_twice(&rig);
        let expected =
            [("one/before", noise(1, 3000)), ("one/file", noise(2, 150_000)), ("two/file", noise(3, 150_000))];
        seen_anew(&mut rig, &expected);
    }
}

/// The second one is killed before it tries to commit, so that only its journal knows what it did.
#[test]
fn t11_what_only_the_journal_of_a_snapshots_machine_has_is_done_again() {
    let mut rig = volume_with_folders();
    let [first, second] = snapshots(&mut rig);
    rig.return_to(first);
    for number in 0..3u64 {
        rig.files().save(&format!("one/file{number}"), &noise(10 + number, 2000)).expect("saved");
        rig.flush();
    }
    rig.close();
    rig.return_to(second);
    rig.faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unreachable)));
    for number in 0..2u64 {
        rig.files().save(&format!("two/file{number}"), &noise(20 + number, 2000)).expect("saved");
    }
    rig.kill();
    rig.faults.clear();
    mount(&mut rig);
    rig.flush();
    rig.close();
    no_nonce_twice(&rig);
    let expected = [
        ("one/before", noise(1, 3000)),
        ("one/file0", noise(10, 2000)),
        ("one/file1", noise(11, 2000)),
        ("one/file2", noise(12, 2000)),
        ("two/file0", noise(20, 2000)),
        ("two/file1", noise(21, 2000)),
    ];
    seen_anew(&mut rig, &expected);
}
