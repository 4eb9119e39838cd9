//! What the kernel says is mounted, from `/proc/self/mountinfo`. Reading it never touches a mount, so it works
//! for a drive that hangs or whose process is gone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

pub const FS_TYPE: &str = "fuse.hushfs";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor`, which also names the mount's folder under `/sys/class/bdi`.
    pub device: String,
    pub mountpoint: PathBuf,
    pub fs_type: String,
    /// For a drive its volume's URL.
    pub source: OsString,
    /// The user whose process serves it.
    pub owner: Option<u32>,
}

impl MountEntry {
    pub fn is_drive(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// In the order they were mounted.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// What one sees at `dir`: the last that was mounted there.
pub fn mount_at(dir: &Path) -> io::Result<Option<MountEntry>> {
    let dir = resolve(dir)?;
    Ok(mounts()?.into_iter().rfind(|entry| entry.mountpoint == dir))
}

/// The canonical path, found without looking at `dir` itself, which may be a mount that no longer answers.
pub fn resolve(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) => {
            let path = parent.canonicalize()?.join(name);
            let is_mountpoint = mounts()?.iter().any(|entry| entry.mountpoint == path);
            if !is_mountpoint && path.is_symlink() {
                resolve(&parent.join(std::fs::read_link(&path)?))
            } else {
                Ok(path)
            }
        }
        // The root, or a path that ends in `..`.
        _ => dir.canonicalize(),
    }
}

fn parse(mountinfo: &[u8]) -> Vec<MountEntry> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mountpoint options [optional…] - type source super-options`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let mountpoint = PathBuf::from(unescape(fields.nth(1)?));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = unescape(fields.next()?);
    let options = fields.next().and_then(|field| std::str::from_utf8(field).ok()).unwrap_or_default();
    let owner = options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
    Some(MountEntry { device, mountpoint, fs_type, source, owner })
}

/// The kernel writes blanks and backslashes as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            digits.iter().try_fold(0u32, |value, digit| match digit {
                b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
                _ => None,
            })
        });
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

/// The bus that the kernel's own readahead is set on.
pub fn set_readahead(entry: &MountEntry, kib: u32) -> io::Result<()> {
    let path = Path::new("/sys/class/bdi").join(OsStr::new(&entry.device)).join("read_ahead_kb");
    std::fs::write(path, kib.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_blanks_is_read() {
        let text = b"22 1 0:21 / /proc rw shared:5 master:1 - proc proc rw\n\
            300 22 0:77 / /mnt/a\\040b\\134 rw,nosuid - fuse.hushfs s3://bucket/x rw,user_id=1000,group_id=5\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].fs_type, "proc");
        assert_eq!(entries[1].mountpoint, Path::new("/mnt/a b\\"));
        assert_eq!(entries[1].device, "0:77");
        assert!(entries[1].is_drive());
        assert_eq!(entries[1].source, "s3://bucket/x");
        assert_eq!((entries[0].owner, entries[1].owner), (None, Some(1000)));
    }

    #[test]
    fn a_path_through_links_is_the_one_the_kernel_shows() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        assert_eq!(resolve(&base.join("link")).unwrap(), base.join("real"));
        assert_eq!(resolve(&base.join("link/../link/")).unwrap(), base.join("real"));
        assert_eq!(resolve(&base.join("real")).unwrap(), base.join("real"));
    }
}
