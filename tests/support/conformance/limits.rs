//! The largest, longest and oddest that a local disk takes, and what it says one step further.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::mm::{MapFlags, ProtFlags};

use super::{assert_errno, checks, is_in_memory, pattern, read_write, write};

checks![
    a_file_of_nearly_16_tib_is_read_where_it_was_written,
    offsets_near_the_largest_are_refused_properly,
    names_of_every_byte,
    a_link_of_4095_bytes_and_none_longer,
    names_of_256_bytes_are_too_long_everywhere,
    holes_are_known_to_the_block,
    a_copy_takes_no_room_and_no_time,
    truncation_under_a_mapping_ends_it,
    who_touches_a_mapping_past_the_files_end_gets_a_signal,
    blocks_are_counted_as_a_sparse_file_fills_and_empties,
    holes_and_data_of_every_small_size_are_found,
    a_byte_makes_its_block_data,
    more_than_is_free_cannot_be_allocated,
    dates_before_1970_and_after_2038_survive,
];

/// ext4's own largest, with blocks of 4 KiB, is one block less.
const HUGE: u64 = (16 << 40) - (64 << 10);

fn a_file_of_nearly_16_tib_is_read_where_it_was_written(dir: &Path) {
    let file = read_write(dir.join("x"));
    let places = [0, 5 << 40, (5 << 40) + (1 << 20) - 3, HUGE - 4096];
    for (seed, place) in places.into_iter().enumerate() {
        file.write_all_at(&pattern(seed as u64, 4096), place).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), HUGE);
    assert!(file.metadata().unwrap().blocks() < 1000);
    let mut bytes = vec![0; 4096];
    for (seed, place) in places.into_iter().enumerate() {
        file.read_exact_at(&mut bytes, place).unwrap();
        assert!(bytes == pattern(seed as u64, 4096), "{place}");
    }
    let data = seek(&file, SeekFrom::Data(6 << 40)).unwrap();
    assert!(data == HUGE - 4096 || is_in_memory(dir) && data < HUGE, "{data}");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 1 << 40, HUGE - (1 << 40)).unwrap();
    assert_eq!(seek(&file, SeekFrom::Data(1 << 40)).unwrap_err(), rustix::io::Errno::NXIO);
    file.set_len(1 << 30).unwrap();
    file.set_len(HUGE).unwrap();
    file.read_exact_at(&mut bytes, HUGE - 4096).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
}

fn offsets_near_the_largest_are_refused_properly(dir: &Path) {
    let file = read_write(dir.join("x"));
    let too_big = |result: io::Result<()>| match result.map_err(|error| error.raw_os_error()) {
        Err(Some(libc::EFBIG | libc::EINVAL)) => {}
        other => panic!("{other:?}"),
    };
    for offset in [i64::MAX as u64, i64::MAX as u64 - 1, u64::MAX] {
        too_big(file.write_at(b"xyz", offset).map(|len| assert!(len < 3, "{offset}")).and_then(|()| {
            // What fits may be written; what does not is then refused.
            file.write_at(b"x", i64::MAX as u64).map(drop)
        }));
    }
    too_big(rustix::fs::ftruncate(&file, u64::MAX).map_err(Into::into));
    too_big(fallocate(&file, FallocateFlags::empty(), i64::MAX as u64 - 10, 100).map_err(Into::into));
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, i64::MAX as u64 - 1).unwrap_or(0), 0);
}

fn names_of_every_byte(dir: &Path) {
    for byte in (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        write(dir.join(OsStr::from_bytes(&[byte])), [byte]);
        write(dir.join(OsStr::from_bytes(&[byte; 255])), [byte, byte]);
    }
    let mut seen = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name();
        let expected = vec![name.as_bytes()[0]; if name.len() == 1 { 1 } else { 2 }];
        assert_eq!(fs::read(dir.join(&name)).unwrap(), expected);
        seen += 1;
    }
    assert_eq!(seen, 2 * 253);
}

fn a_link_of_4095_bytes_and_none_longer(dir: &Path) {
    for len in [1, 59, 60, 61, 4094, 4095] {
        let target = "x".repeat(len);
        let link = dir.join(len.to_string());
        symlink(&target, &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap().as_os_str(), target.as_str());
        assert_eq!(fs::symlink_metadata(&link).unwrap().len(), len as u64);
    }
    assert_errno(libc::ENAMETOOLONG, symlink("x".repeat(4096), dir.join("longer")));
    assert_errno(libc::ENOENT, symlink("", dir.join("empty")));
    let odd = OsStr::from_bytes(b"../\xff\xfe\n/./ ");
    symlink(odd, dir.join("odd")).unwrap();
    assert_eq!(fs::read_link(dir.join("odd")).unwrap().as_os_str(), odd);
}

