//! Every byte that is stored: codecs without I/O. FORMAT.md beside this file draws each of them.
//!
//! Invariants: decoding validates everything a later layer trusts (names, modes, lengths, order), allocates
//! no more than the input is long times a constant, and never panics. Encoding is canonical: equal values
//! give equal bytes. It does not know where objects are kept, nor in which order they come to be.

mod chain;
pub mod chunk;
mod codec;
mod compress;
mod envelope;
mod floor;
pub mod intent;
pub mod journal;
pub mod link;
mod manifest;
mod names;
pub mod pack;
pub mod padding;
mod record;
pub mod rows;
mod segment;
mod share_box;
mod slot;
pub mod state;
#[cfg(test)]
mod testing;
mod volume;

pub use chain::EpochLink;
pub use codec::{FormatError, Reader, Writer};
pub use envelope::{OpenError, epoch_of, object_hash};
pub use floor::Floor;
pub use manifest::{HighWater, Manifest};
pub use names::{ObjectName, Prefix, SlotNo, WHOLE_LEN_MAX};
pub use record::{NextEpoch, Record, RowChange};
pub use segment::{Row, SegmentBuilder, SegmentMeta, SegmentReader};
pub use share_box::{BOX_HEAD_LEN, OpenBox, box_head, box_pack_head, decode_box};
pub use slot::{Slot, SlotDetails, SlotInfo, SlotKind, SlotPlace, UnlockError, Unlocked};
pub use volume::{VOLUME_VERSION, VolumeObject, VolumeParameters};
