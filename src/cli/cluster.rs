//! The cluster that a command is for: the flags that choose it, and calls whose errors say what to
//! do.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;

use super::args::parse_namespace;
use crate::api::{ApiError, Call, ErrorKind, error_message};
use crate::kubeconfig::ClusterChoice;

/// The longest time that the API may take to answer.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// The flags that choose a cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ClusterArgs {
    /// Use this kubeconfig [default: that of KUBECONFIG, else ~/.kube/config, else the Pod's
    /// ServiceAccount]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// Opens the cluster. It does not connect yet.
    pub(super) async fn open(&self) -> anyhow::Result<Cluster> {
        let choice = ClusterChoice { file: self.kubeconfig.clone(), context: self.context.clone() };
        let client = choice.client().await.map_err(|error| {
            anyhow!("no cluster: {error}; set KUBECONFIG, or give --kubeconfig and --context")
        })?;
        Ok(Cluster { client })
    }
}

/// The flags that choose a namespace.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct NamespaceArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE", value_parser = parse_namespace)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// The namespaces that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Namespaces {
    /// All of them.
    All,
    /// This one alone.
    One(String),
}

impl NamespaceArgs {
    /// Returns the chosen namespaces; none if the command line chooses none.
    pub(super) fn chosen(&self) -> Option<Namespaces> {
        if self.all_namespaces {
            return Some(Namespaces::All);
        }
        self.namespace.clone().map(Namespaces::One)
    }
}

/// A cluster, with the rights of the user of the kubeconfig.
#[derive(Clone)]
pub(super) struct Cluster {
    /// The client of its API.
    pub(super) client: Client,
}

impl Cluster {
    /// Returns the namespace of the context: of the kubeconfig, else of the Pod, else `default`.
    pub(super) fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// Returns the version of the API server, which has to answer in time.
    pub(super) async fn version(&self) -> Result<Info, String> {
        match tokio::time::timeout(API_TIMEOUT, self.client.apiserver_version()).await {
            Ok(version) => version.map_err(|error| error_message(&error)),
            Err(_) => Err(format!("no answer in {}", humantime::format_duration(API_TIMEOUT))),
        }
    }

    /// Makes a call that has to be answered in time. `call` describes it for errors.
    pub(super) async fn call<T>(
        &self,
        call: Call<'_>,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(API_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|error| for_user(ApiError::new(error, call), call)),
            Err(_) => Err(ApiError::timed_out(call, API_TIMEOUT)),
        }
    }
}

/// Says what a user can do about an error, who is not the daemon's ServiceAccount.
fn for_user(mut error: ApiError, call: Call<'_>) -> ApiError {
    let reply = error.reply();
    let words = match error.kind {
        ErrorKind::Forbidden => {
            let Call { verb, plural, namespace, .. } = call;
            let object = call.name.map(|name| format!(" {name}")).unwrap_or_default();
            let place = match namespace {
                "" => "all namespaces; name one by -n,".to_owned(),
                namespace => format!("namespace {namespace};"),
            };
            format!(
                "you may not {verb} {plural}{object} in {place} ask for that right, or use another \
                 --context (the API says: {reply})"
            )
        }
        ErrorKind::Unauthorized => format!(
            "{call}: the API does not accept your credentials; log in again, or use another \
             --context (it says: {reply})"
        ),
        ErrorKind::Unavailable if error.is_unanswered() => format!(
            "{reply}; see that the API server of this context runs and can be reached from here \
             (`kubectl version` asks it too), or use another --context"
        ),
        _ => return error,
    };
    error.message = words;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_once_and_with_what_to_do() {
        let call = Call { verb: "list", plural: "services", namespace: "", name: None };
        let status = |code| kube::core::Status::failure("no way", "Reason").with_code(code).boxed();
        let told = |code| for_user(ApiError::new(kube::Error::Api(status(code)), call), call);
        let late = for_user(ApiError::timed_out(call, API_TIMEOUT), call);
        let table = [
            (told(401), "list services in all namespaces: the API does not accept your", "log in"),
            (told(403), "you may not list services in all namespaces; name one by -n,", "ask for"),
            (late, "list services in all namespaces: no answer in 10s; see that", "--context"),
        ];
        for (error, start, step) in table {
            let text = format!("{:#}", anyhow::Error::new(error));
            assert!(text.starts_with(start) && text.contains(step), "{text}");
            assert!(text.matches("no way").count() <= 1 && !text.contains("Status {"), "{text}");
        }
    }
}
