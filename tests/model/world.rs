//! Both sides, and what of the past may come back after a crash.

mod files;
mod names;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use hushfs::base::InodeId;
use hushfs::format::rows::{XattrName, mode};
use hushfs::vfs::api::*;
use hushfs::vfs::{Drive, FlushError};

use super::machine::{Crash, Machine, OWNER, ReplicaAfter, TestClock};
use super::memfs::MemFs;
use super::op::{During, Op, Pick, Spot};
use super::tree::{Known, Source, Tree, Version, comparable, show};

pub const CALLER: Caller = Caller { uid: OWNER.0, gid: OWNER.1, pid: 1, umask: 0 };

pub struct World {
    machine: Machine,
    reference: MemFs,
    clock: Arc<TestClock>,
    /// What is open; each has one reference to its inode.
    handles: Vec<Open>,
    /// References to be given back after the step.
    borrowed: Vec<Pair>,
    /// The reference's contents as last read.
    known: Known,
    /// The reference's trees since the last point at which all was durable, that point first.
    moments: Vec<Moment>,
    /// For each file, by the reference's number, what its writes replaced that no sync and no name has pinned since.
    older: BTreeMap<InodeId, Vec<Version>>,
    online: bool,
    steps: usize,
}

#[derive(Clone)]
struct Moment {
    step: usize,
    tree: Tree,
    older: BTreeMap<InodeId, Vec<Version>>,
}

/// One inode on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    drive: InodeId,
    reference: InodeId,
}

#[derive(Clone, Copy)]
pub struct Open {
    ino: Pair,
    drive: HandleId,
    reference: HandleId,
    is_dir: bool,
    /// Opened for one step only, and without a reference.
    temporary: bool,
}

const ROOT: Pair = Pair { drive: InodeId::ROOT, reference: InodeId::ROOT };

