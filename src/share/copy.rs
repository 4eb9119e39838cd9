//! A copy of what is shared, under a link's keys: the tree is walked, what is new is sealed and uploaded in packs, and
//! the header names all of it. Whether anybody is told by a record is for others to decide.
//!
//! Memory is bounded by the packs on their way and by about 200 bytes for each MiB that is shared. Killed at any point
//! it leaves packs that the next try finds by their footers.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::base::{ByteRange, Entropy, LinkId, Name, Timestamp};
use crate::crypto::{Key, chunk_id};
use crate::format::link::{ChunkRef, Entry, EntryKind, Header, IndexEncoder, LinkKeys, PIECE_LEN, RootKind};
use crate::format::rows::mode;
use crate::store::Store;
use crate::vfs::api::{Attr, Vfs, VfsError};

use super::ShareError;
use super::busy::Stop;
use super::get::GetError;
use super::known::Known;
use super::packer::{Packer, PackerParts};
use super::previous::Previous;
use super::source::{OpenSource, Source, Visit};

const EXECUTABLE: u32 = 0o111;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    pub files: u64,
    pub files_total: u64,
    /// Of files' contents.
    pub bytes: u64,
    pub bytes_total: u64,
    /// As they went to the store: compressed, sealed and padded, and none that were there.
    pub sent_bytes: u64,
}

/// Told now and then; ends it by answering false.
pub type Report<'a> = &'a mut dyn FnMut(&Progress) -> bool;

pub(super) struct CopyParts<'a> {
    pub vfs: &'a dyn Vfs,
    pub runtime: &'a Handle,
    pub stop: &'a Stop,
    pub entropy: Arc<dyn Entropy>,
    /// Where the packs go.
    pub store: Arc<dyn Store>,
    pub id: LinkId,
    pub keys: &'a LinkKeys,
    /// Packs that are there, and may be referred to.
    pub packs: BTreeSet<u64>,
    /// The last number that is not free any more, and those after it that are taken.
    pub last: u64,
    pub taken: BTreeSet<u64>,
    pub known: Known,
    /// What was published before.
    pub previous: Option<Previous<'a>>,
}

/// All of it is in the store.
pub(super) struct Copied {
    pub header: Header,
    pub known: Known,
    /// How many bytes of each pack the index names.
    pub used: BTreeMap<u64, u64>,
    /// Packs that were made.
    pub made: Vec<u64>,
    /// What is neither file, folder nor symlink.
    pub left_out: u64,
    pub sent_bytes: u64,
}

pub(super) fn copy(
    parts: CopyParts<'_>,
    title: &Name,
    attr: Attr,
    published: Timestamp,
    report: Report<'_>,
) -> Result<Copied, ShareError> {
    let progress = totals(&Source { vfs: parts.vfs, runtime: parts.runtime, stop: parts.stop }, title, attr, report)?;
    let CopyParts { vfs, runtime, stop, entropy, store, id, keys, packs, last, taken, known, previous } = parts;
    let packer = Packer::new(PackerParts {
        store: store.clone(),
        runtime: runtime.clone(),
        link: id,
        root: keys.content_root(),
        footer_key: keys.footer_key(),
        entropy,
        last,
        taken,
        stop: stop.clone(),
    });
    let (index_bytes, index, used, seen) = Default::default();
    let mut copy = Copy {
        source: Source { vfs, runtime, stop },
        store,
        id,
        footer_key: keys.footer_key(),
        packs,
        known,
        has_footers: false,
        packer,
        previous,
        encoder: IndexEncoder::new(),
        index_bytes,
        index,
        used,
        seen,
        progress,
        report,
    };
    let left_out = copy.run(title, attr)?;
    let Copy { mut known, packer, index, used, progress, .. } = copy;
    packer.made.iter().for_each(|(pack, chunk_bytes)| known.note_pack(*pack, *chunk_bytes));
    let header = Header {
        title: title.clone(),
        published,
        kind: root_kind(&attr),
        files: progress.files,
        bytes: progress.bytes,
        index,
    };
    let made = packer.made.keys().copied().collect();
    Ok(Copied { header, known, used, made, left_out, sent_bytes: progress.sent_bytes })
}

