//! TLS over a connection: the handshake, and every way it goes wrong in plain words.

use std::error::Error;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, ProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bounded::{Bounded, Exhausted, Meter};
use super::notes::Asked;
use super::text::{escape, quote};
use super::trust::{Alpn, Trust};
use super::{Phase, Step, verifier};
use crate::clock;
use crate::config::Tls;
use crate::health::Verdict;

/// How long a server that asked for a client certificate may take to refuse the lack of one, when it says nothing
/// else. Only such servers are waited for, and most end the wait at once with a session ticket.
const SETTLE: Duration = Duration::from_secs(1);

/// How many bytes of a server are read in one try, as they are on the wire. It is above all that the largest answer
/// can need with a handshake; only what no answer is made of comes to it, such as session tickets without end.
const MAX_WIRE: usize = 4 << 20;

/// How much of a late refusal is read at once.
const BUFFER: usize = 4096;

/// Why servers of many names refuse a client that names none.
const NAME_NEEDED: &str = "the server needs a server name, and none was sent; set `tls.serverName`";

/// How TLS is spoken to one target.
pub(super) struct Connector {
    trust: Arc<Trust>,
    /// None if the config's name is no name, which its parser refuses.
    name: Option<ServerName<'static>>,
}

impl Connector {
    pub(super) fn new(tls: &Tls, ip: IpAddr, alpn: Alpn) -> Self {
        let name = match &tls.server_name {
            Some(name) => ServerName::try_from(name.clone()).ok(),
            None => Some(ServerName::from(ip)),
        };
        Self { trust: Trust::shared(tls, alpn), name }
    }

    /// Reads what must be read, before the target is kept waiting.
    pub(super) async fn prepare(&self) -> Step<Session> {
        let Some(name) = self.name.clone() else {
            return Err(Phase::Tls.inconclusive("serverName is not a name"));
        };
        Ok(Session { config: self.trust.config().await?, name })
    }
}

