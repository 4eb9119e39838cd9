//! Local copies of what the replica is rebuilt from, so that rebuilding and unlocking work offline.
//!
//! Kept are all kinds but packs and floors: they never change once created, so a local copy is as good as the
//! store's (and as sealed). What only came from the store is kept when whoever verified it says so (`put_copy`): a
//! copy of what the store made up would outlive the store's repentance. A floor is always asked of the store, because its absence is what matters; packs have
//! the block cache. A copy is written without any sync and carries its own length and checksum: after a crash a
//! torn copy is dropped and fetched again. The checksum is against accidents; forgery is what sealing is for.
//! Trouble with the local disk is logged once and never fails a request.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Created, Prefix, Store, StoreError, is_under, slice};
use crate::base::{ByteRange, SegmentId, Seq};
use crate::disk::Disk;
use crate::format::ObjectName;

const MAGIC: [u8; 8] = *b"hushkeep";
/// Magic, length, checksum.
const HEADER_LEN: usize = 24;

pub struct Keep {
    inner: Arc<dyn Store>,
    local: Arc<Local>,
}

struct Local {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    has_complained: AtomicBool,
    temporary: AtomicU64,
}

impl Keep {
    /// Makes `dir` when it is missing.
    pub fn new(inner: Arc<dyn Store>, disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        let local = Local { disk, dir, has_complained: AtomicBool::new(false), temporary: AtomicU64::new(0) };
        local.prepare();
        Self { inner, local: Arc::new(local) }
    }

    /// The local copy alone.
    pub async fn copy(&self, name: &ObjectName) -> Option<Bytes> {
        self.kept(name).await
    }

    /// What a copy's file holds, or None if it is torn.
    pub fn content_of(file: Vec<u8>) -> Option<Bytes> {
        let bytes = Bytes::from(file);
        let head = bytes.get(..HEADER_LEN)?;
        let body = bytes.slice(HEADER_LEN..);
        (head == header(&body)).then_some(body)
    }

    /// Drops the copy of what turned out to be damaged.
    pub async fn forget(&self, name: &ObjectName) {
        let name = *name;
        self.local(move |local| local.remove(&name), ()).await;
    }

    /// Keeps a copy of what turned out to be genuine.
    pub async fn put_copy(&self, name: &ObjectName, bytes: Bytes) {
        self.keep(name, bytes).await;
    }

    /// Drops the copies of records and manifests below `seq`.
    pub fn forget_below(&self, seq: Seq) {
        self.local.retain(|name| match name {
            ObjectName::Log(at) | ObjectName::Checkpoint(at) => *at >= seq,
            _ => true,
        });
    }

    /// Drops the copies of all other segments.
    pub fn retain_segments(&self, wanted: impl Fn(&SegmentId) -> bool) {
        self.local.retain(|name| match name {
            ObjectName::Segment(id) => wanted(id),
            _ => true,
        });
    }

    async fn local<T: Send + 'static>(&self, work: impl FnOnce(&Local) -> T + Send + 'static, otherwise: T) -> T {
        let local = self.local.clone();
        // A task that panicked or a runtime that ends counts as no copy.
        tokio::task::spawn_blocking(move || work(&local)).await.unwrap_or(otherwise)
    }

    async fn kept(&self, name: &ObjectName) -> Option<Bytes> {
        if !is_kept(name) {
            return None;
        }
        let name = *name;
        self.local(move |local| local.read(&name), None).await
    }

    async fn keep(&self, name: &ObjectName, bytes: Bytes) {
        if is_kept(name) {
            let name = *name;
            self.local(move |local| local.write(&name, &bytes), ()).await;
        }
    }
}

fn is_kept(name: &ObjectName) -> bool {
    match name {
        ObjectName::Volume
        | ObjectName::Slot(..)
        | ObjectName::Chain(_)
        | ObjectName::Log(_)
        | ObjectName::Checkpoint(_)
        | ObjectName::Segment(_) => true,
        ObjectName::Floor(_) | ObjectName::Pack(_) | ObjectName::Share(..) | ObjectName::SharePack(..) => false,
    }
}

