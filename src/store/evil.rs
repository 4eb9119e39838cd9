//! A store that is the adversary, for tests: it keeps all that it was ever given, and shows each device what it
//! likes of that. Every act is drawn from numbers, so that a case can be repeated and shrunk.
//!
//! It is not there to fail (that is `FaultStore`'s) but to deceive: it forks, goes back, swaps, changes, invents and
//! denies. It has no key, so whatever it shows is made from bytes that some device of some volume wrote. Truth is the
//! first branch, whatever is shown: after `repent` a device sees it as if nothing had been.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Created, Op, Prefix, Store, StoreError, StoreErrorKind, is_under, slice};
use crate::base::{ByteRange, Epoch, Incarnation, PackName, SegmentId, Seq};
use crate::disk::Random;
use crate::format::{ObjectName, SlotNo};

/// Taken modulo how many there are.
pub type Pick = u16;

/// What the store does to one device, from now until it repents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evil {
    /// Shows only the oldest part of what happened; what the device creates goes on from there.
    RollBack {
        keep: Pick,
    },
    /// What the device creates is shown to nobody else, and nothing new is shown to it.
    Fork,
    /// Shows another branch of history.
    Show {
        branch: Pick,
    },
    /// Shows two objects each under the other's name.
    Swap {
        one: Pick,
        other: Pick,
    },
    /// Two of one kind.
    Reorder {
        one: Pick,
        other: Pick,
    },
    FlipBit {
        object: Pick,
        bit: u32,
    },
    Truncate {
        object: Pick,
        len: u32,
    },
    Extend {
        object: Pick,
        by: Pick,
    },
    /// Its bytes once more behind them.
    Double {
        object: Pick,
    },
    /// There is always more of it.
    Endless {
        object: Pick,
    },
    Delete {
        object: Pick,
    },
    /// Under a name that is free: the next of the log or of the floors, a slot, a checkpoint, a pack that never was.
    Inject {
        object: Pick,
        at: Pick,
    },
    /// The same with an object of another volume.
    InjectForeign {
        object: Pick,
        at: Pick,
    },
    /// An object of another volume under a name that is taken.
    ReplaceByForeign {
        object: Pick,
        foreign: Pick,
    },
    /// So many of a thousand answers are false.
    Lie {
        seed: u32,
        per_mille: u16,
    },
}

/// What stands under a name, as it is shown.
#[derive(Clone)]
enum Shown {
    Bytes(Bytes),
    Endless(Bytes),
    Nothing,
}

#[derive(Clone, Default)]
struct Branch {
    objects: BTreeMap<ObjectName, Bytes>,
    /// All that happened, `None` where an object was deleted.
    history: Vec<(ObjectName, Option<Bytes>)>,
}

impl Branch {
    fn put(&mut self, name: ObjectName, bytes: Bytes) {
        self.history.push((name, Some(bytes.clone())));
        self.objects.insert(name, bytes);
    }

    fn remove(&mut self, name: &ObjectName) {
        if self.objects.remove(name).is_some() {
            self.history.push((*name, None));
        }
    }

    fn first(&self, keep: usize) -> Self {
        let mut branch = Self::default();
        for (name, bytes) in &self.history[..keep] {
            match bytes {
                Some(bytes) => branch.put(*name, bytes.clone()),
                None => branch.remove(name),
            }
        }
        branch
    }
}

#[derive(Clone, Default)]
struct View {
    branch: usize,
    tampered: BTreeMap<ObjectName, Shown>,
    lies: Option<(Random, u16)>,
    evil: bool,
}

/// A create that arrived.
#[derive(Clone, Debug)]
pub struct Sent {
    pub device: usize,
    pub name: ObjectName,
    pub bytes: Bytes,
    /// Whether it is in the store.
    pub stored: bool,
    /// Whether the device was told that it is, and nothing else.
    pub acknowledged: bool,
}

#[derive(Default)]
struct State {
    branches: Vec<Branch>,
    foreign: Vec<Bytes>,
    views: Vec<View>,
    sent: Vec<Sent>,
    /// How far each endless object was read.
    served: BTreeMap<ObjectName, u64>,
}

