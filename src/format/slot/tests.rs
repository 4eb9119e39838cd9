use super::super::testing::{VOLUME, key};
use super::*;
use crate::base::SystemEntropy;

const TIME: Timestamp = Timestamp::new(1_700_000_000, 0);
const FLOOR: KdfParameters = KdfParameters::FLOOR;

fn place() -> SlotPlace {
    SlotPlace { volume: VOLUME, epoch: Epoch(2), number: SlotNo::new(3).unwrap() }
}

fn words() -> RecoveryWords {
    RecoveryWords::parse(&format!("{}art", "abandon ".repeat(23))).unwrap()
}

fn recovery() -> Slot {
    Slot::seal_recovery(place(), &key(1), &words(), "paper", TIME, &SystemEntropy)
}

fn damaged(error: UnlockError) -> bool {
    matches!(error, UnlockError::Damaged(error) if error.is_authentication())
}

#[test]
fn a_password_slot_gives_the_root_to_its_password_only() {
    let slot = Slot::seal_password(place(), &key(1), b"secret", FLOOR, "laptop", TIME, &SystemEntropy).unwrap();
    let bytes = slot.encode();
    assert_eq!(bytes.len() as u64, padding::PADDED_LEN_MIN);
    let slot = Slot::parse(place(), &bytes).unwrap();
    let Unlocked { epoch, root, label, .. } = slot.unlock_password(b"secret").unwrap();
    assert_eq!((epoch, root, label.as_str()), (Epoch(2), key(1), "laptop"));
    assert_eq!(slot.unlock_password(b"Secret").unwrap_err(), UnlockError::WrongSecret);
    assert_eq!(slot.unlock_recovery(&words()).unwrap_err(), UnlockError::NotRecovery);

    // Parameters are part of the context and of the derivation, and are judged before it.
    let with = |at: usize, value: [u8; 4]| {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&value);
        Slot::parse(place(), &bytes).unwrap().unlock_password(b"secret").unwrap_err()
    };
    assert_eq!(with(9, 8u32.to_le_bytes()), KdfError::MemoryBelowFloor(8).into());
    assert_eq!(with(9, u32::MAX.to_le_bytes()), KdfError::MemoryAboveCeiling(u32::MAX).into());
    assert_eq!(with(13, 2u32.to_le_bytes()), KdfError::PassesBelowFloor(2).into());
    assert_eq!(with(17, 0u32.to_le_bytes()), KdfError::Lanes(0).into());
    assert_eq!(with(17, 2u32.to_le_bytes()), UnlockError::WrongSecret);
    assert_eq!(with(21, [0; 4]), UnlockError::WrongSecret);
}

#[test]
fn a_slot_is_not_made_with_parameters_that_would_not_open() {
    let weak = KdfParameters { memory_kib: 8, ..FLOOR };
    let made = Slot::seal_password(place(), &key(1), b"secret", weak, "", TIME, &SystemEntropy);
    assert_eq!(made.unwrap_err(), KdfError::MemoryBelowFloor(8));
}

#[test]
fn a_recovery_slot_gives_the_root_to_its_words_only() {
    let slot = Slot::parse(place(), &recovery().encode()).unwrap();
    assert_eq!(slot.unlock_recovery(&words()).unwrap().root, key(1));
    let others = RecoveryWords::generate(&SystemEntropy);
    assert_eq!(slot.unlock_recovery(&others).unwrap_err(), UnlockError::WrongSecret);
    assert_eq!(slot.unlock_password(b"secret").unwrap_err(), UnlockError::NotPassword);
}

#[test]
fn a_slot_does_not_open_in_another_place() {
    let bytes = recovery().encode();
    let unlock = |place| Slot::parse(place, &bytes).unwrap().unlock_recovery(&words()).unwrap_err();
    assert_eq!(unlock(SlotPlace { volume: VolumeId([8; 16]), ..place() }), UnlockError::WrongSecret);
    assert_eq!(unlock(SlotPlace { number: SlotNo::new(4).unwrap(), ..place() }), UnlockError::WrongSecret);
    // The private half moves with a rotation, the root does not.
    assert!(damaged(unlock(SlotPlace { epoch: Epoch(1), ..place() })));
}

