//! One request over HTTP/1.1, with or without TLS.
//!
//! This module uses no HTTP client. A client would cost a task for each probe and leave a
//! TIME_WAIT, and it would reject a server that answers before the request. Some servers do: they
//! answer as soon as they accept, and read only then.

use std::io;
use std::pin::pin;

use futures::FutureExt;
use futures::future::FusedFuture;
use hyper::Method;
use hyper::header::{HOST, HeaderMap, TRANSFER_ENCODING};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::expectation::{Expectation, MAX_HEAD};
use super::request::RequestTemplate;
use super::response::{ResponseChecker, ResponseReader};
use crate::health::Verdict;
use crate::probe::phase::{Phase, ProbeResult, Progress};
use crate::probe::stream::{BoundedStream, ReadBudget};

/// The most bytes that a probe reads: the largest head, and twice the part of a body that is
/// searched, because a chunked body is longer than its content.
const MAX_READ: usize = MAX_HEAD + (2 << 20);

/// The size of the buffer that answers are read into.
const READ_BUF_SIZE: usize = 16 << 10;

/// Returns the request as it goes on the wire. It has no body, so it must not announce chunks.
pub(super) fn request(template: &RequestTemplate, mut headers: HeaderMap) -> Vec<u8> {
    headers.remove(TRANSFER_ENCODING);
    if let Some(host) = template.host() {
        headers.entry(HOST).or_insert(host);
    }
    let mut request = format!("{} {} HTTP/1.1\r\n", template.method, template.path).into_bytes();
    for (name, value) in &headers {
        request.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    request
}

/// One request on a connection of its own, and its answer.
pub(super) struct Exchange<'a> {
    pub request: &'a [u8],
    pub method: &'a Method,
    pub expectation: &'a Expectation,
    pub progress: &'a Progress,
}

impl Exchange<'_> {
    /// Sends the request and reads the answer at the same time. `failed` returns the verdict on an
    /// I/O error.
    pub(super) async fn run<S>(
        &self,
        stream: S,
        failed: impl Fn(&io::Error) -> Verdict,
    ) -> ProbeResult<()>
    where
        S: AsyncRead + AsyncWrite,
    {
        let stream = pin!(stream);
        let budget = &ReadBudget::new(MAX_READ);
        let failed = |error: io::Error| match budget.is_exhausted() {
            true => Phase::Http.fail(format_args!(
                "the server has sent over {} KiB, more than a check reads",
                MAX_READ >> 10
            )),
            false => failed(&budget.take_error().unwrap_or(error)),
        };
        let (mut reader, mut writer) = tokio::io::split(BoundedStream::new(stream, budget));
        let send = async {
            writer.write_all(self.request).await?;
            writer.flush().await
        };
        let mut send = pin!(send.fuse());
        let mut answer = Answer::new(self);
        let mut buffer = vec![0; READ_BUF_SIZE];
        let mut early = reader.read(&mut buffer).now_or_never();
        if early.is_some() {
            answer.response.set_early();
        }
        loop {
            let read = match early.take() {
                Some(read) => read,
                None => tokio::select! {
                    biased;
                    sent = &mut send, if !send.is_terminated() => {
                        answer.send_error = sent.err();
                        continue;
                    }
                    read = reader.read(&mut buffer) => read,
                },
            };
            if let Some(verdict) = answer.on_read(read, &buffer, &failed) {
                return verdict;
            }
        }
    }
}

/// The answer of an exchange, as far as it has come.
struct Answer<'a> {
    exchange: &'a Exchange<'a>,
    response: ResponseReader,
    checker: ResponseChecker<'a>,
    /// The error that ended the sending of the request.
    send_error: Option<io::Error>,
}

impl<'a> Answer<'a> {
    fn new(exchange: &'a Exchange<'a>) -> Self {
        let checker = ResponseChecker::new(exchange.expectation);
        Self { exchange, response: ResponseReader::new(), checker, send_error: None }
    }

    /// Handles the outcome of a read into the buffer. Returns the verdict once it reads no more.
    fn on_read(
        &mut self,
        read: io::Result<usize>,
        buffer: &[u8],
        failed: &impl Fn(io::Error) -> Verdict,
    ) -> Option<ProbeResult<()>> {
        let Exchange { method, progress, .. } = self.exchange;
        match read {
            // Some servers close without having read all of the request. Their answer counts.
            Ok(0) => Some(match self.send_error.take().filter(|_| self.response.is_empty()) {
                Some(error) => Err(failed(error)),
                None => self.response.close(&mut self.checker),
            }),
            Ok(length) => {
                let verdict = self.response.feed(&buffer[..length], method, &mut self.checker);
                if verdict.is_none() {
                    progress.enter(self.response.phase());
                    self.response.verdict().into_iter().for_each(|known| progress.decide(known));
                }
                verdict
            }
            Err(error) => {
                Some(self.response.verdict().cloned().unwrap_or_else(|| Err(failed(error))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpCheck, Scheme, Tls};
    use crate::probe::target::Target;

    /// Returns the verdict on a server that says this before the request is sent.
    async fn verdict_after(words: &[u8], text: Option<&str>) -> ProbeResult<()> {
        let check = HttpCheck {
            port: 80,
            path: "/".into(),
            scheme: Scheme::Http,
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            expected_statuses: vec![200..=399],
            expected_body: text.map(str::to_owned),
            http2: false,
            tls: Tls::default(),
        };
        let template = RequestTemplate::new(&check, &Target::local()).unwrap();
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(words).await.unwrap();
        let (expectation, progress) = (Expectation::new(&check), Progress::default());
        let request = request(&template, template.headers().await.unwrap());
        let exchange = Exchange {
            request: &request,
            method: &template.method,
            expectation: &expectation,
            progress: &progress,
        };
        exchange.run(ours, |error| Phase::Http.io_error(error)).await
    }

    #[tokio::test]
    async fn an_answer_before_the_request_is_an_answer() {
        let synced = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsynced";
        assert_eq!(verdict_after(synced, None).await, Ok(()));
        assert_eq!(verdict_after(synced, Some("synced")).await, Ok(()));
        let no = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(verdict_after(no, None).await, Err(Verdict::Fail("http: status 503".into())));
    }

    #[tokio::test]
    async fn a_server_that_speaks_first_is_reported() {
        for words in [&b"J\0\0\0\x0a8.0.36\0"[..], b"220 mail.example ESMTP\r\n"] {
            let expected = Err(Verdict::Fail("http: not HTTP: the server spoke first".into()));
            assert_eq!(verdict_after(words, None).await, expected);
        }
    }
}
