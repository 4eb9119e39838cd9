//! Ed25519, for what somebody may read and only its owner may write: a link's records.

use super::{CryptoError, Key, sha256};
use crate::base::LinkId;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};

pub const PUBLIC_KEY_LEN: usize = 32;
pub const SIGNATURE_LEN: usize = 64;

/// Holds the private half, made from a seed that is kept elsewhere.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    pub fn from_seed(seed: &Key) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are a seed"))
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.public_key().as_ref().try_into().expect("Ed25519's public keys are 32 bytes"))
    }

    /// Of the parts, one behind the other. The same message gives the same signature.
    pub fn sign(&self, message: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&message.concat()).as_ref().try_into().expect("Ed25519's signatures are 64 bytes")
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(pub [u8; PUBLIC_KEY_LEN]);

impl VerifyingKey {
    /// A key has one id, and nobody can make another key for it.
    pub fn link_id(&self) -> LinkId {
        let mut id = LinkId([0; 16]);
        id.0.copy_from_slice(&sha256(&self.0)[..16]);
        id
    }

    pub fn verify(&self, message: &[&[u8]], signature: &[u8; SIGNATURE_LEN]) -> Result<(), CryptoError> {
        let key = ParsedPublicKey::new(&ED25519, self.0).map_err(|_| CryptoError::Authentication)?;
        key.verify_sig(&message.concat(), signature).map_err(|_| CryptoError::Authentication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let hex = |text: &str| {
            let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digits).collect::<Vec<_>>()
        };
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let signer = Signer::from_seed(&Key::try_from_slice(&seed).unwrap());
        let public = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert_eq!(signer.verifying_key().0[..], public);
        let signature = hex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        assert_eq!(signer.sign(&[&[0x72]])[..], signature);
    }

    #[test]
    fn only_the_signer_signs_and_only_what_it_signed() {
        let (own, other) = (Signer::from_seed(&Key::from_bytes([1; 32])), Signer::from_seed(&Key::from_bytes([2; 32])));
        let mut signature = own.sign(&[b"mess", b"age"]);
        assert_eq!(own.verifying_key().verify(&[b"message"], &signature), Ok(()));
        assert!(other.verifying_key().verify(&[b"message"], &signature).is_err());
        assert!(own.verifying_key().verify(&[b"massage"], &signature).is_err());
        for bit in 0..SIGNATURE_LEN * 8 {
            signature[bit / 8] ^= 1 << (bit % 8);
            assert!(own.verifying_key().verify(&[b"message"], &signature).is_err(), "bit {bit}");
            signature[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(VerifyingKey([0xff; 32]).verify(&[b"message"], &signature).is_err());
        assert_ne!(own.verifying_key().link_id(), other.verifying_key().link_id());
    }
}
