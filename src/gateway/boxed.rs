//! A link's objects out of a store and into one file, as they are.

use std::io::{self, Write};
use std::sync::Arc;

use crate::base::{BLOCK_LEN, ByteRange, LinkId};
use crate::format::link::SignedRecord;
use crate::format::{BOX_HEAD_LEN, ObjectName, Prefix, box_head, box_pack_head};
use crate::store::{Store, StoreError};

const PIECE_LEN: u64 = 16 * BLOCK_LEN;

#[derive(Debug, thiserror::Error)]
pub enum BoxError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the link was published anew or taken back while it was read; try again")]
    Changed,
    #[error(transparent)]
    Write(#[from] io::Error),
}

pub struct BoxSource {
    store: Arc<dyn Store>,
    link: LinkId,
    record: SignedRecord,
    /// Number and length.
    packs: Vec<(u64, u64)>,
}

impl BoxSource {
    /// `record` is the link's newest.
    pub async fn open(store: Arc<dyn Store>, record: SignedRecord) -> Result<Self, BoxError> {
        let link = record.link();
        let mut packs = Vec::new();
        for name in store.list(Prefix::SharePacksOf(link)).await? {
            let ObjectName::SharePack(_, number) = name else { continue };
            packs.push((number, store.size(&name).await?.ok_or(BoxError::Changed)?));
        }
        Ok(Self { store, link, record, packs })
    }

    pub fn len(&self) -> u64 {
        let packs = self.packs.iter().map(|(_, len)| BOX_HEAD_LEN as u64 + len).sum::<u64>();
        BOX_HEAD_LEN as u64 + self.record.bytes().len() as u64 + packs
    }

    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// In pieces, however long a pack is.
    pub async fn write(&self, out: &mut (dyn Write + Send)) -> Result<(), BoxError> {
        out.write_all(&box_head(self.record.bytes().len() as u64))?;
        out.write_all(self.record.bytes())?;
        for (number, len) in &self.packs {
            out.write_all(&box_pack_head(*number, *len))?;
            for start in (0..*len).step_by(PIECE_LEN as usize) {
                let range = ByteRange::new(start, (start + PIECE_LEN).min(*len));
                let piece = self.store.get_range(&ObjectName::SharePack(self.link, *number), range).await?;
                let piece = piece.filter(|piece| piece.len() as u64 == range.len()).ok_or(BoxError::Changed)?;
                out.write_all(&piece)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SystemEntropy;
    use crate::format::decode_box;
    use crate::format::link::{LinkKeys, tombstone};
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_box_is_the_record_and_every_pack_as_the_store_has_them() {
        let (memory, keys) = (MemoryStore::new(), LinkKeys::generate(None, &SystemEntropy));
        let (link, object) = (keys.id(), tombstone(&keys.signer(), 1));
        let packs = [(1, vec![1; 10]), (2, vec![2; 2 * PIECE_LEN as usize + 7])];
        for (number, pack) in &packs {
            memory.plant(ObjectName::SharePack(link, *number), pack.clone().into());
        }
        memory.plant(ObjectName::SharePack(LinkId([0; 16]), 3), vec![3].into());
        let record = SignedRecord::verify(link, 1, object.clone()).unwrap();
        let source = BoxSource::open(Arc::new(memory.clone()), record).await.unwrap();
        let mut out = Vec::new();
        source.write(&mut out).await.unwrap();
        assert_eq!(out.len() as u64, source.len());
        let found = decode_box(&out).unwrap();
        assert_eq!(found.record, object);
        assert!(found.packs.iter().map(|(number, pack)| (*number, pack.to_vec())).eq(packs));
        memory.delete(&ObjectName::SharePack(link, 2)).await.unwrap();
        assert!(matches!(source.write(&mut Vec::new()).await, Err(BoxError::Changed)));
    }
}
