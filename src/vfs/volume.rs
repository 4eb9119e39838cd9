//! A volume that is open on this machine: all layers put together, from a store to the filesystem on it.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::base::{ChunkNo, Clock, Entropy, Epoch, PackName, VolumeId};
use crate::cache::{BlockCache, CacheStats, Fetcher};
use crate::content::{
    ChunkReader, ContentError, DirtyBudget, Recovered, Referenced, Staging, StagingOptions, Unreferenced, UploadHealth,
    Uploader,
};
use crate::disk::{Disk, FreeSpace};
use crate::format::pack::PackEntry;
use crate::format::rows::RowKey;
use crate::format::state::Access;
use crate::format::{ObjectName, SlotNo};
use crate::meta::commit::{CommitParts, CommitStatus, Committer, QueuedCut, RotateError};
use crate::meta::keyring::{Keyring, Secret, StateFolder, Trust};
use crate::meta::log::Halt;
use crate::meta::mounting::{MountError, MountOptions, MountedMeta, REPLICA, mount_meta};
use crate::meta::{Cut, FileKeys, Rows};
use crate::store::{Store, StoreError};

use super::api::{Invalidation, KernelCache, VfsError, VfsResult};
use super::atime::KeptAtimes;
use super::cycle::{CutSink, Cycle, CycleOptions};
use super::defragment::Defragmenter;
use super::drive::{Drive, DriveOptions, DriveParts, DriveStatus, RemoteSync};
use super::recover::{Lost, Replay, Replayed};
use super::reseal::{KeepWish, OldKeys, Rate, ResealError, Resealer};
use super::space::{LocalSpace, MOUNT_RESERVE};

#[derive(Clone)]
pub struct VolumeOptions {
    pub state_dir: PathBuf,
    pub cache_dir: PathBuf,
    pub cache_bytes_max: u64,
    /// Bytes that may wait for upload before writers wait.
    pub staging_bytes_max: u64,
    pub dirty_bytes_max: u64,
    pub kdf_memory_max: u64,
    /// For a first mount by identity.
    pub trust: Trust,
    pub device_name: String,
    /// User and group of the root directory, if this is the volume's first mount.
    pub owner: (u32, u32),
    /// Mounts although what was synced is lost: staged bytes are zeros then, and changes behind a damage of the journal
    /// are left out.
    pub accept_loss: bool,
    pub drive: DriveOptions,
    pub cycle: CycleOptions,
}

impl VolumeOptions {
    pub fn new(state_dir: PathBuf, cache_dir: PathBuf) -> Self {
        Self {
            state_dir,
            cache_dir,
            cache_bytes_max: 20 << 30,
            staging_bytes_max: 20 << 30,
            dirty_bytes_max: DirtyBudget::DEFAULT_BYTES,
            kdf_memory_max: 4 << 30,
            trust: Trust::Secret,
            device_name: String::new(),
            owner: (0, 0),
            accept_loss: false,
            drive: DriveOptions::default(),
            cycle: CycleOptions::default(),
        }
    }
}

/// What stands outside: the store, the local disk, time and chance.
#[derive(Clone)]
pub struct Surroundings {
    pub store: Arc<dyn Store>,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub runtime: Handle,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the staging folder could not be opened")]
    Content(#[from] ContentError),
    #[error("what an earlier run left could not be done again: {0}")]
    Replay(VfsError),
    #[error(
        "bytes that were synced on this machine are neither in the staging folder nor in the store: of {files}; nothing \
         was changed. Bring the staging folder's files back, or mount with --accept-loss, which puts zeros in their \
         place"
    )]
    Lost { files: String },
    #[error(
        "changes that were synced on this machine do not fit what other devices did meanwhile: to {files}. There is no \
         merging in this version: nothing was changed, and nothing is lost. What the store has can be read with \
         --read-only; to go on without these changes, move {} away, which is the only place where they are",
        dir.display()
    )]
    Refused { files: String, dir: PathBuf },
    #[error("{pack} is missing from the staging folder, and whether the store has it is not known")]
    NotAsked { pack: PackName, source: StoreError },
    #[error("{0}")]
    NoSpace(String),
    #[error("a thread could not be started")]
    Thread(#[from] io::Error),
}

