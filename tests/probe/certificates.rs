//! Certificates with each kind of fault, and TLS servers that send them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use external_endpoints::config::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::fixtures::Server;

/// A CA, and a folder with the files of the certificates that it signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn sign(&self, names: &[&str]) -> Pair {
        self.sign_with(names, |_| {})
    }

    pub(crate) fn sign_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        self.keep(&cert.pem(), &key)
    }

    pub(crate) fn self_signed(&self, names: &[&str]) -> Pair {
        self.self_signed_with(names, |_| {})
    }

    pub(crate) fn self_signed_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        self.keep(&cert.pem(), &key)
    }

    fn keep(&self, cert: &str, key: &KeyPair) -> Pair {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let pair = Pair { cert: folder.join("tls.crt"), key: folder.join("tls.key") };
        std::fs::write(&pair.cert, cert).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// Returns the TLS keys of a check that trusts this CA.
    pub(crate) fn trusted(&self) -> Tls {
        Tls { ca_file: Some(self.file()), ..Tls::default() }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params
}

/// The clients that a server accepts.
pub(crate) enum Clients<'a> {
    All,
    Asked(&'a Authority),
    Known(&'a Authority),
}

pub(crate) const ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;
pub(crate) const OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

pub(crate) fn acceptor(
    pair: &Pair,
    clients: Clients<'_>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(server_config(pair, clients, versions, alpn)))
}

/// The length of a session ticket of rustls that holds only the key of a session.
const TICKET: usize = 81;

/// Returns an acceptor that sends this many session tickets after the handshake. Each record holds
/// whole tickets, because rustls has a limit of its own for a split one.
pub(crate) fn acceptor_with_tickets(pair: &Pair, alpn: &[&str], tickets: usize) -> TlsAcceptor {
    let mut config = server_config(pair, Clients::All, rustls::ALL_VERSIONS, alpn);
    config.send_tls13_tickets = tickets;
    config.max_fragment_size = Some(5 + 200 * TICKET);
    TlsAcceptor::from(Arc::new(config))
}

fn server_config(
    pair: &Pair,
    clients: Clients<'_>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = |authority: &Authority, required: bool| {
        let mut roots = RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).unwrap();
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if required { builder } else { builder.allow_unauthenticated() }.build().unwrap()
    };
    let verifier = match clients {
        Clients::All => WebPkiClientVerifier::no_client_auth(),
        Clients::Asked(authority) => verifier(authority, false),
        Clients::Known(authority) => verifier(authority, true),
    };
    let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap().map(Result::unwrap).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Returns an acceptor that does not check if its key belongs to its certificate.
pub(crate) fn unchecked_acceptor(
    pair: &Pair,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap().map(Result::unwrap).collect();
    let key = provider
        .key_provider
        .load_private_key(PrivateKeyDer::from_pem_file(&pair.key).unwrap())
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
    TlsAcceptor::from(Arc::new(config))
}

/// Starts a TLS server that answers every client like a small HTTP server, whatever the client
/// sends.
pub(crate) async fn tls_server(acceptor: TlsAcceptor) -> Server {
    Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut tls) = acceptor.accept(stream).await else {
                return;
            };
            let _ = tls.read(&mut [0; 65536]).await;
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            let _ = tls.flush().await;
            let _ = tls.read(&mut [0; 65536]).await;
        }
    })
    .await
}

/// Creates a certificate and key by the `openssl` command, where rcgen can't: too old, too short or
/// too new.
pub(crate) fn openssl_pair(folder: &Path, arguments: &[&str]) -> Pair {
    let folder = tempfile::tempdir_in(folder).unwrap().keep();
    let pair = Pair { cert: folder.join("tls.crt"), key: folder.join("tls.key") };
    let request = folder.join("request");
    let run = |command: &mut Command| {
        let output = command.output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let subject = ["-nodes", "-batch", "-subj", "/CN=old", "-keyout"];
    let new = || {
        let mut command = Command::new("openssl");
        command.arg("req").args(arguments).args(subject).arg(&pair.key);
        command
    };
    if arguments.contains(&"-x509") {
        run(new().arg("-out").arg(&pair.cert));
        return pair;
    }
    // Without extensions, this signs certificates of version 1.
    run(new().arg("-new").arg("-out").arg(&request));
    let mut sign = Command::new("openssl");
    sign.args(["x509", "-req", "-days", "30", "-in"]).arg(&request).arg("-signkey").arg(&pair.key);
    run(sign.arg("-out").arg(&pair.cert));
    pair
}

/// The `openssl` command as a server that answers every request with a page.
pub(crate) struct OpenSsl {
    child: Child,
    pub port: u16,
}

impl OpenSsl {
    pub(crate) async fn start(pair: &Pair, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args([
            "s_server",
            "-www",
            "-accept",
            "127.0.0.1:0",
            "-cipher",
            "DEFAULT@SECLEVEL=0",
        ]);
        command.arg("-cert").arg(&pair.cert).arg("-key").arg(&pair.key).args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("openssl");
        // The server prints `ACCEPT 127.0.0.1:PORT`.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            line.unwrap().strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.parse().ok()
        });
        // The server's output about each connection must be read.
        std::thread::spawn(move || lines.count());
        Self { port: port.expect("openssl listens"), child }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
