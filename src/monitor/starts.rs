//! The starts of tries: what is due enters an admission queue, and what is admitted runs in the
//! reactor or as a task.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::admission_queue::{AdmissionQueue, OwnerId};
use super::results::ProbeReport;
use super::start_delay::{self, Bottleneck};
use super::{Monitor, ScheduledTarget};
use crate::clock;
use crate::health::Verdict;
use crate::schedule::{Next, Pause, TargetKey};

/// The time between two changes of which databases share a queue.
const MIN_SHARERS_AGE: Duration = Duration::from_secs(1);

impl Monitor {
    /// Starts what is due, as far as it is admitted. Returns the time of the next start, or none if
    /// only a result can make one due.
    pub(super) fn start_due(&mut self) -> Option<Instant> {
        let now = clock::now();
        loop {
            let next = self.schedule.next(now);
            if let Next::Start { key, due } = next {
                let owner = self.scheduled[key].owner;
                self.queue_for(key).enqueue(owner, key, due);
            }
            self.start_admitted(now);
            match next {
                Next::Start { .. } => {}
                Next::Wait(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    /// Starts all tries that the queues admit.
    pub(super) fn start_admitted(&mut self, now: Instant) {
        while let Some((key, due)) =
            self.network_queue.try_admit().or_else(|| self.exec_queue.try_admit())
        {
            let &ScheduledTarget { location, owner, ref prober, interval } = &self.scheduled[key];
            if location.is_none() {
                // The target left the config while its try waited.
                self.queue_for(key).release(owner);
                self.schedule.complete(key, now, now, Pause::Interval);
                continue;
            }
            let Some(fast_check) = prober.fast_check() else {
                self.spawn(key, due);
                continue;
            };
            self.start_delay.observe(now.saturating_duration_since(due), interval);
            let completion = self.reactor.start(key, fast_check, now);
            self.reactor_results
                .extend(completion.map(|done| ProbeReport::from_completion(done, now)));
        }
    }

    /// Starts a try as a task of its own.
    fn spawn(&mut self, key: TargetKey, due: Instant) {
        let prober = self.scheduled[key].prober.clone();
        let (results, waker) = (self.task_results_in.clone(), self.waker.clone());
        let is_cpu_bound = prober.is_cpu_bound();
        let task = async move {
            let started = clock::now();
            // A panic must not end the checks of this target for good.
            let outcome = AssertUnwindSafe(prober.probe()).catch_unwind().await;
            let verdict = outcome.unwrap_or_else(|_| {
                Verdict::Inconclusive("check: a defect of this daemon; see its log".into())
            });
            let delay = Some(started.saturating_duration_since(due));
            let ended = clock::now();
            // The monitor ends only with the daemon.
            let _ = results.send(ProbeReport { key, verdict, delay, started, ended });
            waker.wake();
        };
        if is_cpu_bound {
            while self.cpu_tasks.try_join_next().is_some() {}
            self.cpu_tasks.spawn_on(task, &self.cpu_runtime);
        } else {
            self.runtime.spawn(task);
        }
    }

    /// Returns the queue that the tries of a target wait in.
    pub(super) fn queue_for(&mut self, key: TargetKey) -> &mut AdmissionQueue {
        match self.scheduled[key].prober.is_exec() {
            true => &mut self.exec_queue,
            false => &mut self.network_queue,
        }
    }

    /// Sets which databases share the places of each queue, once that may have changed and not
    /// more often than each second: it takes a walk over all targets.
    pub(super) fn update_sharers_if_due(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.sharers_updated_at);
        if self.sharers_changed && since >= MIN_SHARERS_AGE {
            (self.sharers_changed, self.sharers_updated_at) = (false, now);
            self.update_sharers();
        }
    }

    /// Sets which databases share the places of each queue.
    pub(super) fn update_sharers(&mut self) {
        let (mut network, mut exec) = (BTreeSet::<OwnerId>::new(), BTreeSet::new());
        for target in self.scheduled.iter().filter(|target| target.location.is_some()) {
            let sharers = if target.prober.is_exec() { &mut exec } else { &mut network };
            sharers.insert(target.owner);
        }
        self.network_queue.set_sharers(&network);
        self.exec_queue.set_sharers(&exec);
    }

    /// Counts the tries that have waited in a queue for so long that they will start late.
    pub(super) fn count_waiting_late(&self, now: Instant) -> u64 {
        let waiting = self.network_queue.waiting().chain(self.exec_queue.waiting());
        let late = waiting.filter(|&(key, due)| {
            let ScheduledTarget { location, interval, .. } = &self.scheduled[key];
            location.is_some()
                && start_delay::is_late(now.saturating_duration_since(due), *interval)
        });
        late.count() as u64
    }

    /// Returns the resource of which there is too little, if starts are late.
    pub(super) fn bottleneck(&self) -> Bottleneck {
        match (self.exec_queue.is_saturated(), self.network_queue.is_saturated()) {
            (true, _) => Bottleneck::Commands,
            (false, true) => Bottleneck::Descriptors,
            (false, false) => Bottleneck::Processor,
        }
    }
}
