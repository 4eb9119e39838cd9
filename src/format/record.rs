//! One commit in the log: resolved row changes. Its hash is that of the object's bytes, and the next record
//! names it.

use super::codec::{FormatError, Reader, Writer};
use super::compress::{compress, decompress};
use super::envelope::{Envelope, OpenError};
use super::rows::{KeyBytes, RowKey, validate};
use crate::base::{DeviceSlot, Entropy, Epoch, Hash, Incarnation, IntentNo, Seq, Timestamp};
use crate::crypto::{CryptoError, Kind, Roots};

/// None deletes the row.
pub type RowChange = (KeyBytes, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose root seals it.
    pub epoch: Epoch,
    pub seq: Seq,
    /// Hash of the record before; zero for the first.
    pub prev: Hash,
    /// Random: tells after an unknown outcome whose record this is.
    pub commit_id: [u8; 16],
    pub slot: DeviceSlot,
    pub incarnation: Incarnation,
    /// The last intent of `incarnation` that this record and those before cover, and the chain's hash there.
    pub high_water: IntentNo,
    pub high_water_hash: Hash,
    /// The writer's clock. Nothing that must be safe rests on it.
    pub time: Timestamp,
    /// Strictly ascending by key.
    pub rows: Vec<RowChange>,
    /// Ends the record's epoch: from the next record on, nothing that is sealed under its root counts.
    pub next: Option<NextEpoch>,
}

/// The epoch that a rotation begins. The commitment binds the record to one root, whoever delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextEpoch {
    pub epoch: Epoch,
    pub commitment: Hash,
}

const ENVELOPE: Envelope = Envelope { what: "record", magic: b"hushlog1", kind: Kind::Record };
/// Others (condemn, fence, sweep) take the numbers after these.
const COMMIT: u8 = 0;
const ROTATE: u8 = 1;

