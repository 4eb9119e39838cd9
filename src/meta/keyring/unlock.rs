//! From a secret to the root key, and from that to this device's own keys.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use zeroize::Zeroizing;

use super::{Keyring, KeyringError, Pin, StateFolder};
use crate::base::{Entropy, Epoch, KIB, MIB};
use crate::crypto::{PrivateHalf, RecoveryWords, Roots};
use crate::format::{
    EpochLink, ObjectName, Slot, SlotKind, SlotNo, SlotPlace, UnlockError, Unlocked, VolumeObject, VolumeParameters,
};
use crate::meta::log::Head;
use crate::store::{Prefix, Store};

/// A store could hold any number, each as slow to derive for as it likes. The other kinds cost next to nothing.
pub(super) const PASSWORDS_TRIED_MAX: usize = 16;
/// Of all kinds and epochs.
pub(super) const SLOTS_READ_MAX: usize = 64;
/// Each is one read and one opening; nobody rotates as often.
const EPOCHS_MAX: usize = 10_000;
const LINKS_READ_AT_ONCE: usize = 16;
/// All that are kept, together, must fit into memory.
const LINK_LEN_MAX: usize = 4 * KIB as usize;

pub enum Secret {
    Password(Zeroizing<Vec<u8>>),
    Recovery(RecoveryWords),
    /// The private halves of an age identity file.
    Identity(Vec<PrivateHalf>),
}

/// The volume object, the key slots and the links between epochs, as they are in the store.
#[derive(Clone)]
pub struct KeyObjects {
    pub volume: VolumeObject,
    /// The newest epoch's first. Of epochs that began; a rotation that is under way has slots already, and no link.
    pub slots: Vec<Slot>,
    pub chain: BTreeMap<Epoch, Bytes>,
    /// Names of the slots, also of those that cannot be read.
    pub listed: Vec<ObjectName>,
}

/// What one slot gave.
pub struct Opened {
    /// All epochs' up to the slot's, which is the current one.
    pub roots: Roots,
    pub slot: SlotNo,
    pub private: PrivateHalf,
    pub parameters: VolumeParameters,
    /// The record before the slot's epoch, which proves the log up to it.
    pub anchor: Option<Head>,
}

/// What a first mount by identity must be told, since a store that knows the recipient could make up a volume for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By a secret that nobody else knows, any volume that it opens is its owner's.
    Secret,
    /// The volume's fingerprint, as its owner tells it.
    Fingerprint(String),
    /// Whatever the store shows.
    First,
}

/// Unlocks the volume for a state folder. Without the store it goes by the copies that the folder keeps; the answer's
/// second half says why, if so.
pub async fn open_keyring(
    store: &dyn Store,
    folder: &StateFolder,
    secret: Secret,
    trust: Trust,
    memory_max: u64,
    entropy: &dyn Entropy,
) -> Result<(Keyring, Option<String>), KeyringError> {
    let kept = KeyObjects::kept(folder).unwrap_or_else(|error| {
        tracing::warn!("this machine's copies of the key slots cannot be used: {error}");
        None
    });
    let (objects, offline) = match (KeyObjects::fetch(store).await, &kept) {
        (Ok(objects), _) => (objects, None),
        // Unreachable, or the volume object is damaged or gone: the log will show whether it is still our volume.
        (Err(error), Some(kept)) => (kept.clone(), Some(error.to_string())),
        (Err(error), None) => return Err(error),
    };
    let pin = folder.pin()?;
    objects.check_volume(pin.as_ref())?;
    if pin.is_none() && matches!(secret, Secret::Identity(_)) {
        objects.check_trust(&trust)?;
    }
    let objects = Arc::new(objects);
    let spare = kept.and_then(|kept| kept.in_place_of(&objects));
    let derived = tokio::task::spawn_blocking({
        let objects = objects.clone();
        move || match (objects.unlock(&secret, memory_max), spare) {
            (Err(error), Some(spare)) => match spare.unlock(&secret, memory_max) {
                Ok(opened) => {
                    tracing::error!(
                        "key slots or the volume object in the store are damaged: this machine's copies open the volume"
                    );
                    Ok((opened, true))
                }
                Err(_) => Err(error),
            },
            (opened, _) => Ok((opened?, false)),
        }
    });
    let (opened, by_copies) = derived.await.map_err(|_| KeyringError::Interrupted)??;
    check_or_pin(folder, pin, &opened.roots)?;
    if offline.is_none() && !by_copies {
        objects.keep(folder)?;
    }
    let state_key = folder.state_key(&opened.roots, entropy)?;
    let Opened { roots, slot, private, parameters, anchor } = opened;
    Ok((Keyring { roots, state_key, parameters, slot, private, anchor }, offline))
}

