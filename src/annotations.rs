//! The annotations of a Service that people set for this daemon: their names, their grammar, and
//! the problems in them. Pure.
//!
//! | annotation | value | effect |
//! | --- | --- | --- |
//! | `external-endpoints/maintenance` | `10.20.0.11=disk, db.corp=kernel` | takes them out |
//! | `external-endpoints/failback` | any text, best a time | a change asks for a failback |
//!
//! A bad entry is reported and skipped. It never spoils the other entries.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The name of the annotation that puts single addresses in maintenance.
pub(crate) const MAINTENANCE: &str = "external-endpoints/maintenance";

/// The name of the annotation that asks for a failback.
pub(crate) const FAILBACK: &str = "external-endpoints/failback";

/// Characters of a reason for maintenance, here and in the config: it must fit a table.
pub(crate) const MAX_REASON_CHARS: usize = 200;

/// Problems of one annotation that are reported.
const MAX_PROBLEMS: usize = 5;

/// Bytes of an annotation that are read. Kubernetes allows 256 kB for all annotations of an object.
const MAX_BYTES: usize = 8 * 1024;

/// The values of a Service's annotations for this daemon, not parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceAnnotations {
    /// `10.20.0.11=disk swap, 10.20.0.12=kernel`
    pub maintenance: Option<String>,
    /// Any text. A change asks for a failback.
    pub failback: Option<String>,
}

impl ServiceAnnotations {
    /// Returns the values among all annotations of a Service.
    pub(crate) fn from_map(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let value = |name: &str| annotations?.get(name).cloned();
        Self { maintenance: value(MAINTENANCE), failback: value(FAILBACK) }
    }
}

/// Drops all annotations but those for this daemon, and truncates these to what is read of them.
pub(crate) fn strip(annotations: &mut BTreeMap<String, String>) {
    annotations.retain(|name, _| name == MAINTENANCE || name == FAILBACK);
    annotations.values_mut().for_each(truncate);
}

/// Truncates a value that is too long, so that nothing keeps more of it than is read. One character
/// stays beyond the limit: by it `parse_maintenance` and `failback_problem` recognise a value that
/// was too long.
fn truncate(value: &mut String) {
    let end = (MAX_BYTES + 1..value.len()).find(|at| value.is_char_boundary(*at));
    if let Some(end) = end {
        value.truncate(end);
        value.shrink_to_fit();
    }
}

/// A part of a database that an annotation names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One address.
    Ip(IpAddr),
    /// All addresses that a name has, now and later. It is in lower case, without a dot at the end.
    Name(Arc<str>),
}

impl Subject {
    /// Returns the subject of a text, or None if it is neither an IP nor like a name.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(ip) = text.parse() {
            return Some(Subject::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_allowed =
            |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        let may_be_name = (1..=MAX_NAME_LENGTH).contains(&name.len())
            && name.chars().all(is_allowed)
            && name.contains('.')
            && name.contains(|char: char| char.is_ascii_alphabetic());
        may_be_name.then(|| Subject::Name(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Ip(ip) => ip.fmt(f),
            Subject::Name(name) => name.fmt(f),
        }
    }
}

/// Characters of the longest name in DNS, without the dot at the end.
const MAX_NAME_LENGTH: usize = 253;

/// The addresses and names in maintenance, and what is wrong with the rest of the annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Maintenance {
    /// Each address or name with its reason, in the order of the annotation.
    pub targets: Vec<(Subject, Arc<str>)>,
    /// Sentences for people.
    pub problems: Vec<String>,
}

impl Maintenance {
    /// Returns the reason of an address that has one of these names. That of the address alone
    /// comes before that of a name.
    pub(crate) fn reason(&self, ip: IpAddr, has_name: impl Fn(&str) -> bool) -> Option<&Arc<str>> {
        let find = |applies: &dyn Fn(&Subject) -> bool| {
            self.targets.iter().find(|(subject, _)| applies(subject)).map(|(_, reason)| reason)
        };
        find(&|subject| *subject == Subject::Ip(ip))
            .or_else(|| find(&|subject| matches!(subject, Subject::Name(name) if has_name(name))))
    }
}

