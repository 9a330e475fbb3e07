//! The lines of the metrics page, for snapshots made by hand.

use super::*;
use crate::clock;
use crate::health::{self, Health, Thresholds, Verdict};
use crate::monitor::{
    CheckDurations, DatabaseSnapshot, DurationHistogram, LastHour, Origin, TargetCounters,
    TargetState,
};
use crate::plan::{KeepReason, Member, MinHealthy, Plan, Policy, PolicyNote};
use crate::probe::{Observation, ServerRole};
use crate::publish::{Condition, ConditionKind};
use crate::resolve;
use prometheus::HistogramOpts;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HTTP: &str = "databases: [{service: a, namespace: b, port: 1, addresses: [192.0.2.1], \
                    check: {http: {}}}]";

fn histogram(milliseconds: &[u64]) -> DurationHistogram {
    const BOUNDS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
    let mut histogram = DurationHistogram::new(&BOUNDS);
    milliseconds.iter().for_each(|ms| histogram.observe(Duration::from_millis(*ms)));
    histogram
}

fn target(last: u8, verdict: Option<Verdict>) -> TargetState {
    let mut health = Health::new(clock::now());
    let thresholds = Thresholds { healthy: 1, unhealthy: 1 };
    let membership = health::InitialMembership::Unpublished;
    health::initialize(&mut health, membership, thresholds, clock::now());
    let counts = TargetCounters {
        pass: u64::from(verdict == Some(Verdict::Pass)),
        ..TargetCounters::default()
    };
    if let Some(verdict) = verdict {
        health::observe(&mut health, &verdict, thresholds, clock::now());
    }
    let member = Member { ip: [198, 51, 100, last].into(), hostname: None };
    let (priority, maintenance, maintenance_ended_at, flaps) = (0, None, None, None);
    TargetState {
        member,
        health,
        last_check: None,
        counts,
        origin: Origin::default(),
        priority,
        maintenance,
        maintenance_ended_at,
        flaps,
        last_hour: LastHour::default(),
        membership: crate::plan::Membership::default(),
        observation: None,
        trouble: crate::monitor::Trouble::None,
    }
}

fn database(service: &str, targets: Vec<TargetState>) -> DatabaseSnapshot {
    DatabaseSnapshot {
        id: DatabaseId { namespace: "prod".into(), service: service.into() },
        plan: Plan::Keep(KeepReason::NoVerdictYet(Vec::new())),
        policy: Policy::default(),
        notes: Vec::new(),
        problems: Vec::new(),
        targets,
        checks: Vec::new(),
        names: Vec::new(),
        refused: Vec::new(),
        changes: Arc::default(),
    }
}

/// Returns the lines that begin with `start`, of a page of two databases. Only `a` has not
/// been written.
fn lines(start: &str) -> Vec<String> {
    let databases = vec![
        database("a", vec![target(1, None)]),
        database("b", vec![target(2, Some(Verdict::Pass))]),
    ];
    lines_of(databases, start)
}

