//! The statements of Events beside the state of the daemon: finds those that are no longer so, and
//! says what is. Pure.
//!
//! | topic   | is true if it has                                       | is corrected        |
//! | ---     | ---                                                     | ---                 |
//! | members | reason and note of the condition, where this has an     | always              |
//! |         | Event, else the members that the cluster has            |                     |
//! | health  | the state of the target                                 | after a takeover    |
//! | mainte- | the maintenance of the target, or none                  | after a takeover    |
//! | nance   |                                                         |                     |
//! | checks  | the conclusiveness of the checks                        | after a takeover    |
//! | role    | the lack of a role that the checks ask for, or its end  | after a takeover    |
//! | name    | the result of the newest lookup                         | after a takeover    |
//! | freeze  | the freeze, or its end                                  | after a takeover    |
//!
//! A notice that is lost, or a writer that ends before it has written one, leaves such an Event.

use std::time::Instant;

use super::aggregator::Statement;
use super::object::stored_note;
use crate::health::State;
use crate::monitor::{
    CONCLUSIVE, DatabaseSnapshot, Snapshot, TargetState, end_of_missing_role, target_note,
};
use crate::names::LookupResult;
use crate::notice::{Notice, Reason, Regarding, Topic};
use crate::plan::{KeepReason, Members, Plan, PolicyNote};
use crate::publish::{ConditionKind, PublishStatus, condition_note};

/// The judgement of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A statement that is so.
    True,
    /// A statement of which it cannot be said yet.
    Undecided,
    /// A statement that is not so; with the notice that is.
    False(Box<Notice>),
}

/// Judges a statement on the members of a database by the status of its publishing.
pub(super) fn judge_members(
    statement: Statement<'_>,
    status: &PublishStatus,
    now: Instant,
) -> Judgement {
    let reason = statement.key.reason;
    let correct = |reason: Reason, note: String| {
        let notice = Notice::new(statement.key.regarding.clone(), reason, note, now);
        Judgement::False(Box::new(notice))
    };
    if let Some(expected) = status.condition.kind.event_reason() {
        let note = condition_note(&status.condition);
        return match reason == expected && stored_note(&note) == statement.note {
            true => Judgement::True,
            false => correct(expected, note),
        };
    }
    let tells_members = matches!(reason, Reason::Published | Reason::Repaired);
    let is_settled = status.condition.kind == ConditionKind::Published;
    match &status.members {
        Some(members) if tells_members && says(statement.note, members) => Judgement::True,
        Some(members) if tells_members || is_settled => {
            correct(Reason::Published, members.to_string())
        }
        _ => Judgement::Undecided,
    }
}

/// Returns whether the note of `Published` or `Repaired` names exactly these members.
///
/// Notes are `MEMBERS (CHANGES)`, after `… repaired: ` for a repair.
fn says(note: &str, members: &Members) -> bool {
    let note = note.rsplit_once("repaired: ").map_or(note, |(_, rest)| rest);
    let members = members.to_string();
    match note.split_once(" (") {
        Some((named, _)) => named == members,
        None => match note.strip_suffix('…') {
            Some(start) => members.starts_with(start),
            None => note == members,
        },
    }
}

/// Judges a statement of another topic by a snapshot of the monitor.
pub(super) fn judge(statement: Statement<'_>, snapshot: &Snapshot, now: Instant) -> Judgement {
    let key = statement.key;
    let Regarding::Database(id) = &key.regarding else {
        return match key.reason {
            Reason::Frozen if snapshot.frozen.is_none() => {
                let note = "the freeze is over";
                correct(statement, Reason::Thawed, note.into(), now)
            }
            _ => Judgement::True,
        };
    };
    // A database or a target that has left the config is not judged.
    let Some(database) = snapshot.databases.iter().find(|database| database.id == *id) else {
        return Judgement::True;
    };
    match key.reason.topic() {
        Topic::Health => {
            let mut targets = database.targets.iter();
            let target = targets.find(|target| target.member.ip.to_string() == key.dedup_key);
            target.map_or(Judgement::True, |target| judge_health(statement, target, now))
        }
        Topic::Maintenance => judge_maintenance(statement, database, now),
        Topic::Checks => judge_checks(statement, database, now),
        Topic::Role => judge_role(statement, database, now),
        Topic::Name => judge_name(statement, database, now),
        Topic::Freeze if key.reason == Reason::Frozen && snapshot.frozen.is_none() => {
            correct(statement, Reason::Thawed, "the freeze is over".into(), now)
        }
        _ => Judgement::True,
    }
}

