//! Objects in the store are changed, cut, gone, or another's: an error for what they hold and for nothing else, and
//! the object's name in the log.

use std::time::Duration;

use bytes::Bytes;
use hushfs::crypto::RecoveryWords;
use hushfs::format::{ObjectName, Prefix};
use hushfs::meta::keyring::Secret;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};
use hushfs::vfs::api::VfsError;

use crate::rig::{Files, Rig, chain, eventually, logged, noise};

/// What can happen to an object, as rules for reading it. `other` is one of the same kind.
fn damages(len: usize, other: Option<ObjectName>) -> Vec<Fault> {
    // Over the header, what commits to the key, the ciphertext and its end. Padding is authenticated, too.
    let bits = [0, 8, 33 * 8, 65 * 8, len as u64 * 4, len as u64 * 8 - 1];
    let mut damages: Vec<_> = bits.into_iter().map(Fault::FlipBit).collect();
    damages.extend([Fault::Truncate(0), Fault::Truncate(len as u64 / 2), Fault::Missing]);
    damages.extend(other.map(Fault::Swap));
    damages
}

fn damage(rig: &Rig, object: ObjectName, fault: &Fault) {
    rig.faults.clear();
    rig.faults.add(Rule::on(Op::Get, fault.clone()).named(object));
    if *fault == Fault::Missing {
        rig.faults.add(Rule::on(Op::Size, Fault::Missing).named(object));
    }
}

fn len(rig: &Rig, object: &ObjectName) -> usize {
    rig.memory.peek(object).expect("the object").len()
}

/// Three files, each in a pack and a record of its own.
fn rig() -> (Rig, Vec<ObjectName>) {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    rig.flush();
    let mut packs = Vec::new();
    for seed in 0..3 {
        files.save(&name(seed), &content(seed)).unwrap();
        rig.flush();
        let new = rig.objects(Prefix::Packs).into_iter().find(|pack| !packs.contains(pack));
        packs.push(new.expect("a pack for each"));
    }
    rig.close();
    (rig, packs)
}

fn name(seed: u64) -> String {
    format!("dir/file{seed}")
}

/// More than a frame, less than a block: whatever part of the pack is damaged, a file that needs none of it reads.
fn content(seed: u64) -> Vec<u8> {
    noise(seed, 100_000)
}

fn new_machine(rig: &mut Rig) -> Files {
    let next = rig.machine.clone() + "+";
    rig.become_new_machine(&next);
    rig.mount()
}

#[test]
fn a_damaged_pack_is_an_error_for_its_files_only_and_what_is_written_again_is_whole() {
    let (mut rig, packs) = rig();
    // The frames: a bit beyond what a file's reads need, such as in the footer, must not hurt at all.
    for (seed, fault) in (10..).zip(damages(100_000, Some(packs[0]))) {
        eprintln!("{fault:?}");
        // Its own content each time: what was written again for one is stored whole for the next.
        let files = rig.mount();
        let before = rig.objects(Prefix::Packs);
        files.save("dir/victim", &content(seed)).unwrap();
        rig.flush();
        rig.close();
        let victim = rig.objects(Prefix::Packs).into_iter().find(|pack| !before.contains(pack)).unwrap();

        damage(&rig, victim, &fault);
        let files = new_machine(&mut rig);
        assert_eq!(files.read("dir/victim"), Err(VfsError::Io));
        assert!(logged().contains(&victim.to_string()), "nobody is told which object");
        for other in 0..3 {
            assert_eq!(files.read(&name(other)).unwrap(), content(other));
        }
        assert!(files.names("dir").unwrap().contains(&"victim".into()));
        // The rest keeps working, and the same content is not taken for stored.
        files.save("dir/again", &content(seed)).unwrap();
        files.save("dir/new", &noise(seed, 5_000)).unwrap();
        rig.flush();
        assert_eq!(files.read("dir/again").unwrap(), content(seed));
        rig.close();
        let files = new_machine(&mut rig);
        assert_eq!(files.read("dir/again").unwrap(), content(seed), "{fault:?}: it refers to the damaged pack");
        assert_eq!(files.read("dir/new").unwrap(), noise(seed, 5_000));
        rig.close();
    }
}

#[test]
fn what_is_cached_outlives_its_pack() {
    let (mut rig, packs) = rig();
    for fault in damages(100_000, Some(packs[0])) {
        damage(&rig, packs[1], &fault);
        assert_eq!(rig.mount().read(&name(1)).unwrap(), content(1), "{fault:?}");
        rig.close();
    }
}

