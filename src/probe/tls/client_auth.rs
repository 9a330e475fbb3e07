//! What the server of one try asks of its client in the handshake.
//!
//! A client configuration is shared by many tries, so its hook looks up the try that is being polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

tokio::task_local! {
    static NOW: Asked;
}

/// What the server of one connection asked for, and what it got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    asked: AtomicBool,
    given: AtomicBool,
    /// Set if the client names no server: rustls sends no name that is an IP.
    unnamed: bool,
}

impl Asked {
    /// Of a handshake that names the server.
    pub(crate) fn by_name() -> Self {
        Self::default()
    }

    /// Of a handshake that names no server.
    pub(crate) fn without_name() -> Self {
        Self(Arc::new(Answer { unnamed: true, ..Answer::default() }))
    }

    /// Runs a part of the try with the hook listening.
    pub(crate) async fn during<F: Future>(&self, part: F) -> F::Output {
        NOW.scope(self.clone(), part).await
    }

    pub(crate) fn by_server(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn and_given(&self) -> bool {
        self.0.given.load(Ordering::Relaxed)
    }

    pub(crate) fn is_unnamed(&self) -> bool {
        self.0.unnamed
    }
}

/// Sets the hook of a configuration. Resumption is off: a check must go through what a new client goes through.
pub(crate) fn listen(config: &mut ClientConfig) {
    config.resumption = Resumption::disabled();
    config.client_auth_cert_resolver = Arc::new(Noting(config.client_auth_cert_resolver.clone()));
}

/// Gives the configured client certificate, and notes that it was asked for.
#[derive(Debug)]
struct Noting(Arc<dyn ResolvesClientCert>);

impl ResolvesClientCert for Noting {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.resolve(issuers, schemes);
        // Outside of a try there is nobody to tell.
        let _ = NOW.try_with(|asked| {
            asked.0.asked.store(true, Ordering::Relaxed);
            asked.0.given.store(key.is_some(), Ordering::Relaxed);
        });
        key
    }

    fn has_certs(&self) -> bool {
        self.0.has_certs()
    }
}
