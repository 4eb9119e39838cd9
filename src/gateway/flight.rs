//! One piece of work for each key at a time, however many wait for it.
//!
//! Invariant: work that has begun goes on when all who waited have gone away, so that nothing is ever held by a request
//! that nobody looks at any more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

pub type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

pub struct Flights<K, V: Clone> {
    flying: Arc<Mutex<HashMap<K, Flight<V>>>>,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Copy + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub fn new() -> Self {
        Self { flying: Arc::default() }
    }

    pub fn get(&self, key: &K) -> Option<Flight<V>> {
        self.flying.lock().get(key).cloned()
    }

    /// Starts `work` for the keys, unless the first is being worked for. Keys that are being worked for stay with that.
    pub fn start<W>(&self, keys: &[K], work: impl FnOnce() -> W) -> Option<Flight<V>>
    where
        W: Future<Output = V> + Send + 'static,
    {
        let mut flying = self.flying.lock();
        let first = *keys.first()?;
        if let Some(flight) = flying.get(&first) {
            return Some(flight.clone());
        }
        let own: Vec<K> = keys.iter().copied().filter(|key| !flying.contains_key(key)).collect();
        let (work, shared, landing) = (work(), self.flying.clone(), own.clone());
        let task = tokio::spawn(async move {
            // Also when the work panics.
            let _landed = Landing { flying: shared, keys: landing };
            work.await
        });
        let flight = task.map(Result::ok).boxed().shared();
        for key in own {
            flying.insert(key, flight.clone());
        }
        Some(flight)
    }
}

struct Landing<K: Hash + Eq, V: Clone> {
    flying: Arc<Mutex<HashMap<K, Flight<V>>>>,
    keys: Vec<K>,
}

impl<K: Hash + Eq, V: Clone> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flying = self.flying.lock();
        for key in &self.keys {
            flying.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_wait_for_one_and_the_next_starts_anew() {
        let flights: Flights<u32, u32> = Flights::new();
        let runs = Arc::new(AtomicU32::new(0));
        let work = || {
            let runs = runs.clone();
            async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst)
            }
        };
        let all: Vec<_> = (0..50).map(|_| flights.start(&[1], work).unwrap()).collect();
        assert_eq!(futures::future::join_all(all).await, vec![Some(0); 50]);
        assert_eq!(flights.start(&[1], work).unwrap().await, Some(1));
    }

    #[tokio::test]
    async fn work_goes_on_without_who_asked_and_ends_even_in_a_panic() {
        let flights: Flights<u32, u32> = Flights::new();
        let (done, seen) = tokio::sync::oneshot::channel();
        drop(flights.start(&[1], || async move {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
            1
        }));
        seen.await.unwrap();
        assert_eq!(flights.start(&[2], || async { panic!("in a test") }).unwrap().await, None);
        assert!(flights.get(&2).is_none());
    }
}
