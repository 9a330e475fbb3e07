//! The Event objects that the writer sends to the API, and the objects that they regard.

use std::time::Instant;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::aggregator::Pending;
use crate::api::Call;
use crate::clock;

/// The `reportingController` of all Events.
pub(super) const REPORTING_CONTROLLER: &str = "external-endpoints";

/// The length in bytes to which the API limits a note.
const MAX_NOTE_BYTES: usize = 1024;

/// The length in bytes to which the API limits the name of a reporting instance.
const MAX_INSTANCE_BYTES: usize = 128;

/// The object that an Event regards.
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

/// Builds a new Event on the object with this UID.
pub(super) fn event(
    pending: &Pending,
    object: &RegardingObject,
    uid: &str,
    instance: &str,
) -> Event {
    let Pending { notice, count, .. } = pending;
    Event {
        // Event names are formed as in client-go.
        metadata: ObjectMeta {
            namespace: Some(object.namespace.clone()),
            name: Some(format!("{}.{:x}", object.name, timestamp(clock::now()).as_nanosecond())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(timestamp(notice.at))),
        regarding: Some(object.reference(uid)),
        type_: Some(notice.severity.event_type().to_string()),
        reason: Some(notice.reason.to_string()),
        action: Some(notice.reason.action().into()),
        note: Some(truncate(&notice.note, MAX_NOTE_BYTES)),
        series: (*count > 1).then(|| series(*count, notice.at)),
        reporting_controller: Some(REPORTING_CONTROLLER.into()),
        reporting_instance: Some(truncate(instance, MAX_INSTANCE_BYTES)),
        ..Event::default()
    }
}

/// Builds the series of an Event that has happened `count` times, the last time at `at`.
pub(super) fn series(count: u32, at: Instant) -> EventSeries {
    EventSeries {
        count: count.try_into().unwrap_or(i32::MAX),
        last_observed_time: MicroTime(timestamp(at)),
    }
}

fn timestamp(at: Instant) -> Timestamp {
    Timestamp::try_from(clock::to_wall_clock(at)).unwrap_or(Timestamp::UNIX_EPOCH)
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
