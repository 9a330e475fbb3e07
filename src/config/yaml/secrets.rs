//! Text that may be a secret where the YAML tree does not tell: bad YAML, tags, and keys without a
//! colon.

use crate::config::problem::{Collector, Span};

/// Returns the place of a value together with the tag before it, and an anchor between them.
pub(super) fn with_tag(text: &str, value: Span) -> Span {
    let mut before = text.get(..value.start as usize).unwrap_or_default().trim_end();
    loop {
        let word = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        if let Some(mark) = before[word..].find('!') {
            return Span { start: (word + mark) as u32, ..value };
        }
        if word == 0 {
            return value;
        }
        before = before[..word].trim_end();
    }
}

/// Returns true if a colon follows the key. Without one it may be a secret in braces that lost its
/// key.
pub(super) fn has_colon(text: &str, key: Span) -> bool {
    text.get(key.end as usize..)
        .is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with(':'))
}

/// Returns true if a message may show this key.
pub(super) fn looks_like_key(key: &str) -> bool {
    let is_allowed = |char: char| {
        char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '/' | '<' | '~')
    };
    key.len() <= 40 && key.chars().all(is_allowed)
}

/// Returns true if a line of bad YAML may hold a secret. Bad YAML has no tree that tells which text
/// is one, so any line of a database in which a word for secrets occurs may hold it.
pub(super) fn may_hold_secret(text: &str, span: Span) -> bool {
    const WORDS: [&str; 7] = ["send", "headers", "env", "pass", "secret", "token", "authorization"];
    let lines: Vec<&str> = text.lines().take(span.line as usize).collect();
    let begin =
        lines.iter().rposition(|line| line.trim_start().starts_with("- ") && indent(line) <= 2);
    let database = lines[begin.unwrap_or(0)..].join("\n").to_lowercase();
    WORDS.iter().any(|word| database.contains(word))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Keeps a line out of every excerpt, but for its indentation.
pub(super) fn redact_line(text: &str, span: Span, problems: &mut Collector) {
    let mut start = 0;
    for (index, line) in text.split('\n').enumerate() {
        if index + 1 == span.line as usize {
            let from = (start + indent(line)) as u32;
            problems.redact(Span { start: from, end: (start + line.len()) as u32, ..span });
            return;
        }
        start += line.len() + 1;
    }
}
