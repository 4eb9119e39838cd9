//! The primitive encodings: fixed-width little-endian integers, LEB128 varints, length-prefixed bytes.

use crate::base::Timestamp;

/// Bytes that are not what they should be. `what` names the object or the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct FormatError {
    pub what: &'static str,
    pub why: &'static str,
}

#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// LEB128, the shortest form only.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    /// Zigzag, then LEB128.
    pub fn signed(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// A varint length, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.varint(value.len() as u64).raw(value)
    }

    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    pub fn time(&mut self, time: Timestamp) -> &mut Self {
        self.signed(time.secs).varint(time.nanos.into())
    }
}

/// Reads what `Writer` wrote. Every error names `what`.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub fn error(&self, why: &'static str) -> FormatError {
        FormatError { what: self.what, why }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// All must have been read.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("bytes after the end")) }
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or_else(|| self.error("cut short"))?;
        self.rest = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or_else(|| self.error("cut short"))?;
        self.rest = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error("a varint over 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // One value has one encoding: a padded varint is somebody else's.
                return if byte == 0 && shift > 0 { Err(self.error("a padded varint")) } else { Ok(value) };
            }
        }
        Err(self.error("a varint over 64 bits"))
    }

    pub fn varint32(&mut self) -> Result<u32, FormatError> {
        u32::try_from(self.varint()?).map_err(|_| self.error("a number over 32 bits"))
    }

    pub fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| self.error("cut short"))?;
        self.raw(len)
    }

    /// A count of things that take at least one byte each: bounded by what is left, so that a lying count
    /// cannot make us allocate.
    pub fn count(&mut self) -> Result<usize, FormatError> {
        let count = self.varint()?;
        if count > self.rest.len() as u64 {
            return Err(self.error("a count beyond the end"));
        }
        Ok(count as usize)
    }

    pub fn time(&mut self) -> Result<Timestamp, FormatError> {
        let secs = self.signed()?;
        let nanos = self.varint()?;
        if nanos >= 1_000_000_000 {
            return Err(self.error("nanoseconds over a second"));
        }
        Ok(Timestamp::new(secs, nanos as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, signed: i64) {
            let mut writer = Writer::new();
            writer.varint(value).signed(signed);
            let bytes = writer.finish();
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            reader.finish().unwrap();
        }

        #[test]
        fn a_varint_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 1..12)) {
            let mut reader = Reader::new("test", &bytes);
            if let Ok(value) = reader.varint() {
                let mut writer = Writer::new();
                writer.varint(value);
                prop_assert_eq!(writer.finish(), &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }

    #[test]
    fn a_varint_is_as_short_as_it_can_be_and_has_64_bits() {
        let read = |bytes: &[u8]| Reader::new("test", bytes).varint().map_err(|error| error.why);
        let ten = |last: u8| [[0xff; 9].as_slice(), &[last]].concat();
        assert_eq!(read(&ten(1)), Ok(u64::MAX));
        assert_eq!(read(&ten(2)), Err("a varint over 64 bits"));
        assert_eq!(read(&ten(0x81)), Err("a varint over 64 bits"));
        assert_eq!(read(&[[0xff; 10].as_slice(), &[1]].concat()), Err("a varint over 64 bits"));
        for padded in [&[0x80, 0][..], &[0xff, 0x80, 0], &ten(0)] {
            assert_eq!(read(padded), Err("a padded varint"), "{padded:?}");
        }
        assert_eq!(read(&[0]), Ok(0));
    }

    #[test]
    fn a_writer_knows_whether_it_has_anything() {
        let mut writer = Writer::new();
        assert!(writer.is_empty());
        writer.u8(0);
        assert!(!writer.is_empty() && writer.len() == 1);
    }

    #[test]
    fn a_lying_length_is_refused_without_allocating() {
        let mut writer = Writer::new();
        writer.varint(u64::MAX);
        let bytes = writer.finish();
        assert_eq!(Reader::new("test", &bytes).bytes().unwrap_err().why, "cut short");
        assert_eq!(Reader::new("test", &bytes).count().unwrap_err().why, "a count beyond the end");
    }
}
