//! The chaos run: two replicas of the daemon and thirty databases on a real cluster, everything that can go wrong, and a judge.

// It measures real time.
#![allow(clippy::disallowed_methods)]

mod support;

mod chaos {
    pub(crate) mod checker;
    pub(crate) mod config;
    pub(crate) mod play;
    pub(crate) mod record;
    pub(crate) mod replicas;
    pub(crate) mod report;
    pub(crate) mod script;
    pub(crate) mod span;
    pub(crate) mod stage;
    pub(crate) mod watch;
}

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use chaos::play::{Deeds, play};
use chaos::record::{Fault, Holding, Kind, Record};
use chaos::script::{Act, ReplicaFault, keeps, script};
use chaos::stage::{ADDRESSES, DATABASES, Stage, limits};
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
    support::bottle::enter_with(support::binaries::Binaries::ControlPlane);
    println!("chaos: {} min with seed {seed}", arguments.minutes);
    let well = support::runtime().block_on(run(seed, Duration::from_secs(60 * arguments.minutes)));
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All of a run; says whether every rule held.
async fn run(seed: u64, length: Duration) -> bool {
    let script = script(seed, length, DATABASES, ADDRESSES);
    let ends =
        |act: &Act| matches!(act, Act::Replica(_, ReplicaFault::Killed | ReplicaFault::Ended, _));
    let ends = script.iter().filter(|step| ends(&step.act)).count();
    let set = Instant::now();
    let mut stage = Stage::set(2 + ends).await;
    println!("chaos: set up in {:.0} s; {} acts begin", set.elapsed().as_secs_f64(), script.len());
    let deeds = Deeds::new(stage.began);
    play(&mut stage, &script, &deeds).await;
    // What happened last has its effect, and the record its end.
    stage.as_is_true().await;
    stage.all_reached().await;
    let record = record(&stage, &deeds);
    let judgement = checker::judge(&record);
    let ended = stage.replicas.ended();
    report::tell(seed, &script, &record, &judgement, &stage.replicas);
    ended.iter().for_each(|ended| println!("chaos: {ended}"));
    judgement.breaches.is_empty() && ended.is_empty()
}

/// All that the judge needs to know.
fn record(stage: &Stage, deeds: &Deeds) -> Record {
    let end = stage.began.elapsed();
    let (changes, leases) = stage.watch.history();
    let account =
        |identity: String| stage.replicas.accounts.get(&identity).cloned().unwrap_or(identity);
    let leases =
        leases.into_iter().map(|lease| Holding { holder: lease.holder.map(account), ..lease });
    let stalls = stage.stalls.all().into_iter().map(|(from, until)| Fault {
        from,
        until,
        kind: Kind::Stall,
    });
    let mut record = Record {
        limits: limits(),
        databases: stage.ips(),
        keep: (0..DATABASES).filter(|database| keeps(*database)).collect(),
        changes,
        leases: leases.collect(),
        writers: watch::writers(&stage.plane.audit_log()),
        faults: stalls.collect(),
        end,
        ..Record::default()
    };
    deeds.told(&mut record);
    record
}
