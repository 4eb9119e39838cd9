//! Another copy of this device's state folder: from a backup, on another machine, or of a virtual machine's snapshot. It
//! has the same number and gives out the same numbers for other things.
//!
//! Invariant: what a copy committed of what is pending here too is told by what it left in the rows, never by numbers
//! of intents alone, for both may have gone on from there with the same ones.

use std::collections::HashMap;

use super::error::MetaError;
use super::leftover::Coverage;
use super::replica::Replica;
use super::rows::Rows;
use crate::base::{ByteRange, Incarnation, InodeId, Name, Seq, Timestamp};
use crate::format::RowChange;
use crate::format::intent::Intent;
use crate::format::rows::{Extent, FILE_LEN_MAX, InodeRow, RowKey};

/// Where this device and a copy of it parted, as far as this one knew the log when it found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// What is pending was made on no later one.
    pub head: Seq,
    /// How far the log had this device's own runs.
    pub covered: Vec<(Incarnation, Coverage)>,
}

impl Parting {
    pub(super) fn new(head: Seq, replica: &Replica, runs: &[Incarnation]) -> Result<Self, MetaError> {
        let mut covered = Vec::new();
        for run in runs {
            covered.extend(replica.high_water(run)?.map(|coverage| (*run, coverage)));
        }
        Ok(Self { head, covered })
    }

    pub(super) fn covered(&self, run: &Incarnation) -> Option<Coverage> {
        self.covered.iter().find(|(covered, _)| covered == run).map(|(_, coverage)| *coverage)
    }
}

/// Inodes that other devices changed since this one saw the log last.
#[derive(Clone, Debug)]
pub struct ForeignChanges {
    inodes: HashMap<InodeId, Option<Before>>,
    /// It may be any of them.
    unknown: bool,
}

/// An inode as it was before others changed it.
#[derive(Clone, Debug)]
pub struct Before {
    pub row: InodeRow,
    pub extents: Vec<Extent>,
    pub names: Vec<(InodeId, Name)>,
}

impl ForeignChanges {
    const REMEMBERED: usize = 100_000;

    /// None so far, or any.
    pub(super) fn new(unknown: bool) -> Self {
        Self { inodes: HashMap::new(), unknown }
    }

    pub fn has(&self, ino: InodeId) -> bool {
        self.unknown || self.inodes.contains_key(&ino)
    }

    /// Where it is known.
    pub fn before(&self, ino: InodeId) -> Option<&Before> {
        self.inodes.get(&ino)?.as_ref()
    }

    /// `rows` are to be put over `before`; None: what they change is not looked at.
    pub(super) fn note(&mut self, rows: &[RowChange], before: Option<&Replica>) -> Result<(), MetaError> {
        for (key, _) in rows {
            let ino = match RowKey::decode(key) {
                Ok(RowKey::Inode(ino) | RowKey::Extents(ino, _) | RowKey::Xattr(ino, _)) => ino,
                _ => continue,
            };
            if self.inodes.contains_key(&ino) {
                continue;
            }
            if self.inodes.len() == Self::REMEMBERED {
                // What is known stays so.
                self.unknown = true;
                return Ok(());
            }
            let before = before.map(|rows| Before::read(rows, ino)).transpose()?.flatten();
            self.inodes.insert(ino, before);
        }
        Ok(())
    }
}

impl Before {
    fn read(rows: &Replica, ino: InodeId) -> Result<Option<Self>, MetaError> {
        let Some(row) = rows.inode(ino)? else { return Ok(None) };
        let extents = rows.extents(ino, &row, ByteRange::new(0, FILE_LEN_MAX))?;
        Ok(Some(Self { extents, names: rows.backrefs(ino)?, row }))
    }
}

/// Whether what this intent does is in the rows, and can hardly be another's: times are counted in nanoseconds, and a
/// change leaves its own in the inode or the directory, until the next one.
pub(super) fn is_done(intent: &Intent, rows: &dyn Rows) -> Result<bool, MetaError> {
    let changed_at = |ino: InodeId, time: Timestamp| -> Result<bool, MetaError> {
        Ok(rows.inode(ino)?.is_some_and(|row| row.ctime == time))
    };
    match intent {
        Intent::Create { parent, name, ino, node } => {
            let is_named = rows.dirent(*parent, name)?.is_some_and(|entry| entry.ino == *ino);
            Ok(is_named && rows.inode(*ino)?.is_some_and(|row| row.btime == node.time))
        }
        // One call may say two writes with one time.
        Intent::Write { ino, base, size, mtime, time, .. } => Ok(rows
            .inode(*ino)?
            .is_some_and(|row| row.version > *base && (row.size, row.mtime, row.ctime) == (*size, *mtime, *time))),
        Intent::Link { ino, time, .. }
        | Intent::SetAttr { ino, time, .. }
        | Intent::SetXattr { ino, time, .. }
        | Intent::Rename { ino, time, .. } => changed_at(*ino, *time),
        Intent::Unlink { parent, time, .. } => changed_at(*parent, *time),
        Intent::Exchange { a_ino, time, .. } => changed_at(*a_ino, *time),
        Intent::Fact { key: key @ RowKey::Chunk(_), value } => {
            Ok(rows.get(&key.encode())?.is_some_and(|found| found.as_slice() == value.as_ref()))
        }
        Intent::Fact { .. } | Intent::Replayed { .. } | Intent::FileKey { .. } => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::rows::{InodeBody, KeyBytes, mode};

    struct Table(BTreeMap<KeyBytes, Vec<u8>>);

    impl Rows for Table {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
            Ok(Vec::new())
        }
    }

    /// A large write is said in two, of which a copy may have had the first only.
    #[test]
    fn of_two_writes_with_one_time_only_those_are_done_that_the_row_is_behind() {
        let (ino, time) = (InodeId(9), Timestamp::new(5, 6));
        let row = |version| InodeRow {
            mode: mode::FILE | 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            size: 70,
            allocated: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version,
            key: None,
            body: InodeBody::File(Vec::new()),
        };
        let table = Table([(RowKey::Inode(ino).encode(), row(4).encode())].into());
        let write = |base, size, time| Intent::Write { ino, base, size, mtime: time, time, key: None, changes: vec![] };
        let done = |intent: Intent| is_done(&intent, &table).unwrap();
        assert!(done(write(3, 70, time)) && done(write(2, 70, time)));
        assert!(!done(write(4, 70, time)), "it came after");
        assert!(!done(write(3, 71, time)) && !done(write(3, 70, Timestamp::new(5, 7))));
    }
}
