//! hushfs: a private drive on any object store.
//!
//! Layers, lowest first; each imports only what stands above it in this list
//! (`tests/tidy.rs` enforces it). See `src/ARCHITECTURE.md`.

pub mod base;
pub mod cache;
pub mod cli;
pub mod content;
pub mod crypto;
pub mod disk;
pub mod format;
pub mod fuse;
pub mod gateway;
pub mod meta;
pub mod share;
pub mod store;
pub mod vfs;
