//! What runs with more rights than its caller has: when a file stops being that, and what a directory hands on.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, XattrFlags, fallocate, mknodat};

use super::attributes::{bits, chmod, get, set};
use super::{as_stranger, assert_errno, checks, is_in_memory, is_root, read_write, strangers_may_enter, write};

checks![
    chown_takes_privileges_away,
    a_strangers_changes_take_privileges_away,
    the_mode_alone_shows_it_too,
    roots_changes_take_only_capabilities_away,
    a_group_directory_hands_its_group_on,
    a_sticky_directory_protects_names,
    supplementary_groups_count,
];

/// Version 2, effective, with one permitted capability.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn chown_takes_privileges_away(dir: &Path) {
    if !is_root() {
        return;
    }
    let path = write(dir.join("x"), "");
    chmod(&path, 0o6755);
    chown(&path, Some(1), Some(1)).unwrap();
    assert_eq!(bits(&path), 0o755);
    chmod(&path, 0o6745);
    chown(&path, Some(2), None).unwrap();
    assert_eq!(bits(&path), 0o2745, "without group execute the bit is not a privilege");
    let pipe = dir.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    chmod(&pipe, 0o6755);
    chown(&pipe, None, Some(2)).unwrap();
    assert_eq!(bits(&pipe), 0o755, "files of other kinds lose it too");
    chmod(dir, 0o2755);
    chown(dir, Some(1), Some(1)).unwrap();
    assert_eq!(bits(dir), 0o2755, "directories keep it");
}

/// What may keep privileges is who asked, so each change is made by another user's process.
fn a_strangers_changes_take_privileges_away(dir: &Path) {
    if !strangers_may_enter(dir) {
        return;
    }
    let path = write(dir.join("x"), vec![b'x'; 100_000]);
    for change in [
        "echo more >> $0",
        "echo less > $0",
        "truncate -s 5 $0",
        "truncate -s 500 $0",
        "fallocate -l 9000 $0",
        "fallocate -p -o 0 -l 10 $0",
        "cp /etc/passwd $0",
        "dd if=/dev/zero of=$0 bs=4096 count=1 conv=notrunc oflag=direct",
    ] {
        chmod(&path, 0o6777);
        assert!(as_stranger("sh", &["-c".as_ref(), OsStr::new(change), path.as_os_str()]), "{change}");
        assert_eq!(bits(&path), 0o777, "{change}");
        chmod(&path, 0o6767);
        assert!(as_stranger("sh", &["-c".as_ref(), OsStr::new(change), path.as_os_str()]), "{change}");
        assert_eq!(bits(&path) & 0o4777, 0o767, "{change}");
    }
}

/// Who asks for the mode alone, as stat(1) does, may get what the kernel remembers.
fn the_mode_alone_shows_it_too(dir: &Path) {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    if !strangers_may_enter(dir) || is_in_memory(dir) {
        return;
    }
    let path = write(dir.join("x"), vec![b'x'; 100_000]);
    let mode = || u32::from(statx(CWD, &path, AtFlags::empty(), StatxFlags::MODE).unwrap().stx_mode) & 0o7777;
    for change in [
        "echo more >> $0",
        "fallocate -l 9000 $0",
        "dd if=/dev/zero of=$0 bs=4096 count=1 conv=notrunc oflag=direct",
        "dd if=/dev/zero of=$0 bs=4096 count=1 conv=notrunc",
    ] {
        chmod(&path, 0o6777);
        assert_eq!(mode(), 0o6777);
        assert!(as_stranger("sh", &["-c".as_ref(), OsStr::new(change), path.as_os_str()]), "{change}");
        // The kernel is told from another thread.
        let start = std::time::Instant::now();
        while mode() != 0o777 {
            assert!(start.elapsed() < std::time::Duration::from_secs(5), "{change}: {:o}", mode());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

fn roots_changes_take_only_capabilities_away(dir: &Path) {
    if !is_root() {
        return;
    }
    let path = write(dir.join("x"), vec![b'x'; 100_000]);
    let changes: [(&str, super::Check); 6] = [
        ("write", |path| read_write(path).write_all_at(b"more", 5).unwrap()),
        ("direct write", |path| {
            let file = fs::OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
            let mut buffer = vec![0; 8192];
            let start = buffer.as_ptr().align_offset(4096);
            file.write_all_at(&buffer[start..start + 4096], 0).unwrap();
            buffer.clear();
        }),
        ("truncate", |path| read_write(path).set_len(99_000).unwrap()),
        ("open and truncate", |path| drop(File::create(path).unwrap())),
        ("fallocate", |path| fallocate(read_write(path), FallocateFlags::empty(), 0, 100_000).unwrap()),
        ("copy", |path| {
            let from = File::open("/proc/self/exe").unwrap();
            let copied = std::io::copy(&mut &from, &mut &read_write(path)).unwrap();
            assert!(copied > 0);
        }),
    ];
    for (what, change) in changes {
        chmod(&path, 0o6755);
        set(&path, "security.capability", CAPABILITY, XattrFlags::empty()).unwrap();
        change(&path);
        assert_errno(libc::ENODATA, get(&path, "security.capability"));
        assert_eq!(bits(&path), 0o6755, "{what}");
    }
    set(&path, "security.capability", CAPABILITY, XattrFlags::empty()).unwrap();
    chown(&path, Some(1), None).unwrap();
    assert_errno(libc::ENODATA, get(&path, "security.capability"));
}

fn a_group_directory_hands_its_group_on(dir: &Path) {
    if !is_root() {
        return;
    }
    chown(dir, None, Some(4321)).unwrap();
    chmod(dir, 0o2755);
    write(dir.join("file"), "");
    fs::create_dir(dir.join("dir")).unwrap();
    symlink("x", dir.join("link")).unwrap();
    for name in ["file", "dir", "link"] {
        assert_eq!(fs::symlink_metadata(dir.join(name)).unwrap().gid(), 4321, "{name}");
    }
    assert_eq!((bits(&dir.join("file")) & 0o2000, bits(&dir.join("dir")) & 0o2000), (0, 0o2000));
}

fn a_sticky_directory_protects_names(dir: &Path) {
    if !strangers_may_enter(dir) {
        return;
    }
    let sticky = dir.join("sticky");
    fs::create_dir(&sticky).unwrap();
    chmod(&sticky, 0o1777);
    let path = write(sticky.join("mine"), "");
    chmod(&path, 0o666);
    assert!(!as_stranger("rm", &["-f".as_ref(), path.as_os_str()]));
    assert!(!as_stranger("mv", &[path.as_os_str(), sticky.join("theirs").as_os_str()]));
    assert!(as_stranger("touch", &[sticky.join("own").as_os_str()]));
    assert!(as_stranger("rm", &[sticky.join("own").as_os_str()]));
    chmod(&sticky, 0o777);
    assert!(as_stranger("rm", &["-f".as_ref(), path.as_os_str()]));
}

fn supplementary_groups_count(dir: &Path) {
    use std::os::unix::process::CommandExt;
    if !strangers_may_enter(dir) {
        return;
    }
    let path = write(dir.join("x"), "for the group");
    chown(&path, None, Some(4321)).unwrap();
    chmod(&path, 0o640);
    assert!(!as_stranger("cat", &[path.as_os_str()]));
    let mut cat = std::process::Command::new("cat");
    cat.arg(&path);
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        cat.pre_exec(|| {
            let groups = [4321];
            if libc::setgroups(1, groups.as_ptr()) != 0 || libc::setgid(65_534) != 0 || libc::setuid(65_534) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        })
    };
    assert_eq!(cat.output().unwrap().stdout, b"for the group");
}
