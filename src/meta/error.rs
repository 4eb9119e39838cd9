//! What can go wrong below the filesystem's operations.

use std::error::Error;
use std::path::PathBuf;

use super::journal::JournalError;
use super::resolve::ResolveError;
use crate::base::Seq;
use crate::crypto::CryptoError;
use crate::format::FormatError;

/// Boxed, so that no layer above learns which database this is.
pub type Cause = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// Nothing is lost: delete the file (`Replica::delete`) and rebuild it from checkpoint and log.
    #[error("{path} is damaged, of another version, or another device's; it has to be rebuilt")]
    ReplicaDamaged { path: PathBuf, source: Option<Cause> },
    #[error("no space left for {path}")]
    DiskFull { path: PathBuf, source: Cause },
    #[error("{path} cannot be written")]
    ReadOnly { path: PathBuf, source: Cause },
    #[error("{path}: input/output error")]
    Io { path: PathBuf, source: Cause },
    #[error("{path}: the database failed")]
    Database { path: PathBuf, source: Cause },
    /// Rows are validated before they come in, so this is a damaged replica or a fault of ours.
    #[error("a row that was accepted is malformed")]
    Row(#[from] FormatError),
    /// A user's deed that the tree does not allow; the caller checked, so only a replay gets here.
    #[error(transparent)]
    Resolve(Box<ResolveError>),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{0} cannot be opened")]
    Sealed(&'static str, #[source] CryptoError),
    #[error("{0} that others refer to is missing: the volume's metadata is damaged")]
    MissingRow(&'static str),
    #[error("this state folder has had as many runs as it can; mount with another one")]
    NumbersUsedUp,
    #[error("record {seq} does not follow head {head}")]
    OutOfOrder { head: Seq, seq: Seq },
}

impl From<ResolveError> for MetaError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Meta(error) => error,
            other => Self::Resolve(Box::new(other)),
        }
    }
}
