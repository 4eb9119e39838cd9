//! A daemon's life as its user sees it: to the background, asked, interrupted, killed. An in-memory filesystem
//! stands in for the volume.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use hushfs::fuse::{Lazy, mount_at, unmount};

const HUSHFS: &str = env!("CARGO_BIN_EXE_hushfs");

struct Fixture {
    root: tempfile::TempDir,
    dir: PathBuf,
    log: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (dir, log) = (root.path().join("mount"), root.path().join("log"));
        std::fs::create_dir(&dir).unwrap();
        Self { dir: dir.canonicalize().unwrap(), log, root }
    }

    fn memfs(&self, how: &str, left: &str) -> Command {
        let mut command = Command::new(Path::new(HUSHFS).with_file_name("examples/memfs"));
        command.arg(how).arg(&self.dir).arg(&self.log).arg(left);
        command
    }

    fn mount(&self, left: &str) -> Output {
        self.memfs("--background", left).output().unwrap()
    }

    fn mount_in_foreground(&self, left: &str) -> Child {
        let child = self.memfs("--foreground", left).spawn().unwrap();
        self.wait_until(true);
        child
    }

    fn hushfs(&self, args: &[&str]) -> Output {
        Command::new(HUSHFS).args(args).arg(&self.dir).output().unwrap()
    }

    fn is_mounted(&self) -> bool {
        mount_at(&self.dir).unwrap().is_some()
    }

    fn wait_until(&self, mounted: bool) {
        let start = Instant::now();
        while self.is_mounted() != mounted {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn daemon(&self) -> i32 {
        let output = self.hushfs(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = unmount(&self.dir, Lazy::Yes);
        }
        assert!(self.root.path().exists());
    }
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[track_caller]
fn assert_code(output: &Output, expected: i32) {
    assert_eq!(code(output), Some(expected), "{}", String::from_utf8_lossy(&output.stderr));
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: sends a signal, to a process that this test started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn wait_for_death(pid: i32) {
    let start = Instant::now();
    // SAFETY: signal 0 only asks whether the process is there.
    while unsafe { libc::kill(pid, 0) } == 0 {
        // An orphan whose reaper is slow is dead too.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "process {pid} lives");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn mount_returns_when_the_drive_answers_and_umount_when_it_is_gone() {
    let fixture = Fixture::new();
    assert_code(&fixture.mount("0"), 0);
    // At once, with no waiting.
    std::fs::write(fixture.dir.join("x"), "contents").unwrap();
    let daemon = fixture.daemon();

    let status = String::from_utf8(fixture.hushfs(&["status"]).stdout).unwrap();
    assert!(status.starts_with(&format!("mem://drive on {}\n", fixture.dir.display())), "{status}");
    let all = Command::new(HUSHFS).args(["status", "--json"]).output().unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&all.stdout).unwrap();
    assert!(all.iter().any(|status| status["mountpoint"] == fixture.dir.to_str().unwrap()));

    assert_code(&fixture.hushfs(&["flush"]), 0);
    assert_code(&fixture.hushfs(&["umount"]), 0);
    assert!(!fixture.is_mounted());
    wait_for_death(daemon);
    assert_eq!(std::fs::read_dir(&fixture.dir).unwrap().count(), 0);
    assert_code(&fixture.hushfs(&["status"]), 1);
}

#[test]
fn a_failure_before_the_mount_is_the_commands_own() {
    let fixture = Fixture::new();
    let output = fixture.mount("fail");
    assert_code(&output, 3);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "memfs: no slot opens\n");
    assert!(!fixture.is_mounted());
}

#[test]
fn a_second_mount_and_an_umount_with_open_files_are_busy() {
    let fixture = Fixture::new();
    assert_code(&fixture.mount("0"), 0);
    assert_code(&fixture.mount("0"), 8);
    let store = fixture.root.path().join("store");
    let mount = Command::new(HUSHFS).arg("mount").arg(store).arg(&fixture.dir).env("HUSHFS_PASSWORD", "x").output();
    assert_code(&mount.unwrap(), 8);

    let open = File::create(fixture.dir.join("x")).unwrap();
    let busy = fixture.hushfs(&["umount"]);
    assert_code(&busy, 8);
    let message = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(message.contains(&format!("({})", std::process::id())), "{message}");
    assert!(fixture.is_mounted());
    drop(open);
    assert_code(&fixture.hushfs(&["umount"]), 0);
}

#[test]
fn an_interrupted_umount_says_what_is_left_and_leaves_the_drive() {
    let fixture = Fixture::new();
    assert_code(&fixture.mount("600"), 0);
    let umount =
        Command::new(HUSHFS).arg("umount").arg(&fixture.dir).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(800));
    signal(i32::try_from(umount.id()).unwrap(), libc::SIGINT);
    let output = umount.wait_with_output().unwrap();
    assert_code(&output, 9);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("1 file and ") && message.contains("KiB are not in the store yet"), "{message}");
    assert!(fixture.is_mounted());

    let daemon = fixture.daemon();
    assert_code(&fixture.hushfs(&["umount", "--no-wait"]), 0);
    wait_for_death(daemon);
}

