//! Pending generations that memory should not hold, in an encrypted file of their own.
//!
//! Invariants: the file never outlives the process's use of it (the journal is the truth, so it starts
//! empty); a generation counts only when its last row is in: readers name the generations they mean.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::MetaError;
use super::overlay::{LayerPage, bounds};
use super::replica::Replica;
use super::sqlite::{self, explain};
use super::view::GenerationNo;
use crate::crypto::Key;
use crate::format::rows::KeyBytes;

/// Rows per transaction: readers wait for one at most.
const BATCH: usize = 2000;
const CACHE_KIB: u32 = 4 << 10;

// A failed statement is taken back from memory. What a crash leaves is thrown away.
const SCHEMA: &str = "
PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
CREATE TABLE overlay(key BLOB, gen INTEGER, value BLOB, PRIMARY KEY (key, gen)) WITHOUT ROWID;
CREATE INDEX overlay_gen ON overlay(gen, key);
";

pub(super) struct Spill {
    path: PathBuf,
    db: Mutex<Connection>,
}

/// The generations that a reader means: both ends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub first: GenerationNo,
    pub last: GenerationNo,
}

impl Spill {
    pub(super) fn open(path: &Path, key: &Key) -> Result<Self, MetaError> {
        Replica::delete(path)?;
        let db = sqlite::open(path, key, CACHE_KIB)?;
        db.execute_batch(SCHEMA).map_err(|error| explain(path, error))?;
        Ok(Self { path: path.to_owned(), db: Mutex::new(db) })
    }

    pub(super) fn put<'a>(
        &self,
        generation: GenerationNo,
        rows: impl Iterator<Item = (&'a KeyBytes, &'a Option<Vec<u8>>)>,
    ) -> Result<(), MetaError> {
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            self.on(|db| {
                let tx = db.unchecked_transaction()?;
                let mut put = tx.prepare_cached("INSERT OR REPLACE INTO overlay VALUES (?1, ?2, ?3)")?;
                for (key, value) in rows.by_ref().take(BATCH) {
                    put.execute(params![key, generation.0 as i64, value])?;
                }
                drop(put);
                tx.commit()
            })?;
        }
        Ok(())
    }

    /// None when none of them says anything of the key.
    pub(super) fn get(&self, key: &[u8], span: Span) -> Result<Option<Option<Vec<u8>>>, MetaError> {
        self.on(|db| {
            db.prepare_cached(
                "SELECT value FROM overlay WHERE key = ?1 AND gen BETWEEN ?2 AND ?3 ORDER BY gen DESC LIMIT 1",
            )?
            .query_row(params![key, span.first.0 as i64, span.last.0 as i64], |row| row.get(0))
            .optional()
        })
    }

    pub(super) fn page(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        span: Span,
    ) -> Result<LayerPage, MetaError> {
        let (start, end) = bounds(prefix, after);
        let (first, last) = (span.first.0 as i64, span.last.0 as i64);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        // With max() the other columns are those of the row that has it: SQLite promises that.
        self.on(|db| match &end {
            Some(end) => db
                .prepare_cached(
                    "SELECT key, value, max(gen) FROM overlay WHERE key >= ?1 AND key < ?2 AND gen BETWEEN ?3 AND ?4
                     GROUP BY key ORDER BY key LIMIT ?5",
                )?
                .query_map(params![start, end, first, last, limit], read)?
                .collect(),
            None => db
                .prepare_cached(
                    "SELECT key, value, max(gen) FROM overlay WHERE key >= ?1 AND gen BETWEEN ?2 AND ?3
                     GROUP BY key ORDER BY key LIMIT ?4",
                )?
                .query_map(params![start, first, last, limit], read)?
                .collect(),
        })
    }

    /// All of one generation, in key order.
    pub(super) fn rows(&self, generation: GenerationNo) -> Result<LayerPage, MetaError> {
        self.on(|db| {
            db.prepare_cached("SELECT key, value FROM overlay INDEXED BY overlay_gen WHERE gen = ?1 ORDER BY key")?
                .query_map([generation.0 as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// Removes that generation and all before it.
    pub(super) fn delete(&self, until: GenerationNo) -> Result<(), MetaError> {
        loop {
            let deleted = self.on(|db| {
                db.prepare_cached(
                    "DELETE FROM overlay WHERE (key, gen) IN
                     (SELECT key, gen FROM overlay INDEXED BY overlay_gen WHERE gen <= ?1 LIMIT ?2)",
                )?
                .execute(params![until.0 as i64, BATCH as i64])
            })?;
            if deleted < BATCH {
                return Ok(());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.on(|db| db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))).unwrap();
    }

    fn on<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, MetaError> {
        work(&self.db.lock()).map_err(|error| explain(&self.path, error))
    }
}
