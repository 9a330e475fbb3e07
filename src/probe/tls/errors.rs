//! The verdict on an error of a TLS connection, in plain words.

use std::error::Error;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

use super::client_auth::HandshakeObserver;
use super::verifier;
use crate::clock;
use crate::health::Verdict;
use crate::probe::phase::Phase;
use crate::probe::stream::BudgetExhausted;
use crate::probe::text::{escape, quote};

/// How many bytes of a server are read in one try, as they are on the wire. It is above all that the largest answer
/// can need with a handshake; only what no answer is made of comes to it, such as session tickets without end.
pub(super) const MAX_WIRE_BYTES: usize = 4 << 20;

/// Why servers of many names refuse a client that names none.
const SNI_NEEDED: &str = "the server needs a server name, and none was sent; set `tls.serverName`";

impl HandshakeObserver {
    /// The verdict on an error of a TLS connection, in whatever phase it shows.
    pub(crate) fn verdict(&self, phase: Phase, error: &io::Error) -> Verdict {
        if BudgetExhausted::is(error) {
            let most = MAX_WIRE_BYTES >> 20;
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
        if cut_off && self.is_requested() && !self.is_sent() {
            return Phase::Tls.fail("the server asks for a client certificate");
        }
        phase.io_error(error)
    }

    fn tls_verdict(&self, error: &rustls::Error) -> Verdict {
        use rustls::Error as E;
        match error {
            E::FailedToGetCurrentTime | E::FailedToGetRandomBytes => Phase::Tls.inconclusive(error),
            E::InvalidCertificate(error) => {
                Phase::Tls.fail(format_args!("certificate {}", certificate_error(error)))
            }
            E::AlertReceived(alert) => Phase::Tls.fail(self.alert_reason(*alert)),
            E::InvalidMessage(_) => Phase::Tls.fail("the server does not speak TLS"),
            E::PeerIncompatible(_) => Phase::Tls.fail("no TLS version or cipher in common"),
            E::NoCertificatesPresented => Phase::Tls.fail("the server shows no certificate"),
            _ => Phase::Tls.fail(format_args!("the server breaks the protocol: {error}")),
        }
    }

    /// What a server means by an alert.
    fn alert_reason(&self, alert: AlertDescription) -> String {
        use AlertDescription as A;
        let given = self.is_sent();
        match alert {
            A::CertificateRequired => "the server asks for a client certificate".into(),
            A::HandshakeFailure | A::BadCertificate | A::NoCertificate | A::AccessDenied
                if self.is_requested() && !given =>
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
            A::HandshakeFailure if self.without_sni() => {
                format!("no TLS version or cipher in common, or {SNI_NEEDED}")
            }
            A::HandshakeFailure | A::InsufficientSecurity => "no TLS version or cipher in common".into(),
            A::UnrecognisedName if self.without_sni() => SNI_NEEDED.into(),
            A::UnrecognisedName => "the server does not know the server name".into(),
            A::NoApplicationProtocol => {
                "the server speaks no HTTP version that is offered; if it speaks HTTP/2 alone, set `http2: true`".into()
            }
            _ if self.without_sni() && alert == A::InternalError => {
                format!("the server refuses (InternalError), maybe as {SNI_NEEDED}")
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
fn certificate_error(error: &CertificateError) -> String {
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
        _ if verifier::is_ca_as_server(error) => "is an authority's, not a server's".into(),
        _ if verifier::is_x509_v1(error) => {
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
