//! The in-memory filesystem through a real mount: that the adapter and the session do what a kernel and its
//! users expect, without any of the drive's own layers.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hushfs::base::{InodeId, Name};
use hushfs::fuse::{Ended, MountError, MountOptions, Mounted, UnmountError, mount};
use hushfs::vfs::api::{Caller, Invalidation, Kill, OpenFlags, SetAttr, Vfs};
use support::memfs::MemFs;

struct Fixture {
    // Fields drop in this order: the mount before the folder it is on.
    mounted: Mounted,
    runtime: tokio::runtime::Runtime,
    vfs: Arc<MemFs>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let vfs = Arc::new(MemFs::default());
        let mounted = mount(dir.path(), vfs.clone(), runtime.handle().clone(), &options()).unwrap();
        Self { mounted, runtime, vfs, dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn options() -> MountOptions {
    let allow_other = rustix::process::geteuid().is_root();
    MountOptions { source: "mem://test, with\\odd name".into(), allow_other, ..MountOptions::default() }
}

#[test]
fn a_mounted_filesystem_does_what_people_expect() {
    let fixture = Fixture::new();
    support::conformance::check_all(fixture.path());
}

/// As when the store has to be asked, and when memory is full.
#[test]
fn replies_that_come_later_are_the_same() {
    let fixture = Fixture::new();
    fixture.vfs.behave.slow.store(true, Ordering::SeqCst);
    support::conformance::check_all(fixture.path());
}

#[test]
fn a_panic_is_an_io_error_and_the_session_lives() {
    let fixture = Fixture::new();
    let path = fixture.path().join("x");
    std::fs::write(&path, "contents").unwrap();
    let open = std::fs::File::open(&path).unwrap();
    fixture.mounted.kernel_cache().invalidate(Invalidation::Content(InodeId(open.metadata().unwrap().ino())));
    fixture.vfs.behave.panicking.store(true, Ordering::SeqCst);
    // More often than there are threads.
    for _ in 0..10 {
        let error = std::fs::File::open(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    fixture.vfs.behave.panicking.store(false, Ordering::SeqCst);
    assert_eq!(std::fs::read(&path).unwrap(), b"contents");
}

#[test]
fn the_kernel_is_told_what_changed_elsewhere() {
    let fixture = Fixture::new();
    let (vfs, kernel) = (&fixture.vfs, fixture.mounted.kernel_cache());
    let path = |name: &str| fixture.path().join(name);
    let name = |name: &str| Name::parse(name).unwrap();
    let eventually = |what: &str, holds: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::fs::write(path("file"), "old").unwrap();
    assert_eq!(std::fs::read(path("file")).unwrap(), b"old");
    assert!(std::fs::metadata(path("absent")).is_err());
    let ino = InodeId(std::fs::metadata(path("file")).unwrap().ino());

    // Longer contents: size and pages.
    let handle = vfs.open(ino, OpenFlags::default()).unwrap();
    vfs.write_blocking(ino, handle, 0, b"new and longer", Kill::No).unwrap();
    vfs.release(ino, handle);
    assert_eq!(std::fs::read(path("file")).unwrap(), b"old", "the kernel answers from its own memory");
    kernel.invalidate(Invalidation::Content(ino));
    eventually("content", &|| std::fs::read(path("file")).unwrap() == b"new and longer");

    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    vfs.setattr(ino, &mode(0o600)).unwrap();
    kernel.invalidate(Invalidation::Attributes(ino));
    eventually("attributes", &|| std::fs::metadata(path("file")).unwrap().mode() & 0o777 == 0o600);

    // A name that was absent, and one that goes.
    vfs.link(ino, InodeId::ROOT, &name("absent")).unwrap();
    kernel.invalidate(Invalidation::Entry { parent: InodeId::ROOT, name: name("absent") });
    eventually("a new name", &|| path("absent").exists());
    vfs.unlink(InodeId::ROOT, &name("file")).unwrap();
    kernel.invalidate(Invalidation::Entry { parent: InodeId::ROOT, name: name("file") });
    eventually("a name that went", &|| !path("file").exists());
}

#[test]
fn a_name_that_appeared_elsewhere_is_opened_not_made_again() {
    let fixture = Fixture::new();
    let path = fixture.path().join("x");
    assert!(!path.exists());
    let caller = Caller { uid: 0, gid: 0, pid: 0, umask: 0 };
    let name = Name::parse("x").unwrap();
    let (attr, handle) = fixture.vfs.create(caller, InodeId::ROOT, &name, 0o100_666, OpenFlags::default()).unwrap();
    fixture.vfs.write_blocking(attr.ino, handle, 0, b"there", Kill::No).unwrap();
    // The kernel still holds it absent, and asks to create it.
    let file = std::fs::OpenOptions::new().read(true).append(true).create(true).open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), attr.ino.0);
    assert_eq!(std::fs::read(&path).unwrap(), b"there");
}

#[test]
fn unlinked_inodes_go_away() {
    let fixture = Fixture::new();
    for n in 0..100 {
        let path = fixture.path().join(n.to_string());
        std::fs::write(&path, "x").unwrap();
        std::fs::hard_link(&path, path.with_extension("link")).unwrap();
        // Listed with attributes, and looked up.
        assert!(std::fs::read_dir(fixture.path()).unwrap().all(|entry| entry.unwrap().metadata().is_ok()));
        std::fs::remove_file(path.with_extension("link")).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.vfs.node_count() > 1 {
        assert!(Instant::now() < deadline, "{} inodes are left", fixture.vfs.node_count());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_mount_is_a_drive_with_its_source_and_ends_cleanly() {
    let fixture = Fixture::new();
    let entry = hushfs::fuse::mount_at(fixture.path()).unwrap().unwrap();
    assert_eq!(entry.fs_type, "fuse.hushfs");
    assert_eq!(entry.source, "mem://test, with\\odd name");
    let again = mount(fixture.path(), fixture.vfs.clone(), fixture.runtime.handle().clone(), &options());
    assert!(matches!(again, Err(MountError::AlreadyMounted(_))));

    let open = std::fs::File::create(fixture.path().join("x")).unwrap();
    let busy = fixture.runtime.block_on(fixture.mounted.unmount());
    assert!(matches!(busy, Err(UnmountError::Busy(_))));
    drop(open);
    fixture.runtime.block_on(fixture.mounted.unmount()).unwrap();
    assert_eq!(fixture.runtime.block_on(fixture.mounted.ended()), Ended::Unmounted);
    assert_eq!(hushfs::fuse::mount_at(fixture.path()).unwrap(), None);
    // Once more, which must not touch what else is mounted there.
    fixture.runtime.block_on(fixture.mounted.unmount()).unwrap();
}

#[test]
fn unmounting_from_outside_ends_the_session() {
    let fixture = Fixture::new();
    hushfs::fuse::unmount(&fixture.path().canonicalize().unwrap(), hushfs::fuse::Lazy::No).unwrap();
    assert_eq!(fixture.runtime.block_on(fixture.mounted.ended()), Ended::Unmounted);
}

/// The README lists these as differences from a local disk that no care of ours could remove: this filesystem is as
/// small as one can be, and has them too. Should one of them work some day, the list is to be corrected.
#[test]
fn what_no_filesystem_over_fuser_can_do() {
    use rustix::fs::{FallocateFlags, Mode, OFlags, StatxFlags};
    use rustix::io::Errno;
    let fixture = Fixture::new();
    let path = fixture.path().join("x");
    std::fs::write(&path, [1; 8192]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();

    let unnamed = rustix::fs::open(fixture.path(), OFlags::TMPFILE | OFlags::RDWR, Mode::from(0o600));
    assert_eq!(unnamed.unwrap_err(), Errno::OPNOTSUPP);
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 0, 4096), Err(Errno::OPNOTSUPP));
    }
    let stat = rustix::fs::statx(&file, "", rustix::fs::AtFlags::EMPTY_PATH, StatxFlags::BTIME).unwrap();
    assert_eq!(stat.stx_mask & StatxFlags::BTIME.bits(), 0);
    assert_eq!(rustix::fs::ioctl_getflags(&file).unwrap_err(), Errno::NOTTY);
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a valid string.
    assert_eq!(unsafe { libc::pathconf(name.as_ptr(), libc::_PC_LINK_MAX) }, 127, "what glibc says when it knows none");
}
