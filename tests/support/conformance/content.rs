//! Bytes: reading and writing in every way, holes, sizes, mappings.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

use super::{checks, pattern, read_write, write};

checks![
    what_is_written_is_read,
    writes_anywhere_match_a_model,
    appends_from_two_descriptors_follow_one_another,
    truncation_cuts_and_grows_with_zeros,
    opening_with_truncation_empties,
    a_hole_reads_as_zeros_and_takes_no_room,
    data_and_holes_are_found,
    fallocate_reserves_punches_and_zeroes,
    a_size_beyond_the_largest_is_refused,
    a_mapping_sees_and_makes_changes,
    direct_io_reads_and_writes,
    ranges_are_copied_between_files,
    many_threads_write_their_own_files,
    two_descriptors_see_each_others_writes,
    syncing_works_on_files_and_directories,
    a_program_runs_from_it,
];

fn what_is_written_is_read(dir: &Path) {
    for len in [0, 1, 4095, 4096, 4097, 65_536, 1_048_576, 1_048_577, 5_000_000] {
        let bytes = pattern(len as u64, len);
        let path = write(dir.join(len.to_string()), &bytes);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().len(), len as u64);
    }
}

fn writes_anywhere_match_a_model(dir: &Path) {
    const LEN: usize = 3 << 20;
    let file = read_write(dir.join("x"));
    let mut model: Vec<u8> = Vec::new();
    let numbers = pattern(7, 8 * 600);
    for (turn, chunk) in numbers.chunks(8).enumerate() {
        let random = u64::from_le_bytes(chunk.try_into().unwrap());
        let offset = (random % LEN as u64) as usize;
        let len = 1 + (random >> 32) as usize % if turn % 10 == 0 { 300_000 } else { 9_000 };
        if turn % 50 == 49 {
            file.set_len(offset as u64).unwrap();
            model.resize(offset, 0);
        } else {
            let bytes = pattern(random, len);
            file.write_all_at(&bytes, offset as u64).unwrap();
            model.resize(model.len().max(offset + len), 0);
            model[offset..offset + len].copy_from_slice(&bytes);
        }
        if turn % 100 == 0 {
            let mut read = vec![0; len];
            let got = file.read_at(&mut read, offset as u64).unwrap();
            assert_eq!(read[..got], model[offset.min(model.len())..(offset + len).min(model.len())]);
        }
    }
    assert!(fs::read(dir.join("x")).unwrap() == model);
}

fn appends_from_two_descriptors_follow_one_another(dir: &Path) {
    let open = || OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    let (mut a, mut b) = (open(), open());
    for n in 0..50 {
        writeln!(a, "a{n}").unwrap();
        writeln!(b, "b{n}").unwrap();
    }
    let expected: String = (0..50).map(|n| format!("a{n}\nb{n}\n")).collect();
    assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), expected);
}

fn truncation_cuts_and_grows_with_zeros(dir: &Path) {
    let path = write(dir.join("x"), pattern(1, 2_000_000));
    let file = read_write(&path);
    file.set_len(1_234_567).unwrap();
    file.set_len(1_500_000).unwrap();
    let mut expected = pattern(1, 1_234_567);
    expected.resize(1_500_000, 0);
    assert!(fs::read(&path).unwrap() == expected);
    file.set_len(0).unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), 0);
    file.set_len(3).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0; 3]);
}

fn opening_with_truncation_empties(dir: &Path) {
    let path = write(dir.join("x"), pattern(1, 100_000));
    let file = File::create(&path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.write_all_at(b"new", 10).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"\0\0\0\0\0\0\0\0\0\0new");
}

fn a_hole_reads_as_zeros_and_takes_no_room(dir: &Path) {
    let file = read_write(dir.join("x"));
    file.write_all_at(b"end", 1 << 40).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), (1 << 40) + 3);
    assert!(meta.blocks() * 512 <= 2 << 20, "{} blocks", meta.blocks());
    let mut bytes = [1; 100];
    file.read_exact_at(&mut bytes, 1 << 39).unwrap();
    assert_eq!(bytes, [0; 100]);
    file.read_exact_at(&mut bytes[..5], (1 << 40) - 2).unwrap();
    assert_eq!(&bytes[..5], b"\0\0end");
}

