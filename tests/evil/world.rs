//! The machines, the store between them, and what must hold.

use std::collections::BTreeMap;

use hushfs::base::{Hash, Seq};
use hushfs::format::{ObjectName, Record, object_hash};
use hushfs::meta::mounting::MountError;
use hushfs::store::{Evil, EvilWorld};
use hushfs::vfs::api::VfsError;
use hushfs::vfs::{FlushError, OpenError};

use crate::machine::{Machine, seed};
use crate::op::Op;
use crate::rig::{VirtualTime, chain, noise};

/// The last is for the end.
const MACHINES_MAX: usize = 5;

/// Far above any object of these volumes, and what a daemon may well hold in memory.
const SERVED_MAX: u64 = 160 << 20;

/// Rounds of a fifth of a second that a flush may take: with a store that deceives, and with one that does not.
const ROUNDS_WHILE_EVIL: u32 = 25;
const ROUNDS_WHILE_HONEST: u32 = 3_000;

/// What a file holds, as the arguments of `noise`.
type Content = (u64, usize);
type Tree = BTreeMap<String, Content>;

struct Known {
    machine: Machine,
    /// Its own directory as it left it.
    now: Tree,
    /// The same at every moment that a record may hold.
    versions: Vec<Tree>,
    /// For the directory of each machine the version that it saw last.
    seen: [usize; MACHINES_MAX],
    /// The records that it took for the history.
    trusted: BTreeMap<Seq, Hash>,
    /// How many creates it had sent when it said that history was not what it knows.
    stopped_at: Option<usize>,
}

pub struct World {
    time: VirtualTime,
    evil: EvilWorld,
    machines: Vec<Known>,
    at: usize,
    /// The directories are there.
    is_ready: bool,
    trace: bool,
}

impl World {
    pub fn play(ops: &[Op]) {
        let mut world = Self::new();
        for op in ops {
            if world.trace {
                eprintln!("{op:?}");
            }
            world.step(op);
            world.observe();
        }
        world.end();
    }

