//! `make soak`: many targets for a long time, a tenth of them bad in every way.
//!
//! The daemon's memory and descriptors must stay flat, and no good target may ever be reported as
//! down.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::figures::{Encoding, fetch};
use crate::machine::{self, SECOND};
use crate::measurement::Settings;
use crate::row::{self, Row};
use crate::server::Stoppable;
use crate::subject::{Subject, SubjectProcess};
use crate::workload::{DATABASE_SIZE, Kind, Workload, port};

/// The ports and checks of bad targets, in turn. Hardly any runs a program that hangs, because it
/// occupies one of the few slots for programs.
const BAD: [(u16, &str); 12] = [
    (port::CLOSED, "tcp: {}"),
    (port::CLOSED, "http: {}"),
    (port::BLACK_HOLE, "tcp: {}"),
    (port::BLACK_HOLE, "http: {}"),
    (port::SILENT, "tcp: {expect: hello}"),
    (port::SILENT, "http: {}"),
    (port::DRIP, "tcp: {expect: hello}"),
    (port::DRIP, "http: {}"),
    (port::RESET, "tcp: {expect: hello}"),
    (port::RESET, "http: {}"),
    (port::GARBAGE, "http: {}"),
    (port::CLOSED, "exec: {command: [/bin/false]}"),
];

/// Prints more than is kept, then hangs together with a child process.
const HANGS: &str = "exec: {command: [/bin/sh, -c, head -c 1000000 /dev/zero; sleep 60]}";

/// The checks of good targets, in turn.
const GOOD: [Kind; 10] = [
    Kind::Tcp,
    Kind::Http,
    Kind::Tcp,
    Kind::Tcp,
    Kind::Http,
    Kind::Tcp,
    Kind::Accept,
    Kind::Http,
    Kind::Tcp,
    Kind::Exec,
];

struct Plan {
    workload: Workload,
    good: BTreeSet<Ipv4Addr>,
}

/// Plans the databases. A tenth of them is bad.
fn plan(targets: usize, interval: Duration) -> Plan {
    let mut plan = Plan { workload: Workload::empty(interval), good: BTreeSet::new() };
    let (mut good, mut bad) = (GOOD.iter().cycle(), BAD.iter().cycle());
    plan.workload.add(port::CLOSED, HANGS, 2);
    for number in 1..targets.div_ceil(DATABASE_SIZE) {
        if number % 10 == 0
            && let Some((port, check)) = bad.next()
        {
            plan.workload.add(*port, check, DATABASE_SIZE);
        } else if let Some(kind) = good.next() {
            plan.good.extend(plan.workload.add(kind.port(), kind.yaml(), DATABASE_SIZE));
        }
    }
    plan
}

/// The measured values at one time.
struct Snapshot {
    memory: f64,
    descriptors: f64,
    time_wait: f64,
    processes: f64,
}

impl Snapshot {
    fn take(pid: u32) -> Result<Self> {
        Ok(Self {
            memory: machine::resident(pid)? as f64 / 1024.0,
            descriptors: machine::descriptors(pid)? as f64,
            time_wait: machine::time_wait()? as f64,
            processes: machine::processes()? as f64,
        })
    }
}

/// The effect of a trend in the figures on the exit status.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Trend {
    Judged,
    /// A short run shows no trend.
    Ignored,
}

