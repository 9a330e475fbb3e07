//! `make bench`: measures the daemon beside HAProxy and beside bare loops that do the same work, in a network of its own.

mod contender;
mod counter;
mod figures;
mod filter;
mod fleet;
mod floor;
mod machine;
mod namespace;
mod options;
mod row;
mod server;
mod tap;
mod timing;
mod trial;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use fleet::{Kind, port};
use machine::Cpus;
use options::Options;
use server::Manner;
use trial::Setting;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, kind, targets, interval] = &*arguments
        && first == "floor"
    {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).context("a kind of check")?;
        floor::run(kind, targets.parse()?, Duration::from_millis(interval.parse()?))?;
    }
    let Some(options) = options::parse(arguments.into_iter())? else {
        print!("{}", options::USAGE);
        return Ok(ExitCode::SUCCESS);
    };
    if namespace::is_inside() {
        inside(&options)?
    } else {
        std::process::exit(namespace::run_inside()?)
    }
    Ok(ExitCode::SUCCESS)
}

fn inside(options: &Options) -> Result<()> {
    namespace::set_up()?;
    machine::raise_descriptor_limit()?;
    counter::set_up()?;
    let cpus = Cpus::choose()?;
    machine::pin(cpus.targets)?;
    server::start(cpus.targets, &[(port::DRAIN, Manner::Drain), (port::HTTP, Manner::Http)])?;
    let setting = Setting {
        daemon: options.daemon.canonicalize().with_context(|| options.daemon.display().to_string())?,
        cpus,
        interval: options.interval,
        time: options.time,
        rounds: options.rounds,
        least_rate: if options.smoke { 0.5 } else { 0.9 },
    };
    let mut rows = Vec::new();
    for part in &options.parts {
        rows.extend(figures::measure(part, &setting, options)?);
    }
    print!("{}", row::table(&rows));
    Ok(())
}
