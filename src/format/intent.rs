//! What a user did, as the journal keeps it. The log never holds intents, only the rows they resolved to.

use super::codec::{FormatError, Reader, Writer};
use super::rows::{Extent, RowKey, SYMLINK_LEN_MAX, XATTR_LEN_MAX, XattrName, validate};
use crate::base::{ByteRange, CHUNK_LEN, ChunkNo, Incarnation, InodeId, IntentNo, KeyNo, Name, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A new inode and its first name.
    Create {
        parent: InodeId,
        name: Name,
        ino: InodeId,
        node: NewInode,
    },
    Link {
        ino: InodeId,
        parent: InodeId,
        name: Name,
        time: Timestamp,
    },
    /// Also of an empty directory (rmdir).
    Unlink {
        parent: InodeId,
        name: Name,
        ino: InodeId,
        time: Timestamp,
    },
    /// `replaced` is what had the new name.
    Rename {
        ino: InodeId,
        from: Entry,
        to: Entry,
        replaced: Option<InodeId>,
        time: Timestamp,
    },
    Exchange {
        a: Entry,
        a_ino: InodeId,
        b: Entry,
        b_ino: InodeId,
        time: Timestamp,
    },
    SetAttr {
        ino: InodeId,
        set: AttrChange,
        time: Timestamp,
    },
    /// None removes it.
    SetXattr {
        ino: InodeId,
        name: XattrName,
        value: Option<Box<[u8]>>,
        time: Timestamp,
    },
    /// All writes to one inode since its last `Write`, squashed. `base` is the version before them.
    Write {
        ino: InodeId,
        base: u64,
        size: u64,
        mtime: Timestamp,
        time: Timestamp,
        /// The key its chunks are sealed under from now on, when that is a new one.
        key: Option<KeyNo>,
        changes: Vec<Change>,
    },
    /// A row that nothing merges with: a chunk, a file key, a pack, this device.
    Fact {
        key: RowKey,
        value: Box<[u8]>,
    },
    /// Everything of an earlier run up to there was done again before this, by the run whose journal has it. It
    /// changes no row: once the log covers it, it covers those too. `contents` are those that were written then, as they
    /// were afterwards: what is left of the earlier run was written over them.
    Replayed {
        incarnation: Incarnation,
        through: IntentNo,
        contents: Vec<Content>,
    },
    /// What new chunks of a file are sealed under; None: its next write draws a key. Nothing that a user sees of it.
    FileKey {
        ino: InodeId,
        key: Option<KeyNo>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub parent: InodeId,
    pub name: Name,
}

/// What tells a file's content from another, without a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub ino: InodeId,
    pub size: u64,
    pub mtime: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInode {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub time: Timestamp,
    /// Only of a symlink.
    pub target: Option<Box<[u8]>>,
}

/// The fields that change; ctime is the intent's own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChange {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Timestamp>,
    pub mtime: Option<Timestamp>,
}

/// One step of a `Write`, in the order they happened; a later one covers an earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes that no pack holds yet. Only in the journal, never at commit.
    Inline {
        offset: u64,
        data: Box<[u8]>,
    },
    Extent(Extent),
    /// Nothing is here any more; also what a truncation cut off.
    Hole(ByteRange),
}

impl Intent {
    pub fn encode(&self, out: &mut Writer) {
        self.encode_with(out, true);
    }

    /// Without the bytes of inline data, only their number: what the chain of intents hashes, since those
    /// bytes may become chunks before the commit.
    pub fn encode_outline(&self, out: &mut Writer) {
        self.encode_with(out, false);
    }

