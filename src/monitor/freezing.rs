//! The freeze in the monitor: looks whether it is over, has all databases decided anew when it begins or ends, and tells of it.

use std::time::Instant;

use tracing::{debug, info, warn};

use super::Monitor;
use crate::freeze::{Freeze, News};

impl Monitor {
    /// Returns when to look again.
    pub(super) fn weigh(&mut self, now: Instant) -> Option<Instant> {
        let databases = &self.databases;
        self.freeze.end(now, |from| databases.iter().any(|database| database.waits(from)));
        if self.freeze.take_changed() {
            let news = self.freeze.take_news();
            let released = news.iter().any(|news| matches!(news, News::Thawed | News::TimedOut));
            news.iter().for_each(|news| tell(news, &self.freeze));
            if released {
                // All of them before any is decided on: what is let go counts no more.
                self.databases.iter_mut().for_each(|database| database.release(&mut self.freeze));
            }
            for index in 0..self.databases.len() {
                self.databases[index].decide(&mut self.freeze, now);
                self.arrange(index);
            }
        }
        self.freeze.again()
    }
}

fn tell(news: &News, freeze: &Freeze) {
    match news {
        News::Frozen { failed, published } => warn!(
            failed = failed.targets,
            failed_in = failed.databases,
            published = published.targets,
            "frozen: so many targets fail together that the fault is probably ours; nothing is taken out"
        ),
        News::Thawed => info!("the freeze is over: enough targets are well again; those that still fail are taken out"),
        News::TimedOut => warn!("the freeze is over: it ran into --freeze-timeout; those that fail are taken out"),
    }
    debug!(holds = freeze.holds(), "the freeze has changed");
}

#[cfg(test)]
#[path = "freezing_tests.rs"]
mod tests;
