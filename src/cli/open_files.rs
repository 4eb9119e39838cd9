//! How many files the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// To what is allowed: connections, cached blocks and what waits for upload are open files, and the usual limit is low.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err() {
        tracing::warn!("the number of open files stays limited to {}", limit.current.unwrap_or(u64::MAX));
    }
}
