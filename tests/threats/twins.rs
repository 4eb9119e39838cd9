//! T8, T11: a device's state folder that was copied: back from a backup, or onto another machine, also while it was in
//! use and with the same random numbers. Both go on, under two numbers, and nothing that either acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use hushfs::base::{Clock, DeviceSlot, SystemClock, Timestamp};
use hushfs::disk::{DirEntry, Disk, DiskFile, RealDisk};
use hushfs::format::rows::{ChunkRow, InodeRow, RowKey};
use hushfs::format::{ObjectName, Prefix, Record};
use hushfs::meta::mounting::MountError;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};
use hushfs::vfs::OpenError;
use hushfs::vfs::api::{SetAttr, TimeOrNow};

use crate::data::{Resumed, copy_folder};
use crate::rig::{Files, Rig, chain, eventually, logged, noise};

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
    no_number_twice(rig);
}

/// Whatever the log says of a number, it says of one thing.
fn no_number_twice(rig: &Rig) {
    let mut things: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (key, value) in records(rig).into_iter().flat_map(|record| record.rows) {
        let Some(value) = value else { continue };
        let thing = match RowKey::decode(&key).expect("a key") {
            RowKey::Chunk(_) => ChunkRow::decode(&value).expect("a chunk").id.0.to_vec(),
            RowKey::FileKey(_) | RowKey::Pack(_) => value,
            RowKey::Inode(_) => format!("{:?}", InodeRow::decode(&value).expect("an inode").btime).into_bytes(),
            _ => continue,
        };
        let first = things.entry(key.clone()).or_insert_with(|| thing.clone());
        assert_eq!(*first, thing, "{:?} is two things", RowKey::decode(&key));
    }
    assert!(things.len() > 10);
}

fn records(rig: &Rig) -> Vec<Record> {
    let roots = rig.roots();
    let open = |name: ObjectName| {
        let ObjectName::Log(seq) = name else { panic!("{name}") };
        Record::open(seq, &rig.memory.peek(&name).expect("the record"), &roots).expect("a record")
    };
    rig.objects(Prefix::Log).into_iter().map(open).collect()
}

/// Which runs wrote under which number.
fn runs(rig: &Rig) -> BTreeMap<DeviceSlot, BTreeSet<String>> {
    let mut runs: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for record in records(rig) {
        runs.entry(record.slot).or_default().insert(record.incarnation.to_string());
    }
    runs
}

