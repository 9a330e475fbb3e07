//! The freeze in the monitor: asks whether it is over, has all databases decided anew when it
//! begins or ends, and announces both.

use std::time::Instant;

use tracing::debug;

use super::Monitor;
use super::budget::Budget;
use crate::freeze::FreezeEvent;
use crate::notice::{LogLine, Notice, Reason, Regarding, Severity};

impl Monitor {
    /// Moves the freeze to the stage of this moment, and decides the databases that it left to be
    /// decided. Returns when to call this again.
    pub(super) fn update_freeze(&mut self, now: Instant) -> Option<Instant> {
        let databases = &self.databases;
        self.freeze.maybe_leave(now, |from| {
            databases.iter().any(|database| database.has_unchecked_failures(from))
        });
        if self.freeze.take_changed() {
            let events = self.freeze.take_events();
            events.iter().for_each(|event| self.announce_freeze(event, now));
            let is_over = |event: &FreezeEvent| !matches!(event, FreezeEvent::Frozen { .. });
            if events.iter().any(is_over) {
                // All of them before any is decided: what the freeze kept counts no more.
                for database in &mut self.databases {
                    database.clear_failures(&mut self.freeze);
                }
            }
            self.undecided = Some(0);
        }
        self.decide_undecided(now);
        self.freeze.reevaluate_at()
    }

    /// Decides the databases that a freeze has left to be decided, as many as a turn may. Decisions
    /// for the others meanwhile go by the new stage too.
    fn decide_undecided(&mut self, now: Instant) {
        let mut budget = Budget::new();
        while let Some(index) = self.undecided.filter(|index| *index < self.databases.len()) {
            if !budget.try_spend() {
                return;
            }
            self.databases[index].decide(&mut self.freeze, now);
            self.after_change(index);
            self.undecided = Some(index + 1);
        }
        self.undecided = None;
    }

    fn announce_freeze(&self, event: &FreezeEvent, now: Instant) {
        let (reason, line) = match event {
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
        let notice = Notice::new(Regarding::Daemon, reason, message(event), now);
        let notice = match event {
            FreezeEvent::TimedOut => notice.with_severity(Severity::Warning),
            FreezeEvent::Frozen { .. } | FreezeEvent::Thawed => notice,
        };
        self.recorder.log_and_event(notice, &line);
    }
}

fn message(event: &FreezeEvent) -> &'static str {
    match event {
        FreezeEvent::Frozen { .. } => {
            "frozen: so many targets fail together that the fault is probably the daemon's own; \
             nothing is taken out"
        }
        FreezeEvent::Thawed => {
            "the freeze is over: enough targets are healthy again; those that still fail are \
             taken out"
        }
        FreezeEvent::TimedOut => {
            "the freeze is over: it ran into --freeze-timeout; those that fail are taken out"
        }
    }
}

#[cfg(test)]
mod tests;
