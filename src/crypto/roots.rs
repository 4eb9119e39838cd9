//! The root keys of a volume, one for each epoch, and what they wrap directly.
//!
//! Invariants: a root is never replaced by another; the current epoch, under whose root new things are sealed, is one
//! whose root is known, and never goes back.

use super::{Context, CryptoError, Key, Kind, open, seal};
use crate::base::{Entropy, Epoch, Hash, KeyNo, VolumeId};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Clones share: what one learns, all know, so that a rotation reaches everything that seals.
#[derive(Clone, Debug)]
pub struct Roots {
    volume: VolumeId,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug)]
struct Known {
    current: Epoch,
    keys: BTreeMap<Epoch, Arc<Key>>,
}

impl Roots {
    /// With one epoch, which is the current one.
    pub fn new(volume: VolumeId, epoch: Epoch, root: Key) -> Self {
        let known = Known { current: epoch, keys: BTreeMap::from([(epoch, Arc::new(root))]) };
        Self { volume, known: Arc::new(RwLock::new(known)) }
    }

    /// Does nothing about an epoch whose root is known; false if it is known to be another.
    #[must_use = "an epoch has one root"]
    pub fn insert(&self, epoch: Epoch, root: Key) -> bool {
        let mut known = self.known.write();
        let entry = known.keys.entry(epoch).or_insert_with(|| Arc::new(root.duplicate()));
        **entry == root
    }

    /// New things are sealed under this epoch's root from now on.
    pub fn advance(&self, epoch: Epoch) -> Result<(), CryptoError> {
        let mut known = self.known.write();
        if !known.keys.contains_key(&epoch) {
            return Err(CryptoError::UnknownEpoch(epoch));
        }
        known.current = known.current.max(epoch);
        Ok(())
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The current one.
    pub fn epoch(&self) -> Epoch {
        self.known.read().current
    }

    /// The current epoch and its root.
    pub fn current(&self) -> (Epoch, Arc<Key>) {
        let known = self.known.read();
        (known.current, known.keys[&known.current].clone())
    }

    pub fn root(&self, epoch: Epoch) -> Result<Arc<Key>, CryptoError> {
        self.known.read().keys.get(&epoch).cloned().ok_or(CryptoError::UnknownEpoch(epoch))
    }

    /// Ascending.
    pub fn epochs(&self) -> Vec<Epoch> {
        self.known.read().keys.keys().copied().collect()
    }

    /// For a `K` row: the current epoch, and the file key sealed under its root.
    pub fn wrap_file_key(&self, number: KeyNo, file_key: &Key, entropy: &dyn Entropy) -> (Epoch, Vec<u8>) {
        self.wrap(Kind::FileKey, &number.0.to_le_bytes(), file_key, entropy)
    }

    pub fn unwrap_file_key(&self, epoch: Epoch, number: KeyNo, wrapped: &[u8]) -> Result<Key, CryptoError> {
        self.unwrap(epoch, Kind::FileKey, &number.0.to_le_bytes(), wrapped)
    }

    /// The same file key under another number, and the root that it was under: who knew it still does.
    pub fn renumber_file_key(
        &self,
        epoch: Epoch,
        old: KeyNo,
        new: KeyNo,
        wrapped: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, CryptoError> {
        let file_key = self.unwrap_file_key(epoch, old, wrapped)?;
        Ok(self.wrap_under(epoch, &*self.root(epoch)?, Kind::FileKey, &new.0.to_le_bytes(), &file_key, entropy))
    }

    /// Of a state folder.
    pub fn wrap_state_key(&self, state_key: &Key, entropy: &dyn Entropy) -> (Epoch, Vec<u8>) {
        self.wrap(Kind::StateKey, b"", state_key, entropy)
    }

    pub fn unwrap_state_key(&self, epoch: Epoch, wrapped: &[u8]) -> Result<Key, CryptoError> {
        self.unwrap(epoch, Kind::StateKey, b"", wrapped)
    }

    /// Says which root an epoch has without saying the root: for pinning, and for a rotation to commit to.
    pub fn commitment(&self, epoch: Epoch) -> Result<Hash, CryptoError> {
        let mut out = Hash::ZERO;
        let info: [&[u8]; 3] = [b"hushfs/v1/root-commitment", &self.volume.0, &epoch.0.to_le_bytes()];
        super::seal::hkdf(self.root(epoch)?.expose(), b"", &info, &mut out.0);
        Ok(out)
    }

    fn wrap(&self, kind: Kind, id: &[u8], key: &Key, entropy: &dyn Entropy) -> (Epoch, Vec<u8>) {
        let (epoch, root) = self.current();
        (epoch, self.wrap_under(epoch, &root, kind, id, key, entropy))
    }

    fn wrap_under(&self, epoch: Epoch, root: &Key, kind: Kind, id: &[u8], key: &Key, entropy: &dyn Entropy) -> Vec<u8> {
        let context = Context { volume: self.volume, kind, id: &[&epoch.0.to_le_bytes(), id] };
        seal(root, &context, key.expose(), entropy)
    }

    fn unwrap(&self, epoch: Epoch, kind: Kind, id: &[u8], wrapped: &[u8]) -> Result<Key, CryptoError> {
        let context = Context { volume: self.volume, kind, id: &[&epoch.0.to_le_bytes(), id] };
        let bytes = Zeroizing::new(open(&*self.root(epoch)?, &context, wrapped)?);
        Key::try_from_slice(&bytes).ok_or(CryptoError::Authentication)
    }
}