fn is_halted_by_a_twin(rig: &Rig) {
    eventually("it halts", || rig.status().commits.halted.is_some());
    let why = rig.status().stopped.expect("halted");
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

/// The log says as well which it has given out, as far as the log has them.
#[test]
fn t11_a_machine_that_lost_its_numbers_gives_none_out_twice() {
    let mut rig = volume_with_folders();
    rig.close();
    let file = rig.state_dir().join("numbers");
    let lose: [fn(&Path); 2] = [
        |file| std::fs::remove_file(file).expect("removed"),
        |file| std::fs::write(file, b"damaged").expect("written"),
    ];
    let mut expected = vec![("one/before", noise(1, 3000))];
    for (number, (name, lose)) in ["one/removed", "one/damaged"].into_iter().zip(lose).enumerate() {
        lose(&file);
        let files = mount(&mut rig);
        expected.push((name, noise(10 + number as u64, 5000)));
        files.save(name, &expected[number + 1].1).expect("saved");
        rig.flush();
        rig.close();
    }
    assert_eq!(runs(&rig).len(), 1, "another device");
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
    files.save("one/large", &noise(6, 2_000_000)).expect("saved");
    rig.kill();
    copy(&rig, "one", "backup");
    rig.faults.clear();
    let files = mount(&mut rig);
    rig.flush();
    files.save("one/before", &noise(5, 3000)).expect("saved");
    files.save("one/large", &noise(7, 2_000_000)).expect("saved");
    rig.flush();
    rig.close();

    copy(&rig, "backup", "one");
    let files = mount(&mut rig);
    files.save("two/new", b"new").expect("saved");
    rig.flush();
    rig.close();
    let mut expected = vec![("one/before", noise(5, 3000)), ("one/pending", noise(4, 100_000))];
    expected.extend([("two/new", b"new".to_vec()), ("one/large", noise(7, 2_000_000))]);
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
    let log = logged();
    assert!(log.contains("was changed here and elsewhere"));
    assert!(
        !log.contains("before") && !log.contains("moved.txt") && !log.contains("new.txt"),
        "the log has names: {log}"
    );
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

/// What the log had of this device before it was copied is not done again, though others changed it since.
#[test]
fn t8_what_a_backup_had_committed_is_not_done_over_what_came_after() {
    let mut rig = volume_with_folders();
    let files = rig.files();
    for number in 0..4u64 {
        files.save(&format!("one/file{number}"), &noise(10 + number, 5000)).expect("saved");
    }
    rig.flush();
    rig.close();
    copy(&rig, "one", "backup");
    let files = mount(&mut rig);
    files.save("one/file0", &noise(20, 5000)).expect("saved");
    files.remove("one/file1").expect("removed");
    files.rename("one/file2", "two/file2").expect("renamed");
    files.chmod("one/file3", 0o600).expect("changed");
    rig.flush();
    rig.close();

    copy(&rig, "backup", "one");
    mount(&mut rig).save("two/new", b"new").expect("saved");
    rig.flush();
    rig.close();
    let expected = [
        ("one/before", noise(1, 3000)),
        ("one/file0", noise(20, 5000)),
        ("two/file2", noise(12, 5000)),
        ("one/file3", noise(13, 5000)),
        ("two/new", b"new".to_vec()),
    ];
    seen_anew(&mut rig, &expected);
}

/// Two mounted machines of one folder, and what each is to do before the second one notices.
fn apart(before: impl Fn(&Files), by_first: impl Fn(&Files), by_second: impl Fn(&Files)) -> Rig {
    let mut rig = volume_with_folders();
    before(&rig.files());
    rig.flush();
    copy(&rig, "one", "two");
    let first = rig.leave();
    rig.become_new_machine("two");
    mount(&mut rig);
    let second = rig.leave();
    rig.return_to(first);
    by_first(&rig.files());
    rig.flush();
    rig.close();
    rig.return_to(second);
    by_second(&rig.files());
    assert!(rig.try_flush(std::time::Duration::from_secs(20)).is_err(), "the copy commits under the same number");
    is_halted_by_a_twin(&rig);
    rig.close();
    rig
}

/// Neither version has anything of the other's: where only a part was written, the rest is what was there before.
#[test]
fn t8_a_file_of_which_both_wrote_a_part_is_there_twice_and_neither_is_a_mixture() {
    let old = noise(7, 3_000_000);
    let mut rig = apart(
        |files| files.save("one/big", &old).expect("saved"),
        |files| files.save("one/big", &noise(8, 2_000_000)).expect("saved"),
        |files| {
            files.set_xattr("one/big", "user.kept", b"yes").expect("set");
            files.append_synced("one/big", b"the end").expect("appended");
        },
    );
    mount(&mut rig);
    rig.flush();
    rig.close();
    rig.become_new_machine("three");
    let files = mount(&mut rig);
    assert!(files.read("one/big").expect("read") == noise(8, 2_000_000));
    let names = files.names("one").expect("the names");
    let conflict = names.iter().find(|name| name.starts_with("big (conflict two ")).expect("the other version");
    assert!(files.read(&format!("one/{conflict}")).expect("read") == [&old[..], b"the end"].concat());
    assert_eq!(files.get_xattr(&format!("one/{conflict}"), "user.kept").expect("its attribute"), b"yes");
}

#[test]
fn t8_of_two_changes_of_one_attribute_the_later_stands_whoever_comes_later() {
    let mut rig = volume_with_folders();
    for name in ["one/both", "one/each"] {
        rig.files().save(name, b"content").expect("saved");
    }
    rig.flush();
    copy(&rig, "one", "two");
    let first = rig.leave();
    rig.become_new_machine("two");
    let files = mount(&mut rig);
    rig.break_store(Fault::Fail(StoreErrorKind::Unreachable));
    let mtime = Timestamp::new(1_000_000_000, 5);
    for name in ["one/both", "one/each"] {
        files
            .set(name, &SetAttr { mode: Some(0o600), mtime: Some(TimeOrNow::Time(mtime)), ..SetAttr::default() })
            .expect("set");
    }
    rig.close();
    rig.faults.clear();
    rig.return_to(first);
    let files = rig.files();
    files.chmod("one/both", 0o640).expect("changed");
    files.set("one/each", &SetAttr { uid: Some(7), ..SetAttr::default() }).expect("changed");
    rig.flush();
    let later = files.attributes("one/each").expect("attributes").ctime;
    rig.close();
    rig.become_new_machine("two");
    mount(&mut rig);
    rig.flush();
    rig.close();
    assert_eq!(runs(&rig).len(), 2, "no copy was noticed");
    rig.become_new_machine("three");
    let files = mount(&mut rig);
    let [both, each] = ["one/both", "one/each"].map(|name| files.attributes(name).expect("attributes"));
    assert_eq!((both.mode & 0o7777, both.mtime), (0o640, mtime));
    assert_eq!((each.mode & 0o7777, each.uid, each.mtime, each.ctime), (0o600, 7, mtime, later));
}

#[test]
fn t8_what_one_copy_removed_and_the_other_changed_stays_with_all_that_was_in_it() {
    let mut rig = apart(
        |files| {
            for name in ["one/written", "one/renamed", "one/removed", "one/replaced", "one/alone"] {
                files.save(name, &noise(7, 100_000)).expect("saved");
            }
            files.mkdir("one/folder").expect("made");
        },
        |files| {
            files.remove("one/written").expect("removed");
            files.remove("one/renamed").expect("removed");
            files.remove_dir("one/folder").expect("removed");
            files.save("one/removed", &noise(8, 1000)).expect("saved");
            files.save("one/replaced", &noise(9, 1000)).expect("saved");
        },
        |files| {
            files.append_synced("one/written", b"more").expect("appended");
            files.rename("one/renamed", "two/renamed").expect("renamed");
            files.remove("one/removed").expect("removed");
            files.remove("one/alone").expect("removed");
            files.save("one/new", b"new").expect("saved");
            files.rename("one/new", "one/replaced").expect("renamed");
            files.save("one/folder/inside", b"inside").expect("saved");
        },
    );
    mount(&mut rig);
    rig.flush();
    rig.close();
    rig.become_new_machine("three");
    let files = mount(&mut rig);
    let read = |path: &str| files.read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(read("one/written") == [&noise(7, 100_000)[..], b"more"].concat());
    assert!(read("two/renamed") == noise(7, 100_000));
    assert!(read("one/removed") == noise(8, 1000));
    assert!(read("one/replaced") == noise(9, 1000));
    assert_eq!(read("inside"), b"inside");
    let names = files.names("one").expect("the names");
    let conflict = names.iter().find(|name| name.starts_with("replaced (conflict two ")).expect("the other version");
    assert_eq!(read(&format!("one/{conflict}")), b"new");
    assert_eq!(names.len(), 5, "{names:?}");
}

/// Nobody can tell then what the other changed.
#[test]
fn t8_what_one_copy_removed_stays_where_its_tree_was_lost_as_well() {
    let mut rig = apart(
        |files| files.save("one/removed", &noise(7, 1000)).expect("saved"),
        |files| files.save("one/removed", &noise(8, 1000)).expect("saved"),
        |files| files.remove("one/removed").expect("removed"),
    );
    rig.become_new_machine("three");
    mount(&mut rig);
    // Writes a checkpoint.
    rig.volume().rotate(None).expect("rotated");
    rig.close();
    lose_tree(&rig, "two");
    rig.become_new_machine("two");
    mount(&mut rig);
    rig.flush();
    rig.close();
    rig.become_new_machine("four");
    assert!(mount(&mut rig).read("one/removed").expect("it is there") == noise(8, 1000));
}

fn lose_tree(rig: &Rig, machine: &str) {
    let state = folder(rig, machine).join("state");
    for file in std::fs::read_dir(&state).expect("the folder").map(|file| file.expect("a file").path()) {
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("replica.db")) {
            std::fs::remove_file(file).expect("removed");
        }
    }
}

/// Ends with the rename that makes the state folder's identity so many times new.
struct CutOff {
    disk: RealDisk,
    left: AtomicUsize,
}

impl Disk for CutOff {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let counts = to.file_name().is_some_and(|name| name == "identity");
        let is_last = |left: usize| left.checked_sub(usize::from(counts));
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_last) {
            Ok(_) => self.disk.rename(from, to),
            Err(_) => Err(io::Error::other("cut off")),
        }
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, create)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn filesystem(&self, dir: &Path) -> io::Result<u64> {
        self.disk.filesystem(dir)
    }
}

