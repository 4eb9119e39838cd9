//! The tree of a link: a stream of entries, each after the directory that holds it, files with their chunks.
//!
//! Both ends work on a stream, in memory that does not grow with it. That is what the order is for: the tree is walked
//! downward, and a directory's names ascend, so that a stack of the open directories is all that a decoder needs to
//! know that no name comes twice and no parent is missing.

use std::collections::VecDeque;

use super::seal::{Header, RootKind};
use super::{ChunkRef, REFERENCE_LEN_MAX};
use crate::base::{CHUNK_LEN, Name, Timestamp};
use crate::format::codec::{FormatError, Reader, Writer};
use crate::format::rows::{FILE_LEN_MAX, SYMLINK_LEN_MAX};

const WHAT: &str = "a link's index";
/// Files are cut at multiples of this.
pub const PIECE_LEN: u64 = CHUNK_LEN;
/// Of directories in each other.
pub const DEPTH_MAX: usize = 256;
/// No entry (without its chunks) and no chunk is longer.
const ITEM_LEN_MAX: usize = 10 + 3 + 255 + 2 + 15 + 3 + SYMLINK_LEN_MAX + 20;

const _: () = assert!(ITEM_LEN_MAX > 10 + REFERENCE_LEN_MAX);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the directory that holds it. The shared thing itself is 0, and says 0.
    pub parent: u64,
    pub name: Name,
    pub mtime: Timestamp,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// So many chunks follow.
    File {
        size: u64,
        executable: bool,
        chunks: u64,
    },
    Directory,
    Symlink(Box<[u8]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexItem {
    /// And its number.
    Entry(u64, Entry),
    /// Of the file before it: what it holds from `piece` times `PIECE_LEN` on. Pieces left out are zeros.
    Chunk { piece: u64, chunk: ChunkRef },
}

/// Appends to a stream, of which the caller takes what it wants to store.
#[derive(Default)]
pub struct IndexEncoder {
    out: Writer,
    entries: u64,
}

impl IndexEncoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry's number. Entries come in the order that a decoder asks for.
    pub fn entry(&mut self, entry: &Entry) -> u64 {
        let out = &mut self.out;
        out.varint(entry.parent).bytes(entry.name.as_bytes());
        let (kind, executable) = match &entry.kind {
            EntryKind::File { executable, .. } => (1, u8::from(*executable)),
            EntryKind::Directory => (2, 0),
            EntryKind::Symlink(_) => (3, 0),
        };
        out.u8(kind).u8(executable).time(entry.mtime);
        match &entry.kind {
            EntryKind::File { size, chunks, .. } => {
                out.varint(*size).varint(*chunks);
            }
            EntryKind::Directory => {}
            EntryKind::Symlink(target) => {
                out.bytes(target);
            }
        }
        self.entries += 1;
        self.entries - 1
    }

    pub fn chunk(&mut self, piece: u64, chunk: &ChunkRef) {
        self.out.varint(piece);
        chunk.encode(&mut self.out);
    }

    /// What was appended since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out).finish()
    }
}

/// What comes of what was pushed so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Item(IndexItem),
    /// Push more, or say that there is no more.
    More,
    /// All was read, and it is what the record said.
    End,
}

pub struct IndexDecoder {
    title: Name,
    kind: RootKind,
    promised: (u64, u64),
    buffer: VecDeque<u8>,
    ended: bool,
    entries: u64,
    files: u64,
    bytes: u64,
    /// The open directories, the outermost first.
    open: Vec<OpenDirectory>,
    file: OpenFile,
}

struct OpenDirectory {
    number: u64,
    last: Option<Name>,
}

/// The file whose chunks are being read.
#[derive(Default)]
struct OpenFile {
    size: u64,
    chunks: u64,
    /// The least piece that may come next.
    next: u64,
}

