//! Writing a checkpoint from one state of the replica, a segment at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::plan::{Part, ends_here, plan};
use super::{CheckpointError, blocking, segment, segment_meta};
use crate::base::{Entropy, Hash, SegmentId, Seq};
use crate::crypto::Roots;
use crate::format::rows::{KeyBytes, validate};
use crate::format::{HighWater, Manifest, ObjectName, SegmentBuilder, SegmentMeta};
use crate::meta::error::MetaError;
use crate::meta::log::thin_past;
use crate::meta::replica::{Replica, Segment, Snapshot};
use crate::store::{Created, Op, Store, StoreError, StoreErrorKind, Stored, create_idempotent};

/// Of rows, before they are compressed and sealed.
const SEGMENT_LEN_TARGET: usize = 4 << 20;

/// A checkpoint at the replica's head. `None`: nothing changed since the last one, or another device was faster; then
/// its checkpoint is not noted here. One at a time for each replica.
pub async fn write(
    store: &dyn Store,
    replica: &Arc<Replica>,
    roots: &Roots,
    entropy: &Arc<dyn Entropy>,
) -> Result<Option<Seq>, CheckpointError> {
    write_sized(store, replica, roots, entropy, SEGMENT_LEN_TARGET).await
}

pub(super) async fn write_sized(
    store: &dyn Store,
    replica: &Arc<Replica>,
    roots: &Roots,
    entropy: &Arc<dyn Entropy>,
    target_len: usize,
) -> Result<Option<Seq>, CheckpointError> {
    let (of, sealing, entropy) = (replica.clone(), roots.clone(), entropy.clone());
    let dump = blocking(move || Dump::start(&of, sealing, entropy, target_len)).await??;
    let Some(dump) = dump else { return Ok(None) };
    let name = ObjectName::Checkpoint(dump.snapshot.head().0);
    // Spares most losers of a race the work.
    if store.size(&name).await?.is_some() {
        return Ok(None);
    }

    let mut upload = Upload { store, created: Vec::new() };
    let manifest = match upload.segments(dump).await {
        Ok(manifest) => manifest,
        Err(error) => {
            upload.take_back().await;
            return Err(error);
        }
    };
    if !upload.manifest(&name, manifest.sealed).await? {
        tracing::info!(%name, "another device wrote this checkpoint first");
        return Ok(None);
    }
    let Contents { seq, segments, past } = manifest.contents;
    let of = replica.clone();
    blocking(move || of.checkpointed(seq, &segments, &past)).await??;
    Ok(Some(seq))
}

/// What the store has of this checkpoint so far.
struct Upload<'a> {
    store: &'a dyn Store,
    created: Vec<SegmentId>,
}

impl Upload<'_> {
    /// Stores the new segments, each while the next one is made, and then gives the manifest.
    async fn segments(&mut self, dump: Dump) -> Result<SealedManifest, CheckpointError> {
        let mut metas = Vec::new();
        let mut step = blocking(move || dump.step()).await??;
        loop {
            let (piece, dump) = match step {
                (Some(piece), dump) => (piece, dump),
                (None, dump) => return blocking(move || dump.manifest(metas)).await?,
            };
            let next = blocking(move || dump.step());
            step = match piece {
                Piece::Kept(segment) => {
                    metas.push(segment_meta(segment));
                    next.await??
                }
                Piece::New(meta, bytes) => {
                    let (stored, next) = tokio::join!(self.segment(meta.id, bytes), next);
                    stored?;
                    metas.push(meta);
                    next??
                }
            };
        }
    }

    async fn segment(&mut self, id: SegmentId, bytes: Bytes) -> Result<(), CheckpointError> {
        let object = ObjectName::Segment(id);
        // Before the outcome is known: no harm in deleting what is not there.
        self.created.push(id);
        match create_idempotent(self.store, &object, bytes).await? {
            Stored::Ours => Ok(()),
            // The name is random: the store changed what we gave it.
            Stored::Other => Err(CheckpointError::Damaged { object, source: None }),
        }
    }

    /// Whether the name is now our manifest's.
    async fn manifest(&mut self, name: &ObjectName, bytes: Bytes) -> Result<bool, CheckpointError> {
        let unclear = match self.store.create(name, bytes.clone()).await {
            Ok(Created::New) => return Ok(true),
            // Perhaps by our own create, sent twice somewhere below.
            Ok(Created::Exists) => StoreError::new(
                StoreErrorKind::Server,
                Op::Create,
                Some(*name),
                "the store says that the object exists and does not give it",
            ),
            Err(error) if error.kind == StoreErrorKind::Unknown => error,
            Err(error) => {
                self.take_back().await;
                return Err(error.into());
            }
        };
        // As long as the name is free our create may still arrive: its segments stay, as garbage at worst.
        let Some(found) = self.store.get(name).await? else { return Err(unclear.into()) };
        let is_ours = found == bytes;
        if !is_ours {
            self.take_back().await;
        }
        Ok(is_ours)
    }

    /// What is left behind is garbage that nothing names.
    async fn take_back(&mut self) {
        for id in self.created.drain(..) {
            let object = ObjectName::Segment(id);
            if let Err(error) = self.store.delete(&object).await {
                tracing::warn!(%object, %error, "segments without a checkpoint stay behind");
                return;
            }
        }
    }
}

