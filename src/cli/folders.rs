//! Where things are on this machine: XDG folders for a user, the system's for root.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::exit::{Code, Failure, Outcome};
use crate::base::Hash;

const APP: &str = "hushfs";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Journal, staging, replica, remembered head: what the store may not have yet. One folder per volume inside.
    pub state: PathBuf,
    /// Ciphertext only, and all of it in the store.
    pub cache: PathBuf,
    /// Control sockets.
    pub runtime: PathBuf,
}

impl Folders {
    pub fn of_this_user() -> Outcome<Self> {
        let uid = rustix::process::geteuid();
        Self::choose(uid.is_root(), uid.as_raw(), |name| std::env::var_os(name).map(PathBuf::from))
    }

    fn choose(is_root: bool, uid: u32, variable: impl Fn(&str) -> Option<PathBuf>) -> Outcome<Self> {
        if is_root {
            let under = |dir: &str| Path::new(dir).join(APP);
            return Ok(Self { state: under("/var/lib"), cache: under("/var/cache"), runtime: under("/run") });
        }
        // Relative paths are to be ignored, says the XDG specification.
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let home = || absolute("HOME").ok_or_else(|| Failure::usage("HOME is not set, so there is no place for state"));
        let xdg = |name: &str, default: &str| match absolute(name) {
            Some(dir) => Ok(dir.join(APP)),
            None => Ok::<_, Failure>(home()?.join(default).join(APP)),
        };
        Ok(Self {
            state: xdg("XDG_STATE_HOME", ".local/state")?,
            cache: xdg("XDG_CACHE_HOME", ".cache")?,
            runtime: match absolute("XDG_RUNTIME_DIR") {
                Some(dir) => dir.join(APP),
                None => runtime_of(uid),
            },
        })
    }
}

/// Where a user's sockets are, as another process can know.
pub fn runtime_of(uid: u32) -> PathBuf {
    if uid == 0 {
        return Path::new("/run").join(APP);
    }
    let session = PathBuf::from(format!("/run/user/{uid}"));
    if session.is_dir() { session.join(APP) } else { PathBuf::from(format!("/tmp/{APP}-{uid}")) }
}

/// Makes a folder that only its owner can look into, or checks that it is one: in `/tmp` someone else may have
/// been there first.
pub fn private_folder(path: &Path) -> Outcome {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| at(path, error.into()))?;
    let meta = std::fs::symlink_metadata(path).map_err(|error| at(path, error.into()))?;
    let owner = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != owner {
        return Err(at(path, Failure::new(Code::Other, "belongs to someone else")));
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(|error| at(path, error.into()))?;
    }
    Ok(())
}

fn at(path: &Path, failure: Failure) -> Failure {
    failure.context(format!("folder {}", path.display()))
}

/// Of this user's daemon that serves a mountpoint, given as the kernel shows it.
pub fn socket_of(mountpoint: &Path) -> Outcome<PathBuf> {
    Ok(Folders::of_this_user()?.runtime.join(socket_name(mountpoint)))
}

pub fn socket_name(mountpoint: &Path) -> String {
    format!("{}.sock", mount_tag(mountpoint))
}

/// What a mount's socket and log are called: a hash, as the path may be long, and is nobody's business in a listing.
pub fn mount_tag(mountpoint: &Path) -> String {
    let hash = Hash(crate::crypto::blake3(mountpoint.as_os_str().as_encoded_bytes())).to_string();
    hash[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_uses_the_systems_folders_and_users_their_own() {
        let root = Folders::choose(true, 0, |_| Some("/ignored".into())).unwrap();
        assert_eq!(root.state, Path::new("/var/lib/hushfs"));
        assert_eq!(root.runtime, Path::new("/run/hushfs"));

        let variables = |name: &str| match name {
            "HOME" => Some("/home/u".into()),
            "XDG_CACHE_HOME" => Some("/big/cache".into()),
            "XDG_STATE_HOME" => Some("relative".into()),
            _ => None,
        };
        let user = Folders::choose(false, 4_294_967, variables).unwrap();
        assert_eq!(user.state, Path::new("/home/u/.local/state/hushfs"));
        assert_eq!(user.cache, Path::new("/big/cache/hushfs"));
        assert_eq!(user.runtime, Path::new("/tmp/hushfs-4294967"));
        assert!(Folders::choose(false, 1, |_| None).is_err());
    }

    #[test]
    fn a_folder_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_folder(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        private_folder(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(private_folder(&dir.path().join("link")).is_err());
    }
}
