//! T9, T10: objects that are genuine elsewhere, and rows that no tree can have.

use hushfs::base::{Clock, SystemClock, SystemEntropy, VolumeId};
use hushfs::base::{DeviceSlot, Epoch, Hash, Incarnation, InodeId, IntentNo, Name, PackName, SegmentId, Seq};
use hushfs::crypto::{Roots, blake3};
use hushfs::format::rows::{DirentRow, InodeRow, KeyBytes, RowKey, mode};
use hushfs::format::{ObjectName, Prefix, Record, SlotNo, object_hash};
use hushfs::meta::log::Waiting;
use hushfs::meta::mounting::MountError;
use hushfs::vfs::OpenError;

use crate::rig::{Rig, chain};
use crate::{all_is_right, new_machine, nothing_is_wrong, restore, try_new_machine, volume};

/// The newest record, and its hash.
fn head(rig: &Rig) -> (Seq, Hash) {
    let newest = *rig.objects(Prefix::Log).last().expect("a record");
    let ObjectName::Log(seq) = newest else { panic!("{newest}") };
    (seq, object_hash(&rig.memory.peek(&newest).expect("the record")))
}

/// MEGA and Borg (CVE-2016-10099) took one object for another kind of object.
#[test]
fn t9_what_is_planted_changes_nothing_that_a_device_shows() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    let (Seq(head), _) = head(&rig);
    let incarnation = Incarnation([7; 16]);
    let names = [
        ObjectName::Floor(1),
        ObjectName::Checkpoint(Seq(head)),
        ObjectName::Checkpoint(Seq(head + 100)),
        ObjectName::Segment(SegmentId([7; 16])),
        ObjectName::Pack(PackName { incarnation, number: 1 }),
        ObjectName::Slot(Epoch(0), SlotNo::new(9).expect("a number")),
        ObjectName::Log(Seq(head + 2)),
    ];
    // Everything that there is, each time under another name that means something.
    for object in rig.objects(Prefix::Everything) {
        for name in names {
            rig.memory.plant(name, whole.peek(&object).expect("the object"));
            match (try_new_machine(&mut rig), name) {
                (Ok(files), _) => {
                    all_is_right(&files);
                    rig.close();
                }
                // What is asked for in any case stops the reading of the log, and is named.
                (Err(OpenError::Mount(MountError::Rollback(Waiting::DamagedFloor(1)))), ObjectName::Floor(1)) => {}
                (Err(OpenError::Mount(MountError::Rollback(Waiting::Gap(_)))), ObjectName::Log(_)) => {}
                (Err(error), _) => panic!("{object} as {name}: {}", chain(&error)),
            }
            restore(&rig, &whole);
        }
    }
    all_is_right(&new_machine(&mut rig));
}

fn record(roots: &Roots, (seq, prev): (Seq, Hash), rows: Vec<(KeyBytes, Option<Vec<u8>>)>) -> Record {
    Record {
        epoch: roots.epoch(),
        seq: Seq(seq.0 + 1),
        prev,
        commit_id: [5; 16],
        slot: DeviceSlot(40),
        incarnation: Incarnation([5; 16]),
        high_water: IntentNo(1),
        high_water_hash: Hash::ZERO,
        time: SystemClock.now(),
        rows,
        next: None,
    }
}

/// A record that was sealed with the right key, planted as the newest. Whether a device takes it.
fn is_taken(rig: &mut Rig, record: &Record, roots: &Roots) -> bool {
    let sealed = record.seal(roots, &SystemEntropy).expect("sealed");
    let before = rig.memory.fork();
    rig.memory.plant(ObjectName::Log(record.seq), sealed.into());
    let taken = match try_new_machine(rig) {
        Ok(files) => {
            let listed = files.names("").expect("the names");
            rig.close();
            assert!(listed.contains(&"one".to_owned()));
            true
        }
        Err(OpenError::Mount(MountError::Rollback(Waiting::DamagedRecord(seq)))) => {
            assert_eq!(seq, record.seq);
            false
        }
        Err(error) => panic!("{}", chain(&error)),
    };
    restore(rig, &before);
    taken
}

