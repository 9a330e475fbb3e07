//! Ownership: the Services, Endpoints and EndpointSlices that the daemon may write. Pure.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::config::Database;
use crate::endpoints::{self, slices};
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::foreign_writer;

/// The label that names the manager of an object of any kind.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The annotations by which leader election keeps a lock in Endpoints: client-go's, and Patroni's.
pub(crate) const LEADER_ANNOTATIONS: [&str; 3] =
    ["control-plane.alpha.kubernetes.io/leader", "acquireTime", "renewTime"];

/// The label's value for the Endpoints that Kubernetes writes for a Service with a selector.
const ENDPOINTS_CONTROLLER: &str = "endpoint-controller";

/// Returns whether the daemon has created a Service.
pub(crate) fn is_created_by_us(service: &Service) -> bool {
    let label = service.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    label.is_some_and(|label| label == endpoints::FIELD_MANAGER)
}

/// Returns whether the daemon has created a Service that nobody else has changed since, as the
/// managed fields record it.
pub(crate) fn is_unchanged_by_others(service: &Service) -> bool {
    let managed_fields = service.metadata.managed_fields.iter().flatten();
    let mut managers = managed_fields.filter_map(|entry| entry.manager.as_deref()).peekable();
    is_created_by_us(service)
        && managers.peek().is_some()
        && managers.all(|manager| manager == endpoints::FIELD_MANAGER)
}

/// Returns whether a slice is being deleted.
pub(crate) fn is_being_deleted(slice: &EndpointSlice) -> bool {
    slice.metadata.deletion_timestamp.is_some()
}

/// Refuses to write a slice with one of the daemon's names that has another manager.
pub(crate) fn check_slice(database: &Database, slice: &EndpointSlice) -> Result<(), Condition> {
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let namespace = &database.id.namespace;
    if is_being_deleted(slice) {
        return Err(Condition::new(
            ConditionKind::WaitingForService,
            format!("EndpointSlice {namespace}/{name} is being deleted"),
        ));
    }
    if slices::is_managed(slice) {
        return Ok(());
    }
    let whose = match slices::managed_by(slice) {
        Some(manager) => format!("belongs to {manager}"),
        None => format!("was written by {}", writer(&slice.metadata)),
    };
    Err(Condition::new(
        ConditionKind::NotOurs,
        format!("EndpointSlice {namespace}/{name} {whose}; delete it"),
    ))
}

/// Returns the Service, or the reason why its Endpoints may not be written: it is missing, or
/// Kubernetes writes them itself.
pub(crate) fn check_service<'a>(
    database: &Database,
    service: Option<&'a Service>,
) -> Result<&'a Service, Condition> {
    let id = &database.id;
    if id.namespace == "default" && id.service == "kubernetes" {
        let why =
            "default/kubernetes is the API server's own Service; name another one in the config";
        return Err(Condition::new(ConditionKind::ServiceIsKubernetes, why));
    }
    let Some(service) = service.filter(|service| service.metadata.deletion_timestamp.is_none())
    else {
        let why = format!("there is no Service {id}; create it, without a selector");
        return Err(Condition::new(ConditionKind::WaitingForService, why));
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let why = format!(
            "Service {id} is of type ExternalName, which has no Endpoints; make it ClusterIP, \
             without a selector"
        );
        return Err(Condition::new(ConditionKind::ServiceIsExternalName, why));
    }
    if spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty()) {
        let why = format!(
            "Service {id} has a selector, so Kubernetes writes its Endpoints; remove \
             spec.selector, or the database from the config"
        );
        return Err(Condition::new(ConditionKind::ServiceHasSelector, why));
    }
    Ok(service)
}

/// Refuses to write Endpoints that have another manager.
///
/// `written_uid` is the UID of the Endpoints that this process has written.
pub(crate) fn check_endpoints(
    database: &Database,
    endpoints: &Endpoints,
    written_uid: Option<&str>,
) -> Result<(), Condition> {
    let id = &database.id;
    let not_ours = |why: String| Err(Condition::new(ConditionKind::NotOurs, why));
    if let Some(annotation) = leader_annotation(endpoints) {
        return not_ours(format!(
            "Endpoints {id} carry the leader-election annotation {annotation}, and are never taken \
             over; use a Service of another name"
        ));
    }
    if endpoints.metadata.deletion_timestamp.is_some() {
        return Err(Condition::new(
            ConditionKind::WaitingForService,
            format!("Endpoints {id} are being deleted"),
        ));
    }
    if database.adopt || is_managed(endpoints, written_uid) {
        return Ok(());
    }
    let whose = match endpoints::managed_by(endpoints) {
        Some(ENDPOINTS_CONTROLLER) => {
            "were written by Kubernetes while the Service had a selector".to_owned()
        }
        Some(manager) => format!("belong to {manager} (label {})", endpoints::MANAGED_BY),
        None => format!("were written by {}", writer(&endpoints.metadata)),
    };
    not_ours(format!(
        "Endpoints {id} {whose}; set `adopt: true` on the database to take them over, or delete \
         them"
    ))
}

/// Returns whether Endpoints that `adopt` takes over may stay as they are until they must change.
/// Those that Kubernetes has labelled as its own may not: it could clean them up. Nor may those of
/// a database with names: after a restart, only the label tells that their addresses are published
/// by a decision, so that they are checked even while DNS does not answer.
pub(crate) fn may_stay_foreign(database: &Database, endpoints: &Endpoints) -> bool {
    let manager = endpoints::managed_by(endpoints);
    database.adopt
        && database.names.is_empty()
        && manager != Some(endpoints::FIELD_MANAGER)
        && manager != Some(ENDPOINTS_CONTROLLER)
        && !endpoints::applied_by_us(&endpoints.metadata)
}

/// Returns the writer of an object of others in words.
fn writer(metadata: &ObjectMeta) -> String {
    match foreign_writer::last_writer(metadata) {
        Some(manager) => format!("field manager {manager}"),
        None => "someone else".to_owned(),
    }
}

/// Returns the annotation by which leader election keeps a lock in these Endpoints, if any.
pub(crate) fn leader_annotation(endpoints: &Endpoints) -> Option<&'static str> {
    let annotations = endpoints.metadata.annotations.as_ref()?;
    LEADER_ANNOTATIONS.into_iter().find(|annotation| annotations.contains_key(*annotation))
}

/// Returns whether Endpoints are managed by the daemon.
///
/// The label says so. Without a label, the managed fields do, or the Endpoints are a placeholder
/// that nobody has changed since the daemon created it. The very object that this process has
/// written is also taken back from Kubernetes, which relabels it while the Service has a selector.
pub(crate) fn is_managed(endpoints: &Endpoints, written_uid: Option<&str>) -> bool {
    let written_by_us = written_uid.is_some() && written_uid == endpoints.metadata.uid.as_deref();
    match endpoints::managed_by(endpoints) {
        Some(manager) => {
            manager == endpoints::FIELD_MANAGER
                || (manager == ENDPOINTS_CONTROLLER && written_by_us)
        }
        None => {
            written_by_us
                || endpoints::applied_by_us(&endpoints.metadata)
                || endpoints::is_placeholder(endpoints)
        }
    }
}
