//! The HTTP check over TLS: one request over HTTP/1.1, or HTTP/2 if the config offers it.
//!
//! The connection belongs to the probe and ends with it.

use std::io;
use std::net::SocketAddr;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::expectation::Expectation;
use super::request::RequestTemplate;
use super::{http1, http2};
use crate::config::HttpCheck;
use crate::probe::kind::{CheckProber, Workload};
use crate::probe::phase::{Phase, ProbeResult, Progress};
use crate::probe::stream::close::close_with_server;
use crate::probe::stream::connect::connect;
use crate::probe::target::Target;
use crate::probe::tls::{self, Alpn};

/// The prober of an HTTP check over TLS.
pub(super) struct HttpsProber {
    address: SocketAddr,
    /// The request, or the part of the config that is not valid in HTTP.
    template: Result<RequestTemplate, String>,
    expectation: Expectation,
    tls: tls::Connector,
    offers_http2: bool,
}

impl CheckProber for HttpsProber {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        Workload::Cpu
    }

    fn may_fail_by_name(&self, reason: &str) -> bool {
        self.tls.may_fail_by_name(reason)
    }
}

impl HttpsProber {
    pub(super) fn new(check: &HttpCheck, target: &Target) -> Self {
        let alpn = if check.http2 { Alpn::Http2 } else { Alpn::Http1 };
        Self {
            address: SocketAddr::new(target.ip, check.port),
            template: RequestTemplate::new(check, target),
            expectation: Expectation::new(check),
            tls: tls::Connector::new(&check.tls, target, alpn),
            offers_http2: check.http2,
        }
    }

    async fn run(&self, progress: &Progress) -> ProbeResult<()> {
        let template = self.template.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let headers = template.headers().await?;
        let http2_request = match self.offers_http2 {
            true => Some(http2::request(template, headers.clone())?),
            false => None,
        };
        let handshake = self.tls.prepare().await?;
        progress.enter(Phase::Connect);
        let stream = connect(self.address).await?;
        progress.enter(Phase::Tls);
        let mut connection = handshake.run(stream).await?;
        progress.enter(Phase::Http);
        let http2_request = http2_request.filter(|_| connection.is_http2());
        let (expectation, observer) = (&self.expectation, connection.observer.clone());
        let failed = |error: &io::Error| observer.verdict(Phase::Http, error);
        let stream = &mut connection.stream;
        match http2_request {
            Some(request) => {
                http2::Exchange { request, expectation, progress }.run(stream, failed).await?
            }
            None => {
                let request = &http1::request(template, headers);
                http1::Exchange { request, method: &template.method, expectation, progress }
                    .run(stream, failed)
                    .await?;
            }
        }
        // The server knows that there is no other request.
        close_with_server(connection.close());
        Ok(())
    }
}
