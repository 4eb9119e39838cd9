//! The local disk is full, read-only, or fails: the call that needs it says so with the right error, nothing that
//! was promised is lost, and what is only a copy is made anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hushfs::base::ByteRange;
use hushfs::disk::{DirEntry, Disk, DiskFault, DiskFile, DiskOp, DiskRule, RealDisk, SimDisk};
use hushfs::format::Prefix;
use hushfs::format::journal::peek_header;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};
use hushfs::vfs::COMMIT_RESERVE;
use hushfs::vfs::api::VfsError;
use parking_lot::Mutex;

use crate::rig::{self, Files, Rig, chain, eventually, noise};

const OPS: [DiskOp; 7] =
    [DiskOp::Open, DiskOp::Read, DiskOp::Write, DiskOp::Sync, DiskOp::SetLen, DiskOp::Rename, DiskOp::SyncDir];

const OFFLINE: Fault = Fault::Fail(StoreErrorKind::Unreachable);

fn rig() -> (Rig, SimDisk) {
    let disk = SimDisk::new();
    let mut rig = Rig::on(Arc::new(disk.clone()));
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    files.save("dir/old", &noise(1, 300_000)).unwrap();
    rig.flush();
    (rig, disk)
}

fn power_loss(rig: &mut Rig, disk: &SimDisk, seed: u64) -> Files {
    rig.kill();
    disk.crash(seed);
    rig.mount()
}

/// What writers were promised, to be found after the power has gone.
#[derive(Default)]
struct Promises(Vec<(String, Vec<u8>)>);

impl Promises {
    /// Small files go into the journal, large ones through staging. Returns how it ended: a save that failed has
    /// begun, and takes the promise of the content before it back.
    fn save(&mut self, files: &Files, name: &str, seed: u64) -> Result<(), VfsError> {
        let len = if seed.is_multiple_of(2) { 5_000 } else { 1_500_000 };
        let content = noise(seed, len);
        self.0.retain(|(promised, _)| promised != name);
        files.save(name, &content)?;
        self.0.push((name.into(), content));
        Ok(())
    }

    fn check(&self, files: &Files, when: &str) {
        for (name, content) in &self.0 {
            let found = files.read(name);
            assert!(found.as_ref() == Ok(content), "{when}: {name} is {:?}", found.map(|found| found.len()));
        }
    }
}

/// A mount seals what the journal has as bytes, and its own frames name the chunks: wherever the power goes, a chunk that
/// is named is there, and what is written again may be taken to be the same.
#[test]
fn power_that_goes_while_a_journal_is_done_again_costs_nothing() {
    let mut changes_of_mount = 1;
    let mut off_after = 0;
    while off_after < changes_of_mount {
        let (mut rig, disk) = rig();
        rig.break_store(OFFLINE);
        let (files, mut promises) = (rig.files(), Promises::default());
        (0..3).for_each(|no| promises.save(&files, &format!("dir/{no}"), 2 * no).expect("saved"));
        rig.kill();
        disk.crash(off_after);
        let before = disk.changes();
        disk.power_off_after(off_after);
        if rig.try_mount_by_words().is_ok() {
            changes_of_mount = disk.changes() - before;
            rig.kill();
        } else {
            changes_of_mount = off_after + 2;
        }
        disk.crash(off_after);
        let files = rig.try_mount_by_words().expect("mounted");
        (0..3).for_each(|no| promises.save(&files, &format!("dir/again {no}"), 2 * no).expect("saved"));
        promises.check(&files, &format!("off after {off_after} changes"));
        off_after += 1;
    }
}

