//! The HTTP server of the pages. It bounds the time, memory and descriptors of each connection.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;
use tracing::warn;

use super::connections::{Connections, Tracker};
use super::guarded_body::GuardedBody;

/// The longest time for a request's head, counted from the end of the answer before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of a request in bytes. For a slow reader, also the bytes of an answer that are
/// buffered beside the chunk that is being sent.
const MAX_HEAD: usize = 16 << 10;

/// The longest time that a client may receive nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The age at which a connection accepts no further request.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The longest time for the last answer after [`MAX_AGE`].
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The receive buffer of a connection in the kernel, in bytes. It counts as memory of the Pod, and
/// the kernel doubles it.
const RECEIVE_BUFFER: u32 = 32 << 10;

/// The send buffer of a connection in the kernel, in bytes.
const SEND_BUFFER: u32 = 64 << 10;

/// The number of connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The delay after a failure to accept a connection, such as a lack of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Listens on an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit both sizes.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the pages without end, on at most `max_connections` at once.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
) -> Infallible {
    let mut connections = Connections::new(max_connections);
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                is_failing = false;
                let router = router.clone();
                let start = |tracker| tokio::spawn(serve_connection(stream, router, tracker));
                connections.add(peer.ip(), start).await;
            }
            // accept(2) also reports errors of the connection itself.
            Err(error) if is_peer_error(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(
                        %error,
                        "connections to the admin pages can't be accepted; trying again"
                    );
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

fn is_peer_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

async fn serve_connection(stream: TcpStream, router: Router, tracker: Tracker) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let service = service_fn(|request| answer(request, router.clone(), tracker.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    // An error only concerns the client, which has gone away.
    if timeout(MAX_AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER_TIMEOUT, connection).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    router: Router,
    tracker: Tracker,
) -> Result<Response<Body>, Infallible> {
    let answering = tracker.answer();
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| Body::new(GuardedBody::new(body, answering))))
}
