//! A checkpoint: which segments hold all rows at one head.

use super::codec::{FormatError, Reader, Writer};
use super::compress::{compress, decompress};
use super::envelope::{Envelope, OpenError};
use super::segment::SegmentMeta;
use crate::base::{Entropy, Epoch, Hash, Incarnation, IntentNo, Seq};
use crate::crypto::{CryptoError, Kind, Roots};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose root seals it. Its segments may be older.
    pub epoch: Epoch,
    /// All rows as they are after this record.
    pub seq: Seq,
    /// That record's hash.
    pub head: Hash,
    /// Ascending and disjoint by key range; together all rows.
    pub segments: Vec<SegmentMeta>,
    /// Ascending by incarnation.
    pub high_water: Vec<HighWater>,
    /// Hashes of earlier heads, ascending: who jumps over a trimmed log finds its own among them.
    pub past: Vec<(Seq, Hash)>,
}

/// The last intent of an incarnation that the log covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighWater {
    pub incarnation: Incarnation,
    pub intent: IntentNo,
    pub hash: Hash,
}

const ENVELOPE: Envelope = Envelope { what: "manifest", magic: b"hushckp1", kind: Kind::Manifest };

impl Manifest {
    pub fn seal(&self, roots: &Roots, entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError> {
        ENVELOPE.seal(roots, self.epoch, self.seq.0, compress(&self.encode()), entropy)
    }

    /// `seq` is the one in the object's name.
    pub fn open(seq: Seq, object: &[u8], roots: &Roots) -> Result<Self, OpenError> {
        let (epoch, body) = ENVELOPE.open(roots, seq.0, object)?;
        Ok(Self::decode(epoch, seq, &decompress(ENVELOPE.what, &body)?)?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(&self.head.0).varint(self.segments.len() as u64);
        self.segments.iter().for_each(|segment| segment.encode(&mut out));
        out.varint(self.high_water.len() as u64);
        for entry in &self.high_water {
            out.raw(&entry.incarnation.0).varint(entry.intent.0).raw(&entry.hash.0);
        }
        out.varint(self.past.len() as u64);
        for (seq, hash) in &self.past {
            out.varint(seq.0).raw(&hash.0);
        }
        out.finish()
    }

    fn decode(epoch: Epoch, seq: Seq, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(ENVELOPE.what, bytes);
        let head = Hash(reader.array()?);
        let count = reader.count()?;
        let segments = (0..count).map(|_| SegmentMeta::decode(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count()?;
        let high_water = (0..count).map(|_| HighWater::decode(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count()?;
        let past =
            (0..count).map(|_| Ok((Seq(reader.varint()?), Hash(reader.array()?)))).collect::<Result<Vec<_>, _>>()?;
        if !segments.is_sorted_by(|a, b| a.last < b.first) {
            return Err(reader.error("segments out of order"));
        }
        if !high_water.is_sorted_by(|a, b| a.incarnation < b.incarnation) {
            return Err(reader.error("incarnations out of order"));
        }
        if !past.is_sorted_by(|a, b| a.0 < b.0) || past.last().is_some_and(|last| last.0 >= seq) {
            return Err(reader.error("past heads out of order"));
        }
        reader.finish()?;
        Ok(Self { epoch, seq, head, segments, high_water, past })
    }
}

impl HighWater {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let incarnation = Incarnation(reader.array()?);
        Ok(Self { incarnation, intent: IntentNo(reader.varint()?), hash: Hash(reader.array()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::roots;
    use super::*;
    use crate::base::{SegmentId, SystemEntropy};
    use proptest::prelude::*;

    fn segment(first: u8, last: u8) -> SegmentMeta {
        let (first, last) = (vec![first], vec![last]);
        SegmentMeta { id: SegmentId([1; 16]), first, last, rows: 4, len: 4096, hash: Hash([2; 32]) }
    }

    fn high_water(incarnation: u8) -> HighWater {
        HighWater { incarnation: Incarnation([incarnation; 16]), intent: IntentNo(9), hash: Hash([3; 32]) }
    }

    fn manifest() -> Manifest {
        Manifest {
            epoch: Epoch(1),
            seq: Seq(50),
            head: Hash([7; 32]),
            segments: vec![segment(1, 3), segment(4, 4), segment(6, 9)],
            high_water: vec![high_water(1), high_water(2)],
            past: vec![(Seq(10), Hash([8; 32])), (Seq(49), Hash([9; 32]))],
        }
    }

    fn reopened(manifest: &Manifest) -> Result<Manifest, OpenError> {
        Manifest::open(manifest.seq, &manifest.seal(&roots(), &SystemEntropy).unwrap(), &roots())
    }

    fn refused(change: impl FnOnce(&mut Manifest)) -> &'static str {
        let mut manifest = manifest();
        change(&mut manifest);
        let refused = reopened(&manifest).unwrap_err();
        assert!(!refused.is_authentication());
        match refused {
            OpenError::Format(error) => error.why,
            OpenError::Crypto { .. } => panic!("{refused}"),
        }
    }

    proptest! {
        #[test]
        fn manifests_round_trip(count in 0u8..60, past in proptest::collection::btree_map(0u64..1000, any::<[u8; 32]>(), 0..40)) {
            let segments = (0..count).map(|i| segment(4 * i, 4 * i + i % 4)).collect();
            let past = past.into_iter().map(|(seq, hash)| (Seq(seq), Hash(hash))).collect();
            let manifest = Manifest { segments, past, seq: Seq(1000), ..manifest() };
            prop_assert_eq!(reopened(&manifest).unwrap(), manifest);
        }

        #[test]
        fn a_damaged_body_decodes_or_fails(at: prop::sample::Index, byte: u8) {
            let mut body = manifest().encode();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = Manifest::decode(Epoch(0), Seq(50), &body);
            prop_assert!(Manifest::decode(Epoch(0), Seq(50), &body[..at]).is_err());
        }
    }

    #[test]
    fn a_manifest_does_not_open_under_another_number() {
        let object = manifest().seal(&roots(), &SystemEntropy).unwrap();
        assert!(Manifest::open(Seq(51), &object, &roots()).unwrap_err().is_authentication());
    }

    #[test]
    fn disorder_and_overlap_are_refused() {
        assert_eq!(refused(|m| m.segments.swap(0, 1)), "segments out of order");
        assert_eq!(refused(|m| m.segments[1].first = vec![3]), "segments out of order");
        assert_eq!(refused(|m| m.segments[0].first = vec![4]), "a segment without rows");
        assert_eq!(refused(|m| m.segments[0].rows = 0), "a segment without rows");
        assert_eq!(refused(|m| m.high_water.swap(0, 1)), "incarnations out of order");
        assert_eq!(refused(|m| m.high_water[1] = m.high_water[0]), "incarnations out of order");
        assert_eq!(refused(|m| m.past.swap(0, 1)), "past heads out of order");
        assert_eq!(refused(|m| m.past[1].0 = m.past[0].0), "past heads out of order");
        assert_eq!(refused(|m| m.past[1].0 = Seq(50)), "past heads out of order");
    }
}
