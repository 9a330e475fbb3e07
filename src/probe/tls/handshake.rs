//! The TLS handshake with one target, and the end of the connection.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client_auth::Asked;
use super::config::{Alpn, Trust};
use super::errors::MAX_WIRE;
use crate::config::Tls;
use crate::probe::phase::{Phase, Step};
use crate::probe::stream::{Bounded, Meter};

/// How long a server that asked for a client certificate may take to refuse the lack of one, when it says nothing
/// else. Only such servers are waited for, and most end the wait at once with a session ticket.
const SETTLE: Duration = Duration::from_secs(1);

/// How much of a late refusal is read at once.
const BUFFER: usize = 4096;

/// How TLS is spoken to one target.
pub(crate) struct Connector {
    trust: Arc<Trust>,
    /// None if the config's name is no name, which its parser refuses.
    name: Option<ServerName<'static>>,
}

impl Connector {
    pub(crate) fn new(tls: &Tls, ip: IpAddr, alpn: Alpn) -> Self {
        let name = match &tls.server_name {
            Some(name) => ServerName::try_from(name.clone()).ok(),
            None => Some(ServerName::from(ip)),
        };
        Self { trust: Trust::shared(tls, alpn), name }
    }

    /// Reads what must be read, before the target is kept waiting.
    pub(crate) async fn prepare(&self) -> Step<Session> {
        let Some(name) = self.name.clone() else {
            return Err(Phase::Tls.inconclusive("serverName is not a name"));
        };
        Ok(Session { config: self.trust.config().await?, name })
    }
}

/// One handshake, made ready.
pub(crate) struct Session {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Session {
    pub(crate) async fn handshake(self, stream: TcpStream) -> Step<Connection> {
        let asked = match self.name {
            ServerName::DnsName(_) => Asked::by_name(),
            _ => Asked::without_name(),
        };
        let connector = TlsConnector::from(self.config);
        let stream = Bounded::new(stream, &Meter::new(MAX_WIRE));
        match asked.during(connector.connect(self.name, stream)).await {
            Ok(stream) => Ok(Connection { stream: Box::new(stream), asked }),
            Err(error) => Err(asked.verdict(Phase::Tls, &error)),
        }
    }
}

/// A TLS connection whose handshake is over as far as the client can tell.
pub(crate) struct Connection {
    pub stream: Box<TlsStream<Bounded<TcpStream>>>,
    pub asked: Asked,
}

impl Connection {
    /// Returns true if the server chose HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// Sends the words that end TLS, and returns the connection below. Nothing is waited for: those are a few bytes, and
    /// a socket that does not take them is full of what the server has not read.
    pub(crate) fn end(mut self) -> TcpStream {
        let (stream, tls) = self.stream.get_mut();
        tls.send_close_notify();
        while tls.wants_write() && tls.write_tls(&mut Now(stream.get_ref())).is_ok() {}
        self.stream.into_inner().0.into_inner()
    }

    /// Waits for a late refusal. In TLS 1.3 the client is done before the server has looked at its certificate, or at
    /// the lack of one, so that a server that asked for one has yet to say yes or no.
    pub(crate) async fn settle(&mut self) -> Step<()> {
        let (stream, tls) = self.stream.get_mut();
        if !self.asked.by_server() || tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Ok(());
        }
        let failed = |error: &io::Error| self.asked.verdict(Phase::Settle, error);
        let answer = async {
            let mut buffer = vec![0; BUFFER];
            while tls.tls13_tickets_received() == 0 {
                let read = stream.read(&mut buffer).await.map_err(|error| failed(&error))?;
                if read == 0 {
                    return Err(failed(&io::ErrorKind::UnexpectedEof.into()));
                }
                let mut unread = &buffer[..read];
                while !unread.is_empty() {
                    // It takes nothing more once the server has ended TLS.
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
        tokio::time::timeout(SETTLE, answer).await.unwrap_or(Ok(()))
    }
}

/// What a socket takes now.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
