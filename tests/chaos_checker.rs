//! Tests of the chaos run's checker: each rule finds a made-up violation, and accepts a history
//! without one.

#![allow(dead_code, reason = "the chaos run uses the other half of these modules")]

mod chaos {
    pub(crate) mod checker;
    pub(crate) mod dns_history;
    pub(crate) mod names_checker;
    pub(crate) mod record;
    pub(crate) mod scenario;
    pub(crate) mod seen_checker;
    mod seen_tests;
    pub(crate) mod span;
}

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use chaos::checker::{CheckResult, Rule, check, timeline};
use chaos::dns_history::DnsChange;
use chaos::record::{Change, Fault, Flip, Kind, LeaseState, Limits, Record, Time};
use chaos::scenario::{Action, ReplicaFault, scenario};

const S: Duration = Duration::from_secs(1);

fn ip(host: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, host])
}

/// Builds the record of one database with two addresses, for a minute in which `a` holds the Lease.
struct RecordBuilder(Record);

impl RecordBuilder {
    fn new() -> RecordBuilder {
        let limits = Limits {
            detection: 3 * S,
            recovery: 2 * S,
            slack: 2 * S,
            config: 4 * S,
            dns: 2 * S,
            handover: 2 * S,
            lease: 16 * S,
            backoff: 5 * S,
        };
        let record = Record {
            limits,
            databases: vec![vec![ip(1), ip(2)]],
            end: 60 * S,
            ..Record::default()
        };
        RecordBuilder(record).held(0, 1, Some("a"))
    }

    fn held(mut self, second: u32, version: u64, holder: Option<&str>) -> RecordBuilder {
        self.0.leases.push(LeaseState {
            at: S * second,
            version,
            holder: holder.map(str::to_owned),
        });
        self
    }

    fn fails(mut self, second: u32, host: u8) -> RecordBuilder {
        self.0.flips.push(Flip { at: S * second, ip: ip(host), up: false, how: "died" });
        self
    }

    fn recovers(mut self, second: u32, host: u8) -> RecordBuilder {
        self.0.flips.push(Flip { at: S * second, ip: ip(host), up: true, how: "came back" });
        self
    }

    /// Adds a version of the Endpoints. Its number is ten times the second.
    fn holds(mut self, second: u32, hosts: Option<&[u8]>) -> RecordBuilder {
        let members = hosts.map(|hosts| hosts.iter().map(|host| ip(*host)).collect());
        let managers = ["external-endpoints".to_owned()].into();
        self.0.changes.push(Change {
            at: S * second,
            version: u64::from(second) * 10,
            database: 0,
            members,
            managers,
        });
        self
    }

    fn writes(mut self, who: &str, second: u32, hosts: &[u8]) -> RecordBuilder {
        self.0.writers.insert(u64::from(second) * 10, who.to_owned());
        self.holds(second, Some(hosts))
    }

    fn edits(mut self, second: u32, hosts: Option<&[u8]>) -> RecordBuilder {
        self.0.outside.insert(u64::from(second) * 10);
        self.holds(second, hosts)
    }

    fn fault(mut self, from: u32, until: u32, kind: Kind) -> RecordBuilder {
        self.0.faults.push(Fault { from: S * from, until: S * until, kind });
        self
    }

    /// Gives the database a policy that keeps it from being empty.
    fn kept(mut self) -> RecordBuilder {
        self.0.keep.insert(0);
        self
    }

    fn joins(mut self, second: u32) -> RecordBuilder {
        self.0.joins.push((S * second, 0));
        self
    }

    /// Takes the addresses of the database from DNS.
    fn named(mut self) -> RecordBuilder {
        self.0.named.insert(0);
        self
    }

    /// Changes what both servers answer; none is a fault.
    fn answers(self, second: u32, hosts: Option<&[u8]>) -> RecordBuilder {
        self.one_answers(0, second, hosts).one_answers(1, second, hosts)
    }

    fn one_answers(mut self, server: usize, second: u32, hosts: Option<&[u8]>) -> RecordBuilder {
        let answer: Option<BTreeSet<IpAddr>> =
            hosts.map(|hosts| hosts.iter().map(|host| ip(*host)).collect());
        self.0.dns.push(DnsChange { at: S * second, database: 0, server, answer });
        self
    }

    #[track_caller]
    fn breaks(self, rules: &[Rule]) -> CheckResult {
        let result = check(&self.0);
        let broken: Vec<Rule> = result.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(broken, rules, "{:#?}\n{}", result.violations, timeline(&self.0, 0).join("\n"));
        result
    }
}

