//! The command's end. Blocking: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::protocol::{Left, Reply, Request, Status};
use crate::cli::exit::{Code, Failure, Outcome};
use crate::cli::folders::{Folders, runtime_of, socket_name};
use crate::cli::links::ShareEvent;
use crate::fuse::{MountEntry, mount_at, resolve};

/// How often an interruption is looked for while waiting.
const POLL: Duration = Duration::from_millis(200);

pub struct Client {
    stream: UnixStream,
}

/// How waiting ended, apart from failing.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited {
    Done,
    /// By the user, with what was left at the last report.
    Interrupted(Left),
}

impl Client {
    /// To the daemon of the drive that is mounted on `dir`, or was and is still closing; and its mount.
    pub fn for_mount(dir: &Path) -> Outcome<(Self, Option<MountEntry>)> {
        let failed = |error: io::Error| Failure::from(error).context(format!("directory {}", dir.display()));
        let path = resolve(dir).map_err(failed)?;
        let entry = mount_at(&path).map_err(failed)?.filter(MountEntry::is_drive);
        let name = socket_name(&path);
        for folder in runtime_folders(entry.as_ref())? {
            if let Ok(client) = Self::connect(&folder.join(&name)) {
                return Ok((client, entry));
            }
        }
        let what = if entry.is_some() { "does not answer" } else { "is not there: nothing is mounted" };
        Err(Failure::new(Code::Other, format!("the daemon for {} {what}", dir.display())))
    }

    /// To every daemon of this user, mounted or still closing.
    pub fn all() -> Outcome<Vec<Self>> {
        let runtime = Folders::of_this_user()?.runtime;
        let entries = match std::fs::read_dir(&runtime) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut sockets: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        sockets.retain(|path| path.extension() == Some("sock".as_ref()));
        sockets.sort();
        let connect = |path: &PathBuf| match Self::connect(path) {
            Ok(client) => Some(client),
            Err(error) => {
                // Left by a daemon that was killed. One that is just beginning has a listener.
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    let _ = std::fs::remove_file(path);
                }
                None
            }
        };
        Ok(sockets.iter().filter_map(connect).collect())
    }

    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(POLL))?;
        Ok(Self { stream })
    }

    pub fn status(self) -> Outcome<Status> {
        let mut status = None;
        self.exchange(
            Request::Status,
            |reply| match reply {
                Reply::Status(answer) => status = Some(*answer),
                Reply::Progress(_) | Reply::Share { .. } | Reply::Done | Reply::Failed { .. } => {}
            },
            || false,
        )?;
        status.ok_or_else(|| Failure::new(Code::Other, "the daemon went away without an answer"))
    }

    /// To wait for the daemon's own end: only then are its folders free for the next.
    pub fn process(&self) -> io::Result<DaemonProcess> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream)?;
        Ok(DaemonProcess(rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty())?))
    }

    /// Waits for the end of a flush or umount.
    pub fn wait(
        self,
        request: Request,
        mut progress: impl FnMut(&Left),
        interrupted: impl Fn() -> bool,
    ) -> Outcome<Waited> {
        let mut left = Left::default();
        let mut done = false;
        let cut_short = self.exchange(
            request,
            |reply| match reply {
                Reply::Progress(report) => {
                    progress(&report);
                    left = report;
                }
                Reply::Done => done = true,
                Reply::Status(_) | Reply::Share { .. } | Reply::Failed { .. } => {}
            },
            interrupted,
        )?;
        match (cut_short, done) {
            (false, true) => Ok(Waited::Done),
            (true, _) => Ok(Waited::Interrupted(left)),
            (false, false) => Err(Failure::new(Code::Other, "the daemon went away before it was done; see its log")),
        }
    }

    /// Asks about links. Interrupting ends what the daemon does for it.
    pub fn share(self, request: Request, mut take: impl FnMut(ShareEvent), interrupted: impl Fn() -> bool) -> Outcome {
        let mut done = false;
        let cut_short = self.exchange(
            request,
            |reply| match reply {
                Reply::Share { of_link } => take(of_link),
                Reply::Done => done = true,
                Reply::Status(_) | Reply::Progress(_) | Reply::Failed { .. } => {}
            },
            interrupted,
        )?;
        match (cut_short, done) {
            (false, true) => Ok(()),
            (true, _) => {
                Err(Failure::new(Code::Interrupted, "interrupted; the same command goes on where this one stopped"))
            }
            (false, false) => Err(Failure::new(Code::Other, "the daemon went away before it was done; see its log")),
        }
    }

    /// Sends the request and hands on replies until the daemon closes. True if it was interrupted.
    fn exchange(
        mut self,
        request: Request,
        mut take: impl FnMut(Reply),
        interrupted: impl Fn() -> bool,
    ) -> Outcome<bool> {
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        let mut lines = BufReader::new(self.stream);
        let mut line = Vec::new();
        loop {
            // After a time-out, what was read so far stays in `line`.
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    match serde_json::from_slice(&line)? {
                        Reply::Failed { code, message } => return Err(Failure::new(code, message)),
                        reply => take(reply),
                    }
                    line.clear();
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // A daemon that exits may reset the connection.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            if interrupted() {
                return Ok(true);
            }
        }
    }
}

/// A daemon, also when its number has gone to another process.
pub struct DaemonProcess(OwnedFd);

impl DaemonProcess {
    /// False if it is still there after `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(poll(&mut polled, Some(&limit))? > 0)
    }
}

/// Own first; root finds the mount's owner's.
fn runtime_folders(entry: Option<&MountEntry>) -> Outcome<Vec<PathBuf>> {
    let mut folders = vec![Folders::of_this_user()?.runtime];
    let owner = entry.and_then(|entry| entry.owner).filter(|_| rustix::process::geteuid().is_root());
    folders.extend(owner.map(runtime_of));
    Ok(folders)
}
