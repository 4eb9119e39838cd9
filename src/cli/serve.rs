//! A drive's life once it is open: mounted, asked things, told to stop, closed.
//!
//! Order at the end: unmounted first, so that nothing more is written, then everything goes to the store, then
//! the layers close. A crash or a second signal at any point leaves what is missing in the state folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::control::{Control, Left, Server, Status};
use super::daemon::Ready;
use super::exit::{Code, Failure, OrExit, Outcome};
use super::status::counted;
use crate::base::ByteSize;
use crate::fuse::{Ended, MountError, MountOptions, Mounted, UnmountError, mount};
use crate::vfs::api::{KernelCache, Vfs};

/// How often unmounting is tried again while files are open, after a signal.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// An open drive, as whoever serves it sees it.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    fn vfs(&self) -> Arc<dyn Vfs>;

    /// Whom to tell of changes that come from elsewhere.
    fn mounted(&self, kernel: Arc<dyn KernelCache>);

    /// Without what the caller knows: url, mountpoint, mounted, pid and version.
    fn status(&self) -> Status;

    fn left(&self) -> Left;

    /// Until all that was acknowledged before is in the store. May be dropped at any time.
    async fn flush(&self) -> Outcome;

    /// After the unmount. With `wait` as `flush`; else leaves what is missing to the next mount. Ends all tasks.
    /// May be dropped at any time, which is no worse than a crash.
    async fn close(&self, wait: bool) -> Outcome;

    /// Gives the volume new keys, which all slots but `without` open. Returns the new epoch.
    async fn rotate(&self, _without: Option<u16>) -> Outcome<u32> {
        Err(Failure::new(Code::Other, "this drive has no keys"))
    }

    /// What is under keys of before a rotation.
    fn left_to_reseal(&self) -> Left {
        Left::default()
    }

    /// Until all of that is under new keys and in the store. May be dropped at any time, and goes on.
    async fn reseal(&self, _rate: Option<u64>) -> Outcome {
        Err(Failure::new(Code::Other, "this drive has no keys"))
    }
}

/// What to serve, and where.
pub struct Plan {
    pub mountpoint: PathBuf,
    pub socket: PathBuf,
    pub mount: MountOptions,
}

/// Counts SIGINT, SIGTERM and SIGHUP from its making on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// In a runtime.
    pub fn listen() -> Outcome<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Until the drive is unmounted and closed.
pub async fn serve(backend: Arc<dyn Backend>, plan: Plan, ready: &mut Option<Ready>, signals: &mut Signals) -> Outcome {
    let runtime = tokio::runtime::Handle::current();
    let mounted = mount(&plan.mountpoint, backend.vfs(), runtime, &plan.mount).map_err(mount_failure)?;
    let drive =
        Arc::new(Serving { backend, mounted, plan, wait: AtomicBool::new(true), closed: watch::Sender::new(false) });
    drive.backend.mounted(drive.mounted.kernel_cache());
    let server = Server::start(&drive.plan.socket, drive.clone())?;
    if let Some(ready) = ready.take() {
        ready.succeeded()?;
    }
    tracing::info!("mounted");

    let outcome = drive.run(signals).await;
    drive.closed.send_replace(true);
    server.finish().await;
    outcome
}

struct Serving {
    backend: Arc<dyn Backend>,
    mounted: Mounted,
    plan: Plan,
    /// Whether closing waits for the store.
    wait: AtomicBool,
    closed: watch::Sender<bool>,
}

impl Serving {
    async fn run(&self, signals: &mut Signals) -> Outcome {
        let ended = tokio::select! {
            ended = self.mounted.ended() => ended,
            () = signals.next() => self.stop_on_signal(signals).await,
        };
        tracing::info!("unmounted");
        let closed = tokio::select! {
            closed = self.backend.close(self.wait.load(Ordering::SeqCst)) => closed,
            () = signals.next() => Err(self.interrupted()),
        };
        match ended {
            Ended::Unmounted => closed,
            Ended::Broken(why) => {
                closed.and_then(|()| Err(Failure::new(Code::Other, format!("the mount broke: {why}"))))
            }
        }
    }