/// The switch. Clones steer the same store.
#[derive(Clone, Default)]
pub struct EvilWorld(Arc<Mutex<State>>);

impl EvilWorld {
    /// With these objects, and those of another volume to plant.
    pub fn new(objects: impl IntoIterator<Item = (ObjectName, Bytes)>, foreign: Vec<Bytes>) -> Self {
        let mut truth = Branch::default();
        objects.into_iter().for_each(|(name, bytes)| truth.put(name, bytes));
        Self(Arc::new(Mutex::new(State { branches: vec![truth], foreign, ..State::default() })))
    }

    /// What a further device sees: the truth, for now.
    pub fn store(&self) -> EvilStore {
        let mut state = self.0.lock();
        state.views.push(View::default());
        EvilStore { world: self.clone(), device: state.views.len() - 1 }
    }

    pub fn act(&self, device: usize, evil: Evil) {
        let state = &mut *self.0.lock();
        state.act(device, evil);
        state.views[device].evil = true;
    }

    /// Shows the device the truth, all of it and nothing else.
    pub fn repent(&self, device: usize) {
        self.0.lock().views[device] = View::default();
    }

    /// Whether anything but the truth is shown to the device.
    pub fn is_evil(&self, device: usize) -> bool {
        self.0.lock().views[device].evil
    }

    pub fn lies_to(&self, device: usize) -> bool {
        self.0.lock().views[device].lies.is_some()
    }

    /// All creates, in the order in which they arrived.
    pub fn sent(&self) -> Vec<Sent> {
        self.0.lock().sent.clone()
    }

    pub fn sent_by(&self, device: usize) -> usize {
        self.0.lock().sent.iter().filter(|sent| sent.device == device).count()
    }

    /// What is true of an object.
    pub fn truth(&self, name: &ObjectName) -> Option<Bytes> {
        self.0.lock().branches[0].objects.get(name).cloned()
    }

    /// All that is there, in the order of names.
    pub fn true_names(&self) -> Vec<ObjectName> {
        self.0.lock().branches[0].objects.keys().copied().collect()
    }

    /// What the device's branch of history has of it, without the tampering.
    pub fn on_branch_of(&self, device: usize, name: &ObjectName) -> Option<Bytes> {
        let state = self.0.lock();
        state.branches[state.views[device].branch].objects.get(name).cloned()
    }

    /// How far any endless object was read.
    pub fn served_max(&self) -> u64 {
        self.0.lock().served.values().copied().max().unwrap_or_default()
    }
}

