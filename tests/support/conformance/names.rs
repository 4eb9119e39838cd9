//! Directories, links and renames.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{assert_errno, checks, write};

checks![
    an_absent_name_appears_when_it_is_created,
    exclusive_creation_refuses_an_existing_name,
    any_bytes_make_a_name_up_to_255,
    a_directory_counts_its_subdirectories,
    only_empty_directories_are_removed,
    wrong_types_are_refused,
    five_thousand_entries_are_listed_once_each,
    a_directory_is_emptied_while_it_is_listed,
    a_listing_carries_on_past_entries_that_come_and_go,
    a_removed_directory_that_is_open_lists_nothing,
    rename_replaces_a_file,
    rename_over_an_open_file_keeps_its_old_contents,
    rename_between_directories_moves_counts,
    rename_of_directories_keeps_the_tree_a_tree,
    rename_of_two_names_of_one_file_does_nothing,
    rename_without_replacing,
    rename_exchanges,
    rename_exchanges_open_files_and_full_directories,
    a_file_goes_on_being_written_while_it_is_renamed,
    hard_links_are_one_file,
    symbolic_links,
    an_unlinked_file_lives_while_it_is_open,
    a_change_of_entries_changes_the_directorys_times,
];

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn an_absent_name_appears_when_it_is_created(dir: &Path) {
    let path = dir.join("x");
    for _ in 0..3 {
        assert_errno(libc::ENOENT, fs::metadata(&path));
    }
    write(&path, "1");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1);
    fs::remove_file(&path).unwrap();
    assert_errno(libc::ENOENT, fs::metadata(&path));
    fs::create_dir(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().is_dir());
}

fn exclusive_creation_refuses_an_existing_name(dir: &Path) {
    let path = dir.join("x");
    let create = || File::create_new(&path);
    create().unwrap();
    assert_errno(libc::EEXIST, create());
    assert_errno(libc::EEXIST, fs::create_dir(&path));
    assert_errno(libc::EEXIST, symlink("t", &path));
}

fn any_bytes_make_a_name_up_to_255(dir: &Path) {
    let mut bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    bytes.push(b'!');
    assert_eq!(bytes.len(), 255);
    let path = dir.join(OsStr::from_bytes(&bytes));
    write(&path, "odd");
    assert_eq!(fs::read(&path).unwrap(), b"odd");
    let listed: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed, [OsStr::from_bytes(&bytes)]);
    assert_errno(libc::ENAMETOOLONG, File::create(dir.join("n".repeat(256))));
    assert_errno(libc::ENAMETOOLONG, fs::metadata(dir.join("n".repeat(256))));
}

fn a_directory_counts_its_subdirectories(dir: &Path) {
    let links = |path: &Path| fs::metadata(path).unwrap().nlink();
    assert_eq!(links(dir), 2);
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::create_dir(dir.join("c")).unwrap();
    write(dir.join("file"), "");
    assert_eq!((links(dir), links(&dir.join("a")), links(&dir.join("c"))), (4, 3, 2));
    fs::remove_dir(dir.join("c")).unwrap();
    assert_eq!(links(dir), 3);
}

fn only_empty_directories_are_removed(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).unwrap();
    assert_errno(libc::ENOTEMPTY, fs::remove_dir(dir.join("a")));
    fs::remove_dir(dir.join("a/b")).unwrap();
    fs::remove_dir(dir.join("a")).unwrap();
    assert_errno(libc::ENOENT, fs::remove_dir(dir.join("a")));
}

fn wrong_types_are_refused(dir: &Path) {
    write(dir.join("file"), "");
    fs::create_dir(dir.join("dir")).unwrap();
    assert_errno(libc::ENOTDIR, fs::remove_dir(dir.join("file")));
    assert_errno(libc::EISDIR, fs::remove_file(dir.join("dir")));
    assert_errno(libc::ENOTDIR, fs::metadata(dir.join("file/below")));
    assert_errno(libc::EISDIR, fs::OpenOptions::new().write(true).open(dir.join("dir")));
    assert_errno(libc::EPERM, fs::hard_link(dir.join("dir"), dir.join("link")));
}

