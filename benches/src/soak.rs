//! `make soak`: many targets, a tenth of them bad in every way there is, for a long time. The daemon's memory and descriptors must
//! stay flat, and no good target may ever be called down.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::contender::{Contender, Running};
use crate::figures::fetch;
use crate::fleet::{Fleet, GROUP, Kind, port};
use crate::machine::{self, SECOND};
use crate::row::{self, Row};
use crate::server::Stoppable;
use crate::trial::Setting;

/// What is wrong with bad targets, in turn. A program that hangs takes one of the few places that programs have, so hardly any do.
const BAD: [(u16, &str); 12] = [
    (port::NOBODY, "tcp: {}"),
    (port::NOBODY, "http: {}"),
    (port::BLACK_HOLE, "tcp: {}"),
    (port::BLACK_HOLE, "http: {}"),
    (port::SILENT, "tcp: {expect: hello}"),
    (port::SILENT, "http: {}"),
    (port::DRIP, "tcp: {expect: hello}"),
    (port::DRIP, "http: {}"),
    (port::RESET, "tcp: {expect: hello}"),
    (port::RESET, "http: {}"),
    (port::GARBAGE, "http: {}"),
    (port::NOBODY, "exec: {command: [/bin/false]}"),
];

/// Says more than is kept, then hangs along with a child of its own.
const HANGS: &str = "exec: {command: [/bin/sh, -c, head -c 1000000 /dev/zero; sleep 60]}";

/// What good targets are checked with, in turn.
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
    fleet: Fleet,
    good: BTreeSet<Ipv4Addr>,
}

/// A tenth of the databases is bad.
fn plan(targets: usize, interval: Duration) -> Plan {
    let mut plan = Plan { fleet: Fleet { interval, databases: Vec::new() }, good: BTreeSet::new() };
    let (mut good, mut bad) = (GOOD.iter().cycle(), BAD.iter().cycle());
    plan.fleet.add(port::NOBODY, HANGS, 2);
    for number in 1..targets.div_ceil(GROUP) {
        if number % 10 == 0
            && let Some((port, check)) = bad.next()
        {
            plan.fleet.add(*port, check, GROUP);
        } else if let Some(kind) = good.next() {
            plan.good.extend(plan.fleet.add(kind.port(), kind.yaml(), GROUP));
        }
    }
    plan
}

/// What is watched, at one moment.
struct Look {
    memory: f64,
    descriptors: f64,
    time_wait: f64,
    processes: f64,
}

impl Look {
    fn take(pid: u32) -> Result<Self> {
        Ok(Self {
            memory: machine::resident(pid)? as f64 / 1024.0,
            descriptors: machine::descriptors(pid)? as f64,
            time_wait: machine::time_wait()? as f64,
            processes: machine::processes()? as f64,
        })
    }
}

