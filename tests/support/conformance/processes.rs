//! What several processes do to one file or one tree at a time.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{checks, read_write, write};

checks![
    appends_from_many_processes_are_all_there,
    locks_exclude_between_processes,
    record_locks_exclude_between_processes,
    a_processs_record_locks_end_with_any_of_its_descriptors_and_ofd_locks_with_their_own,
    who_waits_for_a_record_lock_gets_it,
    long_appends_from_many_processes_are_whole,
    a_mapping_is_shared_between_processes,
    an_unlinked_file_goes_on_growing,
    renames_under_load_keep_the_tree_a_tree,
    one_of_many_renames_without_replacing_wins,
    a_file_being_saved_by_renaming_is_always_whole,
];

fn appends_from_many_processes_are_all_there(dir: &Path) {
    let path = dir.join("log");
    let script = "for i in $(seq 200); do echo $1 $i; done >> $0";
    let writers: Vec<_> = (0..6)
        .map(|n| Command::new("sh").args(["-c", script]).arg(&path).arg(n.to_string()).spawn().unwrap())
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: HashSet<&str> = text.lines().collect();
    assert_eq!((text.lines().count(), lines.len()), (1200, 1200));
    assert!(lines.contains("5 200"));
}

fn locks_exclude_between_processes(dir: &Path) {
    let (counter, lock) = (write(dir.join("counter"), "0"), write(dir.join("lock"), ""));
    let script = "for i in $(seq 25); do flock $1 sh -c 'n=$(cat $0); echo $((n + 1)) > $0' $0; done";
    let run = || Command::new("sh").args(["-c", script]).arg(&counter).arg(&lock).spawn().unwrap();
    for mut worker in [run(), run(), run(), run()] {
        assert!(worker.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&counter).unwrap(), "100\n");
}

/// What another process gets who locks `[start, start + 10)` exclusively: whether it may.
fn another_may_lock(path: &Path, command: &str, start: u64) -> bool {
    let status = locking(path, command, start).status().unwrap();
    // Whatever else goes wrong in there has another code.
    assert!(matches!(status.code(), Some(0 | 75)), "{status}");
    status.success()
}

fn locking(path: &Path, command: &str, start: u64) -> Command {
    let script = "
import errno, fcntl, struct, sys
file = open(sys.argv[1], 'r+b')
lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, int(sys.argv[3]), 10, 0)
try:
    fcntl.fcntl(file, {'set': 6, 'wait': 7, 'set-ofd': 37}[sys.argv[2]], lock)
except OSError as error:
    sys.exit(75 if error.errno in (errno.EAGAIN, errno.EACCES) else error.errno)
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(path).arg(command).arg(start.to_string());
    python
}

/// Of this process: `how` is one of fcntl's commands, `kind` a lock's or `F_UNLCK`.
fn lock(file: &File, how: i32, kind: i32, start: i64) -> libc::flock {
    // SAFETY: zeros are a valid `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, 10);
    // SAFETY: a valid descriptor and structure.
    let result = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(file), how, &raw mut lock) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    lock
}

fn record_locks_exclude_between_processes(dir: &Path) {
    let file = read_write(write(dir.join("x"), ""));
    for (how, theirs) in [(libc::F_SETLK, "set-ofd"), (libc::F_OFD_SETLK, "set")] {
        let may =
            |start| (another_may_lock(&dir.join("x"), "set", start), another_may_lock(&dir.join("x"), theirs, start));
        lock(&file, how, libc::F_WRLCK, 100);
        assert_eq!(
            (may(105), may(95), may(110), may(90)),
            ((false, false), (false, false), (true, true), (true, true))
        );
        lock(&file, how, libc::F_RDLCK, 100);
        assert_eq!(may(100), (false, false), "a reader keeps writers out");
        lock(&file, how, libc::F_UNLCK, 100);
        assert_eq!(may(100), (true, true));
    }
    // Who holds it is told.
    lock(&file, libc::F_SETLK, libc::F_WRLCK, 0);
    let other = read_write(dir.join("x"));
    assert_eq!(lock(&other, libc::F_OFD_GETLK, libc::F_WRLCK, 5).l_pid, std::process::id() as i32);
}