struct SealedManifest {
    sealed: Bytes,
    contents: Contents,
}

/// What the replica is told.
struct Contents {
    seq: Seq,
    segments: Vec<Segment>,
    past: Vec<(Seq, Hash)>,
}

enum Piece {
    Kept(Segment),
    New(SegmentMeta, Bytes),
}

/// Makes the pieces, in key order. All of it waits for the disk.
struct Dump {
    snapshot: Snapshot,
    roots: Roots,
    entropy: Arc<dyn Entropy>,
    parts: VecDeque<Part>,
    target_len: usize,
}

impl Dump {
    /// `None` when nothing changed since the last checkpoint.
    fn start(
        replica: &Replica,
        roots: Roots,
        entropy: Arc<dyn Entropy>,
        target_len: usize,
    ) -> Result<Option<Self>, CheckpointError> {
        let snapshot = replica.snapshot()?;
        if snapshot.head().0 <= snapshot.checkpoint()? {
            return Ok(None);
        }
        // Sealed, rows have about half their length: this is a quarter of a full segment.
        let small_len = target_len as u64 / 8;
        let parts = plan(snapshot.segments()?, small_len).into();
        Ok(Some(Self { snapshot, roots, entropy, parts, target_len }))
    }

    /// The next piece, `None` at the end.
    fn step(mut self) -> Result<(Option<Piece>, Self), CheckpointError> {
        while let Some(part) = self.parts.pop_front() {
            let (start, end) = match part {
                Part::Keep(segment) => return Ok((Some(Piece::Kept(segment)), self)),
                Part::Dump { start, end } => (start, end),
            };
            let (piece, rest) = self.segment(&start, end.as_deref())?;
            if let Some(start) = rest {
                self.parts.push_front(Part::Dump { start, end });
            }
            if piece.is_some() {
                return Ok((piece, self));
            }
        }
        Ok((None, self))
    }

    /// One segment of the range's first rows, none if it has no rows, and where the rest of the range starts.
    fn segment(&self, start: &[u8], end: Option<&[u8]>) -> Result<(Option<Piece>, Option<KeyBytes>), CheckpointError> {
        let mut builder = SegmentBuilder::new(&self.roots, &*self.entropy);
        let (mut len, mut last, mut rest) = (0, KeyBytes::new(), None);
        for row in self.snapshot.dump(start, end) {
            let (key, value) = row?;
            if !last.is_empty() && ends_here(len, &last, &key, self.target_len) {
                rest = Some(key);
                break;
            }
            // Nobody could load a checkpoint with a malformed row.
            validate(&key, &value).map_err(MetaError::Row)?;
            builder.push(&key, &value).map_err(CheckpointError::Segment)?;
            len += key.len() + value.len();
            last = key;
        }
        if builder.is_empty() {
            return Ok((None, None));
        }
        let (object, meta) = builder.finish().map_err(CheckpointError::Segment)?;
        Ok((Some(Piece::New(meta, object.into())), rest))
    }

    fn manifest(self, segments: Vec<SegmentMeta>) -> Result<SealedManifest, CheckpointError> {
        let (seq, head) = self.snapshot.head();
        let mut past = self.snapshot.past_heads()?;
        past.retain(|(past, _)| *past < seq);
        thin_past(seq, &mut past);
        let high_water = self.snapshot.high_waters()?.into_iter();
        let high_water =
            high_water.map(|(incarnation, intent, hash)| HighWater { incarnation, intent, hash }).collect();
        let noted = segments.iter().map(segment).collect();
        let manifest = Manifest { epoch: self.roots.epoch(), seq, head, segments, high_water, past };
        let sealed = manifest.seal(&self.roots, &*self.entropy).map_err(CheckpointError::Manifest)?.into();
        // The replica goes on remembering this head, too.
        let past = manifest.past.into_iter().chain([(seq, head)]).collect();
        Ok(SealedManifest { sealed, contents: Contents { seq, segments: noted, past } })
    }
}
