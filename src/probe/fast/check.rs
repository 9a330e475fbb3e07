//! The checks that a reactor can make: a TCP connect, and a plain HTTP request of which only the
//! status counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::clock;
use crate::config::{CheckKind, HttpCheck, Scheme, TcpCheck};
use crate::health::Verdict;
use crate::probe::conversation::{ConnectFailure, Protocol};
use crate::probe::http::{Expectation, RequestTemplate};
use crate::probe::kind::PlainProtocol;
use crate::probe::observation::Observed;
use crate::probe::target::Target;

/// A check of one target, made ready to be probed many times by a [`Reactor`](super::Reactor).
pub struct FastCheck {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
    pub(super) kind: FastKind,
}

pub(super) enum FastKind {
    /// Two packets of the handshake's three: the target's kernel answers, and its program never
    /// learns of the connection.
    HalfOpen,
    /// The whole handshake.
    FullHandshake,
    /// Boxed, because most checks are of the other kinds.
    Http(Box<FastHttp>),
    /// A conversation in a database's own protocol.
    Native(Arc<dyn Protocol>),
}

/// An HTTP request that is the same at each probe, and what its answer must be.
pub(super) struct FastHttp {
    pub request: Vec<u8>,
    pub method: Method,
    pub expectation: Expectation,
}

impl FastCheck {
    /// Returns `None` if the check does more than a reactor can.
    pub(crate) fn new(check: &CheckKind, timeout: Duration, target: &Target) -> Option<Self> {
        let (port, kind) = match check {
            CheckKind::Tcp(TcpCheck { port, tls: None, send: None, expect: None, accept }) => {
                (*port, if *accept { FastKind::FullHandshake } else { FastKind::HalfOpen })
            }
            CheckKind::Http(http)
                if http.scheme == Scheme::Http && http.expected_body.is_none() =>
            {
                (http.port, FastKind::Http(Box::new(FastHttp::new(http, target)?)))
            }
            _ => return None,
        };
        Some(Self { address: SocketAddr::new(target.ip, port), timeout, kind })
    }

    /// Makes the check of a conversation.
    pub(crate) fn native(plain: PlainProtocol, timeout: Duration) -> Self {
        Self { address: plain.address, timeout, kind: FastKind::Native(plain.protocol) }
    }

    /// Returns whether a reactor can make the check now, because no file must be read first.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.kind {
            FastKind::Native(protocol) => protocol.is_ready(clock::now()),
            _ => true,
        }
    }

    /// Records that a connect has failed.
    pub(super) fn on_connect_failure(&self, verdict: &Verdict, now: Instant) {
        if let FastKind::Native(protocol) = &self.kind {
            protocol.on_connect_failure(ConnectFailure::new(verdict), now);
        }
    }

    /// Returns the details that the newest probe has found that found any.
    pub(crate) fn observed(&self) -> Option<Observed> {
        match &self.kind {
            FastKind::Native(protocol) => protocol.observed(),
            _ => None,
        }
    }
}

impl FastHttp {
    /// Returns `None` if the request differs between probes, or is not valid in HTTP: the prober
    /// that runs as a task reports what is wrong.
    fn new(check: &HttpCheck, target: &Target) -> Option<Self> {
        let template = RequestTemplate::new(check, target).ok()?;
        let request = template.to_wire()?;
        Some(Self { request, method: template.method, expectation: Expectation::new(check) })
    }
}