/// The property that counts: whatever fails, an fsync that returned was true.
#[test]
fn no_fsync_that_returned_is_lost_whatever_fails_on_the_disk() {
    for (round, (op, fault)) in OPS
        .into_iter()
        .flat_map(|op| [DiskFault::Io, DiskFault::Full, DiskFault::ReadOnly].map(|fault| (op, fault)))
        .enumerate()
    {
        // Both in the course of the rounds: what waits for the store only, and what goes there meanwhile.
        let store_is_well = round % 2 == 0;
        let (mut rig, disk) = rig();
        let mut promises = Promises::default();
        let when = format!("{op:?} {fault:?}, store {store_is_well}");
        if !store_is_well {
            rig.break_store(OFFLINE);
        }
        for (nth, seed) in (0..6).zip(100..) {
            let folder = if nth % 2 == 0 { "state/journal" } else { "state/staging" };
            disk.add_rule(DiskRule::on(op, rig.root.path().join("one").join(folder), fault).nth(1 + nth / 3));
            // The first may fail. Those that come after it were told nothing of it.
            for (attempt, name) in ["dir/a", "dir/b", "dir/a"].into_iter().enumerate() {
                let _ = promises.save(&rig.files(), &format!("{name}{}", nth % 2), seed * 10 + attempt as u64);
            }
        }
        disk.clear_rules();
        let files = power_loss(&mut rig, &disk, round as u64);
        promises.check(&files, &when);
        rig.faults.clear();
        // It may have been in the cache only, which nobody promised.
        assert_eq!(files.read("dir/old").unwrap(), noise(1, 300_000), "{when}");
        files.save("dir/after", &noise(7, 2_000_000)).unwrap();
        rig.flush();
        rig.close();
        rig.become_new_machine("two");
        let files = rig.mount();
        promises.check(&files, &when);
        assert_eq!(files.read("dir/after").unwrap(), noise(7, 2_000_000), "{when}");
    }
}

#[test]
fn a_disk_that_refuses_says_which_way_and_goes_on_when_it_is_well() {
    let cases = [
        (DiskFault::Io, VfsError::Io),
        (DiskFault::Full, VfsError::NoSpace),
        (DiskFault::ReadOnly, VfsError::ReadOnly),
    ];
    for (fault, told) in cases {
        for (folder, len) in [("journal", 5_000), ("staging", 3_000_000)] {
            let (mut rig, disk) = rig();
            rig.break_store(OFFLINE);
            disk.add_rule(DiskRule::on(DiskOp::Write, rig.state_dir().join(folder), fault));
            disk.add_rule(DiskRule::on(DiskOp::Open, rig.state_dir().join(folder), fault));
            let files = rig.files();
            assert_eq!(files.save("dir/new", &noise(2, len)), Err(told), "{folder} {fault:?}");
            assert_eq!(files.sync("dir/new"), Err(told), "{folder} {fault:?}: again");
            // What does not need the disk goes on.
            assert_eq!(files.read("dir/old").unwrap(), noise(1, 300_000));
            assert!(files.names("dir").unwrap().contains(&"old".into()));
            disk.clear_rules();
            files.save("dir/new", &noise(3, len)).unwrap_or_else(|error| panic!("{folder} {fault:?}: {error}"));
            let files = power_loss(&mut rig, &disk, 1);
            assert_eq!(files.read("dir/new").unwrap(), noise(3, len), "{folder} {fault:?}");
        }
    }
}

/// Bytes in memory when the fsync fails are not forgotten by the next one, which finds nothing new to write.
#[test]
fn an_fsync_after_one_that_failed_does_not_claim_what_that_one_lost() {
    for folder in ["journal", "staging"] {
        for op in [DiskOp::Open, DiskOp::Write, DiskOp::Sync, DiskOp::SyncDir] {
            let (mut rig, disk) = rig();
            rig.break_store(OFFLINE);
            let files = rig.files();
            files.write("dir/big", &noise(4, 2_000_000)).unwrap();
            files.write("dir/small", &noise(5, 2_000)).unwrap();
            disk.add_rule(DiskRule::on(op, rig.state_dir().join(folder), DiskFault::Io).nth(1));
            let first = files.sync("dir/small");
            let second = files.sync("dir/small");
            let files = power_loss(&mut rig, &disk, 3);
            if first.is_ok() || second.is_ok() {
                assert_eq!(
                    files.read("dir/small").ok(),
                    Some(noise(5, 2_000)),
                    "{folder} {op:?}: {first:?} {second:?}"
                );
            }
        }
    }
}

