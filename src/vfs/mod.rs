//! POSIX operations on rows and unsealed bytes. Knows no FUSE.
//!
//! Invariants: a file's state is its rows and, on top, the bytes that its node has not sealed yet; every
//! change goes through an intent; a cut for the log or the journal never holds a name or a size without the
//! bytes that were acknowledged for it.

pub mod acl;
pub mod api;
mod atime;
mod attr;
mod cycle;
mod data;
mod defragment;
mod drive;
mod errors;
mod links;
mod namespace;
mod node;
pub mod quota;
mod read;
mod recover;
mod renumber;
mod reseal;
mod space;
mod sync;
mod volume;
mod xattr;

pub use cycle::{CutSink, Cycle, CycleOptions};
pub use drive::{AtimeMode, Drive, DriveOptions, DriveParts, DriveStatus, RemoteSync};
pub use recover::Replayed;
pub use reseal::{OldData, OldKeys, Rate, ResealError};
pub use space::COMMIT_RESERVE;
pub use sync::FrozenCut;
pub use volume::{FlushError, OpenError, Opened, Remaining, Surroundings, Volume, VolumeOptions, VolumeStatus};
