//! How `status`, `flush` and `umount` talk to a running daemon: one socket for each mount, a line of JSON each way.
//!
//! Invariants: the socket is 0600 in a 0700 folder, and the peer must be the same user or root; no request carries
//! a secret or a path.

mod client;
mod protocol;
mod server;

pub use client::{Client, Waited};
pub use protocol::{CacheUse, Left, OldKeys, Reply, Request, Status, StoreState, Waiting};
pub use server::{Control, Server};

#[cfg(test)]
mod tests;
