//! The tools, each as far as it applies manifests, deletes what is gone from them, and says what it
//! has changed.

use std::process::{Command, Output};

use crate::gitops::manifests::{LABELS, Repository};
use crate::support::{binaries, blocking, shared, temp_dir};

/// A tool that delivers manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Flux,
    ArgoClientSide,
    ArgoServerSide,
    KubectlClientSide,
    KubectlServerSide,
    HelmClientSide,
    HelmServerSide,
}

impl Tool {
    /// Delivers the manifests, and returns what the tool prints.
    pub(crate) async fn deliver(self, repository: &Repository, namespace: &str) -> String {
        match self {
            Tool::Flux => {
                let mut command = engine("flux", repository);
                command.args(repository.previous());
                let printed = succeed(command).await;
                repository.forget_previous();
                printed
            }
            Tool::ArgoClientSide | Tool::ArgoServerSide => {
                let mut command = engine("argo", repository);
                command.arg(if self == Tool::ArgoClientSide { "client" } else { "server" });
                succeed(command).await
            }
            Tool::KubectlClientSide => {
                let mut command = kubectl(namespace);
                let (label, value) = LABELS[0];
                command.args(["apply", "--prune", "-l", &format!("{label}={value}")]);
                command.arg("-f").arg(repository.manifests());
                succeed(command).await
            }
            Tool::KubectlServerSide => {
                let mut command = kubectl(namespace);
                command.args(["apply", "--server-side"]).arg("-f").arg(repository.manifests());
                succeed(command).await
            }
            Tool::HelmClientSide | Tool::HelmServerSide => {
                let home = temp_dir("helm");
                let mut command = Command::new(binaries::helm());
                for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
                    command.env(variable, &home);
                }
                let server_side = self == Tool::HelmServerSide;
                command
                    .env("KUBECONFIG", shared().kubeconfig())
                    .args(["upgrade", "--install", "databases"])
                    .arg(repository.chart())
                    .args(["--namespace", namespace])
                    .arg(format!("--server-side={server_side}"));
                succeed(command).await
            }
        }
    }

    /// Returns whether the tool deletes what is gone from the manifests.
    pub(crate) fn prunes(self) -> bool {
        self != Tool::KubectlServerSide
    }

    /// Panics if a second delivery of the same manifests found something to change.
    pub(crate) async fn expect_no_change(
        self,
        printed: &str,
        repository: &Repository,
        namespace: &str,
    ) {
        match self {
            Tool::Flux => {
                let changed = printed.lines().find(|line| !line.ends_with(" unchanged"));
                assert_eq!(changed, None, "{printed}");
            }
            Tool::ArgoClientSide | Tool::ArgoServerSide => {
                let is_compared =
                    |line: &&str| line.contains(" before ") || line.contains(" after ");
                let mut compared = printed.lines().filter(is_compared).peekable();
                assert!(compared.peek().is_some(), "{printed}");
                assert!(compared.all(|line| line.ends_with(" Synced")), "{printed}");
            }
            Tool::KubectlClientSide | Tool::KubectlServerSide => {
                let mut command = kubectl(namespace);
                command.arg("diff").arg("-f").arg(repository.manifests());
                command.args((self == Tool::KubectlServerSide).then_some("--server-side"));
                let output = run(command).await;
                assert_eq!(output.status.code(), Some(0), "{output:?}");
            }
            // Helm says nothing; that no object has changed is seen in the cluster.
            Tool::HelmClientSide | Tool::HelmServerSide => {}
        }
    }
}

fn engine(name: &str, repository: &Repository) -> Command {
    let mut command = Command::new(binaries::gitops());
    command.env("KUBECONFIG", shared().kubeconfig()).arg(name).arg(repository.manifests());
    command
}

fn kubectl(namespace: &str) -> Command {
    let mut command = Command::new(binaries::kubernetes("kubectl"));
    command.arg("--kubeconfig").arg(shared().kubeconfig()).args(["--namespace", namespace]);
    command
}

pub(crate) async fn run(mut command: Command) -> Output {
    blocking(move || command.output().expect("the program runs")).await
}

/// Runs a command that succeeds, and returns what it prints.
pub(crate) async fn succeed(command: Command) -> String {
    let what = format!("{command:?}");
    let output = run(command).await;
    assert!(output.status.success(), "{what}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
