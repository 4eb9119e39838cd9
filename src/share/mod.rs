//! Links: a copy of one file or folder under keys of its own, published, followed, taken back, and fetched.
//!
//! Invariants: what is published is sealed under the link's keys alone, and nothing of the volume's goes with it;
//! packs are in the store before the record that names them; a tombstone wins over every record, and nothing is
//! published after it; what is fetched is held to the owner's signature and hashes before any byte of it is released,
//! and lands only below the place that was asked for. It deliberately knows neither FUSE nor the gateway, and only
//! the publisher's half knows the volume.

mod busy;
mod copy;
mod error;
mod export;
mod follow;
pub mod get;
mod known;
mod packer;
mod previous;
mod publish;
mod revoke;
mod sharing;
mod source;
mod waste;

pub use copy::{Progress, Report};
pub use error::ShareError;
pub use follow::{FollowOptions, Follower};
pub use sharing::{LinkInfo, LinkState, Request, Shared, Sharing, SharingParts};
