//! The HTTP check: one request on a connection of its own, over the same connect and TLS as the TCP check.
//!
//! It speaks to hyper's connections and not through a client, so that by construction there is no pool, no proxy, no
//! redirect, no retry and no look-up of names, and every connect and TLS reason is the TCP check's.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use futures::channel::mpsc;
use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tcp::{Handshake, connect};
use super::text::{Finder, quote};
use super::{Phase, Progress, Step, tls, value};
use crate::config::{HttpCheck, Scheme, Value};
use crate::health::Verdict;

/// How much of a body is searched for the expected text.
const MOST_BODY: usize = 1 << 20;
/// How large an answer's head may be.
const MOST_HEAD: usize = 64 << 10;

pub(super) struct Http {
    address: SocketAddr,
    tls: Option<tls::Connector>,
    /// What is asked, or which part of it is not fit for HTTP.
    ask: Result<Ask, String>,
    expected_statuses: Vec<RangeInclusive<u16>>,
    expected_body: Option<String>,
}

/// The parts of the request that stay the same.
struct Ask {
    scheme: Scheme,
    method: Method,
    path: PathAndQuery,
    authority: Authority,
    headers: Vec<(HeaderName, Value)>,
}

impl Http {
    pub fn new(check: &HttpCheck, ip: IpAddr) -> Self {
        let address = SocketAddr::new(ip, check.port);
        let secure = check.scheme == Scheme::Https;
        Self {
            address,
            tls: secure.then(|| tls::Connector::new(&check.tls, ip, &[b"h2", b"http/1.1"])),
            ask: Ask::new(check, address),
            expected_statuses: check.expected_statuses.clone(),
            expected_body: check.expected_body.clone(),
        }
    }

    pub async fn run(&self, progress: &Progress) -> Step<()> {
        let ask = self.ask.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let headers = ask.read_headers().await?;
        let session = match &self.tls {
            Some(tls) => Some(tls.prepare().await?),
            None => None,
        };
        progress.enter(Phase::Connect);
        let stream = connect(self.address, Handshake::Whole).await.map_err(|error| Phase::Connect.io(&error))?;
        let Some(session) = session else {
            progress.enter(Phase::Http);
            let answer = self.over_http1(stream, ask.http1(headers), progress).await;
            return answer.map_err(|stop| stop.verdict(None));
        };
        progress.enter(Phase::Tls);
        let tls = session.handshake(stream).await?;
        progress.enter(Phase::Http);
        let answer = if tls.speaks_h2() {
            self.over_http2(tls.stream, ask.http2(headers), progress).await
        } else {
            self.over_http1(tls.stream, ask.http1(headers), progress).await
        };
        answer.map_err(|stop| stop.verdict(Some(&tls.asked)))
    }

    async fn over_http1<S>(&self, stream: S, request: Request<Empty<Bytes>>, progress: &Progress) -> Result<(), Stop>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(stream)).await.map_err(Stop::Head)?;
        let answer = async { self.judge(sender.send_request(request).await.map_err(Stop::Head)?, progress).await };
        // Polled here and not in a task of its own: whoever drops the try drops the connection.
        match select(Box::pin(answer), connection).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right((_, answer)) => answer.await,
        }
    }

    async fn over_http2<S>(&self, stream: S, request: Request<Empty<Bytes>>, progress: &Progress) -> Result<(), Stop>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (tasks, started) = mpsc::unbounded();
        let (mut sender, connection) =
            http2::Builder::new(Here(tasks)).handshake(TokioIo::new(stream)).await.map_err(Stop::Head)?;
        let answer = async { self.judge(sender.send_request(request).await.map_err(Stop::Head)?, progress).await };
        let connection = async { select(connection, Box::pin(run_all(started))).await };
        match select(Box::pin(answer), Box::pin(connection)).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right((_, answer)) => answer.await,
        }
    }

    async fn judge(&self, answer: Response<Incoming>, progress: &Progress) -> Result<(), Stop> {
        let status = answer.status().as_u16();
        if !self.expected_statuses.iter().any(|expected| expected.contains(&status)) {
            return Err(Phase::Http.fail(format_args!("status {status}")).into());
        }
        let Some(wanted) = &self.expected_body else {
            return Ok(());
        };
        progress.enter(Phase::Body);
        let mut body = answer.into_body();
        let mut finder = Finder::new(wanted.as_bytes());
        let mut seen = 0;
        while seen < MOST_BODY {
            let Some(frame) = body.frame().await else {
                let wanted = quote(wanted, 60);
                return Err(Phase::Http.fail(format_args!("body does not contain {wanted}")).into());
            };
            let Ok(data) = frame.map_err(Stop::Body)?.into_data() else {
                continue;
            };
            let rest = &data[..data.len().min(MOST_BODY - seen)];
            if finder.feed(rest) {
                return Ok(());
            }
            seen += rest.len();
        }
        let wanted = quote(wanted, 60);
        Err(Phase::Http.fail(format_args!("the first 1 MiB of the body does not contain {wanted}")).into())
    }
}

