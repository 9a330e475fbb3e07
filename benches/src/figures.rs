//! The figures: which runs are made for each, and what is made of them.

mod cost;
mod detection;
mod size;

use anyhow::{Result, bail};

use crate::fleet::Kind;
use crate::options::Options;
use crate::row::Row;
use crate::trial::Setting;

pub use size::fetch;

/// Measures one part of those that need no cluster.
pub fn measure(part: &str, setting: &Setting, options: &Options) -> Result<Vec<Row>> {
    let smoke = options.smoke;
    match part {
        "tcp" => cost::rows(setting, Kind::Tcp, options.targets),
        "accept" => cost::rows(setting, Kind::Accept, options.targets),
        "http" => cost::rows(setting, Kind::Http, options.targets),
        "exec" => cost::rows(setting, Kind::Exec, options.targets.min(500)),
        "memory" if smoke => size::memory(setting, &[60]),
        "memory" => size::memory(setting, &[1_000, 5_000, 10_000]),
        "detection" => detection::rows(setting, if smoke { 90 } else { 1_000 }),
        "ten-thousand" if smoke => size::ten_thousand(setting, 100, 5),
        "ten-thousand" => size::ten_thousand(setting, 10_000, 40),
        other => bail!("there is no part {other}"),
    }
}
