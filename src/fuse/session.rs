//! Mounts a filesystem, runs it, and unmounts it.
//!
//! As root the mount is made here, because fuser mounts with the type `fuse` and `df -T` is to show
//! `fuse.hushfs`; otherwise fusermount3 makes it. Fork before a session is made, never after.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::adapter::Adapter;
use super::mounts::{self, FS_TYPE};
use super::notifier::Notifier;
use crate::vfs::api::{KernelCache, Vfs};

/// More gains nothing on few cores: a request that waits does not keep its thread.
const THREADS: usize = 2;
/// The session ends when the last mount of it is gone, which is this one unless another namespace has a copy.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Above what the kernel grants by itself (128 KiB); only root may raise it.
const READAHEAD_KIB: u32 = 1024;

#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source: the volume's URL.
    pub source: String,
    pub read_only: bool,
    pub allow_other: bool,
    pub allow_suid: bool,
    pub allow_devices: bool,
    pub no_exec: bool,
    pub synchronous: bool,
    pub dir_synchronous: bool,
    /// Cached contents end with the file's last close, so that a reader who opens it again is noticed (strictatime).
    pub forget_pages: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{0} is not a directory")]
    NotDirectory(PathBuf),
    #[error("a drive is mounted on {0} already")]
    AlreadyMounted(PathBuf),
    #[error("cannot mount on {path}")]
    Failed { path: PathBuf, source: io::Error },
}

#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    #[error("{0} is in use")]
    Busy(PathBuf),
    #[error("{0} is unmounted here, but still mounted in another mount namespace")]
    HeldElsewhere(PathBuf),
    #[error("cannot unmount {path}")]
    Failed { path: PathBuf, source: io::Error },
}

/// How a session ended: unmounted from anywhere, or broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Unmounted,
    Broken(String),
}

/// A running mount. Dropping it unmounts, if need be lazily.
pub struct Mounted {
    mountpoint: PathBuf,
    notifier: Notifier,
    ended: watch::Receiver<Option<Ended>>,
}

/// Serves `vfs` at `dir`. A dead mount that is still there, left by a process that was killed, is cleared first.
pub fn mount(dir: &Path, vfs: Arc<dyn Vfs>, runtime: Handle, options: &MountOptions) -> Result<Mounted, MountError> {
    let failed = |source| MountError::Failed { path: dir.into(), source };
    let mountpoint = mounts::resolve(dir).map_err(failed)?;
    clear_dead_mount(&mountpoint)?;
    if !mountpoint.is_dir() {
        return Err(MountError::NotDirectory(mountpoint));
    }

    let session =
        open_session(&mountpoint, Adapter::new(vfs, runtime, options.forget_pages), options).map_err(failed)?;
    // From here on a failure drops the session, and the guard takes the mount away.
    let guard = UnmountGuard(&mountpoint);
    let notifier = Notifier::start(session.notifier()).map_err(failed)?;
    let (end, ended) = watch::channel(None);
    let run = move || {
        let end_state = match session.run() {
            Ok(()) => Ended::Unmounted,
            Err(error) => Ended::Broken(error.to_string()),
        };
        end.send_replace(Some(end_state));
    };
    thread::Builder::new().name("hushfs-session".into()).spawn(run).map_err(failed)?;
    std::mem::forget(guard);

    if let Ok(Some(entry)) = mounts::mount_at(&mountpoint)
        && let Err(error) = mounts::set_readahead(&entry, READAHEAD_KIB)
    {
        tracing::debug!(%error, "the kernel's readahead stays as it is");
    }
    Ok(Mounted { mountpoint, notifier, ended })
}

struct UnmountGuard<'a>(&'a Path);

impl Drop for UnmountGuard<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, Lazy::Yes);
    }
}

impl Mounted {
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    pub fn kernel_cache(&self) -> Arc<dyn KernelCache> {
        Arc::new(self.notifier.clone())
    }

    /// Fails with `Busy` while anything is open in it. When this returns, no request is under way any more.
    pub async fn unmount(&self) -> Result<(), UnmountError> {
        if !self.has_ended() {
            // It writes dirty pages first, which the runtime may be needed for.
            let path = self.mountpoint.clone();
            let unmounted = tokio::task::spawn_blocking(move || unmount(&path, Lazy::No)).await;
            unmounted
                .map_err(|error| UnmountError::Failed { path: self.mountpoint.clone(), source: error.into() })??;
        }
        match tokio::time::timeout(ENDS_WITHIN, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(UnmountError::HeldElsewhere(self.mountpoint.clone())),
        }
    }

