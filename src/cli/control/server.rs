//! The daemon's end.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::protocol::{Left, Reply, Request, Status};
use crate::cli::exit::{Code, Failure, Outcome};
use crate::cli::folders;

const REQUEST_LEN_MAX: u64 = 4096;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What a running drive can be asked.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    fn status(&self) -> Status;

    fn left(&self) -> Left;

    /// Until all that was written before is in the store. Dropping the future gives up waiting, nothing else.
    async fn flush(&self) -> Outcome;

    /// Dropping the future gives up waiting, nothing else.
    async fn rotate(&self, without: Option<u16>) -> Outcome;

    /// What `reseal` has not done yet.
    fn left_to_reseal(&self) -> Left;

    /// Dropping the future gives up waiting, nothing else.
    async fn reseal(&self, rate: Option<u64>) -> Outcome;

    /// Flushes if `wait`, unmounts, closes. Dropping the future before the unmount leaves the drive mounted;
    /// after it the closing goes on.
    async fn umount(&self, wait: bool) -> Outcome;
}

/// Serves until it is finished or dropped, then takes the socket away.
pub struct Server {
    path: PathBuf,
    stop: watch::Sender<bool>,
    accept: JoinHandle<()>,
}

impl Server {
    /// In a runtime. `path`'s folder is made private.
    pub fn start(path: &Path, control: Arc<dyn Control>) -> Outcome<Self> {
        if let Some(folder) = path.parent() {
            folders::private_folder(folder)?;
        }
        let listener = bind(path)?;
        let (stop, stopped) = watch::channel(false);
        let accept = tokio::spawn(accept(listener, control, stopped));
        Ok(Self { path: path.into(), stop, accept })
    }

    /// Lets the connections that are open get their last answers.
    pub async fn finish(mut self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(LAST_ANSWERS, &mut self.accept).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A socket that nobody answers on was left by a daemon that was killed.
fn bind(path: &Path) -> Outcome<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Failure::new(Code::Busy, "another daemon serves this directory"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, control: Arc<dyn Control>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if is_allowed(&stream) => drop(connections.spawn(attend_one(stream, control.clone()))),
                Ok(_) => tracing::warn!("refused a control connection of another user"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn attend_one(stream: UnixStream, control: Arc<dyn Control>) {
    if let Err(error) = serve(stream, &*control).await {
        tracing::debug!(%error, "a control connection ended early");
    }
}

fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// One request a connection.
async fn serve(stream: UnixStream, control: &dyn Control) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    (&mut read).take(REQUEST_LEN_MAX).read_line(&mut line).await?;
    let left = || control.left();
    let outcome = match serde_json::from_str(&line) {
        Err(_) => Err(Failure::usage("not a request that this version knows")),
        Ok(Request::Status) => return send(&mut write, &Reply::Status(Box::new(control.status()))).await,
        Ok(Request::Flush) => attend(&mut read, &mut write, left, control.flush()).await?,
        Ok(Request::Rotate { without }) => attend(&mut read, &mut write, left, control.rotate(without)).await?,
        Ok(Request::Reseal { rate }) => {
            attend(&mut read, &mut write, || control.left_to_reseal(), control.reseal(rate)).await?
        }
        Ok(Request::Umount { wait }) => attend(&mut read, &mut write, left, control.umount(wait)).await?,
    };
    let reply = match outcome {
        Ok(()) => Reply::Done,
        Err(failure) => Reply::Failed { code: failure.code, message: failure.message() },
    };
    send(&mut write, &reply).await
}

/// Reports progress while the work lasts. An error when the client has gone, which drops the work.
async fn attend(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    left: impl Fn() -> Left,
    work: impl Future<Output = Outcome>,
) -> io::Result<Outcome> {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    let mut byte = [0];
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            _ = ticks.tick() => send(write, &Reply::Progress(left())).await?,
            // Nothing more is expected, so anything but silence is the end.
            _ = read.read(&mut byte) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}
