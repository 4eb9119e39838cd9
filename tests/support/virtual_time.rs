//! Waits that take no time.

use tokio::sync::oneshot;

/// A runtime on a thread of its own whose clock is paused, and jumps to the next timer whenever there is nothing else to
/// be done: no wait is skipped, and none takes time.
pub struct VirtualTime {
    handle: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl VirtualTime {
    pub fn new() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            let runtime = runtime.expect("a runtime");
            tell.send(runtime.handle().clone()).expect("who waits for it");
            let _ = runtime.block_on(stopped);
        });
        Self { handle: told.recv().expect("a runtime"), stop: Some(stop), thread: Some(thread) }
    }

    pub fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The future's outcome, worked out on the runtime itself: while it is polled there, a paused clock stands still. Polled by
/// the caller's thread, as `Handle::block_on` does, a deadline may be over before the thread has its turn.
pub fn finish<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    runtime.spawn(async move { drop(tell.send(work.await)) });
    told.recv().expect("a runtime that goes on")
}
