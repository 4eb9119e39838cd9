//! Brings closed packs into the store, for ever: a failure is retried with backoff, shown by `health`, and never
//! blocks anybody but who waits for the upload. On hold, nothing is sent: the store showed another history than the
//! one that this device knows.
//!
//! Invariant: a pack counts as uploaded only if the store said that it is new, or holds an object whose footer
//! opens under the volume's keys and lists the same chunks. That may be another footer than ours: a clone of this
//! device closed the same pack, or the local file was damaged after it was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ContentError;
use super::staging::{Pending, Staging};
use crate::base::{ByteRange, Entropy, KIB, PackName};
use crate::crypto::Roots;
use crate::format::{ObjectName, pack};
use crate::store::{Created, Store, StoreErrorKind};

/// Packs that are sent at the same time.
const CONCURRENCY: usize = 4;
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How much of an object's end is compared. The footer and its trailer are in it.
const TAIL_LEN: u64 = 4 * KIB;

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
            held: watch::Sender::new(false),
        });
        let tasks = (0..CONCURRENCY).map(|_| runtime.spawn(shared.clone().run())).collect();
        Self { shared, tasks }
    }

    /// Returns once all of them are in the store. Packs that staging does not have are taken to be there.
    pub async fn wait_uploaded(&self, packs: &[PackName]) {
        for pack in packs {
            loop {
                // Made before the question, so that no change falls between.
                let changed = self.shared.staging.changed();
                if self.shared.staging.is_uploaded(*pack) {
                    break;
                }
                changed.await;
            }
        }
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

    /// False if there is no such object; an error if it is another one.
    async fn is_stored(&self, name: PackName, bytes: &Bytes) -> Result<bool, ContentError> {
        let len = bytes.len() as u64;
        // One byte more, to see that the object ends where ours does.
        let range = ByteRange::new(len.saturating_sub(TAIL_LEN), len + 1);
        match self.store.get_range(&ObjectName::Pack(name), range).await? {
            None => Ok(false),
            Some(tail) if tail == bytes.slice(range.start as usize..) => Ok(true),
            Some(_) => self.lists_our_chunks(name).await,
        }
    }

    async fn lists_our_chunks(&self, name: PackName) -> Result<bool, ContentError> {
        let object = ObjectName::Pack(name);
        let Some(len) = self.store.size(&object).await? else { return Ok(false) };
        let trailer = ByteRange::new(len.saturating_sub(pack::TRAILER_LEN as u64), len);
        let Some(trailer) = self.store.get_range(&object, trailer).await? else { return Ok(false) };
        let taken = || ContentError::PackTaken { pack: name };
        let roots = &self.roots;
        let place = pack::decode_trailer(&trailer, len, name, roots).map_err(|_| taken())?;
        let Some(footer) = self.store.get_range(&object, place.range).await? else { return Ok(false) };
        let listed = pack::decode_footer(&place, &footer, name, roots).map_err(|_| taken())?;
        if self.staging.chunks(name).iter().all(|chunk| listed.contains(chunk)) {
            tracing::warn!(%name, "the store holds this pack with another footer");
            return Ok(true);
        }
        Err(taken())
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
