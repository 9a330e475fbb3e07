//! The cluster that this run publishes to. A dry run reads it where it can, and does without it
//! elsewhere.

use std::time::Duration;

use anyhow::bail;
use kube::Client;
use tracing::{info, warn};

use super::Mode;
use crate::api::{self, ClientRole, UserAgent};
use crate::kubeconfig::{self, ClientError};
use crate::publish::Cluster;

/// The longest time that the API server of a dry run may take to answer.
const REACHABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the `User-Agent` of a run that has no Lease yet.
pub(super) fn user_agent(mode: Mode) -> UserAgent {
    UserAgent::new(match mode {
        Mode::Publish => ClientRole::Standby,
        Mode::DryRun => ClientRole::DryRun,
    })
}

/// Finds the cluster.
pub(super) async fn connect(mode: Mode, agent: UserAgent) -> anyhow::Result<Cluster> {
    match (kubeconfig::client(agent).await, mode) {
        (Ok(client), Mode::Publish) => Ok(Cluster::Write(client)),
        (Ok(client), Mode::DryRun) => Ok(check_reachable(client).await),
        (Err(error), Mode::Publish) => bail!(
            "no cluster: {error}; run in a Pod with a ServiceAccount, or set KUBECONFIG, or use \
             --dry-run to do without one"
        ),
        (Err(ClientError::Unusable(reason)), Mode::DryRun) => {
            warn!(reason, "dry run without a cluster");
            Ok(Cluster::None)
        }
        (Err(ClientError::NotConfigured), Mode::DryRun) => {
            info!("dry run without a cluster");
            Ok(Cluster::None)
        }
    }
}

/// Returns the cluster for reading if its API server answers.
async fn check_reachable(client: Client) -> Cluster {
    let version = tokio::time::timeout(REACHABLE_TIMEOUT, client.apiserver_version()).await;
    let reason = match version {
        Ok(Ok(_)) => return Cluster::Read(client),
        Ok(Err(error)) => api::error_message(&error),
        Err(_) => format!("no answer in {}", humantime::format_duration(REACHABLE_TIMEOUT)),
    };
    warn!(reason, "dry run without a cluster, because the configured one can't be read");
    Cluster::None
}
