//! Publishing a version of a link: the tree is walked, what is new is sealed and uploaded, and when all of it is in the
//! store the record says so.
//!
//! Memory is bounded by the packs on their way and by about 200 bytes for each MiB that is shared. Killed at any point
//! it leaves packs that the next try finds by their footers, and no record that lacks one.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::base::{ByteRange, LinkId, Name, Timestamp};
use crate::crypto::{Key, chunk_id};
use crate::format::ObjectName;
use crate::format::link::{
    ChunkRef, Entry, EntryKind, Header, IndexEncoder, LinkKeys, LinkRow, LinkState, PIECE_LEN, RootKind, SignedRecord,
};
use crate::format::rows::mode;
use crate::store::Stored;
use crate::vfs::api::{Attr, VfsError};

use super::busy::AtWork;
use super::get::{BucketSource, GetError, Index, LinkSource};
use super::known::Known;
use super::packer::{Packer, PackerParts, upload};
use super::previous::Previous;
use super::sharing::Sharing;
use super::source::{OpenSource, Source, Visit};
use super::{ShareError, revoke};

/// How often another device may have been faster, before it is an error.
const TRIES: usize = 5;
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

/// How a publication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub number: u64,
    pub files: u64,
    pub bytes: u64,
    /// What is neither file, folder nor symlink.
    pub left_out: u64,
    pub sent_bytes: u64,
}

/// Publishes what the row says, if it is not what is published already.
pub(super) fn publish(
    sharing: &Sharing,
    id: LinkId,
    work: &AtWork<'_>,
    report: Report<'_>,
) -> Result<Published, ShareError> {
    for _ in 0..TRIES {
        match publish_once(sharing, id, work, report) {
            Err(ShareError::Conflict) => {}
            outcome => return outcome,
        }
    }
    Err(ShareError::Conflict)
}

fn publish_once(sharing: &Sharing, id: LinkId, work: &AtWork<'_>, report: Report<'_>) -> Result<Published, ShareError> {
    let row = sharing.row(id)?;
    let Some(keys) = row.state.keys() else { return Err(ShareError::Revoked) };
    let (ino, attr) = sharing.shared_inode(&row)?;
    let there = work.stop().wait(&sharing.runtime, There::look(sharing, id))??;
    if there.is_revoked {
        revoke::finish(sharing, id)?;
        return Err(ShareError::Revoked);
    }
    let source = BucketSource::new(sharing.store.clone());
    let previous = there.newest.as_ref().map(|record| previous(record, keys)).transpose()?;
    let mut known = sharing.take_known(id);
    // Without these a link whose index did not change would read all footers to learn it.
    previous.iter().flat_map(|old| &old.header.index).for_each(|chunk| known.add(chunk.clone()));
    let next = there.packs.last().copied().unwrap_or(0) + 1;
    let parts = PackerParts {
        store: sharing.store.clone(),
        runtime: sharing.runtime.clone(),
        link: id,
        root: keys.content_root(),
        footer_key: keys.footer_key(),
        entropy: sharing.entropy.clone(),
        next,
        stop: work.stop().clone(),
    };
    let total = totals(sharing, &row.title, attr, work, report)?;
    let mut copy = Copy {
        sharing,
        id,
        footer_key: keys.footer_key(),
        there: &there.packs,
        known,
        has_footers: false,
        packer: Packer::new(parts),
        previous: previous.as_ref().map(|old| Previous::new(&source, Index::new(id, old))),
        encoder: IndexEncoder::new(),
        index_bytes: VecDeque::new(),
        index: Vec::new(),
        used: BTreeSet::new(),
        progress: total,
        work,
        report,
    };
    let walked = copy.run(&row.title, attr);
    let Copy { known, packer, index, used, progress, has_footers, .. } = copy;
    let made = packer.made.clone();
    drop(packer);
    let left_out = walked?;
    let header = Header {
        title: row.title.clone(),
        published: sharing.clock.now(),
        kind: if attr.mode & mode::TYPE == mode::DIR { RootKind::Directory } else { RootKind::File },
        files: progress.files,
        bytes: progress.bytes,
        index,
    };
    let newest = there.newest.as_ref().map_or(0, SignedRecord::number);
    let unchanged =
        previous.as_ref().is_some_and(|old| Header { published: header.published, ..old.header.clone() } == header)
            && there.newest.as_ref().and_then(SignedRecord::expiry) == row.expiry;
    let number = match unchanged {
        true => newest,
        false => put_record(sharing, id, work, &row, &there, &header, &used)?,
    };
    if row.live {
        let mut known = known;
        if has_footers || there.packs.is_empty() {
            made.iter().for_each(|pack| known.note_pack(*pack));
        }
        sharing.keep_known(id, known);
    }
    note(sharing, id, ino, number, &header)?;
    sharing.retire(id, number, &there, &made, &used);
    if there.newest.is_none() {
        // Nobody has read anything yet of what earlier tries left.
        sharing.delete_retired(id, Duration::ZERO);
    }
    Ok(Published { number, files: header.files, bytes: header.bytes, left_out, sent_bytes: progress.sent_bytes })
}

