//! All rows at one head as objects in the store: written after enough log, and what a new device starts from.
//!
//! Invariants: segments are stored before the manifest that names them, and are deleted again only when it is
//! certain that no manifest of ours can appear; a manifest's name is given once, and who comes second throws its
//! own segments away. What is loaded was verified whole before the replica's file appears. It does not know when
//! the log may be trimmed, nor whether a manifest belongs to the history this device has seen: that is `log`'s.

mod load;
mod plan;
mod write;

use crate::base::{MIB, Seq};
use crate::crypto::{CryptoError, Roots};
use crate::format::{Manifest, ObjectName, OpenError, SegmentMeta};
use crate::store::{Keep, Prefix, Store, StoreError};

use super::error::MetaError;
use super::replica::{Replica, Segment};

pub use load::load;
pub use write::write;

/// The listing is the store's, and could name any number.
const MANIFESTS_TRIED_MAX: usize = 32;
/// This much log is always reason enough.
const LOG_LEN_DUE: u64 = 8 * MIB;
/// This much is, when it is a quarter of what the last checkpoint holds.
const LOG_LEN_DUE_MIN: u64 = MIB;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Changed, another object, or sealed by somebody without the key.
    #[error("{object} is damaged")]
    Damaged { object: ObjectName, source: Option<OpenError> },
    #[error("{object}, which a checkpoint names, is missing")]
    Missing { object: ObjectName },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("a segment cannot be sealed")]
    Segment(#[source] OpenError),
    #[error("a manifest cannot be sealed")]
    Manifest(#[source] CryptoError),
    /// The program is ending.
    #[error("stopped before the checkpoint was done")]
    Stopped,
}

/// Whether there is enough log since the last checkpoint that a device which starts from it had rather not read.
pub fn due(replica: &Replica) -> Result<bool, MetaError> {
    let log_len = replica.log_len()?;
    if !(LOG_LEN_DUE_MIN..LOG_LEN_DUE).contains(&log_len) {
        return Ok(log_len >= LOG_LEN_DUE);
    }
    let segments = replica.snapshot()?.segments()?;
    let checkpoint_len: u64 = segments.iter().map(|(segment, _)| segment.len).sum();
    Ok(log_len >= checkpoint_len / 4)
}

/// The newest checkpoint that can be opened. `None` is no proof that there is none: the listing is the store's.
pub async fn newest(keep: &Keep, roots: &Roots) -> Result<Option<Manifest>, CheckpointError> {
    newest_of(keep, roots, |_| true).await
}

/// The newest one before another, which turned out to lack something.
pub async fn newest_before(keep: &Keep, roots: &Roots, seq: Seq) -> Result<Option<Manifest>, CheckpointError> {
    newest_of(keep, roots, |found| found < seq).await
}

async fn newest_of(
    keep: &Keep,
    roots: &Roots,
    is_wanted: impl Fn(Seq) -> bool,
) -> Result<Option<Manifest>, CheckpointError> {
    let mut found: Vec<Seq> = keep
        .list(Prefix::Checkpoints)
        .await?
        .into_iter()
        .filter_map(|name| match name {
            ObjectName::Checkpoint(seq) if is_wanted(seq) => Some(seq),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    for seq in found.into_iter().rev().take(MANIFESTS_TRIED_MAX) {
        let object = ObjectName::Checkpoint(seq);
        let Some(bytes) = keep.get(&object).await? else {
            tracing::warn!(%object, "a checkpoint is listed but cannot be read; it is passed over");
            continue;
        };
        match Manifest::open(seq, &bytes, roots) {
            // Whoever was shut out since then could have made it. The log, which cannot be forged, leads past it.
            Ok(manifest) if manifest.epoch < roots.epoch() => {
                tracing::info!(%object, "a checkpoint of an epoch that has ended is passed over");
            }
            Ok(manifest) => {
                keep.put_copy(&object, bytes).await;
                return Ok(Some(manifest));
            }
            Err(error) => {
                tracing::warn!(%object, %error, "a damaged checkpoint is passed over");
                keep.forget(&object).await;
            }
        }
    }
    Ok(None)
}

/// On a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CheckpointError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => CheckpointError::Stopped,
    })
}

fn segment(meta: &SegmentMeta) -> Segment {
    let SegmentMeta { id, first, last, rows, len, hash } = meta.clone();
    Segment { id, first, last, rows, len, hash }
}

fn segment_meta(segment: Segment) -> SegmentMeta {
    let Segment { id, first, last, rows, len, hash } = segment;
    SegmentMeta { id, first, last, rows, len, hash }
}

#[cfg(test)]
mod tests;