#[async_trait]
impl Store for Keep {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let created = self.inner.create(name, bytes.clone()).await?;
        if created == Created::New {
            self.keep(name, bytes).await;
        }
        Ok(created)
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        match self.kept(name).await {
            Some(bytes) => Ok(Some(bytes)),
            None => self.inner.get(name).await,
        }
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        match self.kept(name).await {
            Some(bytes) => Ok(Some(slice(&bytes, range))),
            None => self.inner.get_range(name, range).await,
        }
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        match self.kept(name).await {
            Some(bytes) => Ok(Some(bytes.len() as u64)),
            None => self.inner.size(name).await,
        }
    }

    /// The store's answer; when there is none, what there are copies of.
    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        let error = match self.inner.list(prefix).await {
            Err(error) => error,
            listed => return listed,
        };
        let names = self.local(move |local| local.names(), Vec::new()).await;
        let mut names: Vec<_> = names.into_iter().filter(|name| is_under(prefix, name)).collect();
        names.sort_unstable();
        if names.is_empty() { Err(error) } else { Ok(names) }
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        if is_kept(name) {
            let name = *name;
            self.local(move |local| local.remove(&name), ()).await;
        }
        self.inner.delete(name).await
    }
}

impl Local {
    /// One flat folder: `/` becomes `_`, which no name has.
    fn path(&self, name: &ObjectName) -> PathBuf {
        self.dir.join(name.to_string().replace('/', "_"))
    }

    /// Makes the folder and removes what a crash left half written.
    fn prepare(&self) {
        let outcome = self.disk.create_dir_all(&self.dir).and_then(|()| {
            for entry in self.disk.list(&self.dir)? {
                if entry.name.to_str().is_some_and(|name| name.ends_with(".tmp")) {
                    self.disk.remove(&self.dir.join(&entry.name))?;
                }
            }
            Ok(())
        });
        self.complain(outcome);
    }

    fn read(&self, name: &ObjectName) -> Option<Bytes> {
        let path = self.path(name);
        let whole = match self.read_file(&path) {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.complain(Err(error));
                return None;
            }
        };
        let bytes = Keep::content_of(whole);
        if bytes.is_none() {
            tracing::info!("the local copy of {name} is damaged and is fetched again");
            self.remove(name);
        }
        bytes
    }

    fn read_file(&self, path: &std::path::Path) -> io::Result<Vec<u8>> {
        let file = self.disk.open(path, false)?;
        let mut whole = vec![0; file.len()? as usize];
        file.read_exact_at(&mut whole, 0)?;
        Ok(whole)
    }

    fn write(&self, name: &ObjectName, bytes: &[u8]) {
        let temporary = self.dir.join(format!("{}.tmp", self.temporary.fetch_add(1, Ordering::Relaxed)));
        let outcome = self.disk.open(&temporary, true).and_then(|file| {
            file.write_all_at(&header(bytes), 0)?;
            file.write_all_at(bytes, HEADER_LEN as u64)?;
            self.disk.rename(&temporary, &self.path(name))
        });
        if outcome.is_err() {
            // Half a copy would only take space.
            let _ = self.disk.remove(&temporary);
        }
        self.complain(outcome);
    }

    fn remove(&self, name: &ObjectName) {
        match self.disk.remove(&self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => self.complain(outcome),
        }
    }

    fn names(&self) -> Vec<ObjectName> {
        let entries = self.disk.list(&self.dir).unwrap_or_default();
        let parse = |name: &str| ObjectName::parse(&name.replace('_', "/"));
        entries.iter().filter_map(|entry| parse(entry.name.to_str()?)).collect()
    }

    fn retain(&self, wanted: impl Fn(&ObjectName) -> bool) {
        self.names().iter().filter(|name| !wanted(name)).for_each(|name| self.remove(name));
    }

    fn complain(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome
            && !self.has_complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("local copies in {} do not work, going on without: {error}", self.dir.display());
        }
    }
}

fn header(bytes: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header[16..].copy_from_slice(&checksum(bytes).to_le_bytes());
    header
}