pub(super) fn root_kind(attr: &Attr) -> RootKind {
    if attr.mode & mode::TYPE == mode::DIR { RootKind::Directory } else { RootKind::File }
}

/// How much there is to do: the names and sizes alone.
fn totals(source: &Source<'_>, title: &Name, attr: Attr, report: Report<'_>) -> Result<Progress, ShareError> {
    let mut walk = source.walk(title.clone(), attr);
    let mut total = Progress::default();
    while let Some(visit) = walk.next()? {
        if visit.attr.mode & mode::TYPE == mode::FILE {
            total.files_total += 1;
            total.bytes_total += visit.attr.size;
        }
        if total.files_total % 256 == 0 && (source.stop.is_asked() || !report(&total)) {
            return Err(ShareError::Interrupted);
        }
    }
    Ok(total)
}

/// A copy being made.
struct Copy<'a> {
    source: Source<'a>,
    store: Arc<dyn Store>,
    id: LinkId,
    footer_key: Key,
    packs: BTreeSet<u64>,
    known: Known,
    /// Whether `known` has what the packs' footers say.
    has_footers: bool,
    packer: Packer,
    previous: Option<Previous<'a>>,
    encoder: IndexEncoder,
    index_bytes: VecDeque<u8>,
    index: Vec<ChunkRef>,
    used: BTreeMap<u64, u64>,
    /// Pack and offset of each chunk that is in `used`.
    seen: HashSet<(u64, u32)>,
    progress: Progress,
    report: Report<'a>,
}

