//! The verdicts on errors before and in a login, of which no text of the server is shown.

use super::auth::Plugin;
use super::wire::ServerError;
use crate::health::Verdict;
use crate::probe::phase::Phase;
use crate::probe::server_text::{Secrets, quote_server};

/// The reason of a server that has forgotten the password, and would need it in clear.
pub(super) const COLD: &str = "caching_sha2_password needs TLS after a restart or a new password; \
                    add tls: {}, or fetchPublicKey: true";

/// The reason of a server that asks for a second factor, or another password.
pub(super) const MORE: &str = "the server asks for more than the password, which is not spoken";

/// Returns the verdict on a way to log in that can't be used.
pub(super) fn not_spoken(plugin: Plugin, name: &[u8]) -> Verdict {
    match plugin {
        Plugin::Clear | Plugin::Sha256 => {
            Phase::Auth.inconclusive("the server asks for the password in clear; add tls: {}")
        }
        // A spoken way without a scramble.
        Plugin::Native | Plugin::CachingSha2 => {
            Phase::Auth.fail("the server's scramble is malformed")
        }
        Plugin::Ed25519 | Plugin::Unknown => {
            let is_name = name.len() <= 40
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            let name = String::from_utf8_lossy(name);
            let name = if is_name { &name } else { "an unknown way to log in" };
            Phase::Auth
                .inconclusive(format_args!("the server asks for {name}, which is not spoken"))
        }
    }
}

/// Returns the verdict on an error in place of the greeting.
pub(super) fn on_early_error(error: &ServerError, secrets: &Secrets<'_>) -> Verdict {
    match error.code {
        1129 => Phase::Greeting
            .fail("this host is blocked (1129): FLUSH HOSTS on the server unblocks it"),
        1130 => Phase::Greeting
            .inconclusive("this host is not allowed (1130): create USER@'HOST' on the server"),
        1040 | 1203 | 1226 => {
            Phase::Greeting.fail(format_args!("full: {}", quote_server(error.text, secrets)))
        }
        code => Phase::Greeting.fail(format_args!("{code} {}", quote_server(error.text, secrets))),
    }
}

/// Returns whether a code says that the user or the password is wrong, or that the account is
/// locked or has expired. MySQL and MariaDB can lock an account after some wrong passwords.
pub(super) fn is_refusal(code: u16) -> bool {
    matches!(code, 1045 | 1698 | 1862 | 3118 | 3955 | 4150 | 4151)
}

/// Returns the verdict on an error in the login, whose text may name the user.
pub(super) fn on_login_error(code: u16, password: Option<&[u8]>) -> Verdict {
    let question = match password {
        Some(_) => "is the password right?",
        None => "does the user exist, and have no password?",
    };
    match code {
        _ if is_refusal(code) => {
            Phase::Auth.inconclusive(format_args!("refused ({code}): {question}"))
        }
        1040 | 1203 | 1226 => Phase::Auth.fail("full"),
        1053 => Phase::Auth.fail("stopping"),
        // MySQL 9 tells the reason too, such as a member that has left its group on a failure.
        3032 | 6400 | 6401 => Phase::Auth.fail("offline mode"),
        1251 | 1275 | 1524 => Phase::Auth.inconclusive(format_args!(
            "the server no longer has the user's way to log in ({code})"
        )),
        3159 => Phase::Auth.inconclusive("the server wants TLS; add tls: {}"),
        _ => Phase::Auth.fail(format_args!("error {code}")),
    }
}
