//! Rows of one key range, immutable: blocks of about 64 KiB, each sealed by itself, then a sealed index that
//! carries the padding, then a sealed trailer of fixed length that says where the index is. Only the trailer
//! can be found by someone without the root.

use super::codec::{FormatError, Reader, Writer};
use super::compress::{compress, decompress};
use super::envelope::{self, HEADER_LEN, OpenError, object_hash};
use super::padding;
use super::rows::{KeyBytes, validate};
use crate::base::{Entropy, Epoch, Hash, SegmentId};
use crate::crypto::{self, Context, CryptoError, Kind, Roots, SEAL_OVERHEAD};
use std::ops::Range;

pub type Row = (KeyBytes, Vec<u8>);

const WHAT: &str = "segment";
const MAGIC: &[u8; 8] = b"hushseg1";
/// A block is closed once its rows are this long.
const BLOCK_LEN_TARGET: usize = 64 << 10;
/// The index's offset, sealed.
const TRAILER_LEN: usize = 8 + SEAL_OVERHEAD;

/// What a manifest says of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentMeta {
    pub id: SegmentId,
    pub first: KeyBytes,
    pub last: KeyBytes,
    pub rows: u64,
    /// Of the object.
    pub len: u64,
    /// Of the object's bytes.
    pub hash: Hash,
}

impl SegmentMeta {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.raw(&self.id.0).bytes(&self.first).bytes(&self.last).varint(self.rows).varint(self.len).raw(&self.hash.0);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let id = SegmentId(reader.array()?);
        let (first, last) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
        let (rows, len, hash) = (reader.varint()?, reader.varint()?, Hash(reader.array()?));
        if first > last || rows == 0 {
            return Err(reader.error("a segment without rows"));
        }
        Ok(Self { id, first, last, rows, len, hash })
    }
}

/// Takes rows in ascending order; the caller ends the segment when `len` suits it.
pub struct SegmentBuilder<'a> {
    id: SegmentId,
    epoch: Epoch,
    roots: &'a Roots,
    entropy: &'a dyn Entropy,
    object: Vec<u8>,
    blocks: Vec<BlockEntry>,
    open: Option<OpenBlock>,
    last: KeyBytes,
    rows: u64,
}

struct OpenBlock {
    first: KeyBytes,
    rows: u64,
    bytes: Writer,
}

struct BlockEntry {
    first: KeyBytes,
    rows: u64,
    sealed_len: u64,
}

/// Where it is, and what the index says of it.
type Block = (Range<usize>, BlockEntry);

