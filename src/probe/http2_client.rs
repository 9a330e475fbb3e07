//! One exchange as a client of HTTP/2, for the kinds of check that speak it.
//!
//! The probe polls the connection, and both end together: no task is left, whatever the server
//! does. h2 reads on only when it could write its own answers (to PING, SETTINGS). It drops what
//! exceeds the limit of a header list, and ends a connection that floods it with small frames.
//! [`BoundedStream`] limits everything else.

use std::pin::pin;

use futures::FutureExt;
use futures::future::{Either, select};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::phase::ProbeResult;
use super::stream::BoundedStream;
use crate::health::Verdict;

/// The limits of one connection.
pub(crate) struct Limits {
    /// The most bytes of a header list, as it is after the compression.
    pub head: u32,
    /// The most bytes of a body in transit.
    pub window: u32,
}

/// Connects over a stream, and polls the connection until `talk` has a result. `failed` returns
/// the verdict on an error.
pub(crate) async fn converse<S, F>(
    stream: BoundedStream<S>,
    limits: &Limits,
    failed: impl Fn(h2::Error) -> Verdict,
    talk: impl FnOnce(SendRequest<Bytes>) -> F,
) -> ProbeResult<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ProbeResult<()>>,
{
    let (sender, connection) =
        builder(limits).handshake::<_, Bytes>(stream).await.map_err(&failed)?;
    let answer = pin!(async { talk(sender.ready().await.map_err(&failed)?).await });
    // Each turn polls the answer first, so that interim heads are dropped before more are read.
    match select(answer, connection).await {
        Either::Left((verdict, mut connection)) => {
            if verdict.is_ok() {
                // Sends GOAWAY and the end of TLS, as far as the socket takes them at once.
                let _ = (&mut connection).now_or_never();
            }
            verdict
        }
        Either::Right((_, answer)) => answer.await,
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.window)
        .initial_connection_window_size(limits.window)
        .max_header_list_size(limits.head)
        .max_send_buffer_size(limits.head as usize)
        .max_concurrent_reset_streams(1);
    builder
}

/// Returns the next bytes of the body, and allows the server to send as many more.
pub(crate) async fn next_data(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = body.data().await.transpose()? else {
        return Ok(None);
    };
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}
