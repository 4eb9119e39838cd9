//! Somebody who shares, in this process, and somebody who fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hushfs::base::{Clock, LinkId, SystemClock, SystemEntropy, Timestamp};
use hushfs::crypto::PrivateHalf;
use hushfs::format::link::{LinkUrl, SignedRecord};
use hushfs::format::{ObjectName, Prefix};
use hushfs::share::get::{BucketSource, Fetched, GetError, GetOptions, GetProgress, LinkSource, Place, get, open};
use hushfs::share::{Request, ShareError, Shared, Sharing, SharingParts};
use hushfs::store::{FaultStore, Faults, MemoryStore, Store};
use hushfs::vfs::{Volume, VolumeOptions};

use crate::rig::{Files, Rig};

pub struct Owner {
    pub sharing: Arc<Sharing>,
    pub files: Files,
    pub memory: MemoryStore,
    /// Of what the link's own requests meet.
    pub faults: Faults,
    pub store: Arc<dyn Store>,
    pub runtime: tokio::runtime::Runtime,
    pub rig: Rig,
}

impl Owner {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adjust: fn(&mut VolumeOptions)) -> Self {
        let mut rig = Rig::new();
        rig.adjust = adjust;
        let files = rig.mount();
        let memory = rig.memory.clone();
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        let store: Arc<dyn Store> = Arc::new(store);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let sharing = Arc::new(sharing(rig.volume(), &store, &runtime));
        Self { sharing, files, memory, faults, store, runtime, rig }
    }

    /// As after a restart: what was known in memory is gone.
    pub fn restart(&mut self) {
        self.sharing = self.sharing_of(self.rig.volume());
    }

    /// The links of the volume where it is mounted on another device.
    pub fn sharing_of(&self, volume: &Volume) -> Arc<Sharing> {
        Arc::new(sharing(volume, &self.store, &self.runtime))
    }

    pub fn share(&self, path: &str) -> Shared {
        self.sharing.create(request(path), &mut |_| true).expect("shared")
    }

    pub fn objects(&self, id: LinkId) -> (Vec<u64>, Vec<u64>) {
        let (mut records, mut packs) = (vec![], vec![]);
        for name in self.rig.objects(Prefix::ShareOf(id)) {
            match name {
                ObjectName::Share(_, number) => records.push(number),
                ObjectName::SharePack(_, number) => packs.push(number),
                other => panic!("{other}"),
            }
        }
        (records, packs)
    }

    pub fn bytes_of(&self, id: LinkId) -> u64 {
        let objects = self.rig.objects(Prefix::ShareOf(id));
        objects.iter().filter_map(|name| self.memory.peek(name)).map(|bytes| bytes.len() as u64).sum()
    }

    pub fn source(&self) -> Arc<dyn LinkSource> {
        Arc::new(BucketSource::new(self.store.clone()))
    }

    pub fn newest(&self, id: LinkId) -> Result<SignedRecord, GetError> {
        self.runtime.block_on(self.source().newest(id))
    }

    pub fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            runtime: &self.runtime,
            source: self.source(),
            now: SystemClock.now(),
            password: None,
            identities: vec![],
            folder: tempfile::tempdir().expect("a folder"),
        }
    }
}

fn sharing(volume: &Volume, store: &Arc<dyn Store>, runtime: &tokio::runtime::Runtime) -> Sharing {
    Sharing::new(SharingParts {
        drive: volume.drive().clone(),
        store: store.clone(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        runtime: runtime.handle().clone(),
    })
    .with_grace(Duration::ZERO)
}

pub fn request(path: &str) -> Request {
    Request { path: path.into(), title: None, expiry: None, password: None, recipient: None, live: false }
}

/// Without any volume.
pub struct Fetcher<'a> {
    pub runtime: &'a tokio::runtime::Runtime,
    pub source: Arc<dyn LinkSource>,
    pub now: Timestamp,
    pub password: Option<Vec<u8>>,
    pub identities: Vec<PrivateHalf>,
    pub folder: tempfile::TempDir,
}

impl Fetcher<'_> {
    pub fn get(&self, link: &LinkUrl) -> Result<Fetched, GetError> {
        self.get_until(link, &mut |_| true)
    }

    pub fn get_until(
        &self,
        link: &LinkUrl,
        report: &mut (dyn FnMut(&GetProgress) -> bool + Send),
    ) -> Result<Fetched, GetError> {
        self.runtime.block_on(async {
            let outer = open(self.source.as_ref(), link, &self.identities, self.now).await?;
            let contents = outer.contents(self.password.as_deref())?;
            let place = Place::choose(Some(self.folder.path()), &contents.header.title)?;
            let number = outer.record().number();
            let source = self.source.clone();
            get(GetOptions { source, link: link.id, number, contents: &contents, place: &place }, report).await
        })
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn read(&self, below: &str) -> Vec<u8> {
        fs::read(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Nothing has its final name.
    pub fn has_nothing(&self) -> bool {
        names(self.folder.path()).iter().all(|name| name.starts_with(".hushfs-") && name.ends_with(".part"))
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn is_interrupted<T: std::fmt::Debug>(result: Result<T, ShareError>) -> bool {
    matches!(result, Err(ShareError::Interrupted))
}
