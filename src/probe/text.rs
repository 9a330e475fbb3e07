//! Search for a text in a stream of bytes, and quotes of a text in a reason.

use crate::config::ExpectedContent;

/// A search for a text in a stream of bytes, which finds it even if two reads split it.
pub(crate) struct StreamSearcher<'a> {
    wanted: &'a [u8],
    /// The last bytes of the stream, too few to hold the text itself.
    tail: Vec<u8>,
}

impl<'a> StreamSearcher<'a> {
    pub(crate) fn new(wanted: &'a [u8]) -> Self {
        Self { wanted, tail: Vec::new() }
    }

    /// Searches the next bytes. Returns true once the text has been found. An empty text is found
    /// at once.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.windows(self.wanted.len()).any(|window| window == self.wanted) {
            return true;
        }
        let spent = self.tail.len().saturating_sub(self.wanted.len() - 1);
        self.tail.drain(..spent);
        false
    }
}

/// Returns the start of a text in quotes, on one line, safe for any terminal and log.
pub(crate) fn quote(text: &str, max_chars: usize) -> String {
    let mut quoted = String::from('"');
    let mut chars = text.chars();
    quoted.push_str(&escape(chars.by_ref().take(max_chars)));
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted.push('"');
    quoted
}

/// Returns the start of the expected content as the config writes it: a text in quotes, or bytes in
/// hex.
pub(crate) fn quote_expected(expected: &ExpectedContent) -> String {
    const MAX_BYTES: usize = 20;
    match expected {
        ExpectedContent::Text(text) => quote(text, 60),
        ExpectedContent::Hex(bytes) => {
            let shown: Vec<String> =
                bytes.iter().take(MAX_BYTES).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > MAX_BYTES { " …" } else { "" };
            format!("hex {}{more}", shown.join(" "))
        }
    }
}

/// Escapes characters for quotes on one line, control characters of a terminal included.
pub(crate) fn escape(chars: impl Iterator<Item = char>) -> String {
    let mut escaped = String::new();
    for char in chars {
        match char {
            '\'' => escaped.push(char),
            _ => escaped.extend(char.escape_debug()),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_reads_split_it() {
        let stream = b"+PONG is what +PO +PONG\r\n";
        for wanted in ["+PONG", "+PONG\r\n", "+", "\n", "PO +P", ""] {
            for step in 1..=stream.len() {
                let mut searcher = StreamSearcher::new(wanted.as_bytes());
                assert!(
                    stream.chunks(step).any(|chunk| searcher.feed(chunk)),
                    "{wanted:?} in steps of {step}"
                );
            }
        }
        let mut searcher = StreamSearcher::new(b"+PONGG");
        assert!(!stream.chunks(2).any(|chunk| searcher.feed(chunk)));
        assert!(searcher.tail.len() < 6);
    }

    #[test]
    fn quotes_are_one_line_and_short() {
        assert_eq!(quote("a\r\n\"\u{1b}[31mü", 20), r#""a\r\n\"\u{1b}[31mü""#);
        assert_eq!(quote("can't\u{202e}", 20), r#""can't\u{202e}""#);
        assert_eq!(quote("abcdef", 3), "\"abc…\"");
        assert_eq!(quote_expected(&"+PONG\r\n".into()), r#""+PONG\r\n""#);
        assert_eq!(quote_expected(&ExpectedContent::Hex(vec![0, 12, 255])), "hex 00 0c ff");
        assert!(quote_expected(&ExpectedContent::Hex(vec![7; 21])).ends_with("07 07 …"));
    }
}
