//! Maintenance, and the grammar of the annotation that asks for it.
//!
//! | entry | meaning |
//! | --- | --- |
//! | `10.20.0.11=disk swap` | out until the entry is removed |
//! | `10.20.0.11=disk swap; until=2026-11-28T14:00:00Z` | out until that time |
//!
//! Entries are separated by commas. A reason may contain commas too: the text after a comma is
//! another entry only if it begins with an IP or a known name, or has a `=` before any end. An end
//! that is no time is reported, and stays part of the reason: the entry then has no end, because it
//! is safer to leave an address out for too long than to publish it too early.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{MAINTENANCE, MAX_BYTES, Subject, describe};

/// Characters of a reason for maintenance, here and in the config: it must fit a table.
pub(crate) const MAX_REASON_CHARS: usize = 200;

/// Problems of one annotation that are reported.
pub(super) const MAX_PROBLEMS: usize = 5;

/// The key of an entry's end.
const UNTIL: &str = "until";

/// The maintenance of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// The reason, on one line.
    pub reason: Arc<str>,
    /// The place that asks for it.
    pub source: MaintenanceSource,
    /// The time at which it ends by itself; none if someone must end it.
    pub until: Option<SystemTime>,
}

impl Maintenance {
    /// Creates the maintenance that the config asks for.
    pub(crate) fn by_config(reason: &Arc<str>) -> Self {
        Self { reason: reason.clone(), source: MaintenanceSource::Config, until: None }
    }

    /// Returns whether its end has come.
    pub(crate) fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Writes `disk swap (annotation, until 2026-11-28T14:00:00Z)`.
impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, source, until } = self;
        write!(f, "{reason} ({source}")?;
        if let Some(until) = until {
            write!(f, ", until {}", humantime::format_rfc3339_seconds(*until))?;
        }
        f.write_str(")")
    }
}

/// The place that asks for a maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MaintenanceSource {
    /// The config file.
    Config,
    /// The annotation of the Service.
    Annotation,
}

impl fmt::Display for MaintenanceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MaintenanceSource::Config => "config",
            MaintenanceSource::Annotation => "annotation",
        })
    }
}

/// An entry of the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaintenanceEntry {
    /// The part of the database that is in maintenance.
    pub subject: Subject,
    /// The reason, on one line.
    pub reason: Arc<str>,
    /// The time at which it ends by itself, from 1970 on.
    pub until: Option<SystemTime>,
}

impl MaintenanceEntry {
    /// Returns the maintenance of a target that the entry is for.
    pub(crate) fn maintenance(&self) -> Maintenance {
        let (source, until) = (MaintenanceSource::Annotation, self.until);
        Maintenance { reason: self.reason.clone(), source, until }
    }

    /// Returns whether its end has come.
    pub(crate) fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl fmt::Display for MaintenanceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, reason, until } = self;
        write!(f, "{subject}={reason}")?;
        match until {
            Some(until) => write!(f, "; {UNTIL}={}", humantime::format_rfc3339_seconds(*until)),
            None => Ok(()),
        }
    }
}

/// The addresses and names in maintenance, and what is wrong with the rest of the annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MaintenanceAnnotation {
    /// The entries in the order of the annotation, with those that are over.
    pub entries: Vec<MaintenanceEntry>,
    /// Sentences for people.
    pub problems: Vec<String>,
}

impl MaintenanceAnnotation {
    /// Returns the entry for an address that has one of these names. That of the address alone
    /// comes before that of a name. Entries that are over don't count.
    pub(crate) fn find(
        &self,
        ip: IpAddr,
        has_name: impl Fn(&str) -> bool,
        now: SystemTime,
    ) -> Option<&MaintenanceEntry> {
        let find = |applies: &dyn Fn(&Subject) -> bool| {
            self.entries.iter().find(|entry| applies(&entry.subject) && !entry.is_over(now))
        };
        find(&|subject| *subject == Subject::Ip(ip))
            .or_else(|| find(&|subject| matches!(subject, Subject::Name(name) if has_name(name))))
    }

    /// Returns the next time at which an entry is over.
    pub(crate) fn next_end(&self, now: SystemTime) -> Option<SystemTime> {
        self.entries.iter().filter_map(|entry| entry.until).filter(|until| *until > now).min()
    }
}

