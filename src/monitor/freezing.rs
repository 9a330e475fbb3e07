//! The freeze in the monitor: looks whether it is over, has all databases decided anew when it begins or ends, and tells of it.

use std::time::Instant;

use tracing::debug;

use super::{Budget, Monitor};
use crate::freeze::News;
use crate::notice::{LogLine, Notice, Reason, Regarding, Severity};

impl Monitor {
    /// Returns when to look again.
    pub(super) fn weigh(&mut self, now: Instant) -> Option<Instant> {
        let databases = &self.databases;
        self.freeze.end(now, |from| databases.iter().any(|database| database.waits(from)));
        if self.freeze.take_changed() {
            let news = self.freeze.take_news();
            let released = news.iter().any(|news| matches!(news, News::Thawed | News::TimedOut));
            news.iter().for_each(|news| self.announce_freeze(news, now));
            if released {
                // All of them before any is decided on: what is let go counts no more.
                self.databases.iter_mut().for_each(|database| database.release(&mut self.freeze));
            }
            self.undecided = Some(0);
        }
        self.decide_undecided(now);
        self.freeze.again()
    }

    /// Decides anew for the databases that a freeze has left to be, as many as a turn may. Whatever is decided for the others
    /// meanwhile goes by the freeze as it is now too.
    fn decide_undecided(&mut self, now: Instant) {
        let mut budget = Budget::new();
        while let Some(index) = self.undecided.filter(|index| *index < self.databases.len()) {
            if !budget.take() {
                return;
            }
            self.databases[index].decide(&mut self.freeze, now);
            self.arrange(index);
            self.undecided = Some(index + 1);
        }
        self.undecided = None;
    }

    fn announce_freeze(&self, news: &News, now: Instant) {
        let (reason, line) = match news {
            News::Frozen { failed, published } => {
                let line = LogLine {
                    failed: Some(failed.targets),
                    failed_in: Some(failed.databases),
                    published: Some(published.targets),
                    ..LogLine::default()
                };
                (Reason::Frozen, line)
            }
            News::Thawed | News::TimedOut => (Reason::Thawed, LogLine::default()),
        };
        debug!(holds = self.freeze.holds(), "the freeze has changed");
        let notice = Notice::new(Regarding::Daemon, reason, message(news), now);
        let notice = match news {
            News::TimedOut => notice.with_severity(Severity::Warning),
            News::Frozen { .. } | News::Thawed => notice,
        };
        self.recorder.log_and_event(notice, &line);
    }
}

fn message(news: &News) -> &'static str {
    match news {
        News::Frozen { .. } => {
            "frozen: so many targets fail together that the fault is probably ours; nothing is taken out"
        }
        News::Thawed => {
            "the freeze is over: enough targets are well again; those that still fail are taken out"
        }
        News::TimedOut => {
            "the freeze is over: it ran into --freeze-timeout; those that fail are taken out"
        }
    }
}

#[cfg(test)]
#[path = "freezing_tests.rs"]
mod tests;