fn a_processs_record_locks_end_with_any_of_its_descriptors_and_ofd_locks_with_their_own(dir: &Path) {
    let path = write(dir.join("x"), "");
    let file = read_write(&path);
    lock(&file, libc::F_SETLK, libc::F_WRLCK, 0);
    drop(read_write(&path));
    assert!(another_may_lock(&path, "set", 0));
    lock(&file, libc::F_OFD_SETLK, libc::F_WRLCK, 0);
    drop(read_write(&path));
    assert!(!another_may_lock(&path, "set", 0));
    let same = file.try_clone().unwrap();
    drop(file);
    assert!(!another_may_lock(&path, "set", 0), "one more descriptor is open");
    drop(same);
    assert!(another_may_lock(&path, "set", 0));
}

fn who_waits_for_a_record_lock_gets_it(dir: &Path) {
    let path = write(dir.join("x"), "");
    let file = read_write(&path);
    lock(&file, libc::F_SETLK, libc::F_WRLCK, 0);
    let mut waiting = locking(&path, "wait", 5).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(waiting.try_wait().unwrap().is_none());
    lock(&file, libc::F_SETLK, libc::F_UNLCK, 0);
    assert!(waiting.wait().unwrap().success());
}

/// Each append crosses pages, requests and chunks, and still nobody else's comes in between.
fn long_appends_from_many_processes_are_whole(dir: &Path) {
    const LEN: usize = 1_300_003;
    let path = write(dir.join("log"), "");
    let script = "
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for _ in range(4):
    assert os.write(file, sys.argv[2].encode() * int(sys.argv[3])) == int(sys.argv[3])
";
    let write = |letter: &str| {
        Command::new("python3").args(["-c", script]).arg(&path).args([letter, &LEN.to_string()]).spawn().unwrap()
    };
    for mut writer in ["a", "b", "c"].map(write) {
        assert!(writer.wait().unwrap().success());
    }
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 12 * LEN);
    let appends: Vec<u8> = bytes.chunks(LEN).map(|one| one[0]).collect();
    assert!(bytes.chunks(LEN).all(|one| one.iter().all(|byte| *byte == one[0])));
    assert_eq!(["a", "b", "c"].map(|one| appends.iter().filter(|byte| **byte == one.as_bytes()[0]).count()), [4; 3]);
}

fn a_mapping_is_shared_between_processes(dir: &Path) {
    let path = write(dir.join("x"), [0; 8192]);
    let script =
        "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[5000:5005]=b'hello'\nm.flush()";
    let file = read_write(&path);
    let flags = rustix::mm::ProtFlags::READ;
    // SAFETY: a fresh mapping of a file that keeps its length.
    let map =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 8192, flags, rustix::mm::MapFlags::SHARED, &file, 0).unwrap() };
    let status = Command::new("python3").args(["-c", script]).arg(&path).status().unwrap();
    assert!(status.success());
    // SAFETY: within the mapping, which nobody writes to any more.
    let seen = unsafe { std::slice::from_raw_parts(map.cast::<u8>().add(5000), 5) }.to_vec();
    // SAFETY: nothing refers to it.
    unsafe { rustix::mm::munmap(map, 8192) }.unwrap();
    assert_eq!(seen, b"hello");
    assert_eq!(&fs::read(&path).unwrap()[5000..5005], b"hello");
}