impl OpenError {
    fn may_be_of_replica(&self) -> bool {
        matches!(self, Self::Replay(_) | Self::Mount(MountError::Meta(_) | MountError::Halted(Halt::Fork { .. })))
    }
}

pub struct Volume {
    /// The first to end: it works on all of the others.
    resealer: Resealer,
    /// None: nothing may be changed.
    defragmenter: Option<Defragmenter>,
    drive: Arc<Drive>,
    staging: Arc<Staging>,
    cache: Arc<BlockCache>,
    committer: Arc<Committer>,
    cycle: Arc<Cycle>,
    kernel: Arc<Mutex<Option<Arc<dyn KernelCache>>>>,
    runtime: Handle,
    opened: Opened,
}

/// What is worth telling about an opening.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    pub replayed: Replayed,
    /// Why the store was not asked.
    pub offline: Option<String>,
    /// What of the journal could not be read.
    pub damage: Option<String>,
}

#[derive(Clone, Debug)]
pub struct VolumeStatus {
    pub drive: DriveStatus,
    pub commits: CommitStatus,
    /// Why nothing more is committed. With names, which are for people and for no log.
    pub stopped: Option<String>,
    pub uploads: UploadHealth,
    /// That changed and are in no record of the log, each once for every commit that it waits for.
    pub waiting_files: u64,
    pub upload_packs: u64,
    pub upload_bytes: u64,
    /// For how long the oldest has waited.
    pub upload_oldest: Option<Duration>,
    pub staged_bytes: u64,
    pub journal_bytes: u64,
    pub cache: CacheStats,
    /// That reads have met since the opening.
    pub damaged_chunks: u64,
    /// What is still sealed with keys of before a rotation.
    pub old_keys: OldKeys,
    /// What is to be done for the local disk, when changes are refused for want of room.
    pub disk_full: Option<String>,
}

/// What a flush still waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    pub bytes: u64,
    pub commits: usize,
}

impl Volume {
    /// Blocks until the drive can answer. Not to be called on the runtime's own threads.
    pub fn open(around: Surroundings, options: VolumeOptions, secret: Secret) -> Result<Self, OpenError> {
        match Self::try_open(around.clone(), options.clone(), secret.duplicate()) {
            // A replica that turned out to be damaged is out of the way by now: the second time it is made anew.
            Err(error) if error.may_be_of_replica() && !options.state_dir.join(REPLICA).exists() => {
                Self::try_open(around, options, secret)
            }
            opened => opened,
        }
    }

