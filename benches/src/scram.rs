//! The server's side of a login by SCRAM-SHA-256. It remembers nothing between two messages, and
//! believes every client.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The password of each user.
pub(crate) const PASSWORD: &str = "secret";

const SALT: &[u8] = b"a salt of the bench";
const ROUNDS: u32 = 4096;

/// The key of the server for this password.
static SERVER_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let salted: [u8; 32] =
        pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(PASSWORD.as_bytes(), SALT, ROUNDS);
    hmac(&salted, "Server Key")
});

/// The answer to a client's message.
pub(crate) enum Answer {
    Challenge(String),
    /// The last message of the server.
    Final(String),
}

/// Answers a message of a client. Returns none if it is none.
pub(crate) fn answer(message: &[u8]) -> Option<Answer> {
    let message = std::str::from_utf8(message).ok()?;
    if let Some(nonce) = message.strip_prefix("n,,n=,r=") {
        return Some(Answer::Challenge(challenge(nonce)));
    }
    let (bare, _proof) = message.rsplit_once(",p=")?;
    let nonce = bare.strip_prefix("c=biws,r=")?.strip_suffix(NONCE)?;
    let signed = format!("n=,r={nonce},{},{bare}", challenge(nonce));
    Some(Answer::Final(format!("v={}", BASE64.encode(hmac(&SERVER_KEY, &signed)))))
}

/// The server's part of the nonce, which is the same in each login.
const NONCE: &str = "bench";

fn challenge(nonce: &str) -> String {
    format!("r={nonce}{NONCE},s={},i={ROUNDS}", BASE64.encode(SALT))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_has_a_challenge_and_an_end() {
        let Some(Answer::Challenge(text)) = answer(b"n,,n=,r=abc") else { panic!("a challenge") };
        assert!(text.starts_with("r=abcbench,s=") && text.ends_with(",i=4096"), "{text}");
        let Some(Answer::Final(text)) = answer(b"c=biws,r=abcbench,p=cHJvb2Y=") else {
            panic!("an end")
        };
        // A signature of 32 bytes.
        assert_eq!((&text[..2], text.len()), ("v=", 2 + 44), "{text}");
        for bad in [&b"n,,n=user,r=abc"[..], b"c=biws,r=abc,p=x", b"", b"\xff"] {
            assert!(answer(bad).is_none());
        }
    }
}
