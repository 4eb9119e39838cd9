//! What a drive is told at its mount, and what of a tree's odder properties another machine sees.

#[path = "support/drive.rs"]
mod drive;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, utimensat};

use drive::{TestDrive, text};

const MIB: u64 = 1 << 20;

/// Bytes that repeat nowhere, so that nothing is stored only once.
fn unlike(seed: u64, len: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

/// Total and available, as df has them.
fn space(path: &Path) -> (u64, u64) {
    let stat = rustix::fs::statvfs(path).unwrap();
    (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize)
}

#[test]
fn a_quota_is_obeyed_shown_and_known_to_all_machines() {
    let mut drive = TestDrive::local();
    drive.mount_with(&["--quota", "20MiB"]);
    let mount = drive.mount_point();
    assert_eq!(space(&mount).0, 20 * MIB);
    let file = File::create(mount.join("first")).unwrap();
    file.write_all_at(&unlike(1, 15 * MIB), 0).unwrap();
    // Nothing of it is committed yet, and some of it not even sealed.
    let available = space(&mount).1;
    assert!((4 * MIB..=5 * MIB).contains(&available), "{available}");

    let full = |result: io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    full(fs::write(mount.join("second"), unlike(2, 10 * MIB)));
    full(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 40 * MIB).map_err(Into::into));
    // In its own place all fits.
    file.write_all_at(&unlike(3, 15 * MIB), 0).unwrap();
    drop(file);
    fs::remove_file(mount.join("second")).unwrap();
    drive.flush();
    assert!((4 * MIB..=5 * MIB).contains(&space(&mount).1), "{:?}", space(&mount));
    fs::remove_file(mount.join("first")).unwrap();
    assert_eq!(space(&mount).1, 20 * MIB);
    drive.umount();

    drive.become_new_machine("another");
    drive.mount();
    assert_eq!(space(&mount), (20 * MIB, 20 * MIB));
    // Not listed: a copy of attributes from elsewhere would take it away.
    let mut names = [0; 1000];
    assert_eq!(rustix::fs::listxattr(&mount, &mut names).unwrap(), 0);
    let set = |path: &Path, value: &[u8]| rustix::fs::setxattr(path, "hushfs.quota", value, XattrFlags::empty());
    set(&mount, b"40MiB").unwrap();
    assert_eq!(space(&mount).0, 40 * MIB);
    assert_eq!(set(&mount, b"plenty"), Err(rustix::io::Errno::INVAL));
    fs::create_dir(mount.join("below")).unwrap();
    assert_eq!(set(&mount.join("below"), b"1MiB"), Err(rustix::io::Errno::OPNOTSUPP));
    drive.umount();
    drive.mount_with(&["-o", "quota=0"]);
    assert!(space(&mount).0 >= 1 << 50);
    drive.umount();
}

fn atime(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.atime(), meta.atime_nsec())
}

fn set_atime(path: &Path, secs: i64) {
    let (last_access, last_modification) =
        (Timespec { tv_sec: secs, tv_nsec: 0 }, Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT });
    let times = Timestamps { last_access, last_modification };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

type Read = fn(&Path);

/// A file, a directory and a link, each with what reads it.
fn readable(mount: &Path) -> [(PathBuf, Read); 3] {
    [
        (mount.join("file"), |path| drop(fs::read(path).unwrap())),
        (mount.join("dir"), |path| assert_eq!(fs::read_dir(path).unwrap().count(), 1)),
        (mount.join("link"), |path| drop(fs::read_link(path).unwrap())),
    ]
}

#[test]
fn access_times_are_as_the_mount_options_say() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    fs::write(mount.join("file"), "contents").unwrap();
    fs::create_dir_all(mount.join("dir/below")).unwrap();
    symlink("nowhere", mount.join("link")).unwrap();
    for (path, read) in readable(&mount) {
        set_atime(&path, 1000);
        read(&path);
        let first = atime(&path);
        assert!(first.0 > 1000, "{}: relatime follows a change", path.display());
        std::thread::sleep(Duration::from_millis(20));
        read(&path);
        assert_eq!(atime(&path), first, "{}: and then rests", path.display());
        set_atime(&path, 1000);
    }
    drive.umount();

    drive.mount_with(&["-o", "noatime"]);
    for (path, read) in readable(&mount) {
        read(&path);
        assert_eq!(atime(&path).0, 1000, "{}", path.display());
    }
    drive.umount();

    drive.mount_with(&["-o", "nodiratime"]);
    for (path, read) in readable(&mount) {
        read(&path);
        assert_eq!(atime(&path).0 == 1000, path.ends_with("dir"), "{}", path.display());
    }
    drive.umount();

    drive.mount_with(&["-o", "strictatime"]);
    for (path, read) in readable(&mount).into_iter().take(2) {
        read(&path);
        let first = atime(&path);
        std::thread::sleep(Duration::from_millis(20));
        read(&path);
        assert!(atime(&path) > first, "{}", path.display());
    }
    drive.umount();
}

