//! Mounts the in-memory filesystem until it is unmounted: `cargo run --example memfs -- DIR`.
//!
//! For tests of the command line it can also be served as the drive is, with a daemon and a control socket:
//! `memfs --background|--foreground DIR LOG [LEFT]`, where LEFT is how many seconds a flush takes, or `fail`.

mod memfs;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hushfs::cli::control::{Left, Status};
use hushfs::cli::exit::{Code, Failure, Outcome};
use hushfs::cli::folders::socket_of;
use hushfs::cli::logging::Log;
use hushfs::cli::serve::{Backend, Plan};
use hushfs::fuse::{Ended, MountOptions, mount, resolve};
use hushfs::vfs::api::{KernelCache, Vfs};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [dir] => serve_plainly(dir),
        ["--background", dir, log] => serve_as_a_drive(true, dir, log, "0"),
        ["--background", dir, log, left] => serve_as_a_drive(true, dir, log, left),
        ["--foreground", dir, log, left] => serve_as_a_drive(false, dir, log, left),
        _ => Err(Failure::usage("usage: memfs DIR")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("memfs: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

fn serve_plainly(dir: &str) -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    let options = MountOptions { source: "memfs".into(), ..MountOptions::default() };
    let mounted = mount(dir.as_ref(), Arc::new(memfs::MemFs::default()), runtime.handle().clone(), &options)?;
    match runtime.block_on(mounted.ended()) {
        Ended::Unmounted => Ok(()),
        Ended::Broken(why) => Err(Failure::new(Code::Other, why)),
    }
}

fn serve_as_a_drive(background: bool, dir: &str, log: &str, left: &str) -> Outcome {
    let mountpoint = resolve(dir.as_ref())?;
    let socket = socket_of(&mountpoint)?;
    let mount = MountOptions { source: "mem://drive".into(), ..MountOptions::default() };
    let plan = Plan { mountpoint, socket, mount };
    let left = left.to_owned();
    hushfs::cli::mount::run(background, Log::File(PathBuf::from(log)), plan, || async move {
        match left.parse() {
            Ok(seconds) => Ok(Arc::new(Drive::new(Duration::from_secs(seconds))) as Arc<dyn Backend>),
            Err(_) => Err(Failure::new(Code::WrongPassword, "no slot opens")),
        }
    })
}

struct Drive {
    vfs: Arc<memfs::MemFs>,
    uploaded_at: Instant,
}

impl Drive {
    fn new(upload: Duration) -> Self {
        Self { vfs: Arc::default(), uploaded_at: Instant::now() + upload }
    }
}

#[async_trait]
impl Backend for Drive {
    fn vfs(&self) -> Arc<dyn Vfs> {
        self.vfs.clone()
    }

    fn mounted(&self, _kernel: Arc<dyn KernelCache>) {}

    fn status(&self) -> Status {
        Status { head: Some(1), ..Status::default() }
    }

    fn left(&self) -> Left {
        let left = self.uploaded_at.saturating_duration_since(Instant::now());
        Left { files: 1, bytes: left.as_millis() as u64, trouble: None }
    }

    async fn flush(&self) -> Outcome {
        tokio::time::sleep_until(self.uploaded_at.into()).await;
        Ok(())
    }

    async fn close(&self, wait: bool) -> Outcome {
        if wait { self.flush().await } else { Ok(()) }
    }
}
