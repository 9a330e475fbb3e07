//! `diff`: checks the addresses of a config, and shows what the daemon would change in the cluster.
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | the cluster holds what the config and the checks say |
//! | 1 | something differs, or a database is in trouble and would not be written |
//! | 2 | the comparison failed: no cluster, a missing right, or no decision in time |

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::{AllowedCidrs, DnsServers, parse_duration};
use super::cluster::ClusterArgs;
use super::console::{Console, Reported, print};
use super::output::{Format, OutputArgs, Paint, Tone, fitted, print_document};
use crate::api::DAEMON_ACCOUNT;
use crate::limits::{DnsLimits, Limits, ReservedUses};
use crate::publish::ConditionKind;
use crate::resolve;
use crate::run::rehearsal::{Rehearsal, rehearse};
use crate::status::text::{visible, visible_sentence};
use crate::status::{DatabaseStatus, TargetStatus};

#[derive(clap::Args)]
pub(super) struct Diff {
    /// The config file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Wait this long at most until all addresses are checked; an address that fails is tried as
    /// often as its threshold says
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    allowed: AllowedCidrs,
    #[command(flatten)]
    dns_servers: DnsServers,
}

/// The difference of one database.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    namespace: String,
    service: String,
    verdict: Verdict,
    /// The addresses that would come.
    added: Vec<String>,
    /// The addresses that would go.
    removed: Vec<Removed>,
    /// The number of addresses that stay.
    unchanged: usize,
    /// The explanation, unless it is the addresses alone.
    reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Removed {
    address: String,
    why: String,
}

/// The result of comparing one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Same,
    Differs,
    /// Nothing would be written, and a person should look at it.
    Blocked,
    /// The comparison failed.
    Failed,
}

impl Diff {
    /// Prints the differences.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let options = console.config_options(&self.allowed);
        let (_, spec) = console.load(&self.file, options)?;
        let names = spec.databases.iter().map(|database| database.names.len()).sum();
        let limits = Limits::raise(None, ReservedUses { namespaces: spec.databases.len(), names });
        let dns = resolve::Settings {
            servers: self.dns_servers.source(),
            qps: resolve::DEFAULT_QPS,
            limits: DnsLimits::current(),
        };
        let runtime = super::runtime(console)?;
        let rehearsal = runtime.block_on(async {
            let cluster = self.cluster.open().await?;
            rehearse(&spec, cluster.client, limits, dns, self.timeout).await
        });
        runtime.shutdown_background();
        let rehearsal = rehearsal.map_err(|error| failed(console, &error))?;
        let differences = differences(&rehearsal, self.timeout);
        match self.output.format {
            Format::Json | Format::Yaml => print_document(self.output.format, &differences)?,
            format => print(&fitted(&table(&differences, format, self.output.paint())))?,
        }
        Ok(exit_code(&differences))
    }
}

/// Reports that the comparison failed. The exit status is 2.
fn failed(console: Console, error: &anyhow::Error) -> Reported {
    let Reported(_) = console.fail(error);
    Reported(ExitCode::from(2))
}

