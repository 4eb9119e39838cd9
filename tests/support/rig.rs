//! A volume inside the test's own process: no FUSE and no network, over a store and a disk that fail as told.
//!
//! The layers are the program's own, from `Volume` down to the store's decorators; only what is outermost is not
//! real. Patience is short, so that what waits for its deadline does not make a slow test.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use hushfs::base::{ByteRange, Clock, Entropy, InodeId, Name, SystemClock, SystemEntropy};
use hushfs::crypto::{KdfParameters, RecoveryWords, Roots};
use hushfs::disk::{Disk, RealDisk};
use hushfs::format::rows::{XattrName, mode};
use hushfs::format::{ObjectName, Prefix};
use hushfs::meta::keyring::{KeyObjects, Secret, init_volume};
use hushfs::store::{Connected, Fault, FaultStore, Faults, MemoryStore, Patience, Rule, Store, decorate};
use hushfs::vfs::api::{
    Attr, Caller, DirWant, HandleId, Kill, OpenFlags, ReadReply, SetAttr, Vfs, VfsError, VfsResult, WriteReply,
    XattrMode,
};
use hushfs::vfs::{Drive, OpenError, Surroundings, Volume, VolumeOptions, VolumeStatus};
use parking_lot::Mutex;
use zeroize::Zeroizing;

#[path = "virtual_time.rs"]
mod virtual_time;

pub use virtual_time::{VirtualTime, finish};

pub const PASSWORD: &[u8] = b"correct horse battery staple";

/// No call may take longer than this: the deadlines below, and some room for a busy machine.
pub const CALL_MAX: Duration = Duration::from_secs(4);

const READ_DEADLINE: Duration = Duration::from_secs(1);
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

fn patience() -> Patience {
    Patience {
        try_timeout: Duration::from_millis(300),
        bytes_per_second_min: 256 << 20,
        total_timeout: Duration::from_millis(600),
        list_timeout: Duration::from_millis(600),
        first_contact: Duration::from_millis(300),
        backoff_first: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
    }
}

pub struct Rig {
    pub memory: MemoryStore,
    pub faults: Faults,
    pub disk: Arc<dyn Disk>,
    pub root: tempfile::TempDir,
    /// One for each "machine" that a test plays.
    pub machine: String,
    pub words: RecoveryWords,
    /// Changed before a mount.
    pub adjust: fn(&mut VolumeOptions),
    /// Of each mount anew.
    pub entropy: fn() -> Arc<dyn Entropy>,
    pub clock: fn() -> Arc<dyn Clock>,
    connected: Connected,
    volume: Option<Volume>,
    runtime: tokio::runtime::Handle,
    time: Time,
}

/// A mounted machine that the test has left.
pub struct Away {
    volume: Volume,
    machine: String,
}

/// What runs the volume's tasks.
enum Time {
    Real(tokio::runtime::Runtime),
    Virtual(VirtualTime),
}

impl Time {
    fn handle(&self) -> tokio::runtime::Handle {
        match self {
            Self::Real(runtime) => runtime.handle().clone(),
            Self::Virtual(time) => time.handle().clone(),
        }
    }
}

impl Rig {
    /// A new volume, not mounted, on this machine's disk.
    pub fn new() -> Self {
        Self::on(Arc::new(RealDisk))
    }

    /// The same with another disk. SQLite's files are on the real one whatever it is.
    pub fn on(disk: Arc<dyn Disk>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self::build(disk, Time::Real(runtime.expect("a runtime")), |store| store)
    }

    /// On a real disk, and where waiting for the store takes no time.
    pub fn in_virtual_time() -> Self {
        Self::over(|store| store)
    }

    /// The same, with something between the faults and the layers that meet them.
    pub fn over(wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self::build(Arc::new(RealDisk), Time::Virtual(VirtualTime::new()), wrap)
    }

    fn build(disk: Arc<dyn Disk>, time: Time, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        log();
        let runtime = time.handle();
        let memory = MemoryStore::new();
        let made = runtime.block_on(init_volume(
            &memory,
            PASSWORD,
            KdfParameters::FLOOR,
            true,
            SystemClock.now(),
            &SystemEntropy,
        ));
        let words = made.expect("init").words;
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        let connected = decorate(wrap(Arc::new(store)), patience());
        let root = tempfile::tempdir().expect("a temporary folder");
        let (machine, adjust) = ("one".into(), (|_| {}) as fn(&mut VolumeOptions));
        let entropy = (|| Arc::new(SystemEntropy) as Arc<dyn Entropy>) as fn() -> Arc<dyn Entropy>;
        let clock = (|| Arc::new(SystemClock) as Arc<dyn Clock>) as fn() -> Arc<dyn Clock>;
        let volume = None;
        Self { memory, faults, disk, root, machine, words, adjust, entropy, clock, connected, volume, runtime, time }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.root.path().join(&self.machine).join("state")
    }

