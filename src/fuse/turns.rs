//! Calls that may wait, on threads of the runtime, but never on all of them.
//!
//! Invariant: what such a call waits for (an upload, a commit) needs threads of the same pool, and finds some. How
//! many requests wait at a time is for the programs to say: the kernel does not limit those that have a caller.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Half of what tokio's pool of blocking threads has.
const WAITING_MAX: usize = 256;

pub struct Turns {
    runtime: Handle,
    free: Arc<Semaphore>,
}

impl Turns {
    pub fn new(runtime: Handle) -> Self {
        Self::with_max(runtime, WAITING_MAX)
    }

    fn with_max(runtime: Handle, max: usize) -> Self {
        Self { runtime, free: Arc::new(Semaphore::new(max)) }
    }

    /// Runs `work` on a thread where it may block, at once or when its turn comes.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        if let Ok(turn) = self.free.clone().try_acquire_owned() {
            drop(self.runtime.spawn_blocking(move || {
                work();
                drop(turn);
            }));
            return;
        }
        let free = self.free.clone();
        drop(self.runtime.spawn(async move {
            // Never closed.
            let Ok(turn) = free.acquire_owned().await else { return };
            drop(tokio::task::spawn_blocking(move || {
                work();
                drop(turn);
            }));
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use parking_lot::{Condvar, Mutex};

    use super::*;

    #[test]
    fn however_many_wait_others_find_a_thread() {
        const CALLS: usize = 100;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(8).build();
        let runtime = runtime.unwrap();
        let turns = Turns::with_max(runtime.handle().clone(), 4);
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..CALLS {
            let (gate, done) = (gate.clone(), done.clone());
            turns.run(move || {
                let mut open = gate.0.lock();
                while !*open {
                    gate.1.wait(&mut open);
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        // Such as the upload that they wait for.
        let (ran, was_run) = mpsc::channel();
        drop(runtime.spawn_blocking(move || ran.send(())));
        was_run.recv_timeout(Duration::from_secs(10)).expect("a thread for what is waited for");
        *gate.0.lock() = true;
        gate.1.notify_all();
        let start = Instant::now();
        while done.load(Ordering::SeqCst) < CALLS {
            assert!(start.elapsed() < Duration::from_secs(10), "{done:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
