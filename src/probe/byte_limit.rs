//! A limit on all bytes of a try: a stream that fails once the peer has sent more, whatever the
//! bytes are.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of which at most so many bytes are read. The limit counts what the peer sends, not what
/// it means: interim heads, paddings and frames without content count too, so that no peer can keep
/// a reader busy for ever.
pub(super) struct ByteLimit<S> {
    stream: S,
    limit: usize,
    remaining: usize,
}

/// The error of a read beyond the limit.
#[derive(Debug, PartialEq)]
pub(super) struct OverLimit(usize);

impl<S> ByteLimit<S> {
    pub fn new(stream: S, limit: usize) -> Self {
        Self { stream, limit, remaining: limit }
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server has sent over {} KiB, more than a check reads", self.0 >> 10)
    }
}

impl std::error::Error for OverLimit {}

impl<S: AsyncRead + Unpin> AsyncRead for ByteLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        match self.remaining.checked_sub(read) {
            Some(remaining) => self.remaining = remaining,
            None => {
                self.remaining = 0;
                buffer.set_filled(before);
                return Poll::Ready(Err(io::Error::other(OverLimit(self.limit))));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ByteLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_limit_itself_is_read_and_one_byte_more_fails() {
        for (sent, over) in [(4096, false), (4097, true)] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let peer = tokio::spawn(async move {
                let _ = theirs.write_all(&vec![b'x'; sent]).await;
            });
            let mut read = Vec::new();
            let end = ByteLimit::new(ours, 4096).read_to_end(&mut read).await;
            peer.await.unwrap();
            assert_eq!(end.is_err(), over, "{sent}");
            assert!(read.len() <= 4096);
            if let Err(error) = end {
                assert_eq!(error.to_string(), "the server has sent over 4 KiB, more than a check reads");
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_is_not_counted() {
        let (ours, mut theirs) = tokio::io::duplex(8192);
        let mut stream = ByteLimit::new(ours, 1);
        stream.write_all(&[b'x'; 4096]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 4096);
    }
}
