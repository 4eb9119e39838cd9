//! The composition root: puts the layers together for this machine, and gives every failure its exit code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::args::{ReachArgs, StoreArgs};
use super::control::{CacheUse, Left, OldKeys, Status, StoreState, Waiting};
use super::exit::{Code, Failure, OrExit, Outcome};
use super::mount_options::{Atime, FsyncMode};
use super::password::Password;
use super::serve::Backend;
use crate::base::{ByteSize, Clock, Entropy, Hash, SystemClock, SystemEntropy};
use crate::crypto::{KDF_SALT_LEN, KdfError, KdfParameters, RecoveryWords, parse_recipient, password_key};
use crate::disk::RealDisk;
use crate::format::{SlotKind, SlotNo};
use crate::meta::commit::RotateError;
use crate::meta::keyring::{self, KeyObjects, KeyringError, Opened, Secret, Trust};
use crate::meta::mounting::MountError;
use crate::share::{FollowOptions, Follower, Sharing, SharingParts};
use crate::store::{
    Connected, Creates, Health, HealthLevel, Store, StoreError, StoreOptions, StoreUrl, connect, race_creates,
};
use crate::vfs::api::{KernelCache, Vfs};
use crate::vfs::{AtimeMode, FlushError, OpenError, Rate, ResealError, Surroundings, Volume, VolumeOptions};

/// What a key derivation may take of this machine's memory unless a flag allows more.
const KDF_MEMORY_SHARE: u64 = 4;

pub struct OpenOptions {
    pub store: StoreArgs,
    pub secret: Secret,
    pub trust: Trust,
    /// One folder per volume is made inside.
    pub state: PathBuf,
    pub cache: PathBuf,
    pub cache_bytes_max: u64,
    pub read_only: bool,
    pub fsync: FsyncMode,
    pub atime: Atime,
    pub directory_atime: bool,
    /// To be set; zero lifts it.
    pub quota: Option<ByteSize>,
    /// Derive the key even if that takes more than a quarter of this machine's memory.
    pub allow_large_kdf: bool,
    /// Mount although staged bytes are gone.
    pub accept_loss: bool,
}

pub struct InitOptions {
    pub store: StoreArgs,
    pub password: Password,
    /// None: what this machine bears.
    pub kdf_memory_kib: Option<u32>,
}

/// What `init` has to say.
pub struct Initialised {
    /// Hexadecimal.
    pub volume: String,
    /// 24 words, shown once.
    pub recovery_key: Password,
    /// Whether of two creates of one object exactly one succeeded; otherwise only one device may use the volume.
    pub creates_are_exclusive: bool,
}

pub struct Slot {
    pub number: u16,
    /// Such as "password" or "recovery key".
    pub kind: String,
    pub label: String,
    /// Stays the same through rotations.
    pub fingerprint: String,
    /// For people.
    pub created: String,
}

/// The layers of one mounted volume.
pub struct RunningDrive {
    volume: Arc<Volume>,
    sharing: Arc<Sharing>,
    /// From the mount on.
    follower: Mutex<Option<Follower>>,
    health: Arc<Health>,
    read_only: bool,
    id: String,
}

