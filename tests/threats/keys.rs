//! T1, T2, T4: what unlocks the volume. Each device here pinned the volume before, or is new, as the threat has it.

use std::time::{Duration, Instant};

use hushfs::base::{Clock, Epoch, SystemClock, SystemEntropy, VolumeId};
use hushfs::crypto::{KdfError, KdfParameters, Key};
use hushfs::format::{ObjectName, Prefix, Slot, SlotKind, SlotNo, SlotPlace, VolumeObject, VolumeParameters};
use hushfs::meta::commit::RotateError;
use hushfs::meta::keyring::{KeyObjects, KeyringError, Secret, init_volume};
use hushfs::meta::mounting::MountError;
use hushfs::store::{MemoryStore, Op};
use hushfs::vfs::OpenError;

use crate::rig::{PASSWORD, Rig};
use crate::{all_is_right, change, creates, restore, try_new_machine, volume};

const BY_PASSWORD: u16 = 1;
const BY_WORDS: u16 = 2;

fn slot(number: u16) -> ObjectName {
    ObjectName::Slot(Epoch(0), SlotNo::new(number).expect("a number"))
}

fn keyring_error(error: OpenError) -> KeyringError {
    match error {
        OpenError::Mount(MountError::Keyring(error)) => error,
        other => panic!("not refused by the keys, but later: {other}"),
    }
}

/// The requests that a mount makes until it is refused.
fn refused(rig: &mut Rig) -> (KeyringError, Vec<(Op, Option<ObjectName>)>) {
    let before = rig.faults.requests().len();
    let Err(error) = try_new_machine(rig) else { panic!("it opens") };
    (keyring_error(error), rig.faults.requests().split_off(before))
}

/// MEGA's wraps could be changed piece by piece, and the client's behaviour told the server about the key.
#[test]
fn t1_a_changed_wrap_is_refused_whatever_was_changed_and_the_store_learns_nothing_from_it() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    // Head, private half, the root's ephemeral half, its seal, the details and their padding.
    let bits = [9, 18, 20, 60, 100, 130, 131, 150, 163, 170, 220, 280, 307, 310, 2000, 4095].map(|byte| byte * 8 + 3);
    let mut seen = None;
    for bit in bits {
        change(&rig, slot(BY_WORDS), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let (error, requests) = refused(&mut rig);
        // A head that cannot be read is no slot at all.
        let is_of_slots = matches!(error, KeyringError::WrongSecret | KeyringError::Slot(_) | KeyringError::NoSlot);
        assert!(is_of_slots, "bit {bit}: {error}");
        assert!(requests.iter().all(|(op, _)| *op != Op::Create), "bit {bit}");
        assert!(requests.iter().all(|(_, name)| !matches!(name, Some(ObjectName::Log(_)))), "bit {bit}: it went on");
        assert_eq!(
            *seen.get_or_insert_with(|| requests.clone()),
            requests,
            "bit {bit} makes a difference to the store"
        );
        restore(&rig, &whole);
    }
    // The wrap of another place: each slot's under the other's name, and under a number of its own.
    let by_words = whole.peek(&slot(BY_WORDS)).expect("a slot");
    for number in [BY_PASSWORD, 3] {
        rig.memory.plant(slot(number), by_words.clone());
        rig.delete(&slot(BY_WORDS));
        refused(&mut rig);
        restore(&rig, &whole);
    }
    // Halves of two slots of one volume.
    let by_password = whole.peek(&slot(BY_PASSWORD)).expect("a slot");
    change(&rig, slot(BY_WORDS), |bytes| bytes[2000..].copy_from_slice(&by_password[2000..]));
    refused(&mut rig);
    restore(&rig, &whole);
    all_is_right(&try_new_machine(&mut rig).unwrap_or_else(|error| panic!("{error}")));
}