    pub fn cache_dir(&self) -> PathBuf {
        self.root.path().join(&self.machine).join("cache")
    }

    pub fn mount(&mut self) -> Files {
        self.try_mount().unwrap_or_else(|error| panic!("the volume did not open: {}", chain(&error)))
    }

    pub fn try_mount(&mut self) -> Result<Files, OpenError> {
        self.try_mount_by(Secret::Password(Zeroizing::new(PASSWORD.to_vec())))
    }

    /// Without deriving a key from the password, which takes its time.
    pub fn try_mount_by_words(&mut self) -> Result<Files, OpenError> {
        let words = self.words.duplicate();
        self.try_mount_by(Secret::Recovery(words))
    }

    pub fn try_mount_by(&mut self, secret: Secret) -> Result<Files, OpenError> {
        assert!(self.volume.is_none(), "mounted already");
        let mut options = VolumeOptions::new(self.state_dir(), self.cache_dir());
        options.device_name = self.machine.clone();
        options.drive.read_deadline = READ_DEADLINE;
        options.drive.write_deadline = WRITE_DEADLINE;
        options.cycle.age_max = Duration::from_millis(50);
        (self.adjust)(&mut options);
        let around = Surroundings {
            store: self.connected.store.clone(),
            disk: self.disk.clone(),
            clock: (self.clock)(),
            entropy: (self.entropy)(),
            runtime: self.runtime.clone(),
        };
        self.volume = Some(Volume::open(around, options, secret)?);
        Ok(self.files())
    }

    /// The same volume on another machine, which no fault meets.
    pub fn beside(&self, machine: &str) -> (Volume, Files) {
        let dir = self.root.path().join(machine);
        let mut options = VolumeOptions::new(dir.join("state"), dir.join("cache"));
        options.device_name = machine.into();
        let around = Surroundings {
            store: decorate(Arc::new(self.memory.clone()), patience()).store,
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            runtime: self.runtime.clone(),
        };
        let secret = Secret::Recovery(self.words.duplicate());
        let volume = Volume::open(around, options, secret).expect("opened beside");
        let files = Files::of(&volume, self.runtime.clone());
        (volume, files)
    }

    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub fn volume(&self) -> &Volume {
        self.volume.as_ref().expect("mounted")
    }

    pub fn files(&self) -> Files {
        Files { weak: Arc::downgrade(self.volume().drive()), runtime: self.runtime.clone() }
    }

    pub fn status(&self) -> VolumeStatus {
        self.volume().status()
    }

    /// What somebody who looks at `status` reads about what does not work.
    pub fn troubles(&self) -> String {
        let status = self.status();
        let uploads = status.uploads.failing.map(|failing| chain(&failing.error));
        let commits = status.commits.failing.map(|(_, text)| text);
        let health = self.connected.health.snapshot();
        format!("{uploads:?} {commits:?} {:?} {:?} {:?}", status.commits.halted, health.level, health.last_error)
    }

    /// Until all is in the store; the error is what it still waits for.
    pub fn try_flush(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        self.volume().flush(&mut |_| Instant::now() < deadline).map_err(|error| chain(&error))
    }

    pub fn flush(&self) {
        self.try_flush(Duration::from_secs(30)).unwrap_or_else(|error| panic!("{error}\n{}", self.troubles()));
    }

    /// An orderly end. What the store has not got stays here.
    pub fn close(&mut self) {
        self.volume().close().expect("closed");
        self.kill();
    }

    /// All at once: nothing more reaches the disk or the store. On a `SimDisk`, its own `crash` comes after.
    pub fn kill(&mut self) {
        let volume = self.volume.take().expect("mounted");
        volume.drive().set_remote(None);
        let weak = Arc::downgrade(volume.drive());
        drop(volume);
        // What ran behind it ends a moment later.
        eventually("the volume's tasks end", || weak.strong_count() == 0);
    }

    /// The machine goes on by itself, until somebody returns to it.
    pub fn leave(&mut self) -> Away {
        Away { volume: self.volume.take().expect("mounted"), machine: self.machine.clone() }
    }

    pub fn return_to(&mut self, away: Away) {
        assert!(self.volume.is_none(), "still mounted");
        (self.volume, self.machine) = (Some(away.volume), away.machine);
    }

    /// From here on a machine that has never seen the volume.
    pub fn become_new_machine(&mut self, name: &str) {
        assert!(self.volume.is_none(), "still mounted");
        self.machine = name.into();
    }

    /// All requests fail so from now on.
    pub fn break_store(&self, fault: Fault) {
        self.faults.add(Rule::always(fault));
    }

