//! The sentences of each membership, row by row.

use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::annotations::Maintenance;
use crate::config::{self, DatabaseId};
use crate::health::{self, FlapDamper, Health, InitialMembership, Verdict};
use crate::monitor::{LastHour, Origin, TargetCounters};
use crate::plan::{Member, Members, Plan, Policy};

const CONFIG: &str = "databases: [{service: orders, namespace: prod, port: 5432, \
    addresses: [10.20.1.23], check: {interval: 5s, http: {path: /primary, port: 8008}}}]";

fn check() -> Arc<Check> {
    let config = config::parse("a.yaml", CONFIG, &config::Options::default()).expect("a config");
    config.spec.databases[0].addresses[0].check.clone()
}

/// Returns a target that was published at the start, or was not, and then got these verdicts: `+`
/// pass, `-` fail, `?` inconclusive.
fn target(initial: InitialMembership, verdicts: &str, membership: Membership) -> TargetState {
    let now = clock::now();
    let thresholds = check().thresholds;
    let mut health = Health::new(now);
    health::initialize(&mut health, initial, thresholds, now);
    for verdict in verdicts.chars() {
        let verdict = match verdict {
            '+' => Verdict::Pass,
            '-' => Verdict::Fail("connect: refused".into()),
            _ => Verdict::Inconclusive("exec: no program".into()),
        };
        health::observe(&mut health, &verdict, thresholds, now);
    }
    TargetState {
        member: Member { ip: [10, 20, 1, 23].into(), hostname: None },
        health,
        last_check: None,
        counts: TargetCounters::default(),
        origin: Origin::default(),
        priority: 0,
        maintenance: None,
        maintenance_ended_at: None,
        flaps: None,
        last_hour: LastHour::default(),
        membership,
        observation: None,
        trouble: crate::monitor::Trouble::None,
    }
}

fn up(membership: Membership) -> TargetState {
    target(InitialMembership::Unpublished, "+++", membership)
}

fn down(membership: Membership) -> TargetState {
    target(InitialMembership::Published, "----", membership)
}

fn maintenance(source: MaintenanceSource, until: Option<SystemTime>) -> Arc<Maintenance> {
    Arc::new(Maintenance { reason: "disk swap".into(), source, until })
}

fn database(plan: Plan, notes: Vec<PolicyNote>) -> DatabaseSnapshot {
    DatabaseSnapshot {
        id: DatabaseId { namespace: "prod".into(), service: "orders".into() },
        plan,
        policy: Policy::default(),
        notes,
        problems: Vec::new(),
        targets: Vec::new(),
        checks: Vec::new(),
        names: Vec::new(),
        refused: Vec::new(),
        changes: Arc::default(),
    }
}

fn decided(notes: Vec<PolicyNote>) -> DatabaseSnapshot {
    database(Plan::Publish(Members::default()), notes)
}

