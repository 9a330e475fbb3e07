//! The freeze in the monitor: looks whether it is over, has all databases decided anew when it begins or ends, and tells of it.

use std::time::Instant;

use tracing::debug;

use super::{Budget, Monitor};
use crate::freeze::FreezeEvent;
use crate::notice::{LogLine, Notice, Reason, Regarding, Severity};

impl Monitor {
    /// Returns when to look again.
    pub(super) fn update_freeze(&mut self, now: Instant) -> Option<Instant> {
        let databases = &self.databases;
        self.freeze.maybe_leave(now, |from| {
            databases.iter().any(|database| database.has_unchecked_failures(from))
        });
        if self.freeze.take_changed() {
            let news = self.freeze.take_events();
            let released =
                news.iter().any(|news| matches!(news, FreezeEvent::Thawed | FreezeEvent::TimedOut));
            news.iter().for_each(|news| self.announce_freeze(news, now));
            if released {
                // All of them before any is decided on: what is let go counts no more.
                self.databases
                    .iter_mut()
                    .for_each(|database| database.clear_failures(&mut self.freeze));
            }
            self.undecided = Some(0);
        }
        self.decide_undecided(now);
        self.freeze.reevaluate_at()
    }

    /// Decides anew for the databases that a freeze has left to be, as many as a turn may. Whatever is decided for the others
    /// meanwhile goes by the freeze as it is now too.
    fn decide_undecided(&mut self, now: Instant) {
        let mut budget = Budget::new();
        while let Some(index) = self.undecided.filter(|index| *index < self.databases.len()) {
            if !budget.try_spend() {
                return;
            }
            self.databases[index].decide(&mut self.freeze, now);
            self.schedule_reevaluation(index);
            self.undecided = Some(index + 1);
        }
        self.undecided = None;
    }

    fn announce_freeze(&self, news: &FreezeEvent, now: Instant) {
        let (reason, line) = match news {
            FreezeEvent::Frozen { failed, published } => {
                let line = LogLine {
                    failed: Some(failed.targets),
                    failed_in: Some(failed.databases),
                    published: Some(published.targets),
                    ..LogLine::default()
                };
                (Reason::Frozen, line)
            }
            FreezeEvent::Thawed | FreezeEvent::TimedOut => (Reason::Thawed, LogLine::default()),
        };
        debug!(holds_removals = self.freeze.holds_removals(), "the freeze has changed");
        let notice = Notice::new(Regarding::Daemon, reason, message(news), now);
        let notice = match news {
            FreezeEvent::TimedOut => notice.with_severity(Severity::Warning),
            FreezeEvent::Frozen { .. } | FreezeEvent::Thawed => notice,
        };
        self.recorder.log_and_event(notice, &line);
    }
}

fn message(news: &FreezeEvent) -> &'static str {
    match news {
        FreezeEvent::Frozen { .. } => {
            "frozen: so many targets fail together that the fault is probably ours; nothing is taken out"
        }
        FreezeEvent::Thawed => {
            "the freeze is over: enough targets are well again; those that still fail are taken out"
        }
        FreezeEvent::TimedOut => {
            "the freeze is over: it ran into --freeze-timeout; those that fail are taken out"
        }
    }
}

#[cfg(test)]
mod tests;
