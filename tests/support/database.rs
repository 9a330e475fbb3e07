//! A database that a test can break: a TCP server that names itself, stops, falls into a black
//! hole, or misbehaves.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{black_hole, blocking, runtime};

/// The way that a database treats its clients.
#[derive(Clone, Default)]
pub(crate) enum Behavior {
    /// Sends its IP as a line, then waits until the client closes.
    #[default]
    Greet,
    /// Answers every HTTP request with this status and body.
    Http(u16, String),
    /// Answers every HTTP request with 200 and `ok` over TLS, with this certificate.
    Https(Arc<ServerConfig>),
    /// Accepts and sends nothing.
    Silent,
    /// Sends the head of an HTTP answer one byte a second, without end.
    Drip,
    /// Accepts and resets.
    Reset,
    /// Sends an HTTP answer with an endless body, as fast as the client reads.
    Endless,
    /// Sends bytes of no protocol and closes.
    Garbage,
    /// Answers the first bytes of a client with these, and waits until it closes.
    Reply(Vec<u8>),
}

/// A database that runs until it is dropped.
pub(crate) struct Database {
    pub ip: IpAddr,
    pub port: u16,
    behavior: Behavior,
    accepts: Arc<Mutex<Accepts>>,
    server: Option<(Arc<TcpListener>, JoinHandle<()>)>,
    in_black_hole: bool,
}

#[derive(Default)]
struct Accepts {
    count: u64,
    last: Option<Instant>,
}

impl Database {
    pub(crate) async fn start(ip: IpAddr, port: u16) -> Database {
        Database::start_with(ip, port, Behavior::default()).await
    }

    pub(crate) async fn start_with(ip: IpAddr, port: u16, behavior: Behavior) -> Database {
        let mut database = Database {
            ip,
            port,
            behavior,
            accepts: Arc::default(),
            server: None,
            in_black_hole: false,
        };
        database.restart().await;
        database
    }

    /// Stops it as a crash does: open connections are closed, new ones are refused.
    pub(crate) async fn stop(&mut self) {
        let (listener, server) = self.server.take().expect("the database runs");
        // Closing is not enough: a process that is being started right now holds copies of all
        // descriptors.
        shutdown(listener.as_raw_fd(), Shutdown::Both).expect("it listens");
        server.abort();
        // Its sockets are closed when the task is gone. The only possible result is a cancelled
        // task.
        let _ = server.await;
    }

    pub(crate) async fn restart(&mut self) {
        assert!(self.server.is_none(), "the database runs already");
        let address = SocketAddr::from((self.ip, self.port));
        let listener = TcpListener::bind(address)
            .await
            .unwrap_or_else(|error| panic!("a database on {address}: {error}"));
        let greeting = format!("{}\n", self.ip);
        let listener = Arc::new(listener);
        let served = serve(listener.clone(), self.behavior.clone(), greeting, self.accepts.clone());
        self.server = Some((listener, runtime().spawn(served)));
    }

    /// Restarts it on the same address with another behavior.
    pub(crate) async fn set_behavior(&mut self, behavior: Behavior) {
        self.stop().await;
        self.behavior = behavior;
        self.restart().await;
    }

    /// Lets every packet to and from its IP vanish from now on.
    pub(crate) async fn black_hole(&mut self) {
        let ip = self.ip;
        blocking(move || black_hole::add(ip)).await;
        self.in_black_hole = true;
    }

    /// Takes it out of the black hole.
    pub(crate) async fn restore(&mut self) {
        let ip = self.ip;
        blocking(move || black_hole::remove(ip)).await;
        self.in_black_hole = false;
    }

    /// Returns true if it answers its clients.
    pub(crate) fn is_up(&self) -> bool {
        self.server.is_some() && !self.in_black_hole
    }

    pub(crate) fn in_black_hole(&self) -> bool {
        self.in_black_hole
    }

    /// Returns how many connections it has accepted since it was created.
    pub(crate) fn accept_count(&self) -> u64 {
        lock(&self.accepts).count
    }

    pub(crate) fn last_accept(&self) -> Option<Instant> {
        lock(&self.accepts).last
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some((_, server)) = &self.server {
            server.abort();
        }
        if self.in_black_hole {
            black_hole::remove(self.ip);
        }
    }
}

/// Accepts connections until the task is aborted. They are closed with it.
async fn serve(
    listener: Arc<TcpListener>,
    behavior: Behavior,
    greeting: String,
    accepts: Arc<Mutex<Accepts>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // The client is gone already.
            continue;
        };
        {
            let mut accepts = lock(&accepts);
            accepts.count += 1;
            accepts.last = Some(Instant::now());
        }
        let (behavior, greeting) = (behavior.clone(), greeting.clone());
        // Errors concern only the client.
        connections.spawn(async move {
            let _ = serve_connection(stream, behavior, &greeting).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";

async fn serve_connection(
    mut stream: TcpStream,
    behavior: Behavior,
    greeting: &str,
) -> std::io::Result<()> {
    match behavior {
        Behavior::Greet => {
            stream.write_all(greeting.as_bytes()).await?;
            wait_for_close(&mut stream).await
        }
        Behavior::Http(status, body) => answer_http(stream, status, &body).await,
        Behavior::Https(config) => {
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            answer_http(stream, 200, "ok").await
        }
        Behavior::Silent => wait_for_close(&mut stream).await,
        Behavior::Drip => {
            wait_for_request(&stream).await;
            for byte in HEAD.iter().cycle() {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Behavior::Reset => stream.set_zero_linger(),
        Behavior::Endless => {
            wait_for_request(&stream).await;
            stream.write_all(HEAD).await?;
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        Behavior::Garbage => {
            wait_for_request(&stream).await;
            let garbage: Vec<u8> =
                (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            stream.write_all(&garbage).await
        }
        Behavior::Reply(answer) => {
            wait_for_request(&stream).await;
            stream.write_all(&answer).await?;
            wait_for_close(&mut stream).await
        }
    }
}

/// Waits for the client's first data, as servers of HTTP and TLS do, but only for a moment: in
/// other protocols the server speaks first.
async fn wait_for_request(stream: &TcpStream) {
    let _ = tokio::time::timeout(Duration::from_millis(300), stream.peek(&mut [0])).await;
}

async fn wait_for_close(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Reads the head of one request, answers and closes.
async fn answer_http<S>(mut stream: S, status: u16, body: &str) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = format!(
        "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn lock(accepts: &Mutex<Accepts>) -> std::sync::MutexGuard<'_, Accepts> {
    accepts.lock().unwrap_or_else(PoisonError::into_inner)
}