fn five_thousand_entries_are_listed_once_each(dir: &Path) {
    let expected: HashSet<String> = (0..5000).map(|n| format!("entry number {n}")).collect();
    for name in &expected {
        File::create(dir.join(name)).unwrap();
    }
    for _ in 0..2 {
        let listed = names(dir);
        assert_eq!(listed.len(), 5000);
        assert_eq!(listed.into_iter().collect::<HashSet<_>>(), expected);
    }
    // With attributes: the numbers in the listing are those of the files.
    for entry in fs::read_dir(dir).unwrap().step_by(97) {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file());
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), entry.metadata().unwrap().ino());
    }
}

fn a_directory_is_emptied_while_it_is_listed(dir: &Path) {
    for n in 0..1000 {
        File::create(dir.join(n.to_string())).unwrap();
    }
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(names(dir).is_empty());
}

fn a_listing_carries_on_past_entries_that_come_and_go(dir: &Path) {
    for n in 0..1000 {
        File::create(dir.join(format!("stays {n}"))).unwrap();
        File::create(dir.join(format!("goes {n}"))).unwrap();
    }
    let mut seen = Vec::new();
    for (turn, entry) in fs::read_dir(dir).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if turn < 1000 {
            fs::remove_file(dir.join(format!("goes {turn}"))).unwrap();
            File::create(dir.join(format!("comes {turn}"))).unwrap();
        }
    }
    let mut staying: Vec<_> = seen.iter().filter(|name| name.starts_with("stays")).collect();
    staying.sort();
    staying.dedup();
    assert_eq!(staying.len(), 1000);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "a name came twice");
}

fn a_removed_directory_that_is_open_lists_nothing(dir: &Path) {
    let path = dir.join("gone");
    fs::create_dir(&path).unwrap();
    let open = File::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    let listed = rustix::fs::Dir::read_from(&open).map(|entries| {
        entries.filter_map(Result::ok).filter(|entry| !entry.file_name().to_bytes().starts_with(b".")).count()
    });
    assert!(matches!(listed, Ok(0) | Err(rustix::io::Errno::NOENT)));
    let below = rustix::fs::openat(&open, "new", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o644.into());
    assert_eq!(below.err(), Some(rustix::io::Errno::NOENT));
}

fn rename_replaces_a_file(dir: &Path) {
    let (old, new) = (write(dir.join("old"), "old"), write(dir.join("new"), "new"));
    fs::rename(&new, &old).unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"new");
    assert_eq!(names(dir), ["old"]);
    assert_errno(libc::ENOENT, fs::rename(&new, &old));
    assert_eq!(fs::read(&old).unwrap(), b"new");
}

fn rename_over_an_open_file_keeps_its_old_contents(dir: &Path) {
    let (old, new) = (write(dir.join("old"), "old"), write(dir.join("new"), "new"));
    let mut open = File::open(&old).unwrap();
    fs::rename(&new, &old).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    assert_eq!(open.metadata().unwrap().nlink(), 0);
}

fn rename_between_directories_moves_counts(dir: &Path) {
    fs::create_dir_all(dir.join("a/moving/below")).unwrap();
    fs::create_dir(dir.join("b")).unwrap();
    fs::rename(dir.join("a/moving"), dir.join("b/moved")).unwrap();
    let links = |name: &str| fs::metadata(dir.join(name)).unwrap().nlink();
    assert_eq!((links("a"), links("b"), links("b/moved")), (2, 3, 3));
    let parent = fs::metadata(dir.join("b/moved/..")).unwrap().ino();
    assert_eq!(parent, fs::metadata(dir.join("b")).unwrap().ino());
}

