//! The check by gRPC's health protocol: one call over HTTP/2, as a task.
//!
//! ```text
//!  POST /grpc.health.v1.Health/Check, and the name of a service  -->
//!                                                                <--  its state, grpc-status
//! ```
//!
//! | answer                                         | verdict      |
//! | ---                                            | ---          |
//! | status OK and `SERVING`                        | pass         |
//! | status OK and another state                    | fail         |
//! | `UNAUTHENTICATED`, `PERMISSION_DENIED`         | inconclusive |
//! | another status, no gRPC, no HTTP/2             | fail         |
//!
//! Over TLS the server must choose `h2` in the handshake (ALPN), as clients of gRPC ask for it. An
//! answer that has come whole ends the connection with GOAWAY, a FIN and a reset, and all else
//! with a reset.

mod message;
mod status;

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::FutureExt;
use futures::future::BoxFuture;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::{Method, Request, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use self::message::ServingStatus;
use super::conversation::{MAX_MESSAGE, MAX_RECEIVED};
use super::http::AGENT;
use super::http2_client::{Limits, converse, next_data};
use super::kind::{CheckProber, NewProber, Workload};
use super::phase::{Phase, ProbeResult, Progress};
use super::server_text::{Secrets, quote_server};
use super::stream::close::close_with_server;
use super::stream::connect::connect;
use super::stream::{BoundedStream, ReadBudget};
use super::target::Target;
use super::tls::{self, Alpn};
use crate::config::GrpcCheck;
use crate::health::Verdict;

const METHOD: &str = "/grpc.health.v1.Health/Check";

const LIMITS: Limits = Limits { head: MAX_MESSAGE as u32, window: 65_535 };

/// The prober of a check by gRPC's health protocol.
struct GrpcProber {
    address: SocketAddr,
    /// The host that the request names. `None` if it is not valid in HTTP, which the config's
    /// parser rejects.
    authority: Option<Authority>,
    /// The message of the request.
    message: Bytes,
    tls: Option<tls::Connector>,
}

impl NewProber for GrpcCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        let authority = self.authority.clone().unwrap_or_else(|| {
            let host = match (&target.name, target.ip) {
                (Some(name), _) => name.to_string(),
                (None, IpAddr::V6(ip)) => format!("[{ip}]"),
                (None, IpAddr::V4(ip)) => ip.to_string(),
            };
            format!("{host}:{}", self.port)
        });
        Box::new(GrpcProber {
            address: SocketAddr::new(target.ip, self.port),
            authority: authority.parse().ok(),
            message: message::request(&self.service).into(),
            tls: self.tls.as_ref().map(|tls| tls::Connector::new(tls, target, Alpn::Http2Only)),
        })
    }
}

impl CheckProber for GrpcProber {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>> {
        match &self.tls {
            Some(tls) => self.run_tls(tls, progress).boxed(),
            None => self.run_plain(progress).boxed(),
        }
    }

    fn workload(&self) -> Workload {
        if self.tls.is_some() { Workload::Cpu } else { Workload::Network }
    }

    fn may_fail_by_name(&self, reason: &str) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.may_fail_by_name(reason))
    }
}

impl GrpcProber {
    async fn run_plain(&self, progress: &Progress) -> ProbeResult<()> {
        let request = self.request(Scheme::HTTP)?;
        progress.enter(Phase::Connect);
        let mut stream = connect(self.address).await?;
        progress.enter(Phase::Grpc);
        let failed = |error: &io::Error| Phase::Grpc.io_error(error);
        self.call(&mut stream, request, progress, failed).await?;
        close_with_server(stream);
        Ok(())
    }

    async fn run_tls(&self, tls: &tls::Connector, progress: &Progress) -> ProbeResult<()> {
        let request = self.request(Scheme::HTTPS)?;
        let handshake = tls.prepare().await?;
        progress.enter(Phase::Connect);
        let stream = connect(self.address).await?;
        progress.enter(Phase::Tls);
        let mut connection = handshake.run(stream).await?;
        progress.enter(Phase::Grpc);
        let observer = connection.observer.clone();
        if !connection.is_http2() {
            return Err(Phase::Tls.fail("the server does not offer HTTP/2 in the handshake"));
        }
        let failed = |error: &io::Error| observer.verdict(Phase::Grpc, error);
        self.call(&mut connection.stream, request, progress, failed).await?;
        close_with_server(connection.close());
        Ok(())
    }

