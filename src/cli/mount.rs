//! `mount`: from arguments to a served drive, in the background or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{MountArgs, ReachArgs};
use super::daemon::{self, Forked, Ready};
use super::drive::{self, OpenOptions};
use super::exit::{self, Code, Failure, Outcome};
use super::folders::{self, Folders, mount_tag, socket_name};
use super::logging::{self, Log};
use super::mount_options::{Atime, Chosen};
use super::open_files;
use super::password::{PasswordArgs, UnlockArgs};
use super::serve::{Backend, Plan, Signals, serve};
use crate::fuse::{MountOptions, is_dead, mount_at};
use crate::meta::keyring::Trust;

/// One for the reactor and uploads, one for the rest; ciphers and disk run elsewhere.
const RUNTIME_THREADS: usize = 2;

pub fn mount(args: MountArgs) -> Outcome {
    let chosen = args.chosen()?;
    if chosen.remount {
        return remount(&args);
    }
    let reach = ReachArgs {
        endpoint_url: chosen.endpoint_url.clone(),
        region: chosen.region.clone(),
        profile: chosen.profile.clone(),
        instance_credentials: chosen.instance_credentials,
    };
    let store = reach.store(&args.store.url)?;
    let folders = Folders::of_this_user()?;
    let mountpoint = free_mountpoint(&args.dir)?;
    let tag = mount_tag(&mountpoint);
    let state = absolute(chosen.state_dir.as_deref().unwrap_or(&folders.state))?;
    let log = match &chosen.log_file {
        Some(path) => absolute(path)?,
        None => state.join(format!("{tag}.log")),
    };
    let plan = Plan {
        socket: folders.runtime.join(socket_name(&mountpoint)),
        mount: mount_options(&chosen, &store.url),
        mountpoint,
    };
    if args.fake {
        return Ok(());
    }
    harden();
    let password =
        PasswordArgs { password_file: chosen.password_file.clone(), password_command: chosen.password_command.clone() };
    let secret = UnlockArgs { password, identity: chosen.identity.clone() }.secret()?;
    let trust = match &chosen.fingerprint {
        Some(fingerprint) => Trust::Fingerprint(fingerprint.clone()),
        None if chosen.trust_first => Trust::First,
        None => Trust::Secret,
    };
    let open = OpenOptions {
        store,
        secret,
        trust,
        cache: absolute(chosen.cache_dir.as_deref().unwrap_or(&folders.cache))?,
        cache_bytes_max: chosen.cache_size.unwrap_or(args.cache_size).0,
        read_only: chosen.read_only,
        fsync: chosen.fsync,
        atime: chosen.atime,
        directory_atime: !chosen.no_directory_atime,
        quota: chosen.quota,
        allow_large_kdf: args.allow_large_kdf,
        accept_loss: args.accept_loss,
        state,
    };
    let log = if args.foreground && chosen.log_file.is_none() { Log::Stderr } else { Log::File(log) };
    let background = !args.foreground;
    run(background, log, plan, || async move { Ok(Arc::new(drive::open_drive(open).await?) as Arc<dyn Backend>) })
}

/// After a forced end, a task may still wait for the store.
const ENDING_MAX: Duration = Duration::from_secs(2);

/// Opens a drive and serves it. In the background it returns in the parent, once the drive answers; the child
/// never returns.
pub fn run<F: Future<Output = Outcome<Arc<dyn Backend>>>>(
    background: bool,
    log: Log,
    plan: Plan,
    open: impl FnOnce() -> F,
) -> Outcome {
    if !background {
        return start(log, plan, open, &mut Some(Ready::foreground()));
    }
    match daemon::fork()? {
        Forked::Parent(waiting) => {
            waiting.wait()?;
            // Asked from outside, as anyone will; the daemon itself must not touch its mount.
            rustix::fs::statfs(&plan.mountpoint)
                .map_err(|error| Failure::from(error).context("the drive is mounted but does not answer"))?;
            Ok(())
        }
        Forked::Child(ready) => {
            let mut ready = Some(ready);
            let code = match start(log, plan, open, &mut ready) {
                Ok(()) => 0,
                Err(failure) => {
                    if let Some(ready) = ready {
                        ready.failed(&failure);
                    }
                    tracing::error!("{}", failure.log_message());
                    failure.code as i32
                }
            };
            exit::leave(code)
        }
    }
}

