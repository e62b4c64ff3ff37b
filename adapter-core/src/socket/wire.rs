//! The byte stream that backends get: it counts what it receives, and can be cut from outside.

use std::{
    fmt,
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::Stream;

/// How many bytes a [`Wire`] has received. Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    /// So far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection to a server.
pub struct Wire {
    stream: Box<dyn Stream>,
    received: Received,
    cut: Option<Cut>,
}

struct Cut {
    /// Also wakes a reader that waits.
    future: Pin<Box<WaitForCancellationFutureOwned>>,
    token: CancellationToken,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            received: Received::default(),
            cut: None,
        }
    }

    /// Counts what this connection receives.
    pub fn received(&self) -> Received {
        self.received.clone()
    }

    /// Makes the connection fail as soon as the guard is dropped, whoever owns it then: for client libraries that go on with
    /// a connection that nobody wants any more.
    pub fn cut_on_drop(&mut self) -> DropGuard {
        let token = CancellationToken::new();
        self.cut = Some(Cut {
            future: Box::pin(token.clone().cancelled_owned()),
            token: token.clone(),
        });
        token.drop_guard()
    }

    fn check(&self) -> io::Result<()> {
        match &self.cut {
            Some(cut) if cut.token.is_cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(cut) = &mut self.cut
            && cut.future.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(self.check());
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        self.received.0.fetch_add(bytes as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_received_is_counted_and_a_cut_ends_reads_and_writes() {
        let (here, mut there) = duplex(64);
        let mut wire = Wire::new(Box::new(here));
        let (received, guard) = (wire.received(), wire.cut_on_drop());
        there.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        wire.read_exact(&mut buf).await.unwrap();
        assert_eq!((&buf, received.bytes()), (b"hello", 5));
        let reading = tokio::spawn(async move {
            let read = wire.read_u8().await.map_err(|error| error.kind());
            (read, wire.write_u8(0).await.map_err(|error| error.kind()))
        });
        drop(guard);
        let aborted = io::ErrorKind::ConnectionAborted;
        assert_eq!(reading.await.unwrap(), (Err(aborted), Err(aborted)));
    }
}
