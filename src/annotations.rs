//! The annotations of a Service that people set for this daemon: their names, their grammar, and
//! the problems in them. Pure.
//!
//! | annotation | value | effect |
//! | --- | --- | --- |
//! | `external-endpoints/maintenance` | `10.20.0.11=disk, 10.20.0.12=kernel` | takes them out |
//! | `external-endpoints/failback` | any text, best a time | a change asks for a failback |
//!
//! A bad entry is reported and skipped. It never spoils the other entries.

use std::collections::BTreeMap;
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

/// The addresses in maintenance, and what is wrong with the rest of the annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Maintenance {
    /// Each address with its reason, in the order of the annotation.
    pub targets: Vec<(IpAddr, Arc<str>)>,
    /// Sentences for people.
    pub problems: Vec<String>,
}

/// Parses the annotation for maintenance. An address that is not `known` is a problem.
///
/// A reason may contain commas. The text after a comma is another entry only if it begins with an
/// address. The last entry that is read of a value that is too long may be incomplete, and is left
/// out.
pub(crate) fn parse_maintenance(value: &str, known: impl Fn(IpAddr) -> bool) -> Maintenance {
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    let mut entries = entries(&value[..char_boundary(value, MAX_BYTES)]);
    if value.len() > MAX_BYTES {
        entries.pop();
        problems.push(
            "it is over 8 kB: only its first 8 kB are read; write shorter reasons".to_owned(),
        );
    }
    for entry in entries {
        let (address, reason) = entry.split_once('=').unwrap_or((entry, ""));
        let (address, reason) = (address.trim(), one_line(reason.trim_end_matches([',', ' '])));
        match address.parse::<IpAddr>() {
            Err(_) => problems
                .push(format!("`{}` is no IP; write `10.20.0.11=disk swap`", one_line(address))),
            Ok(ip) if !known(ip) => problems.push(format!("{ip} is no address of this database")),
            Ok(ip) if reason.is_empty() => {
                problems.push(format!("there is no reason for {ip}; write `{ip}=disk swap`"));
            }
            Ok(ip) => targets.push((ip, reason.into())),
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
fn entries(text: &str) -> Vec<&str> {
    let begins_entry = |rest: &str| {
        let head = rest.split(['=', ',']).next().unwrap_or_default().trim();
        // A mistyped address must be reported, and not silently become part of the reason before
        // it.
        head.parse::<IpAddr>().is_ok()
            || rest.split(',').next().is_some_and(|entry| entry.contains('='))
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
