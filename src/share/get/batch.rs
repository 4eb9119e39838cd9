//! Many chunks in few requests: those that lie near one another in a pack come together.

use std::collections::HashMap;

use bytes::Bytes;
use futures::StreamExt;

use super::{GetError, LinkSource};
use crate::base::{BLOCK_LEN, ByteRange, LinkId};
use crate::format::link::ChunkRef;

const REQUESTS: usize = 4;
/// What lies between two chunks that are fetched together is thrown away.
const GAP_MAX: u64 = BLOCK_LEN;
const REQUEST_LEN_MAX: u64 = 4 << 20;

/// The sealed bytes of each, in the order of `chunks`.
pub(super) async fn fetch(source: &dyn LinkSource, link: LinkId, chunks: &[ChunkRef]) -> Result<Vec<Bytes>, GetError> {
    let runs = runs(chunks);
    let reads =
        runs.clone().into_iter().map(|run| async move { (run, source.read(link, run.pack, run.range()).await) });
    let mut reads = futures::stream::iter(reads).buffer_unordered(REQUESTS);
    let mut fetched: HashMap<Run, Bytes> = HashMap::new();
    while let Some((run, bytes)) = reads.next().await {
        fetched.insert(run, bytes?);
    }
    let cut = |chunk: &ChunkRef| {
        let span = chunk.span();
        let run = runs.iter().find(|run| run.pack == chunk.pack && run.range().intersect(span) == Some(span));
        let (run, bytes) = run.and_then(|run| Some((run, fetched.get(run)?))).ok_or(GetError::Damaged)?;
        let (from, to) = ((span.start - run.start) as usize, (span.end - run.start) as usize);
        if bytes.len() < to { Err(GetError::Damaged) } else { Ok(bytes.slice(from..to)) }
    };
    chunks.iter().map(cut).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    pack: u64,
    start: u64,
    end: u64,
}

impl Run {
    fn range(&self) -> ByteRange {
        ByteRange::new(self.start, self.end)
    }
}

/// What to ask for.
fn runs(chunks: &[ChunkRef]) -> Vec<Run> {
    let mut spans: Vec<(u64, ByteRange)> = chunks.iter().map(|chunk| (chunk.pack, chunk.span())).collect();
    spans.sort_unstable_by_key(|(pack, span)| (*pack, span.start, span.end));
    let mut runs: Vec<Run> = Vec::new();
    for (pack, span) in spans {
        match runs.last_mut() {
            Some(run)
                if run.pack == pack
                    && span.start <= run.end + GAP_MAX
                    && span.end.max(run.end) - run.start <= REQUEST_LEN_MAX =>
            {
                run.end = run.end.max(span.end);
            }
            _ => runs.push(Run { pack, start: span.start, end: span.end }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ChunkId;

    fn chunk(pack: u64, offset: u32, len: u32) -> ChunkRef {
        let frames = vec![len - 65].into();
        ChunkRef { pack, offset, len: 1, id: ChunkId([1; 32]), frames, sha256: [0; 32] }
    }

    fn found(chunks: &[ChunkRef]) -> Vec<(u64, u64, u64)> {
        runs(chunks).iter().map(|run| (run.pack, run.start, run.end)).collect()
    }

    #[test]
    fn neighbours_come_together_and_what_is_far_apart_does_not() {
        assert_eq!(found(&[chunk(1, 500, 100), chunk(1, 0, 100), chunk(2, 0, 100)]), [(1, 0, 600), (2, 0, 100)]);
        assert_eq!(found(&[chunk(1, 0, 100), chunk(1, 300_000, 100)]), [(1, 0, 100), (1, 300_000, 300_100)]);
        assert_eq!(found(&[chunk(1, 0, 100), chunk(1, 0, 100)]), [(1, 0, 100)]);
        let many: Vec<_> = (0..10).map(|i| chunk(1, i << 20, 1 << 20)).collect();
        assert!(runs(&many).iter().all(|run| run.range().len() <= REQUEST_LEN_MAX) && runs(&many).len() == 3);
        assert!(runs(&[]).is_empty());
    }
}
