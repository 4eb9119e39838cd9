//! A way to unlock a volume. The password's or the recovery words' key opens the private half of an X25519
//! pair, and the private half opens the epoch's root key: so a rotation, which seals the next root to each
//! public half, needs nobody's password.
//!
//! A recipient keeps the private half elsewhere, in an age identity file: then random bytes stand in its place.
//!
//! Invariant: the store never learns a public half, or it could seal a root of its own choosing to it. The
//! public half is sealed under the root, with the label. KDF parameters are checked before deriving.

use super::codec::{FormatError, Reader, Writer};
use super::envelope::OpenError;
use super::names::SlotNo;
use super::padding;
use crate::base::{Entropy, Epoch, Timestamp, VolumeId};
use crate::crypto::{
    self, Context, CryptoError, EXCHANGE_OVERHEAD, KDF_SALT_LEN, KEY_LEN, KdfError, KdfParameters, Key, Kind,
    PrivateHalf, PublicHalf, RecoveryWords, SEAL_OVERHEAD, password_key,
};
use zeroize::Zeroizing;

const WHAT: &str = "slot";
const MAGIC: &[u8; 8] = b"hushslt1";
const PRIVATE_LEN: usize = KEY_LEN + SEAL_OVERHEAD;
/// What a recipient's slot has instead: it tells the slot from others, and stays through rotations.
const MARK_LEN: usize = 16;
const ROOT_LEN: usize = KEY_LEN + EXCHANGE_OVERHEAD;
/// In bytes of UTF-8.
const LABEL_LEN_MAX: usize = 255;

/// Where a slot is: part of every context in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPlace {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub number: SlotNo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    Password { kdf: KdfParameters, salt: [u8; KDF_SALT_LEN] },
    Recovery,
    Recipient,
}

/// As it is in the store: nothing in it is opened yet.
#[derive(Clone, Debug)]
pub struct Slot {
    place: SlotPlace,
    kind: SlotKind,
    created: Timestamp,
    /// Sealed, or a recipient's mark.
    private: Vec<u8>,
    root: Vec<u8>,
    details: Vec<u8>,
}

/// What can be seen without unlocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub number: SlotNo,
    pub kind: SlotKind,
    /// Stays the same through rotations.
    pub fingerprint: String,
    pub created: Timestamp,
}

/// What the root opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDetails {
    pub public: PublicHalf,
    /// For people; at most 255 bytes.
    pub label: String,
}

