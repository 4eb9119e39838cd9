//! Sealing to a public half: X25519 with an ephemeral key, then SEAL under what both derive.
//!
//! Whoever knows a public half can seal to it, so public halves are kept from the store (`format::slot`).

use super::seal::hkdf;
use super::{Context, CryptoError, KEY_LEN, Key, SEAL_OVERHEAD, open, seal};
use crate::base::Entropy;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

/// The ephemeral public half and the SEAL's own.
pub const EXCHANGE_OVERHEAD: usize = 32 + SEAL_OVERHEAD;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicHalf(pub [u8; 32]);

impl std::fmt::Debug for PublicHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicHalf(..)")
    }
}

impl PublicHalf {
    /// Not one of the few with which every exchange gives the same, known key.
    pub fn is_usable(&self) -> bool {
        raw_exchange(&PrivateHalf::from_key(Key::filled(|key| key.fill(1))), self).was_contributory()
    }
}

/// Wiped when dropped, never printed: it is a `Key` that is used in one way.
#[derive(Debug)]
pub struct PrivateHalf(Key);

impl PrivateHalf {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(Key::generate(entropy))
    }

    pub fn from_key(key: Key) -> Self {
        Self(key)
    }

    pub fn expose(&self) -> &[u8; KEY_LEN] {
        self.0.expose()
    }

    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    pub fn public(&self) -> PublicHalf {
        PublicHalf(PublicKey::from(&self.secret()).to_bytes())
    }

    fn secret(&self) -> StaticSecret {
        StaticSecret::from(*self.0.expose())
    }
}

/// The ephemeral public half, then SEAL.
pub fn seal_to(public: &PublicHalf, context: &Context<'_>, plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let ephemeral = PrivateHalf::generate(entropy);
    let from = ephemeral.public();
    // With a public half of low order the key is guessable by whoever made that half, and by nobody else
    // less than with any other of theirs: opening refuses such an ephemeral, sealing need not.
    let key = shared_key(&ephemeral, public, &from, public).0;
    let mut out = from.0.to_vec();
    out.extend_from_slice(&seal(&key, context, plain, entropy));
    out
}

pub fn open_from(private: &PrivateHalf, context: &Context<'_>, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let (from, sealed) = sealed.split_first_chunk::<32>().ok_or(CryptoError::Authentication)?;
    let from = PublicHalf(*from);
    let (key, contributory) = shared_key(private, &from, &from, &private.public());
    if !contributory {
        return Err(CryptoError::Authentication);
    }
    open(&key, context, sealed)
}

/// The key, and whether the other half was one of full order.
fn shared_key(own: &PrivateHalf, other: &PublicHalf, from: &PublicHalf, to: &PublicHalf) -> (Key, bool) {
    let shared = raw_exchange(own, other);
    let info: [&[u8]; 3] = [b"hushfs/v1/exchange", &from.0, &to.0];
    let key = Key::filled(|out| hkdf(shared.as_bytes(), b"", &info, out));
    (key, shared.was_contributory())
}

/// X25519, of which nothing is used before it went through a derivation.
pub(super) fn raw_exchange(own: &PrivateHalf, other: &PublicHalf) -> SharedSecret {
    own.secret().diffie_hellman(&PublicKey::from(other.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SystemEntropy, VolumeId};
    use crate::crypto::Kind;

    const CONTEXT: Context<'static> = Context { volume: VolumeId([3; 16]), kind: Kind::SlotRoot, id: &[b"1"] };

    #[test]
    fn only_the_private_half_opens_what_was_sealed_to_its_public_half() {
        let (own, other) = (PrivateHalf::generate(&SystemEntropy), PrivateHalf::generate(&SystemEntropy));
        let sealed = seal_to(&own.public(), &CONTEXT, b"root", &SystemEntropy);
        assert_eq!(sealed.len(), 4 + EXCHANGE_OVERHEAD);
        assert_eq!(open_from(&own, &CONTEXT, &sealed).unwrap(), b"root");
        assert_eq!(open_from(&other, &CONTEXT, &sealed), Err(CryptoError::Authentication));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let own = PrivateHalf::generate(&SystemEntropy);
        let mut sealed = seal_to(&own.public(), &CONTEXT, b"root", &SystemEntropy);
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_from(&own, &CONTEXT, &sealed), Err(CryptoError::Authentication), "bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn an_ephemeral_half_of_low_order_is_refused_though_its_key_is_right() {
        let own = PrivateHalf::generate(&SystemEntropy);
        let zero = PublicHalf([0; 32]);
        let (key, contributory) = shared_key(&own, &zero, &zero, &own.public());
        assert!(!contributory);
        let mut sealed = zero.0.to_vec();
        sealed.extend_from_slice(&seal(&key, &CONTEXT, b"forged", &SystemEntropy));
        assert_eq!(open_from(&own, &CONTEXT, &sealed), Err(CryptoError::Authentication));
    }
}