impl<'a> SegmentBuilder<'a> {
    /// Under the newest root, with a random id.
    pub fn new(roots: &'a Roots, entropy: &'a dyn Entropy) -> Self {
        let mut id = SegmentId([0; 16]);
        entropy.fill(&mut id.0);
        let epoch = roots.epoch();
        let object = envelope::header(MAGIC, epoch).to_vec();
        Self { id, epoch, roots, entropy, object, blocks: vec![], open: None, last: vec![], rows: 0 }
    }

    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), OpenError> {
        if self.last.as_slice() >= key {
            return Err(error("rows out of order").into());
        }
        if self.open.as_ref().is_some_and(|block| block.bytes.len() >= BLOCK_LEN_TARGET) {
            self.close_block(false)?;
        }
        let block = self.open.get_or_insert_with(|| OpenBlock { first: key.to_vec(), rows: 0, bytes: Writer::new() });
        block.bytes.bytes(key).bytes(value);
        block.rows += 1;
        self.rows += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }

    /// About how long the object would be if it ended here.
    pub fn len(&self) -> usize {
        self.object.len() + self.open.as_ref().map_or(0, |block| block.bytes.len())
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The object's bytes. An error when there is no row.
    pub fn finish(mut self) -> Result<(Vec<u8>, SegmentMeta), OpenError> {
        let first = self.blocks.first().map(|block| &block.first).or(self.open.as_ref().map(|block| &block.first));
        let first = first.ok_or(error("a segment without rows"))?.clone();
        self.close_block(true)?;
        let Self { id, epoch, roots, entropy, mut object, blocks, last, rows, .. } = self;
        let mut index = encode_index(&blocks, &last);
        let index_at = object.len() as u64;
        padding::pad(&mut index, object.len() + SEAL_OVERHEAD + TRAILER_LEN);
        seal_part(&mut object, roots, epoch, Kind::SegmentIndex, &[&id.0], &index, entropy)?;
        seal_part(&mut object, roots, epoch, Kind::SegmentTrailer, &[&id.0], &index_at.to_le_bytes(), entropy)?;
        let meta = SegmentMeta { id, first, last, rows, len: object.len() as u64, hash: object_hash(&object) };
        Ok((object, meta))
    }

    fn close_block(&mut self, last: bool) -> Result<(), OpenError> {
        let Some(OpenBlock { first, rows, bytes }) = self.open.take() else { return Ok(()) };
        let number = (self.blocks.len() as u32).to_le_bytes();
        let (start, plain) = (self.object.len(), compress(&bytes.finish()));
        let id: [&[u8]; 3] = [&self.id.0, &number, &[last.into()]];
        seal_part(&mut self.object, self.roots, self.epoch, Kind::SegmentBlock, &id, &plain, self.entropy)?;
        self.blocks.push(BlockEntry { first, rows, sealed_len: (self.object.len() - start) as u64 });
        Ok(())
    }
}

/// Reads a whole segment that is in memory, block by block.
pub struct SegmentReader<'a> {
    object: &'a [u8],
    meta: &'a SegmentMeta,
    roots: &'a Roots,
    epoch: Epoch,
    blocks: Vec<Block>,
}

impl<'a> SegmentReader<'a> {
    /// Accepts only the object that the manifest means.
    pub fn open(meta: &'a SegmentMeta, object: &'a [u8], roots: &'a Roots) -> Result<Self, OpenError> {
        if object.len() as u64 != meta.len || object_hash(object) != meta.hash {
            return Err(OpenError::Crypto { what: WHAT, source: CryptoError::Authentication });
        }
        let (epoch, _) = envelope::split_header(WHAT, MAGIC, object)?;
        let index_end = object.len().checked_sub(TRAILER_LEN).ok_or(error("cut short"))?;
        let trailer = open_part(roots, epoch, Kind::SegmentTrailer, &[&meta.id.0], &object[index_end..])?;
        let index_at = trailer.try_into().map(u64::from_le_bytes).map_err(|_| error("a broken trailer"))?;
        let index_at = usize::try_from(index_at).ok().filter(|at| (HEADER_LEN..=index_end).contains(at));
        let index_at = index_at.ok_or(error("an index outside the object"))?;
        let index = open_part(roots, epoch, Kind::SegmentIndex, &[&meta.id.0], &object[index_at..index_end])?;
        let index = padding::unpad(WHAT, &index, index_at + SEAL_OVERHEAD + TRAILER_LEN)?;
        let blocks = decode_index(index, index_at, meta)?;
        Ok(Self { object, meta, roots, epoch, blocks })
    }

    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// All rows, in order, a block at a time.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Vec<Row>, OpenError>> + '_ {
        (0..self.blocks.len()).map(|number| self.block(number))
    }

    /// Valid rows, strictly ascending, within the block's range; none for a number past the last.
    pub fn block(&self, number: usize) -> Result<Vec<Row>, OpenError> {
        let Some((place, entry)) = self.blocks.get(number) else { return Ok(vec![]) };
        let next = self.blocks.get(number + 1).map(|(_, next)| &next.first);
        let id: [&[u8]; 3] = [&self.meta.id.0, &(number as u32).to_le_bytes(), &[next.is_none().into()]];
        let sealed = &self.object[place.clone()];
        let plain = decompress(WHAT, &open_part(self.roots, self.epoch, Kind::SegmentBlock, &id, sealed)?)?;
        let rows = decode_block(&plain, entry.rows)?;
        let (first, last) = (rows.first().map(|row| &row.0), rows.last().map(|row| &row.0));
        let ends = match next {
            Some(next) => last < Some(next),
            None => last == Some(&self.meta.last),
        };
        if first != Some(&entry.first) || !ends {
            return Err(error("a block outside its range").into());
        }
        Ok(rows)
    }
}