#[test]
fn a_full_disk_is_no_space_and_what_was_promised_before_stays() {
    let (mut rig, disk) = rig();
    rig.break_store(OFFLINE);
    let mut promises = Promises::default();
    // Room for the journal's own file and a little more, beside what belongs to commits.
    disk.set_capacity(Some(COMMIT_RESERVE + (24 << 20)));
    let files = rig.files();
    let full = (0..40).find_map(|seed| promises.save(&files, &format!("dir/file{seed}"), seed).err());
    assert_eq!(full, Some(VfsError::NoSpace));
    assert!(promises.0.len() > 5, "only {} files fit", promises.0.len());
    promises.check(&files, "while it is full");
    disk.set_capacity(None);
    files.save("dir/after", &noise(99, 2_000_000)).unwrap();
    let files = power_loss(&mut rig, &disk, 5);
    promises.check(&files, "after the power loss");
    assert_eq!(files.read("dir/after").unwrap(), noise(99, 2_000_000));
}

/// The last of the disk belongs to what brings things into the store, so a full disk empties itself.
#[test]
fn a_full_disk_gets_into_the_store_and_then_takes_more() {
    let (mut rig, disk) = rig();
    rig.break_store(OFFLINE);
    disk.set_capacity(Some(COMMIT_RESERVE + (40 << 20)));
    let files = rig.files();
    let mut saved = Vec::new();
    while saved.len() < 100 {
        let seed = 10 + saved.len() as u64;
        match files.save(&format!("dir/file{seed}"), &noise(seed, 1_500_000)) {
            Ok(()) => saved.push(seed),
            Err(error) => {
                assert_eq!(error, VfsError::NoSpace);
                break;
            }
        }
    }
    assert!((10..100).contains(&saved.len()), "{} files fit", saved.len());
    let complaint = rig.status().disk_full.expect("status says so");
    assert!(complaint.contains("is full"), "{complaint}");
    // The daemon may end here, too, and begin again on the full disk.
    rig.kill();
    let files = rig.mount();
    rig.faults.clear();
    rig.flush();
    eventually("it takes more", || files.save("dir/more", &noise(500, 3_000_000)).is_ok());
    assert_eq!(rig.status().disk_full, None);
    rig.flush();
    rig.close();
    rig.become_new_machine("two");
    disk.set_capacity(None);
    let files = rig.mount();
    for seed in saved {
        assert_eq!(files.read(&format!("dir/file{seed}")).unwrap(), noise(seed, 1_500_000));
    }
    assert_eq!(files.read("dir/more").unwrap(), noise(500, 3_000_000));
}

/// What can be fetched again gives way to what cannot.
#[test]
fn the_cache_gives_way_to_writers() {
    let (rig, disk) = rig();
    let files = rig.files();
    for seed in 0..30 {
        files.save(&format!("dir/cached{seed}"), &noise(seed, 2_000_000)).unwrap();
    }
    rig.flush();
    let cached = rig.status().cache.bytes;
    assert!(cached > 50_000_000, "{cached} bytes cached");
    disk.set_capacity(Some(COMMIT_RESERVE + (70 << 20)));
    rig.break_store(OFFLINE);
    for seed in 100..120 {
        files.save(&format!("dir/new{seed}"), &noise(seed, 2_000_000)).unwrap();
    }
    assert!(rig.status().cache.bytes < cached / 2, "{} bytes cached", rig.status().cache.bytes);
}

#[test]
fn a_cache_that_fails_in_any_way_costs_only_its_speed() {
    for fault in [DiskFault::Io, DiskFault::Full, DiskFault::ReadOnly] {
        let (mut rig, disk) = rig();
        disk.add_rule(DiskRule::any(rig.cache_dir(), fault));
        let files = rig.files();
        assert_eq!(files.read("dir/old").unwrap(), noise(1, 300_000), "{fault:?}: mounted when it began");
        files.save("dir/new", &noise(2, 3_000_000)).unwrap();
        rig.flush();
        rig.close();
        let files = rig.mount();
        assert!(rig.status().cache.failing.is_some(), "{fault:?}: nobody is told");
        assert_eq!(files.read("dir/old").unwrap(), noise(1, 300_000), "{fault:?}");
        assert_eq!(files.read("dir/new").unwrap(), noise(2, 3_000_000), "{fault:?}");
        files.save("dir/newer", &noise(3, 3_000_000)).unwrap();
        rig.flush();
    }
}