/// What is in the store of a link.
pub(super) struct There {
    pub records: Vec<u64>,
    pub packs: BTreeSet<u64>,
    /// The newest record that is the owner's.
    pub newest: Option<SignedRecord>,
    pub is_revoked: bool,
}

impl There {
    pub async fn look(sharing: &Sharing, id: LinkId) -> Result<Self, ShareError> {
        let (records, packs) = super::get::listed(sharing.store.as_ref(), id).await?;
        let (newest, is_revoked) = match BucketSource::new(sharing.store.clone()).newest(id).await {
            Ok(record) => (Some(record), false),
            Err(GetError::Gone(super::get::Gone::Revoked)) => (None, true),
            // What is there is not the owner's: it is as good as nothing.
            Err(GetError::Gone(_) | GetError::Link(_)) => (None, false),
            Err(GetError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(ShareError::Previous(error)),
        };
        Ok(Self { records, packs: packs.into_iter().collect(), newest, is_revoked })
    }

    pub fn next_record(&self) -> u64 {
        self.records.last().copied().unwrap_or(0) + 1
    }
}

/// The header and content root of what is published now. The kept root makes a password unnecessary.
fn previous(record: &SignedRecord, keys: &LinkKeys) -> Result<crate::format::link::Contents, ShareError> {
    Ok(record.clone().open(&keys.secret)?.contents_with(keys)?)
}

/// After all packs. Then the last look: a tombstone may have come meanwhile, and wins; and another device may have
/// deleted a pack that its own newest version did not need, which is then uploaded again.
fn put_record(
    sharing: &Sharing,
    id: LinkId,
    work: &AtWork<'_>,
    row: &LinkRow,
    there: &There,
    header: &Header,
    used: &BTreeSet<u64>,
) -> Result<u64, ShareError> {
    let number = there.next_record().max(row.newest + 1);
    let keys = row.state.keys().ok_or(ShareError::Revoked)?;
    let record = keys.seal(number, row.expiry, header, sharing.entropy.as_ref())?;
    let name = ObjectName::Share(id, number);
    match work.stop().wait(&sharing.runtime, upload(sharing.store.as_ref(), &name, Bytes::from(record)))?? {
        Stored::Ours => {}
        Stored::Other => return Err(ShareError::Conflict),
    }
    let now = work.stop().wait(&sharing.runtime, There::look(sharing, id))??;
    if now.is_revoked {
        revoke::finish(sharing, id)?;
        return Err(ShareError::Revoked);
    }
    if used.is_subset(&now.packs) { Ok(number) } else { Err(ShareError::Conflict) }
}

/// What the owner is told of it from now on.
fn note(
    sharing: &Sharing,
    id: LinkId,
    ino: crate::base::InodeId,
    number: u64,
    header: &Header,
) -> Result<(), ShareError> {
    let mut row = sharing.row(id)?;
    let is_noted = matches!(row.state, LinkState::Published(_)) && row.inode == ino && row.newest == number;
    if is_noted && (row.files, row.bytes) == (header.files, header.bytes) {
        return Ok(());
    }
    row.state = match row.state {
        LinkState::Publishing(keys) | LinkState::Published(keys) => LinkState::Published(keys),
        LinkState::Revoked => return Err(ShareError::Revoked),
    };
    (row.inode, row.newest, row.files, row.bytes) = (ino, number, header.files, header.bytes);
    sharing.put_row(id, &row)
}

/// How much there is to do: the names and sizes alone.
fn totals(
    sharing: &Sharing,
    title: &Name,
    attr: Attr,
    work: &AtWork<'_>,
    report: Report<'_>,
) -> Result<Progress, ShareError> {
    let source = Source { vfs: sharing.vfs(), runtime: &sharing.runtime, stop: work.stop() };
    let mut walk = source.walk(title.clone(), attr);
    let mut total = Progress::default();
    while let Some(visit) = walk.next()? {
        if visit.attr.mode & mode::TYPE == mode::FILE {
            total.files_total += 1;
            total.bytes_total += visit.attr.size;
        }
        if total.files_total % 256 == 0 && (work.stop().is_asked() || !report(&total)) {
            return Err(ShareError::Interrupted);
        }
    }
    Ok(total)
}

/// A copy being made.
struct Copy<'a> {
    sharing: &'a Sharing,
    id: LinkId,
    footer_key: Key,
    there: &'a BTreeSet<u64>,
    known: Known,
    /// Whether `known` has what the packs' footers say.
    has_footers: bool,
    packer: Packer,
    previous: Option<Previous<'a>>,
    encoder: IndexEncoder,
    index_bytes: VecDeque<u8>,
    index: Vec<ChunkRef>,
    /// Packs that the index names.
    used: BTreeSet<u64>,
    progress: Progress,
    work: &'a AtWork<'a>,
    report: Report<'a>,
}

