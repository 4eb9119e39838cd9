//! A link that nobody publishes: one version of it in a store of its own, from where it goes into a file.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{Name, Timestamp};
use crate::format::ObjectName;
use crate::format::link::LinkKeys;
use crate::store::{Store, Stored};
use crate::vfs::api::Attr;

use super::ShareError;
use super::busy::Stop;
use super::copy::{Copied, CopyParts, Report, copy};
use super::known::Known;
use super::packer::upload;
use super::sharing::{Shared, Sharing, url};

/// The only version there is.
const NUMBER: u64 = 1;

pub(super) struct Wanted {
    pub title: Name,
    pub attr: Attr,
    pub expiry: Option<Timestamp>,
}

/// `store` has nothing of the link yet.
pub(super) fn export(
    sharing: &Sharing,
    keys: &LinkKeys,
    wanted: Wanted,
    store: Arc<dyn Store>,
    stop: &Stop,
    report: Report<'_>,
) -> Result<Shared, ShareError> {
    let id = keys.id();
    let parts = CopyParts {
        vfs: sharing.vfs(),
        runtime: &sharing.runtime,
        stop,
        entropy: sharing.entropy.clone(),
        store: store.clone(),
        id,
        keys,
        packs: BTreeSet::new(),
        last: 0,
        taken: BTreeSet::new(),
        known: Known::default(),
        previous: None,
    };
    let Copied { header, left_out, sent_bytes, .. } =
        copy(parts, &wanted.title, wanted.attr, sharing.clock.now(), report)?;
    let record = keys.seal(NUMBER, wanted.expiry, &header, sharing.entropy.as_ref())?;
    let name = ObjectName::Share(id, NUMBER);
    match stop.wait(&sharing.runtime, upload(store.as_ref(), &name, Bytes::from(record)))?? {
        Stored::Ours => {
            Ok(Shared { id, url: url(keys), files: header.files, bytes: header.bytes, left_out, sent_bytes })
        }
        Stored::Other => Err(ShareError::Conflict),
    }
}
