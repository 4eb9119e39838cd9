//! Moves opaque objects by name. Only create-if-absent is used to write: no overwrite, no compare-and-swap.
//!
//! Invariants: sees ciphertext only; never writes over an object; every remote wait has a deadline; a create is
//! sent once, and when its outcome is not known the answer says so (`StoreErrorKind::Unknown`), because a blind
//! retry would report a loss to the true winner. A missing object is `None`, never an error.
//! It deliberately knows nothing of what the objects mean, and trusts no listing to be complete.

mod aws;
mod connect;
mod deadline;
mod error;
mod evil;
mod fault;
mod health;
mod keep;
mod limit;
mod memory;
mod object;
mod race;
mod retry;
mod translate;
mod url;

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::ByteRange;
use crate::format::ObjectName;

pub use crate::format::Prefix;

pub use aws::{Environment, section_of as aws_section_of};
pub use connect::{Connected, OptionError, StoreOptions, connect, connect_with, decorate};
pub use deadline::{Deadline, Patience};
pub use error::{Op, StoreError, StoreErrorKind};
pub use evil::{Evil, EvilStore, EvilWorld, Pick, Sent};
pub use fault::{Fault, FaultStore, Faults, Rule, When};
pub use health::{Health, HealthLevel, HealthState, ObjectKind, Traffic, Watched};
pub use keep::Keep;
pub use limit::Limited;
pub use memory::MemoryStore;
pub use race::{Creates, race_creates};
pub use retry::{Backoff, Retry, Stored, create_idempotent};
pub use url::{StoreUrl, UrlError};

/// How a create ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    /// The name is taken, by whom and with what only a get can tell.
    Exists,
}

#[async_trait]
pub trait Store: Send + Sync {
    /// Stores the object if the name is free. Sent once; `StoreErrorKind::Unknown` means it may be stored.
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError>;

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError>;

    /// Shorter than asked at the object's end, empty beyond it; `None` when there is no object.
    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError>;

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError>;

    /// Sorted. A hint only: a store may lie, and foreign names are left out.
    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError>;

    /// Succeeds when there is nothing to delete.
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;
}

/// Whether a listing of `prefix` holds `name`.
fn is_under(prefix: Prefix, name: &ObjectName) -> bool {
    prefix == Prefix::Everything || name.to_string().starts_with(&prefix.to_string())
}

/// The part of `bytes` that `range` names, as `get_range` answers.
fn slice(bytes: &Bytes, range: ByteRange) -> Bytes {
    let len = bytes.len() as u64;
    bytes.slice(range.start.min(len) as usize..range.end.min(len) as usize)
}
