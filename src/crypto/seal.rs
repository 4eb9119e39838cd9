//! SEAL: suite ‖ salt ‖ commitment ‖ AES-256-GCM ciphertext and tag.
//!
//! Key and nonce are derived anew for every seal from a fresh salt, so nothing is counted and no key meets
//! one nonce with two plaintexts. The salt is hedged with the plaintext: a resumed virtual machine that
//! repeats its randomness repeats a whole ciphertext at worst. The commitment binds the ciphertext to one
//! key and context, and is compared before GCM runs.

use super::{Context, CryptoError, Key};
use crate::base::Entropy;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// HKDF-SHA256 and AES-256-GCM. There is no other.
pub(super) const SUITE: u8 = 1;
pub(super) const SALT_LEN: usize = 32;
pub(super) const COMMIT_LEN: usize = 32;
pub(super) const NONCE_LEN: usize = 12;
pub const TAG_LEN: usize = 16;
pub(super) const HEADER_LEN: usize = 1 + SALT_LEN + COMMIT_LEN;
/// How much longer a sealed thing is than its plaintext.
pub const SEAL_OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const _: () = assert!(SEAL_OVERHEAD == 81);

/// For envelopes: small things.
pub fn seal(key: &Key, context: &Context<'_>, plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let mut out = Vec::new();
    seal_with(&mut out, key, context, plain, entropy, encrypt_small);
    out
}

pub fn open(key: &Key, context: &Context<'_>, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    open_with(key, context, sealed, decrypt_small)
}

/// The same bytes as `seal`, four times as fast from some KiB on.
pub fn seal_bulk(key: &Key, context: &Context<'_>, plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let mut out = Vec::new();
    seal_bulk_onto(&mut out, key, context, plain, entropy);
    out
}

/// Appends to what an object has so far.
pub fn seal_bulk_onto(out: &mut Vec<u8>, key: &Key, context: &Context<'_>, plain: &[u8], entropy: &dyn Entropy) {
    seal_with(out, key, context, plain, entropy, encrypt_bulk);
}

pub fn open_bulk(key: &Key, context: &Context<'_>, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    open_with(key, context, sealed, decrypt_bulk)
}

/// What one seal runs on. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub(super) struct Derived {
    pub key: [u8; 32],
    pub commit: [u8; COMMIT_LEN],
    pub nonce: [u8; NONCE_LEN],
}

pub(super) fn derive(key: &Key, salt: &[u8; SALT_LEN], context: &Context<'_>, encoded: &[u8]) -> Derived {
    let mut bytes = [0; 32 + COMMIT_LEN + NONCE_LEN];
    let len = (encoded.len() as u32).to_le_bytes();
    let info: [&[u8]; 5] = [b"hushfs/v1/", context.kind.name().as_bytes(), &[SUITE], &len, encoded];
    hkdf(key.expose(), salt, &info, &mut bytes);
    let mut derived = Derived { key: [0; 32], commit: [0; COMMIT_LEN], nonce: [0; NONCE_LEN] };
    derived.key.copy_from_slice(&bytes[..32]);
    derived.commit.copy_from_slice(&bytes[32..64]);
    derived.nonce.copy_from_slice(&bytes[64..]);
    bytes.zeroize();
    derived
}

/// HKDF-SHA256, the parts of `info` one behind the other.
pub(super) fn hkdf(secret: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand_multi_info(info, out)
        .expect("every output asked for is under HKDF's 8,160 bytes");
}

/// Randomness that does not repeat for another `hedge`, even if the generator repeats itself.
pub(super) fn fresh_salt(key: &Key, hedge: &[u8], entropy: &dyn Entropy) -> [u8; SALT_LEN] {
    let mut random = [0; 32];
    entropy.fill(&mut random);
    hmac(key.expose(), &[&random, hedge])
}

/// HMAC-SHA256 of the parts, one behind the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

pub(super) fn commitments_match(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

pub(super) fn bulk_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

type Encrypt = fn(&Derived, aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN];
type Decrypt = fn(&Derived, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), CryptoError>;

fn seal_with(
    out: &mut Vec<u8>,
    key: &Key,
    context: &Context<'_>,
    plain: &[u8],
    entropy: &dyn Entropy,
    encrypt: Encrypt,
) {
    let aad = context.encode();
    let salt = fresh_salt(key, plain, entropy);
    let derived = derive(key, &salt, context, &aad);
    out.reserve(plain.len() + SEAL_OVERHEAD);
    out.push(SUITE);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&derived.commit);
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = encrypt(&derived, &aad, &mut out[start..]);
    out.extend_from_slice(&tag);
}

fn open_with(key: &Key, context: &Context<'_>, sealed: &[u8], decrypt: Decrypt) -> Result<Vec<u8>, CryptoError> {
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(CryptoError::Authentication)?;
    let plain_len = body.len().checked_sub(TAG_LEN).ok_or(CryptoError::Authentication)?;
    let aad = context.encode();
    let derived = open_header(key, context, &aad, header)?;
    let mut plain = vec![0; plain_len];
    decrypt(&derived, &aad, body, &mut plain)?;
    Ok(plain)
}

/// Checks suite and commitment, which every opening does before it decrypts.
pub(super) fn open_header(
    key: &Key,
    context: &Context<'_>,
    encoded: &[u8],
    header: &[u8; HEADER_LEN],
) -> Result<Derived, CryptoError> {
    let [suite, rest @ ..] = header;
    let (salt, commit) = rest.split_first_chunk::<SALT_LEN>().ok_or(CryptoError::Authentication)?;
    let derived = derive(key, salt, context, encoded);
    if *suite != SUITE || !commitments_match(&derived.commit, commit) {
        return Err(CryptoError::Authentication);
    }
    Ok(derived)
}

pub(super) fn encrypt_small(derived: &Derived, aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
    let cipher = Aes256Gcm::new(&derived.key.into());
    let tag = cipher.encrypt_inout_detached(&derived.nonce.into(), aad, InOutBuf::from(buffer));
    tag.expect("nothing sealed at once reaches GCM's 64 GiB").into()
}

pub(super) fn decrypt_small(derived: &Derived, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
    let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(CryptoError::Authentication)?;
    let buffer = InOutBuf::new(body, out).map_err(|_| CryptoError::Authentication)?;
    Aes256Gcm::new(&derived.key.into())
        .decrypt_inout_detached(&derived.nonce.into(), aad, buffer, &(*tag).into())
        .map_err(|_| CryptoError::Authentication)
}

fn encrypt_bulk(derived: &Derived, aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
    encrypt_in_place(&bulk_key(&derived.key), derived.nonce, aad, buffer)
}

fn decrypt_bulk(derived: &Derived, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
    decrypt_into(&bulk_key(&derived.key), derived.nonce, aad, sealed, out)
}

pub(super) fn encrypt_in_place(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    buffer: &mut [u8],
) -> [u8; TAG_LEN] {
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buffer);
    let tag = tag.expect("nothing sealed at once reaches GCM's 64 GiB");
    tag.as_ref().try_into().expect("GCM's tag is 16 bytes")
}

/// `out` is as long as the plaintext; after an error it holds nothing of it.
pub(super) fn decrypt_into(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    sealed: &[u8],
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(CryptoError::Authentication)?;
    if body.len() != out.len() {
        return Err(CryptoError::Authentication);
    }
    key.open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::from(aad), body, tag, out).map_err(|_| {
        out.zeroize();
        CryptoError::Authentication
    })
}