fn names_of_256_bytes_are_too_long_everywhere(dir: &Path) {
    let (long, here) = (dir.join("x".repeat(256)), write(dir.join("here"), ""));
    assert_errno(libc::ENAMETOOLONG, File::create(&long));
    assert_errno(libc::ENAMETOOLONG, fs::metadata(&long));
    assert_errno(libc::ENAMETOOLONG, fs::create_dir(&long));
    assert_errno(libc::ENAMETOOLONG, symlink("x", &long));
    assert_errno(libc::ENAMETOOLONG, fs::hard_link(&here, &long));
    assert_errno(libc::ENAMETOOLONG, fs::rename(&here, &long));
    assert_errno(libc::ENAMETOOLONG, fs::remove_file(&long));
}

fn holes_are_known_to_the_block(dir: &Path) {
    const BLOCK: u64 = 4096;
    if is_in_memory(dir) {
        return;
    }
    let file = read_write(dir.join("x"));
    file.set_len(1000 * BLOCK).unwrap();
    let runs = [(3, 5), (9, 10), (255, 260), (511, 600)];
    for (start, end) in runs {
        file.write_all_at(&pattern(start, ((end - start) * BLOCK) as usize), start * BLOCK).unwrap();
    }
    let check = |when: &str| {
        let mut at = 0;
        for (start, end) in runs {
            at = seek(&file, SeekFrom::Data(at)).unwrap();
            assert_eq!(at, start * BLOCK, "{when}");
            at = seek(&file, SeekFrom::Hole(at)).unwrap();
            assert_eq!(at, end * BLOCK, "{when}");
        }
        assert_eq!(seek(&file, SeekFrom::Data(at)).unwrap_err(), rustix::io::Errno::NXIO);
        assert_eq!(seek(&file, SeekFrom::Hole(at)).unwrap(), at);
        let bytes: u64 = runs.iter().map(|(start, end)| (end - start) * BLOCK).sum();
        assert_eq!(file.metadata().unwrap().blocks() * 512, bytes, "{when}");
    };
    check("written");
    file.sync_all().unwrap();
    check("synced");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 256 * BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(seek(&file, SeekFrom::Hole(255 * BLOCK)).unwrap(), 256 * BLOCK);
    assert_eq!(seek(&file, SeekFrom::Data(256 * BLOCK)).unwrap(), 258 * BLOCK);
}

/// Where copying is of references; elsewhere it is at least right.
fn a_copy_takes_no_room_and_no_time(dir: &Path) {
    const LEN: usize = 24 << 20;
    let from = read_write(write(dir.join("from"), pattern(3, LEN)));
    let to = read_write(dir.join("to"));
    let copied = rustix::fs::copy_file_range(&from, None, &to, None, LEN).unwrap();
    assert_eq!(copied, LEN);
    // Each goes its own way from here.
    from.write_all_at(b"changed", 1_000_000).unwrap();
    to.write_all_at(b"otherwise", 2_000_000).unwrap();
    let mut expected = pattern(3, LEN);
    expected[2_000_000..2_000_009].copy_from_slice(b"otherwise");
    assert!(fs::read(dir.join("to")).unwrap() == expected);
    fs::remove_file(dir.join("from")).unwrap();
    assert!(fs::read(dir.join("to")).unwrap() == expected);
    assert_eq!(to.metadata().unwrap().len(), LEN as u64);
}

fn truncation_under_a_mapping_ends_it(dir: &Path) {
    const LEN: usize = 64 << 10;
    let file = read_write(write(dir.join("x"), pattern(1, LEN)));
    let flags = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping; only what the file still has is touched.
    let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), LEN, flags, MapFlags::SHARED, &file, 0) }.unwrap();
    // SAFETY: the first page stays in the file throughout.
    let page = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>(), 4096) };
    assert!(*page == pattern(1, LEN)[..4096]);
    file.set_len(4000).unwrap();
    assert!(page[..4000] == pattern(1, LEN)[..4000] && page[4000..].iter().all(|byte| *byte == 0));
    page[0] = b'!';
    file.set_len(LEN as u64).unwrap();
    // SAFETY: nothing uses `page` after this.
    unsafe { rustix::mm::munmap(map, LEN) }.unwrap();
    let mut expected = pattern(1, LEN);
    expected[0] = b'!';
    expected[4000..].fill(0);
    assert!(fs::read(dir.join("x")).unwrap() == expected);
}