/// Compares the sentences with the parts that they must have.
#[track_caller]
fn says(database: &DatabaseSnapshot, target: &TargetState, why: &[&str], until: &[&str]) {
    let status = MembershipStatus::new(database, target, &check());
    for (text, parts) in [(&status.why, why), (&status.until, until)] {
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
    assert_eq!(status.planned, target.membership.is_in());
    assert_eq!(status.reason, target.membership.as_str());
}

#[test]
fn a_healthy_target_says_what_speaks_against_it() {
    let plain = decided(Vec::new());
    let healthy = |verdicts| target(InitialMembership::Published, verdicts, Membership::Healthy);
    let leaves = ["3 checks in a row fail"];
    says(&plain, &healthy("++"), &["its check passed twice in a row"], &leaves);
    says(&plain, &healthy("+-"), &["failed once in a row, of 3", "connect: refused"], &leaves);
    says(&plain, &healthy(""), &["published when the daemon started"], &leaves);
}

#[test]
fn a_target_that_is_down_says_what_brings_it_back() {
    let plain = decided(Vec::new());
    let returns = ["2 checks in a row pass, so ", " after it is well at the earliest"];
    let failing = ["its check failed 4 times in a row: connect: refused"];
    says(&plain, &down(Membership::Down), &failing, &returns);
    let recovering = target(InitialMembership::Published, "----+", Membership::Down);
    says(&plain, &recovering, &["passed once in a row, of 2 that bring it back"], &returns);
    let unknown = target(InitialMembership::Unpublished, "??", Membership::NoVerdict);
    says(
        &plain,
        &unknown,
        &["no check has said anything", "exec: no program"],
        &["a check passes"],
    );
}

#[test]
fn an_undecided_target_says_what_the_decision_waits_for() {
    let ip = [10, 20, 1, 24].into();
    for (reason, why, until) in [
        (KeepReason::NoVerdictYet(vec![ip]), "no verdict yet for 10.20.1.24", "checked once"),
        (KeepReason::NoAnswerYet(vec!["db.corp".into()]), "not been asked", "DNS has answered"),
        (KeepReason::NamesUnresolved(vec!["db.corp".into()]), "no address", "DNS gives an address"),
        (KeepReason::AllInconclusive(vec![(ip, "x".into())]), "inconclusive", "daemon's side"),
        (KeepReason::NotSynced, "not been read", "the API server has answered"),
    ] {
        let target = up(Membership::Undecided);
        let why = ["the cluster stays as it is", why];
        says(&database(Plan::Keep(reason), Vec::new()), &target, &why, &[until]);
    }
}

#[test]
fn a_target_that_a_rule_keeps_says_why_it_would_leave() {
    let plain = decided(Vec::new());
    let kept = Membership::KeptByMinHealthy { healthy: 1, needed: 3 };
    let would =
        ["1 are healthy and minHealthy asks for 3", "would leave: its check failed 4 times"];
    says(&plain, &down(kept), &would, &["2 more are healthy"]);
    let asked = Some(maintenance(MaintenanceSource::Config, None));
    let serviced = TargetState { maintenance: asked, ..up(kept) };
    says(&plain, &serviced, &["would leave: it is in maintenance (disk swap"], &[]);
    says(&plain, &down(Membership::KeptByFreeze), &["a freeze holds it"], &["the freeze ends"]);
}

#[test]
fn maintenance_names_the_reason_the_health_and_the_command() {
    let serviced = |source, until| TargetState {
        maintenance: Some(maintenance(source, until)),
        ..down(Membership::Maintenance)
    };
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let off = "you run `external-endpoints maintenance off prod/orders 10.20.1.23`";
    for (source, until, expected) in [
        (MaintenanceSource::Config, None, ["the key `maintenance` of its entry", ""]),
        (MaintenanceSource::Annotation, None, [off, ""]),
        (MaintenanceSource::Annotation, Some(until), ["at 1970-01-01T00:01:00Z, or ", off]),
    ] {
        let why = ["in maintenance: disk swap", "its check failed 4 times"];
        says(&decided(Vec::new()), &serviced(source, until), &why, &expected);
    }
}

#[test]
fn a_target_of_another_tier_says_when_its_tier_serves() {
    let until = clock::now();
    let note = |until| vec![PolicyNote::FailbackWaits { tier: 0, until }];
    let waits = |until| Membership::FailbackWaits { serving: 1, until };
    let failback = "external-endpoints failback prod/orders";
    let why = ["tier 1 serves until the failback"];
    let at_time = decided(note(Some(until)));
    says(&at_time, &up(waits(Some(until))), &why, &["tier 0 stays healthy until 20", failback]);
    let policy = Policy { failback: Failback::Manual, ..Policy::default() };
    let manual = DatabaseSnapshot { policy: policy.clone(), ..decided(note(None)) };
    says(&manual, &up(waits(None)), &why, &["tier 0 is healthy again and waits for `", failback]);
    let status = MembershipStatus::new(&at_time, &up(waits(Some(until))), &check());
    assert!(status.at.is_some());

    let plain = decided(Vec::new());
    let spare = TargetState { priority: 1, ..up(Membership::LowerTierServes { preferred: 0 }) };
    let why = ["tier 1 serves as long as tier 0 does not"];
    says(&plain, &spare, &why, &["tier 0 is healthy again for 5m"]);
    let manual = DatabaseSnapshot { policy, ..plain.clone() };
    says(&manual, &spare, &why, &["tier 0 is healthy again, and then `", failback]);
    let weak = Membership::TierTooWeak { healthy: 1, needed: 2, serving: 1 };
    let until = ["1 more are healthy down to tier 0"];
    says(&plain, &up(weak), &["1 of 2 that are needed", "so tier 1 serves"], &until);
    let lower = TargetState { priority: 2, ..up(Membership::LowerTier { behind: 1 }) };
    let until = ["too few are healthy down to tier 1"];
    says(&plain, &lower, &["waits as tier 2 behind tier 1"], &until);
}

/// Returns a database whose other target, 10.20.1.22 of this tier, serves.
fn beside_a_server(tier: u32, policy: Policy) -> DatabaseSnapshot {
    let mut server = TargetState { priority: tier, ..up(Membership::Healthy) };
    server.member.ip = [10, 20, 1, 22].into();
    DatabaseSnapshot { targets: vec![server], policy, ..decided(Vec::new()) }
}

#[test]
fn a_target_that_is_out_says_what_would_hold_it_back_next() {
    let policy = Policy::default();
    let manual = Policy { failback: Failback::Manual, ..policy.clone() };
    let one = Policy { exactly_one: true, ..policy.clone() };
    let tier = |priority| TargetState { priority, ..down(Membership::Down) };
    let command = "and then you run `external-endpoints failback prod/orders`";
    for (serving, policy, own, then) in [
        (0, &policy, 1, "and then tier 0 becomes too weak"),
        (1, &policy, 0, "and then its tier stays healthy for 5m"),
        (1, &manual, 0, command),
        (0, &one, 0, "and then 10.20.1.22 is down, as `exactlyOne` allows no second"),
    ] {
        let database = beside_a_server(serving, policy.clone());
        says(&database, &tier(own), &[], &["2 checks in a row pass", then]);
    }
    let alike = MembershipStatus::new(&beside_a_server(0, policy), &tier(0), &check());
    assert!(!alike.until.contains("and then"), "{}", alike.until);
    // One that is in waits for nothing.
    let database = beside_a_server(1, manual);
    let inside = MembershipStatus::new(&database, &up(Membership::Healthy), &check());
    assert_eq!(inside.until, "3 checks in a row fail");
}

#[test]
fn a_target_in_maintenance_that_is_down_needs_passes_too() {
    let asked = Some(maintenance(MaintenanceSource::Annotation, None));
    let mut serviced = TargetState { maintenance: asked, ..down(Membership::Maintenance) };
    let plain = decided(Vec::new());
    says(&plain, &serviced, &[], &["maintenance off", "and then 2 checks in a row pass"]);
    serviced.health = up(Membership::Maintenance).health;
    let status = MembershipStatus::new(&plain, &serviced, &check());
    assert!(!status.until.contains("and then"), "{}", status.until);
}

#[test]
fn a_target_that_is_down_and_has_flapped_says_both() {
    let mut flaps = FlapDamper::default();
    for to in [State::Down, State::Up].into_iter().cycle().take(20) {
        flaps.record_flip(to, 5, clock::now());
    }
    let flaps = Some(Box::new(flaps));
    let target = TargetState { flaps: flaps.clone(), ..down(Membership::Down) };
    let parts = ["2 checks in a row pass", "and then it stays up for some minutes, as it flapped"];
    says(&decided(Vec::new()), &target, &[], &parts);
    let asked = Some(maintenance(MaintenanceSource::Annotation, None));
    let serviced = TargetState { flaps, maintenance: asked, ..up(Membership::Maintenance) };
    let parts = ["maintenance off", "and then it stays up until 20"];
    says(&decided(Vec::new()), &serviced, &[], &parts);
}

#[test]
fn a_target_that_flaps_says_until_when() {
    let until = clock::now();
    let plain = decided(Vec::new());
    let flapped = ["changed more than 5 times in 10 minutes"];
    says(&plain, &up(Membership::Flapping { until }), &flapped, &["stays up until 20"]);
    let needed = up(Membership::NeededDespiteFlapping { until });
    says(&plain, &needed, &[flapped[0], "too few are left"], &["healthy enough before 20"]);
}

#[test]
fn a_target_flaps_only_while_that_keeps_it_out() {
    let mut flaps = FlapDamper::default();
    for to in [State::Down, State::Up].into_iter().cycle().take(20) {
        flaps.record_flip(to, 5, clock::now());
    }
    let until = flaps.suppressed_until().expect("it flapped");
    let of = |state: TargetState| TargetState { flaps: Some(Box::new(flaps.clone())), ..state };
    assert_eq!(of(up(Membership::Flapping { until })).flapping(), Some(until));
    assert_eq!(of(up(Membership::Flapping { until: clock::now() })).flapping(), None);
    for inside in [Membership::Healthy, Membership::NeededDespiteFlapping { until }] {
        assert_eq!(of(up(inside)).flapping(), None, "{inside:?}");
    }
    // The policy of writers suppresses none.
    let policy = Policy { exactly_one: true, ..Policy::default() };
    let writers = DatabaseSnapshot { policy, ..decided(Vec::new()) };
    let status = MembershipStatus::new(&writers, &of(down(Membership::Down)), &check());
    assert!(!status.until.contains("flapped"), "{}", status.until);
}

#[test]
fn a_second_writer_says_which_one_is_published() {
    let (one, other) = ([10, 20, 1, 22].into(), [10, 20, 1, 23].into());
    let note = PolicyNote::SplitBrain { passing: vec![one, other], published: None, name: None };
    let split = decided(vec![note]);
    let why = ["more than one passes", "10.20.1.22, 10.20.1.23"];
    says(&split, &up(Membership::SplitBrain), &why, &["it passes alone", "stop the others"]);
    let plain = decided(Vec::new());
    let second = up(Membership::OtherWriter { writer: one });
    says(&plain, &second, &["10.20.1.22 is published"], &["10.20.1.22 is down"]);
    says(&plain, &up(Membership::SeveralClaim), &["beside others"], &["it is up alone"]);
}

#[test]
fn a_target_of_a_name_says_what_dns_says() {
    let plain = decided(Vec::new());
    let mut kept = up(Membership::NotReplaced);
    kept.origin.backing = Backing::Departing;
    let why = ["DNS no longer gives it, but none takes its place", "passed 3 times"];
    says(&plain, &kept, &why, &["another address that DNS gives is up"]);
    kept.origin.backing = Backing::Adopted;
    says(&plain, &kept, &["published before the start"], &[]);
    let new = target(InitialMembership::Unpublished, "", Membership::NotChecked);
    says(&plain, &new, &["has not been checked yet"], &["its first check passes"]);
    let again = ["DNS gives it again"];
    says(&plain, &up(Membership::NoLongerGiven), &["DNS no longer gives it"], &again);
    says(&plain, &up(Membership::Replaced), &["another that is up has taken its place"], &again);
}

#[test]
fn the_check_is_shown_without_what_may_be_secret() {
    let summary = |text: &str, ip: &str| {
        let text = format!(
            "databases: [{{service: a, namespace: b, port: 5432, addresses: [\"{ip}\"], \
             check: {text}}}]"
        );
        let config = config::parse("a.yaml", &text, &config::Options::default()).expect("good");
        let address = &config.spec.databases[0].addresses[0];
        address.check.kind.summary(address.ip)
    };
    assert_eq!(summary("{tcp: {}}", "10.0.0.1"), "tcp 10.0.0.1:5432");
    assert_eq!(summary("{tcp: {tls: {}}}", "2001:db8::1"), "tcp [2001:db8::1]:5432 with TLS");
    let http = summary("{http: {path: '/a?token=hunter2', scheme: https}}", "10.0.0.1");
    assert_eq!(http, "http GET https://10.0.0.1:5432/a?…");
    let postgres = summary("{postgres: {role: primary, password: hunter2, tls: {}}}", "10.0.0.1");
    assert_eq!(postgres, "postgres 10.0.0.1:5432 as primary with TLS");
    assert_eq!(summary("{redis: {}}", "10.0.0.1"), "redis 10.0.0.1:5432");
    let exec = summary("{exec: {command: [psql, -W, hunter2]}}", "10.0.0.1");
    assert_eq!(exec, "exec psql …");
}
