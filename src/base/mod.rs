//! The vocabulary: identifiers, validated names, times, ranges, and the sources of time and
//! randomness as parameters.
//!
//! Invariant: no I/O but the two system sources, no knowledge of any format or key.

mod entropy;
mod ids;
mod name;
mod printable;
mod range;
mod size;
mod time;

pub use entropy::{Entropy, SystemEntropy};
pub use ids::{
    ChunkId, ChunkNo, DeviceSlot, Epoch, Hash, Incarnation, InodeId, IntentNo, KeyNo, LinkId, Numbers, PackName,
    PackNo, SegmentId, Seq, VolumeId,
};
pub use name::{NAME_LEN_MAX, Name, NameError};
pub use printable::Printable;
pub use range::ByteRange;
pub use size::{ByteSize, SizeError};
pub use time::{Clock, SystemClock, Timestamp};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// The unit of dedup: at most this much of one file's plaintext.
pub const CHUNK_LEN: u64 = MIB;
/// The unit of reading inside a chunk.
pub const FRAME_LEN: u64 = 64 * KIB;
/// The unit of fetching and caching: an aligned piece of a pack.
pub const BLOCK_LEN: u64 = 256 * KIB;
/// A pack is closed once it holds this much.
pub const PACK_LEN_TARGET: u64 = 16 * MIB;

const _: () = assert!(CHUNK_LEN.is_multiple_of(FRAME_LEN));
const _: () = assert!(PACK_LEN_TARGET.is_multiple_of(BLOCK_LEN));
