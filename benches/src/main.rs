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
mod results;
mod row;
mod server;
mod soak;
mod tap;
mod timing;
mod trial;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use fleet::{Kind, port};
use machine::Cpus;
use namespace::Stage;
use options::Options;
use row::Row;
use server::Manner;
use trial::Setting;

/// The part that is measured elsewhere.
const CLUSTER: &str = "cluster";

const SERVED: [(u16, Manner); 6] = [
    (port::DRAIN, Manner::Drain),
    (port::HTTP, Manner::Http),
    (port::SILENT, Manner::Silent),
    (port::DRIP, Manner::Drip),
    (port::RESET, Manner::Reset),
    (port::GARBAGE, Manner::Garbage),
];

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
        let kind =
            Kind::ALL.into_iter().find(|known| known.name() == kind).context("a kind of check")?;
        floor::run(kind, targets.parse()?, Duration::from_millis(interval.parse()?))?;
    }
    let Some(options) = options::parse(arguments.into_iter())? else {
        print!("{}", options::USAGE);
        return Ok(ExitCode::SUCCESS);
    };
    match namespace::stage() {
        Stage::Outside => outside(&options),
        Stage::Init => std::process::exit(namespace::init()?),
        Stage::Inside => inside(&options),
    }
}

/// Where the inside leaves the figures of one part.
fn rows_file(part: &str) -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(format!("{part}.json")))
}

fn outside(options: &Options) -> Result<ExitCode> {
    for part in &options.parts {
        let _ = fs::remove_file(rows_file(part)?);
    }
    let inside = namespace::run_inside()?;
    if options.soak.is_some() {
        return Ok(if inside == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let cluster = options
        .parts
        .iter()
        .find(|part| *part == CLUSTER)
        .map_or(Ok(()), |part| cluster(options, part));
    // Whatever was measured is shown, even if something else went wrong.
    let mut parts = Vec::new();
    for part in &options.parts {
        let file = rows_file(part)?;
        if file.exists() {
            parts.push((part.clone(), results::read_rows(&file)?));
        }
    }
    let mut rows: Vec<Row> = parts.iter().flat_map(|(_, rows)| rows.clone()).collect();
    if options.smoke {
        // So small and short a run says nothing of what is to be reached.
        rows.iter_mut().for_each(|row| (row.goal, row.reached) = (None, None));
    }
    print!("{}", row::table(&rows));
    cluster?;
    ensure!(
        inside == 0 && parts.len() == options.parts.len(),
        "not everything could be measured; see above"
    );
    // A comparison of two builds is for the one who asked, not for the page.
    if !options.smoke && options.before.is_none() {
        results::keep(&options.results, &parts, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The figures that need a control plane come from a program among the tests, which has one, in a network of its own.
fn cluster(options: &Options, part: &str) -> Result<()> {
    eprintln!("bench: the cluster's figures");
    let mut command = Command::new("cargo");
    command
        .args(["test", "--quiet", "--test", "cluster_bench", "--", "--json"])
        .arg(rows_file(part)?);
    command.arg("--daemon").arg(daemon(options)?);
    if options.smoke {
        command.arg("--smoke");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    // Its output would be between this program's and its table.
    let status = command.current_dir(root).stdout(io::stderr()).status().context("cargo")?;
    ensure!(status.success(), "the cluster's figures: {status}");
    Ok(())
}

fn daemon(options: &Options) -> Result<PathBuf> {
    absolute(&options.daemon)
}

/// Returns the path from the root: a checker starts in another folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}

fn inside(options: &Options) -> Result<ExitCode> {
    namespace::set_up()?;
    machine::raise_descriptor_limit()?;
    counter::set_up()?;
    let cpus = Cpus::choose()?;
    machine::pin(cpus.targets)?;
    server::start(cpus.targets, &SERVED)?;
    let setting = Setting {
        daemon: daemon(options)?,
        before: options.before.as_deref().map(absolute).transpose()?,
        cpus,
        interval: options.interval,
        time: options.time,
        rounds: options.rounds,
        least_rate: if options.smoke { 0.5 } else { 0.9 },
    };
    if let Some(time) = options.soak {
        return soak::run(&setting, options.targets, time, options.smoke);
    }
    namespace::forget_ended_connections()?;
    for part in options.parts.iter().filter(|part| *part != CLUSTER) {
        results::write_rows(&rows_file(part)?, &figures::measure(part, &setting, options)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