    fn new() -> Self {
        crate::rig::log();
        let evil = EvilWorld::new(seed().objects.clone(), seed().foreign.clone());
        let trace = std::env::var_os("HUSHFS_EVIL_TRACE").is_some();
        let mut world = Self { time: VirtualTime::new(), evil, machines: Vec::new(), at: 0, is_ready: false, trace };
        world.add_machine();
        let files = world.files().expect("the first mount");
        (0..MACHINES_MAX).for_each(|dir| files.mkdir(&directory(dir)).expect("a directory"));
        world.flush().expect("the directories");
        world.is_ready = true;
        world
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Write { name, seed, len } => {
                let content = (self.at as u64 * 100 + u64::from(seed), len as usize);
                self.change(|files, dir, tree| {
                    let written = files.write(&format!("{dir}/{name}"), &noise(content.0, content.1));
                    if written.is_ok() {
                        tree.insert(name.to_string(), content);
                    }
                    written
                });
            }
            Op::Remove { name } => self.change(|files, dir, tree| {
                let removed = files.remove(&format!("{dir}/{name}"));
                let was_there = tree.remove(&name.to_string()).is_some();
                assert!(was_there == removed.is_ok() || removed == Err(VfsError::ReadOnly), "{removed:?}");
                removed
            }),
            Op::Rename { from, to } => self.change(|files, dir, tree| {
                let renamed = files.rename(&format!("{dir}/{from}"), &format!("{dir}/{to}"));
                if renamed.is_ok()
                    && let Some(content) = tree.remove(&from.to_string())
                {
                    tree.insert(to.to_string(), content);
                }
                renamed
            }),
            Op::Grow { seed } => self.change(|files, dir, _| {
                (0..18).try_for_each(|number| {
                    files.set_xattr(dir, &format!("user.{number}"), &noise(u64::from(seed) * 100 + number, 64_000))
                })
            }),
            Op::Cut => {
                self.note_version();
                if let Some(volume) = self.machines[self.at].machine.volume() {
                    volume.cut().expect("a cut");
                }
            }
            Op::Flush => drop(self.flush()),
            Op::Check => self.check(),
            Op::Remount => {
                self.close();
                self.open();
            }
            Op::Kill => {
                if let Some(volume) = self.machines[self.at].machine.volume() {
                    volume.drive().sync_all().expect("synced");
                }
                self.note_version();
                self.machines[self.at].machine.kill();
                self.open();
            }
            Op::Switch { machine } => {
                self.close();
                self.at = usize::from(machine) % self.machines.len();
                self.open();
            }
            Op::NewMachine if self.machines.len() + 1 < MACHINES_MAX => {
                self.close();
                self.add_machine();
            }
            Op::NewMachine => {}
            Op::LoseReplica { copies } => {
                self.close();
                self.machines[self.at].machine.lose_replica(copies);
                self.open();
            }
            Op::DropCache => {
                self.close();
                self.machines[self.at].machine.drop_cache();
                self.open();
            }
            Op::Evil { others, evil } => {
                let at = self.at;
                (0..self.machines.len()).filter(|device| (*device != at) == others).for_each(|device| {
                    self.act(device, evil);
                });
            }
            Op::Repent => {
                self.machines[self.at].stopped_at = None;
                self.evil.repent(self.at);
            }
        }
    }

    fn act(&mut self, device: usize, evil: Evil) {
        // What it said was of the store as it was.
        self.machines[device].stopped_at = None;
        self.evil.act(device, evil);
    }

    /// A change in the own directory, if the volume is mounted and can be changed.
    fn change(&mut self, change: impl FnOnce(&crate::rig::Files, &str, &mut Tree) -> Result<(), VfsError>) {
        let Some(files) = self.files() else { return };
        let halted = self.is_halted();
        let known = &mut self.machines[self.at];
        let before = known.now.clone();
        match change(&files, &directory(known.machine.number), &mut known.now) {
            Ok(()) | Err(VfsError::NotFound) => {}
            Err(VfsError::ReadOnly) if halted || self.is_halted() => self.machines[self.at].now = before,
            Err(error) => panic!("a change that needs no store ended with {error}"),
        }
    }

    fn files(&self) -> Option<crate::rig::Files> {
        self.machines[self.at].machine.files(&self.time)
    }

    fn is_halted(&self) -> bool {
        self.machines[self.at].machine.volume().is_some_and(|volume| volume.status().commits.halted.is_some())
    }

    fn note_version(&mut self) {
        let known = &mut self.machines[self.at];
        if known.versions.last() != Some(&known.now) {
            known.versions.push(known.now.clone());
        }
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        self.note_version();
        let Some(volume) = self.machines[self.at].machine.volume() else { return Ok(()) };
        let rounds = if self.evil.is_evil(self.at) { ROUNDS_WHILE_EVIL } else { ROUNDS_WHILE_HONEST };
        let mut round = 0;
        volume.flush(&mut |_| {
            round += 1;
            round < rounds
        })
    }

    fn close(&mut self) {
        self.note_version();
        self.machines[self.at].machine.close();
        self.observe_stopped();
    }

    fn add_machine(&mut self) {
        let number = self.machines.len();
        let machine = Machine::new(number, self.evil.store());
        self.machines.push(Known {
            machine,
            now: Tree::new(),
            versions: vec![Tree::new()],
            seen: [0; MACHINES_MAX],
            trusted: BTreeMap::new(),
            stopped_at: None,
        });
        self.at = number;
        self.open();
    }

    fn open(&mut self) {
        self.machines[self.at].stopped_at = None;
        let before = self.evil.sent_by(self.at);
        let opened = self.machines[self.at].machine.open(&self.time, &seed().words);
        let honest = !self.evil.is_evil(self.at);
        match opened {
            Ok(()) => {
                self.observe();
                self.check();
            }
            Err(error) => {
                if self.trace {
                    eprintln!("  {}", chain(&error));
                }
                if is_of_history(&error) {
                    assert_eq!(self.evil.sent_by(self.at), before, "uploaded though {}", chain(&error));
                }
                let excused = self.may_be_astray(self.at) || (is_of_history(&error) && self.is_torn());
                assert!(!honest || excused, "a store that tells the truth, and {}", chain(&error));
            }
        }
    }

    /// Rules 2, 3 and 4, as far as they show.
    fn observe(&mut self) {
        self.observe_stopped();
        assert!(self.evil.served_max() <= SERVED_MAX, "{} bytes were read of one object", self.evil.served_max());
        let known = &mut self.machines[self.at];
        let Some(volume) = known.machine.volume() else { return };
        let view = volume.drive().pending().view().clone();
        let replica = view.replica();
        let (seq, hash) = replica.head();
        if let Some((newest, _)) = known.trusted.last_key_value() {
            assert!(seq >= *newest, "the head went back from {newest} to {seq}");
        }
        for (seq, hash) in &known.trusted {
            let now = replica.past_head(*seq).expect("the replica's past heads");
            assert!(now.is_none_or(|now| now == *hash), "record {seq} is another one now");
        }
        known.trusted.insert(seq, hash);
        let commits = volume.status().commits;
        // After it said so: what was sent just before was sent rightly.
        let sent = self.evil.sent_by(self.at);
        let says_older = commits.failing.is_some_and(|(_, text)| text.contains("older state"));
        // What it says may be of the store as it was before the last act.
        let is_older = !self.evil.lies_to(self.at) && self.evil.on_branch_of(self.at, &ObjectName::Log(seq)).is_none();
        if (commits.halted.is_some() || (says_older && is_older)) && known.stopped_at.is_none() {
            known.stopped_at = Some(sent);
        }
    }

    fn observe_stopped(&self) {
        if let Some(stopped_at) = self.machines[self.at].stopped_at {
            let sent = self.evil.sent_by(self.at);
            assert_eq!(sent, stopped_at, "uploaded after it had said that the store's history is not its own");
        }
    }

    /// Rule 1.
    fn check(&mut self) {
        let strict = !self.evil.is_evil(self.at) && !self.is_anything_lost();
        for dir in 0..MACHINES_MAX {
            let Some(found) = self.found(dir) else { continue };
            if dir == self.at {
                let now = &self.machines[dir].now;
                assert!(fits(now, &found, strict), "its own directory is not as it left it: {}", told(&found));
                continue;
            }
            let Some(owner) = self.machines.get(dir) else {
                assert!(found.is_empty(), "files of nobody: {}", told(&found));
                continue;
            };
            let before = self.machines[self.at].seen[dir];
            let version = (before..owner.versions.len()).find(|at| fits(&owner.versions[*at], &found, strict));
            match version {
                Some(version) => self.machines[self.at].seen[dir] = version,
                None => panic!("directory {dir} is as it never was, or as it was before: {}", told(&found)),
            }
        }
    }

    /// What the machine that is mounted shows of a directory.
    fn found(&self, dir: usize) -> Option<Found> {
        let files = self.files().filter(|_| self.is_ready)?;
        let names = match files.names(&directory(dir)) {
            Ok(names) => names,
            // A new machine that is shown a volume from before there were directories.
            Err(VfsError::NotFound) if self.evil.is_evil(self.at) || !self.is_true(self.at) => return None,
            Err(error) => panic!("{error} for the names in {}", directory(dir)),
        };
        // Virtual time does not wait for this machine's threads: on a busy one a deadline passes that is far away.
        const PATIENCE: usize = 5;
        let read = |name: String| {
            let path = format!("{}/{name}", directory(dir));
            let mut contents = std::iter::repeat_with(|| files.read(&path)).take(PATIENCE);
            let content = contents.find(|content| !matches!(content, Err(VfsError::TimedOut)));
            (name, content.unwrap_or(Err(VfsError::TimedOut)))
        };
        Some(names.into_iter().map(read).collect())
    }

    /// Whether the newest record that the machine trusts is in the true log.
    fn is_true(&self, device: usize) -> bool {
        self.machines[device].trusted.last_key_value().is_none_or(|(seq, hash)| {
            *seq == Seq(0) || self.evil.truth(&ObjectName::Log(*seq)).is_some_and(|bytes| object_hash(&bytes) == *hash)
        })
    }

    /// Whether it trusts another history than the true one. A record that it gave to such a history as it was closed,
    /// or was told to have given, may be trusted though nobody saw it.
    fn may_be_astray(&self, device: usize) -> bool {
        let is_other = |name: &ObjectName, bytes: &[u8]| self.evil.truth(name).is_none_or(|truth| truth != bytes);
        let sent = self.evil.sent();
        let mut records = sent.iter().filter(|sent| sent.device == device && (sent.stored || sent.acknowledged));
        !self.is_true(device)
            || records.any(|sent| matches!(sent.name, ObjectName::Log(_)) && is_other(&sent.name, &sent.bytes))
    }

    /// Whether the truth is no history: the store repented in the midst of what a device did, and has only the end of
    /// it. Who knows the rest goes on; who does not must refuse.
    fn is_torn(&self) -> bool {
        self.has_lone_checkpoint() || self.has_broken_log()
    }

    /// Whether a record of the true log follows another than the one before it.
    fn has_broken_log(&self) -> bool {
        let mut head = (Seq(0), Hash::ZERO);
        let log = self.evil.true_names().into_iter().filter_map(|name| match name {
            ObjectName::Log(seq) => Some(seq),
            _ => None,
        });
        for seq in log {
            let bytes = self.evil.truth(&ObjectName::Log(seq)).expect("a record that is there");
            let record = Record::open(seq, &bytes, &seed().roots).expect("a record as it was written");
            if (seq.0 - 1, record.prev) != (head.0.0, head.1) {
                return true;
            }
            head = (seq, object_hash(&bytes));
        }
        false
    }

    /// Whether there is a checkpoint of a record that only another history has.
    fn has_lone_checkpoint(&self) -> bool {
        let sent = self.evil.sent();
        let is_elsewhere = |device: usize, seq: Seq| {
            let name = ObjectName::Log(seq);
            let records = sent.iter().filter(|sent| sent.device == device && sent.name == name);
            records
                .filter(|sent| sent.stored || sent.acknowledged)
                .any(|sent| self.evil.truth(&name).is_none_or(|truth| truth != sent.bytes))
        };
        sent.iter().any(|sent| match sent.name {
            ObjectName::Checkpoint(seq) => {
                self.evil.truth(&sent.name).is_some_and(|truth| truth == sent.bytes) && is_elsewhere(sent.device, seq)
            }
            _ => false,
        })
    }

    /// Whether the store dropped a pack that it had taken.
    fn is_anything_lost(&self) -> bool {
        let is_pack = |name: &ObjectName| matches!(name, ObjectName::Pack(_));
        self.evil.sent().iter().any(|sent| is_pack(&sent.name) && self.evil.truth(&sent.name).is_none())
    }

    /// Rule 5.
    fn end(mut self) {
        // Without a new mount first, for the one that is mounted.
        self.step(&Op::Repent);
        if !self.is_halted() && !self.may_be_astray(self.at) {
            self.flush_all();
        }
        self.close();
        let mut recovered = Vec::new();
        for machine in 0..self.machines.len() {
            self.at = machine;
            self.step(&Op::Repent);
            self.open();
            if self.files().is_none() {
                // `open` has looked whether it may refuse.
                continue;
            }
            assert!(self.is_true(machine), "it goes on though the true log is not the one it knows");
            self.flush_all();
            self.check();
            self.close();
            recovered.push(machine);
        }
        // Everything is there for one that was not there before.
        let last: Vec<_> = self.machines.iter().map(|known| known.now.clone()).collect();
        self.add_machine();
        if self.files().is_none() {
            assert!(self.is_torn(), "a new machine cannot mount");
            return;
        }
        self.check();
        for machine in recovered {
            let found = self.found(machine).expect("mounted");
            assert!(
                fits(&last[machine], &found, false),
                "what machine {machine} did is not all there: {}",
                told(&found)
            );
        }
        self.close();
    }

    /// The store tells the truth: nothing may stay behind.
    fn flush_all(&mut self) {
        let mut flushed = self.flush();
        if let Err(FlushError::Halted(why)) = &flushed
            && why.contains("unmount and mount again")
        {
            // A record of an earlier run that the store denied before: what to do is said, and must work.
            self.close();
            self.open();
            assert!(self.files().is_some(), "mounted again, as it was told to be, it does not open");
            flushed = self.flush();
        }
        if let Err(error) = flushed
            && !self.is_torn()
        {
            let known = &self.machines[self.at];
            let status = known.machine.volume().expect("mounted").status();
            panic!("{}: {:?} {:?}", chain(&error), status.commits, status.uploads);
        }
    }
}