    /// After a first signal: as soon as nothing is open any more, or at a second one.
    async fn stop_on_signal(&self, signals: &mut Signals) -> Ended {
        tracing::info!("stopping after a signal; a second one does not wait");
        loop {
            match self.mounted.unmount().await {
                Ok(()) => return self.mounted.ended().await,
                // What they wrote goes into the store as all else; then their mounts end with this process.
                Err(error @ UnmountError::HeldElsewhere(_)) => {
                    tracing::warn!("{}", without_path(&error));
                    return Ended::Unmounted;
                }
                Err(error) => tracing::warn!("{}", without_path(&error)),
            }
            tokio::select! {
                ended = self.mounted.ended() => return ended,
                () = tokio::time::sleep(BUSY_RETRY) => {}
                () = signals.next() => {
                    self.wait.store(false, Ordering::SeqCst);
                    return match self.mounted.detach() {
                        Ok(()) => Ended::Unmounted,
                        Err(error) => Ended::Broken(error.to_string()),
                    };
                }
            }
        }
    }

    fn interrupted(&self) -> Failure {
        Failure::new(Code::Interrupted, what_is_left(&self.backend.left()))
    }
}

#[async_trait]
impl Control for Serving {
    fn status(&self) -> Status {
        Status {
            url: self.plan.mount.source.clone(),
            mountpoint: self.plan.mountpoint.to_string_lossy().into_owned(),
            mounted: !self.mounted.has_ended(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..self.backend.status()
        }
    }

    fn left(&self) -> Left {
        self.backend.left()
    }

    async fn flush(&self) -> Outcome {
        self.backend.flush().await
    }

    async fn rotate(&self, without: Option<u16>) -> Outcome {
        self.backend.rotate(without).await.map(drop)
    }

    fn left_to_reseal(&self) -> Left {
        self.backend.left_to_reseal()
    }

    async fn reseal(&self, rate: Option<u64>) -> Outcome {
        self.backend.reseal(rate).await
    }

    async fn umount(&self, wait: bool) -> Outcome {
        if wait {
            self.backend.flush().await?;
        }
        // Set before the session ends, as `run` then decides how to close.
        self.wait.store(wait, Ordering::SeqCst);
        if let Err(error) = self.mounted.unmount().await {
            self.wait.store(true, Ordering::SeqCst);
            let code = match error {
                UnmountError::Busy(_) | UnmountError::HeldElsewhere(_) => Code::Busy,
                UnmountError::Failed { .. } => Code::Other,
            };
            return Err(Failure::from(error).with_code(code));
        }
        let mut closed = self.closed.subscribe();
        closed.wait_for(|closed| *closed).await.or_exit(Code::Other).map(drop)
    }
}

/// Where the mount is, is private: the log says only what.
fn without_path(error: &UnmountError) -> &'static str {
    match error {
        UnmountError::Busy(_) => "files are open; waiting for them to be closed",
        UnmountError::HeldElsewhere(_) => "another mount namespace still has it mounted",
        UnmountError::Failed { .. } => "cannot unmount yet",
    }
}

fn mount_failure(error: MountError) -> Failure {
    let code = match error {
        MountError::AlreadyMounted(_) => Code::Busy,
        MountError::NotDirectory(_) => Code::Usage,
        MountError::Failed { .. } => Code::Other,
    };
    Failure::from(error).with_code(code)
}

/// For people, when they stop waiting.
pub fn what_is_left(left: &Left) -> String {
    if left.bytes == 0 && left.files == 0 {
        return "interrupted".into();
    }
    let trouble = left.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
    format!(
        "interrupted: {} and {} are not in the store yet{trouble}; they are safe on this machine",
        counted(left.files, "file"),
        ByteSize(left.bytes)
    )
}
