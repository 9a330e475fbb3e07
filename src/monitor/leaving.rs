//! What a database has to do with a freeze: which of its targets failed lately, and how many count.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Watched;
use crate::config::{Address, Database};
use crate::freeze::{FAILURE_WINDOW, Freeze, Tally};
use crate::health::{State, Streak};
use crate::notice::Reason;
use crate::plan::PolicyNote;

/// The targets, by their index, that went Down while they were published, and when. They stay here for a window, and for as long
/// as a freeze goes on.
#[derive(Default)]
pub(super) struct Leaving {
    since: BTreeMap<usize, Instant>,
    /// What was counted last.
    counted: Tally,
    /// Whether it has been told that a freeze keeps any of them.
    told: bool,
}

impl Leaving {
    pub(super) fn contains(&self, index: usize) -> bool {
        self.since.contains_key(&index)
    }

    /// Forgets those whose window is over.
    pub(super) fn forget(&mut self, now: Instant) {
        if !self.since.is_empty() {
            self.since
                .retain(|_, since| since.checked_add(FAILURE_WINDOW).is_some_and(|end| end > now));
        }
    }

    /// Goes by the numbers that the targets have in another config. What another check found says nothing.
    pub(super) fn move_to(&mut self, old: &Database, new: &Database) {
        let moved = std::mem::take(&mut self.since).into_iter().filter_map(|(index, since)| {
            let before = &old.addresses[index];
            let same = |address: &Address| address.ip == before.ip && address.check == before.check;
            Some((new.addresses.iter().position(same)?, since))
        });
        self.since = moved.collect();
    }

    /// When the next one is to be forgotten.
    pub(super) fn again(&self, now: Instant) -> Option<Instant> {
        self.since
            .values()
            .filter_map(|since| since.checked_add(FAILURE_WINDOW))
            .filter(|end| *end > now)
            .min()
    }
}

impl Watched {
    /// Takes note of a target that may have flipped.
    pub(crate) fn leave(&mut self, index: usize, freeze: &Freeze, now: Instant) {
        let target = &self.targets[index];
        let published = self
            .policing
            .published
            .as_ref()
            .is_some_and(|members| members.contains(target.member.ip));
        if target.health.state() != State::Down {
            self.leaving.since.remove(&index);
        } else if published && freeze.is_enabled() {
            self.leaving.since.entry(index).or_insert(now);
        }
    }

    /// Tells the freeze how many count now, which may begin by it.
    pub(crate) fn count(&mut self, freeze: &mut Freeze, now: Instant) {
        if self.recount(freeze) {
            freeze.maybe_enter(now);
        }
    }

    /// Returns whether the numbers have changed.
    fn recount(&mut self, freeze: &mut Freeze) -> bool {
        let (true, Some(published)) = (freeze.is_enabled(), &self.policing.published) else {
            return false;
        };
        let mut count = Tally::default();
        for (index, target) in self.targets.iter().enumerate() {
            let failed = self.leaving.contains(index);
            if target.maintenance.is_none() && (failed || published.contains(target.member.ip)) {
                let in_doubt = target.health.state() == State::Up && target.health.in_doubt();
                count.published += 1;
                count.failed += usize::from(failed);
                count.in_doubt += usize::from(in_doubt);
            }
        }
        let before = std::mem::replace(&mut self.leaving.counted, count);
        if before != count {
            freeze.update_tally(before, count);
        }
        before != count
    }

    /// Whether any target that failed has not been tried, and failed again, from then on.
    pub(crate) fn waits(&self, from: Instant) -> bool {
        let failed = self.leaving.since.keys().map(|index| &self.targets[*index]);
        failed.filter(|target| target.maintenance.is_none()).any(|target| {
            let started = target.last.and_then(|(ended, duration)| ended.checked_sub(duration));
            !matches!(target.health.streak(), Streak::Failures(_))
                || started.is_none_or(|started| started < from)
        })
    }

    /// Tells once that a freeze keeps what should leave, and once that it is over, to those who do not read the log.
    pub(crate) fn announce_freeze(&mut self, frozen: bool, now: Instant) {
        let held =
            self.policing.notes.iter().find(|note| matches!(note, PolicyNote::KeptByFreeze { .. }));
        match (self.leaving.told, frozen, held) {
            (false, true, Some(held)) => {
                self.recorder.event(|| self.notice(Reason::Frozen, held.to_string(), now));
                self.leaving.told = true;
            }
            (true, false, _) => {
                let note = || "the freeze is over".to_owned();
                self.recorder.event(|| self.notice(Reason::Thawed, note(), now));
                self.leaving.told = false;
            }
            _ => {}
        }
    }

    /// Leaves the count, with the config that it leaves.
    pub(crate) fn uncount(&mut self, freeze: &mut Freeze) {
        freeze.update_tally(std::mem::take(&mut self.leaving.counted), Tally::default());
    }

    /// Lets go what a freeze held back.
    pub(crate) fn release(&mut self, freeze: &mut Freeze) {
        self.leaving.since.clear();
        self.recount(freeze);
    }
}
