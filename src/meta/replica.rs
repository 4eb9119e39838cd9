//! All rows at the head, in an encrypted SQLite file.
//!
//! Invariants: the file always holds exactly the rows of one head, and says which; it changes by one record
//! at a time. It is rebuildable from checkpoint and log, so a power loss may take its last records (never its
//! consistency) and a damaged file is deleted. It knows nothing of what is pending, nor what rows mean, but
//! for chunks: it keeps the index from content to chunk, which is a hint and may forget.

mod bulk;
mod checkpointing;
mod snapshot;

use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, io};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::error::MetaError;
use super::overlay::bounds;
use super::rows::Rows;
use super::sqlite::{self, explain};
use crate::base::{ChunkId, ChunkNo, DeviceSlot, Epoch, Hash, Incarnation, IntentNo, Seq};
use crate::crypto::Key;
use crate::disk::Disk;
use crate::format::rows::{ChunkRow, InodeRow, KeyBytes, RowKey};

pub use bulk::{BulkLoad, LoadedHead};
pub use checkpointing::Segment;
use checkpointing::Touched;
pub use snapshot::Snapshot;

const READERS: usize = 4;
const READER_CACHE_KIB: u32 = 8 << 10;
const WRITER_CACHE_KIB: u32 = 16 << 10;
/// The write-ahead log is copied into the file when it is longer than this, outside of all locks that
/// readers wait for.
const WAL_LEN_MAX: u64 = 8 << 20;

const APPLICATION_ID: i64 = 0x6875_7368;
const SCHEMA_VERSION: i64 = 2;
const SCHEMA: &str = "
CREATE TABLE rows(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
-- The first 8 bytes of a chunk's id. Stale entries are harmless: who looks verifies the whole id.
CREATE TABLE dedup(prefix INTEGER PRIMARY KEY, chunk INTEGER NOT NULL);
CREATE TABLE high_water(incarnation BLOB PRIMARY KEY, intent_no INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
-- One row. `epoch` is the one that the next record must have, and `ended_...` the last record that ended one, if it was
-- applied here. `checkpoint` is the newest one known, 0 if none.
CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL, hash BLOB NOT NULL,
                  epoch INTEGER NOT NULL, ended_epoch INTEGER, ended_seq INTEGER, ended_hash BLOB,
                  checkpoint INTEGER NOT NULL, inodes INTEGER NOT NULL, bytes INTEGER NOT NULL);
-- Records since the checkpoint, and those of before it that the next manifest still names.
CREATE TABLE heads(seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, len INTEGER NOT NULL);
-- The checkpoint's, and the last record that changed a row in the range of each.
CREATE TABLE segments(idx INTEGER PRIMARY KEY, id BLOB NOT NULL, first BLOB NOT NULL, last BLOB NOT NULL,
                      rows INTEGER NOT NULL, len INTEGER NOT NULL, hash BLOB NOT NULL, touched INTEGER NOT NULL);
INSERT INTO meta VALUES (0, 0, zeroblob(32), 0, NULL, NULL, NULL, 0, 0, 0);
";

pub struct Replica {
    path: PathBuf,
    key: Key,
    writer: Mutex<Writer>,
    readers: Vec<Mutex<Connection>>,
    /// Changes under the writer's lock only.
    head: RwLock<(Seq, Hash)>,
    /// At that head.
    epoch: RwLock<Epoch>,
    usage: RwLock<Usage>,
    /// Damage was found, and the file's name is gone.
    condemned: AtomicBool,
}

/// What all files together take, at the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub inodes: i64,
    /// That extents cover; what several files share counts for each.
    pub bytes: i64,
}

struct Writer {
    db: Connection,
    touched: Touched,
}

/// One record of the log, to be applied.
#[derive(Clone, Copy, Debug)]
pub struct RecordApply<'a> {
    pub seq: Seq,
    pub hash: Hash,
    pub epoch: Epoch,
    /// If it ends its epoch: the one that it begins.
    pub next_epoch: Option<Epoch>,
    pub incarnation: Incarnation,
    pub high_water: IntentNo,
    pub high_water_hash: Hash,
    pub rows: &'a [(KeyBytes, Option<Vec<u8>>)],
    /// Of the object in the store.
    pub record_len: u64,
}

