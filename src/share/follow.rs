//! Live links: while the volume is open, what changed in a shared folder is published again.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{ShareError, Sharing};

/// Between two looks whether the thread has ended.
const ENDING: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
pub struct FollowOptions {
    /// The volume must have been still for so long,
    pub quiet: Duration,
    /// unless it has been changing for this long.
    pub longest: Duration,
    /// After a failure.
    pub retry: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self { quiet: Duration::from_secs(2), longest: Duration::from_secs(30), retry: Duration::from_secs(30) }
    }
}

/// Runs until it is dropped, which waits for its end.
pub struct Follower {
    sharing: Arc<Sharing>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Follower {
    pub fn start(sharing: Arc<Sharing>, options: FollowOptions) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let thread = {
            let (sharing, stop) = (sharing.clone(), stop.clone());
            std::thread::Builder::new().name("links".into()).spawn(move || follow(&sharing, options, &stop))?
        };
        Ok(Self { sharing, stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        *self.stop.asked.lock() = true;
        self.stop.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // It may just be beginning with another link.
        while !thread.is_finished() {
            self.sharing.stop_work();
            std::thread::sleep(ENDING);
        }
        // A panic in it was reported by the hook; there is nothing to add.
        let _ = thread.join();
    }
}

impl Stop {
    fn is_asked(&self) -> bool {
        *self.asked.lock()
    }

    /// True when it is time to end.
    fn sleep(&self, time: Duration) -> bool {
        let mut asked = self.asked.lock();
        if !*asked {
            self.changed.wait_for(&mut asked, time);
        }
        *asked
    }
}

fn follow(sharing: &Sharing, options: FollowOptions, stop: &Stop) {
    // What changed while nobody followed is published at first.
    let mut published: Option<u64> = None;
    let (mut seen, mut since, mut still) = (sharing.drive.changes(), Instant::now(), Instant::now());
    while !stop.sleep(options.quiet.min(Duration::from_secs(1))) {
        sharing.tidy();
        let now = sharing.drive.changes();
        if now != seen {
            (seen, still) = (now, Instant::now());
        }
        if published == Some(now) {
            since = Instant::now();
            continue;
        }
        if still.elapsed() < options.quiet && since.elapsed() < options.longest {
            continue;
        }
        match refresh_all(sharing, stop) {
            Ok(true) => {
                // Noting a new version in its row is a change as well: it is looked at once more, and nothing is published.
                published = Some(now);
                since = Instant::now();
            }
            Ok(false) => {}
            Err(()) => {
                if stop.sleep(options.retry) {
                    return;
                }
            }
        }
    }
}

/// True: all are as the volume is. An error was logged.
fn refresh_all(sharing: &Sharing, stop: &Stop) -> Result<bool, ()> {
    let links = sharing.followed().map_err(|error| tracing::warn!("live links cannot be listed: {error}"))?;
    let mut all = Ok(true);
    for id in links {
        match sharing.refresh(id, &mut |_| !stop.is_asked()) {
            Ok(done) => all = all.map(|all| all && done),
            Err(_) if stop.is_asked() => return Ok(false),
            // Taken over, to be taken back.
            Err(ShareError::Interrupted) => all = all.map(|_| false),
            Err(ShareError::Revoked) => tracing::info!("live link {id} was taken back"),
            Err(error @ ShareError::SourceGone) => {
                tracing::warn!("live link {id} stays as it was published last: {error}");
                if let Err(error) = sharing.end_following(id) {
                    tracing::warn!("that live link {id} has ended could not be noted: {error}");
                    all = Err(());
                }
            }
            Err(error) => {
                tracing::warn!("live link {id} could not be published: {error}");
                all = Err(());
            }
        }
    }
    all
}
