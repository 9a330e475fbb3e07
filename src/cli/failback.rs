//! `failback`: lets a database's preferred tier serve again. It changes an annotation of the
//! Service, which the daemon in the cluster watches.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::args::parse_database_id;
use super::console::{Console, Reported, print};
use crate::annotations::FAILBACK;
use crate::api::{UserAgent, error_message};
use crate::config::DatabaseId;
use crate::{clock, kubeconfig};

/// The longest time that the API may take to answer.
const API_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(super) struct Failback {
    /// The database's Service
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = parse_database_id)]
    service: DatabaseId,
}

impl Failback {
    /// Requests the failback. The exit status is 0 once the request is stored in the cluster.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        super::runtime(console)?
            .block_on(set_annotation(&self.service))
            .map_err(|error| console.fail(&error))?;
        print(&format!(
            "requested a failback of {}; its preferred tiers take over if they are healthy\n",
            self.service
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Sets the annotation to the present time. The daemon acts on any change of the value, and never
/// compares it with its own clock.
async fn set_annotation(id: &DatabaseId) -> anyhow::Result<()> {
    let client = kubeconfig::client(UserAgent::cli())
        .await
        .map_err(|error| anyhow!("no cluster: {error}; set KUBECONFIG"))?;
    let services: Api<Service> = Api::namespaced(client, &id.namespace);
    let now = clock::rfc3339_millis(clock::to_wall_clock(clock::now()));
    let patch = Patch::Merge(serde_json::json!({"metadata": {"annotations": {FAILBACK: now}}}));
    let params = PatchParams::default();
    let patched = services.patch(&id.service, &params, &patch);
    match tokio::time::timeout(API_TIMEOUT, patched).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            bail!("there is no Service {id}; check its name and namespace")
        }
        Ok(Err(error)) => {
            bail!("patch services in {}: {}", id.namespace, error_message(&error))
        }
        Err(_) => {
            let timeout = humantime::format_duration(API_TIMEOUT);
            bail!("the API gave no answer in {timeout}; try again")
        }
    }
}
