//! The rows of links: what the volume's owner keeps of each. What a link is, and what is in it, is `share`'s.

use crate::base::LinkId;
use crate::format::intent::Intent;
use crate::format::link::LinkRow;
use crate::format::rows::RowKey;
use crate::meta::Rows;

use super::api::VfsResult;
use super::drive::Drive;

impl Drive {
    pub fn links(&self) -> VfsResult<Vec<(LinkId, LinkRow)>> {
        self.view().links().map_err(self.failed("links"))
    }

    pub fn link_row(&self, id: LinkId) -> VfsResult<Option<LinkRow>> {
        self.view().link(id).map_err(self.failed("links"))
    }

    /// On this machine's disk when it returns: a key must outlive whatever is published under it.
    pub fn put_link_row(&self, id: LinkId, row: &LinkRow) -> VfsResult<()> {
        {
            let _gate = self.change()?;
            let value = row.encode().as_slice().into();
            self.submit(vec![Intent::Fact { key: RowKey::Link(id), value }])?;
        }
        self.sync_all()
    }
}
