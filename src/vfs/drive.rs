//! The filesystem: what its parts share, and the trait that whoever serves it sees.
//!
//! Lock order: gate, namespace, node, then the layers below (which take none of these).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};

use crate::base::{ByteRange, Clock, Entropy, InodeId, Name, PackName, PackNo, Timestamp, VolumeId};
use crate::content::{ChunkReader, DirtyBudget, Staging};
use crate::format::WHOLE_LEN_MAX;
use crate::format::intent::Intent;
use crate::format::rows::{XattrName, mode};
use crate::meta::{FileKeys, MetaError, Pending, View};

use super::api::{
    Attr, Caller, DirEntry, DirWant, FallocateMode, HandleId, Invalidation, KernelCache, Kill, OpenFlags, Place,
    ReadReply, RenameMode, SeekTarget, SetAttr, StatFs, Vfs, VfsError, VfsResult, WriteReply, XattrMode,
};
use super::atime::{Atimes, KeptAtimes};
use super::defragment::Fragmented;
use super::errors::{content_error, meta_error};
use super::node::NodeTable;
use super::quota::Quota;
use super::space::LocalSpace;

pub use super::atime::AtimeMode;

#[derive(Clone, Debug)]
pub struct DriveOptions {
    pub read_only: bool,
    /// fsync waits for the record in the store too.
    pub sync_remote: bool,
    pub dedup: bool,
    pub atime: AtimeMode,
    pub directory_atime: bool,
    /// How long a read waits for the store before it gets an error.
    pub read_deadline: Duration,
    /// How long a writer waits for memory before it gets an error.
    pub write_deadline: Duration,
    /// A cut is due once this much was written since the last.
    pub commit_bytes: u64,
    /// With so many bytes of rows for the next record, changes wait for the cut. Operations that are under way then add
    /// to it.
    pub rows_max: u64,
    /// Where a chunk's length of a file is in more pieces, they are put together.
    pub pieces_max: usize,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            sync_remote: false,
            dedup: true,
            atime: AtimeMode::Relative,
            directory_atime: true,
            read_deadline: Duration::from_secs(60),
            write_deadline: Duration::from_secs(120),
            commit_bytes: 16 << 20,
            rows_max: WHOLE_LEN_MAX / 2,
            pieces_max: 64,
        }
    }
}

/// The layers below, put together.
pub struct DriveParts {
    pub volume: VolumeId,
    pub pending: Arc<Pending>,
    pub keys: Arc<FileKeys>,
    pub staging: Arc<Staging>,
    pub reader: Arc<ChunkReader>,
    pub budget: Arc<DirtyBudget>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub atimes: KeptAtimes,
    pub space: LocalSpace,
    pub runtime: tokio::runtime::Handle,
}

pub struct Drive {
    pub(super) volume: VolumeId,
    pub(super) pending: Arc<Pending>,
    pub(super) keys: Arc<FileKeys>,
    pub(super) staging: Arc<Staging>,
    pub(super) reader: Arc<ChunkReader>,
    pub(super) budget: Arc<DirtyBudget>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) options: DriveOptions,

    /// Read by every change, written by whoever needs one moment of the whole tree.
    pub(super) gate: RwLock<()>,
    pub(super) namespace: Mutex<()>,
    pub(super) nodes: NodeTable,
    pub(super) fragmented: Fragmented,
    pub(super) atimes: Atimes,
    pub(super) quota: Quota,
    pub(super) space: LocalSpace,
    /// Packs with chunks of unlinked files, which no row may name.
    pub(super) orphan_packs: Mutex<HashMap<PackNo, PackName>>,
    next_handle: AtomicU64,
    /// Set when the volume must not be written to any more, such as after a fork was seen.
    frozen_for_good: AtomicBool,
    changes: AtomicU64,
    uncut: Mutex<Uncut>,
    due: Condvar,
    /// The counting began anew.
    cut: Condvar,
    /// Waits until the record that holds all that was cut so far is in the store.
    remote: Mutex<Option<Arc<dyn RemoteSync>>>,
    /// Told of what a request changed beside what the kernel takes it to change.
    kernel: Mutex<Option<Arc<dyn KernelCache>>>,
}

/// Who can say that a cut has reached the store.
pub trait RemoteSync: Send + Sync {
    fn flush(&self, deadline: Duration) -> VfsResult<()>;
    /// Whether nothing that was tried lately failed.
    fn is_well(&self) -> bool;
}

/// What happened since the last cut.
#[derive(Default)]
struct Uncut {
    bytes: u64,
    /// Of these, and of what is to be sealed yet: what they take in the record, at most.
    rows: u64,
    since: Option<Instant>,
    woken: bool,
}

