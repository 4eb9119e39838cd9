//! A machine with the drive on it, in virtual time: one runtime for all machines of a case.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hushfs::base::{SystemClock, SystemEntropy, Timestamp};
use hushfs::crypto::{KdfParameters, RecoveryWords, Roots};
use hushfs::disk::{Disk, SimDisk};
use hushfs::format::ObjectName;
use hushfs::meta::keyring::{KeyObjects, Secret, init_volume};
use hushfs::store::{EvilStore, EvilWorld, MemoryStore, Patience, Store, decorate};
use hushfs::vfs::{AtimeMode, CycleOptions, OpenError, Surroundings, Volume, VolumeOptions};

use crate::rig::{Files, VirtualTime, eventually};

pub struct Machine {
    /// Its number, by which the store knows it.
    pub number: usize,
    store: Arc<dyn Store>,
    disk: SimDisk,
    /// SQLite's own files.
    folder: tempfile::TempDir,
    volume: Option<Volume>,
}

impl Machine {
    pub fn new(number: usize, store: EvilStore) -> Self {
        let patience = Patience {
            try_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(60),
            list_timeout: Duration::from_secs(60),
            ..Patience::default()
        };
        let store = decorate(Arc::new(store), patience).store;
        let folder = tempfile::Builder::new().prefix("evil").tempdir_in(scratch()).expect("a temporary folder");
        Self { number, store, disk: SimDisk::new(), folder, volume: None }
    }

    pub fn open(&mut self, time: &VirtualTime, words: &str) -> Result<(), OpenError> {
        assert!(self.volume.is_none(), "open already");
        let mut options = VolumeOptions::new(self.folder.path().join("state"), self.folder.path().join("cache"));
        options.device_name = format!("machine {}", self.number);
        options.drive.atime = AtimeMode::Never;
        options.cycle = CycleOptions { age_max: Duration::from_secs(3600) };
        let around = Surroundings {
            store: self.store.clone(),
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            runtime: time.handle().clone(),
        };
        let secret = Secret::Recovery(RecoveryWords::parse(words).expect("words"));
        self.volume = Some(Volume::open(around, options, secret)?);
        Ok(())
    }

    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    pub fn files(&self, time: &VirtualTime) -> Option<Files> {
        Some(Files::of(self.volume.as_ref()?, time.handle().clone()))
    }

    /// What the store has not got yet stays here.
    pub fn close(&mut self) {
        if let Some(volume) = &self.volume {
            volume.close().expect("a clean close");
        }
        self.kill();
    }

    /// What was not synced is lost.
    pub fn kill(&mut self) {
        let Some(volume) = self.volume.take() else { return };
        volume.drive().set_remote(None);
        let weak = Arc::downgrade(volume.drive());
        drop(volume);
        eventually("the volume's tasks end", || weak.strong_count() == 0);
    }

    pub fn lose_replica(&self, copies: bool) {
        for file in ["replica.db", "replica.db-wal", "replica.db-shm"] {
            let _ = std::fs::remove_file(self.state_dir().join(file));
        }
        if copies {
            self.clear(&self.state_dir().join("kept"));
        }
    }

    pub fn drop_cache(&self) {
        self.clear(&self.folder.path().join("cache"));
    }

    fn clear(&self, folder: &Path) {
        for entry in self.disk.list(folder).unwrap_or_default() {
            self.disk.remove(&folder.join(entry.name)).expect("removed");
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

/// In memory where there is such a folder: SQLite syncs, and there are many cases.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// A volume that nobody has mounted, its recovery words and keys, and the objects of another volume.
pub struct Seed {
    pub objects: Vec<(ObjectName, Bytes)>,
    pub words: String,
    pub roots: Roots,
    pub foreign: Vec<Bytes>,
}

/// Deriving a key from a password takes too long to do it each time.
pub fn seed() -> &'static Seed {
    static SEED: OnceLock<Seed> = OnceLock::new();
    SEED.get_or_init(|| {
        let (store, words) = make_volume();
        let (other, other_words) = make_volume();
        let objects = |store: &MemoryStore| -> Vec<_> {
            store.names().into_iter().filter_map(|name| Some((name, store.peek(&name)?))).collect()
        };
        let world = EvilWorld::new(objects(&other), Vec::new());
        let time = VirtualTime::new();
        let mut machine = Machine::new(0, world.store());
        machine.open(&time, &other_words).expect("the other volume");
        let files = machine.files(&time).expect("mounted");
        files.write("file", &crate::rig::noise(1, 50_000)).expect("a file");
        machine.volume().expect("mounted").flush(&mut |_| true).expect("flushed");
        machine.close();
        let sent = world.sent().into_iter().map(|sent| sent.bytes);
        let foreign = objects(&other).into_iter().map(|(_, bytes)| bytes).chain(sent).collect();
        Seed { objects: objects(&store), roots: roots(&store, &words), words, foreign }
    })
}

fn roots(store: &MemoryStore, words: &str) -> Roots {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let objects = runtime.block_on(KeyObjects::fetch(store)).expect("the key objects");
    objects.unlock(&Secret::Recovery(RecoveryWords::parse(words).expect("words")), u64::MAX).expect("unlocked").roots
}

fn make_volume() -> (MemoryStore, String) {
    let store = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let now = Timestamp::new(1_600_000_000, 0);
    let init = init_volume(&store, b"password", KdfParameters::FLOOR, true, now, &SystemEntropy);
    let words = runtime.block_on(init).expect("init").words.text().to_string();
    (store, words)
}
