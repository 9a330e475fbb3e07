//! What people ask for by annotations on a Service: maintenance of single addresses, and a failback.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::LONGEST_REASON;

/// The annotations of a Service that are for us, as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `10.20.0.11=disk swap, 10.20.0.12=kernel`
    pub maintenance: Option<String>,
    /// Any text: that it changes asks for a failback.
    pub failback: Option<String>,
}

/// As many mistakes as are told.
const TOLD: usize = 5;

/// Takes an annotation about maintenance apart: an address and a reason each, and what is wrong with the others.
///
/// A reason may hold commas: what follows one is another entry only if it begins with an address.
pub(super) fn maintenance(text: &str, known: impl Fn(IpAddr) -> bool) -> (Vec<(IpAddr, Arc<str>)>, Vec<String>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for entry in entries(text) {
        let (address, reason) = entry.split_once('=').unwrap_or((entry, ""));
        let (address, reason) = (address.trim(), one_line(reason.trim_end_matches([',', ' '])));
        match address.parse::<IpAddr>() {
            Err(_) => problems.push(format!("`{}` is no IP; write `10.20.0.11=disk swap`", one_line(address))),
            Ok(ip) if !known(ip) => problems.push(format!("{ip} is no address of this database")),
            Ok(ip) if reason.is_empty() => {
                problems.push(format!("there is no reason for {ip}; write `{ip}=disk swap`"));
            }
            Ok(ip) => found.push((ip, reason.into())),
        }
    }
    problems.truncate(TOLD);
    (found, problems)
}

/// The parts between those commas that end an entry.
fn entries(text: &str) -> Vec<&str> {
    let begins = |rest: &str| {
        let head = rest.split(['=', ',']).next().unwrap_or_default().trim();
        // Something that was meant for an address must not become part of a reason unseen.
        head.parse::<IpAddr>().is_ok() || rest.split(',').next().is_some_and(|entry| entry.contains('='))
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

/// As much as fits a table, without what could break its lines.
fn one_line(text: &str) -> String {
    let plain = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char });
    plain.take(LONGEST_REASON).collect()
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
        let several = taken(" 10.20.0.11 = disk swap, until Friday,10.20.0.12=a=b , 2001:db8::1=six,");
        assert_eq!(several.0, ["10.20.0.11: disk swap, until Friday", "10.20.0.12: a=b", "2001:db8::1: six"]);
        assert_eq!(several.1, [""; 0]);
        assert_eq!(taken(""), (vec![], vec![]));
        assert_eq!(taken("10.20.0.11=two\nlines").0, ["10.20.0.11: two lines"]);
        assert_eq!(taken(&format!("10.20.0.11={}", "é".repeat(300))).0, [format!("10.20.0.11: {}", "é".repeat(200))]);
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

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_finds_what_is_not_there(text in "[0-9.,= a-é\n]{0,40}") {
            let (found, _) = taken(&text);
            prop_assert!(found.iter().all(|entry| entry.starts_with("10.20.0.")));
        }
    }
}