    fn try_open(around: Surroundings, options: VolumeOptions, secret: Secret) -> Result<Self, OpenError> {
        let Surroundings { store, disk, clock, entropy, runtime } = around;
        let read_only = options.drive.read_only;
        let cache = Arc::new(BlockCache::open(disk.clone(), options.cache_dir, options.cache_bytes_max));
        let space = LocalSpace::new(FreeSpace::new(disk.clone(), options.state_dir.clone()), cache.clone());
        if !space.has(MOUNT_RESERVE) {
            return Err(OpenError::NoSpace(space.advice(MOUNT_RESERVE)));
        }
        let mounted = runtime.block_on(mount_meta(
            store.clone(),
            MountOptions {
                disk: disk.clone(),
                state_dir: &options.state_dir,
                secret,
                trust: options.trust,
                kdf_memory_max: options.kdf_memory_max,
                read_only,
                device_name: options.device_name,
                accept_loss: options.accept_loss,
                owner: options.owner,
                clock: clock.clone(),
                entropy: entropy.clone(),
            },
        ))?;
        let MountedMeta { keyring, folder, mut identity, driver, kept, pending, leftover, offline } = mounted;

        let roots = keyring.roots.clone();
        let new_pack = {
            let pending = pending.clone();
            Box::new(move || pending.next_pack())
        };
        let staging_options =
            StagingOptions { dir: options.state_dir.join("staging"), bytes_max: options.staging_bytes_max };
        let staging = Arc::new(Staging::open(disk.clone(), staging_options, roots.clone(), entropy.clone(), new_pack)?);
        let mut lost = Lost::default();
        if !read_only {
            // What a damaged journal does not tell any more may refer to the rest.
            let rest = if leftover.damage.is_some() { Unreferenced::SetAside } else { Unreferenced::Remove };
            let recovered = staging.recover(&leftover.referenced, rest)?;
            lost.chunks = runtime.block_on(lost_chunks(store.as_ref(), &leftover.referenced, &recovered))?;
        }
        let fetcher = Fetcher::new(store.clone(), cache.clone());
        let reader = Arc::new(ChunkReader::new(
            keyring.volume(),
            staging.clone(),
            cache.clone(),
            fetcher,
            options.drive.read_deadline,
        ));
        let parts = DriveParts {
            atimes: kept_atimes(&folder, &keyring, &entropy),
            volume: keyring.volume(),
            pending: pending.clone(),
            keys: Arc::new(FileKeys::new(roots.clone(), entropy.clone())),
            staging: staging.clone(),
            reader,
            budget: Arc::new(DirtyBudget::new(options.dirty_bytes_max)),
            clock: clock.clone(),
            entropy: entropy.clone(),
            space,
            runtime: runtime.clone(),
        };
        let drive = Arc::new(Drive::new(parts, options.drive));
        let mut replay = match read_only {
            // Nothing can be journaled: it stays for the next mount that may write.
            true => Replay::default(),
            false => drive.replay(&leftover, lost).map_err(OpenError::Replay)?,
        };
        // Up to here nothing has changed: it is the same the next time.
        if !replay.refused.is_empty() {
            return Err(OpenError::Refused { files: listed(replay.refused.iter()), dir: options.state_dir });
        }
        if !replay.done.lost.is_empty() && !options.accept_loss {
            return Err(OpenError::Lost { files: listed(replay.done.lost.iter().map(|(_, path)| path)) });
        }
        drive.keep_replay(&mut replay).map_err(OpenError::Replay)?;
        if leftover.twin.is_some() && !read_only {
            // From here on the frames of this run stand for all earlier ones.
            let own = pending.device().incarnation;
            identity.note_renumbered(leftover.runs.iter().map(|(run, _)| *run).filter(|run| *run != own).collect());
            let kept = folder.put_identity(&keyring.state_key, keyring.volume(), &identity, entropy.as_ref());
            kept.map_err(MountError::from)?;
            staging.discard(&replay.left_packs)?;
        }
        for (run, last) in leftover.runs.iter().filter(|(run, _)| !read_only && identity.void.contains(run)) {
            pending.journal().release(*run, *last);
        }

        drive.reload_quota();
        let (wish, keep_wish) = kept_wish(&folder, &keyring, &entropy);
        let kernel: Arc<Mutex<Option<Arc<dyn KernelCache>>>> = Arc::default();
        let commit_parts = CommitParts {
            keyring,
            store: store.clone(),
            read_only,
            folder,
            pending,
            staging: staging.clone(),
            uploader: Uploader::start(&runtime, staging.clone(), store.clone(), roots, entropy.clone()),
            kept,
            adopt: {
                let cache = cache.clone();
                Box::new(move |pack, path, len| cache.adopt(pack, path, len))
            },
            foreign: {
                let (kernel, drive) = (kernel.clone(), drive.clone());
                Box::new(move |rows| {
                    drive.note_change();
                    drive.reload_quota();
                    if let Some(kernel) = kernel.lock().clone() {
                        rows.iter().for_each(|(key, _)| invalidate(kernel.as_ref(), key));
                    }
                })
            },
            exclusively: {
                let drive = drive.clone();
                Box::new(move |work| drive.exclusively(work))
            },
            unsealed: {
                let drive = drive.clone();
                Box::new(move || drive.unsealed())
            },
            halted: {
                let drive = drive.clone();
                Box::new(move |_| {
                    drive.refuse_changes();
                    // Nothing will be cut any more: what was acknowledged goes into the journal.
                    let drive = drive.clone();
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = drive.sync_all() {
                            tracing::error!("what was written last is not on this machine's disk: {error}");
                        }
                    });
                })
            },
            clock,
            entropy,
        };
        let committer = Arc::new(Committer::start(&runtime, commit_parts, driver, identity));
        let last = replay.cuts.len().saturating_sub(1);
        let mut all_packs = Vec::new();
        for (no, (cut, packs)) in replay.cuts.into_iter().enumerate() {
            // Later ones may name chunks in them as well.
            all_packs.extend(packs);
            committer.enqueue(QueuedCut { cut, packs: all_packs.clone(), packs_stay: no != last });
        }
        let queue = Queue {
            committer: committer.clone(),
            staging: staging.clone(),
            cache: cache.clone(),
            runtime: runtime.clone(),
            letting_go: Mutex::default(),
        };
        let cycle = Cycle::start(drive.clone(), Arc::new(queue), options.cycle)?;
        let damage = leftover.damage.map(|damage| damage.to_string());
        let opened = Opened { replayed: replay.done, offline, damage };
        let cycle = Arc::new(cycle);
        let remote = Remote { cycle: cycle.clone(), committer: committer.clone(), runtime: runtime.clone() };
        drive.set_remote(Some(Arc::new(remote)));
        let resealer = Resealer::start(drive.clone(), wish.filter(|_| !read_only), keep_wish)?;
        let defragmenter = (!read_only).then(|| Defragmenter::start(drive.clone())).transpose()?;
        Ok(Self { resealer, defragmenter, drive, staging, cache, committer, cycle, kernel, runtime, opened })
    }

    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }

    pub fn id(&self) -> VolumeId {
        self.drive.volume
    }

    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Who is to be told of changes from elsewhere.
    pub fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        self.drive.set_kernel_cache(kernel.clone());
        *self.kernel.lock() = Some(kernel);
    }

    fn told(&self, halt: &Halt) -> String {
        let Halt::Overlap { files, .. } = halt else { return halt.to_string() };
        let names: Vec<String> = files.iter().map(|ino| self.drive.view().path_of(*ino)).collect();
        format!("{halt}: {}", names.join(", "))
    }

    pub fn status(&self) -> VolumeStatus {
        let uploader = self.committer.uploader();
        let uploading = uploader.pending();
        let drive = self.drive.status();
        // What was written last may not have rows yet.
        let waiting_files = self.drive.pending().view().stats().files.max(drive.dirty_files);
        let commits = self.committer.status();
        VolumeStatus {
            drive,
            waiting_files,
            stopped: commits.halted.as_ref().map(|halt| self.told(halt)),
            commits,
            uploads: uploader.health(),
            upload_packs: uploading.packs,
            upload_bytes: uploading.bytes,
            upload_oldest: uploading.oldest,
            staged_bytes: self.staging.bytes(),
            journal_bytes: self.drive.pending().journal().bytes(),
            cache: self.cache.stats(),
            damaged_chunks: self.drive.reader.damaged_chunks(),
            old_keys: self.resealer.status(),
            disk_full: self.drive.space.complaint(),
        }
    }

    pub fn remaining(&self) -> Remaining {
        let status = self.status();
        Remaining { bytes: status.drive.dirty_bytes + status.upload_bytes, commits: status.commits.waiting }
    }

    /// Returns once everything that was written before is in the store. `progress` is told now and then, and ends
    /// the wait by answering false. Everything is on this machine's disk before the first time.
    pub fn flush(&self, progress: &mut dyn FnMut(Remaining) -> bool) -> Result<(), FlushError> {
        if self.drive.is_read_only() {
            return Ok(());
        }
        self.drive.sync_all().map_err(FlushError::Local)?;
        self.cycle.cut().map_err(FlushError::Local)?;
        let queued = self.committer.queued();
        loop {
            let committed = self.committer.wait_committed(queued);
            let committed = async { tokio::time::timeout(Duration::from_millis(200), committed).await };
            match self.runtime.block_on(committed) {
                Ok(done) => return done.map_err(FlushError::Halted),
                Err(_) if !progress(self.remaining()) => return Err(FlushError::Interrupted(self.remaining())),
                Err(_) => {}
            }
        }
    }

    /// Queues a commit of everything that was written before, without waiting for it.
    pub fn cut(&self) -> VfsResult<()> {
        if self.drive.is_read_only() { Ok(()) } else { self.cycle.cut() }
    }

    /// Gives the volume new keys, and lets all slots but `without` have them. Blocks until it is in the log.
    pub fn rotate(&self, without: Option<SlotNo>) -> Result<Epoch, RotateError> {
        self.runtime.block_on(self.committer.rotate(without))
    }

    /// Begins to seal anew what is under keys of earlier epochs, and remembers it across mounts.
    pub fn reseal(&self, rate: Rate) -> Result<(), ResealError> {
        self.resealer.begin(rate)
    }

    /// Until all of that is in the store. `progress` ends the wait, not the work, by answering false.
    pub fn wait_resealed(&self, progress: &mut dyn FnMut(&OldKeys) -> bool) -> Result<(), ResealError> {
        self.resealer.wait(progress)
    }

    /// Ends the cycle and leaves everything on this machine's disk. What the store has not got yet goes there after
    /// the next mount.
    pub fn close(&self) -> VfsResult<()> {
        self.resealer.stop();
        self.defragmenter.iter().for_each(Defragmenter::stop);
        self.cycle.stop();
        // It holds the cycle, which holds the drive.
        self.drive.set_remote(None);
        self.drive.atimes.keep();
        if self.drive.is_read_only() { Ok(()) } else { self.drive.sync_all() }
    }
}

