//! A program in the middle between a client and a PostgreSQL, which ends the TLS of both.

use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::certificates::{ALL, Clients, Pair, acceptor};
use crate::fixtures::*;

/// The request for TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub(crate) struct TlsProxy {
    server: Server,
    /// The messages of the newest client.
    sent: Arc<Mutex<Vec<u8>>>,
}

impl TlsProxy {
    /// Starts a proxy with this certificate for the server on a port.
    pub(crate) async fn start(port: u16, pair: &Pair) -> Self {
        Self::start_hiding(port, pair, "nothing").await
    }

    /// Starts a proxy that takes a text out of the first message of the server.
    pub(crate) async fn start_hiding(port: u16, pair: &Pair, hidden: &'static str) -> Self {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (acceptor, kept) = (acceptor(pair, Clients::All, ALL, &[]), sent.clone());
        let server = Server::start(move |outer| {
            let (acceptor, sent) = (acceptor.clone(), kept.clone());
            async move {
                let Some((outer, inner)) = connect(outer, acceptor, port).await else { return };
                let (from_client, to_client) = tokio::io::split(outer);
                let (from_server, to_server) = tokio::io::split(inner);
                sent.lock().unwrap().clear();
                tokio::join!(
                    record(from_client, to_server, &sent),
                    hide(from_server, to_client, hidden),
                );
            }
        })
        .await;
        Self { server, sent }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// Returns the mechanism of the newest login and the channel binding that it has announced.
    pub(crate) fn login(&self) -> String {
        let sent = self.sent.lock().unwrap();
        let text = String::from_utf8_lossy(&sent);
        let (_, login) = text.split_once("SCRAM").unwrap_or_else(|| panic!("no login: {text:?}"));
        let (mechanism, rest) = login.split_once('\0').unwrap();
        let (header, _) = rest[4..].split_once("n=").unwrap();
        format!("SCRAM{mechanism} {header}")
    }
}

async fn connect(
    mut outer: TcpStream,
    acceptor: TlsAcceptor,
    port: u16,
) -> Option<(server::TlsStream<TcpStream>, client::TlsStream<TcpStream>)> {
    outer.read_exact(&mut [0; 8]).await.ok()?;
    outer.write_all(b"S").await.ok()?;
    let outer = acceptor.accept(outer).await.ok()?;
    let mut inner = TcpStream::connect((LOCAL, port)).await.ok()?;
    inner.write_all(&SSL_REQUEST).await.ok()?;
    inner.read_exact(&mut [0]).await.ok()?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny))
        .with_no_client_auth();
    let inner = TlsConnector::from(Arc::new(config)).connect(LOCAL.into(), inner).await.ok()?;
    Some((outer, inner))
}

/// Passes on what the client says, and keeps it.
async fn record(
    mut from: ReadHalf<server::TlsStream<TcpStream>>,
    mut to: WriteHalf<client::TlsStream<TcpStream>>,
    sent: &Mutex<Vec<u8>>,
) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        sent.lock().unwrap().extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Passes on what the server says, without this text in the first message.
async fn hide(
    mut from: ReadHalf<client::TlsStream<TcpStream>>,
    mut to: WriteHalf<server::TlsStream<TcpStream>>,
    hidden: &str,
) {
    let mut buffer = [0; 4096];
    let mut is_first = true;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut text = buffer[..read].to_vec();
        let at = text.windows(hidden.len()).position(|part| part == hidden.as_bytes());
        if let (Some(at), true) = (at, is_first) {
            text.drain(at..at + hidden.len());
            text[4] -= hidden.len() as u8;
        }
        is_first = false;
        if to.write_all(&text).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// No check of the server's certificate.
#[derive(Debug)]
struct AcceptAny;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
