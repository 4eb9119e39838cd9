//! A connection that is given up when its reader takes next to nothing: who opens a thousand downloads and reads none
//! would else hold a thousand places.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::metrics::Metrics;

pub struct Paced<S> {
    inner: S,
    metrics: Arc<Metrics>,
    window: Duration,
    bytes_min: u64,
    /// Since the reader was first waited for, and what it has taken since.
    waiting: Option<Pin<Box<Sleep>>>,
    taken: u64,
    is_pending: bool,
    /// When something was taken last.
    last: Instant,
}

/// Whoever writes again after longer than this had nothing to write meanwhile, and the reader was not slow.
const BETWEEN_ANSWERS: Duration = Duration::from_secs(1);

impl<S> Paced<S> {
    pub fn new(inner: S, window: Duration, bytes_min: u64, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics, window, bytes_min, waiting: None, taken: 0, is_pending: false, last: Instant::now() }
    }

    /// After a write that took nothing: whether to go on waiting.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let window = self.window;
        if !self.is_pending && self.last.elapsed() > BETWEEN_ANSWERS {
            self.waiting = None;
            self.taken = 0;
        }
        self.is_pending = true;
        let timer = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(window)));
        while timer.as_mut().poll(context).is_ready() {
            if self.taken < self.bytes_min {
                self.metrics.cut_off_slow.add(1);
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the reader takes next to nothing"));
            }
            self.taken = 0;
            timer.as_mut().reset(Instant::now() + window);
        }
        Poll::Pending
    }

    fn count(&mut self, written: usize) {
        self.taken += written as u64;
        self.is_pending = false;
        self.last = Instant::now();
        if self.taken >= self.bytes_min {
            self.waiting = None;
            self.taken = 0;
        }
    }
}

impl<S: AsyncWrite + Unpin> Paced<S> {
    fn after(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(len)) => {
                self.count(len);
                Poll::Ready(Ok(len))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Err(ready!(self.wait(context)))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.after(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.after(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const WINDOW: Duration = Duration::from_secs(30);

    fn pair() -> (Paced<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (server, client) = tokio::io::duplex(1024);
        (Paced::new(server, WINDOW, 1000, Arc::default()), client)
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_or_drips_is_cut_off() {
        let (mut server, mut client) = pair();
        let dripping = tokio::spawn(async move {
            let mut one = [0];
            while client.read_exact(&mut one).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let error = server.write_all(&vec![0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(server);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_but_enough_is_served_to_the_end() {
        let (mut server, mut client) = pair();
        let reading = tokio::spawn(async move {
            let (mut buffer, mut total) = ([0; 100], 0);
            while let Ok(len @ 1..) = client.read(&mut buffer).await {
                total += len;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            total
        });
        server.write_all(&vec![0; 20_000]).await.unwrap();
        drop(server);
        assert_eq!(reading.await.unwrap(), 20_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_answers_is_no_slowness() {
        let (mut server, mut client) = pair();
        let reading = tokio::spawn(async move {
            tokio::time::sleep(WINDOW / 2).await;
            client.read_exact(&mut [0; 1100]).await.unwrap();
            client
        });
        // Waits for a moment, and takes less than would count.
        server.write_all(&[0; 1100]).await.unwrap();
        let mut client = reading.await.unwrap();
        tokio::time::sleep(WINDOW * 10).await;
        let writing = tokio::spawn(async move { server.write_all(&[0; 1500]).await });
        tokio::time::sleep(WINDOW / 2).await;
        client.read_exact(&mut [0; 1500]).await.unwrap();
        writing.await.unwrap().unwrap();
    }
}
