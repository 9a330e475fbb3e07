//! The TCP check that does more than connect: it starts TLS, sends a text, and waits for another,
//! as configured.

use std::io;
use std::net::SocketAddr;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::kind::{CheckProber, NewProber, Workload};
use super::phase::{Phase, ProbeResult, Progress};
use super::stream::close::close_before_server;
use super::stream::connect::connect;
use super::target::Target;
use super::text::{StreamSearcher, quote_expected};
use super::tls::{self, Alpn};
use super::value;
use crate::config::{ExpectedContent, TcpCheck, ValueSource};
use crate::health::Verdict;

/// The part of an answer that is searched for the expected text.
const MAX_READ: usize = 64 << 10;

/// The prober of a TCP check.
struct TcpProber {
    address: SocketAddr,
    tls: Option<tls::Connector>,
    send: Option<ValueSource>,
    expect: Option<ExpectedContent>,
}

impl NewProber for TcpCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        Box::new(TcpProber::new(self, target))
    }
}

impl CheckProber for TcpProber {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        if self.tls.is_some() { Workload::Cpu } else { Workload::Network }
    }

    fn may_fail_by_name(&self, reason: &str) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.may_fail_by_name(reason))
    }
}

impl TcpProber {
    fn new(check: &TcpCheck, target: &Target) -> Self {
        Self {
            address: SocketAddr::new(target.ip, check.port),
            tls: check.tls.as_ref().map(|tls| tls::Connector::new(tls, target, Alpn::None)),
            send: check.send.clone(),
            expect: check.expect.clone(),
        }
    }

    async fn run(&self, progress: &Progress) -> ProbeResult<()> {
        let text = match &self.send {
            Some(text) => Some(value::read(text, Phase::Send).await?),
            None => None,
        };
        let handshake = match &self.tls {
            Some(tls) => Some(tls.prepare().await?),
            None => None,
        };
        progress.enter(Phase::Connect);
        let mut stream = connect(self.address).await?;
        let Some(handshake) = handshake else {
            self.exchange(&mut stream, text.as_deref(), progress, &|phase, error| {
                phase.io_error(error)
            })
            .await?;
            close_before_server(stream);
            return Ok(());
        };
        progress.enter(Phase::Tls);
        let mut tls = handshake.run(stream).await?;
        let observer = tls.observer.clone();
        self.exchange(&mut tls.stream, text.as_deref(), progress, &|phase, error| {
            observer.verdict(phase, error)
        })
        .await?;
        if self.expect.is_none() {
            progress.enter(Phase::Settle);
            tls.await_late_refusal().await?;
        }
        close_before_server(tls.close());
        Ok(())
    }

    /// Sends the text and waits for the expected one.
    async fn exchange<S>(
        &self,
        stream: &mut S,
        text: Option<&[u8]>,
        progress: &Progress,
        error_verdict: ErrorVerdict<'_>,
    ) -> ProbeResult<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(text) = text {
            progress.enter(Phase::Send);
            let sent = async {
                stream.write_all(text).await?;
                stream.flush().await
            };
            sent.await.map_err(|error| error_verdict(Phase::Send, &error))?;
        }
        if let Some(content) = &self.expect {
            progress.enter(Phase::Expect);
            expect(stream, content, progress, error_verdict).await?;
        }
        Ok(())
    }
}

/// The verdict on an I/O error of the stream. Over TLS, the error may carry an alert of the server.
type ErrorVerdict<'a> = &'a (dyn Fn(Phase, &io::Error) -> Verdict + Sync);

/// Reads until the text has come, the connection ends, or the limit is reached.
async fn expect<S>(
    stream: &mut S,
    content: &ExpectedContent,
    progress: &Progress,
    error_verdict: ErrorVerdict<'_>,
) -> ProbeResult<()>
where
    S: AsyncRead + Unpin,
{
    let mut searcher = StreamSearcher::new(content.as_bytes());
    let mut buffer = vec![0; 4096];
    let mut received = 0;
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(read) => read,
            // A peer that ends TLS without close_notify has closed the connection nevertheless.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error_verdict(Phase::Expect, &error)),
        };
        if searcher.feed(&buffer[..read]) {
            return Ok(());
        }
        if read == 0 {
            let expected = quote_expected(content);
            return Err(Phase::Expect.fail(format_args!("connection closed before {expected}")));
        }
        progress.enter(Phase::ExpectRest);
        received += read;
        if received >= MAX_READ {
            let expected = quote_expected(content);
            return Err(Phase::Expect.fail(format_args!("no {expected} in the first 64 KiB")));
        }
    }
}
