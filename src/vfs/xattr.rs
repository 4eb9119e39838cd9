//! Extended attributes, access control lists among them. Which namespaces a caller may use is the kernel's business.

use bytes::Bytes;

use crate::base::{InodeId, Timestamp};
use crate::format::intent::{AttrChange, Intent};
use crate::format::rows::{XATTR_LEN_MAX, XattrName, mode};
use crate::meta::Rows;

use super::acl::{ACL_LEN_MAX, Acl, AclKind};
use super::api::{VfsError, VfsResult, XattrMode};
use super::attr::CAPABILITY;
use super::drive::Drive;
use super::node::NodeState;
use super::quota::{OWN_PREFIX, QUOTA, parse_quota};

/// What listxattr(2) can hand out (XATTR_LIST_MAX).
const LIST_LEN_MAX: usize = 64 << 10;

impl Drive {
    pub(super) fn set_xattr(
        &self,
        ino: InodeId,
        name: &XattrName,
        value: Option<&[u8]>,
        how: XattrMode,
    ) -> VfsResult<()> {
        if value.is_some_and(|value| value.len() > XATTR_LEN_MAX) {
            return Err(VfsError::TooBig);
        }
        if let Some(kind) = AclKind::of(name) {
            return self.set_list(ino, kind, value);
        }
        let quota = match value {
            Some(value) if name.as_bytes() == QUOTA.as_bytes() => Some(parse_quota(value)?.0.to_string()),
            _ => None,
        };
        let is_own = name.as_bytes().starts_with(OWN_PREFIX);
        if is_own && (ino != InodeId::ROOT || name.as_bytes() != QUOTA.as_bytes()) {
            return Err(VfsError::NotSupported);
        }
        let value = quota.as_deref().map(str::as_bytes).or(value);
        if value.is_some() {
            self.check_names_room()?;
        }
        let _gate = self.change()?;
        let node = self.nodes.get_or_insert(ino);
        let result = self.set_xattr_locked(ino, name, value, how, &mut node.state.lock());
        drop(node);
        self.settle(ino);
        if is_own {
            self.reload_quota();
        }
        result
    }

    fn set_xattr_locked(
        &self,
        ino: InodeId,
        name: &XattrName,
        value: Option<&[u8]>,
        how: XattrMode,
        state: &mut NodeState,
    ) -> VfsResult<()> {
        let old = self.find_xattr(ino, name, state)?;
        match (how, old.is_some()) {
            (XattrMode::Create, true) => return Err(VfsError::Exists),
            (XattrMode::Replace, false) => return Err(VfsError::NoData),
            _ => {}
        }
        if old.is_none() && value.is_some() {
            let names = self.xattr_names(ino, state)?;
            let len: usize = names.iter().map(|name| name.as_bytes().len() + 1).sum();
            if len + name.as_bytes().len() + 1 > LIST_LEN_MAX {
                return Err(VfsError::NoSpace);
            }
        }
        if name.as_bytes() == CAPABILITY.as_bytes() {
            state.capability = None;
        }
        self.put_xattr(ino, name, value, state, self.now())
    }

    fn put_xattr(
        &self,
        ino: InodeId,
        name: &XattrName,
        value: Option<&[u8]>,
        state: &mut NodeState,
        time: Timestamp,
    ) -> VfsResult<()> {
        if let Some(ahead) = &mut state.ahead {
            ahead.ctime = time;
        }
        if let Some(orphan) = &mut state.orphan {
            orphan.xattrs.retain(|(other, _)| other != name);
            orphan.xattrs.extend(value.map(|value| (name.clone(), value.to_vec())));
            orphan.row.ctime = time;
            return Ok(());
        }
        self.submit(vec![Intent::SetXattr { ino, name: name.clone(), value: value.map(Into::into), time }])
    }

    /// One of the inode's access control lists. None, or one that says no more than a mode, takes it away; taking
    /// away what is not there is no error.
    fn set_list(&self, ino: InodeId, kind: AclKind, value: Option<&[u8]>) -> VfsResult<()> {
        let list = value.map(Acl::parse).transpose()?;
        if value.is_some_and(|value| value.len() > ACL_LEN_MAX) {
            return Err(VfsError::NoSpace);
        }
        let _gate = self.change()?;
        let node = self.nodes.get_or_insert(ino);
        let result = self.set_list_locked(ino, kind, list, &mut node.state.lock());
        drop(node);
        self.settle(ino);
        result
    }