impl World {
    pub fn new() -> Self {
        if traced() {
            let _ =
                tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::DEBUG).try_init();
        }
        let clock = Arc::new(TestClock::new());
        let machine = Machine::new(clock.clone());
        let mut world = Self {
            machine,
            reference: MemFs::new(OWNER, clock.clone()),
            clock,
            handles: Vec::new(),
            borrowed: Vec::new(),
            known: Known::new(),
            moments: Vec::new(),
            older: BTreeMap::new(),
            online: true,
            steps: 0,
        };
        world.all_durable();
        // Something to begin with: on an empty drive most operations find nothing.
        world.step(&Op::Mkdir { at: Spot { dir: 0, name: 2 }, mode: 0o755 });
        for name in 3..6 {
            world.step(&Op::Create { at: Spot { dir: name.into(), name }, mode: 0o6755, keep_open: name == 3 });
        }
        world.compare();
        world
    }

    pub fn step(&mut self, op: &Op) {
        self.steps += 1;
        self.clock.tick();
        if traced() {
            eprintln!("{} {op:?}", self.steps);
        }
        match op {
            Op::Fsync { file, data_only } => self.fsync(*file, *data_only),
            Op::FsyncDir { dir } => {
                let dir = self.dir(*dir);
                let handle = self.open_dir(dir);
                self.drive().fsyncdir(dir.drive, handle.drive, false).expect("fsyncdir");
                self.close_temporary(handle);
                self.remember();
                self.metadata_durable();
            }
            Op::Cut => self.machine.volume().cut().expect("a cut"),
            Op::Flush => self.flush(),
            Op::Offline => self.set_online(false),
            Op::Online => self.set_online(true),
            Op::Compare => self.compare(),
            Op::Reopen => {
                self.close_all();
                self.machine.close();
                self.reopen();
            }
            Op::NewDevice => {
                self.close_all();
                self.flush();
                self.machine.close();
                self.machine.lose_state();
                self.reopen();
            }
            Op::Crash { how, replica, during } => self.crash(*how, *replica, *during),
            other => {
                self.change_names(other);
                self.change_files(other);
            }
        }
        self.give_back();
        self.remember();
    }

    pub fn end(&mut self) {
        self.compare();
        self.close_all();
        self.flush();
        self.machine.close();
        self.machine.lose_state();
        self.reopen();
    }

    /// Appends the reference's tree as it is now.
    fn remember(&mut self) {
        let runtime = self.machine.runtime();
        let source = Source { fs: &self.reference, runtime: &runtime };
        let tree = source.tree(&mut self.known).expect("the reference's tree");
        self.older.retain(|ino, _| tree.nodes.contains_key(ino));
        self.moments.push(Moment { step: self.steps, tree, older: self.older.clone() });
    }

    /// Rule 1: from here on nothing earlier may come back.
    fn metadata_durable(&mut self) {
        let last = self.moments.len() - 1;
        self.moments.drain(..last);
    }

    fn all_durable(&mut self) {
        self.older.clear();
        self.remember();
        self.metadata_durable();
    }

    /// Rule 2: the file's content is part of whatever shows this change.
    fn pinned(&mut self, ino: Pair) {
        self.older.remove(&ino.reference);
    }

    /// The reference's content of a file is about to change.
    fn rewriting(&mut self, ino: Pair) {
        self.known.remove(&ino.reference);
    }

    fn fsync(&mut self, file: Pick, data_only: bool) {
        let Some(open) = self.file(file) else { return };
        let synced = self.drive().fsync(open.ino.drive, open.drive, data_only);
        synced.expect("fsync");
        self.pinned(open.ino);
        self.done(open);
        self.remember();
        self.metadata_durable();
    }

    fn flush(&mut self) {
        self.set_online(true);
        let mut waits = 0;
        let flushed = self.machine.volume().flush(&mut |_| {
            waits += 1;
            waits < 300
        });
        if let Err(error) = flushed {
            panic!("flush: {error}; {:?}", self.machine.volume().status());
        }
        self.all_durable();
    }

    fn set_online(&mut self, online: bool) {
        if online != self.online {
            self.machine.set_online(online);
            self.online = online;
        }
    }

    /// Exactly the same tree.
    fn compare(&mut self) {
        self.remember();
        let found = self.drive_tree();
        let wanted = &self.now().tree;
        if let Some(difference) = found.difference(wanted, &BTreeMap::new()) {
            panic!("the trees differ after step {}: {difference}", self.steps);
        }
    }

    fn drive_tree(&self) -> Tree {
        let runtime = self.machine.runtime();
        let source = Source { fs: self.drive().as_ref(), runtime: &runtime };
        source.tree(&mut Known::new()).expect("the drive's tree")
    }

    fn reopen(&mut self) {
        self.online = true;
        self.machine.open().unwrap_or_else(|error| panic!("opening after step {}: {error:?}", self.steps));
        self.all_durable();
        self.compare();
    }

    fn crash(&mut self, how: Crash, replica: ReplicaAfter, during: During) {
        self.remember();
        self.fail_during(during);
        self.remember();
        self.handles.clear();
        self.borrowed.clear();
        self.machine.crash(how);
        if matches!(how, Crash::Power { .. }) {
            self.machine.change_replica(replica);
        }
        if let During::Opening { changes } = during {
            self.machine.disk.power_off_after(changes.into());
            let _ = self.machine.open();
            self.machine.crash(how);
        }
        self.online = true;
        self.machine.open().unwrap_or_else(|error| panic!("opening after the crash in step {}: {error:?}", self.steps));
        let opened = self.machine.volume().opened().clone();
        assert_eq!(opened.damage, None, "a torn journal is no damage");
        let found = self.drive_tree();
        self.check_survivors(&found);
        self.go_on_from(&found);
    }

    fn fail_during(&mut self, during: During) {
        let disk = self.machine.disk.clone();
        match during {
            During::Nothing | During::Opening { .. } => {}
            During::Fsync { file, changes } => {
                let Some(open) = self.file(file) else { return };
                disk.power_off_after(changes.into());
                if self.drive().fsync(open.ino.drive, open.drive, false).is_ok() {
                    self.pinned(open.ino);
                    self.remember();
                    self.metadata_durable();
                }
            }
            During::Flush { changes } => {
                disk.power_off_after(changes.into());
                // Interrupted: all is on this machine's disk.
                if let Ok(()) | Err(FlushError::Interrupted(_)) = self.machine.volume().flush(&mut |_| false) {
                    self.all_durable();
                }
            }
            During::Cut { changes } => {
                disk.power_off_after(changes.into());
                let _ = self.machine.volume().cut();
            }
        }
    }

    fn check_survivors(&self, found: &Tree) {
        let differences = self.moments.iter().rev().map(|moment| {
            let difference = found.difference(&moment.tree, &moment.older)?;
            Some(format!("  of step {}: {difference}", moment.step))
        });
        let Some(mut differences) = differences.collect::<Option<Vec<String>>>() else { return };
        differences.dedup();
        if differences.len() > 6 {
            differences.drain(3..differences.len() - 3);
        }
        panic!("after the crash in step {} the tree is that of no moment\n{}", self.steps, differences.join("\n"));
    }

    /// The reference becomes what survived.
    fn go_on_from(&mut self, found: &Tree) {
        self.reference = rebuild(found, self.clock.clone());
        self.known.clear();
        self.all_durable();
        // Rule 3: what the reference makes of the names is what the drive says of them.
        let wanted = &self.now().tree;
        if let Some(difference) = found.difference(wanted, &BTreeMap::new()) {
            panic!("after the crash in step {} the tree is not sound: {difference}", self.steps);
        }
    }

    fn close_all(&mut self) {
        for open in std::mem::take(&mut self.handles) {
            self.close(open);
        }
        self.give_back();
    }

    fn drive(&self) -> &Arc<Drive> {
        self.machine.volume().drive()
    }

    fn now(&self) -> &Moment {
        self.moments.last().expect("a moment")
    }

    fn count_files(&self) -> usize {
        let tree = &self.now().tree;
        tree.names.values().filter(|ino| tree.nodes[*ino].attr.mode & mode::TYPE == mode::FILE).count()
    }
}

