//! How every database file here is opened, and what its errors mean.
//!
//! Invariant: a file is never written in the clear: the key is set before anything else touches it.

use std::fmt::Write;
use std::path::Path;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};
use zeroize::Zeroizing;

use super::error::MetaError;
use crate::crypto::Key;

const SHORT_READ: i32 = rusqlite::ffi::SQLITE_IOERR_SHORT_READ;

/// Connections are used by one thread at a time, each behind a mutex of ours.
pub(super) fn open(path: &Path, key: &Key, cache_kib: u32) -> Result<Connection, MetaError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The cipher's library sets itself up with the first key of a process, and two threads at once were seen to fail.
    static OPENING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = OPENING.lock();
    let connect = || {
        let db = Connection::open_with_flags(path, flags)?;
        // 96 hex digits would carry a salt too; with 64 the file's own is used, and nothing is derived.
        let mut pragma = Zeroizing::new(String::with_capacity(128));
        pragma.push_str("PRAGMA cipher_log_level = NONE; PRAGMA key = \"x'");
        for byte in key.expose() {
            let _ = write!(pragma, "{byte:02x}");
        }
        pragma.push_str("'\"");
        db.execute_batch(&pragma)?;
        db.execute_batch(&format!(
            "PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA cache_size = -{cache_kib}"
        ))?;
        db.busy_timeout(std::time::Duration::from_secs(10))?;
        // Else a statement with `LIMIT ?` is compiled again each time, which costs more than running it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(db)
    };
    connect().map_err(|error| explain(path, error))
}

pub(super) fn explain(path: &Path, error: Error) -> MetaError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        // A file that ends too early is damage, too, whatever SQLite calls it.
        _ if error.sqlite_error().is_some_and(|error| error.extended_code == SHORT_READ) => {
            MetaError::ReplicaDamaged { path, source: Some(error.into()) }
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            MetaError::ReplicaDamaged { path, source: Some(error.into()) }
        }
        Some(ErrorCode::DiskFull) => MetaError::DiskFull { path, source: error.into() },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => MetaError::ReadOnly { path, source: error.into() },
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => MetaError::Io { path, source: error.into() },
        _ => MetaError::Database { path, source: error.into() },
    }
}
