//! Rows of the metadata cannot be read for a while (a page of the database, memory): what was written stays what it
//! was, and is sealed and named once they can be read again.

use std::time::Duration;

use hushfs::base::InodeId;
use hushfs::format::rows::{EXTENT_WINDOW_LEN, RowKey};
use hushfs::meta::Rows;
use hushfs::vfs::api::{Kill, OpenFlags, SetAttr, Vfs, VfsError, WriteReply};

use crate::rig::{Files, Rig, noise};

/// Beyond the first window, so that the extents have a row of their own.
const FAR: u64 = EXTENT_WINDOW_LEN + 5;

fn rig() -> (Rig, Files) {
    let mut rig = Rig::new();
    // Cuts are made when the tests say so.
    rig.adjust = |options| options.cycle.age_max = Duration::from_secs(3600);
    let files = rig.mount();
    (rig, files)
}

/// A row that cannot be read until it is healed.
struct Broken<'a> {
    rig: &'a Rig,
    key: Vec<u8>,
    row: Option<Vec<u8>>,
}

impl<'a> Broken<'a> {
    fn row(rig: &'a Rig, key: &RowKey) -> Self {
        let (view, key) = (rig.volume().drive().pending().view(), key.encode());
        let row = view.get(&key).expect("the row as it was");
        view.apply(vec![(key.clone(), Some(b"unreadable".to_vec()))]);
        Self { rig, key, row }
    }

    fn heal(self) {
        self.rig.volume().drive().pending().view().apply(vec![(self.key, self.row)]);
    }
}

fn write_far(rig: &Rig, ino: InodeId, bytes: &[u8]) {
    let drive = rig.volume().drive();
    let handle = drive.open(ino, OpenFlags { write: true, ..OpenFlags::default() }).expect("opened");
    let written = drive.write(ino, handle, FAR, bytes, Kill::No).expect("written");
    assert_eq!(written, WriteReply::Done(bytes.len() as u32));
    drive.release(ino, handle);
}

fn far(bytes: &[u8]) -> Vec<u8> {
    [&vec![0; FAR as usize], bytes].concat()
}

fn elsewhere(rig: &mut Rig) -> Files {
    rig.close();
    rig.become_new_machine("two");
    rig.mount()
}

#[test]
fn synced_bytes_outlive_an_inode_that_cannot_be_read_at_the_cut() {
    let (mut rig, files) = rig();
    let content = noise(1, 5_000);
    files.save("file", &content).unwrap();
    let broken = Broken::row(&rig, &RowKey::Inode(files.find("file").unwrap()));
    rig.volume().cut().unwrap_err();
    broken.heal();
    rig.flush();
    assert!(files.read("file").as_ref() == Ok(&content), "here");
    assert!(elsewhere(&mut rig).read("file") == Ok(content), "elsewhere");
}

#[test]
fn bytes_whose_extents_cannot_be_said_stay_and_are_said_later() {
    let (mut rig, files) = rig();
    files.save("file", b"").unwrap();
    rig.flush();
    let (ino, content) = (files.find("file").unwrap(), noise(2, 5_000));
    write_far(&rig, ino, &content);
    files.sync("file").unwrap();
    let broken = Broken::row(&rig, &RowKey::Extents(ino, 1));
    rig.volume().cut().unwrap_err();
    broken.heal();
    assert!(files.read("file") == Ok(far(&content)), "before the next cut");
    rig.flush();
    // Also the file's key, which the first try made, is in the volume.
    assert!(elsewhere(&mut rig).read("file") == Ok(far(&content)), "elsewhere");
}

#[test]
fn a_truncation_that_fails_takes_nothing() {
    let (rig, files) = rig();
    files.save("file", b"").unwrap();
    let (ino, content) = (files.find("file").unwrap(), noise(3, 5_000));
    write_far(&rig, ino, &content);
    let broken = Broken::row(&rig, &RowKey::Extents(ino, 1));
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(rig.volume().drive().setattr(ino, &cut).unwrap_err(), VfsError::Io);
    broken.heal();
    assert!(files.read("file") == Ok(far(&content)));
}

#[test]
fn a_pack_is_named_by_the_next_file_when_the_first_could_not() {
    let (mut rig, files) = rig();
    files.save("first", b"").unwrap();
    rig.flush();
    let ino = files.find("first").unwrap();
    // So much that fsync seals it.
    write_far(&rig, ino, &noise(4, 300_000));
    let broken = Broken::row(&rig, &RowKey::Extents(ino, 1));
    files.sync("first").unwrap_err();
    let content = noise(5, 300_000);
    files.save("second", &content).unwrap();
    broken.heal();
    rig.kill();
    assert!(rig.mount().read("second").as_ref() == Ok(&content), "after a crash");
    rig.flush();
    assert!(elsewhere(&mut rig).read("second") == Ok(content), "elsewhere");
}
