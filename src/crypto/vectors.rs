//! Project Wycheproof's vectors against the very functions that sealing rests on: they know the mistakes that others
//! made with these algorithms.

use super::Key;
use super::exchange::{PrivateHalf, PublicHalf, raw_exchange};
use super::seal::{
    Derived, NONCE_LEN, bulk_key, decrypt_into, decrypt_small, encrypt_in_place, encrypt_small, hkdf, hmac,
};
use wycheproof::TestResult;

#[test]
fn gcm_by_both_implementations() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).expect("vectors");
    let ours = |group: &&wycheproof::aead::TestGroup| {
        (group.key_size, group.nonce_size, group.tag_size) == (256, NONCE_LEN * 8, 128)
    };
    let mut seen = [0, 0];
    for group in set.test_groups.iter().filter(ours) {
        for test in &group.tests {
            let derived = Derived {
                key: test.key[..].try_into().expect("a key"),
                commit: [0; 32],
                nonce: test.nonce[..].try_into().expect("a nonce"),
            };
            let key = bulk_key(&derived.key);
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let (mut small, mut bulk) = (vec![0; test.ct.len()], vec![0; test.ct.len()]);
            let opened = [
                decrypt_small(&derived, &test.aad, &sealed, &mut small),
                decrypt_into(&key, derived.nonce, &test.aad, &sealed, &mut bulk),
            ];
            let is_valid = test.result == TestResult::Valid;
            seen[usize::from(is_valid)] += 1;
            assert_eq!(opened.map(|opened| opened.is_ok()), [is_valid; 2], "case {}: {}", test.tc_id, test.comment);
            if !is_valid {
                continue;
            }
            assert_eq!((&small[..], &bulk[..]), (&test.pt[..], &test.pt[..]), "case {}", test.tc_id);
            let tags = [
                encrypt_small(&derived, &test.aad, &mut small),
                encrypt_in_place(&key, derived.nonce, &test.aad, &mut bulk),
            ];
            assert_eq!((&small[..], &bulk[..]), (&test.ct[..], &test.ct[..]), "case {}", test.tc_id);
            assert!(tags.iter().all(|tag| tag[..] == test.tag[..]), "case {}", test.tc_id);
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).expect("vectors");
    let mut seen = 0;
    // What is invalid asks for more bytes than HKDF gives; no caller here chooses a length.
    for test in set.test_groups.iter().flat_map(|group| &group.tests).filter(|test| test.result == TestResult::Valid) {
        let mut out = vec![0; test.size];
        hkdf(&test.ikm, &test.salt, &[&test.info], &mut out);
        assert_eq!(out[..], test.okm[..], "case {}: {}", test.tc_id, test.comment);
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn hmac_sha256() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).expect("vectors");
    let mut seen = [0, 0];
    for test in set.test_groups.iter().filter(|group| group.tag_size == 256).flat_map(|group| &group.tests) {
        let is_valid = test.result == TestResult::Valid;
        seen[usize::from(is_valid)] += 1;
        assert_eq!(hmac(&test.key, &[&test.msg])[..] == test.tag[..], is_valid, "case {}", test.tc_id);
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn x25519_and_what_of_it_is_refused() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).expect("vectors");
    let (mut seen, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(public), Some(private)) = (test.public_key[..].try_into(), Key::try_from_slice(&test.private_key))
        else {
            assert_ne!(test.result, TestResult::Valid, "case {}", test.tc_id);
            continue;
        };
        let shared = raw_exchange(&PrivateHalf::from_key(private), &PublicHalf(public));
        // A shared secret of zeros is what a half of low order forces on everybody.
        let is_zero = test.shared_secret.iter().all(|byte| *byte == 0);
        assert_eq!(shared.was_contributory(), !is_zero, "case {}: {}", test.tc_id, test.comment);
        assert_eq!(shared.as_bytes()[..], test.shared_secret[..], "case {}: {}", test.tc_id, test.comment);
        seen += 1;
        refused += usize::from(is_zero);
    }
    assert!(seen > 400 && refused > 10, "{seen} {refused}");
}