impl Record {
    pub fn seal(&self, roots: &Roots, entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError> {
        ENVELOPE.seal(roots, self.epoch, self.seq.0, compress(&self.encode()), entropy)
    }

    /// `seq` is the one in the object's name. The caller checks `prev` against its head.
    pub fn open(seq: Seq, object: &[u8], roots: &Roots) -> Result<Self, OpenError> {
        let (epoch, body) = ENVELOPE.open(roots, seq.0, object)?;
        Ok(Self::decode(epoch, seq, &decompress(ENVELOPE.what, &body)?)?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(if self.next.is_some() { ROTATE } else { COMMIT });
        out.raw(&self.prev.0).raw(&self.commit_id).u16(self.slot.0).raw(&self.incarnation.0);
        out.varint(self.high_water.0).raw(&self.high_water_hash.0).time(self.time);
        out.varint(self.rows.len() as u64);
        for (key, value) in &self.rows {
            out.bytes(key);
            // 0 deletes, so that a length counts from 1.
            match value {
                None => out.varint(0),
                Some(value) => out.varint(value.len() as u64 + 1).raw(value),
            };
        }
        if let Some(next) = &self.next {
            out.u32(next.epoch.0).raw(&next.commitment.0);
        }
        out.finish()
    }

    fn decode(epoch: Epoch, seq: Seq, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(ENVELOPE.what, bytes);
        let rotates = match reader.u8()? {
            COMMIT => false,
            ROTATE => true,
            _ => return Err(reader.error("a kind of record that is not known")),
        };
        let (prev, commit_id) = (Hash(reader.array()?), reader.array()?);
        let (slot, incarnation) = (DeviceSlot(reader.u16()?), Incarnation(reader.array()?));
        let (high_water, high_water_hash) = (IntentNo(reader.varint()?), Hash(reader.array()?));
        let time = reader.time()?;
        let rows = decode_rows(&mut reader)?;
        let mut next = None;
        if rotates {
            next = Some(NextEpoch { epoch: Epoch(reader.u32()?), commitment: Hash(reader.array()?) });
        }
        reader.finish()?;
        let record =
            Self { epoch, seq, prev, commit_id, slot, incarnation, high_water, high_water_hash, time, rows, next };
        record.check_next()?;
        Ok(record)
    }

    /// Of the record that follows it.
    pub fn epoch_after(&self) -> Epoch {
        self.next.map_or(self.epoch, |next| next.epoch)
    }

    /// What `open` demands of the rows: strictly ascending keys, each row valid; and of a rotation, that it goes on. A record that fails it would
    /// stop every device at its number, so whoever composes one checks before creating it in the log.
    pub fn check(&self) -> Result<(), FormatError> {
        let mut before = None;
        for (key, value) in &self.rows {
            check_row(before, key, value.as_deref())?;
            before = Some(key.as_slice());
        }
        self.check_next()
    }

    fn check_next(&self) -> Result<(), FormatError> {
        if self.next.is_some_and(|next| next.epoch <= self.epoch) {
            return Err(FormatError { what: ENVELOPE.what, why: "an epoch that does not follow" });
        }
        Ok(())
    }
}

fn check_row(before: Option<&[u8]>, key: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
    if before.is_some_and(|before| before >= key) {
        return Err(FormatError { what: ENVELOPE.what, why: "rows out of order" });
    }
    match value {
        Some(value) => validate(key, value),
        None => RowKey::decode(key).map(drop),
    }
}

/// Checks each row as it comes: what is no row ends the reading, however many are claimed, and is not kept.
fn decode_rows(reader: &mut Reader<'_>) -> Result<Vec<RowChange>, FormatError> {
    let count = reader.count()?;
    let mut rows: Vec<RowChange> = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        let key = reader.bytes()?;
        let value = match reader.varint()? {
            0 => None,
            len => {
                let len = usize::try_from(len - 1).map_err(|_| reader.error("cut short"))?;
                Some(reader.raw(len)?)
            }
        };
        check_row(rows.last().map(|(before, _)| before.as_slice()), key, value)?;
        rows.push((key.to_vec(), value.map(<[u8]>::to_vec)));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{chunk_row, roots, rows};
    use super::*;
    use crate::base::SystemEntropy;
    use proptest::prelude::*;

    fn record(rows: Vec<RowChange>) -> Record {
        Record {
            epoch: Epoch(1),
            seq: Seq(12),
            prev: Hash([1; 32]),
            commit_id: [2; 16],
            slot: DeviceSlot(3),
            incarnation: Incarnation([4; 16]),
            high_water: IntentNo(300),
            high_water_hash: Hash([5; 32]),
            time: Timestamp::new(1_700_000_000, 5),
            rows,
            next: None,
        }
    }

    fn refused(rows: Vec<RowChange>) -> OpenError {
        let record = record(rows);
        let object = record.seal(&roots(), &SystemEntropy).unwrap();
        let refused = Record::open(Seq(12), &object, &roots()).unwrap_err();
        // Whoever composes it is told the same.
        assert_eq!(record.check().map_err(OpenError::from), Err(refused.clone()));
        refused
    }

    fn why(error: OpenError) -> &'static str {
        match error {
            OpenError::Format(error) => error.why,
            OpenError::Crypto { .. } => "authentication",
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(rows in rows(0..40), deleted: u64) {
            let rows = rows.into_iter().enumerate();
            let rows = rows.map(|(i, (key, value))| (key, (deleted >> (i % 64) & 1 == 0).then_some(value))).collect();
            let record = record(rows);
            let object = record.seal(&roots(), &SystemEntropy).unwrap();
            prop_assert_eq!(super::super::padding::padded_len(object.len() as u64), object.len() as u64);
            prop_assert_eq!(Record::open(Seq(12), &object, &roots()).unwrap(), record);
        }

        #[test]
        fn any_body_decodes_or_fails(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::decode(Epoch(0), Seq(1), &bytes);
        }

        #[test]
        fn a_damaged_body_decodes_or_fails(rows in rows(1..8), at: prop::sample::Index, byte: u8) {
            let rows = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
            let mut body = record(rows).encode();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = Record::decode(Epoch(0), Seq(1), &body);
            prop_assert!(Record::decode(Epoch(0), Seq(1), &body[..at]).is_err());
        }
    }

    #[test]
    fn an_empty_value_is_not_a_deletion() {
        let key = RowKey::Backref(crate::base::InodeId(2), crate::base::InodeId(1), name()).encode();
        for value in [None, Some(vec![])] {
            let record = record(vec![(key.clone(), value)]);
            let object = record.seal(&roots(), &SystemEntropy).unwrap();
            assert_eq!(Record::open(Seq(12), &object, &roots()).unwrap(), record);
        }
    }

    fn name() -> crate::base::Name {
        crate::base::Name::parse("a").unwrap()
    }

    #[test]
    fn rows_out_of_order_or_twice_are_refused() {
        let row = |number| {
            let (key, value) = chunk_row(number);
            (key, Some(value))
        };
        assert_eq!(why(refused(vec![row(2), row(1)])), "rows out of order");
        assert_eq!(why(refused(vec![row(1), row(1)])), "rows out of order");
    }

    #[test]
    fn an_invalid_row_is_refused_though_the_record_is_authentic() {
        let (key, _) = chunk_row(1);
        assert_eq!(why(refused(vec![(key, Some(vec![0]))])), "cut short");
        assert_eq!(why(refused(vec![(b"Z".to_vec(), None)])), "an unknown tag");
        let dirent = |name: &[u8]| [b"D\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03", name].concat();
        assert_eq!(why(refused(vec![(dirent(b"../x"), None)])), "an invalid name");
        assert_eq!(why(refused(vec![(dirent(b"x"), None)])), "a cookie that is not the name's");
    }

    #[test]
    fn lying_counts_and_unknown_kinds_are_refused() {
        let mut body = record(vec![]).encode();
        let len = body.len();
        body[len - 1] = 100;
        assert_eq!(Record::decode(Epoch(0), Seq(1), &body).unwrap_err().why, "a count beyond the end");
        body[0] = 2;
        assert_eq!(Record::decode(Epoch(0), Seq(1), &body).unwrap_err().why, "a kind of record that is not known");
    }

    #[test]
    fn a_rotation_names_a_later_epoch_and_its_roots_commitment() {
        let rotation = |epoch| {
            let next = NextEpoch { epoch: Epoch(epoch), commitment: Hash([6; 32]) };
            Record { next: Some(next), ..record(vec![]) }
        };
        assert_eq!(rotation(5).check(), Ok(()));
        let object = rotation(5).seal(&roots(), &SystemEntropy).unwrap();
        assert_eq!(Record::open(Seq(12), &object, &roots()).unwrap(), rotation(5));
        for epoch in [0, 1] {
            assert!(rotation(epoch).check().is_err());
            let object = rotation(epoch).seal(&roots(), &SystemEntropy).unwrap();
            assert_eq!(why(Record::open(Seq(12), &object, &roots()).unwrap_err()), "an epoch that does not follow");
        }
    }

    #[test]
    fn a_record_does_not_open_under_another_number() {
        let object = record(vec![]).seal(&roots(), &SystemEntropy).unwrap();
        assert!(Record::open(Seq(13), &object, &roots()).unwrap_err().is_authentication());
    }
}
