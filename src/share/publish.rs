//! Publishing a version of a link: what is shared is copied into the store, and when all of it is there the record says
//! so. Killed at any point it leaves no record that lacks a pack.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::base::LinkId;
use crate::format::ObjectName;
use crate::format::link::{Contents, Header, LinkKeys, LinkRow, LinkState, SignedRecord};
use crate::store::Stored;

use super::busy::AtWork;
use super::copy::{Copied, CopyParts, Report, copy, root_kind};
use super::get::{BucketSource, GetError, Index, LinkSource};
use super::packer::{free_after, upload};
use super::previous::Previous;
use super::sharing::Sharing;
use super::{ShareError, revoke};

/// How often another device may have been faster, before it is an error.
const TRIES: usize = 5;

/// How a publication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub number: u64,
    pub files: u64,
    pub bytes: u64,
    /// What is neither file, folder nor symlink.
    pub left_out: u64,
    pub sent_bytes: u64,
    /// Much of the link's packs is not used any more.
    is_wasteful: bool,
}

/// Publishes what the row says, if it is not what is published already.
pub(super) fn publish(
    sharing: &Sharing,
    id: LinkId,
    work: &AtWork<'_>,
    report: Report<'_>,
) -> Result<Published, ShareError> {
    let mut published = None;
    for _ in 0..TRIES {
        match publish_once(sharing, id, work, report) {
            Err(ShareError::Conflict) => {}
            // Once more: now it is known which packs to leave.
            Ok(wasteful) if wasteful.is_wasteful && published.is_none() => published = Some(wasteful),
            outcome => return outcome,
        }
    }
    published.ok_or(ShareError::Conflict)
}

fn publish_once(sharing: &Sharing, id: LinkId, work: &AtWork<'_>, report: Report<'_>) -> Result<Published, ShareError> {
    let row = sharing.row(id)?;
    let Some(keys) = row.state.keys() else { return Err(ShareError::Revoked) };
    let there = work.stop().wait(&sharing.runtime, There::look(sharing, id))??;
    if there.is_revoked {
        revoke::finish(sharing, id)?;
        return Err(ShareError::Revoked);
    }
    let source = BucketSource::new(sharing.store.clone());
    let previous = there.newest.as_ref().map(|record| previous(record, keys)).transpose()?;
    let (ino, attr) = sharing.shared_inode(&row)?;
    if previous.as_ref().is_some_and(|old| old.header.kind != root_kind(&attr)) {
        return Err(ShareError::SourceGone);
    }
    let mut known = sharing.take_known(id);
    // Packs that are to be written anew are as if they were not there.
    let packs: BTreeSet<u64> = there.packs.difference(&known.to_rewrite()).copied().collect();
    known.keep_only(&packs);
    // Without these a link whose index did not change would read all footers to learn it.
    let begun = sharing.clock.now();
    let newest = there.newest.as_ref().map_or(0, SignedRecord::number);
    let looked = |old: &Contents| known.walked(newest).map_or(old.header.published, |at| at.max(old.header.published));
    let looked = previous.as_ref().map(looked);
    let last = previous.iter().flat_map(|old| &old.header.index).map(|chunk| chunk.pack).max().unwrap_or(0);
    let index = previous.iter().flat_map(|old| &old.header.index).filter(|chunk| packs.contains(&chunk.pack));
    index.for_each(|chunk| known.add(chunk.clone()));
    let parts = CopyParts {
        vfs: sharing.vfs(),
        runtime: &sharing.runtime,
        stop: work.stop(),
        entropy: sharing.entropy.clone(),
        store: sharing.store.clone(),
        id,
        keys,
        packs,
        // The index was made last.
        last,
        taken: there.packs.clone(),
        known,
        previous: previous.as_ref().zip(looked).map(|(old, at)| Previous::new(&source, Index::new(id, old), at)),
    };
    let Copied { header, mut known, used, made, left_out, sent_bytes } = copy(parts, &row.title, attr, begun, report)?;
    known.note_use(&used);
    let used: BTreeSet<u64> = used.into_keys().collect();
    let unchanged =
        previous.as_ref().is_some_and(|old| Header { published: header.published, ..old.header.clone() } == header)
            && there.newest.as_ref().and_then(SignedRecord::expiry) == row.expiry;
    let number = match unchanged {
        true => newest,
        false => put_record(sharing, id, work, &row, &there, &header, &used)?,
    };
    let is_wasteful = row.live && !known.to_rewrite().is_empty();
    known.note_walk(number, begun);
    if row.live {
        sharing.keep_known(id, known);
    }
    note(sharing, id, ino, number, &header)?;
    sharing.retire(id, number, &there, &made, &used);
    if there.newest.is_none() {
        // Nobody has read anything yet of what earlier tries left.
        sharing.delete_retired(id, Duration::ZERO);
    }
    Ok(Published { number, files: header.files, bytes: header.bytes, left_out, sent_bytes, is_wasteful })
}

/// What is in the store of a link.
pub(super) struct There {
    pub records: BTreeSet<u64>,
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
        Ok(Self { records: records.into_iter().collect(), packs: packs.into_iter().collect(), newest, is_revoked })
    }

    /// After the newest that was the owner's.
    pub fn next_record(&self, noted: u64) -> u64 {
        let newest = self.newest.as_ref().map_or(0, SignedRecord::number);
        free_after(newest.max(noted), &self.records)
    }
}

/// The header and content root of what is published now. The kept root makes a password unnecessary.
fn previous(record: &SignedRecord, keys: &LinkKeys) -> Result<Contents, ShareError> {
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
    let number = there.next_record(row.newest);
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
    let is_as_noted = (row.inode, row.newest, row.files, row.bytes) == (ino, number, header.files, header.bytes);
    // Another device may have noted a newer one.
    if matches!(row.state, LinkState::Published(_)) && (is_as_noted || row.newest > number) {
        return Ok(());
    }
    row.state = match row.state {
        LinkState::Publishing(keys) | LinkState::Published(keys) => LinkState::Published(keys),
        LinkState::Revoked => return Err(ShareError::Revoked),
    };
    (row.inode, row.newest, row.files, row.bytes) = (ino, number, header.files, header.bytes);
    sharing.put_row(id, &row)
}
