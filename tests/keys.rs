//! `hushfs key` and `recover` as a user calls them, on a volume that is mounted and on one that is not.

#[path = "support/drive.rs"]
mod drive;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use drive::{PASSWORD, TestDrive, scratch, text};

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

const USAGE: i32 = 2;
const WRONG_SECRET: i32 = 3;
const NO_VOLUME: i32 = 4;
const ROLLBACK: i32 = 7;
const INTERRUPTED: i32 = 9;

fn key(drive: &TestDrive, command: &str, more: &[&str]) -> Output {
    drive.run(&[&["key", command, &drive.url], more].concat())
}

/// For what this machine's device does.
fn device(drive: &TestDrive) -> Vec<String> {
    let path = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    vec!["--state-dir".into(), path(drive.state_dir()), "--cache-dir".into(), path(drive.cache_dir())]
}

fn by_device(drive: &TestDrive, command: &str, more: &[&str]) -> Output {
    let device = device(drive);
    key(drive, command, &[more, &device.iter().map(String::as_str).collect::<Vec<_>>()].concat())
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    text(output)
}

fn file(drive: &TestDrive, name: &str, content: &str) -> String {
    let path = drive.root.path().join(name);
    fs::write(&path, content).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn status(drive: &TestDrive) -> serde_json::Value {
    let output = drive.run(&["status", "--json", drive.mount_point().to_str().expect("UTF-8")]);
    serde_json::from_str(&ends(&output, 0)).expect("JSON")
}

fn fingerprint(told: &str) -> String {
    let digits = |word: &&str| word.len() == 39 && word.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    told.split_whitespace().find(digits).unwrap_or_else(|| panic!("no fingerprint in {told}")).to_owned()
}

#[test]
fn who_is_let_in_mounts_by_identity_until_they_are_shut_out() {
    let mut drive = TestDrive::local();
    drive.mount();
    fs::write(drive.mount_point().join("file"), "before").expect("written");
    drive.umount();
    let listed = ends(&key(&drive, "ls", &[]), 0);
    assert!(listed.contains("password") && listed.contains("recovery key"), "{listed}");
    ends(&key(&drive, "add", &["--recipient", "age1nonsense"]), USAGE);
    ends(
        &key(&drive, "add", &["--recipient", RECIPIENT, "--password-file", &file(&drive, "wrong", "wrong")]),
        WRONG_SECRET,
    );
    let added = ends(&key(&drive, "add", &["--recipient", RECIPIENT, "--label", "the server"]), 0);
    assert!(added.contains("slot 3"), "{added}");
    let fingerprint = fingerprint(&added);
    let listed = ends(&key(&drive, "ls", &[]), 0);
    assert!(listed.contains(&format!("Volume {fingerprint}")) && listed.contains("the server"), "{listed}");

    let identity = file(&drive, "identity", &format!("# theirs\n{IDENTITY}\n"));
    let owner = drive.machine.clone();
    drive.become_new_machine("theirs");
    let mut refused =
        |more: &[&str]| drive.try_mount(&[&["--identity", &identity], more].concat()).expect_err("it mounts");
    assert!(refused(&[]).contains(&format!("exit status: {USAGE}")));
    assert!(refused(&["--fingerprint", "0000-0000"]).contains(&format!("exit status: {ROLLBACK}")));
    assert!(refused(&["-o", "identity=/nowhere"]).contains("/nowhere"));
    drive.mount_with(&["--identity", &identity, "--fingerprint", &fingerprint]);
    assert_eq!(fs::read_to_string(drive.mount_point().join("file")).expect("read"), "before");
    drive.umount();
    // They need the fingerprint once.
    drive.mount_with(&["-o", &format!("identity={identity}")]);
    drive.umount();
    ends(&key(&drive, "ls", &["--identity", &identity]), 0);

    drive.become_new_machine(&owner);
    assert!(ends(&by_device(&drive, "rm", &["99"]), USAGE).contains("no key slot 99"));
    assert!(ends(&by_device(&drive, "rm", &["1"]), USAGE).contains("the one that you unlocked with"));
    ends(&by_device(&drive, "rm", &["3"]), 0);
    let listed = ends(&key(&drive, "ls", &[]), 0);
    assert!(!listed.contains("the server") && listed.contains("recovery key"), "{listed}");
    ends(&key(&drive, "ls", &["--identity", &identity]), WRONG_SECRET);
    drive.mount();
    fs::write(drive.mount_point().join("file"), "after").expect("written");
    drive.umount();
    for machine in ["theirs", "theirs again"] {
        drive.become_new_machine(machine);
        let refused = drive.try_mount(&["--identity", &identity, "--trust-first"]).expect_err("they are still let in");
        assert!(refused.contains(&format!("exit status: {WRONG_SECRET}")), "{refused}");
    }
}

#[test]
fn keys_change_under_a_mounted_drive_and_its_data_with_them() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    let large = vec![b'x'; 3 << 20];
    fs::write(mount.join("large"), &large).expect("written");
    fs::write(mount.join("small"), "small").expect("written");
    drive.flush();
    assert_eq!(status(&drive)["old_keys"]["chunks"], 0);
    ends(&by_device(&drive, "rotate", &[]), 0);
    let old = |drive: &TestDrive| status(drive)["old_keys"].clone();
    eventually("it is counted", || old(&drive)["files"] == 2);
    let told = ends(&drive.run(&["status", mount.to_str().expect("UTF-8")]), 0);
    assert!(told.contains("old keys   2 files"), "{told}");
    // Who is let in meanwhile, and out again.
    ends(&key(&drive, "add", &["--recipient", RECIPIENT]), 0);
    ends(&by_device(&drive, "rm", &["3"]), 0);
    ends(&by_device(&drive, "rotate", &["--data", "--rate", "50MiB/s"]), 0);
    let old = old(&drive);
    assert_eq!((&old["files"], &old["bytes"], &old["resealing"]), (&0.into(), &0.into(), &false.into()), "{old}");
    assert_eq!(fs::read(mount.join("large")).expect("read"), large);
    drive.umount();
    ends(&by_device(&drive, "rotate", &["--data"]), 0);
    drive.become_new_machine("new");
    drive.mount();
    assert_eq!(fs::read(mount.join("large")).expect("read"), large);
    assert_eq!(fs::read_to_string(mount.join("small")).expect("read"), "small");
}

