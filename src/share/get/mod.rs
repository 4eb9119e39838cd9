//! Fetching a link: from a gateway or from the bucket itself, without any volume.
//!
//! Invariants: the record's signature is checked before anything in it is used, and every chunk before any byte of it
//! is written; nothing is written but below the place that was asked for, and never through a symlink; what is there
//! under its final name is whole. It trusts neither gateway nor store, and nobody else who has the link.

mod batch;
mod bucket;
mod error;
mod gateway;
mod index;
mod place;
mod run;
mod target;

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::{ByteRange, LinkId};
use crate::format::link::SignedRecord;

pub use bucket::BucketSource;
pub(super) use bucket::{listed, record};
pub use error::{GetError, Gone};
pub use gateway::GatewaySource;
pub use index::Index;
pub use place::{Place, keeps_names};
pub use run::{Fetched, GetOptions, GetProgress, get, open};

/// Where a link's objects are.
#[async_trait]
pub trait LinkSource: Send + Sync {
    /// The newest record, its signature verified.
    async fn newest(&self, link: LinkId) -> Result<SignedRecord, GetError>;

    /// Exactly this range of a pack.
    async fn read(&self, link: LinkId, pack: u64, range: ByteRange) -> Result<Bytes, GetError>;
}