    fn encode_with(&self, out: &mut Writer, inline_data: bool) {
        match self {
            Self::Create { parent, name, ino, node } => {
                out.u8(1).varint(parent.0).bytes(name.as_bytes()).varint(ino.0);
                out.varint(node.mode.into()).varint(node.uid.into()).varint(node.gid.into());
                out.varint(node.rdev.into()).time(node.time);
                out.bytes(node.target.as_deref().unwrap_or_default());
            }
            Self::Link { ino, parent, name, time } => {
                out.u8(2).varint(ino.0).varint(parent.0).bytes(name.as_bytes()).time(*time);
            }
            Self::Unlink { parent, name, ino, time } => {
                out.u8(3).varint(parent.0).bytes(name.as_bytes()).varint(ino.0).time(*time);
            }
            Self::Rename { ino, from, to, replaced, time } => {
                out.u8(4).varint(ino.0);
                encode_entry(out, from);
                encode_entry(out, to);
                out.varint(replaced.map_or(0, |ino| ino.0)).time(*time);
            }
            Self::Exchange { a, a_ino, b, b_ino, time } => {
                out.u8(5);
                encode_entry(out, a);
                out.varint(a_ino.0);
                encode_entry(out, b);
                out.varint(b_ino.0).time(*time);
            }
            Self::SetAttr { ino, set, time } => {
                out.u8(6).varint(ino.0);
                for field in [set.mode, set.uid, set.gid] {
                    out.u8(field.is_some().into());
                    if let Some(value) = field {
                        out.varint(value.into());
                    }
                }
                for field in [set.atime, set.mtime] {
                    out.u8(field.is_some().into());
                    if let Some(value) = field {
                        out.time(value);
                    }
                }
                out.time(*time);
            }
            Self::SetXattr { ino, name, value, time } => {
                out.u8(7).varint(ino.0).bytes(name.as_bytes()).u8(value.is_some().into());
                out.bytes(value.as_deref().unwrap_or_default()).time(*time);
            }
            Self::Write { ino, base, size, mtime, time, key, changes } => {
                out.u8(8).varint(ino.0).varint(*base).varint(*size).time(*mtime).time(*time);
                out.varint(key.map_or(0, |key| key.0)).varint(changes.len() as u64);
                changes.iter().for_each(|change| change.encode(out, inline_data));
            }
            Self::Fact { key, value } => {
                out.u8(9).bytes(&key.encode()).bytes(value);
            }
            Self::Replayed { incarnation, through, contents } => {
                out.u8(10).raw(&incarnation.0).varint(through.0).varint(contents.len() as u64);
                contents.iter().for_each(|content| {
                    out.varint(content.ino.0).varint(content.size).time(content.mtime);
                });
            }
            Self::FileKey { ino, key } => {
                out.u8(11).varint(ino.0).varint(key.map_or(0, |key| key.0));
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(match reader.u8()? {
            1 => {
                let (parent, name, ino) = (decode_ino(reader)?, decode_name(reader)?, decode_ino(reader)?);
                let (mode, uid, gid, rdev) =
                    (reader.varint32()?, reader.varint32()?, reader.varint32()?, reader.varint32()?);
                let time = reader.time()?;
                let target = reader.bytes()?;
                if target.len() > SYMLINK_LEN_MAX {
                    return Err(reader.error("a symlink target over 4,095 bytes"));
                }
                let target = (!target.is_empty()).then(|| target.into());
                Self::Create { parent, name, ino, node: NewInode { mode, uid, gid, rdev, time, target } }
            }
            2 => {
                let (ino, parent) = (decode_ino(reader)?, decode_ino(reader)?);
                Self::Link { ino, parent, name: decode_name(reader)?, time: reader.time()? }
            }
            3 => {
                let (parent, name) = (decode_ino(reader)?, decode_name(reader)?);
                Self::Unlink { parent, name, ino: decode_ino(reader)?, time: reader.time()? }
            }
            4 => {
                let ino = decode_ino(reader)?;
                let (from, to) = (decode_entry(reader)?, decode_entry(reader)?);
                let replaced = reader.varint()?;
                let replaced = (replaced != 0).then_some(InodeId(replaced));
                Self::Rename { ino, from, to, replaced, time: reader.time()? }
            }
            5 => {
                let (a, a_ino) = (decode_entry(reader)?, decode_ino(reader)?);
                let (b, b_ino) = (decode_entry(reader)?, decode_ino(reader)?);
                Self::Exchange { a, a_ino, b, b_ino, time: reader.time()? }
            }
            6 => {
                let ino = decode_ino(reader)?;
                let mut number = || option(reader, Reader::varint32);
                let (mode, uid, gid) = (number()?, number()?, number()?);
                let mut time = || option(reader, Reader::time);
                let (atime, mtime) = (time()?, time()?);
                Self::SetAttr { ino, set: AttrChange { mode, uid, gid, atime, mtime }, time: reader.time()? }
            }
            7 => {
                let ino = decode_ino(reader)?;
                let name =
                    XattrName::parse(reader.bytes()?).ok_or_else(|| reader.error("an invalid attribute name"))?;
                let some = flag(reader)?;
                let value = reader.bytes()?;
                if value.len() > XATTR_LEN_MAX {
                    return Err(reader.error("an attribute over 64 KiB"));
                }
                if !some && !value.is_empty() {
                    return Err(reader.error("a value of what is removed"));
                }
                Self::SetXattr { ino, name, value: some.then(|| value.into()), time: reader.time()? }
            }
            8 => {
                let (ino, base, size) = (decode_ino(reader)?, reader.varint()?, reader.varint()?);
                let (mtime, time, key) = (reader.time()?, reader.time()?, reader.varint()?);
                let key = (key != 0).then_some(KeyNo(key));
                let count = reader.count()?;
                let changes = (0..count).map(|_| Change::decode(reader)).collect::<Result<_, _>>()?;
                Self::Write { ino, base, size, mtime, time, key, changes }
            }
            9 => {
                let (key, value) = (reader.bytes()?, reader.bytes()?);
                validate(key, value)?;
                Self::Fact { key: RowKey::decode(key)?, value: value.into() }
            }
            10 => {
                let (incarnation, through) = (Incarnation(reader.array()?), IntentNo(reader.varint()?));
                let count = reader.count()?;
                let mut content =
                    || Ok(Content { ino: decode_ino(reader)?, size: reader.varint()?, mtime: reader.time()? });
                let contents = (0..count).map(|_| content()).collect::<Result<_, FormatError>>()?;
                Self::Replayed { incarnation, through, contents }
            }
            11 => {
                let (ino, key) = (decode_ino(reader)?, reader.varint()?);
                Self::FileKey { ino, key: (key != 0).then_some(KeyNo(key)) }
            }
            _ => return Err(reader.error("an unknown intent")),
        })
    }
}

impl Change {
    fn encode(&self, out: &mut Writer, inline_data: bool) {
        match self {
            Self::Inline { offset, data } => {
                out.u8(1).varint(*offset).varint(data.len() as u64);
                if inline_data {
                    out.raw(data);
                }
            }
            Self::Extent(extent) => {
                out.u8(2).varint(extent.offset).varint(extent.len.into());
                out.varint(extent.chunk.0).varint(extent.chunk_offset.into());
            }
            Self::Hole(range) => {
                out.u8(3).varint(range.start).varint(range.end);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(match reader.u8()? {
            1 => {
                let (offset, data) = (reader.varint()?, reader.bytes()?);
                if offset.checked_add(data.len() as u64).is_none() {
                    return Err(reader.error("an offset beyond 2^64"));
                }
                Self::Inline { offset, data: data.into() }
            }
            2 => {
                let (offset, len) = (reader.varint()?, reader.varint32()?);
                let (chunk, chunk_offset) = (ChunkNo(reader.varint()?), reader.varint32()?);
                let fits = len > 0 && u64::from(len) + u64::from(chunk_offset) <= CHUNK_LEN;
                if !fits || offset.checked_add(len.into()).is_none() {
                    return Err(reader.error("an extent that no chunk can hold"));
                }
                Self::Extent(Extent { offset, len, chunk, chunk_offset })
            }
            3 => {
                let (start, end) = (reader.varint()?, reader.varint()?);
                if start > end {
                    return Err(reader.error("a range that ends before it starts"));
                }
                Self::Hole(ByteRange { start, end })
            }
            _ => return Err(reader.error("an unknown change")),
        })
    }
}

fn encode_entry(out: &mut Writer, entry: &Entry) {
    out.varint(entry.parent.0).bytes(entry.name.as_bytes());
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, FormatError> {
    Ok(Entry { parent: decode_ino(reader)?, name: decode_name(reader)? })
}

fn decode_ino(reader: &mut Reader<'_>) -> Result<InodeId, FormatError> {
    match reader.varint()? {
        0 => Err(reader.error("inode 0")),
        ino => Ok(InodeId(ino)),
    }
}

fn decode_name(reader: &mut Reader<'_>) -> Result<Name, FormatError> {
    let bytes = reader.bytes()?;
    Name::parse(bytes).map_err(|_| reader.error("an invalid name"))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, FormatError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error("a flag that is neither 0 nor 1")),
    }
}

fn option<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, FormatError>,
) -> Result<Option<T>, FormatError> {
    if flag(reader)? { read(reader).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
