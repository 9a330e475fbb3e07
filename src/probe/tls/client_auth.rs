//! What the server of one try asks of its client in the handshake.
//!
//! A client configuration is shared by many tries, so its hook looks up the try that is being polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

tokio::task_local! {
    static CURRENT: HandshakeObserver;
}

/// What the server of one connection asked for, and what it got.
#[derive(Debug, Clone, Default)]
pub(crate) struct HandshakeObserver(Arc<Observed>);

#[derive(Debug, Default)]
struct Observed {
    asked: AtomicBool,
    given: AtomicBool,
    /// Set if the client names no server: rustls sends no name that is an IP.
    without_sni: bool,
}

impl HandshakeObserver {
    /// Of a handshake that names the server.
    pub(crate) fn with_sni() -> Self {
        Self::default()
    }

    /// Of a handshake that names no server.
    pub(crate) fn no_sni() -> Self {
        Self(Arc::new(Observed { without_sni: true, ..Observed::default() }))
    }

    /// Runs a part of the try with the hook listening.
    pub(crate) async fn scope<F: Future>(&self, part: F) -> F::Output {
        CURRENT.scope(self.clone(), part).await
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.0.given.load(Ordering::Relaxed)
    }

    pub(crate) fn without_sni(&self) -> bool {
        self.0.without_sni
    }
}

/// Sets the hook of a configuration. Resumption is off: a check must go through what a new client goes through.
pub(crate) fn install(config: &mut ClientConfig) {
    config.resumption = Resumption::disabled();
    config.client_auth_cert_resolver =
        Arc::new(ObservedCertResolver(config.client_auth_cert_resolver.clone()));
}

/// Gives the configured client certificate, and notes that it was asked for.
#[derive(Debug)]
struct ObservedCertResolver(Arc<dyn ResolvesClientCert>);

impl ResolvesClientCert for ObservedCertResolver {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.resolve(issuers, schemes);
        // Outside of a try there is nobody to tell.
        let _ = CURRENT.try_with(|asked| {
            asked.0.asked.store(true, Ordering::Relaxed);
            asked.0.given.store(key.is_some(), Ordering::Relaxed);
        });
        key
    }

    fn has_certs(&self) -> bool {
        self.0.has_certs()
    }
}
