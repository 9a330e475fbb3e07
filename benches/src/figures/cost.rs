//! The cost of a check and the timing of the checks, beside other programs that do the same.

use anyhow::{Context as _, Result};

use crate::measurement::{Sample, Settings};
use crate::row::Row;
use crate::subject::Subject;
use crate::timing::{Timing, median};
use crate::workload::Kind;

const ALL: [Subject; 4] = [Subject::Baseline, Subject::Haproxy, Subject::Before, Subject::Daemon];

/// Returns the largest ratio of the daemon's cost to another subject's that meets the goal.
fn goal(kind: Kind, over: Subject) -> Option<f64> {
    match (kind, over) {
        (_, Subject::Before) => Some(1.03),
        (Kind::Tcp, Subject::Haproxy) => Some(1.0),
        (Kind::Tcp, Subject::Baseline) => Some(1.15),
        (Kind::Http, Subject::Haproxy) => Some(0.95),
        (Kind::Exec, Subject::Baseline) => Some(1.05),
        (Kind::Redis | Kind::Mysql | Kind::Postgres, Subject::Haproxy) => Some(0.95),
        (Kind::Redis | Kind::Mysql | Kind::Postgres | Kind::Mongodb, Subject::Baseline) => {
            Some(1.3)
        }
        _ => None,
    }
}

/// The samples of one subject, one for each round.
struct Column {
    who: Subject,
    samples: Vec<Sample>,
}

impl Column {
    fn each(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }
}

pub(super) fn rows(settings: &Settings, kind: Kind, targets: usize) -> Result<Vec<Row>> {
    // No packet shows when a program starts. The kinds of databases are timed as `http` is.
    let with_timing = !matches!(kind, Kind::Exec) && kind.protocol().is_none();
    let columns = measure(settings, kind, targets, with_timing)?;
    let mut rows = Vec::new();
    for Column { who, .. } in &columns {
        let column = columns.iter().find(|column| column.who == *who).context("a column")?;
        rows.push(cost(kind, targets, column)?);
    }
    let (daemon, others) = columns.split_last().context("the daemon")?;
    for other in others {
        rows.push(ratio(kind, daemon, other)?);
    }
    for column in &columns {
        rows.extend(timing(kind, column));
    }
    Ok(rows)
}

/// Measures the subjects in turns, so that a machine whose speed changes does so for all of them.
fn measure(
    settings: &Settings,
    kind: Kind,
    targets: usize,
    with_timing: bool,
) -> Result<Vec<Column>> {
    let able = ALL.into_iter().filter(|who| settings.can(*who, kind));
    let mut columns: Vec<Column> = able.map(|who| Column { who, samples: Vec::new() }).collect();
    for round in 1..=settings.rounds {
        for Column { who, samples } in &mut columns {
            let sample = settings.measure(*who, kind, targets, with_timing)?;
            let (kind, who, cost) = (kind.name(), who.name(), sample.cost);
            eprintln!("bench: {kind}, round {round}: {who} {cost:.2} us a check");
            samples.push(sample);
        }
    }
    Ok(columns)
}

fn cost(kind: Kind, targets: usize, column: &Column) -> Result<Row> {
    let mut costs = column.each(|sample| sample.cost);
    let rounds = list(&costs);
    let rate = median(&mut column.each(|sample| sample.rate)).context("a round")?;
    let memory = median(&mut column.each(|sample| sample.memory)).context("a round")?;
    let detail =
        format!("{targets} targets; rounds {rounds}; {rate:.3} of the checks due; {memory:.1} MiB");
    let value = median(&mut costs).context("a round")?;
    let row =
        Row::new(format!("{}: {}", kind.name(), column.who.name()), value, "us/check", detail);
    Ok(match (kind, column.who) {
        (Kind::PostgresLogin, Subject::Daemon) => row.at_most(150.0),
        _ => row,
    })
}

/// Returns the median of the ratios of all rounds.
fn ratio(kind: Kind, daemon: &Column, other: &Column) -> Result<Row> {
    let pairs = daemon.samples.iter().zip(&other.samples);
    let mut ratios: Vec<f64> = pairs.map(|(daemon, other)| daemon.cost / other.cost).collect();
    let detail = format!("rounds {}", list(&ratios));
    let value = median(&mut ratios).context("a round")?;
    let row =
        Row::new(format!("{}: daemon / {}", kind.name(), other.who.name()), value, "x", detail);
    Ok(match goal(kind, other.who) {
        Some(goal) => row.at_most(goal),
        None => row,
    })
}

fn timing(kind: Kind, column: &Column) -> Vec<Row> {
    let of = |value: fn(&Timing) -> f64| {
        column.samples.iter().filter_map(move |sample| sample.timing.as_ref().map(value))
    };
    let name = |figure: &str| format!("{}: {figure}, {}", kind.name(), column.who.name());
    let mut drifts: Vec<f64> = of(|timing| timing.drift_ppm).collect();
    let mut bursts: Vec<f64> = of(|timing| timing.burst).collect();
    let worst = of(|timing| timing.worst_drift_ppm)
        .fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
    let drift_rounds = format!("rounds {}; worst target {worst:.1}", list(&drifts));
    let burst_rounds = format!("rounds {}", list(&bursts));
    let (Some(drift), Some(burst)) = (median(&mut drifts), median(&mut bursts)) else {
        return Vec::new();
    };
    let drift = Row::new(name("drift"), drift, "ppm", drift_rounds);
    let burst = Row::new(name("burst"), burst, "x mean", burst_rounds);
    if column.who == Subject::Daemon {
        vec![drift.at_most(10.0), burst.at_most(1.5)]
    } else {
        vec![drift, burst]
    }
}

fn list(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(", ")
}
