//! The chaos run: two replicas of the daemon and thirty databases on a real cluster, everything that can go wrong, and a judge.

#![allow(clippy::disallowed_methods, reason = "the chaos run measures real time")]

mod support;

mod chaos {
    pub(crate) mod checker;
    pub(crate) mod config;
    pub(crate) mod fixture;
    pub(crate) mod record;
    pub(crate) mod replicas;
    pub(crate) mod report;
    pub(crate) mod runner;
    pub(crate) mod scenario;
    pub(crate) mod span;
    pub(crate) mod watch;
}

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use chaos::fixture::{ADDRESSES, DATABASES, Fixture, limits};
use chaos::record::{Fault, Holding, Kind, Record};
use chaos::runner::{self, ActionLog};
use chaos::scenario::{Action, ReplicaFault, keeps, scenario};
use chaos::{checker, report, watch};
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// For how long things go wrong.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What decides what goes wrong, and when; without it, the time of day.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let today = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs() % 1_000_000)
    };
    let seed = *arguments.seed.get_or_insert_with(today);
    support::sandbox::enter_with(support::binaries::Binaries::ControlPlane);
    println!("chaos: {} min with seed {seed}", arguments.minutes);
    let well = support::runtime().block_on(run(seed, Duration::from_secs(60 * arguments.minutes)));
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All of a run; says whether every rule held.
async fn run(seed: u64, length: Duration) -> bool {
    let scenario = scenario(seed, length, DATABASES, ADDRESSES);
    let ends = |action: &Action| {
        matches!(action, Action::Replica(_, ReplicaFault::Killed | ReplicaFault::Ended, _))
    };
    let ends = scenario.iter().filter(|step| ends(&step.action)).count();
    let set = Instant::now();
    let mut fixture = Fixture::start(2 + ends).await;
    println!(
        "chaos: set up in {:.0} s; {} actions begin",
        set.elapsed().as_secs_f64(),
        scenario.len()
    );
    let log = ActionLog::new(fixture.began);
    runner::run(&mut fixture, &scenario, &log).await;
    // What happened last has its effect, and the record its end.
    fixture.as_is_true().await;
    fixture.all_reached().await;
    let record = record(&fixture, &log);
    let judgement = checker::judge(&record);
    let ended = fixture.replicas.ended();
    report::tell(seed, &scenario, &record, &judgement, &fixture.replicas);
    ended.iter().for_each(|ended| println!("chaos: {ended}"));
    judgement.breaches.is_empty() && ended.is_empty()
}

/// All that the judge needs to know.
fn record(fixture: &Fixture, log: &ActionLog) -> Record {
    let end = fixture.began.elapsed();
    let (changes, leases) = fixture.watch.history();
    let account =
        |identity: String| fixture.replicas.accounts.get(&identity).cloned().unwrap_or(identity);
    let leases =
        leases.into_iter().map(|lease| Holding { holder: lease.holder.map(account), ..lease });
    let stalls = fixture.stalls.all().into_iter().map(|(from, until)| Fault {
        from,
        until,
        kind: Kind::Stall,
    });
    let mut record = Record {
        limits: limits(),
        databases: fixture.ips(),
        keep: (0..DATABASES).filter(|database| keeps(*database)).collect(),
        changes,
        leases: leases.collect(),
        writers: watch::writers(&fixture.plane.audit_log()),
        faults: stalls.collect(),
        end,
        ..Record::default()
    };
    log.told(&mut record);
    record
}