    fn set_list_locked(&self, ino: InodeId, kind: AclKind, list: Option<Acl>, state: &mut NodeState) -> VfsResult<()> {
        let row = self.row(ino, state)?;
        if kind == AclKind::Default && !row.is_dir() {
            return if list.is_some() { Err(VfsError::Access) } else { Ok(()) };
        }
        let now = self.now();
        if let Some(list) = list.as_ref().filter(|_| kind == AclKind::Access) {
            let change = AttrChange { mode: Some(list.mode(row.mode)), ..AttrChange::default() };
            self.apply_attr_change(ino, state, change, now)?;
        }
        let kept = list.filter(|list| kind == AclKind::Default || !list.is_minimal());
        if kept.is_some() || self.find_xattr(ino, &kind.name(), state)?.is_some() {
            let value = kept.map(|list| list.encode());
            self.put_xattr(ino, &kind.name(), value.as_deref(), state, now)?;
        }
        Ok(())
    }

    /// What chmod does to an access list.
    pub(super) fn chmod_access_list(
        &self,
        ino: InodeId,
        state: &mut NodeState,
        mode: u32,
        now: Timestamp,
    ) -> VfsResult<()> {
        let name = AclKind::Access.name();
        let Some(old) = self.find_xattr(ino, &name, state)? else { return Ok(()) };
        let new = Acl::parse(&old)?.with_mode(mode).encode();
        if new == old { Ok(()) } else { self.put_xattr(ino, &name, Some(&new), state, now) }
    }

    /// The lists that something made in `parent` begins with, and its mode.
    pub(super) fn inherited_lists(
        &self,
        parent: InodeId,
        mode: u32,
        umask: u32,
    ) -> VfsResult<(Vec<(AclKind, Acl)>, u32)> {
        if mode & mode::TYPE == mode::LINK {
            return Ok((Vec::new(), mode));
        }
        let default = self.view().xattr(parent, &AclKind::Default.name()).map_err(self.failed("create"))?;
        let Some(default) = default.map(|list| Acl::parse(&list)).transpose()? else {
            return Ok((Vec::new(), mode & !umask));
        };
        let mut lists = Vec::new();
        if mode & mode::TYPE == mode::DIR {
            lists.push((AclKind::Default, default.clone()));
        }
        let (access, mode) = default.inherited(mode);
        if !access.is_minimal() {
            lists.push((AclKind::Access, access));
        }
        Ok((lists, mode))
    }

    pub(super) fn get_xattr(&self, ino: InodeId, name: &XattrName) -> VfsResult<Bytes> {
        let found = match self.nodes.get(ino) {
            Some(node) => self.find_xattr(ino, name, &node.state.lock())?,
            None => self.view().xattr(ino, name).map_err(self.failed("getxattr"))?,
        };
        found.map(Bytes::from).ok_or(VfsError::NoData)
    }

    pub(super) fn list_xattrs(&self, ino: InodeId) -> VfsResult<Vec<XattrName>> {
        let node = self.nodes.get_or_insert(ino);
        let names = self.xattr_names(ino, &node.state.lock());
        drop(node);
        self.settle(ino);
        let listed = |name: &XattrName| !name.as_bytes().starts_with(OWN_PREFIX);
        names.map(|names| names.into_iter().filter(listed).collect())
    }

    fn xattr_names(&self, ino: InodeId, state: &NodeState) -> VfsResult<Vec<XattrName>> {
        let attributes = match &state.orphan {
            Some(orphan) => orphan.xattrs.iter().map(|(name, _)| name.clone()).collect(),
            None => self.view().xattrs(ino).map_err(self.failed("listxattr"))?,
        };
        Ok(attributes)
    }

    fn find_xattr(&self, ino: InodeId, name: &XattrName, state: &NodeState) -> VfsResult<Option<Vec<u8>>> {
        match &state.orphan {
            Some(orphan) => Ok(orphan.xattrs.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())),
            None => self.view().xattr(ino, name).map_err(self.failed("getxattr")),
        }
    }
}
