//! The annotations of a Service that people set for this daemon: their names, their grammar, and
//! the problems in them. Pure.
//!
//! | annotation | value | effect |
//! | --- | --- | --- |
//! | `external-endpoints/maintenance` | `10.20.0.11=disk swap, 10.20.0.12=kernel` | takes these addresses out |
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
    let breaks = |char: char| {
        char.is_control()
            || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let plain: String = text
        .trim()
        .chars()
        .take(MAX_REASON_CHARS)
        .map(|char| if breaks(char) { ' ' } else { char })
        .collect();
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_known(ip: IpAddr) -> bool {
        ip.to_string().starts_with("10.20.0.") || ip.is_ipv6()
    }

    /// Returns the targets as `IP: REASON`, and the problems without the name of the annotation.
    fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
        let Maintenance { targets, problems } = parse_maintenance(text, is_known);
        let problem = |problem: String| {
            problem.strip_prefix("annotation external-endpoints/maintenance: ").map(str::to_owned)
        };
        let problems = problems.into_iter().map(|text| problem(text).expect("its name")).collect();
        (targets.iter().map(|(ip, reason)| format!("{ip}: {reason}")).collect(), problems)
    }

    #[test]
    fn each_address_has_its_reason() {
        assert_eq!(parsed("10.20.0.11=disk swap"), (vec!["10.20.0.11: disk swap".into()], vec![]));
        let several =
            parsed(" 10.20.0.11 = disk swap, until Friday,10.20.0.12=a=b , 2001:db8::1=six,");
        assert_eq!(
            several.0,
            ["10.20.0.11: disk swap, until Friday", "10.20.0.12: a=b", "2001:db8::1: six"]
        );
        assert_eq!(several.1, [""; 0]);
        assert_eq!(parsed(""), (vec![], vec![]));
        assert_eq!(parsed("10.20.0.11=two\nlines").0, ["10.20.0.11: two lines"]);
        assert_eq!(
            parsed(&format!("10.20.0.11={}", "é".repeat(300))).0,
            [format!("10.20.0.11: {}", "é".repeat(200))]
        );
    }

    #[test]
    fn a_bad_entry_is_reported_and_spoils_no_other() {
        let (found, problems) = parsed("10.20.0.11,10.20.0.300=x, 10.9.9.9=y,10.20.0.12=z,pg-1=w");
        assert_eq!(found, ["10.20.0.12: z"]);
        assert_eq!(
            problems,
            [
                "there is no reason for 10.20.0.11; write `10.20.0.11=disk swap`",
                "`10.20.0.300` is no IP; write `10.20.0.11=disk swap`",
                "10.9.9.9 is no address of this database",
                "`pg-1` is no IP; write `10.20.0.11=disk swap`",
            ]
        );
        assert_eq!(parsed("disk swap").1, ["`disk swap` is no IP; write `10.20.0.11=disk swap`"]);
    }

    /// Returns a value that is longer than what is read, and the number of entries that are read.
    fn long(entry: &str) -> (String, usize) {
        let text = format!("{entry},").repeat(MAX_BYTES * 2 / entry.len());
        (text, MAX_BYTES / (entry.len() + 1))
    }

    #[test]
    fn a_long_text_is_read_up_to_an_entry_that_is_whole() {
        let too_long = "it is over 8 kB: only its first 8 kB are read; write shorter reasons";
        for entry in
            ["10.20.0.11=x", "10.20.0.11=é, and ü", "10.20.0.11=日本語", "10.20.0.11=\u{1f40c}"]
        {
            let (text, whole) = long(entry);
            let (found, problems) = parsed(&text);
            assert_eq!(problems, [too_long]);
            assert!(found.len() == whole || found.len() + 1 == whole, "{} of {whole}", found.len());
            assert!(found.iter().all(|found| *found == entry.replace('=', ": ")), "{entry}");
        }
        assert_eq!(parsed(&"x".repeat(MAX_BYTES * 2)), (vec![], vec![too_long.into()]));
        assert_eq!(
            parsed(&format!("10.20.0.11={}", "x".repeat(MAX_BYTES - 11))).0.len(),
            1,
            "just not too long"
        );
        let longest = format!("10.20.0.11=x,10.20.0.12={}", "x".repeat(MAX_BYTES));
        assert_eq!(parsed(&longest).0, ["10.20.0.11: x"]);
    }

    #[test]
    fn a_truncated_value_says_the_same_as_the_whole_one() {
        for text in
            [long("10.20.0.11=é").0, "é".repeat(MAX_BYTES), "x".repeat(MAX_BYTES), String::new()]
        {
            let mut short = text.clone();
            truncate(&mut short);
            assert!(short.len() <= MAX_BYTES + 4 && text.starts_with(&short));
            assert_eq!(parsed(&short), parsed(&text));
            assert_eq!(failback_problem(Some(&short)), failback_problem(Some(&text)));
            let mut again = short.clone();
            truncate(&mut again);
            assert_eq!(again, short);
        }
        assert_eq!(failback_problem(Some(&"x".repeat(MAX_BYTES))), None);
        assert_eq!(failback_problem(None), None);
    }

    /// Texts of all of Unicode, and such as have what the parser looks for, up to far beyond what
    /// is read.
    fn texts() -> impl Strategy<Value = String> {
        let entry = prop_oneof![
            "[0-9.,= a-é\n\r\t\u{0}]{0,40}",
            "10\\.20\\.0\\.[0-9]{1,2} ?= ?\\PC{0,30}",
            "2001:db8::[0-9a-f]{1,4}=[\u{2028}\u{2029}\u{202e}\u{85}a-z ]{0,9}",
            any::<String>(),
        ];
        let repeated = (prop::collection::vec(entry, 0..8), 1..400_usize);
        repeated.prop_map(|(entries, times)| entries.join(",").repeat(times)).boxed()
    }

    proptest! {
        #[test]
        fn no_text_panics_or_yields_too_much_or_breaks_a_line(text in texts()) {
            let mut kept = text.clone();
            truncate(&mut kept);
            prop_assert!(kept.len() <= MAX_BYTES + 4);
            let found = parse_maintenance(&kept, is_known);
            prop_assert_eq!(&found, &parse_maintenance(&text, is_known), "truncated or not");
            let Maintenance { targets, problems } = found;
            prop_assert!(targets.iter().all(|(ip, _)| is_known(*ip)));
            prop_assert!(targets.len() <= MAX_BYTES / "::=x".len() && problems.len() <= MAX_PROBLEMS);
            let one_line = |text: &str| !text.chars().any(|char| char.is_control() || "\u{2028}\u{2029}\u{202e}".contains(char));
            for (_, reason) in &targets {
                prop_assert!(!reason.trim().is_empty() && reason.chars().count() <= MAX_REASON_CHARS && one_line(reason));
            }
            for problem in &problems {
                let name = "annotation external-endpoints/maintenance: ";
                prop_assert!(problem.chars().count() <= name.len() + MAX_REASON_CHARS + 60 && one_line(problem), "{}", problem);
            }
        }

        #[test]
        fn each_entry_that_is_written_well_is_read(
            entries in prop::collection::vec((1..250_u8, "[a-zA-Z0-9 é日;:!()]{0,20}[a-z]"), 0..60), space in "[ \n\t]{0,3}",
        ) {
            let written: Vec<String> = entries.iter().map(|(last, reason)| format!("{space}10.20.0.{last}{space}={space}{reason}")).collect();
            let expected: Vec<String> = entries.iter().map(|(last, reason)| format!("10.20.0.{last}: {}", reason.trim())).collect();
            prop_assert_eq!(parsed(&written.join(",")), (expected, vec![]));
        }
    }
}
