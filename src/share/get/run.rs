//! Fetching, from the record to the last file.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::target::{Target, TargetFile};
use super::{GetError, Gone, Index, LinkSource, Place, batch};
use crate::base::{LinkId, Timestamp};
use crate::crypto::PrivateHalf;
use crate::format::link::{
    ChunkRef, Contents, Entry, EntryKind, IndexItem, LinkError, LinkUrl, Outer, PIECE_LEN, Status, open_link_chunk,
};

/// Of plaintext. Two batches are in memory at a time: one on its way, one being written.
const BATCH_BYTES: u64 = 8 << 20;
/// Each may have an open file.
const BATCH_CHUNKS: usize = 256;

pub struct GetOptions<'a> {
    pub source: Arc<dyn LinkSource>,
    pub link: LinkId,
    /// Of the record that `contents` are of.
    pub number: u64,
    pub contents: &'a Contents,
    pub place: &'a Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetProgress {
    pub files: u64,
    pub files_total: u64,
    pub bytes: u64,
    pub bytes_total: u64,
    /// Of `bytes`, those that came over the network.
    pub fetched_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Fetched {
    pub path: PathBuf,
    pub files: u64,
    pub bytes: u64,
    pub fetched_bytes: u64,
    /// Symlinks that were not made since they lead out of what was shared.
    pub refused_symlinks: u64,
}

/// The newest record, opened as far as it can be without a password.
pub async fn open(
    source: &dyn LinkSource,
    link: &LinkUrl,
    identities: &[PrivateHalf],
    now: Timestamp,
) -> Result<Outer, GetError> {
    let record = source.newest(link.id).await?;
    match record.status(now) {
        Status::Current => {}
        Status::Expired => return Err(Gone::Expired.into()),
        Status::Revoked => return Err(Gone::Revoked.into()),
    }
    let secret = match &link.secret {
        Some(secret) => secret.duplicate(),
        None if !record.is_for_recipient() => return Err(LinkError::WrongSecret.into()),
        None => identities.iter().find_map(|own| record.secret_for(own).ok()).ok_or(LinkError::NotRecipient)?,
    };
    Ok(record.open(&secret)?)
}

/// `report` is told now and then, and ends it by answering false. What is there by then is gone on with the next time.
pub async fn get(
    options: GetOptions<'_>,
    report: &mut (dyn FnMut(&GetProgress) -> bool + Send),
) -> Result<Fetched, GetError> {
    let GetOptions { source, link, number, contents, place } = options;
    match fetch_tree(&source, link, number, contents, place, report).await {
        // What is missing or wrong may be so since the link is not what it was a moment ago.
        Err(GetError::Gone(_) | GetError::Damaged) => Err(explain(source.as_ref(), link, number).await),
        outcome => outcome,
    }
}

async fn explain(source: &dyn LinkSource, link: LinkId, number: u64) -> GetError {
    match source.newest(link).await {
        Ok(record) if record.number() != number => GetError::PublishedAnew,
        Ok(record) if record.status(crate::base::Clock::now(&crate::base::SystemClock)) == Status::Expired => {
            Gone::Expired.into()
        }
        Ok(_) => GetError::Damaged,
        Err(error) => error,
    }
}

async fn fetch_tree(
    source: &Arc<dyn LinkSource>,
    link: LinkId,
    number: u64,
    contents: &Contents,
    place: &Place,
    report: &mut (dyn FnMut(&GetProgress) -> bool + Send),
) -> Result<Fetched, GetError> {
    let header = &contents.header;
    let mut progress = GetProgress { files_total: header.files, bytes_total: header.bytes, ..GetProgress::default() };
    let mut target = Target::new(place, link, number);
    let mut index = Index::new(link, contents);
    let mut file: Option<OpenFile> = None;
    let (mut batch, mut running) = (Vec::new(), None);
    while let Some(item) = index.next(source.as_ref()).await? {
        match item {
            IndexItem::Entry(entry_number, entry) => {
                close(file.take())?;
                file = target.make(entry_number, &entry)?.map(|file| OpenFile { file, size: size_of(&entry), at: 0 });
                progress.files += u64::from(matches!(entry.kind, EntryKind::File { .. }));
            }
            IndexItem::Chunk { piece, chunk } => {
                let Some(OpenFile { file, at, .. }) = &mut file else { return Err(GetError::Damaged) };
                let start = piece * PIECE_LEN;
                file.clear(*at, start)?;
                *at = start + u64::from(chunk.len);
                if file.holds(piece, &chunk) {
                    progress.bytes += u64::from(chunk.len);
                } else {
                    batch.push(Job { file: file.clone(), piece, chunk });
                }
            }
        }
        if !report(&progress) {
            return Err(GetError::Interrupted);
        }
        if is_full(&batch) {
            let next = Batch::start(source, link, std::mem::take(&mut batch));
            if let Some(before) = running.replace(next) {
                before.write(contents, link, &mut progress).await?;
            }
        }
    }
    close(file)?;
    let last = Batch::start(source, link, batch);
    for batch in running.into_iter().chain([last]) {
        batch.write(contents, link, &mut progress).await?;
        if !report(&progress) {
            return Err(GetError::Interrupted);
        }
    }
    let refused_symlinks = target.refused_symlinks;
    target.finish()?;
    let GetProgress { files, fetched_bytes, .. } = progress;
    Ok(Fetched { path: place.path(), files, bytes: header.bytes, fetched_bytes, refused_symlinks })
}

/// The file whose chunks the index names now.
struct OpenFile {
    file: Arc<TargetFile>,
    size: u64,
    /// Where the last chunk ended.
    at: u64,
}

fn size_of(entry: &Entry) -> u64 {
    if let EntryKind::File { size, .. } = entry.kind { size } else { 0 }
}

fn close(file: Option<OpenFile>) -> Result<(), GetError> {
    file.map_or(Ok(()), |OpenFile { file, size, at }| file.clear(at, size))
}

struct Job {
    file: Arc<TargetFile>,
    piece: u64,
    chunk: ChunkRef,
}

fn is_full(batch: &[Job]) -> bool {
    batch.len() >= BATCH_CHUNKS || batch.iter().map(|job| u64::from(job.chunk.len)).sum::<u64>() >= BATCH_BYTES
}

/// Chunks on their way.
struct Batch {
    jobs: Vec<Job>,
    sealed: JoinHandle<Result<Vec<Bytes>, GetError>>,
}

impl Batch {
    fn start(source: &Arc<dyn LinkSource>, link: LinkId, jobs: Vec<Job>) -> Self {
        let chunks: Vec<ChunkRef> = jobs.iter().map(|job| job.chunk.clone()).collect();
        let source = source.clone();
        let sealed = tokio::spawn(async move { batch::fetch(source.as_ref(), link, &chunks).await });
        Self { jobs, sealed }
    }

    async fn write(self, contents: &Contents, link: LinkId, progress: &mut GetProgress) -> Result<(), GetError> {
        let sealed = self.sealed.await.map_err(|_| GetError::Interrupted)??;
        for (Job { file, piece, chunk }, sealed) in self.jobs.into_iter().zip(sealed) {
            let plain = open_link_chunk(link, &contents.root, &chunk, &sealed).map_err(|_| GetError::Damaged)?;
            file.write(piece, &plain)?;
            progress.bytes += plain.len() as u64;
            progress.fetched_bytes += plain.len() as u64;
        }
        Ok(())
    }
}
