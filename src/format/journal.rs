//! One frame of the local journal: a clear header, a SEAL under the state folder's key, zeros up to the next
//! 512 bytes. Files are recycled, so a frame's number, which is bound, tells a new frame from what was left
//! behind it.

use super::codec::{FormatError, Reader, Writer};
use super::envelope::OpenError;
use super::intent::Intent;
use crate::base::{Entropy, Hash, Incarnation, IntentNo, VolumeId};
use crate::crypto::{self, Context, Key, Kind, SEAL_OVERHEAD};

/// Frames begin and end on sectors, so that writing one never touches another's bytes.
pub const FRAME_ALIGN: usize = 512;
const WHAT: &str = "journal frame";
const MAGIC: [u8; 4] = *b"hjf1";
/// magic ‖ sealed length u32 ‖ frame number u64
const HEADER_LEN: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPayload {
    pub incarnation: Incarnation,
    /// The first intent's number; the others follow.
    pub first: IntentNo,
    /// The chain's hash before the first.
    pub chain_before: Hash,
    pub intents: Vec<Intent>,
}

/// h_i = BLAKE3(h_{i-1} ‖ intent i, with each inline data replaced by its length).
pub fn chain(prev: &Hash, intent: &Intent) -> Hash {
    let mut outline = Writer::new();
    intent.encode_outline(&mut outline);
    crypto::Blake3::new().update(&prev.0).update(&outline.finish()).finish()
}

/// What a header claims; nothing vouches for it until the frame is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub number: u64,
    /// Of the whole frame, header and zeros included: where the next one begins.
    pub len: u64,
}

/// The sealed bytes never hold more than 4 GiB.
pub fn encode_frame(
    number: u64,
    payload: &JournalPayload,
    key: &Key,
    volume: VolumeId,
    entropy: &dyn Entropy,
) -> Vec<u8> {
    let mut body = Writer::new();
    body.raw(&payload.incarnation.0).varint(payload.first.0).raw(&payload.chain_before.0);
    body.varint(payload.intents.len() as u64);
    payload.intents.iter().for_each(|intent| intent.encode(&mut body));
    let body = body.finish();
    let sealed_len = u32::try_from(body.len() + SEAL_OVERHEAD).expect("a frame is cut long before 4 GiB");
    let mut out = Vec::with_capacity((HEADER_LEN + sealed_len as usize).next_multiple_of(FRAME_ALIGN));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&sealed_len.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    let context = Context { volume, kind: Kind::JournalFrame, id: &[&number.to_le_bytes()] };
    crypto::seal_bulk_onto(&mut out, key, &context, &body, entropy);
    out.resize(out.len().next_multiple_of(FRAME_ALIGN), 0);
    out
}

/// None where no frame begins. 16 bytes suffice.
pub fn peek_header(bytes: &[u8]) -> Option<FrameHeader> {
    let (header, _) = split(bytes)?;
    Some(header)
}

/// The frame at the front of `bytes`, and its number, which the caller holds against the one it expects.
pub fn decode_frame(bytes: &[u8], key: &Key, volume: VolumeId) -> Result<(u64, JournalPayload), OpenError> {
    let (FrameHeader { number, .. }, sealed_len) = split(bytes).ok_or(error("no frame begins here"))?;
    let sealed = bytes.get(HEADER_LEN..HEADER_LEN + sealed_len).ok_or(error("cut short"))?;
    let context = Context { volume, kind: Kind::JournalFrame, id: &[&number.to_le_bytes()] };
    let body = crypto::open_bulk(key, &context, sealed).map_err(OpenError::crypto(WHAT))?;
    let mut reader = Reader::new(WHAT, &body);
    let (incarnation, first) = (Incarnation(reader.array()?), IntentNo(reader.varint()?));
    let chain_before = Hash(reader.array()?);
    let count = reader.count()?;
    let intents = (0..count).map(|_| Intent::decode(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    if first.0.checked_add(count as u64).is_none() {
        return Err(reader.error("intent numbers beyond 2^64").into());
    }
    reader.finish()?;
    Ok((number, JournalPayload { incarnation, first, chain_before, intents }))
}

/// Header and sealed length.
fn split(bytes: &[u8]) -> Option<(FrameHeader, usize)> {
    let mut reader = Reader::new(WHAT, bytes);
    let magic: [u8; 4] = reader.array().ok()?;
    let (sealed_len, number) = (reader.u32().ok()? as usize, reader.u64().ok()?);
    let plausible = magic == MAGIC && sealed_len >= SEAL_OVERHEAD;
    let len = (HEADER_LEN as u64 + sealed_len as u64).next_multiple_of(FRAME_ALIGN as u64);
    plausible.then_some((FrameHeader { number, len }, sealed_len))
}

fn error(why: &'static str) -> FormatError {
    FormatError { what: WHAT, why }
}

#[cfg(test)]
mod tests;
