//! The object that makes a URL a volume. It is created once and never changes, so its hash stands for the
//! volume: its parameters are sealed under the first root, and a SEAL commits to its key.

use super::codec::{FormatError, Reader, Writer};
use super::envelope::{OpenError, object_hash};
use super::padding;
use crate::base::{Entropy, Hash, Timestamp, VolumeId};
use crate::crypto::{self, Context, Key, Kind, SEAL_OVERHEAD};

const WHAT: &str = "volume object";
const MAGIC: &[u8; 8] = b"hushvol1";
/// The only format there is.
pub const VOLUME_VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 16;
const AROUND: usize = HEADER_LEN + SEAL_OVERHEAD;
const FLAG_SINGLE_DEVICE: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeParameters {
    pub created: Timestamp,
    /// The store does not keep create-if-absent, so only one device may have the volume open.
    pub single_device: bool,
}

/// As it is in the store: its parameters are not opened yet.
#[derive(Clone, Debug)]
pub struct VolumeObject {
    volume: VolumeId,
    bytes: Vec<u8>,
}

impl VolumeObject {
    /// `root` is that of epoch 0.
    pub fn create(volume: VolumeId, root: &Key, parameters: &VolumeParameters, entropy: &dyn Entropy) -> Self {
        let mut body = Writer::new();
        body.u8(if parameters.single_device { FLAG_SINGLE_DEVICE } else { 0 }).time(parameters.created);
        let mut body = body.finish();
        padding::pad(&mut body, AROUND);
        let mut header = Writer::new();
        header.raw(MAGIC).u32(VOLUME_VERSION).raw(&volume.0);
        let mut bytes = header.finish();
        let context = Context { volume, kind: Kind::VolumeParameters, id: &[&VOLUME_VERSION.to_le_bytes()] };
        crypto::seal_bulk_onto(&mut bytes, root, &context, &body, entropy);
        Self { volume, bytes }
    }

    /// Refuses other formats by name.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        if &reader.array::<8>()? != MAGIC {
            return Err(reader.error("this is not a hushfs volume"));
        }
        if reader.u32()? != VOLUME_VERSION {
            return Err(reader.error("a format version that this program does not know"));
        }
        Ok(Self { volume: VolumeId(reader.array()?), bytes: bytes.to_vec() })
    }

    /// With the root of epoch 0.
    pub fn open(&self, root: &Key) -> Result<VolumeParameters, OpenError> {
        let id = VOLUME_VERSION.to_le_bytes();
        let context = Context { volume: self.volume, kind: Kind::VolumeParameters, id: &[&id] };
        let sealed = self.bytes.get(HEADER_LEN..).unwrap_or_default();
        let body = crypto::open_bulk(root, &context, sealed).map_err(OpenError::crypto(WHAT))?;
        let mut reader = Reader::new(WHAT, padding::unpad(WHAT, &body, AROUND)?);
        let single_device = match reader.u8()? {
            0 => false,
            FLAG_SINGLE_DEVICE => true,
            _ => return Err(reader.error("an unknown flag").into()),
        };
        let created = reader.time()?;
        reader.finish()?;
        Ok(VolumeParameters { created, single_device })
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// For pinning.
    pub fn hash(&self) -> Hash {
        object_hash(&self.bytes)
    }

    /// For people to compare: the hash's first 128 bits, in groups of four digits.
    pub fn fingerprint(&self) -> String {
        let pairs = self.hash().0;
        let groups: Vec<String> = pairs[..16].chunks(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1])).collect();
        groups.join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{VOLUME, key};
    use super::*;
    use crate::base::SystemEntropy;

    const PARAMETERS: VolumeParameters = VolumeParameters { created: Timestamp::new(5, 6), single_device: true };

    fn object() -> VolumeObject {
        VolumeObject::create(VOLUME, &key(1), &PARAMETERS, &SystemEntropy)
    }

    #[test]
    fn a_volume_object_round_trips() {
        let parsed = VolumeObject::parse(object().bytes()).unwrap();
        assert_eq!(parsed.volume(), VOLUME);
        assert_eq!(parsed.open(&key(1)).unwrap(), PARAMETERS);
        assert_eq!(parsed.bytes().len() as u64, padding::PADDED_LEN_MIN);
        let many = VolumeParameters { single_device: false, ..PARAMETERS };
        assert_eq!(VolumeObject::create(VOLUME, &key(1), &many, &SystemEntropy).open(&key(1)).unwrap(), many);
    }

    #[test]
    fn another_root_volume_id_or_version_is_refused() {
        let object = object();
        assert!(object.open(&key(2)).unwrap_err().is_authentication());
        let with = |at: usize| {
            let mut bytes = object.bytes().to_vec();
            bytes[at] ^= 1;
            VolumeObject::parse(&bytes)
        };
        assert!(with(20).unwrap().open(&key(1)).unwrap_err().is_authentication());
        assert_eq!(with(8).unwrap_err().why, "a format version that this program does not know");
        assert_eq!(with(0).unwrap_err().why, "this is not a hushfs volume");
        assert!(VolumeObject::parse(&object.bytes()[..27]).is_err());
        assert!(VolumeObject::parse(&object.bytes()[..28]).unwrap().open(&key(1)).unwrap_err().is_authentication());
    }

    #[test]
    fn the_fingerprint_stands_for_all_bytes() {
        let (a, b) = (object(), object());
        assert_eq!(a.fingerprint().len(), 39);
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.fingerprint(), VolumeObject::parse(a.bytes()).unwrap().fingerprint());
    }
}