fn rename_of_directories_keeps_the_tree_a_tree(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::create_dir_all(dir.join("full/x")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    write(dir.join("file"), "");
    assert_errno(libc::EINVAL, fs::rename(dir.join("a"), dir.join("a/b/c/a")));
    assert_errno(libc::ENOTEMPTY, fs::rename(dir.join("a"), dir.join("full")));
    assert_errno(libc::ENOTDIR, fs::rename(dir.join("a"), dir.join("file")));
    assert_errno(libc::EISDIR, fs::rename(dir.join("file"), dir.join("empty")));
    fs::rename(dir.join("a"), dir.join("empty")).unwrap();
    assert!(dir.join("empty/b/c").is_dir());
    assert_eq!(fs::metadata(dir).unwrap().nlink(), 4);
}

fn rename_of_two_names_of_one_file_does_nothing(dir: &Path) {
    let a = write(dir.join("a"), "1");
    fs::hard_link(&a, dir.join("b")).unwrap();
    fs::rename(&a, dir.join("b")).unwrap();
    assert_eq!(names(dir), ["a", "b"]);
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
}

fn rename_without_replacing(dir: &Path) {
    let (a, b) = (write(dir.join("a"), "a"), write(dir.join("b"), "b"));
    let rename = |to: &Path| renameat_with(CWD, &a, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from);
    assert_errno(libc::EEXIST, rename(&b));
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"a".to_vec(), b"b".to_vec()));
    rename(&dir.join("c")).unwrap();
    assert_eq!(names(dir), ["b", "c"]);
}

fn rename_exchanges(dir: &Path) {
    fs::create_dir_all(dir.join("one/folder/below")).unwrap();
    fs::create_dir(dir.join("two")).unwrap();
    let (folder, file) = (dir.join("one/folder"), write(dir.join("two/file"), "f"));
    let exchange = |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(io::Error::from);
    exchange(&folder, &file).unwrap();
    assert_eq!(fs::read(&folder).unwrap(), b"f");
    assert!(file.join("below").is_dir());
    let links = |name: &str| fs::metadata(dir.join(name)).unwrap().nlink();
    assert_eq!((links("one"), links("two")), (2, 3));
    assert_errno(libc::ENOENT, exchange(&folder, &dir.join("absent")));
    assert_errno(libc::EINVAL, exchange(&dir.join("two"), &dir.join("two/file/below")));
}

fn rename_exchanges_open_files_and_full_directories(dir: &Path) {
    use std::os::unix::fs::FileExt;
    let exchange = |a: &str, b: &str| renameat_with(CWD, dir.join(a), CWD, dir.join(b), RenameFlags::EXCHANGE).unwrap();
    let (a, b) = (super::read_write(write(dir.join("a"), "of a")), super::read_write(write(dir.join("b"), "of b")));
    exchange("a", "b");
    a.write_all_at(b"OF", 0).unwrap();
    b.write_all_at(b"OF", 0).unwrap();
    assert_eq!((fs::read(dir.join("a")).unwrap(), fs::read(dir.join("b")).unwrap()), (b"OF b".into(), b"OF a".into()));
    assert_eq!((a.metadata().unwrap().nlink(), b.metadata().unwrap().nlink()), (1, 1));

    for tree in ["one/below", "two/below", "two/other"] {
        fs::create_dir_all(dir.join(tree)).unwrap();
    }
    write(dir.join("one/below/leaf"), "1");
    let inside = File::open(dir.join("one/below")).unwrap();
    exchange("one", "two");
    let links = |name: &str| fs::metadata(dir.join(name)).unwrap().nlink();
    assert_eq!((links("one"), links("two"), names(&dir.join("one"))), (4, 3, vec!["below".into(), "other".into()]));
    assert_eq!(fs::metadata(dir.join("two/below")).unwrap().ino(), inside.metadata().unwrap().ino());
    // What was opened below moves along, and `..` leads to where it is now.
    let above = rustix::fs::statat(&inside, "..", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(above.st_ino, fs::metadata(dir.join("two")).unwrap().ino());
    exchange("two/below", "one/other");
    assert_eq!(fs::read(dir.join("one/other/leaf")).unwrap(), b"1");
    assert_eq!((links("one"), links("two")), (4, 3));
}

fn a_file_goes_on_being_written_while_it_is_renamed(dir: &Path) {
    use std::io::Write;
    fs::create_dir(dir.join("below")).unwrap();
    let mut file = File::create(dir.join("0")).unwrap();
    let expected = super::pattern(1, 100 * 5000);
    let mut at = dir.join("0");
    for (n, part) in expected.chunks(5000).enumerate() {
        file.write_all(part).unwrap();
        let next = if n % 2 == 0 { dir.join(format!("below/{n}")) } else { dir.join(n.to_string()) };
        // Over another one, every third time.
        if n % 3 == 0 {
            write(&next, "to be replaced");
        }
        fs::rename(&at, &next).unwrap();
        at = next;
    }
    assert!(fs::read(&at).unwrap() == expected);
    assert_eq!((names(dir), names(&dir.join("below"))), (vec!["99".into(), "below".into()], vec![]));
}

fn hard_links_are_one_file(dir: &Path) {
    let (a, b) = (write(dir.join("a"), "one"), dir.join("b"));
    fs::hard_link(&a, &b).unwrap();
    let (first, second) = (fs::metadata(&a).unwrap(), fs::metadata(&b).unwrap());
    assert_eq!((first.ino(), first.nlink(), second.nlink()), (second.ino(), 2, 2));
    fs::write(&b, "two").unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"two");
    assert_errno(libc::EEXIST, fs::hard_link(&a, &b));
    fs::remove_file(&a).unwrap();
    assert_eq!(fs::metadata(&b).unwrap().nlink(), 1);
    assert_eq!(fs::read(&b).unwrap(), b"two");
}

