//! The Service that a database asks to have created. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{CreateService, Database, Port};
use crate::endpoints;

/// The label by which objects of any kind say what manages them.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A Service without a selector, whose ports are the database's.
pub(crate) fn service(database: &Database, create: CreateService) -> Service {
    let metadata = ObjectMeta {
        name: Some(database.id.service.clone()),
        namespace: Some(database.id.namespace.clone()),
        labels: Some(BTreeMap::from([(
            MANAGED_BY.to_owned(),
            endpoints::FIELD_MANAGER.to_owned(),
        )])),
        ..ObjectMeta::default()
    };
    let spec = ServiceSpec {
        cluster_ip: create.headless.then(|| "None".to_owned()),
        // All families that the cluster has, as addresses may be of any.
        ip_family_policy: Some("PreferDualStack".to_owned()),
        ports: Some(database.ports.iter().map(port).collect()),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

/// Whether we have created a Service.
pub(crate) fn is_created_by_us(service: &Service) -> bool {
    let label = service.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    label.is_some_and(|label| label == endpoints::FIELD_MANAGER)
}

/// Whether nobody else has changed a Service that we have created, as its record of who changed what says.
pub(crate) fn is_ours_alone(service: &Service) -> bool {
    let mut by = service
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.manager.as_deref())
        .peekable();
    is_created_by_us(service)
        && by.peek().is_some()
        && by.all(|manager| manager == endpoints::FIELD_MANAGER)
}

/// Without a selector the number that counts is the endpoint's; the same one everywhere leaves no room for doubt.
fn port(port: &Port) -> ServicePort {
    ServicePort {
        name: port.name.clone(),
        port: port.number.into(),
        target_port: Some(IntOrString::Int(port.number.into())),
        protocol: Some(port.protocol.as_str().to_owned()),
        ..ServicePort::default()
    }
}
