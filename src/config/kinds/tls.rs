//! The keys of a TLS connection, which several kinds of check have.

use std::path::PathBuf;

use crate::config::language::reader::FromNode as _;
use crate::config::language::record::{Record as _, record};
use crate::config::language::scalars::{Bool, FilePath, non_empty_text, scalar};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::problem::{Collector, Reported, quote};

record! {
    /// The settings of a TLS connection.
    #[schemars(rename = "Tls")]
    TlsKeys requires [] {
        /// A file with the PEM certificates of the authorities that may sign the server's
        /// certificate, or with that certificate itself. Default: the certificates of the system.
        ca_file: FilePath,
        /// A file with the PEM chain of the client's certificate. Needs `keyFile`.
        cert_file: FilePath,
        /// A file with the PEM key of the client's certificate. Needs `certFile`.
        key_file: FilePath,
        /// The name that the server's certificate must have, which SNI announces. Default: the
        /// address. If that is an IP, SNI announces nothing.
        server_name: ServerName,
        /// Accept any certificate, of any age, key and algorithm. Anyone on the way can then answer
        /// for the server.
        insecure_skip_verify: Bool = Bool(false),
    }
}

scalar!(
    ServerName(String),
    "a DNS name or an IP",
    {"type": "string", "minLength": 1},
    |scalar, expected| {
        let name = non_empty_text(scalar, expected)?;
        if rustls::pki_types::ServerName::try_from(name).is_err() {
            return Err(format!(
                "{} can't be the name in a certificate; write a DNS name or an IP, without a port",
                quote(name)
            ));
        }
        Ok(ServerName(name.into()))
    }
);

/// The checked settings of a TLS connection to a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates that sign the target's. Without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM chain of the client's certificate, with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM key of the client's certificate, with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name that the certificate must have and that SNI announces. Without it, the address.
    pub server_name: Option<String>,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
}

/// Returns the checked settings.
pub(super) fn compile(
    written: &Spanned<TlsKeys>,
    problems: &mut Collector,
) -> Result<Tls, Reported> {
    let tls = written.value.overlay(&TlsKeys::built_in());
    for (one, other, given, missing) in [
        ("certFile", "keyFile", &tls.cert_file, &tls.key_file),
        ("keyFile", "certFile", &tls.key_file, &tls.cert_file),
    ] {
        if let (Some(given), true) = (given.given(), missing.is_absent()) {
            let message = format!("`{one}` has no effect alone; write `{other}` beside it");
            problems.error_at_key(&given.location, message);
        }
    }
    Ok(Tls {
        ca_file: tls.ca_file.optional()?.map(|path| path.0),
        cert_file: tls.cert_file.optional()?.map(|path| path.0),
        key_file: tls.key_file.optional()?.map(|path| path.0),
        server_name: tls.server_name.optional()?.map(|name| name.0),
        insecure_skip_verify: tls.insecure_skip_verify.required()?.0,
    })
}

/// Returns the keys with every default written out.
pub(super) fn explain(tls: &Tls) -> TlsKeys {
    TlsKeys {
        ca_file: Field::from_option(tls.ca_file.clone().map(FilePath)),
        cert_file: Field::from_option(tls.cert_file.clone().map(FilePath)),
        key_file: Field::from_option(tls.key_file.clone().map(FilePath)),
        server_name: Field::from_option(tls.server_name.clone().map(ServerName)),
        insecure_skip_verify: Field::new(Bool(tls.insecure_skip_verify)),
    }
}