/// For damage that comes and goes with the network.
#[test]
fn a_read_that_was_damaged_once_is_whole_the_next_time() {
    let (mut rig, packs) = rig();
    damage(&rig, packs[1], &Fault::FlipBit(8 * 1000));
    let files = new_machine(&mut rig);
    assert_eq!(files.read(&name(1)), Err(VfsError::Io));
    rig.faults.clear();
    assert_eq!(files.read(&name(1)).unwrap(), content(1), "the damage was kept");
}

#[test]
fn a_damaged_record_stops_no_device_that_has_it() {
    let (mut rig, _) = rig();
    let records = rig.objects(Prefix::Log);
    let head = records.len() - 1;
    // The head first: with it damaged the log stays as long as it is.
    for at in [head, 0, 2] {
        let record = records[at];
        let half = len(&rig, &record) as u64 / 2;
        for fault in [Fault::FlipBit(0), Fault::FlipBit(half * 8), Fault::Missing, Fault::Swap(records[1])] {
            if fault == Fault::Missing && at == head {
                // That is an older state of the store: see below.
                continue;
            }
            damage(&rig, record, &fault);
            let files = rig.mount();
            for seed in 0..3 {
                assert_eq!(files.read(&name(seed)).unwrap(), content(seed), "{record} {fault:?}");
            }
            files.save("dir/new", &noise(9, 5_000)).unwrap();
            if at == head {
                assert!(rig.try_flush(Duration::from_millis(500)).is_err(), "{fault:?}");
                assert!(rig.troubles().contains(&format!("record {} ", at + 1)), "{}", rig.troubles());
            }
            rig.kill();
        }
    }
    rig.faults.clear();
    assert_eq!(rig.mount().read("dir/new").unwrap(), noise(9, 5_000));
    rig.flush();
}

#[test]
fn a_head_that_is_gone_is_an_older_state_and_refused() {
    let (mut rig, _) = rig();
    let head = *rig.objects(Prefix::Log).last().unwrap();
    damage(&rig, head, &Fault::Missing);
    let Err(error) = rig.try_mount() else { panic!("mounted") };
    assert!(chain(&error).contains("older state"), "{}", chain(&error));
    rig.faults.clear();
    rig.mount();
}

#[test]
fn a_damaged_record_is_named_to_a_new_machine_which_can_still_read_what_is_before_it() {
    let (mut rig, _) = rig();
    let records = rig.objects(Prefix::Log);
    let at = records.len() - 1;
    // Not a missing one: whoever sees a log for the first time cannot know that it was longer.
    let half = len(&rig, &records[at]) as u64 / 2;
    for fault in [Fault::FlipBit(half * 8), Fault::Truncate(half), Fault::Swap(records[1])] {
        eprintln!("{fault:?}");
        damage(&rig, records[at], &fault);
        rig.become_new_machine("two");
        let Err(error) = rig.try_mount() else { panic!("{fault:?}: mounted to write") };
        assert!(chain(&error).contains(&format!("record {} ", at + 1)), "{}", chain(&error));
        rig.adjust = |options| options.drive.read_only = true;
        let files = rig.mount();
        assert!(rig.volume().opened().offline.is_some(), "nobody is told");
        assert_eq!(files.names("dir").unwrap(), ["file0", "file1"]);
        assert_eq!(files.read(&name(1)).unwrap(), content(1));
        rig.close();
        rig.adjust = |_| {};
        // And when the object is well again, everything is.
        rig.faults.clear();
        rig.machine = "two".into();
        assert_eq!(rig.mount().read(&name(2)).unwrap(), content(2));
        rig.close();
        std::fs::remove_dir_all(rig.root.path().join("two")).unwrap();
    }
}

/// Enough metadata for two checkpoints, and then a little more.
fn rig_with_checkpoints() -> Rig {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    for round in 0..2 {
        for index in 0..24 {
            let file = format!("dir/{round}-{index:02}");
            files.save(&file, &noise(index, 100)).unwrap();
            files.set_xattr(&file, "user.large", &noise(round * 100 + index, 60_000)).unwrap();
        }
        let before = rig.objects(Prefix::Checkpoints).len();
        rig.flush();
        // One more commit, behind which it is seen to be due.
        eventually("a checkpoint", || rig.objects(Prefix::Checkpoints).len() > before);
    }
    files.save("dir/last", &noise(1, 1000)).unwrap();
    rig.flush();
    rig.close();
    rig
}

