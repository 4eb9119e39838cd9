//! An `L` row's value: what the owner keeps of a link.

use super::{LinkKeys, LinkProtection};
use crate::base::{InodeId, Name, Timestamp};
use crate::crypto::{KdfParameters, Key, PublicHalf};
use crate::format::codec::{FormatError, Reader, Writer};
use zeroize::Zeroizing;

const WHAT: &str = "link row";
/// As the kernel has it for a whole path.
const PATH_LEN_MAX: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
pub struct LinkRow {
    pub state: LinkState,
    pub inode: InodeId,
    /// As it was given, for people.
    pub path: Box<[u8]>,
    pub title: Name,
    /// Followed, and published again after changes.
    pub live: bool,
    pub created: Timestamp,
    pub expiry: Option<Timestamp>,
    /// Number of the newest record; 0 before the first.
    pub newest: u64,
    pub files: u64,
    pub bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The first record is not in the store yet.
    Publishing(LinkKeys),
    Published(LinkKeys),
    /// The keys are gone: nothing is left to open, and nothing may be published.
    Revoked,
}

impl LinkState {
    pub fn keys(&self) -> Option<&LinkKeys> {
        match self {
            Self::Publishing(keys) | Self::Published(keys) => Some(keys),
            Self::Revoked => None,
        }
    }
}

impl LinkRow {
    /// What this row and the one that is there say together, as another device may have said either: what was taken
    /// back stays so, what is not followed any more is not followed again, and the newest version counts.
    fn merged(self, there: Self) -> Self {
        let (newer, older) = if there.newest > self.newest { (there, self) } else { (self, there) };
        let live = newer.live && older.live;
        let state = match (newer.state, older.state) {
            (LinkState::Revoked, _) | (_, LinkState::Revoked) => LinkState::Revoked,
            (LinkState::Publishing(_), older @ LinkState::Published(_)) => older,
            (newer, _) => newer,
        };
        Self { live: live && state != LinkState::Revoked, state, ..newer }
    }

    /// The same of rows' values.
    pub fn merge(said: &[u8], there: &[u8]) -> Result<Vec<u8>, FormatError> {
        Ok(Self::decode(said)?.merged(Self::decode(there)?).encode().to_vec())
    }

    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer::new();
        out.u8(match self.state {
            LinkState::Publishing(_) => 0,
            LinkState::Published(_) => 1,
            LinkState::Revoked => 2,
        });
        out.varint(self.inode.0).bytes(&self.path).bytes(self.title.as_bytes()).u8(self.live.into());
        out.time(self.created).varint(self.expiry.map_or(0, |at| u64::try_from(at.secs).unwrap_or(0).max(1)));
        out.varint(self.newest).varint(self.files).varint(self.bytes);
        if let Some(keys) = self.state.keys() {
            encode_keys(&mut out, keys);
        }
        Zeroizing::new(out.finish())
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        let state = reader.u8()?;
        let (inode, path) = (InodeId(reader.varint()?), reader.bytes()?);
        if path.len() > PATH_LEN_MAX {
            return Err(reader.error("a path over 4,096 bytes"));
        }
        let title = Name::parse(reader.bytes()?).map_err(|_| reader.error("an invalid title"))?;
        let live = flag(&mut reader)?;
        let (created, expiry) = (reader.time()?, reader.varint()?);
        let expiry = i64::try_from(expiry).map_err(|_| reader.error("an expiry over 2^63"))?;
        let (newest, files, bytes) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let state = match state {
            0 => LinkState::Publishing(decode_keys(&mut reader)?),
            1 => LinkState::Published(decode_keys(&mut reader)?),
            2 => LinkState::Revoked,
            _ => return Err(reader.error("an unknown state")),
        };
        reader.finish()?;
        let expiry = (expiry != 0).then(|| Timestamp::new(expiry, 0));
        Ok(Self { state, inode, path: path.into(), title, live, created, expiry, newest, files, bytes })
    }
}

fn encode_keys(out: &mut Writer, keys: &LinkKeys) {
    out.raw(keys.seed.expose()).raw(keys.secret.expose());
    match &keys.protection {
        LinkProtection::None => {
            out.u8(0);
        }
        LinkProtection::Password { kdf, salt, root } => {
            out.u8(1).u32(kdf.memory_kib).u32(kdf.passes).u32(kdf.lanes).raw(salt).raw(root.expose());
        }
    }
    match &keys.recipient {
        None => out.u8(0),
        Some(recipient) => out.u8(1).raw(&recipient.0),
    };
}

fn decode_keys(reader: &mut Reader<'_>) -> Result<LinkKeys, FormatError> {
    let (seed, secret) = (key(reader)?, key(reader)?);
    let protection = match flag(reader)? {
        false => LinkProtection::None,
        true => LinkProtection::Password {
            kdf: KdfParameters { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? },
            salt: reader.array()?,
            root: key(reader)?,
        },
    };
    let recipient = match flag(reader)? {
        false => None,
        true => Some(PublicHalf(reader.array()?)),
    };
    Ok(LinkKeys { seed, secret, protection, recipient })
}

