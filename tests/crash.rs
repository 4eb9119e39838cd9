//! Real writers on a real mount, the daemon killed with -9 at random. After each kill the drive mounts without
//! a repair step, every acknowledged fsync is there, and no file shows a state that never was.
//!
//! `HUSHFS_CRASH_ROUNDS` (of all volumes together) and `HUSHFS_CRASH_SEED` choose how many, and repeat one.

#[path = "support/drive.rs"]
mod drive;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drive::TestDrive;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const FILES: usize = 8;
const VOLUMES: u64 = 3;

/// What one writer knows: what it was promised, and what else may be there.
#[derive(Default)]
struct Ledger {
    /// name → (promised content, contents written since without a promise). None: may be absent.
    files: BTreeMap<String, FileLedger>,
    /// Rows that a committed SQLite transaction has inserted.
    sqlite_rows: i64,
}

#[derive(Default, Clone)]
struct FileLedger {
    promised: Option<Vec<u8>>,
    since: Vec<Vec<u8>>,
}

#[test]
fn what_was_synced_survives_kill_9() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds = number("HUSHFS_CRASH_ROUNDS").unwrap_or(300);
    let seed = number("HUSHFS_CRASH_SEED").unwrap_or_else(|| rand::rng().next_u64());
    eprintln!("HUSHFS_CRASH_SEED={seed} HUSHFS_CRASH_ROUNDS={rounds}");
    // Several volumes at once: a round mostly waits.
    std::thread::scope(|scope| {
        for volume in 0..VOLUMES {
            scope.spawn(move || torture(seed.wrapping_add(volume), rounds.div_ceil(VOLUMES)));
        }
    });
}

/// Each is done when the call returns, without an fsync: a kill right after takes nothing of it.
#[test]
fn what_was_written_synchronously_or_through_a_synced_mapping_survives_kill_9() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    use std::os::unix::fs::OpenOptionsExt;
    const LEN: usize = 10_000;
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    let synchronous = |name: &str, flag: i32| {
        let mut file =
            OpenOptions::new().create_new(true).append(true).custom_flags(flag).open(mount.join(name)).unwrap();
        file.write_all(&[1; LEN]).unwrap();
        file.write_all(&[2; LEN]).unwrap();
        file
    };
    let open = [synchronous("O_SYNC", libc::O_SYNC), synchronous("O_DSYNC", libc::O_DSYNC)];
    let mapped = File::options().read(true).write(true).create_new(true).open(mount.join("msync")).unwrap();
    mapped.set_len(2 * LEN as u64).unwrap();
    let flags = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping of a file that stays this long while it lives.
    let map = unsafe { mmap(std::ptr::null_mut(), 2 * LEN, flags, MapFlags::SHARED, &mapped, 0) }.unwrap();
    // SAFETY: as long as the mapping, and nothing else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>(), 2 * LEN) };
    bytes[..LEN].fill(1);
    bytes[LEN..].fill(2);
    // SAFETY: the mapping's own bounds.
    unsafe { msync(map, 2 * LEN, MsyncFlags::SYNC) }.unwrap();
    drive.kill();
    // SAFETY: nothing uses `bytes` after this.
    unsafe { munmap(map, 2 * LEN) }.unwrap();
    drop((open, mapped));
    drive.clear();
    drive.mount();
    let expected: Vec<u8> = [[1; LEN], [2; LEN]].concat();
    for name in ["O_SYNC", "O_DSYNC", "msync"] {
        assert!(fs::read(mount.join(name)).unwrap() == expected, "{name}");
    }
    drive.umount();
}

fn torture(seed: u64, rounds: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut drive = TestDrive::local();
    let mut ledgers = [Ledger::default(), Ledger::default(), Ledger::default(), Ledger::default()];
    for round in 0..rounds {
        drive.mount();
        let mount = drive.mount_point();
        check(&mount, &mut ledgers, round);
        let stop = AtomicBool::new(false);
        let kill_after = Duration::from_millis(random.random_range(10..450));
        let seeds: [u64; 4] = std::array::from_fn(|_| random.next_u64());
        std::thread::scope(|scope| {
            let [overwriter, renamer, appender, sqlite] = &mut ledgers;
            let (mount, stop) = (&mount, &stop);
            scope.spawn(move || overwrite(mount, stop, overwriter, seeds[0]));
            scope.spawn(move || rename_over(mount, stop, renamer, seeds[1]));
            scope.spawn(move || append(mount, stop, appender, seeds[2]));
            scope.spawn(move || insert(mount, stop, sqlite));
            std::thread::sleep(kill_after);
            drive.kill();
            stop.store(true, Ordering::SeqCst);
        });
        drive.clear();
    }
    drive.mount();
    check(&drive.mount_point(), &mut ledgers, rounds);
    let here = tree(&drive.mount_point());
    drive.umount();
    drive.become_new_machine("two");
    drive.mount();
    assert!(tree(&drive.mount_point()) == here, "another machine sees another tree");
    drive.umount();
}

