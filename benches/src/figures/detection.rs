//! The detection time: from the moment a target stops until its state flips, for targets that
//! refuse connections and for black holes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::machine::{self, MILLI, SECOND};
use crate::measurement::Settings;
use crate::row::Row;
use crate::server::Stoppable;
use crate::subject::{Line, Subject, daemon_says_down};
use crate::timing::{median, quantile};
use crate::workload::{DATABASE_SIZE, Database, Kind, Workload, port};

/// The number of databases that stop in each of the two ways.
const STOPPING: usize = 14;

struct Found {
    refused: Vec<f64>,
    swallowed: Vec<f64>,
}

pub(super) fn rows(settings: &Settings, targets: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for who in [Subject::Haproxy, Subject::Daemon] {
        let mut all = Found { refused: Vec::new(), swallowed: Vec::new() };
        for round in 1..=settings.rounds {
            eprintln!("bench: detection, round {round}: {}", who.name());
            let found = detect(settings, who, targets)?;
            all.refused.extend(found.refused);
            all.swallowed.extend(found.swallowed);
        }
        rows.extend(figures("refused", who, all.refused, 3.05));
        rows.extend(figures("swallowed", who, all.swallowed, 4.1));
    }
    Ok(rows)
}

fn figures(how: &str, who: Subject, mut seconds: Vec<f64>, goal: f64) -> Option<Row> {
    let detail =
        format!("{} targets; half of them in {:.2} s", seconds.len(), median(&mut seconds)?);
    let row = Row::new(
        format!("detection: {how}, {}", who.name()),
        quantile(&mut seconds, 1.0)?,
        "s at most",
        detail,
    );
    Some(if who == Subject::Daemon { row.at_most(goal) } else { row })
}

/// Spreads the targets that stop evenly among the others, so that their phases are spread too.
fn workload(targets: usize, interval: Duration) -> Workload {
    let mut workload = Workload::empty(interval);
    let databases = targets.div_ceil(DATABASE_SIZE).max(2 * STOPPING);
    for number in 0..databases {
        // True if this database begins a new share of this number of shares.
        let begins = |of: usize| number * of / databases != (number + 1) * of / databases;
        let port = match number * 2 * STOPPING / databases % 2 {
            _ if !begins(2 * STOPPING) => port::DRAIN,
            0 => port::STOPS,
            _ => port::VANISHES,
        };
        workload.add(port, Kind::Tcp.yaml(), DATABASE_SIZE);
    }
    workload
}

fn detect(settings: &Settings, who: Subject, targets: usize) -> Result<Found> {
    let workload = workload(targets, settings.interval);
    let (stops, vanishes) = (Stoppable::listen(port::STOPS)?, Stoppable::listen(port::VANISHES)?);
    let mut running = settings.warm_up(who, Kind::Tcp, &workload)?;
    let before = running.lines().len();
    let stopped = machine::now();
    stops.refuse();
    vanishes.black_hole()?;
    let expected = 2 * STOPPING * DATABASE_SIZE;
    // HAProxy's next check comes an interval after the last one has timed out, so it takes six.
    let patience = stopped + 10 * u64::try_from(settings.interval.as_nanos())? + SECOND;
    let down = loop {
        running.ensure_running()?;
        let down = first_downs(who, &workload, &running.lines()[before..]);
        if down.len() >= expected {
            break down;
        }
        if machine::now() > patience {
            bail!("{} found only {} of {expected} targets that stopped", who.name(), down.len());
        }
        thread::sleep(Duration::from_nanos(20 * MILLI));
    };
    let of = |port: u16| -> Vec<f64> {
        let addresses = workload
            .databases
            .iter()
            .filter(|database| database.port == port)
            .flat_map(|d| &d.addresses);
        addresses
            .filter_map(|address| Some((down.get(address)? - stopped) as f64 / SECOND as f64))
            .collect()
    };
    if let Some(wrong) = down.keys().find(|address| !stopping(&workload.databases, **address)) {
        bail!("{} says {wrong} is down, which it isn't", who.name());
    }
    Ok(Found { refused: of(port::STOPS), swallowed: of(port::VANISHES) })
}

fn stopping(databases: &[Database], address: Ipv4Addr) -> bool {
    databases
        .iter()
        .any(|database| database.port != port::DRAIN && database.addresses.contains(&address))
}

/// Returns when each target was first reported as down.
fn first_downs(who: Subject, workload: &Workload, lines: &[Line]) -> BTreeMap<Ipv4Addr, u64> {
    let targets = workload.targets();
    let mut down = BTreeMap::new();
    for line in lines {
        let address = match who {
            Subject::Before | Subject::Daemon => daemon_says_down(&line.text),
            _ => haproxy_says_down(&line.text)
                .and_then(|number| targets.get(number))
                .map(|target| *target.ip()),
        };
        if let Some(address) = address {
            down.entry(address).or_insert(line.at);
        }
    }
    down
}

fn haproxy_says_down(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once("Server bench/s")?;
    let (number, rest) = rest.split_once(' ')?;
    rest.starts_with("is DOWN").then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_stop_are_spread_evenly() {
        for targets in [1, 60, 1000, 5000] {
            let workload = workload(targets, Duration::from_secs(1));
            for wanted in [port::STOPS, port::VANISHES] {
                let at: Vec<usize> = (0..workload.databases.len())
                    .filter(|number| workload.databases[*number].port == wanted)
                    .collect();
                assert_eq!(at.len(), STOPPING, "{targets}");
                let even = workload.databases.len() / STOPPING;
                assert!(
                    at.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(even) <= 1),
                    "{targets}: {at:?}"
                );
            }
        }
    }

    #[test]
    fn both_tell_who_is_down() {
        let line = "2026-11-21T11:43:29.560914Z  WARN target is down namespace=bench service=db-0 \
                    address=198.18.1.1 from=up reason=\"connect: refused\"";
        assert_eq!(daemon_says_down(line), Some(Ipv4Addr::new(198, 18, 1, 1)));
        assert_eq!(daemon_says_down("INFO target is up address=198.18.1.1"), None);
        assert_eq!(
            haproxy_says_down("[WARNING]  (4) : Server bench/s12 is DOWN, reason: Layer4 timeout"),
            Some(12)
        );
        assert_eq!(haproxy_says_down("[WARNING]  (4) : Server bench/s12 is UP"), None);
    }
}
