//! Which drive is meant: one that is mounted, and asked over its daemon's socket, or a volume that this process opens.

use std::path::{Path, PathBuf};

use super::args::UnmountedArgs;
use super::protocol::{ShareEvent, ShareRequest};
use crate::cli::args::DEFAULT_CACHE_BYTES;
use crate::cli::commands::{block_on, mounted_by_us};
use crate::cli::control::{Client, Request};
use crate::cli::drive::{self, OpenOptions};
use crate::cli::exit::{Code, Failure, Outcome};
use crate::cli::folders::Folders;
use crate::cli::mount_options::{Atime, FsyncMode};
use crate::cli::serve::Backend;
use crate::fuse::mounts;
use crate::meta::keyring::Trust;

pub(super) enum Reach<'a> {
    Mounted(PathBuf),
    Volume { url: String, args: &'a UnmountedArgs },
}

impl std::fmt::Display for Reach<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mounted(mountpoint) => write!(f, "{}", mountpoint.display()),
            Self::Volume { url, .. } => f.write_str(url),
        }
    }
}

/// The drive that this path is in, and the path from its root.
pub(super) fn mounted_path(path: &Path) -> Outcome<Option<(PathBuf, PathBuf)>> {
    let Ok(real) = path.canonicalize() else { return Ok(None) };
    let drives = mounts()?.into_iter().filter(|entry| entry.is_drive() && real.starts_with(&entry.mountpoint));
    // The innermost; of two at one place the later lies over the earlier.
    let Some(drive) = drives.max_by_key(|entry| entry.mountpoint.as_os_str().len()) else { return Ok(None) };
    let inside = real.strip_prefix(&drive.mountpoint).map(Path::to_owned).unwrap_or_default();
    Ok(Some((drive.mountpoint, inside)))
}

impl<'a> Reach<'a> {
    /// A directory of a mounted drive, or else a volume's URL.
    pub fn place(place: &str, args: &'a UnmountedArgs) -> Outcome<Self> {
        if !place.contains("://")
            && let Some((mountpoint, _)) = mounted_path(Path::new(place))?
        {
            return Ok(Self::Mounted(mountpoint));
        }
        Ok(Self::Volume { url: args.reach.store(place)?.url, args })
    }

    /// All that this user has mounted.
    pub fn all_mounted() -> Outcome<Vec<Self>> {
        let mut found = Vec::new();
        for client in Client::all()? {
            // One that is just ending has no answer, and is no failure.
            if let Ok(status) = client.status()
                && status.mounted
            {
                found.push(Self::Mounted(status.mountpoint.into()));
            }
        }
        Ok(found)
    }

    pub fn ask(
        &self,
        request: ShareRequest,
        take: &mut (dyn FnMut(ShareEvent) + Send),
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Outcome {
        match self {
            Self::Mounted(mountpoint) => {
                let (client, _) = Client::for_mount(mountpoint)?;
                client.share(Request::Share { request }, take, interrupted)
            }
            Self::Volume { url, args } => match mounted_by_us(url)? {
                // Its device is the daemon's.
                Some((mountpoint, _)) => Self::Mounted(mountpoint).ask(request, take, interrupted),
                None => self.ask_unmounted(url, args, request, take, interrupted),
            },
        }
    }

    /// By this machine's own device of the volume, which nobody else uses meanwhile.
    fn ask_unmounted(
        &self,
        url: &str,
        args: &UnmountedArgs,
        request: ShareRequest,
        take: &mut (dyn FnMut(ShareEvent) + Send),
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Outcome {
        let folders = Folders::of_this_user()?;
        let options = OpenOptions {
            store: args.reach.store(url)?,
            secret: args.unlock.secret()?,
            trust: Trust::Secret,
            state: std::path::absolute(args.device.state_dir.as_deref().unwrap_or(&folders.state))?,
            cache: std::path::absolute(args.device.cache_dir.as_deref().unwrap_or(&folders.cache))?,
            cache_bytes_max: DEFAULT_CACHE_BYTES,
            read_only: false,
            fsync: FsyncMode::Local,
            atime: Atime::Never,
            directory_atime: false,
            quota: None,
            allow_large_kdf: false,
            accept_loss: false,
        };
        block_on(async {
            let drive = drive::open_drive(options).await?;
            let sharing = drive.sharing()?;
            let outcome = tokio::task::block_in_place(|| {
                super::perform(&sharing, request, &mut |event| {
                    take(event);
                    !interrupted()
                })
            });
            drop(sharing);
            // The row that knows the link goes to the store too, or no other machine could take it back.
            let closed = drive.close(outcome.is_ok()).await;
            outcome.and(closed)
        })
    }
}

/// The first of them that knows the link.
pub(super) fn that_has<'a>(id: &str, places: Vec<Reach<'a>>) -> Outcome<Reach<'a>> {
    let none = places.is_empty();
    let mut failed = None;
    for place in places {
        let asked = place.ask(ShareRequest::Show { id: id.into() }, &mut |_| {}, &|| false);
        match asked {
            Ok(()) => return Ok(place),
            Err(failure) if failure.code == Code::LinkGone => {}
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    let why = if none { "nothing is mounted; say which volume it is of" } else { "no mounted drive has this link" };
    Err(failed.unwrap_or_else(|| Failure::new(Code::LinkGone, why)))
}
