//! Making a volume, and changing who may unlock it.

use bytes::Bytes;

use super::KeyringError;
use super::unlock::{KeyObjects, Opened, PASSWORDS_TRIED_MAX, SLOTS_READ_MAX, Secret, slot_name};
use crate::base::{Entropy, Epoch, Timestamp, VolumeId};
use crate::crypto::{KdfParameters, Key, PublicHalf, RecoveryWords};
use crate::format::{ObjectName, Slot, SlotKind, SlotNo, SlotPlace, VolumeObject, VolumeParameters};
use crate::store::{Created, Prefix, Store, StoreError, StoreErrorKind};

const FIRST_SLOT: u16 = 1;

/// What `init` tells.
pub struct Initialized {
    pub volume: VolumeId,
    /// Shown once, kept nowhere.
    pub words: RecoveryWords,
    /// For other machines to compare.
    pub fingerprint: String,
}

/// Makes a volume where there is none. `creates_hold` is whether two racing creates had one winner in this store.
///
/// The volume object comes last: what an interrupted `init` leaves behind are key slots of no volume.
pub async fn init_volume(
    store: &dyn Store,
    password: &[u8],
    kdf: KdfParameters,
    creates_hold: bool,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<Initialized, KeyringError> {
    kdf.check()?;
    if store.get(&ObjectName::Volume).await?.is_some() {
        return Err(KeyringError::VolumeExists);
    }
    let mut volume = VolumeId([0; 16]);
    entropy.fill(&mut volume.0);
    let root = Key::generate(entropy);
    let words = RecoveryWords::generate(entropy);

    let by_password = put_slot(store, volume, Epoch(0), |place| {
        Ok(Slot::seal_password(place, &root, password, kdf, "password", now, entropy)?)
    });
    let by_password = by_password.await?;
    let by_words = put_slot(store, volume, Epoch(0), |place| {
        Ok(Slot::seal_recovery(place, &root, &words, "recovery words", now, entropy))
    });
    let by_words = by_words.await?;

    let parameters = VolumeParameters { created: now, single_device: !creates_hold };
    let object = VolumeObject::create(volume, &root, &parameters, entropy);
    if !put_new(store, &ObjectName::Volume, object.bytes()).await? {
        // Somebody else's `init` was faster; our slots are of no use to it.
        for slot in [by_password, by_words] {
            store.delete(&ObjectName::Slot(Epoch(0), slot)).await?;
        }
        return Err(KeyringError::VolumeExists);
    }
    Ok(Initialized { volume, words, fingerprint: object.fingerprint() })
}

/// Puts a slot for the new password, then removes the one that `opened` came from, or all password slots if it came
/// from the recovery words. Who had the old password and a copy of its slot keeps the root key: only a rotation
/// locks them out.
pub async fn change_password(
    store: &dyn Store,
    secret: &Secret,
    opened: &Opened,
    password: &[u8],
    kdf: KdfParameters,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SlotNo, KeyringError> {
    kdf.check()?;
    let objects = KeyObjects::fetch(store).await?;
    let (volume, (epoch, root)) = (opened.roots.volume(), opened.roots.current());
    if objects.volume.volume() != volume {
        return Err(KeyringError::OtherVolume { pinned: volume, found: objects.volume.volume() });
    }
    let passwords = objects.slots.iter().filter(|slot| matches!(slot.info().kind, SlotKind::Password { .. })).count();
    if matches!(secret, Secret::Identity(_)) && passwords >= PASSWORDS_TRIED_MAX {
        return Err(KeyringError::NoFreePassword);
    }
    let is_replaced = |slot: &Slot| match secret {
        Secret::Password(_) => slot.place().number == opened.slot,
        Secret::Recovery(_) => matches!(slot.info().kind, SlotKind::Password { .. }),
        // Who has no password gets one.
        Secret::Identity(_) => false,
    };
    let replaced: Vec<&Slot> = objects.slots.iter().filter(|slot| is_replaced(slot)).collect();
    let added = put_slot_unless_rotating(store, volume, epoch, replaced.len(), |place| {
        Ok(Slot::seal_password(place, &root, password, kdf, "password", now, entropy)?)
    });
    let added = added.await?;
    for slot in replaced {
        store.delete(&slot_name(slot)).await?;
    }
    Ok(added)
}

/// Lets in whoever has the private half of `public`.
pub async fn add_recipient(
    store: &dyn Store,
    opened: &Opened,
    public: PublicHalf,
    label: &str,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SlotNo, KeyringError> {
    let (epoch, root) = opened.roots.current();
    let seal = |place| Ok(Slot::seal_recipient(place, &root, public, label, now, entropy));
    put_slot_unless_rotating(store, opened.roots.volume(), epoch, 0, seal).await
}

/// As `put_slot`, of a volume that others may be rotating: what they took the slots of stays as it was, and this one
/// would be deleted with the epoch. `leaving` of those that are there go as soon as this one is.
async fn put_slot_unless_rotating(
    store: &dyn Store,
    volume: VolumeId,
    epoch: Epoch,
    leaving: usize,
    seal: impl Fn(SlotPlace) -> Result<Slot, KeyringError>,
) -> Result<SlotNo, KeyringError> {
    refuse_during_rotation(store, epoch).await?;
    // What nobody reads opens nothing, and the next rotation would leave it behind.
    let listed = store.list(Prefix::Slots).await?;
    let there = listed.iter().filter(|name| matches!(name, ObjectName::Slot(of, _) if *of == epoch)).count();
    if there >= SLOTS_READ_MAX + leaving {
        return Err(KeyringError::NoFreeSlot);
    }
    let number = put_slot(store, volume, epoch, seal).await?;
    if let Err(error) = refuse_during_rotation(store, epoch).await {
        store.delete(&ObjectName::Slot(epoch, number)).await?;
        return Err(error);
    }
    Ok(number)
}

async fn refuse_during_rotation(store: &dyn Store, epoch: Epoch) -> Result<(), KeyringError> {
    let listed = store.list(Prefix::Slots).await?;
    let is_later = |name: &ObjectName| super::rotate::epoch_of(name).is_some_and(|of| of > epoch);
    if listed.iter().any(is_later) { Err(KeyringError::Rotating) } else { Ok(()) }
}

/// Seals a slot for the first free number and puts it there.
async fn put_slot(
    store: &dyn Store,
    volume: VolumeId,
    epoch: Epoch,
    seal: impl Fn(SlotPlace) -> Result<Slot, KeyringError>,
) -> Result<SlotNo, KeyringError> {
    for number in (FIRST_SLOT..=SlotNo::MAX).filter_map(SlotNo::new) {
        let name = ObjectName::Slot(epoch, number);
        // Sealing binds the number and is slow on purpose: look first.
        if store.size(&name).await?.is_some() {
            continue;
        }
        let slot = seal(SlotPlace { volume, epoch, number })?;
        if put_new(store, &name, &slot.encode()).await? {
            return Ok(number);
        }
    }
    Err(KeyringError::NoFreeSlot)
}

/// Whether the object is there with these bytes, now or already.
pub(super) async fn put_new(store: &dyn Store, name: &ObjectName, bytes: &[u8]) -> Result<bool, StoreError> {
    const TRIES: usize = 5;
    let mut unknown = None;
    for _ in 0..TRIES {
        match store.create(name, Bytes::copy_from_slice(bytes)).await {
            Ok(Created::New) => return Ok(true),
            Ok(Created::Exists) => {}
            Err(error) if error.kind == StoreErrorKind::Unknown => unknown = Some(error),
            Err(error) => return Err(error),
        }
        // Retries may tell the winner that it lost: what is there decides.
        if let Some(found) = store.get(name).await? {
            return Ok(found == bytes);
        }
    }
    Err(unknown.unwrap_or_else(|| StoreError::new(StoreErrorKind::Server, crate::store::Op::Create, Some(*name), "")))
}
