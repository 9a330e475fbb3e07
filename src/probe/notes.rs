//! What rustls lets one try know of its handshake: when it began, and what the server asked for.
//!
//! A client configuration is shared by many tries, so its hooks look up the try that is being polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{
    ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue, Tls12Resumption,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, NamedGroup, SignatureScheme};

use super::{Phase, Progress};

tokio::task_local! {
    static NOW: Notes;
}

/// One try, as the hooks see it.
#[derive(Clone)]
pub(super) struct Notes {
    progress: Progress,
    asked: Asked,
}

impl Notes {
    pub fn new(progress: &Progress) -> Self {
        Self { progress: progress.clone(), asked: Asked::default() }
    }

    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Runs a part of the try with the hooks listening.
    pub async fn during<F: Future>(&self, part: F) -> F::Output {
        NOW.scope(self.clone(), part).await
    }

    fn now(note: impl FnOnce(&Notes)) {
        // Outside of a try there is nobody to tell: a connection that is being closed may still read.
        let _ = NOW.try_with(note);
    }
}

/// Enters a phase of the try that is being polled.
pub(super) fn enter(phase: Phase) {
    Notes::now(|notes| notes.progress.enter(phase));
}

/// What the server of one connection asked for, and what it got.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    asked: AtomicBool,
    given: AtomicBool,
}

impl Asked {
    pub fn by_server(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    pub fn and_given(&self) -> bool {
        self.0.given.load(Ordering::Relaxed)
    }
}

/// Sets the hooks of a configuration. Resumption is off: a check must go through what a new client goes through.
pub(super) fn listen(config: &mut ClientConfig) {
    config.resumption = Resumption::store(Arc::new(Nothing)).tls12_resumption(Tls12Resumption::Disabled);
    config.client_auth_cert_resolver = Arc::new(Noting(config.client_auth_cert_resolver.clone()));
}

/// Gives the configured client certificate, and notes that it was asked for.
#[derive(Debug)]
struct Noting(Arc<dyn ResolvesClientCert>);

impl ResolvesClientCert for Noting {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.resolve(issuers, schemes);
        Notes::now(|notes| {
            notes.asked.0.asked.store(true, Ordering::Relaxed);
            notes.asked.0.given.store(key.is_some(), Ordering::Relaxed);
        });
        key
    }

    fn has_certs(&self) -> bool {
        self.0.has_certs()
    }
}

/// Remembers no session, and notes being asked for one, which is the first thing a handshake does.
#[derive(Debug)]
struct Nothing;

impl ClientSessionStore for Nothing {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        enter(Phase::Tls);
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
