//! The rules for the certificate of a server.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The cryptography of all TLS checks.
pub(super) static CRYPTO_PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// Returns a verifier that accepts certificates of these CAs, and each listed certificate itself.
pub(super) fn trusting_roots(
    roots: Arc<RootCertStore>,
    listed: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let webpki = WebPkiServerVerifier::builder_with_provider(roots, CRYPTO_PROVIDER.clone())
        .build()
        .map_err(|error| format!("cannot use the root certificates: {error}"))?;
    if listed.is_empty() {
        return Ok(webpki);
    }
    Ok(Arc::new(PinnedVerifier { webpki, listed }))
}

/// Returns a verifier that accepts any certificate, for `insecureSkipVerify`.
pub(super) fn accepting_any() -> Arc<dyn ServerCertVerifier> {
    Arc::new(InsecureVerifier)
}

/// Returns true if a certificate was rejected because it is a CA's.
pub(super) fn is_ca_as_server(error: &CertificateError) -> bool {
    is_webpki(error, |error| matches!(error, webpki::Error::CaUsedAsEndEntity))
}

/// Returns true if a certificate was rejected because it is older than X.509 version 3, the first
/// version with names.
pub(super) fn is_x509_v1(error: &CertificateError) -> bool {
    is_webpki(error, |error| matches!(error, webpki::Error::UnsupportedCertVersion))
}

fn is_webpki(error: &CertificateError, test: impl Fn(&webpki::Error) -> bool) -> bool {
    let CertificateError::Other(other) = error else { return false };
    other.0.downcast_ref::<webpki::Error>().is_some_and(test)
}

/// The rules of webpki and one more, as curl and Go have it: a server certificate that is in
/// `caFile` itself is trusted, even if it is a CA's, as `openssl req -x509` makes it, or signed by
/// another CA.
#[derive(Debug)]
struct PinnedVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        if is_only_about_the_issuer(&result)
            && self.listed.iter().any(|listed| listed.as_ref() == end_entity.as_ref())
        {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Returns true for a fault that webpki finds after it has checked the validity period, and before
/// it checks the name.
fn is_only_about_the_issuer(result: &Result<ServerCertVerified, Error>) -> bool {
    let Err(Error::InvalidCertificate(error)) = result else { return false };
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
        || is_ca_as_server(error)
}

/// No rules: a certificate of any age, key and algorithm is accepted.
///
/// The server must hold the key of its certificate, as far as webpki can check that. It can't for
/// X.509 version 1, RSA keys of under 2048 bits, and Ed448. Nothing is lost: an unverified
/// certificate proves nothing about its holder.
#[derive(Debug)]
struct InsecureVerifier;

/// The signature schemes of old and unusual servers, which are never verified.
const UNCHECKED_SCHEMES: [SignatureScheme; 3] =
    [SignatureScheme::ED448, SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy];

impl ServerCertVerifier for InsecureVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        accept_unless_wrong(
            verify_tls12_signature(
                message,
                cert,
                dss,
                &CRYPTO_PROVIDER.signature_verification_algorithms,
            ),
            dss,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        accept_unless_wrong(
            verify_tls13_signature(
                message,
                cert,
                dss,
                &CRYPTO_PROVIDER.signature_verification_algorithms,
            ),
            dss,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = CRYPTO_PROVIDER.signature_verification_algorithms.supported_schemes();
        schemes.extend(UNCHECKED_SCHEMES);
        schemes
    }
}

/// Accepts any signature but one that webpki could check and found wrong.
fn accept_unless_wrong(
    result: Result<HandshakeSignatureValid, Error>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    match result {
        Err(Error::InvalidCertificate(CertificateError::BadSignature)) if has_usual_length(dss) => {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
        _ => Ok(HandshakeSignatureValid::assertion()),
    }
}

/// Returns false for the signature of an RSA key that webpki calls wrong only because the key is
/// too short or too long. The signature has the length of the key.
fn has_usual_length(dss: &DigitallySignedStruct) -> bool {
    use SignatureScheme as S;
    match dss.scheme {
        S::RSA_PKCS1_SHA256
        | S::RSA_PKCS1_SHA384
        | S::RSA_PKCS1_SHA512
        | S::RSA_PSS_SHA256
        | S::RSA_PSS_SHA384
        | S::RSA_PSS_SHA512 => (2048 / 8..=8192 / 8).contains(&dss.signature().len()),
        _ => true,
    }
}
