//! Starts the tries of all targets when they are due, listens to their verdicts, and is the single owner of all health.
//!
//! No try waits for another, and no target is tried twice at once: light checks go into one reactor, and each try of any other
//! is a task of its own, whose verdict comes back over one channel, which holds at most one for each target. The monitor is a
//! plain loop on a thread of its own, which waits for its reactor and for the waker.
//!
//! Each turn of the loop is short, whatever comes in: it does as much of each kind of work as a `Budget` allows, and goes on
//! with the rest in the next turn, which then does not wait. It reads no files, and waits for nobody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::annotations::ServiceAnnotations;
use crate::clock;
use crate::config::{Database, DatabaseId, Spec};
use crate::freeze::{Freeze, Rules};
use crate::health::Verdict;
use crate::lease::CheckFacts;
use crate::limits::Limits;
use crate::notice::Recorder;
use crate::plan::{Members, Plan};
use crate::probe::{Completion, Prober, Reactor, Waker};
use crate::schedule::{Next, Schedule, TargetKey};
use admission_queue::{AdmissionQueue, OwnerId, OwnerIds};
use budget::Budget;
use database::DatabaseMonitor;
use facts::{Facts, InconclusiveRun};
pub(crate) use histogram::DurationHistogram;
pub(crate) use snapshot::{DatabaseSnapshot, Snapshot, TargetCounters, TargetState};
use snapshot_channel::{SnapshotReader, SnapshotWriter};
use start_delay::{Bottleneck, StartDelay};

mod admission_queue;
mod budget;
mod database;
mod facts;
mod freeze_driver;
mod histogram;
mod reload;
mod snapshot;
mod snapshot_channel;
mod start_delay;
#[cfg(test)]
mod tests;
mod thread;

pub(crate) use thread::{MonitorThread, start};

/// How often the monitor turns its loop even when nothing happens.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Where the next try is due within this time, the monitor takes a nap as long, in which nothing wakes it: with thousands of
/// tries a second, waking up for each piece of news would be a good part of all the work.
const COALESCE_WINDOW: Duration = Duration::from_millis(1);

/// Commands that may be under way beside one from each database at the start.
const COMMAND_CAPACITY: usize = 64;

/// What the rest of the daemon holds of the monitor.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    plans: watch::Receiver<Arc<Plans>>,
    snapshots: SnapshotReader,
    heartbeat: Arc<Heartbeat>,
    facts: Arc<Facts>,
}

impl Handle {
    /// The decision for a database, and each newer one.
    pub fn plan(&self, id: &DatabaseId) -> Option<watch::Receiver<DatabasePlan>> {
        self.plans.borrow().get(id).cloned()
    }

    /// Has these databases checked from now on, and no others. What did not change goes on as it was.
    pub async fn reload(&self, spec: Arc<Spec>) {
        let (reply, done) = oneshot::channel();
        self.send(Command::Reload(spec, reply)).await;
        // A monitor that is gone decides nothing more.
        let _ = done.await;
    }

    /// Tells which members the cluster holds for a database when it is first seen.
    pub async fn set_initial_members(&self, id: &DatabaseId, members: Members) {
        self.send(Command::SetInitialMembers(id.clone(), members)).await;
    }

    /// Tells which members the cluster holds for a database, by a decision of ours or of the replica that writes.
    pub async fn set_published_members(&self, id: &DatabaseId, members: Members) {
        self.send(Command::SetPublishedMembers(id.clone(), members)).await;
    }

    /// Sends the annotations of a database's Service.
    pub async fn set_annotations(&self, id: &DatabaseId, annotations: ServiceAnnotations) {
        self.send(Command::SetAnnotations(id.clone(), annotations)).await;
    }

    async fn send(&self, command: Command) {
        // A monitor that is gone needs no telling: the daemon is ending.
        let _ = self.commands.send(command).await;
        self.waker.wake();
    }

