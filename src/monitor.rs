//! The monitor: starts the tries of all targets, applies their verdicts, and is the single owner of
//! all health.
//!
//! ```text
//! starts         schedule -> admission queue -> reactor, or a task
//! results        verdict  -> health -> plan
//! commands       members, annotations and configs from the rest of the daemon
//! reevaluation   what becomes due by time alone
//! freeze_driver  what changes for all databases together
//! ```
//!
//! No try waits for another, and no target is tried twice at once. Checks that only use the network
//! run in one reactor. A try of any other kind is a task, and its result comes back over a channel
//! that holds at most one for each target. The monitor is a plain loop on a thread of its own,
//! which waits for the reactor or its waker.
//!
//! Each turn of the loop is short, whatever comes in: it does as much of each kind of work as a
//! [`budget::Budget`] allows, and continues in the next turn, which then does not wait. The loop
//! reads no files, and waits for nothing else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{Database, DatabaseId, Spec};
use crate::freeze::{Freeze, Rules};
use crate::limits::Limits;
use crate::notice::Recorder;
use crate::probe::{Prober, Reactor, Waker};
use crate::resolve;
use crate::schedule::Schedule;
use admission_queue::{AdmissionQueue, OwnerId, OwnerIds};
pub(crate) use change_log::{Change, ChangeKind};
pub(crate) use check_durations::CheckDurations;
use commands::Command;
use database::DatabaseMonitor;
pub(crate) use database::{CONCLUSIVE, ServiceFacts, end_of_missing_role, target_note};
use facts::{Facts, InconclusiveRun};
pub(crate) use handle::{DatabasePlan, Handle};
use handle::{Heartbeat, Plans};
pub(crate) use histogram::DurationHistogram;
pub(crate) use last_hour::{LastHour, Minute};
use names::Names;
use results::ProbeReport;
pub(crate) use snapshot::{
    DatabaseSnapshot, NameSnapshot, Origin, Snapshot, TargetCheck, TargetCounters, TargetState,
    Trouble,
};
use snapshot_channel::SnapshotWriter;
use start_delay::StartDelay;
pub(crate) use thread::{MonitorThread, start};

mod admission_queue;
mod budget;
mod change_log;
mod check_durations;
mod commands;
mod database;
mod facts;
mod freeze_driver;
mod handle;
mod histogram;
mod last_hour;
mod names;
mod reevaluation;
mod reload;
mod results;
mod snapshot;
mod snapshot_channel;
mod start_delay;
mod starts;
#[cfg(test)]
mod tests;
mod thread;

/// Time between two turns of the loop when nothing happens.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Time from one turn of the monitor to the next, and nothing wakes it before, when the next try is
/// due within it. With thousands of tries a second, a wake-up for each result would be a good part
/// of all the work, and what is done in one go costs less, here and in the kernel.
///
/// The tries of so long a time must be able to start together: the schedule allows that.
const COALESCE_WINDOW: Duration = Duration::from_millis(2);

/// The shortest timeout of a check whose answers may wait for the next turn. A conversation may
/// have a dozen answers.
const MIN_COALESCED_TIMEOUT: Duration = Duration::from_millis(100);

/// Commands that may wait, besides one from each database at the start.
const COMMAND_CAPACITY: usize = 64;

/// One target in the schedule.
struct ScheduledTarget {
    /// The indices of the database and of its target; none once the target has left the config.
    location: Option<(usize, usize)>,
    /// The number by which the tries of its database are counted.
    owner: OwnerId,
    prober: Arc<Prober>,
    interval: Duration,
}

/// The state of the loop.
pub(crate) struct Monitor {
    schedule: Schedule,
    /// By their keys in the schedule.
    scheduled: Vec<ScheduledTarget>,
    databases: Vec<DatabaseMonitor>,
    by_id: HashMap<DatabaseId, usize>,
    names: Names,
    /// True if another number of databases may use a queue.
    sharers_changed: bool,
    /// The time at which that was looked at last.
    sharers_updated_at: Instant,
    plans: watch::Sender<Arc<Plans>>,
    recorder: Recorder,
    /// The databases to reevaluate, with the time of each. An entry may be out of date.
    reevaluations: BinaryHeap<Reverse<(Instant, usize)>>,
    freeze: Freeze,
    /// The first database that is still to be decided after a freeze began or ended.
    undecided: Option<usize>,
    check_durations: CheckDurations,
    start_delay: StartDelay,
    network_queue: AdmissionQueue,
    exec_queue: AdmissionQueue,
    owners: OwnerIds,
    commands: mpsc::Receiver<Command>,
    heartbeat: Arc<Heartbeat>,
    facts: Arc<Facts>,
    inconclusive: InconclusiveRun,
    reactor: Reactor,
    waker: Waker,
    /// Results of the reactor that are not applied yet: at most one for each try in flight.
    reactor_results: VecDeque<ProbeReport>,
    task_results: mpsc::UnboundedReceiver<ProbeReport>,
    task_results_in: mpsc::UnboundedSender<ProbeReport>,
    snapshots: SnapshotWriter,
    /// Runs the tries that are tasks.
    runtime: Runtime,
    /// Runs those tasks that use a processor for long stretches, so that they do not delay the
    /// others.
    cpu_runtime: Runtime,
    cpu_tasks: JoinSet<()>,
}

