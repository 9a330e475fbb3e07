//! Tells when so many targets fail together that the fault is probably ours, so that nothing is taken out. Pure, and no clock
//! of its own.
//!
//! What counts are the published targets, but for those in maintenance. One of them has *failed* from going Down until it is Up
//! again, and counts for a window, also after it has left. It is *in doubt* while it is Up and its newest verdicts say otherwise.
//!
//! | stage    | is taken out | what left lately | ends                                                              |
//! | ---      | ---          | ---              | ---                                                               |
//! | Starting | nothing      | stays away       | once all databases have been seen, or a window after the first has |
//! | Free     | what fails   | stays away       | Frozen when too many have failed; Wary when with those in doubt it is too many |
//! | Wary     | nothing      | stays away       | Frozen as above; Free when it is no longer too many, or after a window |
//! | Frozen   | nothing      | comes back       | Free when it is no longer too many, and each that failed was tried again since; or after the timeout |
//!
//! Without Wary, an outage of ours would first empty some Services and then fill them again, as targets are not tried all at
//! the same moment. As its own recovery isn't seen all at the same moment either, a freeze lasts until all have been tried.
//!
//! What a freeze held back is counted no more once it is over, so that the next one takes as many new failures: none flickers.

use std::time::{Duration, Instant};

/// Failures within this time are taken to be together.
pub(crate) const FAILURE_WINDOW: Duration = Duration::from_secs(30);

/// With fewer published targets, or in fewer databases, a share says nothing about us.
const MIN_TARGETS: usize = 5;
const MIN_DATABASES: usize = 3;

/// Failures of one database alone, however many targets it has, are its own.
const MIN_FAILED_DATABASES: usize = 2;

/// When there is a freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// More than this percentage of all published targets are too many; with 100 there is no freeze.
    pub max_unhealthy: u8,
    /// A freeze ends after this time; with zero there is none.
    pub timeout: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_unhealthy: 60, timeout: Duration::from_secs(10 * 60) }
    }
}

/// Targets of one database, as far as a freeze goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Published, or failed lately.
    pub published: usize,
    pub failed: usize,
    pub in_doubt: usize,
}

/// Targets of all databases, and how many databases have any of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub targets: usize,
    pub databases: usize,
}

impl Totals {
    fn update(&mut self, old: usize, new: usize) {
        self.targets = self.targets - old + new;
        self.databases = self.databases - usize::from(old > 0) + usize::from(new > 0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until when; none before the first database has been seen.
    Starting(Option<Instant>),
    Normal,
    Guarded {
        since: Instant,
    },
    Frozen {
        since: Instant,
        /// When it was last no longer too many.
        recovered_at: Option<Instant>,
    },
}

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FreezeEvent {
    Frozen {
        failed: Totals,
        published: Totals,
    },
    /// Enough are well again.
    Thawed,
    TimedOut,
}

/// A freeze that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    pub since: Instant,
    /// When it ends at the latest, if that can be told.
    pub expires_at: Option<Instant>,
    pub failed: usize,
    pub published: usize,
}

/// Counts all targets, and decides whether anything is taken out.
#[derive(Debug, Clone)]
pub(crate) struct Freeze {
    rules: Rules,
    stage: Stage,
    /// Databases that have not been seen.
    unsynced: usize,
    published: Totals,
    failed: Totals,
    /// Failed or in doubt.
    suspect: Totals,
    /// Whether being wary led to nothing, and there has been no quiet moment since.
    guard_expired: bool,
    /// Whether all plans have to be decided anew.
    changed: bool,
    events: Vec<FreezeEvent>,
}

impl Freeze {
    /// For databases with so many targets each.
    pub(crate) fn new(rules: Rules, databases: impl Iterator<Item = usize>) -> Self {
        let mut all = Totals::default();
        let unseen = databases.inspect(|targets| all.update(0, *targets)).count();
        let none = Totals::default();
        let stage = if is_large_enough(all) && rules.is_enabled() {
            Stage::Starting(None)
        } else {
            Stage::Normal
        };
        let (published, failed, suspect) = (none, none, none);
        Self {
            rules,
            stage,
            unsynced: unseen,
            published,
            failed,
            suspect,
            guard_expired: false,
            changed: false,
            events: Vec::new(),
        }
    }

    /// Whether there is ever a freeze.
    pub(crate) fn is_enabled(&self) -> bool {
        self.rules.is_enabled()
    }

    /// Whether nothing may be taken out.
    pub(crate) fn holds_removals(&self) -> bool {
        self.stage != Stage::Normal
    }

