//! Keys, key derivation, sealing, and the exchange that slots rest on.
//!
//! Invariants: nothing is sealed without a context, and no caller chooses a nonce or a salt; nothing
//! unverified is ever returned; a failed opening has one error, whatever failed. Keys are wiped when dropped
//! and cannot be printed. It deliberately knows no object: what is sealed, and where it goes, is `format`'s.

mod age;
#[cfg(test)]
mod attacks;
mod chunk;
mod context;
mod exchange;
mod hash;
mod kdf;
mod key;
mod link;
mod roots;
mod seal;
mod sign;
#[cfg(test)]
mod tests;
mod vault;
#[cfg(test)]
mod vectors;
mod words;

pub use age::{AgeError, parse_identities, parse_recipient};
pub use chunk::{CHUNK_HEADER_LEN, ChunkHome, ChunkOpener, ChunkSealer};
pub use context::{Context, Kind};
pub use exchange::{EXCHANGE_OVERHEAD, PrivateHalf, PublicHalf, open_from, seal_to};
pub use hash::{Blake3, blake3, chunk_id, sha256};
pub use kdf::{KDF_SALT_LEN, KdfError, KdfParameters, password_key};
pub use key::{KEY_LEN, Key};
pub use link::link_content_root;
pub use roots::Roots;
pub use seal::{SEAL_OVERHEAD, TAG_LEN, open, open_bulk, seal, seal_bulk, seal_bulk_onto};
pub use sign::{PUBLIC_KEY_LEN, SIGNATURE_LEN, Signer, VerifyingKey};
pub use words::{RecoveryWords, WordsError};

use crate::base::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Wrong key, wrong context, or changed bytes: deliberately not told apart.
    #[error("authentication failed")]
    Authentication,
    #[error("the root key of epoch {0} is not known")]
    UnknownEpoch(Epoch),
}
