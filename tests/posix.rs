//! What strict suites find in a mounted drive: nothing. Through the real program, the kernel and a local store.
//!
//! `scripts/posix.sh` runs the same at full length.

#[path = "support/conformance/mod.rs"]
mod conformance;
#[path = "support/drive.rs"]
mod drive;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use conformance::check_all;
use conformance::listing::{Listing, while_others_come_and_go};
use drive::{TestDrive, scratch, text};

/// Every optional feature that Linux has; chflags and NFSv4 ACLs it has not.
const PJDFSTEST_CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// All operations that fsx has, in a file that spans several chunks.
const FSX_CONFIG: &str = "
flen = 2500000
[opsize]
min = 1
max = 150000
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 4
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 2
punch_hole = 5
sendfile = 3
posix_fadvise = 2
copy_file_range = 5
";

/// fsx operations between two mounts.
const FSX_SEGMENT: u64 = 20_000;

fn mounted() -> TestDrive {
    let mut drive = TestDrive::local();
    let options: &[&str] = if is_root() { &["-o", "allow_other,suid,dev"] } else { &[] };
    drive.mount_with(options);
    drive
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a suite's program, which must be there: a suite that is not run finds nothing either.
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}; scripts/install.sh test brings it"));
    let text = text(&output);
    assert!(output.status.success(), "{name}: {}\n{}", output.status, failures(&text));
    text
}

/// What is worth reading of a long log.
fn failures(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_end().ends_with(" ok")).collect();
    lines[lines.len().saturating_sub(200)..].join("\n")
}

