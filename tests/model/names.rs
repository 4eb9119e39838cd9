//! Operations on names and handles.

use std::collections::{BTreeMap, BTreeSet};

use hushfs::base::Name;
use hushfs::format::rows::mode;
use hushfs::vfs::api::*;

use super::super::op::{Op, Pick, Spot};
use super::super::tree::Tree;
use super::{CALLER, Open, Pair, ROOT, World, same, same_attr};

/// Few, so that they meet; with a long one and one that is no UTF-8.
fn name(number: u8) -> Name {
    let bytes: Vec<u8> = match number % 12 {
        0 => vec![b'n'; 255],
        1 => vec![0xff, b'\n', 0x80],
        other => vec![b'a' + other],
    };
    Name::parse(bytes).expect("a name")
}

pub fn split(path: &[u8]) -> (&[u8], Name) {
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (parent, last) = at.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]));
    (parent, Name::parse(last).expect("a name"))
}

impl World {
    pub(super) fn change_names(&mut self, op: &Op) {
        match *op {
            Op::Create { at, mode, keep_open } => {
                let (dir, name) = self.spot(at);
                self.create(dir, &name, mode, keep_open);
            }
            Op::Mkdir { at, mode } => {
                let mode = mode::DIR | mode;
                let (dir, name) = self.spot(at);
                let made = self.drive().mkdir(CALLER, dir.drive, &name, mode);
                let made = same_attr(made, self.reference.mkdir(CALLER, dir.reference, &name, mode));
                self.borrow(made);
            }
            Op::Symlink { at, len } => {
                let (dir, name) = self.spot(at);
                let target = vec![b'x'; len.into()];
                let made = self.drive().symlink(CALLER, dir.drive, &name, &target);
                let made = same_attr(made, self.reference.symlink(CALLER, dir.reference, &name, &target));
                self.borrow(made);
            }
            Op::Mknod { at, kind } => {
                let (dir, name) = self.spot(at);
                let (kind, rdev) = [
                    (mode::FILE, 0),
                    (mode::FIFO, 0),
                    (mode::SOCKET, 0),
                    (mode::CHAR, 0x501),
                    (mode::BLOCK, 0x10_0a02),
                ][usize::from(kind % 5)];
                let made = self.drive().mknod(CALLER, dir.drive, &name, kind | 0o640, rdev);
                let made = same_attr(made, self.reference.mknod(CALLER, dir.reference, &name, kind | 0o640, rdev));
                self.borrow(made);
            }
            Op::Link { node, at } => {
                let node = self.node(node);
                let (dir, name) = self.spot(at);
                let made = self.drive().link(node.drive, dir.drive, &name);
                let made = same_attr(made, self.reference.link(node.reference, dir.reference, &name));
                if made.is_some() {
                    self.pinned(node);
                }
                self.borrow(made);
            }
            Op::Unlink { path } | Op::Rmdir { path } => {
                let Some((dir, name)) = self.entry(path) else { return };
                let _ = match op {
                    Op::Rmdir { .. } => {
                        same(self.drive().rmdir(dir.drive, &name), self.reference.rmdir(dir.reference, &name))
                    }
                    _ => same(self.drive().unlink(dir.drive, &name), self.reference.unlink(dir.reference, &name)),
                };
            }
            Op::Rename { path, to, mode } => {
                let Some(from) = self.entry(path) else { return };
                let to = self.spot(to);
                self.rename(&from, &to, mode);
            }
            Op::RenameOver { path, over, mode } => {
                let Some(from) = self.entry(path) else { return };
                let Some(to) = self.entry(over) else { return };
                self.rename(&from, &to, mode);
            }
            Op::Save { at, data } => {
                let (dir, target) = self.spot(at);
                let temporary = Name::parse("tmp").expect("a name");
                if !self.create(dir, &temporary, 0o600, true) {
                    return;
                }
                let open = self.handles.pop().expect("just opened");
                self.write(open, 0, data, false);
                self.release(open);
                self.remember();
                self.rename(&(dir, temporary), &(dir, target), RenameMode::Replace);
            }
            Op::OpenDir { dir } => {
                let dir = self.dir(dir);
                let open = self.open_dir(dir);
                self.keep(open);
            }
            Op::Open { file, truncate } => {
                let Some(path) = self.pick_path(file, |kind| kind == mode::FILE) else { return };
                let ino = self.walk(&path);
                let flags = OpenFlags { read: true, write: true, truncate, ..OpenFlags::default() };
                let open = self.open(ino, flags);
                if truncate {
                    self.rewriting(ino);
                    self.pinned(ino);
                }
                self.keep(open);
            }
            Op::Close { handle } if !self.handles.is_empty() => {
                let open = self.handles.remove(usize::from(handle) % self.handles.len());
                self.close(open);
            }
            Op::List { dir, page, ref churn } => self.list(dir, page.into(), churn),
            _ => {}
        }
    }

