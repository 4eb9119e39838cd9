//! Two who change the keys at once.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::base::{ByteRange, Entropy, SystemEntropy, Timestamp};
use crate::crypto::{KdfParameters, PrivateHalf, RecoveryWords};
use crate::disk::RealDisk;
use crate::format::ObjectName;
use crate::store::{Created, MemoryStore, Prefix, Store};

const NOW: Timestamp = Timestamp::new(1_600_000_000, 0);

/// A store whose listings of slots lag behind: they show epoch 0 only.
struct Lagging(MemoryStore);

#[async_trait]
impl Store for Lagging {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        self.0.create(name, bytes).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.0.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        self.0.get_range(name, range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.0.size(name).await
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        let mut names = self.0.list(prefix).await?;
        names.retain(|name| !matches!(name, ObjectName::Slot(epoch, _) if *epoch > Epoch(0)));
        Ok(names)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name).await
    }
}

struct Rig {
    store: MemoryStore,
    words: RecoveryWords,
    folders: Vec<tempfile::TempDir>,
}

impl Rig {
    async fn new() -> Self {
        Self::on_a_store_where(true).await
    }

    async fn on_a_store_where(creates_hold: bool) -> Self {
        let store = MemoryStore::new();
        let init = init_volume(&store, b"password", KdfParameters::FLOOR, creates_hold, NOW, &SystemEntropy).await;
        Self { store, words: init.expect("init").words, folders: Vec::new() }
    }

    async fn keyring(&mut self) -> Keyring {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateFolder::lock(Arc::new(RealDisk), folder.path()).expect("a state folder");
        let secret = Secret::Recovery(self.words.duplicate());
        let opened = open_keyring(&self.store, &state, secret, Trust::Secret, 1 << 30, &SystemEntropy).await;
        self.folders.push(folder);
        opened.expect("opened").0
    }

    fn slots(&self, epoch: Epoch) -> Vec<ObjectName> {
        let is_of = |name: &ObjectName| matches!(name, ObjectName::Slot(of, _) if *of == epoch);
        self.store.names().into_iter().filter(is_of).collect()
    }
}

#[tokio::test]
async fn a_volume_says_whether_its_store_lets_several_devices_write() {
    for creates_hold in [true, false] {
        let mut rig = Rig::on_a_store_where(creates_hold).await;
        assert_eq!(rig.keyring().await.parameters.single_device, !creates_hold);
    }
}

#[tokio::test]
async fn who_loses_the_race_of_two_rotations_leaves_the_winners_slots() {
    let mut rig = Rig::new().await;
    let (winner, loser) = (rig.keyring().await, rig.keyring().await);
    prepare(&rig.store, &winner, None, &SystemEntropy).await.expect("prepared");
    let before = rig.slots(Epoch(1));
    assert_eq!(before.len(), 2);
    let lagging = Lagging(rig.store.clone());
    let lost = prepare(&lagging, &loser, None, &SystemEntropy).await;
    assert!(matches!(lost, Err(KeyringError::RotatedMeanwhile)), "{lost:?}");
    assert_eq!(rig.slots(Epoch(1)), before);
}

#[tokio::test]
async fn no_old_slot_goes_before_the_own_new_one_is_there() {
    let mut rig = Rig::new().await;
    let keyring = rig.keyring().await;
    let prepared = prepare(&rig.store, &keyring, None, &SystemEntropy).await.expect("prepared");
    keyring.follow(&rig.store, &prepared.next).await.expect("followed");
    rig.store.delete(&ObjectName::Slot(Epoch(1), keyring.slot)).await.expect("deleted");
    let ended = Head { seq: crate::base::Seq(1), hash: crate::base::Hash([1; 32]) };
    let done = complete(&rig.store, &keyring, Epoch(0), ended, &SystemEntropy).await;
    assert!(matches!(done, Err(KeyringError::SlotRemoved(Epoch(1)))), "{done:?}");
    assert_eq!(rig.slots(Epoch(0)).len(), 2);
}

#[tokio::test]
async fn a_slot_that_a_rotation_under_way_would_take_away_is_refused() {
    let mut rig = Rig::new().await;
    let (rotating, other) = (rig.keyring().await, rig.keyring().await);
    prepare(&rig.store, &rotating, None, &SystemEntropy).await.expect("prepared");
    let before = rig.store.names();
    let opened = Opened {
        roots: other.roots,
        slot: other.slot,
        private: other.private,
        parameters: other.parameters,
        anchor: None,
    };
    let public = PrivateHalf::generate(&SystemEntropy as &dyn Entropy).public();
    let added = add_recipient(&rig.store, &opened, public, "friend", NOW, &SystemEntropy).await;
    assert!(matches!(added, Err(KeyringError::Rotating)), "{added:?}");
    let secret = Secret::Recovery(rig.words.duplicate());
    let changed =
        change_password(&rig.store, &secret, &opened, b"new", KdfParameters::FLOOR, NOW, &SystemEntropy).await;
    assert!(matches!(changed, Err(KeyringError::Rotating)), "{changed:?}");
    assert_eq!(rig.store.names(), before);
}

#[tokio::test]
async fn a_slot_that_nobody_would_read_is_not_given_out() {
    let mut rig = Rig::new().await;
    let Keyring { roots, slot, private, parameters, .. } = rig.keyring().await;
    let opened = Opened { roots, slot, private, parameters, anchor: None };
    let public = PrivateHalf::generate(&SystemEntropy as &dyn Entropy).public();
    for _ in 2..64 {
        add_recipient(&rig.store, &opened, public, "friend", NOW, &SystemEntropy).await.expect("added");
    }
    let before = rig.store.names();
    let added = add_recipient(&rig.store, &opened, public, "friend", NOW, &SystemEntropy).await;
    assert!(matches!(added, Err(KeyringError::NoFreeSlot)), "{added:?}");
    assert_eq!(rig.store.names(), before);
}