impl Copy<'_> {
    /// Returns how much was left out.
    fn run(&mut self, title: &Name, attr: Attr) -> Result<u64, ShareError> {
        let sharing = self.sharing;
        let source = Source { vfs: sharing.vfs(), runtime: &sharing.runtime, stop: self.work.stop() };
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
        let goes_on = !self.work.stop().is_asked() && (self.report)(&self.progress);
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
            mode::LINK => match self.sharing.vfs().readlink(attr.ino) {
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
            self.used.insert(chunk.pack);
            self.encoder.chunk(*piece, chunk);
        }
        Ok(Some(number))
    }

    fn file(&mut self, source: &Source<'_>, attr: &Attr, path: &[Name]) -> Result<Vec<(u64, ChunkRef)>, ShareError> {
        let before = self.progress.bytes;
        if let Some(chunks) = self.unchanged(path, attr.size, attr.mtime)? {
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
    fn unchanged(
        &mut self,
        path: &[Name],
        size: u64,
        mtime: Timestamp,
    ) -> Result<Option<Vec<(u64, ChunkRef)>>, ShareError> {
        let Some(previous) = &mut self.previous else { return Ok(None) };
        let found = self.work.stop().wait(&self.sharing.runtime, previous.file(path, size, mtime))?;
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
        Ok(found.filter(|chunks| chunks.iter().all(|(_, chunk)| self.there.contains(&chunk.pack))))
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
            let (store, there) = (&self.sharing.store, self.there);
            let following = self.known.follow(store, self.id, &self.footer_key, there);
            self.work.stop().wait(&self.sharing.runtime, following)??;
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
            self.used.insert(chunk.pack);
            self.index.push(chunk);
        }
        Ok(())
    }
}