/// Chunks that the journal refers to and that are nowhere: not staged, and not in the store either.
async fn lost_chunks(
    store: &dyn Store,
    referenced: &[Referenced],
    recovered: &Recovered,
) -> Result<HashSet<ChunkNo>, OpenError> {
    let cut_off: HashSet<ChunkNo> = recovered.lost.iter().copied().collect();
    let missing: HashSet<PackName> = recovered.missing.iter().copied().collect();
    let mut lost = HashSet::new();
    for Referenced { name, chunks, .. } in referenced {
        let mut unstaged =
            chunks.iter().filter(|chunk| missing.contains(name) || cut_off.contains(&chunk.chunk)).peekable();
        if unstaged.peek().is_none() {
            continue;
        }
        let size = store.size(&ObjectName::Pack(*name)).await;
        let stored = size.map_err(|source| OpenError::NotAsked { pack: *name, source })?.unwrap_or(0);
        let before = lost.len();
        let end = |chunk: &PackEntry| u64::from(chunk.offset) + u64::from(chunk.len);
        lost.extend(unstaged.filter(|chunk| end(chunk) > stored).map(|chunk| chunk.chunk));
        if lost.len() > before {
            tracing::error!("{name}, which the journal refers to, is neither staged nor in the store as a whole");
        }
    }
    Ok(lost)
}

