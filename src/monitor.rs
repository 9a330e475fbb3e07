//! Starts one task for each target, listens to their verdicts, and is the single owner of all health.
//!
//! Each task tries its target at a fixed phase of the interval, so that starts are spread, and never twice at once.
//! Verdicts come back over one bounded channel: a monitor that falls behind slows the tasks down and loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use prometheus::{Histogram, HistogramOpts};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock;
use crate::config::{Database, DatabaseId, Spec};
use crate::health::{self, Health, State, Streak, Transition, Verdict};
use crate::plan::{self, Candidate, Member, Members, Plan};
use crate::probe::{Prober, Target};

/// How often the monitor turns its loop even when nothing happens.
pub const WATCHDOG: Duration = Duration::from_secs(2);

/// Verdicts that may wait for the monitor. Beyond it the target tasks wait.
const REPORTS: usize = 1024;

/// What the rest of the daemon holds of the monitor.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    plans: Arc<BTreeMap<DatabaseId, watch::Receiver<Plan>>>,
    turned: watch::Receiver<Instant>,
}

impl Handle {
    /// The decision for a database, and each newer one.
    pub fn plan(&self, id: &DatabaseId) -> Option<watch::Receiver<Plan>> {
        self.plans.get(id).cloned()
    }

    /// Tells which members the cluster holds for a database when it is first seen.
    pub async fn seen(&self, id: &DatabaseId, members: Members) {
        // A monitor that is gone needs no telling: the daemon is ending.
        let _ = self.commands.send(Command::Seen(id.clone(), members)).await;
    }

    /// All that is known now; none if the monitor is gone.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.commands.send(Command::Snapshot(reply)).await.ok()?;
        snapshot.await.ok()
    }

    /// When the monitor last turned its loop.
    pub fn turned(&self) -> Instant {
        *self.turned.borrow()
    }
}

/// All that is known at one moment.
#[derive(Debug)]
pub struct Snapshot {
    pub databases: Vec<DatabaseSnapshot>,
    /// How late tries started, in seconds after they were due.
    pub start_delay: Histogram,
}

#[derive(Debug)]
pub struct DatabaseSnapshot {
    pub id: DatabaseId,
    pub plan: Plan,
    pub targets: Vec<TargetSnapshot>,
    /// How long tries took, in seconds.
    pub check_duration: Histogram,
}

#[derive(Debug, Clone)]
pub struct TargetSnapshot {
    pub member: Member,
    pub health: Health,
    /// When the newest verdict came, and how long the try took.
    pub last: Option<(Instant, Duration)>,
    pub counts: Counts,
}

/// What has been counted of one target since the daemon started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub pass: u64,
    pub fail: u64,
    pub inconclusive: u64,
    pub to_up: u64,
    pub to_down: u64,
}

enum Command {
    Seen(DatabaseId, Members),
    Snapshot(oneshot::Sender<Snapshot>),
}

/// One verdict on its way from a target's task to the monitor.
struct Report {
    database: usize,
    target: usize,
    verdict: Verdict,
    delay: Duration,
    duration: Duration,
}

/// A database and all that is known of it.
struct Watched {
    database: Arc<Database>,
    targets: Vec<TargetSnapshot>,
    plan: watch::Sender<Plan>,
    check_duration: Histogram,
}

struct Monitor {
    databases: Vec<Watched>,
    by_id: HashMap<DatabaseId, usize>,
    start_delay: Histogram,
    commands: mpsc::Receiver<Command>,
    turned: watch::Sender<Instant>,
}

/// Starts to check every target of `spec`. Dropping the returned set of tasks ends it all.
pub fn start(spec: &Spec) -> (Handle, JoinSet<()>) {
    let now = clock::now();
    let (commands_in, commands) = mpsc::channel(64);
    let (turned, turned_out) = watch::channel(now);
    let databases: Vec<Watched> = spec.databases.iter().map(|database| Watched::new(database, now)).collect();
    let plans = databases.iter().map(|watched| (watched.database.id.clone(), watched.plan.subscribe())).collect();
    let by_id = databases.iter().enumerate().map(|(i, watched)| (watched.database.id.clone(), i)).collect();
    let start_delay = histogram("start_delay", &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);

    let mut tasks = JoinSet::new();
    let (report, reports) = mpsc::channel(REPORTS);
    spawn_targets(&mut tasks, spec, now, &report);
    tasks.spawn(Monitor { databases, by_id, start_delay, commands, turned }.run(reports));
    (Handle { commands: commands_in, plans: Arc::new(plans), turned: turned_out }, tasks)
}

