//! The shared file or folder, as the volume has it now: walked downward, names ascending, as a link's index wants it.
//!
//! Nothing is held while it is read, so others may change it meanwhile, and each file is what a copying program would
//! have got of it. What goes away during the walk is not in the copy.

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::base::{ByteRange, InodeId, Name};
use crate::format::link::{DEPTH_MAX, PIECE_LEN};
use crate::format::rows::mode;
use crate::vfs::api::{Attr, DirWant, HandleId, OpenFlags, ReadReply, SeekTarget, Vfs, VfsError, VfsResult};

use super::ShareError;
use super::busy::Stop;

/// Reading for a link is no access of its owner's.
const READ: OpenFlags = OpenFlags { read: true, write: false, truncate: false, keep_atime: true };

#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub vfs: &'a dyn Vfs,
    pub runtime: &'a Handle,
    pub stop: &'a Stop,
}

/// Something in the tree, and where.
pub(super) struct Visit {
    /// How many directories it is in, of those that are shared: 0 is what is shared.
    pub depth: usize,
    pub name: Name,
    pub attr: Attr,
}

/// The rest of a walk.
pub(super) struct Walk<'a> {
    source: &'a Source<'a>,
    /// For each open directory what is left of it, the last name first.
    open: Vec<Vec<(Name, InodeId)>>,
    start: Option<Visit>,
    /// What is neither file, folder nor symlink.
    pub left_out: u64,
}

impl Source<'_> {
    pub fn walk(&self, title: Name, attr: Attr) -> Walk<'_> {
        Walk { source: self, open: Vec::new(), start: Some(Visit { depth: 0, name: title, attr }), left_out: 0 }
    }

    fn names(&self, dir: InodeId) -> VfsResult<Vec<(Name, InodeId)>> {
        let handle = self.vfs.opendir(dir, READ)?;
        let mut names = Vec::new();
        let listed = self.vfs.readdir(dir, handle, 0, DirWant::Names, &mut |entry| {
            names.push((entry.name.clone(), entry.ino));
            true
        });
        self.vfs.releasedir(dir, handle);
        listed?;
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        Ok(names)
    }

    pub fn open(&self, ino: InodeId) -> VfsResult<OpenSource<'_>> {
        Ok(OpenSource { source: self, ino, handle: self.vfs.open(ino, READ)? })
    }
}

impl Walk<'_> {
    /// None at the end.
    pub fn next(&mut self) -> Result<Option<Visit>, ShareError> {
        let visit = match self.start.take() {
            Some(visit) => visit,
            None => match self.next_below()? {
                Some(visit) => visit,
                None => return Ok(None),
            },
        };
        if visit.attr.mode & mode::TYPE == mode::DIR {
            if visit.depth == DEPTH_MAX {
                return Err(ShareError::TooDeep);
            }
            match self.source.names(visit.attr.ino) {
                Ok(names) => self.open.push(names),
                Err(VfsError::NotFound | VfsError::Stale) if visit.depth > 0 => self.open.push(Vec::new()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(visit))
    }

    fn next_below(&mut self) -> Result<Option<Visit>, ShareError> {
        while let Some(names) = self.open.last_mut() {
            let Some((name, ino)) = names.pop() else {
                self.open.pop();
                continue;
            };
            let attr = match self.source.vfs.getattr(ino) {
                Ok(attr) => attr,
                Err(VfsError::NotFound | VfsError::Stale) => continue,
                Err(error) => return Err(error.into()),
            };
            match attr.mode & mode::TYPE {
                mode::FILE | mode::DIR | mode::LINK => {
                    return Ok(Some(Visit { depth: self.open.len(), name, attr }));
                }
                _ => self.left_out += 1,
            }
        }
        Ok(None)
    }
}

/// An open file.
pub(super) struct OpenSource<'a> {
    source: &'a Source<'a>,
    ino: InodeId,
    handle: HandleId,
}

impl OpenSource<'_> {
    /// The first piece at or after `piece` that may hold something. None: only zeros are left.
    pub fn next_data(&self, piece: u64) -> VfsResult<Option<u64>> {
        match self.source.vfs.seek(self.ino, self.handle, piece * PIECE_LEN, SeekTarget::Data) {
            Ok(offset) => Ok(Some((offset / PIECE_LEN).max(piece))),
            Err(VfsError::NoDevice) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Exactly what is asked for: a file that got shorter meanwhile ends in zeros.
    pub fn read(&self, range: ByteRange) -> Result<Bytes, ShareError> {
        let read = match self.source.vfs.read(self.ino, self.handle, range)? {
            ReadReply::Ready(bytes) => bytes,
            ReadReply::Later(read) => self.source.stop.wait(self.source.runtime, read)??,
        };
        if read.len() as u64 == range.len() {
            return Ok(read);
        }
        let mut whole = read.to_vec();
        whole.resize(range.len() as usize, 0);
        Ok(whole.into())
    }
}

impl Drop for OpenSource<'_> {
    fn drop(&mut self) {
        self.source.vfs.release(self.ino, self.handle);
    }
}