fn harmless() -> Vec<(KeyBytes, Option<Vec<u8>>)> {
    let name = RowKey::Xattr(InodeId::ROOT, hushfs::format::rows::XattrName::parse("user.x").expect("a name"));
    vec![(name.encode(), Some(b"value".to_vec()))]
}

#[test]
fn t9_a_record_of_another_volume_or_epoch_is_not_taken_though_the_key_is_the_same() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    let (roots, at) = (rig.roots(), head(&rig));
    let root = || roots.root(Epoch(0)).expect("the root").duplicate();
    let other_volume = Roots::new(VolumeId([9; 16]), Epoch(0), root());
    let other_epoch = Roots::new(roots.volume(), Epoch(1), root());
    for elsewhere in [other_volume, other_epoch] {
        assert!(!is_taken(&mut rig, &record(&elsewhere, at, harmless()), &elsewhere));
    }
    // Another place of the log, under this one's name.
    let further = Record { seq: Seq(at.0.0 + 2), ..record(&roots, at, harmless()) };
    let sealed = further.seal(&roots, &SystemEntropy).expect("sealed");
    rig.memory.plant(ObjectName::Log(Seq(at.0.0 + 1)), sealed.into());
    assert!(try_new_machine(&mut rig).is_err());
    restore(&rig, &whole);
    // The test itself can fail.
    assert!(is_taken(&mut rig, &record(&roots, at, harmless()), &roots));
}

/// A name as FORMAT.md writes it into a key, whatever it is.
fn entry(name: &[u8]) -> (KeyBytes, Option<Vec<u8>>) {
    let hash = blake3(name);
    let first: [u8; 8] = hash[..8].try_into().expect("eight bytes");
    let cookie = (u64::from_be_bytes(first) >> 2) + 3;
    let key = [&b"D"[..], &1u64.to_be_bytes(), &cookie.to_be_bytes(), name].concat();
    (key, Some(DirentRow { ino: InodeId::ROOT, file_type: mode::FILE }.encode()))
}

/// Sync and Tahoe let the server name things.
#[test]
fn t10_rows_that_no_tree_can_have_stop_at_the_door_even_if_they_are_sealed_with_the_right_key() {
    let mut rig = volume();
    let (roots, at) = (rig.roots(), head(&rig));
    let names: [&[u8]; 10] =
        [b"../x", b"a/b", b"/", b"nul\0", b"\0", b".", b"..", b"", &[b'n'; 256], b"sub/../../etc/passwd"];
    for name in names {
        assert!(!is_taken(&mut rig, &record(&roots, at, vec![entry(name)]), &roots), "{:?}", name.escape_ascii());
    }
    // The right name under a cookie that is another's; the same row twice; rows out of order.
    let genuine = entry(b"fine");
    let mut misplaced = genuine.clone();
    misplaced.0[16] ^= 1;
    let mut pair = [entry(b"fine"), entry(b"also")];
    pair.sort();
    let reversed = pair.iter().rev().cloned().collect();
    for rows in [vec![misplaced], vec![genuine.clone(), genuine.clone()], reversed] {
        assert!(!is_taken(&mut rig, &record(&roots, at, rows), &roots));
    }
    // Modes: bits that there are not, and types that there are not.
    let time = SystemClock.now();
    let inode = |mode| {
        let row = InodeRow {
            mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            size: 0,
            allocated: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 0,
            key: None,
            body: hushfs::format::rows::InodeBody::None,
        };
        vec![(RowKey::Inode(InodeId(77)).encode(), Some(row.encode()))]
    };
    for bad in [0o644, 0o170644, mode::DIR | 0o1_000_000] {
        assert!(!is_taken(&mut rig, &record(&roots, at, inode(bad)), &roots), "{bad:o}");
    }
    // The test itself can fail: what is as it should be is taken.
    assert_eq!(genuine.0, RowKey::Dirent(InodeId::ROOT, Name::parse("fine").expect("a name")).encode());
    assert!(is_taken(&mut rig, &record(&roots, at, inode(mode::FIFO | 0o4755)), &roots));
    nothing_is_wrong(&new_machine(&mut rig));
}
