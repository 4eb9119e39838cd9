//! "The log below `seq` is trimmed; start from this checkpoint." Floors are dense, so that the next one is
//! found by asking for it.

use super::codec::{Reader, Writer};
use super::envelope::{Envelope, OpenError};
use crate::base::{Entropy, Epoch, Hash, Seq};
use crate::crypto::{CryptoError, Kind, Roots};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub epoch: Epoch,
    /// From 1.
    pub number: u64,
    /// The first record that is kept.
    pub seq: Seq,
    pub checkpoint: Seq,
    /// Of the manifest's bytes.
    pub checkpoint_hash: Hash,
}

const ENVELOPE: Envelope = Envelope { what: "floor", magic: b"hushflr1", kind: Kind::Floor };

impl Floor {
    pub fn seal(&self, roots: &Roots, entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError> {
        let mut out = Writer::new();
        out.varint(self.seq.0).varint(self.checkpoint.0).raw(&self.checkpoint_hash.0);
        ENVELOPE.seal(roots, self.epoch, self.number, out.finish(), entropy)
    }

    /// `number` is the one in the object's name.
    pub fn open(number: u64, object: &[u8], roots: &Roots) -> Result<Self, OpenError> {
        let (epoch, body) = ENVELOPE.open(roots, number, object)?;
        let mut reader = Reader::new(ENVELOPE.what, &body);
        let (seq, checkpoint) = (Seq(reader.varint()?), Seq(reader.varint()?));
        let checkpoint_hash = Hash(reader.array()?);
        // Whoever starts from the checkpoint needs every record after it.
        if seq.0 > checkpoint.0.saturating_add(1) {
            return Err(reader.error("a gap between the checkpoint and the log").into());
        }
        reader.finish()?;
        Ok(Self { epoch, number, seq, checkpoint, checkpoint_hash })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::roots;
    use super::*;
    use crate::base::SystemEntropy;

    const FLOOR: Floor =
        Floor { epoch: Epoch(1), number: 3, seq: Seq(101), checkpoint: Seq(100), checkpoint_hash: Hash([6; 32]) };

    #[test]
    fn a_floor_opens_under_its_own_number_only() {
        let object = FLOOR.seal(&roots(), &SystemEntropy).unwrap();
        assert_eq!(Floor::open(3, &object, &roots()).unwrap(), FLOOR);
        assert!(Floor::open(4, &object, &roots()).unwrap_err().is_authentication());
    }

    #[test]
    fn a_log_that_begins_after_its_checkpoint_ended_is_refused() {
        let floor = Floor { seq: Seq(102), ..FLOOR };
        let object = floor.seal(&roots(), &SystemEntropy).unwrap();
        assert!(matches!(Floor::open(3, &object, &roots()), Err(OpenError::Format(_))));
    }
}
