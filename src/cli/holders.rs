//! Which processes keep a drive from being unmounted, as far as this user may see.

use std::fs;
use std::path::{Path, PathBuf};

/// More than this nobody reads.
const SHOWN_MAX: usize = 5;

struct Process {
    folder: PathBuf,
    id: u32,
}

/// Those with open files or their working directory below `mountpoint`: "bash (4711), vim (4712)".
pub fn with_files_below(mountpoint: &Path) -> Option<String> {
    shown(processes().filter(|process| process.has_files_below(mountpoint)))
}

/// Those in other mount namespaces that still have a drive, which is `device`, mounted.
pub fn with_mounts_of(device: &str) -> Option<String> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let elsewhere = |process: &Process| fs::read_link(process.folder.join("ns/mnt")).ok() != own;
    shown(processes().filter(elsewhere).filter(|process| process.mounts(device)))
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(Process { id: entry.file_name().to_str()?.parse().ok()?, folder: entry.path() }))
}

fn shown(found: impl Iterator<Item = Process>) -> Option<String> {
    let mut names: Vec<String> = found.take(SHOWN_MAX + 1).map(|process| process.shown()).collect();
    if names.len() > SHOWN_MAX {
        names[SHOWN_MAX] = "and others".into();
    }
    (!names.is_empty()).then(|| names.join(", "))
}

impl Process {
    fn has_files_below(&self, mountpoint: &Path) -> bool {
        let open = fs::read_dir(self.folder.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let links = ["cwd", "root", "exe"].into_iter().map(|name| self.folder.join(name)).chain(open);
        // A link's text is the kernel's; nothing of the mount is touched, which may not answer.
        links.filter_map(|link| fs::read_link(link).ok()).any(|target| target.starts_with(mountpoint))
    }

    fn mounts(&self, device: &str) -> bool {
        let mountinfo = fs::read_to_string(self.folder.join("mountinfo")).unwrap_or_default();
        mountinfo.lines().any(|line| line.split(' ').nth(2) == Some(device))
    }

    fn shown(&self) -> String {
        let name = fs::read_to_string(self.folder.join("comm")).unwrap_or_default();
        // A process chooses its own name, and the terminal is not its.
        let name: String = name.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        format!("{name} ({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_open_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(with_files_below(dir.path()), None);
        let _open = fs::File::create(dir.path().join("file")).unwrap();
        let found = with_files_below(dir.path()).unwrap();
        assert!(found.contains(&format!("({})", std::process::id())), "{found}");
        assert_eq!(with_mounts_of("no such device"), None);
    }
}