/// Spawns the targets' tasks, those of one interval spread evenly over it.
fn spawn_targets(tasks: &mut JoinSet<()>, spec: &Spec, now: Instant, report: &mpsc::Sender<Report>) {
    let intervals =
        spec.databases.iter().flat_map(|database| &database.addresses).map(|address| address.check.interval);
    let mut phases = Phases::of(intervals);
    for (d, database) in spec.databases.iter().enumerate() {
        for (t, address) in database.addresses.iter().enumerate() {
            let interval = address.check.interval;
            let first = now + phases.next(interval);
            let prober = Arc::new(Prober::new(address.check.clone(), Target::new(database, address)));
            let probe = move || {
                let prober = prober.clone();
                async move { prober.probe().await }
            };
            tasks.spawn(check_target((d, t), probe, first, interval, report.clone()));
        }
    }
}

/// Deals out places in an interval, evenly to all targets that have the same.
struct Phases(HashMap<Duration, (u32, u32)>);

impl Phases {
    fn of(intervals: impl Iterator<Item = Duration>) -> Self {
        let mut phases: HashMap<Duration, (u32, u32)> = HashMap::new();
        for interval in intervals {
            phases.entry(interval).or_default().1 += 1;
        }
        Self(phases)
    }

    fn next(&mut self, interval: Duration) -> Duration {
        let (place, places) = self.0.entry(interval).or_insert((0, 1));
        let phase = interval.mul_f64(f64::from(*place) / f64::from(*places));
        *place += 1;
        phase
    }
}

/// Tries one target for as long as the daemon runs: one try at a time, each at its phase of the interval. A try that is
/// missed because the one before took too long is not made up for.
async fn check_target<F>(
    (database, index): (usize, usize),
    probe: impl Fn() -> F,
    first: Instant,
    interval: Duration,
    reports: mpsc::Sender<Report>,
) where
    F: Future<Output = Verdict>,
{
    let mut due = first;
    loop {
        tokio::time::sleep_until(due.into()).await;
        let started = clock::now();
        // A defect of ours must not end the checks of this target for good.
        let tried = AssertUnwindSafe(probe()).catch_unwind().await;
        let verdict =
            tried.unwrap_or_else(|_| Verdict::Inconclusive("check: a defect of this daemon; see its log".into()));
        let report = Report {
            database,
            target: index,
            verdict,
            delay: started.saturating_duration_since(due),
            duration: clock::now().saturating_duration_since(started),
        };
        if reports.send(report).await.is_err() {
            return;
        }
        due = next_due(due, interval, clock::now());
    }
}

/// When the next try is due: an interval after the last, or, where that is over already, at the target's next phase. A try
/// that used its interval up to the end, as one that times out does, may make the next one late by a tenth.
fn next_due(last: Instant, interval: Duration, now: Instant) -> Instant {
    let next = last + interval;
    let late = now.saturating_duration_since(next);
    if late <= interval / 10 {
        return next;
    }
    let missed = late.as_nanos() / interval.as_nanos() + 1;
    next + interval * u32::try_from(missed).unwrap_or(u32::MAX)
}