/// Unlocks, recovers what a crash left, and starts what runs behind: uploads, commits, following the log.
pub async fn open_drive(options: OpenOptions) -> Outcome<RunningDrive> {
    let Connected { store, health } = connected(&options.store, false)?;
    // Two addresses of one bucket are two devices, which is safe; one address never has two folders.
    let tag = folder_tag(&options.store);
    let mut volume = VolumeOptions::new(options.state.join(&tag), options.cache.join(&tag));
    volume.cache_bytes_max = options.cache_bytes_max;
    volume.device_name = host_name();
    volume.owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    volume.drive.read_only = options.read_only;
    volume.drive.sync_remote = options.fsync == FsyncMode::Remote;
    volume.drive.atime = match options.atime {
        Atime::Relative => AtimeMode::Relative,
        Atime::Never => AtimeMode::Never,
        Atime::Always => AtimeMode::Strict,
    };
    volume.drive.directory_atime = options.directory_atime;
    volume.kdf_memory_max = kdf_memory_max(options.allow_large_kdf);
    volume.trust = options.trust;
    volume.accept_loss = options.accept_loss;
    let links_store = store.clone();
    let around = Surroundings {
        store,
        disk: Arc::new(RealDisk),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        runtime: tokio::runtime::Handle::current(),
    };
    let secret = options.secret;
    let opening = tokio::task::spawn_blocking(move || {
        let volume = Volume::open(around, volume, secret).map_err(open_failure)?;
        if let Some(quota) = options.quota {
            let set = volume.drive().set_quota(quota);
            set.map_err(|error| Failure::new(Code::Other, format!("the quota cannot be set: {error}")))?;
        }
        Ok::<_, Failure>(volume)
    });
    let volume = with_notice(&options.store.url, &health, opening).await??;
    tell(&volume);
    let id = volume.id().to_string();
    let sharing = Sharing::new(SharingParts {
        drive: volume.drive().clone(),
        store: links_store,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        runtime: tokio::runtime::Handle::current(),
    });
    let (volume, sharing) = (Arc::new(volume), Arc::new(sharing));
    Ok(RunningDrive { volume, sharing, follower: Mutex::default(), health, read_only: options.read_only, id })
}

/// Says that it takes long because the store does not answer, if so.
async fn with_notice<T>(url: &str, health: &Health, work: impl Future<Output = T>) -> T {
    const WORTH_A_WORD: Duration = Duration::from_secs(3);
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(WORTH_A_WORD, &mut work).await {
        return done;
    }
    if !health.has_answered() {
        let error = health.snapshot().last_error.map(|(_, text)| format!(" ({text})"));
        eprintln!("hushfs: {url} has not answered yet{}; still trying", error.unwrap_or_default());
    }
    work.await
}

pub async fn init_volume(options: InitOptions) -> Outcome<Initialised> {
    let Connected { store, health } = connected(&options.store, true)?;
    let kdf = match options.kdf_memory_kib {
        Some(memory_kib) => KdfParameters { memory_kib, ..KdfParameters::DEFAULT },
        None => measured_kdf().await?,
    };
    kdf.check()?;
    let racing = race_creates(store.as_ref(), &SystemEntropy);
    let creates = with_notice(&options.store.url, &health, racing).await.map_err(store_failure)?;
    let creates_are_exclusive = matches!(creates, Creates::Exclusive);
    let password = options.password.as_bytes();
    let made = keyring::init_volume(
        store.as_ref(),
        password,
        kdf,
        creates_are_exclusive,
        SystemClock.now(),
        &SystemEntropy as &dyn Entropy,
    );
    let made = made.await.map_err(keyring_failure)?;
    Ok(Initialised {
        volume: made.volume.to_string(),
        recovery_key: Password::new(made.words.text().as_bytes())?,
        creates_are_exclusive,
    })
}

/// The volume's fingerprint, and its slots.
pub async fn list_slots(store: &StoreArgs, secret: Secret) -> Outcome<(String, Vec<Slot>)> {
    let Connected { store, .. } = connected(store, false)?;
    let objects = KeyObjects::fetch(store.as_ref()).await.map_err(keyring_failure)?;
    let (objects, _, opened) = unlock(objects, secret).await?;
    let (epoch, root) = opened.roots.current();
    let slots = objects.slots.iter().filter(|slot| slot.place().epoch == epoch).map(|slot| {
        let info = slot.info();
        let kind = match info.kind {
            SlotKind::Password { .. } => "password",
            SlotKind::Recovery => "recovery key",
            SlotKind::Recipient => "recipient",
        };
        let label = match slot.details(&root) {
            Ok(details) => details.label,
            // A slot that this volume's root did not make.
            Err(_) => "not made by this volume's owner".into(),
        };
        Slot {
            number: info.number.get(),
            kind: kind.into(),
            label,
            fingerprint: info.fingerprint,
            created: date(info.created.into()),
        }
    });
    Ok((objects.volume.fingerprint(), slots.collect()))
}

