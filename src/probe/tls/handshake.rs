//! The TLS handshake with one target, and the end of the connection.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::alpn::Alpn;
use super::client_auth::HandshakeObserver;
use super::config::TlsConfigCache;
use super::errors::MAX_WIRE_BYTES;
use crate::config::Tls;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::stream::{BoundedStream, ReadBudget};
use crate::probe::target::Target;

/// The longest wait for a late refusal. Only a server that has requested a client certificate is
/// waited for, and most end the wait at once with a session ticket.
const LATE_REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The size of the buffer for a late refusal.
const READ_BUF_SIZE: usize = 4096;

/// A client of one target.
pub(crate) struct Connector {
    cache: Arc<TlsConfigCache>,
    /// `None` if the name is not valid in TLS. The config's parser rejects such a `serverName`.
    name: Option<ServerName<'static>>,
    /// True if the name is that of the target, and not a `serverName` of the config.
    is_by_target: bool,
    alpn: Alpn,
}

impl Connector {
    pub(crate) fn new(tls: &Tls, target: &Target, alpn: Alpn) -> Self {
        let name = match (tls.server_name.as_deref(), target.name.as_deref()) {
            (Some(name), _) | (None, Some(name)) => ServerName::try_from(name.to_owned()).ok(),
            (None, None) => Some(ServerName::from(target.ip)),
        };
        let is_by_target = tls.server_name.is_none();
        Self { cache: TlsConfigCache::shared(tls, alpn), name, is_by_target, alpn }
    }

    /// Returns whether a failure for this reason may come from a wrong name of the target.
    pub(crate) fn may_fail_by_name(&self, reason: &str) -> bool {
        self.is_by_target && reason.starts_with(&format!("{}:", Phase::Tls))
    }

    /// Reads the certificates and keys. Called before the connect, so that no target waits for it.
    pub(crate) async fn prepare(&self) -> ProbeResult<PreparedHandshake> {
        let Some(name) = self.name.clone() else {
            return Err(Phase::Tls.inconclusive("the name is not valid in TLS; set serverName"));
        };
        Ok(PreparedHandshake { config: self.cache.config().await?, name, alpn: self.alpn })
    }
}

/// A handshake that needs no more files.
pub(crate) struct PreparedHandshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    alpn: Alpn,
}

impl PreparedHandshake {
    /// Runs the handshake over a connection.
    pub(crate) async fn run(self, stream: TcpStream) -> ProbeResult<TlsConnection> {
        let observer = HandshakeObserver::new(&self.name, self.alpn);
        let connector = TlsConnector::from(self.config);
        let stream = BoundedStream::new(stream, &ReadBudget::new(MAX_WIRE_BYTES));
        match observer.scope(connector.connect(self.name, stream)).await {
            Ok(stream) => Ok(TlsConnection { stream: Box::new(stream), observer }),
            Err(error) => Err(observer.verdict(Phase::Tls, &error)),
        }
    }
}

/// A TLS connection whose handshake has ended on the side of the client.
pub(crate) struct TlsConnection {
    pub stream: Box<TlsStream<BoundedStream<TcpStream>>>,
    pub observer: HandshakeObserver,
}

impl TlsConnection {
    /// Returns true if the server chose HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// Returns the server's certificate in DER.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// Ends TLS by a close_notify, and returns the TCP connection.
    ///
    /// Waits for nothing: the message is a few bytes, and a socket that does not take them is full
    /// of data that the server has not read.
    pub(crate) fn close(self) -> TcpStream {
        self.close_after(b"")
    }

    /// Ends TLS like [`close`](Self::close), after a last message of a few bytes.
    pub(crate) fn close_after(mut self, message: &[u8]) -> TcpStream {
        let (stream, tls) = self.stream.get_mut();
        // It can't fail: the message goes to a buffer.
        let _ = tls.writer().write_all(message);
        tls.send_close_notify();
        while tls.wants_write() && tls.write_tls(&mut NonBlockingWriter(stream.get_ref())).is_ok() {
        }
        self.stream.into_inner().0.into_inner()
    }

    /// Waits until the server has had the time to refuse the client.
    ///
    /// In TLS 1.3 the client ends the handshake before the server has verified the client's
    /// certificate or noticed that there is none.
    pub(crate) async fn await_late_refusal(&mut self) -> ProbeResult<()> {
        let (stream, tls) = self.stream.get_mut();
        if !self.observer.is_requested() || tls.protocol_version() != Some(ProtocolVersion::TLSv1_3)
        {
            return Ok(());
        }
        let failed = |error: &io::Error| self.observer.verdict(Phase::Settle, error);
        let answer = async {
            let mut buffer = vec![0; READ_BUF_SIZE];
            while tls.tls13_tickets_received() == 0 {
                let read = stream.read(&mut buffer).await.map_err(|error| failed(&error))?;
                if read == 0 {
                    return Err(failed(&io::ErrorKind::UnexpectedEof.into()));
                }
                let mut unread = &buffer[..read];
                while !unread.is_empty() {
                    // 0 means that the server has ended TLS.
                    if tls.read_tls(&mut unread).map_err(|error| failed(&error))? == 0 {
                        return Err(failed(&io::ErrorKind::UnexpectedEof.into()));
                    }
                    let state = tls
                        .process_new_packets()
                        .map_err(|error| failed(&io::Error::other(error)))?;
                    if state.plaintext_bytes_to_read() > 0 {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        tokio::time::timeout(LATE_REFUSAL_TIMEOUT, answer).await.unwrap_or(Ok(()))
    }
}

/// A writer that writes as much as the socket takes at once.
struct NonBlockingWriter<'a>(&'a TcpStream);

impl Write for NonBlockingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
