//! The ways to log in: the answers to a server's scramble.
//!
//! | plugin                | over TLS | without TLS |
//! | ---                   | ---      | ---         |
//! | mysql_native_password | SHA-1    | SHA-1       |
//! | caching_sha2_password | SHA-256  | SHA-256     |
//! | sha256_password       | in clear | no          |
//! | mysql_clear_password  | in clear | no          |
//! | client_ed25519, parsec, Kerberos, PAM and others | no | no |
//!
//! A server that has forgotten a password of caching_sha2_password gets it in clear over TLS, and
//! without TLS by the server's RSA key if that is allowed.
//!
//! A login that can't be finished gets a wrong answer and ends with the server's error. MySQL would
//! count its end by the client towards `max_connect_errors`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

use super::wire::SCRAMBLE_LENGTH;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    Native,
    CachingSha2,
    Sha256,
    Clear,
    Ed25519,
    Unknown,
}

impl Plugin {
    pub(super) fn new(name: &[u8]) -> Self {
        match name {
            b"mysql_native_password" => Plugin::Native,
            b"caching_sha2_password" => Plugin::CachingSha2,
            b"sha256_password" => Plugin::Sha256,
            b"mysql_clear_password" => Plugin::Clear,
            b"client_ed25519" => Plugin::Ed25519,
            _ => Plugin::Unknown,
        }
    }

    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Plugin::CachingSha2 => b"caching_sha2_password",
            Plugin::Sha256 => b"sha256_password",
            Plugin::Clear => b"mysql_clear_password",
            _ => b"mysql_native_password",
        }
    }

    /// Returns a wrong answer that ends the login without a count towards the block of this host.
    pub(super) fn wrong_answer(self) -> &'static [u8] {
        match self {
            // A signature that is none.
            Plugin::Ed25519 => &[0; 64],
            _ => &[0],
        }
    }
}

/// The random bytes of the server.
pub(super) type Scramble = [u8; SCRAMBLE_LENGTH];

/// Returns the answer of `mysql_native_password`.
pub(super) fn native(password: &[u8], scramble: &Scramble) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let sha = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let hash = sha(password);
    let stored = sha(hash.as_ref());
    let key = sha(&[scramble, stored.as_ref()].concat());
    xor(hash.as_ref(), key.as_ref())
}

/// Returns the answer of `caching_sha2_password`.
pub(super) fn caching_sha2(password: &[u8], scramble: &Scramble) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let sha = |bytes: &[u8]| digest(&SHA256, bytes);
    let hash = sha(password);
    let stored = sha(hash.as_ref());
    let key = sha(&[stored.as_ref(), scramble].concat());
    xor(hash.as_ref(), key.as_ref())
}

/// Returns the answer in clear, for a connection over TLS.
pub(super) fn clear(password: &[u8]) -> Vec<u8> {
    [password, &[0]].concat()
}

/// The server's key is none that a password can be encrypted with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnusableKey;

/// Returns the password encrypted with the server's key, which comes as PEM.
pub(super) fn encrypt(
    password: &[u8],
    scramble: &Scramble,
    pem: &[u8],
) -> Result<Vec<u8>, UnusableKey> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| UnusableKey)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| UnusableKey)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| UnusableKey)?;
    let masked: Vec<u8> =
        clear(password).iter().zip(scramble.iter().cycle()).map(|(a, b)| a ^ b).collect();
    let mut encrypted = vec![0; key.ciphertext_size()];
    let length = key.encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut encrypted, None);
    Ok(length.map_err(|_| UnusableKey)?.to_vec())
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}
