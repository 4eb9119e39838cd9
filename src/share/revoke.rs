//! Taking a link back: a tombstone, which wins over every record, and then nothing else is left.
//!
//! Order: the tombstone, then records, then packs, then the row. Killed at any point, the same command goes on.

use bytes::Bytes;

use crate::base::LinkId;
use crate::format::link::{LinkState, tombstone};
use crate::format::{ObjectName, Prefix};
use crate::store::Stored;

use super::ShareError;
use super::packer::upload;
use super::publish::There;
use super::sharing::Sharing;

/// How often a record may have come in between.
const TRIES: usize = 10;

pub(super) fn revoke(sharing: &Sharing, id: LinkId) -> Result<(), ShareError> {
    let row = sharing.row(id)?;
    let Some(keys) = row.state.keys() else { return finish(sharing, id) };
    let signer = keys.signer();
    for _ in 0..TRIES {
        let there = sharing.block_on(There::look(sharing, id))?;
        if there.is_revoked {
            return finish(sharing, id);
        }
        let number = there.next_record(row.newest);
        let name = ObjectName::Share(id, number);
        match sharing.block_on(upload(sharing.store.as_ref(), &name, Bytes::from(tombstone(&signer, number))))? {
            Stored::Ours => return finish(sharing, id),
            Stored::Other => {}
        }
    }
    Err(ShareError::Conflict)
}

/// There is a tombstone: deletes all else, and forgets the keys.
pub(super) fn finish(sharing: &Sharing, id: LinkId) -> Result<(), ShareError> {
    sharing.block_on(sweep(sharing, id))?;
    sharing.forget(id);
    let mut row = sharing.row(id)?;
    if row.state == LinkState::Revoked {
        return Ok(());
    }
    row.state = LinkState::Revoked;
    row.live = false;
    sharing.put_row(id, &row)
}

/// All but tombstones. What a device that lags behind still publishes goes with its own next look.
async fn sweep(sharing: &Sharing, id: LinkId) -> Result<(), ShareError> {
    let store = sharing.store.as_ref();
    for name in store.list(Prefix::ShareOf(id)).await? {
        if let ObjectName::Share(_, number) = name {
            // What is no record of the owner's goes too.
            let found = super::get::record(store, id, number).await;
            if matches!(&found, Ok(Some(record)) if record.is_tombstone()) {
                continue;
            }
            if let Err(super::get::GetError::Store(error)) = found {
                return Err(error.into());
            }
        }
        store.delete(&name).await?;
    }
    Ok(())
}