/// Overwrites parts of files and syncs each time.
fn overwrite(mount: &Path, stop: &AtomicBool, ledger: &mut Ledger, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::SeqCst) {
        let name = format!("over{}", random.random_range(0..FILES));
        let entry = ledger.files.entry(name.clone()).or_default();
        let mut content = entry.since.last().or(entry.promised.as_ref()).cloned().unwrap_or_default();
        let at = random.random_range(0..=content.len().min(300_000));
        let longest = if random.random_bool(0.1) { 600_000 } else { 20_000 };
        let mut data = vec![0; random.random_range(1..longest)];
        random.fill_bytes(&mut data);
        if content.len() < at + data.len() {
            content.resize(at + data.len(), 0);
        }
        content[at..at + data.len()].copy_from_slice(&data);
        entry.since.push(content.clone());
        let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(mount.join(&name)) else {
            return;
        };
        // One write(2) each may be cut into several requests, so a state between is possible until the sync.
        if file.write_all_at(&data, at as u64).is_err() || file.sync_all().is_err() {
            return;
        }
        *entry = FileLedger { promised: Some(content), since: Vec::new() };
    }
}

/// Writes a temporary file and renames it over, without any fsync: the old or the new, never an empty one.
fn rename_over(mount: &Path, stop: &AtomicBool, ledger: &mut Ledger, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::SeqCst) {
        let name = format!("saved{}", random.random_range(0..FILES));
        let mut data = vec![0; random.random_range(1..60_000)];
        random.fill_bytes(&mut data);
        let temporary = mount.join(format!("{name}.tmp"));
        ledger.files.entry(name.clone()).or_default().since.push(data.clone());
        let written = fs::write(&temporary, &data).and_then(|()| fs::rename(&temporary, mount.join(&name)));
        if written.is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Appends and syncs.
fn append(mount: &Path, stop: &AtomicBool, ledger: &mut Ledger, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::SeqCst) {
        let name = format!("log{}", random.random_range(0..2));
        let entry = ledger.files.entry(name.clone()).or_default();
        let mut content = entry.since.last().or(entry.promised.as_ref()).cloned().unwrap_or_default();
        let mut data = vec![0; random.random_range(1..3_000)];
        random.fill_bytes(&mut data);
        content.extend_from_slice(&data);
        entry.since.push(content.clone());
        let Ok(mut file) = OpenOptions::new().create(true).append(true).open(mount.join(&name)) else { return };
        if file.write_all(&data).is_err() || file.sync_data().is_err() {
            return;
        }
        *entry = FileLedger { promised: Some(content), since: Vec::new() };
    }
}

fn insert(mount: &Path, stop: &AtomicBool, ledger: &mut Ledger) {
    let path = mount.join("rows.db");
    let mut attempt = || -> rusqlite::Result<()> {
        let database = rusqlite::Connection::open(&path)?;
        // With FULL the deletion of SQLite's own journal, which is the commit, is not synced.
        database.pragma_update(None, "synchronous", "EXTRA")?;
        database.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, text TEXT)", [])?;
        while !stop.load(Ordering::SeqCst) {
            let next = ledger.sqlite_rows + 1;
            database.execute("INSERT OR REPLACE INTO rows VALUES (?1, ?2)", (next, "x".repeat(200)))?;
            // SQLite takes a directory that it cannot open, as when the daemon is gone by then, for one that is
            // synced (unixDelete in its os_unix.c). One that opens after the commit did open within it.
            if File::open(mount).is_err() {
                break;
            }
            ledger.sqlite_rows = next;
        }
        Ok(())
    };
    // The daemon is killed under it: an error is how it ends.
    attempt().ok();
}

fn check(mount: &Path, ledgers: &mut [Ledger; 4], round: u64) {
    for ledger in ledgers.iter_mut() {
        for (name, entry) in &mut ledger.files {
            let found = fs::read(mount.join(name)).ok();
            let renamed = name.starts_with("saved");
            let promised = found == entry.promised;
            let newer = found.as_ref().is_some_and(|found| entry.since.contains(found));
            // Without rename, an unsynced write may be there in part: in order, over the promised content.
            let partial = !renamed && found.as_ref().is_some_and(|found| is_between(entry, found));
            assert!(
                promised || newer || partial,
                "round {round}: {name} has {:?} bytes; promised {:?}, since {:?}",
                found.as_ref().map(Vec::len),
                entry.promised.as_ref().map(Vec::len),
                entry.since.iter().map(Vec::len).collect::<Vec<_>>(),
            );
            // What was seen after a crash is durable from then on only if it is synced.
            if found.is_some() {
                File::open(mount.join(name)).and_then(|file| file.sync_all()).expect("fsync");
            }
            *entry = FileLedger { promised: found, since: Vec::new() };
        }
        if ledger.sqlite_rows > 0 {
            let database = rusqlite::Connection::open(mount.join("rows.db")).expect("the database opens");
            let verdict: String =
                database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("integrity_check");
            assert_eq!(verdict, "ok", "round {round}");
            let rows: i64 = database.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).expect("count");
            assert!(rows >= ledger.sqlite_rows, "round {round}: {rows} of {} rows", ledger.sqlite_rows);
            ledger.sqlite_rows = rows;
        }
    }
}

/// Each byte is of the promised content or of one written since, and the length is one of theirs or between.
fn is_between(entry: &FileLedger, found: &[u8]) -> bool {
    let promised = entry.promised.as_deref().unwrap_or_default();
    let longest = entry.since.iter().map(Vec::len).max().unwrap_or(0).max(promised.len());
    found.len() >= promised.len()
        && found.len() <= longest
        && found.iter().enumerate().all(|(at, byte)| {
            promised.get(at) == Some(byte) || entry.since.iter().any(|content| content.get(at) == Some(byte))
        })
}

/// Every path with its content.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).expect("readdir") {
        let path = entry.expect("an entry").path();
        let mut content = Vec::new();
        File::open(&path).and_then(|mut file| file.read_to_end(&mut content)).expect("read");
        found.insert(path.strip_prefix(root).expect("inside").to_owned(), content);
    }
    found
}