    /// The freeze, if there is one: what left lately then comes back.
    pub(crate) fn frozen(&self) -> Option<Frozen> {
        let Stage::Frozen { since, .. } = self.stage else { return None };
        let until = since.checked_add(self.rules.timeout);
        Some(Frozen {
            since,
            expires_at: until,
            failed: self.failed.targets,
            published: self.published.targets,
        })
    }

    /// Whether all plans have to be decided anew since this was last asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Returns the answer that the next [`Self::take_changed`] will give, unless more changes.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    pub(crate) fn take_events(&mut self) -> Vec<FreezeEvent> {
        std::mem::take(&mut self.events)
    }

    /// One more database has been seen.
    pub(crate) fn database_synced(&mut self, now: Instant) {
        self.unsynced = self.unsynced.saturating_sub(1);
        if let Stage::Starting(until @ None) = &mut self.stage {
            *until = now.checked_add(FAILURE_WINDOW);
        }
    }

    /// After a change of the config: so many databases have not been seen.
    pub(crate) fn set_unsynced(&mut self, unseen: usize) {
        self.unsynced = unseen;
    }

    /// Counts a database anew.
    pub(crate) fn update_tally(&mut self, old: Tally, new: Tally) {
        self.published.update(old.published, new.published);
        self.failed.update(old.failed, new.failed);
        self.suspect.update(old.failed + old.in_doubt, new.failed + new.in_doubt);
    }

    /// When to look whether it is over, besides after a verdict.
    pub(crate) fn reevaluate_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Starting(until) => until,
            Stage::Normal => None,
            Stage::Guarded { since } => since.checked_add(FAILURE_WINDOW),
            Stage::Frozen { since, recovered_at: fell } => {
                let fallen = fell.and_then(|fell| fell.checked_add(FAILURE_WINDOW));
                since.checked_add(self.rules.timeout).into_iter().chain(fallen).min()
            }
        }
    }

    /// Looks whether it is over. `waits` tells whether any target that failed has not been tried since then.
    pub(crate) fn maybe_leave(&mut self, now: Instant, waits: impl FnOnce(Instant) -> bool) {
        let over = |since: Instant, time| since.checked_add(time).is_some_and(|end| end <= now);
        match self.stage {
            Stage::Starting(until) => {
                if self.unsynced == 0 || until.is_some_and(|until| until <= now) {
                    self.set_stage(Stage::Normal);
                    self.maybe_enter(now);
                }
            }
            Stage::Normal => {}
            Stage::Guarded { since } => {
                self.guard_expired = over(since, FAILURE_WINDOW);
                if self.guard_expired || !self.exceeds_limit(self.suspect) {
                    self.set_stage(Stage::Normal);
                }
            }
            Stage::Frozen { since, recovered_at: fell } => {
                if over(since, self.rules.timeout) {
                    self.set_stage(Stage::Normal);
                    self.events.push(FreezeEvent::TimedOut);
                } else if fell.is_some_and(|fell| over(fell, FAILURE_WINDOW) || !waits(fell)) {
                    self.set_stage(Stage::Normal);
                    self.events.push(FreezeEvent::Thawed);
                }
            }
        }
    }

    /// Holds from now on, if it is too many.
    pub(crate) fn maybe_enter(&mut self, now: Instant) {
        let (failed, suspect) = (self.exceeds_limit(self.failed), self.exceeds_limit(self.suspect));
        self.guard_expired &= suspect;
        match &mut self.stage {
            Stage::Frozen { recovered_at: fell, .. } if failed => *fell = None,
            Stage::Frozen { recovered_at: fell, .. } => *fell = fell.or(Some(now)),
            Stage::Normal | Stage::Guarded { .. } if failed => {
                self.set_stage(Stage::Frozen { since: now, recovered_at: None });
                self.events
                    .push(FreezeEvent::Frozen { failed: self.failed, published: self.published });
            }
            Stage::Normal if suspect && !self.guard_expired => {
                self.set_stage(Stage::Guarded { since: now })
            }
            Stage::Starting(_) | Stage::Normal | Stage::Guarded { .. } => {}
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
        self.changed = true;
    }

    fn exceeds_limit(&self, sum: Totals) -> bool {
        self.rules.is_enabled()
            && is_large_enough(self.published)
            && sum.databases >= MIN_FAILED_DATABASES
            && sum.targets * 100 > self.published.targets * usize::from(self.rules.max_unhealthy)
    }
}

impl Rules {
    fn is_enabled(&self) -> bool {
        self.max_unhealthy < 100 && !self.timeout.is_zero()
    }
}

fn is_large_enough(all: Totals) -> bool {
    all.targets >= MIN_TARGETS && all.databases >= MIN_DATABASES
}

#[cfg(test)]
mod tests;
