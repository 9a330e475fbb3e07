//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), with keys that are kept.
//!
//! Over TLS the login is bound to the server's certificate, if the server offers that
//! (SCRAM-SHA-256-PLUS). The server then refuses a login that somebody else's TLS has passed on.
//!
//! | certificate with a binding | offered             | sent                                  |
//! | ---                        | ---                 | ---                                   |
//! | yes                        | SCRAM-SHA-256-PLUS  | its hash                              |
//! | yes                        | SCRAM-SHA-256 alone | `y`: a server that offered more fails |
//! | no, or no TLS              | SCRAM-SHA-256       | `n`                                   |
//!
//! The derivation of the keys takes half a millisecond or more, which the server decides. So it is
//! apart from the rest, and its result is kept for the next login.

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The most rounds of the derivation that a check makes.
const MAX_ROUNDS: u32 = 1_000_000;

/// The names of the mechanisms in the protocol.
const MECHANISM: &[u8] = b"SCRAM-SHA-256";
const BOUND_MECHANISM: &[u8] = b"SCRAM-SHA-256-PLUS";

/// The channel binding of a login.
#[derive(Clone, Copy)]
pub(super) enum ChannelBinding {
    /// The client has none.
    Unsupported,
    /// The client has one, and the server did not offer to take it.
    NotOffered,
    /// The hash of the server's certificate.
    EndPoint(Digest),
}

impl ChannelBinding {
    /// Returns the binding of a login by one of the server's mechanisms, for the hash of the
    /// server's certificate. Returns none if no mechanism is spoken.
    pub(super) fn choose(mechanisms: &[u8], end_point: Option<Digest>) -> Option<Self> {
        let offers = |name| mechanisms.split(|byte| *byte == 0).any(|offered| offered == name);
        match end_point {
            Some(hash) if offers(BOUND_MECHANISM) => Some(Self::EndPoint(hash)),
            _ if !offers(MECHANISM) => None,
            Some(_) => Some(Self::NotOffered),
            None => Some(Self::Unsupported),
        }
    }

    pub(super) fn mechanism(&self) -> &'static [u8] {
        match self {
            Self::EndPoint(_) => BOUND_MECHANISM,
            Self::Unsupported | Self::NotOffered => MECHANISM,
        }
    }

    /// Returns the header of the client's messages.
    fn header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// Returns the header and the hash, in Base64.
    fn encoded(&self) -> String {
        let hash: &[u8] = match self {
            Self::EndPoint(hash) => hash.as_ref(),
            Self::Unsupported | Self::NotOffered => &[],
        };
        BASE64.encode([self.header().as_bytes(), hash].concat())
    }
}

/// One login.
pub(super) struct Client {
    binding: ChannelBinding,
    user: String,
    nonce: String,
    /// The first message of the server.
    server_first: String,
    /// The nonce of both sides.
    full_nonce: String,
}

/// The salt and the number of rounds that a server wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub salt: Vec<u8>,
    pub rounds: NonZeroU32,
}

/// The keys of a password, for one salt and number of rounds. `Debug` does not show them.
pub(super) struct Keys {
    password: Arc<[u8]>,
    challenge: Challenge,
    client: [u8; 32],
    server: [u8; 32],
}

/// The reasons why a login can't continue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    ForeignNonce,
    TooManyRounds(u32),
}

impl Client {
    /// Begins a login. PostgreSQL takes the user from elsewhere, and wants an empty one here.
    pub(super) fn new(user: &str, nonce: &[u8], binding: ChannelBinding) -> Self {
        Self {
            binding,
            user: user.to_owned(),
            nonce: BASE64.encode(nonce),
            server_first: String::new(),
            full_nonce: String::new(),
        }
    }

    /// Returns the first message.
    pub(super) fn first(&self) -> String {
        format!("{}{}", self.binding.header(), self.first_bare())
    }

    pub(super) fn binding(&self) -> ChannelBinding {
        self.binding
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.user, self.nonce)
    }

    /// Reads the first message of the server.
    pub(super) fn read_challenge(&mut self, message: &[u8]) -> Result<Challenge, Refusal> {
        let text = std::str::from_utf8(message).map_err(|_| Refusal::Malformed)?;
        let mut parts = text.split(',');
        let mut part = |name: &str| {
            parts.next().and_then(|part| part.strip_prefix(name)).ok_or(Refusal::Malformed)
        };
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(Refusal::ForeignNonce);
        }
        let salt = BASE64.decode(salt).map_err(|_| Refusal::Malformed)?;
        let is_number = rounds.bytes().all(|byte| byte.is_ascii_digit());
        let rounds = rounds.parse().ok().filter(|_| is_number && !salt.is_empty());
        let rounds: NonZeroU32 = rounds.ok_or(Refusal::Malformed)?;
        if rounds.get() > MAX_ROUNDS {
            return Err(Refusal::TooManyRounds(rounds.get()));
        }
        self.full_nonce = nonce.to_owned();
        self.server_first = text.to_owned();
        Ok(Challenge { salt, rounds })
    }

    /// Returns the message that proves the knowledge of the password.
    pub(super) fn last(&self, keys: &Keys) -> String {
        let stored = digest(&SHA256, &keys.client);
        let signature = sign(stored.as_ref(), self.transcript().as_bytes());
        let pairs = keys.client.iter().zip(signature.as_ref());
        let proof: Vec<u8> = pairs.map(|(key, signature)| key ^ signature).collect();
        format!("{},p={}", self.last_bare(), BASE64.encode(proof))
    }

    fn last_bare(&self) -> String {
        format!("c={},r={}", self.binding.encoded(), self.full_nonce)
    }

    /// Returns the text that both sides sign.
    fn transcript(&self) -> String {
        format!("{},{},{}", self.first_bare(), self.server_first, self.last_bare())
    }

    /// Returns whether the last message of the server proves that it knows the password too.
    pub(super) fn is_server_proven(&self, keys: &Keys, message: &[u8]) -> bool {
        let expected = sign(&keys.server, self.transcript().as_bytes());
        let signature = message.strip_prefix(b"v=").and_then(|rest| {
            let signature = rest.split(|byte| *byte == b',').next()?;
            BASE64.decode(signature).ok()
        });
        signature.is_some_and(|given| verify_slices_are_equal(&given, expected.as_ref()).is_ok())
    }
}

