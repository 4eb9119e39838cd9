//! A disk that fails while the daemon runs.

use super::*;
use crate::disk::{DiskFault, DiskOp, DiskRule, SimDisk};

fn rig() -> (SimDisk, Staging) {
    let disk = SimDisk::new();
    let staging = staging_on(Arc::new(disk.clone()), Path::new("/staging"), 1, u64::MAX);
    (disk, staging)
}

fn fail(disk: &SimDisk, op: DiskOp, fault: DiskFault) {
    disk.add_rule(DiskRule::on(op, "/staging", fault));
}

#[test]
fn a_failed_sync_is_reported_until_the_bytes_are_elsewhere() {
    for op in [DiskOp::Sync, DiskOp::SyncDir] {
        let (disk, staging) = rig();
        staging.append(&content(1, 1000), ChunkNo(1), soon()).unwrap();
        fail(&disk, op, DiskFault::Io);
        assert!(matches!(staging.sync(), Err(ContentError::Staging { pack, .. }) if pack == name(1)));
        disk.clear_rules();
        if op == DiskOp::Sync {
            assert!(staging.sync().is_err(), "the kernel would call it a success now");
            staging.append(&content(2, 1000), ChunkNo(2), soon()).unwrap();
            assert!(staging.sync().is_err());
        }
        staging.rotate();
        staging.object(name(1)).unwrap().unwrap();
        staging.uploaded(name(1));
        staging.committed(&[name(1)], |_, path, _| disk.remove(path).unwrap());
        staging.sync().unwrap();
    }
}

#[test]
fn a_chunk_that_could_not_be_written_is_not_in_the_pack() {
    let (disk, staging) = rig();
    let first = staging.append(&content(1, 1000), ChunkNo(1), soon()).unwrap();
    fail(&disk, DiskOp::Write, DiskFault::Full);
    assert!(matches!(staging.append(&content(2, 1000), ChunkNo(2), soon()), Err(ContentError::DiskFull(_))));
    disk.clear_rules();
    let third = staging.append(&content(3, 1000), ChunkNo(3), soon()).unwrap();
    staging.sync().unwrap();
    staging.rotate();
    let object = staging.object(name(1)).unwrap().unwrap();
    let entry = |place: Place, chunk| PackEntry { chunk: ChunkNo(chunk), offset: place.offset, len: 1000 };
    assert_eq!(listed(&object, name(1)), [entry(first, 1), entry(third, 3)]);
    assert_eq!(object[third.offset as usize..][..1000], content(3, 1000));
}

#[test]
fn a_pack_in_which_every_write_failed_leaves_nothing() {
    let (disk, staging) = rig();
    fail(&disk, DiskOp::Write, DiskFault::Full);
    assert!(staging.append(&content(2, 1000), ChunkNo(2), soon()).is_err());
    assert_eq!(staging.rotate(), []);
    assert_eq!((staging.take_closed(), staging.bytes()), (None, 0));
    assert_eq!(disk.list(Path::new("/staging")).unwrap(), []);
}

#[test]
fn a_full_disk_at_the_end_of_a_pack_is_no_more_than_a_delay() {
    for op in [DiskOp::Write, DiskOp::Rename, DiskOp::SyncDir] {
        let (disk, staging) = rig();
        staging.append(&content(1, 1000), ChunkNo(1), soon()).unwrap();
        staging.sync().unwrap();
        staging.rotate();
        fail(&disk, op, DiskFault::Full);
        assert!(matches!(staging.object(name(1)), Err(ContentError::DiskFull(_))), "{op:?}");
        disk.clear_rules();
        let object = staging.object(name(1)).unwrap().unwrap();
        assert_eq!(listed(&object, name(1)).len(), 1);
        assert_eq!(disk.list(Path::new("/staging")).unwrap().len(), 1);
        assert_eq!(staging.bytes(), object.len() as u64);
    }
}

#[test]
fn a_pack_that_cannot_be_synced_is_uploaded_all_the_same() {
    let (disk, staging) = rig();
    staging.append(&content(1, 1000), ChunkNo(1), soon()).unwrap();
    staging.rotate();
    fail(&disk, DiskOp::Sync, DiskFault::Io);
    let object = staging.object(name(1)).unwrap().unwrap();
    assert_eq!(object[..1000], content(1, 1000));
    assert!(staging.sync().is_err());
}
