//! The metrics page, in Prometheus' text format.
//!
//! Each scrape makes it anew from what the monitor and the publishers know at that moment, so no
//! series outlives its target. Only the durations of writes and the figures of the process come
//! from collectors of the `prometheus` crate.
//!
//! The page of ten thousand targets has many megabytes. It comes in chunks: the series of one
//! metric and one database after the other. So it is never in memory as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use crate::config::DatabaseId;
use crate::event;
use crate::monitor::Snapshot;
use crate::plan::Members;
use crate::publish::PublishStatus;
use crate::resolve;
use encoder::Encoder;
use families::{FAMILIES, Source};

mod encoder;
mod families;
mod names;
mod policy;

/// Bytes of the page that are made at once, at the least.
const CHUNK_BYTES: usize = 32 << 10;

/// The state of the daemon as a whole.
pub(crate) struct DaemonState {
    /// True if this replica is the one that writes.
    pub is_leader: bool,
    /// NAMESPACE/NAME of the Lease that the replicas compete for; none without leader election.
    pub lease: Option<String>,
    /// True if the config file was good when last read.
    pub config_is_good: bool,
    /// Lines of the log that were lost.
    pub log_lines_dropped: u64,
    /// The addresses in objects of databases that have left the config.
    pub orphans: BTreeMap<DatabaseId, Members>,
    /// The questions to DNS.
    pub dns: resolve::Counts,
}

/// Returns the page in chunks. Calls `status` for a database when its series are encoded.
pub(crate) fn page(
    snapshot: Arc<Snapshot>,
    status: impl Fn(&DatabaseId) -> Option<PublishStatus> + Send + 'static,
    write_duration: &prometheus::Histogram,
    state: &DaemonState,
    events: &event::Counts,
) -> impl Iterator<Item = String> + Send + 'static {
    let daemon = encode_daemon(&snapshot, write_duration, state, events);
    let count = snapshot.databases.len();
    let mut parts =
        FAMILIES.iter().flat_map(move |family| (0..count).map(move |index| (family, index)));
    let mut encoder = Encoder::default();
    let chunks = std::iter::from_fn(move || {
        encoder.reserve(CHUNK_BYTES + CHUNK_BYTES / 8);
        for (family, index) in parts.by_ref() {
            let database = &snapshot.databases[index];
            if index == 0 {
                encoder.begin_family(family.name, family.kind, family.help);
            }
            encoder.set_database(&database.id);
            match family.source {
                Source::Monitor(encode) => encode(database, &mut encoder),
                Source::Publisher(encode) => {
                    status(&database.id).iter().for_each(|status| encode(status, &mut encoder));
                }
            }
            if encoder.len() >= CHUNK_BYTES {
                break;
            }
        }
        Some(encoder.take_text()).filter(|text| !text.is_empty())
    });
    std::iter::once(daemon).chain(chunks)
}

/// Returns the metrics that belong to no database.
fn encode_daemon(
    snapshot: &Snapshot,
    write_duration: &prometheus::Histogram,
    state: &DaemonState,
    events: &event::Counts,
) -> String {
    let mut encoder = Encoder::default();
    encode_state(snapshot, state, &mut encoder);
    write_duration.collect().iter().for_each(|family| encoder.family(family));
    ProcessCollector::for_self().collect().iter().for_each(|family| encoder.family(family));
    let name = "external_endpoints_check_duration_seconds";
    encoder.begin_family(name, "histogram", "Durations of tries, by the kind of their check.");
    for (check, durations) in snapshot.check_durations.by_kind() {
        encoder.histogram(&[("check", check)], durations);
    }
    let name = "external_endpoints_check_start_delay_seconds";
    encoder.begin_family(name, "histogram", "Delays of the start of tries after they were due.");
    encoder.histogram(&[], &snapshot.start_delay);
    encode_orphans(&state.orphans, &mut encoder);
    encode_dns(&state.dns, &mut encoder);
    let name = "external_endpoints_events_total";
    encoder.begin_family(name, "counter", "Notices that were to become Events, by their outcome.");
    for (result, count) in events.by_result() {
        encoder.sample(&[("result", result)], count);
    }
    encoder.take_text()
}

/// Encodes the metrics that have one value each.
fn encode_state(snapshot: &Snapshot, state: &DaemonState, encoder: &mut Encoder) {
    let name = "external_endpoints_build_info";
    encoder.begin_family(name, "gauge", "The version that runs, as a label; always 1.");
    encoder.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    encoder.begin_family(
        "external_endpoints_config_last_load_successful",
        "gauge",
        "1 if the config file was good when last read, else 0.",
    );
    encoder.sample(&[], u8::from(state.config_is_good));
    encoder.begin_family(
        "external_endpoints_leader",
        "gauge",
        "1 if this replica is the one that writes, by its lease or because it is alone; else 0.",
    );
    let lease = state.lease.as_deref().map(|lease| ("lease", lease));
    encoder.sample(lease.as_slice(), u8::from(state.is_leader));
    encoder.begin_family(
        "external_endpoints_frozen",
        "gauge",
        "1 if nothing is taken out because so many targets fail together that the fault is \
         probably the daemon's own, else 0.",
    );
    encoder.sample(&[], u8::from(snapshot.frozen.is_some()));
    encoder.begin_family(
        "external_endpoints_checks_late_total",
        "counter",
        "Tries that started more than half an interval after they were due, or have waited for as \
         long.",
    );
    encoder.sample(&[], snapshot.started_late);
    encoder.begin_family(
        "external_endpoints_log_lines_dropped_total",
        "counter",
        "Lines of the log that were lost, because its reader was too slow or it could not be \
         written.",
    );
    encoder.sample(&[], state.log_lines_dropped);
}

/// Encodes the addresses that are left behind by databases that have left the config.
fn encode_orphans(orphans: &BTreeMap<DatabaseId, Members>, encoder: &mut Encoder) {
    encoder.begin_family(
        "external_endpoints_left_behind_addresses",
        "gauge",
        "Addresses in Endpoints and EndpointSlices that have the daemon's label and belong to no \
         database of the config.",
    );
    for (DatabaseId { namespace, service }, members) in orphans {
        encoder.sample(&[("namespace", namespace), ("service", service)], members.len());
    }
}

/// Encodes the numbers of questions to DNS.
fn encode_dns(counts: &resolve::Counts, encoder: &mut Encoder) {
    let name = "external_endpoints_dns_lookups_total";
    encoder.begin_family(name, "counter", "Questions to DNS, by their result.");
    for (result, count) in counts.by_result() {
        encoder.sample(&[("result", result)], count);
    }
    counts.duration().collect().iter().for_each(|family| encoder.family(family));
    encoder.begin_family(
        "external_endpoints_dns_unrelated_replies_total",
        "counter",
        "Messages of DNS servers that were passed over, because they do not fit the question.",
    );
    encoder.sample(&[], counts.unrelated());
    encoder.begin_family(
        "external_endpoints_names_late_total",
        "counter",
        "Lookups that began more than a second, and more than a tenth of their wait, after they \
         were due.",
    );
    encoder.sample(&[], counts.late());
}

#[cfg(test)]
mod tests;
