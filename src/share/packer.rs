//! Puts sealed chunks into packs and uploads them, two at a time while the next is being filled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::base::{CHUNK_LEN, Entropy, LinkId, MIB};
use crate::crypto::Key;
use crate::format::ObjectName;
use crate::format::link::{ChunkRef, link_footer, link_footer_len_max, seal_link_chunk};
use crate::store::{Backoff, Patience, Store, StoreError, Stored, create_idempotent};

use super::ShareError;
use super::busy::Stop;

pub(super) const PACK_LEN: usize = 16 << 20;
/// A sealed chunk of 1 MiB, with every frame raw.
const SEALED_LEN_MAX: usize = CHUNK_LEN as usize + 1024;
const UPLOADS: usize = 2;
/// How long the store may be away before a publication gives up. It can be gone on with.
const AWAY: Duration = Duration::from_secs(300);

pub(super) struct PackerParts {
    pub store: Arc<dyn Store>,
    pub runtime: Handle,
    pub link: LinkId,
    pub root: Key,
    pub footer_key: Key,
    pub entropy: Arc<dyn Entropy>,
    /// The last number that is not free any more,
    pub last: u64,
    /// and those after it that somebody has taken.
    pub taken: BTreeSet<u64>,
    pub stop: Stop,
}

/// At most 16 MiB being filled and two packs on their way.
pub(super) struct Packer {
    parts: PackerParts,
    /// The number of the pack that is being filled.
    number: u64,
    bytes: Vec<u8>,
    chunks: Vec<ChunkRef>,
    uploads: VecDeque<JoinHandle<Result<Stored, StoreError>>>,
    /// Packs that were given to the store, and how many bytes of chunks are in each.
    pub made: BTreeMap<u64, u64>,
    pub sent_bytes: u64,
}

impl Packer {
    pub fn new(parts: PackerParts) -> Self {
        let (bytes, chunks, uploads, made) = Default::default();
        let number = free_after(parts.last, &parts.taken);
        Self { parts, number, bytes, chunks, uploads, made, sent_bytes: 0 }
    }

    /// Seals the chunk. May wait for an upload.
    pub fn add(&mut self, plain: &[u8]) -> Result<ChunkRef, ShareError> {
        let full = self.bytes.len() + SEALED_LEN_MAX + link_footer_len_max(self.chunks.len() + 1) > PACK_LEN;
        if full && !self.chunks.is_empty() {
            self.close()?;
        }
        let PackerParts { link, root, entropy, .. } = &self.parts;
        let place = (self.number, self.bytes.len() as u32);
        let (sealed, chunk) = seal_link_chunk(*link, root, plain, place, entropy.as_ref());
        self.bytes.extend_from_slice(&sealed);
        self.chunks.push(chunk.clone());
        Ok(chunk)
    }

    /// Returns once everything is in the store.
    pub fn finish(&mut self) -> Result<(), ShareError> {
        if !self.chunks.is_empty() {
            self.close()?;
        }
        self.wait_until(0)
    }

    fn close(&mut self) -> Result<(), ShareError> {
        self.wait_until(UPLOADS - 1)?;
        let PackerParts { store, runtime, link, footer_key, entropy, taken, .. } = &self.parts;
        let number = self.number;
        self.number = free_after(number, taken);
        let (chunks, mut bytes) = (std::mem::take(&mut self.chunks), std::mem::take(&mut self.bytes));
        let footer = link_footer(&chunks, bytes.len() as u64, *link, number, footer_key, entropy.as_ref());
        self.made.insert(number, bytes.len() as u64);
        bytes.extend_from_slice(&footer);
        self.sent_bytes += bytes.len() as u64;
        let (store, name, bytes) = (store.clone(), ObjectName::SharePack(*link, number), Bytes::from(bytes));
        self.uploads.push_back(runtime.spawn(async move { upload(store.as_ref(), &name, bytes).await }));
        Ok(())
    }

    fn wait_until(&mut self, left: usize) -> Result<(), ShareError> {
        while self.uploads.len() > left {
            let Some(upload) = self.uploads.pop_front() else { break };
            match self.parts.stop.wait(&self.parts.runtime, upload)? {
                Ok(Ok(Stored::Ours)) => {}
                Ok(Ok(Stored::Other)) => return Err(ShareError::Conflict),
                Ok(Err(error)) => return Err(error.into()),
                // The runtime is ending.
                Err(_) => return Err(ShareError::Interrupted),
            }
        }
        Ok(())
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.uploads.iter().for_each(JoinHandle::abort);
    }
}

/// What somebody planted under the names of a link is passed over, and costs no more than that.
pub(super) fn free_after(last: u64, taken: &BTreeSet<u64>) -> u64 {
    let mut number = last.saturating_add(1);
    while taken.contains(&number) && number < u64::MAX {
        number += 1;
    }
    number
}

/// Again while the store is only away for a while.
pub(super) async fn upload(store: &dyn Store, name: &ObjectName, bytes: Bytes) -> Result<Stored, StoreError> {
    let started = Instant::now();
    let mut backoff = Backoff::new(&Patience::default());
    loop {
        match create_idempotent(store, name, bytes.clone()).await {
            Err(error) if error.kind.is_passing() && started.elapsed() < AWAY => {
                tracing::warn!("{name} was not stored, trying again: {error}");
                tokio::time::sleep(backoff.pause()).await;
            }
            outcome => return outcome,
        }
    }
}

const _: () = assert!(PACK_LEN as u64 == 16 * MIB && PACK_LEN > 2 * SEALED_LEN_MAX);
