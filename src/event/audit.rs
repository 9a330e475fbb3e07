//! The audit of Events: those that a former leader has left are listed, and all are compared with
//! the state of the daemon. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::aggregator::{EventAggregator, EventKey};
use super::truth::{Judgement, judge, judge_members};
use crate::config::DatabaseId;
use crate::monitor::Snapshot;
use crate::notice::{Notice, Regarding, Topic};
use crate::publish::PublishStatus;

/// The audit of one term as the leader.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The namespaces whose Events have not been listed yet.
    unlisted: BTreeSet<String>,
    /// The Events of a former leader that have not been compared with the state yet.
    unconfirmed: HashSet<EventKey>,
    /// The corrections that the last audit found. A change that is on its way as a notice looks the
    /// same for a moment, so that a correction must be found twice.
    suspected: HashMap<DatabaseId, Notice>,
    audited_at: Option<Instant>,
    /// The lists that failed.
    failed: HashMap<String, FailedList>,
}

/// The lists of one namespace that failed.
#[derive(Debug)]
struct FailedList {
    attempts: u32,
    /// The number of those that were forbidden.
    refusals: u32,
    /// The time from which on another is tried.
    retry_at: Instant,
}

/// The delay after the first list that failed. It doubles with each further one.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(500);

/// The longest delay after a list that failed.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(15);

/// The number of lists of a namespace that may be forbidden before no more are tried. An API server
/// that has just started forbids everything for a moment.
const MAX_REFUSALS: u32 = 6;

impl Audit {
    /// Starts to list the Events of these namespaces.
    pub(super) fn start(&mut self, namespaces: impl IntoIterator<Item = String>) {
        self.unlisted = namespaces.into_iter().collect();
    }

    /// Returns a namespace whose Events have to be listed now.
    pub(super) fn next_namespace(&self, now: Instant) -> Option<&str> {
        self.unlisted.iter().map(String::as_str).find(|namespace| self.has_to_list(namespace, now))
    }

    /// Returns whether the Events of a namespace have to be listed now. After a list that failed
    /// they have not for a while: one namespace must not hold up the Events of all others.
    pub(super) fn has_to_list(&self, namespace: &str, now: Instant) -> bool {
        let failed = self.failed.get(namespace);
        self.unlisted.contains(namespace) && failed.is_none_or(|failed| failed.retry_at <= now)
    }

    /// Records that the Events of a namespace are known, or can't be known.
    pub(super) fn on_listed(&mut self, namespace: &str) {
        self.unlisted.remove(namespace);
    }

    /// Records a list that had no answer. Another is tried later.
    pub(super) fn on_list_failed(&mut self, namespace: &str, now: Instant) {
        self.postpone(namespace, now);
    }

    /// Records a list that was forbidden. Returns whether another is tried later.
    pub(super) fn on_list_forbidden(&mut self, namespace: &str, now: Instant) -> bool {
        let failed = self.postpone(namespace, now);
        failed.refusals += 1;
        failed.refusals < MAX_REFUSALS
    }

    fn postpone(&mut self, namespace: &str, now: Instant) -> &mut FailedList {
        let first = FailedList { attempts: 0, refusals: 0, retry_at: now };
        let failed = self.failed.entry(namespace.to_owned()).or_insert(first);
        let delay = MIN_RETRY_DELAY * 2_u32.pow(failed.attempts.min(10));
        failed.attempts = failed.attempts.saturating_add(1);
        failed.retry_at = now + delay.min(MAX_RETRY_DELAY);
        failed
    }

    /// Records an Event of a former leader.
    pub(super) fn add_found(&mut self, key: &EventKey) {
        if !matches!(key.reason.topic(), Topic::Members | Topic::Alone) {
            self.unconfirmed.insert(key.clone());
        }
    }

    /// Returns when Events have to be compared with the state again.
    pub(super) fn due_at(&self, interval: Duration, now: Instant) -> Instant {
        self.audited_at.map_or(now, |at| at + interval)
    }

    /// Returns whether Events of a former leader have to be compared with a snapshot.
    pub(super) fn needs_snapshot(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// Compares the Events about members with the state. Returns the notices that correct them.
    pub(super) fn members(
        &mut self,
        events: &EventAggregator,
        status: impl Fn(&DatabaseId) -> Option<PublishStatus>,
        now: Instant,
    ) -> Vec<Notice> {
        self.audited_at = Some(now);
        let mut suspected = HashMap::new();
        let mut corrections = Vec::new();
        for statement in events.statements() {
            let Regarding::Database(id) = &statement.key.regarding else { continue };
            if statement.key.reason.topic() != Topic::Members {
                continue;
            }
            let Some(status) = status(id) else { continue };
            let Judgement::False(notice) = judge_members(statement, &status, now) else { continue };
            let same =
                |before: &Notice| before.reason == notice.reason && before.note == notice.note;
            match self.suspected.get(id).is_some_and(same) {
                true => corrections.push(*notice),
                false => drop(suspected.insert(id.clone(), *notice)),
            }
        }
        self.suspected = suspected;
        corrections
    }

    /// Compares the Events of a former leader with a snapshot. Returns the notices that correct
    /// them.
    pub(super) fn others(
        &mut self,
        events: &EventAggregator,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Vec<Notice> {
        let mut undecided = HashSet::new();
        let mut corrections = Vec::new();
        for statement in events.statements() {
            if !self.unconfirmed.contains(statement.key) {
                continue;
            }
            match judge(statement, snapshot, now) {
                Judgement::True => {}
                Judgement::Undecided => drop(undecided.insert(statement.key.clone())),
                Judgement::False(notice) => corrections.push(*notice),
            }
        }
        self.unconfirmed = undecided;
        corrections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_list_that_fails_waits_and_holds_up_no_other() {
        let now = clock::now();
        let mut audit = Audit::default();
        audit.start(["a".to_owned(), "b".to_owned()]);
        assert_eq!(audit.next_namespace(now), Some("a"));
        audit.on_list_failed("a", now);
        assert_eq!(audit.next_namespace(now), Some("b"));
        audit.on_listed("b");
        assert_eq!(audit.next_namespace(now), None);
        assert_eq!(audit.next_namespace(now + MIN_RETRY_DELAY), Some("a"));
        // An outage says nothing about rights.
        for _ in 0..100 {
            audit.on_list_failed("a", now);
        }
        let tries_again = (0..MAX_REFUSALS).map(|_| audit.on_list_forbidden("a", now));
        assert_eq!(tries_again.filter(|again| *again).count(), 5);
        assert!(!audit.has_to_list("a", now + MAX_RETRY_DELAY / 2));
        assert!(audit.has_to_list("a", now + MAX_RETRY_DELAY));
    }
}
