//! Accepts connections to the pages, and bounds what each may take: time, memory and descriptors.

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

/// How long a request's head may take, from the end of the answer before it on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How large a request's head may be. Also how much of an answer waits for a slow reader beside the chunk that is being sent.
const MAX_HEAD: usize = 16 << 10;

/// How long a reader may take nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept for further requests.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How long the last answer may take after that.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the kernel keeps for a connection on its way in and out, which counts as memory of the Pod. It doubles both.
const RECEIVE_BUFFER: u32 = 32 << 10;
const SEND_BUFFER: u32 = 64 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long no connection is accepted after none could be.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Listens on an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Those that are accepted inherit them.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves without end, on at most so many connections.
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
            // accept(2) passes on what has become of the connection.
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(%error, "connections to the admin pages can't be accepted; trying again");
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

fn is_of_peer(error: &io::Error) -> bool {
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
    // An error is the peer's affair, and there is nobody to tell it.
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
