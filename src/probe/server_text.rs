//! Texts of servers in the reasons of verdicts: quoted, and hidden where they have the user or the
//! password of the check. Both may be secrets, and a server gets to know them.

use super::phase::Phase;
use super::text::quote;
use crate::health::Verdict;

/// The stand-in for a text that has a secret.
const HIDDEN: &str = "(its text names the user or the password)";

/// The length of the part of a secret that the start of an answer may not show.
const MAX_SHOWN_PART: usize = 4;

/// The number of characters of an answer that a reason shows.
const MAX_START: usize = 10;

/// The user and the password of a check, as far as it has them.
#[derive(Clone, Copy)]
pub(crate) struct Secrets<'a> {
    pub user: Option<&'a [u8]>,
    pub password: Option<&'a [u8]>,
}

impl Secrets<'_> {
    pub(crate) const NONE: Self = Secrets { user: None, password: None };

    /// Returns whether a text has one of them.
    pub(crate) fn are_in(&self, text: &[u8]) -> bool {
        self.values().any(|value| contains(text, value))
    }

    /// Returns whether a text has a part of one of them. A cut text may end within one.
    fn are_partly_in(&self, text: &[u8]) -> bool {
        let has_part = |value: &[u8]| {
            value.windows(value.len().min(MAX_SHOWN_PART)).any(|part| contains(text, part))
        };
        self.values().any(has_part)
    }

    fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.user.into_iter().chain(self.password).filter(|value| !value.is_empty())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Returns the verdict on an answer that is not of the protocol.
pub(crate) fn not_of_protocol(
    phase: Phase,
    product: &str,
    answer: &[u8],
    secrets: &Secrets<'_>,
) -> Verdict {
    let start = String::from_utf8_lossy(&answer[..answer.len().min(64)]);
    let shown: String = start.chars().take(MAX_START).collect();
    if secrets.are_partly_in(shown.as_bytes()) {
        return phase.fail(format_args!("not {product}"));
    }
    phase.fail(format_args!("not {product}: the answer begins {}", quote(&start, MAX_START)))
}

/// Returns a text of the server in quotes.
pub(crate) fn quote_server(text: &[u8], secrets: &Secrets<'_>) -> String {
    if secrets.are_in(text) {
        return HIDDEN.to_owned();
    }
    // Four bytes for each character that is shown, and one more for the mark of a cut.
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * 121)]);
    quote(&text, 120)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: Secrets<'_> = Secrets { user: Some(b"checker"), password: Some(b"\xffabcd\"") };

    #[test]
    fn a_text_with_a_secret_is_hidden() {
        let quoted = |text: &[u8]| quote_server(text, &SECRETS);
        assert_eq!(quoted(b"out of memory"), "\"out of memory\"");
        assert_eq!(quoted(b"access denied for 'checker'"), HIDDEN);
        assert_eq!(quoted(b"got \xffabcd\""), HIDDEN);
        // The cut does not hide that the text has one.
        assert_eq!(quoted(&[&[b'x'; 5000][..], b"checker"].concat()), HIDDEN);
        assert_eq!(quote_server(b"checker", &Secrets::NONE), "\"checker\"");
        let empty = Secrets { user: Some(b""), password: Some(b"") };
        assert_eq!(quote_server(b"any", &empty), "\"any\"");
    }

    #[test]
    fn the_start_of_an_answer_shows_no_part_of_a_secret() {
        let reason = |answer: &[u8]| {
            let verdict = not_of_protocol(Phase::Auth, "Redis", answer, &SECRETS);
            verdict.reason().unwrap_or_default().to_owned()
        };
        let shown = "auth: not Redis: the answer begins \"HTTP/1.1 4…\"";
        assert_eq!(reason(b"HTTP/1.1 400 Bad Request"), shown);
        for echo in [&b"$7\r\nchec"[..], b"xxxecker", b"\xffabcd", b"AUTH heck"] {
            assert_eq!(reason(echo), "auth: not Redis", "{}", echo.escape_ascii());
        }
    }
}
