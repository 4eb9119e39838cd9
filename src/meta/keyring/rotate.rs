//! Ending an epoch: new slots for the next root, and following when another device has done it.
//!
//! Order of a rotation: slots under the next epoch, then the record that ends this one and commits to the next root,
//! then whatever new devices start from, then the link that lets them in, then the old slots go. Whoever is
//! interrupted leaves either slots of an epoch that never began, which nobody looks at, or an epoch that began: then
//! any device that has followed the log does the rest.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::init::put_new;
use super::unlock::slot_name;
use super::{KeyObjects, Keyring, KeyringError, Pin, StateFolder};
use crate::base::{Entropy, Epoch, Hash};
use crate::crypto::{Key, Roots};
use crate::format::{EpochLink, NextEpoch, ObjectName, Slot, SlotNo, SlotPlace};
use crate::meta::log::Head;
use crate::store::{Prefix, Store};

/// An epoch whose slots are in the store and that the log does not know yet.
#[derive(Debug)]
pub struct Prepared {
    pub next: NextEpoch,
    slots: Vec<ObjectName>,
}

/// Puts a slot of the next epoch for each one of the current epoch but `without`, whose owners need not be there.
pub async fn prepare(
    store: &dyn Store,
    keyring: &Keyring,
    without: Option<SlotNo>,
    entropy: &dyn Entropy,
) -> Result<Prepared, KeyringError> {
    let (current, root) = keyring.roots.current();
    let objects = KeyObjects::fetch(store).await?;
    // A slot that somebody planted does not open under the root, and is left behind.
    let ours = objects.slots.iter().filter(|slot| slot.place().epoch == current && slot.details(&root).is_ok());
    let staying: Vec<_> = ours.filter(|slot| Some(slot.place().number) != without).collect();
    if let Some(without) = without {
        if !objects.slots.iter().any(|slot| slot.place() == SlotPlace { number: without, ..slot.place() }) {
            return Err(KeyringError::NoSuchSlot(without));
        }
        if without == keyring.slot {
            return Err(KeyringError::OwnSlot(without));
        }
    }
    if staying.is_empty() {
        return Err(KeyringError::LastSlot);
    }
    let listed = store.list(Prefix::Slots).await?;
    let highest = listed.iter().filter_map(epoch_of).chain([current]).max().unwrap_or(current);
    let epoch = Epoch(highest.0.checked_add(1).ok_or(KeyringError::NoFreeEpoch)?);
    let next_root = Key::generate(entropy);
    let mut prepared = Prepared { next: NextEpoch { epoch, commitment: Hash::ZERO }, slots: Vec::new() };
    for slot in staying {
        let slot = slot.rotate(&root, epoch, &next_root, entropy).map_err(KeyringError::Slot)?;
        let name = slot_name(&slot);
        // The epoch's number is taken by whoever puts the first slot. What is there by that name is not ours to delete.
        match put_new(store, &name, &slot.encode()).await {
            Ok(true) => prepared.slots.push(name),
            Ok(false) => {
                prepared.abandon(store).await;
                return Err(KeyringError::RotatedMeanwhile);
            }
            Err(error) => {
                prepared.abandon(store).await;
                return Err(error.into());
            }
        }
    }
    if !keyring.roots.insert(epoch, next_root) {
        return Err(KeyringError::RotatedMeanwhile);
    }
    prepared.next.commitment = keyring.roots.commitment(epoch).map_err(|_| KeyringError::OtherRoot)?;
    Ok(prepared)
}

impl Prepared {
    /// The log has not taken it, and never will.
    pub async fn abandon(self, store: &dyn Store) {
        for name in self.slots {
            if let Err(error) = store.delete(&name).await {
                tracing::warn!("{name}, of an epoch that did not begin, stays in the store: {error}");
            }
        }
    }
}

