//! The figures that need a cluster: how fast a verdict is published, for one Service or a thousand
//! at once, and how much memory that takes.

#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]

// The tests' own cluster support.
#[path = "../tests"]
mod tests {
    pub(crate) mod support;
}

mod cluster {
    pub(crate) mod bare;
    pub(crate) mod burst;
    pub(crate) mod figures;
    pub(crate) mod fixture;
    pub(crate) mod flips;
    pub(crate) mod memory;
    pub(crate) mod moves;
    pub(crate) mod report;
    pub(crate) mod targets;
    pub(crate) mod write_recorder;
}

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cluster::fixture::Fixture;
use cluster::report;
use tests::support;

/// The amount of work of a run.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    Full,
    /// A small run that only shows that everything works. Its figures have no goals.
    Smoke,
}

#[derive(Parser)]
struct Arguments {
    /// Writes the figures to this file too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The program to measure. The default is the one that cargo built for the tests, which is
    /// slow.
    #[arg(long, default_value = support::daemon::PROGRAM)]
    daemon: PathBuf,
    /// Measures little, to see that everything works.
    #[arg(long)]
    smoke: bool,
    /// Measures only these parts: flips, burst, memory, moves.
    #[arg(long)]
    only: Vec<String>,
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn main() -> ExitCode {
    // Parsed before the sandbox is created, so that a wrong argument fails at once.
    let arguments = Arguments::parse();
    let binaries = if arguments.wants("moves") {
        // CoreDNS is among them.
        support::binaries::Binaries::All
    } else {
        support::binaries::Binaries::ControlPlane
    };
    support::sandbox::enter_with(binaries);
    let rows = support::runtime().block_on(measure(&arguments));
    print!("{}", report::table(&rows));
    if let Some(path) = &arguments.json
        && let Err(error) = std::fs::write(path, report::json(&rows))
    {
        eprintln!("error: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn measure(arguments: &Arguments) -> Vec<report::Row> {
    let fixture = Fixture::start(&arguments.daemon).await;
    let wanted = |part: &str| arguments.wants(part);
    let scale = if arguments.smoke { Scale::Smoke } else { Scale::Full };
    let mut rows = Vec::new();
    if wanted("flips") {
        rows.extend(cluster::flips::measure(&fixture, scale).await);
    }
    if wanted("burst") {
        rows.extend(cluster::burst::measure(&fixture, scale).await);
    }
    if wanted("memory") {
        rows.extend(cluster::memory::measure(&fixture, scale).await);
    }
    if wanted("moves") {
        rows.extend(cluster::moves::measure(&fixture, scale).await);
    }
    rows
}