fn judge_health(statement: Statement<'_>, target: &TargetState, now: Instant) -> Judgement {
    let state = target.health.state();
    let expected = match state {
        State::Unknown => return Judgement::Undecided,
        State::Up => Reason::TargetUp,
        State::Down => Reason::TargetDown,
    };
    if statement.key.reason == expected {
        return Judgement::True;
    }
    let note = target_note(target.member.ip, state, target.health.reason());
    correct(statement, expected, note, now)
}

fn judge_maintenance(
    statement: Statement<'_>,
    database: &DatabaseSnapshot,
    now: Instant,
) -> Judgement {
    if database.plan == Plan::Keep(KeepReason::NotSynced) {
        return Judgement::Undecided;
    }
    let address = &statement.key.dedup_key;
    let mut targets = database.targets.iter();
    let Some(target) = targets.find(|target| target.member.ip.to_string() == *address) else {
        return Judgement::True;
    };
    match (statement.key.reason, &target.maintenance) {
        (Reason::MaintenanceBegan, None) => {
            let note = format!("the maintenance of {address} has ended");
            correct(statement, Reason::MaintenanceEnded, note, now)
        }
        (Reason::MaintenanceEnded, Some(maintenance)) => {
            let note = format!("{address} is in maintenance: {maintenance}");
            correct(statement, Reason::MaintenanceBegan, note, now)
        }
        _ => Judgement::True,
    }
}

fn judge_checks(statement: Statement<'_>, database: &DatabaseSnapshot, now: Instant) -> Judgement {
    let reason = statement.key.reason;
    let mut notes = database.notes.iter().filter_map(|note| match note {
        PolicyNote::ChecksInconclusive { .. } => Some((Reason::ChecksInconclusive, note)),
        PolicyNote::LoginRefused { .. } => Some((Reason::LoginRefused, note)),
        _ => None,
    });
    match notes.clone().find(|(is, _)| *is == reason).or_else(|| notes.next()) {
        Some((is, _)) if is == reason => Judgement::True,
        Some((is, note)) => correct(statement, is, note.to_string(), now),
        None if reason == Reason::ChecksConclusive => Judgement::True,
        None if !are_checked(database) => Judgement::Undecided,
        None => correct(statement, Reason::ChecksConclusive, CONCLUSIVE.into(), now),
    }
}

fn judge_role(statement: Statement<'_>, database: &DatabaseSnapshot, now: Instant) -> Judgement {
    let is_missing = |note: &&PolicyNote| matches!(note, PolicyNote::RoleMissing { .. });
    let note = database.notes.iter().find(is_missing);
    match (statement.key.reason, note) {
        (Reason::RoleMissing, None) if !are_checked(database) => Judgement::Undecided,
        (Reason::RoleMissing, None) => {
            let (reason, note) = end_of_missing_role(&database.targets);
            correct(statement, reason, note.into(), now)
        }
        (Reason::RoleMissing, Some(_)) | (_, None) => Judgement::True,
        (_, Some(note)) => correct(statement, Reason::RoleMissing, note.to_string(), now),
    }
}

/// Returns whether the health of all targets is known.
fn are_checked(database: &DatabaseSnapshot) -> bool {
    database.targets.iter().all(|target| target.health.state() != State::Unknown)
}

fn judge_name(statement: Statement<'_>, database: &DatabaseSnapshot, now: Instant) -> Judgement {
    let mut names = database.names.iter();
    let Some(name) = names.find(|name| *name.name == *statement.key.dedup_key) else {
        return Judgement::True;
    };
    match (statement.key.reason, name.result) {
        (Reason::NameUnresolved, None) => Judgement::Undecided,
        (Reason::NameUnresolved, Some(LookupResult::Good)) => {
            let note = format!("{} resolves again", name.name);
            correct(statement, Reason::NameResolved, note, now)
        }
        _ => Judgement::True,
    }
}

/// Returns the notice that takes the place of a statement.
fn correct(statement: Statement<'_>, reason: Reason, note: String, now: Instant) -> Judgement {
    let notice = Notice::new(statement.key.regarding.clone(), reason, note, now);
    Judgement::False(Box::new(notice.with_dedup_key(statement.key.dedup_key.clone())))
}

#[cfg(test)]
mod tests;
