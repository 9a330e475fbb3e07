//! The annotations of a Service that people set for this daemon: their names, their grammar, and
//! the problems in them. Pure.
//!
//! | annotation | value | effect |
//! | --- | --- | --- |
//! | `external-endpoints/maintenance` | `10.20.0.11=disk; until=TIME` | takes it out, until then |
//! | `external-endpoints/failback` | any text, best a time | a change asks for a failback |
//!
//! A bad entry is reported and skipped. It never spoils the other entries.

use std::collections::BTreeMap;

pub(crate) use edit::{entries, remove_entry, set_entry};
pub(crate) use maintenance::{
    MAX_REASON_CHARS, Maintenance, MaintenanceAnnotation, MaintenanceEntry, MaintenanceSource,
    parse_maintenance, parse_time,
};
pub(crate) use subject::Subject;

mod edit;
mod maintenance;
mod subject;

/// The name of the annotation that puts single addresses in maintenance.
pub(crate) const MAINTENANCE: &str = "external-endpoints/maintenance";

/// The name of the annotation that asks for a failback.
pub(crate) const FAILBACK: &str = "external-endpoints/failback";

/// Bytes of an annotation that are read. Kubernetes allows 256 kB for all annotations of an object.
const MAX_BYTES: usize = 8 * 1024;

/// The values of a Service's annotations for this daemon, not parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceAnnotations {
    /// `10.20.0.11=disk swap, 10.20.0.12=kernel`
    pub maintenance: Option<String>,
    /// Any text. A change asks for a failback.
    pub failback: Option<String>,
}

impl ServiceAnnotations {
    /// Returns the values among all annotations of a Service.
    pub(crate) fn from_map(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let value = |name: &str| annotations?.get(name).cloned();
        Self { maintenance: value(MAINTENANCE), failback: value(FAILBACK) }
    }
}

/// Drops all annotations but those for this daemon, and truncates these to what is read of them.
pub(crate) fn strip(annotations: &mut BTreeMap<String, String>) {
    annotations.retain(|name, _| name == MAINTENANCE || name == FAILBACK);
    annotations.values_mut().for_each(truncate);
}

/// Truncates a value that is too long, so that nothing keeps more of it than is read. One character
/// stays beyond the limit: by it `parse_maintenance` and `failback_problem` recognise a value that
/// was too long.
fn truncate(value: &mut String) {
    let end = (MAX_BYTES + 1..value.len()).find(|at| value.is_char_boundary(*at));
    if let Some(end) = end {
        value.truncate(end);
        value.shrink_to_fit();
    }
}

/// Returns what is wrong with the annotation that asks for a failback, as a sentence for people.
pub(crate) fn failback_problem(value: Option<&str>) -> Option<String> {
    let problem = "it is over 8 kB, and only its first 8 kB are read; write a time into it";
    value.filter(|value| value.len() > MAX_BYTES).map(|_| describe(FAILBACK, problem))
}

/// Returns the sentence that names the annotation and its problem.
fn describe(name: &str, problem: &str) -> String {
    format!("annotation {name}: {problem}")
}

#[cfg(test)]
mod tests;