/// Lets the recipient in. Gives the slot's number and the volume's fingerprint, which they need.
pub async fn add_recipient(store: &StoreArgs, secret: Secret, recipient: &str, label: &str) -> Outcome<(u16, String)> {
    let public = parse_recipient(recipient).or_exit(Code::Usage)?;
    let Connected { store, .. } = connected(store, false)?;
    let objects = KeyObjects::fetch(store.as_ref()).await.map_err(keyring_failure)?;
    let (objects, _, opened) = unlock(objects, secret).await?;
    let (now, entropy) = (SystemClock.now(), &SystemEntropy as &dyn Entropy);
    let added = keyring::add_recipient(store.as_ref(), &opened, public, label, now, entropy).await;
    Ok((added.map_err(keyring_failure)?.get(), objects.volume.fingerprint()))
}

/// By a device of this machine's own that is not mounted: `Busy` if it is.
pub async fn rotate(options: OpenOptions, without: Option<u16>) -> Outcome<u32> {
    let drive = open_drive(options).await?;
    let rotated = drive.rotate(without).await;
    drive.close(true).await?;
    rotated
}

/// New keys, and then all that is there under them. By a device that is not mounted, as `rotate`. What an earlier
/// call began and did not end is gone on with, without another rotation. `progress` answers false to interrupt it.
pub async fn rotate_data(
    options: OpenOptions,
    rate: Rate,
    mut progress: impl FnMut(&Left) -> bool + Send + 'static,
) -> Outcome {
    let drive = open_drive(options).await?;
    if !drive.volume.status().old_keys.resealing {
        drive.rotate(None).await?;
    }
    let volume = drive.volume.clone();
    let resealing = tokio::task::spawn_blocking(move || {
        volume.reseal(rate)?;
        volume.wait_resealed(&mut |old| progress(&left_of(old)))
    });
    let done = resealing.await?;
    // All that counts is in the store, or on this machine for the next time.
    drive.close(done.is_ok()).await?;
    done.map_err(reseal_failure)
}

fn left_of(old: &crate::vfs::OldKeys) -> Left {
    let left = old.left.unwrap_or_default();
    Left { files: left.files, bytes: left.bytes, trouble: old.trouble.clone() }
}

pub async fn change_password(store: &StoreArgs, old: Secret, new: &Password) -> Outcome {
    replace_password(store, old, new).await
}

/// Makes `new` open the volume, by the recovery words.
pub async fn recover(store: &StoreArgs, recovery_key: &Password, new: &Password) -> Outcome {
    let text = std::str::from_utf8(recovery_key.as_bytes())
        .map_err(|_| Failure::new(Code::WrongPassword, "the recovery key is not text"))?;
    let words = RecoveryWords::parse(text)
        .map_err(|error| Failure::new(Code::WrongPassword, format!("the recovery key is mistyped: {error}")))?;
    replace_password(store, Secret::Recovery(words), new).await
}

async fn replace_password(store: &StoreArgs, secret: Secret, new: &Password) -> Outcome {
    let Connected { store, .. } = connected(store, false)?;
    let objects = KeyObjects::fetch(store.as_ref()).await.map_err(keyring_failure)?;
    let (_, secret, opened) = unlock(objects, secret).await?;
    let kdf = measured_kdf().await?;
    let (now, entropy) = (SystemClock.now(), &SystemEntropy as &dyn Entropy);
    let changed = keyring::change_password(store.as_ref(), &secret, &opened, new.as_bytes(), kdf, now, entropy).await;
    changed.map(drop).map_err(keyring_failure)
}

/// On a thread of its own, as deriving a key is slow on purpose.
async fn unlock(objects: KeyObjects, secret: Secret) -> Outcome<(KeyObjects, Secret, Opened)> {
    let memory_max = kdf_memory_max(false);
    let unlocking = tokio::task::spawn_blocking(move || {
        let opened = objects.unlock(&secret, memory_max);
        opened.map(|opened| (objects, secret, opened))
    });
    unlocking.await?.map_err(keyring_failure)
}

