//! What the format's tests share.

use super::rows::{
    ChunkRow, DirentRow, Extent, FileKeyRow, InodeBody, InodeRow, KeyBytes, PackRow, RowKey, XattrName, mode,
};
use crate::base::{ChunkId, ChunkNo, Epoch, Incarnation, InodeId, KeyNo, Name, PackName, PackNo, Timestamp, VolumeId};
use crate::crypto::{Key, Roots};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub const VOLUME: VolumeId = VolumeId([9; 16]);

pub fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

/// Two epochs with one root, so that only the context can tell them apart.
pub fn roots() -> Roots {
    both_epochs(Roots::new(VOLUME, Epoch(0), key(1)))
}

/// The same root keys, another volume.
pub fn roots_of_another_volume() -> Roots {
    both_epochs(Roots::new(VolumeId([8; 16]), Epoch(0), key(1)))
}

fn both_epochs(roots: Roots) -> Roots {
    assert!(roots.insert(Epoch(1), key(1)) && roots.advance(Epoch(1)).is_ok());
    roots
}

/// The same object that claims to be of epoch 0.
pub fn of_epoch_0(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    object[8..12].copy_from_slice(&[0; 4]);
    object
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    (0..len.div_ceil(32) as u64).flat_map(|i| crate::crypto::blake3(&i.to_le_bytes())).take(len).collect()
}

pub fn chunk_row(number: u64) -> (KeyBytes, Vec<u8>) {
    let row =
        ChunkRow { pack: PackNo(1), offset: 0, len: 5, key: KeyNo(1), id: ChunkId(noise_id(number)), frames: vec![22] };
    (RowKey::Chunk(ChunkNo(number)).encode(), row.encode())
}

fn noise_id(number: u64) -> [u8; 32] {
    crate::crypto::blake3(&number.to_le_bytes())
}

fn row() -> impl Strategy<Value = (KeyBytes, Vec<u8>)> {
    let number = || any::<u64>();
    let name = || proptest::collection::vec(1u8..=255, 1..20).prop_filter_map("a name", |name| Name::parse(name).ok());
    prop_oneof![
        number().prop_map(chunk_row),
        (number(), name(), number()).prop_map(|(dir, name, ino)| {
            let value = DirentRow { ino: InodeId(ino), file_type: mode::FILE }.encode();
            (RowKey::Dirent(InodeId(dir), name).encode(), value)
        }),
        (number(), number(), name())
            .prop_map(|(ino, dir, name)| (RowKey::Backref(InodeId(ino), InodeId(dir), name).encode(), vec![])),
        (number(), name(), proptest::collection::vec(any::<u8>(), 0..3000)).prop_filter_map(
            "an attribute",
            |(ino, name, value)| Some((
                RowKey::Xattr(InodeId(ino), XattrName::parse(name.as_bytes())?).encode(),
                value
            ))
        ),
        (number(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(no, epoch, wrapped)| {
            let value = FileKeyRow { epoch: Epoch(epoch), wrapped: wrapped.into() }.encode();
            (RowKey::FileKey(KeyNo(no)).encode(), value)
        }),
        (number(), any::<[u8; 16]>(), number()).prop_map(|(no, incarnation, number)| {
            let name = PackName { incarnation: Incarnation(incarnation), number };
            (RowKey::Pack(PackNo(no)).encode(), PackRow { name }.encode())
        }),
        (number(), number(), any::<i64>()).prop_map(|(ino, chunk, secs)| {
            let time = Timestamp::new(secs, 1);
            let row = InodeRow {
                mode: mode::FILE | 0o644,
                uid: 1000,
                gid: 1000,
                rdev: 0,
                nlink: 1,
                size: 7,
                allocated: 5,
                atime: time,
                mtime: time,
                ctime: time,
                btime: time,
                version: 3,
                key: Some(KeyNo(2)),
                body: InodeBody::File(vec![Extent { offset: 2, len: 5, chunk: ChunkNo(chunk), chunk_offset: 0 }]),
            };
            (RowKey::Inode(InodeId(ino)).encode(), row.encode())
        }),
    ]
}

/// Valid rows, ascending, each key once.
pub fn rows(count: std::ops::Range<usize>) -> impl Strategy<Value = BTreeMap<KeyBytes, Vec<u8>>> {
    proptest::collection::vec(row(), count).prop_map(|rows| rows.into_iter().collect())
}
