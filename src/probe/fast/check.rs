//! The checks that are only a few packets and never block: a connect, and an HTTP request of which only the status counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Method;

use crate::config::{CheckKind, HttpCheck, Scheme, TcpCheck};
use crate::probe::http::{Expectation, RequestTemplate};

/// Such a check, made ready to be tried on one target many times by a [`Reactor`](super::reactor::Reactor).
pub struct FastCheck {
    pub(crate) address: SocketAddr,
    pub(crate) timeout: Duration,
    pub(crate) kind: FastKind,
}

pub(crate) enum FastKind {
    /// Two packets of three: the target's kernel answers, its program never hears of it.
    HalfOpen,
    /// The whole handshake.
    FullHandshake,
    /// Boxed, for most are the first.
    Http(Box<FastHttp>),
}

pub(crate) struct FastHttp {
    pub request: Vec<u8>,
    pub method: Method,
    pub expectation: Expectation,
}

impl FastCheck {
    /// None if the check has more to it.
    pub(crate) fn new(check: &CheckKind, timeout: Duration, ip: IpAddr) -> Option<Self> {
        let (port, kind) = match check {
            CheckKind::Tcp(TcpCheck { port, tls: None, send: None, expect: None, accept }) => {
                (*port, if *accept { FastKind::FullHandshake } else { FastKind::HalfOpen })
            }
            CheckKind::Http(http)
                if http.scheme == Scheme::Http && http.expected_body.is_none() =>
            {
                (http.port, FastKind::Http(Box::new(FastHttp::new(http, ip)?)))
            }
            _ => return None,
        };
        Some(Self { address: SocketAddr::new(ip, port), timeout, kind })
    }
}

impl FastHttp {
    /// None if the request is not the same each time, or not fit for HTTP: whoever else makes it tells what is wrong.
    fn new(check: &HttpCheck, ip: IpAddr) -> Option<Self> {
        let template = RequestTemplate::new(check, SocketAddr::new(ip, check.port)).ok()?;
        Some(Self {
            request: template.to_wire()?,
            method: template.method,
            expectation: Expectation::new(check),
        })
    }
}