    /// Returns whether it was made; with `keep_open` the newest handle is on it.
    fn create(&mut self, dir: Pair, name: &Name, mode: u32, keep_open: bool) -> bool {
        let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
        let mode = mode::FILE | mode;
        let made = self.drive().create(CALLER, dir.drive, name, mode, flags);
        let expected = self.reference.create(CALLER, dir.reference, name, mode, flags);
        let handles = made.as_ref().ok().zip(expected.as_ref().ok()).map(|(made, expected)| (made.1, expected.1));
        let ino = same_attr(made.map(|made| made.0), expected.map(|made| made.0));
        let Some((ino, (drive, reference))) = ino.zip(handles) else { return false };
        let open = Open { ino, drive, reference, is_dir: false, temporary: false };
        self.borrow(Some(ino));
        match keep_open {
            true => self.keep(open),
            false => self.release(open),
        }
        true
    }

    fn rename(&mut self, from: &(Pair, Name), to: &(Pair, Name), how: RenameMode) {
        let moved = [from, to].map(|(dir, name)| self.drive().lookup(dir.drive, name).ok().flatten());
        for attr in moved.iter().flatten() {
            self.drive().forget(attr.ino, 1);
        }
        let named = [from, to].map(|(dir, name)| self.reference.lookup(dir.reference, name).ok().flatten());
        for attr in named.iter().flatten() {
            self.reference.forget(attr.ino, 1);
        }
        let renamed = self.drive().rename((from.0.drive, &from.1), (to.0.drive, &to.1), how);
        let expected = self.reference.rename((from.0.reference, &from.1), (to.0.reference, &to.1), how);
        if same(renamed, expected).is_err() {
            return;
        }
        let same_file = named[0].map(|attr| attr.ino) == named[1].map(|attr| attr.ino);
        for attr in named.iter().take(if how == RenameMode::Exchange { 2 } else { 1 }).flatten() {
            if !same_file {
                self.older.remove(&attr.ino);
            }
        }
    }

    /// What is there throughout appears once, and everything else at most once.
    fn list(&mut self, dir: Pick, page: usize, churn: &[u8]) {
        let dir = self.dir(dir);
        let open = self.open_dir(dir);
        let before = self.names_in(dir);
        let mut ever = before.clone();
        let mut throughout = before;
        let mut seen: BTreeMap<Name, u32> = BTreeMap::new();
        let (mut after, mut churn) = (0, churn.iter());
        loop {
            let mut taken = Vec::new();
            let listed = self.drive().readdir(dir.drive, open.drive, after, DirWant::Attributes, &mut |entry| {
                if taken.len() == page {
                    return false;
                }
                let attr = entry.attr.expect("an entry's attributes");
                assert_eq!((attr.ino, attr.mode & mode::TYPE), (entry.ino, entry.file_type), "an entry's attributes");
                taken.push((entry.name.clone(), entry.cookie, entry.ino));
                true
            });
            listed.expect("readdir");
            let Some((_, last, _)) = taken.last() else { break };
            after = *last;
            for (name, _, ino) in taken {
                self.drive().forget(ino, 1);
                *seen.entry(name).or_default() += 1;
            }
            if let Some(number) = churn.next() {
                let name = name(*number);
                if !self.create(dir, &name, 0o644, false) {
                    let removed = self.drive().unlink(dir.drive, &name);
                    let _ = same(removed, self.reference.unlink(dir.reference, &name));
                }
                self.remember();
                let now = self.names_in(dir);
                throughout.retain(|name| now.contains(name));
                ever.extend(now);
            }
        }
        assert!(seen.values().all(|count| *count == 1), "a name was listed twice");
        assert!(throughout.iter().all(|name| seen.contains_key(name)), "a name was not listed");
        assert!(seen.keys().all(|name| ever.contains(name)), "a name was listed that was never there");
        self.close_temporary(open);
    }

