//! T8: a store that shows an older or another history than the one that a device knows.

use hushfs::base::{Seq, SystemEntropy};
use hushfs::crypto::Roots;
use hushfs::format::{Floor, Manifest, ObjectName, Prefix, object_hash};
use hushfs::meta::log::{Halt, Waiting};
use hushfs::meta::mounting::MountError;
use hushfs::store::{Fault, MemoryStore, StoreErrorKind};
use hushfs::vfs::OpenError;

use crate::data::copy_folder;
use crate::rig::{Rig, chain, eventually, noise};
use crate::{creates, new_machine, restore};

fn refusal(rig: &mut Rig) -> MountError {
    let before = rig.faults.requests().len();
    let error = match rig.try_mount_by_words() {
        Ok(_) => panic!("it opens"),
        Err(OpenError::Mount(error)) => error,
        Err(error) => panic!("{}", chain(&error)),
    };
    assert_eq!(creates(rig, before), [], "uploaded after {error}");
    error
}

fn is_stale(error: &MountError) -> bool {
    matches!(error, MountError::Rollback(Waiting::Stale { .. }))
}

fn is_fork(error: &MountError) -> bool {
    matches!(error, MountError::Halted(Halt::Fork { .. }))
}

/// A volume and what its store had after each commit.
fn aged(commits: u64) -> (Rig, Vec<MemoryStore>) {
    let mut rig = Rig::in_virtual_time();
    let files = rig.mount();
    let mut ages = vec![rig.memory.fork()];
    for age in 0..commits {
        files.save("file", &noise(age, 3_000)).expect("saved");
        rig.flush();
        ages.push(rig.memory.fork());
    }
    rig.close();
    (rig, ages)
}

/// gocryptfs and restic take yesterday's store for today's.
#[test]
fn t8_a_store_of_any_earlier_age_is_noticed_and_waited_out() {
    let (mut rig, ages) = aged(5);
    let (now, older) = ages.split_last().expect("ages");
    // The newest last, as each takes the patience of a mount.
    for age in [&older[0], &older[2], &older[4]] {
        restore(&rig, age);
        let error = refusal(&mut rig);
        assert!(is_stale(&error), "{error}");
    }
    // While it is mounted: nothing of what waits goes up until the store is itself again.
    restore(&rig, now);
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{error}"));
    restore(&rig, &older[3]);
    files.save("file", &noise(9, 3_000)).expect("a save needs no store");
    rig.volume().cut().expect("a cut");
    eventually("it says so", || rig.troubles().contains("older state"));
    let before = rig.faults.requests().len();
    files.save("file", &noise(10, 3_000)).expect("a save needs no store");
    assert!(rig.try_flush(std::time::Duration::from_millis(300)).is_err());
    assert_eq!(creates(&rig, before), [], "uploaded to an older store");
    restore(&rig, now);
    rig.flush();
    rig.close();
    assert_eq!(new_machine(&mut rig).read("file").expect("read"), noise(10, 3_000));
}

/// A machine whose copy of the tree is lost makes it anew from its copies of records, without the store: from those of
/// its own history.
#[test]
fn t8_copies_of_another_history_on_this_machine_are_not_taken() {
    let (mut rig, _) = aged(3);
    let first = rig.machine.clone();
    let offline = Fault::Fail(StoreErrorKind::Unreachable);
    lose_tree(&rig);
    rig.break_store(offline.clone());
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(files.read("file").expect("read"), noise(2, 3_000));
    rig.kill();
    rig.faults.clear();
    // Another device, which is shown the past, goes on from there as the first did.
    new_machine(&mut rig);
    let second = rig.machine.clone();
    rig.close();
    let common = rig.memory.fork();
    let mut histories = Vec::new();
    for (machine, seed) in [(&first, 21), (&second, 31)] {
        restore(&rig, &common);
        rig.become_new_machine(machine);
        let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
        for seed in [seed, seed + 1] {
            files.save("file", &noise(seed, 3_000)).expect("saved");
            rig.flush();
        }
        rig.close();
        histories.push(rig.memory.fork());
    }
    let others = rig.state_dir().join("kept");
    rig.become_new_machine(&first);
    copy_folder(&others, &rig.state_dir().join("kept"));
    lose_tree(&rig);
    restore(&rig, &histories[0]);
    rig.break_store(offline);
    match rig.try_mount_by_words() {
        Err(OpenError::Mount(MountError::NotRebuilt(_))) => {}
        Err(error) => panic!("{}", chain(&error)),
        Ok(_) => panic!("it shows another history"),
    }
    rig.faults.clear();
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(files.read("file").expect("read"), noise(22, 3_000));
}

