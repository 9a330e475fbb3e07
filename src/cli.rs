//! The command line: what was typed, what it means, and the exit status that says how it went.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use comfy_table::Table;
use futures::StreamExt;
use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::{error, warn};

use crate::config::{self, DatabaseId, LoadedConfig, Problems, Spec};
use crate::freeze;
use crate::health::Verdict;
use crate::lease;
use crate::limits::Limits;
use crate::log::{self, Format};
use crate::probe::{Prober, Target};
use crate::publish::RateLimit;
use crate::reload::ConfigFile;
use crate::{clock, init, run};

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
    /// Try each target once and show a table; exit status 1 unless all pass.
    Probe(Probe),
    /// Ask the daemon in the cluster to let a database's preferred tier serve again, without a further delay.
    Failback(Failback),
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
    /// How many commands of exec checks may run at once [default: 4 for each core].
    #[arg(long, value_name = "N", value_parser = parse_max_exec)]
    max_exec: Option<NonZeroUsize>,
    /// How many repairs of outside changes a second are written; ten times as many writes that change the members.
    #[arg(long, value_name = "N", default_value_t = RateLimit::default().qps, value_parser = clap::value_parser!(u32).range(1..))]
    api_qps: u32,
    /// How many repairs may be written at once after a quiet time; ten times as many writes that change the members.
    #[arg(long, value_name = "N", default_value_t = RateLimit::default().burst, value_parser = clap::value_parser!(u32).range(1..))]
    api_burst: u32,
    #[command(flatten)]
    allowed: Allowed,
    /// The Lease by which one of several replicas writes [default: external-endpoints in the daemon's own namespace].
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_lease)]
    lease: Option<lease::Name>,
    /// Write without a Lease. For one replica only: two would undo each other's writes.
    #[arg(long, conflicts_with = "lease")]
    no_leader_election: bool,
    /// Take nothing out when more than this share of all published addresses would leave within 30 s; 100% always lets them.
    #[arg(long, value_name = "PERCENT", default_value = "60%", value_parser = parse_percentage)]
    max_unhealthy: u8,
    /// After this time, of at most 365d, take them out all the same; 0s does so at once.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    freeze_timeout: Duration,
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
    /// The config files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(clap::Args)]
struct Probe {
    /// The config file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Try only this database.
    #[arg(long, value_name = "NAMESPACE/SERVICE", value_parser = parse_id)]
    service: Option<DatabaseId>,
    #[command(flatten)]
    allowed: Allowed,
}

#[derive(clap::Args)]
struct Failback {
    /// The database's Service.
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = parse_id)]
    service: DatabaseId,
}

#[derive(clap::Args)]
struct Allowed {
    /// Refuse addresses outside these networks; repeat for more [default: any].
    #[arg(long = "allow-cidr", value_name = "CIDR", value_parser = parse_cidr)]
    cidrs: Vec<IpNet>,
}

fn parse_cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => format!(
            "write {} for this address alone, or a network as in 10.20.0.0/16",
            IpNet::from(ip)
        ),
        Err(_) => "write a network as in 10.20.0.0/16 or 2001:db8::/32".to_owned(),
    })
}

fn parse_percentage(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| "write a percentage from 1% to 100%".to_owned())
}

/// No duration of the command line is longer, so that each moment it leads to is one that can be shown.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "write a duration as in 10m, 90s or 0s".to_owned())?;
    if duration > MAX_DURATION {
        return Err("write at most 365d".to_owned());
    }
    Ok(duration)
}

/// Each command has a thread to itself, so that their number has an end.
const MAX_EXEC: usize = 10_000;

fn parse_max_exec(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<usize>() {
        Ok(number) if number <= MAX_EXEC => NonZeroUsize::new(number)
            .ok_or_else(|| "with 0 no exec check would ever run; write at least 1".to_owned()),
        _ => Err(format!("write a number from 1 to {MAX_EXEC}")),
    }
}

/// Where a command says what went wrong.
#[derive(Clone, Copy)]
enum Console {
    /// On standard error, for a person.
    Person,
    /// In the log, a line each, for whoever collects it.
    Log,
}

impl Console {
    fn warn(self, line: &str) {
        match self {
            Console::Person => log::print(&format!("warning: {line}\n")),
            Console::Log => warn!("{line}"),
        }
    }

    fn bad_config(self, problems: &Problems) {
        match self {
            Console::Person => log::print(&problems.render(std::io::stderr().is_terminal())),
            Console::Log => problems.to_string().lines().for_each(|line| error!("{line}")),
        }
    }