fn exit_code(differences: &[Difference]) -> ExitCode {
    let any = |verdict| differences.iter().any(|difference| difference.verdict == verdict);
    if any(Verdict::Failed) {
        ExitCode::from(2)
    } else if any(Verdict::Differs) || any(Verdict::Blocked) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn differences(rehearsal: &Rehearsal, timeout: Duration) -> Vec<Difference> {
    let late = (!rehearsal.is_settled).then_some(timeout);
    rehearsal.databases.iter().map(|database| difference(database, late)).collect()
}

/// Compares the plan of a database with what is published. `late` is the time after which it was
/// still undecided.
fn difference(database: &DatabaseStatus, late: Option<Duration>) -> Difference {
    let none = Vec::new();
    let published = database.published.as_ref().unwrap_or(&none);
    let planned = database.planned.as_ref().unwrap_or(published);
    let condition = database.condition.as_deref().unwrap_or_default();
    let (verdict, reason) = verdict(database, condition, late);
    let is_write = verdict == Verdict::Differs;
    let added = planned.iter().filter(|ip| is_write && !published.contains(*ip)).cloned();
    let removed = published.iter().filter(|ip| is_write && !planned.contains(*ip));
    let removed =
        removed.map(|ip| Removed { address: ip.clone(), why: why_out(&database.targets, ip) });
    let (added, removed): (Vec<String>, Vec<Removed>) = (added.collect(), removed.collect());
    let only_addresses = is_write && !(added.is_empty() && removed.is_empty());
    Difference {
        namespace: database.namespace.clone(),
        service: database.service.clone(),
        verdict,
        unchanged: published.len() - removed.len(),
        added,
        removed,
        reason: reason.filter(|reason| !only_addresses || reason.contains("create the Service")),
    }
}

fn verdict(
    database: &DatabaseStatus,
    condition: &str,
    late: Option<Duration>,
) -> (Verdict, Option<String>) {
    let reason = database.reason.clone().unwrap_or_default();
    // The rehearsal is the daemon's, with the rights of whoever runs this command.
    let reason = reason.replace(DAEMON_ACCOUNT, "the user of this --context");
    let is = |kind: ConditionKind| condition == kind.to_string();
    let is_decided = database.planned.is_some();
    if is(ConditionKind::DryRun) {
        return (Verdict::Differs, Some(reason));
    }
    if is(ConditionKind::Published) {
        return (Verdict::Same, None);
    }
    let could_not_read = is(ConditionKind::Forbidden)
        || is(ConditionKind::ApiUnavailable)
        || is(ConditionKind::WaitingForCluster);
    if could_not_read || (late.is_some() && !is_decided) || is(ConditionKind::WaitingForVerdicts) {
        let waited = late.map(|late| format!(" after {}", humantime::format_duration(late)));
        return (
            Verdict::Failed,
            Some(format!("{condition}{}: {reason}", waited.unwrap_or_default())),
        );
    }
    (Verdict::Blocked, Some(format!("{condition}: {reason}")))
}

/// Returns why an address would go.
fn why_out(targets: &[TargetStatus], ip: &str) -> String {
    let Some(target) = targets.iter().find(|target| target.address == ip) else {
        return "the config does not have it".to_owned();
    };
    let why = target.membership.as_ref().map(|membership| membership.why.clone());
    why.or_else(|| target.reason.clone()).unwrap_or_else(|| "it is not planned".to_owned())
}

fn table(differences: &[Difference], format: Format, paint: Paint) -> String {
    let mut text = String::new();
    for difference in differences {
        let Difference { namespace, service, verdict, added, removed, unchanged, reason } =
            difference;
        if *verdict == Verdict::Same && format != Format::Wide {
            continue;
        }
        let name = format!("{namespace}/{service}");
        let word = match verdict {
            Verdict::Same => paint.text(Tone::Good, "same"),
            Verdict::Differs => paint.text(Tone::Warning, "differs"),
            Verdict::Blocked => paint.text(Tone::Bad, "nothing would be written"),
            Verdict::Failed => paint.text(Tone::Bad, "not compared"),
        };
        text += &format!("{name}  {word}");
        if *unchanged > 0 {
            text += &format!(" ({unchanged} of its addresses stay)");
        }
        text.push('\n');
        for address in added {
            text += &format!("  {}\n", paint.text(Tone::Good, &format!("+{}", visible(address))));
        }
        for Removed { address, why } in removed {
            let address = paint.text(Tone::Bad, &format!("-{}", visible(address)));
            text += &format!("  {address}  {}\n", visible_sentence(why));
        }
        if let Some(reason) = reason {
            text += &format!("  {}\n", visible_sentence(reason));
        }
    }
    let same = differences.iter().filter(|it| it.verdict == Verdict::Same).count();
    text + &format!("{same} of {} databases are as the cluster has them\n", differences.len())
}

#[cfg(test)]
mod tests;
