//! The state folder: who this device is and what it has seen, kept across mounts.
//!
//! ```text
//! lock        held while mounted
//! pin         in the clear: which volume, and a commitment to its root key; written on first use, and after a rotation
//! state.key   the folder's own random key, sealed under the root
//! identity    sealed under the folder's key: slot, runs, remembered head, newest floor, what is known of a copy
//! numbers     sealed likewise: below which inode, chunk, key and pack numbers may have been given out
//! accesses    sealed likewise: when this device read what; it may be lost
//! resealing   sealed likewise: while data of earlier epochs is being sealed anew
//! kept.*      copies of the volume object and of key slots, sealed as they are in the store
//! journal/    staging/    kept/    replica
//! ```
//! Invariants: one process at a time; every file is replaced whole, and durable before it counts; nothing but the
//! pin and what a store already knows is in the clear. A damaged file is an error, never taken for a missing one: a
//! forgotten head would let the store go back unnoticed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::KeyringError;
use crate::base::{DeviceSlot, Entropy, Epoch, Hash, Incarnation, IntentNo, Seq, VolumeId};
use crate::crypto::{Key, Roots};
use crate::disk::{DirEntry, Disk};
use crate::format::state::{
    Access, decode_accesses, decode_resealing, encode_accesses, encode_resealing, open_file, open_state_key, seal_file,
    seal_state_key,
};
use crate::format::{Floor, FormatError, ObjectName, Reader, Writer};
use crate::meta::log::Head;
use crate::meta::twin::Parting;

const PIN: &str = "pin";
const STATE_KEY: &str = "state.key";
const IDENTITY: &str = "identity";
const ACCESSES: &str = "accesses";
const RESEALING: &str = "resealing";
const KEPT: &str = "kept.";
const PIN_MAGIC: &[u8; 8] = b"hushpin1";
const CLOSES_WITHIN: Duration = Duration::from_secs(2);
/// Runs that are remembered as this device's own.
const INCARNATIONS_MAX: usize = 64;
/// One place of the log sees one of a run, so more are of runs that ended before they were heard.
const ATTEMPTS_MAX: usize = 16;

pub struct StateFolder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Released when it is closed.
    _lock: File,
}

/// What a first mount trusted; every later one is held to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub root_commitment: Hash,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// None until it has registered, and from when another copy of this folder was found to have it.
    pub slot: Option<DeviceSlot>,
    /// There is such a copy, and what the journal holds is not numbered anew yet.
    pub parting: Option<Parting>,
    /// The runs of this folder, the newest last.
    pub incarnations: Vec<Incarnation>,
    /// Runs whose frames in the journal mean nothing: they are numbered anew in those of a later run, or were to be that
    /// and are not whole.
    pub void: Vec<Incarnation>,
    /// Records that were tried to create behind the remembered head.
    pub attempts: Vec<Head>,
    /// The newest head that was ever trusted.
    pub remembered: Head,
    pub floor: Option<Floor>,
}

impl Pin {
    pub fn of(roots: &Roots) -> Result<Self, KeyringError> {
        let (volume, epoch) = (roots.volume(), roots.epoch());
        let root_commitment = roots.commitment(epoch).map_err(|_| KeyringError::OtherRoot)?;
        Ok(Self { volume, epoch, root_commitment })
    }

    /// What the file `pin` holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("pin", bytes);
        if reader.raw(PIN_MAGIC.len())? != PIN_MAGIC {
            return Err(reader.error("not a pin"));
        }
        let volume = VolumeId(reader.array()?);
        let pin = Self { volume, epoch: Epoch(reader.u32()?), root_commitment: Hash(reader.array()?) };
        reader.finish()?;
        Ok(pin)
    }
}