fn traced() -> bool {
    std::env::var_os("HUSHFS_MODEL_TRACE").is_some()
}

/// Both sides must say the same.
fn same<T: PartialEq + Debug>(drive: VfsResult<T>, reference: VfsResult<T>) -> VfsResult<T> {
    assert_eq!(drive, reference, "the drive's result and the reference's");
    drive
}

fn same_attr(drive: VfsResult<Attr>, reference: VfsResult<Attr>) -> Option<Pair> {
    let inodes = drive.ok().zip(reference.ok());
    let _ = same(drive.map(|attr| comparable(&attr)), reference.map(|attr| comparable(&attr)));
    inodes.map(|(drive, reference)| Pair { drive: drive.ino, reference: reference.ino })
}

fn rebuild(tree: &Tree, clock: Arc<TestClock>) -> MemFs {
    let fs = MemFs::new(OWNER, clock);
    let mut made = BTreeMap::from([(InodeId::ROOT, InodeId::ROOT)]);
    let mut dirs = BTreeMap::from([(Vec::new(), InodeId::ROOT)]);
    for (path, ino) in tree.names.iter().filter(|(path, _)| !path.is_empty()) {
        let (parent, name) = names::split(path);
        let parent = dirs[parent];
        let node = &tree.nodes[ino];
        let attr = match (made.get(ino), node.attr.mode & mode::TYPE) {
            (Some(made), _) => fs.link(*made, parent, &name),
            (None, mode::DIR) => fs.mkdir(CALLER, parent, &name, mode::DIR),
            (None, mode::LINK) => fs.symlink(CALLER, parent, &name, node.target.as_ref().expect("a target")),
            (None, _) => fs.mknod(CALLER, parent, &name, node.attr.mode, node.attr.rdev),
        };
        let attr = attr.unwrap_or_else(|error| panic!("{} again: {error}", show(path)));
        made.insert(*ino, attr.ino);
        if attr.mode & mode::TYPE == mode::DIR {
            dirs.insert(path.clone(), attr.ino);
        }
        fs.forget(attr.ino, 1);
    }
    for (ino, node) in &tree.nodes {
        let made = made[ino];
        if let Some(content) = &node.content {
            let handle = fs.open(made, OpenFlags::default()).expect("open");
            for (index, block) in &content.blocks {
                fs.write(made, handle, index * (64 << 10), block, Kill::No).expect("write");
            }
            fs.setattr(made, &SetAttr { size: Some(content.size), ..SetAttr::default() }).expect("truncate");
            fs.release(made, handle);
        }
        for (name, value) in &node.xattrs {
            let name = XattrName::parse(name).expect("an attribute's name");
            fs.setxattr(made, &name, value, XattrMode::Create).expect("setxattr");
        }
        fs.set_attr_as_is(made, &node.attr).expect("attributes");
    }
    fs
}
