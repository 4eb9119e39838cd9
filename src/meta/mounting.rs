//! From a store and a secret to rows that are at the log's head, and what the journal holds beyond it.
//!
//! Invariants: nothing is written to the store before the keys were held against what this device pinned; a device
//! has its slot in the log before it makes a number; what cannot be verified is an error, not an empty volume.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{self, CheckpointError};
use super::driver::{LogDriver, Need, Patience};
use super::error::MetaError;
use super::journal::{Journal, JournalError, OnDamage};
use super::keyring::{Identity, Keyring, KeyringError, Secret, StateFolder, Trust, open_keyring};
use super::leftover::Leftover;
use super::log::{
    Event, Finished, Footprint, Halt, Head, LogMachine, Origin, Pending as PendingCommit, Start, Waiting,
};
use super::numbers::{self, Counters};
use super::pending::{DeviceIdentity, Pending};
use super::replica::{RecordApply, Replica};
use super::rows::Rows;
use super::twin::{ForeignChanges, Parting};
use super::view::View;
use crate::base::{Clock, DeviceSlot, Entropy, Epoch, Hash, Incarnation, InodeId, IntentNo, Numbers, Seq, Timestamp};
use crate::crypto::{Blake3, CryptoError};
use crate::disk::Disk;
use crate::format::rows::{DeviceRow, InodeBody, InodeRow, RowKey, mode};
use crate::format::{Manifest, ObjectName, Record, object_hash};
use crate::store::{Keep, Store, StoreError};

/// The replica's file in the state folder.
pub const REPLICA: &str = "replica.db";

