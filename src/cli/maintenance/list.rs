//! `maintenance list`: the addresses in maintenance, as the daemon has them.

use std::process::ExitCode;

use anyhow::bail;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::shorten;
use crate::annotations::MaintenanceSource;
use crate::cli::args::{ServiceName, parse_service};
use crate::cli::cluster::{NamespaceArgs, Namespaces};
use crate::cli::console::{Console, Reported, print};
use crate::cli::daemon::DaemonArgs;
use crate::cli::output::{Format, OutputArgs, print_document, width};
use crate::status::text::visible;
use crate::status::{DaemonStatus, DatabaseStatus, TargetStatus, Time};

#[derive(clap::Args)]
pub(super) struct List {
    /// Only this database [default: all]
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = parse_service)]
    service: Option<ServiceName>,
    #[command(flatten)]
    namespaces: NamespaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// An address in maintenance.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    namespace: String,
    service: String,
    address: String,
    reason: String,
    source: Option<MaintenanceSource>,
    until: Option<Time>,
    published: bool,
}

impl List {
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let status = crate::cli::runtime(console)?.block_on(async {
            if let (Some(name), Some(Namespaces::One(namespace))) =
                (&self.service, self.namespaces.chosen())
            {
                name.check_namespace(Some(&namespace))?;
            }
            let report = self.daemon.report().await?;
            self.check_known(&report.status.databases)?;
            anyhow::Ok(report.status)
        });
        let status = status.map_err(|error| console.fail(&error))?;
        let items = self.items(&status);
        match self.output.format {
            Format::Json | Format::Yaml => print_document(self.output.format, &items)?,
            Format::Table | Format::Wide if items.is_empty() => {
                print("no address is in maintenance\n")?;
            }
            Format::Table | Format::Wide => print(&table(&items))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns an error if the daemon does not have the database that is asked for.
    fn check_known(&self, databases: &[DatabaseStatus]) -> anyhow::Result<()> {
        let Some(name) = &self.service else { return Ok(()) };
        if databases.iter().any(|it| name.names(&it.namespace, &it.service)) {
            return Ok(());
        }
        let all = databases.iter().map(|it| format!("{}/{}", it.namespace, it.service));
        bail!("the daemon has no database {name}; it has: {}", shorten(all.collect()))
    }

    fn items(&self, status: &DaemonStatus) -> Vec<Item> {
        let is_chosen = |database: &&DatabaseStatus| {
            let of_service = self
                .service
                .as_ref()
                .is_none_or(|name| name.names(&database.namespace, &database.service));
            let of_namespace = match self.namespaces.chosen() {
                Some(Namespaces::One(namespace)) => database.namespace == namespace,
                Some(Namespaces::All) | None => true,
            };
            of_service && of_namespace
        };
        let databases = status.databases.iter().filter(is_chosen);
        databases
            .flat_map(|database| {
                database.targets.iter().filter_map(|target| item(database, target))
            })
            .collect()
    }
}

fn item(database: &DatabaseStatus, target: &TargetStatus) -> Option<Item> {
    Some(Item {
        namespace: database.namespace.clone(),
        service: database.service.clone(),
        address: target.address.clone(),
        reason: target.maintenance.clone()?,
        source: target.maintenance_source,
        until: target.maintenance_until,
        published: target.published,
    })
}

fn table(items: &[Item]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(["NAMESPACE", "SERVICE", "ADDRESS", "BY", "UNTIL", "PUBLISHED", "REASON"]);
    for item in items {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            visible(&item.namespace),
            visible(&item.service),
            visible(&item.address),
            or_dash(item.source.map(|source| source.to_string())),
            or_dash(item.until.map(|until| crate::clock::rfc3339_seconds(until.0))),
            if item.published { "yes" } else { "no" }.to_owned(),
            visible(&item.reason),
        ]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        list: List,
    }

    #[test]
    fn a_database_that_nobody_has_is_an_error() {
        let list = |arguments: &[&str]| Arguments::parse_from(arguments).list;
        assert!(list(&["list"]).check_known(&[]).is_ok());
        let error = list(&["list", "nope/x"]).check_known(&[]).expect_err("it is unknown");
        assert!(error.to_string().contains("no database nope/x; it has: none"), "{error}");
    }
}