fn key(reader: &mut Reader<'_>) -> Result<Key, FormatError> {
    let bytes = reader.raw(crate::crypto::KEY_LEN)?;
    Key::try_from_slice(bytes).ok_or_else(|| reader.error("cut short"))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, FormatError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error("neither yes nor no")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SystemEntropy;
    use crate::format::testing::key;

    fn row(state: LinkState) -> LinkRow {
        LinkRow {
            state,
            inode: InodeId(7),
            path: b"photos/2024".as_slice().into(),
            title: Name::parse("2024").unwrap(),
            live: true,
            created: Timestamp::new(1_700_000_000, 5),
            expiry: Some(Timestamp::new(1_800_000_000, 0)),
            newest: 3,
            files: 12,
            bytes: 34_567,
        }
    }

    fn keys() -> LinkKeys {
        let salt = [5; 32];
        let protection = LinkProtection::Password { kdf: KdfParameters::FLOOR, salt, root: key(3) };
        LinkKeys { protection, ..LinkKeys::generate(Some(PublicHalf([6; 32])), &SystemEntropy) }
    }

    #[test]
    fn rows_round_trip_in_every_state() {
        let plain = LinkKeys::generate(None, &SystemEntropy);
        for state in [LinkState::Publishing(plain), LinkState::Published(keys()), LinkState::Revoked] {
            let row = row(state);
            assert_eq!(LinkRow::decode(&row.encode()).unwrap(), row);
            let without = LinkRow { expiry: None, live: false, ..row };
            assert_eq!(LinkRow::decode(&without.encode()).unwrap(), without);
        }
    }

    #[test]
    fn a_revoked_row_holds_no_key() {
        let keys = keys();
        let (seed, secret) = (*keys.seed.expose(), *keys.secret.expose());
        let published = row(LinkState::Published(keys)).encode();
        let holds = |bytes: &[u8], key: &[u8]| bytes.windows(32).any(|window| window == key);
        assert!(holds(&published, &seed) && holds(&published, &secret));
        let revoked = row(LinkState::Revoked).encode();
        assert!(!holds(&revoked, &seed) && !holds(&revoked, &secret));
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        let good = row(LinkState::Published(keys())).encode();
        assert!((0..good.len()).all(|len| LinkRow::decode(&good[..len]).is_err()));
        let mut state = good.clone();
        state[0] = 3;
        assert_eq!(LinkRow::decode(&state).unwrap_err().why, "an unknown state");
        let with_path = |len| {
            let row = LinkRow { path: vec![b'p'; len].into(), ..row(LinkState::Revoked) };
            LinkRow::decode(&row.encode()).map(|row| row.path.len()).map_err(|error| error.why)
        };
        assert_eq!(with_path(4096), Ok(4096));
        for len in [4097, 5000] {
            assert_eq!(with_path(len), Err("a path over 4,096 bytes"));
        }
        assert_eq!(LinkRow::decode(&[&good[..], &[0]].concat()).unwrap_err().why, "bytes after the end");
    }

    fn rows() -> [LinkRow; 2] {
        let row = LinkRow { newest: 0, files: 0, expiry: None, ..row(LinkState::Publishing(keys())) };
        let again = LinkRow::decode(&row.encode()).unwrap();
        [row, again]
    }

    fn published(row: LinkRow, newest: u64) -> LinkRow {
        let LinkState::Publishing(keys) = row.state else { panic!("made so") };
        LinkRow { state: LinkState::Published(keys), newest, files: newest, ..row }
    }

    fn merged(said: LinkRow, there: LinkRow) -> LinkRow {
        LinkRow::decode(&LinkRow::merge(&said.encode(), &there.encode()).unwrap()).unwrap()
    }

    #[test]
    fn the_newer_version_counts_and_of_the_same_what_is_said_now() {
        let versions = |said, there| {
            let [one, two] = rows();
            let row = merged(published(one, said), published(two, there));
            assert!(row.live && matches!(row.state, LinkState::Published(_)));
            (row.newest, row.files)
        };
        assert_eq!((versions(3, 2), versions(2, 3)), ((3, 3), (3, 3)));
        let [said, there] = rows();
        let (said, there) = (LinkRow { expiry: Some(Timestamp::new(9, 0)), ..said }, LinkRow { files: 7, ..there });
        let row = merged(said, there);
        assert_eq!((row.expiry, row.files), (Some(Timestamp::new(9, 0)), 0));
    }

    #[test]
    fn what_has_ended_for_one_has_ended() {
        for said_it in [true, false] {
            for newest in [1, 2, 3] {
                let pair = |ended: fn(LinkRow) -> LinkRow| {
                    let [one, two] = rows();
                    let (ended, other) = (ended(published(one, newest)), published(two, 2));
                    if said_it { merged(ended, other) } else { merged(other, ended) }
                };
                let unfollowed = pair(|row| LinkRow { live: false, ..row });
                assert!(!unfollowed.live && matches!(unfollowed.state, LinkState::Published(_)));
                let revoked = pair(|row| LinkRow { state: LinkState::Revoked, ..row });
                assert_eq!((revoked.state, revoked.live), (LinkState::Revoked, false));
            }
        }
    }

    #[test]
    fn what_was_published_is_not_unfinished_again() {
        for said_it in [true, false] {
            for newest in [0, 1] {
                let [one, two] = rows();
                let done = published(one, newest);
                let row = if said_it { merged(done, two) } else { merged(two, done) };
                assert!(matches!(row.state, LinkState::Published(_)));
            }
        }
    }
}
