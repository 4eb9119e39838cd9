//! POSIX access control lists: what they and modes do to each other, what is inherited, and that they are obeyed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::fs::{Mode, XattrFlags};

use super::attributes::{bits, chmod, get, list, set};
use super::{STRANGER, as_stranger, assert_errno, checks, is_in_memory, strangers_may_enter, write};

checks![
    a_list_changes_the_mode_and_a_mode_the_list,
    a_list_that_says_no_more_than_a_mode_becomes_the_mode,
    a_default_list_is_inherited_instead_of_the_umask,
    only_directories_have_default_lists,
    malformed_lists_are_refused,
    lists_are_obeyed,
    a_list_from_outside_the_group_takes_set_gid_away,
    a_list_changes_ctime,
];

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

fn encoded(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |&(tag, permissions, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    std::iter::once(2u32.to_le_bytes().to_vec()).chain(entries.iter().map(entry)).flatten().collect()
}

/// The owner's, one user's, the group's, the mask, and the others' permissions.
fn with_user(owner: u16, (id, user): (u32, u16), group: u16, mask: u16, other: u16) -> Vec<u8> {
    encoded(&[
        (USER_OBJ, owner, NOBODY),
        (USER, user, id),
        (GROUP_OBJ, group, NOBODY),
        (MASK, mask, NOBODY),
        (OTHER, other, NOBODY),
    ])
}

fn has_lists(dir: &Path) -> bool {
    if is_in_memory(dir) {
        assert_errno(libc::EOPNOTSUPP, set(dir, ACCESS, &with_user(7, (5, 7), 5, 7, 5), plain()));
        return false;
    }
    true
}

fn plain() -> XattrFlags {
    XattrFlags::empty()
}

fn a_list_changes_the_mode_and_a_mode_the_list(dir: &Path) {
    if !has_lists(dir) {
        return;
    }
    let path = write(dir.join("x"), "");
    chmod(&path, 0o4600);
    set(&path, ACCESS, &with_user(6, (5, 7), 4, 6, 0), plain()).unwrap();
    assert_eq!(bits(&path), 0o4660, "the middle bits are the mask");
    chmod(&path, 0o751);
    assert_eq!(get(&path, ACCESS).unwrap(), with_user(7, (5, 7), 4, 5, 1));
    assert_eq!(list(&path), [ACCESS]);
    rustix::fs::removexattr(&path, ACCESS).unwrap();
    rustix::fs::removexattr(&path, ACCESS).unwrap();
    assert_eq!((bits(&path), list(&path).len()), (0o751, 0));
}

fn a_list_that_says_no_more_than_a_mode_becomes_the_mode(dir: &Path) {
    if !has_lists(dir) {
        return;
    }
    let path = write(dir.join("x"), "");
    set(&path, ACCESS, &with_user(6, (5, 7), 4, 6, 0), plain()).unwrap();
    set(&path, ACCESS, &encoded(&[(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 1, NOBODY)]), plain())
        .unwrap();
    assert_eq!(bits(&path), 0o641);
    assert_errno(libc::ENODATA, get(&path, ACCESS));
}

fn a_default_list_is_inherited_instead_of_the_umask(dir: &Path) {
    if !has_lists(dir) {
        return;
    }
    let default = with_user(7, (5, 7), 5, 7, 5);
    set(dir, DEFAULT, &default, plain()).unwrap();
    let before = rustix::process::umask(Mode::from(0o077));
    let made = (|| -> io::Result<()> {
        fs::write(dir.join("file"), "")?;
        fs::create_dir(dir.join("below"))?;
        fs::create_dir(dir.join("below/again"))?;
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
        std::os::unix::fs::symlink("file", dir.join("link"))
    })();
    rustix::process::umask(before);
    made.unwrap();
    assert_eq!(bits(&dir.join("file")), 0o664);
    assert_eq!(get(&dir.join("file"), ACCESS).unwrap(), with_user(6, (5, 7), 5, 6, 4));
    assert_errno(libc::ENODATA, get(&dir.join("file"), DEFAULT));
    assert_eq!(bits(&dir.join("pipe")), 0o600);
    for below in ["below", "below/again"] {
        assert_eq!(bits(&dir.join(below)), 0o775);
        assert_eq!(get(&dir.join(below), DEFAULT).unwrap(), default);
        assert_eq!(get(&dir.join(below), ACCESS).unwrap(), default);
    }
    assert_eq!(fs::symlink_metadata(dir.join("link")).unwrap().mode() & 0o777, 0o777);
    rustix::fs::removexattr(dir, DEFAULT).unwrap();
    write(dir.join("later"), "");
    assert_errno(libc::ENODATA, get(&dir.join("later"), ACCESS));
}

fn only_directories_have_default_lists(dir: &Path) {
    if !has_lists(dir) {
        return;
    }
    let path = write(dir.join("x"), "");
    assert_errno(libc::EACCES, set(&path, DEFAULT, &with_user(7, (5, 7), 5, 7, 5), plain()));
    rustix::fs::removexattr(&path, DEFAULT).unwrap();
}

fn malformed_lists_are_refused(dir: &Path) {
    if !has_lists(dir) {
        return;
    }
    let path = write(dir.join("x"), "");
    let no_mask = encoded(&[(USER_OBJ, 6, NOBODY), (USER, 6, 5), (GROUP_OBJ, 4, NOBODY), (OTHER, 4, NOBODY)]);
    let no_owner = encoded(&[(GROUP_OBJ, 4, NOBODY), (OTHER, 4, NOBODY)]);
    for bad in [no_mask, no_owner, b"\x02\0\0\0\x01".to_vec()] {
        assert_errno(libc::EINVAL, set(&path, ACCESS, &bad, plain()));
    }
    assert_errno(libc::EOPNOTSUPP, set(&path, ACCESS, b"\x01\0\0\0", plain()));
}

fn lists_are_obeyed(dir: &Path) {
    if !has_lists(dir) || !strangers_may_enter(dir) {
        return;
    }
    let path = write(dir.join("x"), "secret");
    chmod(&path, 0o600);
    let reads = || as_stranger("cat", &[path.as_os_str()]);
    assert!(!reads());
    set(&path, ACCESS, &with_user(6, (STRANGER, 4), 0, 4, 0), plain()).unwrap();
    assert!(reads());
    chmod(&path, 0o600);
    assert!(!reads(), "the mask says no");
    set(&path, ACCESS, &with_user(6, (STRANGER, 0), 4, 4, 4), plain()).unwrap();
    assert!(!reads(), "an entry for a user comes before the others'");
}

fn a_list_from_outside_the_group_takes_set_gid_away(dir: &Path) {
    if !has_lists(dir) || !strangers_may_enter(dir) {
        return;
    }
    let path = write(dir.join("x"), "");
    for (group, kept) in [(4321, 0), (STRANGER, 0o2000)] {
        chown(&path, Some(STRANGER), Some(group)).unwrap();
        chmod(&path, 0o2755);
        assert!(as_stranger("setfacl", &["-m".as_ref(), "u:5:rwx".as_ref(), path.as_os_str()]));
        assert_eq!(bits(&path), 0o775 | kept);
    }
}

fn a_list_changes_ctime(dir: &Path) {
    if !has_lists(dir) {
        return;
    }
    let file = File::create(dir.join("x")).unwrap();
    let ctime = || (file.metadata().unwrap().ctime(), file.metadata().unwrap().ctime_nsec());
    let before = ctime();
    std::thread::sleep(std::time::Duration::from_millis(15));
    set(&dir.join("x"), ACCESS, &with_user(6, (5, 7), 4, 6, 0), plain()).unwrap();
    assert!(ctime() > before);
}