fn an_unlinked_file_goes_on_growing(dir: &Path) {
    let path = dir.join("x");
    let file = read_write(&path);
    file.write_all_at(&[1; 3 << 20], 0).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(&[2; 3 << 20], 3 << 20).unwrap();
    file.sync_all().unwrap();
    file.set_len((6 << 20) - 5).unwrap();
    write(&path, "another");
    let meta = file.metadata().unwrap();
    assert_eq!((meta.nlink(), meta.len()), (0, (6 << 20) - 5));
    let mut bytes = vec![0; (6 << 20) - 5];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..3 << 20].iter().all(|byte| *byte == 1) && bytes[3 << 20..].iter().all(|byte| *byte == 2));
    // Through /proc it can still be opened anew.
    let again = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    again.read_exact_at(&mut bytes[..10], 3 << 20).unwrap();
    assert_eq!(bytes[..10], [2; 10]);
    assert_eq!(fs::read(&path).unwrap(), b"another");
}

fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// Directories that move into one another from many threads: whatever succeeds, all are still reachable, and no
/// directory is inside itself.
fn renames_under_load_keep_the_tree_a_tree(dir: &Path) {
    const DIRS: usize = 12;
    for n in 0..DIRS {
        fs::create_dir(dir.join(format!("d{n}"))).unwrap();
        write(dir.join(format!("d{n}/leaf{n}")), n.to_string());
    }
    let paths = || -> Vec<PathBuf> {
        let mut open = vec![dir.to_path_buf()];
        let mut found = Vec::new();
        while let Some(path) = open.pop() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0] == b'd') {
                open.push(entry.path());
                found.push(entry.path());
            }
        }
        found
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let paths = &paths;
            scope.spawn(move || {
                let mut number = numbers(thread * 7919 + 3);
                for _ in 0..60 {
                    let all = paths();
                    let (from, into) = (&all[number(all.len())], &all[number(all.len())]);
                    // Many cannot be done, or not any more: that is what the others are for.
                    match number(3) {
                        0 => drop(fs::rename(from, into.join(from.file_name().unwrap()))),
                        1 => drop(fs::rename(from, dir.join(from.file_name().unwrap()))),
                        _ => drop(renameat_with(CWD, from, CWD, into, RenameFlags::EXCHANGE)),
                    }
                }
            });
        }
    });
    let all = paths();
    let inodes: HashSet<u64> = all.iter().map(|path| fs::metadata(path).unwrap().ino()).collect();
    assert_eq!((all.len(), inodes.len()), (DIRS, DIRS));
    for path in all {
        let inside = fs::read_dir(&path).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 2 + inside as u64);
        let above = fs::metadata(path.join("..")).unwrap().ino();
        assert_eq!(above, fs::metadata(path.parent().unwrap()).unwrap().ino());
    }
}

fn one_of_many_renames_without_replacing_wins(dir: &Path) {
    for round in 0..20 {
        let target = dir.join(format!("target{round}"));
        let wins: usize = std::thread::scope(|scope| {
            let try_one = |n: usize| {
                let (from, target) = (write(dir.join(format!("from{n}")), "x"), &target);
                scope.spawn(move || renameat_with(CWD, from, CWD, target, RenameFlags::NOREPLACE).is_ok())
            };
            let tries: Vec<_> = (0..4).map(try_one).collect();
            tries.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
    }
    let file = write(dir.join("a"), "");
    write(dir.join("b"), "");
    for flags in [RenameFlags::WHITEOUT, RenameFlags::NOREPLACE | RenameFlags::EXCHANGE] {
        assert_eq!(renameat_with(CWD, &file, CWD, dir.join("b"), flags), Err(rustix::io::Errno::INVAL));
    }
}

fn a_file_being_saved_by_renaming_is_always_whole(dir: &Path) {
    let path = write(dir.join("document"), vec![b'0'; 10_000]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..150u8 {
                let temporary = dir.join(".document.new");
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary).unwrap();
                file.write_all(&vec![b'0' + n % 10; 10_000 + usize::from(n)]).unwrap();
                drop(file);
                fs::rename(&temporary, &path).unwrap();
            }
        });
        while !writer.is_finished() {
            let bytes = fs::read(&path).unwrap();
            assert!(bytes.len() >= 10_000 && bytes.iter().all(|byte| *byte == bytes[0]), "{} bytes", bytes.len());
        }
    });
}
