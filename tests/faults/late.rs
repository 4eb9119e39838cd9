//! A record that was stored, and whose answer came to nobody: the run that wrote it is gone before it could ask.

use std::collections::BTreeSet;
use std::time::Duration;

use hushfs::format::{ObjectName, Prefix, Record};
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};

use crate::rig::{Files, Rig, eventually, noise};

const OFFLINE: Fault = Fault::Fail(StoreErrorKind::Unreachable);

fn rig() -> (Rig, Files) {
    let mut rig = Rig::new();
    // Cuts are made when the tests say so.
    rig.adjust = |options| options.cycle.age_max = Duration::from_secs(3600);
    let files = rig.mount();
    files.save("old", &noise(1, 5_000)).unwrap();
    rig.flush();
    (rig, files)
}

/// What was written is committed, and then there is no store any more.
fn commit_unseen(rig: &Rig) {
    let records = rig.objects(Prefix::Log).len();
    rig.faults.add(Rule::on(Op::Create, Fault::ApplyThenHang).under(Prefix::Log));
    rig.volume().cut().unwrap();
    eventually("the record is stored", || rig.objects(Prefix::Log).len() > records);
    rig.faults.clear();
    rig.break_store(OFFLINE);
    assert_eq!(rig.status().commits.waiting, 1, "somebody was told");
}

fn mount_offline(rig: &mut Rig) -> Files {
    let files = rig.mount();
    assert!(rig.volume().opened().offline.is_some());
    files
}

/// A record that was not heard of is this device's own all the same, and not that of a copy of its state folder.
fn is_one_device(rig: &Rig) {
    let roots = rig.roots();
    let slot = |name: ObjectName| {
        let ObjectName::Log(seq) = name else { panic!("{name}") };
        Record::open(seq, &rig.memory.peek(&name).expect("the record"), &roots).expect("a record").slot
    };
    assert_eq!(rig.objects(Prefix::Log).into_iter().map(slot).collect::<BTreeSet<_>>().len(), 1);
}

fn check(rig: &mut Rig, contents: &[(&str, &[u8])]) {
    let all = |files: &Files, when: &str| {
        for (name, content) in contents {
            let found = files.read(name);
            assert!(found.as_deref() == Ok(*content), "{when}: {name} is {:?}", found.map(|found| found.len()));
        }
    };
    all(&rig.files(), "before the flush");
    rig.flush();
    rig.close();
    is_one_device(rig);
    rig.become_new_machine("two");
    all(&rig.mount(), "elsewhere");
}

#[test]
fn no_number_is_given_out_twice_when_a_record_was_stored_unseen() {
    let (mut rig, files) = rig();
    let (unsynced, synced) = (noise(2, 300_000), noise(3, 300_000));
    files.write("unsynced", &unsynced).unwrap();
    commit_unseen(&rig);
    rig.kill();
    // It cannot know of the file. What it makes now must be other files, keys, chunks and packs.
    let files = mount_offline(&mut rig);
    files.save("synced", &synced).unwrap();
    rig.kill();
    rig.faults.clear();
    rig.mount();
    check(&mut rig, &[("old", &noise(1, 5_000)), ("unsynced", &unsynced), ("synced", &synced)]);
}

#[test]
fn what_an_unseen_record_holds_is_not_done_again_over_it() {
    for end in [Rig::close, Rig::kill] {
        let (mut rig, files) = rig();
        let (small, large, later) = (noise(2, 5_000), noise(3, 300_000), noise(4, 6_000));
        files.save("old", &small).unwrap();
        files.save("large", &large).unwrap();
        commit_unseen(&rig);
        end(&mut rig);
        // Done again from the journal, and built upon.
        let files = mount_offline(&mut rig);
        assert!(files.read("old").as_ref() == Ok(&small));
        files.rename("large", "moved").unwrap();
        files.save("later", &later).unwrap();
        files.save("old", &later).unwrap();
        end(&mut rig);
        let files = mount_offline(&mut rig);
        files.save("last", &small).unwrap();
        end(&mut rig);
        rig.faults.clear();
        rig.mount();
        check(&mut rig, &[("old", &later), ("moved", &large), ("later", &later), ("last", &small)]);
    }
}

#[test]
fn a_drive_that_meets_its_earlier_runs_record_goes_on_after_a_mount() {
    let (mut rig, files) = rig();
    let (first, second) = (noise(2, 5_000), noise(3, 300_000));
    files.save("first", &first).unwrap();
    commit_unseen(&rig);
    rig.close();
    let files = mount_offline(&mut rig);
    files.save("second", &second).unwrap();
    rig.faults.clear();
    let _ = rig.try_flush(Duration::from_secs(5));
    rig.close();
    rig.mount();
    check(&mut rig, &[("first", &first), ("second", &second)]);
}
