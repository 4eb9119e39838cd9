//! Operations on contents and attributes.

use hushfs::base::{ByteRange, MIB, Timestamp};
use hushfs::format::rows::{EXTENT_WINDOW_LEN, XattrName, mode};
use hushfs::vfs::api::*;

use super::super::machine::STAGING_BYTES_MAX;
use super::super::op::{Data, Offset, Op, Pick, Time};
use super::super::tree::{Source, Version, comparable};
use super::{Open, Pair, World, same, same_attr};

/// What one request of the kernel holds at most.
const WRITE_LEN_MAX: usize = MIB as usize;
const OFFSET_MAX: u64 = 1 << 43;

fn xattr_name(number: u8) -> XattrName {
    let names = ["user.a", "user.b", "user.c", "security.capability"];
    XattrName::parse(names[usize::from(number) % names.len()]).expect("an attribute's name")
}

/// Few contents, so that some are there already; some compress, and some are zeros.
pub fn bytes(data: Data) -> Vec<u8> {
    let len = data.len as usize;
    match data.seed {
        0 => vec![0; len],
        1 => vec![1; len],
        seed => {
            let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed.into());
            let mut out = Vec::with_capacity(len + 8);
            while out.len() < len {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                out.extend_from_slice(&state.to_le_bytes());
            }
            out.truncate(len);
            out
        }
    }
}

impl World {
    pub(super) fn change_files(&mut self, op: &Op) {
        match *op {
            Op::Write { file, at, data, kill } => {
                let Some(open) = self.file(file) else { return };
                let at = self.offset(open, at);
                self.write(open, at, data, kill);
                self.done(open);
            }
            Op::Read { file, at, len } => {
                let Some(open) = self.file(file) else { return };
                let at = self.offset(open, at);
                let range = ByteRange::new(at, at + u64::from(len));
                let runtime = self.machine.runtime();
                let drive = Source { fs: self.drive().as_ref(), runtime: &runtime };
                let read = drive.read(open.ino.drive, open.drive, range);
                let reference = Source { fs: &self.reference, runtime: &runtime };
                let expected = reference.read(open.ino.reference, open.reference, range);
                let (read, expected) = (read.expect("read"), expected.expect("read"));
                assert!(read == expected, "{} bytes at {at} differ from {}", read.len(), expected.len());
                self.done(open);
            }
            Op::Allocate { file, at, len, mode } => {
                let Some(open) = self.file(file) else { return };
                let at = self.offset(open, at);
                let range = ByteRange::new(at, at + u64::from(len));
                let done = self.drive().fallocate(open.ino.drive, open.drive, range, mode, Kill::Privileges);
                let _ = same(
                    done,
                    self.reference.fallocate(open.ino.reference, open.reference, range, mode, Kill::Privileges),
                );
                self.rewriting(open.ino);
                if mode != FallocateMode::AllocateKeepSize && mode != FallocateMode::Allocate {
                    self.pinned(open.ino);
                }
                self.done(open);
            }
            Op::Copy { from, to, at, onto, len } => {
                let Some(source) = self.file(from) else { return };
                let Some(target) = self.file(to) else { return };
                let (at, onto) = (self.offset(source, at), self.offset(target, onto));
                self.copy((source, at), (target, onto), len.into());
                self.done(source);
                self.done(target);
            }
            Op::Seek { file, at } => {
                let Some(open) = self.file(file) else { return };
                let at = self.offset(open, at);
                self.seek(open, at);
                self.done(open);
            }
            Op::SetAttr { node, set } => {
                let node = self.node(node);
                let size = set.size.map(|size| self.offset_in(node, size));
                let time = |time: Time| match time {
                    Time::Now => TimeOrNow::Now,
                    Time::At(secs, nanos) => TimeOrNow::Time(Timestamp::new(secs, nanos)),
                };
                let set = SetAttr {
                    mode: set.mode,
                    uid: set.owner.map(|owner| owner.0),
                    gid: set.owner.map(|owner| owner.1),
                    size,
                    atime: set.atime.map(time),
                    mtime: set.mtime.map(time),
                    handle: None,
                    kill: Kill::Privileges,
                };
                if set == SetAttr::default() {
                    return;
                }
                let done =
                    same_attr(self.drive().setattr(node.drive, &set), self.reference.setattr(node.reference, &set));
                if done.is_some() {
                    self.rewriting(node);
                    self.pinned(node);
                }
            }
            Op::SetXattr { node, name, data } => {
                let node = self.node(node);
                let how = [XattrMode::Set, XattrMode::Create, XattrMode::Replace][usize::from(name / 64 % 3)];
                let (name, value) = (xattr_name(name), bytes(Data { len: data.len % 70_000, ..data }));
                let done = self.drive().setxattr(node.drive, &name, &value, how);
                let _ = same(done, self.reference.setxattr(node.reference, &name, &value, how));
                self.same_xattr(node, &name);
            }
            Op::RemoveXattr { node, name } => {
                let node = self.node(node);
                let name = xattr_name(name);
                let done = self.drive().removexattr(node.drive, &name);
                let _ = same(done, self.reference.removexattr(node.reference, &name));
                self.same_xattr(node, &name);
            }
            _ => {}
        }
    }

