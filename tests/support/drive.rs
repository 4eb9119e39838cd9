//! A real volume, mounted by the real program, for tests. Whatever happens, its mount does not outlive it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const PASSWORD: &str = "correct horse battery staple";

/// Folders for one machine's state and cache, a mount point, and the program running on them.
pub struct TestDrive {
    pub root: tempfile::TempDir,
    pub url: String,
    /// One for each "machine" that a test plays.
    pub machine: String,
    pub extra: Vec<String>,
    /// Variables that the program gets beside the usual ones.
    pub environment: Vec<(String, String)>,
    daemon: Option<Child>,
}

impl TestDrive {
    /// A new volume in a local folder, not mounted.
    pub fn local() -> Self {
        let root = scratch();
        let url = format!("file://{}", root.path().join("store").display());
        Self::init(root, url, Vec::new())
    }

    pub fn init(root: tempfile::TempDir, url: String, extra: Vec<String>) -> Self {
        let drive = Self::existing(root, url, extra);
        let output = drive.run(&["init", &drive.url, "--kdf-memory", "64MiB"]);
        assert!(output.status.success(), "init failed:\n{}", text(&output));
        drive
    }

    /// A volume that is there already.
    pub fn existing(root: tempfile::TempDir, url: String, extra: Vec<String>) -> Self {
        let drive = Self { root, url, machine: "one".into(), extra, environment: Vec::new(), daemon: None };
        fs::write(drive.password_file(), PASSWORD).expect("a password file");
        fs::create_dir_all(drive.mount_point()).expect("a mount point");
        drive
    }

    pub fn mount_point(&self) -> PathBuf {
        self.root.path().join("mnt")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.root.path().join(&self.machine).join("state")
    }

    pub fn cache_dir(&self) -> PathBuf {
        self.root.path().join(&self.machine).join("cache")
    }

    pub fn store_dir(&self) -> PathBuf {
        self.root.path().join("store")
    }

    pub fn log_file(&self) -> PathBuf {
        self.root.path().join("daemon.log")
    }

    pub fn password_file(&self) -> PathBuf {
        self.root.path().join("password")
    }

    /// The program with this drive's folders and password, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("hushfs runs")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hushfs"));
        command.args(arguments);
        // Only these ask which store; the others ask the daemon.
        if matches!(arguments.first(), Some(&("init" | "mount" | "key" | "recover"))) {
            command.args(&self.extra);
        }
        command.env("HUSHFS_PASSWORD", PASSWORD);
        command.env("XDG_STATE_HOME", self.root.path().join(&self.machine).join("xdg-state"));
        command.env("XDG_RUNTIME_DIR", self.root.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Mounts in the foreground of a child and waits until it answers.
    pub fn mount(&mut self) {
        self.mount_with(&[]);
    }

    pub fn mount_with(&mut self, arguments: &[&str]) {
        self.try_mount(arguments).unwrap_or_else(|log| panic!("the drive did not mount:\n{log}"));
    }

    pub fn try_mount(&mut self, arguments: &[&str]) -> Result<(), String> {
        assert!(self.daemon.is_none(), "mounted already");
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let (mount_point, state, cache) = (self.mount_point(), self.state_dir(), self.cache_dir());
        let mut command = self.command(&["mount", &self.url]);
        command.arg(&mount_point).arg("-f").arg("--state-dir").arg(state).arg("--cache-dir").arg(cache);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        let mut child = command.spawn().expect("hushfs runs");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_mounted(&mount_point) {
            if let Some(status) = child.try_wait().expect("the child's status") {
                return Err(format!("{status}\n{}", self.log()));
            }
            if Instant::now() > deadline {
                child.kill().expect("kill");
                child.wait().expect("wait");
                return Err(format!("not mounted after 60 s\n{}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon = Some(child);
        Ok(())
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("mounted").id()
    }

    /// kill -9. Whoever still works in the mount gets errors; the dead mount stays until `clear`.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().expect("mounted");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Takes a dead mount away. Not while anybody writes: they would go on in the folder beneath.
    pub fn clear(&self) {
        detach(&self.mount_point());
    }

    /// As a user ends it: waits until all is in the store.
    pub fn umount(&mut self) {
        let mount_point = self.mount_point();
        let output = self.run(&["umount", mount_point.to_str().expect("UTF-8")]);
        assert!(output.status.success(), "umount failed:\n{}\n{}", text(&output), self.log());
        let status = self.daemon.take().expect("mounted").wait().expect("wait");
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
        assert!(!is_mounted(&mount_point), "still mounted after umount");
    }

    pub fn flush(&self) {
        let output = self.run(&["flush", self.mount_point().to_str().expect("UTF-8")]);
        assert!(output.status.success(), "flush failed:\n{}\n{}", text(&output), self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// From here on a machine that has never seen the volume.
    pub fn become_new_machine(&mut self, name: &str) {
        assert!(self.daemon.is_none(), "still mounted");
        self.machine = name.into();
    }
}

impl Drop for TestDrive {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if is_mounted(&self.mount_point()) {
            detach(&self.mount_point());
        }
        if std::thread::panicking() {
            if std::env::var_os("HUSHFS_TEST_KEEP").is_some() {
                self.root.disable_cleanup(true);
                eprintln!("kept: {}", self.root.path().display());
            }
            eprintln!("--- the daemon's log ---\n{}", tail(&self.log(), 60));
        }
    }
}

/// A folder on a real disk, in `HUSHFS_TEST_TMP` when that is set.
pub fn scratch() -> tempfile::TempDir {
    match std::env::var_os("HUSHFS_TEST_TMP") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .expect("a temporary folder")
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

fn detach(path: &Path) {
    let status = Command::new("umount").arg("-l").arg(path).status();
    assert!(status.is_ok_and(|status| status.success()), "{} could not be unmounted", path.display());
}
