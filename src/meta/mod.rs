//! The metadata: what the volume's rows are here and now, and what a user's deed does to them.
//!
//! Invariant: a reader never sees half of a change. Contents are rows like any other here: this layer
//! never touches a file's bytes.

pub mod checkpoint;
pub mod commit;
mod driver;
mod error;
mod filekeys;
pub mod journal;
pub mod keyring;
pub mod leftover;
pub mod log;
pub mod mounting;
mod numbers;
mod overlay;
mod pending;
pub mod replica;
pub mod resolve;
mod rows;
mod spill;
mod sqlite;
pub mod twin;
pub mod view;

pub use error::MetaError;
pub use filekeys::{FileKey, FileKeys};
pub use numbers::Counters;
pub use overlay::Scratch;
pub use pending::{Cut, DeviceIdentity, JournalBatch, Pending};
pub use replica::Replica;
pub use rows::{RowChanges, Rows};
pub use view::{GenerationNo, View, ViewReader};
