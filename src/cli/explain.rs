//! `explain`: says why an address of a database is published or not, and what changes that.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde_json::Value;

use super::args::{ServiceName, parse_namespace, parse_service};
use super::console::{Console, Reported, print};
use super::daemon::{DaemonArgs, DaemonReport};
use super::output::{Format, OutputArgs, print_document, width};
use crate::config::DatabaseId;
use crate::status::text::{address_list, visible};
use crate::status::{DaemonStatus, DatabaseStatus, NameStatus, RejectedStatus, TargetStatus};

mod answer;

#[derive(clap::Args)]
pub(super) struct Explain {
    /// The database's Service; without a namespace, in that of -n or of the kubeconfig's context
    #[arg(value_name = "[NAMESPACE/]SERVICE", value_parser = parse_service)]
    service: ServiceName,
    /// An address of the database, or one of its names [default: all of them]
    #[arg(value_name = "ADDRESS")]
    address: Option<String>,
    /// The namespace of a SERVICE that has none
    #[arg(short, long, value_name = "NAMESPACE", value_parser = parse_namespace)]
    namespace: Option<String>,
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Explain {
    /// Prints the explanation.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        self.explain(console).map_err(|error| console.fail(&error))?
    }

    fn explain(self, console: Console) -> anyhow::Result<Result<ExitCode, Reported>> {
        self.service.check_namespace(self.namespace.as_deref())?;
        let runtime = match super::runtime(console) {
            Ok(runtime) => runtime,
            Err(reported) => return Ok(Err(reported)),
        };
        let report = runtime.block_on(self.daemon.report())?;
        report.warnings.iter().for_each(|warning| console.warn(warning));
        let default = self.namespace.or(report.default_namespace.clone());
        let id = self.service.in_namespace(default.as_deref().unwrap_or("default"));
        let database = find_database(&report.status, &id)?;
        let selection = Selection::find(database, self.address.as_deref())?;
        let printed = match self.output.format {
            Format::Json | Format::Yaml => {
                print_document(self.output.format, &document(&report, &id, &selection))
            }
            Format::Table | Format::Wide => {
                let text = answer::render(&report.status.replica, database, &selection, width());
                print(&self.output.paint().marks(&text))
            }
        };
        Ok(printed.map(|()| ExitCode::SUCCESS))
    }
}

/// Returns the database of a Service.
fn find_database<'a>(
    status: &'a DaemonStatus,
    id: &DatabaseId,
) -> anyhow::Result<&'a DatabaseStatus> {
    let is_named =
        |namespace: &str, service: &str| namespace == id.namespace && service == id.service;
    let mut databases = status.databases.iter();
    if let Some(found) = databases.find(|it| is_named(&it.namespace, &it.service)) {
        return Ok(found);
    }
    let mut left_behind = status.replica.left_behind.iter();
    if let Some(left) = left_behind.find(|it| is_named(&it.namespace, &it.service)) {
        bail!(
            "the config has no database {id}, and the cluster still holds {} for it, which no \
             check keeps up to date; put the database back into the config, or delete the \
             Endpoints (`prune: true` does that)",
            visible(&left.addresses.join(", "))
        );
    }
    let names = status.databases.iter().map(|it| format!("{}/{}", it.namespace, it.service));
    let wanted = id.to_string();
    let near = names.clone().max_by(|a, b| {
        strsim::jaro_winkler(a, &wanted).total_cmp(&strsim::jaro_winkler(b, &wanted))
    });
    match near {
        Some(near) => Err(anyhow!(
            "the config has no database {id}; is it {}? `external-endpoints status` lists all",
            visible(&near)
        )),
        None => bail!("the config has no database {id}, and no other one"),
    }
}

/// The parts of a database that are explained.
struct Selection<'a> {
    /// The address or the name that was asked for; none for all of the database.
    asked: Option<&'a str>,
    targets: Vec<&'a TargetStatus>,
    names: Vec<&'a NameStatus>,
    rejected: Vec<&'a RejectedStatus>,
}

impl<'a> Selection<'a> {
    fn find(database: &'a DatabaseStatus, asked: Option<&'a str>) -> anyhow::Result<Self> {
        let Some(text) = asked else {
            return Ok(Self {
                asked,
                targets: database.targets.iter().collect(),
                names: database.names.iter().collect(),
                rejected: database.rejected.iter().collect(),
            });
        };
        // 2001:DB8:0::1 is the same address as 2001:db8::1.
        let ip: Option<IpAddr> = text.trim_matches(['[', ']']).parse().ok();
        let is_ip = |address: &str| ip.is_some() && address.parse().ok() == ip;
        let wanted = text.trim_end_matches('.').to_lowercase();
        let is_name = |name: &str| ip.is_none() && name == wanted;
        let of_entry = |target: &TargetStatus| {
            let mut named = database.names.iter().filter(|name| is_name(&name.name));
            named.any(|name| name.addresses.iter().any(|it| it.address == target.address))
        };
        let is_asked = |target: &&TargetStatus| {
            is_ip(&target.address)
                || target.name.as_deref().is_some_and(is_name)
                || target.hostname.as_deref().is_some_and(is_name)
                || of_entry(target)
        };
        let targets: Vec<_> = database.targets.iter().filter(is_asked).collect();
        let names: Vec<_> = database.names.iter().filter(|name| is_name(&name.name)).collect();
        let of_names = database.names.iter().flat_map(|name| &name.refused);
        let rejected = database.rejected.iter().chain(of_names);
        let rejected: Vec<_> = rejected.filter(|it| is_ip(&it.address)).collect();
        if targets.is_empty() && names.is_empty() && rejected.is_empty() {
            bail!(unknown_address(database, text));
        }
        Ok(Self { asked, targets, names, rejected })
    }
}

/// Says which addresses a database has.
fn unknown_address(database: &DatabaseStatus, text: &str) -> String {
    let addresses = database.targets.iter().map(|target| &target.address);
    let names = database.names.iter().map(|name| &name.name);
    let known = address_list(&addresses.chain(names).cloned().collect::<Vec<_>>());
    let published = database.published.iter().flatten().any(|address| address == text);
    let published = if published { ", though the cluster holds it" } else { "" };
    let (namespace, service) = (&database.namespace, &database.service);
    format!("{namespace}/{service} has no address {}{published}; it has: {known}", visible(text))
}

/// Returns the database as the daemon wrote it, with only the selected targets and names.
fn document(report: &DaemonReport, id: &DatabaseId, selection: &Selection) -> Value {
    let databases = report.document["databases"].as_array();
    let is_named = |it: &&Value| it["namespace"] == id.namespace && it["service"] == id.service;
    let mut database = databases.into_iter().flatten().find(is_named).cloned().unwrap_or_default();
    if selection.asked.is_some() {
        let targets = |it: &Value| selection.targets.iter().any(|one| it["address"] == one.address);
        let names = |it: &Value| selection.names.iter().any(|one| it["name"] == one.name);
        let refused =
            |it: &Value| selection.rejected.iter().any(|one| it["address"] == one.address);
        retain(&mut database, "targets", targets);
        retain(&mut database, "names", names);
        retain(&mut database, "refused", refused);
    }
    database
}

/// Removes the entries of a list that are not kept.
fn retain(database: &mut Value, list: &str, is_kept: impl Fn(&Value) -> bool) {
    if let Some(Value::Array(entries)) = database.get_mut(list) {
        entries.retain(is_kept);
    }
}

#[cfg(test)]
mod tests;