/// Such a mount notes nothing of what it saw but its copy of the tree, and that is enough.
#[test]
fn t8_what_only_a_read_only_mount_has_seen_cannot_be_unseen() {
    let (mut rig, ages) = aged(1);
    let first = rig.machine.clone();
    new_machine(&mut rig).save("file", &noise(9, 3_000)).expect("saved");
    rig.flush();
    rig.close();
    let newer = rig.memory.fork();
    rig.become_new_machine(&first);
    rig.adjust = |options| options.drive.read_only = true;
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(files.read("file").expect("read"), noise(9, 3_000));
    rig.close();
    rig.adjust = |_| {};
    // It is at the newest head that it knows of, so it need not ask.
    rig.break_store(Fault::Fail(StoreErrorKind::Unreachable));
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(files.read("file").expect("read"), noise(9, 3_000));
    rig.kill();
    rig.faults.clear();
    restore(&rig, &ages[1]);
    let error = refusal(&mut rig);
    assert!(is_stale(&error), "{error}");
    restore(&rig, &newer);
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(files.read("file").expect("read"), noise(9, 3_000));
}

/// Who shows what is before the damage shows less than this device knows.
#[test]
fn t8_damage_below_the_head_that_is_known_does_not_lead_back() {
    let (mut rig, ages) = aged(3);
    lose_replica(&rig);
    crate::change(&rig, ObjectName::Log(Seq(2)), |bytes| bytes[200] ^= 1);
    let error = refusal(&mut rig);
    assert!(matches!(error, MountError::Rollback(Waiting::DamagedRecord(Seq(2)))), "{error}");
    restore(&rig, &ages[3]);
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(files.read("file").expect("read"), noise(2, 3_000));
}

#[test]
fn t8_two_devices_that_were_led_apart_are_never_led_together_again() {
    let (mut rig, _) = aged(1);
    let first = rig.machine.clone();
    new_machine(&mut rig);
    let second = rig.machine.clone();
    rig.close();
    let common = rig.memory.fork();
    let mut branches = Vec::new();
    for (machine, seed) in [(&first, 21), (&second, 22)] {
        restore(&rig, &common);
        rig.become_new_machine(machine);
        let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{error}"));
        // Two records: who reads the others' anew takes the first for what it has forgotten.
        for seed in [seed, seed + 10] {
            files.save("file", &noise(seed, 3_000)).expect("saved");
            rig.flush();
        }
        rig.close();
        branches.push(rig.memory.fork());
    }
    for (machine, others, own) in [(&first, &branches[1], &branches[0]), (&second, &branches[0], &branches[1])] {
        restore(&rig, others);
        rig.become_new_machine(machine);
        let error = refusal(&mut rig);
        assert!(is_fork(&error), "{error}");
        // Also when its own copy of the tree is gone, and would be made anew from what is shown.
        lose_replica(&rig);
        let error = refusal(&mut rig);
        assert!(is_fork(&error), "{error}");
        // Shown its own history again, it goes on from there.
        restore(&rig, own);
        rig.try_mount_by_words().unwrap_or_else(|error| panic!("{machine}: {}", chain(&error)));
        rig.close();
    }
    // While it is mounted.
    rig.become_new_machine(&first);
    restore(&rig, &branches[0]);
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{error}"));
    restore(&rig, &branches[1]);
    files.save("file", &noise(23, 3_000)).expect("a save needs no store");
    rig.volume().cut().expect("a cut");
    eventually("it halts", || rig.status().commits.halted.is_some());
    let before = rig.faults.requests().len();
    assert!(files.save("file", &noise(24, 3_000)).is_err(), "a drive that was led astray takes more");
    let _ = rig.volume().cut();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(creates(&rig, before), [], "uploaded after the fork was seen");
}

