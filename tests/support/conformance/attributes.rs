//! Modes, owners, times, extended attributes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags};

use super::{as_stranger, assert_errno, checks, is_root, pattern, strangers_may_enter, write};

checks![
    a_new_files_attributes,
    the_umask_is_applied_once,
    chmod_sets_all_twelve_bits,
    chown_sets_owner_and_group,
    times_are_kept_to_the_nanosecond,
    times_before_1970_are_kept,
    one_time_is_set_and_the_other_left,
    a_write_changes_mtime_and_ctime,
    a_change_of_attributes_changes_ctime_only,
    a_links_own_times_are_set,
    attributes_by_name,
    attribute_errors,
    large_attributes,
    attributes_are_of_the_namespaces_that_linux_has,
    trusted_attributes_are_roots,
    a_program_cannot_have_user_attributes_where_linux_has_none,
];

pub fn bits(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn pause() {
    // Longer than the kernel's coarse clock.
    std::thread::sleep(Duration::from_millis(15));
}

fn a_new_files_attributes(dir: &Path) {
    let before = std::time::SystemTime::now() - Duration::from_secs(1);
    let path = write(dir.join("x"), "abc");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), meta.nlink(), meta.rdev()), (3, 1, 0));
    assert_eq!(meta.uid(), rustix::process::geteuid().as_raw());
    assert!(meta.blksize() >= 4096);
    assert!(meta.modified().unwrap() >= before && meta.accessed().unwrap() >= before);
    assert_eq!(fs::metadata(dir).unwrap().dev(), meta.dev());
}

fn the_umask_is_applied_once(dir: &Path) {
    let before = rustix::process::umask(Mode::from(0o027));
    let made = (|| {
        rustix::fs::open(dir.join("file"), rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o666.into())?;
        rustix::fs::mkdir(dir.join("dir"), 0o777.into())?;
        rustix::fs::mknodat(CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o666.into(), 0)
    })();
    rustix::process::umask(before);
    made.unwrap();
    assert_eq!([bits(&dir.join("file")), bits(&dir.join("dir")), bits(&dir.join("pipe"))], [0o640, 0o750, 0o640]);
}

fn chmod_sets_all_twelve_bits(dir: &Path) {
    let path = write(dir.join("x"), "");
    for mode in [0o7777, 0o4755, 0o2755, 0o1644, 0o000, 0o600] {
        chmod(&path, mode);
        assert_eq!(bits(&path), mode);
    }
    chmod(dir, 0o1777);
    assert_eq!(bits(dir), 0o1777);
    assert!(fs::metadata(dir).unwrap().is_dir());
}

fn chown_sets_owner_and_group(dir: &Path) {
    if !is_root() {
        return;
    }
    let path = write(dir.join("x"), "");
    let owner = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.uid(), meta.gid())
    };
    chown(&path, Some(1234), Some(4_000_000_000)).unwrap();
    assert_eq!(owner(&path), (1234, 4_000_000_000));
    chown(&path, None, Some(7)).unwrap();
    assert_eq!(owner(&path), (1234, 7));
    symlink("x", dir.join("link")).unwrap();
    lchown(dir.join("link"), Some(5), Some(6)).unwrap();
    assert_eq!((owner(&dir.join("link")), owner(&path)), ((5, 6), (1234, 7)));
}

fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64), flags: AtFlags) {
    let spec = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    rustix::fs::utimensat(CWD, path, &times, flags).unwrap();
}

fn times_of(path: &Path) -> ((i64, i64), (i64, i64)) {
    let meta = fs::symlink_metadata(path).unwrap();
    ((meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec()))
}

fn times_are_kept_to_the_nanosecond(dir: &Path) {
    let path = write(dir.join("x"), "abc");
    for times in [((1, 1), (2, 999_999_999)), ((1_700_000_000, 123_456_789), (5_000_000_000, 5)), ((0, 0), (0, 1))] {
        set_times(&path, times.0, times.1, AtFlags::empty());
        assert_eq!(times_of(&path), times);
        set_times(dir, times.0, times.1, AtFlags::empty());
        assert_eq!(times_of(dir), times);
    }
}

fn times_before_1970_are_kept(dir: &Path) {
    let path = write(dir.join("x"), "abc");
    for times in [((-1, 0), (-1, 999_999_999)), ((-2, 300_000_000), (-3_000_000_000, 1))] {
        set_times(&path, times.0, times.1, AtFlags::empty());
        assert_eq!(times_of(&path), times);
    }
}