    /// By a handle, or by a path and opened for the occasion.
    pub(super) fn file(&mut self, pick: Pick) -> Option<Open> {
        let open: Vec<Open> = self.handles.iter().filter(|open| !open.is_dir).copied().collect();
        let paths = self.count_files();
        if open.len() + paths == 0 {
            return None;
        }
        let index = usize::from(pick) % (open.len() + paths);
        if let Some(open) = open.get(index) {
            return Some(*open);
        }
        let path = self.pick_path((index - open.len()) as Pick, |kind| kind == mode::FILE)?;
        let ino = self.walk(&path);
        Some(self.open(ino, OpenFlags { read: true, write: true, ..OpenFlags::default() }))
    }

    pub(super) fn done(&mut self, open: Open) {
        self.same_attributes(open.ino);
        self.close_temporary(open);
    }

    pub(super) fn write(&mut self, open: Open, at: u64, data: Data, kill: bool) {
        // A writer would wait for room that only the store makes.
        if self.machine.volume().status().staged_bytes + 2 * u64::from(data.len) > STAGING_BYTES_MAX / 2 {
            self.set_online(true);
        }
        self.replacing(open.ino);
        let kill = if kill { Kill::Privileges } else { Kill::No };
        for (index, part) in bytes(data).chunks(WRITE_LEN_MAX).enumerate() {
            let at = at + (index * WRITE_LEN_MAX) as u64;
            let written = match self.drive().write(open.ino.drive, open.drive, at, part, kill) {
                Ok(WriteReply::WouldBlock) => self.drive().write_blocking(open.ino.drive, open.drive, at, part, kill),
                Ok(WriteReply::Done(len)) => Ok(len),
                Err(error) => Err(error),
            };
            let expected = self.reference.write_blocking(open.ino.reference, open.reference, at, part, kill);
            let _ = same(written, expected);
            self.rewriting(open.ino);
            // A write of several requests may be found half done.
            self.replacing(open.ino);
        }
    }

    fn copy(&mut self, (source, at): (Open, u64), (target, onto): (Open, u64), len: u64) {
        let place = |open: Open, offset| Place { ino: open.ino.drive, handle: open.drive, offset };
        let copied = self.drive().copy_range(place(source, at), place(target, onto), len, Kill::Privileges);
        let removed =
            [source, target].iter().any(|open| self.reference.getattr(open.ino.reference).expect("getattr").nlink == 0);
        // Chunks of a removed file may not be referred to: the kernel copies bytes then.
        if removed && copied == Err(VfsError::NotSupported) {
            return;
        }
        self.replacing(target.ino);
        let place = |open: Open, offset| Place { ino: open.ino.reference, handle: open.reference, offset };
        let _ = same(copied, self.reference.copy_range(place(source, at), place(target, onto), len, Kill::Privileges));
        self.rewriting(target.ino);
        if matches!(copied, Ok(copied) if copied > 0) {
            self.pinned(target.ino);
        }
    }