fn from_environment(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

#[test]
fn the_drive_does_what_people_expect() {
    let mut drive = mounted();
    check_all(&drive.mount_point());
    drive.umount();
}

#[test]
fn pjdfstest_finds_nothing() {
    let mut drive = mounted();
    let tools = drive.root.path().join("tools");
    put_remount(&drive, &tools);
    // Renames and links that must not leave a filesystem need a second one.
    let second = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let pjdfstest = |allow_remount: bool, tests: &str| {
        let config = drive.root.path().join("pjdfstest.toml");
        fs::write(&config, format!("{PJDFSTEST_CONFIG}[settings]\nnaptime = 0.02\nallow_remount = {allow_remount}\n"))
            .unwrap();
        let mut command = Command::new("pjdfstest");
        command.env("PATH", &path).arg("-c").arg(config).arg("-s").arg(second.path());
        let text = run(command.arg("-p").arg(drive.mount_point()).args(tests.split_whitespace()));
        println!("pjdfstest {tests}: {}", text.lines().rfind(|line| line.starts_with("Summary: ")).expect("a summary"));
        text
    };
    // The suite leaves a file open for writing, after which nothing can be mounted read-only; so that comes alone.
    let text = pjdfstest(false, "");
    if is_root() {
        pjdfstest(true, "erofs");
        // glibc's pathconf knows no limit of links for any FUSE filesystem, so there is none to try.
        let skipped = text.lines().filter(|line| line.ends_with(" skipped") && !line.contains("::erofs_"));
        let skipped: Vec<&str> = skipped.map(|line| line.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(skipped, ["link::link_count_max"]);
    }
    drive.umount();
}

/// The suite that pjdfstest's crate was written after: shell scripts that `prove` runs.
#[test]
#[ignore = "needs a checkout of the suite: scripts/posix.sh --pjdfstest DIR"]
fn the_original_pjdfstest_finds_nothing() {
    let suite = std::env::var_os("HUSHFS_PJDFSTEST").expect("HUSHFS_PJDFSTEST names a checkout in which make was run");
    assert!(is_root(), "most of it changes users");
    let mut drive = mounted();
    let dir = drive.mount_point().join("suite");
    fs::create_dir(&dir).unwrap();
    let text = run(Command::new("prove").arg("-r").arg(Path::new(&suite).join("tests")).current_dir(&dir));
    let tests = text.lines().rfind(|line| line.starts_with("Files=")).expect("a summary");
    println!("the original pjdfstest: {tests}");
    drive.umount();
}

/// A `mount` that knows our helper for `mount -o remount,ro DIR`, though it is not installed in /sbin.
fn put_remount(drive: &TestDrive, tools: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(tools).unwrap();
    let script = format!(
        "#!/bin/sh\ncase $2 in\nremount,*) exec {} mount -o \"$2\" {} \"$3\" ;;\n*) exec /bin/mount \"$@\" ;;\nesac\n",
        env!("CARGO_BIN_EXE_hushfs"),
        drive.url,
    );
    fs::write(tools.join("mount"), script).unwrap();
    fs::set_permissions(tools.join("mount"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Listed while others make and remove entries beside those that stay.
#[test]
fn a_directory_of_many_entries_is_listed_once_each_and_emptied() {
    let entries: usize = from_environment("HUSHFS_ENTRIES", "20000").parse().expect("a number");
    let mut drive = mounted();
    let dir = drive.mount_point().join("many");
    fs::create_dir(&dir).unwrap();
    let start = Instant::now();
    for n in 0..entries {
        fs::File::create(dir.join(format!("stays {n}"))).unwrap();
    }
    let made = start.elapsed();
    let list = || {
        let mut listing = Listing::open(&dir);
        let marked = listing.marked("stays");
        assert_eq!(marked.len(), entries);
        let names: HashSet<&String> = marked.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), entries);
        for (mark, name) in marked.iter().step_by((entries / 1000).max(1)).rev() {
            listing.go_to(*mark);
            assert_eq!(listing.next_with("stays").as_ref(), Some(name));
        }
    };
    while_others_come_and_go(&dir, list);
    drive.umount();
    drive.become_new_machine("another");
    drive.mount_with(&[]);
    let start_listing = Instant::now();
    list();
    let listed = start_listing.elapsed();
    let start = Instant::now();
    fs::remove_dir_all(&dir).unwrap();
    println!("{entries} entries: made in {made:.1?}, listed in {listed:.1?}, removed in {:.1?}", start.elapsed());
    drive.umount();
}

/// fsx decides by its seed alone, so a run on another filesystem makes the same file: that is compared after the
/// drive was mounted again, and at the end on a machine that has nothing but the store.
#[test]
fn fsx_finds_nothing_and_the_file_outlives_the_mount() {
    let operations: u64 = from_environment("HUSHFS_FSX_OPERATIONS", "3000").parse().expect("a number");
    let mut drive = mounted();
    let config = drive.root.path().join("fsx.toml");
    fs::write(&config, FSX_CONFIG).unwrap();
    let elsewhere = scratch();
    for (number, seed) in from_environment("HUSHFS_FSX_SEEDS", "1").split(' ').enumerate() {
        let seed: u64 = seed.parse().expect("a number");
        for first in (0..operations).step_by(FSX_SEGMENT as usize) {
            let count = FSX_SEGMENT.min(operations - first);
            let fsx = |file: PathBuf| {
                let mut command = Command::new("fsx");
                command.arg("-f").arg(&config).arg("-P").arg(elsewhere.path());
                command.arg("-S").arg((seed + first).to_string()).arg("-N").arg(count.to_string()).arg(&file);
                run(&mut command);
                fs::read(&file).unwrap()
            };
            let here = fsx(drive.mount_point().join("file"));
            let there = fsx(elsewhere.path().join("file"));
            assert!(here == there, "seed {seed}, operations from {first}: another file than on the local disk");
            drive.umount();
            if first + count == operations {
                drive.become_new_machine(&format!("after seed number {number}"));
            }
            drive.mount_with(&[]);
            let after = fs::read(drive.mount_point().join("file")).unwrap();
            assert!(after == there, "seed {seed}, operations from {first}: another file after mounting again");
        }
        println!("fsx: seed {seed}, {operations} operations");
    }
    drive.umount();
}
