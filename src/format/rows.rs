//! The metadata: one key and value each. Keys sort as bytes, so that a directory's entries and a file's
//! extents are ranges.

use super::codec::{FormatError, Reader, Writer};
use super::link::LinkRow;
use crate::base::{
    CHUNK_LEN, ChunkId, ChunkNo, DeviceSlot, Epoch, FRAME_LEN, Incarnation, InodeId, KeyNo, LinkId, Name, Numbers,
    PackName, PackNo, Timestamp,
};

/// A row's encoded key.
pub type KeyBytes = Vec<u8>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    Inode(InodeId),
    /// Extents that start in one window of the file (`EXTENT_WINDOW_LEN` bytes each).
    Extents(InodeId, u64),
    Dirent(InodeId, Name),
    /// inode, parent, name
    Backref(InodeId, InodeId, Name),
    Xattr(InodeId, XattrName),
    Chunk(ChunkNo),
    FileKey(KeyNo),
    Pack(PackNo),
    Device(DeviceSlot),
    Link(LinkId),
}

/// An extended attribute's name: 1 to 255 bytes without NUL, namespace and all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl std::fmt::Debug for XattrName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "XattrName({} bytes)", self.0.len())
    }
}

impl XattrName {
    pub fn parse(bytes: impl AsRef<[u8]>) -> Option<Self> {
        let bytes = bytes.as_ref();
        (!bytes.is_empty() && bytes.len() <= 255 && !bytes.contains(&0)).then(|| Self(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Linux's own limit for one value (XATTR_SIZE_MAX).
pub const XATTR_LEN_MAX: usize = 64 << 10;
pub const SYMLINK_LEN_MAX: usize = 4095;
pub const EXTENT_WINDOW_LEN: u64 = 64 << 20;
/// Extents of the first window up to this many live in the inode's own row.
pub const INLINE_EXTENTS_MAX: usize = 8;
/// Linux's MAX_LFS_FILESIZE on 64-bit machines.
pub const FILE_LEN_MAX: u64 = i64::MAX as u64;

/// Where `readdir` goes on after this name: a directory's rows sort by it, so it stays right while entries
/// come and go. The upper 62 bits of BLAKE3(name) plus 3, since 0 to 2 are the start, `.` and `..`.
pub fn dir_cookie(name: &Name) -> u64 {
    let hash = blake3_prefix(name.as_bytes());
    (hash >> 2) + 3
}

fn blake3_prefix(bytes: &[u8]) -> u64 {
    let hash = crate::crypto::blake3(bytes);
    u64::from_be_bytes(hash[..8].try_into().unwrap_or_default())
}

impl RowKey {
    pub fn encode(&self) -> KeyBytes {
        let mut out = Vec::with_capacity(40);
        let tag = |out: &mut Vec<u8>, tag: u8, number: u64| {
            out.push(tag);
            out.extend_from_slice(&number.to_be_bytes());
        };
        match self {
            Self::Inode(ino) => tag(&mut out, b'I', ino.0),
            Self::Extents(ino, window) => {
                tag(&mut out, b'X', ino.0);
                out.extend_from_slice(&window.to_be_bytes());
            }
            Self::Dirent(parent, name) => {
                tag(&mut out, b'D', parent.0);
                out.extend_from_slice(&dir_cookie(name).to_be_bytes());
                out.extend_from_slice(name.as_bytes());
            }
            Self::Backref(ino, parent, name) => {
                tag(&mut out, b'B', ino.0);
                out.extend_from_slice(&parent.0.to_be_bytes());
                out.extend_from_slice(name.as_bytes());
            }
            Self::Xattr(ino, name) => {
                tag(&mut out, b'A', ino.0);
                out.extend_from_slice(name.as_bytes());
            }
            Self::Chunk(no) => tag(&mut out, b'C', no.0),
            Self::FileKey(no) => tag(&mut out, b'K', no.0),
            Self::Pack(no) => tag(&mut out, b'P', no.0),
            Self::Device(slot) => {
                out.push(b'V');
                out.extend_from_slice(&slot.0.to_be_bytes());
            }
            Self::Link(link) => {
                out.push(b'L');
                out.extend_from_slice(&link.0);
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "row key";
        let mut reader = Reader::new(WHAT, bytes);
        let error = |why| FormatError { what: WHAT, why };
        let number = |reader: &mut Reader<'_>| reader.array().map(u64::from_be_bytes);
        let name = |reader: &mut Reader<'_>| {
            let bytes = reader.raw(reader.remaining())?;
            Name::parse(bytes).map_err(|_| error("an invalid name"))
        };
        let key = match reader.u8()? {
            b'I' => Self::Inode(InodeId(number(&mut reader)?)),
            b'X' => Self::Extents(InodeId(number(&mut reader)?), number(&mut reader)?),
            b'D' => {
                let parent = InodeId(number(&mut reader)?);
                let cookie = number(&mut reader)?;
                let name = name(&mut reader)?;
                if cookie != dir_cookie(&name) {
                    return Err(error("a cookie that is not the name's"));
                }
                Self::Dirent(parent, name)
            }
            b'B' => Self::Backref(InodeId(number(&mut reader)?), InodeId(number(&mut reader)?), name(&mut reader)?),
            b'A' => {
                let ino = InodeId(number(&mut reader)?);
                let rest = reader.raw(reader.remaining())?;
                Self::Xattr(ino, XattrName::parse(rest).ok_or_else(|| error("an invalid attribute name"))?)
            }
            b'C' => Self::Chunk(ChunkNo(number(&mut reader)?)),
            b'K' => Self::FileKey(KeyNo(number(&mut reader)?)),
            b'P' => Self::Pack(PackNo(number(&mut reader)?)),
            b'V' => Self::Device(DeviceSlot(u16::from_be_bytes(reader.array()?))),
            b'L' => Self::Link(LinkId(reader.array()?)),
            _ => return Err(error("an unknown tag")),
        };
        reader.finish()?;
        Ok(key)
    }

    /// The prefix all rows of one kind and number share: `prefix(b'D', dir.0)` for a directory's entries.
    pub fn prefix(tag: u8, number: u64) -> KeyBytes {
        let mut out = vec![tag];
        out.extend_from_slice(&number.to_be_bytes());
        out
    }
}

/// File types as `st_mode` has them.
pub mod mode {
    pub const TYPE: u32 = 0o170000;
    pub const FIFO: u32 = 0o010000;
    pub const CHAR: u32 = 0o020000;
    pub const DIR: u32 = 0o040000;
    pub const BLOCK: u32 = 0o060000;
    pub const FILE: u32 = 0o100000;
    pub const LINK: u32 = 0o120000;
    pub const SOCKET: u32 = 0o140000;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRow {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a device node, in the kernel's encoding; else 0.
    pub rdev: u32,
    /// Directories: 2 and one for each directory inside. Others: how many `B` rows.
    pub nlink: u32,
    /// In bytes. A symlink's is its target's.
    pub size: u64,
    /// Bytes that extents cover, which is what `st_blocks` counts.
    pub allocated: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// One more with each change of content: the base that a `Write` intent names.
    pub version: u64,
    /// The key that this file's new chunks are sealed under, once it has one.
    pub key: Option<KeyNo>,
    pub body: InodeBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InodeBody {
    /// Directories, device nodes, pipes, sockets.
    None,
    Symlink(Box<[u8]>),
    /// The first window's extents, when there are at most `INLINE_EXTENTS_MAX`; otherwise they are in
    /// `X` rows, as are those of all further windows.
    File(Vec<Extent>),
}

/// `len` bytes at `offset` in the file are those at `chunk_offset` in the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub len: u32,
    pub chunk: ChunkNo,
    pub chunk_offset: u32,
}

impl Extent {
    pub const fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

impl InodeRow {
    pub fn is_dir(&self) -> bool {
        self.mode & mode::TYPE == mode::DIR
    }

    pub fn is_file(&self) -> bool {
        self.mode & mode::TYPE == mode::FILE
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(self.mode.into()).varint(self.uid.into()).varint(self.gid.into()).varint(self.rdev.into());
        out.varint(self.nlink.into()).varint(self.size).varint(self.allocated);
        out.time(self.atime).time(self.mtime).time(self.ctime).time(self.btime);
        out.varint(self.version).varint(self.key.map_or(0, |key| key.0));
        match &self.body {
            InodeBody::None => {}
            InodeBody::Symlink(target) => {
                out.bytes(target);
            }
            InodeBody::File(extents) => encode_extents(&mut out, extents),
        }
        out.finish()
    }

    /// `allocated` alone, without the rest: what counting the volume's usage looks at, for every change.
    pub fn decode_allocated(bytes: &[u8]) -> Result<u64, FormatError> {
        let mut reader = Reader::new("inode row", bytes);
        for _mode_to_size in 0..6 {
            reader.varint()?;
        }
        reader.varint()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("inode row", bytes);
        let (mode, uid, gid, rdev) = (reader.varint32()?, reader.varint32()?, reader.varint32()?, reader.varint32()?);
        let (nlink, size, allocated) = (reader.varint32()?, reader.varint()?, reader.varint()?);
        let (atime, mtime, ctime, btime) = (reader.time()?, reader.time()?, reader.time()?, reader.time()?);
        let (version, key) = (reader.varint()?, reader.varint()?);
        if mode & !(mode::TYPE | 0o7777) != 0 {
            return Err(reader.error("an unknown mode bit"));
        }
        if size > FILE_LEN_MAX {
            return Err(reader.error("a size over 2^63"));
        }
        let body = match mode & mode::TYPE {
            mode::FILE => {
                let extents = decode_extents(&mut reader, 0)?;
                if extents.len() > INLINE_EXTENTS_MAX {
                    return Err(reader.error("too many extents in an inode"));
                }
                InodeBody::File(extents)
            }
            mode::LINK => {
                let target = reader.bytes()?;
                if target.is_empty() || target.len() > SYMLINK_LEN_MAX || target.contains(&0) {
                    return Err(reader.error("an invalid symlink target"));
                }
                InodeBody::Symlink(target.into())
            }
            mode::DIR | mode::FIFO | mode::CHAR | mode::BLOCK | mode::SOCKET => InodeBody::None,
            _ => return Err(reader.error("an unknown file type")),
        };
        reader.finish()?;
        Ok(Self {
            mode,
            uid,
            gid,
            rdev,
            nlink,
            size,
            allocated,
            atime,
            mtime,
            ctime,
            btime,
            version,
            key: (key != 0).then_some(KeyNo(key)),
            body,
        })
    }
}

/// An `X` row's value. Every extent starts in the window and ends in it.
pub fn encode_window(extents: &[Extent]) -> Vec<u8> {
    let mut out = Writer::new();
    encode_extents(&mut out, extents);
    out.finish()
}

pub fn decode_window(window: u64, bytes: &[u8]) -> Result<Vec<Extent>, FormatError> {
    let mut reader = Reader::new("extents row", bytes);
    let extents = decode_extents(&mut reader, window)?;
    reader.finish()?;
    Ok(extents)
}

/// Offsets are gaps from the end of the one before; chunk numbers are differences.
fn encode_extents(out: &mut Writer, extents: &[Extent]) {
    out.varint(extents.len() as u64);
    let (mut end, mut chunk) = (extents.first().map_or(0, |e| e.offset / EXTENT_WINDOW_LEN * EXTENT_WINDOW_LEN), 0u64);
    for extent in extents {
        out.varint(extent.offset - end).varint(extent.len.into());
        out.signed(extent.chunk.0.wrapping_sub(chunk) as i64).varint(extent.chunk_offset.into());
        (end, chunk) = (extent.end(), extent.chunk.0);
    }
}

fn decode_extents(reader: &mut Reader<'_>, window: u64) -> Result<Vec<Extent>, FormatError> {
    let count = reader.count()?;
    let start = window.checked_mul(EXTENT_WINDOW_LEN).filter(|start| *start <= FILE_LEN_MAX);
    let start = start.ok_or_else(|| reader.error("a window beyond 2^63"))?;
    let (mut end, mut chunk) = (start, 0u64);
    let mut extents = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        let (gap, len) = (reader.varint()?, reader.varint32()?);
        chunk = chunk.wrapping_add(reader.signed()? as u64);
        let chunk_offset = reader.varint32()?;
        let offset = end.checked_add(gap).ok_or_else(|| reader.error("an offset beyond 2^64"))?;
        if len == 0 || u64::from(len) + u64::from(chunk_offset) > CHUNK_LEN {
            return Err(reader.error("an extent that no chunk can hold"));
        }
        end = offset.checked_add(len.into()).ok_or_else(|| reader.error("an offset beyond 2^64"))?;
        if end - start > EXTENT_WINDOW_LEN {
            return Err(reader.error("an extent outside its window"));
        }
        extents.push(Extent { offset, len, chunk: ChunkNo(chunk), chunk_offset });
    }
    Ok(extents)
}

/// A `D` row's value. The type is the inode's own `S_IFMT` bits, so that readdir need not look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirentRow {
    pub ino: InodeId,
    pub file_type: u32,
}

impl DirentRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(self.ino.0).u8((self.file_type >> 12) as u8);
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("dirent row", bytes);
        let ino = InodeId(reader.varint()?);
        let file_type = u32::from(reader.u8()?) << 12;
        use mode::*;
        if !matches!(file_type, FIFO | CHAR | DIR | BLOCK | FILE | LINK | SOCKET) {
            return Err(reader.error("an unknown file type"));
        }
        reader.finish()?;
        Ok(Self { ino, file_type })
    }
}

/// A `C` row's value: where a chunk's sealed bytes are, and what opens and proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    pub pack: PackNo,
    /// Of the chunk's header in the pack.
    pub offset: u32,
    /// Of the plaintext, 1 to `CHUNK_LEN`.
    pub len: u32,
    pub key: KeyNo,
    pub id: ChunkId,
    /// Each frame's sealed length (codec byte, ciphertext and tag).
    pub frames: Vec<u32>,
}

/// A frame's sealed length without compression is its plaintext and this: a codec byte and the GCM tag.
pub const FRAME_OVERHEAD: u32 = 17;

impl ChunkRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(self.pack.0).varint(self.offset.into()).varint(self.len.into()).varint(self.key.0).raw(&self.id.0);
        for frame in &self.frames {
            out.varint((*frame).into());
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("chunk row", bytes);
        let (pack, offset, len) = (PackNo(reader.varint()?), reader.varint32()?, reader.varint32()?);
        let (key, id) = (KeyNo(reader.varint()?), ChunkId(reader.array()?));
        if len == 0 || u64::from(len) > CHUNK_LEN {
            return Err(reader.error("an impossible chunk length"));
        }
        let count = u64::from(len).div_ceil(FRAME_LEN) as usize;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let frame = reader.varint32()?;
            if frame <= FRAME_OVERHEAD || u64::from(frame) > FRAME_LEN + u64::from(FRAME_OVERHEAD) {
                return Err(reader.error("an impossible frame length"));
            }
            frames.push(frame);
        }
        reader.finish()?;
        Ok(Self { pack, offset, len, key, id, frames })
    }
}

