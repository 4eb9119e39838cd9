//! POSIX access control lists, as Linux keeps them in extended attributes.
//!
//! The kernel checks permissions by them and asks the filesystem for the rest: that a file's mode says the same as
//! its list, and that new inodes inherit the directory's default. Invariant: what `parse` accepts has the three
//! entries that any mode has, and a mask where it names a user or a group. Pure; knows no inodes.

use crate::format::rows::XattrName;

use super::api::{VfsError, VfsResult};

const VERSION: u32 = 2;
const HEADER_LEN: usize = 4;
const ENTRY_LEN: usize = 8;
/// The kernel reads a list into one page.
pub const ACL_LEN_MAX: usize = 4096;

mod tag {
    pub const USER_OBJ: u16 = 0x01;
    pub const USER: u16 = 0x02;
    pub const GROUP_OBJ: u16 = 0x04;
    pub const GROUP: u16 = 0x08;
    pub const MASK: u16 = 0x10;
    pub const OTHER: u16 = 0x20;
}

/// Which of an inode's two lists an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    Access,
    /// Of a directory: what is made in it begins with this.
    Default,
}

impl AclKind {
    /// None for all other attributes.
    pub fn of(name: &XattrName) -> Option<Self> {
        match name.as_bytes() {
            b"system.posix_acl_access" => Some(Self::Access),
            b"system.posix_acl_default" => Some(Self::Default),
            _ => None,
        }
    }

    pub fn name(self) -> XattrName {
        let name = match self {
            Self::Access => "system.posix_acl_access",
            Self::Default => "system.posix_acl_default",
        };
        XattrName::parse(name).expect("a name that is neither empty nor long")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    /// Of `USER` and `GROUP`; kept as it came for the others.
    id: u32,
}

impl Acl {
    pub fn parse(bytes: &[u8]) -> VfsResult<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(VfsError::Invalid)?;
        if u32::from_le_bytes(*header) != VERSION || rest.len() % ENTRY_LEN != 0 {
            return Err(VfsError::Invalid);
        }
        let entry = |bytes: &[u8]| match *bytes {
            [t0, t1, p0, p1, i0, i1, i2, i3] => Some(Entry {
                tag: u16::from_le_bytes([t0, t1]),
                permissions: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([i0, i1, i2, i3]),
            }),
            _ => None,
        };
        let acl = Self(rest.chunks(ENTRY_LEN).filter_map(entry).collect());
        if acl.is_valid() { Ok(acl) } else { Err(VfsError::Invalid) }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = count(tag::USER) + count(tag::GROUP);
        let masks = count(tag::MASK);
        // In the order of their tags, which is also the order that they are checked in.
        self.0.is_sorted_by_key(|entry| entry.tag)
            && self.0.iter().all(|entry| entry.permissions <= 7)
            && [tag::USER_OBJ, tag::GROUP_OBJ, tag::OTHER].into_iter().all(|tag| count(tag) == 1)
            && (masks == 1 || masks == 0 && named == 0)
            && named + masks + 3 == self.0.len()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.permissions.to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out
    }

    /// Whether a mode says all that it says.
    pub fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// The mode of an inode that gets this list. The group's bits are the mask's, where there is one.
    pub fn mode(&self, mode: u32) -> u32 {
        let bits = |tag| u32::from(self.0.iter().find(|entry| entry.tag == tag).map_or(0, |entry| entry.permissions));
        mode & !0o777 | bits(tag::USER_OBJ) << 6 | bits(self.group_tag()) << 3 | bits(tag::OTHER)
    }

    /// The list after chmod(2).
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.update(|_, bits| bits, mode);
        self
    }

    /// What an inode made with `mode` begins with in a directory whose default this is: its list, and its mode.
    pub fn inherited(mut self, mode: u32) -> (Self, u32) {
        self.update(|old, bits| old & bits, mode);
        let mode = self.mode(mode);
        (self, mode)
    }

    fn update(&mut self, new: impl Fn(u16, u16) -> u16, mode: u32) {
        let group = self.group_tag();
        for entry in &mut self.0 {
            let shift = match entry.tag {
                tag::USER_OBJ => 6,
                tag::OTHER => 0,
                other if other == group => 3,
                _ => continue,
            };
            entry.permissions = new(entry.permissions, (mode >> shift & 7) as u16);
        }
    }

    /// The entry that the mode's middle bits are.
    fn group_tag(&self) -> u16 {
        if self.is_minimal() { tag::GROUP_OBJ } else { tag::MASK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect())
    }

    /// u::rwx u:5:rwx g::r-x m::rwx o::r--
    fn named() -> Acl {
        let none = u32::MAX;
        acl(&[
            (tag::USER_OBJ, 7, none),
            (tag::USER, 7, 5),
            (tag::GROUP_OBJ, 5, none),
            (tag::MASK, 7, none),
            (tag::OTHER, 4, none),
        ])
    }

    #[test]
    fn a_list_is_what_it_was_encoded_from() {
        assert_eq!(Acl::parse(&named().encode()), Ok(named()));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let good = named().encode();
        for len in 0..good.len() {
            assert_eq!(Acl::parse(&good[..len]), Err(VfsError::Invalid), "{len}");
        }
        let none = u32::MAX;
        for entries in [
            &[][..],
            &[(tag::USER_OBJ, 7, none), (tag::GROUP_OBJ, 5, none)],
            // No mask, two masks, an unknown tag, a permission that is none, the wrong order.
            &[(tag::USER_OBJ, 7, none), (tag::USER, 7, 5), (tag::GROUP_OBJ, 5, none), (tag::OTHER, 4, none)],
            &[
                (tag::USER_OBJ, 7, none),
                (tag::GROUP_OBJ, 5, none),
                (tag::MASK, 5, none),
                (tag::MASK, 5, none),
                (tag::OTHER, 4, none),
            ],
            &[(tag::USER_OBJ, 7, none), (tag::GROUP_OBJ, 5, none), (tag::OTHER, 4, none), (0x40, 4, none)],
            &[(tag::USER_OBJ, 8, none), (tag::GROUP_OBJ, 5, none), (tag::OTHER, 4, none)],
            &[(tag::GROUP_OBJ, 5, none), (tag::USER_OBJ, 7, none), (tag::OTHER, 4, none)],
        ] {
            assert_eq!(Acl::parse(&acl(entries).encode()), Err(VfsError::Invalid), "{entries:?}");
        }
        let mut version = good;
        version[0] = 1;
        assert_eq!(Acl::parse(&version), Err(VfsError::Invalid));
    }

    #[test]
    fn the_middle_bits_of_a_mode_are_the_masks() {
        assert_eq!(named().mode(0o102000), 0o102774);
        assert_eq!(named().with_mode(0o100640).mode(0o100777), 0o100640);
        let group = 5;
        assert_eq!(named().with_mode(0o640).0[2].permissions, group, "the group's own entry stays");
    }

    #[test]
    fn a_new_inode_gets_no_more_than_its_creator_asked_for() {
        let (list, mode) = named().inherited(0o100640);
        assert_eq!(mode, 0o100640);
        let permissions: Vec<u16> = list.0.iter().map(|entry| entry.permissions).collect();
        assert_eq!(permissions, [6, 7, 5, 4, 0]);
        assert_eq!(named().inherited(0o40777).1, 0o40774);
    }
}
