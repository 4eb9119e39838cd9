//! What to fetch ahead of a sequential reader, one per open file.
//!
//! Pure: it is told of each read and answers with a range. The window doubles only when a sequential reader
//! had to wait although something was fetched ahead, so that it grows to bandwidth × delay and stays there.

use crate::base::{ByteRange, KIB, MIB};

pub struct Prefetch {
    /// Where the next sequential read starts.
    next: u64,
    /// Sequential reads in a row.
    streak: u32,
    window: u64,
    /// The end of what was asked for ahead.
    ahead: u64,
}

impl Prefetch {
    pub const WINDOW_MIN: u64 = 512 * KIB;
    pub const WINDOW_MAX: u64 = 16 * MIB;
    /// The kernel reads ahead by itself, in several requests at once that arrive in any order: so far from the
    /// expected place a read still counts as the next one.
    const SLACK: u64 = MIB;

    pub fn new() -> Self {
        Self { next: 0, streak: 0, window: Self::WINDOW_MIN, ahead: 0 }
    }

    /// Tells of a read, and whether it had to wait for the network. Returns what to fetch now.
    pub fn on_read(&mut self, read: ByteRange, waited: bool, file_len: u64) -> Option<ByteRange> {
        let is_near = read.start.abs_diff(self.next) <= Self::SLACK;
        let is_next = if self.streak == 0 { read.start == self.next } else { is_near };
        if !is_next {
            *self = Self { next: read.end, streak: 0, window: Self::WINDOW_MIN, ahead: read.end };
            return None;
        }
        self.streak = self.streak.saturating_add(1);
        self.next = self.next.max(read.end);
        if waited && self.ahead > read.start {
            self.window = (self.window * 2).min(Self::WINDOW_MAX);
        }
        self.ahead = self.ahead.max(self.next);
        // Half a window at once, so that it is a few large requests instead of many small ones.
        if self.ahead >= file_len || self.ahead - self.next > self.window / 2 {
            return None;
        }
        let range = ByteRange::new(self.ahead, (self.next + self.window).min(file_len));
        self.ahead = range.end;
        (!range.is_empty()).then_some(range)
    }
}

impl Default for Prefetch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ: u64 = 128 * KIB;
    const FILE: u64 = 100 * MIB;

    fn read(nth: u64) -> ByteRange {
        ByteRange::new(nth * READ, (nth + 1) * READ)
    }

    #[test]
    fn what_is_fetched_ahead_is_each_byte_once_and_none_behind_the_end() {
        let mut prefetch = Prefetch::new();
        let mut reached = READ;
        for nth in 0..FILE / READ {
            if let Some(range) = prefetch.on_read(read(nth), nth % 7 == 0, FILE) {
                assert_eq!(range.start, reached);
                assert!(range.len() <= Prefetch::WINDOW_MAX);
                reached = range.end;
            }
        }
        assert_eq!(reached, FILE);
    }

    #[test]
    fn the_window_grows_only_while_the_reader_waits() {
        let ahead_after = |waits: u64| {
            let mut prefetch = Prefetch::new();
            let mut ahead = 0;
            for nth in 0..64 {
                let range = prefetch.on_read(read(nth), nth < waits, FILE);
                ahead = range.map_or(ahead, |range| range.end);
            }
            ahead - 64 * READ
        };
        assert!(ahead_after(0) <= Prefetch::WINDOW_MIN);
        assert!(ahead_after(5) > 4 * Prefetch::WINDOW_MIN);
        assert!(ahead_after(64) > Prefetch::WINDOW_MAX / 2);
        assert!(ahead_after(64) <= Prefetch::WINDOW_MAX);
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut prefetch = Prefetch::new();
        for nth in [700, 20, 400, 90, 650, 10] {
            assert_eq!(prefetch.on_read(read(nth), true, FILE), None);
        }
    }

    #[test]
    fn a_sequence_may_start_anywhere_and_arrive_out_of_order() {
        let mut prefetch = Prefetch::new();
        assert_eq!(prefetch.on_read(read(300), true, FILE), None);
        assert!(prefetch.on_read(read(301), true, FILE).is_some());
        prefetch.on_read(read(304), true, FILE);
        prefetch.on_read(read(302), true, FILE);
        prefetch.on_read(read(303), true, FILE);
        assert!(prefetch.streak > 3);
    }

    proptest! {
        #[test]
        fn no_read_asks_for_bytes_beyond_the_file(
            reads in prop::collection::vec((0..FILE, 1..MIB, any::<bool>()), 0..50), file_len in 0..FILE,
        ) {
            let mut prefetch = Prefetch::new();
            for (start, len, waited) in reads {
                let range = prefetch.on_read(ByteRange::new(start, start + len), waited, file_len);
                prop_assert!(range.is_none_or(|range| !range.is_empty() && range.end <= file_len));
            }
        }
    }
}
