//! Files in many pieces: they are put together again, nobody notices, and no record grows beyond what devices read.

#[path = "support/rig.rs"]
mod rig;

use std::time::Duration;

use hushfs::base::{ByteRange, InodeId};
use hushfs::format::rows::{Extent, XATTR_LEN_MAX};
use hushfs::format::{ObjectName, Prefix, Record, WHOLE_LEN_MAX};
use hushfs::meta::Rows;
use hushfs::vfs::api::{Kill, OpenFlags, Place, SeekTarget, Vfs, WriteReply};

use rig::{Files, Rig, eventually, noise};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Cuts are made when the tests say so, or there is enough.
fn rig() -> (Rig, Files) {
    let mut rig = Rig::new();
    rig.adjust = |options| {
        options.cycle.age_max = Duration::from_secs(3600);
        options.drive.write_deadline = Duration::from_secs(60);
    };
    let files = rig.try_mount_by_words().expect("mounted");
    (rig, files)
}

fn write_at(rig: &Rig, ino: InodeId, offset: usize, bytes: &[u8]) {
    let drive = rig.volume().drive();
    let handle = drive.open(ino, OpenFlags { write: true, ..OpenFlags::default() }).expect("opened");
    if drive.write(ino, handle, offset as u64, bytes, Kill::No).expect("written") == WriteReply::WouldBlock {
        drive.write_blocking(ino, handle, offset as u64, bytes, Kill::No).expect("written");
    }
    drive.release(ino, handle);
}

fn extents(rig: &Rig, ino: InodeId) -> Vec<Extent> {
    let view = rig.volume().drive().pending().view();
    let row = view.inode(ino).expect("rows").expect("the file's row");
    view.extents(ino, &row, ByteRange::new(0, u64::MAX)).expect("rows")
}

fn cut(rig: &Rig) {
    rig.volume().cut().expect("a cut");
}

/// Pages of a file, in an order that has no neighbours.
fn scattered(pages: usize) -> impl Iterator<Item = usize> {
    assert!(!pages.is_multiple_of(7));
    (0..pages).map(move |at| at * 7 % pages)
}

fn seek(rig: &Rig, ino: InodeId, offset: usize, target: SeekTarget) -> u64 {
    let drive = rig.volume().drive();
    let handle = drive.open(ino, OpenFlags { read: true, ..OpenFlags::default() }).expect("opened");
    let found = drive.seek(ino, handle, offset as u64, target).expect("found");
    drive.release(ino, handle);
    found
}

#[test]
fn what_random_writes_left_is_put_together_and_stays_what_it_was() {
    let (mut rig, files) = rig();
    let mut bytes = noise(1, 2 * MIB + 3 * PAGE);
    files.write("database", &bytes).expect("written");
    let ino = files.find("database").expect("a file");
    for (round, page) in scattered(2 * MIB / PAGE).enumerate() {
        let page_bytes = noise(1_000 + round as u64, PAGE);
        write_at(&rig, ino, page * PAGE, &page_bytes);
        bytes[page * PAGE..][..PAGE].copy_from_slice(&page_bytes);
        if round % 40 == 0 {
            cut(&rig);
        }
    }
    cut(&rig);
    let mtime = rig.volume().drive().getattr(ino).expect("attributes").mtime;
    eventually("it is in few pieces", || extents(&rig, ino).len() <= 2 * 64 + 1);
    assert_eq!(files.read("database").expect("read"), bytes);
    let after = rig.volume().drive().getattr(ino).expect("attributes");
    assert_eq!((after.mtime, after.size), (mtime, bytes.len() as u64));
    rig.flush();
    rig.close();
    rig.become_new_machine("two");
    let files = rig.try_mount_by_words().expect("mounted");
    assert_eq!(files.read("database").expect("read"), bytes);
}

#[test]
fn a_log_that_grows_slowly_stays_in_few_pieces() {
    let (rig, files) = rig();
    files.write("log", b"").expect("written");
    let ino = files.find("log").expect("a file");
    let mut bytes = Vec::new();
    for line in 0..500 {
        let text = format!("{line}: something happened\n");
        files.append("log", text.as_bytes()).expect("appended");
        bytes.extend_from_slice(text.as_bytes());
        cut(&rig);
    }
    eventually("it is in few pieces", || extents(&rig, ino).len() <= 65);
    assert_eq!(files.read("log").expect("read"), bytes);
}