impl Monitor {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        let mut watchdog = tokio::time::interval(WATCHDOG);
        loop {
            tokio::select! {
                Some(report) = reports.recv() => self.hear(report),
                command = self.commands.recv() => match command {
                    Some(Command::Seen(id, members)) => self.see(&id, &members),
                    // Whoever asked may have gone away meanwhile.
                    Some(Command::Snapshot(reply)) => drop(reply.send(self.snapshot())),
                    None => return,
                },
                _ = watchdog.tick() => {}
            }
            self.turned.send_replace(clock::now());
        }
    }

    fn hear(&mut self, report: Report) {
        self.start_delay.observe(report.delay.as_secs_f64());
        self.databases[report.database].hear(report, clock::now());
    }

    fn see(&mut self, id: &DatabaseId, members: &Members) {
        if let Some(&index) = self.by_id.get(id) {
            self.databases[index].see(members, clock::now());
        }
    }

    fn snapshot(&self) -> Snapshot {
        let databases = self.databases.iter().map(|watched| DatabaseSnapshot {
            id: watched.database.id.clone(),
            plan: watched.plan.borrow().clone(),
            targets: watched.targets.clone(),
            check_duration: watched.check_duration.clone(),
        });
        Snapshot { databases: databases.collect(), start_delay: self.start_delay.clone() }
    }
}

impl Watched {
    fn new(database: &Arc<Database>, now: Instant) -> Self {
        let targets: Vec<TargetSnapshot> = database
            .addresses
            .iter()
            .map(|address| TargetSnapshot {
                member: Member { ip: address.ip, hostname: address.hostname.clone() },
                health: Health::new(now),
                last: None,
                counts: Counts::default(),
            })
            .collect();
        let (plan, _) = watch::channel(decide(&targets));
        let buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Self { database: database.clone(), targets, plan, check_duration: histogram("check_duration", &buckets) }
    }

    fn hear(&mut self, report: Report, now: Instant) {
        let Report { target: index, verdict, duration, .. } = report;
        self.check_duration.observe(duration.as_secs_f64());
        let target = &mut self.targets[index];
        target.last = Some((now, duration));
        match verdict {
            Verdict::Pass => target.counts.pass += 1,
            Verdict::Fail(_) => target.counts.fail += 1,
            Verdict::Inconclusive(_) => target.counts.inconclusive += 1,
        }
        self.tell_of_inconclusive(index, &verdict);
        let target = &mut self.targets[index];
        let thresholds = self.database.addresses[index].check.thresholds;
        let first = !target.health.tried();
        let transition = health::observe(&mut target.health, &verdict, thresholds, now);
        self.tell(index, transition);
        self.tell_of_unseen(index);
        if first || transition.is_some() {
            self.decide();
        }
    }

    fn see(&mut self, members: &Members, now: Instant) {
        for index in 0..self.targets.len() {
            let target = &mut self.targets[index];
            let published = members.contains(target.member.ip);
            let thresholds = self.database.addresses[index].check.thresholds;
            let transition = health::see(&mut target.health, published, thresholds, now);
            self.tell(index, transition);
        }
        self.decide();
    }

    /// Counts a transition, and tells it.
    fn tell(&mut self, index: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let target = &mut self.targets[index];
        let DatabaseId { namespace, service } = &self.database.id;
        let address = target.member.ip;
        match transition.to {
            State::Up => {
                target.counts.to_up += 1;
                info!(%namespace, %service, %address, from = %transition.from, "target is up");
            }
            State::Down => {
                target.counts.to_down += 1;
                let reason = target.health.reason().unwrap_or_default();
                warn!(%namespace, %service, %address, from = %transition.from, reason, "target is down");
            }
            State::Unknown => unreachable!("no target becomes unknown"),
        }
    }

    /// Decides anew. Only a transition, or the first verdict of a target, can change a plan.
    fn decide(&self) {
        let plan = decide(&self.targets);
        self.plan.send_if_modified(|held| std::mem::replace(held, plan.clone()) != plan);
    }

    /// Tells once that a target fails, where its health can't: it has none before the cluster has been seen.
    fn tell_of_unseen(&self, index: usize) {
        let health = &self.targets[index].health;
        let unhealthy = self.database.addresses[index].check.thresholds.unhealthy;
        if health.state() == State::Unknown && health.streak() == Streak::Failures(unhealthy) {
            let DatabaseId { namespace, service } = &self.database.id;
            let (address, reason) = (self.targets[index].member.ip, health.reason().unwrap_or_default());
            warn!(%namespace, %service, %address, reason, "target fails; it will be down once the cluster has been read");
        }
    }

