//! Attributes: what stat shows, chmod, chown, utimens, statfs.

use crate::base::{ByteRange, InodeId, Timestamp};
use crate::content::extent;
use crate::format::intent::{AttrChange, Intent};
use crate::format::rows::{InodeBody, InodeRow, XattrName, mode};
use crate::meta::Rows;

use super::api::{Attr, Invalidation, Kill, SetAttr, TimeOrNow, VfsError, VfsResult, without_privileges};
use super::drive::Drive;
use super::node::NodeState;

/// What programs are told to read and write at a time.
const BLOCK_SIZE_HINT: u32 = 128 << 10;
/// So many pieces of unsealed bytes are compared with what is sealed for one stat. Of more, the most that a file of
/// this size can take is told, until the next cut seals them.
const PIECES_MAX: usize = 64;
pub(super) const CAPABILITY: &str = "security.capability";

impl Drive {
    pub(super) fn attr(&self, ino: InodeId) -> VfsResult<Attr> {
        match self.nodes.get(ino) {
            Some(node) => self.attr_locked(ino, &node.state.lock()),
            None => Ok(self.attr_of(ino, &self.current_row(ino)?)),
        }
    }

    fn attr_locked(&self, ino: InodeId, state: &NodeState) -> VfsResult<Attr> {
        let mut row = self.row(ino, state)?;
        row.allocated += self.unsealed_room(ino, state, &row)?;
        Ok(self.attr_of(ino, &row))
    }

    /// Unsealed bytes take room where no sealed ones lie beneath.
    fn unsealed_room(&self, ino: InodeId, state: &NodeState, row: &InodeRow) -> VfsResult<u64> {
        let bytes = state.dirty.bytes();
        if bytes == 0 || row.allocated == 0 {
            return Ok(bytes);
        }
        let pieces: Vec<ByteRange> = state.dirty.ranges(ByteRange::new(0, row.size)).take(PIECES_MAX + 1).collect();
        if pieces.len() > PIECES_MAX {
            return Ok(bytes.min(row.size.saturating_sub(row.allocated)));
        }
        let mut room = 0;
        for piece in pieces {
            let stored;
            let extents = match &state.orphan {
                Some(orphan) => &orphan.extents,
                None => {
                    stored = self.view().extents(ino, row, piece).map_err(self.failed("stat"))?;
                    &stored
                }
            };
            room += extent::holes(extents, piece).map(|hole| hole.len()).sum::<u64>();
        }
        Ok(room)
    }

    /// The inode as it is now: its row, and what its node has ahead of it.
    pub(super) fn current_row(&self, ino: InodeId) -> VfsResult<InodeRow> {
        match self.nodes.get(ino) {
            Some(node) => self.row(ino, &node.state.lock()),
            None => self.view().inode(ino).map_err(self.failed("stat"))?.ok_or(VfsError::NotFound),
        }
    }

    pub(super) fn row(&self, ino: InodeId, state: &NodeState) -> VfsResult<InodeRow> {
        let mut row = match &state.orphan {
            Some(orphan) => orphan.row.clone(),
            None => self.view().inode(ino).map_err(self.failed("stat"))?.ok_or(VfsError::NotFound)?,
        };
        if let Some(ahead) = state.ahead {
            (row.size, row.mtime, row.ctime) = (ahead.size, ahead.mtime, ahead.ctime);
            row.version = ahead.base;
        }
        Ok(row)
    }

    pub(super) fn attr_of(&self, ino: InodeId, row: &InodeRow) -> Attr {
        Attr {
            ino,
            size: row.size,
            blocks: row.allocated.div_ceil(512),
            atime: self.atimes.get(ino, row),
            mtime: row.mtime,
            ctime: row.ctime,
            btime: row.btime,
            mode: row.mode,
            nlink: row.nlink,
            uid: row.uid,
            gid: row.gid,
            rdev: row.rdev,
            blksize: BLOCK_SIZE_HINT,
        }
    }

    pub(super) fn set_attr(&self, ino: InodeId, set: &SetAttr) -> VfsResult<Attr> {
        let _gate = self.change()?;
        let node = self.nodes.get_or_insert(ino);
        let result = self.set_attr_locked(ino, set, &mut node.state.lock());
        drop(node);
        self.settle(ino);
        result
    }