impl Replica {
    /// Opens the file, or makes one for an empty volume.
    pub fn open(path: &Path, key: &Key) -> Result<Self, MetaError> {
        let wrap = |error| explain(path, error);
        let db = sqlite::open(path, key, WRITER_CACHE_KIB)?;
        prepare_schema(path, &db)?;
        // The log has every record: what a power loss takes here is applied again. `sync` is for what it must not take,
        // since without the store nothing can be read again.
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")
            .map_err(wrap)?;
        db.execute_batch(&format!("PRAGMA journal_size_limit = {WAL_LEN_MAX}")).map_err(wrap)?;
        let head = read_head(&db).map_err(wrap)?;
        let epoch = read_epoch(&db).map_err(wrap)?;
        let usage = read_usage(&db).map_err(wrap)?;
        let touched = Touched::read(&db).map_err(wrap)?;
        let readers = (0..READERS)
            .map(|_| {
                let db = sqlite::open(path, key, READER_CACHE_KIB)?;
                db.execute_batch("PRAGMA query_only = ON").map_err(wrap)?;
                Ok(Mutex::new(db))
            })
            .collect::<Result<_, MetaError>>()?;
        Ok(Self {
            path: path.to_owned(),
            key: key.duplicate(),
            writer: Mutex::new(Writer { db, touched }),
            readers,
            head: RwLock::new(head),
            epoch: RwLock::new(epoch),
            usage: RwLock::new(usage),
            condemned: AtomicBool::new(false),
        })
    }

    /// Removes the file and what belongs to it. No replica of this path may be open.
    pub fn delete(path: &Path) -> Result<(), MetaError> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            match fs::remove_file(with_suffix(path, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(MetaError::Io { path: path.to_owned(), source: error.into() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What was applied survives a power cut: to be called before anyone remembers that it was.
    pub fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        match disk.open(&with_suffix(&self.path, "-wal"), false).and_then(|file| file.sync_data()) {
            // All of it is in the database itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }

    /// Of the next record.
    pub fn epoch(&self) -> Epoch {
        *self.epoch.read()
    }

    /// The epoch that ended last, and the record that ended it, if it was applied here.
    pub fn ended(&self) -> Result<Option<(Epoch, Seq, Hash)>, MetaError> {
        let read = |row: &Row<'_>| Ok((Epoch(row.get(0)?), Seq(row.get::<_, i64>(1)? as u64), Hash(row.get(2)?)));
        self.read_one("SELECT ended_epoch, ended_seq, ended_hash FROM meta WHERE ended_epoch NOT NULL", [], read)
    }

    pub fn head(&self) -> (Seq, Hash) {
        *self.head.read()
    }

    pub fn usage(&self) -> Usage {
        *self.usage.read()
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        self.read_one("SELECT value FROM rows WHERE key = ?1", params![key], |row| row.get(0))
    }

    /// At most `limit` rows whose keys begin with `prefix`, in key order, from the first key behind `after`:
    /// all of one state.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        let (start, end) = bounds(prefix, after);
        self.on(|db| page(db, &start, end.as_deref(), limit))
    }

    /// The chunk whose content is probably this: the caller compares the whole id with the chunk's row.
    pub fn chunk_by_prefix(&self, id: &ChunkId) -> Result<Option<ChunkNo>, MetaError> {
        let chunk = self.read_one("SELECT chunk FROM dedup WHERE prefix = ?1", [dedup_prefix(id)], |row| row.get(0))?;
        Ok(chunk.map(|no: i64| ChunkNo(no as u64)))
    }

    /// The next write of this content stores it anew.
    pub fn forget_dedup(&self, id: &ChunkId) -> Result<(), MetaError> {
        let writer = self.writer.lock();
        let done = writer.db.execute("DELETE FROM dedup WHERE prefix = ?1", [dedup_prefix(id)]);
        done.map(drop).map_err(|error| self.explain(error))
    }

    /// The last intent of that incarnation that the log covers, and its place in the chain.
    pub fn high_water(&self, incarnation: &Incarnation) -> Result<Option<(IntentNo, Hash)>, MetaError> {
        self.read_one("SELECT intent_no, hash FROM high_water WHERE incarnation = ?1", [incarnation.0], |row| {
            Ok((IntentNo(row.get::<_, i64>(0)? as u64), Hash(row.get(1)?)))
        })
    }

    /// The largest slot that has a row.
    pub fn max_device_slot(&self) -> Result<Option<DeviceSlot>, MetaError> {
        let (start, end) = bounds(b"V", None);
        let key: Option<Vec<u8>> = self.read_one(
            "SELECT key FROM rows WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT 1",
            params![start, end],
            |row| row.get(0),
        )?;
        match key.map(|key| RowKey::decode(&key)).transpose()? {
            Some(RowKey::Device(slot)) => Ok(Some(slot)),
            _ => Ok(None),
        }
    }

    /// Applies the record that follows the head, in one transaction.
    pub fn apply(&self, record: &RecordApply<'_>) -> Result<(), MetaError> {
        self.prepare(record)?.commit()
    }

    /// All of `apply` but the commit, which is short.
    pub fn prepare(&self, record: &RecordApply<'_>) -> Result<Prepared<'_>, MetaError> {
        let writer = self.writer.lock();
        let (head, _) = self.head();
        if head.0.checked_add(1) != Some(record.seq.0) {
            return Err(MetaError::OutOfOrder { head, seq: record.seq });
        }
        writer.db.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.explain(error))?;
        let mut prepared = Prepared {
            replica: self,
            writer,
            head: (record.seq, record.hash),
            epoch: record.next_epoch.unwrap_or(record.epoch),
            usage: Usage::default(),
            open: true,
        };
        prepared.put(record).map_err(|error| self.explain(error))?;
        Ok(prepared)
    }

    /// Reads every page: authentic, and a well-formed database.
    pub fn quick_check(&self) -> Result<(), MetaError> {
        for check in ["PRAGMA cipher_integrity_check", "PRAGMA quick_check(1)"] {
            let fault: Option<String> = self.read_one(check, [], |row| row.get(0))?;
            if fault.is_some_and(|fault| fault != "ok") {
                return Err(MetaError::ReplicaDamaged { path: self.path.clone(), source: None });
            }
        }
        Ok(())
    }

    fn read_one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, MetaError> {
        self.on(|db| db.prepare_cached(sql)?.query_row(params, read).optional())
    }

    /// With one of the readers: this thread's, or else any that is free.
    fn on<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, MetaError> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let mine = MINE.with(|mine| *mine);
        let free = (0..READERS).find_map(|i| self.readers[(mine + i) % READERS].try_lock());
        let db = free.unwrap_or_else(|| self.readers[mine % READERS].lock());
        read(&db).map_err(|error| self.explain(error))
    }

    /// Damage deep inside shows only when somebody comes there. Then the file loses its name, so that the next mount
    /// makes it anew; until then what can still be read is.
    fn explain(&self, error: rusqlite::Error) -> MetaError {
        let error = explain(&self.path, error);
        if matches!(error, MetaError::ReplicaDamaged { .. }) && !self.condemned.swap(true, Ordering::Relaxed) {
            tracing::error!("{error}: what cannot be read of it is an error until the next mount, which rebuilds it");
            if let Err(error) = Self::delete(&self.path) {
                tracing::error!("it could not be removed: {error}");
            }
        }
        error
    }
}

/// Each call by itself sees one state.
impl Rows for Replica {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        self.get(key)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        self.scan(prefix, after, limit)
    }
}

/// A record that is in the file but not yet visible. Dropped, it leaves nothing.
pub struct Prepared<'a> {
    replica: &'a Replica,
    writer: MutexGuard<'a, Writer>,
    head: (Seq, Hash),
    epoch: Epoch,
    /// By how much the usage grows.
    usage: Usage,
    open: bool,
}

impl Prepared<'_> {
    /// From here on readers see the record.
    pub fn commit(mut self) -> Result<(), MetaError> {
        self.publish()?;
        self.tidy();
        Ok(())
    }

