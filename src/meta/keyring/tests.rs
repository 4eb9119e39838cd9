//! Two who change the keys at once.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::base::{ByteRange, Entropy, Hash, InodeId, Seq, SystemEntropy, Timestamp};
use crate::crypto::{KdfParameters, PrivateHalf, RecoveryWords};
use crate::disk::RealDisk;
use crate::format::ObjectName;
use crate::format::state::Access;
use crate::store::{Created, Fault, FaultStore, MemoryStore, Op, Prefix, Rule, Store, StoreErrorKind};

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
    let ended = Head { seq: Seq(1), hash: Hash([1; 32]) };
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
    // What takes the place of another needs none.
    rig.change(&password("password"), "new").await.expect("changed");
    rig.unlocked(&password("new")).await.expect("it is read");
    rig.change(&Secret::Recovery(rig.words.duplicate()), "newer").await.expect("changed");
    rig.unlocked(&password("newer")).await.expect("it is read");
    assert_eq!(rig.slots(Epoch(0)).len(), 64);
}

impl Rig {
    async fn unlocked(&self, secret: &Secret) -> Result<Opened, KeyringError> {
        KeyObjects::fetch(&self.store).await?.unlock(secret, u64::MAX)
    }

    async fn change(&self, secret: &Secret, new: &str) -> Result<SlotNo, KeyringError> {
        let opened = self.unlocked(secret).await.expect("unlocked");
        let floor = KdfParameters::FLOOR;
        change_password(&self.store, secret, &opened, new.as_bytes(), floor, NOW, &SystemEntropy).await
    }

    /// Somebody who was let in.
    async fn friend(&self) -> Secret {
        let friend = PrivateHalf::generate(&SystemEntropy as &dyn Entropy);
        let opened = self.unlocked(&password("password")).await.expect("unlocked");
        add_recipient(&self.store, &opened, friend.public(), "friend", NOW, &SystemEntropy).await.expect("added");
        Secret::Identity(vec![friend])
    }
}

