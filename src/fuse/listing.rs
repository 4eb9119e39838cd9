//! Directory listings: `.` and `..` are made here, the rest is the vfs's.

use std::time::Duration;

use fuser::{FileHandle, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::answer::{GENERATION, TTL};
use super::convert::{self, file_attr, file_type, ino};
use crate::base::InodeId;
use crate::vfs::api::{DirEntry, DirWant, FIRST_COOKIE, HandleId, Vfs, VfsResult};

/// Names and types, from `offset` until the reply is full.
pub fn names(
    vfs: &dyn Vfs,
    dir: INodeNo,
    handle: FileHandle,
    offset: u64,
    reply: &mut ReplyDirectory,
) -> VfsResult<()> {
    list(vfs, (dir, handle), offset, DirWant::Names, &mut |listed| match listed {
        Listed::Dots { ino, cookie, name } => !reply.add(INodeNo(ino.0), cookie, fuser::FileType::Directory, name),
        Listed::Entry(entry) => {
            let kind = file_type(entry.file_type).unwrap_or(fuser::FileType::RegularFile);
            !reply.add(INodeNo(entry.ino.0), entry.cookie, kind, entry.name.as_os_str())
        }
    })
}

/// The same with attributes, each entry being a lookup too.
pub fn entries(
    vfs: &dyn Vfs,
    dir: INodeNo,
    handle: FileHandle,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> VfsResult<()> {
    list(vfs, (dir, handle), offset, DirWant::Attributes, &mut |listed| match listed {
        Listed::Dots { ino, cookie, name } => {
            let attr = convert::bare_attr(ino, fuser::FileType::Directory);
            !reply.add(attr.ino, cookie, name, &Duration::ZERO, &attr, GENERATION)
        }
        Listed::Entry(entry) => {
            let kind = file_type(entry.file_type).unwrap_or(fuser::FileType::RegularFile);
            let (ttl, attr) = match entry.attr.and_then(|attr| file_attr(&attr).ok()) {
                Some(attr) => (TTL, attr),
                // Listed all the same; looking at it asks again and gets the error.
                None => (Duration::ZERO, convert::bare_attr(entry.ino, kind)),
            };
            !reply.add(attr.ino, entry.cookie, entry.name.as_os_str(), &ttl, &attr, GENERATION)
        }
    })
}

enum Listed<'a> {
    Dots { ino: InodeId, cookie: u64, name: &'static str },
    Entry(&'a DirEntry<'a>),
}

fn list(
    vfs: &dyn Vfs,
    (dir, handle): (INodeNo, FileHandle),
    offset: u64,
    want: DirWant,
    add: &mut dyn FnMut(Listed<'_>) -> bool,
) -> VfsResult<()> {
    let dir = ino(dir);
    if offset < 1 && !add(Listed::Dots { ino: dir, cookie: 1, name: "." }) {
        return Ok(());
    }
    if offset < 2 && !add(Listed::Dots { ino: vfs.parent(dir)?, cookie: 2, name: ".." }) {
        return Ok(());
    }
    let after = if offset < FIRST_COOKIE { 0 } else { offset };
    vfs.readdir(dir, HandleId(handle.0), after, want, &mut |entry| add(Listed::Entry(entry)))
}
