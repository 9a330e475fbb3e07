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
use crate::monitor::{DatabaseSnapshot, DurationHistogram, Snapshot};
use crate::plan::Members;
use crate::publish::PublishStatus;

mod policy;

/// How much of the page is made at once.
const PIECE: usize = 32 << 10;

/// The page in Prometheus' text format, in pieces. Asks `publication` for each as it comes to it.
pub(crate) fn page(
    snapshot: Arc<Snapshot>,
    publication: impl Fn(&DatabaseId) -> Option<PublishStatus> + Send + 'static,
    write_duration: &prometheus::Histogram,
    standing: &Standing,
    events: &event::Counts,
) -> prometheus::Result<impl Iterator<Item = String> + Send + 'static> {
    let daemon = daemon(&snapshot, write_duration, standing, events)?;
    let count = snapshot.databases.len();
    let mut shares =
        FAMILIES.iter().flat_map(move |family| (0..count).map(move |index| (family, index)));
    let mut samples = Samples::default();
    let pieces = std::iter::from_fn(move || {
        samples.text.reserve(PIECE + PIECE / 8);
        for (family, index) in shares.by_ref() {
            if index == 0 {
                samples.family = family.name;
                samples.head = Some((family.kind, family.help));
            }
            samples.share(&family.share, &snapshot.databases[index], &publication);
            if samples.text.len() >= PIECE {
                break;
            }
        }
        Some(std::mem::take(&mut samples.text)).filter(|text| !text.is_empty())
    });
    Ok(std::iter::once(daemon).chain(pieces))
}

/// What is known of the daemon as a whole.
pub(crate) struct Standing {
    /// Whether this replica is the one that writes.
    pub leads: bool,
    /// Whether the config file was good when last read.
    pub config_is_good: bool,
    /// How many lines of the log were lost.
    pub log_lines_dropped: u64,
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
    let build =
        Opts::new("external_endpoints_build_info", "The version that runs, as a label; always 1.");
    let build = IntGaugeVec::new(build, &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let load = IntGauge::new(
        "external_endpoints_config_last_load_successful",
        "Whether the config file was good when last read (1) or not (0).",
    )?;
    load.set(i64::from(standing.config_is_good));
    let late = IntCounter::new(
        "external_endpoints_checks_late_total",
        "Tries that started more than half an interval after they were due, or have waited for as long.",
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
    let lost = IntCounter::new(
        "external_endpoints_log_lines_dropped_total",
        "Lines of the log that were lost, because its reader was too slow or it could not be written.",
    )?;
    lost.inc_by(standing.log_lines_dropped);
    let own = [
        build.collect(),
        load.collect(),
        leader.collect(),
        frozen.collect(),
        late.collect(),
        lost.collect(),
    ];
    let mut families = [own.concat(), write_duration.collect()].concat();
    families.extend(ProcessCollector::for_self().collect());
    // A family without a series is refused by the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    let text = TextEncoder::new().encode_to_string(&families)?;
    let name = "external_endpoints_check_start_delay_seconds";
    let mut samples = Samples { family: name, text, ..Samples::default() };
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
    Published(fn(&PublishStatus, &mut Samples)),
}

const FAMILIES: [Family; 16] = [
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
        name: "external_endpoints_target_inconclusive",
        kind: "gauge",
        help: "1 for a published target whose checks have been inconclusive for more than a minute; absent for others.",
        share: Share::Checked(policy::inconclusive),
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

/// Lines of one metric.
#[derive(Default)]
struct Samples {
    family: &'static str,
    /// The metric's kind and what it is, until its first line is there: one without lines is left out.
    head: Option<(&'static str, &'static str)>,
    /// Those that all lines have.
    labels: String,
    text: String,
}

impl Samples {
    /// Adds a database's share of the metric.
    fn share(
        &mut self,
        share: &Share,
        database: &DatabaseSnapshot,
        publication: &impl Fn(&DatabaseId) -> Option<PublishStatus>,
    ) {
        let DatabaseId { namespace, service } = &database.id;
        self.labels.clear();
        // Names are DNS labels, addresses IPs, and all other values words of ours: nothing in them needs escaping.
        for part in ["namespace=\"", namespace, "\",service=\"", service, "\""] {
            self.labels.push_str(part);
        }
        match share {
            Share::Checked(write) => write(database, self),
            Share::Published(write) => {
                if let Some(publication) = publication(&database.id) {
                    write(&publication, self);
                }
            }
        }
    }

    /// Says what the metric is.
    fn begin(&mut self, kind: &str, help: &str) {
        let Self { family, text, .. } = self;
        writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}")
            .expect("a String takes all");
    }

    fn add(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        if let Some((kind, help)) = self.head.take() {
            self.begin(kind, help);
        }
        let Self { family, labels: common, text, .. } = self;
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

    fn histogram(&mut self, histogram: &DurationHistogram) {
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
            samples.add(
                "",
                &[("address", &target.member.ip.to_string())],
                u8::from(state == State::Up),
            );
        }
    }
}

fn checks(database: &DatabaseSnapshot, samples: &mut Samples) {
    for target in &database.targets {
        let (address, counts) = (target.member.ip.to_string(), target.counts);
        for (result, count) in
            [("pass", counts.pass), ("fail", counts.fail), ("inconclusive", counts.inconclusive)]
        {
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

fn published_addresses(publication: &PublishStatus, samples: &mut Samples) {
    if let Some(members) = &publication.members {
        samples.add("", &[], members.len());
    }
}

fn database_condition(publication: &PublishStatus, samples: &mut Samples) {
    // A series for each of the others would be a third of the page.
    samples.add("", &[("condition", &publication.condition.kind.to_string())], 1);
}

fn writes(publication: &PublishStatus, samples: &mut Samples) {
    for (result, number) in &publication.writes {
        samples.add("", &[("result", result)], number);
    }
}

#[cfg(test)]
mod tests;