    /// The commit alone; `tidy` is to follow when nobody waits.
    pub(super) fn publish(&mut self) -> Result<(), MetaError> {
        self.writer.db.execute_batch("COMMIT").map_err(|error| self.replica.explain(error))?;
        self.open = false;
        *self.replica.head.write() = self.head;
        *self.replica.epoch.write() = self.epoch;
        *self.replica.usage.write() += self.usage;
        Ok(())
    }

    /// Keeps the write-ahead log short.
    pub(super) fn tidy(&self) {
        let wal = with_suffix(&self.replica.path, "-wal");
        if fs::metadata(wal).is_ok_and(|wal| wal.len() > WAL_LEN_MAX)
            && let Err(error) = self.writer.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            // The record is committed all the same. A full disk shows at the next one.
            tracing::warn!(path = %self.replica.path.display(), %error, "the replica's write-ahead log stays long");
        }
    }

    fn put(&mut self, record: &RecordApply<'_>) -> rusqlite::Result<()> {
        let Writer { db, touched } = &mut *self.writer;
        let usage = put_rows(db, record.rows)?;
        self.usage = usage;
        let (seq, hash) = (record.seq.0 as i64, record.hash.0);
        touched.mark(db, record.seq, record.rows.iter().map(|(key, _)| key.as_slice()))?;
        db.prepare_cached(
            "INSERT INTO high_water VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET intent_no = excluded.intent_no, hash = excluded.hash",
        )?
        .execute(params![record.incarnation.0, record.high_water.0 as i64, record.high_water_hash.0])?;
        db.prepare_cached("INSERT INTO heads VALUES (?1, ?2, ?3)")?.execute(params![
            seq,
            hash,
            record.record_len as i64
        ])?;
        db.prepare_cached("UPDATE meta SET seq = ?1, hash = ?2, epoch = ?3, inodes = inodes + ?4, bytes = bytes + ?5")?
            .execute(params![seq, hash, self.epoch.0, usage.inodes, usage.bytes])?;
        if record.next_epoch.is_some() {
            db.prepare_cached("UPDATE meta SET ended_epoch = ?1, ended_seq = seq, ended_hash = hash")?
                .execute([record.epoch.0])?;
        }
        Ok(())
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if self.open {
            let _ = self.writer.db.execute_batch("ROLLBACK");
            self.writer.touched.forget_marks();
        }
    }
}