#[test]
fn access_times_outlive_the_mount_on_the_device_that_read() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    fs::write(mount.join("file"), "contents").unwrap();
    fs::create_dir_all(mount.join("dir/below")).unwrap();
    symlink("nowhere", mount.join("link")).unwrap();
    let noticed = readable(&mount).map(|(path, read)| {
        set_atime(&path, 1000);
        read(&path);
        assert!(atime(&path).0 > 1000);
        (atime(&path), path)
    });
    drive.umount();
    drive.mount();
    for (time, path) in &noticed {
        assert_eq!(atime(path), *time, "{}", path.display());
    }
    // Another change of one of them takes its time along.
    fs::set_permissions(&noticed[0].1, fs::Permissions::from_mode(0o600)).unwrap();
    drive.umount();

    drive.become_new_machine("another");
    drive.mount();
    assert_eq!(atime(&noticed[0].1), noticed[0].0);
    assert_eq!((atime(&noticed[1].1).0, atime(&noticed[2].1).0), (1000, 1000));
    drive.umount();
}

#[test]
fn who_asks_not_to_be_noticed_is_not() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    fs::write(mount.join("file"), "contents").unwrap();
    fs::create_dir_all(mount.join("dir/below")).unwrap();
    let quietly = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    let (file, dir) = (mount.join("file"), mount.join("dir"));
    for path in [&file, &dir] {
        set_atime(path, 1000);
    }
    let open_file = rustix::fs::open(&file, quietly, Mode::empty()).unwrap();
    assert_eq!(rustix::io::read(&open_file, &mut [0; 100]).unwrap(), 8);
    let open_dir = rustix::fs::open(&dir, quietly, Mode::empty()).unwrap();
    assert_eq!(rustix::fs::Dir::read_from(&open_dir).unwrap().count(), 3, "below, and the dots");
    assert_eq!((atime(&file).0, atime(&dir).0), (1000, 1000));
    // Others still are, also while a quiet one has it open.
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert!(atime(&dir).0 > 1000);
    drop((open_file, open_dir));
    drive.umount();
}

#[test]
fn what_a_tree_has_beside_contents_is_the_same_on_another_machine() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    let path = mount.join(OsStr::from_bytes(b"not \xff UTF-8\n"));
    fs::write(&path, "contents").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let list = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x05\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x07\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    let mut attributes = vec![("user.a", &b"\0\xff"[..]), ("user.empty", b""), ("system.posix_acl_access", &list[..])];
    if rustix::process::geteuid().is_root() {
        attributes.extend([("trusted.t", &b"t"[..]), ("security.s", b"s")]);
    }
    for (name, value) in &attributes {
        rustix::fs::setxattr(&path, *name, value, XattrFlags::empty()).unwrap();
    }
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 999_999_999 };
    let times = Timestamps { last_access: time(-3_000_000_000), last_modification: time(1 << 35) };
    utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    let before = fs::metadata(&path).unwrap();
    drive.umount();

    drive.become_new_machine("another");
    drive.mount();
    let after = fs::metadata(&path).unwrap();
    let seen = |meta: &fs::Metadata| {
        let ctime = (meta.ctime(), meta.ctime_nsec());
        (meta.mode(), meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec(), ctime, meta.blocks())
    };
    assert_eq!(seen(&after), seen(&before));
    assert_eq!((after.mode() & 0o7777, after.mtime(), after.atime()), (0o6774, 1 << 35, -3_000_000_000));
    let mut buffer = [0; 1000];
    for (name, value) in attributes {
        let len = rustix::fs::getxattr(&path, name, &mut buffer).unwrap();
        assert_eq!(&buffer[..len], value, "{name}");
    }
    drive.umount();
}

/// What NFS servers hand out for a file, and what backup programs remember.
#[derive(Clone)]
#[repr(C, align(8))]
struct FileHandle([u8; 8 + libc::MAX_HANDLE_SZ as usize]);

impl FileHandle {
    fn of(path: &Path) -> Self {
        let mut handle = Self([0; 8 + libc::MAX_HANDLE_SZ as usize]);
        handle.0[..4].copy_from_slice(&(libc::MAX_HANDLE_SZ as u32).to_ne_bytes());
        let (path, mut mount) = (std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap(), 0);
        // SAFETY: a valid string, and room for as long a handle as it says.
        let result = unsafe {
            libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle.0.as_mut_ptr().cast(), &raw mut mount, 0)
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        handle
    }

