//! What people expect of a mounted filesystem, checked through the kernel, for any filesystem at any path.

mod attributes;
mod content;
mod limits;
pub mod listing;
mod lists;
mod names;
mod privileges;
mod processes;
mod special;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Each gets an empty directory of its own.
type Check = fn(&Path);

/// Runs all of them under `root` and fails at the end if any failed, naming each.
pub fn check_all(root: &Path) {
    let groups = [
        names::CHECKS,
        listing::CHECKS,
        content::CHECKS,
        attributes::CHECKS,
        lists::CHECKS,
        privileges::CHECKS,
        limits::CHECKS,
        processes::CHECKS,
        special::CHECKS,
    ];
    let failed: Vec<&str> =
        groups.into_iter().flatten().filter(|check| !passes(root, check)).map(|check| check.0).collect();
    assert!(failed.is_empty(), "{} checks failed: {failed:?}", failed.len());
}

fn passes(root: &Path, (name, check): &(&'static str, Check)) -> bool {
    let dir = root.join(name);
    fs::create_dir(&dir).unwrap();
    let start = std::time::Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| check(&dir))).is_ok();
    println!("{} {name} ({} ms)", if passed { "ok    " } else { "FAILED" }, start.elapsed().as_millis());
    if passed {
        fs::remove_dir_all(&dir).unwrap();
    }
    passed
}

/// A table of checks by their functions' names.
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        pub const CHECKS: &[(&str, super::Check)] = &[$((stringify!($name), $name)),*];
    };
}
use checks;

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
    fs::write(&path, bytes).unwrap();
    path.as_ref().into()
}

fn read_write(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// The error number that an operation must end with.
#[track_caller]
fn assert_errno<T>(expected: i32, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("succeeded instead of {}", io::Error::from_raw_os_error(expected)),
        Err(error) => assert_eq!(error.raw_os_error(), Some(expected), "{error}"),
    }
}

/// Whether this is the in-memory filesystem of our own tests, which knows holes only in large steps and has no access
/// control lists.
fn is_in_memory(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let on = |line: &str| line.starts_with("mem://") && line.split(' ').nth(1).is_some_and(|at| dir.starts_with(at));
    mounts.lines().any(on)
}

/// Whether other users are let in at all, as they are only to a mount with `allow_other`.
fn strangers_may_enter(dir: &Path) -> bool {
    is_root() && as_stranger("test", &["-e".as_ref(), dir.as_os_str()])
}

/// Whether a program run by nobody in particular succeeds.
fn as_stranger(program: &str, arguments: &[&OsStr]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).uid(STRANGER).gid(STRANGER).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

const STRANGER: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Bytes that repeat only after a long time, the same for the same seed.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}