impl Copy<'_> {
    /// Returns how much was left out.
    fn run(&mut self, title: &Name, attr: Attr) -> Result<u64, ShareError> {
        let source = self.source;
        let mut walk = source.walk(title.clone(), attr);
        // Names and entry numbers from what is shared down to the last visit.
        let (mut path, mut numbers): (Vec<Name>, Vec<u64>) = Default::default();
        (self.progress.files, self.progress.bytes) = (0, 0);
        while let Some(visit) = walk.next()? {
            path.truncate(visit.depth);
            numbers.truncate(visit.depth);
            path.push(visit.name.clone());
            let parent = numbers.last().copied().unwrap_or(0);
            if let Some(number) = self.visit(&source, &visit, parent, &path)? {
                numbers.push(number);
            }
            self.store_index(PIECE_LEN as usize)?;
            self.go_on()?;
        }
        self.store_index(1)?;
        self.packer.finish()?;
        self.progress.sent_bytes = self.packer.sent_bytes;
        Ok(walk.left_out)
    }

    fn go_on(&mut self) -> Result<(), ShareError> {
        self.progress.sent_bytes = self.packer.sent_bytes;
        let goes_on = !self.source.stop.is_asked() && (self.report)(&self.progress);
        if goes_on { Ok(()) } else { Err(ShareError::Interrupted) }
    }

    /// The entry's number. None: it has gone meanwhile.
    fn visit(
        &mut self,
        source: &Source<'_>,
        visit: &Visit,
        parent: u64,
        path: &[Name],
    ) -> Result<Option<u64>, ShareError> {
        let Visit { attr, name, depth } = visit;
        let mut chunks = Vec::new();
        let kind = match attr.mode & mode::TYPE {
            mode::DIR => EntryKind::Directory,
            mode::LINK => match source.vfs.readlink(attr.ino) {
                Ok(target) => EntryKind::Symlink(target.to_vec().into()),
                Err(VfsError::NotFound | VfsError::Stale) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            _ => {
                let before = self.progress.bytes;
                chunks = match self.file(source, attr, path) {
                    Ok(chunks) => chunks,
                    Err(ShareError::Vfs(VfsError::NotFound | VfsError::Stale)) if *depth > 0 => {
                        self.progress.bytes = before;
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                self.progress.files += 1;
                let executable = attr.mode & EXECUTABLE != 0;
                EntryKind::File { size: attr.size, executable, chunks: chunks.len() as u64 }
            }
        };
        let entry = Entry { parent, name: name.clone(), mtime: attr.mtime, kind };
        let number = self.encoder.entry(&entry);
        for (piece, chunk) in &chunks {
            self.note_use(chunk);
            self.encoder.chunk(*piece, chunk);
        }
        Ok(Some(number))
    }

    fn file(&mut self, source: &Source<'_>, attr: &Attr, path: &[Name]) -> Result<Vec<(u64, ChunkRef)>, ShareError> {
        let before = self.progress.bytes;
        if let Some(chunks) = self.unchanged(path, attr)? {
            self.progress.bytes = before + attr.size;
            return Ok(chunks);
        }
        let file = source.open(attr.ino)?;
        let mut chunks = Vec::new();
        let (mut piece, pieces) = (0, attr.size.div_ceil(PIECE_LEN));
        while piece < pieces {
            match file.next_data(piece)? {
                Some(next) if next < pieces => piece = next,
                _ => break,
            }
            if let Some(chunk) = self.piece(&file, piece, attr.size)? {
                chunks.push((piece, chunk));
            }
            piece += 1;
            self.progress.bytes = before + attr.size.min(piece * PIECE_LEN);
            self.go_on()?;
        }
        self.progress.bytes = before + attr.size;
        Ok(chunks)
    }

    /// As it was published before, if its packs are still there.
    fn unchanged(&mut self, path: &[Name], attr: &Attr) -> Result<Option<Vec<(u64, ChunkRef)>>, ShareError> {
        let Some(previous) = &mut self.previous else { return Ok(None) };
        let found = self.source.stop.wait(self.source.runtime, previous.file(path, attr))?;
        let found = match found {
            Ok(found) => found,
            // The old version is damaged: the new one is made without it.
            Err(GetError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!("link {} is published anew in full: {error}", self.id);
                self.previous = None;
                None
            }
        };
        Ok(found.filter(|chunks| chunks.iter().all(|(_, chunk)| self.packs.contains(&chunk.pack))))
    }

    /// None: nothing but zeros.
    fn piece(&mut self, file: &OpenSource<'_>, piece: u64, size: u64) -> Result<Option<ChunkRef>, ShareError> {
        let start = piece * PIECE_LEN;
        let plain = file.read(ByteRange::new(start, size.min(start + PIECE_LEN)))?;
        if plain.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.store(&plain).map(Some)
    }

    /// Each content once.
    fn store(&mut self, plain: &[u8]) -> Result<ChunkRef, ShareError> {
        let id = chunk_id(plain);
        if self.known.get(&id).is_none() && !self.has_footers {
            let following = self.known.follow(&self.store, self.id, &self.footer_key, &self.packs);
            self.source.stop.wait(self.source.runtime, following)??;
            self.has_footers = true;
        }
        if let Some(chunk) = self.known.get(&id) {
            return Ok(chunk.clone());
        }
        let chunk = self.packer.add(plain)?;
        self.known.add(chunk.clone());
        Ok(chunk)
    }

    /// What the encoder has, once it is `least` bytes; a chunk of it at a time.
    fn store_index(&mut self, least: usize) -> Result<(), ShareError> {
        self.index_bytes.extend(self.encoder.take());
        while self.index_bytes.len() >= least {
            let len = self.index_bytes.len().min(PIECE_LEN as usize);
            let plain: Vec<u8> = self.index_bytes.drain(..len).collect();
            let chunk = self.store(&plain)?;
            self.note_use(&chunk);
            self.index.push(chunk);
        }
        Ok(())
    }

    fn note_use(&mut self, chunk: &ChunkRef) {
        if self.seen.insert((chunk.pack, chunk.offset)) {
            *self.used.entry(chunk.pack).or_default() += chunk.span().len();
        }
    }
}
