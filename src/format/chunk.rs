//! A sealed chunk: the SEAL header, then frames of at most 64 KiB of plaintext. In each encrypted frame the
//! first byte says the codec (0 raw, 1 lz4 block), the rest is the data.
//!
//! What a frame decrypts to is held to what the chunk's row says; any difference counts as a failed
//! authentication, since the row is sealed and the frame's place in it is bound.

use super::compress::{CODEC_LZ4, CODEC_RAW, pays};
use super::rows::{ChunkRow, FRAME_OVERHEAD};
use crate::base::{ByteRange, CHUNK_LEN, ChunkId, Entropy, FRAME_LEN};
use crate::crypto::{CHUNK_HEADER_LEN, ChunkHome, ChunkOpener, ChunkSealer, CryptoError, Key, TAG_LEN, chunk_id};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::cell::RefCell;
use std::ops::Range;

const FRAME: usize = FRAME_LEN as usize;

const _: () = assert!(FRAME_OVERHEAD as usize == 1 + TAG_LEN);

pub struct SealedChunk {
    /// Header and frames.
    pub bytes: Vec<u8>,
    /// Each frame's sealed length, for the row.
    pub frames: Vec<u32>,
}

/// `key` is the file's, or a link's content root.
pub fn seal_chunk(
    key: &Key,
    home: impl Into<ChunkHome>,
    id: &ChunkId,
    plain: &[u8],
    entropy: &dyn Entropy,
) -> SealedChunk {
    let mut bytes = Vec::new();
    let frames = seal_chunk_onto(&mut bytes, key, home, id, plain, entropy);
    SealedChunk { bytes, frames }
}

/// Appends header and frames; returns each frame's sealed length. `plain` is 1 byte to `CHUNK_LEN`, and `id`
/// its hash.
pub fn seal_chunk_onto(
    out: &mut Vec<u8>,
    key: &Key,
    home: impl Into<ChunkHome>,
    id: &ChunkId,
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Vec<u32> {
    assert!(!plain.is_empty() && plain.len() as u64 <= CHUNK_LEN, "a chunk of {} bytes", plain.len());
    let count = plain.len().div_ceil(FRAME);
    // With room for lz4 to fail in the last frame.
    out.reserve(CHUNK_HEADER_LEN + plain.len() + count * FRAME_OVERHEAD as usize + FRAME / 8);
    let sealer = ChunkSealer::new(key, home, id, entropy);
    out.extend_from_slice(sealer.header());
    let mut frames = Vec::with_capacity(count);
    let mut compressor = Some(CompressTable::large());
    for (index, frame) in plain.chunks(FRAME).enumerate() {
        let start = out.len();
        let compressed = compressor.as_mut().is_some_and(|table| push_compressed(out, frame, table));
        if !compressed {
            // What starts incompressible stays so: media, archives, other ciphertext.
            compressor = compressor.filter(|_| index > 0);
            out.push(CODEC_RAW);
            out.extend_from_slice(frame);
        }
        let tag = sealer.seal_frame(index as u32, index + 1 == count, &mut out[start..]);
        out.extend_from_slice(&tag);
        frames.push((out.len() - start) as u32);
    }
    frames
}

/// Appends codec byte and lz4 block, or nothing when that does not pay.
fn push_compressed(out: &mut Vec<u8>, frame: &[u8], table: &mut CompressTable) -> bool {
    let start = out.len();
    out.resize(start + 1 + get_maximum_output_size(frame.len()), 0);
    out[start] = CODEC_LZ4;
    match compress_into_with_table(frame, &mut out[start + 1..], table) {
        Ok(len) if pays(len, frame.len()) => {
            out.truncate(start + 1 + len);
            true
        }
        _ => {
            out.truncate(start);
            false
        }
    }
}

/// Frames, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSpan {
    pub frames: Range<u32>,
    /// In the pack.
    pub sealed: ByteRange,
    /// What they hold, in the chunk.
    pub plain: ByteRange,
}

/// Where the chunk's header is in the pack.
pub fn header_span(row: &ChunkRow) -> ByteRange {
    let start = u64::from(row.offset);
    ByteRange::new(start, start + CHUNK_HEADER_LEN as u64)
}

/// Where header and frames are in the pack.
pub fn chunk_span(row: &ChunkRow) -> ByteRange {
    let frames: u64 = row.frames.iter().map(|len| u64::from(*len)).sum();
    let header = header_span(row);
    ByteRange::new(header.start, header.end + frames)
}

