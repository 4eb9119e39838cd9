//! Going to the background: the parent waits until the drive answers, and ends with what the child says.
//!
//! The fork comes before any thread: a thread that is not copied may hold a lock for ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use super::exit::{Code, Failure, Outcome};

pub enum Forked {
    Parent(Waiting),
    Child(Ready),
}

/// The parent's end.
pub struct Waiting(File);

/// The child's end: says once how the start went. Dropped without a word, the parent says that the child died.
pub struct Ready(Option<File>);

pub fn fork() -> Outcome<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(Failure::new(Code::Other, format!("cannot go to the background with {threads} threads")));
    }
    let (receive, send) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: there is one thread, so the child's copy of this process is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            drop(receive);
            close_inherited(&send)?;
            Ok(Forked::Child(Ready(Some(send.into()))))
        }
        _ => {
            drop(send);
            Ok(Forked::Parent(Waiting(receive.into())))
        }
    }
}

/// What the caller had open, such as a script's lock file, is not to stay open as long as the drive is mounted. This
/// process itself has opened nothing that it still needs but `keep` and the standard three.
fn close_inherited(keep: &OwnedFd) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|number| number.parse::<i32>().ok()));
    }
    for number in open.into_iter().filter(|number| *number > 2 && *number != keep.as_raw_fd()) {
        // SAFETY: nothing in this process owns the descriptor; that of the listing itself is closed by now.
        unsafe { libc::close(number) };
    }
    Ok(())
}

impl Waiting {
    pub fn wait(mut self) -> Outcome {
        let mut message = Vec::new();
        self.0.read_to_end(&mut message)?;
        match message.split_first() {
            None => Err(Failure::new(Code::Other, "the daemon died before the drive answered; with -f it says more")),
            Some((0, _)) => Ok(()),
            Some((code, text)) => {
                Err(Failure::new(Code::from_number(*code).unwrap_or(Code::Other), String::from_utf8_lossy(text)))
            }
        }
    }
}

impl Ready {
    /// For `-f`: there is nobody to tell.
    pub fn foreground() -> Self {
        Self(None)
    }

    /// Cuts the ties to the terminal and lets the parent go.
    pub fn succeeded(self) -> Outcome {
        let Some(mut pipe) = self.0 else { return Ok(()) };
        // Only now: until here Ctrl-C must reach the child too.
        rustix::process::setsid()?;
        std::env::set_current_dir("/")?;
        let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(pipe.write_all(&[0])?)
    }

    /// True if someone was told, so that nobody has to say it again.
    pub fn failed(self, failure: &Failure) -> bool {
        let Some(mut pipe) = self.0 else { return false };
        let mut message = vec![failure.code as u8];
        message.extend_from_slice(failure.message().as_bytes());
        pipe.write_all(&message).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two ends without the fork, which a test's threads forbid.
    fn ends() -> (Waiting, Ready) {
        let (receive, send) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (Waiting(receive.into()), Ready(Some(send.into())))
    }

    #[test]
    fn a_failure_reaches_the_parent_with_code_and_words() {
        let (waiting, ready) = ends();
        assert!(ready.failed(&Failure::new(Code::WrongPassword, "no slot opens").context("cannot mount")));
        let failure = waiting.wait().unwrap_err();
        assert_eq!((failure.code, failure.to_string().as_str()), (Code::WrongPassword, "cannot mount: no slot opens"));
    }

    #[test]
    fn a_child_that_dies_is_noticed() {
        let (waiting, ready) = ends();
        drop(ready);
        assert!(waiting.wait().unwrap_err().to_string().contains("died"));
    }

    #[test]
    fn threads_are_refused() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(fork().is_err());
        drop(stop);
        let _ = thread.join();
    }
}
