//! The verdict on an error of a TLS connection, with a reason in plain English.

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

/// The most bytes that a probe reads from the wire. The largest answer with a handshake needs less.
/// Only other data reaches the limit, such as session tickets without end.
pub(super) const MAX_WIRE_BYTES: usize = 4 << 20;

/// The reason why a server of many names refuses a client that sends no server name.
const SNI_NEEDED: &str = "the server needs a server name, and none was sent; set `tls.serverName`";

impl HandshakeObserver {
    /// Returns the verdict on an error of a TLS connection in any phase.
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
        // The reset of a server that closes can overtake the alert with its reason.
        if cut_off && self.is_requested() && !self.is_sent() {
            return Phase::Tls.fail("the server requires a client certificate");
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
            E::NoCertificatesPresented => Phase::Tls.fail("the server sent no certificate"),
            _ => Phase::Tls.fail(format_args!("the server violated the TLS protocol: {error}")),
        }
    }

    /// Returns the reason that an alert of the server stands for.
    fn alert_reason(&self, alert: AlertDescription) -> String {
        use AlertDescription as A;
        let given = self.is_sent();
        match alert {
            A::CertificateRequired => "the server requires a client certificate".into(),
            A::HandshakeFailure | A::BadCertificate | A::NoCertificate | A::AccessDenied
                if self.is_requested() && !given =>
            {
                "the server requires a client certificate".into()
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
                format!("the server refused the client certificate ({alert:?})")
            }
            A::ProtocolVersion => "no TLS version in common".into(),
            A::HandshakeFailure if !self.sends_sni() => {
                format!("no TLS version or cipher in common, or {SNI_NEEDED}")
            }
            A::HandshakeFailure | A::InsufficientSecurity => {
                "no TLS version or cipher in common".into()
            }
            A::UnrecognisedName if !self.sends_sni() => SNI_NEEDED.into(),
            A::UnrecognisedName => "the server does not know the server name".into(),
            A::NoApplicationProtocol => self.alpn().refused().into(),
            _ if !self.sends_sni() && alert == A::InternalError => {
                format!("the server aborted TLS (InternalError), maybe because {SNI_NEEDED}")
            }
            _ => format!("the server aborted TLS ({alert:?})"),
        }
    }
}

/// Returns the TLS error that an I/O error carries.
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

/// Returns the fault of a certificate. It continues a sentence that begins with "certificate".
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
        // A bad signature is mostly that of a CA which was created again under its old name.
        C::UnknownIssuer | C::BadSignature => "signed by an unknown authority".into(),
        C::Revoked => "was revoked".into(),
        C::BadEncoding => "is malformed".into(),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => "is not for a server".into(),
        _ if verifier::is_ca_as_server(error) => "is a CA's, not a server's".into(),
        _ if verifier::is_x509_v1(error) => {
            "has no names because it is X.509 version 1; reissue it with a subjectAltName".into()
        }
        other => format!("is not valid: {}", quote(&other.to_string(), 120)),
    }
}

/// Returns a name as people write it, from the verifier's `DnsName("a.example")` or
/// `IpAddress(10.0.0.1)`.
fn plain_name(presented: &str) -> Option<String> {
    let dns = presented.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")"));
    let name = dns
        .or_else(|| presented.strip_prefix("IpAddress(").and_then(|name| name.strip_suffix(')')))?;
    // The server chose these bytes, so they are escaped.
    Some(escape(name.chars().take(100)))
}

/// Returns a time as its date in UTC.
fn day(time: UnixTime) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    time.map_or_else(
        || "a date out of range".into(),
        |time| clock::rfc3339_seconds(time).chars().take(10).collect(),
    )
}