fn one_time_is_set_and_the_other_left(dir: &Path) {
    let path = write(dir.join("x"), "abc");
    set_times(&path, (10, 1), (20, 2), AtFlags::empty());
    set_times(&path, (0, UTIME_OMIT), (30, 3), AtFlags::empty());
    assert_eq!(times_of(&path), ((10, 1), (30, 3)));
    set_times(&path, (0, UTIME_NOW), (0, UTIME_OMIT), AtFlags::empty());
    assert!(times_of(&path).0.0 > 1_600_000_000);
    assert_eq!(times_of(&path).1, (30, 3));
}

fn a_write_changes_mtime_and_ctime(dir: &Path) {
    let path = write(dir.join("x"), "abc");
    set_times(&path, (10, 1), (20, 2), AtFlags::empty());
    let ctime = |path: &Path| (fs::metadata(path).unwrap().ctime(), fs::metadata(path).unwrap().ctime_nsec());
    let before = ctime(&path);
    pause();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"d").unwrap();
    assert!(times_of(&path).1.0 > 1_600_000_000 && ctime(&path) > before);
    // An explicit time stays while the file is still open.
    set_times(&path, (10, 1), (20, 2), AtFlags::empty());
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(times_of(&path).1, (20, 2));
}

fn a_change_of_attributes_changes_ctime_only(dir: &Path) {
    let path = write(dir.join("x"), "abc");
    set_times(&path, (10, 1), (20, 2), AtFlags::empty());
    let ctime = || (fs::metadata(&path).unwrap().ctime(), fs::metadata(&path).unwrap().ctime_nsec());
    for change in [
        |path: &Path| chmod(path, 0o600),
        |path: &Path| rustix::fs::setxattr(path, "user.x", b"1", XattrFlags::empty()).unwrap(),
        |path: &Path| fs::hard_link(path, path.with_extension("link")).unwrap(),
        |path: &Path| fs::rename(path.with_extension("link"), path.with_extension("moved")).unwrap(),
        |path: &Path| fs::remove_file(path.with_extension("moved")).unwrap(),
    ] {
        let before = ctime();
        pause();
        change(&path);
        assert!(ctime() > before);
        assert_eq!(times_of(&path).1, (20, 2));
    }
}

fn a_links_own_times_are_set(dir: &Path) {
    let target = write(dir.join("x"), "");
    set_times(&target, (1, 1), (2, 2), AtFlags::empty());
    symlink("x", dir.join("link")).unwrap();
    set_times(&dir.join("link"), (30, 3), (40, 4), AtFlags::SYMLINK_NOFOLLOW);
    assert_eq!(times_of(&dir.join("link")), ((30, 3), (40, 4)));
    assert_eq!(times_of(&target), ((1, 1), (2, 2)));
}

pub fn get(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let len = rustix::fs::lgetxattr(path, name, &mut *value)?;
    value.truncate(len);
    Ok(value)
}

pub fn set(path: &Path, name: &str, value: &[u8], flags: XattrFlags) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, flags)?)
}

pub fn list(path: &Path) -> Vec<String> {
    let mut buffer = vec![0; 70_000];
    let len = rustix::fs::llistxattr(path, &mut *buffer).unwrap();
    let mut names: Vec<String> =
        buffer[..len].split(|byte| *byte == 0).map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names
}

fn attributes_by_name(dir: &Path) {
    for path in [write(dir.join("x"), ""), dir.to_path_buf()] {
        set(&path, "user.a", b"1", XattrFlags::empty()).unwrap();
        set(&path, "user.b", b"", XattrFlags::empty()).unwrap();
        set(&path, "user.a", b"\0changed\xff", XattrFlags::empty()).unwrap();
        assert_eq!(get(&path, "user.a").unwrap(), b"\0changed\xff");
        assert_eq!(get(&path, "user.b").unwrap(), b"");
        assert_eq!(list(&path), ["user.a", "user.b"]);
        rustix::fs::lremovexattr(&path, "user.a").unwrap();
        assert_eq!(list(&path), ["user.b"]);
        rustix::fs::lremovexattr(&path, "user.b").unwrap();
    }
}