    /// Both find data where there is some, and holes where there are only zeros.
    fn seek(&mut self, open: Open, at: u64) {
        let size = self.reference.getattr(open.ino.reference).expect("getattr").size;
        let data = self.drive().seek(open.ino.drive, open.drive, at, SeekTarget::Data);
        let hole = self.drive().seek(open.ino.drive, open.drive, at, SeekTarget::Hole);
        if at >= size {
            assert_eq!((data, hole), (Err(VfsError::NoDevice), Err(VfsError::NoDevice)));
            return;
        }
        let hole = hole.expect("the end is a hole");
        assert!(at <= hole && hole <= size, "a hole at {hole} of {size}");
        let content = self.content_of(open.ino, size);
        let zeros = |range: ByteRange| {
            if range.is_empty() {
                return true;
            }
            let (first, last) = (range.start >> 16, (range.end - 1) >> 16);
            content.blocks.range(first..=last).all(|(index, block)| {
                let whole = ByteRange::new(index << 16, (index << 16) + block.len() as u64);
                let part = whole.intersect(range).map(|part| (part.start - whole.start, part.end - whole.start));
                part.is_none_or(|(start, end)| block[start as usize..end as usize].iter().all(|byte| *byte == 0))
            })
        };
        match data {
            Ok(data) => {
                assert!(at <= data && data < size, "data at {data} of {size}");
                assert!(zeros(ByteRange::new(at, data)), "data before {data}");
            }
            Err(VfsError::NoDevice) => assert!(zeros(ByteRange::new(at, size)), "data after {at}"),
            Err(error) => panic!("lseek: {error}"),
        }
        assert!(hole == size || zeros(ByteRange::new(hole, hole + 1)), "no hole at {hole}");
    }

    fn offset(&self, open: Open, offset: Offset) -> u64 {
        self.offset_in(open.ino, offset)
    }

    fn offset_in(&self, ino: Pair, offset: Offset) -> u64 {
        let size = self.reference.getattr(ino.reference).expect("getattr").size;
        let at = match offset {
            Offset::Near(at) => at.into(),
            Offset::Chunk(chunk, by) => (u64::from(chunk) * MIB).saturating_add_signed(by.into()),
            Offset::End(by) => size.saturating_add_signed(by.into()),
            Offset::Window(window, by) => (u64::from(window) * EXTENT_WINDOW_LEN).saturating_add_signed(by.into()),
            Offset::Far(at) => at,
        };
        at.min(OFFSET_MAX)
    }

    fn same_attributes(&self, ino: Pair) {
        let comparable = |attr: VfsResult<Attr>| attr.map(|attr| comparable(&attr));
        let _ = same(comparable(self.drive().getattr(ino.drive)), comparable(self.reference.getattr(ino.reference)));
    }

    fn same_xattr(&self, ino: Pair, name: &XattrName) {
        self.same_attributes(ino);
        let (found, wanted) = (self.drive().getxattr(ino.drive, name), self.reference.getxattr(ino.reference, name));
        assert!(found == wanted, "an attribute's value");
        let list = |names: VfsResult<Vec<XattrName>>| {
            let mut names = names.expect("listxattr");
            names.sort();
            names
        };
        assert_eq!(list(self.drive().listxattr(ino.drive)), list(self.reference.listxattr(ino.reference)));
    }

    /// Keeps the version of now as one that may show after a crash.
    fn replacing(&mut self, ino: Pair) {
        let attr = self.reference.getattr(ino.reference).expect("getattr");
        let content = self.content_of(ino, attr.size);
        self.older.entry(ino.reference).or_default().push(Version { content, mtime: attr.mtime });
    }

    fn content_of(&mut self, ino: Pair, size: u64) -> std::sync::Arc<super::super::tree::Content> {
        if let Some(content) = self.known.get(&ino.reference) {
            return content.clone();
        }
        let runtime = self.machine.runtime();
        let source = Source { fs: &self.reference, runtime: &runtime };
        let content = std::sync::Arc::new(source.content(ino.reference, size).expect("the reference's content"));
        self.known.insert(ino.reference, content.clone());
        content
    }
}
