//! What went wrong below, as POSIX says it: logged here with its source, once.

use std::error::Error;

use crate::content::ContentError;
use crate::meta::MetaError;
use crate::meta::journal::JournalError;
use crate::meta::resolve::ResolveError;
use crate::store::StoreErrorKind;

use super::api::VfsError;

pub(super) fn meta_error(what: &str, error: &MetaError) -> VfsError {
    tracing::error!("{what}: {}", chain(error));
    match error {
        MetaError::DiskFull { .. } => VfsError::NoSpace,
        MetaError::ReadOnly { .. } => VfsError::ReadOnly,
        MetaError::Journal(JournalError::Io { source, .. }) => io_error(source),
        MetaError::Resolve(error) => resolve_error(error),
        _ => VfsError::Io,
    }
}

pub(super) fn content_error(what: &str, error: &ContentError) -> VfsError {
    tracing::error!("{what}: {}", chain(error));
    match error {
        ContentError::DiskFull(_) => VfsError::NoSpace,
        ContentError::Staging { source, .. } | ContentError::StagingFolder(source) => io_error(source),
        ContentError::DirtyFull | ContentError::StagingFull { .. } | ContentError::Timeout => VfsError::TimedOut,
        ContentError::Store(error) if error.kind == StoreErrorKind::Timeout => VfsError::TimedOut,
        _ => VfsError::Io,
    }
}

fn io_error(error: &std::io::Error) -> VfsError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => VfsError::NoSpace,
        std::io::ErrorKind::QuotaExceeded => VfsError::Quota,
        std::io::ErrorKind::ReadOnlyFilesystem => VfsError::ReadOnly,
        _ => VfsError::Io,
    }
}

/// A race that the namespace lock does not see would be a fault of ours; it still gets its own answer.
fn resolve_error(error: &ResolveError) -> VfsError {
    match error {
        ResolveError::Missing(_) | ResolveError::MissingEntry { .. } => VfsError::NotFound,
        ResolveError::Exists { .. } => VfsError::Exists,
        ResolveError::NotDirectory(_) => VfsError::NotDirectory,
        ResolveError::IsDirectory(_) => VfsError::IsDirectory,
        ResolveError::NotEmpty(_) => VfsError::NotEmpty,
        ResolveError::Cycle { .. } | ResolveError::NotFile(_) => VfsError::Invalid,
        ResolveError::MissingXattr { .. } => VfsError::NoData,
        ResolveError::TooManyLinks(_) => VfsError::TooManyLinks,
        _ => VfsError::Io,
    }
}

/// An error and its sources, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
