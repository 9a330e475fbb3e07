//! Starts the tries of all targets when they are due, listens to their verdicts, and is the single owner of all health.
//!
//! No try waits for another, and no target is tried twice at once: light checks go into one swarm, and each try of any other
//! is a task of its own, whose verdict comes back over one channel, which holds at most one for each target.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{DatabaseId, Refused, Spec};
use crate::health::{Health, Verdict};
use crate::limits::Limits;
use crate::news::Teller;
use crate::plan::{Member, Members, Plan};
use crate::probe::{Ended, Prober, Swarm, Target};
use crate::schedule::{Key, Next, Rhythm, Schedule};
pub use histogram::Histogram;
use lateness::{Lateness, Scarce};
use places::Places;
use watched::Watched;

mod histogram;
mod lateness;
mod places;
mod thread;
mod watched;

pub use thread::{Checking, start};

/// How often the monitor turns its loop even when nothing happens.
pub const WATCHDOG: Duration = Duration::from_secs(2);

/// Commands that may be under way beside one from each database at the start.
const AHEAD: usize = 64;

/// Verdicts that are heard before anything else is done.
const HEARD_AT_ONCE: usize = 256;

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
    /// How long after they were due tries started.
    pub start_delay: Histogram,
    /// Tries that started more than half an interval after they were due.
    pub started_late: u64,
}

#[derive(Debug)]
pub struct DatabaseSnapshot {
    pub id: DatabaseId,
    pub plan: Plan,
    pub targets: Vec<TargetSnapshot>,
    /// The addresses that may not be published, and are no targets.
    pub refused: Vec<Refused>,
    /// How long tries took.
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

/// One verdict on its way from a try to the monitor.
struct Report {
    key: Key,
    verdict: Verdict,
    /// How late it started, if that is not yet known.
    delay: Option<Duration>,
    started: Instant,
    ended: Instant,
}

impl Report {
    fn of(Ended { tag, verdict, started }: Ended, ended: Instant) -> Self {
        Self { key: tag, verdict, delay: None, started, ended }
    }
}

/// What is tried, and for which database.
struct Tried {
    database: usize,
    target: usize,
    prober: Arc<Prober>,
    interval: Duration,
}

/// Checks every target for as long as it runs.
pub struct Monitor {
    schedule: Schedule,
    /// By their keys in the schedule.
    tried: Vec<Tried>,
    databases: Vec<Watched>,
    by_id: HashMap<DatabaseId, usize>,
    lateness: Lateness,
    /// For tries over the network, and for those that run a command.
    network_places: Places,
    command_places: Places,
    commands: mpsc::Receiver<Command>,
    turned: watch::Sender<Instant>,
    report: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Tries that take long stretches of a processor at a time.
    heavy: JoinSet<()>,
    heavy_runtime: Runtime,
}

/// Makes a monitor of all targets of `spec`, which checks nothing until it runs. Tries that take long stretches of a
/// processor at a time run on `heavy_runtime`, so that the others keep their time.
pub fn prepare(spec: &Spec, limits: Limits, news: &Teller, heavy_runtime: Runtime) -> (Handle, Monitor) {
    let now = clock::now();
    let (commands_in, commands) = mpsc::channel(AHEAD + spec.databases.len());
    let (turned, turned_out) = watch::channel(now);
    let (report, reports) = mpsc::unbounded_channel();
    let watched = |database| Watched::new(database, news.clone(), now);
    let databases: Vec<Watched> = spec.databases.iter().map(watched).collect();
    let ids = || spec.databases.iter().map(|database| database.id.clone());
    let plans = ids().zip(databases.iter().map(Watched::plan)).collect();
    let mut monitor = Monitor {
        schedule: Schedule::new(now),
        tried: Vec::new(),
        databases,
        by_id: ids().enumerate().map(|(index, id)| (id, index)).collect(),
        lateness: Lateness::new(now),
        network_places: Places::new(limits.checks_in_flight),
        command_places: Places::new(limits.exec_at_once),
        commands,
        turned,
        report,
        reports,
        heavy: JoinSet::new(),
        heavy_runtime,
    };
    monitor.enlist(spec, now);
    (Handle { commands: commands_in, plans: Arc::new(plans), turned: turned_out }, monitor)
}

impl Monitor {
    /// Puts all targets into the schedule.
    fn enlist(&mut self, spec: &Spec, now: Instant) {
        let mut rhythms = Vec::new();
        for (index, database) in spec.databases.iter().enumerate() {
            for (target, address) in database.addresses.iter().enumerate() {
                let prober = Arc::new(Prober::new(address.check.clone(), Target::new(database, address)));
                self.tried.push(Tried { database: index, target, prober, interval: address.check.interval });
                rhythms.push(Rhythm { interval: address.check.interval, recheck: address.check.recheck_interval });
            }
        }
        self.schedule.add(&rhythms, now);
    }