    fn names_in(&self, dir: Pair) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        let mut sink = |entry: &DirEntry<'_>| names.insert(entry.name.clone());
        let listed = self.reference.readdir(dir.reference, HandleId(0), 0, DirWant::Names, &mut sink);
        listed.expect("the reference's readdir");
        names
    }

    fn spot(&mut self, spot: Spot) -> (Pair, Name) {
        (self.dir(spot.dir), name(spot.name))
    }

    /// A directory: by its path, or one that is open and perhaps removed.
    pub(super) fn dir(&mut self, pick: Pick) -> Pair {
        let open: Vec<Pair> = self.handles.iter().filter(|open| open.is_dir).map(|open| open.ino).collect();
        let paths = paths_of(&self.now().tree, |kind| kind == mode::DIR);
        let index = usize::from(pick) % (paths.len() + open.len());
        match index.checked_sub(paths.len()) {
            Some(index) => open[index],
            None => self.walk(&paths[index].clone()),
        }
    }

    /// Anything: by a path, or open and perhaps removed.
    pub(super) fn node(&mut self, pick: Pick) -> Pair {
        let open: Vec<Pair> = self.handles.iter().map(|open| open.ino).collect();
        let paths = paths_of(&self.now().tree, |_| true);
        let index = usize::from(pick) % (paths.len() + open.len());
        match index.checked_sub(paths.len()) {
            Some(index) => open[index],
            None => self.walk(&paths[index].clone()),
        }
    }

    /// A name that exists, with its directory.
    fn entry(&mut self, pick: Pick) -> Option<(Pair, Name)> {
        let paths = paths_of(&self.now().tree, |_| true);
        // The root has no name.
        let path = paths.get(1 + usize::from(pick) % paths.len().saturating_sub(1).max(1))?.clone();
        let (parent, name) = split(&path);
        Some((self.walk(parent), name))
    }

    pub(super) fn pick_path(&self, pick: Pick, wanted: impl Fn(u32) -> bool) -> Option<Vec<u8>> {
        let paths = paths_of(&self.now().tree, wanted);
        if paths.is_empty() { None } else { Some(paths[usize::from(pick) % paths.len()].clone()) }
    }

    pub(super) fn walk(&mut self, path: &[u8]) -> Pair {
        let mut at = ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = Name::parse(name).expect("a name");
            let found = self.drive().lookup(at.drive, &name).expect("lookup").expect("a name that is there");
            let expected = self.reference.lookup(at.reference, &name).expect("lookup").expect("a name that is there");
            at = same_attr(Ok(found), Ok(expected)).expect("found");
            self.borrow(Some(at));
        }
        at
    }

    pub(super) fn open(&mut self, ino: Pair, flags: OpenFlags) -> Open {
        let drive = self.drive().open(ino.drive, flags).expect("open");
        let reference = self.reference.open(ino.reference, flags).expect("open");
        Open { ino, drive, reference, is_dir: false, temporary: true }
    }

    pub(super) fn open_dir(&mut self, ino: Pair) -> Open {
        let drive = self.drive().opendir(ino.drive, OpenFlags::default()).expect("opendir");
        let reference = self.reference.opendir(ino.reference, OpenFlags::default()).expect("opendir");
        Open { ino, drive, reference, is_dir: true, temporary: true }
    }

    /// With a reference of its own.
    fn keep(&mut self, open: Open) {
        self.handles.push(Open { temporary: false, ..open });
        if open.ino != ROOT {
            let at = self.borrowed.iter().position(|ino| *ino == open.ino);
            match at {
                Some(at) => drop(self.borrowed.remove(at)),
                // It was reached by a handle that is open: one more reference needs a name.
                None => self.handles.pop().map_or((), |open| self.release(open)),
            }
        }
    }

    pub(super) fn release(&mut self, open: Open) {
        match open.is_dir {
            true => {
                self.drive().releasedir(open.ino.drive, open.drive);
                self.reference.releasedir(open.ino.reference, open.reference);
            }
            false => {
                let _ = same(
                    self.drive().flush(open.ino.drive, open.drive),
                    self.reference.flush(open.ino.reference, open.reference),
                );
                self.drive().release(open.ino.drive, open.drive);
                self.reference.release(open.ino.reference, open.reference);
            }
        }
    }

    pub(super) fn close_temporary(&mut self, open: Open) {
        if open.temporary {
            self.release(open);
        }
    }

    /// The handle and its reference.
    pub(super) fn close(&mut self, open: Open) {
        self.release(open);
        if open.ino != ROOT {
            self.borrowed.push(open.ino);
        }
    }

    fn borrow(&mut self, ino: Option<Pair>) {
        self.borrowed.extend(ino.filter(|ino| *ino != ROOT));
    }

    pub(super) fn give_back(&mut self) {
        for ino in std::mem::take(&mut self.borrowed) {
            self.drive().forget(ino.drive, 1);
            self.reference.forget(ino.reference, 1);
        }
    }
}

fn paths_of(tree: &Tree, wanted: impl Fn(u32) -> bool) -> Vec<Vec<u8>> {
    let kind = |ino| tree.nodes[ino].attr.mode & mode::TYPE;
    tree.names.iter().filter(|(_, ino)| wanted(kind(ino))).map(|(path, _)| path.clone()).collect()
}