impl State {
    fn act(&mut self, device: usize, evil: Evil) {
        let shown = self.names(device);
        let name = |pick: Pick| shown.get(usize::from(pick) % shown.len().max(1)).copied();
        let view = &mut self.views[device];
        let branch = &self.branches[view.branch];
        let bytes = |name: Option<ObjectName>| name.and_then(|name| branch.objects.get(&name).cloned());
        match evil {
            Evil::RollBack { keep } => {
                let keep = usize::from(keep) % (branch.history.len() + 1);
                let older = branch.first(keep);
                view.branch = self.branches.len();
                self.branches.push(older);
            }
            Evil::Fork => {
                let fork = branch.clone();
                view.branch = self.branches.len();
                self.branches.push(fork);
            }
            Evil::Show { branch } => view.branch = usize::from(branch) % self.branches.len(),
            Evil::Swap { one, other } => swap(view, branch, name(one), name(other)),
            Evil::Reorder { one, other } => {
                let of_kind: Vec<_> = match name(one) {
                    Some(one) => shown.iter().filter(|name| kind(name) == kind(&one)).copied().collect(),
                    None => return,
                };
                swap(view, branch, name(one), of_kind.get(usize::from(other) % of_kind.len().max(1)).copied());
            }
            Evil::FlipBit { object, bit } => view.change(name(object), bytes(name(object)), |bytes| {
                let bit = bit as usize % (bytes.len() * 8).max(1);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }),
            Evil::Truncate { object, len } => view.change(name(object), bytes(name(object)), |bytes| {
                bytes.truncate(len as usize % bytes.len().max(1));
            }),
            Evil::Extend { object, by } => view.change(name(object), bytes(name(object)), |bytes| {
                bytes.resize(bytes.len() + usize::from(by) + 1, by as u8);
            }),
            Evil::Double { object } => {
                view.change(name(object), bytes(name(object)), |bytes| bytes.extend_from_within(..));
            }
            Evil::Endless { object } => {
                if let (Some(name), Some(bytes)) = (name(object), bytes(name(object))) {
                    view.tampered.insert(name, Shown::Endless(bytes));
                }
            }
            Evil::Delete { object } => {
                if let Some(name) = name(object) {
                    view.tampered.insert(name, Shown::Nothing);
                }
            }
            Evil::Inject { object, at } => {
                if let Some(bytes) = bytes(name(object)) {
                    view.tampered.insert(free_name(branch, name(object), at), Shown::Bytes(bytes));
                }
            }
            Evil::InjectForeign { object, at } => {
                if let Some(bytes) = self.foreign.get(usize::from(object) % self.foreign.len().max(1)) {
                    view.tampered.insert(free_name(branch, None, at), Shown::Bytes(bytes.clone()));
                }
            }
            Evil::ReplaceByForeign { object, foreign } => {
                let foreign = self.foreign.get(usize::from(foreign) % self.foreign.len().max(1));
                if let (Some(name), Some(bytes)) = (name(object), foreign) {
                    view.tampered.insert(name, Shown::Bytes(bytes.clone()));
                }
            }
            Evil::Lie { seed, per_mille } => view.lies = Some((Random::new(seed.into()), per_mille)),
        }
    }

    fn shown(&self, device: usize, name: &ObjectName) -> Shown {
        let view = &self.views[device];
        if let Some(shown) = view.tampered.get(name) {
            return shown.clone();
        }
        self.branches[view.branch].objects.get(name).cloned().map_or(Shown::Nothing, Shown::Bytes)
    }

    fn names(&self, device: usize) -> Vec<ObjectName> {
        let view = &self.views[device];
        let mut names: Vec<_> =
            self.branches[view.branch].objects.keys().chain(view.tampered.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !matches!(view.tampered.get(name), Some(Shown::Nothing)));
        names
    }

    /// A number below `of`, if this answer is to be false.
    fn lie(&mut self, device: usize, of: u64) -> Option<u64> {
        let (random, per_mille) = self.views[device].lies.as_mut()?;
        let lies = random.below(1000) < u64::from(*per_mille);
        lies.then(|| random.below(of))
    }
}

impl View {
    fn change(&mut self, name: Option<ObjectName>, bytes: Option<Bytes>, change: impl FnOnce(&mut Vec<u8>)) {
        if let (Some(name), Some(bytes)) = (name, bytes) {
            let mut bytes = bytes.to_vec();
            change(&mut bytes);
            self.tampered.insert(name, Shown::Bytes(bytes.into()));
        }
    }
}

fn swap(view: &mut View, branch: &Branch, one: Option<ObjectName>, other: Option<ObjectName>) {
    let (Some(one), Some(other)) = (one, other) else { return };
    for (name, of) in [(one, other), (other, one)] {
        if let Some(bytes) = branch.objects.get(&of) {
            view.tampered.insert(name, Shown::Bytes(bytes.clone()));
        }
    }
}

fn kind(name: &ObjectName) -> std::mem::Discriminant<ObjectName> {
    std::mem::discriminant(name)
}

fn free_name(branch: &Branch, like: Option<ObjectName>, at: Pick) -> ObjectName {
    let log = branch.objects.keys().filter_map(|name| match name {
        ObjectName::Log(seq) => Some(seq.0),
        _ => None,
    });
    let head = log.max().unwrap_or_default();
    let further = u64::from(at >> 3);
    match (at % 8, like) {
        (0 | 1, _) => ObjectName::Log(Seq(head + 1)),
        (2, _) => ObjectName::Floor(1 + further % 3),
        (3, _) => ObjectName::Checkpoint(Seq(head + further % 3)),
        (4, _) => ObjectName::Slot(Epoch(further as u32 % 2), SlotNo::new(at % 9999).expect("at most 9999")),
        (5, Some(ObjectName::Pack(name))) => ObjectName::Pack(PackName { number: name.number + 1, ..name }),
        (5, _) => ObjectName::Pack(PackName { incarnation: Incarnation([at as u8; 16]), number: further }),
        (6, _) => ObjectName::Segment(SegmentId([at as u8; 16])),
        _ => ObjectName::Log(Seq(head + 2 + further % 40)),
    }
}