fn lose_tree(rig: &Rig) {
    for file in ["replica.db", "replica.db-wal", "replica.db-shm"] {
        let _ = std::fs::remove_file(rig.state_dir().join(file));
    }
}

fn lose_replica(rig: &Rig) {
    lose_tree(rig);
    let _ = std::fs::remove_dir_all(rig.state_dir().join("kept"));
}

/// As much metadata as makes a checkpoint due.
fn grow(rig: &mut Rig, seed: u64) {
    let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    let before = rig.objects(Prefix::Checkpoints).len();
    for number in 0..24 {
        let file = format!("{seed}-{number}");
        files.save(&file, b"").expect("saved");
        files.set_xattr(&file, "user.large", &noise(seed * 100 + number, 60_000)).expect("set");
    }
    rig.flush();
    eventually("a checkpoint", || rig.objects(Prefix::Checkpoints).len() > before);
    rig.close();
}

/// As a trim does it: the floor names the newest checkpoint, and the log below is gone.
fn trim(rig: &Rig, roots: &Roots) {
    let newest = *rig.objects(Prefix::Checkpoints).last().expect("a checkpoint");
    let ObjectName::Checkpoint(checkpoint) = newest else { panic!("{newest}") };
    let manifest = rig.memory.peek(&newest).expect("the manifest");
    Manifest::open(checkpoint, &manifest, roots).expect("a genuine manifest");
    let floor = Floor {
        epoch: roots.epoch(),
        number: 1,
        seq: Seq(checkpoint.0 + 1),
        checkpoint,
        checkpoint_hash: object_hash(&manifest),
    };
    let sealed = floor.seal(roots, &SystemEntropy).expect("sealed");
    rig.memory.plant(ObjectName::Floor(1), sealed.into());
    for name in rig.objects(Prefix::Log).into_iter().filter(|name| *name <= ObjectName::Log(checkpoint)) {
        rig.delete(&name);
    }
}

#[test]
fn t8_no_jump_over_a_trimmed_log_and_no_checkpoint_leads_onto_a_fork() {
    let (mut rig, _) = aged(2);
    let (first, roots) = (rig.machine.clone(), rig.roots());
    new_machine(&mut rig);
    let second = rig.machine.clone();
    rig.close();
    let common = rig.memory.fork();
    // The first goes on alone.
    rig.become_new_machine(&first);
    rig.try_mount_by_words().unwrap_or_else(|error| panic!("{error}")).save("file", &noise(31, 3_000)).unwrap();
    rig.flush();
    rig.close();
    let own = rig.memory.fork();
    // The second too, further, and with a checkpoint.
    restore(&rig, &common);
    rig.become_new_machine(&second);
    grow(&mut rig, 1);
    grow(&mut rig, 2);
    let other = rig.memory.fork();

    // The log is all there, but the checkpoint tells more than this device ever saw.
    rig.become_new_machine(&first);
    lose_replica(&rig);
    let error = refusal(&mut rig);
    assert!(is_fork(&error), "{error}");
    restore(&rig, &own);
    assert_eq!(rig.try_mount_by_words().unwrap().read("file").expect("read"), noise(31, 3_000));
    rig.close();
    // The log is trimmed.
    restore(&rig, &other);
    trim(&rig, &roots);
    let error = refusal(&mut rig);
    assert!(is_fork(&error), "{error}");
    // Whose history it is jumps without complaint.
    let trimmed = rig.memory.fork();
    restore(&rig, &trimmed);
    rig.become_new_machine(&second);
    rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
    rig.close();
    new_machine(&mut rig);
}