/// Some of them, for a message.
fn listed<'a>(paths: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 10;
    let count = paths.len();
    let shown = paths.take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Access times are not worth a mount that fails, nor a change that does.
fn kept_atimes(folder: &Arc<StateFolder>, keyring: &Arc<Keyring>, entropy: &Arc<dyn Entropy>) -> KeptAtimes {
    let accesses = folder.accesses(&keyring.state_key, keyring.volume()).unwrap_or_else(|error| {
        tracing::warn!("the access times of earlier mounts are lost: {error}");
        Vec::new()
    });
    let (folder, keyring, entropy) = (folder.clone(), keyring.clone(), entropy.clone());
    let keep = Box::new(move |accesses: &[Access]| {
        if let Err(error) = folder.put_accesses(&keyring.state_key, keyring.volume(), accesses, entropy.as_ref()) {
            tracing::warn!("access times could not be kept: {error}");
        }
    });
    KeptAtimes { accesses, keep }
}

/// What an earlier mount was asked for. A wish that cannot be read is not worth a mount that fails: `status` says what is
/// left.
fn kept_wish(
    folder: &Arc<StateFolder>,
    keyring: &Arc<Keyring>,
    entropy: &Arc<dyn Entropy>,
) -> (Option<Rate>, KeepWish) {
    let wish = folder.resealing(&keyring.state_key, keyring.volume()).unwrap_or_else(|error| {
        tracing::error!("whether data was being sealed anew is not known: {error}");
        None
    });
    let (folder, keyring, entropy) = (folder.clone(), keyring.clone(), entropy.clone());
    let keep = Box::new(move |wish| {
        let kept = folder.put_resealing(&keyring.state_key, keyring.volume(), wish, entropy.as_ref());
        kept.map_err(|error| error.to_string())
    });
    (wish, keep)
}

