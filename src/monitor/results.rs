//! The results of tries: each frees its place in the admission queue, moves its target's health,
//! and tells the schedule when to try the target next.

use std::io;
use std::time::{Duration, Instant};

use super::Monitor;
use super::ScheduledTarget;
use super::budget::Budget;
use crate::health::Verdict;
use crate::probe::Completion;
use crate::schedule::{Pause, TargetKey};

/// The result of one try, on its way to the monitor.
pub(super) struct ProbeReport {
    pub key: TargetKey,
    pub verdict: Verdict,
    /// The time from when the try was due until it started; none if it has been counted already.
    pub delay: Option<Duration>,
    pub started: Instant,
    pub ended: Instant,
}

impl ProbeReport {
    /// Returns the report of a try in the reactor.
    pub(super) fn from_completion(completion: Completion, ended: Instant) -> Self {
        let Completion { token, verdict, started } = completion;
        Self { key: token, verdict, delay: None, started, ended }
    }
}

impl Monitor {
    /// Moves the results of the reactor to those that are to be applied.
    pub(super) fn drain_reactor(&mut self, now: Instant) -> io::Result<()> {
        let results = &mut self.reactor_results;
        self.reactor.drain(now, |completion| {
            results.push_back(ProbeReport::from_completion(completion, now));
        })
    }

    /// Applies the results of the reactor and those of tasks, as many of each as a turn may. So
    /// neither kind keeps the other waiting, however many there are.
    pub(super) fn apply_results(&mut self) {
        let mut budget = Budget::new();
        while !self.reactor_results.is_empty() && budget.try_spend() {
            let Some(report) = self.reactor_results.pop_front() else { break };
            self.on_result(&report);
        }
        let mut budget = Budget::new();
        while !self.task_results.is_empty() && budget.try_spend() {
            let Ok(report) = self.task_results.try_recv() else { break };
            self.on_result(&report);
        }
    }

    /// Applies one result.
    pub(super) fn on_result(&mut self, report: &ProbeReport) {
        let &ScheduledTarget { location, owner, interval, .. } = &self.scheduled[report.key];
        self.queue_for(report.key).release(owner);
        report.delay.into_iter().for_each(|delay| self.start_delay.observe(delay, interval));
        let pause = location.map_or(Pause::Interval, |(database, target)| {
            let excused = self.excuse(report, database, target);
            let report = excused.as_ref().unwrap_or(report);
            self.inconclusive.observe(report.key, &report.verdict, report.ended);
            let check = &self.databases[database].config().addresses[target].check;
            let duration = report.ended.saturating_duration_since(report.started);
            self.check_durations.observe(&check.kind, duration);
            let observation = self.scheduled[report.key].prober.observation_since(report.started);
            self.databases[database].set_observation(target, observation);
            let pause = self.databases[database].on_result(target, report, &mut self.freeze);
            self.after_change(database);
            pause
        });
        self.schedule.complete(report.key, report.started, report.ended, pause);
    }
    /// Returns an inconclusive report instead of a failure that may come from a wrong name: after a
    /// restart without DNS, nothing says which name an address is of.
    fn excuse(&self, report: &ProbeReport, database: usize, target: usize) -> Option<ProbeReport> {
        let Verdict::Fail(reason) = &report.verdict else { return None };
        let is_excused = self.databases[database].is_name_a_guess(target)
            && self.scheduled[report.key].prober.may_fail_by_name(reason);
        is_excused.then(|| ProbeReport {
            verdict: Verdict::Inconclusive(format!(
                "{reason}; DNS has not said yet which name this address is of"
            )),
            ..*report
        })
    }
}
