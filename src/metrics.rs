//! The metrics page: everything but the process's own figures is made at each scrape from what the monitor and the
//! publishers know then, so no series outlives its target.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

use crate::config::DatabaseId;
use crate::health::State;
use crate::monitor::{DatabaseSnapshot, Histogram, Snapshot, TargetSnapshot};
use crate::publish::{Kind, Publication};

const DATABASE: [&str; 2] = ["namespace", "service"];

/// The page in Prometheus' text format.
pub fn page(
    snapshot: &Snapshot,
    publications: &BTreeMap<DatabaseId, Publication>,
    write_duration: &prometheus::Histogram,
) -> prometheus::Result<String> {
    let mut families = daemon()?;
    families.extend(targets(snapshot)?);
    families.extend(databases(snapshot, publications)?);
    families.push(histograms(
        "external_endpoints_check_start_delay_seconds",
        "How late tries started, after they were due.",
        [histogram(&snapshot.start_delay)],
    ));
    families.extend(write_duration.collect());
    families.extend(ProcessCollector::for_self().collect());
    // A family without a series is refused by the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(format!("external_endpoints_{name}"), help), labels)
}

fn counter(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(format!("external_endpoints_{name}"), help), labels)
}

fn daemon() -> prometheus::Result<Vec<MetricFamily>> {
    let build = gauge("build_info", "The version that runs, as a label; always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let load =
        gauge("config_last_load_successful", "Whether the config file was good when last read (1) or not (0).", &[])?;
    // A daemon whose config was not good has not started.
    load.with_label_values::<&str>(&[]).set(1);
    Ok(build.collect().into_iter().chain(load.collect()).collect())
}

fn each_target(snapshot: &Snapshot) -> impl Iterator<Item = ([&str; 2], String, &TargetSnapshot)> {
    snapshot.databases.iter().flat_map(|database| {
        let id = [database.id.namespace.as_str(), database.id.service.as_str()];
        database.targets.iter().map(move |target| (id, target.member.ip.to_string(), target))
    })
}

fn targets(snapshot: &Snapshot) -> prometheus::Result<Vec<MetricFamily>> {
    let labels = ["namespace", "service", "address"];
    let healthy = gauge("target_healthy", "Whether the target is up (1) or down (0); absent while unknown.", &labels)?;
    let labels = ["namespace", "service", "address", "result"];
    let checks = counter("checks_total", "Tries of a target's check, by their verdict.", &labels)?;
    let labels = ["namespace", "service", "address", "to"];
    let transitions = counter("transitions_total", "Flips of a target's health, by the state it came to.", &labels)?;
    for ([namespace, service], address, target) in each_target(snapshot) {
        match target.health.state() {
            State::Unknown => {}
            state => healthy.with_label_values(&[namespace, service, &address]).set((state == State::Up).into()),
        }
        let counts = target.counts;
        for (result, count) in [("pass", counts.pass), ("fail", counts.fail), ("inconclusive", counts.inconclusive)] {
            checks.with_label_values(&[namespace, service, &address, result]).inc_by(count);
        }
        for (to, count) in [(State::Up, counts.to_up), (State::Down, counts.to_down)] {
            transitions.with_label_values(&[namespace, service, &address, to.as_str()]).inc_by(count);
        }
    }
    Ok([healthy.collect(), checks.collect(), transitions.collect()].concat())
}

fn databases(
    snapshot: &Snapshot,
    publications: &BTreeMap<DatabaseId, Publication>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let configured = gauge("configured_addresses", "Addresses that the config lists.", &DATABASE)?;
    let published =
        gauge("published_addresses", "Addresses that the cluster holds; absent while that is unknown.", &DATABASE)?;
    let labels = ["namespace", "service", "condition"];
    let conditions = gauge("database_condition", "The condition in force has the value 1, all others 0.", &labels)?;
    let labels = ["namespace", "service", "result"];
    let writes = counter("writes_total", "API calls that write, by their result.", &labels)?;
    for database in &snapshot.databases {
        let id = [database.id.namespace.as_str(), database.id.service.as_str()];
        configured.with_label_values(&id).set(count(database.targets.len()));
        let Some(publication) = publications.get(&database.id) else { continue };
        if let Some(members) = &publication.members {
            published.with_label_values(&id).set(count(members.len()));
        }
        for kind in Kind::ALL {
            let in_force = kind == publication.condition.kind;
            conditions.with_label_values(&[id[0], id[1], &kind.to_string()]).set(in_force.into());
        }
        for (result, number) in &publication.writes {
            writes.with_label_values(&[id[0], id[1], result]).inc_by(*number);
        }
    }
    let gauges = [configured.collect(), published.collect(), conditions.collect(), writes.collect()];
    Ok(gauges.into_iter().flatten().chain([check_duration(snapshot)]).collect())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn check_duration(snapshot: &Snapshot) -> MetricFamily {
    let metrics = snapshot.databases.iter().map(|DatabaseSnapshot { id, check_duration, .. }| {
        let mut metric = histogram(check_duration);
        metric.set_label(vec![label("namespace", &id.namespace), label("service", &id.service)]);
        metric
    });
    histograms("external_endpoints_check_duration_seconds", "How long tries took.", metrics)
}

fn histograms(name: &str, help: &str, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics.into_iter().collect());
    family
}

fn histogram(from: &Histogram) -> Metric {
    let bucket = |(bound, up_to): (Duration, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(up_to);
        bucket
    };
    let mut histogram = prometheus::proto::Histogram::default();
    histogram.set_bucket(from.buckets().map(bucket).collect());
    histogram.set_sample_count(from.count());
    histogram.set_sample_sum(from.sum().as_secs_f64());
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
