//! The targets of a database that failed within the window, and the tally that the freeze counts.

use std::collections::BTreeMap;
use std::time::Instant;

use super::DatabaseMonitor;
use crate::config::{Address, Database};
use crate::freeze::{FAILURE_WINDOW, Freeze, Tally};
use crate::health::{State, Streak};
use crate::monitor::Trouble;
use crate::notice::Reason;
use crate::plan::PolicyNote;

/// The targets that went Down while they were published. They stay here for a window, and for as
/// long as a freeze lasts.
#[derive(Default)]
pub(super) struct RecentFailures {
    /// By the index of the target.
    failed_at: BTreeMap<usize, Instant>,
    /// The tally that the freeze knows of.
    tally: Tally,
    /// Set once an Event has said that a freeze keeps any of them.
    event_sent: bool,
}

impl RecentFailures {
    /// Returns whether the target has failed within the window.
    pub(super) fn contains(&self, index: usize) -> bool {
        self.failed_at.contains_key(&index)
    }

    /// Returns the tally that the freeze knows of.
    #[cfg(test)]
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Drops those whose window is over.
    pub(super) fn expire(&mut self, now: Instant) {
        if !self.failed_at.is_empty() {
            self.failed_at
                .retain(|_, since| since.checked_add(FAILURE_WINDOW).is_some_and(|end| end > now));
        }
    }

    /// Follows the targets to their indices in another config. A failure of another check is
    /// dropped.
    pub(super) fn reindex(&mut self, old: &Database, new: &Database) {
        let moved = std::mem::take(&mut self.failed_at).into_iter().filter_map(|(index, since)| {
            let before = &old.addresses[index];
            let same = |address: &Address| address.ip == before.ip && address.check == before.check;
            Some((new.addresses.iter().position(same)?, since))
        });
        self.failed_at = moved.collect();
    }

    /// Returns the time at which the next one expires.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        self.failed_at
            .values()
            .filter_map(|since| since.checked_add(FAILURE_WINDOW))
            .filter(|end| *end > now)
            .min()
    }
}

impl DatabaseMonitor {
    /// Notes a target that has flipped. A server of another role than its check asks for has
    /// answered, so it says nothing against this side.
    pub(crate) fn note_failure(&mut self, index: usize, freeze: &Freeze, now: Instant) {
        let target = &self.targets[index];
        let published = self
            .policy_state
            .published
            .as_ref()
            .is_some_and(|members| members.contains(target.member.ip));
        if target.health.state() != State::Down {
            self.recent_failures.failed_at.remove(&index);
        } else if published && freeze.is_enabled() && target.trouble != Trouble::Role {
            self.recent_failures.failed_at.entry(index).or_insert(now);
        }
    }

    /// Reports the tally to the freeze, which may begin by it.
    pub(crate) fn report_tally(&mut self, freeze: &mut Freeze, now: Instant) {
        if self.update_tally(freeze) {
            freeze.maybe_enter(now);
        }
    }

    /// Updates the tally, and returns whether it has changed.
    fn update_tally(&mut self, freeze: &mut Freeze) -> bool {
        let (true, Some(published)) = (freeze.is_enabled(), &self.policy_state.published) else {
            return false;
        };
        let mut count = Tally::default();
        for (index, target) in self.targets.iter().enumerate() {
            let failed = self.recent_failures.contains(index);
            // An address that another of its name replaces leaves for that reason.
            let is_exchanged = self.policy_state.exchanged.contains(&target.member.ip);
            if target.maintenance.is_none()
                && !is_exchanged
                && (failed || published.contains(target.member.ip))
            {
                let in_doubt = target.health.state() == State::Up
                    && target.health.in_doubt()
                    && target.trouble != Trouble::Role;
                count.published += 1;
                count.failed += usize::from(failed);
                count.in_doubt += usize::from(in_doubt);
            }
        }
        let before = std::mem::replace(&mut self.recent_failures.tally, count);
        if before != count {
            freeze.update_tally(before, count);
        }
        before != count
    }

    /// Returns whether any target that failed has not been tried, and failed again, since `from`.
    pub(crate) fn has_unchecked_failures(&self, from: Instant) -> bool {
        let failed = self.recent_failures.failed_at.keys().map(|index| &self.targets[*index]);
        failed.filter(|target| target.maintenance.is_none()).any(|target| {
            let started =
                target.last_check.and_then(|(ended, duration)| ended.checked_sub(duration));
            !matches!(target.health.streak(), Streak::Failures(_))
                || started.is_none_or(|started| started < from)
        })
    }

    /// Emits one Event when a freeze keeps targets that should leave, and one when it is over.
    pub(crate) fn announce_freeze(&mut self, freeze: &Freeze, now: Instant) {
        let held = self
            .policy_state
            .notes
            .iter()
            .find(|note| matches!(note, PolicyNote::KeptByFreeze { .. }));
        match (self.recent_failures.event_sent, freeze.frozen().is_some(), held) {
            (false, true, Some(held)) => {
                self.recorder.event(|| self.notice(Reason::Frozen, held.to_string(), now));
                self.recent_failures.event_sent = true;
            }
            (true, false, _) => {
                let note = || "the freeze is over".to_owned();
                self.recorder.event(|| self.notice(Reason::Thawed, note(), now));
                self.recent_failures.event_sent = false;
            }
            _ => {}
        }
    }

    /// Withdraws the tally of a database that leaves the config.
    pub(crate) fn withdraw(&mut self, freeze: &mut Freeze) {
        freeze.update_tally(std::mem::take(&mut self.recent_failures.tally), Tally::default());
    }

    /// Clears the failures that a freeze held back.
    pub(crate) fn clear_failures(&mut self, freeze: &mut Freeze) {
        self.recent_failures.failed_at.clear();
        self.update_tally(freeze);
    }
}