/// FNV-1a over words of eight bytes: against torn writes, which it need only make unlikely to pass.
fn checksum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let sum = words.by_ref().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        mix(sum, word.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte)))
    });
    words.remainder().iter().fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, FaultStore, Faults, MemoryStore, Op, Rule, StoreErrorKind};
    use super::*;
    use crate::base::{Incarnation, PackName};
    use crate::disk::RealDisk;

    const LOG: ObjectName = ObjectName::Log(Seq(1));
    const PACK: ObjectName = ObjectName::Pack(PackName { incarnation: Incarnation([1; 16]), number: 1 });

    fn keep(dir: &std::path::Path, memory: &MemoryStore) -> (Keep, Faults) {
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        (Keep::new(Arc::new(store), Arc::new(RealDisk), dir.join("kept")), faults)
    }

    fn offline() -> Rule {
        Rule::always(Fault::Fail(StoreErrorKind::Unreachable))
    }

    #[tokio::test]
    async fn what_passed_once_is_there_offline_and_packs_are_not() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let (store, faults) = keep(dir.path(), &memory);
        store.create(&LOG, Bytes::from_static(b"record")).await.unwrap();
        store.create(&PACK, Bytes::from_static(b"pack")).await.unwrap();
        let volume = Bytes::from_static(b"volume");
        memory.plant(ObjectName::Volume, volume.clone());
        assert_eq!(store.get(&ObjectName::Volume).await.unwrap().unwrap(), volume);
        store.put_copy(&ObjectName::Volume, volume).await;
        drop(store);
        faults.clear();
        let (store, faults) = keep(dir.path(), &memory);
        faults.add(offline());
        assert_eq!(store.get(&LOG).await.unwrap().unwrap(), "record");
        assert_eq!(store.get_range(&LOG, ByteRange::new(1, 3)).await.unwrap().unwrap(), "ec");
        assert_eq!(store.size(&LOG).await.unwrap(), Some(6));
        assert_eq!(store.get(&ObjectName::Volume).await.unwrap().unwrap(), "volume");
        assert_eq!(store.list(Prefix::Log).await.unwrap(), [LOG]);
        assert_eq!(store.get(&PACK).await.unwrap_err().kind, StoreErrorKind::Unreachable);
        assert_eq!(store.list(Prefix::Packs).await.unwrap_err().kind, StoreErrorKind::Unreachable);
    }

    #[tokio::test]
    async fn a_create_that_lost_or_is_unclear_keeps_nothing() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        memory.plant(LOG, Bytes::from_static(b"theirs"));
        let (store, faults) = keep(dir.path(), &memory);
        assert_eq!(store.create(&LOG, Bytes::from_static(b"mine")).await.unwrap(), Created::Exists);
        assert_eq!(store.get(&LOG).await.unwrap().unwrap(), "theirs");
        faults.add(Rule::on(Op::Create, Fault::ApplyThenFail(StoreErrorKind::Unknown)));
        let second = ObjectName::Log(Seq(2));
        store.create(&second, Bytes::from_static(b"mine")).await.unwrap_err();
        memory.plant(second, Bytes::from_static(b"theirs"));
        assert_eq!(store.get(&second).await.unwrap().unwrap(), "theirs");
    }

    #[tokio::test]
    async fn what_nobody_verified_is_not_kept() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        memory.plant(LOG, Bytes::from_static(b"made up"));
        let (store, _) = keep(dir.path(), &memory);
        assert_eq!(store.get(&LOG).await.unwrap().unwrap(), "made up");
        memory.plant(LOG, Bytes::from_static(b"record"));
        assert_eq!(store.get(&LOG).await.unwrap().unwrap(), "record");
    }

    #[tokio::test]
    async fn a_damaged_copy_is_fetched_again() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let (store, faults) = keep(dir.path(), &memory);
        store.create(&LOG, Bytes::from(vec![7; 5000])).await.unwrap();
        let path = store.local.path(&LOG);
        for len in [0, 10, 24, 4096] {
            RealDisk.open(&path, true).unwrap().set_len(len).unwrap();
            assert_eq!(store.get(&LOG).await.unwrap().unwrap().len(), 5000, "{len}");
        }
        RealDisk.open(&path, true).unwrap().write_all_at(&[8], 3000).unwrap();
        let before = faults.requests().len();
        assert!(store.get(&LOG).await.unwrap().unwrap() == vec![7; 5000]);
        assert_eq!(faults.requests().len(), before + 1);
        store.put_copy(&LOG, vec![7; 5000].into()).await;
        store.get(&LOG).await.unwrap();
        assert_eq!(faults.requests().len(), before + 1, "the copy is good again");
    }

    #[tokio::test]
    async fn trimming_forgets_what_is_below() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        let (store, faults) = keep(dir.path(), &memory);
        let segments = [ObjectName::Segment(SegmentId([1; 16])), ObjectName::Segment(SegmentId([2; 16]))];
        let log = |seq| ObjectName::Log(Seq(seq));
        for name in [log(1), log(2), log(3), ObjectName::Checkpoint(Seq(1)), segments[0], segments[1]] {
            store.create(&name, Bytes::from_static(b"x")).await.unwrap();
        }
        store.forget_below(Seq(3));
        store.retain_segments(|id| *id == SegmentId([2; 16]));
        faults.add(offline());
        assert_eq!(store.list(Prefix::Everything).await.unwrap(), [log(3), segments[1]]);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_fails_nothing() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), MemoryStore::new());
        std::fs::write(dir.path().join("kept"), b"a file is in the way").unwrap();
        let (store, _) = keep(dir.path(), &memory);
        store.create(&LOG, Bytes::from_static(b"record")).await.unwrap();
        assert_eq!(store.get(&LOG).await.unwrap().unwrap(), "record");
        store.delete(&LOG).await.unwrap();
        assert_eq!(store.get(&LOG).await.unwrap(), None);
    }
}