    /// Tells once that tries have become inconclusive, not at every try.
    fn tell_of_inconclusive(&self, index: usize, verdict: &Verdict) {
        let target = &self.targets[index];
        if let Verdict::Inconclusive(reason) = verdict
            && target.health.reason() != Some(reason)
        {
            let DatabaseId { namespace, service } = &self.database.id;
            warn!(%namespace, %service, address = %target.member.ip, reason, "check is inconclusive; health stays as it is");
        }
    }
}

fn decide(targets: &[TargetSnapshot]) -> Plan {
    plan::decide(targets.iter().map(|target| Candidate {
        member: &target.member,
        state: target.health.state(),
        tried: target.health.tried(),
        reason: target.health.reason(),
    }))
}

/// A histogram that the metrics page names and labels.
fn histogram(name: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, name).buckets(buckets.to_vec());
    Histogram::with_opts(opts).expect("the buckets are sorted and the name is valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn targets_of_one_interval_are_spread_evenly_over_it() {
        let mut phases = Phases::of([SECOND, SECOND * 5, SECOND, SECOND, SECOND].into_iter());
        let dealt: Vec<u128> = (0..4).map(|_| phases.next(SECOND).as_millis()).collect();
        assert_eq!(dealt, [0, 250, 500, 750]);
        assert_eq!(phases.next(SECOND * 5), Duration::ZERO);
    }

    /// Runs one target's task for `time`, with tries that take as long as `takes` says, and tells when they started.
    async fn starts(time: Duration, takes: impl Fn(u32) -> Duration + Send + Sync + 'static) -> Vec<u128> {
        let from = clock::now();
        let starts: Arc<Mutex<Vec<u128>>> = Arc::default();
        let (seen, tries, takes) = (starts.clone(), Arc::new(AtomicU32::new(0)), Arc::new(takes));
        let probe = move || {
            let try_ = tries.fetch_add(1, Ordering::Relaxed);
            seen.lock().unwrap().push((clock::now() - from).as_millis());
            let pause = takes(try_);
            async move {
                tokio::time::sleep(pause).await;
                Verdict::Pass
            }
        };
        let (report, mut reports) = mpsc::channel(REPORTS);
        let mut tasks = JoinSet::new();
        tasks.spawn(check_target((0, 0), probe, from + Duration::from_millis(300), SECOND, report));
        tasks.spawn(async move { while reports.recv().await.is_some() {} });
        tokio::time::sleep(time).await;
        tasks.shutdown().await;
        starts.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn tries_start_at_their_phase_of_every_interval() {
        let starts = starts(SECOND * 5, |_| Duration::from_millis(900)).await;
        assert_eq!(starts, [300, 1300, 2300, 3300, 4300]);
    }

    #[tokio::test(start_paused = true)]
    async fn missed_tries_are_not_made_up_for_and_none_runs_beside_another() {
        let slow_first = |try_| if try_ == 0 { Duration::from_millis(3500) } else { Duration::ZERO };
        assert_eq!(starts(SECOND * 7, slow_first).await, [300, 4300, 5300, 6300]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_takes_just_the_interval_misses_none() {
        let starts = starts(SECOND * 4, |_| Duration::from_millis(1010)).await;
        assert_eq!(starts, [300, 1310, 2320, 3330]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_panics_says_nothing_and_the_next_one_comes() {
        let (report, mut reports) = mpsc::channel(REPORTS);
        let tries = Arc::new(AtomicU32::new(0));
        let probe = move || {
            let try_ = tries.fetch_add(1, Ordering::Relaxed);
            async move { if try_ == 0 { panic!("a defect, made for this test") } else { Verdict::Pass } }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(check_target((0, 0), probe, clock::now(), SECOND, report));
        let first = reports.recv().await.expect("a report").verdict;
        assert!(matches!(first, Verdict::Inconclusive(_)), "{first:?}");
        assert_eq!(reports.recv().await.expect("a report").verdict, Verdict::Pass);
    }
}
