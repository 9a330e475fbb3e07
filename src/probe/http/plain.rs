//! The HTTP check without TLS that a reactor can't make: it searches the body, or its request
//! differs between probes.

use std::net::SocketAddr;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::expectation::Expectation;
use super::http1::{Exchange, request};
use super::request::RequestTemplate;
use crate::config::HttpCheck;
use crate::probe::kind::{CheckProber, Workload};
use crate::probe::phase::{Phase, ProbeResult, Progress};
use crate::probe::stream::connect::connect;
use crate::probe::target::Target;

/// The prober of an HTTP check without TLS.
pub(super) struct HttpProber {
    address: SocketAddr,
    /// The request, or the part of the config that is not valid in HTTP.
    template: Result<RequestTemplate, String>,
    expectation: Expectation,
}

impl CheckProber for HttpProber {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        Workload::Network
    }
}

impl HttpProber {
    pub(super) fn new(check: &HttpCheck, target: &Target) -> Self {
        Self {
            address: SocketAddr::new(target.ip, check.port),
            template: RequestTemplate::new(check, target),
            expectation: Expectation::new(check),
        }
    }

    async fn run(&self, progress: &Progress) -> ProbeResult<()> {
        let template = self.template.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let request = request(template, template.headers().await?);
        progress.enter(Phase::Connect);
        let stream = connect(self.address).await?;
        progress.enter(Phase::Http);
        let exchange = Exchange {
            request: &request,
            method: &template.method,
            expectation: &self.expectation,
            progress,
        };
        exchange.run(stream, |error| Phase::Http.io_error(error)).await
    }
}
