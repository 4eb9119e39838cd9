//! Small files of a state folder: each sealed under the folder's key and bound to its own name. The key
//! itself lies beside them, sealed under the root.

use super::codec::{FormatError, Reader, Writer};
use super::envelope::OpenError;
use crate::base::{Entropy, Epoch, InodeId, Timestamp, VolumeId};
use crate::crypto::{self, Context, Key, Kind, Roots};

const KEY_WHAT: &str = "state key";
const KEY_MAGIC: &[u8; 8] = b"hushstk1";

/// `name` is the file's own, such as `head`: one file does not open in another's place.
pub fn seal_file(key: &Key, volume: VolumeId, name: &str, plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let context = Context { volume, kind: Kind::StateFile, id: &[name.as_bytes()] };
    crypto::seal(key, &context, plain, entropy)
}

pub fn open_file(key: &Key, volume: VolumeId, name: &str, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let context = Context { volume, kind: Kind::StateFile, id: &[name.as_bytes()] };
    crypto::open(key, &context, sealed).map_err(OpenError::crypto("state file"))
}

/// The state key's own file, under the newest root.
pub fn seal_state_key(roots: &Roots, key: &Key, entropy: &dyn Entropy) -> Vec<u8> {
    let (epoch, wrapped) = roots.wrap_state_key(key, entropy);
    let mut out = Writer::new();
    out.raw(KEY_MAGIC).u32(epoch.0).raw(&wrapped);
    out.finish()
}

/// Which epoch's root opens the state key's file.
pub fn state_key_epoch(file: &[u8]) -> Result<Epoch, FormatError> {
    split_state_key(file).map(|(epoch, _)| epoch)
}

pub fn open_state_key(file: &[u8], roots: &Roots) -> Result<Key, OpenError> {
    let (epoch, wrapped) = split_state_key(file)?;
    roots.unwrap_state_key(epoch, wrapped).map_err(OpenError::crypto(KEY_WHAT))
}

fn split_state_key(file: &[u8]) -> Result<(Epoch, &[u8]), FormatError> {
    let mut reader = Reader::new(KEY_WHAT, file);
    if &reader.array::<8>()? != KEY_MAGIC {
        return Err(reader.error("another kind of file, or a newer format"));
    }
    let epoch = Epoch(reader.u32()?);
    let wrapped = reader.raw(reader.remaining())?;
    Ok((epoch, wrapped))
}

/// When this device read an inode last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub ino: InodeId,
    pub atime: Timestamp,
    /// What the inode's row said then.
    pub row_atime: Timestamp,
}

pub fn encode_accesses(accesses: &[Access]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(1).varint(accesses.len() as u64);
    for access in accesses {
        out.varint(access.ino.0).time(access.atime).time(access.row_atime);
    }
    out.finish()
}

pub fn decode_accesses(bytes: &[u8]) -> Result<Vec<Access>, FormatError> {
    let mut reader = Reader::new("access times", bytes);
    if reader.u8()? != 1 {
        return Err(reader.error("an unknown version"));
    }
    let count = reader.count()?;
    let mut access = || Ok(Access { ino: InodeId(reader.varint()?), atime: reader.time()?, row_atime: reader.time()? });
    let accesses = (0..count).map(|_| access()).collect::<Result<_, FormatError>>()?;
    reader.finish()?;
    Ok(accesses)
}

/// The rate, in bytes a second, at which data of earlier epochs is sealed anew; None: as fast as it goes.
pub fn encode_resealing(rate: Option<u64>) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(1).varint(rate.unwrap_or(0));
    out.finish()
}

pub fn decode_resealing(bytes: &[u8]) -> Result<Option<u64>, FormatError> {
    let mut reader = Reader::new("resealing", bytes);
    if reader.u8()? != 1 {
        return Err(reader.error("an unknown version"));
    }
    let rate = reader.varint()?;
    reader.finish()?;
    Ok((rate != 0).then_some(rate))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{VOLUME, key, roots, roots_of_another_volume};
    use super::*;
    use crate::base::SystemEntropy;

    #[test]
    fn a_file_opens_under_its_own_name_volume_and_key_only() {
        let sealed = seal_file(&key(1), VOLUME, "head", b"content", &SystemEntropy);
        assert_eq!(open_file(&key(1), VOLUME, "head", &sealed).unwrap(), b"content");
        assert!(open_file(&key(1), VOLUME, "heads", &sealed).unwrap_err().is_authentication());
        assert!(open_file(&key(1), VolumeId([8; 16]), "head", &sealed).unwrap_err().is_authentication());
        assert!(open_file(&key(2), VOLUME, "head", &sealed).unwrap_err().is_authentication());
    }

    #[test]
    fn access_times_are_as_the_format_says() {
        let access = Access { ino: InodeId(258), atime: Timestamp::new(2, 300), row_atime: Timestamp::new(-1, 0) };
        let bytes = encode_accesses(&[access]);
        assert_eq!(bytes, [1, 1, 0x82, 0x02, 4, 0xac, 0x02, 1, 0]);
        assert_eq!(decode_accesses(&bytes).unwrap(), [access]);
        assert!(decode_accesses(&bytes[..8]).is_err());
        assert!(decode_accesses(&[2, 0]).is_err());
        assert!(decode_accesses(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }

    #[test]
    fn a_rate_is_as_the_format_says() {
        assert_eq!(encode_resealing(Some(300)), [1, 0xac, 0x02]);
        assert_eq!(encode_resealing(None), [1, 0]);
        for rate in [None, Some(1), Some(u64::MAX)] {
            assert_eq!(decode_resealing(&encode_resealing(rate)).unwrap(), rate);
        }
        assert!(decode_resealing(&[2, 0]).is_err() && decode_resealing(&[1]).is_err());
        assert!(decode_resealing(&[1, 0, 0]).is_err());
    }

    #[test]
    fn the_state_key_opens_under_the_root_of_its_epoch() {
        let mut file = seal_state_key(&roots(), &key(4), &SystemEntropy);
        assert_eq!(state_key_epoch(&file).unwrap(), Epoch(1));
        assert_eq!(open_state_key(&file, &roots()).unwrap(), key(4));
        assert!(open_state_key(&file, &roots_of_another_volume()).unwrap_err().is_authentication());
        file[8] = 0;
        assert!(open_state_key(&file, &roots()).unwrap_err().is_authentication());
        assert!(matches!(open_state_key(&file[..11], &roots()), Err(OpenError::Format(_))));
        file[0] = b'X';
        assert!(matches!(open_state_key(&file, &roots()), Err(OpenError::Format(_))));
    }
}
