//! Tests of the checker of what people see.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::checker::{CheckResult, Rule, check};
use super::record::{Change, Fault, Kind, Limits, Record, Statement, View};

const S: Duration = Duration::from_secs(1);

fn ips(hosts: &[u8]) -> BTreeSet<IpAddr> {
    hosts.iter().map(|host| IpAddr::from([198, 51, 100, *host])).collect()
}

/// Builds the record of one database with two addresses. All changes are made by an outsider, so
/// that no other rule is about them.
struct Seen(Record);

impl Seen {
    fn new() -> Seen {
        let limits = Limits { slack: 2 * S, backoff: 5 * S, ..Limits::default() };
        let databases = vec![ips(&[1, 2]).into_iter().collect()];
        let record = Record { limits, databases, end: 60 * S, ..Record::default() };
        Seen(record).says(0, "a", 0, Some(&[1, 2]))
    }

    fn holds(mut self, second: u32, hosts: Option<&[u8]>) -> Seen {
        let version = u64::from(second);
        self.0.outside.insert(version);
        self.0.changes.push(Change {
            at: S * second,
            version,
            database: 0,
            members: hosts.map(ips),
            managers: BTreeSet::new(),
        });
        self
    }

    /// Adds a version of an Event, which shows that second of its clock.
    fn says(mut self, second: u32, event: &str, shown: u32, hosts: Option<&[u8]>) -> Seen {
        self.0.statements.push(Statement {
            at: S * second,
            event: event.to_owned(),
            database: 0,
            shown: S * shown,
            members: hosts.map(ips),
            note: format!("{hosts:?}"),
        });
        self
    }

    fn shows(mut self, second: u32, condition: &str, hosts: &[u8]) -> Seen {
        self.0.views.push(View {
            from: S * second,
            until: S * second,
            replica: "a".to_owned(),
            database: 0,
            published: Some(ips(hosts)),
            planned: Some(ips(hosts)),
            condition: condition.to_owned(),
            gauge: Some(hosts.len()),
            gauge_condition: Some(condition.to_owned()),
        });
        self
    }

    fn fault(mut self, from: u32, until: u32) -> Seen {
        let kind = Kind::Api("killed");
        self.0.faults.push(Fault { from: S * from, until: S * until, kind });
        self
    }

    /// Checks the rules of this file only: the record has no targets that live or die.
    #[track_caller]
    fn breaks(self, rules: &[Rule]) -> CheckResult {
        let mut result = check(&self.0);
        result.violations.retain(|violation| [Rule::Event, Rule::View].contains(&violation.rule));
        let broken: Vec<Rule> = result.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(broken, rules, "{:#?}", result.violations);
        result
    }
}

#[test]
fn an_event_in_time_is_no_violation() {
    let story = Seen::new().holds(10, Some(&[1])).says(11, "a", 11, Some(&[1]));
    assert_eq!(story.breaks(&[]).worst_event, S);
    // Two changes, and the Event of the second.
    let story = Seen::new().holds(10, Some(&[1])).holds(11, Some(&[2]));
    story.says(12, "a", 12, Some(&[2])).breaks(&[]);
    // An object that is gone for a moment has no members to name.
    Seen::new().holds(10, None).holds(20, Some(&[1, 2])).breaks(&[]);
}

#[test]
fn an_event_that_is_late_or_wrong_is_a_violation() {
    Seen::new().holds(10, Some(&[1])).breaks(&[Rule::Event]);
    let late = Seen::new().holds(10, Some(&[1])).says(13, "a", 13, Some(&[1]));
    assert_eq!(late.breaks(&[Rule::Event]).violations[0].at, 12 * S);
    Seen::new().says(10, "b", 10, Some(&[1])).breaks(&[Rule::Event]);
    // It says that something else is published.
    Seen::new().says(10, "b", 10, None).breaks(&[Rule::Event]);
    // The newest is what its clock says, and not what came last.
    let skewed = || Seen::new().says(5, "b", 30, Some(&[1, 2])).holds(10, Some(&[1]));
    skewed().says(11, "c", 11, Some(&[1])).breaks(&[Rule::Event]);
    skewed().says(11, "c", 31, Some(&[1])).breaks(&[]);
    // The same Event has one version at a time.
    skewed().says(11, "b", 11, Some(&[1])).breaks(&[]);
}

#[test]
fn a_fault_of_the_api_excuses_what_is_seen() {
    // Until 5 s after it, and the slack.
    let story = |second| {
        Seen::new().fault(9, 20).holds(10, Some(&[1])).says(second, "a", second, Some(&[1]))
    };
    story(27).breaks(&[]);
    story(28).breaks(&[Rule::Event]);
    Seen::new()
        .fault(9, 20)
        .holds(10, Some(&[1]))
        .says(11, "a", 11, Some(&[1]))
        .shows(25, "ApiUnavailable", &[1, 2])
        .breaks(&[]);
}

#[test]
fn a_view_shows_what_was_so_a_moment_ago() {
    let story = || Seen::new().holds(10, Some(&[1])).says(10, "a", 10, Some(&[1]));
    story().shows(9, "Published", &[1, 2]).shows(12, "Published", &[1, 2]).breaks(&[]);
    story().shows(13, "Published", &[1, 2]).breaks(&[Rule::View]);
    story().shows(13, "Published", &[1]).breaks(&[]);
    story().shows(30, "Published", &[]).breaks(&[Rule::View]);
}

#[test]
fn a_condition_and_metrics_must_agree_too() {
    Seen::new().shows(10, "WaitingForVerdicts", &[1, 2]).breaks(&[]);
    Seen::new().shows(10, "ApiUnavailable", &[1, 2]).breaks(&[Rule::View]);
    let mut story = Seen::new().shows(10, "Published", &[1, 2]);
    story.0.views[0].gauge = Some(1);
    story.breaks(&[Rule::View]);
    let mut story = Seen::new().shows(10, "Published", &[1, 2]);
    story.0.views[0].gauge_condition = Some("NotOurs".to_owned());
    story.breaks(&[Rule::View]);
    let mut story = Seen::new().shows(10, "Published", &[1, 2]);
    story.0.views[0].planned = Some(ips(&[1]));
    story.breaks(&[Rule::View]);
}