#[test]
fn t8_numbering_anew_that_is_interrupted_anywhere_is_done_once_in_the_end() {
    let mut rig = apart(
        |_| {},
        |files| files.save("one/file", &noise(2, 150_000)).expect("saved"),
        |files| {
            files.save("two/file", &noise(3, 150_000)).expect("saved");
            files.save("two/large", &noise(4, 2_000_000)).expect("saved");
            files.remove("two/file").expect("removed");
            files.save("two/file", &noise(5, 150_000)).expect("saved");
        },
    );
    copy(&rig, "two", "halted");
    let mut interrupted = 0;
    loop {
        rig.disk = Arc::new(CutOff { disk: RealDisk, left: interrupted.into() });
        let opened = rig.try_mount_by_words();
        rig.disk = Arc::new(RealDisk);
        match opened {
            Err(_) => interrupted += 1,
            Ok(_) => break,
        }
    }
    assert!(interrupted >= 4, "{interrupted}");
    // What was done in the run that was not cut off is in its own frames.
    rig.files().save("two/after", b"after").expect("saved");
    rig.kill();
    mount(&mut rig);
    rig.flush();
    rig.close();
    let expected = [
        ("one/before", noise(1, 3000)),
        ("one/file", noise(2, 150_000)),
        ("two/file", noise(5, 150_000)),
        ("two/large", noise(4, 2_000_000)),
        ("two/after", b"after".to_vec()),
    ];
    // One for each time that nobody heard of the registration.
    assert!(runs(&rig).len() <= 3, "each try took a number: {:?}", runs(&rig));
    seen_anew(&mut rig, &expected);
}