fn check_large(files: &Files) {
    assert_eq!(files.names("dir").unwrap().len(), 49);
    for round in 0..2 {
        for index in 0..24 {
            assert_eq!(files.read(&format!("dir/{round}-{index:02}")).unwrap(), noise(index, 100));
            let value = files.get_xattr(&format!("dir/{round}-{index:02}"), "user.large").unwrap();
            assert_eq!(value, noise(round * 100 + index, 60_000));
        }
    }
    assert_eq!(files.read("dir/last").unwrap(), noise(1, 1000));
}

#[test]
fn a_damaged_checkpoint_costs_a_new_machine_time_and_nothing_else() {
    let mut rig = rig_with_checkpoints();
    let (manifests, segments) = (rig.objects(Prefix::Checkpoints), rig.objects(Prefix::Segments));
    assert!(manifests.len() >= 2 && segments.len() >= 2, "{manifests:?} {segments:?}");
    let newest = *manifests.last().unwrap();
    let mut cases = vec![(newest, manifests[0])];
    cases.extend(segments.iter().zip(segments.iter().cycle().skip(1)).map(|(one, other)| (*one, *other)));
    for (index, (object, other)) in cases.into_iter().enumerate() {
        for fault in damages(len(&rig, &object), Some(other)) {
            // All kinds of damage to the manifest and to one segment; a flipped bit and a lost object for the others.
            if index > 1 && !matches!(fault, Fault::Missing | Fault::FlipBit(0)) {
                continue;
            }
            eprintln!("{object} {fault:?}");
            damage(&rig, object, &fault);
            check_large(&new_machine(&mut rig));
            rig.close();
        }
    }
    // All at once: then the log tells everything.
    rig.faults.clear();
    for object in manifests.iter().chain(&segments) {
        rig.faults.add(Rule::on(Op::Get, Fault::FlipBit(999)).named(*object));
    }
    check_large(&new_machine(&mut rig));
    assert!(logged().contains(&newest.to_string()), "nobody is told which object");
    let files = rig.files();
    files.save("dir/after", &noise(3, 1000)).unwrap();
    rig.flush();
}

#[test]
fn a_damaged_slot_or_volume_object_stops_no_device_that_knows_them() {
    let (mut rig, _) = rig();
    let mut objects = rig.objects(Prefix::Slots);
    objects.push(ObjectName::Volume);
    for object in objects {
        for fault in damages(len(&rig, &object), None) {
            if fault == Fault::Missing && object != ObjectName::Volume {
                // A slot that is gone was removed, and must not open anything.
                continue;
            }
            eprintln!("{object} {fault:?}");
            damage(&rig, object, &fault);
            let files = rig.mount();
            assert_eq!(files.read(&name(1)).unwrap(), content(1));
            files.save("dir/new", &noise(9, 5_000)).unwrap();
            rig.flush();
            rig.close();
        }
    }
}

#[test]
fn with_a_damaged_password_slot_the_recovery_words_open_a_new_machine() {
    let (mut rig, _) = rig();
    let slots = rig.objects(Prefix::Slots);
    rig.become_new_machine("two");
    let mut refused = 0;
    for slot in &slots {
        for fault in damages(len(&rig, slot), None) {
            damage(&rig, *slot, &fault);
            match rig.try_mount() {
                Ok(_) => rig.close(),
                Err(_) => {
                    refused += 1;
                    let words = RecoveryWords::parse(&rig.words.text()).unwrap();
                    rig.try_mount_by(Secret::Recovery(words))
                        .map(drop)
                        .unwrap_or_else(|error| panic!("{}", chain(&error)));
                    assert_eq!(rig.files().read(&name(1)).unwrap(), content(1));
                    rig.close();
                }
            }
            std::fs::remove_dir_all(rig.root.path().join("two")).unwrap();
        }
    }
    assert!(refused > 0, "no damage was noticed");
}

/// Damage beside a store that fails: nothing of it may be taken for the truth, or kept.
#[test]
fn an_object_that_was_planted_under_a_free_name_is_not_ours() {
    let (mut rig, packs) = rig();
    let pack = rig.memory.peek(&packs[0]).unwrap();
    let next = ObjectName::Log(hushfs::base::Seq(rig.objects(Prefix::Log).len() as u64 + 1));
    rig.memory.plant(next, Bytes::from(pack.to_vec()));
    let files = rig.mount();
    assert_eq!(files.read(&name(1)).unwrap(), content(1));
    files.save("dir/new", &noise(9, 5_000)).unwrap();
    assert!(rig.try_flush(Duration::from_millis(500)).is_err());
    assert!(rig.troubles().contains("is damaged"), "{}", rig.troubles());
    rig.kill();
    rig.break_store(Fault::Fail(StoreErrorKind::Unreachable));
    assert_eq!(rig.mount().read("dir/new").unwrap(), noise(9, 5_000));
}