/// Who serves the keys chooses them, unless a device remembers which they were.
#[test]
fn t2_a_device_takes_no_other_volume_and_no_other_root_in_its_volumes_place() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    let now = SystemClock.now();
    // Another volume under the same password.
    let other = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let init = init_volume(&other, PASSWORD, KdfParameters::FLOOR, true, now, &SystemEntropy);
    runtime.block_on(init).expect("init");
    restore(&rig, &other);
    let before = rig.faults.requests().len();
    let Err(error) = rig.try_mount() else { panic!("it opens") };
    assert!(matches!(keyring_error(error), KeyringError::OtherVolume { .. }));
    assert_eq!(creates(&rig, before), []);

    // The same volume with another root, by somebody who knows the password: a member who was removed, say.
    restore(&rig, &whole);
    let volume: VolumeId = rig.roots().volume();
    let root = Key::generate(&SystemEntropy);
    let number = SlotNo::new(BY_PASSWORD).expect("a number");
    let place = SlotPlace { volume, epoch: Epoch(0), number };
    let forged = Slot::seal_password(place, &root, PASSWORD, KdfParameters::FLOOR, "password", now, &SystemEntropy);
    let parameters = VolumeParameters { created: now, single_device: false };
    let object = VolumeObject::create(volume, &root, &parameters, &SystemEntropy);
    for name in rig.objects(Prefix::Everything) {
        rig.delete(&name);
    }
    rig.memory.plant(slot(BY_PASSWORD), forged.expect("a slot").encode().into());
    rig.memory.plant(ObjectName::Volume, object.bytes().to_vec().into());
    let before = rig.faults.requests().len();
    let Err(error) = rig.try_mount() else { panic!("it opens") };
    assert!(matches!(keyring_error(error), KeyringError::OtherRoot));
    assert_eq!(creates(&rig, before), []);

    restore(&rig, &whole);
    all_is_right(&rig.mount());
}

/// Seafile and EncFS believed what the server said about the derivation.
#[test]
fn t4_a_derivation_that_is_too_cheap_or_too_dear_is_refused_before_it_runs() {
    let mut rig = volume();
    let whole = rig.memory.fork();
    let set =
        |at: usize, value: u32| move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let (memory, passes, lanes) = (9, 13, 17);
    type IsIt = fn(&KdfError) -> bool;
    let cases: [(usize, u32, IsIt); 6] = [
        (memory, 8, |error| matches!(error, KdfError::MemoryBelowFloor(8))),
        (memory, u32::MAX, |error| matches!(error, KdfError::MemoryAboveCeiling(_))),
        (passes, 1, |error| matches!(error, KdfError::PassesBelowFloor(1))),
        (passes, u32::MAX, |error| matches!(error, KdfError::PassesAboveCeiling(_))),
        (lanes, 0, |error| matches!(error, KdfError::Lanes(0))),
        (lanes, 1 << 24, |error| matches!(error, KdfError::Lanes(_))),
    ];
    for (index, (at, value, is_it)) in cases.into_iter().enumerate() {
        change(&rig, slot(BY_PASSWORD), set(at, value));
        rig.become_new_machine(&format!("cheap{index}"));
        let start = Instant::now();
        let Err(error) = rig.try_mount() else { panic!("{value} at {at}: it opens") };
        match keyring_error(error) {
            KeyringError::Kdf(error) => assert!(is_it(&error), "{error}"),
            other => panic!("{value} at {at}: {other}"),
        }
        assert!(start.elapsed() < Duration::from_secs(2), "it derived first");
        restore(&rig, &whole);
    }
    // Within the bounds, but not what it was sealed with.
    change(&rig, slot(BY_PASSWORD), set(memory, (64 << 10) + 8));
    rig.become_new_machine("changed");
    let Err(error) = rig.try_mount() else { panic!("it opens") };
    assert!(matches!(keyring_error(error), KeyringError::WrongSecret));
    restore(&rig, &whole);
    // Another suite than the one there is, in the first seal of the slot.
    change(&rig, slot(BY_WORDS), |bytes| {
        // Behind the time, which is two varints.
        let last_bytes = bytes.iter().enumerate().skip(9).filter(|(_, byte)| **byte < 0x80);
        let suite = last_bytes.map(|(at, _)| at + 1).nth(1).expect("the suite");
        assert_eq!(bytes[suite], 1);
        bytes[suite] = 0;
    });
    let Err(error) = try_new_machine(&mut rig) else { panic!("it opens") };
    assert!(matches!(keyring_error(error), KeyringError::WrongSecret));
}