impl StateFolder {
    /// Makes the folder if need be, and locks it for this process.
    pub fn lock(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, KeyringError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(KeyringError::state(dir))?;
        disk.create_dir_all(dir).map_err(KeyringError::state(dir))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(KeyringError::state(&path))?;
        let start = Instant::now();
        let mut locked = lock.try_lock();
        // A daemon that was unmounted just now may still be closing.
        while matches!(locked, Err(TryLockError::WouldBlock)) && start.elapsed() < CLOSES_WITHIN {
            std::thread::sleep(CLOSES_WITHIN / 20);
            locked = lock.try_lock();
        }
        match locked {
            Ok(()) => Ok(Self { disk, dir: dir.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(KeyringError::Busy { dir: dir.into() }),
            Err(TryLockError::Error(source)) => Err(KeyringError::State { path, source: source.into() }),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub fn pin(&self) -> Result<Option<Pin>, KeyringError> {
        let Some(bytes) = self.read(PIN)? else { return Ok(None) };
        Pin::decode(&bytes).map(Some).map_err(|_| self.damaged(PIN))
    }

    /// For a folder that has none, or when the pinned epoch led to this one.
    pub(super) fn put_pin(&self, pin: &Pin) -> Result<(), KeyringError> {
        let mut out = Writer::new();
        out.raw(PIN_MAGIC).raw(&pin.volume.0).u32(pin.epoch.0).raw(&pin.root_commitment.0);
        self.write(PIN, &out.finish())
    }

    /// The folder's key, made on first use.
    pub(super) fn state_key(&self, roots: &Roots, entropy: &dyn Entropy) -> Result<Key, KeyringError> {
        if let Some(bytes) = self.read(STATE_KEY)? {
            return open_state_key(&bytes, roots).map_err(|_| self.damaged(STATE_KEY));
        }
        let key = Key::generate(entropy);
        self.write(STATE_KEY, &seal_state_key(roots, &key, entropy))?;
        Ok(key)
    }

    /// Under the newest root: whoever has only an older one cannot open the folder from then on.
    pub(super) fn reseal_state_key(&self, roots: &Roots, key: &Key, entropy: &dyn Entropy) -> Result<(), KeyringError> {
        self.write(STATE_KEY, &seal_state_key(roots, key, entropy))
    }

    /// Empty for a new device.
    pub fn identity(&self, state_key: &Key, volume: VolumeId) -> Result<Identity, KeyringError> {
        let Some(bytes) = self.read(IDENTITY)? else {
            return Ok(Identity::new());
        };
        let plain = open_file(state_key, volume, IDENTITY, &bytes).map_err(|_| self.damaged(IDENTITY))?;
        Identity::decode(&plain).map_err(|_| self.damaged(IDENTITY))
    }

    /// Durable when it returns.
    pub fn put_identity(
        &self,
        state_key: &Key,
        volume: VolumeId,
        identity: &Identity,
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        self.write(IDENTITY, &seal_file(state_key, volume, IDENTITY, &identity.encode(), entropy))
    }

    /// The content of a state file; None: there is none.
    pub fn sealed(&self, name: &str, state_key: &Key, volume: VolumeId) -> Result<Option<Vec<u8>>, KeyringError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        open_file(state_key, volume, name, &bytes).map(Some).map_err(|_| self.damaged(name))
    }

    /// Durable when it returns.
    pub fn put_sealed(
        &self,
        name: &str,
        state_key: &Key,
        volume: VolumeId,
        plain: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        self.write(name, &seal_file(state_key, volume, name, plain, entropy))
    }

    /// None were kept by a new device.
    pub fn accesses(&self, state_key: &Key, volume: VolumeId) -> Result<Vec<Access>, KeyringError> {
        let Some(bytes) = self.read(ACCESSES)? else { return Ok(Vec::new()) };
        let plain = open_file(state_key, volume, ACCESSES, &bytes).map_err(|_| self.damaged(ACCESSES))?;
        decode_accesses(&plain).map_err(|_| self.damaged(ACCESSES))
    }

    pub fn put_accesses(
        &self,
        state_key: &Key,
        volume: VolumeId,
        accesses: &[Access],
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        self.write(ACCESSES, &seal_file(state_key, volume, ACCESSES, &encode_accesses(accesses), entropy))
    }

    /// Whether data of earlier epochs is being sealed anew, and at which rate.
    pub fn resealing(&self, state_key: &Key, volume: VolumeId) -> Result<Option<Option<u64>>, KeyringError> {
        let Some(bytes) = self.read(RESEALING)? else { return Ok(None) };
        let plain = open_file(state_key, volume, RESEALING, &bytes).map_err(|_| self.damaged(RESEALING))?;
        decode_resealing(&plain).map(Some).map_err(|_| self.damaged(RESEALING))
    }

    /// None: that has come to its end.
    pub fn put_resealing(
        &self,
        state_key: &Key,
        volume: VolumeId,
        resealing: Option<Option<u64>>,
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        match resealing {
            Some(rate) => {
                self.write(RESEALING, &seal_file(state_key, volume, RESEALING, &encode_resealing(rate), entropy))
            }
            None => self.remove(RESEALING),
        }
    }

    /// Of the objects that unlocking needs, for when the store cannot be reached.
    pub(super) fn read_kept(&self, name: &ObjectName) -> Result<Option<Vec<u8>>, KeyringError> {
        self.read(&kept_name(name))
    }

    pub(super) fn keep(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), KeyringError> {
        self.write(&kept_name(name), bytes)
    }

    pub(super) fn forget_kept(&self, name: &ObjectName) -> Result<(), KeyringError> {
        self.remove(&kept_name(name))
    }

    pub(super) fn kept(&self) -> Result<Vec<ObjectName>, KeyringError> {
        let files = self.disk.list(&self.dir).map_err(KeyringError::state(&self.dir))?;
        let name = |file: DirEntry| ObjectName::parse(&file.name.to_str()?.strip_prefix(KEPT)?.replace('+', "/"));
        let mut names: Vec<_> = files.into_iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyringError> {
        let path = self.dir.join(name);
        let read = || {
            let file = self.disk.open(&path, false)?;
            let mut bytes = vec![0; file.len()? as usize];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyringError::State { path, source: source.into() }),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeyringError> {
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let write = || {
            let file = self.disk.open(&new, true)?;
            file.set_len(0)?;
            file.write_all_at(bytes, 0)?;
            file.sync_data()?;
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        write().map_err(KeyringError::state(&path))
    }

    fn remove(&self, name: &str) -> Result<(), KeyringError> {
        let path = self.dir.join(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KeyringError::State { path, source: error.into() })
            }
            _ => Ok(()),
        }
    }

    fn damaged(&self, name: &str) -> KeyringError {
        KeyringError::DamagedState { path: self.dir.join(name) }
    }
}

impl Identity {
    fn new() -> Self {
        let (incarnations, void, attempts) = Default::default();
        Self { slot: None, parting: None, incarnations, void, attempts, remembered: Head::EMPTY, floor: None }
    }

    /// The next mount takes another number, and numbers anew what is pending.
    pub fn give_up_slot(&mut self, parting: Parting) {
        self.slot = None;
        // What is pending since the first time is pending still.
        self.parting.get_or_insert(parting);
    }

    /// What is pending has numbers of this device's own, in the journal.
    pub fn note_renumbered(&mut self, void: Vec<Incarnation>) {
        self.parting = None;
        self.void = void;
    }

    /// Before it is created.
    pub fn note_attempt(&mut self, attempt: Head) {
        let remembered = self.remembered.seq;
        self.attempts.retain(|earlier| earlier.seq > remembered && *earlier != attempt);
        self.attempts.push(attempt);
        let surplus = self.attempts.len().saturating_sub(ATTEMPTS_MAX);
        self.attempts.drain(..surplus);
    }

    pub fn note_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnations.push(incarnation);
        let surplus = self.incarnations.len().saturating_sub(INCARNATIONS_MAX);
        self.incarnations.drain(..surplus);
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(2).u16(self.slot.map_or(0, |slot| slot.0)).u8(self.parting.is_some().into());
        if let Some(Parting { head, covered }) = &self.parting {
            out.varint(head.0).varint(covered.len() as u64);
            covered.iter().for_each(|(incarnation, (high_water, hash))| {
                out.raw(&incarnation.0).varint(high_water.0).raw(&hash.0);
            });
        }
        for incarnations in [&self.incarnations, &self.void] {
            out.varint(incarnations.len() as u64);
            incarnations.iter().for_each(|incarnation| {
                out.raw(&incarnation.0);
            });
        }
        out.varint(self.attempts.len() as u64);
        self.attempts.iter().for_each(|attempt| {
            out.varint(attempt.seq.0).raw(&attempt.hash.0);
        });
        out.varint(self.remembered.seq.0).raw(&self.remembered.hash.0);
        out.u8(self.floor.is_some().into());
        if let Some(floor) = &self.floor {
            out.u32(floor.epoch.0)
                .varint(floor.number)
                .varint(floor.seq.0)
                .varint(floor.checkpoint.0)
                .raw(&floor.checkpoint_hash.0);
        }
        out.finish()
    }

    /// What the file `identity` holds, unsealed.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("identity", bytes);
        if reader.u8()? != 2 {
            return Err(reader.error("an unknown version"));
        }
        let slot = reader.u16()?;
        let parting = match reader.u8()? {
            0 => None,
            1 => Some(decode_parting(&mut reader)?),
            _ => return Err(reader.error("a flag that is neither 0 nor 1")),
        };
        let (incarnations, void) = (decode_incarnations(&mut reader)?, decode_incarnations(&mut reader)?);
        let count = reader.count()?;
        let mut attempt = || Ok(Head { seq: Seq(reader.varint()?), hash: Hash(reader.array()?) });
        let attempts = (0..count).map(|_| attempt()).collect::<Result<_, FormatError>>()?;
        let remembered = Head { seq: Seq(reader.varint()?), hash: Hash(reader.array()?) };
        let floor = match reader.u8()? {
            0 => None,
            1 => Some(Floor {
                epoch: Epoch(reader.u32()?),
                number: reader.varint()?,
                seq: Seq(reader.varint()?),
                checkpoint: Seq(reader.varint()?),
                checkpoint_hash: Hash(reader.array()?),
            }),
            _ => return Err(reader.error("a flag that is neither 0 nor 1")),
        };
        reader.finish()?;
        let slot = (slot != 0).then_some(DeviceSlot(slot));
        Ok(Self { slot, parting, incarnations, void, attempts, remembered, floor })
    }
}

fn decode_incarnations(reader: &mut Reader<'_>) -> Result<Vec<Incarnation>, FormatError> {
    let count = reader.count()?;
    (0..count).map(|_| reader.array().map(Incarnation)).collect()
}

fn decode_parting(reader: &mut Reader<'_>) -> Result<Parting, FormatError> {
    let (head, count) = (Seq(reader.varint()?), reader.count()?);
    let mut covered = || Ok((Incarnation(reader.array()?), (IntentNo(reader.varint()?), Hash(reader.array()?))));
    let covered = (0..count).map(|_| covered()).collect::<Result<_, FormatError>>()?;
    Ok(Parting { head, covered })
}

/// In the folder itself, beside the rest: `kept.keys+0000000000+0001`.
fn kept_name(name: &ObjectName) -> String {
    format!("{KEPT}{}", name.to_string().replace('/', "+"))
}
