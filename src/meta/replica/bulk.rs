//! Filling a replica from a checkpoint: no journal and no syncs, in a file beside the real one that takes
//! its place only when it is whole and on the disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::checkpointing::{put_past, put_segments};
use super::{Replica, Segment, Usage, dedup_entry, prepare_schema, with_suffix};
use crate::base::{Epoch, Hash, Incarnation, IntentNo, Seq};
use crate::crypto::Key;
use crate::meta::error::MetaError;
use crate::meta::sqlite::{self, explain};

const CACHE_KIB: u32 = 64 << 10;
/// Dedup entries in memory before they are sorted and written: 64 MiB.
const DEDUP_MAX: usize = 4 << 20;

/// What a manifest says beside the rows.
#[derive(Clone, Debug, Default)]
pub struct LoadedHead {
    pub segments: Vec<Segment>,
    pub high_waters: Vec<(Incarnation, IntentNo, Hash)>,
    pub past: Vec<(Seq, Hash)>,
    /// Of the next record.
    pub epoch: Epoch,
}

pub struct BulkLoad {
    path: PathBuf,
    partial: PathBuf,
    key: Key,
    db: Connection,
    dedup: Vec<(i64, i64)>,
    usage: Usage,
}

impl Replica {
    /// To make the replica anew: `push` all rows, then `finish`. Until then the old file stays as it is, and
    /// must not be open when `finish` is called.
    pub fn bulk_load(path: &Path, key: &Key) -> Result<BulkLoad, MetaError> {
        let partial = with_suffix(path, ".partial");
        Self::delete(&partial)?;
        let db = sqlite::open(&partial, key, CACHE_KIB)?;
        prepare_schema(&partial, &db)?;
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN EXCLUSIVE",
        )
        .map_err(|error| explain(&partial, error))?;
        Ok(BulkLoad {
            path: path.to_owned(),
            partial,
            key: key.duplicate(),
            db,
            dedup: Vec::new(),
            usage: Usage::default(),
        })
    }

    /// Removes what a bulk load that was dropped or failed left beside the real file.
    pub fn discard_bulk_load(path: &Path) -> Result<(), MetaError> {
        Self::delete(&with_suffix(path, ".partial"))
    }
}

impl BulkLoad {
    /// A row that was validated. Fast in key order; a key may come once only.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), MetaError> {
        let put = self.db.prepare_cached("INSERT INTO rows VALUES (?1, ?2)");
        put.and_then(|mut put| put.execute(params![key, value])).map_err(|error| explain(&self.partial, error))?;
        if key.first() == Some(&b'I') {
            self.usage.count(Some(value), 1);
        }
        if let Some(entry) = dedup_entry(key, value) {
            self.dedup.push(entry);
            if self.dedup.len() >= DEDUP_MAX {
                self.fill_dedup().map_err(|error| explain(&self.partial, error))?;
            }
        }
        Ok(())
    }

    /// The rows were those at this head.
    pub fn finish(mut self, head: (Seq, Hash), rest: &LoadedHead) -> Result<Replica, MetaError> {
        self.fill_dedup().and_then(|()| self.put_head(head, rest)).map_err(|error| explain(&self.partial, error))?;
        let Self { path, partial, key, db, .. } = self;
        db.close().map_err(|(_, error)| explain(&partial, error))?;
        let place = || {
            File::open(&partial)?.sync_all()?;
            fs::rename(&partial, &path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        // The old write-ahead log must be gone before the new file is there: it would be applied to it.
        Replica::delete(&path)?;
        place().map_err(|error| MetaError::Io { path: path.clone(), source: error.into() })?;
        Replica::open(&path, &key)
    }

    /// In order, so that pages are written once. Of two chunks with one content the later number stays.
    fn fill_dedup(&mut self) -> rusqlite::Result<()> {
        self.dedup.sort_unstable();
        let mut put = self.db.prepare_cached("INSERT OR REPLACE INTO dedup VALUES (?1, ?2)")?;
        for (prefix, chunk) in self.dedup.drain(..) {
            put.execute([prefix, chunk])?;
        }
        Ok(())
    }

    fn put_head(&self, (seq, hash): (Seq, Hash), rest: &LoadedHead) -> rusqlite::Result<()> {
        let number = seq.0 as i64;
        self.db.execute(
            "UPDATE meta SET seq = ?1, hash = ?2, checkpoint = ?1, inodes = ?3, bytes = ?4, epoch = ?5",
            params![number, hash.0, self.usage.inodes, self.usage.bytes, rest.epoch.0],
        )?;
        put_segments(&self.db, &rest.segments, &vec![seq; rest.segments.len()])?;
        put_past(&self.db, seq, &rest.past)?;
        self.db.execute("INSERT OR REPLACE INTO heads VALUES (?1, ?2, 0)", params![number, hash.0])?;
        let mut put = self.db.prepare("INSERT INTO high_water VALUES (?1, ?2, ?3)")?;
        for (incarnation, intent_no, hash) in &rest.high_waters {
            put.execute(params![incarnation.0, intent_no.0 as i64, hash.0])?;
        }
        self.db.execute_batch("COMMIT")
    }
}
