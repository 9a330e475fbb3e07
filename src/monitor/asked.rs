//! What people ask for by annotations on a Service: maintenance of single addresses, and a failback.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::MAX_REASON_CHARS;

/// The annotations of a Service that are for us, as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `10.20.0.11=disk swap, 10.20.0.12=kernel`
    pub maintenance: Option<String>,
    /// Any text: that it changes asks for a failback.
    pub failback: Option<String>,
}

/// As many mistakes as are told.
const MAX_PROBLEMS: usize = 5;

/// Bytes of an annotation that are read. Kubernetes allows 256 kB for all annotations of an object.
const MAX_BYTES: usize = 8 * 1024;

/// Cuts an annotation that is too long, so that nothing holds more of it than is read. One character stays beyond that, by
/// which `maintenance` and `failback_problem` know it.
pub(crate) fn cut(text: &mut String) {
    let end = (MAX_BYTES + 1..text.len()).find(|at| text.is_char_boundary(*at));
    if let Some(end) = end {
        text.truncate(end);
        text.shrink_to_fit();
    }
}

/// Takes an annotation about maintenance apart: an address and a reason each, and what is wrong with the others.
///
/// A reason may hold commas: what follows one is another entry only if it begins with an address. Of a text that is too long
/// the last entry that is read may be a part of one, and is left out.
pub(super) fn maintenance(
    text: &str,
    known: impl Fn(IpAddr) -> bool,
) -> (Vec<(IpAddr, Arc<str>)>, Vec<String>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut read = entries(&text[..floor(text, MAX_BYTES)]);
    if text.len() > MAX_BYTES {
        read.pop();
        problems.push(
            "it is over 8 kB: only its first 8 kB are read; write shorter reasons".to_owned(),
        );
    }
    for entry in read {
        let (address, reason) = entry.split_once('=').unwrap_or((entry, ""));
        let (address, reason) = (address.trim(), one_line(reason.trim_end_matches([',', ' '])));
        match address.parse::<IpAddr>() {
            Err(_) => problems
                .push(format!("`{}` is no IP; write `10.20.0.11=disk swap`", one_line(address))),
            Ok(ip) if !known(ip) => problems.push(format!("{ip} is no address of this database")),
            Ok(ip) if reason.is_empty() => {
                problems.push(format!("there is no reason for {ip}; write `{ip}=disk swap`"));
            }
            Ok(ip) => found.push((ip, reason.into())),
        }
    }
    problems.truncate(MAX_PROBLEMS);
    (found, problems)
}

/// Returns what is wrong with an annotation that asks for a failback.
pub(super) fn failback_problem(text: Option<&str>) -> Option<String> {
    let too_long = text.is_some_and(|text| text.len() > MAX_BYTES);
    let problem = "annotation external-endpoints/failback: it is over 8 kB, and only its first 8 kB are read; write a time into it";
    too_long.then(|| problem.to_owned())
}

