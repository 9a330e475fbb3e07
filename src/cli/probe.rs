//! `probe`: asks DNS for the names of the config, checks every target once, and prints the verdicts
//! as a table.
//!
//! | row | verdict |
//! | --- | --- |
//! | an address of the config | that of its check |
//! | an address that DNS gives for a name | that of the name's check |
//! | an address of DNS that may not be published | fail; it is not connected to |
//! | a record or an address that is left out | fail |
//! | a name, or a target of a service, without any address | fail |
//! | one family of a name that DNS does not say, beside an address of the other | inconclusive |
//!
//! An address of several entries has a row for each, with the check of that entry. For the daemon
//! it is one target, with the check of the first of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use comfy_table::{ContentArrangement, Table};
use futures::StreamExt as _;
use tokio::sync::Semaphore;

use super::args::{AllowedCidrs, DnsServers, parse_database_id};
use super::console::{Console, Reported, print};
use super::output::{fitted, width};
use crate::clock;
use crate::config::{Address, Database, DatabaseId, NameEntry, Spec};
use crate::health::Verdict;
use crate::limits::{Limits, ReservedUses};
use crate::names::{Families, ServiceTarget};
use crate::probe::{Observation, Prober, Target};
use crate::resolve::{self, Answer, LookupOutcome, NameKey, OutcomePart, ServerSource};

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
    #[command(flatten)]
    dns_servers: DnsServers,
}

/// The outcome of one check, or the reason why there is none.
struct Row<'a> {
    database: &'a DatabaseId,
    /// The name of the config; empty for an address of the config.
    name: &'a str,
    /// None for a name without any address.
    ip: Option<IpAddr>,
    verdict: Verdict,
    observation: Option<Arc<Observation>>,
    duration: Duration,
}

/// A row before its check.
struct Candidate<'a> {
    database: &'a Database,
    name: &'a str,
    work: Work,
}

enum Work {
    Check(Address),
    /// The verdict on an address or a name that can't be checked.
    None(Option<IpAddr>, Verdict),
}

impl Work {
    fn fail(ip: Option<IpAddr>, reason: String) -> Self {
        Self::None(ip, Verdict::Fail(reason))
    }
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
        let limits = Limits::raise(None, ReservedUses::default());
        let servers = self.dns_servers.source();
        let rows = super::runtime(console)?.block_on(async {
            let candidates = candidates(&spec, &servers).await;
            check_all(candidates, limits).await
        });
        print(&table(&rows))?;
        notes(&rows)
            .into_iter()
            .try_for_each(|note| print(&fitted(&format!("\nNote: {note}.\n"))))?;
        let all_pass = rows.iter().all(|row| row.verdict == Verdict::Pass);
        Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Returns the rows of all databases: the addresses of the config, then those of names.
async fn candidates<'a>(spec: &'a Spec, servers: &ServerSource) -> Vec<Candidate<'a>> {
    let key = |entry: &NameEntry| {
        let key = NameKey { name: entry.name.clone(), kind: entry.kind };
        (key, entry.families.unwrap_or(Families::BOTH))
    };
    let names = spec.databases.iter().flat_map(|database| database.names.iter()).map(key);
    let outcomes = resolve::look_up_all(servers, names).await;
    let mut candidates = Vec::new();
    for database in &spec.databases {
        let of_config = database.addresses.iter().cloned().map(Work::Check);
        candidates.extend(of_config.map(|work| Candidate { database, name: "", work }));
        for entry in database.names.iter() {
            // Several targets of a service may have the same address.
            let mut known: BTreeSet<IpAddr> = BTreeSet::new();
            let works = works_of_name(database, entry, &outcomes[&key(entry)]);
            let is_new = |work: &Work| match work {
                Work::Check(address) => known.insert(address.ip),
                Work::None(..) => true,
            };
            let works = works.into_iter().filter(is_new);
            candidates.extend(works.map(|work| Candidate { database, name: &entry.name, work }));
        }
    }
    candidates
}

/// Returns the rows of a name, of which there is one at least.
fn works_of_name(database: &Database, entry: &NameEntry, outcome: &LookupOutcome) -> Vec<Work> {
    let skipped = outcome.skipped.iter().map(|text| Work::fail(None, format!("left out: {text}")));
    let mut works: Vec<Work> = skipped.collect();
    for part in &outcome.parts {
        let host = part.service.as_ref().map_or("", |record| &record.host);
        let has_port = |port| database.ports.iter().any(|it| it.number == port);
        match part.service.as_ref().filter(|record| !has_port(record.port)) {
            Some(record) => {
                let reason = format!("port {} of {host} is none of the database", record.port);
                works.push(Work::fail(None, reason));
            }
            None => works_of_host(database, entry, part, host, &mut works),
        }
    }
    works
}