impl Keyring {
    /// Learns the root of an epoch that the log began, by this device's own slot.
    pub async fn follow(&self, store: &dyn Store, next: &NextEpoch) -> Result<(), KeyringError> {
        if self.roots.root(next.epoch).is_err() {
            let place = SlotPlace { volume: self.volume(), epoch: next.epoch, number: self.slot };
            let name = ObjectName::Slot(next.epoch, self.slot);
            let bytes = store.get(&name).await?.ok_or(KeyringError::SlotRemoved(next.epoch))?;
            let slot = Slot::parse(place, &bytes).map_err(|error| KeyringError::Slot(error.into()))?;
            let unlocked = slot.unlock_with(self.private.duplicate()).map_err(KeyringError::Slot)?;
            // Held against the record before it is known: a forged slot must not take the epoch's place.
            let found = Roots::new(self.volume(), next.epoch, unlocked.root.duplicate());
            if found.commitment(next.epoch) != Ok(next.commitment) {
                return Err(KeyringError::OtherRoot);
            }
            if !self.roots.insert(next.epoch, unlocked.root) {
                return Err(KeyringError::OtherRoot);
            }
        }
        if self.roots.commitment(next.epoch) != Ok(next.commitment) {
            return Err(KeyringError::OtherRoot);
        }
        self.roots.advance(next.epoch).map_err(|_| KeyringError::OtherRoot)
    }

    /// The device knows the epoch from now on: it is held to it at the next mount, and what it keeps is sealed anew. For
    /// an epoch that has its link.
    pub async fn remember(
        &self,
        store: &dyn Store,
        folder: &StateFolder,
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        // First what opens the epoch: whoever is interrupted here can still mount without the store.
        KeyObjects::fetch(store).await?.keep(folder)?;
        folder.reseal_state_key(&self.roots, &self.state_key, entropy)?;
        folder.put_pin(&Pin::of(&self.roots)?)
    }
}

/// The last steps of a rotation, each of which may be done already: lets new devices into the epoch that began after
/// `ended`, and takes the slots of earlier ones away.
pub async fn complete(
    store: &dyn Store,
    keyring: &Keyring,
    older: Epoch,
    ended: Head,
    entropy: &dyn Entropy,
) -> Result<(), KeyringError> {
    let (epoch, root) = keyring.roots.current();
    let older_root = keyring.roots.root(older).map_err(|_| KeyringError::OtherRoot)?;
    let name = ObjectName::Chain(epoch);
    if store.size(&name).await?.is_none() {
        let link = EpochLink { older, root: older_root.duplicate(), ended_at: ended.seq, ended_hash: ended.hash };
        let bytes = Bytes::from(link.seal(keyring.volume(), epoch, &root, entropy));
        // Another device's link says the same in other bytes.
        if !put_new(store, &name, &bytes).await? {
            tracing::debug!("another device linked epoch {epoch} to the one before it");
        }
    }
    // The old slots are the only way in if the new ones are not there.
    let own = ObjectName::Slot(epoch, keyring.slot);
    let bytes = store.get(&own).await?.ok_or(KeyringError::SlotRemoved(epoch))?;
    let place = SlotPlace { volume: keyring.volume(), epoch, number: keyring.slot };
    let slot = Slot::parse(place, &bytes).map_err(|error| KeyringError::Slot(error.into()))?;
    slot.details(&root).map_err(KeyringError::Slot)?;
    let listed: BTreeSet<_> = store.list(Prefix::Slots).await?.into_iter().collect();
    for name in listed {
        if matches!(name, ObjectName::Slot(of, _) if of < epoch) {
            store.delete(&name).await?;
        }
    }
    Ok(())
}

pub(super) fn epoch_of(name: &ObjectName) -> Option<Epoch> {
    match name {
        ObjectName::Slot(epoch, _) | ObjectName::Chain(epoch) => Some(*epoch),
        _ => None,
    }
}

/// Whether the epoch's link is missing although the log began it: a rotation that was interrupted.
pub async fn is_incomplete(store: &dyn Store, epoch: Epoch) -> Result<bool, KeyringError> {
    Ok(epoch > Epoch(0) && store.size(&ObjectName::Chain(epoch)).await?.is_none())
}