    fn failed(self, error: &anyhow::Error) -> ExitCode {
        match self {
            Console::Person => log::print(&format!("external-endpoints: {error:#}\n")),
            Console::Log => error!("{error:#}"),
        }
        ExitCode::FAILURE
    }

    /// What the reading of a config depends on. Addresses that may not be published can be left out.
    fn options(self, allowed: &Allowed, leave_out_refused: bool) -> config::Options {
        let own_namespace = run::own_namespace().unwrap_or_else(|why| {
            self.warn(&format!(
                "KUBECONFIG: {why}; databases that name no namespace are taken to be in `default`"
            ));
            "default".to_owned()
        });
        config::Options {
            own_namespace,
            allow_cidr: allowed.cidrs.clone(),
            skip_rejected: leave_out_refused,
        }
    }

    /// Reads a config file, and says what is wrong with it.
    fn load(self, file: &Path, options: config::Options) -> Result<(ConfigFile, Spec), ExitCode> {
        match ConfigFile::read(file.to_owned(), options) {
            Ok((source, loaded)) => Ok((source, self.check(loaded)?)),
            Err(shortage) => Err(self.failed(&anyhow!("{}: {shortage}", file.display()))),
        }
    }

    /// Says what is wrong with a config.
    fn check(self, loaded: Result<LoadedConfig, Problems>) -> Result<Spec, ExitCode> {
        match loaded {
            Ok(loaded) => {
                loaded.warnings.to_string().lines().for_each(|line| self.warn(line));
                Ok(loaded.spec)
            }
            Err(problems) => {
                self.bad_config(&problems);
                Err(ExitCode::from(BAD_CONFIG))
            }
        }
    }
}

/// Prints to standard output. That its reader has gone away is no mistake of ours, but nothing more is to be said then.
fn print(text: &str) -> Result<(), ExitCode> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| not_printed(&error))
}

fn not_printed(error: &std::io::Error) -> ExitCode {
    if error.kind() != ErrorKind::BrokenPipe {
        log::print(&format!("external-endpoints: standard output: {error}\n"));
    }
    ExitCode::FAILURE
}

/// Prints the help that was asked for, or how to use the command line.
fn print_usage(usage: &clap::Error) -> ExitCode {
    let printed = usage.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(error) if !usage.use_stderr() => not_printed(&error),
        _ => ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(u8::MAX)),
    }
}

fn exit_code(done: Result<ExitCode, ExitCode>) -> ExitCode {
    done.unwrap_or_else(|failed| failed)
}

fn parse_id(text: &str) -> Result<DatabaseId, String> {
    let (namespace, service) =
        in_namespace(text).ok_or("write NAMESPACE/SERVICE, as in prod/mysql")?;
    config::validate_namespace(namespace)?;
    config::validate_service(service)?;
    Ok(DatabaseId { namespace: namespace.to_owned(), service: service.to_owned() })
}

fn in_namespace(text: &str) -> Option<(&str, &str)> {
    text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

fn parse_lease(text: &str) -> Result<lease::Name, String> {
    let (namespace, name) = in_namespace(text).ok_or("write NAMESPACE/NAME, as in prod/mysql")?;
    config::validate_namespace(namespace)?;
    config::validate_lease(name)?;
    Ok(lease::Name { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => exit_code(cli.command.main()),
        Err(usage) => print_usage(&usage),
    };
    log::flush();
    code
}

impl Command {
    fn main(self) -> Result<ExitCode, ExitCode> {
        match self {
            Command::Run(run) => run.main(),
            Command::Validate(validate) => validate.main(),
            Command::Probe(probe) => probe.main(),
            Command::Failback(failback) => failback.main(),
            Command::Schema => print_schema(),
        }
    }
}

fn runtime(voice: Console) -> Result<tokio::runtime::Runtime, ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| voice.failed(&anyhow!("can't start a runtime: {error}")))
}

/// Handles the signals that must not end the daemon: SIGHUP, and SIGXFSZ, which says that a log file can't grow.
fn signals(runtime: &tokio::runtime::Runtime) -> std::io::Result<Signal> {
    let _inside = runtime.enter();
    // The write that is too much then fails as on a full disk.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    signal(SignalKind::hangup())
}

