//! Sets of bytes.

use std::collections::BTreeMap;

use crate::base::ByteRange;

/// Disjoint ranges that do not touch: start to end.
#[derive(Default)]
pub struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = ByteRange> {
        self.0.iter().map(|(start, end)| ByteRange::new(*start, *end))
    }

    pub fn insert(&mut self, mut range: ByteRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back().filter(|(_, end)| **end >= range.start)
        {
            if start <= range.start && end >= range.end {
                return;
            }
            self.0.remove(&start);
            range = ByteRange::new(start.min(range.start), end.max(range.end));
        }
        self.0.insert(range.start, range.end);
    }

    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..range.end).next_back().filter(|(_, end)| **end > range.start) {
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, end);
            }
            if start < range.start {
                self.0.insert(start, range.start);
            }
        }
    }
}
