//! Brings closed packs into the store, for ever: a failure is retried with backoff, shown by `health`, and never
//! blocks anybody but who waits for the upload. On hold, nothing is sent: the store showed another history than the
//! one that this device knows.
//!
//! Invariant: a pack counts as uploaded only if the store said that it is new, or holds an object with the same chunks
//! under a footer that opens. That may be another footer than ours: a copy of this device closed the same pack, or the
//! local file was damaged after it was sent. A copy with the same random numbers may also have made other chunks of the
//! same numbers and lengths: then this device cannot go on under its number, and `wait_uploaded` says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ContentError;
use super::staging::{Pending, Staging};
use crate::base::{Entropy, PackName};
use crate::crypto::{CHUNK_HEADER_LEN, Roots};
use crate::format::pack::PackEntry;
use crate::format::{ObjectName, pack};
use crate::store::{Created, Store, StoreErrorKind};

/// Packs that are sent at the same time.
const CONCURRENCY: usize = 4;
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Why uploads do not go on, while they do not.
#[derive(Clone, Debug, Default)]
pub struct UploadHealth {
    /// None once an upload has succeeded again.
    pub failing: Option<Failing>,
}

#[derive(Clone, Debug)]
pub struct Failing {
    pub error: ContentError,
    pub since: Instant,
    pub tries: u64,
}

/// Uploads until it is dropped.
pub struct Uploader {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    staging: Arc<Staging>,
    store: Arc<dyn Store>,
    roots: Roots,
    entropy: Arc<dyn Entropy>,
    health: Mutex<UploadHealth>,
    /// A copy of this device has it.
    taken: Mutex<Option<PackName>>,
    held: watch::Sender<bool>,
}

impl Uploader {
    pub fn start(
        runtime: &Handle,
        staging: Arc<Staging>,
        store: Arc<dyn Store>,
        roots: Roots,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let shared = Arc::new(Shared {
            staging,
            store,
            roots,
            entropy,
            health: Mutex::default(),
            taken: Mutex::default(),
            held: watch::Sender::new(false),
        });
        let tasks = (0..CONCURRENCY).map(|_| runtime.spawn(shared.clone().run())).collect();
        Self { shared, tasks }
    }

    /// Returns once all of them are in the store. Packs that staging does not have are taken to be there. Err: one never
    /// will be, for a copy of this device has put another in its place.
    pub async fn wait_uploaded(&self, packs: &[PackName]) -> Result<(), PackName> {
        for pack in packs {
            loop {
                // Made before the question, so that no change falls between.
                let changed = self.shared.staging.changed();
                if self.shared.staging.is_uploaded(*pack) {
                    break;
                }
                if let Some(taken) = *self.shared.taken.lock() {
                    return Err(taken);
                }
                changed.await;
            }
        }
        Ok(())
    }

    /// Sends nothing more, also of what is under way, until it is told to go on.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    pub fn pending(&self) -> Pending {
        self.shared.staging.pending()
    }

    pub fn health(&self) -> UploadHealth {
        self.shared.health.lock().clone()
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        loop {
            let changed = self.staging.changed();
            match self.staging.take_closed() {
                Some(name) => self.upload(name).await,
                None => changed.await,
            }
        }
    }

    async fn upload(self: &Arc<Self>, name: PackName) {
        let mut backoff = BACKOFF_MIN;
        let mut held = self.held.subscribe();
        loop {
            // The sender is in `self`: neither wait can fail.
            let _ = held.wait_for(|held| !held).await;
            let tried = tokio::select! {
                biased;
                _ = held.wait_for(|held| *held) => continue,
                tried = self.try_upload(name) => tried,
            };
            let Err(error) = tried else { break };
            if let ContentError::PackOfTwin { pack } = error {
                tracing::error!(%name, "{error}");
                self.note_failure(error);
                *self.taken.lock() = Some(pack);
                self.staging.wake();
                return;
            }
            tracing::warn!(%name, %error, retry_in = ?backoff, "upload failed");
            self.note_failure(error);
            tokio::time::sleep(self.jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.health.lock().failing = None;
        self.staging.uploaded(name);
    }

    async fn try_upload(self: &Arc<Self>, name: PackName) -> Result<(), ContentError> {
        let Some(bytes) = self.object(name).await? else { return Ok(()) };
        match self.store.create(&ObjectName::Pack(name), bytes.clone()).await {
            Ok(Created::New) => Ok(()),
            // By an earlier try of ours whose answer was lost, or of a run that crashed.
            Ok(Created::Exists) => match self.is_stored(name, &bytes).await? {
                true => Ok(()),
                false => Err(ContentError::Missing { pack: name }),
            },
            Err(error) if matches!(error.kind, StoreErrorKind::Unknown | StoreErrorKind::Timeout) => {
                // The reply was lost; the put may have landed, and asking is cheaper than sending it again.
                if self.is_stored(name, &bytes).await? { Ok(()) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Disk waits stay off the runtime's threads.
    async fn object(self: &Arc<Self>, name: PackName) -> Result<Option<Bytes>, ContentError> {
        let shared = self.clone();
        match tokio::task::spawn_blocking(move || shared.staging.object(name)).await {
            Ok(object) => object,
            // Only at shutdown; the pack stays queued on disk for the next run.
            Err(_) => Err(ContentError::Timeout),
        }
    }

    /// False if there is no such object; an error if it is another one. All of it is read: the footer names chunks, and
    /// whoever has our random numbers can have made it of others.
    async fn is_stored(&self, name: PackName, bytes: &Bytes) -> Result<bool, ContentError> {
        let Some(found) = self.store.get(&ObjectName::Pack(name)).await? else { return Ok(false) };
        if found == bytes {
            return Ok(true);
        }
        let taken = || ContentError::PackTaken { pack: name };
        let len = found.len() as u64;
        let place = pack::decode_trailer(&found, len, name, &self.roots).map_err(|_| taken())?;
        let footer = &found[place.range.start as usize..place.range.end as usize];
        let listed = pack::decode_footer(&place, footer, name, &self.roots).map_err(|_| taken())?;
        // By their headers, which differ for any other content. What a disk did to the rest here is not in the store.
        let is_here = |chunk: &PackEntry| {
            let header = chunk.offset as usize..chunk.offset as usize + CHUNK_HEADER_LEN;
            listed.contains(chunk) && found.get(header.clone()) == bytes.get(header)
        };
        if self.staging.chunks(name).iter().all(is_here) {
            tracing::warn!(%name, "the store holds this pack with another footer");
            return Ok(true);
        }
        // Its footer was made by a device of this volume, under this name.
        Err(ContentError::PackOfTwin { pack: name })
    }

    fn note_failure(&self, error: ContentError) {
        let mut health = self.health.lock();
        let (since, tries) = match &health.failing {
            Some(failing) => (failing.since, failing.tries),
            None => (Instant::now(), 0),
        };
        health.failing = Some(Failing { error, since, tries: tries + 1 });
    }

    /// Between a half and the whole, so that devices which lost the store together do not return together.
    fn jittered(&self, backoff: Duration) -> Duration {
        let mut random = [0; 4];
        self.entropy.fill(&mut random);
        backoff / 2 + (backoff / 2).mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
