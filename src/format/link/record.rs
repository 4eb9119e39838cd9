//! A link's record as anyone may check it, without a key: who published it, which version it is, until when it holds,
//! and whether it was taken back.

use super::LinkError;
use crate::base::{LinkId, MIB, Timestamp};
use crate::crypto::{EXCHANGE_OVERHEAD, KEY_LEN, PUBLIC_KEY_LEN, SEAL_OVERHEAD, SIGNATURE_LEN, Signer, VerifyingKey};
use crate::format::codec::{FormatError, Reader, Writer};

pub(super) const WHAT: &str = "link record";
const MAGIC: &[u8; 8] = b"hushlnk1";
const SIGNED_AS: &[u8] = b"hushfs/v1/link-record\0";
const FLAG_RECIPIENT: u8 = 1;
const HEAD_LEN: usize = 8 + 1 + 1 + PUBLIC_KEY_LEN + 8 + 8;
/// The ephemeral public half and the sealed secret.
pub(super) const RECIPIENT_LEN: usize = KEY_LEN + EXCHANGE_OVERHEAD;
pub const RECORD_LEN_MAX: u64 = MIB;

const _: () = assert!(HEAD_LEN == 58 && RECIPIENT_LEN == 145);

/// One whose signature was verified, for the link and the number that its name says.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRecord {
    link: LinkId,
    number: u64,
    expiry: u64,
    is_tombstone: bool,
    is_for_recipient: bool,
    /// The whole object.
    bytes: Vec<u8>,
}

/// What a record means at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Current,
    Expired,
    Revoked,
}

impl SignedRecord {
    /// `link` and `number` are those of the object's name.
    pub fn verify(link: LinkId, number: u64, bytes: Vec<u8>) -> Result<Self, LinkError> {
        if bytes.len() as u64 > RECORD_LEN_MAX {
            return Err(error("over 1 MiB").into());
        }
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or_else(|| error("cut short"))?;
        let mut reader = Reader::new(WHAT, signed);
        if &reader.array()? != MAGIC {
            return Err(error("another kind of object, or a newer format").into());
        }
        let (kind, flags, public) = (reader.u8()?, reader.u8()?, VerifyingKey(reader.array()?));
        let (said, expiry) = (reader.u64()?, reader.u64()?);
        // What the signature vouches for counts, so it comes before any judgement of what is signed.
        if public.link_id() != link || public.verify(&[SIGNED_AS, signed], signature).is_err() || said != number {
            return Err(LinkError::NotTheOwners);
        }
        let (is_tombstone, is_for_recipient) = match (kind, flags) {
            (0, 0) => (false, false),
            (0, FLAG_RECIPIENT) => (false, true),
            (1, 0) => (true, false),
            _ => return Err(error("a kind or flag that is not known").into()),
        };
        let rest = reader.remaining();
        let least = if is_for_recipient { RECIPIENT_LEN + SEAL_OVERHEAD } else { SEAL_OVERHEAD };
        match is_tombstone {
            true if rest > 0 || expiry != 0 => Err(error("a tombstone that holds something").into()),
            false if rest < least => Err(error("cut short").into()),
            _ if number == 0 => Err(error("a number of 0").into()),
            _ => Ok(Self { link, number, expiry, is_tombstone, is_for_recipient, bytes }),
        }
    }

    /// Where no name says which number it should have.
    pub fn verify_any(link: LinkId, bytes: Vec<u8>) -> Result<Self, LinkError> {
        let number = bytes.get(42..50).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        Self::verify(link, number, bytes)
    }

    pub fn link(&self) -> LinkId {
        self.link
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// None: never.
    pub fn expiry(&self) -> Option<Timestamp> {
        (self.expiry != 0).then(|| Timestamp::new(i64::try_from(self.expiry).unwrap_or(i64::MAX), 0))
    }

    pub fn status(&self, now: Timestamp) -> Status {
        match self.expiry() {
            _ if self.is_tombstone => Status::Revoked,
            Some(expiry) if now >= expiry => Status::Expired,
            _ => Status::Current,
        }
    }

    pub fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }

    pub fn is_for_recipient(&self) -> bool {
        self.is_for_recipient
    }

    /// The object.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What stands before the sealed body, all of which is bound to it.
    pub(super) fn head(&self) -> &[u8] {
        &self.bytes[..head_len(self.is_for_recipient)]
    }

    pub(super) fn recipient_part(&self) -> Option<&[u8]> {
        self.is_for_recipient.then(|| &self.bytes[HEAD_LEN..HEAD_LEN + RECIPIENT_LEN])
    }

    pub(super) fn sealed(&self) -> &[u8] {
        &self.bytes[head_len(self.is_for_recipient)..self.bytes.len() - SIGNATURE_LEN]
    }
}

impl std::fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedRecord({}, {} bytes)", self.number, self.bytes.len())
    }
}

/// The object that takes a link back.
pub fn tombstone(signer: &Signer, number: u64) -> Vec<u8> {
    let mut head = head(signer, 1, 0, number, 0);
    let signature = signer.sign(&[SIGNED_AS, &head]);
    head.extend_from_slice(&signature);
    head
}

/// What stands before the sealed body. `recipient` is the secret, sealed.
pub(super) fn record_head(signer: &Signer, number: u64, expiry: u64, recipient: Option<&[u8]>) -> Vec<u8> {
    let mut head = head(signer, 0, if recipient.is_some() { FLAG_RECIPIENT } else { 0 }, number, expiry);
    head.extend_from_slice(recipient.unwrap_or_default());
    head
}

/// Ends an object whose body was sealed.
pub(super) fn signed(signer: &Signer, mut object: Vec<u8>) -> Vec<u8> {
    let signature = signer.sign(&[SIGNED_AS, &object]);
    object.extend_from_slice(&signature);
    object
}

fn head(signer: &Signer, kind: u8, flags: u8, number: u64, expiry: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.raw(MAGIC).u8(kind).u8(flags).raw(&signer.verifying_key().0).u64(number).u64(expiry);
    out.finish()
}

pub(super) const fn head_len(is_for_recipient: bool) -> usize {
    if is_for_recipient { HEAD_LEN + RECIPIENT_LEN } else { HEAD_LEN }
}

fn error(why: &'static str) -> FormatError {
    FormatError { what: WHAT, why }
}
