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
pub(crate) const WINDOW: Duration = Duration::from_secs(30);

/// With fewer published targets, or in fewer databases, a share says nothing about us.
const TARGETS: usize = 5;
const DATABASES: usize = 3;

/// Failures of one database alone, however many targets it has, are its own.
const SEVERAL: usize = 2;

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
pub(crate) struct Count {
    /// Published, or failed lately.
    pub published: usize,
    pub failed: usize,
    pub in_doubt: usize,
}

/// Targets of all databases, and how many databases have any of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub targets: usize,
    pub databases: usize,
}

impl Sum {
    fn replace(&mut self, old: usize, new: usize) {
        self.targets = self.targets - old + new;
        self.databases = self.databases - usize::from(old > 0) + usize::from(new > 0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until when; none before the first database has been seen.
    Starting(Option<Instant>),
    Free,
    Wary {
        since: Instant,
    },
    Frozen {
        since: Instant,
        /// When it was last no longer too many.
        fell: Option<Instant>,
    },
}

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Frozen {
        failed: Sum,
        published: Sum,
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
    pub until: Option<Instant>,
    pub failed: usize,
    pub published: usize,
}

/// Counts all targets, and decides whether anything is taken out.
#[derive(Debug, Clone)]
pub(crate) struct Freeze {
    rules: Rules,
    stage: Stage,
    /// Databases that have not been seen.
    unseen: usize,
    published: Sum,
    failed: Sum,
    /// Failed or in doubt.
    suspect: Sum,
    /// Whether being wary led to nothing, and there has been no quiet moment since.
    in_vain: bool,
    /// Whether all plans have to be decided anew.
    changed: bool,
    news: Vec<News>,
}

impl Freeze {
    /// For databases with so many targets each.
    pub(crate) fn new(rules: Rules, databases: impl Iterator<Item = usize>) -> Self {
        let mut all = Sum::default();
        let unseen = databases.inspect(|targets| all.replace(0, *targets)).count();
        let none = Sum::default();
        let stage =
            if is_large(all) && rules.are_on() { Stage::Starting(None) } else { Stage::Free };
        let (published, failed, suspect) = (none, none, none);
        Self {
            rules,
            stage,
            unseen,
            published,
            failed,
            suspect,
            in_vain: false,
            changed: false,
            news: Vec::new(),
        }
    }

    /// Whether there is ever a freeze.
    pub(crate) fn is_on(&self) -> bool {
        self.rules.are_on()
    }

    /// Whether nothing may be taken out.
    pub(crate) fn holds(&self) -> bool {
        self.stage != Stage::Free
    }

    /// The freeze, if there is one: what left lately then comes back.
    pub(crate) fn frozen(&self) -> Option<Frozen> {
        let Stage::Frozen { since, .. } = self.stage else { return None };
        let until = since.checked_add(self.rules.timeout);
        Some(Frozen {
            since,
            until,
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

    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// One more database has been seen.
    pub(crate) fn see(&mut self, now: Instant) {
        self.unseen = self.unseen.saturating_sub(1);
        if let Stage::Starting(until @ None) = &mut self.stage {
            *until = now.checked_add(WINDOW);
        }
    }

    /// After a change of the config: so many databases have not been seen.
    pub(crate) fn wait_for(&mut self, unseen: usize) {
        self.unseen = unseen;
    }

    /// Counts a database anew.
    pub(crate) fn count(&mut self, old: Count, new: Count) {
        self.published.replace(old.published, new.published);
        self.failed.replace(old.failed, new.failed);
        self.suspect.replace(old.failed + old.in_doubt, new.failed + new.in_doubt);
    }

    /// When to look whether it is over, besides after a verdict.
    pub(crate) fn again(&self) -> Option<Instant> {
        match self.stage {
            Stage::Starting(until) => until,
            Stage::Free => None,
            Stage::Wary { since } => since.checked_add(WINDOW),
            Stage::Frozen { since, fell } => {
                let fallen = fell.and_then(|fell| fell.checked_add(WINDOW));
                since.checked_add(self.rules.timeout).into_iter().chain(fallen).min()
            }
        }
    }

    /// Looks whether it is over. `waits` tells whether any target that failed has not been tried since then.
    pub(crate) fn end(&mut self, now: Instant, waits: impl FnOnce(Instant) -> bool) {
        let over = |since: Instant, time| since.checked_add(time).is_some_and(|end| end <= now);
        match self.stage {
            Stage::Starting(until) => {
                if self.unseen == 0 || until.is_some_and(|until| until <= now) {
                    self.enter(Stage::Free);
                    self.begin(now);
                }
            }
            Stage::Free => {}
            Stage::Wary { since } => {
                self.in_vain = over(since, WINDOW);
                if self.in_vain || !self.too_many(self.suspect) {
                    self.enter(Stage::Free);
                }
            }
            Stage::Frozen { since, fell } => {
                if over(since, self.rules.timeout) {
                    self.enter(Stage::Free);
                    self.news.push(News::TimedOut);
                } else if fell.is_some_and(|fell| over(fell, WINDOW) || !waits(fell)) {
                    self.enter(Stage::Free);
                    self.news.push(News::Thawed);
                }
            }
        }
    }

    /// Holds from now on, if it is too many.
    pub(crate) fn begin(&mut self, now: Instant) {
        let (failed, suspect) = (self.too_many(self.failed), self.too_many(self.suspect));
        self.in_vain &= suspect;
        match &mut self.stage {
            Stage::Frozen { fell, .. } if failed => *fell = None,
            Stage::Frozen { fell, .. } => *fell = fell.or(Some(now)),
            Stage::Free | Stage::Wary { .. } if failed => {
                self.enter(Stage::Frozen { since: now, fell: None });
                self.news.push(News::Frozen { failed: self.failed, published: self.published });
            }
            Stage::Free if suspect && !self.in_vain => self.enter(Stage::Wary { since: now }),
            Stage::Starting(_) | Stage::Free | Stage::Wary { .. } => {}
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.changed = true;
    }

    fn too_many(&self, sum: Sum) -> bool {
        self.rules.are_on()
            && is_large(self.published)
            && sum.databases >= SEVERAL
            && sum.targets * 100 > self.published.targets * usize::from(self.rules.max_unhealthy)
    }
}

impl Rules {
    fn are_on(&self) -> bool {
        self.max_unhealthy < 100 && !self.timeout.is_zero()
    }
}

fn is_large(all: Sum) -> bool {
    all.targets >= TARGETS && all.databases >= DATABASES
}

#[cfg(test)]
mod tests;