/// The first mount trusts what it found; all later ones are held to it: a newer epoch must lead back to the pinned one.
fn check_or_pin(folder: &StateFolder, pin: Option<Pin>, roots: &Roots) -> Result<(), KeyringError> {
    let Some(pin) = pin else { return folder.put_pin(&Pin::of(roots)?) };
    if roots.epoch() < pin.epoch {
        return Err(KeyringError::OlderEpoch { pinned: pin.epoch, found: roots.epoch() });
    }
    match roots.commitment(pin.epoch) {
        Ok(commitment) if roots.volume() == pin.volume && commitment == pin.root_commitment => Ok(()),
        _ => Err(KeyringError::OtherRoot),
    }
}

impl KeyObjects {
    pub async fn fetch(store: &dyn Store) -> Result<Self, KeyringError> {
        let bytes = store.get(&ObjectName::Volume).await?.ok_or(KeyringError::NoVolume)?;
        let volume = VolumeObject::parse(&bytes).map_err(KeyringError::Volume)?;
        let names = store.list(Prefix::Slots).await?;
        let mut chain = BTreeMap::new();
        let linked = epochs_begun(&names).into_iter().filter(|epoch| *epoch > Epoch(0)).take(EPOCHS_MAX);
        let links = linked.map(|epoch| async move { (epoch, store.get(&ObjectName::Chain(epoch)).await) });
        let mut links = stream::iter(links).buffered(LINKS_READ_AT_ONCE);
        while let Some((epoch, bytes)) = links.next().await {
            if let Some(bytes) = bytes?.filter(|bytes| bytes.len() <= LINK_LEN_MAX) {
                chain.insert(epoch, bytes);
            }
        }
        let (mut slots, mut listed) = (Vec::new(), Vec::new());
        for (epoch, number) in slots_of(&names, &chain) {
            let name = ObjectName::Slot(epoch, number);
            listed.push(name);
            // One that is gone meanwhile was removed; one that cannot be read is not ours to unlock.
            if let Some(bytes) = store.get(&name).await?
                && let Ok(slot) = Slot::parse(SlotPlace { volume: volume.volume(), epoch, number }, &bytes)
            {
                slots.push(slot);
            }
        }
        Ok(Self { volume, slots, chain, listed })
    }

    /// What the state folder keeps.
    pub fn kept(folder: &StateFolder) -> Result<Option<Self>, KeyringError> {
        let Some(bytes) = folder.read_kept(&ObjectName::Volume)? else { return Ok(None) };
        let volume = VolumeObject::parse(&bytes).map_err(KeyringError::Volume)?;
        let names = folder.kept()?;
        let mut chain = BTreeMap::new();
        for epoch in epochs_begun(&names) {
            if let Some(bytes) = folder.read_kept(&ObjectName::Chain(epoch))? {
                chain.insert(epoch, bytes.into());
            }
        }
        let mut slots = Vec::new();
        for (epoch, number) in slots_of(&names, &chain) {
            if let Some(bytes) = folder.read_kept(&ObjectName::Slot(epoch, number))?
                && let Ok(slot) = Slot::parse(SlotPlace { volume: volume.volume(), epoch, number }, &bytes)
            {
                slots.push(slot);
            }
        }
        let listed = slots.iter().map(slot_name).collect();
        Ok(Some(Self { volume, slots, chain, listed }))
    }

