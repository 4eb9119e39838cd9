//! What a link is at the moment: current, expired, taken back, or nothing.
//!
//! Invariants: only what the link's owner signed counts; a tombstone is believed for good, whatever has a higher number;
//! and a link that was taken back is refused within `fresh_for`, also to who is in the middle of it and whatever is
//! still in memory.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::bounded::Bounded;
use super::flight::Flights;
use super::limits::READS_MAX;
use crate::base::{Clock, LinkId, MIB};
use crate::format::link::{SignedRecord, Status};
use crate::format::{ObjectName, Prefix};
use crate::store::{Store, StoreError};

#[derive(Clone, Debug)]
pub enum LinkState {
    Absent,
    Current(Arc<SignedRecord>),
    Expired,
    Revoked(Arc<SignedRecord>),
}

/// The newest record as the store has it.
type Newest = Option<Arc<SignedRecord>>;

pub struct Links {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    fresh_for: Duration,
    known: Arc<Mutex<Bounded<LinkId, Known>>>,
    flights: Flights<LinkId, Result<Newest, StoreError>>,
    looks: Arc<Semaphore>,
}

struct Known {
    newest: Newest,
    until: Instant,
}

/// Of records that are remembered. Most have a few KiB, some 1 MiB.
const KNOWN_BYTES_MAX: u64 = 64 * MIB;
/// What one takes besides its record; that there is none is remembered too.
const KNOWN_BYTES: u64 = 512;
/// Of the records under one link, the highest so many are looked at.
const RECORDS_MAX: usize = 16;

impl Links {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, fresh_for: Duration) -> Self {
        let known = Arc::new(Mutex::new(Bounded::new(KNOWN_BYTES_MAX)));
        Self { store, clock, fresh_for, known, flights: Flights::new(), looks: Arc::new(Semaphore::new(READS_MAX)) }
    }

    pub async fn state(&self, link: LinkId) -> Result<LinkState, StoreError> {
        Ok(self.judge(self.newest(link).await?))
    }

    /// As the store has it now. For who finds that something of the link is gone: was the link taken back?
    pub async fn state_now(&self, link: LinkId) -> Result<LinkState, StoreError> {
        if let Some(known) = self.known.lock().get_mut(&link) {
            known.until = Instant::now();
        }
        self.state(link).await
    }

    /// Expiry is judged anew each time: it needs no store.
    fn judge(&self, newest: Newest) -> LinkState {
        let Some(record) = newest else { return LinkState::Absent };
        match record.status(self.clock.now()) {
            Status::Current => LinkState::Current(record),
            Status::Expired => LinkState::Expired,
            Status::Revoked => LinkState::Revoked(record),
        }
    }

    async fn newest(&self, link: LinkId) -> Result<Newest, StoreError> {
        let known = match self.known.lock().get(&link) {
            Some(known) if known.until > Instant::now() => return Ok(known.newest.clone()),
            Some(known) => known.newest.clone(),
            None => None,
        };
        if known.as_ref().is_some_and(|record| record.is_tombstone()) {
            return Ok(known);
        }
        if let Some(flight) = self.flights.get(&link) {
            return flight.await.unwrap_or(Ok(None));
        }
        let Ok(permit) = self.looks.clone().acquire_owned().await else { return Ok(None) };
        let (store, remembered, fresh_for) = (self.store.clone(), self.known.clone(), self.fresh_for);
        let look = || async move {
            let _permit = permit;
            let newest = match known {
                Some(record) if is_still_newest(&*store, &record).await? => Some(record),
                _ => find_newest(&*store, link).await?,
            };
            let until = Instant::now() + fresh_for;
            let bytes = KNOWN_BYTES + newest.as_ref().map_or(0, |record| record.bytes().len() as u64);
            remembered.lock().put(link, bytes, Known { newest: newest.clone(), until });
            Ok(newest)
        };
        match self.flights.start(&[link], look) {
            Some(flight) => flight.await.unwrap_or(Ok(None)),
            None => Ok(None),
        }
    }
}

/// What is newer has the next number that was free, and takes the older away. This spares a listing, which a link of
/// many packs makes long.
async fn is_still_newest(store: &dyn Store, record: &SignedRecord) -> Result<bool, StoreError> {
    let Some(next) = record.number().checked_add(1) else { return Ok(true) };
    let (own, next) = (ObjectName::Share(record.link(), record.number()), ObjectName::Share(record.link(), next));
    let (own, next) = futures::join!(store.size(&own), store.size(&next));
    Ok(own?.is_some() && next?.is_none())
}

async fn find_newest(store: &dyn Store, link: LinkId) -> Result<Newest, StoreError> {
    let names = store.list(Prefix::ShareOf(link)).await?;
    let numbers = names.iter().rev().filter_map(|name| match name {
        ObjectName::Share(id, number) if *id == link => Some(*number),
        _ => None,
    });
    let mut newest: Newest = None;
    for number in numbers.take(RECORDS_MAX) {
        let Some(bytes) = store.get(&ObjectName::Share(link, number)).await? else { continue };
        match SignedRecord::verify(link, number, bytes.to_vec()) {
            Ok(record) if record.is_tombstone() => return Ok(Some(Arc::new(record))),
            Ok(record) => newest = newest.or(Some(Arc::new(record))),
            Err(error) => tracing::warn!("record {number} of link {} is passed over: {error}", short(link)),
        }
    }
    Ok(newest)
}