fn epochs(drive: &TestDrive) -> usize {
    let keys = fs::read_dir(drive.store_dir().join("keys")).expect("keys");
    keys.filter(|epoch| epoch.as_ref().expect("an entry").path().join("chain").exists()).count()
}

fn spawn(drive: &TestDrive, more: &[&str]) -> Child {
    let device = device(drive);
    let mut command = drive.command(&["key", "rotate", &drive.url, "--data"]);
    command.args(more).args(device).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("hushfs runs")
}

fn interrupt(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    child.wait_with_output().expect("its end")
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn sealing_anew_survives_interruptions_and_kills() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    let content = |number: u8| {
        (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number).collect::<Vec<_>>()
    };
    for number in 0..8 {
        fs::write(mount.join(number.to_string()), content(number)).expect("written");
    }
    drive.flush();
    // The command is interrupted, and the daemon goes on; then it is killed.
    let left = |drive: &TestDrive| status(drive)["old_keys"]["chunks"].as_u64().unwrap_or(u64::MAX);
    let command = spawn(&drive, &["--rate", "1MiB/s"]);
    eventually("some of it is done", || (1..=6).contains(&left(&drive)));
    let interrupted = ends(&interrupt(command), INTERRUPTED);
    assert!(interrupted.contains("the drive goes on with it"), "{interrupted}");
    eventually("it goes on", || left(&drive) <= 5);
    drive.kill();
    drive.clear();
    drive.mount();
    assert_eq!(status(&drive)["old_keys"]["resealing"], true);
    assert!(left(&drive) > 0);
    // The same command gives no new keys once more.
    ends(&by_device(&drive, "rotate", &["--data"]), 0);
    assert_eq!((left(&drive), epochs(&drive)), (0, 1));
    drive.umount();

    // Without a mount.
    let command = spawn(&drive, &["--rate", "1MiB/s"]);
    eventually("it has begun", || epochs(&drive) == 2);
    std::thread::sleep(Duration::from_secs(2));
    let interrupted = ends(&interrupt(command), INTERRUPTED);
    assert!(interrupted.contains("are still sealed with old keys"), "{interrupted}");
    let mut command = spawn(&drive, &["--rate", "1MiB/s"]);
    std::thread::sleep(Duration::from_secs(2));
    command.kill().expect("killed");
    command.wait().expect("its end");
    ends(&by_device(&drive, "rotate", &["--data"]), 0);
    assert_eq!(epochs(&drive), 2);
    drive.become_new_machine("new");
    drive.mount();
    assert_eq!(left(&drive), 0);
    for number in 0..8 {
        assert_eq!(fs::read(mount.join(number.to_string())).expect("read"), content(number));
    }
}

#[test]
fn a_password_is_changed_and_a_lost_one_is_replaced() {
    let root = scratch();
    let url = format!("file://{}", root.path().join("store").display());
    let mut drive = TestDrive::existing(root, url.clone(), Vec::new());
    fs::create_dir(drive.store_dir()).expect("a folder");
    ends(&key(&drive, "ls", &[]), NO_VOLUME);
    let made = ends(&drive.run(&["init", &url, "--kdf-memory", "64MiB"]), 0);
    let rows =
        made.lines().filter(|line| line.split_whitespace().next().is_some_and(|first| first.parse::<u8>().is_ok()));
    let words: Vec<_> = rows.flat_map(|row| row.split_whitespace().skip(1)).collect();
    assert_eq!(words.len(), 24, "{made}");
    let (old, new, newer) =
        (file(&drive, "old", PASSWORD), file(&drive, "new", "new\n"), file(&drive, "newer", "newer"));
    ends(&key(&drive, "passwd", &["--password-file", &new, "--new-password-file", &newer]), WRONG_SECRET);
    ends(&key(&drive, "passwd", &["--password-file", &old, "--new-password-file", &new]), 0);
    ends(&key(&drive, "ls", &["--password-file", &old]), WRONG_SECRET);
    ends(&key(&drive, "ls", &["--password-file", &new]), 0);

    let recover = |words: &str| {
        let words = file(&drive, "words", words);
        drive.run(&["recover", &url, "--recovery-key-file", &words, "--new-password-file", &newer])
    };
    ends(&recover(&words[1..].join(" ")), WRONG_SECRET);
    ends(&recover(&[&words[1..], &words[..1]].concat().join(" ")), WRONG_SECRET);
    ends(&recover(&words.join("  ").to_uppercase()), 0);
    ends(&key(&drive, "ls", &["--password-file", &new]), WRONG_SECRET);
    // The recovery key goes, and the last one stays.
    ends(&by_device(&drive, "rm", &["2", "--password-file", &newer]), 0);
    ends(&recover(&words.join(" ")), WRONG_SECRET);
    let listed = ends(&key(&drive, "ls", &["--password-file", &newer]), 0);
    let last = listed.lines().last().expect("a slot").split_whitespace().next().expect("its number").to_owned();
    ends(&by_device(&drive, "rm", &[&last, "--password-file", &newer]), USAGE);
    drive.mount_with(&["--password-file", &newer]);
    drive.umount();
}