fn encode_index(blocks: &[BlockEntry], last: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(blocks.len() as u64);
    for block in blocks {
        out.bytes(&block.first).varint(block.rows).varint(block.sealed_len);
    }
    out.bytes(last);
    out.finish()
}

/// Blocks lie one behind the other from the header to the index.
fn decode_index(bytes: &[u8], index_at: usize, meta: &SegmentMeta) -> Result<Vec<Block>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let count = reader.count()?;
    let mut blocks: Vec<Block> = Vec::with_capacity(count.min(1024));
    let (mut at, mut rows) = (HEADER_LEN, 0u64);
    for _ in 0..count {
        let entry =
            BlockEntry { first: reader.bytes()?.to_vec(), rows: reader.varint()?, sealed_len: reader.varint()? };
        if blocks.last().is_some_and(|(_, before)| before.first >= entry.first) {
            return Err(reader.error("blocks out of order"));
        }
        let len = usize::try_from(entry.sealed_len).ok();
        let end = len.and_then(|len| at.checked_add(len)).filter(|end| *end <= index_at);
        let end = end.ok_or_else(|| reader.error("a block outside the object"))?;
        rows = rows.saturating_add(entry.rows);
        blocks.push((at..end, entry));
        at = end;
    }
    let last = reader.bytes()?;
    let first = blocks.first().map(|(_, block)| &block.first);
    if at != index_at || first != Some(&meta.first) || last != meta.last || rows != meta.rows {
        return Err(reader.error("an index that is not what the manifest says"));
    }
    reader.finish()?;
    Ok(blocks)
}

fn decode_block(bytes: &[u8], count: u64) -> Result<Vec<Row>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let mut rows: Vec<Row> = Vec::with_capacity(count.min(1024) as usize);
    while reader.remaining() > 0 {
        let (key, value) = (reader.bytes()?, reader.bytes()?);
        if rows.last().is_some_and(|(last, _)| last.as_slice() >= key) {
            return Err(reader.error("rows out of order"));
        }
        validate(key, value)?;
        rows.push((key.to_vec(), value.to_vec()));
    }
    if rows.len() as u64 != count {
        return Err(reader.error("a block with another number of rows"));
    }
    Ok(rows)
}

fn seal_part(
    object: &mut Vec<u8>,
    roots: &Roots,
    epoch: Epoch,
    kind: Kind,
    id: &[&[u8]],
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Result<(), OpenError> {
    let root = roots.root(epoch).map_err(OpenError::crypto(WHAT))?;
    let epoch = epoch.0.to_le_bytes();
    let id: Vec<&[u8]> = std::iter::once(&epoch[..]).chain(id.iter().copied()).collect();
    crypto::seal_bulk_onto(object, &root, &Context { volume: roots.volume(), kind, id: &id }, plain, entropy);
    Ok(())
}

fn open_part(roots: &Roots, epoch: Epoch, kind: Kind, id: &[&[u8]], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let number = epoch.0.to_le_bytes();
    let id: Vec<&[u8]> = std::iter::once(&number[..]).chain(id.iter().copied()).collect();
    let context = Context { volume: roots.volume(), kind, id: &id };
    roots.root(epoch).and_then(|root| crypto::open_bulk(&root, &context, sealed)).map_err(OpenError::crypto(WHAT))
}

fn error(why: &'static str) -> FormatError {
    FormatError { what: WHAT, why }
}

#[cfg(test)]
mod tests;
