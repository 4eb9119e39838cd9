//! A link's index as a stream, fetched a chunk at a time.

use super::{GetError, LinkSource};
use crate::base::LinkId;
use crate::crypto::Key;
use crate::format::link::{ChunkRef, Contents, IndexDecoder, IndexItem, Step, open_link_chunk};

pub struct Index {
    link: LinkId,
    root: Key,
    decoder: IndexDecoder,
    chunks: std::vec::IntoIter<ChunkRef>,
}

impl Index {
    pub fn new(link: LinkId, contents: &Contents) -> Self {
        let decoder = IndexDecoder::new(&contents.header);
        Self { link, root: contents.root.duplicate(), decoder, chunks: contents.header.index.clone().into_iter() }
    }

    /// None: all was read, and is what the record promised.
    pub async fn next(&mut self, source: &dyn LinkSource) -> Result<Option<IndexItem>, GetError> {
        loop {
            match self.decoder.step()? {
                Step::Item(item) => return Ok(Some(item)),
                Step::End => return Ok(None),
                Step::More => match self.chunks.next() {
                    Some(chunk) => {
                        let sealed = source.read(self.link, chunk.pack, chunk.span()).await?;
                        let plain = open_link_chunk(self.link, &self.root, &chunk, &sealed);
                        self.decoder.push(&plain.map_err(|_| GetError::Damaged)?);
                    }
                    None => self.decoder.end(),
                },
            }
        }
    }
}