/// What one guess of a new password costs: about this long on this machine, in the usual memory or a quarter of what
/// there is.
async fn measured_kdf() -> Outcome<KdfParameters> {
    const WANTED: Duration = Duration::from_secs(1);
    let (usual, least) = (KdfParameters::DEFAULT, KdfParameters::FLOOR.memory_kib);
    let share = u32::try_from(kdf_memory_max(false) >> 10).unwrap_or(u32::MAX);
    let kdf = KdfParameters { memory_kib: usual.memory_kib.min(share).max(least), ..usual };
    let measuring = tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        password_key(b"", &[0; KDF_SALT_LEN], &kdf)?;
        Ok::<_, KdfError>(kdf.with_passes_for(WANTED, start.elapsed()))
    });
    Ok(measuring.await??)
}

/// For reading what needs no key of a volume.
pub fn store(args: &StoreArgs) -> Outcome<Arc<dyn Store>> {
    Ok(connected(args, false)?.store)
}

/// Of a folder on this machine.
pub fn folder_store(folder: &Path) -> Outcome<Arc<dyn Store>> {
    let url = folder.to_str().ok_or_else(|| Failure::usage("the folder's path is not UTF-8"))?;
    store(&ReachArgs::default().store(url)?)
}

fn connected(args: &StoreArgs, create_folder: bool) -> Outcome<Connected> {
    let url = StoreUrl::parse(&args.url).map_err(|error| Failure::from(error).with_code(Code::Usage))?;
    let reach = &args.reach;
    if reach.endpoint_url.as_ref().is_some_and(|endpoint| !endpoint.contains("://")) {
        return Err(Failure::usage("--endpoint-url takes a URL, such as https://host or http://127.0.0.1:9000"));
    }
    let options = StoreOptions {
        endpoint_url: reach.endpoint_url.clone(),
        region: reach.region.clone(),
        profile: reach.profile.clone(),
        instance_credentials: reach.instance_credentials,
        create_folder,
        ..StoreOptions::default()
    };
    connect(&url, &options).map_err(store_failure)
}