    /// All that is known now, or was a moment ago: however many ask, they share one. None if the monitor is gone.
    pub async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.get().await
    }

    /// When the monitor last heartbeat its loop.
    pub fn last_heartbeat(&self) -> Instant {
        self.heartbeat.last()
    }

    /// How the checks as a whole do, also while the monitor stands still.
    pub fn check_facts(&self) -> CheckFacts {
        let (late_since, inconclusive_since) =
            (self.facts.late_since(), self.facts.inconclusive_since());
        CheckFacts { last_heartbeat: self.last_heartbeat(), late_since, inconclusive_since }
    }
}

/// When the monitor last heartbeat its loop, for all threads to read.
struct Heartbeat {
    origin: Instant,
    nanos: AtomicU64,
}

impl Heartbeat {
    fn last(&self) -> Instant {
        self.origin + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn record(&self, now: Instant) {
        self.nanos
            .store(now.saturating_duration_since(self.origin).as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The decision for a database as the config has it: a new config changes both at once, so that no plan is ever taken for
/// another version of its database.
#[derive(Debug, Clone)]
pub struct DatabasePlan {
    pub database: Arc<Database>,
    pub plan: Plan,
    /// The addresses that may answer: those of the config that are neither Down nor in maintenance, and those that were neither
    /// when they left it. Empty where the plan tells all.
    pub may_answer: Arc<[IpAddr]>,
}

type Plans = BTreeMap<DatabaseId, watch::Receiver<DatabasePlan>>;

enum Command {
    SetInitialMembers(DatabaseId, Members),
    SetPublishedMembers(DatabaseId, Members),
    SetAnnotations(DatabaseId, ServiceAnnotations),
    Reload(Arc<Spec>, oneshot::Sender<()>),
}

/// One verdict on its way from a try to the monitor.
struct ProbeReport {
    key: TargetKey,
    verdict: Verdict,
    /// How late it started, if that is not yet known.
    delay: Option<Duration>,
    started: Instant,
    ended: Instant,
}

impl ProbeReport {
    fn from_completion(Completion { token, verdict, started }: Completion, ended: Instant) -> Self {
        Self { key: token, verdict, delay: None, started, ended }
    }
}

/// What is tried, and for which database.
struct ScheduledTarget {
    /// The numbers of the database and of its target; none once it has left the config.
    place: Option<(usize, usize)>,
    /// The number that its database's tries are counted by.
    owner: OwnerId,
    prober: Arc<Prober>,
    interval: Duration,
}

/// Checks every target for as long as it runs.
pub(crate) struct Monitor {
    schedule: Schedule,
    /// By their keys in the schedule.
    scheduled: Vec<ScheduledTarget>,
    databases: Vec<DatabaseMonitor>,
    by_id: HashMap<DatabaseId, usize>,
    plans: watch::Sender<Arc<Plans>>,
    recorder: Recorder,
    /// The databases to decide anew, and when.
    reevaluations: BinaryHeap<Reverse<(Instant, usize)>>,
    freeze: Freeze,
    /// From this database on, all are to be decided anew, because a freeze has come or gone.
    undecided: Option<usize>,
    start_delay: StartDelay,
    /// For tries over the network, and for those that run a command.
    network_queue: AdmissionQueue,
    exec_queue: AdmissionQueue,
    owners: OwnerIds,
    commands: mpsc::Receiver<Command>,
    heartbeat: Arc<Heartbeat>,
    facts: Arc<Facts>,
    inconclusive: InconclusiveRun,
    reactor: Reactor,
    waker: Waker,
    /// Verdicts that have come and are yet to be taken; no more than there are tries in flight.
    verdicts: VecDeque<ProbeReport>,
    snapshots: SnapshotWriter,
    report: mpsc::UnboundedSender<ProbeReport>,
    reports: mpsc::UnboundedReceiver<ProbeReport>,
    /// Runs the tries that are tasks.
    runtime: Runtime,
    /// Those of them that take long stretches of a processor at a time run elsewhere.
    heavy: JoinSet<()>,
    cpu_runtime: Runtime,
}

/// Makes a monitor of all targets of `spec`, which checks nothing until it runs. Tries that are no light ones run on `runtime`,
/// but for those that take long stretches of a processor at a time, which run on `cpu_runtime`, so that the others keep
/// their time.
pub(crate) fn build(
    spec: &Spec,
    limits: Limits,
    rules: Rules,
    news: &Recorder,
    runtime: Runtime,
    cpu_runtime: Runtime,
) -> io::Result<(Handle, Monitor)> {
    let now = clock::now();
    let (commands_in, commands) = mpsc::channel(COMMAND_CAPACITY + spec.databases.len());
    let heartbeat = Arc::new(Heartbeat { origin: now, nanos: AtomicU64::new(0) });
    let facts = Arc::new(Facts::new(now));
    let mut reactor = Reactor::new()?;
    let waker = reactor.waker()?;
    let (report, reports) = mpsc::unbounded_channel();
    let (plans, plans_out) = watch::channel(Arc::default());
    let (snapshots, snapshots_out) = snapshot_channel::channel(waker.clone());
    let mut monitor = Monitor {
        schedule: Schedule::new(now),
        scheduled: Vec::new(),
        databases: Vec::new(),
        by_id: HashMap::new(),
        plans,
        recorder: news.clone(),
        reevaluations: BinaryHeap::new(),
        freeze: Freeze::new(rules, spec.databases.iter().map(|database| database.addresses.len())),
        undecided: None,
        start_delay: StartDelay::new(now),
        network_queue: AdmissionQueue::new(limits.max_in_flight),
        exec_queue: AdmissionQueue::new(limits.max_execs),
        owners: OwnerIds::default(),
        commands,
        heartbeat: heartbeat.clone(),
        facts: facts.clone(),
        inconclusive: InconclusiveRun::new(0),
        reactor,
        waker: waker.clone(),
        verdicts: VecDeque::new(),
        snapshots,
        report,
        reports,
        runtime,
        heavy: JoinSet::new(),
        cpu_runtime,
    };
    monitor.reload(spec, now);
    Ok((
        Handle {
            commands: commands_in,
            waker,
            plans: plans_out,
            snapshots: snapshots_out,
            heartbeat,
            facts,
        },
        monitor,
    ))
}

impl Monitor {
    /// What wakes the monitor.
    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Checks until told to stop, or until nobody holds a handle.
    pub(crate) fn run(mut self, mut stop: oneshot::Receiver<()>) -> io::Result<()> {
        while matches!(stop.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            let due = self.start_due();
            let again = self.reevaluate_due(clock::now());
            let next = due.into_iter().chain(self.reactor.deadline()).chain(again).min();
            let wait = next.map_or(HEARTBEAT_INTERVAL, |next| {
                next.saturating_duration_since(clock::now()).min(HEARTBEAT_INTERVAL)
            });
            let wait = if self.has_backlog() { Duration::ZERO } else { wait };
            let nap = (Duration::from_nanos(1)..=COALESCE_WINDOW).contains(&wait);
            self.reactor.wait(if nap { Duration::ZERO } else { wait })?;
            let now = clock::now();
            self.heartbeat.record(now);
            self.drain_reactor(now)?;
            self.apply_results();
            if self.run_commands(now).is_err() {
                break;
            }
            self.share_snapshot(now);
            let bottleneck = self.bottleneck();
            if self.start_delay.is_window_over(now) {
                self.start_delay.set_waiting(self.count_waiting_late(now));
            }
            self.start_delay.evaluate(now, || bottleneck);
            self.facts.set_late_since(self.start_delay.late_since());
            self.facts.set_inconclusive_since(self.inconclusive.since());
            if nap {
                std::thread::sleep(COALESCE_WINDOW);
            }
        }
        Ok(())
    }

    /// Whether a turn left something for the next.
    fn has_backlog(&self) -> bool {
        !self.verdicts.is_empty()
            || !self.reports.is_empty()
            || !self.commands.is_empty()
            || self.undecided.is_some()
            || self.freeze.has_changed()
            || self.snapshots.is_busy()
    }

    /// Fetches the verdicts that have come.
    fn drain_reactor(&mut self, now: Instant) -> io::Result<()> {
        let verdicts = &mut self.verdicts;
        self.reactor.drain(now, |try_| verdicts.push_back(ProbeReport::from_completion(try_, now)))
    }

    /// Takes in the verdicts of light tries and those of tasks, as many of each as a turn may.
    /// However many there are of one kind, the other has its share of each turn.
    fn apply_results(&mut self) {
        let mut budget = Budget::new();
        while !self.verdicts.is_empty() && budget.try_spend() {
            let Some(report) = self.verdicts.pop_front() else { break };
            self.on_result(&report);
        }
        let mut budget = Budget::new();
        while !self.reports.is_empty() && budget.try_spend() {
            let Ok(report) = self.reports.try_recv() else { break };
            self.on_result(&report);
        }
    }

    /// Does what it was told to, as much as a turn may. An error says that there is nobody left to tell it anything.
    fn run_commands(&mut self, now: Instant) -> Result<(), TryRecvError> {
        let mut budget = Budget::new();
        while budget.try_spend() {
            match self.commands.try_recv() {
                Ok(Command::SetInitialMembers(id, members)) => self
                    .update_database(&id, |database, freeze| {
                        database.set_initial_members(&members, freeze, now)
                    }),
                Ok(Command::SetPublishedMembers(id, members)) => self
                    .update_database(&id, |database, freeze| {
                        database.set_published_members(members, freeze, now)
                    }),
                Ok(Command::SetAnnotations(id, annotations)) => self
                    .update_database(&id, |database, freeze| {
                        database.set_annotations(annotations, freeze, now)
                    }),
                // Whoever asked may have gone away meanwhile.
                Ok(Command::Reload(spec, done)) => {
                    self.reload(&spec, now);
                    let _ = done.send(());
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(gone @ TryRecvError::Disconnected) => return Err(gone),
            }
        }
        Ok(())
    }

    /// Starts what is due, or has it wait for a place. Returns when to look again, unless that is after a verdict only.
    fn start_due(&mut self) -> Option<Instant> {
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

    /// Starts what waits for a place, as far as there are any.
    fn start_admitted(&mut self, now: Instant) {
        while let Some((key, due)) =
            self.network_queue.try_admit().or_else(|| self.exec_queue.try_admit())
        {
            let &ScheduledTarget { place, owner, ref prober, interval } = &self.scheduled[key];
            if place.is_none() {
                // It left the config while it waited.
                self.queue_for(key).release(owner);
                self.schedule.complete(key, now, now, false);
                continue;
            }
            let Some(light) = prober.fast_check() else {
                self.spawn(key, due);
                continue;
            };
            self.start_delay.observe(now.saturating_duration_since(due), interval);
            let ended = self.reactor.start(key, light, now);
            self.verdicts.extend(ended.map(|ended| ProbeReport::from_completion(ended, now)));
        }
    }

    fn queue_for(&mut self, key: TargetKey) -> &mut AdmissionQueue {
        match self.scheduled[key].prober.is_exec() {
            true => &mut self.exec_queue,
            false => &mut self.network_queue,
        }
    }

    /// Tells which databases share the places of each kind.
    fn update_sharers(&mut self) {
        let owners = |is_command: bool| {
            let tried = self.scheduled.iter().filter(|tried| tried.place.is_some());
            let tried = tried.filter(|tried| tried.prober.is_exec() == is_command);
            tried.map(|tried| tried.owner).collect::<BTreeSet<OwnerId>>()
        };
        let (network, commands) = (owners(false), owners(true));
        self.network_queue.set_sharers(&network);
        self.exec_queue.set_sharers(&commands);
    }

    /// Counts the tries that have waited for a place for so long that they will start late.
    fn count_waiting_late(&self, now: Instant) -> u64 {
        let waiting = self.network_queue.waiting().chain(self.exec_queue.waiting());
        let late = waiting.filter(|&(key, due)| {
            let ScheduledTarget { place, interval, .. } = &self.scheduled[key];
            place.is_some() && start_delay::is_late(now.saturating_duration_since(due), *interval)
        });
        late.count() as u64
    }

    fn bottleneck(&self) -> Bottleneck {
        match (self.exec_queue.is_saturated(), self.network_queue.is_saturated()) {
            (true, _) => Bottleneck::Commands,
            (false, true) => Bottleneck::Descriptors,
            (false, false) => Bottleneck::Processor,
        }
    }

    /// Starts a try in a task of its own.
    fn spawn(&mut self, key: TargetKey, due: Instant) {
        let prober = self.scheduled[key].prober.clone();
        let (report, waker) = (self.report.clone(), self.waker.clone());
        let cpu_bound = prober.is_cpu_bound();
        let try_ = async move {
            let started = clock::now();
            // A defect of ours must not end the checks of this target for good.
            let tried = AssertUnwindSafe(prober.probe()).catch_unwind().await;
            let verdict = tried.unwrap_or_else(|_| {
                Verdict::Inconclusive("check: a defect of this daemon; see its log".into())
            });
            let delay = started.saturating_duration_since(due);
            // A monitor that is gone needs no telling.
            let _ = report.send(ProbeReport {
                key,
                verdict,
                delay: Some(delay),
                started,
                ended: clock::now(),
            });
            waker.wake();
        };
        if cpu_bound {
            while self.heavy.try_join_next().is_some() {}
            self.heavy.spawn_on(try_, &self.cpu_runtime);
        } else {
            self.runtime.spawn(try_);
        }
    }

    fn on_result(&mut self, report: &ProbeReport) {
        let &ScheduledTarget { place, owner, interval, .. } = &self.scheduled[report.key];
        self.queue_for(report.key).release(owner);
        report.delay.into_iter().for_each(|delay| self.start_delay.observe(delay, interval));
        let in_doubt = place.is_some_and(|(database, target)| {
            self.inconclusive.observe(report.key, &report.verdict, report.ended);
            let in_doubt = self.databases[database].on_result(target, report, &mut self.freeze);
            self.schedule_reevaluation(database);
            in_doubt
        });
        self.schedule.complete(report.key, report.started, report.ended, in_doubt);
    }

    fn update_database(
        &mut self,
        id: &DatabaseId,
        change: impl FnOnce(&mut DatabaseMonitor, &mut Freeze),
    ) {
        if let Some(&index) = self.by_id.get(id) {
            change(&mut self.databases[index], &mut self.freeze);
            self.schedule_reevaluation(index);
        }
    }

    /// Remembers when to decide anew for a database.
    fn schedule_reevaluation(&mut self, index: usize) {
        if let Some(again) = self.databases[index].take_reevaluation() {
            self.reevaluations.push(Reverse((again, index)));
        }
    }

    /// Decides anew for the databases that are due, and for those that a freeze has left to decide.
    /// Returns when the next is due.
    fn reevaluate_due(&mut self, now: Instant) -> Option<Instant> {
        self.reevaluate_databases(now);
        let freeze = self.update_freeze(now);
        // Read after all decisions of the turn: each can bring another date.
        let database = self.reevaluations.peek().map(|&Reverse((again, _))| again);
        database.into_iter().chain(freeze).min()
    }

    /// Decides anew for the databases whose time has come, as many as a turn may.
    fn reevaluate_databases(&mut self, now: Instant) {
        let mut budget = Budget::new();
        while let Some(&Reverse((again, index))) = self.reevaluations.peek() {
            if again > now || !budget.try_spend() {
                return;
            }
            self.reevaluations.pop();
            self.databases[index].reevaluate_if_due(&mut self.freeze, now);
            self.schedule_reevaluation(index);
        }
    }

    /// Makes a snapshot for those who wait for one, as much of it as a turn may.
    fn share_snapshot(&mut self, now: Instant) {
        let Self { databases, snapshots, start_delay, freeze, .. } = self;
        if !snapshots.is_wanted(now) || !snapshots.advance(databases) {
            return;
        }
        snapshots.share(|fresh_until, databases| Snapshot {
            fresh_until,
            databases,
            start_delay: start_delay.delays().clone(),
            started_late: start_delay.late(),
            frozen: freeze.frozen(),
        });
    }
}
