//! Blocks of packs on the local disk, so that what was read or written once need not come from the store again.
//!
//! Invariants: sees ciphertext only; keeps to its size in bytes; never fails a read: whatever goes wrong with the
//! local disk is a miss. What it returns is not verified here: who opens it drops the block when it does not
//! authenticate, and the next fetch heals it. It deliberately syncs nothing.

mod blocks;
mod fetch;
mod files;

pub use blocks::{BlockCache, CacheStats};
pub use fetch::{FetchError, Fetcher};
