//! One request over HTTP/2.

use std::io;

use h2::{Reason, RecvStream};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::http::uri::{Authority, Scheme, Uri};
use hyper::{Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::expectation::{Expectation, MAX_BODY, MAX_HEAD};
use super::request::RequestTemplate;
use crate::health::Verdict;
use crate::probe::http2_client::{Limits, converse, next_data};
use crate::probe::phase::{Phase, ProbeResult, Progress};
use crate::probe::stream::{BoundedStream, ReadBudget};

/// The most bytes that are read until the head is complete, interim heads and other frames
/// included.
const HEAD_READ: usize = MAX_HEAD + (4 << 10);
/// The most bytes that are read after the head, framing included.
const BODY_READ: usize = MAX_BODY + MAX_BODY / 4;
/// The limits of a connection. h2 allows more of a body once half has been read, one turn late.
/// With the default window of 64 KiB, the length of a turn would decide whether a server that
/// ignores the window is faulted.
const LIMITS: Limits = Limits { head: MAX_HEAD as u32, window: 128 << 10 };
/// The longest body that is read to its end although the verdict is known.
const MAX_REST: u64 = 16 << 10;

/// The headers that HTTP/2 forbids (RFC 9113, section 8.2.2).
const HTTP1_ONLY: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Returns the request. Its host is in the URI, as HTTP/2 has it.
pub(super) fn request(
    template: &RequestTemplate,
    mut headers: HeaderMap,
) -> ProbeResult<Request<()>> {
    let authority = match headers.remove(HOST) {
        Some(host) => authority(&host)?,
        None => template.authority.clone(),
    };
    for name in HTTP1_ONLY {
        headers.remove(name);
    }
    let uri = Uri::builder()
        .scheme(Scheme::HTTPS)
        .authority(authority)
        .path_and_query(template.path.clone())
        .build();
    let mut request = Request::new(());
    *request.method_mut() = template.method.clone();
    *request.uri_mut() =
        uri.map_err(|_| Phase::Http.inconclusive("path is not valid in HTTP/2"))?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Returns the configured Host header. It may be a secret, so the error does not quote it.
fn authority(host: &HeaderValue) -> ProbeResult<Authority> {
    Authority::try_from(host.as_bytes())
        .map_err(|_| Phase::Http.inconclusive("the Host header is not valid in HTTP/2"))
}

/// One request on a connection of its own, and its answer.
pub(super) struct Exchange<'a> {
    pub request: Request<()>,
    pub expectation: &'a Expectation,
    pub progress: &'a Progress,
}

impl Exchange<'_> {
    /// Sends the request and checks the answer. `failed` returns the verdict on an I/O error.
    pub(super) async fn run<S>(
        self,
        stream: S,
        failed: impl Fn(&io::Error) -> Verdict,
    ) -> ProbeResult<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let budget = &ReadBudget::new(HEAD_READ);
        let failed = &|error| exchange_error(&error, self.progress, budget, &failed);
        let stream = BoundedStream::new(stream, budget);
        converse(stream, &LIMITS, failed, async |mut sender| {
            let (response, _) = sender.send_request(self.request, true).map_err(failed)?;
            let response = response.await.map_err(failed)?;
            budget.add(BODY_READ);
            check(response, self.expectation, self.progress, failed).await
        })
        .await
    }
}

async fn check(
    response: Response<RecvStream>,
    expectation: &Expectation,
    progress: &Progress,
    failed: impl Fn(h2::Error) -> Verdict,
) -> ProbeResult<()> {
    let is_short = has_short_body(response.headers());
    let matcher = expectation.check_status(response.status())?;
    let mut body = response.into_body();
    if let Some(mut matcher) = matcher {
        progress.enter(Phase::Body);
        loop {
            let Some(data) = next_data(&mut body).await.map_err(&failed)? else {
                return matcher.not_found();
            };
            if matcher.feed(&data)? {
                break;
            }
        }
    }
    progress.decide(&Ok(()));
    // A server logs no error if its answer is read to the end.
    while is_short && matches!(next_data(&mut body).await, Ok(Some(_))) {}
    Ok(())
}

/// Returns true if the head announces a body short enough to be read to its end.
fn has_short_body(headers: &HeaderMap) -> bool {
    let length =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length <= MAX_REST)
}

/// Returns the verdict on an exchange that failed.
fn exchange_error(
    error: &h2::Error,
    progress: &Progress,
    budget: &ReadBudget,
    failed: &impl Fn(&io::Error) -> Verdict,
) -> Verdict {
    if budget.is_exhausted() {
        return Phase::Http.fail(match progress.phase() {
            Phase::Body => "the answer is over 1 MiB",
            _ => "the head of the answer is over 64 KiB",
        });
    }
    if error.is_io() {
        // h2 keeps only the error's text, and has an error of its own for the end of the
        // connection.
        return failed(&budget.take_error().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    }
    let Some(reason) = error.reason() else {
        return Phase::Http.fail(format_args!("not HTTP: {error}"));
    };
    // The text of a GOAWAY comes from the server and may repeat a secret of the request, so it is
    // not shown.
    match reason {
        Reason::HTTP_1_1_REQUIRED if error.is_remote() => {
            Phase::Http.fail("the server requires HTTP/1.1; remove `http2: true`")
        }
        _ if error.is_remote() && error.is_go_away() => {
            Phase::Http.fail(format_args!("the server closed the connection ({reason:?})"))
        }
        _ if error.is_remote() => {
            Phase::Http.fail(format_args!("the server refused the request ({reason:?})"))
        }
        _ => Phase::Http.fail(format_args!("the server violated HTTP/2 ({reason:?})")),
    }
}
