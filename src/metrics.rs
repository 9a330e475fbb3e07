//! The metrics page: everything but the process's own figures is made at each scrape from what the monitor and the
//! publishers know then, so no series outlives its target.
//!
//! Ten thousand targets make a page of many megabytes. It comes in pieces, one database's share of one metric at a time, so
//! that it never is in memory as a whole, neither as text nor as a value for each series.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, TextEncoder};

use crate::config::DatabaseId;
use crate::event;
use crate::health::State;
use crate::monitor::{DatabaseSnapshot, Histogram, Snapshot};
use crate::plan::Members;
use crate::publish::Publication;

mod policy;

/// The page in Prometheus' text format, in pieces. Asks `publication` for each as it comes to it.
pub fn page(
    snapshot: Snapshot,
    publication: impl Fn(&DatabaseId) -> Option<Publication> + Clone + Send + 'static,
    write_duration: &prometheus::Histogram,
    standing: &Standing,
    events: &event::Counts,
) -> prometheus::Result<impl Iterator<Item = String> + Send + 'static> {
    let daemon = daemon(&snapshot, write_duration, standing, events)?;
    let databases = Arc::new(snapshot.databases);
    let pieces = FAMILIES.iter().flat_map(move |family| family.pieces(databases.clone(), publication.clone()));
    Ok(std::iter::once(daemon).chain(pieces))
}

/// What is known of the daemon as a whole.
pub struct Standing {
    /// Whether this replica is the one that writes.
    pub leads: bool,
    /// Whether the config file was good when last read.
    pub config_is_good: bool,
    /// What is left behind.
    pub leftovers: BTreeMap<DatabaseId, Members>,
}

/// The metrics that belong to no database.
fn daemon(
    snapshot: &Snapshot,
    write_duration: &prometheus::Histogram,
    standing: &Standing,
    events: &event::Counts,
) -> prometheus::Result<String> {
    let build = Opts::new("external_endpoints_build_info", "The version that runs, as a label; always 1.");
    let build = IntGaugeVec::new(build, &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let load = IntGauge::new(
        "external_endpoints_config_last_load_successful",
        "Whether the config file was good when last read (1) or not (0).",
    )?;
    load.set(i64::from(standing.config_is_good));
    let late = IntCounter::new(
        "external_endpoints_checks_late_total",
        "Tries that started more than half an interval after they were due.",
    )?;
    late.inc_by(snapshot.started_late);
    let leader = IntGauge::new(
        "external_endpoints_leader",
        "Whether this replica is the one that writes (1) or not (0): by its lease, or because it is alone.",
    )?;
    leader.set(i64::from(standing.leads));
    let frozen = IntGauge::new(
        "external_endpoints_frozen",
        "Whether nothing is taken out (1) or not (0), because so many targets fail together that the fault is probably ours.",
    )?;
    frozen.set(i64::from(snapshot.frozen.is_some()));
    let own = [build.collect(), load.collect(), leader.collect(), frozen.collect(), late.collect()];
    let mut families = [own.concat(), write_duration.collect()].concat();
    families.extend(ProcessCollector::for_self().collect());
    // A family without a series is refused by the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    let text = TextEncoder::new().encode_to_string(&families)?;
    let name = "external_endpoints_check_start_delay_seconds";
    let mut samples = Samples { family: name, labels: String::new(), text };
    samples.begin("histogram", "How late tries started, after they were due.");
    samples.histogram(&snapshot.start_delay);
    left_behind(&standing.leftovers, &mut samples);
    samples.family = "external_endpoints_events_total";
    samples.begin("counter", "What was to be told as Events, by what became of it.");
    for (result, count) in events.by_result() {
        samples.add("", &[("result", result)], count);
    }
    Ok(samples.text)
}

fn left_behind(leftovers: &BTreeMap<DatabaseId, Members>, samples: &mut Samples) {
    if !leftovers.is_empty() {
        samples.family = "external_endpoints_left_behind_addresses";
        samples.begin(
            "gauge",
            "Addresses in Endpoints and EndpointSlices that are ours by their label, and of no database of the config.",
        );
    }
    for (DatabaseId { namespace, service }, members) in leftovers {
        samples.add("", &[("namespace", namespace), ("service", service)], members.len());
    }
}

/// One metric of which each database has its share.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    share: Share,
}

/// What writes a database's share of a metric, from what the monitor or the publisher knows of it.
enum Share {
    Checked(fn(&DatabaseSnapshot, &mut Samples)),
    Published(fn(&Publication, &mut Samples)),
}

