//! The freeze: when so many targets fail together that the fault is probably on this side, nothing
//! is taken out. Pure. Envoy calls the same idea panic mode.
//!
//! Published targets count, except those in maintenance. A target has *failed* from going Down
//! until it is Up again, and counts for a window, also after it has left. It is *in doubt* while it
//! is Up and its newest verdicts are failures.
//!
//! | stage | removals | recent leavers | ends |
//! | --- | --- | --- | --- |
//! | Starting | held | stay out | Normal once all are synced, or a window after the first |
//! | Normal | made | stay out | Frozen if too many failed; Guarded if with doubts too many |
//! | Guarded | held | stay out | Frozen as above; Normal if not too many, or after a window |
//! | Frozen | held | come back | Normal if not too many and all tried since, or timed out |
//!
//! Guarded is needed because targets are not tried at the same moment. Without it, an outage of
//! this side would empty a few Services before it is recognised. The recovery is not noticed at the
//! same moment either, so a freeze lasts until all that failed have been tried.
//!
//! When a freeze ends, the failures that it held back no longer count. The next freeze takes as
//! many new failures, so freezes do not flicker.

use std::time::{Duration, Instant};

/// Time within which failures count as failing together.
pub(crate) const FAILURE_WINDOW: Duration = Duration::from_secs(30);

/// Published targets, and databases that have some, below which a percentage says nothing about
/// this side.
const MIN_TARGETS: usize = 5;
const MIN_DATABASES: usize = 3;

/// Databases that must have failures: those of one database alone are its own fault.
const MIN_FAILED_DATABASES: usize = 2;

/// The rules of the freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The percentage of published targets that may fail; 100 turns the freeze off.
    pub max_unhealthy: u8,
    /// The longest duration of a freeze; zero turns the freeze off.
    pub timeout: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_unhealthy: 60, timeout: Duration::from_secs(10 * 60) }
    }
}

/// The targets of one database that count for a freeze.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Published, or failed within the window.
    pub published: usize,
    pub failed: usize,
    pub in_doubt: usize,
}

/// Targets of all databases, and the databases that have any of them.
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
    /// Ends at this time; none before the first database is synced.
    Starting(Option<Instant>),
    Normal,
    Guarded {
        since: Instant,
    },
    Frozen {
        since: Instant,
        /// The time since which it has no longer been too many.
        recovered_at: Option<Instant>,
    },
}

/// A change that people should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FreezeEvent {
    Frozen {
        failed: Totals,
        published: Totals,
    },
    /// Enough targets are Up again.
    Thawed,
    TimedOut,
}

/// A freeze in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    pub since: Instant,
    /// The latest end; none if the timeout is too long for the clock.
    pub expires_at: Option<Instant>,
    pub failed: usize,
    pub published: usize,
}

/// The stage of the freeze, with the targets that count.
#[derive(Debug, Clone)]
pub(crate) struct Freeze {
    rules: Rules,
    stage: Stage,
    /// Databases of which the cluster has not been read yet.
    unsynced: usize,
    published: Totals,
    failed: Totals,
    /// Failed or in doubt.
    suspect: Totals,
    /// Set when Guarded ran out its window, until it is no longer too many.
    guard_expired: bool,
    /// Set when all plans are to be decided anew.
    changed: bool,
    events: Vec<FreezeEvent>,
}

impl Freeze {
    /// Creates the freeze for databases with these numbers of targets.
    pub(crate) fn new(rules: Rules, databases: impl Iterator<Item = usize>) -> Self {
        let mut all = Totals::default();
        let unsynced = databases.inspect(|targets| all.update(0, *targets)).count();
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
            unsynced,
            published,
            failed,
            suspect,
            guard_expired: false,
            changed: false,
            events: Vec::new(),
        }
    }

    /// Returns whether there can be a freeze.
    pub(crate) fn is_enabled(&self) -> bool {
        self.rules.is_enabled()
    }

    /// Returns whether removals are held back.
    pub(crate) fn holds_removals(&self) -> bool {
        self.stage != Stage::Normal
    }

    /// Returns the freeze, if one is in force.
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

    /// Returns whether all plans are to be decided anew, and resets that.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Returns the answer that the next [`Self::take_changed`] will give, unless more changes.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Returns the changes since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<FreezeEvent> {
        std::mem::take(&mut self.events)
    }

    /// Counts one more database as synced.
    pub(crate) fn database_synced(&mut self, now: Instant) {
        self.unsynced = self.unsynced.saturating_sub(1);
        if let Stage::Starting(until @ None) = &mut self.stage {
            *until = now.checked_add(FAILURE_WINDOW);
        }
    }

    /// Sets how many databases are not synced, after a change of the config.
    pub(crate) fn set_unsynced(&mut self, unsynced: usize) {
        self.unsynced = unsynced;
    }

    /// Replaces the tally of one database.
    pub(crate) fn update_tally(&mut self, old: Tally, new: Tally) {
        self.published.update(old.published, new.published);
        self.failed.update(old.failed, new.failed);
        self.suspect.update(old.failed + old.in_doubt, new.failed + new.in_doubt);
    }

    /// Returns when to call [`Self::maybe_leave`], besides after a verdict.
    pub(crate) fn reevaluate_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Starting(until) => until,
            Stage::Normal => None,
            Stage::Guarded { since } => since.checked_add(FAILURE_WINDOW),
            Stage::Frozen { since, recovered_at } => {
                let fallen =
                    recovered_at.and_then(|recovered_at| recovered_at.checked_add(FAILURE_WINDOW));
                since.checked_add(self.rules.timeout).into_iter().chain(fallen).min()
            }
        }
    }

    /// Leaves the stage if it is over. `has_unchecked` returns whether any target that failed has
    /// not been tried since the given time.
    pub(crate) fn maybe_leave(
        &mut self,
        now: Instant,
        has_unchecked: impl FnOnce(Instant) -> bool,
    ) {
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
            Stage::Frozen { since, recovered_at } => {
                if over(since, self.rules.timeout) {
                    self.set_stage(Stage::Normal);
                    self.events.push(FreezeEvent::TimedOut);
                } else if recovered_at.is_some_and(|recovered_at| {
                    over(recovered_at, FAILURE_WINDOW) || !has_unchecked(recovered_at)
                }) {
                    self.set_stage(Stage::Normal);
                    self.events.push(FreezeEvent::Thawed);
                }
            }
        }
    }

    /// Enters the stage Guarded or Frozen if too many targets fail.
    pub(crate) fn maybe_enter(&mut self, now: Instant) {
        let (failed, suspect) = (self.exceeds_limit(self.failed), self.exceeds_limit(self.suspect));
        self.guard_expired &= suspect;
        match &mut self.stage {
            Stage::Frozen { recovered_at, .. } if failed => *recovered_at = None,
            Stage::Frozen { recovered_at, .. } => *recovered_at = recovered_at.or(Some(now)),
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
