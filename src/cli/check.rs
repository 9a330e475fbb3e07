//! `check`: looks at the cluster, the rights, the config and the daemon, and says what is wrong and
//! what to do.

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::{AllowedCidrs, ServiceAccountName, parse_service_account};
use super::console::{Console, Reported, print};
use super::daemon::DaemonArgs;
use super::output::{Format, OutputArgs, fitted, print_document};
use crate::config::{self, LoadedConfig, Spec};
use finding::{Finding, Outcome, table};

mod cluster;
mod daemon;
mod finding;

#[derive(clap::Args)]
pub(super) struct Check {
    /// The config file. Without it the config, the Services and the rights are not checked
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Check before the daemon is installed: your own rights, and no daemon
    #[arg(long)]
    pre: bool,
    /// The ServiceAccount that the daemon has [default: external-endpoints in the namespace
    /// external-endpoints]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_service_account)]
    service_account: Option<ServiceAccountName>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    allowed: AllowedCidrs,
}

impl Check {
    /// Prints the findings. The exit status is 1 if any is bad.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let account = self.service_account.clone().unwrap_or_default();
        let (spec, mut findings) = self.config(console, &account);
        super::runtime(console)?.block_on(async {
            findings.splice(0..0, self.of_cluster(spec.as_ref(), &account).await);
            if !self.pre {
                findings.extend(self.of_daemon().await);
            }
        });
        match self.output.format {
            Format::Json | Format::Yaml => print_document(self.output.format, &findings)?,
            Format::Table | Format::Wide => print(&fitted(&table(&findings, self.output.paint())))?,
        }
        let is_bad = findings.iter().any(|finding| finding.outcome == Outcome::Bad);
        Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Returns the config, if it is good, and the findings about it.
    fn config(
        &self,
        console: Console,
        account: &ServiceAccountName,
    ) -> (Option<Spec>, Vec<Finding>) {
        const CHECK: &str = "config-valid";
        let Some(file) = &self.file else {
            let text = "no config file is given, so it is not checked";
            let hint = "give it as an argument: the rights and Services are checked with it";
            return (None, vec![Finding::warning(CHECK, text, hint)]);
        };
        let mut options = console.config_options(&self.allowed);
        options.own_namespace.clone_from(&account.namespace);
        match config::load(file, &options) {
            Err(problems) => {
                let hint = "correct it; `external-endpoints validate` shows each place";
                let bad = |line: &str| Finding::bad(CHECK, line, hint);
                (None, problems.summary().lines().map(bad).collect())
            }
            Ok(LoadedConfig { spec, warnings }) => {
                let hint = "change it if it is not meant";
                let text = format!("{}: databases: {}", file.display(), spec.databases.len());
                let mut findings = vec![Finding::good(CHECK, text)];
                let summary = warnings.summary();
                findings.extend(summary.lines().map(|line| Finding::warning(CHECK, line, hint)));
                (Some(spec), findings)
            }
        }
    }

    /// Returns the findings about the cluster, without the daemon.
    async fn of_cluster(&self, spec: Option<&Spec>, account: &ServiceAccountName) -> Vec<Finding> {
        let cluster = match self.daemon.cluster.open().await {
            Ok(cluster) => cluster,
            Err(error) => {
                let hint = "give --kubeconfig, or set KUBECONFIG";
                return vec![Finding::bad("cluster-version", format!("{error:#}"), hint)];
            }
        };
        let mut findings = match cluster::version(&cluster).await {
            Ok(finding) => vec![finding],
            Err(finding) => return vec![finding],
        };
        if self.pre {
            findings.push(cluster::install_rights(&cluster, &account.namespace).await);
        }
        let Some(spec) = spec else { return findings };
        if !self.pre {
            let file = self.file.as_ref().map(|file| file.display().to_string());
            let file = file.unwrap_or_default();
            let lease = self.daemon.lease.as_ref();
            findings.push(cluster::daemon_rights(&cluster, spec, account, lease, &file).await);
        }
        findings.extend(cluster::services(&cluster, spec).await);
        findings
    }

    async fn of_daemon(&self) -> Vec<Finding> {
        match self.daemon.report().await {
            Ok(report) => daemon::findings(&report.status, report.replicas.ready),
            Err(error) => {
                let hint = "is it installed? Before that use --pre; see `kubectl get pods -A`";
                vec![Finding::bad("daemon-answers", format!("{error:#}"), hint)]
            }
        }
    }
}
