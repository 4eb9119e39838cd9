//! Making a replica from a checkpoint: segments are fetched several at a time, and verified and filled in one by one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{CheckpointError, blocking, segment};
use crate::crypto::{Key, Roots};
use crate::format::{Manifest, ObjectName, SegmentMeta, SegmentReader, object_hash};
use crate::meta::replica::{BulkLoad, LoadedHead, Replica};
use crate::store::{Keep, Store};

/// Each is a few MiB, and in memory.
const FETCHES: usize = 8;

/// The replica at the checkpoint's head, in a file that takes the place of the one at `path` (which must not be open)
/// once it is whole. After an error that file is as it was.
pub async fn load(
    keep: Arc<Keep>,
    manifest: &Manifest,
    roots: &Roots,
    path: &Path,
    key: &Key,
) -> Result<Replica, CheckpointError> {
    let (sender, objects) = mpsc::channel(1);
    let filling = Filling {
        manifest: manifest.clone(),
        roots: roots.clone(),
        path: path.to_owned(),
        key: key.duplicate(),
        objects,
    };
    let fetching = async {
        let mut objects = stream::iter(&manifest.segments).map(|meta| fetch(&keep, meta)).buffered(FETCHES);
        while let Some(object) = objects.next().await {
            let is_last = object.is_err();
            // Who fills has failed when it no longer takes any, and says why.
            if sender.send(object).await.is_err() || is_last {
                break;
            }
        }
    };
    let ((), replica) = tokio::join!(fetching, blocking(move || filling.run()));
    replica?
}

/// Also what is not the manifest's: who fills says what is wrong with it. A copy is kept only of what is.
async fn fetch(keep: &Keep, meta: &SegmentMeta) -> Result<Bytes, CheckpointError> {
    let object = ObjectName::Segment(meta.id);
    if let Some(copy) = keep.copy(&object).await {
        if object_hash(&copy) == meta.hash {
            return Ok(copy);
        }
        keep.forget(&object).await;
    }
    let bytes = keep.get(&object).await?.ok_or(CheckpointError::Missing { object })?;
    if object_hash(&bytes) == meta.hash {
        keep.put_copy(&object, bytes.clone()).await;
    }
    Ok(bytes)
}

struct Filling {
    manifest: Manifest,
    roots: Roots,
    path: PathBuf,
    key: Key,
    /// One for each segment, in order. It ends early when the load is given up.
    objects: mpsc::Receiver<Result<Bytes, CheckpointError>>,
}

impl Filling {
    fn run(mut self) -> Result<Replica, CheckpointError> {
        let replica = self.fill();
        if replica.is_err()
            && let Err(error) = Replica::discard_bulk_load(&self.path)
        {
            tracing::warn!(%error, "a half-built replica stays behind");
        }
        replica
    }

    fn fill(&mut self) -> Result<Replica, CheckpointError> {
        let mut bulk = Replica::bulk_load(&self.path, &self.key)?;
        for meta in &self.manifest.segments {
            let object = self.objects.blocking_recv().ok_or(CheckpointError::Stopped)??;
            push_all(&mut bulk, meta, &object, &self.roots)?;
        }
        let manifest = &self.manifest;
        let high_waters = manifest.high_water.iter().map(|entry| (entry.incarnation, entry.intent, entry.hash));
        let rest = LoadedHead {
            segments: manifest.segments.iter().map(segment).collect(),
            high_waters: high_waters.collect(),
            past: manifest.past.clone(),
            epoch: manifest.epoch,
        };
        Ok(bulk.finish((manifest.seq, manifest.head), &rest)?)
    }
}

/// The object is the manifest's, or nothing is pushed; each block is verified before its rows are.
fn push_all(bulk: &mut BulkLoad, meta: &SegmentMeta, object: &[u8], roots: &Roots) -> Result<(), CheckpointError> {
    let damaged = |source| CheckpointError::Damaged { object: ObjectName::Segment(meta.id), source: Some(source) };
    let reader = SegmentReader::open(meta, object, roots).map_err(damaged)?;
    for block in reader.blocks() {
        for (key, value) in block.map_err(damaged)? {
            bulk.push(&key, &value)?;
        }
    }
    Ok(())
}
