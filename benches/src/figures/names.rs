//! The cost of names: CPU and memory beside targets by IP, the start with ten thousand names, and
//! the timing of checks while no DNS server gives an answer.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Encoding, fetch};
use crate::dns::{Behavior, DnsServer};
use crate::machine::{self, MICRO, MILLI, SECOND};
use crate::measurement::Settings;
use crate::row::Row;
use crate::subject::{self, Subject};
use crate::timing::median;
use crate::workload::{AddressedBy, Kind, Workload};

/// The TTL of addresses that do not move.
const TTL: u32 = 60;

/// The shortest time for the cost of a question.
const MIN_QUESTION_TIME: Duration = Duration::from_secs(3);

/// Counts of a run.
pub(super) struct Scale {
    /// Names for the cost of a question. Each is asked every second.
    pub asked: usize,
    /// Targets by name for memory and the start.
    pub targets: usize,
    /// Targets by IP for the timing, and names beside them that never resolve.
    pub timed: usize,
    pub unresolved: usize,
}

pub(super) fn rows(settings: &Settings, scale: &Scale) -> Result<Vec<Row>> {
    let mut rows = question(settings, scale.asked)?;
    rows.extend(targets(settings, scale.targets)?);
    rows.extend(timing(settings, scale)?);
    if let Some(before) = &settings.before {
        let size = |path| Ok::<_, anyhow::Error>(fs::metadata(path)?.len() as f64 / 1024.0);
        let (now, before) = (size(&settings.daemon)?, size(before)?);
        let detail = format!("{now:.0} KiB, and {before:.0} KiB before");
        rows.push(Row::new("names: program", now - before, "KiB more", detail).at_most(150.0));
    }
    Ok(rows)
}

/// Measures the CPU time of a question. The names have one address each, with a TTL of a second,
/// and are checked once an hour.
fn question(settings: &Settings, names: usize) -> Result<Vec<Row>> {
    let dns = DnsServer::start(settings.cpus.targets, Behavior::Answers(1))?;
    let hour = Duration::from_secs(3600);
    let mut workload = Workload::uniform(Kind::Tcp, names, hour);
    workload.addressed_by = AddressedBy::Name;
    workload.arguments = arguments(&dns, 100_000);
    let mut costs = Vec::new();
    let mut rate = 0.0;
    for round in 1..=settings.rounds {
        let before = dns.questions();
        let mut running =
            subject::start(Subject::Daemon, Kind::Tcp, &workload, &settings.daemon, settings.cpus)?;
        wait(60, "each name is asked three times", || {
            running.ensure_running()?;
            Ok(dns.questions() >= before + 3 * names as u64)
        })?;
        let (asked, cpu, start) =
            (dns.questions(), machine::cpu_time(running.pid())?, machine::now());
        // Each name is asked in the same moment of each second.
        thread::sleep(settings.time.max(MIN_QUESTION_TIME));
        let asked = (dns.questions() - asked) as f64;
        let cpu = (machine::cpu_time(running.pid())? - cpu) as f64;
        running.ensure_running()?;
        rate = asked / ((machine::now() - start) as f64 / SECOND as f64);
        costs.push(cpu / MICRO as f64 / asked);
        eprintln!("bench: names, round {round}: {:.2} us a question", costs[costs.len() - 1]);
    }
    let detail = format!("{names} names with a TTL of 1 s, {rate:.0} questions a second");
    let cost = median(&mut costs).context("a round")?;
    // Microseconds of a second, in percent.
    let share = cost * 500.0 / 10_000.0;
    Ok(vec![
        Row::new("names: CPU of a question", cost, "us", detail).at_most(25.0),
        Row::new("names: 500 questions a second", share, "% of a CPU", "by the above").at_most(1.5),
    ])
}