const FAMILIES: [Family; 15] = [
    Family {
        name: "external_endpoints_target_healthy",
        kind: "gauge",
        help: "Whether the target is up (1) or down (0); absent while unknown.",
        share: Share::Checked(target_healthy),
    },
    Family {
        name: "external_endpoints_checks_total",
        kind: "counter",
        help: "Tries of a target's check, by their verdict.",
        share: Share::Checked(checks),
    },
    Family {
        name: "external_endpoints_transitions_total",
        kind: "counter",
        help: "Flips of a target's health, by the state it came to.",
        share: Share::Checked(transitions),
    },
    Family {
        name: "external_endpoints_check_duration_seconds",
        kind: "histogram",
        help: "How long tries took.",
        share: Share::Checked(|database, samples| samples.histogram(&database.check_duration)),
    },
    Family {
        name: "external_endpoints_configured_addresses",
        kind: "gauge",
        help: "Addresses that the config lists.",
        share: Share::Checked(|database, samples| {
            samples.add("", &[], database.targets.len() + database.refused.len())
        }),
    },
    Family {
        name: "external_endpoints_refused_addresses",
        kind: "gauge",
        help: "Addresses of the config that may not be published, and are not checked.",
        share: Share::Checked(|database, samples| samples.add("", &[], database.refused.len())),
    },
    Family {
        name: "external_endpoints_target_in_maintenance",
        kind: "gauge",
        help: "1 for a target that is in maintenance; absent for others.",
        share: Share::Checked(policy::in_maintenance),
    },
    Family {
        name: "external_endpoints_target_flapping",
        kind: "gauge",
        help: "1 for a target that is up, but out because it flapped; absent for others.",
        share: Share::Checked(policy::flapping),
    },
    Family {
        name: "external_endpoints_unhealthy_kept_addresses",
        kind: "gauge",
        help: "Addresses that stay published although they are not healthy, because minHealthy asks for it.",
        share: Share::Checked(policy::kept),
    },
    Family {
        name: "external_endpoints_split_brain",
        kind: "gauge",
        help: "Whether more than one target passes of a database that shall have exactly one (1) or not (0).",
        share: Share::Checked(policy::split_brain),
    },
    Family {
        name: "external_endpoints_serving_tier",
        kind: "gauge",
        help: "The lowest tier that serves, where there are several: the highest priority number; absent while none does.",
        share: Share::Checked(policy::serving_tier),
    },
    Family {
        name: "external_endpoints_failback_waiting",
        kind: "gauge",
        help: "Whether preferred tiers are well again and wait to take over (1) or not (0), where there are several tiers.",
        share: Share::Checked(policy::failback_waiting),
    },
    Family {
        name: "external_endpoints_published_addresses",
        kind: "gauge",
        help: "Addresses that the cluster holds; absent while that is unknown.",
        share: Share::Published(published_addresses),
    },
    Family {
        name: "external_endpoints_database_condition",
        kind: "gauge",
        help: "1 for the condition in force; absent for all others.",
        share: Share::Published(database_condition),
    },
    Family {
        name: "external_endpoints_writes_total",
        kind: "counter",
        help: "API calls that write, by their result.",
        share: Share::Published(writes),
    },
];

impl Family {
    /// Each database's share of the metric. The first that is not empty begins with what the metric is.
    fn pieces(
        &'static self,
        databases: Arc<Vec<DatabaseSnapshot>>,
        publication: impl Fn(&DatabaseId) -> Option<Publication>,
    ) -> impl Iterator<Item = String> {
        let mut begun = false;
        (0..databases.len()).map(move |index| {
            let database = &databases[index];
            let DatabaseId { namespace, service } = &database.id;
            // Names are DNS labels, addresses IPs, and all other values words of ours: nothing in them needs escaping.
            let labels = format!("namespace=\"{namespace}\",service=\"{service}\"");
            let mut samples = Samples { family: self.name, labels, text: String::new() };
            if !begun {
                samples.begin(self.kind, self.help);
            }
            let head = samples.text.len();
            match self.share {
                Share::Checked(write) => write(database, &mut samples),
                Share::Published(write) => {
                    if let Some(publication) = publication(&database.id) {
                        write(&publication, &mut samples);
                    }
                }
            }
            if samples.text.len() == head {
                return String::new();
            }
            begun = true;
            samples.text
        })
    }
}

/// Lines of one metric.
struct Samples {
    family: &'static str,
    /// Those that all lines have.
    labels: String,
    text: String,
}