impl Ask {
    fn new(check: &HttpCheck, address: SocketAddr) -> Result<Self, String> {
        let usual = match check.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let host = match &check.host {
            Some(host) => host.clone(),
            None if address.port() != usual => address.to_string(),
            None if address.is_ipv6() => format!("[{}]", address.ip()),
            None => address.ip().to_string(),
        };
        let unfit = |key: &str, what: &str| format!("{key} {} is not fit for HTTP", quote(what, 60));
        let header = |(name, value): &(String, Value)| match HeaderName::try_from(name) {
            Ok(header) => Ok((header, value.clone())),
            Err(_) => Err(unfit("header", name)),
        };
        Ok(Self {
            scheme: check.scheme,
            method: Method::from_bytes(check.method.as_bytes()).map_err(|_| unfit("method", &check.method))?,
            path: PathAndQuery::try_from(check.path.as_str()).map_err(|_| unfit("path", &check.path))?,
            authority: Authority::try_from(host.as_str()).map_err(|_| unfit("host", &host))?,
            headers: check.headers.iter().map(header).collect::<Result<_, _>>()?,
        })
    }

    /// The configured headers as they are now, each marked so that nothing prints its value.
    async fn read_headers(&self) -> Step<Vec<(HeaderName, HeaderValue)>> {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let bytes = value::read_word(value, Phase::Http).await?;
            let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from(bytes)) else {
                return Err(Phase::Http.inconclusive(format_args!("the value of header {name} is not fit for HTTP")));
            };
            value.set_sensitive(true);
            headers.push((name.clone(), value));
        }
        Ok(headers)
    }

    fn http1(&self, headers: Vec<(HeaderName, HeaderValue)>) -> Request<Empty<Bytes>> {
        let mut request = self.request(Uri::from(self.path.clone()), headers);
        let own = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            own.entry(HOST).or_insert(host);
        }
        // True, and lets the server forget the connection at once.
        own.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
        request
    }

    fn http2(&self, mut headers: Vec<(HeaderName, HeaderValue)>) -> Request<Empty<Bytes>> {
        let mut uri = hyper::http::uri::Parts::default();
        uri.scheme = Some(match self.scheme {
            Scheme::Http => hyper::http::uri::Scheme::HTTP,
            Scheme::Https => hyper::http::uri::Scheme::HTTPS,
        });
        uri.path_and_query = Some(self.path.clone());
        // HTTP/2 says the host in the address of the request, and knows no header for the connection.
        let host = headers.iter().find(|(name, _)| name == HOST);
        let host = host.and_then(|(_, value)| Authority::try_from(value.as_bytes()).ok());
        uri.authority = Some(host.unwrap_or_else(|| self.authority.clone()));
        headers.retain(|(name, _)| name != HOST && name != CONNECTION);
        self.request(Uri::from_parts(uri).unwrap_or_default(), headers)
    }

    fn request(&self, uri: Uri, headers: Vec<(HeaderName, HeaderValue)>) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        let own = request.headers_mut();
        own.extend(headers);
        own.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let agent = HeaderValue::from_static(concat!("external-endpoints/", env!("CARGO_PKG_VERSION")));
        own.entry(USER_AGENT).or_insert(agent);
        request
    }
}

/// Why the exchange ended: an answer that was judged, or none, or half of one.
enum Stop {
    Verdict(Verdict),
    Head(hyper::Error),
    Body(hyper::Error),
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Stop::Verdict(verdict)
    }
}

impl Stop {
    fn verdict(self, tls: Option<&tls::Asked>) -> Verdict {
        let (error, otherwise) = match self {
            Stop::Verdict(verdict) => return verdict,
            Stop::Head(error) => (error, "not HTTP"),
            Stop::Body(error) => (error, "body cut off"),
        };
        let io = |error: &io::Error| match tls {
            Some(asked) => asked.verdict(Phase::Http, error),
            None => Phase::Http.io(error),
        };
        let mut cause: &(dyn Error + 'static) = &error;
        let mut last = &error;
        loop {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                return io(error);
            }
            last = cause.downcast_ref().unwrap_or(last);
            match cause.source() {
                Some(source) => cause = source,
                None => break,
            }
        }
        if last.is_incomplete_message() || last.is_closed() {
            return io(&io::ErrorKind::UnexpectedEof.into());
        }
        if last.is_parse_too_large() {
            return Phase::Http.fail("the head of the answer is over 64 KiB");
        }
        Phase::Http.fail(format_args!("{otherwise}: {cause}"))
    }
}

/// Where an HTTP/2 connection leaves what it wants to run beside itself.
#[derive(Clone)]
struct Here(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F> hyper::rt::Executor<F> for Here
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Fails only when the try is over, and then the task is too.
        let _ = self.0.unbounded_send(Box::pin(task));
    }
}

async fn run_all(mut started: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>) {
    let mut tasks = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(task) = started.next() => tasks.push(task),
            Some(()) = tasks.next(), if !tasks.is_empty() => {}
            else => std::future::pending().await,
        }
    }
}
