//! What is neither file nor directory, locks, and the filesystem as a whole.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{CWD, FileType, FlockOperation, flock, makedev, mknodat};

use super::{checks, is_root, read_write, write};

checks![
    a_pipe_carries_bytes,
    a_socket_accepts,
    device_nodes_keep_their_numbers,
    nodes_of_regular_files_are_files,
    whole_file_locks_exclude,
    range_locks_exclude,
    the_filesystem_says_how_large_it_is,
    a_deep_tree_works,
    a_tree_is_removed,
];

fn a_pipe_carries_bytes(dir: &Path) {
    let path = dir.join("pipe");
    mknodat(CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    let received = std::thread::scope(|scope| {
        scope.spawn(|| fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"through").unwrap());
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(received, "through");
}

fn a_socket_accepts(dir: &Path) {
    // A socket's path has 108 bytes at most, so it is named from inside the directory's descriptor.
    let open = File::open(dir).unwrap();
    let path = format!("/proc/self/fd/{}/socket", std::os::fd::AsRawFd::as_raw_fd(&open));
    let listener = UnixListener::bind(&path).unwrap();
    assert!(fs::metadata(dir.join("socket")).unwrap().file_type().is_socket());
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

fn device_nodes_keep_their_numbers(dir: &Path) {
    if !is_root() {
        return;
    }
    for (name, kind, device) in
        [("null", FileType::CharacterDevice, makedev(1, 3)), ("disk", FileType::BlockDevice, makedev(259, 70_000))]
    {
        mknodat(CWD, dir.join(name), kind, 0o600.into(), device).unwrap();
        let meta = fs::metadata(dir.join(name)).unwrap();
        assert_eq!(meta.rdev(), device);
        assert_eq!(FileType::from_raw_mode(meta.mode()), kind);
    }
}

fn nodes_of_regular_files_are_files(dir: &Path) {
    mknodat(CWD, dir.join("x"), FileType::RegularFile, 0o600.into(), 0).unwrap();
    write(dir.join("x"), "abc");
    assert_eq!(fs::metadata(dir.join("x")).unwrap().len(), 3);
}

fn whole_file_locks_exclude(dir: &Path) {
    let (a, b) = (read_write(dir.join("x")), read_write(dir.join("x")));
    flock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(flock(&b, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK));
    flock(&a, FlockOperation::Unlock).unwrap();
    flock(&b, FlockOperation::NonBlockingLockShared).unwrap();
}

fn range_locks_exclude(dir: &Path) {
    let (a, b) = (read_write(dir.join("x")), read_write(dir.join("x")));
    let lock = |file: &File, start: i64| {
        // SAFETY: zeros are a valid `flock`.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        (lock.l_type, lock.l_start, lock.l_len) = (libc::F_WRLCK as i16, start, 10);
        // SAFETY: a valid descriptor and structure.
        unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(file), libc::F_OFD_SETLK, &raw const lock) == 0 }
    };
    assert!(lock(&a, 0));
    assert!(!lock(&b, 5));
    assert!(lock(&b, 10));
    drop(a);
    assert!(lock(&b, 5));
}

fn the_filesystem_says_how_large_it_is(dir: &Path) {
    let stat = rustix::fs::statvfs(dir).unwrap();
    assert_eq!(stat.f_namemax, 255);
    assert!(stat.f_blocks > 0 && stat.f_bavail <= stat.f_bfree && stat.f_bfree <= stat.f_blocks);
    assert!(stat.f_bsize >= 512 && stat.f_frsize >= 512);
}

fn a_deep_tree_works(dir: &Path) {
    let mut path = dir.to_path_buf();
    for n in 0..60 {
        path.push(format!("level {n}"));
    }
    fs::create_dir_all(&path).unwrap();
    write(path.join("leaf"), "deep");
    assert_eq!(fs::read(path.join("leaf")).unwrap(), b"deep");
}

fn a_tree_is_removed(dir: &Path) {
    for n in 0..20 {
        let folder = dir.join(format!("tree/{n}/below"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..20 {
            write(folder.join(file.to_string()), "x");
        }
    }
    fs::remove_dir_all(dir.join("tree")).unwrap();
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    assert_eq!(fs::metadata(dir).unwrap().nlink(), 2);
}