/// Whoever knows of a copy takes no more numbers, and does not show a tree on which it could not go on.
#[test]
fn t8_a_copy_that_was_noticed_needs_the_store_once_and_loses_nothing_without_it() {
    let mut rig = apart(
        |_| {},
        |files| files.save("one/file", &noise(2, 5000)).expect("saved"),
        |files| files.save("two/file", &noise(3, 5000)).expect("saved"),
    );
    rig.break_store(Fault::Fail(StoreErrorKind::Unreachable));
    let Err(error) = rig.try_mount_by_words() else { panic!("it opens") };
    assert!(matches!(error, OpenError::Mount(MountError::SharedSlot(_))), "{}", chain(&error));
    rig.adjust = |options| options.drive.read_only = true;
    let files = mount(&mut rig);
    assert_eq!(files.read("one/before").expect("read"), noise(1, 3000));
    rig.close();
    rig.faults.clear();
    rig.adjust = |_| {};
    mount(&mut rig);
    // Nothing of it gets into the log, so that the frames of before stay: what they say is done already.
    rig.faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unreachable)));
    for round in 0..3u8 {
        rig.files().save("two/file", &[round; 5000]).expect("saved");
        rig.kill();
        mount(&mut rig);
    }
    rig.faults.clear();
    rig.flush();
    rig.close();
    let expected = [("one/before", noise(1, 3000)), ("one/file", noise(2, 5000)), ("two/file", vec![2; 5000])];
    seen_anew(&mut rig, &expected);
}

/// Whose copy of the tree is lost as well begins with a checkpoint, and sees none of the records that it replaced.
#[test]
fn t8_a_backup_that_begins_with_a_checkpoint_of_its_own_later_runs_takes_another_number() {
    let mut rig = volume_with_folders();
    rig.faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unreachable)));
    rig.files().save("two/pending", &noise(2, 200_000)).expect("saved");
    rig.kill();
    copy(&rig, "one", "backup");
    rig.faults.clear();
    let files = mount(&mut rig);
    rig.flush();
    files.save("one/after", &noise(3, 5000)).expect("saved");
    rig.flush();
    // Writes a checkpoint.
    rig.volume().rotate(None).expect("rotated");
    rig.close();

    copy(&rig, "backup", "one");
    lose_tree(&rig, "one");
    let records = rig.objects(Prefix::Log).len();
    mount(&mut rig).save("two/new", b"new").expect("saved");
    rig.flush();
    rig.close();
    assert!(rig.objects(Prefix::Log).len() > records);
    assert_eq!(runs(&rig).len(), 2, "the old number was used again: {:?}", runs(&rig));
    let expected = [
        ("one/before", noise(1, 3000)),
        ("one/after", noise(3, 5000)),
        ("two/pending", noise(2, 200_000)),
        ("two/new", b"new".to_vec()),
    ];
    seen_anew(&mut rig, &expected);
}
