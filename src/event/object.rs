//! The Event objects that the writer sends to the API and finds in it, and the objects that they
//! regard.
//!
//! Events are written by the core API. That of `events.k8s.io` refuses a new note, and the time by
//! which `kubectl describe` sorts.

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::{Event, EventSeries, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::aggregator::{EventKey, Pending, Recorded};
use crate::api::Call;
use crate::clock;
use crate::config::DatabaseId;
use crate::notice::{Reason, Regarding};

/// The `reportingComponent` of all Events.
pub(super) const REPORTING_COMPONENT: &str = "external-endpoints";

/// The annotation with the key that tells happenings of the same object and reason apart.
const KEY_ANNOTATION: &str = "external-endpoints/event-key";

/// The length in bytes to which the API limits a note.
const MAX_NOTE_BYTES: usize = 1024;

/// The length in bytes to which the API limits the name of a reporting instance.
const MAX_INSTANCE_BYTES: usize = 128;

/// The time by which the clock of another replica may be ahead.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The object that an Event regards.
#[derive(Debug, Clone)]
pub(super) struct RegardingObject {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
}

impl RegardingObject {
    /// Describes a call for an Event on the object.
    pub(super) fn event_call(&self, verb: &'static str) -> Call<'_> {
        Call { verb, plural: "events", namespace: &self.namespace, name: None }
    }

    fn reference(&self, uid: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version.into()),
            kind: Some(self.kind.into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        }
    }
}

/// Returns the name of a new Event on an object, as client-go forms it.
pub(super) fn event_name(object: &RegardingObject) -> String {
    format!("{}.{:x}", object.name, timestamp(wall_clock(clock::now())).as_nanosecond())
}

/// Builds a new Event of this name on the object with this UID.
pub(super) fn event(
    name: String,
    pending: &Pending,
    object: &RegardingObject,
    uid: &str,
    instance: &str,
) -> Event {
    let Pending { key, notice, count, .. } = pending;
    let at = timestamp(shown_at(pending));
    let annotation = (KEY_ANNOTATION.to_owned(), key.dedup_key.clone());
    Event {
        metadata: ObjectMeta {
            namespace: Some(object.namespace.clone()),
            name: Some(name),
            annotations: (!key.dedup_key.is_empty()).then(|| [annotation].into()),
            ..ObjectMeta::default()
        },
        involved_object: object.reference(uid),
        type_: Some(notice.severity.event_type().to_string()),
        reason: Some(notice.reason.to_string()),
        action: Some(notice.reason.action().into()),
        message: Some(stored_note(&notice.note)),
        event_time: Some(MicroTime(at)),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        count: Some(api_count(*count)),
        series: (*count > 1).then(|| EventSeries {
            count: Some(api_count(*count)),
            last_observed_time: Some(MicroTime(at)),
        }),
        source: Some(EventSource { component: Some(REPORTING_COMPONENT.into()), host: None }),
        reporting_component: Some(REPORTING_COMPONENT.into()),
        reporting_instance: Some(truncate(instance, MAX_INSTANCE_BYTES)),
        ..Event::default()
    }
}

/// Builds the patch that writes notices in an Event that exists. It fails if another writer has
/// changed the Event since.
pub(super) fn patch(pending: &Pending, existing: &Recorded, instance: &str) -> Value {
    let at = timestamp(shown_at(pending));
    let count = api_count(existing.count.saturating_add(pending.count));
    let mut patch = json!({
        "message": stored_note(&pending.notice.note),
        "type": pending.notice.severity.event_type().to_string(),
        "count": count,
        "lastTimestamp": Time(at),
        "series": EventSeries { count: Some(count), last_observed_time: Some(MicroTime(at)) },
        "reportingInstance": truncate(instance, MAX_INSTANCE_BYTES),
    });
    if let Some(version) = &existing.resource_version {
        patch["metadata"] = json!({"resourceVersion": version});
    }
    patch
}

/// Returns the record of an Event as the API has stored it.
pub(super) fn recorded(event: &Event) -> Recorded {
    let series = event.series.as_ref();
    let count = series.and_then(|series| series.count).or(event.count).unwrap_or(1);
    Recorded {
        name: event.name_any(),
        uid: event.involved_object.uid.clone().unwrap_or_default(),
        resource_version: event.resource_version(),
        count: count.try_into().unwrap_or(1),
        note: event.message.clone().unwrap_or_default(),
        shown_at: last_time(event),
    }
}

/// Returns the key of an Event that was found, if a daemon like this one has written it.
pub(super) fn key(event: &Event) -> Option<EventKey> {
    if event.reporting_component.as_deref() != Some(REPORTING_COMPONENT) {
        return None;
    }
    let reason = event.reason.as_deref()?;
    let reason = Reason::ALL.iter().find(|known| known.as_str() == reason)?;
    let object = &event.involved_object;
    let regarding = match object.kind.as_deref()? {
        "Service" => Regarding::Database(DatabaseId {
            namespace: object.namespace.clone()?,
            service: object.name.clone()?,
        }),
        "Lease" => Regarding::Daemon,
        _ => return None,
    };
    let dedup_key = event.annotations().get(KEY_ANNOTATION).cloned().unwrap_or_default();
    Some(EventKey { regarding, reason: *reason, dedup_key })
}

/// Returns the note as the API stores it.
pub(super) fn stored_note(note: &str) -> String {
    truncate(note, MAX_NOTE_BYTES)
}

/// Returns the time that an Event shows: when it happened, and in any case after the newest Event
/// of its topic, which may have been written by a clock that is ahead. A clock that is too far
/// ahead is wrong, and not followed.
fn shown_at(pending: &Pending) -> SystemTime {
    let happened = wall_clock(pending.notice.at);
    let after = pending.newest.map(|newest| newest + Duration::from_millis(1));
    after.filter(|after| *after < happened + MAX_CLOCK_SKEW).unwrap_or(happened).max(happened)
}

fn last_time(event: &Event) -> SystemTime {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let micro = series.or(event.event_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    micro.into_iter().chain(last).max().unwrap_or(Timestamp::UNIX_EPOCH).into()
}

fn wall_clock(at: Instant) -> SystemTime {
    clock::to_wall_clock(at)
}

fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn api_count(count: u32) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

/// Truncates a text to this many bytes. An ellipsis at its end shows that it was truncated.
fn truncate(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_truncated_between_characters() {
        assert_eq!(truncate("short", 8), "short");
        assert_eq!(truncate("ééééé", 8), "éé…");
        let long = truncate(&"é".repeat(2000), MAX_NOTE_BYTES);
        let range = MAX_NOTE_BYTES - 3..=MAX_NOTE_BYTES;
        assert!(range.contains(&long.len()) && long.ends_with('…'));
    }
}
