//! `share`, `get` and `import`: links made, shown and taken back in a drive that is mounted or not, and fetched from
//! wherever they are.

pub mod args;
mod export;
mod get;
mod perform;
mod protocol;
mod reach;
mod share;
mod show;

pub use get::{get, import};
pub use perform::perform;
pub use protocol::{Passphrase, ShareEvent, ShareRequest};
pub use share::share;