    /// The epoch of the slots that open the volume now.
    pub fn epoch(&self) -> Epoch {
        self.chain.keys().next_back().copied().unwrap_or(Epoch(0))
    }

    /// These copies, if the store has other bytes under their names: someone damaged them. A slot that it lists no
    /// more was removed, and opens nothing.
    fn in_place_of(mut self, found: &Self) -> Option<Self> {
        if self.volume.volume() != found.volume.volume() {
            return None;
        }
        let is_same = |slot: &Slot| found.slots.iter().any(|other| other.encode() == slot.encode());
        self.slots.retain(|slot| found.listed.contains(&slot_name(slot)));
        let is_same_chain = self.chain.iter().all(|(epoch, bytes)| found.chain.get(epoch) == Some(bytes));
        let differs = self.volume.bytes() != found.volume.bytes() || !is_same_chain || !self.slots.iter().all(is_same);
        differs.then_some(self)
    }

    /// Keeps these, and only these: a slot that was removed opens this device no longer than the others.
    pub fn keep(&self, folder: &StateFolder) -> Result<(), KeyringError> {
        let slots = self.slots.iter().map(|slot| (slot_name(slot), slot.encode()));
        let chain = self.chain.iter().map(|(epoch, bytes)| (ObjectName::Chain(*epoch), bytes.to_vec()));
        let objects: Vec<_> = slots.chain(chain).chain([(ObjectName::Volume, self.volume.bytes().to_vec())]).collect();
        let kept = folder.kept()?;
        for (name, bytes) in &objects {
            if folder.read_kept(name)?.as_ref() != Some(bytes) {
                folder.keep(name, bytes)?;
            }
        }
        let mut surplus = kept.iter().filter(|name| objects.iter().all(|(wanted, _)| wanted != *name));
        surplus.try_for_each(|name| folder.forget_kept(name))
    }

    /// Before anything is derived: this is the volume that the device knows.
    pub fn check_volume(&self, pin: Option<&Pin>) -> Result<(), KeyringError> {
        let found = self.volume.volume();
        match pin {
            Some(pin) if pin.volume != found => Err(KeyringError::OtherVolume { pinned: pin.volume, found }),
            _ => Ok(()),
        }
    }

    /// Whether this is the volume whose fingerprint somebody was told.
    pub fn check_trust(&self, trust: &Trust) -> Result<(), KeyringError> {
        let found = self.volume.fingerprint();
        match trust {
            Trust::First => Ok(()),
            Trust::Fingerprint(told) if told.trim().eq_ignore_ascii_case(&found) => Ok(()),
            Trust::Fingerprint(told) => Err(KeyringError::OtherFingerprint { told: told.trim().into(), found }),
            Trust::Secret => Err(KeyringError::FingerprintNeeded),
        }
    }

