//! The client of the Kubernetes API and the daemon's own namespace: from the Pod's ServiceAccount,
//! else from the kubeconfig.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, InferConfigError, Kubeconfig, KubeconfigError};

use crate::api;

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

/// Makes a client of the API. It does not connect yet.
pub(crate) async fn client() -> Result<Client, ClientError> {
    let mut config = Config::infer().await.map_err(|error| infer_error(&error))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // Callers decide when to try again, because by then they may have something newer to write.
    config.default_retry = false;
    // This blocks while a command of the kubeconfig gets the credentials.
    let client = tokio::task::spawn_blocking(move || api::client(config));
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