/// The store as one device sees it.
pub struct EvilStore {
    world: EvilWorld,
    device: usize,
}

fn lost(op: Op, name: &ObjectName) -> StoreError {
    StoreError::new(StoreErrorKind::Unknown, op, Some(*name), "the answer was withheld by a test")
}

/// Where something endless ends after all, so that a test that asks for all of it fails and takes no memory.
const ENDLESS_LEN: u64 = 512 << 20;

/// What is given of something endless: the object, and then zeros.
fn endless(bytes: &Bytes, range: ByteRange) -> Bytes {
    let mut out = slice(bytes, range).to_vec();
    out.resize(range.end.min(ENDLESS_LEN).saturating_sub(range.start) as usize, 0);
    out.into()
}

#[async_trait]
impl Store for EvilStore {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        let state = &mut *self.world.0.lock();
        let lie = state.lie(self.device, 4);
        let is_free = matches!(state.shown(self.device, name), Shown::Nothing);
        let branch = state.views[self.device].branch;
        // What is shown as deleted may be there all the same, and stays as it is.
        let has = state.branches[branch].objects.contains_key(name);
        // 0: says stored, and is not. 1: says that it was there, and stores nothing.
        let stored = is_free && !has && !matches!(lie, Some(0 | 1));
        if stored {
            state.branches[branch].put(*name, bytes.clone());
        }
        let acknowledged = lie == Some(0) || (lie.is_none() && is_free);
        state.sent.push(Sent { device: self.device, name: *name, bytes, stored, acknowledged });
        match lie {
            Some(0) => Ok(Created::New),
            Some(1 | 2) => Ok(Created::Exists),
            Some(_) => Err(lost(Op::Create, name)),
            None if is_free => Ok(Created::New),
            None => Ok(Created::Exists),
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.get_range(name, ByteRange::new(0, ENDLESS_LEN)).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let state = &mut *self.world.0.lock();
        let shown = match state.lie(self.device, 4) {
            Some(0) => Shown::Nothing,
            Some(1) => return Err(lost(Op::Get, name)),
            Some(2) => {
                let names = state.names(self.device);
                let other = state.lie(self.device, names.len().max(1) as u64).unwrap_or_default();
                names.get(other as usize).map_or(Shown::Nothing, |name| state.shown(self.device, name))
            }
            Some(_) => match state.shown(self.device, name) {
                Shown::Bytes(bytes) => Shown::Bytes(bytes.slice(..bytes.len() / 2)),
                shown => shown,
            },
            None => state.shown(self.device, name),
        };
        Ok(match shown {
            Shown::Nothing => None,
            Shown::Bytes(bytes) => Some(slice(&bytes, range)),
            Shown::Endless(bytes) => {
                // Who believes the length that it claims to have may ask for its end, and gets nothing.
                if range.start < ENDLESS_LEN {
                    let served = state.served.entry(*name).or_default();
                    *served = (*served).max(range.end.min(ENDLESS_LEN));
                }
                Some(endless(&bytes, range))
            }
        })
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        let state = &mut *self.world.0.lock();
        let lie = state.lie(self.device, 3);
        let size = match state.shown(self.device, name) {
            Shown::Nothing => None,
            Shown::Bytes(bytes) => Some(bytes.len() as u64),
            Shown::Endless(_) => Some(u64::MAX),
        };
        Ok(match lie {
            Some(0) => None,
            Some(1) => Some(size.unwrap_or_default() / 2),
            Some(_) => Some(u64::MAX),
            None => size,
        })
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        let state = &mut *self.world.0.lock();
        let mut names = state.names(self.device);
        match state.lie(self.device, 4) {
            Some(0) => names.clear(),
            Some(1) => names.truncate(names.len() / 2),
            Some(2) => names.reverse(),
            Some(_) => {
                let invented = (0..200u64).flat_map(|number| {
                    [ObjectName::Checkpoint(Seq(u64::MAX - number)), ObjectName::Log(Seq(number * 3))]
                });
                names.extend(invented);
                names.extend_from_within(..);
            }
            None => {}
        }
        names.retain(|name| is_under(prefix, name));
        Ok(names)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let state = &mut *self.world.0.lock();
        let branch = state.views[self.device].branch;
        state.branches[branch].remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(seq: u64) -> ObjectName {
        ObjectName::Log(Seq(seq))
    }

    async fn filled() -> (EvilWorld, EvilStore, EvilStore) {
        let world = EvilWorld::new([], vec![Bytes::from_static(b"foreign")]);
        let (one, two) = (world.store(), world.store());
        for seq in 1..=4 {
            one.create(&log(seq), Bytes::from(format!("record {seq}"))).await.unwrap();
        }
        (world, one, two)
    }

    #[tokio::test]
    async fn a_fork_shows_each_device_its_own_and_repenting_shows_the_truth() {
        let (world, one, two) = filled().await;
        world.act(1, Evil::Fork);
        assert_eq!(one.create(&log(5), Bytes::from_static(b"one's")).await.unwrap(), Created::New);
        assert_eq!(two.create(&log(5), Bytes::from_static(b"two's")).await.unwrap(), Created::New);
        assert_eq!(one.get(&log(5)).await.unwrap().unwrap(), "one's");
        assert_eq!(two.get(&log(5)).await.unwrap().unwrap(), "two's");
        world.repent(1);
        assert_eq!(two.get(&log(5)).await.unwrap().unwrap(), "one's");
    }

    #[tokio::test]
    async fn a_rollback_shows_a_prefix_of_what_happened() {
        let (world, one, two) = filled().await;
        world.act(1, Evil::RollBack { keep: 2 });
        assert_eq!(two.list(Prefix::Log).await.unwrap(), [log(1), log(2)]);
        assert_eq!(one.list(Prefix::Log).await.unwrap().len(), 4);
        assert_eq!(two.create(&log(3), Bytes::from_static(b"anew")).await.unwrap(), Created::New);
        assert_eq!(one.get(&log(3)).await.unwrap().unwrap(), "record 3");
    }

    #[tokio::test]
    async fn tampering_is_shown_to_its_device_only() {
        let (world, one, two) = filled().await;
        world.act(1, Evil::Swap { one: 0, other: 1 });
        world.act(1, Evil::Delete { object: 2 });
        world.act(1, Evil::Truncate { object: 2, len: 3 });
        world.act(1, Evil::InjectForeign { object: 0, at: 0 });
        assert_eq!(two.get(&log(1)).await.unwrap().unwrap(), "record 2");
        assert_eq!(two.get(&log(2)).await.unwrap().unwrap(), "record 1");
        assert_eq!(two.get(&log(3)).await.unwrap(), None);
        assert_eq!(two.get(&log(4)).await.unwrap().unwrap(), "rec");
        assert_eq!(two.get(&log(5)).await.unwrap().unwrap(), "foreign");
        assert_eq!(two.create(&log(5), Bytes::from_static(b"mine")).await.unwrap(), Created::Exists);
        assert_eq!(one.list(Prefix::Log).await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_lie_about_a_create_is_known_to_the_test() {
        let (world, one, _) = filled().await;
        world.act(0, Evil::Lie { seed: 1, per_mille: 1000 });
        for seq in 5..40 {
            let _ = one.create(&log(seq), Bytes::from_static(b"x")).await;
        }
        let sent: Vec<_> = world.sent().into_iter().filter(|sent| sent.bytes == "x").collect();
        assert!(sent.iter().any(|sent| sent.stored) && sent.iter().any(|sent| !sent.stored));
        assert!(sent.iter().all(|sent| sent.stored == world.truth(&sent.name).is_some()));
    }
}