/// Adds the rows of a name's host, of which there is one at least. `host` is empty for the name
/// itself.
fn works_of_host(
    database: &Database,
    entry: &NameEntry,
    part: &OutcomePart,
    host: &str,
    works: &mut Vec<Work>,
) {
    let target = part.service.as_ref().map(|record| {
        let (name, rank, weight) = (record.host.clone(), record.rank, record.weight);
        ServiceTarget { name, rank, weight }
    });
    let about = |text: String| if host.is_empty() { text } else { format!("{host}: {text}") };
    let ips = [&part.a, &part.aaaa].into_iter().filter_map(|answer| match answer {
        Answer::Addresses(ips) => Some(ips),
        _ => None,
    });
    let mut has_address = false;
    for ip in ips.flatten() {
        has_address = true;
        works.push(match entry.rejection(*ip, &database.allowed_networks) {
            Some(reason) => Work::fail(Some(*ip), reason),
            None => Work::Check(entry.address(*ip, target.as_ref())),
        });
    }
    if !has_address {
        works.push(Work::fail(None, about(part.describe_failure())));
        return;
    }
    for (family, answer) in [("IPv4", &part.a), ("IPv6", &part.aaaa)] {
        if let Answer::Unknown(reason) = answer {
            let reason = about(format!("no word on its {family} addresses: {reason}"));
            works.push(Work::None(None, Verdict::Inconclusive(reason)));
        }
    }
}

/// Checks every target once, and keeps the order.
async fn check_all(candidates: Vec<Candidate<'_>>, limits: Limits) -> Vec<Row<'_>> {
    let commands = Semaphore::new(limits.max_execs);
    let commands = &commands;
    let checks = candidates.into_iter().map(async |Candidate { database, name, work }| {
        let (ip, verdict, observation, duration) = match work {
            Work::None(ip, verdict) => (ip, verdict, None, Duration::ZERO),
            Work::Check(address) => {
                let prober = Prober::new(address.check.clone(), Target::new(database, &address));
                let _permit = if prober.is_exec() { commands.acquire().await.ok() } else { None };
                let started = clock::now();
                let verdict = prober.probe().await;
                let duration = clock::now().saturating_duration_since(started);
                (Some(address.ip), verdict, prober.observation(), duration)
            }
        };
        Row { database: &database.id, name, ip, verdict, observation, duration }
    });
    let max_concurrent = MAX_CONCURRENT.min(limits.max_in_flight);
    futures::stream::iter(checks).buffered(max_concurrent).collect().await
}

/// Returns the facts about the checks that people should know, each once.
fn notes(rows: &[Row<'_>]) -> BTreeSet<&'static str> {
    rows.iter().filter_map(|row| row.observation.as_ref()?.note).collect()
}

/// Returns the table. It has a column of names only if the config has any.
fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let has_names = rows.iter().any(|row| !row.name.is_empty());
    let name_column = |text: &str| has_names.then(|| text.to_owned());
    let columns = |cells: [String; 3], name: Option<String>, rest: [String; 3]| {
        cells.into_iter().chain(name).chain(rest).collect::<Vec<_>>()
    };
    let header = ["NAMESPACE", "SERVICE", "ADDRESS"].map(str::to_owned);
    let rest = ["VERDICT", "TIME", "REASON"].map(str::to_owned);
    table.set_header(columns(header, name_column("NAME"), rest));
    for Row { database, name, ip, verdict, observation, duration } in rows {
        let word = match verdict {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "fail",
            Verdict::Inconclusive(_) => "inconclusive",
        };
        let time = match ip {
            Some(_) if !duration.is_zero() => format!("{:.1} ms", duration.as_secs_f64() * 1000.0),
            _ => "-".to_owned(),
        };
        let ip = ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let details = || observation.as_ref().map(ToString::to_string).unwrap_or_default();
        let reason = verdict.reason().map_or_else(details, str::to_owned);
        let DatabaseId { namespace, service } = database;
        let name = name_column(if name.is_empty() { "-" } else { name });
        let first = [namespace.clone(), service.clone(), ip];
        table.add_row(columns(first, name, [word.to_owned(), time, reason]));
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
