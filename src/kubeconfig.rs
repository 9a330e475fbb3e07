//! The client of the Kubernetes API and the daemon's own namespace: from the Pod's ServiceAccount,
//! else from the kubeconfig.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::api::{self, UserAgent};
use file::FileError;

mod file;

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
            Self { file: None, context: None } => infer().await?,
            chosen => chosen.config().await.map_err(ClientError::Unusable)?,
        };
        client_of(config, UserAgent::cli()).await
    }

    async fn config(self) -> Result<Config, String> {
        let kubeconfig = file::read(self.file.as_deref()).map_err(|error| error.to_string())?;
        let known: Vec<&str> =
            kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if let Some(context) = self.context.as_deref().filter(|name| !known.contains(name)) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("the kubeconfig has no context {context}; it has: {known}"));
        }
        config_of(kubeconfig, self.context).await
    }
}

async fn config_of(kubeconfig: Kubeconfig, context: Option<String>) -> Result<Config, String> {
    file::check_named_files(&kubeconfig, context.as_deref())?;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| format!("the kubeconfig is invalid: {error}"))
}

/// Makes a client of the API. It does not connect yet.
///
/// The `agent` names the caller to the API server.
pub(crate) async fn client(agent: UserAgent) -> Result<Client, ClientError> {
    client_of(infer().await?, agent).await
}

/// Returns what the kubeconfig says, else the Pod's ServiceAccount, as [`Config::infer`] does.
async fn infer() -> Result<Config, ClientError> {
    let of_file = match file::read(None) {
        Ok(kubeconfig) => config_of(kubeconfig, None).await.map_err(ClientError::Unusable),
        Err(FileError::NotFound(_)) if std::env::var_os("KUBECONFIG").is_none() => {
            Err(ClientError::NotConfigured)
        }
        Err(error) => Err(ClientError::Unusable(error.to_string())),
    };
    let mut config = of_file.or_else(|error| Config::incluster().map_err(|_| error))?;
    config.apply_debug_overrides();
    Ok(config)
}

async fn client_of(mut config: Config, agent: UserAgent) -> Result<Client, ClientError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // Callers decide when to try again, because by then they may have something newer to write.
    config.default_retry = false;
    let command = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
    // This blocks while a command of the kubeconfig gets the credentials.
    let client = in_thread(move || api::client(config, agent));
    match tokio::time::timeout(CREDENTIALS_TIMEOUT, client).await {
        Ok(Some(Ok(client))) => Ok(client),
        Ok(Some(Err(error))) => Err(ClientError::Unusable(match command {
            Some(command) => format!(
                "{} (the kubeconfig's users.user.exec.command is `{command}`)",
                api::error_message(&error)
            ),
            None => api::error_message(&error),
        })),
        Ok(None) => Err(ClientError::Unusable(format!(
            "the output of {} can't be used; correct it in the kubeconfig",
            credentials_source(command.as_deref())
        ))),
        Err(_) => Err(ClientError::Unusable(late_credentials(command.as_deref()))),
    }
}

/// Runs work that may block for ever, in a thread that the end of the program does not wait for.
/// Returns nothing if the work panicked or no thread could be started.
async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let runtime = Handle::current();
    let run = move || {
        let _entered = runtime.enter();
        // The receiver is gone if the time is over.
        let _ = sender.send(work());
    };
    thread::Builder::new().name("credentials".to_owned()).spawn(run).ok()?;
    receiver.await.ok()
}

fn late_credentials(command: Option<&str>) -> String {
    let timeout = humantime::format_duration(CREDENTIALS_TIMEOUT);
    let source = credentials_source(command);
    format!("{source} gave no credentials in {timeout}; run it by hand to find out why")
}

fn credentials_source(command: Option<&str>) -> String {
    let named = command.map(|command| format!(" {command:?}")).unwrap_or_default();
    format!("the command{named} that the kubeconfig has for credentials")
}

/// Returns the namespace of the Pod, else of the kubeconfig's context, else `default`.
///
/// # Errors
/// The kubeconfig that `KUBECONFIG` names can't be read.
pub(crate) fn own_namespace() -> Result<String, String> {
    if let Some(name) = pod_namespace() {
        return Ok(name);
    }
    match file::read(None) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_end_does_not_hold_up_the_program() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let waited = runtime.expect("a runtime").block_on(async {
            let endless = in_thread(|| thread::sleep(Duration::from_secs(600)));
            tokio::time::timeout(Duration::from_millis(50), endless).await
        });
        assert!(waited.is_err());
    }

    #[test]
    fn late_credentials_name_their_command() {
        assert_eq!(
            late_credentials(Some("sleep")),
            "the command \"sleep\" that the kubeconfig has for credentials gave no credentials in \
             30s; run it by hand to find out why"
        );
    }
}
