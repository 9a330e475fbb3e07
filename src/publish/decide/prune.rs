//! The orphans that are deleted, and when. Pure.
//!
//! An orphan is deleted only if it was known when a new config with `prune: true` removed its
//! database. Any other may belong to another deployment of this daemon, which has the same label.
//!
//! | an orphan of a database that                               | fate                            |
//! | ---                                                        | ---                             |
//! | was removed with `prune: true`, and known then, by its UID | is deleted                      |
//! | was removed with `prune: true`, and not known then         | stays: someone else made it     |
//! | was removed with `prune: false`, or before such a config   | stays, even if it is true later |
//! | was not in any config of this process                      | stays                           |

use std::time::{Duration, Instant};

use super::prune_gate::{Gate, gate};
use crate::config::DatabaseId;
use crate::publish::cache::orphans::{ObjectKind, Orphan, Orphans};

/// The deletions that are due.
#[derive(Debug, PartialEq)]
pub(crate) enum Pruning {
    Nothing,
    /// None yet: the config is too new.
    Settling(Duration),
    /// None yet: more than half of the published databases have been removed.
    SecondLook {
        removed: Vec<DatabaseId>,
        remaining: usize,
        delay: Duration,
    },
    /// These, in order.
    Delete(Vec<(DatabaseId, ObjectKind, Orphan)>),
}

/// Returns the deletions that are due. `is_published` knows the databases of the config that have
/// members in the cluster.
pub(crate) fn pruning(
    orphans: &Orphans,
    now: Instant,
    is_published: impl Fn(&DatabaseId) -> bool,
) -> Pruning {
    let is_prunable = |(id, kind, orphan): &(&DatabaseId, ObjectKind, &Orphan)| {
        may_prune(orphans, id, orphan)
            && (*kind != ObjectKind::Service || only_service_left(orphans, id))
    };
    let prunable: Vec<_> = orphans
        .iter()
        .filter(is_prunable)
        .map(|(id, kind, orphan)| (id.clone(), kind, orphan.clone()))
        .collect();
    if prunable.is_empty() {
        return Pruning::Nothing;
    }
    let Removed { gate, removed, remaining } = removed(orphans, now, &is_published);
    match gate {
        Gate::Open => Pruning::Delete(prunable),
        Gate::Settling(delay) => Pruning::Settling(delay),
        Gate::SecondLook(delay) => Pruning::SecondLook { removed, remaining, delay },
    }
}

/// Returns whether one orphan is still to be deleted, as it was when [`pruning`] returned it.
pub(crate) fn is_prunable(
    orphans: &Orphans,
    (id, kind, orphan): (&DatabaseId, ObjectKind, &Orphan),
    now: Instant,
    is_published: impl Fn(&DatabaseId) -> bool,
) -> bool {
    let name = orphan.metadata.name.as_deref().unwrap_or_default();
    orphans.get(id, kind, name) == Some(orphan)
        && may_prune(orphans, id, orphan)
        && removed(orphans, now, &is_published).gate == Gate::Open
}

/// Returns whether any orphan of a database will be deleted.
pub(crate) fn will_prune(orphans: &Orphans, id: &DatabaseId) -> bool {
    orphans.iter_of(id).any(|(_, orphan)| may_prune(orphans, id, orphan))
}

fn may_prune(orphans: &Orphans, id: &DatabaseId, orphan: &Orphan) -> bool {
    let uid = orphan.metadata.uid.as_ref();
    let was_known =
        |uids: &std::collections::BTreeSet<String>| uid.is_some_and(|uid| uids.contains(uid));
    orphan.exclusive && orphans.removed.get(id).is_some_and(|removal| was_known(&removal.uids))
}

/// Returns whether everything has been listed, and a Service is all that is left of a database.
fn only_service_left(orphans: &Orphans, id: &DatabaseId) -> bool {
    orphans.iter_of(id).all(|(kind, _)| kind == ObjectKind::Service)
        && orphans.is_synced(&id.namespace)
}

/// The databases that were removed from the config, and the gate for their orphans.
struct Removed {
    gate: Gate,
    /// The ones that have, or may have, orphans that are to be deleted.
    removed: Vec<DatabaseId>,
    /// The number of databases that were published with them and are still in the config.
    remaining: usize,
}

/// Weighs the removed databases against the remaining ones. Databases that were added later say
/// nothing of what was there before.
fn removed(orphans: &Orphans, now: Instant, is_published: &dyn Fn(&DatabaseId) -> bool) -> Removed {
    let is_pending = |id: &DatabaseId| !orphans.is_synced(&id.namespace) || will_prune(orphans, id);
    let pending: Vec<(&DatabaseId, Instant)> = orphans
        .removed
        .iter()
        .filter(|(id, _)| is_pending(id))
        .map(|(id, removal)| (id, removal.at))
        .collect();
    let first = pending.iter().map(|(_, at)| *at).min().unwrap_or(now);
    let is_remaining = |(id, since): &(&DatabaseId, &Instant)| **since < first && is_published(id);
    let remaining = orphans.configured.iter().filter(is_remaining).count();
    let stood_for =
        orphans.changed_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
    Removed {
        gate: gate(pending.len(), remaining, stood_for),
        removed: pending.into_iter().map(|(id, _)| id.clone()).collect(),
        remaining,
    }
}

#[cfg(test)]
mod tests;
