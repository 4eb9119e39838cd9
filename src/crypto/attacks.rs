//! Published attacks on AES-GCM, carried out: each succeeds against GCM alone, which shows that the attack is right,
//! and fails against SEAL.

use super::seal::{
    COMMIT_LEN, Derived, HEADER_LEN, SALT_LEN, SUITE, TAG_LEN, decrypt_into, decrypt_small, derive, encrypt_small,
};
use super::*;
use crate::base::{Entropy, VolumeId};
use proptest::prelude::*;

const FAILED: CryptoError = CryptoError::Authentication;

/// An element of GCM's field; the highest bit is the coefficient of 1.
type Element = u128;

fn element(block: &[u8]) -> Element {
    let mut bytes = [0; 16];
    bytes[..block.len()].copy_from_slice(block);
    u128::from_be_bytes(bytes)
}

fn times(a: Element, mut b: Element) -> Element {
    let mut product = 0;
    for bit in (0..128).rev() {
        if (a >> bit) & 1 == 1 {
            product ^= b;
        }
        let carry = b & 1;
        b >>= 1;
        b ^= if carry == 1 { 0xe1 << 120 } else { 0 };
    }
    product
}

fn power(a: Element, mut exponent: u128) -> Element {
    let (mut result, mut square) = (1 << 127, a);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

fn inverse(a: Element) -> Element {
    power(a, u128::MAX - 1)
}

fn lengths(aad: &[u8], body: &[u8]) -> Element {
    ((aad.len() as u128 * 8) << 64) | (body.len() as u128 * 8)
}

/// GHASH of additional data and ciphertext.
fn ghash(h: Element, aad: &[u8], body: &[u8]) -> Element {
    let blocks = aad.chunks(16).chain(body.chunks(16)).map(element).chain([lengths(aad, body)]);
    blocks.fold(0, |sum, block| times(sum ^ block, h))
}

/// What a key and nonce authenticate with: GHASH's point, and the block that hides it. From GCM's own answers.
fn authenticator(derived: &Derived) -> (Element, Element) {
    let mask = element(&encrypt_small(derived, b"", &mut []));
    let tag = element(&encrypt_small(derived, &[0; 16], &mut []));
    (times(tag ^ mask, inverse(lengths(&[0; 16], b""))), mask)
}

const CONTEXT: Context<'static> = Context { volume: VolumeId([9; 16]), kind: Kind::Record, id: &[b"epoch", b"seq"] };

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

/// "Invisible salamanders" (Dodis, Grubbs, Ristenpart, Woodage 2018; CVE-2025-14760 and others).
#[test]
fn one_ciphertext_that_gcm_opens_under_two_keys_is_refused_under_the_second() {
    let (keys, salt, aad) = ([key(1), key(2)], [7; SALT_LEN], CONTEXT.encode());
    let derived = keys.each_ref().map(|key| derive(key, &salt, &CONTEXT, &aad));
    let [(h1, mask1), (h2, mask2)] = derived.each_ref().map(authenticator);
    // Four blocks, of which the third is what makes both tags one: it stands at H^3, before the last and the lengths.
    let mut body = *b"any ciphertext, of which sixteen and only sixteen bytes are free";
    body[32..48].fill(0);
    let difference = ghash(h1, &aad, &body) ^ mask1 ^ ghash(h2, &aad, &body) ^ mask2;
    let free = times(difference, inverse(power(h1, 3) ^ power(h2, 3)));
    body[32..48].copy_from_slice(&free.to_be_bytes());
    let tag = ghash(h1, &aad, &body) ^ mask1;
    let sealed = [&body[..], &tag.to_be_bytes()].concat();

    let opened = derived.each_ref().map(|derived| {
        let mut plain = [0; 64];
        decrypt_small(derived, &aad, &sealed, &mut plain).expect("GCM alone takes it");
        plain
    });
    assert_ne!(opened[0], opened[1]);

    for (one, other) in [(0, 1), (1, 0)] {
        let object = [&[SUITE][..], &salt, &derived[one].commit, &sealed].concat();
        for open in [open, open_bulk] {
            assert_eq!(open(&keys[one], &CONTEXT, &object).unwrap(), opened[one], "its own key's");
            assert_eq!(open(&keys[other], &CONTEXT, &object), Err(FAILED), "it opens under two keys");
        }
    }
}

/// A machine that is resumed over and over from one snapshot.
struct Repeating;

impl Entropy for Repeating {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

/// A context of three blocks, of which only the last differs.
fn place(last: &[u8; 16]) -> Vec<u8> {
    [&[3; 8][..], last].concat()
}

/// Joux's "forbidden attack" by additional data: one key and nonce for two contexts give GHASH's point, and with it any
/// third context.
fn forge(places: [&[u8]; 3], body: &[u8], tags: [Element; 2]) -> Element {
    let aads = places.map(|place| Context { id: &[place], ..CONTEXT }.encode());
    assert!(aads.iter().all(|aad| aad.len() == 48 && aad[..32] == aads[0][..32]));
    let last = aads.map(|aad| element(&aad[32..]));
    // The last block of the context stands before two blocks of ciphertext and the lengths: at H^4.
    assert_eq!(body.len(), 32);
    let fourth = times(tags[0] ^ tags[1], inverse(last[0] ^ last[1]));
    let h = power(fourth, 1 << 126);
    tags[0] ^ times(last[0] ^ last[2], power(h, 4))
}

#[test]
fn two_contexts_with_repeated_randomness_give_no_forgery_for_a_third() {
    let places = [place(b"the first place!"), place(b"a second place!!"), place(b"where it is put!")];
    let places = places.each_ref().map(|place| &place[..]);
    let aads = places.map(|place| Context { id: &[place], ..CONTEXT }.encode());
    let plain = *b"thirty-two bytes of a plaintext.";

    // Against GCM alone, under one key and nonce.
    let derived = derive(&key(1), &[7; SALT_LEN], &CONTEXT, &CONTEXT.encode());
    let (mut first, mut second) = (plain, plain);
    let tags = [encrypt_small(&derived, &aads[0], &mut first), encrypt_small(&derived, &aads[1], &mut second)];
    assert_eq!(first, second, "the same keystream");
    let tag = forge(places, &first, tags.map(|tag| element(&tag)));
    let forged = [&first[..], &tag.to_be_bytes()].concat();
    let mut opened = [0; 32];
    decrypt_small(&derived, &aads[2], &forged, &mut opened).expect("GCM alone takes the forgery");
    assert_eq!(opened, plain);

    // Against SEAL: the same plaintext and randomness, hence the same salt, and still nothing is shared.
    let sealed = [0, 1].map(|at| seal(&key(1), &Context { id: &[places[at]], ..CONTEXT }, &plain, &Repeating));
    assert_eq!(sealed[0][1..1 + SALT_LEN], sealed[1][1..1 + SALT_LEN]);
    let bodies = sealed.each_ref().map(|sealed| sealed[HEADER_LEN..].split_at(32));
    assert_ne!(bodies[0].0, bodies[1].0, "two contexts share a keystream");
    let tag = forge(places, bodies[0].0, bodies.map(|(_, tag)| element(tag)));
    let forged = [&sealed[0][..HEADER_LEN + 32], &tag.to_be_bytes()].concat();
    for place in places {
        let context = Context { id: &[place], ..CONTEXT };
        assert_eq!(open(&key(1), &context, &forged), Err(FAILED));
    }
}

proptest! {
    /// The two implementations of AES-256-GCM that seal and open the same bytes, held against one another below SEAL.
    #[test]
    fn aes_gcm_and_aws_lc_are_one(
        secret: [u8; 32], nonce: [u8; 12], aad in prop::collection::vec(any::<u8>(), 0..70),
        plain in prop::collection::vec(any::<u8>(), 0..3000), flip: prop::sample::Index,
    ) {
        let derived = Derived { key: secret, commit: [0; COMMIT_LEN], nonce };
        let bulk = super::seal::bulk_key(&secret);
        let (mut one, mut other) = (plain.clone(), plain.clone());
        let tag = encrypt_small(&derived, &aad, &mut one);
        prop_assert_eq!(tag, super::seal::encrypt_in_place(&bulk, nonce, &aad, &mut other));
        prop_assert_eq!(&one, &other);
        let mut sealed = [&one[..], &tag].concat();
        let mut opened = vec![0; plain.len()];
        decrypt_into(&bulk, nonce, &aad, &sealed, &mut opened).expect("what the other sealed");
        prop_assert_eq!(&opened, &plain);
        decrypt_small(&derived, &aad, &sealed, &mut opened).expect("what the other sealed");
        prop_assert_eq!(&opened, &plain);
        let bit = flip.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decrypt_into(&bulk, nonce, &aad, &sealed, &mut opened), Err(FAILED));
        prop_assert_eq!(decrypt_small(&derived, &aad, &sealed, &mut opened), Err(FAILED));
        prop_assert_eq!(sealed.len(), plain.len() + TAG_LEN);
    }
}
