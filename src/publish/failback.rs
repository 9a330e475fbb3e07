//! Asks for a failback: changes an annotation of the Service, which the daemon takes for the wish.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::api::error_message;
use crate::clock;
use crate::config::DatabaseId;
use crate::publish::cache::reflector::FAILBACK;

/// How long the API may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Sets the annotation to this time; an error says why not. What it says does not matter, only that it changes: the daemon's clock is another.
pub async fn ask_failback(client: Client, id: &DatabaseId, at: SystemTime) -> Result<(), String> {
    let services: Api<Service> = Api::namespaced(client, &id.namespace);
    let annotations = serde_json::json!({ FAILBACK: clock::rfc3339_millis(at) });
    let patch = Patch::Merge(serde_json::json!({"metadata": {"annotations": annotations}}));
    let params = PatchParams::default();
    let answer = tokio::time::timeout(DEADLINE, services.patch(&id.service, &params, &patch)).await;
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err(format!("there is no Service {id}"))
        }
        Ok(Err(error)) => {
            Err(format!("patch services in {}: {}", id.namespace, error_message(&error)))
        }
        Err(_) => Err(format!("no answer in {}", humantime::format_duration(DEADLINE))),
    }
}