/// One handshake, made ready.
pub(super) struct Session {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Session {
    pub(super) async fn handshake(self, stream: TcpStream) -> Step<Connection> {
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
pub(super) struct Connection {
    pub stream: Box<TlsStream<Bounded<TcpStream>>>,
    pub asked: Asked,
}

impl Connection {
    /// Returns true if the server chose HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// Sends the words that end TLS, and returns the connection below. Nothing is waited for: those are a few bytes, and
    /// a socket that does not take them is full of what the server has not read.
    pub(super) fn end(mut self) -> TcpStream {
        let (stream, tls) = self.stream.get_mut();
        tls.send_close_notify();
        while tls.wants_write() && tls.write_tls(&mut Now(stream.get_ref())).is_ok() {}
        self.stream.into_inner().0.into_inner()
    }

    /// Waits for a late refusal. In TLS 1.3 the client is done before the server has looked at its certificate, or at
    /// the lack of one, so that a server that asked for one has yet to say yes or no.
    pub(super) async fn settle(&mut self) -> Step<()> {
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

impl Asked {
    /// The verdict on an error of a TLS connection, in whatever phase it shows.
    pub(super) fn verdict(&self, phase: Phase, error: &io::Error) -> Verdict {
        if Exhausted::is(error) {
            let most = MAX_WIRE >> 20;
            return Phase::Tls.fail(format_args!(
                "the server has sent over {most} MiB, more than a check reads"
            ));
        }
        if let Some(error) = tls_error(error) {
            return self.tls_verdict(error);
        }
        let cut_off = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        );
        // The reset of a server that hangs up can overtake the alert that says why.
        if cut_off && self.by_server() && !self.and_given() {
            return Phase::Tls.fail("the server asks for a client certificate");
        }
        phase.io(error)
    }

    fn tls_verdict(&self, error: &rustls::Error) -> Verdict {
        use rustls::Error as E;
        match error {
            E::FailedToGetCurrentTime | E::FailedToGetRandomBytes => Phase::Tls.inconclusive(error),
            E::InvalidCertificate(error) => {
                Phase::Tls.fail(format_args!("certificate {}", flaw(error)))
            }
            E::AlertReceived(alert) => Phase::Tls.fail(self.refusal(*alert)),
            E::InvalidMessage(_) => Phase::Tls.fail("the server does not speak TLS"),
            E::PeerIncompatible(_) => Phase::Tls.fail("no TLS version or cipher in common"),
            E::NoCertificatesPresented => Phase::Tls.fail("the server shows no certificate"),
            _ => Phase::Tls.fail(format_args!("the server breaks the protocol: {error}")),
        }
    }

    /// What a server means by an alert.
    fn refusal(&self, alert: AlertDescription) -> String {
        use AlertDescription as A;
        let given = self.and_given();
        match alert {
            A::CertificateRequired => "the server asks for a client certificate".into(),
            A::HandshakeFailure | A::BadCertificate | A::NoCertificate | A::AccessDenied
                if self.by_server() && !given =>
            {
                "the server asks for a client certificate".into()
            }
            A::HandshakeFailure
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
                if given =>
            {
                format!("the server refuses the client certificate ({alert:?})")
            }
            A::ProtocolVersion => "no TLS version in common".into(),
            A::HandshakeFailure if self.is_unnamed() => {
                format!("no TLS version or cipher in common, or {NAME_NEEDED}")
            }
            A::HandshakeFailure | A::InsufficientSecurity => "no TLS version or cipher in common".into(),
            A::UnrecognisedName if self.is_unnamed() => NAME_NEEDED.into(),
            A::UnrecognisedName => "the server does not know the server name".into(),
            A::NoApplicationProtocol => {
                "the server speaks no HTTP version that is offered; if it speaks HTTP/2 alone, set `http2: true`".into()
            }
            _ if self.is_unnamed() && alert == A::InternalError => {
                format!("the server refuses (InternalError), maybe as {NAME_NEEDED}")
            }
            _ => format!("the server refuses ({alert:?})"),
        }
    }
}

/// The TLS error that an I/O error stands for.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error);
        }
        cause = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}

/// What is wrong with a certificate; continues a sentence that begins with "certificate".
fn flaw(error: &CertificateError) -> String {
    use CertificateError as C;
    match error {
        C::ExpiredContext { not_after, .. } => format!("expired on {}", day(*not_after)),
        C::Expired => "expired".into(),
        C::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}", day(*not_before))
        }
        C::NotValidYet => "is not valid yet".into(),
        C::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> =
                presented.iter().filter_map(|name| plain_name(name)).take(5).collect();
            let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
            format!("is not valid for name {} (it is for {names})", expected.to_str())
        }
        C::NotValidForName => "is not valid for the server name".into(),
        // A bad signature is mostly that of an authority which was made anew under its old name.
        C::UnknownIssuer | C::BadSignature => "signed by an unknown authority".into(),
        C::Revoked => "was revoked".into(),
        C::BadEncoding => "is broken".into(),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => "is not for a server".into(),
        _ if verifier::is_authority(error) => "is an authority's, not a server's".into(),
        _ if verifier::is_old(error) => {
            "carries no names, being of X.509 version 1; make it anew with a subjectAltName".into()
        }
        other => format!("is not valid: {}", quote(&other.to_string(), 120)),
    }
}

/// A name as a person writes it, from the verifier's `DnsName("a.example")` or `IpAddress(10.0.0.1)`.
fn plain_name(presented: &str) -> Option<String> {
    let dns = presented.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")"));
    let name = dns
        .or_else(|| presented.strip_prefix("IpAddress(").and_then(|name| name.strip_suffix(')')))?;
    // The server chose these bytes.
    Some(escape(name.chars().take(100)))
}

fn day(time: UnixTime) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    time.map_or_else(
        || "the end of time".into(),
        |time| clock::rfc3339_seconds(time).chars().take(10).collect(),
    )
}
