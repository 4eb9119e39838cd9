//! T3: somebody is shut out. The store helps them: it keeps what it was told to delete, and shows what they make.

use hushfs::base::{Clock, DeviceSlot, Epoch, Hash, Incarnation, InodeId, IntentNo, Seq, SystemClock, SystemEntropy};
use hushfs::crypto::{Roots, parse_identities};
use hushfs::format::rows::{RowKey, XattrName};
use hushfs::format::{HighWater, Manifest, ObjectName, Prefix, Record, SlotNo, object_hash};
use hushfs::meta::keyring::{KeyObjects, KeyringError, Secret, Trust, add_recipient};
use hushfs::meta::log::{Halt, Waiting};
use hushfs::meta::mounting::MountError;
use hushfs::store::{Fault, Op, Rule, Store, StoreErrorKind, When};
use hushfs::vfs::OpenError;

use crate::rig::{Files, Rig, chain, noise};
use crate::{all_is_right, new_machine, restore, try_new_machine, volume};

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

fn their_secret() -> Secret {
    Secret::Identity(parse_identities(IDENTITY).expect("an identity"))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A volume that somebody else is let into by their key.
fn shared_volume() -> (Rig, SlotNo) {
    let rig = volume();
    let slot = let_in(&rig);
    (rig, slot)
}

fn let_in(rig: &Rig) -> SlotNo {
    block_on(async {
        let objects = KeyObjects::fetch(&rig.memory).await.expect("the key objects");
        let opened = objects.unlock(&Secret::Recovery(rig.words.duplicate()), u64::MAX).expect("unlocked");
        let public = parse_identities(IDENTITY).expect("an identity")[0].public();
        let added = add_recipient(&rig.memory, &opened, public, "them", SystemClock.now(), &SystemEntropy).await;
        added.expect("a slot")
    })
}

/// On a machine of their own.
fn try_by_identity(rig: &mut Rig) -> Result<Files, OpenError> {
    let next = format!("{}-theirs", rig.machine);
    rig.become_new_machine(&next);
    rig.adjust = |options| options.trust = Trust::First;
    rig.try_mount_by(their_secret())
}

/// By a machine that has the volume, which then writes something.
fn rotate(rig: &mut Rig, without: Option<SlotNo>) {
    let files = new_machine(rig);
    rig.volume().rotate(without).expect("rotated");
    files.save("after", &noise(7, 200_000)).expect("saved");
    rig.flush();
    rig.close();
}

fn head(rig: &Rig) -> (Seq, Hash) {
    let newest = *rig.objects(Prefix::Log).last().expect("a record");
    let ObjectName::Log(seq) = newest else { panic!("{newest}") };
    (seq, object_hash(&rig.memory.peek(&newest).expect("the record")))
}

fn slots(rig: &Rig) -> Vec<ObjectName> {
    rig.objects(Prefix::Slots).into_iter().filter(|name| matches!(name, ObjectName::Slot(..))).collect()
}

#[test]
fn t3_who_is_let_in_reads_all_and_needs_the_fingerprint_first() {
    let (mut rig, _) = shared_volume();
    all_is_right(&try_by_identity(&mut rig).unwrap_or_else(|error| panic!("{}", chain(&error))));
    rig.close();
    rig.become_new_machine("untold");
    rig.adjust = |_| {};
    let Err(OpenError::Mount(MountError::Keyring(error))) = rig.try_mount_by(their_secret()) else {
        panic!("it opens")
    };
    assert!(matches!(error, KeyringError::FingerprintNeeded), "{error}");
    rig.adjust = |options| options.trust = Trust::Fingerprint("0000-0000".into());
    let Err(OpenError::Mount(MountError::Keyring(error))) = rig.try_mount_by(their_secret()) else {
        panic!("it opens")
    };
    assert!(matches!(error, KeyringError::OtherFingerprint { .. }), "{error}");
}

#[test]
fn t3_all_who_stay_follow_a_rotation_without_their_secret() {
    let (mut rig, _) = shared_volume();
    // A machine that was there before.
    all_is_right(&new_machine(&mut rig));
    rig.close();
    let before = rig.machine.clone();
    rotate(&mut rig, None);
    assert!(slots(&rig).iter().all(|name| matches!(name, ObjectName::Slot(Epoch(1), _))), "{:?}", slots(&rig));
    rotate(&mut rig, None);
    rig.become_new_machine(&before);
    let files = rig.try_mount_by_words().expect("followed");
    assert_eq!(files.read("after").expect("read"), noise(7, 200_000));
    all_is_right(&files);
    rig.close();
    let files = try_by_identity(&mut rig).expect("let in");
    assert_eq!(files.read("after").expect("read"), noise(7, 200_000));
    rig.close();
    rig.become_new_machine("by password");
    let files = rig.try_mount().expect("opened");
    assert_eq!(files.read("after").expect("read"), noise(7, 200_000));
    all_is_right(&files);
}

#[test]
fn t3_who_is_shut_out_reads_nothing_that_was_written_after() {
    let (mut rig, theirs) = shared_volume();
    all_is_right(&try_by_identity(&mut rig).expect("let in"));
    rig.close();
    let their_machine = rig.machine.clone();
    let before = rig.memory.fork();
    rotate(&mut rig, Some(theirs));
    let Err(error) = try_by_identity(&mut rig) else { panic!("a removed slot opens a new machine") };
    assert!(matches!(error, OpenError::Mount(MountError::Keyring(KeyringError::NoSlot))), "{}", chain(&error));
    // The store kept their slot, and hides the newer ones' link.
    for name in before_slots(&before) {
        rig.memory.plant(name, before.peek(&name).expect("a slot"));
    }
    for machine in [their_machine, format!("{}-again", rig.machine)] {
        rig.become_new_machine(&machine);
        rig.adjust = |options| options.trust = Trust::First;
        let Err(error) = rig.try_mount_by(their_secret()) else { panic!("{machine} follows") };
        assert!(matches!(error, OpenError::Mount(MountError::Halted(Halt::LockedOut { .. }))), "{}", chain(&error));
    }
}

fn before_slots(store: &hushfs::store::MemoryStore) -> Vec<ObjectName> {
    let names = block_on(store.list(Prefix::Slots)).expect("a listing");
    names.into_iter().filter(|name| matches!(name, ObjectName::Slot(Epoch(0), _))).collect()
}

/// Content that was there is stored once more under new keys, not referred to.
#[test]
fn t3_after_a_rotation_nothing_is_put_under_old_keys() {
    let mut rig = volume();
    let files = new_machine(&mut rig);
    let packs = rig.objects(Prefix::Packs).len();
    files.save("copy before", &noise(3, 3 << 20)).expect("saved");
    rig.flush();
    assert_eq!(rig.objects(Prefix::Packs).len(), packs, "dedup does not work");
    rig.volume().rotate(None).expect("rotated");
    files.save("copy after", &noise(3, 3 << 20)).expect("saved");
    // A file that was there, and open, gets a key of the new epoch, too.
    files.save("one", &noise(1, 100_000)).expect("saved");
    rig.flush();
    assert!(rig.objects(Prefix::Packs).len() > packs, "old chunks are referred to");
    all_is_right(&files);
    rig.close();
    all_is_right(&new_machine(&mut rig));
}

fn record(roots: &Roots, epoch: Epoch, (seq, prev): (Seq, Hash)) -> Record {
    let key = RowKey::Xattr(InodeId::ROOT, XattrName::parse("user.forged").expect("a name"));
    Record {
        epoch,
        seq: Seq(seq.0 + 1),
        prev,
        commit_id: [5; 16],
        slot: DeviceSlot(40),
        incarnation: Incarnation([5; 16]),
        high_water: IntentNo(1),
        high_water_hash: Hash::ZERO,
        time: SystemClock.now(),
        rows: vec![(key.encode(), Some(roots.volume().0.to_vec()))],
        next: None,
    }
}

#[test]
fn t3_a_record_under_a_key_that_was_ended_is_refused_by_all_who_know_it() {
    let (mut rig, theirs) = shared_volume();
    let old = rig.roots();
    rotate(&mut rig, Some(theirs));
    let machine = rig.machine.clone();
    let whole = rig.memory.fork();
    let at = head(&rig);
    let forged = record(&old, Epoch(0), at);
    rig.memory.plant(ObjectName::Log(forged.seq), forged.seal(&old, &SystemEntropy).expect("sealed").into());
    let Err(error) = try_new_machine(&mut rig) else { panic!("a new machine takes it") };
    let named = matches!(error, OpenError::Mount(MountError::Rollback(Waiting::EndedEpoch(seq))) if seq == forged.seq);
    assert!(named, "{}", chain(&error));
    // Who was there before goes on with what it knows, as with a damaged record.
    rig.become_new_machine(&machine);
    all_is_right(&rig.try_mount_by_words().expect("what it knows"));
    assert!(rig.volume().opened().offline.is_some());
    rig.kill();
    restore(&rig, &whole);
    // The test itself can fail.
    let new = rig.roots();
    let genuine = record(&new, Epoch(1), at);
    rig.memory.plant(ObjectName::Log(genuine.seq), genuine.seal(&new, &SystemEntropy).expect("sealed").into());
    all_is_right(&new_machine(&mut rig));
}

/// Another past: all that they could write while they were let in, but under the name of what came later.
#[test]
fn t3_a_past_that_was_made_up_under_an_old_key_does_not_lead_to_the_new_one() {
    let (mut rig, theirs) = shared_volume();
    let old = rig.roots();
    let (before, at) = (rig.memory.fork(), head(&rig));
    rotate(&mut rig, Some(theirs));
    let whole = rig.memory.fork();
    // A checkpoint with rows of theirs, at a place that the log then goes through.
    let manifest = Manifest {
        epoch: Epoch(0),
        seq: at.0,
        head: at.1,
        segments: Vec::new(),
        high_water: vec![HighWater { incarnation: Incarnation([5; 16]), intent: IntentNo(1), hash: Hash::ZERO }],
        past: Vec::new(),
    };
    for name in rig.objects(Prefix::Checkpoints) {
        rig.delete(&name);
    }
    rig.memory.plant(ObjectName::Checkpoint(at.0), manifest.seal(&old, &SystemEntropy).expect("sealed").into());
    all_is_right(&new_machine(&mut rig));
    rig.close();
    restore(&rig, &whole);
    // The log ends before the rotation, with a record of theirs.
    let forged = record(&old, Epoch(0), at);
    for name in rig.objects(Prefix::Log) {
        if before.peek(&name).is_none() {
            rig.delete(&name);
        }
    }
    rig.memory.plant(ObjectName::Log(forged.seq), forged.seal(&old, &SystemEntropy).expect("sealed").into());
    for name in rig.objects(Prefix::Checkpoints) {
        rig.delete(&name);
    }
    let Err(error) = try_new_machine(&mut rig) else { panic!("a new machine takes the forged past") };
    assert!(
        matches!(error, OpenError::Mount(MountError::Rollback(_) | MountError::Halted(Halt::Fork { .. }))),
        "{}",
        chain(&error)
    );
}

/// Whatever is lost on the way, the volume opens afterwards for all who stay, and nobody else.
#[test]
fn t3_a_rotation_that_is_interrupted_is_completed_or_never_began() {
    for nth in 1..=8 {
        for fault in [Fault::Fail(StoreErrorKind::Denied), Fault::ApplyThenFail(StoreErrorKind::Unknown)] {
            let (mut rig, theirs) = shared_volume();
            new_machine(&mut rig);
            rig.faults.add(Rule::on(Op::Create, fault.clone()).when(When::Nth(nth)));
            let outcome = rig.volume().rotate(Some(theirs));
            rig.faults.clear();
            rig.kill();
            let what = format!("create {nth} {fault:?}: {:?}", outcome.as_ref().map_err(ToString::to_string));
            // The same machine, then one that was never there.
            let files = rig.try_mount_by_words().unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
            all_is_right(&files);
            files.save("after", &noise(7, 1000)).expect("saved");
            rig.flush();
            rig.volume().rotate(Some(theirs)).or_else(|_| rig.volume().rotate(None)).expect("rotated");
            rig.close();
            let files = new_machine(&mut rig);
            all_is_right(&files);
            assert_eq!(files.read("after").expect("read"), noise(7, 1000), "{what}");
            rig.close();
            assert!(try_by_identity(&mut rig).is_err(), "{what}");
        }
    }
}

#[test]
fn t3_the_own_and_the_last_slot_cannot_be_removed() {
    let mut rig = volume();
    new_machine(&mut rig);
    let number = |number| SlotNo::new(number).expect("a number");
    // The words are slot 2, by which this machine is mounted.
    assert!(rig.volume().rotate(Some(number(2))).is_err());
    assert!(rig.volume().rotate(Some(number(77))).is_err());
    rig.volume().rotate(Some(number(1))).expect("rotated");
    assert!(rig.volume().rotate(Some(number(2))).is_err());
    rig.close();
    rig.become_new_machine("by password");
    assert!(rig.try_mount().is_err(), "a removed password opens the volume");
    all_is_right(&new_machine(&mut rig));
}