fn folder_tag(args: &StoreArgs) -> String {
    let url = StoreUrl::parse(&args.url).map_or_else(|_| args.url.clone(), |url| url.to_string());
    let endpoint = args.reach.endpoint_url.as_deref().unwrap_or_default();
    let hash = Hash(crate::crypto::blake3(format!("{url}\n{endpoint}").as_bytes())).to_string();
    hash[..16].to_owned()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// In bytes.
fn kdf_memory_max(allow_large: bool) -> u64 {
    let ceiling = KdfParameters::CEILING.memory_bytes();
    if allow_large {
        return ceiling;
    }
    let info = rustix::system::sysinfo();
    let total = info.totalram.saturating_mul(info.mem_unit.into());
    (total / KDF_MEMORY_SHARE).clamp(KdfParameters::FLOOR.memory_bytes(), ceiling)
}

/// What the opening found goes into the log; nothing in it is private.
fn tell(volume: &Volume) {
    let opened = volume.opened();
    if let Some(error) = &opened.offline {
        tracing::warn!("the drive shows what this machine knows, for the store does not tell more: {error}");
    }
    if let Some(damage) = &opened.damage {
        tracing::error!("{damage}");
    }
    for (ino, _) in &opened.replayed.lost {
        tracing::error!("inode {ino} has zeros where synced bytes were lost; `find DIR -inum {ino}` names it");
    }
    if opened.replayed.intents > 0 {
        tracing::info!("{} changes of earlier runs were done again from the journal", opened.replayed.intents);
    }
}

fn open_failure(error: OpenError) -> Failure {
    match error {
        OpenError::Mount(MountError::Keyring(error)) => keyring_failure(error),
        OpenError::Mount(
            MountError::Store(error) | MountError::FirstMountOffline(error) | MountError::NotRebuilt(error),
        ) => store_failure(error),
        OpenError::Mount(error @ MountError::SharedSlot(_)) => Failure::from(error).with_code(Code::StoreUnreachable),
        OpenError::Mount(error @ (MountError::Rollback(_) | MountError::Halted(_))) => {
            Failure::from(error).with_code(Code::Rollback)
        }
        error @ (OpenError::Lost { .. } | OpenError::Refused { .. }) => Failure::from(error)
            .logged_as("not mounted: what is in the state folder does not go together with the volume"),
        other => other.into(),
    }
}

fn keyring_failure(error: KeyringError) -> Failure {
    let code = match &error {
        KeyringError::NoVolume => Code::NoVolume,
        KeyringError::VolumeExists => Code::VolumeExists,
        KeyringError::WrongSecret | KeyringError::NoSlot => Code::WrongPassword,
        KeyringError::SlotRemoved(_) => Code::WrongPassword,
        KeyringError::OtherVolume { .. }
        | KeyringError::OtherRoot
        | KeyringError::OlderEpoch { .. }
        | KeyringError::OtherFingerprint { .. }
        | KeyringError::BrokenChain(_) => Code::Rollback,
        KeyringError::FingerprintNeeded | KeyringError::NoSuchSlot(_) | KeyringError::OwnSlot(_) => Code::Usage,
        KeyringError::RotatedMeanwhile | KeyringError::Rotating => Code::Busy,
        KeyringError::Busy { .. } => Code::Busy,
        KeyringError::Store(error) => return store_failure(error.clone()),
        KeyringError::Interrupted => Code::Interrupted,
        KeyringError::NoFreeSlot
        | KeyringError::NoFreePassword
        | KeyringError::NoFreeEpoch
        | KeyringError::LastSlot
        | KeyringError::TooMuchMemory { .. }
        | KeyringError::Kdf(_)
        | KeyringError::Volume(_)
        | KeyringError::Slot(_)
        | KeyringError::DamagedState { .. }
        | KeyringError::State { .. } => Code::Other,
    };
    Failure::from(error).with_code(code)
}

/// Without what the libraries below said one after the other: the error has it in short.
fn store_failure(error: StoreError) -> Failure {
    tracing::debug!(?error, "the store failed");
    Failure::new(Code::StoreUnreachable, error)
}

fn flush_failure(error: FlushError) -> Failure {
    let code = match error {
        FlushError::Local(_) => Code::Other,
        FlushError::Halted(_) => Code::Rollback,
        FlushError::Interrupted(_) => Code::Interrupted,
    };
    Failure::from(error).with_code(code)
}

/// UTC, to the second, as RFC 3339 writes it.
pub(super) fn date(time: SystemTime) -> String {
    let time = crate::base::Timestamp::from(time);
    let ((year, month, day), rest) = (time.date(), time.secs.rem_euclid(86_400));
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[async_trait]
impl Backend for RunningDrive {
    fn vfs(&self) -> Arc<dyn Vfs> {
        self.volume.drive().clone()
    }

    fn mounted(&self, kernel: Arc<dyn KernelCache>) {
        self.volume.set_kernel_cache(kernel);
        if self.read_only {
            return;
        }
        match Follower::start(self.sharing.clone(), FollowOptions::default()) {
            Ok(follower) => *self.follower.lock() = Some(follower),
            Err(error) => tracing::error!("live links are not followed: {error}"),
        }
    }

    fn status(&self) -> Status {
        let status = self.volume.status();
        let health = self.health.snapshot();
        let ok = health.level == HealthLevel::Ok;
        let trouble = self.trouble();
        let past = health.last_error.clone().filter(|_| trouble.is_none());
        let oldest = status.upload_oldest.max(status.drive.uncut_for);
        Status {
            read_only: self.read_only,
            stopped: status.stopped,
            volume: Some(self.id.clone()),
            head: Some(status.commits.head.0),
            waiting: Waiting {
                files: status.waiting_files.max(status.commits.waiting as u64),
                bytes: status.drive.dirty_bytes + status.upload_bytes,
                oldest_seconds: oldest.map(|age| age.as_secs()),
            },
            old_keys: OldKeys {
                files: status.old_keys.left.map(|left| left.files),
                chunks: status.old_keys.left.map(|left| left.chunks),
                bytes: status.old_keys.left.map(|left| left.bytes),
                resealing: status.old_keys.resealing,
                unreadable: status.old_keys.unreadable,
            },
            cache: CacheUse {
                used_bytes: status.cache.bytes,
                max_bytes: status.cache.bytes_max,
                disabled: status.cache.failing,
            },
            store: StoreState {
                ok,
                error: if ok { None } else { health.last_error.as_ref().map(|(_, text)| text.clone()) },
                failing_for_seconds: self.health.down_for().map(|down| down.as_secs()),
            },
            last_error_seconds_ago: past.as_ref().map(|(at, _)| at.elapsed().unwrap_or_default().as_secs()),
            last_error: trouble.or(past.map(|(_, text)| text)),
            damaged_chunks: status.damaged_chunks,
            ..Status::default()
        }
    }

    fn left(&self) -> Left {
        let status = self.volume.status();
        Left {
            files: status.waiting_files.max(status.commits.waiting as u64),
            bytes: status.drive.dirty_bytes + status.upload_bytes,
            trouble: self.trouble(),
        }
    }

    async fn flush(&self) -> Outcome {
        let volume = self.volume.clone();
        // Whoever gave up waiting is told by the channel, and the thread ends with its next report.
        let (waiting, gone) = std::sync::mpsc::channel::<()>();
        let flushing = tokio::task::spawn_blocking(move || {
            volume.flush(&mut |_| !matches!(gone.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)))
        });
        let outcome = flushing.await?.map_err(flush_failure);
        drop(waiting);
        outcome
    }

    async fn close(&self, wait: bool) -> Outcome {
        let follower = self.follower.lock().take();
        tokio::task::spawn_blocking(move || drop(follower)).await?;
        if wait {
            self.flush().await?;
        }
        let volume = self.volume.clone();
        let closed = tokio::task::spawn_blocking(move || volume.close()).await?;
        Ok(closed?)
    }

    async fn rotate(&self, without: Option<u16>) -> Outcome<u32> {
        let without = match without.map(SlotNo::new) {
            Some(None) => return Err(Failure::usage("there is no such key slot; `hushfs key ls` shows them")),
            Some(slot) => slot,
            None => None,
        };
        let volume = self.volume.clone();
        let epoch = tokio::task::spawn_blocking(move || volume.rotate(without)).await?.map_err(rotate_failure)?;
        Ok(epoch.0)
    }

    fn left_to_reseal(&self) -> Left {
        left_of(&self.volume.status().old_keys)
    }

    async fn reseal(&self, rate: Option<u64>) -> Outcome {
        let volume = self.volume.clone();
        // As in `flush`.
        let (waiting, gone) = std::sync::mpsc::channel::<()>();
        let resealing = tokio::task::spawn_blocking(move || {
            volume.reseal(rate)?;
            volume.wait_resealed(&mut |_| !matches!(gone.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)))
        });
        let outcome = resealing.await?.map_err(reseal_failure);
        drop(waiting);
        outcome
    }

    fn sharing(&self) -> Outcome<Arc<Sharing>> {
        Ok(self.sharing.clone())
    }
}

