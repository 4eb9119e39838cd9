//! What can go wrong with content.

use std::io;
use std::sync::Arc;

use crate::base::{ChunkNo, PackName};
use crate::cache::FetchError;
use crate::store::StoreError;

/// Cheap to clone, because a failure is told to everyone whom it concerns, and again later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ContentError {
    #[error("too many unsealed bytes are waiting in memory")]
    DirtyFull,
    #[error("{staged} bytes wait to be uploaded, and no more than {limit} may")]
    StagingFull { staged: u64, limit: u64 },
    #[error("the disk below the staging folder is full")]
    DiskFull(#[source] Arc<io::Error>),
    #[error("staging file of {pack}: {action} failed")]
    Staging {
        pack: PackName,
        action: &'static str,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("the staging folder cannot be used")]
    StagingFolder(#[source] Arc<io::Error>),
    #[error("chunk {chunk} in {pack} failed authentication")]
    Damaged { pack: PackName, chunk: ChunkNo },
    #[error("the row of chunk {chunk} in {pack} cannot be right")]
    BadRow { pack: PackName, chunk: ChunkNo },
    #[error("the store has another object under the name of {pack}")]
    PackTaken { pack: PackName },
    #[error("another copy of this device has uploaded {pack} with other content")]
    PackOfTwin { pack: PackName },
    #[error("{pack} is missing from the store")]
    Missing { pack: PackName },
    #[error("no answer from the store in time")]
    Timeout,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FetchError> for ContentError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Missing(pack) => Self::Missing { pack },
            FetchError::Timeout(_) => Self::Timeout,
            FetchError::Store(error) => Self::Store(error),
        }
    }
}
