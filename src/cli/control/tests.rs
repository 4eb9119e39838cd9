use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::cli::exit::{Code, Failure, Outcome};

/// Takes `steps` to flush; a umount is noted when it gets to its end.
#[derive(Default)]
struct Fake {
    steps: u64,
    done: AtomicU64,
    unmounted: AtomicBool,
    dropped: AtomicBool,
    busy: bool,
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Control for Fake {
    async fn rotate(&self, _without: Option<u16>) -> Outcome {
        Ok(())
    }

    fn left_to_reseal(&self) -> Left {
        Left { files: 2, bytes: self.steps - self.done.load(Ordering::SeqCst), trouble: None }
    }

    async fn reseal(&self, _rate: Option<u64>) -> Outcome {
        self.flush().await
    }

    fn status(&self) -> Status {
        Status { url: "s3://b/p".into(), head: Some(7), ..Status::default() }
    }

    fn left(&self) -> Left {
        Left { files: 1, bytes: self.steps - self.done.load(Ordering::SeqCst), trouble: None }
    }

    async fn flush(&self) -> Outcome {
        let _guard = OnDrop(&self.dropped);
        for _ in 0..self.steps {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.done.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn umount(&self, wait: bool) -> Outcome {
        if wait {
            self.flush().await?;
        }
        if self.busy {
            return Err(Failure::new(Code::Busy, "files are open"));
        }
        self.unmounted.store(true, Ordering::SeqCst);
        Ok(())
    }
}

struct Running {
    _runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    control: Arc<Fake>,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Running {
    fn new(fake: Fake) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (control, socket) = (Arc::new(fake), dir.path().join("private/x.sock"));
        let server = {
            let _enter = runtime.enter();
            Server::start(&socket, control.clone()).unwrap()
        };
        Self { _runtime: runtime, server: Some(server), control, socket, _dir: dir }
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }
}

#[test]
fn status_is_answered() {
    let running = Running::new(Fake::default());
    let status = running.client().status().unwrap();
    assert_eq!((status.url.as_str(), status.head), ("s3://b/p", Some(7)));
}

#[test]
fn a_flush_reports_progress_and_ends() {
    let running = Running::new(Fake { steps: 10, ..Fake::default() });
    let mut reports = Vec::new();
    let waited = running.client().wait(Request::Flush, |left| reports.push(left.bytes), || false).unwrap();
    assert_eq!(waited, Waited::Done);
    assert!(reports.len() >= 2 && reports[0] > *reports.last().unwrap(), "{reports:?}");
}

#[test]
fn sealing_anew_reports_what_is_left_of_that() {
    let running = Running::new(Fake { steps: 3, ..Fake::default() });
    let mut files = Vec::new();
    let request = Request::Reseal { rate: Some(1000) };
    let waited = running.client().wait(request, |left| files.push(left.files), || false).unwrap();
    assert_eq!(waited, Waited::Done);
    assert!(!files.is_empty() && files.iter().all(|files| *files == 2), "{files:?}");
}

#[test]
fn an_interrupted_umount_says_what_is_left_and_leaves_the_drive_mounted() {
    let running = Running::new(Fake { steps: 1000, ..Fake::default() });
    let start = std::time::Instant::now();
    let waited = running
        .client()
        .wait(Request::Umount { wait: true }, |_| {}, || start.elapsed() > Duration::from_millis(300))
        .unwrap();
    assert!(matches!(waited, Waited::Interrupted(Left { bytes: 900.., .. })), "{waited:?}");
    while !running.control.dropped.load(Ordering::SeqCst) {
        assert!(start.elapsed() < Duration::from_secs(10), "the work was not dropped");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!running.control.unmounted.load(Ordering::SeqCst));
}

#[test]
fn a_failure_keeps_its_code() {
    let running = Running::new(Fake { busy: true, ..Fake::default() });
    let failure = running.client().wait(Request::Umount { wait: false }, |_| {}, || false).unwrap_err();
    assert_eq!((failure.code, failure.to_string().as_str()), (Code::Busy, "files are open"));
}

#[test]
fn nonsense_is_refused_and_the_server_lives() {
    use std::io::{Read, Write};
    let running = Running::new(Fake::default());
    for nonsense in ["\n", "{\"op\":\"format-disk\"}\n", &"x".repeat(10_000)] {
        let mut stream = std::os::unix::net::UnixStream::connect(&running.socket).unwrap();
        let _ = stream.write_all(nonsense.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.contains("usage"), "{answer}");
    }
    assert!(running.client().status().is_ok());
}

#[test]
fn the_socket_is_private_and_goes_with_the_server() {
    let mut running = Running::new(Fake::default());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&running.socket), 0o600);
    assert_eq!(mode(running.socket.parent().unwrap()), 0o700);
    running.server = None;
    assert!(!running.socket.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let running = Running::new(Fake::default());
    let _enter = running._runtime.enter();
    let again = Server::start(&running.socket, running.control.clone());
    assert_eq!(again.err().map(|failure| failure.code), Some(Code::Busy));

    let stale = running.socket.with_file_name("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    assert!(Server::start(&stale, running.control.clone()).is_ok());
}
