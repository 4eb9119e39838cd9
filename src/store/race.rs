//! Finds out whether a store keeps its promise that of two creates of one name only one wins.
//!
//! Some servers take `If-None-Match`, answer OK and overwrite; some check it, but not against a create that is
//! under way. On such a store two devices would write over each other's commits.

use bytes::Bytes;

use super::{Created, Store, StoreError, StoreErrorKind};
use crate::base::{Entropy, Incarnation, PackName};
use crate::format::ObjectName;

const ROUNDS: u64 = 6;
/// Two are enough for a store that never looks; more make it likelier to catch one that looks too early.
const RACERS: usize = 8;
const PROBE_LEN: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creates {
    /// As far as this many tries can tell.
    Exclusive,
    /// What happened instead, for a person to read. One device at a time may use such a store.
    NotExclusive(&'static str),
}

/// Races creates of a few names that nobody else uses, and deletes them again.
pub async fn race_creates(store: &dyn Store, entropy: &dyn Entropy) -> Result<Creates, StoreError> {
    let mut id = [0; 16];
    entropy.fill(&mut id);
    let incarnation = Incarnation(id);
    let name = |number| ObjectName::Pack(PackName { incarnation, number });
    let mut outcome = Ok(Creates::Exclusive);
    let mut rounds = 0;
    while rounds < ROUNDS && matches!(outcome, Ok(Creates::Exclusive)) {
        rounds += 1;
        outcome = race(store, &name(rounds), rounds).await;
    }
    for round in 1..=rounds {
        // What stays behind is garbage that gc finds, and the answer is worth more than its removal.
        if let Err(error) = store.delete(&name(round)).await {
            tracing::warn!("could not delete a probe: {error}");
        }
    }
    outcome
}

async fn race(store: &dyn Store, name: &ObjectName, round: u64) -> Result<Creates, StoreError> {
    let probe = |racer: usize| {
        let mut bytes = vec![racer as u8; PROBE_LEN];
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        Bytes::from(bytes)
    };
    let outcomes = futures::future::join_all((0..RACERS).map(|racer| store.create(name, probe(racer)))).await;
    let mut winners = Vec::new();
    for (racer, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(Created::New) => winners.push(racer),
            Ok(Created::Exists) => {}
            // It may have won without hearing of it; what is stored tells.
            Err(error) if error.kind == StoreErrorKind::Unknown || error.kind == StoreErrorKind::Throttled => {}
            Err(error) => return Err(error),
        }
    }
    if winners.len() > 1 {
        return Ok(Creates::NotExclusive("two creates of one name were both told that they won"));
    }
    let Some(found) = store.get(name).await? else {
        return match winners[..] {
            [] => Ok(Creates::Exclusive),
            _ => Ok(Creates::NotExclusive("an object that was just created is not there")),
        };
    };
    if let [winner] = winners[..]
        && found != probe(winner)
    {
        return Ok(Creates::NotExclusive("a later create wrote over the winner"));
    }
    // One after another, which a store that never looks gets wrong every time.
    match store.create(name, probe(RACERS)).await {
        Ok(Created::New) => return Ok(Creates::NotExclusive("a create of a taken name was told that it won")),
        Ok(Created::Exists) => {}
        Err(error) if error.kind == StoreErrorKind::Unknown || error.kind == StoreErrorKind::Throttled => {}
        Err(error) => return Err(error),
    }
    match store.get(name).await? {
        Some(now) if now == found => Ok(Creates::Exclusive),
        _ => Ok(Creates::NotExclusive("a create of a taken name wrote over what was there")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::super::{Fault, FaultStore, MemoryStore, Op, Prefix, Rule, When};
    use super::*;
    use crate::base::{ByteRange, SystemEntropy};

    #[tokio::test]
    async fn a_good_store_is_exclusive_and_clean_afterwards() {
        let memory = MemoryStore::new();
        assert_eq!(race_creates(&memory, &SystemEntropy).await.unwrap(), Creates::Exclusive);
        assert_eq!(memory.names(), []);
    }

    #[tokio::test]
    async fn lost_answers_are_no_proof_of_anything() {
        let memory = MemoryStore::new();
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        faults.add(Rule::on(Op::Create, Fault::ApplyThenFail(StoreErrorKind::Unknown)).when(When::Nth(1)));
        assert_eq!(race_creates(&store, &SystemEntropy).await.unwrap(), Creates::Exclusive);
        assert_eq!(memory.names(), []);
    }

    /// As Garage 2.5 does it.
    struct Overwriting {
        inner: MemoryStore,
        honest: bool,
    }

    #[async_trait]
    impl Store for Overwriting {
        async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
            let is_taken = self.inner.peek(name).is_some();
            self.inner.plant(*name, bytes);
            Ok(if is_taken && self.honest { Created::Exists } else { Created::New })
        }
        async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
            self.inner.get(name).await
        }
        async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
            self.inner.get_range(name, range).await
        }
        async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
            self.inner.size(name).await
        }
        async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
            self.inner.list(prefix).await
        }
        async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
            self.inner.delete(name).await
        }
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_found_whatever_it_says() {
        for honest in [false, true] {
            let store = Overwriting { inner: MemoryStore::new(), honest };
            let found = race_creates(&store, &SystemEntropy).await.unwrap();
            assert!(matches!(found, Creates::NotExclusive(_)), "{found:?}");
            assert_eq!(store.inner.names(), []);
        }
    }

    #[tokio::test]
    async fn an_error_is_no_verdict() {
        let (store, faults) = FaultStore::new(Arc::new(MemoryStore::new()));
        faults.add(Rule::on(Op::Create, Fault::Fail(StoreErrorKind::Denied)));
        assert_eq!(race_creates(&store, &SystemEntropy).await.unwrap_err().kind, StoreErrorKind::Denied);
    }
}
