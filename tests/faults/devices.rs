//! Two devices change the same files. There is no merging: the later one stops and says where, and nothing that it
//! acknowledged is lost or laid over the other's.

use std::time::Duration;

use hushfs::store::{Fault, StoreErrorKind};
use hushfs::vfs::Volume;

use crate::rig::{Files, Rig, chain, eventually, logged, noise};

const OFFLINE: Fault = Fault::Fail(StoreErrorKind::Unreachable);

fn rig() -> (Rig, Files) {
    let mut rig = Rig::new();
    // Cuts are made when the tests say so.
    rig.adjust = |options| options.cycle.age_max = Duration::from_secs(3600);
    let files = rig.mount();
    files.mkdir("docs").unwrap();
    files.mkdir("other").unwrap();
    files.save("docs/file", &noise(1, 5_000)).unwrap();
    rig.flush();
    (rig, files)
}

fn flush(volume: &Volume) {
    volume.flush(&mut |_| true).unwrap();
}

/// Every mount says the same, and the files by name.
fn stops_for_good(rig: &mut Rig, name: &str) {
    for time in ["first", "second"] {
        let error = rig.try_mount().map(drop).expect_err(time);
        assert!(chain(&error).contains(name), "{time}: {}", chain(&error));
    }
    // What the store has can be read all the same.
    let adjust = std::mem::replace(&mut rig.adjust, |options| options.drive.read_only = true);
    let files = rig.mount();
    assert!(!files.names("").unwrap().is_empty());
    rig.kill();
    rig.adjust = adjust;
    let error = rig.try_mount().map(drop).expect_err("after reading");
    assert!(chain(&error).contains(name), "{}", chain(&error));
}

type Deed = fn(&Files);

#[test]
fn what_is_written_while_another_device_commits_to_the_file_is_kept() {
    // What has no name any more is told by its number.
    let deeds: [(Deed, &str); 2] = [
        (|files| files.remove("docs/file").unwrap(), "inode "),
        (|files| files.save("docs/file", b"theirs").unwrap(), "docs/file"),
    ];
    for synced in [true, false] {
        for (deed, name) in deeds {
            let (mut rig, files) = rig();
            let (two, theirs) = rig.beside("two");
            let ours = noise(2, 5_000);
            rig.break_store(OFFLINE);
            files.save("other/file", &ours).unwrap();
            rig.volume().cut().unwrap();
            // In no cut, and not even in an intent.
            match synced {
                true => files.append_synced("docs/file", &ours).unwrap(),
                false => files.append("docs/file", &ours).unwrap(),
            }
            let written = [noise(1, 5_000), ours.clone()].concat();
            deed(&theirs);
            flush(&two);
            rig.faults.clear();
            eventually("it stops", || rig.status().commits.halted.is_some());
            let why = rig.status().stopped.unwrap();
            assert!(why.contains("docs/file"), "{why}");
            assert!(!logged().contains("docs"), "the log has names: {}", logged());
            assert!(files.read("docs/file").as_ref() == Ok(&written), "it is shown as it was written");
            files.write("more", b"").unwrap_err();
            let _ = rig.volume().close();
            rig.kill();
            stops_for_good(&mut rig, name);
        }
    }
}

#[test]
fn leftovers_that_do_not_fit_what_another_device_did_stop_the_mount() {
    let deeds: [(Deed, Deed, &str); 4] = [
        (
            |ours| ours.mkdir("new").and_then(|()| ours.save("new/x", b"ours")).unwrap(),
            |theirs| theirs.mkdir("new").and_then(|()| theirs.save("new/y", b"theirs")).unwrap(),
            "new",
        ),
        (
            |ours| ours.append_synced("docs/file", b"ours").unwrap(),
            |theirs| theirs.save("docs/file", b"theirs").unwrap(),
            "docs/file",
        ),
        (
            |ours| ours.append_synced("docs/file", b"ours").unwrap(),
            |theirs| theirs.remove("docs/file").unwrap(),
            "inode ",
        ),
        (
            |ours| ours.rename("docs/file", "docs/ours").and_then(|()| ours.sync("docs/ours")).unwrap(),
            |theirs| theirs.rename("docs/file", "docs/theirs").unwrap(),
            "docs/file",
        ),
    ];
    for (ours, theirs, name) in deeds {
        let (mut rig, files) = rig();
        rig.break_store(OFFLINE);
        ours(&files);
        rig.kill();
        let (two, their_files) = rig.beside("two");
        theirs(&their_files);
        flush(&two);
        let before = their_files.names("docs").unwrap();
        rig.faults.clear();
        stops_for_good(&mut rig, name);
        assert_eq!(their_files.names("docs").unwrap(), before, "nothing of it came to the other");
        assert!(!logged().contains("docs"), "the log has names: {}", logged());
    }
}

#[test]
fn leftovers_beside_what_another_device_did_are_done_again() {
    let (mut rig, files) = rig();
    rig.break_store(OFFLINE);
    files.append_synced("docs/file", b"ours").unwrap();
    files.save("docs/ours", b"ours").unwrap();
    rig.kill();
    let (two, theirs) = rig.beside("two");
    theirs.save("docs/theirs", b"theirs").unwrap();
    theirs.save("other/theirs", b"theirs").unwrap();
    flush(&two);
    two.close().unwrap();
    drop(two);
    rig.faults.clear();
    let files = rig.mount();
    let check = |files: &Files| {
        assert_eq!(files.names("docs").unwrap(), ["file", "ours", "theirs"]);
        assert!(files.read("docs/file") == Ok([noise(1, 5_000), b"ours".to_vec()].concat()));
        assert_eq!(files.read("other/theirs").as_deref(), Ok(&b"theirs"[..]));
    };
    check(&files);
    rig.flush();
    rig.close();
    rig.become_new_machine("three");
    check(&rig.mount());
}
