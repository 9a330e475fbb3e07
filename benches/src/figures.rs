//! The figures of each part of the benchmark, and the runs that they need.

mod cost;
mod detection;
mod names;
mod native;
mod size;

use anyhow::{Result, bail};

use crate::measurement::Settings;
use crate::options::Options;
use crate::row::Row;
use crate::workload::Kind;

pub(crate) use size::{Encoding, fetch};

/// Measures a part that needs no cluster.
pub(crate) fn measure(part: &str, settings: &Settings, options: &Options) -> Result<Vec<Row>> {
    let smoke = options.smoke;
    match part {
        "tcp" => cost::rows(settings, Kind::Tcp, options.targets),
        "accept" => cost::rows(settings, Kind::Accept, options.targets),
        "http" => cost::rows(settings, Kind::Http, options.targets),
        "exec" => cost::rows(settings, Kind::Exec, options.targets.min(500)),
        "native" if smoke => native::rows(settings, options.targets, 120),
        "native" => native::rows(settings, options.targets, 10_000),
        "memory" if smoke => size::memory(settings, &[60]),
        "memory" => size::memory(settings, &[1_000, 5_000, 10_000]),
        "detection" => detection::rows(settings, if smoke { 90 } else { 1_000 }),
        "ten-thousand" if smoke => size::ten_thousand(settings, 100, 5),
        "ten-thousand" => size::ten_thousand(settings, 10_000, 100),
        "names" if smoke => names::rows(
            settings,
            &names::Scale { asked: 50, targets: 60, timed: options.targets, unresolved: 20 },
        ),
        "names" => names::rows(
            settings,
            &names::Scale {
                asked: 2_000,
                targets: 10_000,
                timed: options.targets,
                unresolved: 1_000,
            },
        ),
        other => bail!("there is no part {other}"),
    }
}
