//! A sparse file's bytes: pages that grow as they are written. What no page holds is zeros.

use std::collections::BTreeMap;

use hushfs::base::ByteRange;

const PAGE_LEN: u64 = 256 << 10;

#[derive(Default)]
pub struct Pages {
    /// By offset / `PAGE_LEN`. A page's bytes past its length are zeros.
    pages: BTreeMap<u64, Vec<u8>>,
    allocated: u64,
}

impl Pages {
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    pub fn read(&self, range: ByteRange) -> Vec<u8> {
        let mut out = Vec::with_capacity(range.len() as usize);
        for (index, within) in spans(range) {
            let wanted = out.len() + (within.end - within.start);
            if let Some(page) = self.pages.get(&index) {
                let end = within.end.min(page.len());
                out.extend_from_slice(page.get(within.start..end).unwrap_or_default());
            }
            out.resize(wanted, 0);
        }
        out
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        for (index, within) in spans(ByteRange::new(offset, offset + data.len() as u64)) {
            let (part, tail) = rest.split_at(within.end - within.start);
            rest = tail;
            let page = self.pages.entry(index).or_default();
            let before = page.len();
            if within.start == page.len() {
                page.extend_from_slice(part);
            } else {
                page.resize(page.len().max(within.end), 0);
                page[within.clone()].copy_from_slice(part);
            }
            self.allocated += (page.len() - before) as u64;
        }
    }

    /// Reads as zeros after.
    pub fn clear(&mut self, range: ByteRange) {
        let first = range.start / PAGE_LEN;
        let touched: Vec<u64> =
            self.pages.range(first..range.end.div_ceil(PAGE_LEN)).map(|(index, _)| *index).collect();
        for index in touched {
            let page_range = ByteRange::new(index * PAGE_LEN, (index + 1) * PAGE_LEN);
            let Some(cut) = page_range.intersect(range) else { continue };
            let Some(page) = self.pages.get_mut(&index) else { continue };
            let (start, end) = ((cut.start - page_range.start) as usize, (cut.end - page_range.start) as usize);
            let before = page.len();
            if end >= page.len() {
                page.truncate(start);
            } else {
                page[start..end].fill(0);
            }
            self.allocated -= (before - page.len()) as u64;
            if page.is_empty() {
                self.pages.remove(&index);
            }
        }
    }

    /// The first offset at or after `offset` that a page holds.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.pages.range(offset / PAGE_LEN..).find_map(|(index, page)| {
            let start = index * PAGE_LEN;
            (offset < start + page.len() as u64).then(|| offset.max(start))
        })
    }

    /// The first offset at or after `offset` that no page holds.
    pub fn next_hole(&self, offset: u64) -> u64 {
        let mut offset = offset;
        while let Some(page) = self.pages.get(&(offset / PAGE_LEN)) {
            let end = offset / PAGE_LEN * PAGE_LEN + page.len() as u64;
            if offset >= end {
                return offset;
            }
            offset = end;
        }
        offset
    }
}

/// The pieces of a range, page by page.
fn spans(range: ByteRange) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let index = at / PAGE_LEN;
        let end = range.end.min((index + 1) * PAGE_LEN);
        let within = (at - index * PAGE_LEN) as usize..(end - index * PAGE_LEN) as usize;
        at = end;
        Some((index, within))
    })
}
