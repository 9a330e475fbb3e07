//! A probe in a database's own protocol, as a task: over TLS, or where a value must be read from a
//! file first. All others run in the reactor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::net::{self, SendFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::conversation::{Ending, Exchange, Protocol, TlsRequest, Transport};
use super::kind::{CheckProber, PlainProtocol, Workload};
use super::observation::Observation;
use super::phase::{Phase, ProbeResult, Progress};
use super::stream::close;
use super::stream::connect::connect;
use super::target::Target;
use super::tls::{self, Alpn, TlsConnection};
use super::value;
use crate::clock;
use crate::config::Tls;
use crate::health::Verdict;

/// The size of the buffer for one read.
const READ_BUF_SIZE: usize = 4096;

/// The prober of a check in a database's own protocol.
pub(crate) struct NativeProber {
    address: SocketAddr,
    protocol: Arc<dyn Protocol>,
    tls: Option<tls::Connector>,
}

impl NativeProber {
    pub(crate) fn new(
        address: SocketAddr,
        protocol: Arc<dyn Protocol>,
        tls: Option<&Tls>,
        target: &Target,
    ) -> Self {
        let tls = tls.map(|tls| tls::Connector::new(tls, target, Alpn::None));
        Self { address, protocol, tls }
    }

    async fn run(&self, progress: &Progress) -> ProbeResult<()> {
        let Some(tls) = &self.tls else {
            return run_plain(self.address, &self.protocol, progress).await;
        };
        self.protocol.prepare().await?;
        let handshake = tls.prepare().await?;
        progress.enter(Phase::Connect);
        let mut stream = connect(self.address).await?;
        progress.enter(Phase::Tls);
        if let Some(request) = self.protocol.tls_request() {
            request_tls(&mut stream, request).await?;
        }
        let connection = handshake.run(stream).await?;
        let observer = connection.observer.clone();
        let conversation = self.protocol.clone().start(Transport::Tls, clock::now())?;
        let exchange = Exchange::new(conversation);
        let mut session = TlsSession { connection: Some(connection), exchange };
        let TlsSession { connection: Some(connection), exchange } = &mut session else {
            return Ok(());
        };
        let failed = |phase: Phase, error: &io::Error| observer.verdict(phase, error);
        converse(&mut connection.stream, exchange, progress, failed).await
    }
}

impl CheckProber for NativeProber {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        if self.tls.is_some() { Workload::Cpu } else { Workload::Network }
    }

    fn may_fail_by_name(&self, reason: &str) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.may_fail_by_name(reason))
    }

    fn plain_protocol(&self) -> Option<PlainProtocol> {
        let (address, protocol) = (self.address, self.protocol.clone());
        self.tls.is_none().then_some(PlainProtocol { address, protocol })
    }

    fn observation(&self) -> Observation {
        self.protocol.observation()
    }
}

/// Probes once without TLS.
pub(crate) async fn run_plain(
    address: SocketAddr,
    protocol: &Arc<dyn Protocol>,
    progress: &Progress,
) -> ProbeResult<()> {
    protocol.prepare().await?;
    progress.enter(Phase::Connect);
    let stream = connect(address).await?;
    let exchange = Exchange::new(protocol.clone().start(Transport::Plain, clock::now())?);
    let mut session = PlainSession { stream, exchange };
    let PlainSession { stream, exchange } = &mut session;
    converse(stream, exchange, progress, |phase, error| phase.io_error(error)).await
}

/// Ends a plain connection as its protocol wants it, but for the reset that the close sends.
pub(crate) fn end(socket: impl AsFd, ending: Ending) {
    match ending {
        Ending::Reset => {}
        Ending::FinReset => close::send_fin(socket),
        // A socket that does not take a few bytes is full of data that nobody reads.
        Ending::Farewell(message) => {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = net::send(socket, message, flags);
        }
    }
}

/// A plain connection that ends as its protocol wants it, also when the deadline drops the probe.
struct PlainSession {
    stream: TcpStream,
    exchange: Exchange,
}

impl Drop for PlainSession {
    fn drop(&mut self) {
        end(&self.stream, self.exchange.ending());
    }
}

/// A connection over TLS that ends with the protocol's last message, a close_notify, a FIN and a
/// reset, also when the deadline drops the probe. All servers take that as an orderly end.
struct TlsSession {
    connection: Option<TlsConnection>,
    exchange: Exchange,
}

impl Drop for TlsSession {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let farewell = match self.exchange.ending() {
            Ending::Farewell(message) => message,
            Ending::Reset | Ending::FinReset => b"",
        };
        close::send_fin(connection.close_after(farewell));
    }
}

/// Asks for TLS on a connection that begins without it.
async fn request_tls(stream: &mut TcpStream, tls: TlsRequest) -> ProbeResult<()> {
    let failed = |error: io::Error| Phase::Tls.io_error(&error);
    stream.write_all(tls.request).await.map_err(failed)?;
    // Exactly one byte: more of them would be plain text that looks as if it came through TLS.
    let answer = stream.read_u8().await.map_err(failed)?;
    if answer == tls.refused {
        return Err(Phase::Tls.fail("the server does not speak TLS"));
    }
    if answer != tls.granted {
        return Err(
            Phase::Tls.fail("the server answered neither yes nor no to the request for TLS")
        );
    }
    if stream.try_read(&mut [0]).is_ok_and(|read| read > 0) {
        return Err(Phase::Tls.fail("bytes before the handshake"));
    }
    Ok(())
}

/// Sends and reads until the conversation has a result.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exchange: &mut Exchange,
    progress: &Progress,
    error_verdict: impl Fn(Phase, &io::Error) -> Verdict,
) -> ProbeResult<()> {
    let mut buffer = vec![0; READ_BUF_SIZE];
    loop {
        progress.enter(exchange.phase());
        let failed = |error: &io::Error| error_verdict(exchange.phase(), error);
        // A server that has already answered may have closed its side for reading.
        let sent = async {
            stream.write_all(exchange.output()).await?;
            stream.flush().await
        };
        let sent = sent.await;
        let read = match stream.read(&mut buffer).await {
            Ok(0) => 0,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(failed(&error)),
        };
        if read == 0 {
            return Err(match sent {
                Err(error) if exchange.is_unanswered() => failed(&error),
                _ => exchange.closed(),
            });
        }
        exchange.consume_output(exchange.output().len());
        let mut result = exchange.receive(&buffer[..read]);
        if let (None, Some(work)) = (&result, exchange.take_work()) {
            value::blocking(exchange.phase(), work).await?;
            result = exchange.resume();
        }
        if let Some(result) = result {
            progress.decide(&result);
            return result;
        }
    }
}

/// Probes once without TLS, within the timeout.
pub(crate) async fn probe_plain(
    address: SocketAddr,
    protocol: &Arc<dyn Protocol>,
    timeout: Duration,
) -> ProbeResult<()> {
    let progress = Progress::default();
    let result = tokio::time::timeout(timeout, run_plain(address, protocol, &progress)).await;
    result.unwrap_or_else(|_| progress.timed_out(timeout))
}