#[test]
fn something_else_in_the_cache_folders_place_does_not_stop_a_mount() {
    let mut rig = Rig::new();
    rig.mount().save("file", &noise(1, 300_000)).unwrap();
    rig.flush();
    rig.close();
    std::fs::remove_dir_all(rig.cache_dir()).unwrap();
    std::fs::write(rig.cache_dir(), "not a folder").unwrap();
    let files = rig.mount();
    assert!(rig.status().cache.failing.is_some(), "nobody is told");
    assert_eq!(files.read("file").unwrap(), noise(1, 300_000));
    files.save("file", &noise(2, 300_000)).unwrap();
    rig.flush();
}

/// Blocks that rotted in the cache are dropped and fetched again.
#[test]
fn a_cache_that_rots_heals_itself() {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.save("file", &noise(1, 900_000)).unwrap();
    rig.flush();
    rig.close();
    for path in files_in(&rig.cache_dir()) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 0x10);
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(rig.mount().read("file").unwrap(), noise(1, 900_000));
    rig.close();
    rig.break_store(OFFLINE);
    assert_eq!(rig.mount().read("file").unwrap(), noise(1, 900_000), "it was not kept again");
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What is done to the replica's file, by name.
type Damage = (&'static str, fn(&Path));

/// What became of the replica's files between two mounts.
fn replica_damages() -> [Damage; 5] {
    fn cut(path: &Path) {
        let len = std::fs::metadata(path).unwrap().len();
        std::fs::File::options().write(true).open(path).unwrap().set_len(len / 2).unwrap();
    }
    fn garble(path: &Path) {
        let len = std::fs::metadata(path).unwrap().len() as usize;
        std::fs::write(path, noise(77, len)).unwrap();
    }
    fn flip(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    fn empty(path: &Path) {
        std::fs::write(path, "").unwrap();
    }
    fn gone(path: &Path) {
        std::fs::remove_file(path).unwrap();
    }
    [("cut", cut), ("garbled", garble), ("a bit flipped", flip), ("emptied", empty), ("gone", gone)]
}

fn check_tree(files: &Files) -> Result<(), VfsError> {
    assert_eq!(files.names("dir")?.len(), 301);
    assert_eq!(files.read("dir/000")?, noise(1000, 400_000));
    assert_eq!(files.read("dir/only-in-the-journal")?, noise(2000, 5_000));
    (1..300).try_for_each(|index| {
        assert_eq!(files.read(&format!("dir/{index:03}"))?, noise(index, 100));
        Ok(())
    })
}

#[test]
fn a_replica_that_is_lost_or_damaged_is_rebuilt_also_offline() {
    for (what, damage) in replica_damages() {
        for online in [true, false] {
            eprintln!("{what}, online {online}");
            let mut rig = Rig::new();
            let files = rig.mount();
            files.mkdir("dir").unwrap();
            for index in 0..300 {
                files.write(&format!("dir/{index:03}"), &noise(index, 100)).unwrap();
            }
            files.save("dir/000", &noise(1000, 400_000)).unwrap();
            rig.flush();
            rig.break_store(OFFLINE);
            files.save("dir/only-in-the-journal", &noise(2000, 5_000)).unwrap();
            rig.close();
            for path in files_in(&rig.state_dir()) {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                match name.as_str() {
                    "replica.db" => damage(&path),
                    _ if name.starts_with("replica.db-") => std::fs::remove_file(&path).unwrap(),
                    _ => {}
                }
            }
            if online {
                rig.faults.clear();
            }
            let files = rig.mount();
            // Damage deep inside shows when somebody reads it: an error then, never something else, and the next
            // mount rebuilds it.
            if check_tree(&files).is_err() {
                rig.close();
                check_tree(&rig.mount()).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            rig.faults.clear();
            rig.flush();
        }
    }
}

/// Others may take also what is kept for commits. Then a mount says what to do.
#[test]
fn a_mount_without_any_room_says_how_much_to_free_and_where() {
    let (mut rig, disk) = rig();
    rig.close();
    disk.set_capacity(Some(0));
    let error = rig.try_mount().err().expect("it mounts without room");
    let dir = rig.root.path().display().to_string();
    assert!(error.to_string().contains(&dir) && error.to_string().contains("16 MiB"), "{error}");
    disk.set_capacity(None);
    assert_eq!(rig.mount().read("dir/old").unwrap(), noise(1, 300_000));
}

/// What was tried must be known as this device's own, or the next mount takes it for another copy's and does what is
/// pending over it.
#[test]
fn nothing_is_sent_before_it_is_noted_as_this_devices_own() {
    let (mut rig, disk) = rig();
    let records = rig.objects(Prefix::Log).len();
    for op in [DiskOp::Write, DiskOp::Sync, DiskOp::Rename] {
        disk.add_rule(DiskRule::on(op, rig.state_dir().join("identity.new"), DiskFault::Io));
    }
    let files = rig.files();
    files.save("dir/new", &noise(2, 5_000)).unwrap();
    let why = || rig.status().commits.failing.map(|(_, why)| why).unwrap_or_default();
    eventually("it says why", || why().contains("noted as this device's own") && why().contains("state/identity"));
    assert_eq!(rig.objects(Prefix::Log).len(), records, "a record was sent");
    rig.kill();
    disk.clear_rules();
    assert_eq!(rig.mount().read("dir/new").unwrap(), noise(2, 5_000));
    rig.flush();
    rig.close();
    assert_eq!(rig.objects(Prefix::Log).len(), records + 1);
    assert!(!rig::logged().contains("another copy of"));
}

/// A real filesystem that is full, SQLite's files and all. It takes root to mount one.
#[test]
fn a_state_folder_on_a_full_filesystem_refuses_and_recovers() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a small filesystem cannot be mounted here");
        return;
    }
    let mut rig = Rig::new();
    let small = SmallFilesystem::mount(rig.root.path().join("one"), 128);
    rig.mount().save("before", &noise(1, 2_000_000)).unwrap();
    rig.flush();
    small.fill();
    let files = rig.files();
    let refused = (2..40).find_map(|seed| files.save(&format!("file{seed}"), &noise(seed, 1_500_000)).err());
    assert_eq!(refused, Some(VfsError::NoSpace));
    assert_eq!(files.read("before").unwrap(), noise(1, 2_000_000));
    assert!(files.names("").unwrap().contains(&"before".into()));
    small.free();
    eventually("it goes on", || files.save("after", &noise(50, 100_000)).is_ok());
    rig.flush();
    rig.kill();
    let files = rig.mount();
    assert_eq!(files.read("after").unwrap(), noise(50, 100_000));
    rig.close();
    rig.become_new_machine("two");
    assert_eq!(rig.mount().read("after").unwrap(), noise(50, 100_000));
}

struct SmallFilesystem(PathBuf);

impl SmallFilesystem {
    fn mount(dir: PathBuf, mib: u32) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(&dir);
        assert!(command.status().unwrap().success());
        Self(dir)
    }

    fn fill(&self) {
        let zeros = vec![0; 64 << 10];
        let mut file = std::fs::File::create(self.0.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

/// The journal's third last frame cannot be read any more.
fn damage_journal(rig: &Rig, disk: &SimDisk) {
    let journal = rig.state_dir().join("journal");
    let mut frames = Vec::new();
    for file in disk.list(&journal).unwrap() {
        let path = journal.join(file.name);
        let (content, mut at) = (disk.peek(&path).unwrap(), 0);
        while let Some(header) = content.get(at..).and_then(peek_header) {
            frames.push((header.number, path.clone(), at as u64));
            at += header.len as usize;
        }
    }
    frames.sort();
    let (_, path, offset) = &frames[frames.len() - 3];
    disk.rot(path, offset + 200);
}

fn set_aside(disk: &SimDisk, folder: &Path) -> usize {
    let names = disk.list(folder).unwrap().into_iter().map(|file| file.name);
    names.filter(|name| name.to_string_lossy().ends_with(".damaged")).count()
}

#[test]
fn a_journal_that_is_damaged_where_the_log_has_all_of_it_is_no_loss() {
    let (mut rig, disk) = rig();
    for round in 0..3 {
        let files = rig.files();
        let names = [1, 2, 3].map(|number| (format!("dir/{round} {number}"), noise(10 * round + number, 5_000)));
        for (name, content) in &names {
            files.save(name, content).unwrap();
        }
        rig.flush();
        rig.kill();
        damage_journal(&rig, &disk);
        let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert!(names.iter().all(|(name, content)| files.read(name).as_ref() == Ok(content)), "in round {round}");
        assert_eq!(set_aside(&disk, &rig.state_dir().join("journal")), 0);
    }
}

#[test]
fn a_damaged_journal_stops_the_mount_and_nothing_is_thrown_away() {
    let (mut rig, disk) = rig();
    rig.faults.add(Rule::on(Op::Create, OFFLINE));
    let files = rig.files();
    for (name, seed) in [("dir/one", 11), ("dir/two", 12), ("dir/three", 13)] {
        files.save(name, &noise(seed, 2_000_000)).unwrap();
    }
    rig.kill();
    let state = rig.state_dir();
    damage_journal(&rig, &disk);
    let kept = |folder: &str| {
        let dir = state.join(folder);
        let names = disk.list(&dir).unwrap().into_iter().map(|file| dir.join(file.name));
        let mut all: Vec<_> = names.map(|path| (path.clone(), disk.peek(&path).unwrap())).collect();
        all.sort();
        all
    };
    let before = [kept("journal"), kept("staging")];
    assert!(!before[1].is_empty());
    for _ in 0..2 {
        let Err(error) = rig.try_mount_by_words() else { panic!("it opens") };
        assert!(chain(&error).contains("--accept-loss"), "{}", chain(&error));
        assert!([kept("journal"), kept("staging")] == before, "something was changed");
    }
    rig.adjust = |options| options.drive.read_only = true;
    assert_eq!(rig.try_mount_by_words().unwrap().read("dir/old"), Ok(noise(1, 300_000)));
    rig.kill();
    assert!([kept("journal"), kept("staging")] == before, "something was changed");
    rig.adjust = |options| options.accept_loss = true;
    let files = rig.try_mount_by_words().unwrap();
    assert_eq!(files.read("dir/old"), Ok(noise(1, 300_000)));
    assert_eq!(set_aside(&disk, &state.join("journal")), 1);
    assert!(set_aside(&disk, &state.join("staging")) > 0, "the packs of what was left out are gone");
    rig.faults.clear();
    rig.flush();
}

/// Names what becomes durable: a file by a sync, or a name by a rename.
struct Watched(RealDisk, Arc<Mutex<Vec<String>>>);

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    name: String,
    seen: Arc<Mutex<Vec<String>>>,
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into()
}

impl Disk for Watched {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(path, create)?;
        Ok(Arc::new(WatchedFile { file, name: name_of(path), seen: self.1.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.1.lock().push(name_of(to));
        self.0.rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }

    fn filesystem(&self, dir: &Path) -> io::Result<u64> {
        self.0.filesystem(dir)
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.seen.lock().push(self.name.clone());
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn preallocate_written(&self, len: u64) -> io::Result<()> {
        self.file.preallocate_written(len)
    }

    fn punch_hole(&self, range: ByteRange) -> io::Result<()> {
        self.file.punch_hole(range)
    }

    fn data_ranges(&self) -> io::Result<Vec<ByteRange>> {
        self.file.data_ranges()
    }
}

/// A machine that remembers a newer head than its copy of the tree has, since that was not on the disk when the power
/// went, cannot be used without the store.
#[test]
fn the_copy_of_the_tree_is_on_the_disk_before_its_head_is_remembered() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut rig = Rig::on(Arc::new(Watched(RealDisk, seen.clone())));
    let files = rig.mount();
    let last_two = || {
        let seen = seen.lock();
        let wanted = ["replica.db-wal", "identity"];
        let told: Vec<_> = seen.iter().filter(|name| wanted.contains(&name.as_str())).cloned().collect();
        told[told.len() - 2..].to_vec()
    };
    for round in 0..3 {
        files.save("file", &noise(round, 3000)).unwrap();
        rig.flush();
        assert_eq!(last_two(), ["replica.db-wal", "identity"]);
    }
    // What a mount learns of another device's is no different.
    rig.close();
    rig.become_new_machine("two");
    rig.mount().save("other", &noise(9, 3000)).unwrap();
    rig.flush();
    rig.close();
    rig.become_new_machine("one");
    seen.lock().clear();
    rig.mount();
    let seen = seen.lock();
    assert_eq!(
        seen.iter().find(|name| ["replica.db-wal", "identity"].contains(&name.as_str())).unwrap(),
        "replica.db-wal"
    );
}
