//! The chaos run: two replicas of the daemon and thirty databases on a real cluster, random faults,
//! and a checker.

#![allow(clippy::disallowed_methods, reason = "the chaos run measures real time")]

mod support;

mod chaos {
    pub(crate) mod checker;
    pub(crate) mod config;
    pub(crate) mod dns;
    pub(crate) mod dns_history;
    pub(crate) mod fixture;
    pub(crate) mod names_checker;
    pub(crate) mod record;
    pub(crate) mod replicas;
    pub(crate) mod report;
    pub(crate) mod runner;
    pub(crate) mod scenario;
    pub(crate) mod seen_checker;
    pub(crate) mod span;
    pub(crate) mod views;
    pub(crate) mod watch;
}

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use chaos::fixture::{ADDRESSES, DATABASES, Fixture, is_named, limits};
use chaos::record::{Fault, Kind, LeaseState, Record};
use chaos::runner::{self, ActionLog};
use chaos::scenario::{Action, ReplicaFault, keeps_last_target, scenario};
use chaos::{checker, report, watch};
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// The number of minutes in which faults are injected.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The seed that decides the faults and their times. The default is taken from the clock.
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
    let is_ok = support::runtime().block_on(run(seed, Duration::from_secs(60 * arguments.minutes)));
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a scenario. Returns true if no rule was violated.
async fn run(seed: u64, length: Duration) -> bool {
    let scenario = scenario(seed, length, DATABASES, ADDRESSES);
    let ends = |action: &Action| {
        matches!(action, Action::Replica(_, ReplicaFault::Killed | ReplicaFault::Terminated, _))
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
    fixture.dns.heal(fixture.began.elapsed(), &fixture.ips());
    // The last faults take effect before the record ends.
    fixture.wait_until_published().await;
    fixture.wait_until_reachable().await;
    let record = record(&fixture, &log);
    let result = checker::check(&record);
    let ended = fixture.replicas.ended();
    report::print(seed, &scenario, &record, &result, &fixture.replicas);
    ended.iter().for_each(|ended| println!("chaos: {ended}"));
    result.violations.is_empty() && ended.is_empty()
}

/// Collects the input of the checker.
fn record(fixture: &Fixture, log: &ActionLog) -> Record {
    let end = fixture.began.elapsed();
    let (changes, leases, statements) = fixture.watch.history();
    let account =
        |identity: String| fixture.replicas.accounts.get(&identity).cloned().unwrap_or(identity);
    let leases =
        leases.into_iter().map(|lease| LeaseState { holder: lease.holder.map(account), ..lease });
    let stalls = fixture.stalls.all().into_iter().map(|(from, until)| Fault {
        from,
        until,
        kind: Kind::Stall,
    });
    let mut record = Record {
        limits: limits(),
        databases: fixture.ips(),
        keep: (0..DATABASES).filter(|database| keeps_last_target(*database)).collect(),
        named: (0..DATABASES).filter(|database| is_named(*database)).collect(),
        dns: fixture.dns.changes(),
        changes,
        leases: leases.collect(),
        statements,
        views: fixture.views.all(),
        writers: watch::writers(&fixture.plane.audit_log()),
        faults: stalls.collect(),
        end,
        ..Record::default()
    };
    log.fill(&mut record);
    record
}