fn directory(machine: usize) -> String {
    format!("m{machine}")
}

/// Whether the device says that the store's history is not the one that it knows.
fn is_of_history(error: &OpenError) -> bool {
    use hushfs::meta::log::{Halt, Waiting};
    let OpenError::Mount(error) = error else { return false };
    matches!(
        error,
        MountError::Halted(Halt::Fork { .. } | Halt::Twin { .. })
            | MountError::Rollback(Waiting::Stale { .. } | Waiting::Gap(_))
    )
}

/// A directory as it was read.
type Found = BTreeMap<String, Result<Vec<u8>, VfsError>>;

/// The same names, and the same bytes where there are any; `strict` wants them all.
fn fits(tree: &Tree, found: &Found, strict: bool) -> bool {
    tree.len() == found.len()
        && found.iter().all(|(name, content)| match (tree.get(name), content) {
            (Some((seed, len)), Ok(bytes)) => bytes == &noise(*seed, *len),
            (Some(_), Err(_)) => !strict,
            (None, _) => false,
        })
}

fn told(found: &Found) -> String {
    let files = found.iter().map(|(name, content)| match content {
        Ok(bytes) => format!("{name}: {} bytes", bytes.len()),
        Err(error) => format!("{name}: {error}"),
    });
    files.collect::<Vec<_>>().join(", ")
}