fn data_and_holes_are_found(dir: &Path) {
    use rustix::fs::{SeekFrom as Seek, seek};
    let file = read_write(dir.join("x"));
    let (first, second, size) = (16 << 20, 48 << 20, 64 << 20);
    file.write_all_at(&pattern(1, 4096), first).unwrap();
    file.write_all_at(&pattern(1, 4096), second).unwrap();
    file.set_len(size).unwrap();
    let found = |offset: u64, want: u64| {
        // A filesystem may know its data only in larger steps.
        assert!(offset <= want && want - offset < 2 << 20, "{offset} for {want}");
    };
    found(seek(&file, Seek::Data(0)).unwrap(), first);
    let hole = seek(&file, Seek::Hole(first)).unwrap();
    assert!(hole >= first + 4096 && hole < first + (2 << 20));
    found(seek(&file, Seek::Data(hole)).unwrap(), second);
    assert_eq!(seek(&file, Seek::Hole(0)).unwrap(), 0);
    assert_eq!(seek(&file, Seek::Data(size - 1)).unwrap_err(), rustix::io::Errno::NXIO);
    assert_eq!(seek(&file, Seek::Hole(size)).unwrap_err(), rustix::io::Errno::NXIO);

    let full = read_write(write(dir.join("full"), pattern(1, 100_000)));
    assert_eq!(seek(&full, Seek::Data(5)).unwrap(), 5);
    assert_eq!(seek(&full, Seek::Hole(5)).unwrap(), 100_000);
}

fn fallocate_reserves_punches_and_zeroes(dir: &Path) {
    let mut expected = pattern(3, 3 << 20);
    let path = write(dir.join("x"), &expected);
    let file = read_write(&path);
    let check = |expected: &[u8]| {
        assert!(fs::read(&path).unwrap() == expected);
        assert_eq!(file.metadata().unwrap().len(), expected.len() as u64);
    };
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 2 << 20).unwrap();
    expected[4096..4096 + (2 << 20)].fill(0);
    check(&expected);
    fallocate(&file, FallocateFlags::ZERO_RANGE, (3 << 20) - 5000, 10_000).unwrap();
    expected.truncate((3 << 20) - 5000);
    expected.resize((3 << 20) + 5000, 0);
    check(&expected);
    fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 10, 4 << 20).unwrap();
    expected[10..].fill(0);
    check(&expected);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 8 << 20).unwrap();
    check(&expected);
    fallocate(&file, FallocateFlags::empty(), 0, 4 << 20).unwrap();
    expected.resize(4 << 20, 0);
    check(&expected);
}

fn a_size_beyond_the_largest_is_refused(dir: &Path) {
    let file = read_write(dir.join("x"));
    assert!(file.set_len(1 << 63).is_err());
    assert!(file.write_at(b"x", i64::MAX as u64).is_err());
    assert_eq!(file.metadata().unwrap().len(), 0);
}

fn a_mapping_sees_and_makes_changes(dir: &Path) {
    const LEN: usize = 300_000;
    let path = write(dir.join("x"), pattern(1, LEN));
    let file = read_write(&path);
    let flags = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping of a file that stays this long while it lives.
    let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), LEN, flags, MapFlags::SHARED, &file, 0) }.unwrap();
    // SAFETY: as long as the mapping, and nothing else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>(), LEN) };
    let mut expected = pattern(1, LEN);
    assert!(*bytes == *expected);
    bytes[100_000..100_010].copy_from_slice(b"0123456789");
    expected[100_000..100_010].copy_from_slice(b"0123456789");
    file.write_all_at(b"by write", 200_000).unwrap();
    expected[200_000..200_008].copy_from_slice(b"by write");
    assert!(*bytes == *expected);
    assert!(fs::read(&path).unwrap() == expected);
    // SAFETY: the mapping's own bounds.
    unsafe { rustix::mm::msync(map, LEN, MsyncFlags::SYNC) }.unwrap();
    bytes[LEN - 1] = b'!';
    expected[LEN - 1] = b'!';
    // Written after the last close of the descriptor.
    drop(file);
    // SAFETY: nothing uses `bytes` after this.
    unsafe { rustix::mm::munmap(map, LEN) }.unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
    assert!(read_aligned(&direct.unwrap(), LEN) == expected, "the filesystem itself must have it too");
}