/// Returns by how much the usage grew.
fn put_rows(db: &Connection, rows: &[(KeyBytes, Option<Vec<u8>>)]) -> rusqlite::Result<Usage> {
    let mut usage = Usage::default();
    let mut put =
        db.prepare_cached("INSERT INTO rows VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?;
    let mut get = db.prepare_cached("SELECT value FROM rows WHERE key = ?1")?;
    let mut delete = db.prepare_cached("DELETE FROM rows WHERE key = ?1")?;
    let mut index = db.prepare_cached("INSERT OR REPLACE INTO dedup VALUES (?1, ?2)")?;
    let mut forget = db.prepare_cached("DELETE FROM dedup WHERE prefix = ?1 AND chunk = ?2")?;
    for (key, value) in rows {
        if key.first() == Some(&b'I') {
            let old: Option<Vec<u8>> = get.query_row([key], |row| row.get(0)).optional()?;
            usage.count(value.as_deref(), 1);
            usage.count(old.as_deref(), -1);
        }
        match value {
            Some(value) => {
                put.execute(params![key, value])?;
                if let Some((prefix, chunk)) = dedup_entry(key, value) {
                    index.execute([prefix, chunk])?;
                }
            }
            None => {
                if key.first() == Some(&b'C') {
                    let old: Option<Vec<u8>> = get.query_row([key], |row| row.get(0)).optional()?;
                    if let Some((prefix, chunk)) = old.and_then(|old| dedup_entry(key, &old)) {
                        forget.execute([prefix, chunk])?;
                    }
                }
                delete.execute([key])?;
            }
        }
    }
    Ok(usage)
}

impl Usage {
    /// Adds or takes away an inode's row.
    pub(super) fn count(&mut self, row: Option<&[u8]>, sign: i64) {
        if let Some(allocated) = row.and_then(|row| InodeRow::decode_allocated(row).ok()) {
            self.inodes += sign;
            self.bytes += sign * allocated as i64;
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.inodes += other.inodes;
        self.bytes += other.bytes;
    }
}

/// The dedup entry of a chunk's row; None for any other row.
fn dedup_entry(key: &[u8], value: &[u8]) -> Option<(i64, i64)> {
    if key.first() != Some(&b'C') {
        return None;
    }
    let RowKey::Chunk(no) = RowKey::decode(key).ok()? else { return None };
    let row = ChunkRow::decode(value).ok()?;
    Some((dedup_prefix(&row.id), no.0 as i64))
}

fn dedup_prefix(id: &ChunkId) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn page(db: &Connection, start: &[u8], end: Option<&[u8]>, limit: usize) -> rusqlite::Result<Vec<(KeyBytes, Vec<u8>)>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    match end {
        Some(end) => db
            .prepare_cached("SELECT key, value FROM rows WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3")?
            .query_map(params![start, end, limit], read)?
            .collect(),
        None => db
            .prepare_cached("SELECT key, value FROM rows WHERE key >= ?1 ORDER BY key LIMIT ?2")?
            .query_map(params![start, limit], read)?
            .collect(),
    }
}

/// Makes the tables of a new file; refuses one that is not ours.
fn prepare_schema(path: &Path, db: &Connection) -> Result<(), MetaError> {
    let wrap = |error| explain(path, error);
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(wrap);
    if number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return db
            .execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            ))
            .map_err(wrap);
    }
    if (number("PRAGMA application_id")?, number("PRAGMA user_version")?) != (APPLICATION_ID, SCHEMA_VERSION) {
        return Err(MetaError::ReplicaDamaged { path: path.to_owned(), source: None });
    }
    Ok(())
}

fn read_head(db: &Connection) -> rusqlite::Result<(Seq, Hash)> {
    db.query_row("SELECT seq, hash FROM meta", [], |row| Ok((Seq(row.get::<_, i64>(0)? as u64), Hash(row.get(1)?))))
}

fn read_epoch(db: &Connection) -> rusqlite::Result<Epoch> {
    db.query_row("SELECT epoch FROM meta", [], |row| row.get(0).map(Epoch))
}

fn read_usage(db: &Connection) -> rusqlite::Result<Usage> {
    db.query_row("SELECT inodes, bytes FROM meta", [], |row| Ok(Usage { inodes: row.get(0)?, bytes: row.get(1)? }))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests;
