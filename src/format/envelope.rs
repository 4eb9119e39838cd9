//! What records, floors and manifests have in common: a magic number, the epoch in clear so that the root
//! can be chosen, and one SEAL of the padded body.

use super::codec::FormatError;
use super::padding;
use crate::base::{Entropy, Epoch, Hash};
use crate::crypto::{self, Context, CryptoError, Kind, Roots, SEAL_OVERHEAD};

/// An object that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Changed, in another's place, or sealed by somebody without the key.
    #[error("{what}: {source}")]
    Crypto { what: &'static str, source: CryptoError },
    /// Before authentication: another kind of thing. After it: its writer was broken, or is newer than we are.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl OpenError {
    pub fn is_authentication(&self) -> bool {
        matches!(self, Self::Crypto { source: CryptoError::Authentication, .. })
    }

    pub(super) fn crypto(what: &'static str) -> impl Fn(CryptoError) -> Self {
        move |source| Self::Crypto { what, source }
    }
}

pub(super) const MAGIC_LEN: usize = 8;
pub(super) const HEADER_LEN: usize = MAGIC_LEN + 4;

/// What a record names as its predecessor, and a manifest as its segments.
pub fn object_hash(bytes: &[u8]) -> Hash {
    Hash(crypto::blake3(bytes))
}

/// The epoch that a record, floor, manifest or segment says it was sealed in, for finding its root. Nothing
/// vouches for it until the object has been opened.
pub fn epoch_of(object: &[u8]) -> Option<Epoch> {
    let epoch = object.get(MAGIC_LEN..HEADER_LEN)?;
    Some(Epoch(u32::from_le_bytes(epoch.try_into().ok()?)))
}

pub(super) fn header(magic: &[u8; MAGIC_LEN], epoch: Epoch) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..MAGIC_LEN].copy_from_slice(magic);
    header[MAGIC_LEN..].copy_from_slice(&epoch.0.to_le_bytes());
    header
}

/// The epoch and what follows the header.
pub(super) fn split_header<'a>(
    what: &'static str,
    magic: &[u8; MAGIC_LEN],
    object: &'a [u8],
) -> Result<(Epoch, &'a [u8]), FormatError> {
    let epoch = epoch_of(object).ok_or(FormatError { what, why: "cut short" })?;
    if object[..MAGIC_LEN] != magic[..] {
        return Err(FormatError { what, why: "another kind of object, or a newer format" });
    }
    Ok((epoch, &object[HEADER_LEN..]))
}

/// One kind of such object.
pub(super) struct Envelope {
    pub what: &'static str,
    pub magic: &'static [u8; MAGIC_LEN],
    pub kind: Kind,
}

const AROUND: usize = HEADER_LEN + SEAL_OVERHEAD;

impl Envelope {
    /// `number` is the one in the object's name.
    pub fn seal(
        &self,
        roots: &Roots,
        epoch: Epoch,
        number: u64,
        mut body: Vec<u8>,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, CryptoError> {
        let root = roots.root(epoch)?;
        padding::pad(&mut body, AROUND);
        let context =
            Context { volume: roots.volume(), kind: self.kind, id: &[&epoch.0.to_le_bytes(), &number.to_le_bytes()] };
        let mut out = Vec::with_capacity(AROUND + body.len());
        out.extend_from_slice(&header(self.magic, epoch));
        crypto::seal_bulk_onto(&mut out, &root, &context, &body, entropy);
        Ok(out)
    }

    /// The epoch and the body.
    pub fn open(&self, roots: &Roots, number: u64, object: &[u8]) -> Result<(Epoch, Vec<u8>), OpenError> {
        let (epoch, sealed) = split_header(self.what, self.magic, object)?;
        let context =
            Context { volume: roots.volume(), kind: self.kind, id: &[&epoch.0.to_le_bytes(), &number.to_le_bytes()] };
        let opened = roots.root(epoch).and_then(|root| crypto::open_bulk(&root, &context, sealed));
        let mut body = opened.map_err(OpenError::crypto(self.what))?;
        let len = padding::unpad(self.what, &body, AROUND)?.len();
        body.truncate(len);
        Ok((epoch, body))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{VOLUME, key, of_epoch_0, roots, roots_of_another_volume};
    use super::*;
    use crate::base::SystemEntropy;

    const ENVELOPE: Envelope = Envelope { what: "test", magic: b"hushtst1", kind: Kind::Record };

    fn object() -> Vec<u8> {
        ENVELOPE.seal(&roots(), Epoch(1), 7, b"body".to_vec(), &SystemEntropy).unwrap()
    }

    fn authentication(result: Result<(Epoch, Vec<u8>), OpenError>) -> bool {
        result.unwrap_err().is_authentication()
    }

    #[test]
    fn an_object_opens_in_its_place_and_has_a_padded_length() {
        let object = object();
        assert_eq!(object.len() as u64, padding::PADDED_LEN_MIN);
        assert_eq!(epoch_of(&object), Some(Epoch(1)));
        assert_eq!(ENVELOPE.open(&roots(), 7, &object).unwrap(), (Epoch(1), b"body".to_vec()));
    }

    #[test]
    fn an_object_does_not_open_under_another_number() {
        assert!(authentication(ENVELOPE.open(&roots(), 8, &object())));
    }

    #[test]
    fn an_object_does_not_open_in_another_epoch() {
        assert!(authentication(ENVELOPE.open(&roots(), 7, &of_epoch_0(&object()))));
    }

    #[test]
    fn an_object_does_not_open_in_another_volume() {
        assert!(authentication(ENVELOPE.open(&roots_of_another_volume(), 7, &object())));
    }

    #[test]
    fn an_object_does_not_open_as_another_kind_though_its_magic_is_right() {
        let other = Envelope { kind: Kind::Floor, ..ENVELOPE };
        assert!(authentication(other.open(&roots(), 7, &object())));
    }

    #[test]
    fn another_magic_an_unknown_epoch_and_a_stump_are_told_apart() {
        let mut object = object();
        let only_epoch_0 = Roots::new(VOLUME, Epoch(0), key(1));
        let source = CryptoError::UnknownEpoch(Epoch(1));
        assert_eq!(ENVELOPE.open(&only_epoch_0, 7, &object), Err(OpenError::Crypto { what: "test", source }));
        assert!(matches!(ENVELOPE.open(&roots(), 7, &object[..11]), Err(OpenError::Format(_))));
        assert!(authentication(ENVELOPE.open(&roots(), 7, &object[..12])));
        object[7] = b'2';
        assert!(matches!(ENVELOPE.open(&roots(), 7, &object), Err(OpenError::Format(_))));
    }

    #[test]
    fn a_flip_in_any_byte_is_found() {
        let mut object = object();
        for at in 0..object.len() {
            object[at] ^= 0x10;
            assert!(ENVELOPE.open(&roots(), 7, &object).is_err(), "byte {at}");
            object[at] ^= 0x10;
        }
    }
}
