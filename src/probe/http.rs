//! The HTTP check without TLS that looks into the answer's body, or reads part of its request from elsewhere at each try.
//!
//! It speaks to hyper's connections and not through a client, so that no try costs a task or leaves a TIME_WAIT.

use std::net::{IpAddr, SocketAddr};

use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ask::{Ask, MOST_HEAD, Wanted, broken};
use super::tcp::connect;
use super::{Phase, Progress, Step};
use crate::config::HttpCheck;
use crate::health::Verdict;

pub(super) struct Http {
    address: SocketAddr,
    /// What is asked, or which part of it is not fit for HTTP.
    ask: Result<Ask, String>,
    wanted: Wanted,
}

impl Http {
    pub fn new(check: &HttpCheck, ip: IpAddr) -> Self {
        let address = SocketAddr::new(ip, check.port);
        Self { address, ask: Ask::new(check, address), wanted: Wanted::new(check) }
    }

    pub async fn run(&self, progress: &Progress) -> Step<()> {
        let ask = self.ask.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let request = request(ask, ask.headers().await?);
        progress.enter(Phase::Connect);
        let stream = connect(self.address).await?;
        progress.enter(Phase::Http);
        exchange(stream, request, &self.wanted, progress).await
    }
}

fn request(ask: &Ask, headers: HeaderMap) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = ask.method.clone();
    *request.uri_mut() = Uri::from(ask.path.clone());
    *request.headers_mut() = headers;
    if let Some(host) = ask.host() {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    request
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>, wanted: &Wanted, progress: &Progress) -> Step<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error| failed(&error, progress);
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async { judge(sender.send_request(request).await.map_err(failed)?, wanted, progress).await };
    // Polled here and not in a task of its own: whoever drops the try drops the connection.
    match select(Box::pin(answer), connection).await {
        Either::Left((verdict, _)) => verdict,
        Either::Right((_, answer)) => answer.await,
    }
}

async fn judge(answer: Response<Incoming>, wanted: &Wanted, progress: &Progress) -> Step<()> {
    let Some(mut search) = wanted.judge(answer.status())? else {
        return Ok(());
    };
    progress.enter(Phase::Body);
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(&error, progress))?;
        if let Some(data) = frame.data_ref()
            && search.feed(data)?
        {
            return Ok(());
        }
    }
    search.ended()
}

fn failed(error: &hyper::Error, progress: &Progress) -> Verdict {
    broken(progress.phase(), error, |error| Phase::Http.io(error))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::config::{Scheme, Tls};

    #[tokio::test]
    async fn a_server_that_speaks_first_is_told() {
        let check = HttpCheck {
            port: 80,
            path: "/".into(),
            scheme: Scheme::Http,
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            expected_statuses: vec![200..=399],
            expected_body: None,
            tls: Tls::default(),
        };
        let ask = Ask::new(&check, ([127, 0, 0, 1], 80).into()).unwrap();
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"J\0\0\0\x0a8.0.36\0").await.unwrap();
        let progress = Progress::default();
        progress.enter(Phase::Http);
        let request = request(&ask, ask.headers().await.unwrap());
        let got = exchange(ours, request, &Wanted::new(&check), &progress).await;
        assert_eq!(got, Err(Verdict::Fail("http: not HTTP: the server spoke first".into())));
    }
}