fn killed(who: &str) -> Kind {
    Kind::Replica(ReplicaFault::Killed, who.to_owned())
}

#[test]
fn a_death_and_a_return_in_time_are_no_violations() {
    let story = RecordBuilder::new().fails(10, 1).writes("a", 14, &[2]).recovers(20, 1).writes(
        "a",
        23,
        &[1, 2],
    );
    let result = story.breaks(&[]);
    assert_eq!((result.worst_out, result.worst_in), (4 * S, 3 * S));
    assert_eq!((result.timed, result.writes, result.excused), (2, 2, Time::ZERO));
}

#[test]
fn a_dead_address_that_stays_too_long_is_a_violation() {
    let result = RecordBuilder::new().fails(10, 1).writes("a", 16, &[2]).breaks(&[Rule::Dead]);
    assert_eq!(result.violations[0].at, 15 * S);
    RecordBuilder::new().fails(10, 1).breaks(&[Rule::Dead]);
    // Too close to the end of the record.
    RecordBuilder::new().fails(56, 1).breaks(&[]);
}

#[test]
fn a_healthy_address_that_is_missing_is_a_violation() {
    let gone = || RecordBuilder::new().fails(10, 1).writes("a", 13, &[2]).recovers(20, 1);
    gone().writes("a", 24, &[1, 2]).breaks(&[]);
    let result = gone().writes("a", 25, &[1, 2]).breaks(&[Rule::Missing]);
    assert_eq!(result.violations[0].at, 24 * S);
    // Removed without any reason.
    RecordBuilder::new().writes("a", 30, &[2]).breaks(&[Rule::Missing]);
    RecordBuilder::new().writes("a", 30, &[2]).writes("a", 31, &[1, 2]).breaks(&[Rule::Missing]);
}

#[test]
fn a_write_without_the_lease_is_a_violation() {
    let dies = || RecordBuilder::new().fails(10, 1);
    dies().writes("b", 12, &[2]).breaks(&[Rule::Holder]);
    dies().held(11, 110, Some("b")).writes("b", 12, &[2]).breaks(&[]);
    dies().held(11, 110, Some("b")).writes("a", 12, &[2]).breaks(&[Rule::Holder]);
    dies().held(11, 110, None).writes("a", 12, &[2]).breaks(&[Rule::Holder]);
    // Versions decide the order, and not the times of the two watches.
    dies().held(11, 125, Some("b")).writes("a", 12, &[2]).breaks(&[]);
    dies().held(13, 115, Some("b")).writes("a", 12, &[2]).breaks(&[Rule::Holder]);
}

#[test]
fn a_write_of_an_unknown_caller_needs_a_fault_of_the_api() {
    let story = || RecordBuilder::new().fails(10, 1).holds(12, Some(&[2]));
    story().breaks(&[Rule::Holder]);
    assert_eq!(story().fault(12, 15, Kind::Api("killed")).breaks(&[]).unknown_writer, 1);
    story().fault(20, 25, Kind::Api("killed")).breaks(&[Rule::Holder]);
    // The same holds if the network delayed it so long that its caller had given up.
    let cut_off = || Kind::Replica(ReplicaFault::CutOff, "a".to_owned());
    assert_eq!(story().fault(5, 12, cut_off()).breaks(&[]).unknown_writer, 1);
    story().fault(5, 9, cut_off()).breaks(&[Rule::Holder]);
    story().fault(5, 12, killed("a")).breaks(&[Rule::Holder]);
}

#[test]
fn a_delayed_write_needs_a_fault_and_an_earlier_lease() {
    let story =
        |who| RecordBuilder::new().fails(10, 1).held(11, 110, Some("b")).writes(who, 12, &[2]);
    assert_eq!(story("a").fault(5, 12, Kind::Api("stopped")).breaks(&[]).delayed, 1);
    story("c").fault(5, 12, Kind::Api("stopped")).breaks(&[Rule::Holder]);
}

#[test]
fn an_empty_set_while_a_target_is_up_is_a_violation() {
    let dies = || RecordBuilder::new().fails(10, 1);
    dies().writes("a", 13, &[]).writes("a", 14, &[2]).breaks(&[Rule::Missing, Rule::Empty]);
    dies().fails(10, 2).writes("a", 13, &[]).breaks(&[]);
    // It has just come back, which the daemon could not know.
    dies().fails(10, 2).recovers(12, 2).writes("a", 13, &[]).writes("a", 15, &[2]).breaks(&[]);
    // Emptied by a person and not by the daemon.
    RecordBuilder::new().edits(13, Some(&[])).writes("a", 14, &[1, 2]).breaks(&[]);
    RecordBuilder::new().edits(13, None).writes("a", 14, &[]).writes("a", 15, &[1, 2]).breaks(&[]);
}

