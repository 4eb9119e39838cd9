//! Power losses at any point of a staging area's life.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::disk::{Random, SimDisk};

const DIR: &str = "/staging";

/// By place.
type Chunks = BTreeMap<(PackName, u32), (ChunkNo, Vec<u8>)>;

/// What survives in the heads of the layers above: the journal and the store.
struct World {
    disk: SimDisk,
    random: Random,
    /// Chunks that a successful sync covered, which the journal therefore names.
    promised: Chunks,
    /// Objects that may have been sent.
    sent: BTreeMap<PackName, Bytes>,
    next_pack: u64,
    next_chunk: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(),
            random: Random::new(seed),
            promised: BTreeMap::new(),
            sent: BTreeMap::new(),
            next_pack: 1,
            next_chunk: 1,
        }
    }

    fn open(&mut self) -> Staging {
        self.next_pack += 1000;
        staging_on(Arc::new(self.disk.clone()), Path::new(DIR), self.next_pack, u64::MAX)
    }

    fn referenced(&self) -> Vec<Referenced> {
        let mut packs: BTreeMap<PackName, Vec<PackEntry>> = BTreeMap::new();
        for ((name, offset), (chunk, sealed)) in &self.promised {
            let entry = PackEntry { chunk: *chunk, offset: *offset, len: sealed.len() as u32 };
            packs.entry(*name).or_default().push(entry);
        }
        packs.into_iter().map(|(name, chunks)| Referenced { pack: PackNo(name.number), name, chunks }).collect()
    }

    /// Works until the power goes.
    fn live(&mut self, staging: &Staging) -> Result<(), ContentError> {
        let mut unsynced = Chunks::new();
        loop {
            match self.random.below(10) {
                0..5 => {
                    let chunk = ChunkNo(self.next_chunk);
                    self.next_chunk += 1;
                    let sealed = content(chunk.0, 1 + self.random.below(3000) as usize);
                    let place = staging.append(&sealed, chunk, Room::Commit)?;
                    unsynced.insert((place.name, place.offset), (chunk, sealed));
                }
                5..7 => {
                    staging.sync()?;
                    self.promised.append(&mut unsynced);
                }
                7 => drop(staging.rotate()),
                8 => {
                    if let Some(name) = staging.take_closed() {
                        let Some(object) = staging.object(name)? else {
                            // A recovered one that was known to be in the store and has been committed since.
                            assert!(!staging.has(name));
                            continue;
                        };
                        let (mut in_object, rest): (Chunks, Chunks) =
                            unsynced.into_iter().partition(|((pack, _), _)| *pack == name);
                        unsynced = rest;
                        self.promised.append(&mut in_object);
                        self.note_sent(name, object);
                    }
                }
                _ => {
                    let Some(name) = self.sent.keys().next().copied() else { continue };
                    staging.uploaded(name);
                    self.promised.retain(|(pack, _), _| *pack != name);
                    self.sent.remove(&name);
                    staging.committed(&[name], |_, path, _| drop(self.disk.remove(path)));
                }
            }
        }
    }

    fn note_sent(&mut self, name: PackName, object: Bytes) {
        let entries = listed(&object, name);
        for ((_, offset), (chunk, sealed)) in self.promised.range((name, 0)..=(name, u32::MAX)) {
            let entry = PackEntry { chunk: *chunk, offset: *offset, len: sealed.len() as u32 };
            assert!(entries.contains(&entry), "{entry:?} is not listed in {name}");
            assert_eq!(object[*offset as usize..][..sealed.len()], *sealed);
        }
        let before = self.sent.insert(name, object.clone());
        assert!(before.is_none_or(|before| before == object), "{name} changed after it may have been sent");
    }

    fn check(&mut self, staging: &Staging, recovered: &Recovered) {
        assert_eq!((&recovered.missing, &recovered.lost), (&vec![], &vec![]));
        for ((name, offset), (_, sealed)) in &self.promised {
            let range = ByteRange::at((*offset).into(), sealed.len() as u64).unwrap();
            assert_eq!(staging.read(*name, range).unwrap().as_ref(), Some(sealed), "a promised chunk of {name}");
        }
        let files = self.disk.list(Path::new(DIR)).unwrap().len();
        assert_eq!(files, recovered.packs.len(), "a file that nobody refers to stayed");
        for name in self.sent.keys().copied().collect::<Vec<_>>() {
            let object = staging.object(name).unwrap().unwrap();
            self.note_sent(name, object);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_was_synced_and_what_was_sent_survive_every_power_loss(seed in any::<u64>()) {
        let mut world = World::new(seed);
        let mut staging = world.open();
        for _ in 0..6 {
            let changes = world.random.below(120);
            world.disk.power_off_after(changes);
            prop_assert!(world.live(&staging).is_err());
            world.disk.crash(world.random.below(u64::MAX));
            staging = world.open();
            // The power may go again while it recovers.
            world.disk.power_off_after(world.random.below(12));
            let recovered = staging.recover(&world.referenced(), Unreferenced::Remove);
            let recovered = recovered.unwrap_or_else(|_| {
                world.disk.crash(world.random.below(u64::MAX));
                staging = world.open();
                staging.recover(&world.referenced(), Unreferenced::Remove).unwrap()
            });
            world.disk.power_off_after(u64::MAX);
            world.check(&staging, &recovered);
        }
    }
}