#[test]
fn every_byte_of_a_slot_is_bound() {
    let mut bytes = recovery().encode();
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        let unlocked = Slot::parse(place(), &bytes).map(|slot| slot.unlock_recovery(&words()).is_ok());
        assert!(!unlocked.unwrap_or(false), "byte {at}");
        bytes[at] ^= 1;
    }
    for len in [0, 8, 9, 100, 400, bytes.len() - 1] {
        let unlocked = Slot::parse(place(), &bytes[..len]).map(|slot| slot.unlock_recovery(&words()).is_ok());
        assert!(!unlocked.unwrap_or(false), "{len} bytes");
    }
}

#[test]
fn parts_of_two_slots_of_one_secret_do_not_mix() {
    let (own, other) = (recovery(), recovery());
    let unlock = |slot: Slot| slot.unlock_recovery(&words());
    assert!(damaged(unlock(Slot { root: other.root.clone(), ..own.clone() }).unwrap_err()));
    assert!(damaged(unlock(Slot { details: other.details.clone(), ..own.clone() }).unwrap_err()));
    assert!(damaged(unlock(Slot { private: other.private.clone(), ..own.clone() }).unwrap_err()));
    assert!(unlock(own).is_ok());
}

#[test]
fn a_root_that_names_another_public_half_is_refused() {
    // Somebody who knows the public half seals a root of their own to it, with other details.
    let slot = recovery();
    let public = slot.details(&key(1)).unwrap().public;
    let other = SlotDetails { public: PublicHalf([1; 32]), label: String::new() };
    let mut forged = slot.clone();
    forged.root = forged.with_root_context(|context| crypto::seal_to(&public, context, &[5; 32], &SystemEntropy));
    assert!(damaged(forged.unlock_recovery(&words()).unwrap_err()));
    let mut body = Writer::new();
    body.raw(&other.public.0).bytes(b"");
    let mut body = body.finish();
    padding::pad(&mut body, forged.around(&forged.head()));
    forged.details = forged.with_details_context(|context| crypto::seal(&key(5), context, &body, &SystemEntropy));
    assert_eq!(forged.details(&key(5)).unwrap(), other);
    assert!(damaged(forged.unlock_recovery(&words()).unwrap_err()));
}

#[test]
fn rotation_needs_no_secret_and_keeps_the_fingerprint() {
    let slot = recovery();
    let rotated = slot.rotate(&key(1), Epoch(3), &key(2), &SystemEntropy).unwrap();
    let rotated = Slot::parse(SlotPlace { epoch: Epoch(3), ..place() }, &rotated.encode()).unwrap();
    let Unlocked { epoch, root, label, .. } = rotated.unlock_recovery(&words()).unwrap();
    assert_eq!((epoch, root, label.as_str()), (Epoch(3), key(2), "paper"));
    assert_eq!(rotated.info(), slot.info());
    assert!(slot.rotate(&key(2), Epoch(3), &key(2), &SystemEntropy).unwrap_err().is_authentication());
}

#[test]
fn the_store_sees_kind_and_time_but_neither_public_half_nor_label() {
    let slot = recovery();
    let SlotInfo { number, kind, fingerprint, created } = slot.info();
    assert_eq!((number, kind, fingerprint.len(), created), (place().number, SlotKind::Recovery, 16, TIME));
    let (bytes, details) = (slot.encode(), slot.details(&key(1)).unwrap());
    assert!(!bytes.windows(32).any(|window| window == details.public.0));
    assert!(!bytes.windows(5).any(|window| window == b"paper"));
    assert_ne!(recovery().info().fingerprint, fingerprint);
}

#[test]
fn a_long_label_is_cut_between_characters() {
    let slot = Slot::seal_recovery(place(), &key(1), &words(), &"\u{e4}".repeat(200), TIME, &SystemEntropy);
    assert_eq!(slot.details(&key(1)).unwrap().label, "\u{e4}".repeat(127));
}

#[test]
fn a_label_that_no_writer_leaves_so_long_is_refused() {
    let with = |len: usize| {
        let public = recovery().details(&key(1)).unwrap().public;
        let details = SlotDetails { public, label: "x".repeat(len) };
        let slot = recovery().with_root(&details, &key(1), &SystemEntropy);
        slot.details(&key(1)).map(|details| details.label.len())
    };
    assert_eq!(with(255).unwrap(), 255);
    for len in [256, 300] {
        let error = with(len).unwrap_err();
        assert!(matches!(error, OpenError::Format(FormatError { why: "a label over 255 bytes", .. })), "{error:?}");
    }
}