#[test]
fn a_signal_unmounts_and_flushes_and_a_second_one_forces() {
    let fixture = Fixture::new();
    let mut child = fixture.mount_in_foreground("0");
    signal(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!fixture.is_mounted());

    let mut child = fixture.mount_in_foreground("600");
    let pid = i32::try_from(child.id()).unwrap();
    signal(pid, libc::SIGINT);
    fixture.wait_until(false);
    assert!(child.try_wait().unwrap().is_none(), "it must wait for the store");
    signal(pid, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_second_signal_ends_a_drive_that_is_in_use() {
    let fixture = Fixture::new();
    let mut child = fixture.mount_in_foreground("600");
    let open = File::create(fixture.dir.join("x")).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    signal(pid, libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none() && fixture.log().contains("files are open"), "{}", fixture.log());
    signal(pid, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!fixture.is_mounted());
    drop(open);
}

#[test]
fn unmounting_by_other_means_ends_the_daemon() {
    let fixture = Fixture::new();
    let mut child = fixture.mount_in_foreground("1");
    unmount(&fixture.dir, Lazy::No).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_killed_daemon_left_is_cleared() {
    let fixture = Fixture::new();
    assert_code(&fixture.mount("0"), 0);
    let daemon = fixture.daemon();
    signal(daemon, libc::SIGKILL);
    wait_for_death(daemon);
    assert!(fixture.is_mounted());
    // What asks while the kernel still closes the connection is told that it was aborted.
    let error = std::fs::metadata(fixture.dir.join("x")).unwrap_err().raw_os_error();
    assert!(matches!(error, Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error:?}");
    let all = Command::new(HUSHFS).arg("status").output().unwrap();
    for status in [all, fixture.hushfs(&["status"])] {
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(text.contains(&format!("{}\n  DEAD", fixture.dir.display())), "{text}");
    }

    // Mounting over it works, socket and all; so does unmounting it.
    assert_code(&fixture.mount("0"), 0);
    std::fs::write(fixture.dir.join("x"), "").unwrap();
    let daemon = fixture.daemon();
    signal(daemon, libc::SIGKILL);
    wait_for_death(daemon);
    assert_code(&fixture.hushfs(&["umount"]), 0);
    assert!(!fixture.is_mounted());
}

/// A container, or a service with a namespace of its own, keeps what was mounted when it began.
#[test]
fn a_drive_that_another_namespace_holds_is_unmounted_here_and_says_by_whom() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a namespace cannot be made here");
        return;
    }
    let fixture = Fixture::new();
    assert_code(&fixture.mount("0"), 0);
    let daemon = fixture.daemon();
    let mut other = Command::new("unshare");
    other.args(["--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 600"]);
    let mut other = other.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut [0]).unwrap();

    let output = fixture.hushfs(&["umount"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let (is_mounted, id) = (fixture.is_mounted(), other.id());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_code(&output, 8);
    assert!(message.contains(&format!("sleep ({id})")) && message.contains("all is in the store"), "{message}");
    assert!(!is_mounted);
    wait_for_death(daemon);
}

#[test]
fn the_log_holds_no_names() {
    let fixture = Fixture::new();
    let mut command = fixture.memfs("--background", "0");
    assert_code(&command.env("HUSHFS_LOG", "trace").output().unwrap(), 0);
    std::fs::create_dir(fixture.dir.join("canary-folder")).unwrap();
    std::fs::write(fixture.dir.join("canary-folder/canary-file"), "canary-contents").unwrap();
    let _ = std::fs::metadata(fixture.dir.join("canary-absent"));
    assert_code(&fixture.hushfs(&["umount"]), 0);
    assert!(!fixture.log().is_empty());
    assert!(!fixture.log().contains("canary"), "{}", fixture.log());
}

#[test]
fn wrong_usage_has_its_code_and_help_has_none() {
    let run = |args: &[&str]| Command::new(HUSHFS).args(args).output().unwrap();
    assert_code(&run(&["mount", "s3://bucket"]), 2);
    assert_code(&run(&["mount", "/store", "/", "-o", "frobnicate"]), 2);
    assert_code(&run(&["mount", "/store", "/nowhere/at/all"]), 1);
    assert_code(&run(&["mount", "/store", "/etc/passwd"]), 2);
    assert_code(&run(&["status", "/"]), 1);
    assert_code(&run(&["--version"]), 0);
    assert_code(&run(&["help", "mount"]), 0);
    let no_terminal = Command::new(HUSHFS)
        .args(["init", "/tmp/never-made"])
        .stdin(std::process::Stdio::null())
        .env_remove("HUSHFS_PASSWORD")
        .output()
        .unwrap();
    assert_code(&no_terminal, 2);
    assert!(!Path::new("/tmp/never-made").exists());
}
