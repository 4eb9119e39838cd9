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
