//! The reports of one database: its condition, and the log lines and Events about it.

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::clock;
use crate::config::{Database, DatabaseId, RejectedAddress};
use crate::endpoints;
use crate::notice::{LogLine, Notice, Reason, Recorder, Regarding};
use crate::plan::{Members, Plan};
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::decide::step::Step;
use crate::publish::status::{LastWrite, PublishStatus};

/// The message for a database whose decision is not in the cluster.
const NOT_PUBLISHED: &str = "not published";

/// The reporter of one database.
pub(crate) struct Reporter {
    pub id: DatabaseId,
    pub status: watch::Sender<PublishStatus>,
    pub recorder: Recorder,
}

/// The origin of a difference that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A new plan.
    Plan,
    /// A change that someone else made; with the field manager of the writer, if it is known.
    OutsideChange(Option<String>),
}

/// A write that the API has taken.
pub(crate) struct Write<'a> {
    /// The name of the EndpointSlice; none for Endpoints.
    pub slice: Option<&'a str>,
    /// The members that the object had before.
    pub existing: &'a Members,
    /// The members that the object has now.
    pub members: &'a Members,
    /// The members that all objects of the database have now.
    pub serving: &'a Members,
}

/// The part of a condition that differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConditionChange {
    Kind,
    /// Only the message, or only the members.
    Message,
}

impl Reporter {
    /// Sets the condition, and the members that the cluster has. Announces a change of it.
    pub(crate) fn set_condition(&self, members: Option<Members>, condition: Condition) {
        self.status.send_if_modified(|status| {
            let change = match status.condition.kind == condition.kind {
                true => ConditionChange::Message,
                false => ConditionChange::Kind,
            };
            let same_members = status.members == members;
            if status.condition == condition && same_members {
                return false;
            }
            if change == ConditionChange::Kind {
                status.last_transition = clock::now();
            }
            if change == ConditionChange::Kind || status.condition.reason != condition.reason {
                self.announce(&condition, change);
            }
            status.condition = condition;
            status.members = members;
            true
        });
    }

    /// Records a write of members, of this object and with the version that it got.
    pub(crate) fn record_write(&self, object: String, resource_version: String) {
        let last_write = LastWrite { object, resource_version, at: clock::now() };
        self.status.send_modify(|status| status.last_write = Some(last_write));
    }

    /// Records that the objects of the database have been listed, and emits what had to wait for
    /// that: an Event for each address that may not be published. The log has had them with the
    /// warnings of the config.
    pub(crate) fn set_synced(&self, database: &Database) {
        let is_first =
            self.status.send_if_modified(|status| !std::mem::replace(&mut status.synced, true));
        for RejectedAddress { ip, reason } in database.rejected.iter().filter(|_| is_first) {
            self.recorder.event(|| {
                let note = format!("{NOT_PUBLISHED}: {reason}");
                self.notice(Reason::AddressRefused, note).with_dedup_key(ip.to_string())
            });
        }
    }

    /// Counts a call that writes, by its result.
    pub(crate) fn count_write(&self, result: &'static str) {
        self.status.send_modify(|status| *status.writes.entry(result).or_default() += 1);
    }

    /// Announces that an object was written. People must be able to find out where an edit by hand
    /// has gone.
    pub(crate) fn announce_write(&self, cause: &Cause, write: &Write<'_>) {
        let Write { slice, existing, members, serving } = write;
        let changes = members.changes_from(existing);
        let changed = match slice {
            Some(slice) => format!("EndpointSlice {slice}: {changes}"),
            None => changes.clone(),
        };
        let (reason, message, note) = match (cause, slice) {
            (Cause::OutsideChange(writer), slice) => {
                let by = writer.as_ref().map(|writer| format!(" by {writer}")).unwrap_or_default();
                let message = match slice {
                    Some(_) => "an outside change of an EndpointSlice was repaired",
                    None => "an outside change of the Endpoints was repaired",
                };
                let note = format!("an outside change{by} was repaired: {serving} ({changed})");
                (Reason::Repaired, message, note)
            }
            (Cause::Plan, Some(_)) => {
                (Reason::Published, "EndpointSlice written", format!("{serving} ({changed})"))
            }
            (Cause::Plan, None) => {
                (Reason::Published, "Endpoints written", format!("{serving} ({changed})"))
            }
        };
        let manager = match cause {
            Cause::OutsideChange(writer) => writer.as_deref(),
            Cause::Plan => None,
        };
        self.recorder.log_and_event(
            self.notice(reason, note),
            &LogLine {
                slice: *slice,
                // The members of one slice say little.
                members: slice.is_none().then_some(*members),
                changes: Some(&changes),
                manager,
                ..LogLine::new(message)
            },
        );
    }

    /// Logs which tool keeps making outside changes.
    pub(crate) fn log_repeated_repairs(&self, writer: &str) {
        let DatabaseId { namespace, service } = &self.id;
        warn!(
            %namespace, %service, writer,
            "the same writer has changed what is published three times in a row, and it was \
             repaired each time; stop the writer"
        );
    }

