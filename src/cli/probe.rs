//! `probe`: checks every target once and prints the verdicts as a table.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use comfy_table::Table;
use futures::StreamExt as _;
use tokio::sync::Semaphore;

use super::args::{AllowedCidrs, parse_database_id};
use super::console::{Console, Reported, print};
use crate::clock;
use crate::config::{DatabaseId, Spec};
use crate::health::Verdict;
use crate::limits::Limits;
use crate::probe::{Prober, Target};

/// The most targets that are checked at the same time. Fewer where descriptors are scarce.
const MAX_CONCURRENT: usize = 256;

#[derive(clap::Args)]
pub(super) struct Probe {
    /// The config file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check only this database
    #[arg(long, value_name = "NAMESPACE/SERVICE", value_parser = parse_database_id)]
    service: Option<DatabaseId>,
    #[command(flatten)]
    allowed: AllowedCidrs,
}

/// The outcome of one check.
struct Row<'a> {
    database: &'a DatabaseId,
    ip: IpAddr,
    verdict: Verdict,
    duration: Duration,
}

impl Probe {
    /// Checks each target once. The exit status is 0 only if all pass.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let options = console.config_options(&self.allowed);
        let (_, mut spec) = console.load(&self.file, options)?;
        if let Some(id) = &self.service {
            spec.databases.retain(|database| database.id == *id);
            if spec.databases.is_empty() {
                let error = anyhow!("{} has no database {id}", self.file.display());
                return Err(console.fail(&error));
            }
        }
        let limits = Limits::raise(None, 0);
        let rows = super::runtime(console)?.block_on(check_all(&spec, limits));
        print(&table(&rows))?;
        let all_pass = rows.iter().all(|row| row.verdict == Verdict::Pass);
        Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Checks every target once, in the order of the config.
async fn check_all(spec: &Spec, limits: Limits) -> Vec<Row<'_>> {
    let commands = Semaphore::new(limits.max_execs);
    let commands = &commands;
    let checks = spec.databases.iter().flat_map(|database| {
        database.addresses.iter().map(async |address| {
            let prober = Prober::new(address.check.clone(), Target::new(database, address));
            let _permit = if prober.is_exec() { commands.acquire().await.ok() } else { None };
            let started = clock::now();
            let verdict = prober.probe().await;
            let duration = clock::now().saturating_duration_since(started);
            Row { database: &database.id, ip: address.ip, verdict, duration }
        })
    });
    let max_concurrent = MAX_CONCURRENT.min(limits.max_in_flight);
    futures::stream::iter(checks).buffered(max_concurrent).collect().await
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NAMESPACE", "SERVICE", "ADDRESS", "VERDICT", "TIME", "REASON"]);
    for Row { database, ip, verdict, duration } in rows {
        let word = match verdict {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "fail",
            Verdict::Inconclusive(_) => "inconclusive",
        };
        let time = format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
        let reason = verdict.reason().unwrap_or_default();
        let DatabaseId { namespace, service } = database;
        table.add_row([namespace, service, &ip.to_string(), word, &time, reason]);
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