/// Runs the soak and prints a summary. The exit status is 1 if anything grows.
pub(crate) fn run(
    settings: &Settings,
    targets: usize,
    time: Duration,
    trend: Trend,
) -> Result<ExitCode> {
    let Plan { workload, good } = plan(targets, settings.interval);
    let black_hole = Stoppable::listen(port::BLACK_HOLE)?;
    black_hole.black_hole()?;
    let mut running = settings.warm_up(Subject::Daemon, Kind::Tcp, &workload)?;
    let (all, minutes) = (workload.targets().len(), time.as_secs_f64() / 60.0);
    eprintln!(
        "bench: a soak of {minutes:.1} minutes, {all} targets, {} of them bad",
        all - good.len()
    );
    let snapshots = watch(&mut running, time)?;
    let flipped = called_down(&running, &good);
    ensure!(flipped.is_empty(), "good targets were called down: {flipped:?}");
    let wrong = wrong_health(&good)?;
    ensure!(wrong.is_empty(), "the wrong health at the end: {}", wrong.join(", "));
    let rows = compare(&snapshots);
    print!("{}", row::table(&rows));
    let flat = trend == Trend::Ignored || rows.iter().all(|row| row.reached != Some(false));
    Ok(if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn watch(running: &mut SubjectProcess, time: Duration) -> Result<Vec<Snapshot>> {
    let start = machine::now();
    let mut snapshots = Vec::new();
    let time = u64::try_from(time.as_nanos())?;
    let mut told = 0;
    while machine::now() - start < time {
        running.ensure_running()?;
        snapshots.push(Snapshot::take(running.pid())?);
        let minute = (machine::now() - start) / (60 * SECOND);
        if minute > told
            && let Some(snapshot) = snapshots.last()
        {
            told = minute;
            let Snapshot { memory, descriptors, time_wait, processes } = snapshot;
            eprintln!(
                "bench: minute {minute}: {memory:.1} MiB, {descriptors} descriptors, \
                 {time_wait} in TIME_WAIT, {processes} processes"
            );
        }
        // Does not divide the interval, so that the snapshots meet all of its phases.
        thread::sleep(Duration::from_nanos(SECOND * 37 / 100));
    }
    Ok(snapshots)
}

/// Compares the last third with the second. The first third is warm-up.
fn compare(snapshots: &[Snapshot]) -> Vec<Row> {
    let (second, last) = snapshots[snapshots.len() / 3..].split_at(snapshots.len() / 3);
    let most = |snapshots: &[Snapshot], of: fn(&Snapshot) -> f64| {
        snapshots.iter().map(of).fold(0.0, f64::max)
    };
    let mean = |snapshots: &[Snapshot], of: fn(&Snapshot) -> f64| {
        snapshots.iter().map(of).sum::<f64>() / snapshots.len().max(1) as f64
    };
    let row = |name: &str, unit: &str, before: f64, after: f64, margin: f64| {
        let detail = format!("{before:.1} in the second third; {margin:.1} more is allowed");
        Row::new(format!("soak: {name} in the last third"), after, unit, detail)
            .at_most(before + margin)
    };
    let memory: fn(&Snapshot) -> f64 = |snapshot| snapshot.memory;
    let descriptors: fn(&Snapshot) -> f64 = |snapshot| snapshot.descriptors;
    let time_wait: fn(&Snapshot) -> f64 = |snapshot| snapshot.time_wait;
    let processes: fn(&Snapshot) -> f64 = |snapshot| snapshot.processes;
    let before = most(second, memory);
    let open = mean(second, descriptors);
    let waiting = most(second, time_wait);
    vec![
        row("most memory", "MiB", before, most(last, memory), 0.5 + before * 0.02),
        row("mean descriptors", "", open, mean(last, descriptors), 2.0 + open * 0.02),
        row("most in TIME_WAIT", "", waiting, most(last, time_wait), 10.0 + waiting * 0.02),
        row("mean processes", "", mean(second, processes), mean(last, processes), 1.0),
    ]
}

fn called_down(running: &SubjectProcess, good: &BTreeSet<Ipv4Addr>) -> Vec<Ipv4Addr> {
    let down =
        running.lines().into_iter().filter_map(|line| crate::subject::daemon_says_down(&line.text));
    down.filter(|address| good.contains(address)).collect()
}

/// Returns the targets whose health is wrong: good ones should be up, bad ones down.
fn wrong_health(good: &BTreeSet<Ipv4Addr>) -> Result<Vec<String>> {
    let (_, page) = fetch("/api/v1/status", Encoding::Identity)?;
    let status: Value = serde_json::from_slice(&page)?;
    let databases = status["databases"].as_array().context("databases")?;
    let mut wrong = Vec::new();
    for target in databases.iter().filter_map(|database| database["targets"].as_array()).flatten() {
        let (Some(address), Some(health)) = (target["address"].as_str(), target["health"].as_str())
        else {
            bail!("a target without address or health: {target}");
        };
        if health != if good.contains(&address.parse()?) { "up" } else { "down" } {
            wrong.push(format!("{address} is {health} ({})", target["reason"]));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(memory: f64, descriptors: f64) -> Snapshot {
        Snapshot { memory, descriptors, time_wait: 0.0, processes: 5.0 }
    }

    #[test]
    fn a_tenth_is_bad_in_every_way() {
        let Plan { workload, good } = plan(2_000, Duration::from_secs(1));
        let all = workload.targets().len();
        assert!((2_000..2_003).contains(&all));
        assert!(
            (all - good.len()).abs_diff(all / 10) <= DATABASE_SIZE,
            "{} of {all} are good",
            good.len()
        );
        let used = |port: u16, check: &str| {
            workload
                .databases
                .iter()
                .any(|db: &crate::workload::Database| db.port == port && db.check == check)
        };
        assert!(BAD.iter().all(|(port, check)| used(*port, check)));
        assert!(GOOD.iter().all(|kind| used(kind.port(), kind.yaml())));
    }

    #[test]
    fn what_settles_is_flat() {
        let snapshots: Vec<Snapshot> =
            (0..300).map(|at| snapshot(20.0 + f64::from(at.min(90)) / 10.0, 100.0)).collect();
        assert!(compare(&snapshots).iter().all(|row| row.reached == Some(true)));
    }

    #[test]
    fn what_goes_on_growing_is_not() {
        let leaks: Vec<Snapshot> = (0..300)
            .map(|at| snapshot(20.0 + f64::from(at) / 100.0, 100.0 + f64::from(at) / 10.0))
            .collect();
        let flat: Vec<Option<bool>> = compare(&leaks).iter().map(|row| row.reached).collect();
        assert_eq!(flat, [Some(false), Some(false), Some(true), Some(true)]);
    }
}