    fn request(&self, scheme: Scheme) -> ProbeResult<Request<()>> {
        let invalid = || Phase::Grpc.inconclusive("`authority` is not valid in HTTP/2");
        let authority = self.authority.clone().ok_or_else(invalid)?;
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(PathAndQuery::from_static(METHOD))
            .build();
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.map_err(|_| invalid())?;
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(request)
    }

    /// Makes the call and checks its answer. `failed` returns the verdict on an I/O error.
    async fn call<S>(
        &self,
        stream: &mut S,
        request: Request<()>,
        progress: &Progress,
        failed: impl Fn(&io::Error) -> Verdict,
    ) -> ProbeResult<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let budget = &ReadBudget::new(MAX_RECEIVED);
        let failed = &|error| error_verdict(&error, budget, &failed);
        let stream = BoundedStream::new(stream, budget);
        converse(stream, &LIMITS, failed, async |sender| {
            let answer = self.send(sender, request).map_err(failed)?;
            let (head, body) = answer.await.map_err(failed)?.into_parts();
            check_head(head.status, &head.headers)?;
            let result = match head.headers.contains_key("grpc-status") {
                true => status::check(&head.headers).and_then(|()| Err(no_message())),
                false => check_body(body, failed).await,
            };
            progress.decide(&result);
            result
        })
        .await
    }

    fn send(
        &self,
        mut sender: SendRequest<Bytes>,
        request: Request<()>,
    ) -> Result<ResponseFuture, h2::Error> {
        let (answer, mut body) = sender.send_request(request, false)?;
        body.send_data(self.message.clone(), true)?;
        Ok(answer)
    }
}

/// Checks that an answer is one of gRPC.
fn check_head(status: StatusCode, headers: &HeaderMap) -> ProbeResult<()> {
    if status != StatusCode::OK {
        return Err(Phase::Grpc.fail(format_args!("not gRPC: HTTP status {}", status.as_u16())));
    }
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if content_type.starts_with(b"application/grpc") {
        return Ok(());
    }
    let shown = quote_server(content_type, &Secrets::NONE);
    Err(Phase::Grpc.fail(format_args!("not gRPC: the answer is of type {shown}")))
}

/// Reads the message and the status at its end, and checks both.
async fn check_body(
    mut body: RecvStream,
    failed: impl Fn(h2::Error) -> Verdict,
) -> ProbeResult<()> {
    let mut message = Vec::new();
    while let Some(data) = next_data(&mut body).await.map_err(&failed)? {
        message.extend_from_slice(&data);
        if message.len() > MAX_MESSAGE {
            return Err(Phase::Grpc.fail("a message is over 16 KiB"));
        }
    }
    let trailers = body.trailers().await.map_err(&failed)?;
    status::check(&trailers.unwrap_or_default())?;
    if message.is_empty() {
        return Err(no_message());
    }
    match message::read_response(&message) {
        Some(ServingStatus::SERVING) => Ok(()),
        Some(other) => Err(Phase::Grpc.fail(other)),
        None => Err(Phase::Grpc.fail("the answer is not of the health protocol")),
    }
}

fn no_message() -> Verdict {
    Phase::Grpc.fail("the answer has no message")
}

/// Returns the verdict on a call that failed.
fn error_verdict(
    error: &h2::Error,
    budget: &ReadBudget,
    failed: &impl Fn(&io::Error) -> Verdict,
) -> Verdict {
    if budget.is_exhausted() {
        return Phase::Grpc.fail("the server has sent over 64 KiB");
    }
    if error.is_io() {
        // h2 keeps only the error's text, and has an error of its own for the end of the
        // connection.
        return failed(&budget.take_error().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    }
    let Some(reason) = error.reason() else {
        return Phase::Grpc.fail(format_args!("not HTTP/2: {error}"));
    };
    match reason {
        _ if error.is_remote() && error.is_go_away() => {
            Phase::Grpc.fail(format_args!("the server closed the connection ({reason:?})"))
        }
        _ if error.is_remote() => {
            Phase::Grpc.fail(format_args!("the server refused the call ({reason:?})"))
        }
        // The text of another protocol is a frame of a wrong kind or a wrong length.
        Reason::PROTOCOL_ERROR | Reason::FRAME_SIZE_ERROR => Phase::Grpc.fail("not HTTP/2"),
        _ => Phase::Grpc.fail(format_args!("the server violated HTTP/2 ({reason:?})")),
    }
}

#[cfg(test)]
mod tests;