/// Through a buffer that direct I/O accepts.
fn read_aligned(file: &File, len: usize) -> Vec<u8> {
    const ALIGN: usize = 4096;
    let rounded = len.next_multiple_of(ALIGN);
    let mut buffer = vec![0; rounded + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN);
    let got = file.read_at(&mut buffer[start..start + rounded], 0).unwrap();
    buffer[start..start + got].to_vec()
}

fn direct_io_reads_and_writes(dir: &Path) {
    const LEN: usize = 1 << 20;
    let path = dir.join("x");
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut buffer = vec![0; LEN + 4096];
    let start = buffer.as_ptr().align_offset(4096);
    buffer[start..start + LEN].copy_from_slice(&pattern(9, LEN));
    file.write_all_at(&buffer[start..start + LEN], 0).unwrap();
    assert!(fs::read(&path).unwrap() == pattern(9, LEN));
    assert!(read_aligned(&file, LEN) == pattern(9, LEN));
}

fn ranges_are_copied_between_files(dir: &Path) {
    let from = File::open(write(dir.join("from"), pattern(5, 3_000_000))).unwrap();
    let to = read_write(write(dir.join("to"), "0123456789"));
    let (mut from_offset, mut to_offset, mut left) = (1_000_000, 5, 2_500_000);
    while left > 0 {
        match rustix::fs::copy_file_range(&from, Some(&mut from_offset), &to, Some(&mut to_offset), left).unwrap() {
            0 => break,
            copied => left -= copied,
        }
    }
    assert_eq!(left, 500_000);
    let mut expected = b"01234".to_vec();
    expected.extend_from_slice(&pattern(5, 3_000_000)[1_000_000..]);
    assert!(fs::read(dir.join("to")).unwrap() == expected);
    // What `cp` does.
    assert_eq!(fs::copy(dir.join("to"), dir.join("copy")).unwrap(), expected.len() as u64);
    assert!(fs::read(dir.join("copy")).unwrap() == expected);
}

fn many_threads_write_their_own_files(dir: &Path) {
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            scope.spawn(move || {
                for n in 0..100u64 {
                    let bytes = pattern(thread * 1000 + n, 10_000);
                    let path = write(dir.join(format!("{thread}-{n}")), &bytes);
                    assert!(fs::read(&path).unwrap() == bytes);
                    if n % 3 == 0 {
                        fs::remove_file(path).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(fs::read_dir(dir).unwrap().count(), 8 * 66);
}

fn two_descriptors_see_each_others_writes(dir: &Path) {
    let (mut a, mut b) = (read_write(dir.join("x")), read_write(dir.join("x")));
    a.write_all(b"one").unwrap();
    let mut text = String::new();
    b.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one");
    b.seek(SeekFrom::Start(1)).unwrap();
    b.write_all(b"NEXT").unwrap();
    a.rewind().unwrap();
    text.clear();
    a.read_to_string(&mut text).unwrap();
    assert_eq!(text, "oNEXT");
}

fn syncing_works_on_files_and_directories(dir: &Path) {
    let file = read_write(write(dir.join("x"), pattern(1, 100_000)));
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(dir).unwrap().sync_all().unwrap();
    let mut synced = OpenOptions::new().append(true).custom_flags(libc::O_SYNC).open(dir.join("x")).unwrap();
    synced.write_all(b"more").unwrap();
    rustix::fs::syncfs(&file).map_err(io::Error::from).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_004);
}

fn a_program_runs_from_it(dir: &Path) {
    fs::copy("/bin/sh", dir.join("shell")).unwrap();
    let output = std::process::Command::new(dir.join("shell")).args(["-c", "echo alive"]).output().unwrap();
    assert_eq!(output.stdout, b"alive\n");
}
