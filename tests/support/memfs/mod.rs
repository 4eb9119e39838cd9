//! A whole filesystem in memory behind the same trait as the drive: the performance ceiling of what goes
//! through FUSE, and the reference that the drive is compared with.
//!
//! Locks: `tree` first (held by every change of the namespace), then single nodes, one at a time.

mod pages;
mod vfs;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use hushfs::base::{ByteRange, Clock, InodeId, Name, SystemClock, Timestamp};
use hushfs::format::rows::{XattrName, mode};
use hushfs::vfs::api::*;
use parking_lot::{Mutex, MutexGuard, RwLock};

use pages::Pages;

pub struct MemFs {
    pub behave: Behave,
    tree: Mutex<()>,
    nodes: RwLock<HashMap<InodeId, Arc<Node>>>,
    next_ino: AtomicU64,
    next_handle: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// What a test can make it do that memory does not do by itself.
#[derive(Default)]
pub struct Behave {
    /// Every read and write has to wait.
    pub slow: AtomicBool,
    /// Reading and opening panic.
    pub panicking: AtomicBool,
}

impl Behave {
    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    fn perhaps_panic(&self) {
        assert!(!self.panicking.load(Ordering::Relaxed), "as the test asked for");
    }
}

type Node = Mutex<State>;

struct State {
    /// `size` of a directory and `blocks` are made when asked for.
    attr: Attr,
    body: Body,
    xattrs: BTreeMap<XattrName, Bytes>,
    references: u64,
    handles: u64,
}

enum Body {
    File(Pages),
    Dir(Dir),
    Symlink(Bytes),
    Other,
}

struct Dir {
    parent: InodeId,
    names: HashMap<Name, u64>,
    /// By cookie.
    entries: BTreeMap<u64, Child>,
    next_cookie: u64,
}

#[derive(Clone)]
struct Child {
    name: Name,
    ino: InodeId,
    file_type: u32,
}

impl Dir {
    fn new(parent: InodeId) -> Self {
        Self { parent, names: HashMap::new(), entries: BTreeMap::new(), next_cookie: FIRST_COOKIE }
    }

    fn get(&self, name: &Name) -> Option<&Child> {
        self.entries.get(self.names.get(name)?)
    }

    fn insert(&mut self, child: Child) {
        self.names.insert(child.name.clone(), self.next_cookie);
        self.entries.insert(self.next_cookie, child);
        self.next_cookie += 1;
    }

    fn remove(&mut self, name: &Name) {
        if let Some(cookie) = self.names.remove(name) {
            self.entries.remove(&cookie);
        }
    }

    /// In place: the name keeps its cookie.
    fn replace(&mut self, name: &Name, ino: InodeId, file_type: u32) {
        if let Some(child) = self.names.get(name).and_then(|cookie| self.entries.get_mut(cookie)) {
            (child.ino, child.file_type) = (ino, file_type);
        }
    }
}

impl State {
    fn new(attr: Attr, body: Body) -> Self {
        Self { attr, body, xattrs: BTreeMap::new(), references: 0, handles: 0 }
    }

    fn attr(&self) -> Attr {
        let (size, allocated) = match &self.body {
            Body::File(pages) => (self.attr.size, pages.allocated()),
            Body::Dir(dir) => (dir.entries.len() as u64, 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Other => (0, 0),
        };
        Attr { size, blocks: allocated.div_ceil(512), ..self.attr }
    }

    fn dir(&self) -> VfsResult<&Dir> {
        match &self.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(VfsError::NotDirectory),
        }
    }

    fn dir_mut(&mut self) -> VfsResult<&mut Dir> {
        match &mut self.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(VfsError::NotDirectory),
        }
    }

    fn pages(&mut self) -> VfsResult<&mut Pages> {
        match &mut self.body {
            Body::File(pages) => Ok(pages),
            Body::Dir(_) => Err(VfsError::IsDirectory),
            Body::Symlink(_) | Body::Other => Err(VfsError::Invalid),
        }
    }

    fn content_changed(&mut self, now: Timestamp, kill: Kill) {
        (self.attr.mtime, self.attr.ctime) = (now, now);
        if self.attr.mode & mode::TYPE == mode::FILE {
            self.drop_privileges(kill);
        }
    }

    fn drop_privileges(&mut self, kill: Kill) {
        if kill == Kill::Privileges {
            self.attr.mode = without_privileges(self.attr.mode);
        }
        self.xattrs.retain(|name, _| name.as_bytes() != b"security.capability");
    }

    fn resize(&mut self, size: u64, now: Timestamp, kill: Kill) -> VfsResult<()> {
        let old = self.attr.size;
        let pages = self.pages()?;
        if size < old {
            pages.clear(ByteRange::new(size, old));
        }
        self.attr.size = size;
        self.content_changed(now, kill);
        Ok(())
    }

    fn is_unreachable(&self) -> bool {
        self.attr.nlink == 0 && self.references == 0 && self.handles == 0
    }
}

fn new_attr(ino: InodeId, mode: u32, (uid, gid): (u32, u32), rdev: u32, now: Timestamp) -> Attr {
    Attr {
        ino,
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        mode,
        nlink: if mode & mode::TYPE == mode::DIR { 2 } else { 1 },
        uid,
        gid,
        rdev,
        blksize: 4096,
    }
}

impl Default for MemFs {
    fn default() -> Self {
        let caller = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Self::new(caller, Arc::new(SystemClock))
    }
}