    /// Announces that no traffic policy of the Service keeps clients out any more.
    pub(crate) fn announce_end_of_local_traffic(&self, serving: &Members) {
        let note =
            format!("{serving} (the traffic policy of the Service lets all clients through)");
        self.recorder.log_and_event(self.notice(Reason::Published, note), &LogLine::default());
    }

    /// Announces that a traffic policy of the Service keeps clients out.
    pub(crate) fn announce_local_traffic(&self, warning: &str) {
        let message = "published, but clients are kept out";
        self.recorder.log_and_event(
            self.notice(Reason::LocalTrafficPolicy, warning.to_owned()),
            &LogLine { reason: Some(warning), ..LogLine::new(message) },
        );
    }

    /// Logs that a slice was deleted.
    pub(crate) fn log_slice_deleted(&self, slice: &str) {
        let DatabaseId { namespace, service } = &self.id;
        info!(%namespace, %service, slice, "EndpointSlice deleted");
    }

    /// Logs that the Service was created.
    pub(crate) fn log_service_created(&self) {
        let DatabaseId { namespace, service } = &self.id;
        info!(%namespace, %service, "Service created");
    }

    /// Logs that someone keeps undoing the writes.
    pub(crate) fn log_contended(&self) {
        let DatabaseId { namespace, service } = &self.id;
        warn!(
            %namespace, %service,
            "someone keeps changing these Endpoints; they are repaired, but ever more slowly"
        );
    }

    /// Logs a condition that has come into force or changed its message, and emits its Event, if it
    /// has one.
    fn announce(&self, condition: &Condition, change: ConditionChange) {
        let Some(reason) = condition.kind.event_reason() else {
            return self.log(condition, change);
        };
        let message = match is_published_elsewhere(condition) {
            true => "published, but clients may be sent elsewhere",
            false => NOT_PUBLISHED,
        };
        let note = condition_note(condition);
        let line = LogLine {
            condition: Some(reason),
            reason: Some(&condition.reason),
            ..LogLine::new(message)
        };
        self.recorder.log_and_event(self.notice(reason, note), &line);
    }

    /// Logs a condition that has no Event.
    fn log(&self, condition: &Condition, change: ConditionChange) {
        let DatabaseId { namespace, service } = &self.id;
        let Condition { kind, reason } = condition;
        match kind {
            // The messages of these change with every verdict, attempt or write. Only a change of
            // the kind is worth a line.
            ConditionKind::WaitingForVerdicts
            | ConditionKind::ApiUnavailable
            | ConditionKind::Published
                if change == ConditionChange::Message =>
            {
                debug!(%namespace, %service, condition = %kind, reason)
            }
            // The lease logs once that another replica holds it.
            ConditionKind::Standby => debug!(%namespace, %service, condition = %kind, reason),
            ConditionKind::Published => info!(%namespace, %service, members = reason, "published"),
            ConditionKind::DryRun => info!(%namespace, %service, "{reason}"),
            kind if kind.is_trouble() => {
                warn!(%namespace, %service, condition = %kind, reason, "{NOT_PUBLISHED}")
            }
            kind => info!(%namespace, %service, condition = %kind, reason, "not published yet"),
        }
    }

    fn notice(&self, reason: Reason, note: String) -> Notice {
        Notice::new(Regarding::Database(self.id.clone()), reason, note, clock::now())
    }
}

/// Returns the note of the Event of a condition.
pub(crate) fn condition_note(condition: &Condition) -> String {
    match is_published_elsewhere(condition) {
        true => condition.reason.clone(),
        false => format!("{NOT_PUBLISHED}: {}", condition.reason),
    }
}

/// Returns whether the plan is in the cluster, beside something else that clients are sent to.
fn is_published_elsewhere(condition: &Condition) -> bool {
    matches!(condition.kind, ConditionKind::NotMirrored | ConditionKind::SlicesLeftBehind)
}

/// Describes the write that another replica is about to make, or that a dry run leaves out:
/// `would publish 10.0.0.1, 10.0.0.3 (+10.0.0.3, -10.0.0.2)`.
pub(crate) fn describe_write(serving: &Members, plan: &Plan, step: &Step) -> String {
    let members = match (plan, step) {
        (Plan::Publish(members), _) => members.clone(),
        (Plan::Keep(_), Step::Write(endpoints)) => endpoints::members(endpoints),
        (Plan::Keep(_), Step::InSync | Step::Blocked(_)) => {
            return "would publish nothing yet".to_owned();
        }
        (Plan::Keep(_), _) => {
            return "would remove the addresses that the config does not have".to_owned();
        }
    };
    match members.changes_from(serving).as_str() {
        "" => format!("would publish {members} (same addresses, other ports or labels)"),
        changes => format!("would publish {members} ({changes})"),
    }
}