fn symbolic_links(dir: &Path) {
    write(dir.join("target"), "t");
    symlink("target", dir.join("link")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    let long = "x/".repeat(2000);
    symlink(&long, dir.join("long")).unwrap();
    assert_eq!(fs::read(dir.join("link")).unwrap(), b"t");
    assert_errno(libc::ENOENT, fs::read(dir.join("dangling")));
    assert_eq!(fs::read_link(dir.join("long")).unwrap().as_os_str().len(), 4000);
    let meta = fs::symlink_metadata(dir.join("link")).unwrap();
    assert!(meta.is_symlink());
    assert_eq!(meta.len(), 6);
    fs::hard_link(dir.join("link"), dir.join("link too")).unwrap();
    assert_eq!(fs::read_link(dir.join("link too")).unwrap(), Path::new("target"));
}

fn an_unlinked_file_lives_while_it_is_open(dir: &Path) {
    let path = write(dir.join("x"), "contents");
    let open = super::read_write(&path);
    fs::remove_file(&path).unwrap();
    assert!(names(dir).is_empty());
    let write_at = std::os::unix::fs::FileExt::write_all_at;
    write_at(&open, b"C", 0).unwrap();
    write_at(&open, b"more", 100_000).unwrap();
    assert_eq!((open.metadata().unwrap().nlink(), open.metadata().unwrap().len()), (0, 100_004));
    open.set_len(8).unwrap();
    open.sync_all().unwrap();
    let mut bytes = [0; 16];
    let len = std::os::unix::fs::FileExt::read_at(&open, &mut bytes, 0).unwrap();
    assert_eq!(&bytes[..len], b"Contents");
    write(&path, "another");
    assert_ne!(fs::metadata(&path).unwrap().ino(), open.metadata().unwrap().ino());
}

fn a_change_of_entries_changes_the_directorys_times(dir: &Path) {
    let times = || {
        let meta = fs::metadata(dir).unwrap();
        ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
    };
    let mut last = times();
    let mut advances = |what: &str| {
        let now = times();
        assert!(now.0 > last.0 && now.1 > last.1, "{what}");
        last = now;
        std::thread::sleep(std::time::Duration::from_millis(15));
    };
    std::thread::sleep(std::time::Duration::from_millis(15));
    write(dir.join("a"), "");
    advances("create");
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    advances("link");
    fs::rename(dir.join("b"), dir.join("c")).unwrap();
    advances("rename");
    fs::remove_file(dir.join("c")).unwrap();
    advances("unlink");
    fs::create_dir(dir.join("d")).unwrap();
    advances("mkdir");
    fs::remove_dir(dir.join("d")).unwrap();
    advances("rmdir");
}
