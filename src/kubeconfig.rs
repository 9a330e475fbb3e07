//! The client of the Kubernetes API and the daemon's own namespace: from the Pod's ServiceAccount,
//! else from the kubeconfig.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::api::{self, UserAgent};

/// The namespace where neither the Pod nor the kubeconfig names one.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// The file in which a Pod finds the name of its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The longest time that getting credentials may take. A kubeconfig can name a command for it.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest silence on a connection. The API server ends each watch after 60 s.
const READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The reason why there is no client.
pub(crate) enum ClientError {
    /// This is no Pod, and there is no kubeconfig.
    NotConfigured,
    /// A cluster is configured, but this error prevents its use.
    Unusable(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NotConfigured => f.write_str("there is no kubeconfig, and this is no Pod"),
            ClientError::Unusable(error) => f.write_str(error),
        }
    }
}

/// The choice of a cluster: a kubeconfig and one of its contexts, where the user names them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterChoice {
    /// The kubeconfig, instead of that of `KUBECONFIG` or `~/.kube/config`.
    pub file: Option<PathBuf>,
    /// The context, instead of the current one of the kubeconfig.
    pub context: Option<String>,
}

impl ClusterChoice {
    /// Makes a client of the API of this cluster, for a command. It does not connect yet.
    pub(crate) async fn client(self) -> Result<Client, ClientError> {
        let config = match self {
            Self { file: None, context: None } => {
                Config::infer().await.map_err(|error| infer_error(&error))?
            }
            chosen => chosen.config().await.map_err(ClientError::Unusable)?,
        };
        client_of(config, UserAgent::cli()).await
    }

    async fn config(self) -> Result<Config, String> {
        let kubeconfig = match &self.file {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig = kubeconfig.map_err(|error| match (error, self.file) {
            (KubeconfigError::ReadConfig(error, path), _) => {
                format!("the kubeconfig {}: {error}", path.display())
            }
            (error, Some(file)) => format!("the kubeconfig {}: {error}", file.display()),
            (error, None) => format!("the kubeconfig: {error}"),
        })?;
        let known: Vec<&str> =
            kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if let Some(context) = self.context.as_deref().filter(|name| !known.contains(name)) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("the kubeconfig has no context {context}; it has: {known}"));
        }
        let options = KubeConfigOptions { context: self.context, ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| format!("the kubeconfig is invalid: {error}"))
    }
}

/// Makes a client of the API. It does not connect yet.
///
/// The `agent` names the caller to the API server.
pub(crate) async fn client(agent: UserAgent) -> Result<Client, ClientError> {
    client_of(Config::infer().await.map_err(|error| infer_error(&error))?, agent).await
}

async fn client_of(mut config: Config, agent: UserAgent) -> Result<Client, ClientError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // Callers decide when to try again, because by then they may have something newer to write.
    config.default_retry = false;
    // This blocks while a command of the kubeconfig gets the credentials.
    let client = tokio::task::spawn_blocking(move || api::client(config, agent));
    match tokio::time::timeout(CREDENTIALS_TIMEOUT, client).await {
        Ok(Ok(Ok(client))) => Ok(client),
        Ok(Ok(Err(error))) => Err(ClientError::Unusable(api::error_message(&error))),
        Ok(Err(panic)) => Err(ClientError::Unusable(panic.to_string())),
        Err(_) => {
            let timeout = humantime::format_duration(CREDENTIALS_TIMEOUT);
            let error = format!("the kubeconfig gave no credentials in {timeout}");
            Err(ClientError::Unusable(error))
        }
    }
}

fn infer_error(error: &InferConfigError) -> ClientError {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(KubeconfigError::ReadConfig(io, path)) if io.kind() == ErrorKind::NotFound => {
            match std::env::var_os("KUBECONFIG") {
                Some(_) => {
                    ClientError::Unusable(format!("there is no kubeconfig {}", path.display()))
                }
                None => ClientError::NotConfigured,
            }
        }
        Some(error) => ClientError::Unusable(format!("the kubeconfig is invalid: {error}")),
        None => ClientError::Unusable(error.to_string()),
    }
}

/// Returns the namespace of the Pod, else of the kubeconfig's context, else `default`.
///
/// # Errors
/// The kubeconfig that `KUBECONFIG` names can't be read.
pub(crate) fn own_namespace() -> Result<String, String> {
    if let Some(name) = pod_namespace() {
        return Ok(name);
    }
    match Kubeconfig::read() {
        Ok(config) => Ok(context_namespace(config).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())),
        Err(error) if std::env::var_os("KUBECONFIG").is_some() => Err(error.to_string()),
        Err(_) => Ok(DEFAULT_NAMESPACE.to_owned()),
    }
}

fn pod_namespace() -> Option<String> {
    let name = std::fs::read_to_string(NAMESPACE_FILE).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

fn context_namespace(config: Kubeconfig) -> Option<String> {
    let current = config.current_context?;
    let context = config.contexts.into_iter().find(|context| context.name == current)?;
    context.context?.namespace
}
