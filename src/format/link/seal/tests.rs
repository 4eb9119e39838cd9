use super::super::{LinkError, Status, seal_link_chunk, tombstone};
use super::*;
use crate::base::{SystemEntropy, VolumeId};
use crate::format::testing::{key, noise};

const NOW: Timestamp = Timestamp { secs: 1_700_000_000, nanos: 0 };

fn keys() -> LinkKeys {
    LinkKeys::generate(None, &SystemEntropy)
}

fn header(keys: &LinkKeys) -> Header {
    let (_, chunk) = seal_link_chunk(keys.id(), &keys.content_root(), b"index", (1, 0), &SystemEntropy);
    let title = Name::parse("photos").unwrap();
    Header { title, published: NOW, kind: RootKind::Directory, files: 3, bytes: 4096, index: vec![chunk] }
}

fn object(keys: &LinkKeys, number: u64) -> Vec<u8> {
    keys.seal(number, None, &header(keys), &SystemEntropy).unwrap()
}

fn verify(keys: &LinkKeys, number: u64, object: &[u8]) -> Result<SignedRecord, LinkError> {
    SignedRecord::verify(keys.id(), number, object.to_vec())
}

fn contents(keys: &LinkKeys, number: u64, password: Option<&[u8]>) -> Result<Contents, LinkError> {
    verify(keys, number, &object(keys, number))?.open(&keys.secret)?.contents(password)
}

#[test]
fn a_record_opens_with_its_secret_and_has_a_padded_length() {
    let keys = keys();
    let object = object(&keys, 7);
    assert_eq!(padding::padded_len(object.len() as u64), object.len() as u64);
    let record = verify(&keys, 7, &object).unwrap();
    assert_eq!((record.number(), record.expiry(), record.status(NOW)), (7, None, Status::Current));
    let outer = record.open(&keys.secret).unwrap();
    assert!(!outer.needs_password());
    assert_eq!(outer.contents_with(&keys).unwrap(), outer.contents(None).unwrap());
    assert_eq!(outer.contents(None).unwrap(), Contents { header: header_of(&outer), root: keys.content_root() });
    let other = self::keys();
    assert_eq!(verify(&keys, 7, &object).unwrap().open(&other.secret).unwrap_err(), LinkError::WrongSecret);
}

fn header_of(outer: &Outer) -> Header {
    let header = outer.contents(None).unwrap().header;
    assert_eq!((header.title.as_bytes(), header.files, header.bytes), (&b"photos"[..], 3, 4096));
    header
}