/// The store says which slots there are. Neither many of them nor large ones may cost more than a few reads and tries.
#[test]
fn t4_any_number_of_planted_slots_and_links_costs_a_bounded_number_of_reads_and_tries() {
    let mut rig = volume();
    let genuine = [slot(BY_PASSWORD), slot(BY_WORDS)].map(|name| rig.memory.peek(&name).expect("a slot"));
    for number in 3..500 {
        rig.memory.plant(slot(number), genuine[usize::from(number % 2)].clone());
    }
    for epoch in 1..=300 {
        rig.memory.plant(ObjectName::Chain(Epoch(epoch)), vec![0; if epoch % 2 == 0 { 4096 } else { 1 << 20 }].into());
        for number in [1, 2, 3] {
            let name = ObjectName::Slot(Epoch(epoch), SlotNo::new(number).expect("a number"));
            rig.memory.plant(name, genuine[usize::from(number % 2)].clone());
        }
    }
    let before = rig.faults.requests().len();
    rig.become_new_machine("planted");
    let start = Instant::now();
    // All slots that are looked at are planted, so it cannot open; but it must say so soon.
    let Err(error) = rig.try_mount_by_words() else { panic!("it opens") };
    assert!(matches!(keyring_error(error), KeyringError::WrongSecret));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let requests = rig.faults.requests().split_off(before);
    let reads =
        requests.iter().filter(|(op, name)| *op == Op::Get && matches!(name, Some(ObjectName::Slot(..)))).count();
    assert!(reads <= 64, "{reads} slots were read");
    // What is kept in memory meanwhile is of a link's length.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let objects = runtime.block_on(KeyObjects::fetch(&rig.memory)).expect("the key objects");
    assert_eq!((objects.slots.len(), objects.chain.len()), (64, 150));
    // Of the secret's kind no more than 16 are tried, each of which may take a second.
    let wrong = Secret::Password(zeroize::Zeroizing::new(b"wrong".to_vec()));
    let try_all = |slots: Vec<_>| {
        let start = Instant::now();
        let many = KeyObjects { slots, ..objects.clone() };
        assert!(matches!(many.unlock(&wrong, u64::MAX), Err(KeyringError::WrongSecret)));
        start.elapsed()
    };
    let by_password: Vec<_> =
        objects.slots.iter().filter(|slot| matches!(slot.info().kind, SlotKind::Password { .. })).cloned().collect();
    let one = try_all(by_password[..1].to_vec());
    let sixteen = try_all(by_password.iter().cycle().take(128).cloned().collect());
    assert!(sixteen < one * 48, "{sixteen:?}, and one takes {one:?}");
}

/// A rotation lets in whoever has a slot now. A store that hides all of them must not make it lock everybody out.
#[test]
fn t3_a_rotation_that_would_leave_no_slot_does_not_happen() {
    let mut rig = volume();
    try_new_machine(&mut rig).unwrap_or_else(|error| panic!("{error}"));
    let (whole, before) = (rig.memory.fork(), rig.faults.requests().len());
    for name in rig.objects(Prefix::Slots) {
        rig.delete(&name);
    }
    let error = rig.volume().rotate(None).expect_err("rotated");
    assert!(matches!(error, RotateError::Keyring(KeyringError::LastSlot)), "{error}");
    assert_eq!(creates(&rig, before), []);
    restore(&rig, &whole);
    rig.volume().rotate(None).expect("rotated");
    rig.close();
    all_is_right(&try_new_machine(&mut rig).unwrap_or_else(|error| panic!("{error}")));
}
