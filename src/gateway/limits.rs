//! How much the gateway gives, and to whom.

use std::time::Duration;

use crate::base::{GIB, MIB};

/// What one visitor or one link may use. It refills evenly, and may be used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub requests_per_minute: u64,
    pub bytes_per_hour: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub visitor: Budget,
    pub link: Budget,
    /// Requests that are being answered, of all together and of one visitor. Each is made of whole blocks, one after the
    /// other, and holds one of them at a time.
    pub open_max: usize,
    pub open_max_of_visitor: usize,
    /// Connections, of which some are idle.
    pub connections_max: usize,
    pub cache_bytes_max: u64,
    /// A reader who takes less than `slow_bytes` within `slow_after` is cut off.
    pub slow_after: Duration,
    pub slow_bytes: u64,
    /// For the head of a request, and for the next one on an idle connection.
    pub head_within: Duration,
    /// For the store to answer.
    pub store_within: Duration,
    /// How long it is believed that a link was not taken back.
    pub fresh_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            visitor: Budget { requests_per_minute: 1_200, bytes_per_hour: 200 * GIB },
            link: Budget { requests_per_minute: 12_000, bytes_per_hour: 1024 * GIB },
            open_max: 1_024,
            open_max_of_visitor: 64,
            connections_max: 4_096,
            cache_bytes_max: 256 * MIB,
            slow_after: Duration::from_secs(30),
            slow_bytes: 64 << 10,
            head_within: Duration::from_secs(15),
            store_within: Duration::from_secs(15),
            fresh_for: Duration::from_secs(5),
        }
    }
}

/// How many neighbours one request to the store may take.
pub const RUN_BLOCKS: u64 = 4;
/// Requests to the store at a time for blocks, each with such a run twice at most; and for records, with two of them.
pub const READS_MAX: usize = 32;
/// Visitors and links whose budgets are remembered, and links whose state is.
pub const REMEMBERED: usize = 1 << 16;
