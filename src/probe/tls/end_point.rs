//! The hash of a server's certificate that binds a login to its TLS connection: the channel binding
//! `tls-server-end-point` (RFC 5929, section 4).
//!
//! The hash function is that of the certificate's signature, but SHA-256 for MD5 and SHA-1. A
//! signature without one, such as Ed25519, has no channel binding.

use aws_lc_rs::digest::{self, Digest, SHA224, SHA256, SHA384, SHA512};

/// The tags of elements in DER.
const SEQUENCE: u8 = 0x30;
const FIRST_FIELD: u8 = 0xa0;

/// The object identifiers of signatures, each with its tag and length, and the hash function of the
/// channel binding.
const SIGNATURES: [(&[u8], &digest::Algorithm); 11] = [
    // RSA (PKCS #1, version 1.5) with MD5, SHA-1, and so on.
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", &SHA256),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", &SHA256),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", &SHA256),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", &SHA384),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", &SHA512),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e", &SHA224),
    // ECDSA with SHA-1, and so on.
    (b"\x06\x07\x2a\x86\x48\xce\x3d\x04\x01", &SHA256),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x01", &SHA224),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", &SHA256),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", &SHA384),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", &SHA512),
];

/// The object identifier of RSA-PSS, whose parameters name the hash function.
const RSA_PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";

/// The object identifiers of hash functions in parameters of RSA-PSS, SHA-256 and so on.
const PSS_FUNCTIONS: [(&[u8], &digest::Algorithm); 4] = [
    (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01", &SHA256),
    (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02", &SHA384),
    (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03", &SHA512),
    (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04", &SHA224),
];

/// Returns the hash of a certificate in DER. Returns none if it has no channel binding.
pub(crate) fn end_point_hash(certificate: &[u8]) -> Option<Digest> {
    let function = hash_function(signature_algorithm(certificate)?)?;
    Some(digest::digest(function, certificate))
}

/// Returns the content of the AlgorithmIdentifier of the signature: an object identifier, and
/// parameters.
fn signature_algorithm(mut certificate: &[u8]) -> Option<&[u8]> {
    let mut parts = take(SEQUENCE, &mut certificate)?;
    let _signed = take(SEQUENCE, &mut parts)?;
    take(SEQUENCE, &mut parts)
}

fn hash_function(algorithm: &[u8]) -> Option<&'static digest::Algorithm> {
    match algorithm.strip_prefix(RSA_PSS) {
        Some(parameters) => find(&PSS_FUNCTIONS, pss_hash(parameters)?),
        None => find(&SIGNATURES, algorithm),
    }
}

/// Returns the AlgorithmIdentifier of the hash function in the parameters of RSA-PSS (RFC 4055).
fn pss_hash(mut parameters: &[u8]) -> Option<&[u8]> {
    let mut fields = take(SEQUENCE, &mut parameters)?;
    take(SEQUENCE, &mut take(FIRST_FIELD, &mut fields)?)
}

fn find(
    known: &[(&[u8], &'static digest::Algorithm)],
    algorithm: &[u8],
) -> Option<&'static digest::Algorithm> {
    let (_, function) = known.iter().find(|(identifier, _)| algorithm.starts_with(identifier))?;
    Some(function)
}

/// Takes an element of this tag from the front of the input, and returns its content.
fn take<'a>(tag: u8, input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [first, length, rest @ ..] = *input else { return None };
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        length @ ..0x80 => (usize::from(length), rest),
        form => {
            let (bytes, rest) = rest.split_at_checked(usize::from(form & 0x7f))?;
            // A certificate is under 16 MiB: the handshake's length has three bytes.
            if !(1..=3).contains(&bytes.len()) {
                return None;
            }
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use rustls::pki_types::alg_id;

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_function_is_that_of_the_signature() {
        for (algorithm, function) in [
            (&rcgen::PKCS_RSA_SHA256, Some(&SHA256)),
            (&rcgen::PKCS_RSA_SHA384, Some(&SHA384)),
            (&rcgen::PKCS_RSA_SHA512, Some(&SHA512)),
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&SHA384)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let certificate = certificate(algorithm);
            let expected = function.map(|function| digest::digest(function, &certificate));
            let hash = end_point_hash(&certificate);
            let bytes = |hash: Option<Digest>| hash.map(|hash| hash.as_ref().to_vec());
            assert_eq!(bytes(hash), bytes(expected), "{algorithm:?}");
        }
        for (pss, function) in [
            (alg_id::RSA_PSS_SHA256, &SHA256),
            (alg_id::RSA_PSS_SHA384, &SHA384),
            (alg_id::RSA_PSS_SHA512, &SHA512),
        ] {
            assert_eq!(hash_function(pss.as_ref()), Some(function), "{pss:?}");
        }
        // SHA-1, without the NULL that most have.
        let old = hash_function(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05");
        assert_eq!(old, Some(&SHA256));
    }

    proptest! {
        #[test]
        fn no_certificate_is_too_malformed(
            at in 0..300_usize,
            bytes in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut certificate = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
            let _ = end_point_hash(&bytes);
            let end = certificate.len().min(at + bytes.len());
            certificate.splice(at.min(end)..end, bytes);
            let _ = end_point_hash(&certificate);
            prop_assert!(end_point_hash(&certificate[..at.min(certificate.len())]).is_none());
        }
    }
}