    /// Takes it out of the tree at once; what is open goes on until it is closed.
    pub fn detach(&self) -> Result<(), UnmountError> {
        if self.has_ended() {
            return Ok(());
        }
        unmount(&self.mountpoint, Lazy::Yes)
    }

    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits until the session is over, by whatever hand.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ended::Unmounted),
            // The sender is dropped without a word only when the session's thread panicked.
            Err(_) => Ended::Broken("the session's thread panicked".into()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::debug!(%error, "the mount was gone already");
        }
    }
}

fn open_session(mountpoint: &Path, adapter: Adapter, options: &MountOptions) -> io::Result<Session<Adapter>> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    if rustix::process::geteuid().is_root() {
        match mount_directly(mountpoint, options) {
            // The kernel's own check of who may ask is enough: fuser's would also refuse what the kernel sends
            // in the name of a process that was handed an open file.
            Ok(device) => {
                return Session::from_fd(adapter, device, SessionACL::All, config).inspect_err(|_| {
                    let _ = unmount(mountpoint, Lazy::Yes);
                });
            }
            // Root of a container that may not mount; the helper may.
            Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.mount_options = helper_options(options);
    Session::new(adapter, mountpoint, &config)
}

fn mount_directly(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, Errno> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|error| to_errno(&error))?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(options.source.as_str(), mountpoint, FS_TYPE, mount_flags(options), &*data)?;
    Ok(device.into())
}

/// Changes the flags of a mounted drive in place. The kernel enforces them, so the daemon need not know.
pub fn remount(mountpoint: &Path, options: &MountOptions) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(mountpoint, mount_flags(options), c"")?)
}

fn mount_flags(options: &MountOptions) -> MountFlags {
    let chosen = [
        (options.read_only, MountFlags::RDONLY),
        (!options.allow_suid, MountFlags::NOSUID),
        (!options.allow_devices, MountFlags::NODEV),
        (options.no_exec, MountFlags::NOEXEC),
        (options.synchronous, MountFlags::SYNCHRONOUS),
        (options.dir_synchronous, MountFlags::DIRSYNC),
    ];
    chosen.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect()
}

/// As `mount_flags`, in fusermount3's words. It decides itself whether a user may have them.
fn helper_options(options: &MountOptions) -> Vec<MountOption> {
    let chosen = [
        (options.read_only, MountOption::RO),
        (options.allow_suid, MountOption::Suid),
        (options.allow_devices, MountOption::Dev),
        (options.no_exec, MountOption::NoExec),
        (options.synchronous, MountOption::Sync),
        (options.dir_synchronous, MountOption::DirSync),
    ];
    // A comma would end the option.
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let always = [MountOption::FSName(source), MountOption::Subtype("hushfs".into()), MountOption::DefaultPermissions];
    always.into_iter().chain(chosen.into_iter().filter(|(on, _)| *on).map(|(_, option)| option)).collect()
}

fn clear_dead_mount(mountpoint: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Failed { path: mountpoint.into(), source };
    let is_drive = mounts::mount_at(mountpoint).map_err(failed)?.is_some_and(|entry| entry.is_drive());
    if !is_drive {
        return Ok(());
    }
    if !is_dead(mountpoint) {
        return Err(MountError::AlreadyMounted(mountpoint.into()));
    }
    tracing::warn!("clearing a mount whose process is gone");
    unmount(mountpoint, Lazy::Yes).map_err(|error| match error {
        UnmountError::Busy(_) | UnmountError::HeldElsewhere(_) => failed(io::ErrorKind::ResourceBusy.into()),
        UnmountError::Failed { source, .. } => failed(source),
    })
}

/// Whether a drive's process is gone and the kernel still shows its mount. Asked by statfs, which the kernel
/// never answers from its cache.
pub fn is_dead(mountpoint: &Path) -> bool {
    matches!(rustix::fs::statfs(mountpoint), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lazy {
    No,
    Yes,
}

/// Of any drive, by its place; the setuid helper is asked where this process may not.
pub fn unmount(mountpoint: &Path, lazy: Lazy) -> Result<(), UnmountError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazy == Lazy::Yes {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy(mountpoint.into())),
        Err(Errno::PERM) => unmount_by_helper(mountpoint, lazy),
        Err(error) => Err(UnmountError::Failed { path: mountpoint.into(), source: error.into() }),
    }
}

fn unmount_by_helper(mountpoint: &Path, lazy: Lazy) -> Result<(), UnmountError> {
    let failed = |source| UnmountError::Failed { path: mountpoint.into(), source };
    let mut command = Command::new("fusermount3");
    command.arg(if lazy == Lazy::Yes { "-uz" } else { "-u" }).arg("--").arg(mountpoint);
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") {
        return Err(UnmountError::Busy(mountpoint.into()));
    }
    Err(failed(io::Error::other(message)))
}

fn to_errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
