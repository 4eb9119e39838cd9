//! What is asked of the kernel when the session begins.

use std::io;

use fuser::{InitFlags, KernelConfig};

use crate::base::MIB;

const MAX_WRITE: u32 = MIB as u32;
const MAX_BACKGROUND: u16 = 64;

/// Without AUTO_INVAL_DATA and WRITEBACK_CACHE: the vfs says what changed, and owns sizes and times.
/// Without ATOMIC_O_TRUNC: the kernel would have us cut a program that runs before it finds that to be ETXTBSY.
/// Without ASYNC_DIO: after a direct write that the kernel did not wait for, it leaves the pages that others have read
/// meanwhile as they were (xfstests generic/451).
/// Never SETXATTR_EXT or ALLOW_IDMAP, which fuser 0.18 cannot serve.
const WANTED: [InitFlags; 9] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // File handles stay good when the kernel has forgotten the inode: lookups of `.` and `..` find it again.
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_MAX_PAGES,
    // The kernel checks lists, and leaves the umask to us: a default list takes its place.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
];

/// A capability that this kernel lacks is done without.
pub fn negotiate(config: &mut KernelConfig) -> io::Result<()> {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "this kernel does not have a capability");
        }
    }
    // These fail only for values out of range, and say the nearest possible one.
    config.set_max_write(MAX_WRITE).map_err(|_| io::ErrorKind::InvalidInput)?;
    config.set_max_background(MAX_BACKGROUND).map_err(|_| io::ErrorKind::InvalidInput)?;
    config.set_congestion_threshold(MAX_BACKGROUND * 3 / 4).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(())
}