/// Measures resident memory by IP and by name, and the start by name.
fn targets(settings: &Settings, targets: usize) -> Result<Vec<Row>> {
    let dns = DnsServer::start(settings.cpus.targets, Behavior::Answers(TTL))?;
    let (mut by_ip, mut by_name) = (Vec::new(), Vec::new());
    let (mut starts, mut late) = (Vec::new(), 0.0);
    for round in 1..=settings.rounds {
        for addressed_by in [AddressedBy::Ip, AddressedBy::Name] {
            let mut workload = Workload::uniform(Kind::Tcp, targets, settings.interval);
            workload.addressed_by = addressed_by;
            workload.arguments = arguments(&dns, 500);
            dns.forget();
            let start = machine::now();
            let mut running = settings.warm_up(Subject::Daemon, Kind::Tcp, &workload)?;
            if addressed_by == AddressedBy::Name {
                wait(60, "all names are asked", || {
                    running.ensure_running()?;
                    Ok(dns.asked().0 >= targets)
                })?;
                let (_, newest) = dns.asked();
                starts.push((newest - start) as f64 / SECOND as f64);
            }
            thread::sleep(settings.time);
            running.ensure_running()?;
            let memory = machine::resident(running.pid())? as f64 / 1024.0;
            match addressed_by {
                AddressedBy::Ip => by_ip.push(memory),
                AddressedBy::Name => {
                    by_name.push(memory);
                    late += late_checks()?;
                }
            }
            eprintln!("bench: names, round {round}: {addressed_by:?} {memory:.1} MiB");
        }
    }
    let (ip, name) =
        (median(&mut by_ip).context("a round")?, median(&mut by_name).context("a round")?);
    let start = median(&mut starts).context("a round")?;
    let all = format!("{targets} targets, tcp, no cluster");
    let named = |figure: &str| format!("names: {figure}");
    Ok(vec![
        Row::new(named("memory by IP"), ip, "MiB", all.clone()),
        Row::new(named("memory by name"), name, "MiB", all).at_most(38.0),
        Row::new(named("memory by name beyond that by IP"), name - ip, "MiB", "").at_most(3.0),
        Row::new(named("start, all asked"), start, "s", format!("{targets} names, one family"))
            .at_most(22.0),
        Row::new(named("start, late checks"), late, "checks", "of all rounds").at_most(0.0),
    ])
}

/// Returns the number of checks that began late.
fn late_checks() -> Result<f64> {
    let (_, page) = fetch("/metrics", Encoding::Identity)?;
    let page = String::from_utf8_lossy(&page);
    let name = "external_endpoints_checks_late_total ";
    let value = page.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
    Ok(value.parse()?)
}

/// Measures the timing of checks of targets by IP while other databases have names that no server
/// answers for.
fn timing(settings: &Settings, scale: &Scale) -> Result<Vec<Row>> {
    let cpu = settings.cpus.targets;
    let silent = DnsServer::start(cpu, Behavior::Silent)?;
    let hostile = DnsServer::start(cpu, Behavior::Hostile)?;
    let mut rows = Vec::new();
    for (what, dns) in [("no names", None), ("dead", Some(&silent)), ("hostile", Some(&hostile))] {
        let mut workload = Workload::uniform(Kind::Tcp, scale.timed, settings.interval);
        if let Some(dns) = dns {
            workload.unresolved = scale.unresolved;
            workload.arguments = arguments(dns, 500);
        }
        let (mut drifts, mut bursts) = (Vec::new(), Vec::new());
        let asked = dns.map(DnsServer::questions);
        for round in 1..=settings.rounds {
            let timing = settings
                .measure_workload(Subject::Daemon, Kind::Tcp, &workload, true)?
                .timing
                .context("too few checks")?;
            eprintln!(
                "bench: names, round {round}: {what}: drift {:.2} ppm, burst {:.2}",
                timing.drift_ppm, timing.burst
            );
            drifts.push(timing.drift_ppm);
            bursts.push(timing.burst);
        }
        let detail = match (dns, asked) {
            (Some(dns), Some(asked)) => {
                let (names, asked) = (scale.unresolved, dns.questions() - asked);
                ensure!(asked > 0, "the {what} server was not asked");
                format!("{} targets, {names} names, {asked} questions", scale.timed)
            }
            _ => format!("{} targets", scale.timed),
        };
        let drift = median(&mut drifts).context("a round")?;
        let burst = median(&mut bursts).context("a round")?;
        let label = if dns.is_some() { format!("DNS {what}") } else { what.to_owned() };
        rows.push(Row::new(format!("names: drift, {label}"), drift, "ppm", &*detail).at_most(10.0));
        rows.push(
            Row::new(format!("names: burst, {label}"), burst, "x mean", &*detail).at_most(1.5),
        );
    }
    Ok(rows)
}

fn arguments(dns: &DnsServer, qps: u32) -> Vec<String> {
    ["--dns-server".into(), dns.address.to_string(), "--dns-qps".into(), qps.to_string()].to_vec()
}

/// Waits until a condition holds.
fn wait(seconds: u64, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let patience = machine::now() + seconds * SECOND;
    while !holds()? {
        ensure!(machine::now() < patience, "not within {seconds} s: {what}");
        thread::sleep(Duration::from_nanos(50 * MILLI));
    }
    Ok(())
}
