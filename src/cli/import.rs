//! `import`: writes the config of databases that are served by other means today.
//!
//! Whatever the source, the output is a good config: each database is read back before it is
//! written, and one that the config language refuses is left out with the reason.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::bail;
use serde_json::Value;

use super::cluster::{ClusterArgs, NamespaceArgs, Namespaces};
use super::console::{Console, Reported, print_exactly};
use crate::kubeconfig;
use entry::{Found, document};
use read::CustomKind;

mod endpoints;
mod entry;
mod haproxy;
mod peers;
mod read;

const CLUSTER_ENDPOINT: CustomKind = CustomKind {
    kind: "ClusterEndpoint",
    plural: "clusterendpoints",
    version: "v1beta1",
    groups: &["sealos.io", "sealyun.com"],
};

const DISCOVERED_SERVICE: CustomKind = CustomKind {
    kind: "DiscoveredService",
    plural: "discoveredservices",
    version: "v1alpha1",
    groups: &["discovery.k8sready.com"],
};

#[derive(clap::Args)]
pub(super) struct Import {
    /// The objects to import: `endpoints` (Services without a selector and their hand-written
    /// Endpoints), `clusterendpoints`, `discoveredservices`, or the path of an HAProxy config that
    /// ends in .cfg
    #[arg(long, value_name = "SOURCE", default_value = "endpoints")]
    from: Source,
    /// Read the objects from this file of manifests and not from the cluster; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    namespaces: NamespaceArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The source of the databases.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Endpoints,
    Custom(CustomKind),
    Haproxy(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "endpoints" => Ok(Self::Endpoints),
            "clusterendpoints" => Ok(Self::Custom(CLUSTER_ENDPOINT)),
            "discoveredservices" => Ok(Self::Custom(DISCOVERED_SERVICE)),
            path if path == "-" || path.ends_with(".cfg") => Ok(Self::Haproxy(path.into())),
            _ => Err("write endpoints, clusterendpoints, discoveredservices, or the path of an \
                      HAProxy config, as in haproxy.cfg"
                .to_owned()),
        }
    }
}

impl Import {
    /// Prints the config. The exit status is 1 if there is no database for it.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let (source, found) = self.found(console)?;
        print_exactly(&document(&source, &found))?;
        let is_database = |found: &Found| matches!(found, Found::Database(_));
        if !found.iter().any(is_database) {
            let error = anyhow::anyhow!("{source}: there is no database to import");
            return Err(console.fail(&error));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the source in words, and what was found there.
    fn found(&self, console: Console) -> Result<(String, Vec<Found>), Reported> {
        let outcome = match (&self.from, &self.file) {
            (Source::Haproxy(_), Some(_)) => {
                Err(anyhow::anyhow!("--file is for manifests; give an HAProxy config by --from"))
            }
            (Source::Haproxy(path), None) => self.read_haproxy(path),
            (source, Some(file)) => self.read_manifests(source, file),
            (source, None) => super::runtime(console)?.block_on(self.read_cluster(source)),
        };
        outcome.map_err(|error| console.fail(&error))
    }

    fn read_haproxy(&self, path: &Path) -> anyhow::Result<(String, Vec<Found>)> {
        let text = read::text(path)?;
        let namespace = match self.namespaces.chosen() {
            Some(Namespaces::All) => bail!("an HAProxy config has no namespaces; name one by -n"),
            Some(Namespaces::One(namespace)) => Some(namespace),
            None => None,
        };
        let found = haproxy::databases(&text, namespace.as_deref());
        Ok((path.display().to_string(), found))
    }

    /// Imports from manifests. `-n` and `-A` choose among their objects; without them it is all.
    fn read_manifests(&self, source: &Source, file: &Path) -> anyhow::Result<(String, Vec<Found>)> {
        let chosen = self.namespaces.chosen().unwrap_or(Namespaces::All);
        let default_namespace = match &chosen {
            Namespaces::One(namespace) => namespace.clone(),
            Namespaces::All => kubeconfig::own_namespace()
                .unwrap_or_else(|_| kubeconfig::DEFAULT_NAMESPACE.to_owned()),
        };
        let mut documents = read::documents(file)?;
        documents.retain(|document| {
            let namespace = document["metadata"]["namespace"].as_str();
            match (&chosen, namespace) {
                (Namespaces::One(chosen), Some(namespace)) => chosen == namespace,
                _ => true,
            }
        });
        let found = match source {
            Source::Custom(kind) => {
                let objects = read::of_kind(&documents, kind.kind);
                convert_all(*kind, objects, Some(&default_namespace))
            }
            _ => endpoints::databases(&read::objects(&documents, &default_namespace)?),
        };
        Ok((file.display().to_string(), found))
    }

    async fn read_cluster(&self, source: &Source) -> anyhow::Result<(String, Vec<Found>)> {
        let cluster = self.cluster.open().await?;
        let namespaces = self
            .namespaces
            .chosen()
            .unwrap_or_else(|| Namespaces::One(cluster.default_namespace().to_owned()));
        let found = match source {
            Source::Custom(kind) => {
                let objects = read::cluster_custom_objects(&cluster, &namespaces, *kind).await?;
                convert_all(*kind, objects.iter().collect(), None)
            }
            _ => endpoints::databases(&read::cluster_objects(&cluster, &namespaces).await?),
        };
        let place = match namespaces {
            Namespaces::All => "all namespaces of the cluster".to_owned(),
            Namespaces::One(namespace) => format!("namespace {namespace} of the cluster"),
        };
        Ok((place, found))
    }
}

fn convert_all(kind: CustomKind, objects: Vec<&Value>, namespace: Option<&str>) -> Vec<Found> {
    let convert = |object: &&Value| match kind {
        CLUSTER_ENDPOINT => peers::cluster_endpoint(object, namespace),
        _ => peers::discovered_service(object, namespace),
    };
    objects.iter().map(convert).collect()
}
