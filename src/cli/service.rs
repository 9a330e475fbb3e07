//! The annotations of a Service, as commands change them: by a field manager of their own, and safe
//! against changes by others at the same time.
//!
//! The name of the field manager must not begin with `kubectl`: Flux removes from its objects what
//! such managers have set. Nor may it be absent, because then it would be the name of the program.

use std::time::Duration;

use anyhow::{anyhow, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::api::{ApiError, Call, ErrorKind};
use crate::config::DatabaseId;

/// The field manager of what commands write.
pub(super) const FIELD_MANAGER: &str = "external-endpoints-cli";

/// The attempts at an edit while others change the Service. The pauses between them take 10 s.
const MAX_ATTEMPTS: u32 = 50;

/// The result of an edit of an annotation.
pub(super) enum Edit {
    /// Sets this value.
    Set(String),
    /// Removes the annotation.
    Remove,
}

/// Returns the pause after a conflict. Editors that meet have different ones, by their process.
fn pause_after(attempt: u32) -> Duration {
    let spread = u64::from(std::process::id().wrapping_mul(attempt + 1) % 41);
    Duration::from_millis(u64::from(attempt.min(25)) * 10 + spread)
}

/// A Service of a cluster.
pub(super) struct ServiceObject<'a> {
    cluster: &'a Cluster,
    id: &'a DatabaseId,
    api: Api<Service>,
}

impl<'a> ServiceObject<'a> {
    pub(super) fn new(cluster: &'a Cluster, id: &'a DatabaseId) -> Self {
        Self { cluster, id, api: Api::namespaced(cluster.client.clone(), &id.namespace) }
    }

    /// Sets an annotation, whatever its value is.
    pub(super) async fn set_annotation(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {name: value}}});
        self.patch(&Patch::Merge(&patch)).await.map_err(|error| self.describe(&error))
    }

    /// Edits an annotation. `edit` gets its value, and again a newer one if someone else has
    /// changed the Service meanwhile.
    pub(super) async fn edit_annotation(
        &self,
        name: &str,
        mut edit: impl FnMut(&str) -> anyhow::Result<Edit>,
    ) -> anyhow::Result<()> {
        for attempt in 0..MAX_ATTEMPTS {
            let service = self.get().await.map_err(|error| self.describe(&error))?;
            let annotations = service.metadata.annotations.unwrap_or_default();
            let version = service.metadata.resource_version;
            let value = annotations.get(name).map(String::as_str).unwrap_or_default();
            let patched = match edit(value)? {
                // An apply makes this manager an owner even of a value that was there before. A
                // merge patch would leave it to its former owner, such as kubectl, and so to Flux.
                Edit::Set(value) => {
                    let patch = self.object(json!({name: value}), version.as_deref());
                    self.patch(&Patch::Apply(&patch)).await
                }
                Edit::Remove => {
                    let patch = self.object(json!({name: null}), version.as_deref());
                    self.patch(&Patch::Merge(&patch)).await
                }
            };
            match patched {
                Err(error) if error.kind == ErrorKind::Conflict => {
                    tokio::time::sleep(pause_after(attempt)).await;
                }
                patched => return patched.map_err(|error| self.describe(&error)),
            }
        }
        bail!("the Service {} changes faster than it can be edited; try again", self.id)
    }

    /// Returns the part of the object that is written. With the version that was read, a change
    /// that someone else has made meanwhile is a conflict.
    fn object(&self, annotations: Value, version: Option<&str>) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.id.service,
                "namespace": self.id.namespace,
                "resourceVersion": version,
                "annotations": annotations,
            },
        })
    }

    async fn get(&self) -> Result<Service, ApiError> {
        self.cluster.call(self.call("get"), self.api.get(&self.id.service)).await
    }

    async fn patch(&self, patch: &Patch<&Value>) -> Result<(), ApiError> {
        let mut params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        params.force = matches!(patch, Patch::Apply(_));
        let patched = self.api.patch(&self.id.service, &params, patch);
        self.cluster.call(self.call("patch"), patched).await.map(drop)
    }

    fn call(&self, verb: &'static str) -> Call<'_> {
        let DatabaseId { namespace, service } = self.id;
        Call { verb, plural: "services", namespace, name: Some(service) }
    }

    fn describe(&self, error: &ApiError) -> anyhow::Error {
        match error.kind {
            ErrorKind::NotFound | ErrorKind::NamespaceNotFound => {
                anyhow!("there is no Service {}; check its name and namespace", self.id)
            }
            _ => anyhow!("{error}"),
        }
    }
}