#[test]
fn every_bit_is_signed_and_a_record_belongs_to_its_name() {
    let keys = keys();
    let mut object = object(&keys, 7);
    assert_eq!(verify(&keys, 8, &object).unwrap_err(), LinkError::NotTheOwners);
    assert_eq!(verify(&self::keys(), 7, &object).unwrap_err(), LinkError::NotTheOwners);
    for at in 0..object.len() {
        object[at] ^= 0x10;
        assert!(verify(&keys, 7, &object).is_err(), "byte {at}");
        object[at] ^= 0x10;
    }
    for len in [0, 9, 57, 58, 121, 122, 202, object.len() - 1] {
        assert!(verify(&keys, 7, &object[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn another_holder_of_the_link_cannot_publish() {
    let owner = keys();
    // They have the secret, and with it the content root, but another key to sign with.
    let holder = LinkKeys { seed: key(5), secret: owner.secret.duplicate(), ..keys() };
    let forged = holder.seal(8, None, &header(&owner), &SystemEntropy).unwrap();
    assert_eq!(verify(&owner, 8, &forged).unwrap_err(), LinkError::NotTheOwners);
    // Nor with the owner's public key put in.
    let mut stolen = forged;
    stolen[10..42].copy_from_slice(&owner.signer().verifying_key().0);
    assert_eq!(verify(&owner, 8, &stolen).unwrap_err(), LinkError::NotTheOwners);
    let mut tomb = tombstone(&holder.signer(), 8);
    tomb[10..42].copy_from_slice(&owner.signer().verifying_key().0);
    assert_eq!(verify(&owner, 8, &tomb).unwrap_err(), LinkError::NotTheOwners);
}

#[test]
fn a_password_is_needed_and_a_wrong_one_is_told_from_damage() {
    let keys = keys().with_password(b"correct horse", &SystemEntropy).unwrap();
    assert_eq!(contents(&keys, 1, None).unwrap_err(), LinkError::PasswordNeeded);
    assert_eq!(contents(&keys, 1, Some(b"correct house")).unwrap_err(), LinkError::WrongPassword);
    assert_eq!(contents(&keys, 1, Some(b"correct horse")).unwrap().root, keys.content_root());
    assert!(keys.has_password(b"correct horse").unwrap() && !keys.has_password(b"x").unwrap());
    // Its owner needs none.
    let outer = verify(&keys, 1, &object(&keys, 1)).unwrap().open(&keys.secret).unwrap();
    assert!(outer.needs_password());
    assert_eq!(outer.contents_with(&keys).unwrap(), outer.contents(Some(b"correct horse")).unwrap());
    // The secret alone leads elsewhere.
    assert_ne!(link_content_root(&keys.secret, None), keys.content_root());
}

#[test]
fn derivations_out_of_bounds_are_refused_before_they_are_made() {
    let refused = |kdf| {
        let protection = LinkProtection::Password { kdf, salt: [1; 32], root: key(3) };
        contents(&LinkKeys { protection, ..keys() }, 1, Some(b"x")).unwrap_err()
    };
    let floor = KdfParameters::FLOOR;
    assert!(matches!(refused(KdfParameters { memory_kib: 8, ..floor }), LinkError::Kdf(_)));
    assert!(matches!(refused(KdfParameters { passes: 2, ..floor }), LinkError::Kdf(_)));
    for kdf in [
        KdfParameters { memory_kib: (1 << 20) + 1, ..floor },
        KdfParameters { passes: 17, ..floor },
        KdfParameters { lanes: 17, ..floor },
    ] {
        assert_eq!(refused(kdf), LinkError::KdfTooCostly);
    }
    assert_eq!((check(&KDF_CEILING), check(&floor)), (Ok(()), Ok(())));
}

#[test]
fn a_recipients_link_has_no_secret_and_opens_for_them_only() {
    let (own, other) = (PrivateHalf::generate(&SystemEntropy), PrivateHalf::generate(&SystemEntropy));
    let keys = LinkKeys::generate(Some(own.public()), &SystemEntropy);
    let record = verify(&keys, 2, &object(&keys, 2)).unwrap();
    assert!(record.is_for_recipient());
    assert_eq!(record.secret_for(&other).unwrap_err(), LinkError::NotRecipient);
    let secret = record.secret_for(&own).unwrap();
    assert_eq!(secret, keys.secret);
    assert!(record.open(&secret).unwrap().contents(None).is_ok());
    let open_to_all = self::keys();
    let plain = verify(&open_to_all, 2, &object(&open_to_all, 2)).unwrap();
    assert!(!plain.is_for_recipient());
    assert_eq!(plain.secret_for(&own).unwrap_err(), LinkError::NotRecipient);
}

#[test]
fn expiry_and_tombstone_are_seen_without_a_key() {
    let keys = keys();
    let at = |secs| Timestamp::new(secs, 0);
    let object = keys.seal(3, Some(at(1_700_000_100)), &header(&keys), &SystemEntropy).unwrap();
    let record = verify(&keys, 3, &object).unwrap();
    assert_eq!(record.expiry(), Some(at(1_700_000_100)));
    assert_eq!(record.status(at(1_700_000_099)), Status::Current);
    assert_eq!(record.status(at(1_700_000_100)), Status::Expired);
    let tomb = tombstone(&keys.signer(), 4);
    let tomb = verify(&keys, 4, &tomb).unwrap();
    assert_eq!(tomb.status(NOW), Status::Revoked);
    assert_eq!(tomb.open(&keys.secret).unwrap_err(), LinkError::Revoked);
}

#[test]
fn records_that_are_signed_and_still_impossible_are_refused() {
    let keys = keys();
    let why = |number, change: &dyn Fn(&mut Vec<u8>)| {
        let mut object = object(&keys, number);
        object.truncate(object.len() - SIGNATURE_LEN);
        change(&mut object);
        match verify(&keys, number, &record::signed(&keys.signer(), object)).unwrap_err() {
            LinkError::Format(error) => error.why,
            _ => "another error",
        }
    };
    assert_eq!(why(1, &|object| object[8] = 2), "a kind or flag that is not known");
    assert_eq!(why(1, &|object| object[9] = 2), "a kind or flag that is not known");
    assert_eq!(why(1, &|object| object[8] = 1), "a tombstone that holds something");
    assert_eq!(why(1, &|object| object.truncate(138)), "cut short");
    assert_eq!(why(1, &|object| object[7] = b'2'), "another kind of object, or a newer format");
    assert_eq!(why(0, &|_| {}), "a number of 0");
    assert_eq!(why(1, &|object| object.resize(1 << 20, 0)), "over 1 MiB");

    // Of the shortest and of the longest nothing opens, but they are the owner's.
    let is_taken = |len| {
        let mut object = object(&keys, 1);
        object.resize(len - SIGNATURE_LEN, 0);
        verify(&keys, 1, &record::signed(&keys.signer(), object)).is_ok()
    };
    let least = record::head_len(false) + SEAL_OVERHEAD + SIGNATURE_LEN;
    assert!(is_taken(least) && !is_taken(least - 1));
    assert!(is_taken(1 << 20) && !is_taken((1 << 20) + 1));
}

/// T15, of the record: with the same keys nothing of a link opens as something of a volume, whatever ids they have.
#[test]
fn what_a_link_seals_is_of_kinds_and_keys_of_its_own() {
    let keys = keys();
    let record = verify(&keys, 1, &object(&keys, 1)).unwrap();
    let volume = VolumeId(keys.id().0);
    for kind in Kind::ALL {
        let fields: [&[u8]; 2] = [&1u64.to_le_bytes(), record.head()];
        let opens = crypto::open(&keys.secret, &Context { volume, kind, id: &fields }, record.sealed()).is_ok();
        assert_eq!(opens, kind == Kind::LinkOuter, "{kind:?}");
    }
}

#[test]
fn an_index_that_no_record_could_name_is_refused_in_writing_and_a_full_one_fits() {
    let keys = keys();
    let (_, chunk) =
        seal_link_chunk(keys.id(), &keys.content_root(), &noise(1 << 20), (u64::MAX, u32::MAX), &SystemEntropy);
    let with = |count| {
        let header = Header { index: vec![chunk.clone(); count], ..header(&keys) };
        keys.seal(1, None, &header, &SystemEntropy)
    };
    let full = with(INDEX_CHUNKS_MAX).unwrap();
    assert!(full.len() as u64 <= record::RECORD_LEN_MAX);
    assert!(verify(&keys, 1, &full).unwrap().open(&keys.secret).unwrap().contents(None).is_ok());
    assert!(with(INDEX_CHUNKS_MAX + 1).is_err() && with(0).is_err());
}

#[test]
fn what_a_header_says_of_its_length_is_judged_before_it_is_unpacked() {
    let why = |len: u64| {
        let mut out = Writer::new();
        out.u8(1).varint(len).raw(&[0; 40]);
        Header::decode(&out.finish()).unwrap_err().why
    };
    assert_eq!(why(INNER_LEN_MAX + 1), "a body over 1 MiB");
    assert_eq!(why(u64::MAX), "a body over 1 MiB");
    assert_ne!(why(INNER_LEN_MAX), "a body over 1 MiB");
}
