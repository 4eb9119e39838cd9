//! A long journal is done again in pieces: each of them is a record that devices can read, and none is done twice.

use hushfs::format::Prefix;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind, When};

use crate::rig::{Files, Rig, eventually, noise};

const OFFLINE: Fault = Fault::Fail(StoreErrorKind::Unreachable);
const FILES: u64 = 60;
/// Each of them nearly as large as an attribute may be.
const ATTRIBUTES: u64 = 6;

fn work(files: &Files) {
    for no in 0..FILES {
        let file = format!("dir/{no:02}");
        // Small ones go into the journal, large ones into staging.
        let len = if no % 3 == 0 { 300_000 } else { 3_000 };
        files.write(&file, &noise(no, len)).unwrap();
        for attribute in 0..ATTRIBUTES {
            files.set_xattr(&file, &format!("user.{attribute}"), &noise(no * 100 + attribute, 60_000)).unwrap();
        }
        files.sync(&file).unwrap();
    }
    files.remove("dir/05").unwrap();
    files.rename("dir/06", "dir/moved").unwrap();
    files.save("dir/07", &noise(1000, 4_000)).unwrap();
}

fn check(files: &Files, when: &str) {
    assert_eq!(files.names("dir").unwrap().len() as u64, FILES - 1, "{when}");
    for no in (0..FILES).filter(|no| *no != 5) {
        let file = if no == 6 { "dir/moved".into() } else { format!("dir/{no:02}") };
        let (seed, len) = match no {
            7 => (1000, 4_000),
            no if no % 3 == 0 => (no, 300_000),
            no => (no, 3_000),
        };
        assert!(files.read(&file) == Ok(noise(seed, len)), "{when}: {file}");
        for attribute in 0..ATTRIBUTES {
            let value = files.get_xattr(&file, &format!("user.{attribute}"));
            assert!(value == Ok(noise(no * 100 + attribute, 60_000)), "{when}: {file}");
        }
    }
}

#[test]
fn a_long_journal_is_committed_in_several_records_and_each_once() {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    rig.flush();
    rig.break_store(OFFLINE);
    work(&files);
    rig.kill();
    // As often as one likes, without the store.
    for time in ["offline", "again"] {
        let files = rig.mount();
        check(&files, time);
        rig.kill();
    }
    // The first piece of it is committed, and then the machine dies.
    rig.faults.clear();
    let records = rig.objects(Prefix::Log).len();
    rig.faults.add(Rule::on(Op::Create, OFFLINE).under(Prefix::Log).when(When::After(1)));
    check(&rig.mount(), "online");
    assert!(rig.status().commits.waiting > 1, "it is one piece");
    eventually("one record", || rig.objects(Prefix::Log).len() == records + 1);
    rig.kill();
    rig.faults.clear();
    rig.break_store(OFFLINE);
    // What the first record holds is in the store now, and need not be here.
    assert_eq!(rig.mount().names("dir").unwrap().len() as u64, FILES - 1);
    rig.kill();
    rig.faults.clear();
    check(&rig.mount(), "after the first record");
    rig.flush();
    rig.close();
    rig.mount();
    assert_eq!(rig.volume().opened().replayed.intents, 0, "the log has all of it");
    rig.close();
    rig.become_new_machine("two");
    check(&rig.mount(), "elsewhere");
}

#[test]
fn what_is_written_after_a_replay_outlives_the_next_one() {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    rig.flush();
    rig.break_store(OFFLINE);
    // Small: its bytes are in the journal, and are sealed by the run that does it again.
    files.write("dir/file", &noise(1, 3_000)).unwrap();
    files.write("dir/twice", &noise(2, 3_000)).unwrap();
    for name in ["dir/file", "dir/twice"] {
        files.sync(name).unwrap();
    }
    rig.kill();
    let files = rig.mount();
    // Under the key, and of the chunk, that the replay made, and into its pack.
    files.write("dir/file", &noise(3, 300_000)).unwrap();
    files.write("dir/copy", &noise(2, 3_000)).unwrap();
    for name in ["dir/file", "dir/copy"] {
        files.sync(name).unwrap();
    }
    // Sealed and journaled as what the rows say.
    rig.volume().cut().unwrap();
    rig.volume().drive().sync_all().unwrap();
    let written = [("dir/file", noise(3, 300_000)), ("dir/copy", noise(2, 3_000)), ("dir/twice", noise(2, 3_000))];
    for time in ["offline", "again"] {
        rig.kill();
        let files = rig.mount();
        for (name, content) in &written {
            assert!(files.read(name).as_ref() == Ok(content), "{time}: {name}");
        }
    }
    rig.faults.clear();
    rig.flush();
    rig.close();
    rig.become_new_machine("two");
    let files = rig.mount();
    for (name, content) in &written {
        assert!(files.read(name).as_ref() == Ok(content), "elsewhere: {name}");
    }
}
