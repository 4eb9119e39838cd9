//! One state of the replica, held while it goes on changing: what a checkpoint is written from.

use std::path::PathBuf;

use rusqlite::Connection;

use super::checkpointing::{self, Segment};
use super::{READER_CACHE_KIB, Replica, page, read_head};
use crate::base::{Hash, Incarnation, IntentNo, Seq};
use crate::format::rows::KeyBytes;
use crate::meta::error::MetaError;
use crate::meta::sqlite::{self, explain};

/// While it lives the write-ahead log cannot be shortened: do not keep it longer than needed.
pub struct Snapshot {
    path: PathBuf,
    db: Connection,
    head: (Seq, Hash),
}

impl Replica {
    pub fn snapshot(&self) -> Result<Snapshot, MetaError> {
        let wrap = |error| explain(&self.path, error);
        let db = sqlite::open(&self.path, &self.key, READER_CACHE_KIB)?;
        db.execute_batch("PRAGMA query_only = ON; BEGIN").map_err(wrap)?;
        // The first read is what fixes the state.
        let head = read_head(&db).map_err(wrap)?;
        Ok(Snapshot { path: self.path.clone(), db, head })
    }
}

impl Snapshot {
    pub fn head(&self) -> (Seq, Hash) {
        self.head
    }

    /// At most `limit` rows with `start <= key < end`, in key order. Going on: `start` is the last key and a
    /// zero byte.
    pub fn page(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        self.with(|db| page(db, start, end, limit))
    }

    /// All rows with `start <= key < end`, in key order.
    pub fn dump(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(KeyBytes, Vec<u8>), MetaError>> {
        // A row may be hundreds of KiB long.
        const PAGE: usize = 128;
        let end = end.map(<[u8]>::to_vec);
        let mut next = Some(start.to_vec());
        let mut rows = Vec::new().into_iter();
        std::iter::from_fn(move || {
            if let Some(row) = rows.next() {
                return Some(Ok(row));
            }
            let page = match self.page(next.as_deref()?, end.as_deref(), PAGE) {
                Ok(page) => page,
                Err(error) => {
                    next = None;
                    return Some(Err(error));
                }
            };
            next = match page.last() {
                Some((last, _)) if page.len() == PAGE => Some([last.as_slice(), &[0]].concat()),
                _ => None,
            };
            rows = page.into_iter();
            rows.next().map(Ok)
        })
    }

    pub fn high_waters(&self) -> Result<Vec<(Incarnation, IntentNo, Hash)>, MetaError> {
        self.with(|db| {
            db.prepare("SELECT incarnation, intent_no, hash FROM high_water ORDER BY incarnation")?
                .query_map([], |row| {
                    Ok((Incarnation(row.get(0)?), IntentNo(row.get::<_, i64>(1)? as u64), Hash(row.get(2)?)))
                })?
                .collect()
        })
    }

    /// The hashes of heads up to this one that are remembered.
    pub fn past_heads(&self) -> Result<Vec<(Seq, Hash)>, MetaError> {
        self.with(|db| {
            db.prepare("SELECT seq, hash FROM heads ORDER BY seq")?
                .query_map([], |row| Ok((Seq(row.get::<_, i64>(0)? as u64), Hash(row.get(1)?))))?
                .collect()
        })
    }

    pub fn checkpoint(&self) -> Result<Seq, MetaError> {
        self.with(checkpointing::checkpoint)
    }

    pub fn log_len(&self) -> Result<u64, MetaError> {
        self.with(checkpointing::log_len)
    }

    /// The last checkpoint's segments, and of each whether a row in its range has changed since.
    pub fn segments(&self) -> Result<Vec<(Segment, bool)>, MetaError> {
        self.with(checkpointing::segments)
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, MetaError> {
        read(&self.db).map_err(|error| explain(&self.path, error))
    }
}
