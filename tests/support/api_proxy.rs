//! A TCP proxy in front of an API server that injects faults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{ControlPlane, addresses, runtime};

#[derive(Clone)]
enum Fault {
    None,
    /// Refuses connections. Open ones are closed.
    Refuse,
    /// Accepts connections and keeps open ones, but forwards nothing.
    Hang,
    /// Accepts connections and requests, but answers no request. Open connections are closed.
    IgnoreRequests,
    /// Delays each piece of data on each connection.
    Slow(Duration),
    /// Closes all connections once. New ones are forwarded.
    Cut,
    /// Answers every request with this error. Open connections are closed.
    Answer(ErrorAnswer),
}

/// An HTTP status with `Retry-After` in seconds.
#[derive(Clone, Copy)]
struct ErrorAnswer {
    status: u16,
    retry_after: u32,
    format: Format,
}

/// The format of an error's body.
#[derive(Clone, Copy)]
enum Format {
    /// A `Status` object in JSON.
    Status,
    /// Plain text, as the API server sends it when it throttles.
    PlainText,
}

/// A proxy that runs until it is dropped.
pub(crate) struct ApiProxy<'a> {
    plane: &'a ControlPlane,
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    errors: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl<'a> ApiProxy<'a> {
    pub(crate) async fn start(plane: &'a ControlPlane) -> ApiProxy<'a> {
        let address = SocketAddr::from(([127, 0, 0, 1], addresses::allocate_port()));
        let (fault, faults) = watch::channel(Fault::None);
        let errors = Arc::default();
        let proxy = Proxy {
            address,
            upstream: plane.api_address(),
            tls: plane.server_identity().server_config(),
            faults,
            errors: Arc::clone(&errors),
        };
        let listener = proxy.listen();
        let task = runtime().spawn(proxy.run(listener));
        ApiProxy { plane, address, fault, errors, task }
    }

    /// Returns the path of a kubeconfig with all rights that goes through this proxy.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.plane.kubeconfig_at_url(&self.url())
    }

    /// Returns the path of a kubeconfig with a token that goes through this proxy.
    pub(crate) fn kubeconfig_for_token(&self, token: &str) -> PathBuf {
        self.plane.kubeconfig_at(&self.url(), token)
    }

    /// Refuses connections and closes the open ones.
    pub(crate) async fn refuse(&self) {
        self.fault.send_replace(Fault::Refuse);
        super::eventually(Duration::from_secs(5), "the proxy refuses", async || {
            TcpStream::connect(self.address).await.is_err()
        })
        .await;
    }

    /// Accepts connections and forwards nothing, neither on new connections nor on open ones.
    pub(crate) fn hang(&self) {
        self.fault.send_replace(Fault::Hang);
    }

    /// Accepts every request and answers none.
    pub(crate) fn ignore_requests(&self) {
        self.fault.send_replace(Fault::IgnoreRequests);
    }

    /// Forwards everything with a delay.
    pub(crate) fn slow(&self, by: Duration) {
        self.fault.send_replace(Fault::Slow(by));
    }

    /// Closes all open connections once.
    pub(crate) fn cut(&self) {
        self.fault.send_replace(Fault::Cut);
    }

    /// Answers every request with this HTTP status.
    pub(crate) fn answer(&self, status: u16) {
        self.fault.send_replace(Fault::Answer(ErrorAnswer {
            status,
            retry_after: 1,
            format: Format::Status,
        }));
    }

    /// Answers every request with this HTTP status in plain text, and with `Retry-After` in
    /// seconds.
    pub(crate) fn answer_in_plain_text(&self, status: u16, retry_after: u32) {
        self.fault.send_replace(Fault::Answer(ErrorAnswer {
            status,
            retry_after,
            format: Format::PlainText,
        }));
    }

    /// Returns how many requests the proxy has answered with an error.
    pub(crate) fn error_count(&self) -> usize {
        self.error_times().len()
    }

    /// Returns the times of the requests that got an error.
    pub(crate) fn error_times(&self) -> Vec<Instant> {
        self.errors.lock().expect("no panic").clone()
    }

    /// Forwards everything again.
    pub(crate) async fn heal(&self) {
        self.fault.send_replace(Fault::None);
        super::eventually(Duration::from_secs(5), "the proxy accepts", async || {
            TcpStream::connect(self.address).await
        })
        .await;
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for ApiProxy<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Proxy {
    address: SocketAddr,
    upstream: String,
    tls: Arc<ServerConfig>,
    faults: watch::Receiver<Fault>,
    errors: Arc<Mutex<Vec<Instant>>>,
}

impl Proxy {
    fn listen(&self) -> TcpListener {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of sockets");
        socket.bind(self.address).expect("a port of our own");
        socket.listen(128).expect("a bound socket")
    }

    async fn run(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                changed = self.faults.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let fault = self.faults.borrow_and_update().clone();
                    if !matches!(fault, Fault::Hang | Fault::Slow(_) | Fault::None) {
                        connections.shutdown().await;
                    }
                    listener = match fault {
                        Fault::Refuse => None,
                        _ => Some(listener.unwrap_or_else(|| self.listen())),
                    };
                }
                accepted = accept(listener.as_ref()) => {
                    let Ok(client) = accepted else { continue };
                    connections.spawn(self.pass(client));
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// Serves one connection under the current fault. Errors concern only its client.
    fn pass(&self, client: TcpStream) -> impl Future<Output = ()> + use<> {
        let (upstream, tls, faults) =
            (self.upstream.clone(), self.tls.clone(), self.faults.clone());
        let errors = self.errors.clone();
        async move {
            let fault = faults.borrow().clone();
            match fault {
                Fault::Answer(error) => {
                    if answer(client, tls, error).await.is_ok() {
                        errors.lock().expect("no panic").push(Instant::now());
                    }
                }
                Fault::IgnoreRequests => {
                    let Ok(mut stream) = TlsAcceptor::from(tls).accept(client).await else {
                        return;
                    };
                    while stream.read_buf(&mut Vec::new()).await.is_ok_and(|count| count > 0) {}
                }
                Fault::None | Fault::Slow(_) | Fault::Cut => {
                    let Ok(server) = TcpStream::connect(&upstream).await else {
                        return;
                    };
                    forward(client, server, faults).await;
                }
                // The connection stays dead after the proxy heals, like one that a firewall has
                // forgotten. Only a time-out of the client ends it.
                Fault::Hang | Fault::Refuse => std::future::pending().await,
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Copies both ways until either end closes.
async fn forward(client: TcpStream, server: TcpStream, faults: watch::Receiver<Fault>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = pump(from_client, to_server, faults.clone()) => {}
        _ = pump(from_server, to_client, faults) => {}
    }
}

/// Copies one way. While the fault is [`Fault::Hang`], it holds back what it has read.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Fault>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        let slow = match *faults.borrow() {
            Fault::Slow(by) => Some(by),
            _ => None,
        };
        if let Some(by) = slow {
            tokio::time::sleep(by).await;
        }
        // Fails only when the proxy and this task with it are gone.
        let _ = faults.wait_for(|fault| !matches!(fault, Fault::Hang)).await;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn answer(
    client: TcpStream,
    tls: Arc<ServerConfig>,
    error: ErrorAnswer,
) -> std::io::Result<()> {
    let ErrorAnswer { status, retry_after, format } = error;
    let mut stream = TlsAcceptor::from(tls).accept(client).await?;
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (content_type, body) = match format {
        Format::Status => {
            let body = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "made by a test", "code": status,
            });
            ("application/json", body.to_string())
        }
        Format::PlainText => {
            ("text/plain", "Too many requests, please try again later.\n".to_owned())
        }
    };
    let head = [
        format!("HTTP/1.1 {status} Fault"),
        format!("content-type: {content_type}"),
        format!("retry-after: {retry_after}"),
        format!("content-length: {}", body.len()),
        "connection: close\r\n\r\n".to_owned(),
    ]
    .join("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
