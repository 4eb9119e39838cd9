//! A store that fails as told, for tests: by rule or at random from a seed, switchable while requests run.
//!
//! It tampers with answers too, so that what lies above can be shown to notice. Put it directly over a
//! `MemoryStore`, beneath the decorators whose behaviour is tested.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Created, Op, Prefix, Store, StoreError, StoreErrorKind, is_under, slice};
use crate::base::ByteRange;
use crate::disk::Random;
use crate::format::ObjectName;

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Fails, and nothing was done.
    Fail(StoreErrorKind),
    /// Done, and the answer is lost on the way.
    ApplyThenFail(StoreErrorKind),
    Delay(Duration),
    /// Never answers, and nothing was done.
    Hang,
    /// Done, and never answers.
    ApplyThenHang,
    /// One bit of what a get gives is turned over; the number is taken modulo the length.
    FlipBit(u64),
    /// A get gives no more than this.
    Truncate(u64),
    /// A get, size or list does not see the object.
    Missing,
    /// A get gives another object's bytes.
    Swap(ObjectName),
    /// A create says that the name was taken, whatever it was.
    LieExists,
    /// A create says that it stored, and did not.
    LieNew,
}

/// Which of the requests that fit the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Counted from 1.
    Nth(u64),
    First(u64),
    After(u64),
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub op: Option<Op>,
    pub prefix: Prefix,
    /// Only this object, beside `prefix`.
    pub name: Option<ObjectName>,
    pub when: When,
    pub fault: Fault,
    seen: u64,
}

impl Rule {
    pub fn always(fault: Fault) -> Self {
        Self { op: None, prefix: Prefix::Everything, name: None, when: When::Always, fault, seen: 0 }
    }

    pub fn on(op: Op, fault: Fault) -> Self {
        Self { op: Some(op), ..Self::always(fault) }
    }

    pub fn under(self, prefix: Prefix) -> Self {
        Self { prefix, ..self }
    }

    pub fn named(self, name: ObjectName) -> Self {
        Self { name: Some(name), ..self }
    }

    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    fn fits(&self, op: Op, name: Option<&ObjectName>) -> bool {
        self.op.is_none_or(|wanted| wanted == op)
            && match name {
                Some(name) => is_under(self.prefix, name) && self.name.is_none_or(|wanted| wanted == *name),
                None => self.prefix == Prefix::Everything && self.name.is_none(),
            }
    }

    /// Counts a request that fits, and tells whether it is hit.
    fn hit(&mut self) -> bool {
        self.seen += 1;
        match self.when {
            When::Always => true,
            When::Nth(n) => self.seen == n,
            When::First(n) => self.seen <= n,
            When::After(n) => self.seen > n,
        }
    }
}

/// The switch. Clones steer the same store.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    rules: Vec<Rule>,
    random: Option<(Random, u32, Vec<Fault>)>,
    requests: Vec<(Op, Option<ObjectName>)>,
    fired: u64,
}

impl Faults {
    /// The first rule that hits decides.
    pub fn add(&self, rule: Rule) {
        self.0.lock().rules.push(rule);
    }

    /// So many of a thousand requests that no rule hits get one of `faults`.
    pub fn random(&self, seed: u64, per_mille: u32, faults: Vec<Fault>) {
        self.0.lock().random = (!faults.is_empty()).then(|| (Random::new(seed), per_mille, faults));
    }

    /// The store is well again. Requests that hang go on hanging, as they do when a network comes back.
    pub fn clear(&self) {
        let mut plan = self.0.lock();
        plan.rules.clear();
        plan.random = None;
    }

    /// How many faults were done.
    pub fn fired(&self) -> u64 {
        self.0.lock().fired
    }

    /// All requests that arrived, in order; a ranged get counts as a get.
    pub fn requests(&self) -> Vec<(Op, Option<ObjectName>)> {
        self.0.lock().requests.clone()
    }

    fn next(&self, op: Op, name: Option<&ObjectName>) -> Option<Fault> {
        let mut plan = self.0.lock();
        plan.requests.push((op, name.copied()));
        let mut found = None;
        for rule in plan.rules.iter_mut().filter(|rule| rule.fits(op, name)) {
            // Every rule counts every request that fits it, also when another one decides.
            if rule.hit() && found.is_none() {
                found = Some(rule.fault.clone());
            }
        }
        if found.is_none()
            && let Some((random, per_mille, faults)) = &mut plan.random
            && random.below(1000) < u64::from(*per_mille)
        {
            found = faults.get(random.below(faults.len() as u64) as usize).cloned();
        }
        plan.fired += u64::from(found.is_some());
        found
    }
}

pub struct FaultStore {
    inner: Arc<dyn Store>,
    faults: Faults,
}

impl FaultStore {
    pub fn new(inner: Arc<dyn Store>) -> (Self, Faults) {
        let faults = Faults::default();
        (Self { inner, faults: faults.clone() }, faults)
    }

