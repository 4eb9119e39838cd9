//! One at a time works on a link. Taking it back does not wait for a publication to end by itself: it asks it to stop,
//! as does whoever closes the volume.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

use super::ShareError;
use crate::base::LinkId;

/// How often who waits for the store looks whether to go on.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Busy {
    links: Mutex<HashMap<LinkId, Stop>>,
    left: Condvar,
}

pub(super) struct AtWork<'a> {
    busy: &'a Busy,
    id: LinkId,
    stop: Stop,
}

/// Whether work is to end.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Busy {
    /// None: somebody else is at work.
    pub fn enter(&self, id: LinkId) -> Option<AtWork<'_>> {
        let mut links = self.links.lock();
        if links.contains_key(&id) {
            return None;
        }
        let stop = Stop::default();
        links.insert(id, stop.clone());
        Some(AtWork { busy: self, id, stop })
    }

    /// Asks whoever is at work to stop, and waits until they have.
    pub fn take_over(&self, id: LinkId) -> AtWork<'_> {
        let mut links = self.links.lock();
        while let Some(stop) = links.get(&id) {
            stop.ask();
            self.left.wait(&mut links);
        }
        let stop = Stop::default();
        links.insert(id, stop.clone());
        AtWork { busy: self, id, stop }
    }

    /// Asks all who are at work to stop.
    pub fn stop_all(&self) {
        self.links.lock().values().for_each(Stop::ask);
    }
}

impl AtWork<'_> {
    pub fn stop(&self) -> &Stop {
        &self.stop
    }
}

impl Stop {
    fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// For the work's end, or this: what waits for a store that is away must not keep anybody else waiting.
    pub fn wait<T>(&self, runtime: &Handle, work: impl Future<Output = T>) -> Result<T, ShareError> {
        runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            loop {
                match tokio::time::timeout(LOOK, &mut work).await {
                    Ok(done) => return Ok(done),
                    Err(_) if self.is_asked() => return Err(ShareError::Interrupted),
                    Err(_) => {}
                }
            }
        })
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.busy.links.lock().remove(&self.id);
        self.busy.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_over_stops_the_one_before() {
        let (busy, id) = (Busy::default(), LinkId([1; 16]));
        let first = busy.enter(id).unwrap();
        assert!(busy.enter(id).is_none() && busy.enter(LinkId([2; 16])).is_some());
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| drop(busy.take_over(id)));
            while !first.stop().is_asked() {
                std::thread::yield_now();
            }
            drop(first);
            taken.join().unwrap();
        });
        assert!(busy.enter(id).is_some_and(|work| !work.stop().is_asked()));
    }

    #[test]
    fn who_waits_for_a_store_that_is_away_stops_when_asked() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let busy = Busy::default();
        let work = busy.enter(LinkId([1; 16])).unwrap();
        assert!(matches!(work.stop().wait(runtime.handle(), async { 5 }), Ok(5)));
        busy.stop_all();
        let waited = work.stop().wait(runtime.handle(), std::future::pending::<()>());
        assert!(matches!(waited, Err(ShareError::Interrupted)));
    }
}