impl Keys {
    /// Derives the keys, which takes long.
    pub(super) fn derive(password: Arc<[u8]>, challenge: Challenge) -> Self {
        let mut salted = [0; 32];
        let prepared = prepare(&password);
        let (salt, rounds) = (&challenge.salt, challenge.rounds);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, &prepared, &mut salted);
        let key = |name: &[u8]| {
            let mut key = [0; 32];
            key.copy_from_slice(sign(&salted, name).as_ref());
            key
        };
        let (client, server) = (key(b"Client Key"), key(b"Server Key"));
        Self { password, challenge, client, server }
    }

    /// Returns whether these are the keys of a password, whatever the server wants.
    pub(super) fn are_of(&self, password: &[u8]) -> bool {
        *self.password == *password
    }

    /// Returns whether these are the keys that a login needs.
    pub(super) fn fit(&self, password: &[u8], challenge: &Challenge) -> bool {
        self.are_of(password) && self.challenge == *challenge
    }
}

/// Returns the normal form of a password (SASLprep, RFC 4013). As PostgreSQL does, takes one that
/// has none as it is.
fn prepare(password: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(password).ok();
    let prepared = text.and_then(|text| stringprep::saslprep(text).ok());
    prepared.map_or_else(|| password.to_vec(), |prepared| prepared.as_bytes().to_vec())
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn client() -> Client {
        Client { nonce: NONCE.into(), ..Client::new("user", b"", ChannelBinding::Unsupported) }
    }

    fn keys(challenge: Challenge) -> Keys {
        Keys::derive(Arc::from(&b"pencil"[..]), challenge)
    }

    #[test]
    fn the_example_of_the_rfc_is_reproduced() {
        let mut client = client();
        assert_eq!(client.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let keys = keys(client.read_challenge(CHALLENGE.as_bytes()).unwrap());
        assert_eq!(
            client.last(&keys),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(client.is_server_proven(&keys, proof));
        for wrong in [&b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="[..], b"v=", b"e=x", b""] {
            assert!(!client.is_server_proven(&keys, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_hostile_challenge_is_refused() {
        let read = |message: &str| client().read_challenge(message.as_bytes());
        for (message, refusal) in [
            ("r=other,s=W22Z,i=4096", Refusal::ForeignNonce),
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096", Refusal::ForeignNonce),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=*,i=4096", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,i=4096", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=-1", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=+1", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4294967296", Refusal::Malformed),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4294967295", Refusal::TooManyRounds(u32::MAX)),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1000001", Refusal::TooManyRounds(1_000_001)),
            ("", Refusal::Malformed),
            ("m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1", Refusal::Malformed),
        ] {
            assert_eq!(read(message), Err(refusal), "{message}");
        }
        assert!(read("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1000000,x=y").is_ok());
        assert_eq!(client().read_challenge(b"r=\xff"), Err(Refusal::Malformed));
    }

    #[test]
    fn the_binding_is_the_best_that_both_sides_have() {
        let hash = digest(&SHA256, b"certificate");
        let both = &b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..];
        let (plain, bound) = (&b"SCRAM-SHA-256\0\0"[..], &b"SCRAM-SHA-256-PLUS\0\0"[..]);
        for (mechanisms, end_point, header) in [
            (both, Some(hash), Some("p=tls-server-end-point,,")),
            (bound, Some(hash), Some("p=tls-server-end-point,,")),
            (plain, Some(hash), Some("y,,")),
            (both, None, Some("n,,")),
            (plain, None, Some("n,,")),
            (bound, None, None),
            (b"OTHER\0\0", Some(hash), None),
            (b"", Some(hash), None),
        ] {
            let binding = ChannelBinding::choose(mechanisms, end_point);
            let text = String::from_utf8_lossy(mechanisms);
            assert_eq!(binding.map(|binding| binding.header()), header, "{text:?}");
        }
    }

    #[test]
    fn keys_are_of_one_password_salt_and_number() {
        let challenge = client().read_challenge(CHALLENGE.as_bytes()).unwrap();
        let keys = keys(challenge.clone());
        assert!(keys.fit(b"pencil", &challenge) && !keys.fit(b"pen", &challenge));
        let other = Challenge { salt: vec![1], ..challenge };
        assert!(!keys.fit(b"pencil", &other) && keys.are_of(b"pencil"));
    }

    #[test]
    fn a_password_has_its_normal_form() {
        assert_eq!(prepare("I\u{ad}X".as_bytes()), b"IX");
        assert_eq!(prepare("\u{2168}".as_bytes()), b"IX");
        assert_eq!(prepare(b"\x07"), b"\x07", "it has none");
        assert_eq!(prepare(b"\xff"), b"\xff", "no UTF-8");
    }
}
