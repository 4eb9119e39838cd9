use super::*;
use crate::base::ByteRange;

const SECTOR: usize = 512;

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.create_dir_all(Path::new("/e")).unwrap();
    disk
}

fn file(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), true).unwrap()
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.peek(Path::new(path))
}

/// A file whose name and content are safe.
fn synced(disk: &SimDisk, path: &str, content: &[u8]) -> Arc<dyn DiskFile> {
    let made = file(disk, path);
    made.write_all_at(content, 0).unwrap();
    made.sync_data().unwrap();
    disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    made
}

/// What is left of a disk after crashes with many seeds.
fn outcomes<T: Ord>(build: impl Fn() -> SimDisk, look: impl Fn(&SimDisk) -> T) -> std::collections::BTreeSet<T> {
    (0..200)
        .map(|seed| {
            let disk = build();
            disk.crash(seed);
            look(&disk)
        })
        .collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    let build = || {
        let disk = disk();
        synced(&disk, "/d/f", &[7; 3000]);
        disk
    };
    assert_eq!(outcomes(build, |disk| read(disk, "/d/f")), [Some(vec![7; 3000])].into());
}

#[test]
fn unsynced_sectors_are_kept_or_lost_one_by_one_and_never_split() {
    let build = || {
        let disk = disk();
        let file = synced(&disk, "/d/f", &[1; 3 * SECTOR]);
        file.write_all_at(&[2; 2 * SECTOR], 0).unwrap();
        disk
    };
    let seen = outcomes(build, |disk| read(disk, "/d/f").unwrap());
    let content = |sectors: [u8; 3]| sectors.iter().flat_map(|&byte| [byte; SECTOR]).collect::<Vec<_>>();
    let all = [[1, 1, 1], [1, 2, 1], [2, 1, 1], [2, 2, 1]].map(content);
    assert_eq!(seen, all.into());
}

#[test]
fn a_sector_written_twice_may_keep_either() {
    let build = || {
        let disk = disk();
        let file = synced(&disk, "/d/f", &[1; SECTOR]);
        file.write_all_at(&[2; SECTOR], 0).unwrap();
        file.write_all_at(&[3; SECTOR], 0).unwrap();
        disk
    };
    assert_eq!(outcomes(build, |disk| read(disk, "/d/f").unwrap()[0]), [1, 2, 3].into());
}

#[test]
fn an_appended_file_may_have_any_length_between_and_holes() {
    let build = || {
        let disk = disk();
        let file = synced(&disk, "/d/f", &[1; SECTOR]);
        file.write_all_at(&[2; 4 * SECTOR], SECTOR as u64).unwrap();
        disk
    };
    let seen = outcomes(build, |disk| read(disk, "/d/f").unwrap());
    assert!(seen.iter().any(|content| content.len() == SECTOR));
    assert!(seen.iter().any(|content| content.len() == 5 * SECTOR));
    assert!(seen.iter().any(|content| (2 * SECTOR..5 * SECTOR).contains(&content.len())));
    assert!(seen.iter().any(|content| content.get(SECTOR) == Some(&0) && content.last() == Some(&2)), "a hole");
    assert!(seen.iter().all(|content| content[..SECTOR] == [1; SECTOR]), "what was synced is never touched");
}

#[test]
fn a_cut_that_was_not_synced_may_not_have_happened() {
    let build = || {
        let disk = disk();
        synced(&disk, "/d/f", &[1; 2 * SECTOR]).set_len(0).unwrap();
        disk
    };
    let seen = outcomes(build, |disk| read(disk, "/d/f").unwrap().len());
    assert!(seen.contains(&0) && seen.contains(&(2 * SECTOR)), "{seen:?}");
}

#[test]
fn a_new_name_needs_the_sync_of_its_directory() {
    let build = || {
        let disk = disk();
        let file = file(&disk, "/d/f");
        file.write_all_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        disk
    };
    assert_eq!(outcomes(build, |disk| read(disk, "/d/f")), [None, Some(b"x".to_vec())].into());
}

#[test]
fn a_rename_over_leaves_the_old_or_the_new_and_nothing_else() {
    let build = || {
        let disk = disk();
        synced(&disk, "/d/f", b"old");
        let new = file(&disk, "/d/f.new");
        new.write_all_at(b"new", 0).unwrap();
        new.sync_data().unwrap();
        disk.rename(Path::new("/d/f.new"), Path::new("/d/f")).unwrap();
        disk
    };
    let seen = outcomes(build, |disk| (read(disk, "/d/f").unwrap(), read(disk, "/d/f.new")));
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    assert_eq!(seen, [(old.clone(), None), (old, Some(new.clone())), (new, None)].into());
}