    /// The keys, which no store has: for what only a holder of them could have written.
    pub fn roots(&self) -> Roots {
        let objects = self.runtime.block_on(KeyObjects::fetch(&self.memory)).expect("the key objects");
        objects.unlock(&Secret::Recovery(self.words.duplicate()), u64::MAX).expect("unlocked").roots
    }

    /// Behind everybody's back.
    pub fn delete(&self, name: &ObjectName) {
        self.runtime.block_on(self.memory.delete(name)).expect("deleted");
    }

    pub fn objects(&self, prefix: Prefix) -> Vec<ObjectName> {
        self.runtime.block_on(self.memory.list(prefix)).expect("a listing")
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(volume) = self.volume.take() {
            volume.drive().set_remote(None);
        }
        if std::thread::panicking() {
            let log = logged();
            eprintln!("--- the log ---\n{}", &log[log.floor_char_boundary(log.len().saturating_sub(8000))..]);
        }
    }
}

/// Files by path, as a program sees them. Every call is held to `CALL_MAX`.
#[derive(Clone)]
pub struct Files {
    /// Nothing of a volume that was closed stays open.
    weak: Weak<Drive>,
    runtime: tokio::runtime::Handle,
}

const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: 1, umask: 0 };

impl Files {
    pub fn of(volume: &Volume, runtime: tokio::runtime::Handle) -> Self {
        Self { weak: Arc::downgrade(volume.drive()), runtime }
    }

    fn drive(&self) -> Arc<Drive> {
        self.weak.upgrade().expect("mounted")
    }

