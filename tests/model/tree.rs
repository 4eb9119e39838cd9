//! Whole trees as values: what a filesystem shows at one moment, and how two of them differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hushfs::base::{ByteRange, InodeId, Name, Timestamp};
use hushfs::format::rows::mode;
use hushfs::vfs::api::*;
use tokio::runtime::Handle;

/// Bytes are compared in blocks of this many; one of zeros is left out, so that sparse files are small.
const BLOCK_LEN: u64 = 64 << 10;
const READ_LEN: u64 = 4 * BLOCK_LEN;
/// Longer files are read only where they say they hold data.
const READ_WHOLE_MAX: u64 = 8 << 20;

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub blocks: BTreeMap<u64, Bytes>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    pub attr: Attr,
    pub target: Option<Bytes>,
    pub xattrs: BTreeMap<Vec<u8>, Bytes>,
    pub content: Option<Arc<Content>>,
}

/// Paths without a leading slash; the root's is empty. Hard links are several paths with one inode.
#[derive(Clone, Default)]
pub struct Tree {
    pub names: BTreeMap<Vec<u8>, InodeId>,
    pub nodes: BTreeMap<InodeId, Node>,
}

/// Contents that are known to be as they were, so that a capture after each step reads little.
pub type Known = BTreeMap<InodeId, Arc<Content>>;

/// What is left of attributes when those are taken out that two filesystems may well differ in.
pub fn comparable(attr: &Attr) -> Attr {
    let is_dir = attr.mode & mode::TYPE == mode::DIR;
    Attr { ino: InodeId(0), blocks: 0, blksize: 0, size: if is_dir { 0 } else { attr.size }, ..*attr }
}

/// A filesystem and what its late reads are waited for with.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub fs: &'a dyn Vfs,
    pub runtime: &'a Handle,
}

impl Source<'_> {
    pub fn tree(&self, known: &mut Known) -> VfsResult<Tree> {
        let mut tree = Tree::default();
        self.add(&mut tree, Vec::new(), InodeId::ROOT, known)?;
        known.retain(|ino, _| tree.nodes.contains_key(ino));
        Ok(tree)
    }

    pub fn read(&self, ino: InodeId, handle: HandleId, range: ByteRange) -> VfsResult<Bytes> {
        match self.fs.read(ino, handle, range)? {
            ReadReply::Ready(bytes) => Ok(bytes),
            ReadReply::Later(later) => self.runtime.block_on(later),
        }
    }

    pub fn content(&self, ino: InodeId, size: u64) -> VfsResult<Content> {
        let handle = self.fs.open(ino, OpenFlags { read: true, ..OpenFlags::default() })?;
        let content = self.content_of(ino, handle, size);
        self.fs.release(ino, handle);
        content
    }

    fn content_of(&self, ino: InodeId, handle: HandleId, size: u64) -> VfsResult<Content> {
        let mut content = Content { size, blocks: BTreeMap::new() };
        let mut at = 0;
        while at < size {
            let mut end = size;
            if size > READ_WHOLE_MAX {
                at = match self.fs.seek(ino, handle, at, SeekTarget::Data) {
                    Ok(data) => data / BLOCK_LEN * BLOCK_LEN,
                    Err(VfsError::NoDevice) => break,
                    Err(error) => return Err(error),
                };
                end = size.min(at + BLOCK_LEN);
            }
            end = end.min(at + READ_LEN);
            let bytes = self.read(ino, handle, ByteRange::new(at, end))?;
            assert_eq!(bytes.len() as u64, end - at, "a short read at {at} of {size}");
            for (index, block) in bytes.chunks(BLOCK_LEN as usize).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    content.blocks.insert(at / BLOCK_LEN + index as u64, Bytes::copy_from_slice(block));
                }
            }
            at = end;
        }
        Ok(content)
    }

    fn add(&self, tree: &mut Tree, path: Vec<u8>, ino: InodeId, known: &mut Known) -> VfsResult<()> {
        tree.names.insert(path.clone(), ino);
        if tree.nodes.contains_key(&ino) {
            return Ok(());
        }
        let attr = self.fs.getattr(ino)?;
        let kind = attr.mode & mode::TYPE;
        let mut xattrs = BTreeMap::new();
        for name in self.fs.listxattr(ino)? {
            xattrs.insert(name.as_bytes().to_vec(), self.fs.getxattr(ino, &name)?);
        }
        let content = match known.get(&ino) {
            _ if kind != mode::FILE => None,
            Some(content) => Some(content.clone()),
            None => Some(Arc::new(self.content(ino, attr.size)?)),
        };
        known.extend(content.iter().map(|content| (ino, content.clone())));
        let target = if kind == mode::LINK { Some(self.fs.readlink(ino)?) } else { None };
        tree.nodes.insert(ino, Node { attr, target, xattrs, content });
        if kind == mode::DIR {
            for (name, child) in self.entries(ino)? {
                let separator = if path.is_empty() { &b""[..] } else { b"/" };
                let inside = [&path, separator, name.as_bytes()].concat();
                let found = self.fs.lookup(ino, &name)?.ok_or(VfsError::NotFound)?;
                assert_eq!(found.ino, child, "readdir and lookup differ");
                if found.mode & mode::TYPE == mode::DIR {
                    assert_eq!(self.fs.parent(child)?, ino, "a directory's parent");
                }
                let added = self.add(tree, inside, child, known);
                self.fs.forget(child, 1);
                added?;
            }
        }
        Ok(())
    }

    fn entries(&self, dir: InodeId) -> VfsResult<Vec<(Name, InodeId)>> {
        let handle = self.fs.opendir(dir, OpenFlags::default())?;
        let mut entries = Vec::new();
        let listed = self.fs.readdir(dir, handle, 0, DirWant::Names, &mut |entry| {
            entries.push((entry.name.clone(), entry.ino));
            true
        });
        self.fs.releasedir(dir, handle);
        listed.map(|()| entries)
    }
}