/// A `K` row's value: a file key, sealed under the epoch's root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileKeyRow {
    pub epoch: Epoch,
    pub wrapped: Box<[u8]>,
}

impl FileKeyRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(self.epoch.0.into()).bytes(&self.wrapped);
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("file key row", bytes);
        let row = Self { epoch: Epoch(reader.varint32()?), wrapped: reader.bytes()?.into() };
        reader.finish()?;
        Ok(row)
    }
}

/// A `P` row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRow {
    pub name: PackName,
}

impl PackRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(&self.name.incarnation.0).varint(self.name.number);
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("pack row", bytes);
        let name = PackName { incarnation: Incarnation(reader.array()?), number: reader.varint()? };
        reader.finish()?;
        Ok(Self { name })
    }
}

/// A `V` row's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// For people, such as a host name; at most 255 bytes of UTF-8.
    pub name: String,
    pub incarnation: Incarnation,
    /// No smaller number of this slot will be given out again.
    pub next: Numbers,
    pub registered: Timestamp,
}

impl DeviceRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(self.name.as_bytes()).raw(&self.incarnation.0);
        out.varint(self.next.inode).varint(self.next.chunk).varint(self.next.key).varint(self.next.pack);
        out.time(self.registered);
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("device row", bytes);
        let name = std::str::from_utf8(reader.bytes()?).map_err(|_| reader.error("a name that is not UTF-8"))?;
        if name.len() > 255 {
            return Err(reader.error("a name over 255 bytes"));
        }
        let incarnation = Incarnation(reader.array()?);
        let mut counter = || -> Result<u64, FormatError> {
            let value = reader.varint()?;
            if value >= 1 << DeviceSlot::COUNTER_BITS { Err(reader.error("a counter over 48 bits")) } else { Ok(value) }
        };
        let next = Numbers { inode: counter()?, chunk: counter()?, key: counter()?, pack: counter()? };
        let registered = reader.time()?;
        let row = Self { name: name.into(), incarnation, next, registered };
        reader.finish()?;
        Ok(row)
    }
}

/// Checks a whole row as it comes out of a record or a segment: nothing behind this is validated again.
pub fn validate(key: &[u8], value: &[u8]) -> Result<(), FormatError> {
    match RowKey::decode(key)? {
        RowKey::Inode(_) => InodeRow::decode(value).map(drop),
        RowKey::Extents(_, window) => decode_window(window, value).map(drop),
        RowKey::Dirent(..) => DirentRow::decode(value).map(drop),
        RowKey::Backref(..) if value.is_empty() => Ok(()),
        RowKey::Backref(..) => Err(FormatError { what: "backref row", why: "bytes after the end" }),
        RowKey::Xattr(..) if value.len() <= XATTR_LEN_MAX => Ok(()),
        RowKey::Xattr(..) => Err(FormatError { what: "xattr row", why: "a value over 64 KiB" }),
        RowKey::Chunk(_) => ChunkRow::decode(value).map(drop),
        RowKey::FileKey(_) => FileKeyRow::decode(value).map(drop),
        RowKey::Pack(_) => PackRow::decode(value).map(drop),
        RowKey::Device(_) => DeviceRow::decode(value).map(drop),
        RowKey::Link(_) => LinkRow::decode(value).map(drop),
    }
}

#[cfg(test)]
mod tests;
