//! The links of an open volume: made, listed, shown, taken back.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::base::{Clock, Entropy, InodeId, LinkId, Name, Timestamp};
use crate::crypto::PublicHalf;
use crate::format::ObjectName;
use crate::format::link::{LinkKeys, LinkProtection, LinkRow, LinkState as RowState, LinkUrl};
use crate::format::rows::mode;
use crate::store::Store;
use crate::vfs::Drive;
use crate::vfs::api::{Attr, Vfs, VfsError, VfsResult};

use super::busy::Busy;
use super::copy::Report;
use super::export::{self, Wanted};
use super::known::Known;
use super::publish::{self, Published, There};
use super::{ShareError, revoke};

/// As long as somebody may still be reading the version before.
const GRACE: Duration = Duration::from_secs(3600);

pub struct SharingParts {
    pub drive: Arc<Drive>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub runtime: Handle,
}

/// Its calls block, and must not be made on the runtime's own threads.
pub struct Sharing {
    pub(super) drive: Arc<Drive>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) runtime: Handle,
    busy: Busy,
    /// What live links have in the store.
    known: Mutex<HashMap<LinkId, Known>>,
    /// What no newest record names any more.
    retired: Mutex<HashMap<ObjectName, Retired>>,
    grace: Duration,
}

struct Retired {
    since: Instant,
    link: LinkId,
    /// The record that does not need it.
    newest: u64,
}

/// What is to be shared, and how.
pub struct Request {
    /// In the volume, from its root.
    pub path: Vec<u8>,
    /// None: the path's last name.
    pub title: Option<Name>,
    pub expiry: Option<Timestamp>,
    pub password: Option<Zeroizing<Vec<u8>>>,
    pub recipient: Option<PublicHalf>,
    pub live: bool,
}

/// A link that is published.
#[derive(Debug)]
pub struct Shared {
    pub id: LinkId,
    /// With its secret, without a host.
    pub url: LinkUrl,
    pub files: u64,
    pub bytes: u64,
    /// Devices, pipes and sockets, which no link has.
    pub left_out: u64,
    pub sent_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Publishing was interrupted, or is going on.
    Unfinished,
    Published,
    Expired,
    Revoked,
}

/// For its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub id: LinkId,
    pub state: LinkState,
    pub path: Vec<u8>,
    pub title: Name,
    pub created: Timestamp,
    pub expiry: Option<Timestamp>,
    pub live: bool,
    pub has_password: bool,
    pub has_recipient: bool,
    /// How often it was published.
    pub version: u64,
    pub files: u64,
    pub bytes: u64,
}

impl Sharing {
    pub fn new(parts: SharingParts) -> Self {
        let SharingParts { drive, store, clock, entropy, runtime } = parts;
        let (busy, known, retired) = Default::default();
        Self { drive, store, clock, entropy, runtime, busy, known, retired, grace: GRACE }
    }

    /// How long what no record names any more is left for those who are reading it.
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Returns when all of it is in the store. What an interrupted request for the same left is gone on with.
    pub fn create(&self, request: Request, report: Report<'_>) -> Result<Shared, ShareError> {
        let (attr, title) = self.wanted(&request)?;
        let (id, row) = match self.unfinished(&request, &title, attr.ino)? {
            Some((id, row)) => (id, LinkRow { expiry: request.expiry, ..row }),
            None => {
                let keys = self.new_keys(&request)?;
                let row = LinkRow {
                    inode: attr.ino,
                    path: request.path.as_slice().into(),
                    title,
                    live: request.live,
                    created: self.clock.now(),
                    expiry: request.expiry,
                    newest: 0,
                    files: 0,
                    bytes: 0,
                    state: RowState::Publishing(keys),
                };
                (row.state.keys().map(LinkKeys::id).ok_or(ShareError::Revoked)?, row)
            }
        };
        let work = self.busy.enter(id).ok_or(ShareError::Busy)?;
        // The keys are safe before anything is under them.
        self.put_row(id, &row)?;
        let Published { files, bytes, left_out, sent_bytes, .. } = publish::publish(self, id, &work, report)?;
        Ok(Shared { id, url: self.url(id)?, files, bytes, left_out, sent_bytes })
    }

    /// A copy under keys of its own in a store of its own. The volume knows nothing of it, so nobody can take it back.
    pub fn export(&self, request: Request, store: Arc<dyn Store>, report: Report<'_>) -> Result<Shared, ShareError> {
        let (attr, title) = self.wanted(&request)?;
        let keys = self.new_keys(&request)?;
        let work = self.busy.enter(keys.id()).ok_or(ShareError::Busy)?;
        export::export(self, &keys, Wanted { title, attr, expiry: request.expiry }, store, work.stop(), report)
    }

