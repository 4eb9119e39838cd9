//! A link: a copy of one file or folder, sealed anew under keys from the link's secret. A record says what it is and
//! where its index is, the index names every entry and chunk, packs hold the chunks.
//!
//! Invariants: whoever has the secret can read, and only who has the signing key can publish. The record is signed,
//! and every chunk that it leads to is named with the SHA-256 of its sealed bytes; so another holder of the link,
//! who has the same keys, can change nothing. Nothing here knows the volume: the link's id stands where a volume's
//! id would.

mod index;
mod pack;
mod record;
mod reference;
mod row;
mod seal;
mod url;

pub use index::{DEPTH_MAX, Entry, EntryKind, IndexDecoder, IndexEncoder, IndexItem, PIECE_LEN, Step};
pub use pack::{LINK_TRAILER_LEN, decode_link_footer, decode_link_trailer, link_footer, link_footer_len_max};
pub use record::{RECORD_LEN_MAX, SignedRecord, Status, tombstone};
pub use reference::{ChunkRef, REFERENCE_LEN_MAX, open_link_chunk, seal_link_chunk};
pub use row::{LinkRow, LinkState};
pub use seal::{Contents, Header, LinkKeys, LinkProtection, Outer, RootKind};
pub use url::{LinkUrl, LinkUrlError, parse_link_host};

use super::codec::FormatError;
use crate::crypto::{CryptoError, KdfError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Not made by the link's owner, or of another link, or another version than its name says.
    #[error("the link's record was not published by the link's owner")]
    NotTheOwners,
    #[error("the link's owner took it back")]
    Revoked,
    #[error("the link does not open: it was not copied whole, or the record is damaged")]
    WrongSecret,
    #[error("the link is for a recipient, and none of the identities is theirs")]
    NotRecipient,
    #[error("the link needs a password")]
    PasswordNeeded,
    #[error("the password is wrong")]
    WrongPassword,
    #[error(transparent)]
    Kdf(#[from] KdfError),
    #[error("the link asks for more work to derive its key than any link may")]
    KdfTooCostly,
    #[error("{what}: {source}")]
    Damaged { what: &'static str, source: CryptoError },
}

impl LinkError {
    fn damaged(what: &'static str) -> impl Fn(CryptoError) -> Self {
        move |source| Self::Damaged { what, source }
    }
}