    fn set_attr_locked(&self, ino: InodeId, set: &SetAttr, state: &mut NodeState) -> VfsResult<Attr> {
        let row = self.row(ino, state)?;
        let now = self.now();
        if let Some(size) = set.size {
            self.truncate(ino, state, &row, size, now)?;
        }
        let owner_changes = set.uid.is_some() || set.gid.is_some();
        let content_changes = set.size.is_some();
        let privileged = content_changes && set.kill == Kill::Privileges || owner_changes;
        let mode = match set.mode {
            Some(mode) => Some((row.mode & mode::TYPE) | (mode & !mode::TYPE)),
            None if privileged && without_privileges(row.mode) != row.mode => Some(without_privileges(row.mode)),
            None => None,
        };
        let time = |time: Option<TimeOrNow>| {
            time.map(|time| match time {
                TimeOrNow::Time(time) => time,
                TimeOrNow::Now => now,
            })
        };
        let change = AttrChange { mode, uid: set.uid, gid: set.gid, atime: time(set.atime), mtime: time(set.mtime) };
        if change != AttrChange::default() || owner_changes {
            self.apply_attr_change(ino, state, change, now)?;
        }
        if let Some(mode) = set.mode {
            self.chmod_access_list(ino, state, mode, now)?;
        }
        if content_changes || owner_changes {
            self.drop_capabilities(ino, state)?;
        }
        self.attr_locked(ino, state)
    }

    pub(super) fn apply_attr_change(
        &self,
        ino: InodeId,
        state: &mut NodeState,
        mut change: AttrChange,
        now: Timestamp,
    ) -> VfsResult<()> {
        // What only this device knew goes along.
        if let Some(access) = self.atimes.take(ino)
            && change.atime.is_none()
            && self.row(ino, state)?.atime == access.row_atime
        {
            change.atime = Some(access.atime);
        }
        if let Some(ahead) = &mut state.ahead {
            ahead.mtime = change.mtime.unwrap_or(ahead.mtime);
            ahead.ctime = now;
        }
        if let Some(orphan) = &mut state.orphan {
            let row = &mut orphan.row;
            row.mode = change.mode.unwrap_or(row.mode);
            row.uid = change.uid.unwrap_or(row.uid);
            row.gid = change.gid.unwrap_or(row.gid);
            row.atime = change.atime.unwrap_or(row.atime);
            row.mtime = change.mtime.unwrap_or(row.mtime);
            row.ctime = now;
            return Ok(());
        }
        self.submit(vec![Intent::SetAttr { ino, set: change, time: now }])
    }

    /// What a change of content takes away from a file of this mode: the kernel leaves it to us.
    pub(super) fn drop_privileges(
        &self,
        ino: InodeId,
        state: &mut NodeState,
        mode: u32,
        now: Timestamp,
        kill: Kill,
    ) -> VfsResult<()> {
        let cleared = without_privileges(mode);
        if kill == Kill::Privileges && cleared != mode {
            let change = AttrChange { mode: Some(cleared), ..AttrChange::default() };
            self.apply_attr_change(ino, state, change, now)?;
            // After a write the kernel asks for size and times anew; the mode it goes on answering as it knew it.
            self.tell_kernel(Invalidation::Attributes(ino));
        }
        self.drop_capabilities(ino, state)
    }

    /// File capabilities do not survive a change of content or owner.
    pub(super) fn drop_capabilities(&self, ino: InodeId, state: &mut NodeState) -> VfsResult<()> {
        // Asked once for each node: every write comes here.
        if state.capability == Some(false) {
            return Ok(());
        }
        let Some(name) = XattrName::parse(CAPABILITY) else { return Ok(()) };
        if let Some(orphan) = &mut state.orphan {
            orphan.xattrs.retain(|(other, _)| *other != name);
        } else if self.view().xattr(ino, &name).map_err(self.failed("write"))?.is_some() {
            self.submit(vec![Intent::SetXattr { ino, name, value: None, time: self.now() }])?;
        }
        // Only once it is so: what failed is tried again by the next write.
        state.capability = Some(false);
        Ok(())
    }

    /// An intent gave the row a ctime; what the node has ahead must not hide it.
    pub(super) fn ctime_passed(&self, ino: InodeId, time: Timestamp) {
        if let Some(node) = self.nodes.get(ino)
            && let Some(ahead) = &mut node.state.lock().ahead
        {
            ahead.ctime = time;
        }
    }

    pub(super) fn link_target(&self, ino: InodeId) -> VfsResult<Box<[u8]>> {
        let row = self.current_row(ino)?;
        self.atimes.touch(ino, &row, self.clock.as_ref());
        match row.body {
            InodeBody::Symlink(target) => Ok(target),
            InodeBody::None | InodeBody::File(_) => Err(VfsError::Invalid),
        }
    }
}