fn start<F: Future<Output = Outcome<Arc<dyn Backend>>>>(
    log: Log,
    plan: Plan,
    open: impl FnOnce() -> F,
    ready: &mut Option<Ready>,
) -> Outcome {
    if let Log::File(path) = &log
        && let Some(folder) = path.parent()
        && !folder.is_dir()
    {
        folders::private_folder(folder)?;
    }
    logging::start(&log)?;
    open_files::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("hushfs-runtime")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let backend = tokio::select! {
            opened = open() => opened?,
            () = signals.next() => return Err(Failure::new(Code::Interrupted, "interrupted before it was mounted")),
        };
        serve(backend, plan, ready, &mut signals).await
    });
    // Tasks that were told to end hold keys until they have: those are wiped before the process is gone.
    runtime.shutdown_timeout(ENDING_MAX);
    outcome
}

fn mount_options(chosen: &Chosen, url: &str) -> MountOptions {
    MountOptions {
        source: url.into(),
        read_only: chosen.read_only,
        allow_other: chosen.allow_other,
        allow_suid: chosen.allow_suid,
        allow_devices: chosen.allow_devices,
        no_exec: chosen.no_exec,
        synchronous: chosen.synchronous,
        dir_synchronous: chosen.dir_synchronous,
        forget_pages: chosen.atime == Atime::Always,
    }
}

/// `-o remount`: flags that are not named stay as they are, and so does the daemon.
fn remount(args: &MountArgs) -> Outcome {
    use rustix::fs::StatVfsMountFlags as Flags;
    let failed = |error: std::io::Error| Failure::from(error).context(format!("directory {}", args.dir.display()));
    let path = crate::fuse::resolve(&args.dir).map_err(failed)?;
    let entry = mount_at(&path).map_err(failed)?.filter(|entry| entry.is_drive());
    let Some(entry) = entry else {
        return Err(Failure::new(Code::Other, format!("no drive is mounted on {}", args.dir.display())));
    };
    let now = rustix::fs::statvfs(&path).map_err(|error| failed(error.into()))?.f_flag;
    let mut chosen = Chosen {
        read_only: now.contains(Flags::RDONLY),
        allow_suid: !now.contains(Flags::NOSUID),
        allow_devices: !now.contains(Flags::NODEV),
        no_exec: now.contains(Flags::NOEXEC),
        synchronous: now.contains(Flags::SYNCHRONOUS),
        ..Chosen::default()
    };
    args.options.iter().try_for_each(|options| chosen.apply(options))?;
    crate::fuse::remount(&path, &mount_options(&chosen, &entry.source.to_string_lossy())).map_err(failed)
}

/// Found wrong before a password is asked for. A dead mount is cleared later.
fn free_mountpoint(dir: &Path) -> Outcome<PathBuf> {
    let failed = |error: std::io::Error| Failure::from(error).context(format!("directory {}", dir.display()));
    let path = crate::fuse::resolve(dir).map_err(failed)?;
    if mount_at(&path).map_err(failed)?.is_some_and(|entry| entry.is_drive()) {
        let busy = || Failure::new(Code::Busy, format!("a drive is mounted on {} already", dir.display()));
        return if is_dead(&path) { Ok(path) } else { Err(busy()) };
    }
    if std::fs::metadata(&path).map_err(failed)?.is_dir() {
        Ok(path)
    } else {
        Err(Failure::usage(format!("{} is not a directory", dir.display())))
    }
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    Ok(std::path::absolute(path)?)
}

/// No core dump, and no other process of this user may read this one's memory: both would hold keys.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Worth a word, not a failure: some sandboxes forbid it.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("hushfs: other processes of yours can read this one's memory: {error}");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        eprintln!("hushfs: core dumps stay on: {error}");
    }
}