#[test]
fn a_rename_between_directories_is_safe_once_both_are_synced() {
    let build = |dirs: &'static [&'static str]| {
        move || {
            let disk = disk();
            synced(&disk, "/d/f", b"x");
            disk.rename(Path::new("/d/f"), Path::new("/e/f")).unwrap();
            dirs.iter().for_each(|dir| disk.sync_dir(Path::new(dir)).unwrap());
            disk
        }
    };
    let look = |disk: &SimDisk| (read(disk, "/d/f").is_some(), read(disk, "/e/f").is_some());
    assert_eq!(outcomes(build(&[]), look), [(true, false), (false, true)].into());
    assert_eq!(outcomes(build(&["/e"]), look), [(true, false), (false, true)].into());
    assert_eq!(outcomes(build(&["/e", "/d"]), look), [(false, true)].into());
}

#[test]
fn a_later_change_of_a_name_never_reaches_the_disk_before_an_earlier_one() {
    let build = || {
        let disk = disk();
        synced(&disk, "/d/a", b"a");
        disk.rename(Path::new("/d/a"), Path::new("/e/a")).unwrap();
        disk.remove(Path::new("/e/a")).unwrap();
        disk.sync_dir(Path::new("/e")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk
    };
    let look = |disk: &SimDisk| (read(disk, "/d/a"), read(disk, "/e/a"));
    assert_eq!(outcomes(build, look), [(None, None)].into());
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_the_next() {
    let build = |writes_again: bool| {
        move || {
            let disk = disk();
            let file = synced(&disk, "/d/f", &[1; SECTOR]);
            file.write_all_at(&[2; SECTOR], 0).unwrap();
            disk.add_rule(DiskRule::on(DiskOp::Sync, "/d", DiskFault::Io).nth(1));
            file.sync_data().unwrap_err();
            if writes_again {
                file.write_all_at(&[2; SECTOR], 0).unwrap();
            }
            file.sync_data().unwrap();
            disk
        }
    };
    let look = |disk: &SimDisk| read(disk, "/d/f").unwrap()[0];
    assert_eq!(outcomes(build(false), look), [1, 2].into());
    assert_eq!(outcomes(build(true), look), [2].into());
}

#[test]
fn rules_hit_the_nth_operation_below_their_path() {
    let disk = disk();
    let (hit, other) = (file(&disk, "/d/f"), file(&disk, "/e/f"));
    disk.add_rule(DiskRule::on(DiskOp::Write, "/d", DiskFault::ReadOnly).nth(2));
    other.write_all_at(b"x", 0).unwrap();
    hit.write_all_at(b"x", 0).unwrap();
    other.write_all_at(b"x", 0).unwrap();
    let error = hit.write_all_at(b"x", 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    hit.write_all_at(b"x", 0).unwrap();
}

#[test]
fn a_full_disk_takes_a_part_and_space_comes_back() {
    let disk = disk();
    disk.set_capacity(Some(3 * 4096));
    let file = file(&disk, "/d/f");
    let error = file.write_all_at(&[1; 5 * 4096], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 3 * 4096);
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 0);
    file.write_all_at(&[2; 4096], 4096).unwrap();
    file.punch_hole(ByteRange::new(0, 4096)).unwrap();
    assert_eq!(file.data_ranges().unwrap(), [ByteRange::new(4096, 3 * 4096)]);
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 4096);
    disk.remove(Path::new("/d/f")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 3 * 4096);
}

#[test]
fn the_power_goes_after_so_many_changes_and_old_handles_stay_dead() {
    let disk = disk();
    let old = synced(&disk, "/d/f", b"abc");
    disk.power_off_after(1);
    old.write_all_at(b"x", 0).unwrap();
    old.write_all_at(b"y", 1).unwrap_err();
    old.read_at(&mut [0], 0).unwrap_err();
    disk.open(Path::new("/d/f"), false).err().unwrap();
    disk.crash(1);
    old.read_at(&mut [0], 0).unwrap_err();
    let mut content = [0; 3];
    file(&disk, "/d/f").read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content[1..], b"bc");
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let run = |seed| {
        let disk = disk();
        for number in 0..20 {
            let file = file(&disk, &format!("/d/{number}"));
            file.write_all_at(&[number; 5000], 0).unwrap();
        }
        disk.crash(seed);
        (0..20).map(|number| read(&disk, &format!("/d/{number}"))).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn names_behave_as_on_a_real_disk() {
    let disk = disk();
    let kind = |error: io::Error| error.kind();
    assert_eq!(kind(disk.open(Path::new("/none/f"), true).err().unwrap()), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open(Path::new("/d/f"), false).err().unwrap()), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(Path::new("/d/f")).unwrap_err()), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.list(Path::new("/none")).unwrap_err()), io::ErrorKind::NotFound);
    let open = file(&disk, "/d/f");
    open.write_all_at(b"abc", 0).unwrap();
    disk.create_dir_all(Path::new("/d/sub")).unwrap();
    file(&disk, "/d/sub/g");
    disk.rename(Path::new("/d/f"), Path::new("/d/h")).unwrap();
    let listed = disk.list(Path::new("/d")).unwrap();
    assert_eq!(listed.iter().map(|e| (e.name.to_str().unwrap(), e.len)).collect::<Vec<_>>(), [("h", 3)]);
    disk.remove(Path::new("/d/h")).unwrap();
    assert_eq!(open.len().unwrap(), 3, "an open file outlives its name");
}
