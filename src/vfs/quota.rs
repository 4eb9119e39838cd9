//! How much a volume may hold, and how much it says to hold.
//!
//! The quota is an attribute of the root directory, so that all devices know it: what `mount --quota` and
//! `setfattr -n hushfs.quota` set. It is not listed, since tools that make one tree's attributes like another's (rsync
//! -X) would take it away.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{ByteRange, ByteSize, InodeId};
use crate::content::extent;
use crate::format::rows::{InodeRow, XattrName};
use crate::meta::Rows;

use super::api::{StatFs, VfsError, VfsResult, XattrMode};
use super::drive::Drive;
use super::node::NodeState;

/// The volume's own attributes begin so.
pub const OWN_PREFIX: &[u8] = b"hushfs.";
pub const QUOTA: &str = "hushfs.quota";

const STATFS_BLOCK_LEN: u32 = 4096;
/// A bucket has no end.
const FREE_BYTES: u64 = 1 << 50;
const FREE_INODES: u64 = 1 << 40;

/// In bytes, as far as this device has heard.
pub struct Quota(AtomicU64);

impl Default for Quota {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }
}

impl Quota {
    const NONE: u64 = u64::MAX;

    fn bytes(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bytes| *bytes != Self::NONE)
    }
}

fn name() -> VfsResult<XattrName> {
    XattrName::parse(QUOTA).ok_or(VfsError::Invalid)
}

/// The attribute's value as it is stored: a number of bytes.
pub fn parse_quota(value: &[u8]) -> VfsResult<ByteSize> {
    let text = std::str::from_utf8(value).map_err(|_| VfsError::Invalid)?;
    text.trim_end_matches(['\0', '\n']).parse().map_err(|_| VfsError::Invalid)
}

impl Drive {
    /// For all devices, from now on; zero is none.
    pub fn set_quota(&self, quota: ByteSize) -> VfsResult<()> {
        let name = name()?;
        let old = self.view().xattr(InodeId::ROOT, &name).map_err(self.failed("quota"))?;
        match (quota.0, old) {
            (0, None) => Ok(()),
            (0, Some(_)) => self.set_xattr(InodeId::ROOT, &name, None, XattrMode::Set),
            (bytes, Some(old)) if parse_quota(&old) == Ok(ByteSize(bytes)) => Ok(()),
            (bytes, _) => self.set_xattr(InodeId::ROOT, &name, Some(bytes.to_string().as_bytes()), XattrMode::Set),
        }
    }

    /// After the attribute may have changed.
    pub(super) fn reload_quota(&self) {
        let stored = name().and_then(|name| self.view().xattr(InodeId::ROOT, &name).map_err(self.failed("quota")));
        match stored {
            Ok(value) => {
                let quota = value.and_then(|value| parse_quota(&value).ok()).filter(|quota| quota.0 > 0);
                self.quota.0.store(quota.map_or(Quota::NONE, |quota| quota.0), Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("the quota could not be read: {error}"),
        }
    }

    /// Whether `range` of a file may be filled. What has its place already may be written again when all is full.
    /// `reserved` of the unsealed bytes are this write's own.
    pub(super) fn check_room(
        &self,
        ino: InodeId,
        row: &InodeRow,
        state: &NodeState,
        range: ByteRange,
        reserved: u64,
    ) -> VfsResult<()> {
        let Some(quota) = self.quota.bytes() else {
            return if range.len() <= FREE_BYTES { Ok(()) } else { Err(VfsError::NoSpace) };
        };
        let used = self.used_bytes().saturating_sub(reserved);
        if used.saturating_add(range.len()) <= quota {
            return Ok(());
        }
        let extents = match &state.orphan {
            Some(orphan) => orphan.extents.clone(),
            None => self.view().extents(ino, row, range).map_err(self.failed("write"))?,
        };
        let holes = extent::holes(&extents, range).filter(|hole| !state.dirty.covers(*hole));
        let new: u64 = holes.map(|hole| hole.len()).sum();
        if new == 0 || used.saturating_add(new) <= quota { Ok(()) } else { Err(VfsError::NoSpace) }
    }

    /// What files take, with what is not committed yet and what is not even sealed.
    fn used_bytes(&self) -> u64 {
        (self.view().usage().bytes.max(0) as u64).saturating_add(self.budget.used())
    }

    pub(super) fn stat_filesystem(&self) -> VfsResult<StatFs> {
        let used = self.used_bytes();
        let inodes = self.view().usage().inodes.max(0) as u64;
        let free = self.quota.bytes().map_or(FREE_BYTES, |quota| quota.saturating_sub(used));
        let total = self.quota.bytes().unwrap_or(used.saturating_add(FREE_BYTES));
        let blocks_free = free / u64::from(STATFS_BLOCK_LEN);
        Ok(StatFs {
            block_len: STATFS_BLOCK_LEN,
            // Used is total less free, as everybody computes it.
            blocks: (total / u64::from(STATFS_BLOCK_LEN)).max(blocks_free),
            blocks_free,
            blocks_available: blocks_free,
            files: inodes + FREE_INODES,
            files_free: FREE_INODES,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_written_as_people_write_sizes() {
        assert_eq!(parse_quota(b"200GiB"), Ok(ByteSize(200 << 30)));
        assert_eq!(parse_quota(b"4096\0"), Ok(ByteSize(4096)));
        for bad in [&b"much"[..], b"", b"\xff", b"-1"] {
            assert_eq!(parse_quota(bad), Err(VfsError::Invalid));
        }
    }
}