impl Run {
    fn main(self) -> Result<ExitCode, ExitCode> {
        init::run_as_init()
            .map_err(|error| Console::Person.failed(&anyhow!("process 1 can't fork: {error}")))?;
        log::start(self.log_format)
            .map_err(|error| Console::Person.failed(&anyhow!("can't start the log: {error}")))?;
        let voice = match self.log_format {
            Format::Human => Console::Person,
            Format::Json => Console::Log,
        };
        let runtime = runtime(voice)?;
        // From here on SIGHUP ends nothing, also while the config is read for the first time.
        let hangup = signals(&runtime)
            .map_err(|error| voice.failed(&anyhow!("can't handle signals: {error}")))?;
        let (config, spec) = voice.load(&self.config, voice.options(&self.allowed, true))?;
        let namespaces: BTreeSet<&str> =
            spec.databases.iter().map(|database| database.id.namespace.as_str()).collect();
        let limits = Limits::raise(self.max_exec, namespaces.len());
        let rate = RateLimit { qps: self.api_qps, burst: self.api_burst };
        let lease =
            (!self.no_leader_election).then(|| self.lease.unwrap_or_else(run::default_lease));
        let freeze =
            freeze::Rules { max_unhealthy: self.max_unhealthy, timeout: self.freeze_timeout };
        let options = run::Options {
            dry_run: self.dry_run,
            listen: self.listen,
            limits,
            rate,
            freeze,
            lease,
            config,
        };
        let ended = runtime.block_on(run::run(spec, options, hangup));
        // Work that blocks, such as reading a file from a dead mount, must not hold up the end.
        runtime.shutdown_background();
        ended.map(|()| ExitCode::SUCCESS).map_err(|error| voice.failed(&error))
    }
}

impl Validate {
    fn main(self) -> Result<ExitCode, ExitCode> {
        let mut status = ExitCode::SUCCESS;
        let options = Console::Person.options(&self.allowed, false);
        for file in &self.files {
            match Console::Person.load(file, options.clone()) {
                Ok((_, spec)) if self.explain => print(&config::explain(&spec))?,
                Ok((_, spec)) => {
                    let addresses: usize =
                        spec.databases.iter().map(|database| database.addresses.len()).sum();
                    let databases = spec.databases.len();
                    print(&format!(
                        "{}: good; databases: {databases}, addresses: {addresses}\n",
                        file.display()
                    ))?;
                }
                Err(bad) => status = bad,
            }
        }
        Ok(status)
    }
}

impl Probe {
    fn main(self) -> Result<ExitCode, ExitCode> {
        let (_, mut spec) =
            Console::Person.load(&self.file, Console::Person.options(&self.allowed, false))?;
        if let Some(wanted) = &self.service {
            spec.databases.retain(|database| database.id == *wanted);
            if spec.databases.is_empty() {
                let why = anyhow!("{} has no database {wanted}", self.file.display());
                return Err(Console::Person.failed(&why));
            }
        }
        let limits = Limits::raise(None, 0);
        runtime(Console::Person)?.block_on(probe_once(&spec, limits))
    }
}

impl Failback {
    fn main(self) -> Result<ExitCode, ExitCode> {
        let asked = runtime(Console::Person)?.block_on(run::ask_failback(&self.service));
        asked.map_err(|error| Console::Person.failed(&error))?;
        print(&format!(
            "asked for a failback of {}; its tiers above take over if they are well\n",
            self.service
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Targets that `probe` tries at the same time, if there are descriptors for so many.
const MAX_CONCURRENT: usize = 256;

/// Tries every target once, and shows a table.
async fn probe_once(spec: &Spec, limits: Limits) -> Result<ExitCode, ExitCode> {
    let commands = Semaphore::new(limits.max_execs);
    let commands = &commands;
    let tries = spec.databases.iter().flat_map(|database| {
        database.addresses.iter().map(async |address| {
            let prober = Prober::new(address.check.clone(), Target::new(database, address));
            let _permit = if prober.is_exec() { commands.acquire().await.ok() } else { None };
            let started = clock::now();
            let verdict = prober.probe().await;
            (&database.id, address.ip, verdict, clock::now().saturating_duration_since(started))
        })
    });
    let tried: Vec<_> = futures::stream::iter(tries)
        .buffered(MAX_CONCURRENT.min(limits.max_in_flight))
        .collect()
        .await;
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
    let lines: Vec<String> =
        table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    print(&lines.concat())?;
    Ok(status)
}

fn print_schema() -> Result<ExitCode, ExitCode> {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(schema) => print(&format!("{schema}\n")).map(|()| ExitCode::SUCCESS),
        Err(error) => Err(Console::Person.failed(&error.into())),
    }
}