pub struct MountOptions<'a> {
    pub disk: Arc<dyn Disk>,
    pub state_dir: &'a Path,
    pub secret: Secret,
    pub trust: Trust,
    /// What a key derivation may take, in bytes.
    pub kdf_memory_max: u64,
    pub read_only: bool,
    /// To go on without what a damaged journal held behind the damage.
    pub accept_loss: bool,
    /// For people, such as the host's name.
    pub device_name: String,
    /// User and group of the root directory, if this is the volume's first mount.
    pub owner: (u32, u32),
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// Everything below the filesystem, at the log's head.
pub struct MountedMeta {
    pub keyring: Arc<Keyring>,
    pub folder: Arc<StateFolder>,
    pub identity: Identity,
    pub driver: LogDriver,
    pub kept: Arc<Keep>,
    pub pending: Arc<Pending>,
    pub leftover: Leftover,
    /// Why the log could not be followed to its head: this is the state of the last time.
    pub offline: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("this volume's first mount on a machine needs the store")]
    FirstMountOffline(#[source] StoreError),
    #[error(
        "another copy of this state folder goes on under this device's number; to take another number it needs the store"
    )]
    SharedSlot(#[source] StoreError),
    /// To show an older tree, and put this machine's changes on top of it, would lose some of them.
    #[error("this machine's copy of the tree is lost, and making it anew needs the store")]
    NotRebuilt(#[source] StoreError),
    #[error("{0}")]
    Rollback(Waiting),
    #[error("{0}")]
    Halted(Halt),
    #[error("the registration of this device could not be sealed")]
    Sealing(#[from] CryptoError),
    #[error("all 65,535 device numbers of this volume are taken")]
    NoDeviceSlot,
}

pub async fn mount_meta(store: Arc<dyn Store>, options: MountOptions<'_>) -> Result<MountedMeta, MountError> {
    let MountOptions {
        disk,
        state_dir,
        secret,
        trust,
        kdf_memory_max,
        read_only,
        accept_loss,
        device_name,
        owner,
        clock,
        entropy,
    } = options;
    let folder = Arc::new(StateFolder::lock(disk.clone(), state_dir)?);
    let (keyring, mut offline) =
        open_keyring(store.as_ref(), &folder, secret, trust, kdf_memory_max, entropy.as_ref()).await?;
    let keyring = Arc::new(keyring);
    let volume = keyring.volume();
    let identity = folder.identity(&keyring.state_key, volume)?;
    let kept = Arc::new(Keep::new(store.clone(), disk.clone(), state_dir.join("kept")));

    let path = state_dir.join(REPLICA);
    let replica = open_replica(&kept, &keyring, &path, identity.remembered).await?;
    catch_up(&replica, &kept, &keyring, identity.remembered).await?;
    learn_epoch(store.as_ref(), &kept, &keyring, &replica).await?;
    let (seq, hash) = replica.head();
    let head = Head { seq, hash };
    // What the pending changes were made on. A replica may be further: it was made anew, or an earlier mount that
    // was to number them anew did not come to its end.
    let known = identity.parting.as_ref().map_or(identity.remembered.seq, |parting| parting.head);
    let remembered = newest_trusted(head, identity.remembered);
    let start = Start {
        head,
        epoch: replica.epoch(),
        anchor: keyring.anchor,
        remembered,
        floor: identity.floor,
        slot: identity.slot.unwrap_or(DeviceSlot(0)),
        attempts: identity.attempts.clone(),
    };
    let machine = LogMachine::new(keyring.roots.clone(), start);
    let mut mounting = Mounting {
        store: store.clone(),
        driver: LogDriver::new(machine, store.clone(), kept.clone()),
        folder: folder.clone(),
        identity,
        keyring: keyring.clone(),
        kept: kept.clone(),
        replica: Some(replica),
        path: path.clone(),
        known,
        changes: ForeignChanges::new(seq > known),
        entropy: entropy.clone(),
        owner,
    };
    match mounting.follow().await {
        Ok(()) => {}
        // Also when it does not pass by itself: whose credentials have expired still has their files.
        Err(MountError::Store(error)) if mounting.may_wait(read_only) && mounting.is_current() => {
            offline = Some(error.to_string());
        }
        Err(MountError::Store(error)) if mounting.may_wait(read_only) => return Err(MountError::NotRebuilt(error)),
        Err(MountError::Store(error)) if mounting.identity.parting.is_some() => {
            return Err(MountError::SharedSlot(error));
        }
        Err(MountError::Store(error)) => return Err(MountError::FirstMountOffline(error)),
        // What is behind the damage cannot be known. What is before it can be read, and changes of a device that
        // was there before can wait.
        Err(MountError::Rollback(
            waiting @ (Waiting::DamagedRecord(_) | Waiting::EndedEpoch(_) | Waiting::DamagedFloor(_)),
        )) if read_only || (mounting.may_wait(read_only) && mounting.is_current()) => {
            offline = Some(waiting.to_string());
        }
        Err(error @ MountError::Halted(Halt::Fork { .. })) if !mounting.is_current() => {
            // What the replica was rebuilt from, now or the last time, is of another history than the one that was
            // trusted: without it the next try begins with what the store shows then.
            drop(mounting);
            Replica::delete(&path)?;
            kept.forget_below(Seq(u64::MAX));
            return Err(error);
        }
        Err(error) => return Err(error),
    }

    mounting.look_for_a_twins_runs()?;
    if let Err(error) = mounting.replica()?.sync(folder.disk().as_ref()) {
        tracing::error!("this machine's copy of the tree is not on its disk yet: {error}");
    }
    mounting.identity.remembered = mounting.driver.machine.remembered();
    mounting.identity.floor = mounting.driver.machine.floor().copied();
    let registered = clock.now();
    let head = mounting.driver.machine.head();
    let incarnation = fresh_incarnation(&mounting.identity, head, registered, entropy.as_ref());
    let mut device = DeviceIdentity { slot: DeviceSlot(0), incarnation, name: device_name, registered };
    if !read_only {
        // Known as ours before anything is written under it.
        mounting.identity.note_incarnation(incarnation);
        if mounting.identity.parting.is_some() {
            // Until it has numbered anew all that is pending.
            mounting.identity.void.push(incarnation);
        }
        mounting.put_identity()?;
        device.slot = match mounting.identity.slot {
            Some(slot) => slot,
            None => mounting.register(&device, clock.as_ref()).await?,
        };
        mounting.identity.remembered = mounting.driver.machine.remembered();
        mounting.put_identity()?;
    }
    // The machine knows its slot from its start.
    mounting.restart(device.slot);
    let Mounting { driver, replica, mut identity, changes, .. } = mounting;
    let replica = Arc::new(replica.ok_or(MountError::Meta(MetaError::MissingRow("the replica")))?);

    let journal_dir = state_dir.join("journal");
    let on_damage = match (read_only, accept_loss) {
        // Nothing is replayed.
        (true, _) => OnDamage::Leave,
        (false, true) => OnDamage::SetAside,
        (false, false) => OnDamage::Refuse,
    };
    let is_covered = |(run, last): &(Incarnation, IntentNo)| {
        let covered = replica.high_water(run).ok().flatten();
        identity.void.contains(run) || covered.is_some_and(|(upto, _)| upto >= *last)
    };
    let (journal, replay, damage) =
        Journal::open(disk, &journal_dir, &keyring.state_key, volume, entropy.clone(), on_damage, &is_covered)?;
    let view = Arc::new(View::new(replica, &state_dir.join("overlay.db"), &keyring.state_key)?);
    let twin = identity.parting.as_ref().map(|parting| (parting, changes));
    let leftover = Leftover::new(&view, replay, damage, identity.void.clone(), twin)?;
    // The journal has none of the others any more.
    identity.void.retain(|run| *run == incarnation || leftover.runs.iter().any(|(left, _)| left == run));
    let own = view.devices()?.into_iter().find(|(slot, _)| *slot == device.slot);
    let counters = counters(&folder, &keyring, device.slot, own.map(|(_, row)| row.next), read_only, entropy)?;
    let pending = Arc::new(Pending::new(view, Arc::new(journal), device, counters));
    Ok(MountedMeta { keyring, folder, identity, driver, kept, pending, leftover, offline })
}

/// Of this run alone, also where a copy of this folder has the same random numbers: it would need our clock and our log,
/// too.
fn fresh_incarnation(identity: &Identity, head: Head, now: Timestamp, entropy: &dyn Entropy) -> Incarnation {
    let mut hash = Blake3::new();
    hash.update(b"hushfs/v1/incarnation").update(&entropy.array::<32>()).update(&head.hash.0);
    hash.update(&now.secs.to_le_bytes()).update(&now.nanos.to_le_bytes());
    identity.incarnations.iter().for_each(|earlier| {
        hash.update(&earlier.0);
    });
    let Hash(hash) = hash.finish();
    Incarnation(std::array::from_fn(|at| hash[at]))
}

/// `logged` is what the log says of them.
fn counters(
    folder: &Arc<StateFolder>,
    keyring: &Arc<Keyring>,
    slot: DeviceSlot,
    logged: Option<Numbers>,
    read_only: bool,
    entropy: Arc<dyn Entropy>,
) -> Result<Counters, MountError> {
    if read_only {
        return Ok(Counters::begin(slot, Numbers::FIRST, Box::new(|_| Ok(())))?);
    }
    let first = numbers::first(folder, &keyring.state_key, keyring.volume(), logged)?;
    let (folder, keyring) = (folder.clone(), keyring.clone());
    let keep =
        move |bound: &Numbers| numbers::put(&folder, &keyring.state_key, keyring.volume(), bound, entropy.as_ref());
    Ok(Counters::begin(slot, first, Box::new(keep))?)
}

/// The replica as it was left, or made anew from the newest checkpoint that can be loaded.
async fn open_replica(
    keep: &Arc<Keep>,
    keyring: &Keyring,
    path: &Path,
    remembered: Head,
) -> Result<Replica, MountError> {
    match Replica::open(path, &keyring.state_key) {
        Ok(replica) if replica.head().0.0 > 0 => return Ok(replica),
        Ok(replica) => drop(replica),
        // What the disk cannot read is as good as gone.
        Err(error @ (MetaError::ReplicaDamaged { .. } | MetaError::Io { .. })) => {
            tracing::warn!("{error}: rebuilding it");
            Replica::delete(path)?;
        }
        Err(error) => return Err(error.into()),
    }
    let mut candidate = match checkpoint::newest(keep.as_ref(), &keyring.roots).await {
        Ok(candidate) => candidate,
        // Without a checkpoint the log tells everything from the start, or says that it was trimmed.
        Err(CheckpointError::Store(_)) => None,
        Err(error) => return Err(error.into()),
    };
    while let Some(manifest) = candidate {
        match continues(&manifest, remembered) {
            Continues::Yes => {}
            Continues::No => {
                keep.forget(&ObjectName::Checkpoint(manifest.seq)).await;
                return Err(MountError::Halted(Halt::Fork { seq: remembered.seq }));
            }
            Continues::Unknown => {
                tracing::warn!("checkpoint {} does not tell its past: the log is read instead", manifest.seq);
                candidate = checkpoint::newest_before(keep.as_ref(), &keyring.roots, manifest.seq).await?;
                continue;
            }
        }
        match checkpoint::load(keep.clone(), &manifest, &keyring.roots, path, &keyring.state_key).await {
            Ok(replica) => return Ok(replica),
            Err(
                error @ (CheckpointError::Damaged { .. } | CheckpointError::Missing { .. } | CheckpointError::Store(_)),
            ) => {
                tracing::error!("{error}: trying an older checkpoint, or the whole log");
                if let CheckpointError::Damaged { object, .. } = &error {
                    keep.forget(object).await;
                }
                candidate = checkpoint::newest_before(keep.as_ref(), &keyring.roots, manifest.seq).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Replica::open(path, &keyring.state_key)?)
}

/// A crash may come between the replica's record and its being remembered, and a mount that may not write remembers
/// nothing.
fn newest_trusted(replica: Head, remembered: Head) -> Head {
    if replica.seq > remembered.seq { replica } else { remembered }
}

enum Continues {
    Yes,
    No,
    Unknown,
}

/// Whether a checkpoint is of the history that this device trusted, as far as it shows. One from before is proven by
/// the records after it.
fn continues(manifest: &Manifest, remembered: Head) -> Continues {
    if remembered.seq > manifest.seq || remembered == Head::EMPTY {
        return Continues::Yes;
    }
    let own = (manifest.seq, manifest.head);
    match manifest.past.iter().chain([&own]).find(|(seq, _)| *seq == remembered.seq) {
        Some((_, hash)) if *hash == remembered.hash => Continues::Yes,
        Some(_) => Continues::No,
        None => Continues::Unknown,
    }
}

/// By the copies of records that this device trusted once, up to the newest of them: so a replica that was lost is
/// whole again without the store. Whether the store still has the same history is asked later, as always.
async fn catch_up(replica: &Replica, kept: &Keep, keyring: &Keyring, remembered: Head) -> Result<(), MountError> {
    loop {
        let (seq, hash) = replica.head();
        let next = Seq(seq.0 + 1);
        if next > remembered.seq {
            return Ok(());
        }
        let Some(bytes) = kept.copy(&ObjectName::Log(next)).await else { return Ok(()) };
        let Ok(record) = Record::open(next, &bytes, &keyring.roots) else { return Ok(()) };
        let found = Head { seq: next, hash: object_hash(&bytes) };
        // An epoch whose key is not known yet: the store will tell.
        if record.next.is_some_and(|next| keyring.roots.root(next.epoch).is_err()) {
            return Ok(());
        }
        if record.prev != hash || (next == remembered.seq && found != remembered) {
            return Ok(());
        }
        apply(replica, &record, found, bytes.len())?;
    }
}

/// This machine saw a rotation that is not completed yet: the slots that open the volume are still those of before.
async fn learn_epoch(store: &dyn Store, kept: &Keep, keyring: &Keyring, replica: &Replica) -> Result<(), MountError> {
    let epoch = replica.epoch();
    if keyring.roots.root(epoch).is_ok() {
        return Ok(());
    }
    let unknown = || KeyringError::BrokenChain(epoch);
    let (_, seq, hash) = replica.ended()?.ok_or_else(unknown)?;
    let bytes =
        kept.get(&ObjectName::Log(seq)).await?.filter(|bytes| object_hash(bytes) == hash).ok_or_else(unknown)?;
    let record = Record::open(seq, &bytes, &keyring.roots).map_err(|_| unknown())?;
    Ok(keyring.follow(store, &record.next.ok_or_else(unknown)?).await?)
}

fn apply(replica: &Replica, record: &Record, head: Head, len: usize) -> Result<(), MetaError> {
    replica.apply(&RecordApply {
        seq: head.seq,
        hash: head.hash,
        epoch: record.epoch,
        next_epoch: record.next.map(|next| next.epoch),
        incarnation: record.incarnation,
        high_water: record.high_water,
        high_water_hash: record.high_water_hash,
        rows: &record.rows,
        record_len: len as u64,
    })
}

struct Mounting {
    store: Arc<dyn Store>,
    driver: LogDriver,
    folder: Arc<StateFolder>,
    identity: Identity,
    keyring: Arc<Keyring>,
    kept: Arc<Keep>,
    /// None only while a checkpoint takes its place.
    replica: Option<Replica>,
    path: std::path::PathBuf,
    /// The head that what is pending was made on.
    known: Seq,
    /// Since then.
    changes: ForeignChanges,
    entropy: Arc<dyn Entropy>,
    owner: (u32, u32),
}

impl Mounting {
    /// At the newest head that this device ever trusted, or beyond.
    fn is_current(&self) -> bool {
        self.driver.machine.head() == self.driver.machine.remembered()
    }

    /// Without the store, that is.
    fn may_wait(&self, read_only: bool) -> bool {
        self.identity.slot.is_some() || (read_only && self.identity.parting.is_some())
    }

    fn put_identity(&self) -> Result<(), MountError> {
        let (key, volume) = (&self.keyring.state_key, self.keyring.volume());
        Ok(self.folder.put_identity(key, volume, &self.identity, self.entropy.as_ref())?)
    }

    /// To the log's head. A store that fails is an error here: whoever waits for a mount wants to know. Where another
    /// copy of this folder has gone on under our number, we go on without one.
    async fn follow(&mut self) -> Result<(), MountError> {
        match self.follow_as_it_is().await {
            Err(MountError::Halted(halt @ Halt::Twin { .. })) => {
                tracing::warn!("{halt}");
                self.give_up_slot()?;
                self.restart(DeviceSlot(0));
                self.follow_as_it_is().await
            }
            followed => followed,
        }
    }

    async fn follow_as_it_is(&mut self) -> Result<(), MountError> {
        let action = self.driver.machine.follow();
        let need = self.driver.run(action).await?;
        self.serve(need, None).await.map(drop)
    }

    /// Durable before a record of the twin is applied: then it would look like one of ours.
    fn give_up_slot(&mut self) -> Result<(), MountError> {
        let parting = Parting::new(self.known, self.replica()?, &self.identity.incarnations)?;
        self.identity.give_up_slot(parting);
        self.put_identity()
    }

    /// Records that a checkpoint replaced are not seen, but the newest run under our number is.
    fn look_for_a_twins_runs(&mut self) -> Result<(), MountError> {
        let Some(slot) = self.identity.slot else { return Ok(()) };
        let Some(row) = self.replica()?.get(&RowKey::Device(slot).encode())? else { return Ok(()) };
        let newest = DeviceRow::decode(&row).map_err(MetaError::from)?.incarnation;
        let runs = &mut self.identity.incarnations;
        match runs.iter().position(|run| *run == newest) {
            // However many runs that wrote nothing come after it, it stays known.
            Some(at) => runs[at..].rotate_left(1),
            None => {
                tracing::warn!("a checkpoint tells of another copy of this device's state folder");
                self.give_up_slot()?;
            }
        }
        Ok(())
    }

    /// Where it is, with this number.
    fn restart(&mut self, slot: DeviceSlot) {
        let start = Start {
            head: self.driver.machine.head(),
            epoch: self.driver.machine.epoch(),
            anchor: self.keyring.anchor,
            remembered: self.driver.machine.remembered(),
            floor: self.driver.machine.floor().copied(),
            slot,
            attempts: self.identity.attempts.clone(),
        };
        self.driver.machine = LogMachine::new(self.keyring.roots.clone(), start);
    }

    /// Takes the first free slot, in the log.
    async fn register(&mut self, device: &DeviceIdentity, clock: &dyn Clock) -> Result<DeviceSlot, MountError> {
        loop {
            let newest = self.replica()?.max_device_slot()?.map_or(0, |slot| slot.0);
            let slot = DeviceSlot(newest.checked_add(1).ok_or(MountError::NoDeviceSlot)?);
            let row = DeviceRow {
                name: device.name.clone(),
                incarnation: device.incarnation,
                next: Numbers::FIRST,
                registered: device.registered,
            };
            let mut rows = vec![(RowKey::Device(slot).encode(), Some(row.encode()))];
            if self.replica()?.get(&RowKey::Inode(InodeId::ROOT).encode())?.is_none() {
                // The volume's first device; in key order.
                let root = root_directory(self.owner, device.registered);
                rows.insert(0, (RowKey::Inode(InodeId::ROOT).encode(), Some(root.encode())));
            }
            let record = Record {
                epoch: Epoch(0),
                seq: Seq(0),
                prev: Hash::ZERO,
                commit_id: self.entropy.array(),
                slot,
                incarnation: device.incarnation,
                high_water: IntentNo(0),
                high_water_hash: Hash::ZERO,
                time: clock.now(),
                rows,
                next: None,
            };
            let pending = PendingCommit {
                commit_id: record.commit_id,
                incarnation: device.incarnation,
                high_water: IntentNo(0),
                high_water_hash: Hash::ZERO,
                replayed: false,
            };
            let action = self.driver.machine.commit(pending);
            let need = self.driver.run(action).await?;
            match self.serve(need, Some(record)).await {
                Ok(_) => {
                    self.identity.slot = Some(slot);
                    return Ok(slot);
                }
                // Another device took it first.
                Err(MountError::Halted(Halt::Conflict { .. })) => self.restart(DeviceSlot(0)),
                Err(error) => return Err(error),
            }
        }
    }

    async fn serve(&mut self, mut need: Need, registration: Option<Record>) -> Result<Head, MountError> {
        const WAITS_MAX: u32 = 4;
        let mut waits = 0;
        let mut patience = Patience::new();
        loop {
            let event = match need {
                Need::Finished(Finished::AtHead(head) | Finished::Committed(head)) => return Ok(head),
                Need::Halt(halt) => return Err(MountError::Halted(halt)),
                Need::Wait(waiting) => {
                    waits += 1;
                    if waits > WAITS_MAX {
                        return Err(MountError::Rollback(waiting));
                    }
                    patience.wait().await;
                    Event::Waited
                }
                Need::Seal { epoch, seq, prev } => {
                    let Some(record) = &registration else { return Err(MountError::NoDeviceSlot) };
                    let record = Record { epoch, seq, prev, ..record.clone() };
                    let bytes = record.seal(&self.keyring.roots, self.entropy.as_ref())?;
                    self.identity.note_attempt(Head { seq, hash: object_hash(&bytes) });
                    self.put_identity()?;
                    Event::Sealed(bytes.into())
                }
                Need::Absorb(absorb) => {
                    let disjoint = match (&registration, absorb.origin) {
                        (Some(ours), Origin::Foreign) => {
                            !Footprint::of(&absorb.record.rows).touches(&Footprint::of(&ours.rows))
                        }
                        _ => true,
                    };
                    if let Some(next) = &absorb.record.next {
                        self.keyring.follow(self.store.as_ref(), next).await.map_err(|error| match error {
                            KeyringError::Store(error) => MountError::Store(error),
                            why => MountError::Halted(Halt::LockedOut { seq: absorb.head.seq, why: why.to_string() }),
                        })?;
                    }
                    if absorb.origin == Origin::Foreign {
                        let before = self.identity.parting.as_ref().and(self.replica.as_ref());
                        self.changes.note(&absorb.record.rows, before)?;
                    }
                    apply(self.replica()?, &absorb.record, absorb.head, absorb.bytes.len())?;
                    Event::Absorbed { disjoint }
                }
                Need::Load(manifest) => {
                    // Heads that the replica remembers must be in the checkpoint's past.
                    let known = |seq| self.replica.as_ref().and_then(|replica| replica.past_head(seq).ok().flatten());
                    if let Some(seq) = super::log::first_disagreement(&manifest, known) {
                        Event::Disagreed { seq }
                    } else {
                        self.replica = None;
                        let roots = &self.keyring.roots;
                        let key = &self.keyring.state_key;
                        let loaded = checkpoint::load(self.kept.clone(), &manifest, roots, &self.path, key).await?;
                        self.replica = Some(loaded);
                        self.changes = ForeignChanges::new(true);
                        Event::Loaded { disjoint: true }
                    }
                }
            };
            need = self.driver.answer(event).await?;
        }
    }

    fn replica(&self) -> Result<&Replica, MetaError> {
        self.replica.as_ref().ok_or(MetaError::MissingRow("the replica"))
    }
}

fn root_directory((uid, gid): (u32, u32), time: Timestamp) -> InodeRow {
    InodeRow {
        mode: mode::DIR | 0o755,
        uid,
        gid,
        rdev: 0,
        nlink: 2,
        size: 0,
        allocated: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 0,
        key: None,
        body: InodeBody::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_continues_what_was_trusted_if_its_past_says_so() {
        let head = |seq, hash| Head { seq: Seq(seq), hash: Hash([hash; 32]) };
        let manifest = Manifest {
            epoch: Epoch(0),
            seq: Seq(9),
            head: Hash([9; 32]),
            segments: Vec::new(),
            high_water: Vec::new(),
            past: vec![(Seq(5), Hash([5; 32])), (Seq(7), Hash([7; 32]))],
        };
        let yes = [Head::EMPTY, head(5, 5), head(7, 7), head(9, 9), head(10, 1)];
        assert!(yes.into_iter().all(|trusted| matches!(continues(&manifest, trusted), Continues::Yes)));
        let no = [head(5, 7), head(7, 5), head(9, 8)];
        assert!(no.into_iter().all(|trusted| matches!(continues(&manifest, trusted), Continues::No)));
        let unknown = [head(4, 5), head(6, 5), head(8, 9)];
        assert!(unknown.into_iter().all(|trusted| matches!(continues(&manifest, trusted), Continues::Unknown)));
    }

    #[test]
    fn the_newest_head_that_was_seen_is_trusted() {
        let head = |seq, hash| Head { seq: Seq(seq), hash: Hash([hash; 32]) };
        assert_eq!(newest_trusted(head(3, 3), head(2, 2)), head(3, 3));
        assert_eq!(newest_trusted(head(2, 2), head(3, 3)), head(3, 3));
        assert_eq!(newest_trusted(head(3, 1), head(3, 2)), head(3, 2));
    }
}
