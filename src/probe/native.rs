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

use super::conversation::{ConnectFailure, Ending, Exchange, Protocol, TlsStart, Transport};
use super::kind::{CheckProber, PlainProtocol, Workload};
use super::observation::Observed;
use super::phase::{Phase, ProbeResult, Progress};
use super::stream::close;
use super::stream::connect::{connect, connect_unnoticed};
use super::target::Target;
use super::tls::{self, Alpn, PreparedHandshake, TlsConnection};
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
        Self::offering(Alpn::None, address, protocol, tls, target)
    }

    /// Creates a prober that offers protocols in the TLS handshake.
    pub(crate) fn offering(
        alpn: Alpn,
        address: SocketAddr,
        protocol: Arc<dyn Protocol>,
        tls: Option<&Tls>,
        target: &Target,
    ) -> Self {
        let tls = tls.map(|tls| tls::Connector::new(tls, target, alpn));
        Self { address, protocol, tls }
    }

    async fn run(&self, progress: &Progress) -> ProbeResult<()> {
        let Some(tls) = &self.tls else {
            return run_plain(self.address, &self.protocol, progress).await;
        };
        self.protocol.prepare().await?;
        let handshake = tls.prepare().await?;
        let mut session =
            Session::start(self.address, &self.protocol, Transport::Tls, progress).await?;
        if self.protocol.tls_start() == TlsStart::OnRequest {
            session.converse(progress).await?;
        }
        progress.enter(Phase::Tls);
        session.start_tls(handshake).await?;
        session.converse(progress).await
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

    fn observed(&self) -> Option<Observed> {
        self.protocol.observed()
    }
}

/// Probes once without TLS.
pub(crate) async fn run_plain(
    address: SocketAddr,
    protocol: &Arc<dyn Protocol>,
    progress: &Progress,
) -> ProbeResult<()> {
    protocol.prepare().await?;
    let mut session = Session::start(address, protocol, Transport::Plain, progress).await?;
    session.converse(progress).await
}

/// Prepares a plain connection for its close, so that it ends as its protocol wants it.
pub(crate) fn end(socket: impl AsFd, ending: Ending) {
    match ending {
        Ending::Reset => {}
        Ending::FinReset if close::reset_after_fin(&socket) => {}
        Ending::FinReset => close::send_fin(socket),
        // A socket that does not take a few bytes is full of data that nobody reads.
        Ending::Farewell(message) => {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = net::send(socket, message, flags);
        }
    }
}

/// A connection and its conversation. It ends as its protocol wants it, also when the deadline
/// drops the probe.
struct Session {
    /// None during the TLS handshake, which a reset ends.
    connection: Option<Connection>,
    exchange: Exchange,
}

enum Connection {
    Plain(TcpStream),
    Tls(TlsConnection),
}

impl Session {
    async fn start(
        address: SocketAddr,
        protocol: &Arc<dyn Protocol>,
        transport: Transport,
        progress: &Progress,
    ) -> ProbeResult<Self> {
        progress.enter(Phase::Connect);
        let now = clock::now();
        let mut watch = ConnectWatch { protocol: Some(protocol) };
        let connected = match protocol.server_speaks_first(now) {
            true => connect(address).await,
            false => connect_unnoticed(address).await,
        };
        watch.end(connected.as_ref().err());
        let stream = connected?;
        let exchange = Exchange::new(protocol.clone().start(transport, now)?);
        Ok(Self { connection: Some(Connection::Plain(stream)), exchange })
    }

    /// Sends and reads until the conversation has a result or awaits the TLS handshake.
    async fn converse(&mut self, progress: &Progress) -> ProbeResult<()> {
        let Self { connection: Some(connection), exchange } = self else { return Ok(()) };
        let result = match connection {
            Connection::Plain(stream) => {
                let failed = |phase: Phase, error: &io::Error| phase.io_error(error);
                converse(stream, exchange, progress, failed).await
            }
            Connection::Tls(TlsConnection { stream, observer }) => {
                let failed = |phase: Phase, error: &io::Error| observer.verdict(phase, error);
                converse(stream, exchange, progress, failed).await
            }
        };
        exchange.on_result(&result);
        result
    }

    async fn start_tls(&mut self, handshake: PreparedHandshake) -> ProbeResult<()> {
        let Some(Connection::Plain(stream)) = self.connection.take() else { return Ok(()) };
        let result = async {
            self.exchange.check_nothing_unread()?;
            if stream.try_read(&mut [0]).is_ok_and(|read| read > 0) {
                return Err(Phase::Tls.fail("bytes before the handshake"));
            }
            handshake.run(stream).await
        };
        match result.await {
            Ok(connection) => {
                if let Some(certificate) = connection.certificate() {
                    self.exchange.on_certificate(certificate);
                }
                self.connection = Some(Connection::Tls(connection));
                self.exchange.on_handshake();
                Ok(())
            }
            Err(verdict) => {
                let result = Err(verdict);
                self.exchange.on_result(&result);
                result
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        match self.connection.take() {
            Some(Connection::Plain(stream)) => end(&stream, self.exchange.ending()),
            // The protocol's last message, a close_notify and a reset. All servers take that as an
            // orderly end. A FIN before the reset would often cross with that of the server, which
            // closes after a close_notify, and leave a TIME_WAIT.
            Some(Connection::Tls(connection)) => {
                let farewell = match self.exchange.ending() {
                    Ending::Farewell(message) => message,
                    Ending::Reset | Ending::FinReset => b"",
                };
                drop(connection.close_after(farewell));
            }
            None => {}
        }
    }
}

/// A connect under way. Tells the protocol of its failure, also when the deadline drops it.
struct ConnectWatch<'a> {
    protocol: Option<&'a Arc<dyn Protocol>>,
}

impl ConnectWatch<'_> {
    fn end(&mut self, failure: Option<&Verdict>) {
        if let (Some(protocol), Some(verdict)) = (self.protocol.take(), failure) {
            protocol.on_connect_failure(ConnectFailure::new(verdict), clock::now());
        }
    }
}

impl Drop for ConnectWatch<'_> {
    fn drop(&mut self) {
        if let Some(protocol) = self.protocol {
            protocol.on_connect_failure(ConnectFailure::Other, clock::now());
        }
    }
}

/// Sends and reads until the conversation has a result or awaits the TLS handshake.
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
                _ => exchange.on_close(),
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
        if exchange.awaits_handshake() {
            let failed = |error: io::Error| error_verdict(Phase::Tls, &error);
            stream.write_all(exchange.output()).await.map_err(failed)?;
            exchange.consume_output(exchange.output().len());
            return Ok(());
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