    /// What is to be done before the request, or `Err` when it does not come to that.
    async fn before(&self, op: Op, name: Option<&ObjectName>) -> Result<Option<Fault>, StoreError> {
        let fault = self.faults.next(op, name);
        match fault {
            Some(Fault::Fail(kind)) => Err(injected(kind, op, name)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }
}

/// The faults of any op that come after it was done.
async fn after<T>(fault: Option<Fault>, op: Op, name: Option<&ObjectName>, answer: T) -> Result<T, StoreError> {
    match fault {
        Some(Fault::ApplyThenFail(kind)) => Err(injected(kind, op, name)),
        Some(Fault::ApplyThenHang) => std::future::pending().await,
        _ => Ok(answer),
    }
}

fn injected(kind: StoreErrorKind, op: Op, name: Option<&ObjectName>) -> StoreError {
    StoreError::new(kind, op, name.copied(), "injected by a test")
}

fn tamper(fault: &Option<Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::FlipBit(bit)) if !bytes.is_empty() => {
            let mut bytes = bytes.to_vec();
            let bit = bit % (bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            bytes.into()
        }
        Some(Fault::Truncate(len)) => slice(&bytes, ByteRange { start: 0, end: *len }),
        _ => bytes,
    }
}

#[async_trait]
impl Store for FaultStore {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let fault = self.before(Op::Create, Some(name)).await?;
        if fault == Some(Fault::LieNew) {
            return Ok(Created::New);
        }
        let created = self.inner.create(name, bytes).await?;
        let created = if fault == Some(Fault::LieExists) { Created::Exists } else { created };
        after(fault, Op::Create, Some(name), created).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let fault = self.before(Op::Get, Some(name)).await?;
        let found = match &fault {
            Some(Fault::Missing) => None,
            Some(Fault::Swap(other)) => self.inner.get(other).await?,
            _ => self.inner.get(name).await?,
        };
        let found = found.map(|bytes| tamper(&fault, bytes));
        after(fault, Op::Get, Some(name), found).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let fault = self.before(Op::Get, Some(name)).await?;
        let found = match &fault {
            Some(Fault::Missing) => None,
            Some(Fault::Swap(other)) => self.inner.get_range(other, range).await?,
            _ => self.inner.get_range(name, range).await?,
        };
        let found = found.map(|bytes| tamper(&fault, bytes));
        after(fault, Op::Get, Some(name), found).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        let fault = self.before(Op::Size, Some(name)).await?;
        let size = if fault == Some(Fault::Missing) { None } else { self.inner.size(name).await? };
        after(fault, Op::Size, Some(name), size).await
    }

    /// A rule with a prefix fits no listing, but `Missing` rules hide their objects from it.
    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        let fault = self.before(Op::List, None).await?;
        let mut names = self.inner.list(prefix).await?;
        {
            let plan = self.faults.0.lock();
            let is_hidden = |name: &ObjectName| {
                plan.rules.iter().any(|rule| rule.fault == Fault::Missing && rule.fits(Op::List, Some(name)))
            };
            names.retain(|name| !is_hidden(name));
        }
        after(fault, Op::List, None, names).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let fault = self.before(Op::Delete, Some(name)).await?;
        self.inner.delete(name).await?;
        after(fault, Op::Delete, Some(name), ()).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;
    use crate::base::Seq;

    fn log(seq: u64) -> ObjectName {
        ObjectName::Log(Seq(seq))
    }

    fn store() -> (FaultStore, Faults, MemoryStore) {
        let memory = MemoryStore::new();
        let (store, faults) = FaultStore::new(Arc::new(memory.clone()));
        (store, faults, memory)
    }

    #[tokio::test]
    async fn an_answer_lost_after_the_apply_leaves_the_object() {
        let (store, faults, memory) = store();
        faults.add(Rule::on(Op::Create, Fault::ApplyThenFail(StoreErrorKind::Unknown)).when(When::Nth(2)));
        assert_eq!(store.create(&log(1), Bytes::from_static(b"a")).await.unwrap(), Created::New);
        let lost = store.create(&log(2), Bytes::from_static(b"b")).await.unwrap_err();
        assert_eq!(lost.kind, StoreErrorKind::Unknown);
        assert_eq!(memory.peek(&log(2)).unwrap(), "b");
        assert_eq!(store.create(&log(3), Bytes::from_static(b"c")).await.unwrap(), Created::New);
        assert_eq!(faults.fired(), 1);
    }

    #[tokio::test]
    async fn tampering_changes_only_what_the_rule_names() {
        let (store, faults, _) = store();
        for seq in 1..=4 {
            store.create(&log(seq), Bytes::from(format!("object {seq}"))).await.unwrap();
        }
        faults.add(Rule::on(Op::Get, Fault::FlipBit(8)).named(log(1)));
        faults.add(Rule::on(Op::Get, Fault::Truncate(3)).named(log(2)));
        faults.add(Rule::always(Fault::Missing).named(log(3)));
        faults.add(Rule::on(Op::Get, Fault::Swap(log(1))).named(log(4)));
        assert_eq!(store.get(&log(1)).await.unwrap().unwrap(), "ocject 1");
        assert_eq!(store.get(&log(2)).await.unwrap().unwrap(), "obj");
        assert_eq!(store.get(&log(3)).await.unwrap(), None);
        assert_eq!(store.size(&log(3)).await.unwrap(), None);
        assert_eq!(store.list(Prefix::Log).await.unwrap(), [log(1), log(2), log(4)]);
        assert_eq!(store.get(&log(4)).await.unwrap().unwrap(), "object 1");
        faults.clear();
        assert_eq!(store.get(&log(1)).await.unwrap().unwrap(), "object 1");
    }

    #[tokio::test]
    async fn the_same_seed_fails_the_same_requests() {
        let run = |seed| async move {
            let (store, faults, _) = store();
            faults.random(seed, 300, vec![Fault::Fail(StoreErrorKind::Throttled)]);
            let mut failed = Vec::new();
            for seq in 0..100 {
                failed.push(store.get(&log(seq)).await.is_err());
            }
            failed
        };
        let first = run(1).await;
        assert_eq!(first, run(1).await);
        assert_ne!(first, run(2).await);
        let count = first.iter().filter(|&&failed| failed).count();
        assert!((10..50).contains(&count), "{count}");
    }
}