/// The frames that hold `plain`, a range in the chunk; None when it is empty or reaches past the chunk.
pub fn frame_span(row: &ChunkRow, plain: ByteRange) -> Option<FrameSpan> {
    if plain.start >= plain.end || plain.end > u64::from(row.len) {
        return None;
    }
    let (first, end) = ((plain.start / FRAME_LEN) as usize, plain.end.div_ceil(FRAME_LEN) as usize);
    let len = |frames: &[u32]| frames.iter().map(|len| u64::from(*len)).sum::<u64>();
    let start = header_span(row).end + len(row.frames.get(..first)?);
    let sealed = ByteRange::at(start, len(row.frames.get(first..end)?))?;
    let held = ByteRange::new(first as u64 * FRAME_LEN, (end as u64 * FRAME_LEN).min(row.len.into()));
    Some(FrameSpan { frames: first as u32..end as u32, sealed, plain: held })
}

/// Fills `out` with what `wanted` (a range in the chunk, within `span.plain`, as long as `out`) holds. `sealed`
/// is the bytes of `span.sealed`. After an error `out` holds nothing new that did not authenticate.
pub fn open_frames(
    opener: &ChunkOpener,
    row: &ChunkRow,
    span: &FrameSpan,
    sealed: &[u8],
    wanted: ByteRange,
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let is_inside = wanted.start >= span.plain.start && wanted.end <= span.plain.end;
    if !is_inside || sealed.len() as u64 != span.sealed.len() || out.len() as u64 != wanted.len() {
        return Err(CryptoError::Authentication);
    }
    // Kept from one read to the next: to clear it each time costs as much as to decrypt.
    thread_local!(static FRAME_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let shape = Shape { len: row.len, frames: &row.frames };
    FRAME_BUFFER.with_borrow_mut(|buffer| open_each(opener, &shape, &span.frames, sealed, wanted, out, buffer))
}

/// What a whole chunk, header and frames, holds. `len` and `frames` are from what names it; so is `id`, which the
/// plaintext's hash is compared with.
pub fn open_chunk(
    key: &Key,
    home: impl Into<ChunkHome>,
    id: &ChunkId,
    len: u32,
    frames: &[u32],
    sealed: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let (header, sealed) = sealed.split_first_chunk().ok_or(CryptoError::Authentication)?;
    if sealed.len() as u64 != frames.iter().map(|len| u64::from(*len)).sum::<u64>() {
        return Err(CryptoError::Authentication);
    }
    let opener = ChunkOpener::new(key, home, id, header)?;
    let mut plain = vec![0; len as usize];
    let all = ByteRange::new(0, len.into());
    open_each(&opener, &Shape { len, frames }, &(0..frames.len() as u32), sealed, all, &mut plain, &mut Vec::new())?;
    if chunk_id(&plain) == *id { Ok(plain) } else { Err(CryptoError::Authentication) }
}

/// A chunk's plaintext length, and each frame's sealed one.
struct Shape<'a> {
    len: u32,
    frames: &'a [u32],
}

fn open_each(
    opener: &ChunkOpener,
    shape: &Shape<'_>,
    frames: &Range<u32>,
    mut sealed: &[u8],
    wanted: ByteRange,
    mut out: &mut [u8],
    scratch: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    for index in frames.clone() {
        let len = *shape.frames.get(index as usize).ok_or(CryptoError::Authentication)? as usize;
        let (frame, rest) = sealed.split_at_checked(len).ok_or(CryptoError::Authentication)?;
        sealed = rest;
        let start = u64::from(index) * FRAME_LEN;
        let held = ByteRange { start, end: (start + FRAME_LEN).min(shape.len.into()) };
        let Some(part) = held.intersect(wanted) else { continue };
        let last = index as usize + 1 == shape.frames.len();
        scratch.resize(len.checked_sub(TAG_LEN).ok_or(CryptoError::Authentication)?, 0);
        opener.open_frame(index, last, frame, scratch)?;
        let (piece, rest) = out.split_at_mut_checked(part.len() as usize).ok_or(CryptoError::Authentication)?;
        out = rest;
        copy_plain(scratch, held.len() as usize, (part.start - start) as usize, piece)?;
    }
    Ok(())
}

/// Fills `out` from byte `from` of what a decrypted frame holds, which must be `len` bytes in all.
fn copy_plain(frame: &[u8], len: usize, from: usize, out: &mut [u8]) -> Result<(), CryptoError> {
    match frame.split_first() {
        Some((&CODEC_RAW, data)) if data.len() == len => out.copy_from_slice(&data[from..from + out.len()]),
        Some((&CODEC_LZ4, data)) if out.len() == len => decompress(data, out)?,
        Some((&CODEC_LZ4, data)) => {
            let mut whole = vec![0; len];
            decompress(data, &mut whole)?;
            out.copy_from_slice(&whole[from..from + out.len()]);
        }
        _ => return Err(CryptoError::Authentication),
    }
    Ok(())
}

fn decompress(data: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
    match decompress_into(data, out) {
        Ok(written) if written == out.len() => Ok(()),
        _ => Err(CryptoError::Authentication),
    }
}

#[cfg(test)]
mod tests;