    fn open(&self, mount: &Path) -> io::Result<File> {
        use std::os::fd::{AsRawFd, FromRawFd};
        let (mount, mut handle) = (File::open(mount)?, self.clone());
        // SAFETY: a valid descriptor, and a handle that was given out.
        let opened = unsafe {
            libc::open_by_handle_at(mount.as_raw_fd(), handle.0.as_mut_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC)
        };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        Ok(unsafe { File::from_raw_fd(opened) })
    }
}

#[test]
fn file_handles_outlive_the_mount_and_end_with_the_file() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    fs::create_dir_all(mount.join("a/b/c")).unwrap();
    let paths = ["a/b/c/file", "a/b/c", "a/gone", ""].map(|path| mount.join(path));
    fs::write(&paths[0], "contents").unwrap();
    fs::write(&paths[2], "of no use").unwrap();
    let inodes = paths.clone().map(|path| fs::metadata(path).unwrap().ino());
    let handles = paths.clone().map(|path| FileHandle::of(&path));
    let stale = |result: io::Result<File>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ESTALE));
    for remount in [false, true] {
        if remount {
            drive.umount();
            drive.mount();
        }
        let file = handles[0].open(&mount).unwrap();
        assert_eq!(io::read_to_string(&file).unwrap(), "contents");
        // Where a directory is, is found from below.
        let dir = handles[1].open(&mount).unwrap();
        let there = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir))).unwrap();
        assert_eq!(there, paths[1].canonicalize().unwrap());
        for (handle, ino) in handles.iter().zip(inodes).filter(|(_, ino)| *ino != inodes[2]) {
            assert_eq!(handle.open(&mount).unwrap().metadata().unwrap().ino(), ino);
        }
        if !remount {
            fs::remove_file(&paths[2]).unwrap();
        }
        stale(handles[2].open(&mount));
    }
    fs::rename(&paths[0], mount.join("moved")).unwrap();
    assert_eq!(io::read_to_string(handles[0].open(&mount).unwrap()).unwrap(), "contents");
    drive.umount();
}

#[test]
fn default_lists_go_on_being_inherited_after_a_remount_and_on_another_machine() {
    let mut drive = TestDrive::local();
    let acl = |program: &str, arguments: &[&str], path: &Path| {
        let output = Command::new(program).args(arguments).arg(path).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let inherited = |dir: &Path, name: &str| {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("file"), "").unwrap();
        let bare: &[&str] = &["--omit-header", "--absolute-names", "--no-effective", "--numeric"];
        assert_eq!(
            acl("getfacl", bare, &dir.join(name)).trim(),
            "user::rwx\nuser:5:rwx\ngroup::r-x\ngroup:6:r--\nmask::rwx\nother::---\n\
             default:user::rwx\ndefault:user:5:rwx\ndefault:group::r-x\ndefault:group:6:r--\n\
             default:mask::rwx\ndefault:other::---",
            "{name}"
        );
        assert_eq!(
            acl("getfacl", bare, &dir.join(name).join("file")).trim(),
            "user::rw-\nuser:5:rwx\ngroup::r-x\ngroup:6:r--\nmask::rw-\nother::---",
            "{name}"
        );
    };
    drive.mount();
    let dir = drive.mount_point().join("dir");
    fs::create_dir(&dir).unwrap();
    acl("setfacl", &["-d", "-m", "u:5:rwx,g:6:r,g::rx,o::-"], &dir);
    inherited(&dir, "at once");
    drive.umount();
    drive.mount();
    inherited(&dir, "after a remount");
    drive.umount();
    drive.become_new_machine("another");
    drive.mount();
    inherited(&dir, "on another machine");
    // What a mode takes from a list, and what chmod then says of it.
    let path = dir.join("at once/file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let list = acl("getfacl", &["-c", "-p", "-n"], &path);
    let is_masked = |line: &str| line.starts_with("user:5:rwx") && line.ends_with("#effective:r--");
    assert!(list.lines().any(is_masked), "{list}");
    drive.umount();
}

#[test]
fn a_copy_is_of_references() {
    const PART: u64 = 64 * MIB;
    const LEN: u64 = 4096 * MIB;
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    let path = mount.join("from");
    fs::write(&path, unlike(7, PART)).unwrap();
    // Copied behind itself until it is long.
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for half in std::iter::successors(Some(PART), |half| Some(half * 2)).take_while(|half| *half < LEN) {
        copy_range(&file, 0, half, half);
    }
    assert_eq!(file.metadata().unwrap().blocks() * 512, LEN);
    drive.flush();
    let (stored, staged) = (folder_bytes(&drive.store_dir()), folder_bytes(&drive.state_dir()));
    let start = Instant::now();
    let status = std::process::Command::new("cp").arg(&path).arg(mount.join("to")).status().unwrap();
    assert!(status.success());
    let took = start.elapsed();
    println!("cp of {LEN} bytes took {took:.0?}");
    // Copying the bytes would take many times as long.
    assert!(took < Duration::from_millis(500), "{took:?}");
    drive.flush();
    let grown = |folder: PathBuf, before: u64| folder_bytes(&folder).saturating_sub(before);
    let (stored, staged) = (grown(drive.store_dir(), stored), grown(drive.state_dir(), staged));
    assert!(stored < MIB && staged < 16 * MIB, "the store grew by {stored} bytes, this machine's state by {staged}");
    let copy = File::open(mount.join("to")).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), LEN);
    assert_eq!(copy.metadata().unwrap().blocks() * 512, LEN);
    let (expected, mut bytes) = (unlike(7, PART), vec![0; PART as usize]);
    for at in [0, PART, LEN - PART] {
        copy.read_exact_at(&mut bytes, at).unwrap();
        assert!(bytes == expected, "{at}");
    }
    drop((file, copy));
    drive.umount();
}

