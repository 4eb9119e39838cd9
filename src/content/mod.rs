//! Files' bytes: what is written waits here until it is sealed into packs, what is read comes out of them.
//!
//! Invariants: nothing but sealed chunks reaches a staging file, a cache or the store; a staged pack stays
//! readable here until its bytes are elsewhere; bytes that do not authenticate are never handed out.
//! It deliberately knows nothing of inodes, rows' history and the log: the layer above says which chunk is
//! where, and when a record has committed.

pub mod dirty;
mod error;
pub mod extent;
mod prefetch;
mod reader;
mod seal;
mod staging;
#[cfg(test)]
mod testing;
mod upload;

pub use dirty::{DirtyBudget, DirtyPiece, DirtyPieces, RangeSet};
pub use error::ContentError;
pub use prefetch::Prefetch;
pub use reader::{ChunkReader, ChunkSource};
pub use seal::seal_piece;
pub use staging::{NewPack, Pending, Place, Recovered, Referenced, Room, Staging, StagingOptions, Unreferenced};
pub use upload::{UploadHealth, Uploader};
