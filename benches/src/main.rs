//! `make bench`: measures the daemon beside HAProxy and bare loops that do the same work, in a
//! network of its own.

mod baseline;
mod capture;
mod counter;
mod dns;
mod figures;
mod filter;
mod machine;
mod measurement;
mod namespace;
mod options;
mod protocol;
mod results;
mod row;
mod scram;
mod server;
mod soak;
mod subject;
mod timing;
mod workload;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use machine::Cpus;
use measurement::Settings;
use namespace::Stage;
use options::Options;
use protocol::Protocol;
use row::Row;
use server::Behavior;
use workload::{Kind, port};

/// The part that another program measures.
const CLUSTER: &str = "cluster";
/// The part of which another program measures the figure with a cluster.
const NAMES: &str = "names";

/// The file of these figures.
const NAMES_CLUSTER: &str = "names-cluster";

const SERVED: [(u16, Behavior); 10] = [
    (port::DRAIN, Behavior::Drain),
    (port::HTTP, Behavior::Http),
    (port::SILENT, Behavior::Silent),
    (port::DRIP, Behavior::Drip),
    (port::RESET, Behavior::Reset),
    (port::GARBAGE, Behavior::Garbage),
    (port::REDIS, Behavior::Native(Protocol::Redis)),
    (port::MYSQL, Behavior::Native(Protocol::Mysql)),
    (port::POSTGRES, Behavior::Native(Protocol::Postgres)),
    (port::MONGODB, Behavior::Native(Protocol::Mongodb)),
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
        && first == "baseline"
    {
        let kind =
            Kind::ALL.into_iter().find(|known| known.name() == kind).context("a kind of check")?;
        baseline::run(kind, targets.parse()?, Duration::from_millis(interval.parse()?))?;
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

/// Returns the file in which the inside leaves the figures of a part.
fn rows_file(part: &str) -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(format!("{part}.json")))
}

fn outside(options: &Options) -> Result<ExitCode> {
    for part in options.parts.iter().map(|part| &**part).chain([NAMES_CLUSTER]) {
        let _ = fs::remove_file(rows_file(part)?);
    }
    let inside = namespace::run_inside()?;
    if options.soak.is_some() {
        return Ok(if inside == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let measure = |part: &str, file: &str, figures: &[&str]| {
        let is_wanted = options.parts.iter().any(|wanted| wanted == part);
        if is_wanted { cluster(options, file, figures) } else { Ok(()) }
    };
    let whole = measure(CLUSTER, CLUSTER, &["flips", "burst", "memory"]);
    let moves = measure(NAMES, NAMES_CLUSTER, &["moves"]);
    // Shows everything that was measured, even if something else failed.
    let mut parts = Vec::new();
    for part in &options.parts {
        let file = rows_file(part)?;
        if file.exists() {
            let mut rows = results::read_rows(&file)?;
            if part == NAMES && moves.is_ok() {
                rows.extend(results::read_rows(&rows_file(NAMES_CLUSTER)?)?);
            }
            parts.push((part.clone(), rows));
        }
    }
    let mut rows: Vec<Row> = parts.iter().flat_map(|(_, rows)| rows.clone()).collect();
    if options.smoke {
        // So small a run says nothing about the goals.
        rows.iter_mut().for_each(|row| (row.goal, row.reached) = (None, None));
    }
    print!("{}", row::table(&rows));
    whole?;
    moves?;
    ensure!(
        inside == 0 && parts.len() == options.parts.len(),
        "not everything could be measured; see above"
    );
    // A comparison of two builds does not belong on the page.
    if !options.smoke && options.before.is_none() {
        results::keep(&options.results, &parts, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures figures that need a control plane, into the file of a part. A program among the tests
/// measures them, in a network of its own.
fn cluster(options: &Options, part: &str, figures: &[&str]) -> Result<()> {
    eprintln!("bench: the cluster's figures: {}", figures.join(", "));
    let mut command = Command::new("cargo");
    command
        .args(["test", "--quiet", "--test", "cluster_bench", "--", "--json"])
        .arg(rows_file(part)?);
    command.arg("--daemon").arg(daemon(options)?);
    if options.smoke {
        command.arg("--smoke");
    }
    for figure in figures {
        command.args(["--only", figure]);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    // Keeps its output out of this program's table.
    let status = command.current_dir(root).stdout(io::stderr()).status().context("cargo")?;
    ensure!(status.success(), "the cluster's figures: {status}");
    Ok(())
}

fn daemon(options: &Options) -> Result<PathBuf> {
    absolute(&options.daemon)
}

/// Returns the path from the root, because a checker starts in another folder.
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
    let settings = Settings {
        daemon: daemon(options)?,
        before: options.before.as_deref().map(absolute).transpose()?,
        cpus,
        interval: options.interval,
        time: options.time,
        rounds: options.rounds,
        min_rate: if options.smoke { 0.5 } else { 0.9 },
    };
    if let Some(time) = options.soak {
        let trend = if options.smoke { soak::Trend::Ignored } else { soak::Trend::Judged };
        return soak::run(&settings, options.targets, time, trend);
    }
    namespace::disable_time_wait()?;
    for part in options.parts.iter().filter(|part| *part != CLUSTER) {
        results::write_rows(&rows_file(part)?, &figures::measure(part, &settings, options)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