/// One request may do less than was asked for.
fn copy_range(file: &File, mut from: u64, mut to: u64, len: u64) {
    let end = from + len;
    while from < end {
        let left = (end - from) as usize;
        let copied = rustix::fs::copy_file_range(file, Some(&mut from), file, Some(&mut to), left).unwrap();
        assert!(copied > 0);
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => folder_bytes(&entry.path()),
        false => entry.metadata().unwrap().len(),
    });
    bytes.sum()
}

#[test]
fn a_mounted_drive_becomes_read_only_and_writable_again_in_place() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut drive = TestDrive::local();
    drive.mount_with(&["-o", "noexec"]);
    let mount = drive.mount_point();
    let remount = |how: &str| {
        let output = drive.run(&["mount", "-o", how, &drive.url, mount.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
    };
    fs::write(mount.join("x"), "before").unwrap();
    remount("remount,ro");
    assert_eq!(fs::write(mount.join("x"), "after").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read(mount.join("x")).unwrap(), b"before");
    let flags = rustix::fs::statvfs(&mount).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC), "what was not named stays");
    remount("remount,rw");
    fs::write(mount.join("x"), "after").unwrap();
    let output = drive.run(&["mount", "-o", "remount,ro", &drive.url, "/"]);
    assert!(!output.status.success());
    drive.umount();
}

#[test]
fn a_drive_runs_nobodys_set_user_id_programs_and_opens_no_devices_unless_told_to() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use rustix::fs::StatVfsMountFlags as Flags;
    let mut drive = TestDrive::local();
    let both = Flags::NOSUID | Flags::NODEV;
    for (options, expected) in [(&[][..], both), (&["-o", "suid"][..], Flags::NODEV), (&["-o", "dev"], Flags::NOSUID)] {
        drive.mount_with(options);
        let flags = rustix::fs::statvfs(drive.mount_point()).unwrap().f_flag;
        assert_eq!(flags & both, expected, "{options:?}");
        drive.umount();
    }
}

/// The links in /sbin by which mount(8) finds the program; they go with the test.
struct Helpers(Vec<PathBuf>);

impl Helpers {
    fn link() -> Self {
        let mut made = Self(Vec::new());
        for name in ["/sbin/mount.hushfs", "/sbin/mount.fuse.hushfs"] {
            symlink(env!("CARGO_BIN_EXE_hushfs"), name)
                .unwrap_or_else(|error| panic!("{name}: {error}; the test links this build's program there"));
            made.0.push(name.into());
        }
        made
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.0.iter().for_each(|link| drop(fs::remove_file(link)));
    }
}

#[test]
fn mount_8_mounts_and_remounts_by_the_helper() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let _helpers = Helpers::link();
    let drive = TestDrive::local();
    let (dir, options) = (drive.mount_point(), ["state-dir", "cache-dir", "password-file"]);
    let places = [drive.state_dir(), drive.cache_dir(), drive.password_file()];
    let places = options.iter().zip(&places).map(|(option, place)| format!(",{option}={}", place.display()));
    let options = format!("_netdev,allow_other{}", places.collect::<String>());
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let output = command.args(args).arg(&dir).env("XDG_RUNTIME_DIR", drive.root.path()).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
    };
    run("mount", &["-t", "hushfs", &drive.url, "-o", &options]);
    fs::write(dir.join("file"), "contents").unwrap();
    run("mount", &["-o", "remount,ro"]);
    assert_eq!(fs::write(dir.join("file"), "other").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    run("mount", &["-o", "remount,rw"]);
    fs::write(dir.join("another"), "contents").unwrap();
    run(env!("CARGO_BIN_EXE_hushfs"), &["umount"]);
    run("mount", &["-t", "hushfs", &drive.url, "-o", &options]);
    assert_eq!(fs::read(dir.join("another")).unwrap(), b"contents");
    run(env!("CARGO_BIN_EXE_hushfs"), &["umount"]);
}
