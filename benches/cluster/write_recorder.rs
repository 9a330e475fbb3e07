//! A proxy in front of the API server that forwards everything and records the times of each PATCH
//! and its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{ControlPlane, runtime};

/// A write that passed the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// The name of the Endpoints.
    pub service: String,
    pub asked: Instant,
    pub answered: Instant,
    pub status: u16,
}

type Log = Arc<Mutex<Vec<Write>>>;

/// A proxy that runs until it is dropped.
pub(crate) struct WriteRecorder {
    pub url: String,
    log: Log,
    task: JoinHandle<()>,
}

impl WriteRecorder {
    pub(crate) async fn start(plane: &ControlPlane) -> WriteRecorder {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        let acceptor = TlsAcceptor::from(plane.server_identity().server_config());
        let connector = TlsConnector::from(trust(plane));
        let (log, upstream) = (Log::default(), plane.api_address());
        let written = log.clone();
        let task = runtime().spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                let (log, upstream) = (written.clone(), upstream.clone());
                // Errors concern only the client.
                runtime().spawn(async move {
                    let _ = pass(client, &upstream, &acceptor, &connector, &log).await;
                });
            }
        });
        WriteRecorder { url: format!("https://{address}"), log, task }
    }

    /// Returns the writes since the last call.
    pub(crate) fn take(&self) -> Vec<Write> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of writes since the last call.
    pub(crate) fn count(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for WriteRecorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn trust(plane: &ControlPlane) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(plane.ca()).expect("our own file") {
        roots.add(certificate.expect("our own certificate")).expect("our own certificate");
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Serves one connection. The client uses HTTP/1.1, so an answer belongs to the last request of its
/// connection.
async fn pass(
    client: TcpStream,
    upstream: &str,
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
    log: &Log,
) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let name = ServerName::try_from("127.0.0.1").expect("an IP");
    let (client, server) =
        tokio::try_join!(acceptor.accept(client), connector.connect(name, server))?;
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let pending = Mutex::new(None);
    let request = |bytes: &[u8]| {
        if let Some(service) = patched(bytes) {
            *pending.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((service, Instant::now()));
        }
    };
    let answer = |bytes: &[u8]| {
        let answered = Instant::now();
        let Some(status) = status(bytes) else { return };
        if let Some((service, asked)) =
            pending.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let write = Write { service, asked, answered, status };
            log.lock().unwrap_or_else(PoisonError::into_inner).push(write);
        }
    };
    tokio::select! {
        ended = pump(from_client, to_server, request) => ended,
        ended = pump(from_server, to_client, answer) => ended,
    }
}

/// Copies one way, and shows the data to `see`: an answer before its client has it, and a request
/// when it has arrived.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    see: impl Fn(&[u8]),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        see(&buffer[..count]);
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// Returns the name of the object if this is the beginning of a PATCH of Endpoints. Events are
/// patched too.
fn patched(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"PATCH ")?.split(|byte| *byte == b' ').next()?;
    let path = std::str::from_utf8(line).ok()?.split('?').next()?;
    let (before, name) = path.rsplit_once('/')?;
    before.ends_with("/endpoints").then(|| name.to_owned())
}

/// Returns the status if this is the beginning of an answer.
fn status(bytes: &[u8]) -> Option<u16> {
    std::str::from_utf8(bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}