/// Prints a summary; the exit status is 1 if anything grows.
pub fn run(setting: &Setting, targets: usize, time: Duration, smoke: bool) -> Result<ExitCode> {
    let Plan { fleet, good } = plan(targets, setting.interval);
    let black_hole = Stoppable::listen(port::BLACK_HOLE)?;
    black_hole.swallow()?;
    let mut running = setting.warm_up(Contender::Daemon, Kind::Tcp, &fleet)?;
    let (all, minutes) = (fleet.targets().len(), time.as_secs_f64() / 60.0);
    eprintln!(
        "bench: a soak of {minutes:.1} minutes, {all} targets, {} of them bad",
        all - good.len()
    );
    let looks = watch(&mut running, time)?;
    let flipped = called_down(&running, &good);
    ensure!(flipped.is_empty(), "good targets were called down: {flipped:?}");
    let wrong = wrong_health(&good)?;
    ensure!(wrong.is_empty(), "the wrong health at the end: {}", wrong.join(", "));
    let rows = compare(&looks);
    print!("{}", row::table(&rows));
    // The little that a short run shows is no trend.
    let flat = smoke || rows.iter().all(|row| row.reached != Some(false));
    Ok(if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn watch(running: &mut Running, time: Duration) -> Result<Vec<Look>> {
    let start = machine::now();
    let mut looks = Vec::new();
    let time = u64::try_from(time.as_nanos())?;
    let mut told = 0;
    while machine::now() - start < time {
        running.must_live()?;
        looks.push(Look::take(running.pid())?);
        let minute = (machine::now() - start) / (60 * SECOND);
        if minute > told
            && let Some(look) = looks.last()
        {
            told = minute;
            let Look { memory, descriptors, time_wait, processes } = look;
            eprintln!(
                "bench: minute {minute}: {memory:.1} MiB, {descriptors} descriptors, {time_wait} in TIME_WAIT, {processes} processes"
            );
        }
        // No divisor of the interval, so that looks meet all of its phases.
        thread::sleep(Duration::from_nanos(SECOND * 37 / 100));
    }
    Ok(looks)
}

/// The first third is warm-up; the last must be like the second.
fn compare(looks: &[Look]) -> Vec<Row> {
    let (second, last) = looks[looks.len() / 3..].split_at(looks.len() / 3);
    let most = |looks: &[Look], of: fn(&Look) -> f64| looks.iter().map(of).fold(0.0, f64::max);
    let mean = |looks: &[Look], of: fn(&Look) -> f64| {
        looks.iter().map(of).sum::<f64>() / looks.len().max(1) as f64
    };
    let row = |name: &str, unit: &str, before: f64, after: f64, margin: f64| {
        let detail = format!("{before:.1} in the second third; {margin:.1} more is allowed");
        Row::new(format!("soak: {name} in the last third"), after, unit, detail)
            .at_most(before + margin)
    };
    let memory: fn(&Look) -> f64 = |look| look.memory;
    let descriptors: fn(&Look) -> f64 = |look| look.descriptors;
    let time_wait: fn(&Look) -> f64 = |look| look.time_wait;
    let processes: fn(&Look) -> f64 = |look| look.processes;
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

fn called_down(running: &Running, good: &BTreeSet<Ipv4Addr>) -> Vec<Ipv4Addr> {
    let down = running
        .lines()
        .into_iter()
        .filter_map(|line| crate::contender::daemon_says_down(&line.text));
    down.filter(|address| good.contains(address)).collect()
}

/// Good targets are up at the end, bad ones down.
fn wrong_health(good: &BTreeSet<Ipv4Addr>) -> Result<Vec<String>> {
    let (_, page) = fetch("/api/v1/status")?;
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

    fn look(memory: f64, descriptors: f64) -> Look {
        Look { memory, descriptors, time_wait: 0.0, processes: 5.0 }
    }

    #[test]
    fn a_tenth_is_bad_in_every_way() {
        let Plan { fleet, good } = plan(2_000, Duration::from_secs(1));
        let all = fleet.targets().len();
        assert!((2_000..2_003).contains(&all));
        assert!((all - good.len()).abs_diff(all / 10) <= GROUP, "{} of {all} are good", good.len());
        let used = |port: u16, check: &str| {
            fleet
                .databases
                .iter()
                .any(|db: &crate::fleet::Database| db.port == port && db.check == check)
        };
        assert!(BAD.iter().all(|(port, check)| used(*port, check)));
        assert!(GOOD.iter().all(|kind| used(kind.port(), kind.yaml())));
    }

    #[test]
    fn what_settles_is_flat() {
        let looks: Vec<Look> =
            (0..300).map(|at| look(20.0 + f64::from(at.min(90)) / 10.0, 100.0)).collect();
        assert!(compare(&looks).iter().all(|row| row.reached == Some(true)));
    }

    #[test]
    fn what_goes_on_growing_is_not() {
        let leaks: Vec<Look> = (0..300)
            .map(|at| look(20.0 + f64::from(at) / 100.0, 100.0 + f64::from(at) / 10.0))
            .collect();
        let flat: Vec<Option<bool>> = compare(&leaks).iter().map(|row| row.reached).collect();
        assert_eq!(flat, [Some(false), Some(false), Some(true), Some(true)]);
    }
}
