//! The command line: what was typed, what it means, and the exit status that says how it went.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::Table;
use futures::StreamExt;
use ipnet::IpNet;

use crate::config::{self, DatabaseId, Spec};
use crate::health::Verdict;
use crate::log::{self, Format};
use crate::probe::{Prober, Target};
use crate::{clock, run};

/// The exit status for a bad config, as sysexits.h has it.
const BAD_CONFIG: u8 = 78;

/// Health-checks databases outside the cluster, and keeps only the healthy ones in their Services' Endpoints.
///
/// Exit status: 0 well, 1 failed, 2 wrong usage, 78 bad config.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the databases and publish the healthy ones, until SIGTERM or SIGINT.
    Run(Run),
    /// Tell whether config files are good.
    Validate(Validate),
    /// Try each target once and show a table; exit status 1 if any fails.
    Probe(Probe),
    /// Print the config's JSON Schema.
    Schema,
}

#[derive(clap::Args)]
struct Run {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check for real and show what would be published, but write nothing. Needs no cluster.
    #[arg(long)]
    dry_run: bool,
    /// Where /healthz, /readyz, /metrics and /api/v1/status are served.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    allowed: Allowed,
    /// How a line of the log looks.
    #[arg(long, value_enum, default_value = "human")]
    log_format: Format,
}

#[derive(clap::Args)]
struct Validate {
    /// Print the config with every default filled in.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    allowed: Allowed,
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(clap::Args)]
struct Probe {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Try only this database.
    #[arg(long, value_name = "NAMESPACE/SERVICE", value_parser = parse_id)]
    service: Option<DatabaseId>,
    #[command(flatten)]
    allowed: Allowed,
}

#[derive(clap::Args)]
struct Allowed {
    /// Refuse addresses outside these networks; repeat for more [default: any].
    #[arg(long = "allow-cidr", value_name = "CIDR")]
    cidrs: Vec<IpNet>,
}

impl Allowed {
    fn options(&self) -> config::Options {
        config::Options { own_namespace: run::own_namespace(), allow_cidr: self.cidrs.clone() }
    }
}

fn parse_id(text: &str) -> Result<DatabaseId, String> {
    match text.split_once('/') {
        Some((namespace, service)) if !namespace.is_empty() && !service.is_empty() => {
            Ok(DatabaseId { namespace: namespace.to_owned(), service: service.to_owned() })
        }
        _ => Err("write NAMESPACE/SERVICE, as in prod/mysql".to_owned()),
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => run.main(),
        Command::Validate(validate) => validate.main(),
        Command::Probe(probe) => probe.main(),
        Command::Schema => print_schema(),
    }
}

/// Reads a config file; shows what is wrong with it on standard error.
fn load(file: &Path, allowed: &Allowed) -> Result<Spec, ExitCode> {
    let terminal = std::io::stderr().is_terminal();
    match config::load(file, &allowed.options()) {
        Ok(loaded) => {
            for line in loaded.warnings.to_string().lines() {
                eprintln!("warning: {line}");
            }
            Ok(loaded.spec)
        }
        Err(problems) => {
            eprint!("{}", problems.render(terminal));
            Err(ExitCode::from(BAD_CONFIG))
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("external-endpoints: {error:#}");
    ExitCode::FAILURE
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

impl Run {
    fn main(self) -> ExitCode {
        let spec = match load(&self.config, &self.allowed) {
            Ok(spec) => spec,
            Err(status) => return status,
        };
        log::start(self.log_format);
        let options = run::Options { dry_run: self.dry_run, listen: self.listen };
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&error),
        };
        let ended = runtime.block_on(run::run(spec, options));
        // Work that blocks, such as reading a file from a dead mount, must not hold up the end.
        runtime.shutdown_background();
        ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
    }
}

impl Validate {
    fn main(self) -> ExitCode {
        let mut status = ExitCode::SUCCESS;
        for file in &self.files {
            match load(file, &self.allowed) {
                Ok(spec) if self.explain => print!("{}", config::explain(&spec)),
                Ok(spec) => {
                    let addresses: usize = spec.databases.iter().map(|database| database.addresses.len()).sum();
                    println!("{}: good; databases: {}, addresses: {addresses}", file.display(), spec.databases.len());
                }
                Err(bad) => status = bad,
            }
        }
        status
    }
}

impl Probe {
    fn main(self) -> ExitCode {
        let mut spec = match load(&self.file, &self.allowed) {
            Ok(spec) => spec,
            Err(status) => return status,
        };
        if let Some(wanted) = &self.service {
            spec.databases.retain(|database| database.id == *wanted);
            if spec.databases.is_empty() {
                return failed(&anyhow::anyhow!("{} has no database {wanted}", self.file.display()));
            }
        }
        match runtime() {
            Ok(runtime) => runtime.block_on(probe_once(&spec)),
            Err(error) => failed(&error),
        }
    }
}

/// Targets that `probe` tries at the same time: many, but fewer than the descriptors that a shell allows.
const AT_ONCE: usize = 256;

/// Tries every target once, and shows a table.
async fn probe_once(spec: &Spec) -> ExitCode {
    let tries = spec.databases.iter().flat_map(|database| {
        database.addresses.iter().map(async |address| {
            let target = Target {
                database: database.id.clone(),
                ip: address.ip,
                hostname: address.hostname.clone(),
                port: database.ports[0].number,
            };
            let prober = Prober::new(address.check.clone(), target);
            let started = clock::now();
            let verdict = prober.probe().await;
            (&database.id, address.ip, verdict, clock::now().saturating_duration_since(started))
        })
    });
    let tried: Vec<_> = futures::stream::iter(tries).buffered(AT_ONCE).collect().await;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NAMESPACE", "SERVICE", "ADDRESS", "VERDICT", "TIME", "REASON"]);
    let mut status = ExitCode::SUCCESS;
    for (id, ip, verdict, duration) in tried {
        let word = match verdict {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "fail",
            Verdict::Inconclusive(_) => "inconclusive",
        };
        if verdict != Verdict::Pass {
            status = ExitCode::FAILURE;
        }
        let time = format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
        let reason = verdict.reason().unwrap_or_default();
        table.add_row([&id.namespace, &id.service, &ip.to_string(), word, &time, reason]);
    }
    println!("{table}");
    status
}

fn print_schema() -> ExitCode {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(schema) => {
            println!("{schema}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error.into()),
    }
}
