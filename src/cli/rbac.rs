//! `rbac`: derives the least Roles from a config, and compares them with the rights that a
//! ServiceAccount has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::args::{
    AllowedCidrs, ServiceAccountName, parse_lease, parse_namespace, parse_service_account,
};
use super::cluster::ClusterArgs;
use super::console::{Console, Reported, print, print_exactly};
use super::output::fitted;
use crate::config::Spec;
use crate::lease;
use review::Right;
use rules::RulesByNamespace;

mod manifests;
pub(super) mod review;
pub(super) mod rules;

#[derive(clap::Args)]
pub(super) struct Rbac {
    /// The config file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The form of the output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "yaml")]
    output: Format,
    /// Write the files of `-o kustomize` into this folder
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// The ServiceAccount that the daemon has [default: external-endpoints in the namespace
    /// external-endpoints]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_service_account)]
    service_account: Option<ServiceAccountName>,
    /// Only the Role of this namespace
    #[arg(short, long, value_name = "NAMESPACE", value_parser = parse_namespace)]
    namespace: Option<String>,
    /// The Lease that decides which replica writes [default: external-endpoints in the namespace of
    /// the ServiceAccount]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_lease)]
    lease: Option<lease::Name>,
    /// Leave out the rights for a Lease
    #[arg(long, conflicts_with = "lease")]
    no_leader_election: bool,
    /// Print nothing but the rights that the ServiceAccount lacks in the cluster; the exit status
    /// is 1 if there are any
    #[arg(long, conflicts_with_all = ["output", "dir"])]
    check: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    allowed: AllowedCidrs,
}

/// The form in which the Roles are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Manifests for `kubectl apply -f -`
    Yaml,
    /// A folder for kustomize; needs `--dir`
    Kustomize,
    /// Values for a Helm chart that takes `extraObjects`
    Values,
}

impl Rbac {
    /// Prints the Roles, or what is missing of them.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let account = self.service_account.clone().unwrap_or_default();
        let mut options = console.config_options(&self.allowed);
        // The daemon takes databases without a namespace to be in its own.
        options.own_namespace.clone_from(&account.namespace);
        let (_, spec) = console.load(&self.file, options)?;
        let rules = self.rules(&spec, &account).map_err(|error| console.fail(&error))?;
        if self.check {
            return check_cluster(&self.cluster, rules, &account);
        }
        let text = self.write(rules, &account).map_err(|error| console.fail(&error))?;
        print_exactly(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the rules of the namespaces that were asked for.
    fn rules(&self, spec: &Spec, account: &ServiceAccountName) -> anyhow::Result<RulesByNamespace> {
        let default_lease = || lease::Name {
            namespace: account.namespace.clone(),
            name: lease::DEFAULT_NAME.to_owned(),
        };
        let lease = self.lease.clone().unwrap_or_else(default_lease);
        let mut rules = rules::derive(spec, (!self.no_leader_election).then_some(&lease));
        if let Some(namespace) = &self.namespace {
            let all: Vec<String> = rules.keys().cloned().collect();
            rules.retain(|its, _| its == namespace);
            if rules.is_empty() {
                bail!(
                    "the config needs no rights in the namespace {namespace:?}; it needs some in \
                     {}",
                    all.join(", ")
                );
            }
        }
        Ok(rules)
    }

    /// Returns the text for standard output.
    fn write(
        &self,
        rules: RulesByNamespace,
        account: &ServiceAccountName,
    ) -> anyhow::Result<String> {
        match (self.output, &self.dir) {
            (Format::Yaml, None) => Ok(manifests::manifests(rules, account)),
            (Format::Values, None) => Ok(manifests::values(rules, account)),
            (Format::Kustomize, Some(directory)) => {
                write_all(directory, manifests::kustomize(rules, account))
            }
            (Format::Kustomize, None) => {
                bail!("`-o kustomize` writes several files; say where with --dir DIRECTORY")
            }
            (Format::Yaml | Format::Values, Some(_)) => {
                bail!("--dir is for `-o kustomize`; redirect the output to a file instead")
            }
        }
    }
}

/// Prints the rights that are missing in the cluster. The exit status is 1 if there are any.
fn check_cluster(
    cluster: &ClusterArgs,
    rules: RulesByNamespace,
    account: &ServiceAccountName,
) -> Result<ExitCode, Reported> {
    let console = Console::Stderr;
    let rights = review::rights(&rules);
    let count = rights.len();
    let missing = super::runtime(console)?.block_on(async {
        let cluster = cluster.open().await?;
        anyhow::Ok(review::missing(&cluster, account, rights).await?)
    });
    let missing = missing.map_err(|error| console.fail(&error))?;
    print(&fitted(&describe(&missing, count, account)))?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Describes the rights that are missing, and the way to add them.
fn describe(missing: &[Right], count: usize, account: &ServiceAccountName) -> String {
    if missing.is_empty() {
        return format!("{account} has all {count} rights that the config needs\n");
    }
    let mut text = String::new();
    for right in missing {
        text += &format!("{}: may not {}\n", right.namespace, right.describe());
    }
    text += &format!(
        "{account} lacks {} of {count} rights; add them with the same command without --check, \
         and `| kubectl apply -f -` behind it\n",
        missing.len()
    );
    text
}

/// Writes files into a folder, and returns their paths. A file that this command has not written is
/// not overwritten.
fn write_all(directory: &Path, files: Vec<(String, String)>) -> anyhow::Result<String> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("can't create {}", directory.display()))?;
    let path = |name: &str| directory.join(name);
    for (name, _) in &files {
        let is_ours = |text: Vec<u8>| text.starts_with(manifests::HEAD.as_bytes());
        if path(name).exists() && !std::fs::read(path(name)).is_ok_and(is_ours) {
            bail!(
                "{} was not written by this command; remove it, or choose another folder",
                path(name).display()
            );
        }
    }
    let mut paths = String::new();
    for (name, text) in files {
        let path = path(&name);
        std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        paths += &format!("{}\n", path.display());
    }
    Ok(paths)
}