    pub fn find(&self, path: &str) -> VfsResult<InodeId> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(InodeId::ROOT, |parent, part| {
            let found = timed(|| self.drive().lookup(parent, &name(part)))?.ok_or(VfsError::NotFound)?;
            self.drive().forget(found.ino, 1);
            Ok(found.ino)
        })
    }

    pub fn mkdir(&self, path: &str) -> VfsResult<()> {
        let (parent, last) = self.split(path)?;
        let made = timed(|| self.drive().mkdir(CALLER, parent, &last, 0o755))?;
        self.drive().forget(made.ino, 1);
        Ok(())
    }

    pub fn symlink(&self, target: &str, path: &str) -> VfsResult<()> {
        let (parent, last) = self.split(path)?;
        let made = timed(|| self.drive().symlink(CALLER, parent, &last, target.as_bytes()))?;
        self.drive().forget(made.ino, 1);
        Ok(())
    }

    /// A whole new content, made if it is missing. Not synced.
    pub fn write(&self, path: &str, bytes: &[u8]) -> VfsResult<()> {
        let (ino, handle) = self.open(path)?;
        let written = self.write_to(ino, handle, bytes);
        self.drive().release(ino, handle);
        written
    }

    /// The same, and fsync on that descriptor.
    pub fn save(&self, path: &str, bytes: &[u8]) -> VfsResult<()> {
        let (ino, handle) = self.open(path)?;
        let saved = self.write_to(ino, handle, bytes).and_then(|()| timed(|| self.drive().fsync(ino, handle, false)));
        self.drive().release(ino, handle);
        saved
    }

    /// More bytes behind what is there. Not synced.
    pub fn append(&self, path: &str, bytes: &[u8]) -> VfsResult<()> {
        let ino = self.find(path)?;
        let end = self.drive().getattr(ino)?.size;
        let handle = self.drive().open(ino, OpenFlags { write: true, ..OpenFlags::default() })?;
        let written = timed(|| self.drive().write(ino, handle, end, bytes, Kill::No));
        self.drive().release(ino, handle);
        written.map(|reply| assert_eq!(reply, WriteReply::Done(bytes.len() as u32)))
    }

    pub fn append_synced(&self, path: &str, bytes: &[u8]) -> VfsResult<()> {
        self.append(path, bytes).and_then(|()| self.sync(path))
    }

    pub fn sync(&self, path: &str) -> VfsResult<()> {
        let ino = self.find(path)?;
        let handle = self.drive().open(ino, OpenFlags { read: true, ..OpenFlags::default() })?;
        let synced = timed(|| self.drive().fsync(ino, handle, false));
        self.drive().release(ino, handle);
        synced
    }

    fn open(&self, path: &str) -> VfsResult<(InodeId, HandleId)> {
        let (parent, last) = self.split(path)?;
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        match self.find(path) {
            Ok(ino) => Ok((ino, timed(|| self.drive().open(ino, flags))?)),
            Err(VfsError::NotFound) => {
                let (attr, handle) = timed(|| self.drive().create(CALLER, parent, &last, mode::FILE | 0o644, flags))?;
                self.drive().forget(attr.ino, 1);
                Ok((attr.ino, handle))
            }
            Err(error) => Err(error),
        }
    }

    fn write_to(&self, ino: InodeId, handle: HandleId, bytes: &[u8]) -> VfsResult<()> {
        for (at, part) in (0..).step_by(128 << 10).zip(bytes.chunks(128 << 10)) {
            if timed(|| self.drive().write(ino, handle, at, part, Kill::No))? == WriteReply::WouldBlock {
                timed(|| self.drive().write_blocking(ino, handle, at, part, Kill::No))?;
            }
        }
        Ok(())
    }

    pub fn read(&self, path: &str) -> VfsResult<Vec<u8>> {
        let ino = self.find(path)?;
        let handle = timed(|| self.drive().open(ino, OpenFlags { read: true, ..OpenFlags::default() }))?;
        let outcome = self.read_open(ino, handle);
        self.drive().release(ino, handle);
        outcome
    }

    /// Of a file that may have no name any more.
    pub fn read_open(&self, ino: InodeId, handle: HandleId) -> VfsResult<Vec<u8>> {
        let size = timed(|| self.drive().getattr(ino))?.size;
        let mut all = Vec::new();
        loop {
            let at = all.len() as u64;
            if at == size {
                return Ok(all);
            }
            let range = ByteRange::new(at, size.min(at + (1 << 20)));
            let read = timed(|| match self.drive().read(ino, handle, range)? {
                ReadReply::Ready(bytes) => Ok(bytes),
                ReadReply::Later(later) => finish(&self.runtime, later),
            });
            all.extend_from_slice(&read?);
        }
    }

    /// Sorted.
    pub fn names(&self, path: &str) -> VfsResult<Vec<String>> {
        let ino = self.find(path)?;
        let handle = self.drive().opendir(ino, OpenFlags::default())?;
        let mut names = Vec::new();
        let listed = timed(|| {
            self.drive().readdir(ino, handle, 0, DirWant::Names, &mut |entry| {
                names.push(String::from_utf8_lossy(entry.name.as_bytes()).into_owned());
                true
            })
        });
        self.drive().releasedir(ino, handle);
        names.sort();
        listed.map(|()| names)
    }

    pub fn rename(&self, from: &str, to: &str) -> VfsResult<()> {
        let ((from_parent, from), (to_parent, to)) = (self.split(from)?, self.split(to)?);
        let how = hushfs::vfs::api::RenameMode::Replace;
        timed(|| self.drive().rename((from_parent, &from), (to_parent, &to), how))
    }

    pub fn remove(&self, path: &str) -> VfsResult<()> {
        let (parent, last) = self.split(path)?;
        timed(|| self.drive().unlink(parent, &last))
    }

    pub fn remove_dir(&self, path: &str) -> VfsResult<()> {
        let (parent, last) = self.split(path)?;
        timed(|| self.drive().rmdir(parent, &last))
    }

    pub fn chmod(&self, path: &str, mode: u32) -> VfsResult<()> {
        self.set(path, &SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    pub fn set(&self, path: &str, set: &SetAttr) -> VfsResult<()> {
        let ino = self.find(path)?;
        timed(|| self.drive().setattr(ino, set)).map(drop)
    }

    pub fn attributes(&self, path: &str) -> VfsResult<Attr> {
        let ino = self.find(path)?;
        timed(|| self.drive().getattr(ino))
    }

    pub fn set_xattr(&self, path: &str, name: &str, value: &[u8]) -> VfsResult<()> {
        let name = XattrName::parse(name.as_bytes()).expect("an attribute's name");
        let ino = self.find(path)?;
        timed(|| self.drive().setxattr(ino, &name, value, XattrMode::Set))
    }

    pub fn get_xattr(&self, path: &str, name: &str) -> VfsResult<Vec<u8>> {
        let name = XattrName::parse(name.as_bytes()).expect("an attribute's name");
        let ino = self.find(path)?;
        timed(|| self.drive().getxattr(ino, &name)).map(|value| value.to_vec())
    }

    fn split(&self, path: &str) -> VfsResult<(InodeId, Name)> {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(parent)?, name(last)))
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// Fails the test when the call takes too long, whatever it answers.
pub fn timed<T>(call: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let answer = call();
    let taken = start.elapsed();
    assert!(taken < CALL_MAX, "a call took {taken:?}");
    answer
}

/// The same bytes for the same seed; nothing that compresses.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Polls until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

/// What this process has logged so far. Tests that run beside each other share it: look for what only yours has.
pub fn logged() -> String {
    String::from_utf8_lossy(&log().lock()).into_owned()
}

/// Collects what is logged, from the first call on.
pub fn log() -> &'static Arc<Mutex<Vec<u8>>> {
    LOG.get_or_init(|| {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("warn,hushfs=info")
            .with_ansi(false)
            .with_writer(move || Sink(sink.clone()))
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("the first subscriber");
        lines
    })
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