impl Samples {
    /// Says what the metric is.
    fn begin(&mut self, kind: &str, help: &str) {
        let Self { family, text, .. } = self;
        writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}").expect("a String takes all");
    }

    fn add(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let Self { family, labels: common, text } = self;
        for part in [*family, suffix, "{", common] {
            text.push_str(part);
        }
        for (name, value) in labels {
            let comma = if text.ends_with('{') { "" } else { "," };
            for part in [comma, name, "=\"", value, "\""] {
                text.push_str(part);
            }
        }
        // A line may have no labels.
        if text.ends_with('{') {
            text.pop();
        } else {
            text.push('}');
        }
        writeln!(text, " {value}").expect("a String takes all");
    }

    fn histogram(&mut self, histogram: &Histogram) {
        for (bound, up_to) in histogram.buckets() {
            self.add("_bucket", &[("le", &bound.as_secs_f64().to_string())], up_to);
        }
        self.add("_bucket", &[("le", "+Inf")], histogram.count());
        self.add("_sum", &[], histogram.sum().as_secs_f64());
        self.add("_count", &[], histogram.count());
    }
}

fn target_healthy(database: &DatabaseSnapshot, samples: &mut Samples) {
    for target in &database.targets {
        let state = target.health.state();
        if state != State::Unknown {
            samples.add("", &[("address", &target.member.ip.to_string())], u8::from(state == State::Up));
        }
    }
}

fn checks(database: &DatabaseSnapshot, samples: &mut Samples) {
    for target in &database.targets {
        let (address, counts) = (target.member.ip.to_string(), target.counts);
        for (result, count) in [("pass", counts.pass), ("fail", counts.fail), ("inconclusive", counts.inconclusive)] {
            samples.add("", &[("address", &address), ("result", result)], count);
        }
    }
}

fn transitions(database: &DatabaseSnapshot, samples: &mut Samples) {
    for target in &database.targets {
        let (address, counts) = (target.member.ip.to_string(), target.counts);
        for (to, count) in [(State::Up, counts.to_up), (State::Down, counts.to_down)] {
            samples.add("", &[("address", &address), ("to", to.as_str())], count);
        }
    }
}

fn published_addresses(publication: &Publication, samples: &mut Samples) {
    if let Some(members) = &publication.members {
        samples.add("", &[], members.len());
    }
}

fn database_condition(publication: &Publication, samples: &mut Samples) {
    // A series for each of the others would be a third of the page.
    samples.add("", &[("condition", &publication.condition.kind.to_string())], 1);
}

