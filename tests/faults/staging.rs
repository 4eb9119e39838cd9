//! The staging folder loses what it held, or fills up.

use std::time::Duration;

use hushfs::base::InodeId;
use hushfs::base::Name;
use hushfs::format::Prefix;
use hushfs::format::rows::mode;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};
use hushfs::vfs::api::{Caller, Kill, OpenFlags, Vfs, WriteReply};

use crate::rig::{Files, Rig, chain, eventually, noise, timed};

const OFFLINE: Fault = Fault::Fail(StoreErrorKind::Unreachable);
const MIB: usize = 1 << 20;

/// Synced here, and not in the log.
fn rig_with_unsent() -> (Rig, Vec<u8>, Vec<u8>) {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    rig.flush();
    let (large, small) = (noise(1, 2 * MIB + 1000), noise(2, 5_000));
    rig.faults.add(Rule::on(Op::Create, OFFLINE).under(Prefix::Log));
    files.save("dir/large", &large).unwrap();
    files.save("dir/small", &small).unwrap();
    (rig, large, small)
}

fn lose_staging(rig: &Rig) {
    let staged = std::fs::read_dir(rig.state_dir().join("staging")).unwrap();
    let lost = staged.map(|file| std::fs::remove_file(file.unwrap().path()).unwrap()).count();
    assert!(lost > 0, "nothing was staged");
}

fn elsewhere(rig: &mut Rig) -> Files {
    rig.flush();
    rig.close();
    rig.become_new_machine("two");
    rig.mount()
}

#[test]
fn bytes_that_are_nowhere_any_more_stop_the_mount_which_names_the_file() {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    rig.flush();
    let (large, small) = (noise(1, 2 * MIB + 1000), noise(2, 5_000));
    rig.break_store(OFFLINE);
    files.save("dir/large", &large).unwrap();
    files.save("dir/small", &small).unwrap();
    rig.kill();
    lose_staging(&rig);
    rig.faults.clear();
    for time in ["first", "second"] {
        let error = rig.try_mount().map(drop).expect_err(time);
        assert!(chain(&error).contains("dir/large"), "{time}: {}", chain(&error));
        assert!(!chain(&error).contains("dir/small"), "{time}: {}", chain(&error));
    }
    rig.adjust = |options| options.accept_loss = true;
    let files = rig.mount();
    assert!(files.read("dir/small").as_ref() == Ok(&small));
    assert_eq!(files.read("dir/large").map(|bytes| bytes.len()), Ok(large.len()));
    // The same content is not taken to be there.
    files.save("dir/again", &large).unwrap();
    let files = elsewhere(&mut rig);
    assert!(files.read("dir/small") == Ok(small));
    assert!(files.read("dir/again") == Ok(large));
    files.read("dir/large").unwrap();
}

#[test]
fn what_the_store_has_already_need_not_be_staged() {
    let (mut rig, large, small) = rig_with_unsent();
    rig.volume().cut().unwrap();
    eventually("uploaded", || rig.status().upload_packs == 0);
    rig.kill();
    lose_staging(&rig);
    rig.faults.clear();
    rig.mount();
    let files = elsewhere(&mut rig);
    assert!(files.read("dir/large") == Ok(large));
    assert!(files.read("dir/small") == Ok(small));
}

#[test]
fn an_unlinked_file_may_be_written_for_ever() {
    let mut rig = Rig::new();
    rig.adjust = |options| options.staging_bytes_max = 6 << 20;
    let files = rig.mount();
    rig.flush();
    let name = Name::parse("scratch").unwrap();
    let caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let drive = rig.volume().drive().clone();
    let (attr, handle) = drive.create(caller, InodeId::ROOT, &name, mode::FILE | 0o600, flags).unwrap();
    drive.unlink(InodeId::ROOT, &name).unwrap();
    rig.flush();
    let block = noise(3, MIB);
    for round in 0..40_u64 {
        let at = round % 8 * MIB as u64;
        if timed(|| drive.write(attr.ino, handle, at, &block, Kill::No)).unwrap() == WriteReply::WouldBlock {
            timed(|| drive.write_blocking(attr.ino, handle, at, &block, Kill::No)).unwrap();
        }
    }
    drive.release(attr.ino, handle);
    drive.forget(attr.ino, 1);
    drop(drive);
    assert_eq!(files.names(""), Ok(Vec::new()));
    rig.try_flush(Duration::from_secs(5)).unwrap();
}

/// As `tmpfile()` makes it. Its key is in no row, so nothing but the file itself can remember it.
#[test]
fn a_file_without_a_name_is_read_after_thousands_of_others() {
    let mut rig = Rig::new();
    let files = rig.mount();
    let name = Name::parse("scratch").unwrap();
    let caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
    let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
    let drive = rig.volume().drive().clone();
    let (attr, handle) = drive.create(caller, InodeId::ROOT, &name, mode::FILE | 0o600, flags).unwrap();
    drive.unlink(InodeId::ROOT, &name).unwrap();
    let block = noise(3, 2 * MIB);
    assert_eq!(drive.write(attr.ino, handle, 0, &block, Kill::No).unwrap(), WriteReply::Done(2 << 20));
    rig.flush();
    // More than the keys that are remembered.
    for number in 0..8300 {
        files.save(&format!("{number}"), &noise(1000 + number, 5000)).unwrap();
    }
    rig.flush();
    assert!(files.read_open(attr.ino, handle) == Ok(block));
    drive.release(attr.ino, handle);
    drive.forget(attr.ino, 1);
}
