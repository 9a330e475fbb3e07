//! The client certificate that a server requests in the handshake of one probe.
//!
//! Many probes share a client configuration, and rustls asks the configuration for the certificate.
//! So the resolver of the configuration finds the probe that is polled in a task-local variable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use super::alpn::Alpn;

tokio::task_local! {
    static CURRENT: HandshakeObserver;
}

/// The facts about one handshake that explain its failure: was a client certificate requested, was
/// one sent, did the client send a server name (SNI), and which protocols did it offer (ALPN)?
/// Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct HandshakeObserver(Arc<Observed>);

#[derive(Debug)]
struct Observed {
    is_requested: AtomicBool,
    is_sent: AtomicBool,
    sends_sni: bool,
    alpn: Alpn,
}

impl HandshakeObserver {
    /// Creates the observer of a handshake with the named server. rustls sends no IP as SNI.
    pub(super) fn new(name: &ServerName<'_>, alpn: Alpn) -> Self {
        Self(Arc::new(Observed {
            is_requested: AtomicBool::new(false),
            is_sent: AtomicBool::new(false),
            sends_sni: matches!(name, ServerName::DnsName(_)),
            alpn,
        }))
    }

    /// Runs a part of the probe under observation.
    pub(super) async fn scope<F: Future>(&self, part: F) -> F::Output {
        CURRENT.scope(self.clone(), part).await
    }

    /// Returns true if the server has requested a client certificate.
    pub(super) fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::Relaxed)
    }

    /// Returns true if the client has sent a certificate.
    pub(super) fn is_sent(&self) -> bool {
        self.0.is_sent.load(Ordering::Relaxed)
    }

    /// Returns true if the client has sent a server name.
    pub(super) fn sends_sni(&self) -> bool {
        self.0.sends_sni
    }

    /// Returns the protocols that the client has offered.
    pub(super) fn alpn(&self) -> Alpn {
        self.0.alpn
    }
}

/// Installs the observation in a configuration, and turns resumption off: a probe goes through
/// everything that a new client goes through.
pub(super) fn install(config: &mut ClientConfig) {
    config.resumption = Resumption::disabled();
    config.client_auth_cert_resolver =
        Arc::new(ObservedCertResolver(config.client_auth_cert_resolver.clone()));
}

/// A resolver that returns the configured client certificate and records the request.
#[derive(Debug)]
struct ObservedCertResolver(Arc<dyn ResolvesClientCert>);

impl ResolvesClientCert for ObservedCertResolver {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.resolve(issuers, schemes);
        // An error means that no probe is polled, so nothing is recorded.
        let _ = CURRENT.try_with(|observer| {
            observer.0.is_requested.store(true, Ordering::Relaxed);
            observer.0.is_sent.store(key.is_some(), Ordering::Relaxed);
        });
        key
    }

    fn has_certs(&self) -> bool {
        self.0.has_certs()
    }
}