/// Builds a monitor of all targets of `spec`. It checks nothing before it runs.
pub(crate) fn build(
    spec: &Spec,
    limits: Limits,
    rules: Rules,
    recorder: &Recorder,
    resolver: resolve::Handle,
    (runtime, cpu_runtime): (Runtime, Runtime),
) -> io::Result<(Handle, Monitor)> {
    let now = clock::now();
    let mut reactor = Reactor::new()?;
    let waker = reactor.waker()?;
    let (handle, ends) = handle::channel(spec.databases.len(), waker.clone(), now);
    let (task_results_in, task_results) = mpsc::unbounded_channel();
    let mut monitor = Monitor {
        schedule: Schedule::new(now),
        scheduled: Vec::new(),
        databases: Vec::new(),
        by_id: HashMap::new(),
        names: Names::new(resolver),
        sharers_changed: false,
        sharers_updated_at: now,
        plans: ends.plans,
        recorder: recorder.clone(),
        reevaluations: BinaryHeap::new(),
        freeze: Freeze::new(rules, spec.databases.iter().map(|database| entries(database))),
        undecided: None,
        check_durations: CheckDurations::default(),
        start_delay: StartDelay::new(now),
        network_queue: AdmissionQueue::new(limits.max_in_flight),
        exec_queue: AdmissionQueue::new(limits.max_execs),
        owners: OwnerIds::default(),
        commands: ends.commands,
        heartbeat: ends.heartbeat,
        facts: ends.facts,
        inconclusive: InconclusiveRun::new(0),
        reactor,
        waker,
        reactor_results: VecDeque::new(),
        task_results,
        task_results_in,
        snapshots: ends.snapshots,
        runtime,
        cpu_runtime,
        cpu_tasks: JoinSet::new(),
    };
    monitor.reload(spec, now);
    Ok((handle, monitor))
}

/// Returns the number of a database's entries: about as many targets as it will have.
fn entries(database: &Database) -> usize {
    database.addresses.len() + database.names.len()
}

/// Returns whether nothing wakes the monitor for the rest of a turn, which would else wait so long.
fn coalesces(wait: Duration, shortest_timeout: Option<Duration>) -> bool {
    (Duration::from_nanos(1)..=COALESCE_WINDOW).contains(&wait)
        && shortest_timeout.is_none_or(|timeout| timeout >= MIN_COALESCED_TIMEOUT)
}

impl Monitor {
    /// Returns a waker of the loop.
    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Runs the loop until `stop` is dropped, or until no handle is left.
    pub(crate) fn run(mut self, mut stop: oneshot::Receiver<()>) -> io::Result<()> {
        while matches!(stop.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            let began = clock::now();
            let due = self.start_due();
            let reevaluate_at = self.reevaluate_due(clock::now());
            let next = due.into_iter().chain(self.reactor.deadline()).chain(reevaluate_at).min();
            let wait = next.map_or(HEARTBEAT_INTERVAL, |next| {
                next.saturating_duration_since(clock::now()).min(HEARTBEAT_INTERVAL)
            });
            let wait = if self.has_backlog() { Duration::ZERO } else { wait };
            let coalesces = coalesces(wait, self.reactor.shortest_timeout());
            self.reactor.wait(if coalesces { Duration::ZERO } else { wait })?;
            let now = clock::now();
            self.heartbeat.record(now);
            self.drain_reactor(now)?;
            self.apply_results();
            if self.run_commands(now).is_err() {
                break;
            }
            self.update_sharers_if_due(now);
            self.advance_snapshot(now);
            self.evaluate_start_delay(now);
            if coalesces {
                let turn = clock::now().saturating_duration_since(began);
                std::thread::sleep(COALESCE_WINDOW.saturating_sub(turn));
            }
        }
        Ok(())
    }

    /// Returns whether a turn left work for the next.
    fn has_backlog(&self) -> bool {
        !self.reactor_results.is_empty()
            || !self.task_results.is_empty()
            || !self.commands.is_empty()
            || self.undecided.is_some()
            || self.freeze.has_changed()
            || self.snapshots.is_busy()
    }

    /// Evaluates how late tries start, and publishes the facts for other threads.
    fn evaluate_start_delay(&mut self, now: Instant) {
        let bottleneck = self.bottleneck();
        if self.start_delay.is_window_over(now) {
            self.start_delay.set_waiting(self.count_waiting_late(now));
        }
        self.start_delay.evaluate(now, || bottleneck);
        self.facts.set_late_since(self.start_delay.late_since());
        self.facts.set_inconclusive_since(self.inconclusive.since());
    }

    /// Makes a snapshot if one is requested, as much of it as a turn may.
    fn advance_snapshot(&mut self, now: Instant) {
        let Self { databases, schedule, snapshots, check_durations, start_delay, .. } = self;
        let freeze = &self.freeze;
        if !snapshots.begin_if_requested(now) || !snapshots.advance(databases, schedule) {
            return;
        }
        snapshots.publish(|fresh_until, databases| Snapshot {
            fresh_until,
            databases,
            check_durations: check_durations.clone(),
            start_delay: start_delay.delays().clone(),
            started_late: start_delay.late_starts(),
            frozen: freeze.frozen(),
        });
    }
}