impl IndexDecoder {
    pub fn new(header: &Header) -> Self {
        Self {
            title: header.title.clone(),
            kind: header.kind,
            promised: (header.files, header.bytes),
            buffer: VecDeque::new(),
            ended: false,
            entries: 0,
            files: 0,
            bytes: 0,
            open: Vec::new(),
            file: OpenFile::default(),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// Nothing more will be pushed.
    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn step(&mut self) -> Result<Step, FormatError> {
        if self.buffer.len() < ITEM_LEN_MAX && !self.ended {
            return Ok(Step::More);
        }
        if self.buffer.is_empty() {
            return self.finish();
        }
        let len = self.buffer.len().min(ITEM_LEN_MAX);
        let head: Vec<u8> = match self.buffer.as_slices() {
            (first, _) if first.len() >= len => first[..len].to_vec(),
            _ => self.buffer.iter().take(len).copied().collect(),
        };
        let mut reader = Reader::new(WHAT, &head);
        let item = match self.file.chunks {
            0 => self.entry(&mut reader)?,
            _ => self.chunk(&mut reader)?,
        };
        let used = len - reader.remaining();
        self.buffer.drain(..used);
        Ok(Step::Item(item))
    }

    fn finish(&self) -> Result<Step, FormatError> {
        let error = |why| Err(FormatError { what: WHAT, why });
        match self.entries {
            0 => error("no entry"),
            _ if self.file.chunks > 0 => error("cut short"),
            _ if self.promised != (self.files, self.bytes) => error("not the files that the record promised"),
            _ => Ok(Step::End),
        }
    }

    fn entry(&mut self, reader: &mut Reader<'_>) -> Result<IndexItem, FormatError> {
        let parent = reader.varint()?;
        let name = Name::parse(reader.bytes()?).map_err(|_| reader.error("an invalid name"))?;
        let (kind, executable, mtime) = (reader.u8()?, reader.u8()?, reader.time()?);
        if executable > u8::from(kind == 1) {
            return Err(reader.error("an unknown flag"));
        }
        let kind = match kind {
            1 => self.file_entry(reader, executable == 1)?,
            2 => EntryKind::Directory,
            3 => {
                let target = reader.bytes()?;
                if target.is_empty() || target.len() > SYMLINK_LEN_MAX || target.contains(&0) {
                    return Err(reader.error("an invalid symlink target"));
                }
                EntryKind::Symlink(target.into())
            }
            _ => return Err(reader.error("an unknown type")),
        };
        let entry = Entry { parent, name, mtime, kind };
        self.place(reader, &entry)?;
        let number = self.entries;
        self.entries += 1;
        if entry.kind == EntryKind::Directory {
            if self.open.len() == DEPTH_MAX {
                return Err(reader.error("directories too deep in each other"));
            }
            self.open.push(OpenDirectory { number, last: None });
        }
        Ok(IndexItem::Entry(number, entry))
    }

    fn file_entry(&mut self, reader: &mut Reader<'_>, executable: bool) -> Result<EntryKind, FormatError> {
        let (size, chunks) = (reader.varint()?, reader.varint()?);
        if size > FILE_LEN_MAX {
            return Err(reader.error("a size over 2^63"));
        }
        if chunks > size.div_ceil(PIECE_LEN) {
            return Err(reader.error("more chunks than the file has"));
        }
        self.file = OpenFile { size, chunks, next: 0 };
        self.files += 1;
        self.bytes = self.bytes.checked_add(size).ok_or_else(|| reader.error("sizes over 2^64"))?;
        Ok(EntryKind::File { size, executable, chunks })
    }

    /// Whether the entry may stand here.
    fn place(&mut self, reader: &Reader<'_>, entry: &Entry) -> Result<(), FormatError> {
        if self.entries == 0 {
            let is_root = match (&entry.kind, self.kind) {
                (EntryKind::File { .. }, RootKind::File) | (EntryKind::Directory, RootKind::Directory) => true,
                (EntryKind::File { .. } | EntryKind::Directory | EntryKind::Symlink(_), _) => false,
            };
            let is_right = is_root && entry.parent == 0 && entry.name == self.title;
            return if is_right { Ok(()) } else { Err(reader.error("a first entry that is not the record's")) };
        }
        while self.open.last().is_some_and(|open| open.number != entry.parent) {
            self.open.pop();
        }
        let open = self.open.last_mut().ok_or_else(|| reader.error("a parent that is no open directory"))?;
        if open.last.as_ref().is_some_and(|last| *last >= entry.name) {
            return Err(reader.error("names that do not ascend"));
        }
        open.last = Some(entry.name.clone());
        Ok(())
    }

    fn chunk(&mut self, reader: &mut Reader<'_>) -> Result<IndexItem, FormatError> {
        let piece = reader.varint()?;
        let OpenFile { size, next, .. } = self.file;
        if piece < next || piece >= size.div_ceil(PIECE_LEN) {
            return Err(reader.error("chunks that do not ascend within the file"));
        }
        let chunk = ChunkRef::decode(reader)?;
        if u64::from(chunk.len) != PIECE_LEN.min(size - piece * PIECE_LEN) {
            return Err(reader.error("a chunk that does not fit the file"));
        }
        self.file.next = piece + 1;
        self.file.chunks -= 1;
        Ok(IndexItem::Chunk { piece, chunk })
    }
}

#[cfg(test)]
mod tests;