#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error("what was written could not be made durable on this machine: {0}")]
    Local(VfsError),
    #[error("{0}")]
    Halted(String),
    #[error("interrupted: {} bytes and {} commits are not in the store yet", .0.bytes, .0.commits)]
    Interrupted(Remaining),
}

struct Queue {
    committer: Arc<Committer>,
    staging: Arc<Staging>,
    cache: Arc<BlockCache>,
    runtime: Handle,
    letting_go: Mutex<LettingGo>,
}

/// Packs that are in no cut.
#[derive(Default)]
struct LettingGo {
    packs: Vec<PackName>,
    task: Option<JoinHandle<()>>,
}

impl CutSink for Queue {
    fn enqueue(&self, cut: Cut, packs: Vec<PackName>) {
        self.committer.enqueue(QueuedCut { cut, packs, packs_stay: false });
    }

    fn let_go(&self, packs: Vec<PackName>) {
        let (committer, staging, cache) = (self.committer.clone(), self.staging.clone(), self.cache.clone());
        let mut going = self.letting_go.lock();
        going.packs.retain(|pack| staging.has(*pack));
        going.packs.extend(packs);
        let packs = going.packs.clone();
        let queued = committer.queued();
        let task = self.runtime.spawn(async move {
            // A queued cut may name their chunks, and a drive that stopped keeps everything.
            if committer.wait_committed(queued).await.is_err() {
                return;
            }
            // The next cut meets the same, and stops.
            if committer.uploader().wait_uploaded(&packs).await.is_err() {
                return;
            }
            let leaving = move || staging.committed(&packs, |pack, path, len| cache.adopt(pack, path, len));
            if let Err(error) = tokio::task::spawn_blocking(leaving).await {
                tracing::error!("uploaded packs stay in the staging folder: {error}");
            }
        });
        // The newer one has all packs that are still here.
        if let Some(before) = going.task.replace(task) {
            before.abort();
        }
    }

    fn waiting(&self) -> usize {
        self.committer.status().waiting
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(going) = self.letting_go.lock().task.take() {
            going.abort();
        }
    }
}

struct Remote {
    cycle: Arc<Cycle>,
    committer: Arc<Committer>,
    runtime: Handle,
}

impl RemoteSync for Remote {
    fn flush(&self, deadline: Duration) -> VfsResult<()> {
        let start = Instant::now();
        self.cycle.cut()?;
        let rest = deadline.saturating_sub(start.elapsed());
        let committed = self.committer.wait_committed(self.committer.queued());
        match self.runtime.block_on(async { tokio::time::timeout(rest, committed).await }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(VfsError::Io),
            Err(_) => Err(VfsError::TimedOut),
        }
    }

    fn is_well(&self) -> bool {
        let status = self.committer.status();
        status.halted.is_none() && status.failing.is_none() && self.committer.uploader().health().failing.is_none()
    }
}

fn invalidate(kernel: &dyn KernelCache, key: &[u8]) {
    match RowKey::decode(key) {
        Ok(RowKey::Inode(ino) | RowKey::Extents(ino, _)) => kernel.invalidate(Invalidation::Content(ino)),
        Ok(RowKey::Xattr(ino, _)) => kernel.invalidate(Invalidation::Attributes(ino)),
        Ok(RowKey::Dirent(parent, name)) => kernel.invalidate(Invalidation::Entry { parent, name }),
        _ => {}
    }
}
