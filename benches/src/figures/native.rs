//! Checks in a database's own protocol: their cost beside HAProxy's and a bare loop's, ten thousand
//! targets of each, and the memory that these need over that of `tcp`.

use anyhow::{Context as _, Result};

use super::cost;
use crate::measurement::Settings;
use crate::row::Row;
use crate::subject::Subject;
use crate::timing::median;
use crate::workload::Kind;

/// The part of the targets whose check logs in: each has keys that are computed at its first check.
const LOGINS: usize = 5;

/// Measures the cost with `targets` targets, and the rest with `many`.
pub(super) fn rows(settings: &Settings, targets: usize, many: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in [Kind::Redis, Kind::Mysql, Kind::Postgres, Kind::Mongodb] {
        rows.extend(cost::rows(settings, kind, targets)?);
    }
    rows.extend(cost::rows(settings, Kind::PostgresLogin, targets / LOGINS)?);
    // Both at the same interval, as the number of checks in flight has a part in the memory.
    let every = |factor: u32| Settings { interval: factor * settings.interval, ..settings.clone() };
    let kinds = [(Kind::Redis, 1), (Kind::Mongodb, 1), (Kind::Mysql, 2), (Kind::Postgres, 2)];
    for (kind, factor) in kinds {
        rows.extend(many_targets(&every(factor), kind, many)?);
    }
    Ok(rows)
}

/// Measures the CPU time and the memory of the daemon for many targets of one kind.
fn many_targets(settings: &Settings, kind: Kind, targets: usize) -> Result<Vec<Row>> {
    let (mut shares, mut growths) = (Vec::new(), Vec::new());
    let mut rate = 1.0_f64;
    for round in 1..=settings.rounds {
        let plain = settings.measure(Subject::Daemon, Kind::Tcp, targets, false)?;
        let native = settings.measure(Subject::Daemon, kind, targets, false)?;
        let growth = native.memory - plain.memory;
        let (name, share) = (kind.name(), native.share);
        eprintln!(
            "bench: {targets} targets, {name}, round {round}: {share:.3} of a CPU, {growth:.2} MiB \
             over tcp"
        );
        rate = rate.min(native.rate);
        shares.push(share);
        growths.push(growth);
    }
    let interval = settings.interval.as_secs_f64();
    let about = format!("{targets} targets every {interval} s");
    let name = |figure: &str| format!("{}: {figure}", kind.name());
    let share = median(&mut shares).context("a round")?;
    let growth = median(&mut growths).context("a round")?;
    let detail = format!("{about}; {rate:.3} of the checks due");
    Ok(vec![
        Row::new(name("10,000 targets"), share, "of a CPU", detail).at_most(1.0),
        Row::new(name("memory over tcp"), growth, "MiB", about).at_most(2.0),
    ])
}
