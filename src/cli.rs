//! The command line: a file for each subcommand, and the exit status.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use console::{Console, Reported};

use crate::log;

mod args;
mod check;
mod cluster;
mod completion;
mod console;
mod daemon;
mod diff;
mod explain;
mod failback;
mod import;
mod maintenance;
mod man;
mod output;
mod paint;
mod probe;
mod rbac;
mod run;
mod schema;
mod service;
mod status;
mod validate;
mod width;

/// Health-checks databases outside the cluster, and keeps only the healthy ones in their Services'
/// Endpoints.
///
/// Exit status: 0 success, 1 failure, 2 wrong usage, 78 bad config.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the databases and publish the healthy ones, until SIGTERM or SIGINT
    Run(run::Run),
    /// Validate config files and show what is wrong with them
    Validate(validate::Validate),
    /// Check each target once and show a table; the exit status is 1 unless all pass
    Probe(probe::Probe),
    /// Look at the cluster, the rights, the config and the daemon, and say what is wrong
    Check(check::Check),
    /// Check the addresses and show what would change in the cluster: 0 nothing, 1 something, 2 the
    /// comparison failed
    Diff(diff::Diff),
    /// Show the state of all databases; the exit status is 1 if anything needs a person
    Status(status::Status),
    /// Say why an address is published or not, and what changes that
    Explain(explain::Explain),
    /// Let a database's preferred tier serve again, without waiting for its failback delay
    Failback(failback::Failback),
    /// Write the config of what hand-written Endpoints, other controllers or HAProxy serve today
    Import(import::Import),
    /// Take addresses out for maintenance, and bring them back
    Maintenance(maintenance::Maintenance),
    /// Print the least Roles that a config needs, or what the cluster lacks of them
    Rbac(rbac::Rbac),
    /// Print the config's JSON Schema
    Schema,
    /// Print the script with which a shell completes this command line
    Completion(completion::Completion),
    /// Print or write the manual pages
    Man(man::Man),
}

/// Executes the command line and returns the exit status. Everything that went wrong has been
/// printed or logged by then.
pub fn main() -> ExitCode {
    let status = match parse() {
        Ok(cli) => cli.command.execute().unwrap_or_else(|Reported(status)| status),
        Err(usage) => console::print_usage(&usage),
    };
    log::flush();
    status
}

/// The name of the program by which kubectl finds it as a plugin.
const PLUGIN: &str = "kubectl-external_endpoints";

/// Parses the command line. Help and errors of a plugin of kubectl name it as users call it.
fn parse() -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let program = std::env::args_os().next().map(PathBuf::from);
    if program.is_some_and(|program| program.file_name() == Some(OsStr::new(PLUGIN))) {
        command = command.bin_name("kubectl external-endpoints");
    }
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

impl Command {
    fn execute(self) -> Result<ExitCode, Reported> {
        match self {
            Command::Run(run) => run.execute(),
            Command::Validate(validate) => validate.execute(),
            Command::Probe(probe) => probe.execute(),
            Command::Check(check) => check.execute(),
            Command::Diff(diff) => diff.execute(),
            Command::Status(status) => status.execute(),
            Command::Explain(explain) => explain.execute(),
            Command::Failback(failback) => failback.execute(),
            Command::Import(import) => import.execute(),
            Command::Maintenance(maintenance) => maintenance.execute(),
            Command::Rbac(rbac) => rbac.execute(),
            Command::Schema => schema::execute(),
            Command::Completion(completion) => completion.execute(),
            Command::Man(man) => man.execute(),
        }
    }
}

fn runtime(console: Console) -> Result<Runtime, Reported> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| console.fail(&anyhow!("can't start a runtime: {error}")))
}
