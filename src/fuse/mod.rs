//! Kernel requests to vfs calls and back, notifications, and the session that carries them.
//!
//! Invariants: no operation is decided here; a panic in an operation becomes EIO and never ends the session;
//! each request is answered exactly once. Does not know how files are stored.

mod adapter;
mod answer;
mod capabilities;
mod convert;
mod credentials;
mod errno;
mod listing;
mod mounts;
mod notifier;
mod session;
mod turns;

pub use adapter::Adapter;
pub use errno::errno;
pub use mounts::{FS_TYPE, MountEntry, mount_at, mounts, resolve};
pub use notifier::Notifier;
pub use session::{Ended, Lazy, MountError, MountOptions, Mounted, UnmountError, is_dead, mount, remount, unmount};
