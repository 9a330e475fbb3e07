//! `status`: shows the state of all databases, as the daemon in the cluster has it.

use std::process::ExitCode;

use serde_json::Value;

use super::cluster::{NamespaceArgs, Namespaces};
use super::console::{Console, Reported, print};
use super::daemon::{DaemonArgs, DaemonReport};
use super::output::{Format, OutputArgs, fitted, print_document, width};
use crate::status::DaemonStatus;
use crate::status::table::{self, Detail, Layout};
use crate::status::text::visible;

#[derive(clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    namespaces: NamespaceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Status {
    /// Shows the status. The exit status is 1 if anything needs a person.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let report = super::runtime(console)?.block_on(self.daemon.report());
        let mut report = report.map_err(|error| console.fail(&error))?;
        report.warnings.iter().for_each(|warning| console.warn(warning));
        if let Some(Namespaces::One(namespace)) = self.namespaces.chosen() {
            keep_namespace(&mut report, &namespace);
        }
        let layout = match self.output.format {
            Format::Json | Format::Yaml => {
                print_document(self.output.format, &report.document)?;
                return Ok(exit_status(&report));
            }
            Format::Table => Layout { width: width(), detail: Detail::Brief },
            Format::Wide => Layout { width: width(), detail: Detail::Wide },
        };
        let text = table::render(&report.status, report.replicas, layout);
        print(&self.output.paint().marks(&text))?;
        if is_in_trouble(&report) {
            let example = report.status.databases.iter().find(|database| database.is_in_trouble());
            let example = example.map(|database| {
                let (namespace, service) =
                    (visible(&database.namespace), visible(&database.service));
                format!("\n`external-endpoints explain {namespace}/{service}` says more\n")
            });
            print(&fitted(&example.unwrap_or_default()))?;
        }
        Ok(exit_status(&report))
    }
}

/// Removes the databases of other namespaces.
fn keep_namespace(report: &mut DaemonReport, namespace: &str) {
    report.status.databases.retain(|database| database.namespace == namespace);
    report.status.replica.left_behind.retain(|left| left.namespace == namespace);
    for list in ["databases", "leftBehind"] {
        if let Some(Value::Array(entries)) = report.document.get_mut(list) {
            entries.retain(|entry| entry["namespace"] == namespace);
        }
    }
}

fn exit_status(report: &DaemonReport) -> ExitCode {
    match is_in_trouble(report) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// Returns whether a person should look at the daemon or at one of its databases.
fn is_in_trouble(report: &DaemonReport) -> bool {
    let DaemonStatus { replica, databases } = &report.status;
    !report.warnings.is_empty()
        || replica.is_in_trouble()
        || databases.iter().any(|database| database.is_in_trouble())
}