    /// Tries the slots one after the other. Takes as long as their parameters ask: never on a thread that others
    /// wait for. `memory_max` is in bytes.
    pub fn unlock(&self, secret: &Secret, memory_max: u64) -> Result<Opened, KeyringError> {
        let tried_max = if matches!(secret, Secret::Password(_)) { PASSWORDS_TRIED_MAX } else { SLOTS_READ_MAX };
        let of_kind = self.slots.iter().filter(|slot| secret.suits(&slot.info().kind)).take(tried_max);
        let mut refused = KeyringError::NoSlot;
        for slot in of_kind {
            match secret.try_on(slot, memory_max).and_then(|unlocked| self.opened(slot, unlocked)) {
                Ok(opened) => return Ok(opened),
                // The least helpful first: a slot that could not be tried is worth more than one that did not fit.
                Err(error)
                    if !matches!(error, KeyringError::WrongSecret) || matches!(refused, KeyringError::NoSlot) =>
                {
                    refused = error;
                }
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// From the slot's epoch back to the first.
    fn opened(&self, slot: &Slot, unlocked: Unlocked) -> Result<Opened, KeyringError> {
        let volume = self.volume.volume();
        let Unlocked { mut epoch, root, private, .. } = unlocked;
        let roots = Roots::new(volume, epoch, root.duplicate());
        let (mut root, mut anchor) = (root, None);
        while epoch > Epoch(0) {
            let bytes = self.chain.get(&epoch).ok_or(KeyringError::BrokenChain(epoch))?;
            let link = EpochLink::open(volume, epoch, &root, bytes).map_err(KeyringError::Slot)?;
            anchor.get_or_insert(Head { seq: link.ended_at, hash: link.ended_hash });
            if !roots.insert(link.older, link.root.duplicate()) {
                return Err(KeyringError::OtherRoot);
            }
            (epoch, root) = (link.older, link.root);
        }
        let parameters = self.volume.open(&root).map_err(KeyringError::Slot)?;
        Ok(Opened { roots, slot: slot.info().number, private, parameters, anchor })
    }
}

impl Secret {
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Password(password) => Self::Password(password.clone()),
            Self::Recovery(words) => Self::Recovery(words.duplicate()),
            Self::Identity(keys) => Self::Identity(keys.iter().map(PrivateHalf::duplicate).collect()),
        }
    }

    fn suits(&self, kind: &SlotKind) -> bool {
        matches!(
            (self, kind),
            (Self::Password(_), SlotKind::Password { .. })
                | (Self::Recovery(_), SlotKind::Recovery)
                | (Self::Identity(_), SlotKind::Recipient)
        )
    }

    fn try_on(&self, slot: &Slot, memory_max: u64) -> Result<crate::format::Unlocked, KeyringError> {
        if let SlotKind::Password { kdf, .. } = slot.info().kind {
            kdf.check()?;
            if kdf.memory_bytes() > memory_max {
                let (need_mib, allowed_mib) = (kdf.memory_bytes() / MIB, memory_max / MIB);
                return Err(KeyringError::TooMuchMemory { need_mib, allowed_mib });
            }
        }
        let unlocked = match self {
            Self::Password(password) => slot.unlock_password(password),
            Self::Recovery(words) => slot.unlock_recovery(words),
            Self::Identity(keys) => {
                let tried = keys.iter().map(|key| slot.unlock_recipient(key.duplicate()));
                tried.reduce(Result::or).unwrap_or(Err(UnlockError::WrongSecret))
            }
        };
        unlocked.map_err(|error| match error {
            UnlockError::WrongSecret
            | UnlockError::NotPassword
            | UnlockError::NotRecovery
            | UnlockError::NotRecipient => KeyringError::WrongSecret,
            UnlockError::Kdf(error) => KeyringError::Kdf(error),
            UnlockError::Damaged(error) => KeyringError::Slot(error),
        })
    }
}

pub(super) fn slot_name(slot: &Slot) -> ObjectName {
    ObjectName::Slot(slot.place().epoch, slot.place().number)
}

/// Newest first: those that have a link to the one before them, and the first.
fn epochs_begun(names: &[ObjectName]) -> Vec<Epoch> {
    let linked = names.iter().filter_map(|name| match name {
        ObjectName::Chain(epoch) => Some(*epoch),
        _ => None,
    });
    let mut epochs: Vec<_> = linked.chain([Epoch(0)]).collect();
    epochs.sort_unstable_by(|a, b| b.cmp(a));
    epochs.dedup();
    epochs
}

/// The newest epoch's first.
fn slots_of(names: &[ObjectName], chain: &BTreeMap<Epoch, Bytes>) -> Vec<(Epoch, SlotNo)> {
    let slots = names.iter().filter_map(|name| match name {
        ObjectName::Slot(epoch, number) => Some((*epoch, *number)),
        _ => None,
    });
    let mut slots: Vec<_> = slots.filter(|(epoch, _)| *epoch == Epoch(0) || chain.contains_key(epoch)).collect();
    slots.sort_unstable_by_key(|(epoch, number)| (Reverse(*epoch), *number));
    slots.truncate(SLOTS_READ_MAX);
    slots
}