fn writes(publication: &Publication, samples: &mut Samples) {
    for (result, number) in &publication.writes {
        samples.add("", &[("result", result)], number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::health::{self, Health, Thresholds, Verdict};
    use crate::monitor::{Counts, TargetSnapshot};
    use crate::plan::{Member, MinHealthy, Note, Plan, Policy, Why};
    use crate::publish::{Condition, Kind};
    use prometheus::HistogramOpts;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn histogram(seen: &[u64]) -> Histogram {
        const BOUNDS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
        let mut histogram = Histogram::new(&BOUNDS);
        seen.iter().for_each(|ms| histogram.observe(Duration::from_millis(*ms)));
        histogram
    }

    fn target(last: u8, verdict: Option<Verdict>) -> TargetSnapshot {
        let mut health = Health::new(clock::now());
        let thresholds = Thresholds { healthy: 1, unhealthy: 1 };
        health::see(&mut health, false, thresholds, clock::now());
        let counts = Counts { pass: u64::from(verdict == Some(Verdict::Pass)), ..Counts::default() };
        if let Some(verdict) = verdict {
            health::observe(&mut health, &verdict, thresholds, clock::now());
        }
        let member = Member { ip: [198, 51, 100, last].into(), hostname: None };
        let (priority, maintenance, returned, flaps) = (0, None, None, None);
        TargetSnapshot { member, health, last: None, counts, priority, maintenance, returned, flaps }
    }

    fn database(service: &str, targets: Vec<TargetSnapshot>) -> DatabaseSnapshot {
        DatabaseSnapshot {
            id: DatabaseId { namespace: "prod".into(), service: service.into() },
            plan: Plan::Keep(Why::NoVerdictYet(Vec::new())),
            policy: Policy::default(),
            notes: Vec::new(),
            problems: Vec::new(),
            targets,
            refused: Vec::new(),
            check_duration: histogram(&[250, 750]),
        }
    }

    /// The lines that begin with this, of the page of two databases of which only the second has been written.
    fn lines(start: &str) -> Vec<String> {
        let databases = vec![database("a", vec![target(1, None)]), database("b", vec![target(2, Some(Verdict::Pass))])];
        lines_of(databases, start)
    }

    fn lines_of(databases: Vec<DatabaseSnapshot>, start: &str) -> Vec<String> {
        let publication = Publication {
            condition: Condition::new(Kind::Published, "198.51.100.2"),
            since: clock::now(),
            members: Some([Member { ip: [198, 51, 100, 2].into(), hostname: None }].into_iter().collect()),
            listed: true,
            writes: BTreeMap::from([("success", 2)]),
        };
        let written = DatabaseId { namespace: "prod".into(), service: "b".into() };
        let publication = move |id: &DatabaseId| (*id == written).then(|| publication.clone());
        let snapshot = Snapshot { databases, start_delay: histogram(&[]), started_late: 7, frozen: None };
        let standing = Standing { leads: true, config_is_good: true, leftovers: BTreeMap::new() };
        let opts = HistogramOpts::new("external_endpoints_write_duration_seconds", "How long calls took.");
        let writes = prometheus::Histogram::with_opts(opts).expect("a good name");
        let events = event::Counts::default();
        let page: String = page(snapshot, publication, &writes, &standing, &events).expect("a page").collect();
        assert!(page.ends_with('\n') && !page.contains("\n\n"), "{page}");
        page.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }

    #[test]
    fn a_metric_says_once_what_it_is_before_its_first_series() {
        let page = lines("");
        let about = |what: &str| page.iter().position(|line| line.starts_with(what));
        let name = "external_endpoints_target_healthy";
        let help = about(&format!("# HELP {name} Whether")).expect("a help");
        assert_eq!(about(&format!("# TYPE {name} gauge")), Some(help + 1));
        // The first database has no series of it.
        assert_eq!(page[help + 2], format!("{name}{{namespace=\"prod\",service=\"b\",address=\"198.51.100.2\"}} 1"));
        assert_eq!(lines(&format!("# HELP {name}")).len(), 1);
    }

    #[test]
    fn each_result_of_a_target_is_a_series() {
        let name = "external_endpoints_checks_total";
        let series = |service: &str, last: u8, result: &str, count: u64| {
            format!(
                "{name}{{namespace=\"prod\",service=\"{service}\",address=\"198.51.100.{last}\",result=\"{result}\"}} {count}"
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
        let expected = [
            "_bucket{namespace=\"prod\",service=\"a\",le=\"0.5\"} 1",
            "_bucket{namespace=\"prod\",service=\"a\",le=\"1\"} 2",
            "_bucket{namespace=\"prod\",service=\"a\",le=\"+Inf\"} 2",
            "_sum{namespace=\"prod\",service=\"a\"} 1",
            "_count{namespace=\"prod\",service=\"a\"} 2",
        ];
        assert_eq!(lines(name)[..5], expected.map(|line| format!("{name}{line}")));
    }

    #[test]
    fn a_policy_shows_where_there_is_one() {
        let plain = lines("external_endpoints_");
        for name in
            ["split_brain", "serving_tier", "failback_waiting", "unhealthy_kept", "target_in", "target_flapping"]
        {
            let start = format!("external_endpoints_{name}");
            assert!(!plain.iter().any(|line| line.starts_with(&start)), "{name}");
        }
        let mut tiers = database("b", vec![target(1, None), target(2, Some(Verdict::Pass))]);
        tiers.targets[0].maintenance = Some("disk".into());
        tiers.targets[1].priority = 3;
        tiers.policy = Policy { exactly_one: true, min_healthy: MinHealthy::Number(2), ..Policy::default() };
        tiers.plan = Plan::Publish([tiers.targets[1].member.clone()].into_iter().collect());
        let [first, second] = [0, 1].map(|index: usize| tiers.targets[index].member.ip);
        tiers.notes = vec![
            Note::BelowMinHealthy { healthy: 0, needed: 2, kept: vec![first, second] },
            Note::SplitBrain { passing: vec![first, second], published: None },
            Note::FailbackWaits { tier: 0, until: None },
        ];
        let of = |name: &str, labels: &str, value: u32| {
            format!("external_endpoints_{name}{{namespace=\"prod\",service=\"b\"{labels}}} {value}")
        };
        for line in [
            of("target_in_maintenance", ",address=\"198.51.100.1\"", 1),
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
            ["external_endpoints_database_condition{namespace=\"prod\",service=\"b\",condition=\"Published\"} 1"]
        );
    }

    #[test]
    fn what_belongs_to_no_database_is_there_too() {
        for name in [
            "external_endpoints_build_info{version=",
            "external_endpoints_config_last_load_successful 1",
            "external_endpoints_leader 1",
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
}