/// As much of an id as a log needs to tell links apart, and too little to ask for one.
pub fn short(link: LinkId) -> String {
    let mut text = link.to_string();
    text.truncate(6);
    text.push_str("..");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Name, SystemEntropy, Timestamp};
    use crate::format::link::{ChunkRef, Header, LinkKeys, RootKind, seal_link_chunk, tombstone};
    use crate::store::{FaultStore, Faults, MemoryStore, Op};

    struct At(Mutex<i64>);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::new(*self.0.lock(), 0)
        }
    }

    struct Rig {
        links: Links,
        memory: MemoryStore,
        faults: Faults,
        clock: Arc<At>,
        keys: LinkKeys,
    }

    fn rig() -> Rig {
        let (memory, clock) = (MemoryStore::default(), Arc::new(At(Mutex::new(1_000))));
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        let links = Links::new(Arc::new(store), clock.clone(), Duration::from_secs(5));
        Rig { links, memory, faults, clock, keys: LinkKeys::generate(None, &SystemEntropy) }
    }

    impl Rig {
        fn publish(&self, number: u64, expiry: Option<i64>) {
            let chunk: ChunkRef =
                seal_link_chunk(self.keys.id(), &self.keys.content_root(), b"index", (1, 0), &SystemEntropy).1;
            let header = Header {
                title: Name::parse(b"a").unwrap(),
                published: Timestamp::new(1, 0),
                kind: RootKind::File,
                files: 1,
                bytes: 0,
                index: vec![chunk],
            };
            let expiry = expiry.map(|at| Timestamp::new(at, 0));
            let bytes = self.keys.seal(number, expiry, &header, &SystemEntropy).unwrap();
            self.memory.plant(ObjectName::Share(self.keys.id(), number), bytes.into());
        }

        fn bury(&self, number: u64) {
            let bytes = tombstone(&self.keys.signer(), number);
            self.memory.plant(ObjectName::Share(self.keys.id(), number), bytes.into());
        }

        async fn state(&self) -> String {
            match self.links.state(self.keys.id()).await.unwrap() {
                LinkState::Absent => "absent".into(),
                LinkState::Current(record) => format!("current {}", record.number()),
                LinkState::Expired => "expired".into(),
                LinkState::Revoked(record) => format!("revoked {}", record.number()),
            }
        }
    }

    async fn later() {
        tokio::time::advance(Duration::from_secs(6)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_record_counts_and_a_newer_one_is_seen_soon() {
        let rig = rig();
        assert_eq!(rig.state().await, "absent");
        later().await;
        rig.publish(1, None);
        rig.publish(2, None);
        assert_eq!(rig.state().await, "current 2");
        rig.publish(3, None);
        assert_eq!(rig.state().await, "current 2", "believed for a moment");
        later().await;
        assert_eq!(rig.state().await, "current 3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tombstone_wins_over_any_number_and_for_good() {
        let rig = rig();
        rig.publish(1, None);
        assert_eq!(rig.state().await, "current 1");
        rig.bury(2);
        rig.publish(3, None);
        later().await;
        assert_eq!(rig.state().await, "revoked 2");
        rig.memory.delete(&ObjectName::Share(rig.keys.id(), 2)).await.unwrap();
        later().await;
        assert_eq!(rig.state().await, "revoked 2");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_now_is_not_told_what_was() {
        let rig = rig();
        rig.publish(1, None);
        assert_eq!(rig.state().await, "current 1");
        rig.bury(2);
        assert_eq!(rig.state().await, "current 1", "believed for a moment");
        let now = rig.links.state_now(rig.keys.id()).await.unwrap();
        assert!(matches!(now, LinkState::Revoked(_)), "{now:?}");
        assert_eq!(rig.state().await, "revoked 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tombstone_beyond_a_gap_is_seen_because_the_record_went() {
        let rig = rig();
        rig.publish(1, None);
        assert_eq!(rig.state().await, "current 1");
        rig.bury(3);
        rig.memory.delete(&ObjectName::Share(rig.keys.id(), 1)).await.unwrap();
        later().await;
        assert_eq!(rig.state().await, "revoked 3");
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_needs_no_further_look_at_the_store() {
        let rig = rig();
        rig.publish(1, Some(1_500));
        assert_eq!(rig.state().await, "current 1");
        *rig.clock.0.lock() = 1_500;
        assert_eq!(rig.state().await, "expired");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_owner_did_not_sign_is_passed_over() {
        let (rig, other) = (rig(), rig());
        rig.publish(1, None);
        other.publish(2, None);
        let forged = other.memory.peek(&ObjectName::Share(other.keys.id(), 2)).unwrap();
        rig.memory.plant(ObjectName::Share(rig.keys.id(), 2), forged);
        rig.memory.plant(ObjectName::Share(rig.keys.id(), 3), b"garbage"[..].into());
        assert_eq!(rig.state().await, "current 1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_current_link_is_listed_once_and_a_thousand_ask_once() {
        let rig = rig();
        rig.publish(1, None);
        futures::future::join_all((0..1000).map(|_| rig.state())).await;
        for _ in 0..5 {
            later().await;
            assert_eq!(rig.state().await, "current 1");
        }
        let lists = rig.faults.requests().iter().filter(|(op, _)| *op == Op::List).count();
        assert_eq!(lists, 1);
    }

    #[test]
    fn a_log_cannot_be_used_to_ask_for_a_link() {
        assert_eq!(short(LinkId([0xab; 16])), "ababab..");
    }
}
