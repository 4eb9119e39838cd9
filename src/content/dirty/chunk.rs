//! The dirty pieces of one aligned chunk.

use std::collections::BTreeMap;

use crate::base::CHUNK_LEN;

/// Pieces of one aligned chunk, by their offset in it.
#[derive(Default)]
pub(super) struct Chunk {
    pub pieces: BTreeMap<u32, Vec<u8>>,
    pub bytes: u32,
}

impl Chunk {
    pub fn write(&mut self, at: u32, data: &[u8]) {
        let end = at + len(data);
        let mut gaps = Vec::new();
        let mut reached = at;
        for (&start, piece) in self.pieces.range_mut(self.first_touching(at)..end) {
            let (from, to) = (start.max(at), (start + len(piece)).min(end));
            if reached < from {
                gaps.push((reached, from));
            }
            piece[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
            reached = to;
        }
        if reached < end {
            gaps.push((reached, end));
        }
        for (from, to) in gaps {
            self.fill(from, &data[(from - at) as usize..(to - at) as usize]);
        }
    }

    /// Puts bytes where none are.
    fn fill(&mut self, at: u32, data: &[u8]) {
        self.bytes += len(data);
        let left = self.pieces.range_mut(..at).next_back().filter(|(start, piece)| *start + len(piece) == at);
        let start = match left {
            Some((&start, piece)) => {
                append(piece, start, data);
                start
            }
            None => {
                self.pieces.insert(at, data.to_vec());
                at
            }
        };
        self.absorb_right(start);
    }

    /// Joins the neighbours at the right of a piece to it while they are small beside it.
    fn absorb_right(&mut self, start: u32) {
        while let Some(own) = self.pieces.get(&start).map(|piece| len(piece)) {
            let next = start + own;
            if self.pieces.get(&next).is_none_or(|right| len(right) > 2 * own) {
                return;
            }
            let right = self.pieces.remove(&next).unwrap_or_default();
            if let Some(piece) = self.pieces.get_mut(&start) {
                append(piece, start, &right);
            }
        }
    }

    pub fn discard(&mut self, start: u32, end: u32) {
        let touched: Vec<u32> = self.pieces.range(self.first_touching(start)..end).map(|(at, _)| *at).collect();
        for at in touched {
            let Some(mut piece) = self.pieces.remove(&at) else { continue };
            let piece_end = at + len(&piece);
            self.bytes -= piece_end.min(end) - at.max(start);
            if piece_end > end {
                self.pieces.insert(end, piece[(end - at) as usize..].to_vec());
            }
            if at < start {
                piece.truncate((start - at) as usize);
                self.pieces.insert(at, piece);
            }
        }
    }

    /// Where the piece that holds the byte at `at` starts; `at` itself if none does.
    pub fn first_touching(&self, at: u32) -> u32 {
        let left = self.pieces.range(..=at).next_back();
        left.filter(|(start, piece)| *start + len(piece) > at).map_or(at, |(start, _)| *start)
    }
}

fn len(piece: &[u8]) -> u32 {
    piece.len() as u32
}

/// Room grows by doubling, but never past the chunk's end.
fn append(piece: &mut Vec<u8>, start: u32, data: &[u8]) {
    if piece.capacity() - piece.len() < data.len() {
        let most = CHUNK_LEN as usize - start as usize;
        let want = (piece.len() + data.len()).max((2 * piece.capacity()).min(most));
        piece.reserve_exact(want - piece.len());
    }
    piece.extend_from_slice(data);
}
