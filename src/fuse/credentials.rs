//! Who made a request, also what it does not say of them, and what follows from it.

use fuser::Request;

use crate::format::rows::XattrName;
use crate::vfs::api::{Kill, VfsError, VfsResult};
use crate::vfs::quota::OWN_PREFIX;

/// Whether the caller's group, or one of its supplementary groups, is `gid`. A caller that is gone is in none.
pub fn is_in_group(request: &Request, gid: u32) -> bool {
    request.gid() == gid || supplementary_groups(request.pid()).contains(&gid)
}

/// fuser 0.18 loses the kernel's own word on this for all but writes. Root has CAP_FSETID nearly always, and nobody
/// else has it.
pub fn kill(request: &Request) -> Kill {
    if request.uid() == 0 { Kill::No } else { Kill::Privileges }
}

/// The kernel lets everyone who may write to a file set attributes of a namespace that it does not know.
pub fn may_set(request: &Request, name: &XattrName) -> VfsResult<()> {
    let is_owner = || request.uid() == 0 || request.uid() == rustix::process::geteuid().as_raw();
    if name.as_bytes().starts_with(OWN_PREFIX) && !is_owner() { Err(VfsError::NotPermitted) } else { Ok(()) }
}

/// The kernel gives no trusted attribute to who may not administer the system, and leaves it to us to list none.
pub fn may_see(request: &Request, name: &XattrName) -> bool {
    request.uid() == 0 || !name.as_bytes().starts_with(b"trusted.")
}

fn supplementary_groups(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_groups(&status)
}

fn parse_groups(status: &str) -> Vec<u32> {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_of_groups_is_read() {
        let status = "Name:\tbash\nUid:\t0\t0\t0\t0\nGroups:\t4 24 1000 \nNStgid:\t1\n";
        assert_eq!(parse_groups(status), [4, 24, 1000]);
        assert!(parse_groups("Groups:\t \n").is_empty());
        assert!(parse_groups("").is_empty());
    }
}
