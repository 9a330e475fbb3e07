//! Explains bad YAML. The parser knows where it gave up; a person wants to know what to write, and
//! where.

use std::net::IpAddr;

use serde_saphyr::granit_parser::ErrorKind;

use crate::config::invisible;
use crate::config::problem::Span;

/// The deepest nesting of lists and mappings: enough for the language, and little enough for the
/// stack.
pub(crate) const MAX_DEPTH: usize = 64;

/// Returns the place to report and the message. If the wrong line has an invisible character, that
/// is the mistake. `open` is the innermost bracket or brace that has not ended yet.
pub(crate) fn explain(
    kind: &ErrorKind,
    span: Span,
    text: &str,
    open: Option<(char, Span)>,
) -> (Span, String) {
    let line = text.lines().nth((span.line as usize).saturating_sub(1)).unwrap_or_default();
    match invisible::first(line) {
        Some((column, name)) => {
            let message = format!(
                "bad YAML: an invisible character, {name}, stands here; delete it, or write a space"
            );
            (at(span.line as usize, column), message)
        }
        None => explain_visible(kind, span, text, open),
    }
}

/// Returns the place and the message for a line without invisible characters.
fn explain_visible(
    kind: &ErrorKind,
    mut span: Span,
    text: &str,
    open: Option<(char, Span)>,
) -> (Span, String) {
    let lines: Vec<&str> = text.lines().take(span.line as usize).collect();
    if is_about_tabs(kind) {
        span.column = first_tab(&lines, span);
        return (span, "a tab stands where YAML allows only spaces; indent with spaces".into());
    }
    if *kind == ErrorKind::UnclosedQuotedScalar {
        return (span, "a quoted text does not end; write the closing quote".into());
    }
    let open = open.filter(|(_, begin)| span.line > begin.line);
    if open.is_some() || *kind == ErrorKind::InvalidQuotedScalarIndent {
        let first = open.map_or(1, |(_, begin)| begin.line);
        if let Some((at, quote)) = open_quote(&lines, first, span.line) {
            let message = format!(
                "bad YAML: the `{quote}` on line {} is still open on line {}; write the closing \
                 `{quote}`",
                at.line,
                at.line + 1
            );
            return (at, message);
        }
    }
    if let Some((bracket, begin)) = open {
        let closing = if bracket == '[' { ']' } else { '}' };
        let message = format!(
            "bad YAML: the `{bracket}` on line {} is still open here; write the missing \
             `{closing}`, or correct this line",
            begin.line
        );
        return (span, message);
    }
    if is_about_keys(kind)
        && let Some(at) = missing_space_after_colon(&lines)
    {
        return (
            at,
            "bad YAML: a key ends with `:` and a space; write a space after the `:`".into(),
        );
    }
    (span, describe(kind))
}

fn is_about_tabs(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar
    )
}

/// Returns the column of the first tab. The parser reports a tab only when it is past it.
fn first_tab(lines: &[&str], span: Span) -> u32 {
    let line = lines.last().copied().unwrap_or_default();
    line.chars().position(|char| char == '\t').map_or(span.column, |index| index as u32 + 1)
}

fn is_about_keys(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::MappingValueNotAllowed
            | ErrorKind::InvalidColonPlacement
            | ErrorKind::SimpleKeyExpected
            | ErrorKind::ExpectedBlockMappingKey
    )
}

fn at(line: usize, column: usize) -> Span {
    Span { line: line as u32, column: column as u32, ..Span::default() }
}

/// Returns the last quote in these lines that begins a text and is not closed on its line.
fn open_quote(lines: &[&str], first: u32, last: u32) -> Option<(Span, char)> {
    let numbers = (first as usize..last as usize).rev();
    let mut found = numbers.filter_map(|number| {
        let (column, quote) = unclosed(lines.get(number - 1)?)?;
        Some((at(number, column), quote))
    });
    found.next()
}

/// Returns the column and the character of the quote that is open at the end of the line.
fn unclosed(line: &str) -> Option<(usize, char)> {
    let mut open = None;
    let mut before = ' ';
    let mut chars = line.chars().enumerate().peekable();
    while let Some((index, char)) = chars.next() {
        match open {
            Some((_, '"')) if char == '\\' => drop(chars.next()),
            Some((_, '\''))
                if char == '\'' && chars.next_if(|(_, next)| *next == '\'').is_some() => {}
            Some((_, quote)) if char == quote => open = None,
            Some(_) => {}
            None if char == '#' && before == ' ' => return None,
            None if matches!(char, '\'' | '"') && matches!(before, ' ' | '[' | '{' | ',') => {
                open = Some((index + 1, char));
            }
            None => {}
        }
        before = char;
    }
    open
}

/// Returns the place of the `key:value` that keeps the last line from being a mapping. It is on
/// that line, or on the first of the lines above that it continues.
fn missing_space_after_colon(lines: &[&str]) -> Option<Span> {
    let column = |number: &usize| Some((*number, unspaced_key_column(lines[number - 1])?));
    let mut above = (1..lines.len()).rev().map_while(|number| column(&number));
    let found = match column(&lines.len()) {
        Some(here) => above.last().or(Some(here)),
        None => above.by_ref().last(),
    };
    found.map(|(line, column)| at(line, column))
}

/// Returns the column of a `key:value` at the beginning of the line.
fn unspaced_key_column(line: &str) -> Option<usize> {
    let content = line.trim_start_matches([' ', '-']);
    let (key, value) = content.split_once(':')?;
    let is_key = key.starts_with(|char: char| char.is_ascii_alphabetic())
        && key.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'));
    let is_value = !value.is_empty() && !value.starts_with([' ', '\t', '/', ':']);
    let is_ip = content.trim_end().parse::<IpAddr>().is_ok();
    (is_key && is_value && !is_ip).then_some(line.len() - content.len() + 1)
}

/// Returns the parser's error in words for the person who writes the file.
fn describe(kind: &ErrorKind) -> String {
    let text = match kind {
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            "bad YAML: a `:` makes a key here, where none can be; indent the line as its \
             neighbours, or put the text in quotes"
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::ExpectedBlockMappingKey => {
            "bad YAML: `key: value` is expected here; write the `:` and a space after the key, \
             and indent the line as its neighbours"
        }
        ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnclosedFlowCollection { open: '[' } => {
            "bad YAML: a list in brackets does not end; write the missing `,` or `]`"
        }
        ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnclosedFlowCollection { open: '{' } => {
            "bad YAML: a mapping in braces does not end; write the missing `,` or `}`"
        }
        ErrorKind::UnknownAnchor => {
            "this alias has no anchor above it; write the value out, or an `&anchor` before"
        }
        ErrorKind::RecursionLimitExceeded => {
            return format!(
                "lists and mappings are nested more than {MAX_DEPTH} deep; the config needs far \
                 fewer, so remove some"
            );
        }
        ErrorKind::UnexpectedCharacter { character: '@' | '`' | '%' } => {
            "bad YAML: no text can begin with this character; put the text in quotes"
        }
        other => return format!("bad YAML: {other}; correct the syntax"),
    };
    text.into()
}