fn password(text: &str) -> Secret {
    Secret::Password(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn a_new_password_takes_the_place_of_the_own_and_by_the_recovery_words_of_all() {
    let rig = Rig::new().await;
    let friend = rig.friend().await;
    rig.change(&friend, "theirs").await.expect("added");
    rig.change(&password("password"), "new").await.expect("changed");
    let opens = async |text: &str| match rig.unlocked(&password(text)).await {
        Ok(_) => true,
        Err(KeyringError::WrongSecret) => false,
        Err(error) => panic!("{error}"),
    };
    assert_eq!((opens("password").await, opens("theirs").await, opens("new").await), (false, true, true));
    rig.change(&Secret::Recovery(rig.words.duplicate()), "last").await.expect("changed");
    assert_eq!((opens("theirs").await, opens("new").await, opens("last").await), (false, false, true));
    rig.unlocked(&friend).await.expect("let in as before");
    rig.unlocked(&Secret::Recovery(rig.words.duplicate())).await.expect("the words open as before");
}

#[tokio::test]
async fn a_password_that_nobody_would_try_is_not_given_out() {
    let rig = Rig::new().await;
    let friend = rig.friend().await;
    for number in 1..16 {
        rig.change(&friend, &number.to_string()).await.expect("added");
    }
    let before = rig.store.names();
    let added = rig.change(&friend, "16").await;
    assert!(matches!(added, Err(KeyringError::NoFreePassword)), "{added:?}");
    assert_eq!(rig.store.names(), before);
    rig.change(&password("password"), "new").await.expect("one goes, one comes");
    rig.unlocked(&password("15")).await.expect("the sixteenth is tried");
}

#[tokio::test]
async fn a_rotation_leaves_behind_what_somebody_planted() {
    let mut rig = Rig::new().await;
    let keyring = rig.keyring().await;
    let other = Rig::new().await;
    for (number, name) in (10..).zip(other.slots(Epoch(0))) {
        let bytes = other.store.peek(&name).expect("a slot");
        rig.store.plant(ObjectName::Slot(Epoch(0), SlotNo::new(number).expect("a number")), bytes);
    }
    prepare(&rig.store, &keyring, None, &SystemEntropy).await.expect("prepared");
    assert_eq!(rig.slots(Epoch(1)).len(), 2);
}

/// The least helpful answer is that a password did not fit.
#[tokio::test]
async fn a_password_that_takes_more_memory_than_allowed_is_not_tried_and_said_to_be() {
    let rig = Rig::new().await;
    let (friend, floor) = (rig.friend().await, KdfParameters::FLOOR);
    let theirs = rig.unlocked(&friend).await.expect("unlocked");
    let dearer = KdfParameters { memory_kib: 2 * floor.memory_kib, ..floor };
    change_password(&rig.store, &friend, &theirs, b"theirs", dearer, NOW, &SystemEntropy).await.expect("added");
    let objects = KeyObjects::fetch(&rig.store).await.expect("the key objects");
    let unlock = |text: &str, memory_max| objects.unlock(&password(text), memory_max).map(|opened| opened.slot);
    unlock("password", floor.memory_bytes()).expect("as much as it takes");
    let refused = unlock("theirs", dearer.memory_bytes() - 1);
    assert!(matches!(refused, Err(KeyringError::TooMuchMemory { need_mib: 128, allowed_mib: 127 })), "{refused:?}");
    let refused = unlock("password", floor.memory_bytes() - 1);
    assert!(matches!(refused, Err(KeyringError::TooMuchMemory { .. })), "{refused:?}");
    unlock("theirs", dearer.memory_bytes()).expect("as much as it takes");
    assert!(matches!(unlock("neither", dearer.memory_bytes()), Err(KeyringError::WrongSecret)));
}

/// What was answered does not say what is there.
#[tokio::test]
async fn a_slot_whose_answer_was_lost_is_taken_for_what_it_is() {
    let name = ObjectName::Slot(Epoch(0), SlotNo::new(1).expect("a number"));
    let put = async |fault: Fault| {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        faults.add(Rule::on(Op::Create, fault));
        let put = init::put_new(&store, &name, b"slot").await.map_err(|error| error.kind);
        (put, faults.requests().iter().filter(|(op, _)| *op == Op::Get).count())
    };
    assert_eq!(put(Fault::ApplyThenFail(StoreErrorKind::Unknown)).await, (Ok(true), 1));
    assert_eq!(put(Fault::Fail(StoreErrorKind::Unknown)).await, (Err(StoreErrorKind::Unknown), 5));
    assert_eq!(put(Fault::LieExists).await, (Ok(true), 1));
    assert_eq!(put(Fault::Fail(StoreErrorKind::Refused)).await, (Err(StoreErrorKind::Refused), 0));
}

#[tokio::test]
async fn a_device_that_followed_a_rotation_is_held_to_it_and_opens_it_without_the_store() {
    let mut rig = Rig::new().await;
    let keyring = rig.keyring().await;
    let older = rig.store.fork();
    assert!(!is_incomplete(&rig.store, Epoch(0)).await.expect("an answer"));
    let prepared = prepare(&rig.store, &keyring, None, &SystemEntropy).await.expect("prepared");
    keyring.follow(&rig.store, &prepared.next).await.expect("followed");
    assert!(is_incomplete(&rig.store, Epoch(1)).await.expect("an answer"));
    let ended = Head { seq: Seq(1), hash: Hash([1; 32]) };
    complete(&rig.store, &keyring, Epoch(0), ended, &SystemEntropy).await.expect("completed");
    assert!(!is_incomplete(&rig.store, Epoch(1)).await.expect("an answer"));
    let state = || StateFolder::lock(Arc::new(RealDisk), rig.folders[0].path()).expect("a state folder");
    let state_key = || std::fs::read(rig.folders[0].path().join("state.key")).expect("the state folder's key");
    let before = (state_key(), state().kept().expect("the copies"));
    keyring.remember(&rig.store, &state(), &SystemEntropy).await.expect("remembered");
    assert_ne!(state_key(), before.0, "it still opens by the old root");
    let copies = state().kept().expect("the copies");
    assert!(copies != before.1 && copies == rig.store.names(), "{copies:?}");

    let open = async |store: &dyn Store| {
        let secret = Secret::Recovery(rig.words.duplicate());
        open_keyring(store, &state(), secret, Trust::Secret, 1 << 30, &SystemEntropy).await
    };
    let shown = open(&older).await.map(drop);
    assert!(matches!(shown, Err(KeyringError::OlderEpoch { pinned: Epoch(1), found: Epoch(0) })), "{shown:?}");
    let (away, faults) = FaultStore::new(Arc::new(rig.store.clone()));
    faults.add(Rule::always(Fault::Fail(StoreErrorKind::Unreachable)));
    let (opened, offline) = open(&away).await.expect("opened by the copies");
    assert!(opened.roots.epoch() == Epoch(1) && offline.is_some());
}

fn state_folder() -> (tempfile::TempDir, StateFolder) {
    let folder = tempfile::tempdir().expect("a folder");
    let state = StateFolder::lock(Arc::new(RealDisk), folder.path()).expect("a state folder");
    (folder, state)
}

/// Any of them may have arrived unheard, but not below what came after.
#[test]
fn attempts_are_kept_until_a_later_head_is_known() {
    let (_folder, state) = state_folder();
    let (key, volume) = (Key::generate(&SystemEntropy), VolumeId([1; 16]));
    let head = |seq, hash| Head { seq: Seq(seq), hash: Hash([hash; 32]) };
    let mut identity = state.identity(&key, volume).expect("a new device's");
    for attempt in [head(5, 1), head(6, 1), head(6, 2), head(7, 1), head(6, 1)] {
        identity.note_attempt(attempt);
    }
    assert_eq!(identity.attempts, [head(5, 1), head(6, 2), head(7, 1), head(6, 1)]);
    identity.remembered = head(6, 2);
    identity.note_attempt(head(7, 2));
    assert_eq!(identity.attempts, [head(7, 1), head(7, 2)]);
    (8..40).for_each(|seq| identity.note_attempt(head(seq, 1)));
    assert_eq!(identity.attempts, (24..40).map(|seq| head(seq, 1)).collect::<Vec<_>>());
    state.put_identity(&key, volume, &identity, &SystemEntropy).expect("kept");
    assert_eq!(state.identity(&key, volume).expect("read").attempts, identity.attempts);
}

#[test]
fn a_state_file_is_replaced_whole_and_its_end_is_no_error() {
    let (folder, state) = state_folder();
    let (key, volume) = (Key::generate(&SystemEntropy), VolumeId([1; 16]));
    state.put_resealing(&key, volume, None, &SystemEntropy).expect("there was none");
    state.put_resealing(&key, volume, Some(Some(7)), &SystemEntropy).expect("kept");
    assert_eq!(state.resealing(&key, volume).expect("read"), Some(Some(7)));
    state.put_sealed("numbers", &key, volume, b"plain", &SystemEntropy).expect("kept");
    assert_eq!(state.sealed("numbers", &key, volume).expect("read"), Some(b"plain".to_vec()));
    let access = Access { ino: InodeId(9), atime: NOW, row_atime: NOW };
    state.put_accesses(&key, volume, &[access], &SystemEntropy).expect("kept");
    assert_eq!(state.accesses(&key, volume).expect("read"), [access]);
    // One file in another's place is damage.
    std::fs::copy(folder.path().join("numbers"), folder.path().join("resealing")).expect("copied");
    assert!(matches!(state.resealing(&key, volume), Err(KeyringError::DamagedState { .. })));
    state.put_resealing(&key, volume, None, &SystemEntropy).expect("ended");
    assert_eq!(state.resealing(&key, volume).expect("read"), None);
    std::fs::create_dir(folder.path().join("resealing")).expect("made");
    assert!(matches!(state.put_resealing(&key, volume, None, &SystemEntropy), Err(KeyringError::State { .. })));
}

/// Whatever it is that the store damaged, this machine's copies stand in for it, and are not overwritten by it.
#[tokio::test]
async fn copies_stand_in_for_what_was_damaged_and_for_nothing_that_was_removed() {
    let mut rig = Rig::new().await;
    let keyring = rig.keyring().await;
    let prepared = prepare(&rig.store, &keyring, None, &SystemEntropy).await.expect("prepared");
    keyring.follow(&rig.store, &prepared.next).await.expect("followed");
    let ended = Head { seq: Seq(1), hash: Hash([1; 32]) };
    complete(&rig.store, &keyring, Epoch(0), ended, &SystemEntropy).await.expect("completed");
    let state = || StateFolder::lock(Arc::new(RealDisk), rig.folders[0].path()).expect("a state folder");
    keyring.remember(&rig.store, &state(), &SystemEntropy).await.expect("remembered");
    let open = async |store: &MemoryStore| {
        let secret = Secret::Recovery(rig.words.duplicate());
        open_keyring(store, &state(), secret, Trust::Secret, 1 << 30, &SystemEntropy).await
    };
    let own = ObjectName::Slot(Epoch(1), keyring.slot);
    let copies = || state().kept().expect("the copies");
    let kept = copies();
    for name in [own, ObjectName::Chain(Epoch(1)), ObjectName::Volume] {
        let store = rig.store.fork();
        let mut bytes = store.peek(&name).expect("the object").to_vec();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        store.plant(name, bytes.clone().into());
        for time in ["first", "second"] {
            let (opened, offline) = open(&store).await.unwrap_or_else(|error| panic!("{name}, {time}: {error}"));
            assert!(opened.roots.epoch() == Epoch(1) && opened.slot == keyring.slot && offline.is_none(), "{name}");
        }
        assert_ne!(state().read_kept(&name).expect("the copy"), Some(bytes), "{name} was kept as it is in the store");
        assert_eq!(copies(), kept);
    }
    let store = rig.store.fork();
    store.delete(&own).await.expect("deleted");
    let opened = open(&store).await.map(drop);
    assert!(matches!(opened, Err(KeyringError::NoSlot)), "{opened:?}");
    // Another volume's objects are nobody's damage.
    let other = Rig::new().await;
    let opened = open(&other.store).await.map(drop);
    assert!(matches!(opened, Err(KeyringError::OtherVolume { .. })), "{opened:?}");
}
