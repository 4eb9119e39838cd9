//! Keys: making a volume, unlocking it, changing who can; and the state folder that remembers it.
//!
//! Invariants: parameters of a derivation are judged before it runs; a wrong secret, another volume and another root
//! are three different errors; nothing is put into a store before the root was held against what this device pinned.
//! It knows nothing of rows.

mod init;
mod rotate;
mod state;
#[cfg(test)]
mod tests;
mod unlock;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Epoch, VolumeId};
use crate::crypto::{KdfError, Key, PrivateHalf, Roots};
use crate::format::{FormatError, OpenError, SlotNo, VolumeParameters};
use crate::meta::log::Head;
use crate::store::StoreError;

pub use init::{Initialized, add_recipient, change_password, init_volume};
pub use rotate::{Prepared, complete, is_incomplete, prepare};
pub use state::{Identity, Pin, StateFolder};
pub use unlock::{KeyObjects, Opened, Secret, Trust, open_keyring};

/// What an unlocked volume on this device is worked with.
pub struct Keyring {
    pub roots: Roots,
    pub state_key: Key,
    pub parameters: VolumeParameters,
    /// The slot that let this device in, and what opens it in the next epochs.
    pub slot: SlotNo,
    pub private: PrivateHalf,
    /// The record before the epoch of that slot.
    pub anchor: Option<Head>,
}

impl Keyring {
    pub fn volume(&self) -> VolumeId {
        self.roots.volume()
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("there is no volume under this address; `hushfs init` makes one")]
    NoVolume,
    #[error("there is a volume under this address already; nothing was changed")]
    VolumeExists,
    #[error("wrong password or recovery words")]
    WrongSecret,
    #[error("the volume has no key slot for this kind of secret")]
    NoSlot,
    #[error("the volume has no room for another key slot: it has 64; remove one with hushfs key rm")]
    NoFreeSlot,
    #[error("the volume has 16 passwords, and more would never be tried; remove one with hushfs key rm")]
    NoFreePassword,
    #[error(
        "this address holds another volume ({found}) than the one this device knows ({pinned}); if that is meant, use \
         another state folder"
    )]
    OtherVolume { pinned: VolumeId, found: VolumeId },
    #[error("this volume's root key is not the one this device knows: somebody replaced the key slots")]
    OtherRoot,
    #[error("the store shows the keys of epoch {found}, but this device has seen epoch {pinned}: it went back")]
    OlderEpoch { pinned: Epoch, found: Epoch },
    #[error("the link from epoch {0} to the one before it is missing")]
    BrokenChain(Epoch),
    #[error("the key slot of this device was removed: epoch {0} of the volume has none for it")]
    SlotRemoved(Epoch),
    #[error("another device is rotating the volume's keys just now; try again")]
    RotatedMeanwhile,
    #[error(
        "the volume's keys are being rotated, or a rotation was interrupted; try again, and if it stays so, \
         `hushfs key rotate` brings it to its end"
    )]
    Rotating,
    #[error("there is no key slot {0}; `hushfs key ls` shows them")]
    NoSuchSlot(SlotNo),
    #[error("key slot {0} is the one that you unlocked with; use another to remove it")]
    OwnSlot(SlotNo),
    #[error("the last key slot stays, or nobody could open the volume")]
    LastSlot,
    #[error("the volume has had as many epochs as it can")]
    NoFreeEpoch,
    #[error(
        "an identity proves nothing about who made a volume: give its fingerprint, as `hushfs key add` or `hushfs key \
         ls` prints it on a machine that has it, by --fingerprint, or take what is there by --trust-first"
    )]
    FingerprintNeeded,
    #[error("the volume there has the fingerprint {found}, not {told}")]
    OtherFingerprint { told: String, found: String },
    #[error(
        "unlocking needs {need_mib} MiB of memory, more than the {allowed_mib} MiB that are allowed for it; allow more \
         if you trust this volume"
    )]
    TooMuchMemory { need_mib: u64, allowed_mib: u64 },
    #[error(transparent)]
    Kdf(#[from] KdfError),
    #[error("the volume object is damaged or of another format: {0}")]
    Volume(#[source] FormatError),
    #[error("a key object is damaged or forged: {0}")]
    Slot(#[source] OpenError),
    #[error("the state folder {} is in use: this volume is mounted from it already, or was and is still closing; see `hushfs status`", dir.display())]
    Busy { dir: PathBuf },
    #[error("{} is damaged; without it this device cannot tell an old store from the current one", path.display())]
    DamagedState { path: PathBuf },
    #[error("{}: {source}", path.display())]
    State { path: PathBuf, source: Arc<io::Error> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the derivation was interrupted")]
    Interrupted,
}

impl KeyringError {
    fn state(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::State { path: path.into(), source: Arc::new(source) }
    }
}