impl Tree {
    /// How this one, of the drive, differs from the reference's; None when it does not. `older` are versions of a
    /// file that will do as well.
    pub fn difference(&self, wanted: &Tree, older: &BTreeMap<InodeId, Vec<Version>>) -> Option<String> {
        let mut pairs = BTreeMap::new();
        for (path, ino) in &wanted.names {
            let Some(found) = self.names.get(path) else { return Some(format!("{} is missing", show(path))) };
            if *pairs.entry(*ino).or_insert(*found) != *found {
                return Some(format!("{} is another file than its hard links", show(path)));
            }
            let (node, expected) = (&self.nodes[found], &wanted.nodes[ino]);
            if let Some(what) = node.difference(expected, older.get(ino).map_or(&[], Vec::as_slice)) {
                return Some(format!("{}: {what}", show(path)));
            }
        }
        let extra = self.names.keys().find(|path| !wanted.names.contains_key(*path))?;
        Some(format!("{} should not be there", show(extra)))
    }
}

/// What a write without a sync replaced.
#[derive(Clone)]
pub struct Version {
    pub content: Arc<Content>,
    pub mtime: Timestamp,
}

impl Node {
    fn difference(&self, wanted: &Self, older: &[Version]) -> Option<String> {
        let (mut attr, expected) = (comparable(&self.attr), comparable(&wanted.attr));
        let is_older =
            |version: &&Version| self.content.as_ref() == Some(&version.content) && self.attr.mtime == version.mtime;
        let is_older = older.iter().rev().any(|version| is_older(&version));
        if is_older && self.content != wanted.content {
            (attr.size, attr.mtime) = (expected.size, expected.mtime);
        }
        if is_older {
            attr.mtime = expected.mtime;
        }
        // Without the write's own ctime an earlier one shows, or that of a later change of the links.
        if !older.is_empty() {
            attr.ctime = expected.ctime;
        }
        if attr != expected {
            return Some(format!("attributes\n  {attr:?}, expected\n  {expected:?}"));
        }
        if self.target != wanted.target {
            return Some("another target".into());
        }
        if self.xattrs != wanted.xattrs {
            let names = |node: &Self| -> Vec<String> {
                node.xattrs.iter().map(|(name, value)| format!("{} ({} bytes)", show(name), value.len())).collect()
            };
            return Some(format!("attributes by name {:?}, expected {:?}", names(self), names(wanted)));
        }
        match (&self.content, &wanted.content) {
            (Some(found), Some(expected)) if !is_older => found.difference(expected),
            _ => None,
        }
    }
}

impl Content {
    fn difference(&self, wanted: &Self) -> Option<String> {
        if self.size != wanted.size {
            return Some(format!("{} bytes, expected {}", self.size, wanted.size));
        }
        let indexes = self.blocks.keys().chain(wanted.blocks.keys());
        let index = indexes.filter(|index| self.blocks.get(index) != wanted.blocks.get(index)).min()?;
        let at = |content: &Self, offset: usize| {
            content.blocks.get(index).map_or(0, |block| block.get(offset).copied().unwrap_or(0))
        };
        let len = BLOCK_LEN.min(self.size - index * BLOCK_LEN) as usize;
        let differs: Vec<usize> = (0..len).filter(|&offset| at(self, offset) != at(wanted, offset)).collect();
        let (first, last) = (*differs.first()?, *differs.last()?);
        Some(format!(
            "byte {} is {:#x}, expected {:#x} (and {} more to byte {} of {})",
            index * BLOCK_LEN + first as u64,
            at(self, first),
            at(wanted, first),
            differs.len() - 1,
            index * BLOCK_LEN + last as u64,
            self.size,
        ))
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.size)
    }
}

pub fn show(path: &[u8]) -> String {
    match path.len() {
        0 => "the root".into(),
        _ => path.split(|byte| *byte == b'/').map(short).collect::<Vec<_>>().join("/"),
    }
}

fn short(name: &[u8]) -> String {
    let text = name.escape_ascii().to_string();
    if text.len() > 12 { format!("{}…", &text[..8]) } else { text }
}