fn attribute_errors(dir: &Path) {
    let path = write(dir.join("x"), "");
    assert_errno(libc::ENODATA, get(&path, "user.absent"));
    assert_errno(libc::ENODATA, rustix::fs::lremovexattr(&path, "user.absent").map_err(io::Error::from));
    assert_errno(libc::ENODATA, set(&path, "user.a", b"1", XattrFlags::REPLACE));
    set(&path, "user.a", b"12345", XattrFlags::CREATE).unwrap();
    assert_errno(libc::EEXIST, set(&path, "user.a", b"2", XattrFlags::CREATE));
    let mut short = [0; 3];
    assert_eq!(rustix::fs::lgetxattr(&path, "user.a", &mut short), Err(rustix::io::Errno::RANGE));
    assert_eq!(rustix::fs::llistxattr(&path, &mut short), Err(rustix::io::Errno::RANGE));
    let (c_path, name) = (std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap(), c"user.a");
    // SAFETY: valid strings, and a buffer of no length, which asks for the length.
    let lens = unsafe {
        let none = std::ptr::null_mut();
        (libc::lgetxattr(c_path.as_ptr(), name.as_ptr(), none, 0), libc::llistxattr(c_path.as_ptr(), none.cast(), 0))
    };
    assert_eq!(lens, (5, 7));
}

fn large_attributes(dir: &Path) {
    let path = write(dir.join("x"), "");
    let value = pattern(1, 65_536);
    set(&path, "user.large", &value, XattrFlags::empty()).unwrap();
    assert!(get(&path, "user.large").unwrap() == value);
    for n in 0..100 {
        set(&path, &format!("user.{}{n}", "n".repeat(200)), b"x", XattrFlags::empty()).unwrap();
    }
    assert_eq!(list(&path).len(), 101);
}

fn attributes_are_of_the_namespaces_that_linux_has(dir: &Path) {
    let path = write(dir.join("x"), "");
    for name in ["nothing", "users.x", "system.made_up", "x.y.z"] {
        assert_errno(libc::EOPNOTSUPP, set(&path, name, b"1", XattrFlags::empty()));
        assert_errno(libc::EOPNOTSUPP, get(&path, name));
    }
    assert_errno(libc::EINVAL, set(&path, "user.", b"1", XattrFlags::empty()));
    assert!(list(&path).is_empty());
    let longest = format!("user.{}", "n".repeat(250));
    set(&path, &longest, b"1", XattrFlags::empty()).unwrap();
    assert_eq!(get(&path, &longest).unwrap(), b"1");
    assert_errno(libc::ERANGE, set(&path, &format!("{longest}n"), b"1", XattrFlags::empty()));
    assert_errno(libc::E2BIG, set(&path, "user.x", &[0; 65_537], XattrFlags::empty()));
}

fn trusted_attributes_are_roots(dir: &Path) {
    if !strangers_may_enter(dir) {
        return;
    }
    let path = write(dir.join("x"), "");
    chmod(&path, 0o666);
    for name in ["trusted.t", "security.s", "user.u"] {
        set(&path, name, b"1", XattrFlags::empty()).unwrap();
    }
    assert_eq!(list(&path), ["security.s", "trusted.t", "user.u"]);
    let stranger = |arguments: &[&str]| {
        let arguments: Vec<&std::ffi::OsStr> =
            arguments.iter().map(|text| text.as_ref()).chain([path.as_os_str()]).collect();
        as_stranger(arguments[0].to_str().unwrap(), &arguments[1..])
    };
    assert!(stranger(&["getfattr", "-n", "user.u"]) && stranger(&["getfattr", "-n", "security.s"]));
    assert!(!stranger(&["getfattr", "-n", "trusted.t"]));
    // As ext4 has it, one is not even seen by who may not read it.
    assert!(stranger(&["sh", "-c", "! getfattr -d -m - \"$0\" 2>&1 | grep -q '^trusted'"]));
    assert!(stranger(&["setfattr", "-n", "user.u", "-v", "2"]));
    assert!(!stranger(&["setfattr", "-n", "trusted.t", "-v", "2"]));
    assert!(!stranger(&["setfattr", "-n", "security.s", "-v", "2"]));
}

fn a_program_cannot_have_user_attributes_where_linux_has_none(dir: &Path) {
    symlink("nowhere", dir.join("link")).unwrap();
    rustix::fs::mknodat(CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for name in ["link", "pipe"] {
        assert_errno(libc::EPERM, set(&dir.join(name), "user.x", b"1", XattrFlags::empty()));
        if is_root() {
            set(&dir.join(name), "trusted.x", b"1", XattrFlags::empty()).unwrap();
            assert_eq!(get(&dir.join(name), "trusted.x").unwrap(), b"1");
            assert_eq!(list(&dir.join(name)), ["trusted.x"]);
        }
    }
}