#[derive(Debug)]
pub struct Unlocked {
    pub epoch: Epoch,
    pub root: Key,
    /// Opens this slot in later epochs, too.
    pub private: PrivateHalf,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// Or the slot was changed: the two cannot be told apart.
    #[error("the password or the recovery words do not open this slot")]
    WrongSecret,
    #[error("this slot is not opened by a password")]
    NotPassword,
    #[error("this slot is not opened by recovery words")]
    NotRecovery,
    #[error("this slot is not opened by an identity")]
    NotRecipient,
    /// The secret was right.
    #[error("the slot is damaged or forged: {0}")]
    Damaged(#[from] OpenError),
}

impl Slot {
    /// A new pair for `root`. Takes as long as the parameters ask.
    pub fn seal_password(
        place: SlotPlace,
        root: &Key,
        password: &[u8],
        kdf: KdfParameters,
        label: &str,
        created: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, KdfError> {
        let mut salt = [0; KDF_SALT_LEN];
        entropy.fill(&mut salt);
        let secret = password_key(password, &salt, &kdf)?;
        Ok(Self::seal_new(place, SlotKind::Password { kdf, salt }, &secret, root, label, created, entropy))
    }

    pub fn seal_recovery(
        place: SlotPlace,
        root: &Key,
        words: &RecoveryWords,
        label: &str,
        created: Timestamp,
        entropy: &dyn Entropy,
    ) -> Self {
        Self::seal_new(place, SlotKind::Recovery, words.key(), root, label, created, entropy)
    }

    /// To whoever has the private half of `public`.
    pub fn seal_recipient(
        place: SlotPlace,
        root: &Key,
        public: PublicHalf,
        label: &str,
        created: Timestamp,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut mark = vec![0; MARK_LEN];
        entropy.fill(&mut mark);
        let slot = Self { place, kind: SlotKind::Recipient, created, private: mark, root: vec![], details: vec![] };
        slot.with_root(&SlotDetails { public, label: cut_label(label).into() }, root, entropy)
    }

    pub fn unlock_password(&self, password: &[u8]) -> Result<Unlocked, UnlockError> {
        let SlotKind::Password { kdf, salt } = &self.kind else { return Err(UnlockError::NotPassword) };
        self.unlock(&password_key(password, salt, kdf)?)
    }

    pub fn unlock_recovery(&self, words: &RecoveryWords) -> Result<Unlocked, UnlockError> {
        let SlotKind::Recovery = self.kind else { return Err(UnlockError::NotRecovery) };
        self.unlock(words.key())
    }

    pub fn unlock_recipient(&self, private: PrivateHalf) -> Result<Unlocked, UnlockError> {
        let SlotKind::Recipient = self.kind else { return Err(UnlockError::NotRecipient) };
        // Whoever it was sealed to, it was not this one.
        self.unlock_with(private)
            .map_err(|error| if error.is_authentication() { UnlockError::WrongSecret } else { error.into() })
    }

    /// By the private half that a slot of an earlier epoch gave.
    pub fn unlock_with(&self, private: PrivateHalf) -> Result<Unlocked, OpenError> {
        let damaged = || OpenError::Crypto { what: WHAT, source: CryptoError::Authentication };
        let root = self
            .with_root_context(|context| crypto::open_from(&private, context, &self.root))
            .map_err(OpenError::crypto(WHAT))?;
        let root = Key::try_from_slice(&Zeroizing::new(root)).ok_or_else(damaged)?;
        let SlotDetails { public, label } = self.details(&root)?;
        if public != private.public() {
            return Err(damaged());
        }
        Ok(Unlocked { epoch: self.place.epoch, root, private, label })
    }

    pub fn info(&self) -> SlotInfo {
        let hash = crypto::blake3(&self.private);
        let fingerprint = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        SlotInfo { number: self.place.number, kind: self.kind, fingerprint, created: self.created }
    }

    pub fn place(&self) -> SlotPlace {
        self.place
    }

    /// With the root of this slot's epoch.
    pub fn details(&self, root: &Key) -> Result<SlotDetails, OpenError> {
        let body = self.with_details_context(|context| crypto::open(root, context, &self.details));
        let body = body.map_err(OpenError::crypto(WHAT))?;
        let mut reader = Reader::new(WHAT, padding::unpad(WHAT, &body, self.around(&self.head()))?);
        let public = PublicHalf(reader.array()?);
        let label = std::str::from_utf8(reader.bytes()?).map_err(|_| reader.error("a label that is not UTF-8"))?;
        if label.len() > LABEL_LEN_MAX {
            return Err(reader.error("a label over 255 bytes").into());
        }
        let details = SlotDetails { public, label: label.into() };
        reader.finish()?;
        Ok(details)
    }

    /// The same secret for the next root: what a rotation writes.
    pub fn rotate(&self, root: &Key, epoch: Epoch, next: &Key, entropy: &dyn Entropy) -> Result<Self, OpenError> {
        let details = self.details(root)?;
        let place = SlotPlace { epoch, ..self.place };
        let slot = Self { place, root: vec![], details: vec![], private: self.private.clone(), ..*self };
        Ok(slot.with_root(&details, next, entropy))
    }

    pub fn encode(&self) -> Vec<u8> {
        [self.head(), self.private.clone(), self.root.clone(), self.details.clone()].concat()
    }

    /// `place` is from the volume object and the slot's name. KDF parameters are not judged here, so that a
    /// slot that cannot be used can still be listed.
    pub fn parse(place: SlotPlace, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        if &reader.array::<8>()? != MAGIC {
            return Err(reader.error("another kind of object, or a newer format"));
        }
        let kind = match reader.u8()? {
            1 => {
                let kdf = KdfParameters { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
                SlotKind::Password { kdf, salt: reader.array()? }
            }
            2 => SlotKind::Recovery,
            3 => SlotKind::Recipient,
            _ => return Err(reader.error("a kind of slot that is not known")),
        };
        let created = reader.time()?;
        let private = reader.raw(private_len(&kind))?.to_vec();
        let root = reader.raw(ROOT_LEN)?.to_vec();
        let details = reader.raw(reader.remaining())?.to_vec();
        Ok(Self { place, kind, created, private, root, details })
    }

    fn seal_new(
        place: SlotPlace,
        kind: SlotKind,
        secret: &Key,
        root: &Key,
        label: &str,
        created: Timestamp,
        entropy: &dyn Entropy,
    ) -> Self {
        let pair = PrivateHalf::generate(entropy);
        let mut slot = Self { place, kind, created, private: vec![], root: vec![], details: vec![] };
        slot.private = slot.with_private_context(|context| crypto::seal(secret, context, pair.expose(), entropy));
        let details = SlotDetails { public: pair.public(), label: cut_label(label).into() };
        slot.with_root(&details, root, entropy)
    }

    fn with_root(mut self, details: &SlotDetails, root: &Key, entropy: &dyn Entropy) -> Self {
        self.root = self.with_root_context(|context| crypto::seal_to(&details.public, context, root.expose(), entropy));
        let mut body = Writer::new();
        body.raw(&details.public.0).bytes(details.label.as_bytes());
        let mut body = body.finish();
        padding::pad(&mut body, self.around(&self.head()));
        self.details = self.with_details_context(|context| crypto::seal(root, context, &body, entropy));
        self
    }

    fn unlock(&self, secret: &Key) -> Result<Unlocked, UnlockError> {
        let private = self
            .with_private_context(|context| crypto::open(secret, context, &self.private))
            .map_err(|_| UnlockError::WrongSecret)?;
        let damaged = || OpenError::Crypto { what: WHAT, source: CryptoError::Authentication };
        let private = Key::try_from_slice(&Zeroizing::new(private)).ok_or_else(damaged)?;
        Ok(self.unlock_with(PrivateHalf::from_key(private))?)
    }

    /// Magic, kind, parameters, time: all that is in clear, and part of every context.
    fn head(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(MAGIC);
        match &self.kind {
            SlotKind::Password { kdf, salt } => {
                out.u8(1).u32(kdf.memory_kib).u32(kdf.passes).u32(kdf.lanes).raw(salt);
            }
            SlotKind::Recovery => {
                out.u8(2);
            }
            SlotKind::Recipient => {
                out.u8(3);
            }
        }
        out.time(self.created);
        out.finish()
    }

    fn around(&self, head: &[u8]) -> usize {
        head.len() + private_len(&self.kind) + ROOT_LEN + SEAL_OVERHEAD
    }

    /// Without the epoch: a rotation takes the sealed private half along as it is.
    fn with_private_context<T>(&self, use_it: impl FnOnce(&Context<'_>) -> T) -> T {
        let (head, number) = (self.head(), self.place.number.get().to_le_bytes());
        use_it(&Context { volume: self.place.volume, kind: Kind::SlotPrivate, id: &[&number, &head] })
    }

    fn with_root_context<T>(&self, use_it: impl FnOnce(&Context<'_>) -> T) -> T {
        let (head, number) = (self.head(), self.place.number.get().to_le_bytes());
        let id: [&[u8]; 4] = [&self.place.epoch.0.to_le_bytes(), &number, &head, &self.private];
        use_it(&Context { volume: self.place.volume, kind: Kind::SlotRoot, id: &id })
    }

    fn with_details_context<T>(&self, use_it: impl FnOnce(&Context<'_>) -> T) -> T {
        let (head, number) = (self.head(), self.place.number.get().to_le_bytes());
        let id: [&[u8]; 5] = [&self.place.epoch.0.to_le_bytes(), &number, &head, &self.private, &self.root];
        use_it(&Context { volume: self.place.volume, kind: Kind::SlotDetails, id: &id })
    }
}

fn private_len(kind: &SlotKind) -> usize {
    match kind {
        SlotKind::Password { .. } | SlotKind::Recovery => PRIVATE_LEN,
        SlotKind::Recipient => MARK_LEN,
    }
}

fn cut_label(label: &str) -> &str {
    &label[..label.floor_char_boundary(LABEL_LEN_MAX)]
}

#[cfg(test)]
mod tests;