/// Parses the annotation for maintenance. An address or name that is not `known` is a problem.
///
/// A reason may contain commas. The text after a comma is another entry only if it begins with an
/// IP or a known name, or has a `=`. The last entry that is read of a value that is too long may be
/// incomplete, and is left out.
pub(crate) fn parse_maintenance(value: &str, known: impl Fn(&Subject) -> bool) -> Maintenance {
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    let mut entries = entries(&value[..char_boundary(value, MAX_BYTES)], &known);
    if value.len() > MAX_BYTES {
        entries.pop();
        problems.push(
            "it is over 8 kB: only its first 8 kB are read; write shorter reasons".to_owned(),
        );
    }
    for entry in entries {
        let (subject, reason) = entry.split_once('=').unwrap_or((entry, ""));
        let (text, reason) = (subject.trim(), one_line(reason.trim_end_matches([',', ' '])));
        match Subject::parse(text) {
            None => problems.push(format!(
                "`{}` is neither an IP nor a name of this database; write `10.20.0.11=disk swap`",
                one_line(text)
            )),
            Some(subject) if !known(&subject) => {
                let kind = match &subject {
                    Subject::Ip(_) => "address",
                    Subject::Name(_) => "name",
                };
                let shown = one_line(&subject.to_string());
                problems.push(format!("{shown} is no {kind} of this database"));
            }
            Some(subject) if reason.is_empty() => problems
                .push(format!("there is no reason for {subject}; write `{subject}=disk swap`")),
            Some(subject) => targets.push((subject, reason.into())),
        }
    }
    problems.truncate(MAX_PROBLEMS);
    let problems = problems.into_iter().map(|problem| describe(MAINTENANCE, &problem)).collect();
    Maintenance { targets, problems }
}

/// Returns what is wrong with the annotation that asks for a failback, as a sentence for people.
pub(crate) fn failback_problem(value: Option<&str>) -> Option<String> {
    let problem = "it is over 8 kB, and only its first 8 kB are read; write a time into it";
    value.filter(|value| value.len() > MAX_BYTES).map(|_| describe(FAILBACK, problem))
}

/// Returns the sentence that names the annotation and its problem.
fn describe(name: &str, problem: &str) -> String {
    format!("annotation {name}: {problem}")
}

/// Returns the last character boundary of a text up to `end`.
fn char_boundary(text: &str, end: usize) -> usize {
    (0..=end.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Splits a value at those commas that end an entry.
fn entries(text: &str, known: impl Fn(&Subject) -> bool) -> Vec<&str> {
    let begins_entry = |rest: &str| {
        let head = rest.split(['=', ',']).next().unwrap_or_default().trim();
        let is_subject = match Subject::parse(head) {
            Some(subject @ Subject::Name(_)) => known(&subject),
            subject => subject.is_some(),
        };
        // A mistyped address must be reported, and not silently become part of the reason before
        // it.
        is_subject || rest.split(',').next().is_some_and(|entry| entry.contains('='))
    };
    let (mut entries, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(',').filter(|(at, _)| begins_entry(&text[at + 1..])) {
        entries.push(&text[start..at]);
        start = at + 1;
    }
    entries.push(&text[start..]);
    entries.retain(|entry| !entry.trim().is_empty());
    entries
}

/// Returns as much of a text as fits a table, without characters that break lines or change the
/// direction of text.
fn one_line(text: &str) -> String {
    let separates = |char| matches!(char, '\u{2028}' | '\u{2029}');
    let turns = |char| matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = |char: char| char.is_control() || separates(char) || turns(char);
    let plain: String = text
        .trim()
        .chars()
        .take(MAX_REASON_CHARS)
        .map(|char| if breaks(char) { ' ' } else { char })
        .collect();
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests;