    /// The newest first.
    pub fn list(&self) -> Result<Vec<LinkInfo>, ShareError> {
        let mut links: Vec<_> = self.drive.links()?.iter().map(|(id, row)| self.info(*id, row)).collect();
        links.sort_by_key(|link| std::cmp::Reverse((link.created, link.id)));
        Ok(links)
    }

    /// What `list` says of one, and the link itself unless it was taken back.
    pub fn show(&self, id: LinkId) -> Result<(LinkInfo, Option<LinkUrl>), ShareError> {
        let info = self.info(id, &self.row(id)?);
        let url = if info.state == LinkState::Revoked { None } else { Some(self.url(id)?) };
        Ok((info, url))
    }

    /// Returns when nothing but the tombstone is left in the store. Stops a publication that is going on.
    pub fn revoke(&self, id: LinkId) -> Result<(), ShareError> {
        self.row(id)?;
        let _work = self.busy.take_over(id);
        revoke::revoke(self, id)
    }

    /// Publishes a live link anew if it has changed. False: somebody is at it.
    pub(super) fn refresh(&self, id: LinkId, report: Report<'_>) -> Result<bool, ShareError> {
        let Some(work) = self.busy.enter(id) else { return Ok(false) };
        publish::publish(self, id, &work, report).map(|_| true)
    }

    /// Live links that are to be followed now.
    pub(super) fn followed(&self) -> Result<Vec<LinkId>, ShareError> {
        let now = self.clock.now();
        let follows = |row: &LinkRow| {
            row.live && matches!(row.state, RowState::Published(_)) && row.expiry.is_none_or(|expiry| now < expiry)
        };
        let links = self.drive.links()?.into_iter();
        Ok(links.filter(|(_, row)| follows(row)).map(|(id, _)| id).collect())
    }

    /// Deletes what has been out of use for the grace.
    pub(super) fn tidy(&self) {
        let due: BTreeSet<LinkId> = {
            let retired = self.retired.lock();
            let due = retired.values().filter(|retired| retired.since.elapsed() >= self.grace);
            due.map(|retired| retired.link).collect()
        };
        for link in due {
            self.delete_retired(link, self.grace);
        }
    }

    pub(super) fn delete_retired(&self, link: LinkId, grace: Duration) {
        let due: Vec<(ObjectName, u64)> = {
            let mut retired = self.retired.lock();
            let is_due = |retired: &Retired| retired.link == link && retired.since.elapsed() >= grace;
            retired.extract_if(|_, retired| is_due(retired)).map(|(name, retired)| (name, retired.newest)).collect()
        };
        if due.is_empty() {
            return;
        }
        let newest = match self.block_on(There::look(self, link)) {
            Ok(there) => there.newest.map(|record| record.number()),
            // The next publication finds it again.
            Err(error) => return tracing::warn!("what is out of use of link {link} is left for now: {error}"),
        };
        // Another device may have published since, and need it again.
        for (name, _) in due.iter().filter(|(_, of)| Some(*of) == newest) {
            if let Err(error) = self.block_on(self.store.delete(name)) {
                tracing::warn!("{name}, which is out of use, could not be deleted: {error}");
            }
        }
    }

    fn info(&self, id: LinkId, row: &LinkRow) -> LinkInfo {
        let is_expired = row.expiry.is_some_and(|expiry| self.clock.now() >= expiry);
        let keys = row.state.keys();
        LinkInfo {
            id,
            state: match row.state {
                RowState::Revoked => LinkState::Revoked,
                RowState::Publishing(_) => LinkState::Unfinished,
                RowState::Published(_) if is_expired => LinkState::Expired,
                RowState::Published(_) => LinkState::Published,
            },
            path: row.path.to_vec(),
            title: row.title.clone(),
            created: row.created,
            expiry: row.expiry,
            live: row.live,
            has_password: keys.is_some_and(|keys| keys.protection != LinkProtection::None),
            has_recipient: keys.is_some_and(|keys| keys.recipient.is_some()),
            version: row.newest,
            files: row.files,
            bytes: row.bytes,
        }
    }

    /// What is meant, and what it is called.
    fn wanted(&self, request: &Request) -> Result<(Attr, Name), ShareError> {
        let attr = self.find(&request.path)?.ok_or(ShareError::NoSuchPath)?;
        if !matches!(attr.mode & mode::TYPE, mode::FILE | mode::DIR) {
            return Err(ShareError::NotShareable);
        }
        let title = match &request.title {
            Some(title) => title.clone(),
            None => last_name(&request.path)?,
        };
        Ok((attr, title))
    }

    fn url(&self, id: LinkId) -> Result<LinkUrl, ShareError> {
        let row = self.row(id)?;
        Ok(url(row.state.keys().ok_or(ShareError::Revoked)?))
    }

    fn new_keys(&self, request: &Request) -> Result<LinkKeys, ShareError> {
        let keys = LinkKeys::generate(request.recipient, self.entropy.as_ref());
        match &request.password {
            Some(password) => Ok(keys.with_password(password, self.entropy.as_ref())?),
            None => Ok(keys),
        }
    }