/// What waits, for `status`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriveStatus {
    pub dirty_bytes: u64,
    pub dirty_files: u64,
    pub uncut_for: Option<Duration>,
}

impl Drive {
    pub fn new(parts: DriveParts, options: DriveOptions) -> Self {
        let DriveParts { volume, pending, keys, staging, reader, budget, clock, entropy, atimes, space, runtime } =
            parts;
        // As with any filesystem that is mounted so.
        let mode = if options.read_only { AtimeMode::Never } else { options.atime };
        Self {
            atimes: Atimes::new(mode, options.directory_atime, atimes),
            volume,
            pending,
            keys,
            staging,
            reader,
            budget,
            clock,
            entropy,
            runtime,
            options,
            quota: Quota::default(),
            space,
            gate: RwLock::default(),
            namespace: Mutex::default(),
            nodes: NodeTable::default(),
            fragmented: Fragmented::default(),
            orphan_packs: Mutex::default(),
            next_handle: AtomicU64::new(1),
            frozen_for_good: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            uncut: Mutex::default(),
            due: Condvar::new(),
            cut: Condvar::new(),
            remote: Mutex::default(),
            kernel: Mutex::default(),
        }
    }

    pub fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        *self.kernel.lock() = Some(kernel);
    }

    pub(super) fn tell_kernel(&self, what: Invalidation) {
        if let Some(kernel) = &*self.kernel.lock() {
            kernel.invalidate(what);
        }
    }

    /// fsync with `sync_remote` asks this one.
    pub fn set_remote(&self, remote: Option<Arc<dyn RemoteSync>>) {
        *self.remote.lock() = remote;
    }

    pub(super) fn remote(&self) -> Option<Arc<dyn RemoteSync>> {
        self.remote.lock().clone()
    }

    /// Whether what is staged is on its way out.
    pub(super) fn is_draining(&self) -> bool {
        self.remote().is_some_and(|remote| remote.is_well()) && (self.staging.bytes() > 0 || self.budget.used() > 0)
    }

    pub fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    /// From now on changes are refused; what was acknowledged stays on this machine.
    pub fn refuse_changes(&self) {
        self.frozen_for_good.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_frozen_for_good(&self) -> bool {
        self.frozen_for_good.load(Ordering::SeqCst)
    }

    pub fn status(&self) -> DriveStatus {
        let dirty_files = self.nodes.all().iter().filter(|node| !node.state.lock().dirty.is_empty()).count() as u64;
        let uncut_for = self.uncut.lock().since.map(|since| since.elapsed());
        DriveStatus { dirty_bytes: self.budget.used(), dirty_files, uncut_for }
    }

    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    pub(super) fn view(&self) -> &View {
        self.pending.view()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs it when the changes that are under way have ended, and lets none begin.
    pub(super) fn exclusively(&self, work: &mut dyn FnMut()) {
        let _gate = self.gate.write();
        work();
    }

    /// Every change holds this while it lasts.
    pub(super) fn change(&self) -> VfsResult<RwLockReadGuard<'_, ()>> {
        if self.options.read_only || self.is_frozen_for_good() {
            return Err(VfsError::ReadOnly);
        }
        self.wait_rows()?;
        // Recursive: a queued cut must not deadlock an operation that is already inside.
        Ok(self.gate.read_recursive())
    }

    pub(super) fn submit(&self, intents: Vec<Intent>) -> VfsResult<()> {
        // Rows count like content.
        let bytes = self.pending.submit(intents).map_err(self.failed("change"))?;
        self.note_written(bytes);
        self.note_rows(bytes);
        Ok(())
    }

    pub(super) fn settle(&self, ino: InodeId) {
        self.budget.release(self.nodes.settle(ino));
    }

    /// Grows with every change of the volume that this device makes or hears of: what has not grown has not changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts towards the next cut.
    pub(super) fn note_written(&self, bytes: u64) {
        self.note_change();
        let mut uncut = self.uncut.lock();
        uncut.bytes += bytes;
        uncut.since.get_or_insert_with(Instant::now);
        if uncut.bytes >= self.options.commit_bytes && !uncut.woken {
            uncut.woken = true;
            self.due.notify_all();
        }
    }

    /// Counts towards the record that the next cut makes.
    pub(super) fn note_rows(&self, bytes: u64) {
        let mut uncut = self.uncut.lock();
        uncut.rows += bytes;
        if uncut.rows >= self.options.commit_bytes && !uncut.woken {
            uncut.woken = true;
            self.due.notify_all();
        }
    }

    /// Whether the next cut makes as long a record as one may be.
    pub(super) fn has_rows_max(&self) -> bool {
        self.uncut.lock().rows >= self.options.rows_max
    }

    /// No record may grow beyond what devices read: then it is the cut's turn.
    fn wait_rows(&self) -> VfsResult<()> {
        let mut uncut = self.uncut.lock();
        let deadline = (uncut.rows >= self.options.rows_max).then(|| Instant::now() + self.options.write_deadline);
        while let Some(deadline) = deadline
            && uncut.rows >= self.options.rows_max
        {
            uncut.woken = true;
            self.due.notify_all();
            if self.cut.wait_until(&mut uncut, deadline).timed_out() {
                tracing::error!(
                    "a change was refused: what was changed before fills a record and could not be cut yet"
                );
                return Err(VfsError::TimedOut);
            }
        }
        Ok(())
    }

    pub(super) fn start_counting_anew(&self) {
        *self.uncut.lock() = Uncut::default();
        self.cut.notify_all();
    }

    pub(super) fn wake_cycle(&self) {
        self.uncut.lock().woken = true;
        self.due.notify_all();
    }

    /// Waits until a cut is due: enough was written, the oldest change is `age` old, or somebody asks.
    /// False when `patience` ended first.
    pub(super) fn wait_due(&self, age: Duration, patience: Duration) -> bool {
        let mut uncut = self.uncut.lock();
        let is_due = |uncut: &Uncut| uncut.woken || uncut.since.is_some_and(|since| since.elapsed() >= age);
        if !is_due(&uncut) {
            let rest = uncut.since.map_or(patience, |since| age.saturating_sub(since.elapsed()).min(patience));
            self.due.wait_for(&mut uncut, rest);
        }
        let due = is_due(&uncut);
        uncut.woken = false;
        due
    }

    pub(super) fn failed(&self, what: &'static str) -> impl Fn(MetaError) -> VfsError {
        move |error| meta_error(what, &error)
    }

    pub(super) fn content_failed(&self, what: &'static str) -> impl Fn(crate::content::ContentError) -> VfsError {
        move |error| content_error(what, &error)
    }

    fn handle(&self) -> HandleId {
        HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    fn open_inode(&self, ino: InodeId, flags: OpenFlags) -> VfsResult<HandleId> {
        let truncate = flags.truncate;
        let _gate = if truncate { Some(self.change()?) } else { None };
        let node = self.nodes.get_or_insert(ino);
        let mut state = node.state.lock();
        let row = self.row(ino, &state)?;
        if truncate && row.is_file() {
            let now = self.now();
            self.truncate(ino, &mut state, &row, 0, now)?;
            self.drop_privileges(ino, &mut state, row.mode, now, Kill::Privileges)?;
        }
        self.load_file_key(&mut state, &row)?;
        state.opens += 1;
        let handle = self.handle();
        if flags.keep_atime {
            state.keep_atime.push(handle);
        }
        Ok(handle)
    }

    fn close(&self, ino: InodeId, handle: HandleId) {
        if let Some(node) = self.nodes.get(ino) {
            let mut state = node.state.lock();
            state.opens = state.opens.saturating_sub(1);
            state.prefetch.remove(&handle);
            state.keep_atime.retain(|other| *other != handle);
        }
        self.settle(ino);
    }

    fn sync(&self, ino: InodeId) -> VfsResult<()> {
        if self.options.read_only {
            return Ok(());
        }
        self.sync_inode(ino)?;
        match self.options.sync_remote {
            false => Ok(()),
            true => self.remote().map_or(Ok(()), |remote| remote.flush(self.options.write_deadline)),
        }
    }
}

impl Vfs for Drive {
    fn lookup(&self, parent: InodeId, name: &Name) -> VfsResult<Option<Attr>> {
        self.lookup_name(parent, name)
    }

    fn lookup_number(&self, ino: InodeId) -> VfsResult<Attr> {
        // Counted first: who unlinks it meanwhile must see that it is known.
        self.nodes.looked_up(ino);
        let linked = self.attr(ino).and_then(|attr| if attr.nlink > 0 { Ok(attr) } else { Err(VfsError::NotFound) });
        linked.inspect_err(|_| {
            self.nodes.forget(ino, 1);
            self.settle(ino);
        })
    }

    fn forget(&self, ino: InodeId, count: u64) {
        self.nodes.forget(ino, count);
        self.settle(ino);
    }

    fn parent(&self, dir: InodeId) -> VfsResult<InodeId> {
        self.parent_of(dir)
    }

    fn getattr(&self, ino: InodeId) -> VfsResult<Attr> {
        self.attr(ino)
    }

    fn setattr(&self, ino: InodeId, set: &SetAttr) -> VfsResult<Attr> {
        self.set_attr(ino, set)
    }

    fn readlink(&self, ino: InodeId) -> VfsResult<Bytes> {
        Ok(Bytes::from(self.link_target(ino)?.into_vec()))
    }

    fn mknod(&self, caller: Caller, parent: InodeId, name: &Name, mode: u32, rdev: u32) -> VfsResult<Attr> {
        self.create_inode(caller, parent, name, mode, rdev, None)
    }

    fn mkdir(&self, caller: Caller, parent: InodeId, name: &Name, mode: u32) -> VfsResult<Attr> {
        self.create_inode(caller, parent, name, mode::DIR | (mode & !mode::TYPE), 0, None)
    }

    fn symlink(&self, caller: Caller, parent: InodeId, name: &Name, target: &[u8]) -> VfsResult<Attr> {
        self.create_inode(caller, parent, name, mode::LINK | 0o777, 0, Some(target))
    }

    fn link(&self, ino: InodeId, parent: InodeId, name: &Name) -> VfsResult<Attr> {
        self.add_link(ino, parent, name)
    }

    fn unlink(&self, parent: InodeId, name: &Name) -> VfsResult<()> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, parent: InodeId, name: &Name) -> VfsResult<()> {
        self.remove(parent, name, true)
    }

    fn rename(&self, from: (InodeId, &Name), to: (InodeId, &Name), mode: RenameMode) -> VfsResult<()> {
        self.rename_entry(from, to, mode)
    }

    fn open(&self, ino: InodeId, flags: OpenFlags) -> VfsResult<HandleId> {
        if flags.write && self.options.read_only {
            return Err(VfsError::ReadOnly);
        }
        self.open_inode(ino, flags)
    }

    fn create(
        &self,
        caller: Caller,
        parent: InodeId,
        name: &Name,
        mode: u32,
        flags: OpenFlags,
    ) -> VfsResult<(Attr, HandleId)> {
        let attr = self.create_inode(caller, parent, name, mode::FILE | (mode & !mode::TYPE), 0, None)?;
        Ok((attr, self.open_inode(attr.ino, OpenFlags { truncate: false, ..flags })?))
    }

    fn read(&self, ino: InodeId, handle: HandleId, range: ByteRange) -> VfsResult<ReadReply> {
        self.read_range(ino, handle, range)
    }

    fn write(&self, ino: InodeId, _handle: HandleId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<WriteReply> {
        self.write_now(ino, offset, data, kill)
    }

    fn write_blocking(&self, ino: InodeId, _handle: HandleId, offset: u64, data: &[u8], kill: Kill) -> VfsResult<u32> {
        self.write_waiting(ino, offset, data, kill)
    }

    /// What was written stays until it is sealed, so there is no earlier failure to report.
    fn flush(&self, _ino: InodeId, _handle: HandleId) -> VfsResult<()> {
        Ok(())
    }

    fn release(&self, ino: InodeId, handle: HandleId) {
        self.close(ino, handle);
    }

    fn fsync(&self, ino: InodeId, _handle: HandleId, _data_only: bool) -> VfsResult<()> {
        self.sync(ino)
    }

    fn fallocate(
        &self,
        ino: InodeId,
        _handle: HandleId,
        range: ByteRange,
        mode: FallocateMode,
        kill: Kill,
    ) -> VfsResult<()> {
        self.allocate(ino, range, mode, kill)
    }

    fn seek(&self, ino: InodeId, _handle: HandleId, offset: u64, target: SeekTarget) -> VfsResult<u64> {
        self.seek_from(ino, offset, target)
    }

    fn copy_range(&self, from: Place, to: Place, len: u64, kill: Kill) -> VfsResult<u64> {
        self.copy_extents(from, to, len, kill)
    }

    fn opendir(&self, ino: InodeId, flags: OpenFlags) -> VfsResult<HandleId> {
        self.open_inode(ino, OpenFlags { truncate: false, ..flags })
    }

    fn readdir(
        &self,
        ino: InodeId,
        handle: HandleId,
        after: u64,
        want: DirWant,
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        self.list((ino, handle), after, want, sink)
    }

    fn releasedir(&self, ino: InodeId, handle: HandleId) {
        self.close(ino, handle);
    }

    fn fsyncdir(&self, ino: InodeId, _handle: HandleId, _data_only: bool) -> VfsResult<()> {
        self.sync(ino)
    }

    fn statfs(&self) -> VfsResult<StatFs> {
        self.stat_filesystem()
    }

    fn setxattr(&self, ino: InodeId, name: &XattrName, value: &[u8], mode: XattrMode) -> VfsResult<()> {
        self.set_xattr(ino, name, Some(value), mode)
    }

    fn getxattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<Bytes> {
        self.get_xattr(ino, name)
    }

    fn listxattr(&self, ino: InodeId) -> VfsResult<Vec<XattrName>> {
        self.list_xattrs(ino)
    }

    fn removexattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<()> {
        self.set_xattr(ino, name, None, XattrMode::Replace)
    }
}