fn who_touches_a_mapping_past_the_files_end_gets_a_signal(dir: &Path) {
    use std::os::unix::process::ExitStatusExt;
    let path = write(dir.join("x"), [1; 16_384]);
    let script = "
import mmap, os, sys
file = open(sys.argv[1], 'r+b')
mapping = mmap.mmap(file.fileno(), 16384)
assert mapping[8192] == 1
os.ftruncate(file.fileno(), 4096)
assert mapping[4095] == 1
mapping[8192]
";
    let status = std::process::Command::new("python3").args(["-c", script]).arg(&path).status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

fn blocks_are_counted_as_a_sparse_file_fills_and_empties(dir: &Path) {
    const BLOCK: u64 = 4096;
    if is_in_memory(dir) {
        return;
    }
    let file = read_write(dir.join("x"));
    file.set_len(4096 * BLOCK).unwrap();
    let has = |blocks: u64, when: &str| assert_eq!(file.metadata().unwrap().blocks() * 512, blocks * BLOCK, "{when}");
    has(0, "of nothing");
    let fill = |block: u64, blocks: u64| {
        file.write_all_at(&pattern(block, (blocks * BLOCK) as usize), block * BLOCK).unwrap();
    };
    fill(10, 20);
    has(20, "written");
    fill(15, 20);
    has(25, "written over, in part");
    file.sync_all().unwrap();
    has(25, "synced");
    fill(0, 1000);
    has(1000, "written over all of it");
    fill(500, 100);
    has(1000, "written once more");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 100 * BLOCK, 300 * BLOCK).unwrap();
    has(700, "punched");
    file.set_len(500 * BLOCK).unwrap();
    has(200, "cut");
    file.set_len(4096 * BLOCK).unwrap();
    has(200, "grown");
    let copy = read_write(dir.join("copy"));
    copy.set_len(4096 * BLOCK).unwrap();
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 0), &copy, Some(&mut 0), 4096 << 12).unwrap();
    assert_eq!((copied as u64, copy.metadata().unwrap().blocks() * 512), (4096 * BLOCK, 200 * BLOCK), "holes too");
}

/// As sparse copies are made: by asking for data and holes in turn.
fn holes_and_data_of_every_small_size_are_found(dir: &Path) {
    const BLOCK: u64 = 4096;
    if is_in_memory(dir) {
        return;
    }
    let file = read_write(dir.join("x"));
    let (mut at, mut runs) = (0, Vec::new());
    for n in 1..40 {
        file.write_all_at(&pattern(n, (n * BLOCK) as usize), at).unwrap();
        runs.push((at, at + n * BLOCK));
        at += n * BLOCK + (n % 7 + 1) * BLOCK;
    }
    file.set_len(at).unwrap();
    let found = || {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
            at = seek(&file, SeekFrom::Hole(data)).unwrap();
            found.push((data, at));
        }
        found
    };
    assert_eq!(found(), runs);
    file.sync_all().unwrap();
    assert_eq!(found(), runs);
    // In the middle of data and of a hole, at their ends, and one byte before.
    for (start, end) in runs {
        for (at, data, hole) in [(start, start, end), (start + 1, start + 1, end), (end - 1, end - 1, end)] {
            assert_eq!((seek(&file, SeekFrom::Data(at)), seek(&file, SeekFrom::Hole(at))), (Ok(data), Ok(hole)));
        }
        assert_eq!(seek(&file, SeekFrom::Hole(end + 1)), Ok(end + 1));
    }
}

fn more_than_is_free_cannot_be_allocated(dir: &Path) {
    if is_in_memory(dir) {
        return;
    }
    let stat = rustix::fs::statvfs(dir).unwrap();
    let file = read_write(dir.join("x"));
    let much = stat.f_bavail * stat.f_frsize + (1 << 30);
    let result = fallocate(&file, FallocateFlags::empty(), 0, much);
    assert!(matches!(result, Err(rustix::io::Errno::NOSPC | rustix::io::Errno::FBIG)), "{result:?}");
    assert_eq!(file.metadata().unwrap().len(), 0);
}

/// As on a local disk: a block that has one byte is data, and one loses it only as a whole.
fn a_byte_makes_its_block_data(dir: &Path) {
    const BLOCK: u64 = 4096;
    if is_in_memory(dir) {
        return;
    }
    let file = read_write(dir.join("x"));
    file.set_len(10 * BLOCK + 100).unwrap();
    file.write_all_at(b"x", 3 * BLOCK + 5).unwrap();
    file.write_all_at(b"x", 10 * BLOCK + 5).unwrap();
    let found = || {
        let data = |at| seek(&file, SeekFrom::Data(at)).unwrap();
        let hole = |at| seek(&file, SeekFrom::Hole(at)).unwrap();
        (data(0), hole(data(0)), data(3 * BLOCK + 100), data(4 * BLOCK), hole(10 * BLOCK))
    };
    let expected = (3 * BLOCK, 4 * BLOCK, 3 * BLOCK + 100, 10 * BLOCK, 10 * BLOCK + 100);
    assert_eq!(found(), expected);
    file.sync_all().unwrap();
    assert_eq!(found(), expected);
    let punch = |start, len| {
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len).unwrap();
    };
    punch(3 * BLOCK + 6, BLOCK - 6);
    assert_eq!(found(), expected);
    punch(3 * BLOCK, BLOCK);
    assert_eq!(seek(&file, SeekFrom::Data(0)), Ok(10 * BLOCK));
}

fn dates_before_1970_and_after_2038_survive(dir: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let path = write(dir.join("x"), "");
    // ext4 ends in the year 2446, and begins in 1901.
    for secs in [-2_147_483_648, -1, 0, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_535] {
        let time = Timespec { tv_sec: secs, tv_nsec: 123_456_789 };
        utimensat(CWD, &path, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty()).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.atime()), (secs, 123_456_789, secs));
    }
}