    /// A link for the same that was never published.
    fn unfinished(
        &self,
        request: &Request,
        title: &Name,
        inode: InodeId,
    ) -> Result<Option<(LinkId, LinkRow)>, ShareError> {
        for (id, row) in self.drive.links()? {
            let RowState::Publishing(keys) = &row.state else { continue };
            let is_same = row.inode == inode && row.title == *title && row.live == request.live;
            if !is_same || keys.recipient != request.recipient {
                continue;
            }
            let has_same_password = match &request.password {
                Some(password) => keys.has_password(password)?,
                None => keys.protection == LinkProtection::None,
            };
            if has_same_password {
                return Ok(Some((id, row)));
            }
        }
        Ok(None)
    }

    /// Asks whoever publishes to stop, before the volume is closed.
    pub(super) fn stop_work(&self) {
        self.busy.stop_all();
    }

    pub(super) fn row(&self, id: LinkId) -> Result<LinkRow, ShareError> {
        self.drive.link_row(id)?.ok_or(ShareError::Unknown(id))
    }

    pub(super) fn put_row(&self, id: LinkId, row: &LinkRow) -> Result<(), ShareError> {
        Ok(self.drive.put_link_row(id, row)?)
    }

    pub(super) fn vfs(&self) -> &dyn Vfs {
        self.drive.as_ref()
    }

    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// What the row shares, as it is now. A file that a program replaced, as most do to save, is found by its path
    /// again. A folder is not: nobody said that what appears in another one is to be handed out.
    pub(super) fn shared_inode(&self, row: &LinkRow) -> Result<(InodeId, Attr), ShareError> {
        match self.vfs().getattr(row.inode) {
            Ok(attr) if attr.nlink > 0 => return Ok((row.inode, attr)),
            Ok(_) | Err(VfsError::NotFound | VfsError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
        let found = self.find(&row.path)?.filter(|attr| attr.mode & mode::TYPE == mode::FILE);
        found.map(|attr| (attr.ino, attr)).ok_or(ShareError::SourceGone)
    }

    /// Its source was deleted, and what appears at the same path later is something else.
    pub(super) fn end_following(&self, id: LinkId) -> Result<(), ShareError> {
        let Some(_work) = self.busy.enter(id) else { return Ok(()) };
        let row = self.row(id)?;
        self.forget(id);
        if row.live { self.put_row(id, &LinkRow { live: false, ..row }) } else { Ok(()) }
    }

    /// None: there is nothing at this path.
    fn find(&self, path: &[u8]) -> Result<Option<Attr>, ShareError> {
        let mut attr = self.vfs().getattr(InodeId::ROOT)?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if attr.mode & mode::TYPE != mode::DIR {
                return Ok(None);
            }
            match self.look_up(attr.ino, &Name::parse(name)?)? {
                Some(found) => attr = found,
                None => return Ok(None),
            }
        }
        Ok(Some(attr))
    }

    fn look_up(&self, parent: InodeId, name: &Name) -> VfsResult<Option<Attr>> {
        let found = self.vfs().lookup(parent, name)?;
        if let Some(attr) = &found {
            self.vfs().forget(attr.ino, 1);
        }
        Ok(found)
    }

    pub(super) fn take_known(&self, id: LinkId) -> Known {
        self.known.lock().remove(&id).unwrap_or_default()
    }

    pub(super) fn keep_known(&self, id: LinkId, known: Known) {
        self.known.lock().insert(id, known);
    }

    pub(super) fn forget(&self, id: LinkId) {
        self.known.lock().remove(&id);
    }

    /// What record `newest` does not need is deleted after the grace.
    pub(super) fn retire(&self, id: LinkId, newest: u64, there: &There, made: &[u64], used: &BTreeSet<u64>) {
        let records = there.records.iter().filter(|number| **number != newest);
        let records = records.map(|number| ObjectName::Share(id, *number));
        let packs = there.packs.iter().chain(made).filter(|pack| !used.contains(pack));
        let unused: BTreeSet<ObjectName> = records.chain(packs.map(|pack| ObjectName::SharePack(id, *pack))).collect();
        let mut retired = self.retired.lock();
        retired.retain(|name, retired| retired.link != id || unused.contains(name));
        for name in unused {
            let since = Instant::now();
            retired.entry(name).or_insert(Retired { since, link: id, newest }).newest = newest;
        }
    }
}

/// Without a host. A recipient's has no secret in it.
pub(super) fn url(keys: &LinkKeys) -> LinkUrl {
    let secret = keys.recipient.is_none().then(|| keys.secret.duplicate());
    LinkUrl { host: None, id: keys.id(), secret }
}

fn last_name(path: &[u8]) -> Result<Name, ShareError> {
    let last = path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty());
    Ok(Name::parse(last.unwrap_or(b"drive"))?)
}
