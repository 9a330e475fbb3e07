//! The contents of Git: two Services without a selector, and ConfigMaps that come and go.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::temp_dir;

/// The label that Helm and Argo CD set on what is theirs, and the labels of a team.
pub(crate) const LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/instance", "databases"), ("example.com/team", "storage")];

/// The annotations by which the tools keep an object that is gone from Git, as the guide has them.
const KEEP: [(&str, &str); 3] = [
    ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
    ("argocd.argoproj.io/sync-options", "Prune=false"),
    ("helm.sh/resource-policy", "keep"),
];

/// A folder that stands for a Git repository.
pub(crate) struct Repository {
    namespace: String,
    folder: PathBuf,
}

impl Repository {
    pub(crate) fn new(namespace: &str) -> Repository {
        let folder = temp_dir("git");
        fs::create_dir_all(folder.join("templates")).expect("a folder in the sandbox");
        let chart = "{apiVersion: v2, name: databases, version: 1.0.0}\n";
        fs::write(folder.join("Chart.yaml"), chart).expect("a file in the sandbox");
        Repository { namespace: namespace.to_owned(), folder }
    }

    /// Returns the folder, which is also a Helm chart.
    pub(crate) fn chart(&self) -> &Path {
        &self.folder
    }

    /// Returns the file with the manifests of this round.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.join("templates/all.yaml")
    }

    /// Returns the file with the manifests of the round before; there is none before the second.
    pub(crate) fn previous(&self) -> Option<PathBuf> {
        let path = self.folder.join("previous.yaml");
        path.exists().then_some(path)
    }

    /// Removes the manifests of the round before, once what is gone from them is deleted.
    pub(crate) fn forget_previous(&self) {
        if let Some(path) = self.previous() {
            fs::remove_file(path).expect("our own file");
        }
    }

    /// Writes the manifests of a round. The ConfigMap `extra` is there in every other one.
    pub(crate) fn commit(&self, round: u32) {
        let mut objects = vec![
            self.service("mysql", round),
            self.service("orders", round),
            self.config_map("settings", round),
        ];
        if has_extra(round) {
            objects.push(self.config_map("extra", round));
        }
        self.write(&objects);
    }

    /// Writes the Service `mysql`, with Endpoints that someone has written by hand unless there are
    /// no addresses.
    pub(crate) fn commit_by_hand(&self, round: u32, addresses: &[String]) {
        let mut objects = vec![self.service("mysql", round)];
        if !addresses.is_empty() {
            let mut metadata = self.metadata("mysql", round);
            for (name, value) in KEEP {
                metadata["annotations"][name] = value.into();
            }
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            let ports = json!([{"port": 3306, "protocol": "TCP"}]);
            objects.push(json!({
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": metadata,
                "subsets": [{"addresses": addresses, "ports": ports}],
            }));
        }
        self.write(&objects);
    }

    fn write(&self, objects: &[Value]) {
        let manifests = self.manifests();
        if manifests.exists() {
            fs::copy(&manifests, self.folder.join("previous.yaml")).expect("a copy");
        }
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        fs::write(manifests, text.join("\n---\n") + "\n").expect("a file in the sandbox");
    }

    fn service(&self, name: &str, round: u32) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(name, round),
            "spec": {"ports": [{"port": 3306, "targetPort": 3306, "protocol": "TCP"}]},
        })
    }

    fn config_map(&self, name: &str, round: u32) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self.metadata(name, round),
            "data": {"round": round.to_string()},
        })
    }

    fn metadata(&self, name: &str, round: u32) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": LABELS.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
            "annotations": {"example.com/round": round.to_string()},
        })
    }
}

/// Returns whether the ConfigMap `extra` is in Git in a round.
pub(crate) fn has_extra(round: u32) -> bool {
    round.is_multiple_of(2)
}