#[test]
fn holes_stay_where_they_are() {
    let (rig, files) = rig();
    files.write("image", b"").expect("written");
    let ino = files.find("image").expect("a file");
    let mut bytes = vec![0; MIB];
    // Pages in groups of eight with a page between, each page sealed for itself.
    let written: Vec<usize> = (0..MIB / PAGE).filter(|page| page % 9 != 8).collect();
    for at in scattered(written.len()) {
        let page = written[at];
        let page_bytes = noise(page as u64, PAGE);
        write_at(&rig, ino, page * PAGE, &page_bytes);
        bytes[page * PAGE..][..PAGE].copy_from_slice(&page_bytes);
        cut(&rig);
    }
    eventually("it is in few pieces", || extents(&rig, ino).len() <= 65);
    let bytes = &bytes[..(written.last().expect("a page") + 1) * PAGE];
    assert_eq!(files.read("image").expect("read"), bytes);
    for group in 0..written.len() / 8 {
        let (data, hole) = (group * 9 * PAGE, (group * 9 + 8) * PAGE);
        assert_eq!(seek(&rig, ino, data, SeekTarget::Hole), hole as u64);
        assert_eq!(seek(&rig, ino, data.saturating_sub(PAGE), SeekTarget::Data), data as u64);
    }
}

const ROWS_MAX: u64 = 2 << 20;

/// Where changes wait for the cut soon.
fn rig_of_short_records() -> (Rig, Files) {
    let mut rig = Rig::new();
    rig.adjust = |options| {
        options.cycle.age_max = Duration::from_secs(3600);
        options.drive.write_deadline = Duration::from_secs(60);
        options.drive.rows_max = ROWS_MAX;
    };
    let files = rig.try_mount_by_words().expect("mounted");
    (rig, files)
}

/// How many bytes of rows the longest record has, before they are compressed.
fn check_records(rig: &Rig) {
    let roots = rig.roots();
    let rows = |name: &ObjectName| {
        let ObjectName::Log(seq) = *name else { panic!("{name:?} in the log") };
        let record = Record::open(seq, &rig.memory.peek(name).expect("an object"), &roots).expect("a record");
        record.rows.iter().map(|(key, row)| (key.len() + row.as_ref().map_or(0, |row| row.len())) as u64).sum::<u64>()
    };
    let longest = rig.objects(Prefix::Log).iter().map(rows).max().expect("a record");
    assert!(longest > ROWS_MAX / 4 && longest < ROWS_MAX * 3 / 2, "the longest record has {longest} bytes of rows");
}

#[test]
fn no_record_is_too_long_for_devices_by_default() {
    assert_eq!(hushfs::vfs::DriveOptions::default().rows_max * 2, WHOLE_LEN_MAX);
}

#[test]
fn attributes_that_would_make_too_long_a_record_wait_for_a_cut() {
    let (rig, files) = rig_of_short_records();
    let value = noise(1, XATTR_LEN_MAX);
    for at in 0..4 * ROWS_MAX as usize / XATTR_LEN_MAX {
        let name = format!("file {at}");
        files.write(&name, b"").expect("a file");
        files.set_xattr(&name, "user.one", &value).expect("an attribute");
    }
    rig.flush();
    check_records(&rig);
}

/// One byte written to each of many files in thousands of pieces: the record has all their windows.
#[test]
fn windows_that_would_make_too_long_a_record_wait_for_a_cut() {
    const COPIES: usize = 200;
    let (rig, files) = rig_of_short_records();
    files.write("pieces", b"").expect("written");
    let ino = files.find("pieces").expect("a file");
    // Too far apart to be put together.
    for at in 0..64 * MIB / (2 * PAGE) {
        write_at(&rig, ino, at * 2 * PAGE + at % 1000, &noise(at as u64, 9));
    }
    let drive = rig.volume().drive();
    let open = |ino| Place {
        ino,
        handle: drive.open(ino, OpenFlags { write: true, ..OpenFlags::default() }).expect("opened"),
        offset: 0,
    };
    let copy = |copy: usize| {
        let name = format!("copy {copy}");
        files.write(&name, b"").expect("written");
        let (from, to) = (open(ino), open(files.find(&name).expect("a file")));
        drive.copy_range(from, to, 64 * MIB as u64, Kill::No).expect("copied");
        drive.release(ino, from.handle);
        drive.release(to.ino, to.handle);
        to.ino
    };
    let copies: Vec<InodeId> = (0..COPIES).map(copy).collect();
    rig.flush();
    check_records(&rig);
    copies.iter().enumerate().for_each(|(at, ino)| write_at(&rig, *ino, 3000, &noise(at as u64, 1)));
    rig.flush();
    check_records(&rig);
}
