//! An epoch's link to the one before it: the older root under the newer, so that who is let into an epoch reads what
//! earlier ones sealed; and the record that ended the older epoch. By that record's hash the whole log before it is
//! proven to who trusts the newer root, though somebody who was locked out still knows the older one.
//!
//! It is created only after the log has ended the older epoch, and so says that it did.

use super::codec::{FormatError, Reader, Writer};
use super::envelope::{HEADER_LEN, OpenError, header, split_header};
use super::padding;
use crate::base::{Entropy, Epoch, Hash, Seq, VolumeId};
use crate::crypto::{self, Context, CryptoError, KEY_LEN, Key, Kind, SEAL_OVERHEAD};
use zeroize::Zeroizing;

const WHAT: &str = "epoch chain";
const MAGIC: &[u8; 8] = b"hushchn1";
const AROUND: usize = HEADER_LEN + SEAL_OVERHEAD;

/// What an epoch's root opens.
#[derive(Debug, PartialEq, Eq)]
pub struct EpochLink {
    pub older: Epoch,
    pub root: Key,
    /// The record that ended the older epoch.
    pub ended_at: Seq,
    pub ended_hash: Hash,
}

impl EpochLink {
    /// For `epoch`, whose root is `root`.
    pub fn seal(&self, volume: VolumeId, epoch: Epoch, root: &Key, entropy: &dyn Entropy) -> Vec<u8> {
        let mut body = Writer::new();
        body.u32(self.older.0).raw(self.root.expose()).varint(self.ended_at.0).raw(&self.ended_hash.0);
        let mut body = Zeroizing::new(body.finish());
        padding::pad(&mut body, AROUND);
        let mut out = header(MAGIC, epoch).to_vec();
        let context = Context { volume, kind: Kind::EpochChain, id: &[&epoch.0.to_le_bytes()] };
        crypto::seal_bulk_onto(&mut out, root, &context, &body, entropy);
        out
    }

    /// `epoch` is the one in the object's name.
    pub fn open(volume: VolumeId, epoch: Epoch, root: &Key, object: &[u8]) -> Result<Self, OpenError> {
        let (found, sealed) = split_header(WHAT, MAGIC, object)?;
        if found != epoch {
            return Err(FormatError { what: WHAT, why: "of another epoch" }.into());
        }
        let context = Context { volume, kind: Kind::EpochChain, id: &[&epoch.0.to_le_bytes()] };
        let body = Zeroizing::new(crypto::open_bulk(root, &context, sealed).map_err(OpenError::crypto(WHAT))?);
        let mut reader = Reader::new(WHAT, padding::unpad(WHAT, &body, AROUND)?);
        let older = Epoch(reader.u32()?);
        if older >= epoch {
            return Err(reader.error("an older epoch that is not older").into());
        }
        let damaged = || OpenError::Crypto { what: WHAT, source: CryptoError::Authentication };
        let root = Key::try_from_slice(reader.raw(KEY_LEN)?).ok_or_else(damaged)?;
        let (ended_at, ended_hash) = (Seq(reader.varint()?), Hash(reader.array()?));
        reader.finish()?;
        Ok(Self { older, root, ended_at, ended_hash })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{VOLUME, key};
    use super::*;
    use crate::base::SystemEntropy;

    fn to(older: u32) -> EpochLink {
        EpochLink { older: Epoch(older), root: key(1), ended_at: Seq(77), ended_hash: Hash([7; 32]) }
    }

    fn object(epoch: u32, older: u32) -> Vec<u8> {
        to(older).seal(VOLUME, Epoch(epoch), &key(2), &SystemEntropy)
    }

    #[test]
    fn a_link_opens_under_its_epoch_and_root_only() {
        let object = object(5, 3);
        assert_eq!(object.len() as u64, padding::PADDED_LEN_MIN);
        assert_eq!(EpochLink::open(VOLUME, Epoch(5), &key(2), &object).unwrap(), to(3));
        assert!(EpochLink::open(VOLUME, Epoch(5), &key(1), &object).unwrap_err().is_authentication());
        assert!(EpochLink::open(VolumeId([8; 16]), Epoch(5), &key(2), &object).unwrap_err().is_authentication());
        assert!(EpochLink::open(VOLUME, Epoch(6), &key(2), &object).is_err());
        let mut renamed = object.clone();
        renamed[8] = 6;
        assert!(EpochLink::open(VOLUME, Epoch(6), &key(2), &renamed).unwrap_err().is_authentication());
    }

    #[test]
    fn a_link_that_does_not_go_back_is_refused() {
        for older in [5, 6] {
            let refused = EpochLink::open(VOLUME, Epoch(5), &key(2), &object(5, older));
            assert!(matches!(refused, Err(OpenError::Format(_))), "{older}");
        }
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let object = object(1, 0);
        for at in (0..200).chain([object.len() - 1]) {
            let mut object = object.clone();
            object[at] ^= 1;
            assert!(EpochLink::open(VOLUME, Epoch(1), &key(2), &object).is_err(), "{at}");
        }
    }
}
