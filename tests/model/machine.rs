//! A machine with the drive on it, which can be shut down, killed, lose power, and lose its state.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hushfs::base::{Clock, SystemEntropy, Timestamp};
use hushfs::crypto::{KdfParameters, RecoveryWords};
use hushfs::disk::SimDisk;
use hushfs::meta::keyring::{Secret, init_volume};
use hushfs::store::{Fault, FaultStore, Faults, MemoryStore, Op, Rule, StoreErrorKind};
use hushfs::vfs::{AtimeMode, CycleOptions, DriveOptions, OpenError, Surroundings, Volume, VolumeOptions};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

pub const OWNER: (u32, u32) = (1000, 1000);

/// Moves only when told to, so that both sides give out the same times.
pub struct TestClock(Mutex<Timestamp>);

impl TestClock {
    pub fn new() -> Self {
        Self(Mutex::new(Timestamp::new(1_700_000_000, 1)))
    }

    pub fn tick(&self) {
        let mut now = self.0.lock();
        *now = Timestamp::new(now.secs + 1, (now.nanos + 7) % 1_000_000_000);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: all that was written is there, synced or not.
    Kill,
    /// Of what was not synced the disk keeps what it likes.
    Power { seed: u64 },
}

/// What a loss of power did to the replica's file, which is no part of the simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaAfter {
    AsItWas,
    /// As it was when the drive was last opened.
    Older,
    Deleted,
}

pub struct Machine {
    faults: Faults,
    faulty: Arc<FaultStore>,
    pub disk: SimDisk,
    clock: Arc<TestClock>,
    /// SQLite's own files.
    folder: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    // In this order: nothing of a volume that was dropped may go on when the next one opens.
    volume: Volume,
    runtime: Runtime,
}

impl Machine {
    pub fn new(clock: Arc<TestClock>) -> Self {
        let (base, _) = volume();
        let (faulty, faults) = FaultStore::new(Arc::new(base.fork()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut machine = Self { faults, faulty: Arc::new(faulty), disk: SimDisk::new(), clock, folder, running: None };
        machine.open().expect("the first opening");
        machine
    }

    pub fn volume(&self) -> &Volume {
        &self.running.as_ref().expect("open").volume
    }

    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.running.as_ref().expect("open").runtime.handle().clone()
    }

    pub fn open(&mut self) -> Result<(), OpenError> {
        assert!(self.running.is_none(), "open already");
        self.set_online(true);
        self.keep_replica();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let around = Surroundings {
            store: self.faulty.clone(),
            disk: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            entropy: Arc::new(SystemEntropy),
            runtime: runtime.handle().clone(),
        };
        let words = RecoveryWords::parse(&volume().1).expect("the words");
        let volume = Volume::open(around, self.options(), Secret::Recovery(words))?;
        self.running = Some(Running { volume, runtime });
        Ok(())
    }

    /// As umount does, but without waiting for the store.
    pub fn close(&mut self) {
        let Running { volume, runtime } = self.running.take().expect("open");
        volume.close().expect("a clean close");
        drop(volume);
        drop(runtime);
    }

    /// Nothing reaches the disk from here on, and the program is gone after.
    pub fn crash(&mut self, how: Crash) {
        self.disk.power_off_after(0);
        if let Some(Running { volume, runtime }) = self.running.take() {
            // Only ends its threads: there is no disk to write to.
            let _ = volume.close();
            drop(volume);
            drop(runtime);
        }
        match how {
            Crash::Kill => self.disk.restart(),
            Crash::Power { seed } => self.disk.crash(seed),
        }
    }

    /// Another machine from now on.
    pub fn lose_state(&mut self) {
        assert!(self.running.is_none(), "open");
        self.disk = SimDisk::new();
        fs::remove_dir_all(self.state_dir()).expect("the state folder");
        fs::remove_dir_all(self.older()).ok();
    }

    pub fn change_replica(&mut self, after: ReplicaAfter) {
        if after == ReplicaAfter::AsItWas {
            return;
        }
        for file in files(&self.state_dir(), "replica.db") {
            fs::remove_file(file).expect("the replica's file");
        }
        if after == ReplicaAfter::Older {
            copy_files(&self.older(), &self.state_dir(), "replica.db");
        }
    }

    /// Offline, nothing can be put into the store; reading goes on.
    pub fn set_online(&self, online: bool) {
        self.faults.clear();
        if !online {
            self.faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Unreachable)));
        }
    }

    fn keep_replica(&self) {
        fs::remove_dir_all(self.older()).ok();
        fs::create_dir_all(self.older()).expect("a folder");
        copy_files(&self.state_dir(), &self.older(), "replica.db");
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn older(&self) -> PathBuf {
        self.folder.path().join("older")
    }

    /// Limits so small that a few writes reach each of them.
    fn options(&self) -> VolumeOptions {
        let drive = DriveOptions {
            atime: AtimeMode::Never,
            read_deadline: Duration::from_secs(20),
            write_deadline: Duration::from_secs(20),
            commit_bytes: 3 << 20,
            // So few that a case has them.
            pieces_max: 3,
            ..DriveOptions::default()
        };
        VolumeOptions {
            cache_bytes_max: 1 << 20,
            staging_bytes_max: STAGING_BYTES_MAX,
            dirty_bytes_max: 2 << 20,
            device_name: "model".into(),
            owner: OWNER,
            drive,
            cycle: CycleOptions { age_max: Duration::from_secs(3600) },
            ..VolumeOptions::new(self.state_dir(), self.folder.path().join("cache"))
        }
    }
}

pub const STAGING_BYTES_MAX: u64 = 8 << 20;

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(Running { volume, runtime }) = self.running.take() {
            let _ = volume.close();
            drop(volume);
            drop(runtime);
        }
    }
}

/// A volume that nobody has mounted, and its recovery words: deriving a key from a password takes too long to do it
/// each time.
fn volume() -> &'static (MemoryStore, String) {
    static VOLUME: OnceLock<(MemoryStore, String)> = OnceLock::new();
    VOLUME.get_or_init(|| {
        let store = MemoryStore::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let now = Timestamp::new(1_600_000_000, 0);
        let init = init_volume(&store, b"password", KdfParameters::FLOOR, true, now, &SystemEntropy);
        let words = runtime.block_on(init).expect("init").words.text().to_string();
        (store, words)
    })
}

fn files(folder: &Path, start: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))).collect()
}

fn copy_files(from: &Path, to: &Path, start: &str) {
    for file in files(from, start) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("a copy");
    }
}