fn reseal_failure(error: ResealError) -> Failure {
    let code = match error {
        ResealError::ReadOnly | ResealError::Stopped(_) | ResealError::Unreadable(_) => Code::Other,
        ResealError::Closed | ResealError::Interrupted(_) => Code::Interrupted,
    };
    Failure::from(error).with_code(code)
}

fn rotate_failure(error: RotateError) -> Failure {
    match error {
        RotateError::Keyring(error) => keyring_failure(error),
        RotateError::Halted(_) => Failure::from(error).with_code(Code::Rollback),
        RotateError::NotCompleted(_) => Failure::from(error).with_code(Code::StoreUnreachable),
        RotateError::ReadOnly | RotateError::Closed => Failure::from(error),
    }
}

impl RunningDrive {
    /// Why what waits does not get less.
    fn trouble(&self) -> Option<String> {
        let status = self.volume.status();
        let uploads = status.uploads.failing.map(|failing| failing.error.to_string());
        status.stopped.or(status.disk_full).or(uploads).or(status.commits.failing.map(|(_, text)| text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |secs: i64| date(crate::base::Timestamp::new(secs, 0).into());
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn one_address_has_one_state_folder() {
        let args = |url: &str, endpoint: Option<&str>| StoreArgs {
            url: url.into(),
            reach: ReachArgs { endpoint_url: endpoint.map(Into::into), ..ReachArgs::default() },
        };
        assert_eq!(folder_tag(&args("/a/b", None)), folder_tag(&args("file:///a/b", None)));
        assert_ne!(folder_tag(&args("s3://b/p", None)), folder_tag(&args("s3://b/p", Some("http://localhost:1"))));
    }
}
