//! What a check costs, and how evenly the checks come, beside others that do the same.

use anyhow::{Context as _, Result};

use crate::contender::Contender;
use crate::fleet::Kind;
use crate::row::Row;
use crate::timing::{Timing, median};
use crate::trial::{Sample, Setting};

const ALL: [Contender; 4] =
    [Contender::Floor, Contender::Haproxy, Contender::Before, Contender::Daemon];

/// What the daemon's cost is to be at most, over that of another.
fn goal(kind: Kind, over: Contender) -> Option<f64> {
    match (kind, over) {
        (_, Contender::Before) => Some(1.03),
        (Kind::Tcp, Contender::Haproxy) => Some(1.0),
        (Kind::Tcp, Contender::Floor) => Some(1.15),
        (Kind::Http, Contender::Haproxy) => Some(0.95),
        (Kind::Exec, Contender::Floor) => Some(1.05),
        _ => None,
    }
}

/// The samples of one contender, a round each.
struct Column {
    who: Contender,
    samples: Vec<Sample>,
}

impl Column {
    fn each(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }
}

pub fn rows(setting: &Setting, kind: Kind, targets: usize) -> Result<Vec<Row>> {
    let columns = measure(setting, kind, targets)?;
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

/// The contenders take turns, so that a machine that changes its mood does so for all.
fn measure(setting: &Setting, kind: Kind, targets: usize) -> Result<Vec<Column>> {
    let able = ALL.into_iter().filter(|who| setting.can(*who, kind));
    let mut columns: Vec<Column> = able.map(|who| Column { who, samples: Vec::new() }).collect();
    for round in 1..=setting.rounds {
        for Column { who, samples } in &mut columns {
            // No packet shows when a program starts.
            let sample = setting.measure(*who, kind, targets, kind != Kind::Exec)?;
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
    Ok(Row::new(format!("{}: {}", kind.name(), column.who.name()), value, "us/check", detail))
}

/// The median of what each round says.
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
    if column.who == Contender::Daemon {
        vec![drift.at_most(10.0), burst.at_most(1.5)]
    } else {
        vec![drift, burst]
    }
}

fn list(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(", ")
}