/// Returns the last place of a text, up to `end`, where a character ends.
fn floor(text: &str, end: usize) -> usize {
    (0..=end.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// The parts between those commas that end an entry.
fn entries(text: &str) -> Vec<&str> {
    let begins = |rest: &str| {
        let head = rest.split(['=', ',']).next().unwrap_or_default().trim();
        // Something that was meant for an address must not become part of a reason unseen.
        head.parse::<IpAddr>().is_ok()
            || rest.split(',').next().is_some_and(|entry| entry.contains('='))
    };
    let (mut entries, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(',').filter(|(at, _)| begins(&text[at + 1..])) {
        entries.push(&text[start..at]);
        start = at + 1;
    }
    entries.push(&text[start..]);
    entries.retain(|entry| !entry.trim().is_empty());
    entries
}

/// Returns as much as fits a table, without what could break its lines or turn their direction.
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

    fn taken(text: &str) -> (Vec<String>, Vec<String>) {
        let known = |ip: IpAddr| ip.to_string().starts_with("10.20.0.") || ip.is_ipv6();
        let (found, problems) = maintenance(text, known);
        (found.iter().map(|(ip, reason)| format!("{ip}: {reason}")).collect(), problems)
    }

    #[test]
    fn each_address_has_its_reason() {
        assert_eq!(taken("10.20.0.11=disk swap"), (vec!["10.20.0.11: disk swap".into()], vec![]));
        let several =
            taken(" 10.20.0.11 = disk swap, until Friday,10.20.0.12=a=b , 2001:db8::1=six,");
        assert_eq!(
            several.0,
            ["10.20.0.11: disk swap, until Friday", "10.20.0.12: a=b", "2001:db8::1: six"]
        );
        assert_eq!(several.1, [""; 0]);
        assert_eq!(taken(""), (vec![], vec![]));
        assert_eq!(taken("10.20.0.11=two\nlines").0, ["10.20.0.11: two lines"]);
        assert_eq!(
            taken(&format!("10.20.0.11={}", "é".repeat(300))).0,
            [format!("10.20.0.11: {}", "é".repeat(200))]
        );
    }

    #[test]
    fn what_is_wrong_is_told_and_spoils_no_other() {
        let (found, problems) = taken("10.20.0.11,10.20.0.300=x, 10.9.9.9=y,10.20.0.12=z,pg-1=w");
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
        assert_eq!(taken("disk swap").1, ["`disk swap` is no IP; write `10.20.0.11=disk swap`"]);
    }

    /// So many entries that the last ones are beyond what is read, and how many are read in full.
    fn long(entry: &str) -> (String, usize) {
        let text = format!("{entry},").repeat(MAX_BYTES * 2 / entry.len());
        (text, MAX_BYTES / (entry.len() + 1))
    }

    #[test]
    fn a_long_text_is_read_up_to_an_entry_that_is_whole() {
        let told = "it is over 8 kB: only its first 8 kB are read; write shorter reasons";
        for entry in
            ["10.20.0.11=x", "10.20.0.11=é, and ü", "10.20.0.11=日本語", "10.20.0.11=\u{1f40c}"]
        {
            let (text, whole) = long(entry);
            let (found, problems) = taken(&text);
            assert_eq!(problems, [told]);
            assert!(found.len() == whole || found.len() + 1 == whole, "{} of {whole}", found.len());
            assert!(found.iter().all(|found| *found == entry.replace('=', ": ")), "{entry}");
        }
        assert_eq!(taken(&"x".repeat(MAX_BYTES * 2)), (vec![], vec![told.into()]));
        assert_eq!(
            taken(&format!("10.20.0.11={}", "x".repeat(MAX_BYTES - 11))).0.len(),
            1,
            "just not too long"
        );
        let longest = format!("10.20.0.11=x,10.20.0.12={}", "x".repeat(MAX_BYTES));
        assert_eq!(taken(&longest).0, ["10.20.0.11: x"]);
    }

    #[test]
    fn a_cut_text_says_the_same_as_the_whole_one() {
        for text in
            [long("10.20.0.11=é").0, "é".repeat(MAX_BYTES), "x".repeat(MAX_BYTES), String::new()]
        {
            let mut cut_text = text.clone();
            cut(&mut cut_text);
            assert!(cut_text.len() <= MAX_BYTES + 4 && text.starts_with(&cut_text));
            assert_eq!(taken(&cut_text), taken(&text));
            assert_eq!(failback_problem(Some(&cut_text)), failback_problem(Some(&text)));
            let mut again = cut_text.clone();
            cut(&mut again);
            assert_eq!(again, cut_text);
        }
        assert_eq!(failback_problem(Some(&"x".repeat(MAX_BYTES))), None);
        assert_eq!(failback_problem(None), None);
    }

    /// Texts of all of Unicode, and such as have what the parser looks for, up to far beyond what is read.
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
            let mut held = text.clone();
            cut(&mut held);
            prop_assert!(held.len() <= MAX_BYTES + 4);
            let known = |ip: IpAddr| ip.to_string().starts_with("10.20.0.") || ip.is_ipv6();
            let (found, problems) = maintenance(&held, known);
            prop_assert_eq!(&(found.clone(), problems.clone()), &maintenance(&text, known), "cut or not");
            prop_assert!(found.iter().all(|(ip, _)| known(*ip)));
            prop_assert!(found.len() <= MAX_BYTES / "::=x".len() && problems.len() <= MAX_PROBLEMS);
            let one_line = |text: &str| !text.chars().any(|char| char.is_control() || "\u{2028}\u{2029}\u{202e}".contains(char));
            for (_, reason) in &found {
                prop_assert!(!reason.trim().is_empty() && reason.chars().count() <= MAX_REASON_CHARS && one_line(reason));
            }
            for problem in &problems {
                prop_assert!(problem.chars().count() <= MAX_REASON_CHARS + 60 && one_line(problem), "{}", problem);
            }
        }

        #[test]
        fn each_entry_that_is_written_well_is_read(
            entries in prop::collection::vec((1..250_u8, "[a-zA-Z0-9 é日;:!()]{0,20}[a-z]"), 0..60), space in "[ \n\t]{0,3}",
        ) {
            let written: Vec<String> = entries.iter().map(|(last, reason)| format!("{space}10.20.0.{last}{space}={space}{reason}")).collect();
            let expected: Vec<String> = entries.iter().map(|(last, reason)| format!("10.20.0.{last}: {}", reason.trim())).collect();
            prop_assert_eq!(taken(&written.join(",")), (expected, vec![]));
        }
    }
}