    /// Checks until told to stop, or until nobody holds a handle. Ends with all that it started.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) -> io::Result<()> {
        let mut swarm = Swarm::new()?;
        let ended = tokio::select! {
            ended = self.turn(&mut swarm) => ended,
            _ = &mut stop => Ok(()),
        };
        self.heavy.shutdown().await;
        ended
    }

    async fn turn(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        let mut watchdog = tokio::time::interval(WATCHDOG);
        let mut wake = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut heard = Vec::with_capacity(HEARD_AT_ONCE);
        loop {
            let next = self.start_due(swarm).into_iter().chain(swarm.deadline()).min();
            if let Some(at) = next
                && wake.deadline() != at.into()
            {
                wake.as_mut().reset(at.into());
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Seen(id, members)) => self.see(&id, &members),
                    // Whoever asked may have gone away meanwhile.
                    Some(Command::Snapshot(reply)) => drop(reply.send(self.snapshot())),
                    None => return Ok(()),
                },
                _ = self.reports.recv_many(&mut heard, HEARD_AT_ONCE) => {
                    heard.drain(..).for_each(|report| self.hear(&report));
                }
                news = swarm.news() => news?,
                () = &mut wake, if next.is_some() => {}
                _ = watchdog.tick() => {}
            }
            let now = clock::now();
            swarm.collect(now, |ended| self.hear(&Report::of(ended, now)))?;
            let scarce = self.scarce();
            self.lateness.look(now, || scarce);
            self.turned.send_replace(now);
        }
    }

    /// Starts what is due, or has it wait for a place. Returns when to look again, unless that is after a verdict only.
    fn start_due(&mut self, swarm: &mut Swarm) -> Option<Instant> {
        let now = clock::now();
        loop {
            let next = self.schedule.next(now);
            if let Next::Start { key, due } = next {
                self.places(key).come(key, due);
            }
            self.start_waiting(swarm, now);
            match next {
                Next::Start { .. } => {}
                Next::Wait(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    /// Starts what waits for a place, as far as there are any.
    fn start_waiting(&mut self, swarm: &mut Swarm, now: Instant) {
        while let Some((key, due)) = self.network_places.admit().or_else(|| self.command_places.admit()) {
            let Tried { prober, interval, .. } = &self.tried[key];
            let Some(light) = prober.light() else {
                self.spawn(key, due);
                continue;
            };
            self.lateness.observe(now.saturating_duration_since(due), *interval);
            let ended = swarm.start(key, light, now);
            ended.into_iter().for_each(|ended| self.hear(&Report::of(ended, now)));
        }
    }

    fn places(&mut self, key: Key) -> &mut Places {
        match self.tried[key].prober.is_command() {
            true => &mut self.command_places,
            false => &mut self.network_places,
        }
    }

    fn scarce(&self) -> Scarce {
        match (self.command_places.are_short(), self.network_places.are_short()) {
            (true, _) => Scarce::Commands,
            (false, true) => Scarce::Descriptors,
            (false, false) => Scarce::Processor,
        }
    }

    /// Starts a try in a task of its own.
    fn spawn(&mut self, key: Key, due: Instant) {
        let prober = self.tried[key].prober.clone();
        let report = self.report.clone();
        let heavy = prober.is_heavy();
        let try_ = async move {
            let started = clock::now();
            // A defect of ours must not end the checks of this target for good.
            let tried = AssertUnwindSafe(prober.probe()).catch_unwind().await;
            let verdict =
                tried.unwrap_or_else(|_| Verdict::Inconclusive("check: a defect of this daemon; see its log".into()));
            let delay = started.saturating_duration_since(due);
            // A monitor that is gone needs no telling.
            let _ = report.send(Report { key, verdict, delay: Some(delay), started, ended: clock::now() });
        };
        if heavy {
            while self.heavy.try_join_next().is_some() {}
            self.heavy.spawn_on(try_, &self.heavy_runtime);
        } else {
            tokio::spawn(try_);
        }
    }

    fn hear(&mut self, report: &Report) {
        self.places(report.key).leave();
        let &Tried { database, target, interval, .. } = &self.tried[report.key];
        report.delay.into_iter().for_each(|delay| self.lateness.observe(delay, interval));
        let in_doubt = self.databases[database].hear(target, report);
        self.schedule.ended(report.key, report.started, report.ended, in_doubt);
    }

    fn see(&mut self, id: &DatabaseId, members: &Members) {
        if let Some(&index) = self.by_id.get(id) {
            self.databases[index].see(members, clock::now());
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            databases: self.databases.iter().map(Watched::snapshot).collect(),
            start_delay: self.lateness.delays().clone(),
            started_late: self.lateness.late(),
        }
    }
}
