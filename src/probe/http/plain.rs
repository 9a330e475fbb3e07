//! The HTTP check without TLS that looks into the answer's body, or reads part of its request from elsewhere at each try.

use std::net::{IpAddr, SocketAddr};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::expectation::Wanted;
use super::http1::{Exchange, request};
use super::request::Ask;
use crate::config::HttpCheck;
use crate::probe::kind::{CheckProber, Workload};
use crate::probe::phase::{Phase, Progress, Step};
use crate::probe::stream::connect::connect;

pub(crate) struct Http {
    address: SocketAddr,
    /// What is asked, or which part of it is not fit for HTTP.
    ask: Result<Ask, String>,
    wanted: Wanted,
}

impl CheckProber for Http {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Step<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        Workload::Network
    }
}

impl Http {
    pub(crate) fn new(check: &HttpCheck, ip: IpAddr) -> Self {
        let address = SocketAddr::new(ip, check.port);
        Self { address, ask: Ask::new(check, address), wanted: Wanted::new(check) }
    }

    async fn run(&self, progress: &Progress) -> Step<()> {
        let ask = self.ask.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let request = request(ask, ask.headers().await?);
        progress.enter(Phase::Connect);
        let stream = connect(self.address).await?;
        progress.enter(Phase::Http);
        let exchange =
            Exchange { request: &request, method: &ask.method, wanted: &self.wanted, progress };
        exchange.run(stream, |error| Phase::Http.io(error)).await
    }
}
