//! The HTTP check over TLS: one request on a connection of its own, over HTTP/1.1, or HTTP/2 where the config offers it.
//!
//! The connection belongs to the try. Whatever the server does, it is polled by nobody else, and gone when the try ends.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::expectation::Wanted;
use super::request::Ask;
use super::{http1, http2};
use crate::config::HttpCheck;
use crate::probe::kind::{CheckProber, Workload};
use crate::probe::phase::{Phase, Progress, Step};
use crate::probe::stream::close::close_along;
use crate::probe::stream::connect::connect;
use crate::probe::tls::{self, Alpn};

pub(crate) struct Https {
    address: SocketAddr,
    /// What is asked, or which part of it is not fit for HTTP.
    ask: Result<Ask, String>,
    wanted: Wanted,
    tls: tls::Connector,
    offers_http2: bool,
}

impl CheckProber for Https {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Step<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        Workload::Cpu
    }
}

impl Https {
    pub(crate) fn new(check: &HttpCheck, ip: IpAddr) -> Self {
        let address = SocketAddr::new(ip, check.port);
        let alpn = if check.http2 { Alpn::Http2 } else { Alpn::Http1 };
        Self {
            address,
            ask: Ask::new(check, address),
            wanted: Wanted::new(check),
            tls: tls::Connector::new(&check.tls, ip, alpn),
            offers_http2: check.http2,
        }
    }

    async fn run(&self, progress: &Progress) -> Step<()> {
        let ask = self.ask.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let headers = ask.headers().await?;
        let http2_request = match self.offers_http2 {
            true => Some(http2::request(ask, headers.clone())?),
            false => None,
        };
        let session = self.tls.prepare().await?;
        progress.enter(Phase::Connect);
        let stream = connect(self.address).await?;
        progress.enter(Phase::Tls);
        let mut connection = session.handshake(stream).await?;
        progress.enter(Phase::Http);
        let http2_request = http2_request.filter(|_| connection.speaks_http2());
        let (wanted, asked) = (&self.wanted, connection.asked.clone());
        let failed = |error: &io::Error| asked.verdict(Phase::Http, error);
        let stream = &mut connection.stream;
        match http2_request {
            Some(request) => {
                http2::Exchange { request, wanted, progress }.run(stream, failed).await?
            }
            None => {
                let request = &http1::request(ask, headers);
                http1::Exchange { request, method: &ask.method, wanted, progress }
                    .run(stream, failed)
                    .await?;
            }
        }
        // It has been told that this is the only request.
        close_along(connection.end());
        Ok(())
    }
}