fn lines_of(databases: Vec<DatabaseSnapshot>, start: &str) -> Vec<String> {
    let status = PublishStatus {
        condition: Condition::new(ConditionKind::Published, "198.51.100.2"),
        last_transition: clock::now(),
        members: Some(
            [Member { ip: [198, 51, 100, 2].into(), hostname: None }].into_iter().collect(),
        ),
        synced: true,
        writes: BTreeMap::from([("success", 2)]),
        last_write: None,
    };
    let status = move |id: &DatabaseId| (id.service != "a").then(|| status.clone());
    let (fresh_until, start_delay) = (clock::now(), histogram(&[]));
    let mut check_durations = CheckDurations::default();
    for milliseconds in [250, 750] {
        let http = crate::config::parse("a.yaml", HTTP, &Default::default()).expect("a config");
        let check = &http.spec.databases[0].addresses[0].check;
        check_durations.observe(&check.kind, Duration::from_millis(milliseconds));
    }
    let snapshot = Arc::new(Snapshot {
        fresh_until,
        databases,
        check_durations,
        start_delay,
        started_late: 7,
        frozen: None,
    });
    let state = DaemonState {
        is_leader: true,
        lease: Some("databases/external-endpoints".to_owned()),
        config_is_good: true,
        log_lines_dropped: 3,
        orphans: BTreeMap::new(),
        dns: resolve::Counts::default(),
    };
    let opts =
        HistogramOpts::new("external_endpoints_write_duration_seconds", "How long calls took.");
    let writes = prometheus::Histogram::with_opts(opts).expect("a good name");
    let events = event::Counts::default();
    let page: String = page(snapshot, status, &writes, &state, &events).collect();
    assert!(page.ends_with('\n') && !page.contains("\n\n"), "{page}");
    page.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn a_metric_says_once_what_it_is_before_its_first_series() {
    let page = lines("");
    let about = |what: &str| page.iter().position(|line| line.starts_with(what));
    let name = "external_endpoints_target_healthy";
    let help = about(&format!("# HELP {name} 1 if")).expect("a help");
    assert_eq!(about(&format!("# TYPE {name} gauge")), Some(help + 1));
    // The first database has no series of it.
    assert_eq!(
        page[help + 2],
        format!("{name}{{namespace=\"prod\",service=\"b\",address=\"198.51.100.2\"}} 1")
    );
    assert_eq!(lines(&format!("# HELP {name}")).len(), 1);
}

#[test]
fn each_result_of_a_target_is_a_series() {
    let name = "external_endpoints_checks_total";
    let series = |service: &str, last: u8, result: &str, count: u64| {
        format!(
            "{name}{{namespace=\"prod\",service=\"{service}\",address=\"198.51.100.{last}\",\
             result=\"{result}\"}} {count}"
        )
    };
    let of = |service, last, pass| {
        [
            series(service, last, "pass", pass),
            series(service, last, "fail", 0),
            series(service, last, "inconclusive", 0),
        ]
    };
    assert_eq!(lines(name), [of("a", 1, 0), of("b", 2, 1)].concat());
}

#[test]
fn a_histogram_has_cumulative_buckets_up_to_infinity() {
    let name = "external_endpoints_check_duration_seconds";
    let series = lines(name);
    assert_eq!(series.len(), 14 + 3, "only the kind that was tried has series: {series:?}");
    let expected = [
        "_bucket{check=\"http\",le=\"0.1\"} 0",
        "_bucket{check=\"http\",le=\"0.25\"} 1",
        "_bucket{check=\"http\",le=\"0.5\"} 1",
        "_bucket{check=\"http\",le=\"1\"} 2",
    ];
    assert_eq!(series[7..11], expected.map(|line| format!("{name}{line}")));
    let expected = [
        "_bucket{check=\"http\",le=\"+Inf\"} 2",
        "_sum{check=\"http\"} 1",
        "_count{check=\"http\"} 2",
    ];
    assert_eq!(series[14..], expected.map(|line| format!("{name}{line}")));
}

#[test]
fn a_target_has_at_most_eight_series() {
    type NewTarget = fn(u8) -> TargetState;
    // A replica has one more for its role, and one for its lag.
    let plain = |last| target(last, Some(Verdict::Pass));
    let kinds: [(NewTarget, usize); 2] = [(plain, 8), (|last| replica(last, 3), 10)];
    for (target, most) in kinds {
        let databases = |number: usize| -> Vec<DatabaseSnapshot> {
            (0..number).map(|_| database("b", (1..=3).map(target).collect())).collect()
        };
        let series = |databases| {
            let lines = lines_of(databases, "external_endpoints_");
            lines.iter().filter(|line| line.contains("service=")).count()
        };
        let more = series(databases(11)) - series(databases(1));
        assert!(more <= most * 3 * 10, "{more} series for 30 targets more");
    }
}

/// Returns a replica that a check with maxLag has found.
fn replica(last: u8, lag: u64) -> TargetState {
    let (role, lag) = (Some(ServerRole::Replica), Some(Duration::from_millis(lag)));
    let observation = Observation { role, lag, ..Observation::default() };
    let observation = Some(Arc::new(observation));
    TargetState { observation, ..target(last, Some(Verdict::Pass)) }
}

#[test]
fn role_and_lag_show_where_a_check_has_found_them() {
    let targets = vec![target(1, Some(Verdict::Pass)), replica(2, 1500)];
    let labels = "namespace=\"prod\",service=\"b\",address=\"198.51.100.2\"";
    for (name, labels, value) in [
        ("role", format!("{labels},role=\"replica\""), "1"),
        ("lag_seconds", labels.to_owned(), "1.5"),
    ] {
        let name = format!("external_endpoints_target_{name}");
        let expected = format!("{name}{{{labels}}} {value}");
        assert_eq!(lines_of(vec![database("b", targets.clone())], &name), [expected]);
    }
}

#[test]
fn a_policy_shows_where_there_is_one() {
    let plain = lines("external_endpoints_");
    for name in [
        "split_brain",
        "serving_tier",
        "failback_waiting",
        "unhealthy_kept",
        "target_in_m",
        "target_inc",
        "target_flapping",
        "target_login_refused",
        "role_missing",
    ] {
        let start = format!("external_endpoints_{name}");
        assert!(!plain.iter().any(|line| line.starts_with(&start)), "{name}");
    }
    let mut tiers = database("b", vec![target(1, None), target(2, Some(Verdict::Pass))]);
    tiers.targets[0].maintenance =
        Some(crate::annotations::Maintenance::by_config(&"disk".into()).into());
    tiers.targets[1].priority = 3;
    tiers.policy =
        Policy { exactly_one: true, min_healthy: MinHealthy::Number(2), ..Policy::default() };
    tiers.plan = Plan::Publish([tiers.targets[1].member.clone()].into_iter().collect());
    let [first, second] = [0, 1].map(|index: usize| tiers.targets[index].member.ip);
    tiers.notes = vec![
        PolicyNote::BelowMinHealthy { healthy: 0, needed: 2, kept: vec![first, second] },
        PolicyNote::SplitBrain { passing: vec![first, second], published: None, name: None },
        PolicyNote::FailbackWaits { tier: 0, until: None },
        PolicyNote::ChecksInconclusive {
            ips: vec![second],
            reason: "connect: no route from this host".into(),
        },
        PolicyNote::LoginRefused { ips: vec![first], reason: "auth: refused".into() },
        PolicyNote::RoleMissing { others: vec![(first, "role: replica, not primary".into())] },
    ];
    let of = |name: &str, labels: &str, value: u32| {
        format!("external_endpoints_{name}{{namespace=\"prod\",service=\"b\"{labels}}} {value}")
    };
    for line in [
        of("target_in_maintenance", ",address=\"198.51.100.1\"", 1),
        of("target_inconclusive", ",address=\"198.51.100.2\"", 1),
        of("target_login_refused", ",address=\"198.51.100.1\"", 1),
        of("role_missing", "", 1),
        of("unhealthy_kept_addresses", "", 2),
        of("split_brain", "", 1),
        of("serving_tier", "", 3),
        of("failback_waiting", "", 1),
    ] {
        assert_eq!(lines_of(vec![tiers.clone()], &line), std::slice::from_ref(&line));
    }
}

#[test]
fn publishing_shows_where_it_is_known() {
    assert_eq!(
        lines("external_endpoints_published_addresses"),
        ["external_endpoints_published_addresses{namespace=\"prod\",service=\"b\"} 1"]
    );
    assert_eq!(
        lines("external_endpoints_writes_total"),
        ["external_endpoints_writes_total{namespace=\"prod\",service=\"b\",result=\"success\"} 2"]
    );
    assert_eq!(
        lines("external_endpoints_database_condition"),
        ["external_endpoints_database_condition{namespace=\"prod\",service=\"b\",\
             condition=\"Published\"} 1"]
    );
}

#[test]
fn what_belongs_to_no_database_is_there_too() {
    for name in [
        "external_endpoints_build_info{version=",
        "external_endpoints_config_last_load_successful 1",
        "external_endpoints_leader{lease=\"databases/external-endpoints\"} 1",
        "external_endpoints_frozen 0",
        "external_endpoints_check_start_delay_seconds_count 0",
        "external_endpoints_check_start_delay_seconds_bucket{le=\"+Inf\"} 0",
        "external_endpoints_checks_late_total 7",
        "external_endpoints_write_duration_seconds_count 0",
        "external_endpoints_events_total{result=\"published\"} 0",
        "process_resident_memory_bytes ",
    ] {
        assert_eq!(lines(name).len(), 1, "{name}");
    }
}

#[test]
fn collectors_of_the_crate_look_as_its_own_encoder_writes_them() {
    let opts = HistogramOpts::new("h", "Some durations.").const_label("a", "b");
    let histogram = prometheus::Histogram::with_opts(opts.clone()).expect("a good name");
    [0.004, 0.3, 7.0, 99.0].into_iter().for_each(|seconds| histogram.observe(seconds));
    let counter = prometheus::Counter::with_opts(opts.common_opts.clone()).expect("a good name");
    counter.inc_by(2.5);
    let gauge = prometheus::IntGauge::new("g", "A gauge.").expect("a good name");
    let mut families = [histogram.collect(), counter.collect(), gauge.collect()].concat();
    families.extend(ProcessCollector::for_self().collect());
    families.retain(|family| !family.get_metric().is_empty());
    let mut encoder = Encoder::default();
    families.iter().for_each(|family| encoder.family(family));
    let expected = prometheus::TextEncoder::new().encode_to_string(&families).expect("a page");
    assert_eq!(encoder.take_text(), expected);
}

/// Returns the page of 10,000 targets with a day of checks each, in databases of three.
fn page_of_ten_thousand() -> String {
    let mut chance = 1_u64;
    let mut random = move |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (chance >> 33) % below
    };
    let databases = (0..3334).map(|number: u32| {
        let mut database = database(&format!("db-{number}"), Vec::new());
        database.targets = (1..=3).map(|last| target(last, Some(Verdict::Pass))).collect();
        for (last, target) in (0..).zip(&mut database.targets) {
            target.member.ip = std::net::Ipv4Addr::from(0x0a14_0000 + 3 * number + last).into();
            let fail = if random(20) == 0 { random(500) } else { 0 };
            target.counts.pass = 17_280 - fail - random(4);
            target.counts.fail = fail;
            target.counts.to_up = 1 + fail / 50;
            target.counts.to_down = fail / 50;
        }
        database
    });
    lines_of(databases.collect(), "").iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn ten_thousand_targets_fit_into_450_kilobytes_of_gzip() {
    use std::io::Write as _;
    let page = page_of_ten_thousand();
    // The level is that of the pages.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(2));
    encoder.write_all(page.as_bytes()).expect("a Vec takes all");
    let size = encoder.finish().expect("a Vec takes all").len();
    println!("{} bytes, {size} with gzip", page.len());
    assert!(size < 450_000, "{size} bytes");
}

/// Reads the labels and the value of a line, as the text format defines them.
fn parse_line(line: &str) -> Option<(Vec<(String, String)>, &str)> {
    let (mut labels, mut rest) = (Vec::new(), line.split_once('{')?.1);
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let (mut text, mut chars) = (String::new(), value.char_indices());
        let end = loop {
            match chars.next()? {
                (index, '"') => break index,
                (_, '\\') => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    char @ ('\\' | '"') => char,
                    _ => return None,
                }),
                (_, '\n') => return None,
                (_, char) => text.push(char),
            }
        };
        labels.push((name.to_owned(), text));
        rest = &value[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some((labels, rest.strip_prefix("} ")?.strip_suffix('\n')?)),
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_label_value_reads_back_as_it_was(
        values in proptest::collection::vec("(\\PC|[\\\\\"\n\r\t{},= ])*", 3),
        number in proptest::num::u64::ANY,
    ) {
        let [namespace, service, reason] = values.as_slice() else { unreachable!() };
        let mut encoder = Encoder::default();
        encoder.begin_family("m", "gauge", "Some help.");
        let id = DatabaseId { namespace: namespace.clone(), service: service.clone() };
        encoder.set_database(&id);
        encoder.set_target([192, 0, 2, 1].into());
        encoder.sample(&[("reason", reason)], number);
        let text = encoder.take_text();
        let line = text.strip_prefix("# HELP m Some help.\n# TYPE m gauge\n").expect("a header");
        let (labels, value) = parse_line(line).expect(line);
        let expected = [
            ("namespace", namespace.as_str()),
            ("service", service),
            ("address", "192.0.2.1"),
            ("reason", reason),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        proptest::prop_assert_eq!(labels, expected);
        proptest::prop_assert_eq!(value, number.to_string());
    }
}
