//! Builds the binaries that the sandbox needs, and knows where each one is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A set of binaries that a program needs in the sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Binaries {
    ControlPlane,
    /// The control plane and Helm.
    Helm,
    /// The control plane and the tools that deliver manifests.
    GitOps,
    /// The control plane, with the database servers and clients that Debian does not package.
    All,
}

/// Runs the build script and returns the environment that it prints as `NAME=VALUE` lines.
///
/// The script has a cache, so a second run takes no time.
pub(crate) fn build(binaries: Binaries) -> Result<Vec<(String, String)>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build.sh");
    let what = match binaries {
        Binaries::ControlPlane => "control-plane",
        Binaries::Helm => "helm",
        Binaries::GitOps => "gitops",
        Binaries::All => "all",
    };
    let output = Command::new(&script)
        .arg(what)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", script.display()))?;
    if !output.status.success() {
        return Err("the control plane could not be built; the lines above say why".into());
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Returns the path of a binary of the control plane.
pub(crate) fn kubernetes(name: &str) -> PathBuf {
    folder_in("KUBEBUILDER_ASSETS").join(name)
}

/// Returns the path of a server for MongoDB's protocol: `ferretdb HOST:PORT DIRECTORY`.
pub(crate) fn ferretdb() -> PathBuf {
    folder_in("EXTERNAL_ENDPOINTS_STAND_INS").join("ferretdb")
}

/// Returns the path of the DNS server of clusters: `coredns -conf COREFILE`.
pub(crate) fn coredns() -> PathBuf {
    folder_in("EXTERNAL_ENDPOINTS_STAND_INS").join("coredns")
}

/// Returns the path of the engines of Flux and Argo CD: `gitops flux|argo MANIFESTS …`.
pub(crate) fn gitops() -> PathBuf {
    folder_in("EXTERNAL_ENDPOINTS_GITOPS").join("gitops")
}

/// Returns the path of Helm.
pub(crate) fn helm() -> PathBuf {
    folder_in("EXTERNAL_ENDPOINTS_GITOPS").join("helm")
}

/// Returns the path of MongoDB's shell, or none if npm could not install it.
pub(crate) fn mongosh() -> Option<PathBuf> {
    let path = folder_in("EXTERNAL_ENDPOINTS_STAND_INS").join("node_modules/.bin/mongosh");
    path.exists().then_some(path)
}

/// Returns the path of the daemon in its previous version.
pub(crate) fn previous_version() -> PathBuf {
    folder_in("EXTERNAL_ENDPOINTS_PREVIOUS")
}

fn folder_in(variable: &str) -> PathBuf {
    env::var_os(variable).unwrap_or_else(|| panic!("{variable} is set inside the sandbox")).into()
}