impl MemFs {
    /// With nothing in it but the root directory, which is `owner`'s.
    pub fn new(owner: (u32, u32), clock: Arc<dyn Clock>) -> Self {
        let attr = new_attr(InodeId::ROOT, mode::DIR | 0o755, owner, 0, clock.now());
        let root = Node::new(State::new(attr, Body::Dir(Dir::new(InodeId::ROOT))));
        Self {
            behave: Behave::default(),
            tree: Mutex::new(()),
            nodes: RwLock::new(HashMap::from([(InodeId::ROOT, Arc::new(root))])),
            next_ino: AtomicU64::new(InodeId::ROOT.0 + 1),
            next_handle: AtomicU64::new(1),
            clock,
        }
    }

    /// How many inodes there are, to see that unlinked ones go away.
    pub fn node_count(&self) -> usize {
        self.nodes.read().len()
    }

    /// For tests that begin from a given tree: all that `setattr` cannot set.
    #[allow(dead_code, reason = "only the model test needs it")]
    pub fn set_attr_as_is(&self, ino: InodeId, attr: &Attr) -> VfsResult<()> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        state.attr = Attr { ino, size: state.attr.size, nlink: state.attr.nlink, ..*attr };
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn node(&self, ino: InodeId) -> VfsResult<Arc<Node>> {
        self.nodes.read().get(&ino).cloned().ok_or(VfsError::Stale)
    }

    /// Takes the node away if nothing leads to it any more.
    fn reclaim(&self, ino: InodeId, state: MutexGuard<'_, State>) {
        let unreachable = state.is_unreachable();
        drop(state);
        if unreachable {
            self.nodes.write().remove(&ino);
        }
    }

    fn referenced(node: &Node) -> Attr {
        let mut state = node.lock();
        state.references += 1;
        state.attr()
    }

    /// With `tree` held.
    fn add(
        &self,
        caller: Caller,
        parent: InodeId,
        name: &Name,
        (mode, rdev): (u32, u32),
        body: Body,
    ) -> VfsResult<Arc<Node>> {
        let parent = self.node(parent)?;
        let mut parent = parent.lock();
        let umask = if mode & mode::TYPE == mode::LINK { 0 } else { caller.umask };
        let (gid, mode) = inherited(caller, &parent.attr, mode & !umask);
        if parent.dir()?.names.contains_key(name) {
            return Err(VfsError::Exists);
        }
        if parent.attr.nlink == 0 {
            return Err(VfsError::NotFound);
        }
        let ino = InodeId(self.next_ino.fetch_add(1, Ordering::Relaxed));
        let state = State::new(new_attr(ino, mode, (caller.uid, gid), rdev, self.now()), body);
        (parent.attr.mtime, parent.attr.ctime) = (state.attr.mtime, state.attr.mtime);
        if mode & mode::TYPE == mode::DIR {
            parent.attr.nlink += 1;
        }
        parent.dir_mut()?.insert(Child { name: name.clone(), ino, file_type: mode & mode::TYPE });
        let node = Arc::new(Node::new(state));
        self.nodes.write().insert(ino, node.clone());
        Ok(node)
    }

    fn child(&self, parent: InodeId, name: &Name) -> VfsResult<Option<Child>> {
        Ok(self.node(parent)?.lock().dir()?.get(name).cloned())
    }

    /// With `tree` held: takes a name away and a link from what it named.
    fn remove(&self, parent: InodeId, child: &Child) -> VfsResult<()> {
        let node = self.node(parent)?;
        let mut state = node.lock();
        state.dir_mut()?.remove(&child.name);
        state.content_changed(self.now(), Kill::No);
        if child.file_type == mode::DIR {
            state.attr.nlink -= 1;
        }
        drop(state);
        self.unlinked(child)
    }

    fn unlinked(&self, child: &Child) -> VfsResult<()> {
        let node = self.node(child.ino)?;
        let mut state = node.lock();
        state.attr.nlink = if child.file_type == mode::DIR { 0 } else { state.attr.nlink - 1 };
        state.attr.ctime = self.now();
        self.reclaim(child.ino, state);
        Ok(())
    }

    fn is_empty_dir(&self, ino: InodeId) -> VfsResult<bool> {
        Ok(self.node(ino)?.lock().dir()?.entries.is_empty())
    }

    /// Whether `dir` is `ancestor` or below it.
    fn is_within(&self, dir: InodeId, ancestor: InodeId) -> VfsResult<bool> {
        let mut at = dir;
        while at != ancestor {
            if at == InodeId::ROOT {
                return Ok(false);
            }
            at = self.parent(at)?;
        }
        Ok(true)
    }

    /// With `tree` held: a directory's own idea of where it is, and the counts of those that hold it.
    fn moved(&self, child: &Child, from: InodeId, to: InodeId) -> VfsResult<()> {
        let node = self.node(child.ino)?;
        let mut state = node.lock();
        state.attr.ctime = self.now();
        if let Body::Dir(dir) = &mut state.body
            && from != to
        {
            dir.parent = to;
            drop(state);
            self.node(from)?.lock().attr.nlink -= 1;
            self.node(to)?.lock().attr.nlink += 1;
        }
        Ok(())
    }

    fn touch(&self, dir: InodeId) -> VfsResult<()> {
        self.node(dir)?.lock().content_changed(self.now(), Kill::No);
        Ok(())
    }

    fn read_now(&self, ino: InodeId, range: ByteRange) -> VfsResult<Bytes> {
        let node = self.node(ino)?;
        let mut state = node.lock();
        let file = ByteRange::new(0, state.attr.size);
        Ok(state.pages()?.read(range.intersect(file).unwrap_or_default()).into())
    }

    fn new_handle(&self, state: &mut State) -> HandleId {
        state.handles += 1;
        HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    fn close(&self, ino: InodeId) {
        if let Ok(node) = self.node(ino) {
            let mut state = node.lock();
            state.handles = state.handles.saturating_sub(1);
            self.reclaim(ino, state);
        }
    }
}