/// Parses the annotation for maintenance. An address or name that is not `known` is a problem.
///
/// The last entry that is read of a value that is too long may be incomplete, and is left out.
pub(crate) fn parse_maintenance(
    value: &str,
    known: impl Fn(&Subject) -> bool,
) -> MaintenanceAnnotation {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    let mut texts = split_entries(&value[..char_boundary(value, MAX_BYTES)], &known);
    if value.len() > MAX_BYTES {
        texts.pop();
        problems.push(
            "it is over 8 kB: only its first 8 kB are read; write shorter reasons".to_owned(),
        );
    }
    for text in texts {
        entries.extend(parse_entry(text, &known, &mut problems));
    }
    problems.truncate(MAX_PROBLEMS);
    let problems = problems.into_iter().map(|problem| describe(MAINTENANCE, &problem)).collect();
    MaintenanceAnnotation { entries, problems }
}

/// Parses one entry. Returns none if it can't take anything out.
fn parse_entry(
    entry: &str,
    known: impl Fn(&Subject) -> bool,
    problems: &mut Vec<String>,
) -> Option<MaintenanceEntry> {
    let (body, end) = split_end(entry);
    let (subject, mut reason) = body.split_once('=').unwrap_or((body, ""));
    let text = subject.trim();
    let Some(subject) = Subject::parse(text) else {
        problems.push(format!(
            "`{}` is neither an IP nor a name of this database; write `10.20.0.11=disk swap`",
            one_line(text)
        ));
        return None;
    };
    if !known(&subject) {
        let shown = one_line(&subject.to_string());
        problems.push(format!("{shown} is no {} of this database", subject.kind()));
        return None;
    }
    let until = end.and_then(parse_time);
    if let Some(end) = end.filter(|_| until.is_none()) {
        problems.push(format!(
            "`{}` is no time, so the maintenance of {subject} has no end; write \
             `until=2026-11-28T14:00:00Z`",
            one_line(end)
        ));
        reason = entry.split_once('=').map_or(reason, |(_, rest)| rest);
    }
    let reason = one_line(reason.trim_end_matches([',', ' ']));
    if reason.is_empty() {
        problems.push(format!("there is no reason for {subject}; write `{subject}=disk swap`"));
        return None;
    }
    Some(MaintenanceEntry { subject, reason: reason.into(), until })
}

/// Returns the subject of an entry, whether it is known or not.
pub(super) fn entry_subject(entry: &str) -> Option<Subject> {
    let body = split_end(entry).0;
    Subject::parse(body.split('=').next().unwrap_or_default().trim())
}

/// Parses one entry of any subject.
pub(super) fn parse_entry_text(entry: &str) -> Option<MaintenanceEntry> {
    parse_entry(entry, |_| true, &mut Vec::new())
}

/// Splits the end off an entry: `10.20.0.11=disk swap; until=TIME`.
fn split_end(text: &str) -> (&str, Option<&str>) {
    let end = text.rsplit_once(';').and_then(|(reason, end)| {
        let time = end.trim_start().strip_prefix(UNTIL)?.trim_start().strip_prefix('=')?;
        Some((reason, time.trim_matches([',', ' ', '\t', '\r', '\n'])))
    });
    end.map_or((text, None), |(reason, time)| (reason, Some(time)))
}

/// Parses a time with its zone by RFC 3339. One before 1970 is none: it is a mistake.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    let time: Timestamp = text.parse().ok()?;
    (time >= Timestamp::UNIX_EPOCH).then(|| time.into())
}

/// Splits a value at those commas that end an entry.
pub(super) fn split_entries(text: &str, known: impl Fn(&Subject) -> bool) -> Vec<&str> {
    let begins_entry = |rest: &str| {
        // The `=` of an end tells nothing: it may follow a reason with a comma.
        let entry = split_end(rest.split(',').next().unwrap_or_default()).0;
        let is_subject = match entry_subject(entry) {
            Some(subject @ Subject::Name(_)) => known(&subject),
            subject => subject.is_some(),
        };
        // A mistyped address must be reported, and not silently become part of the reason before
        // it.
        is_subject || entry.contains('=')
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

/// Returns the last character boundary of a text up to `end`.
fn char_boundary(text: &str, end: usize) -> usize {
    (0..=end.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Returns as much of a text as fits a table, without characters that break lines or change the
/// direction of text.
pub(super) fn one_line(text: &str) -> String {
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
