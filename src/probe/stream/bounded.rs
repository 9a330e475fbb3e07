//! A stream with two limits on what is read: in total, and in one turn of the task.
//!
//! The total limits the memory that an answer can cost, whatever its framing is: interim heads,
//! frames without content, compressed headers. The limit of a turn lets the deadline and other
//! probes run while a server sends without a pause, and lets this probe check what has come before
//! it reads more.
//!
//! A probe over TLS has two bounded streams: one above TLS, for what an answer may need, and one
//! below, for what TLS itself consumes, such as session tickets.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are read before the task yields.
const MAX_READ_PER_TURN: usize = 16 << 10;

/// A stream that counts the bytes read against a [`ReadBudget`].
pub(crate) struct BoundedStream<S> {
    inner: S,
    budget: ReadBudget,
    read_this_turn: usize,
}

/// The bytes that may still be read from a [`BoundedStream`], and the error that broke it.
#[derive(Clone, Default)]
pub(crate) struct ReadBudget(Arc<Inner>);

#[derive(Default)]
struct Inner {
    remaining: AtomicUsize,
    exhausted: AtomicBool,
    error: Mutex<Option<io::Error>>,
}

/// The error of a stream whose budget is exhausted.
#[derive(Debug)]
pub(crate) struct BudgetExhausted;

impl fmt::Display for BudgetExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more has come than was allowed")
    }
}

impl Error for BudgetExhausted {}

impl BudgetExhausted {
    /// Returns true if this is the reason why a stream broke.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }

    fn error() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Self)
    }
}

impl ReadBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let budget = Self::default();
        budget.add(bytes);
        budget
    }

    /// Allows this many more bytes.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.remaining.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns true once more has come than was allowed.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.0.exhausted.load(Ordering::Relaxed)
    }

    /// Takes the I/O error that broke the stream. The errors of HTTP/2 keep only its text.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the bytes from the budget. Returns false if there are more than were allowed.
    fn consume(&self, bytes: usize) -> bool {
        let less = |remaining: usize| remaining.checked_sub(bytes);
        let counted =
            self.0.remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if !counted {
            self.0.exhausted.store(true, Ordering::Relaxed);
        }
        counted
    }

    /// Stores the error, and returns one of the same number or kind for the caller.
    fn record_error(&self, error: io::Error) -> io::Error {
        let copy =
            error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        *self.0.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        copy
    }
}

impl<S> BoundedStream<S> {
    pub(crate) fn new(inner: S, budget: &ReadBudget) -> Self {
        Self { inner, budget: budget.clone(), read_this_turn: 0 }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget.is_exhausted() {
            return Poll::Ready(Err(BudgetExhausted::error()));
        }
        if self.read_this_turn >= MAX_READ_PER_TURN {
            self.read_this_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => {
                self.read_this_turn = 0;
                return Poll::Pending;
            }
        };
        if let Err(error) = read {
            return Poll::Ready(Err(self.budget.record_error(error)));
        }
        let bytes = buffer.filled().len() - before;
        self.read_this_turn += bytes;
        if !self.budget.consume(bytes) {
            buffer.set_filled(before);
            return Poll::Ready(Err(BudgetExhausted::error()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| self.budget.record_error(error)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices));
        Poll::Ready(written.map_err(|error| self.budget.record_error(error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.budget.record_error(error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_budget_is_read_and_no_byte_more() {
        for (sent, fails) in [(100, false), (101, true)] {
            let (mut server, client) = tokio::io::duplex(1 << 20);
            server.write_all(&vec![0; sent]).await.unwrap();
            drop(server);
            let budget = ReadBudget::new(60);
            budget.add(40);
            let read = BoundedStream::new(client, &budget).read_to_end(&mut Vec::new()).await;
            assert_eq!((read.is_err(), budget.is_exhausted()), (fails, fails), "{sent} bytes");
        }
    }

    #[tokio::test]
    async fn a_turn_ends_even_if_there_is_more() {
        let (mut server, client) = tokio::io::duplex(1 << 20);
        server.write_all(&vec![0; 1 << 20]).await.unwrap();
        let mut stream = BoundedStream::new(client, &ReadBudget::new(2 << 20));
        let (mut reads, mut turns) = (0, 0);
        let mut bytes = vec![0; 1024];
        while reads < 1024 {
            let turn = poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut bytes);
                while Pin::new(&mut stream).poll_read(cx, &mut buffer).is_ready() {
                    reads += 1;
                    buffer.clear();
                }
                turns += 1;
                Poll::Ready(())
            });
            // The budget of tokio itself would end some turns earlier.
            tokio::task::unconstrained(turn).await;
        }
        assert_eq!(turns, 64, "16 KiB in each");
    }

    #[tokio::test]
    async fn the_error_that_broke_the_stream_is_kept() {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::Error::other("why")))
            }
        }
        let budget = ReadBudget::new(1);
        assert!(BoundedStream::new(Broken, &budget).read_u8().await.is_err());
        assert_eq!(budget.take_error().unwrap().to_string(), "why");
        assert!(!budget.is_exhausted());
    }
}