#[test]
fn a_policy_keeps_the_last_target_of_a_database() {
    let all_die = || RecordBuilder::new().kept().fails(10, 1).fails(10, 2);
    all_die().writes("a", 13, &[2]).breaks(&[]);
    all_die().breaks(&[]);
    all_die().writes("a", 13, &[]).breaks(&[Rule::Empty]);
    all_die().fault(12, 14, Kind::Api("slow")).writes("a", 13, &[]).breaks(&[Rule::Empty]);
    // A target that is back replaces the one that was kept.
    let back = || all_die().writes("a", 13, &[2]).recovers(30, 1);
    back().writes("a", 34, &[1]).breaks(&[]);
    back().writes("a", 33, &[1, 2]).writes("a", 34, &[1]).breaks(&[]);
    back().writes("a", 33, &[1, 2]).writes("a", 35, &[1]).breaks(&[Rule::Dead]);
    back().writes("a", 35, &[1]).breaks(&[Rule::Dead, Rule::Missing]);
    // A target that dies while another is up has to be removed.
    RecordBuilder::new().kept().fails(10, 1).writes("a", 16, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn an_added_target_may_delay_the_others_of_its_database() {
    let story = || RecordBuilder::new().fails(10, 1).joins(11);
    story().writes("a", 17, &[2]).breaks(&[]);
    story().writes("a", 18, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_terminated_holder_hands_its_lease_over() {
    let ended = || Kind::Replica(ReplicaFault::Terminated, "a".to_owned());
    let story = || RecordBuilder::new().fault(10, 30, ended());
    story().held(14, 140, Some("b")).breaks(&[]);
    story().held(11, 110, None).held(14, 140, Some("b")).breaks(&[]);
    story().held(11, 110, None).held(15, 150, Some("b")).breaks(&[Rule::Handover]);
    story().breaks(&[Rule::Handover]);
    story().fault(12, 13, Kind::Api("killed")).breaks(&[]);
    RecordBuilder::new().held(5, 50, Some("b")).fault(10, 30, ended()).breaks(&[]);
}

#[test]
fn an_outside_edit_is_repaired_within_the_slack() {
    for edit in [Some([1_u8].as_slice()), None] {
        RecordBuilder::new().edits(30, edit).writes("a", 32, &[1, 2]).breaks(&[]);
    }
    RecordBuilder::new().edits(30, Some(&[1])).writes("a", 33, &[1, 2]).breaks(&[Rule::Missing]);
    RecordBuilder::new()
        .edits(30, None)
        .writes("a", 33, &[1, 2])
        .breaks(&[Rule::Missing, Rule::Missing]);
    let dead = || RecordBuilder::new().fails(10, 1).writes("a", 13, &[2]).edits(30, Some(&[1, 2]));
    dead().writes("a", 32, &[2]).breaks(&[]);
    dead().writes("a", 33, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_fault_of_the_api_excuses_until_the_longest_backoff() {
    let story = |second| {
        let story = RecordBuilder::new().fails(10, 1).fault(9, 20, Kind::Api("killed"));
        story.writes("a", second, &[2])
    };
    assert_eq!(story(27).breaks(&[]).excused, 16 * S);
    story(28).breaks(&[Rule::Dead]);
    // A fault before and a fault after excuse nothing.
    let story = RecordBuilder::new().fails(10, 1).fault(1, 2, Kind::Api("killed")).fault(
        40,
        50,
        Kind::Api("slow"),
    );
    story.writes("a", 16, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_killed_holder_excuses_until_its_lease_expires() {
    // Renewed at 8, so it expires at 24.
    let story =
        || RecordBuilder::new().held(8, 80, Some("a")).fails(10, 1).fault(9, 50, killed("a"));
    let taken = |second: u32| story().held(second, u64::from(second) * 10 - 5, Some("b"));
    taken(23).writes("b", 25, &[2]).breaks(&[]);
    taken(23).writes("b", 26, &[2]).breaks(&[Rule::Dead]);
    taken(27).writes("b", 27, &[2]).breaks(&[Rule::Dead]);
    story().breaks(&[Rule::Dead]);
    // The other replica measures the Lease's age from when it sees the renewal.
    taken(33).fault(8, 17, Kind::Api("stopped")).writes("b", 35, &[2]).breaks(&[]);
    // A replica that does not hold the Lease need not write.
    let other = RecordBuilder::new().held(8, 80, Some("a")).fails(10, 1).fault(9, 50, killed("b"));
    other.writes("a", 16, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_suspended_holder_excuses_until_it_has_checked_all() {
    let stopped = Kind::Replica(ReplicaFault::Stopped, "a".to_owned());
    let story =
        || RecordBuilder::new().held(8, 80, Some("a")).fails(10, 1).fault(9, 16, stopped.clone());
    story().writes("a", 21, &[2]).breaks(&[]);
    story().writes("a", 22, &[2]).breaks(&[Rule::Dead]);
    // It continues when its Lease is about to expire, at 8 + 16.5 s.
    let longer =
        || RecordBuilder::new().held(8, 80, Some("a")).fails(10, 1).fault(9, 24, stopped.clone());
    longer().writes("a", 29, &[2]).breaks(&[]);
    longer().writes("a", 30, &[2]).breaks(&[Rule::Dead]);
    // A renewal that the API held back counts from when it is stored, at 13 s, for 16.5 s.
    let api = || {
        RecordBuilder::new().held(8, 80, Some("a")).fails(20, 1).fault(9, 13, Kind::Api("stopped"))
    };
    let held_back = |until| api().fault(12, until, stopped.clone()).held(13, 130, Some("a"));
    held_back(40).held(29, 290, Some("b")).writes("b", 30, &[2]).breaks(&[]);
    held_back(40).held(33, 330, Some("b")).writes("b", 34, &[2]).breaks(&[Rule::Dead]);
    // The new holder knows everything already.
    story().held(13, 130, Some("b")).writes("b", 16, &[2]).breaks(&[Rule::Dead]);
    story().held(13, 130, Some("b")).writes("b", 15, &[2]).breaks(&[]);
    let cut_off = Kind::Replica(ReplicaFault::CutOff, "a".to_owned());
    let story =
        || RecordBuilder::new().held(8, 80, Some("a")).fails(10, 1).fault(9, 12, cut_off.clone());
    story().writes("a", 19, &[2]).breaks(&[]);
    story().writes("a", 20, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_second_flip_restarts_the_time_limit() {
    let story = RecordBuilder::new().fails(10, 1).recovers(14, 1).fails(15, 1);
    story.writes("a", 20, &[2]).breaks(&[]);
    // It was removed at the time it came back, which is allowed for as long as a recovery takes.
    let story = RecordBuilder::new().fails(10, 1).recovers(12, 1);
    story.writes("a", 13, &[2]).writes("a", 16, &[1, 2]).breaks(&[]);
}

#[test]
fn what_dns_has_dropped_leaves_once_another_is_up() {
    let moves = || RecordBuilder::new().named().answers(20, Some(&[2]));
    moves().writes("a", 26, &[2]).breaks(&[]);
    let late = moves().writes("a", 28, &[2]).breaks(&[Rule::Dropped]);
    assert_eq!(late.violations[0].at, 26 * S);
    // It stays while DNS gives nobody who is up.
    let dead = || RecordBuilder::new().named().fails(10, 2).writes("a", 13, &[1]);
    dead().answers(20, Some(&[2])).breaks(&[]);
    dead().answers(20, Some(&[2])).recovers(30, 2).writes("a", 34, &[2]).breaks(&[]);
    dead()
        .answers(20, Some(&[2]))
        .recovers(30, 2)
        .writes("a", 36, &[2])
        .breaks(&[Rule::Missing, Rule::Dropped]);
    // The replica that writes may be the one whose server still has it.
    RecordBuilder::new().named().one_answers(0, 20, Some(&[2])).breaks(&[]);
    // After a fault, the daemon asks later.
    let fault = || RecordBuilder::new().named().answers(10, None).answers(14, Some(&[2]));
    fault().writes("a", 26, &[2]).breaks(&[]);
    fault().writes("a", 27, &[2]).breaks(&[Rule::Dropped]);
    // It may have slept through a good answer between two faults.
    let named = || RecordBuilder::new().named().answers(6, None);
    let faults = |back| named().answers(back, Some(&[1, 2])).answers(28, None);
    let leaves = |back| faults(back).answers(30, Some(&[2])).writes("a", 58, &[2]);
    leaves(20).breaks(&[]);
    leaves(8).breaks(&[Rule::Dropped]);
}

#[test]
fn no_write_takes_away_what_lives_and_has_no_other() {
    let named = || RecordBuilder::new().named();
    named().writes("a", 30, &[2]).breaks(&[Rule::Missing, Rule::Taken]);
    named().answers(20, None).writes("a", 30, &[2]).breaks(&[Rule::Missing, Rule::Taken]);
    named().answers(20, Some(&[2])).writes("a", 21, &[2]).breaks(&[]);
    // The other one died long ago.
    let dead = || named().fails(5, 2).writes("a", 8, &[1]).answers(20, Some(&[2]));
    dead().writes("a", 30, &[]).breaks(&[Rule::Taken]);
    dead().recovers(31, 2).writes("a", 33, &[2]).breaks(&[]);
    // An answer holds in a fault of DNS.
    let fault = dead().answers(25, None).recovers(30, 2);
    fault.writes("a", 32, &[2]).breaks(&[]);
    // DNS gives it again, and that is known.
    let back = || named().answers(26, Some(&[2])).answers(30, Some(&[1, 2]));
    back().writes("a", 31, &[2]).writes("a", 33, &[1, 2]).breaks(&[]);
    back()
        .writes("a", 27, &[2])
        .writes("a", 33, &[1, 2])
        .writes("a", 50, &[2])
        .breaks(&[Rule::Missing, Rule::Taken]);
    // One that a person has added is no target.
    named()
        .answers(10, Some(&[2]))
        .writes("a", 12, &[2])
        .edits(30, Some(&[1, 2]))
        .writes("a", 31, &[2])
        .breaks(&[]);
}

#[test]
fn what_dns_does_not_give_need_not_be_published() {
    let gone = || {
        let dies = RecordBuilder::new().named().fails(10, 1).writes("a", 13, &[2]);
        dies.answers(15, Some(&[2])).recovers(20, 1)
    };
    gone().breaks(&[]);
    gone().answers(30, Some(&[1, 2])).writes("a", 36, &[1, 2]).breaks(&[]);
    gone().answers(30, Some(&[1, 2])).writes("a", 37, &[1, 2]).breaks(&[Rule::Missing]);
    // A fault of DNS excuses nothing: the address is known.
    let fault = || RecordBuilder::new().named().fails(10, 1).writes("a", 13, &[2]);
    let fault = || fault().answers(18, None).recovers(20, 1);
    fault().breaks(&[Rule::Missing]);
    // A replica that was restarted meanwhile does not know it.
    fault().fault(17, 19, killed("b")).breaks(&[]);
    // A dead one leaves, whatever DNS says.
    RecordBuilder::new().named().answers(5, None).fails(20, 1).breaks(&[Rule::Dead]);
}

#[test]
fn the_timeline_has_all_events_of_a_database_in_order() {
    let story = RecordBuilder::new().fails(10, 1).writes("a", 14, &[2]).edits(20, None);
    let story = story.fault(12, 13, killed("b"));
    let lines = timeline(&story.0, 0);
    let words = [
        "held by a",
        "198.51.100.1 died",
        "replica b was killed",
        "by a",
        "deleted by an outside edit",
    ];
    assert_eq!(lines.len(), words.len(), "{lines:#?}");
    for (line, words) in lines.iter().zip(words) {
        assert!(line.contains(words), "{line}");
    }
}

fn lasts(action: &Action) -> Duration {
    match action {
        Action::Api(_, lasts)
        | Action::Replica(_, _, lasts)
        | Action::CorruptConfig(lasts)
        | Action::Dns(_, _, _, lasts) => *lasts,
        _ => Duration::ZERO,
    }
}

#[test]
fn a_seed_determines_the_scenario() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let fill = |seed| format!("{:?}", scenario(seed, minutes(10), 30, 3));
    assert_eq!(fill(7), fill(7));
    assert_ne!(fill(7), fill(8));
    for seed in 0..50 {
        let scenario = scenario(seed, minutes(1), 30, 3);
        assert!(scenario.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(
            scenario.iter().all(|step| step.at + lasts(&step.action) <= minutes(1)),
            "{scenario:#?}"
        );
        // Even a minute has some actions of each kind.
        for kind in [
            "KillTarget",
            "BlackHoleTarget",
            "RestoreTarget",
            "Edit",
            "Delete",
            "RemoveTarget",
            "AddTarget",
            "CorruptConfig",
            "Api",
            "Replica",
            "Answer",
            "Dns",
        ] {
            assert!(
                scenario.iter().any(|step| format!("{:?}", step.action).starts_with(kind)),
                "no {kind} of {seed}"
            );
        }
        // So few targets are dead at once that the daemon does not suspect its own network.
        let (mut dead, mut most) = (0_u32, 0);
        for step in &scenario {
            match step.action {
                Action::KillTarget(_) | Action::BlackHoleTarget(_) => dead += 1,
                Action::RestoreTarget(_) => dead -= 1,
                _ => {}
            }
            most = most.max(dead);
        }
        assert!((5..=40).contains(&most), "{most} of 90 were dead with {seed}");
    }
}
