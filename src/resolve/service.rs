//! The choice among the records of an SRV answer (RFC 2782). Pure.
//!
//! | record | result |
//! | --- | --- |
//! | target `.` | no service: it does not count |
//! | target outside of the name's parent domain | left out, as MongoDB's drivers do |
//! | target that is no host name | left out |
//! | target and port of a record with a better priority | does not count |
//! | beyond the 32 of the best priority | left out |
//! | else | followed; its rank is that of its priority among those of all records |

use std::sync::Arc;

use super::ServiceRecord;
use super::wire::{SrvRecord, WireName};

/// The most records of one name that are followed.
const MAX_RECORDS: usize = 32;

/// The most characters of a name from DNS in a text for people.
const MAX_SHOWN_CHARS: usize = 100;

/// The records to follow, best priority first, and the others as text for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub followed: Vec<ServiceRecord>,
    pub skipped: Vec<String>,
}

/// Selects from the records of a service, which is `_service._proto.name`.
pub(super) fn select(service: &str, records: &[SrvRecord]) -> Selection {
    let parent = parent_domain(service);
    let mut priorities: Vec<u16> = records.iter().map(|record| record.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let mut records: Vec<&SrvRecord> = records.iter().collect();
    records.sort();
    let mut selection = Selection::default();
    let mut beyond = 0;
    for record in records {
        let text = record.target.to_string().to_ascii_lowercase();
        let host = text.trim_end_matches('.');
        if host.is_empty() {
            continue;
        }
        let problem = if !is_host_name(host) {
            Some("is no host name".to_owned())
        } else if !is_below(host, parent) {
            Some(format!("is not below {parent}"))
        } else {
            None
        };
        let is_known = |known: &ServiceRecord| *known.host == *host && known.port == record.port;
        if selection.followed.iter().any(is_known) {
            continue;
        }
        if let Some(problem) = problem {
            selection.skipped.push(format!("{} {problem}", shown(&record.target)));
        } else if selection.followed.len() == MAX_RECORDS {
            beyond += 1;
        } else {
            let rank = priorities.partition_point(|priority| *priority < record.priority);
            selection.followed.push(ServiceRecord {
                host: Arc::from(host),
                port: record.port,
                rank: u32::try_from(rank).unwrap_or(u32::MAX),
                weight: record.weight,
            });
        }
    }
    let problems = selection.skipped.len();
    if problems > MAX_RECORDS {
        selection.skipped.truncate(MAX_RECORDS);
        selection.skipped.push(format!("{} more targets", problems - MAX_RECORDS));
    }
    if beyond > 0 {
        selection.skipped.push(format!("{beyond} records beyond the first {MAX_RECORDS}"));
    }
    selection
}

/// Returns the domain that the targets of a service must be in: the name of the service without its
/// first label. A name of two labels stands for itself, because its parent is a public suffix.
fn parent_domain(service: &str) -> &str {
    let name = service.splitn(3, '.').nth(2).unwrap_or(service);
    match name.split_once('.') {
        Some((_, parent)) if parent.contains('.') => parent,
        _ => name,
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// Returns true for a name that can stand in a URL, a certificate and the arguments of a command,
/// as a name of the config can.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Returns a name from DNS as text for people: escaped, and not too long.
pub(super) fn shown(name: &WireName) -> String {
    let text = name.to_string();
    let escaped = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' });
    let mut shown: String = escaped.take(MAX_SHOWN_CHARS).collect();
    if text.chars().count() > MAX_SHOWN_CHARS {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "_mongodb._tcp.cluster0.ab1cd.mongodb.net";

    fn record(priority: u16, target: &str) -> SrvRecord {
        let target = target.parse().expect("a name");
        SrvRecord { priority, weight: 1, port: 27017, target }
    }

    fn hosts(selection: &Selection) -> Vec<(u32, &str)> {
        selection.followed.iter().map(|record| (record.rank, &*record.host)).collect()
    }

    #[test]
    fn priorities_become_ranks() {
        let records = [
            record(20, "C.ab1cd.mongodb.net."),
            record(5, "a.ab1cd.mongodb.net"),
            record(20, "a.ab1cd.mongodb.net"),
            record(20, "."),
        ];
        let selection = select(SERVICE, &records);
        assert_eq!(hosts(&selection), [(0, "a.ab1cd.mongodb.net"), (1, "c.ab1cd.mongodb.net")]);
        assert_eq!(selection.skipped, [""; 0]);
    }

    #[test]
    fn no_service_is_no_record() {
        assert_eq!(select(SERVICE, &[record(0, ".")]), Selection::default());
    }

    #[test]
    fn targets_outside_of_the_parent_domain_are_left_out() {
        let records = [
            record(0, "a.evil.example"),
            record(0, "xab1cd.mongodb.net"),
            record(0, "ab1cd.mongodb.net"),
            record(0, "a b.ab1cd.mongodb.net"),
            record(0, "-oProxyCommand.ab1cd.mongodb.net"),
        ];
        let selection = select(SERVICE, &records);
        assert_eq!(hosts(&selection), []);
        let mut skipped = selection.skipped;
        skipped.sort();
        assert_eq!(
            skipped,
            [
                "-oProxyCommand.ab1cd.mongodb.net is no host name",
                "a.evil.example is not below ab1cd.mongodb.net",
                "a\\?b.ab1cd.mongodb.net is no host name",
                "ab1cd.mongodb.net is not below ab1cd.mongodb.net",
                "xab1cd.mongodb.net is not below ab1cd.mongodb.net",
            ]
        );
    }

    #[test]
    fn a_short_name_is_its_own_parent() {
        assert_eq!(parent_domain("_pg._tcp.db.corp.example"), "corp.example");
        assert_eq!(parent_domain("_pg._tcp.corp.example"), "corp.example");
        assert_eq!(parent_domain("_pg._tcp.consul"), "consul");
    }

    #[test]
    fn amounts_are_bounded() {
        let mut records: Vec<SrvRecord> =
            (0..40).map(|n| record(n % 2, &format!("h{n:02}.ab1cd.mongodb.net"))).collect();
        let selection = select(SERVICE, &records);
        assert_eq!(selection.followed.len(), 32);
        assert!(hosts(&selection)[..20].iter().all(|(rank, _)| *rank == 0));
        assert_eq!(selection.skipped, ["8 records beyond the first 32"]);
        records.iter_mut().for_each(|record| record.target = "x.example".parse().expect("a name"));
        assert_eq!(select(SERVICE, &records).skipped.len(), 33);
    }

    #[test]
    fn a_long_name_is_cut() {
        let label = "a".repeat(60);
        let name: WireName = format!("{label}.{label}.example").parse().expect("a name");
        assert_eq!(shown(&name).chars().count(), MAX_SHOWN_CHARS + 1);
    }
}
