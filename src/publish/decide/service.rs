//! The Service that is created for a database with `createService`. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{CreateService, Database, Port};
use crate::endpoints;
use crate::publish::ownership;

/// Builds a Service without a selector that has the ports of the database.
pub(crate) fn build(database: &Database, create: CreateService) -> Service {
    let metadata = ObjectMeta {
        name: Some(database.id.service.clone()),
        namespace: Some(database.id.namespace.clone()),
        labels: Some(BTreeMap::from([(
            ownership::MANAGED_BY.to_owned(),
            endpoints::FIELD_MANAGER.to_owned(),
        )])),
        ..ObjectMeta::default()
    };
    let spec = ServiceSpec {
        cluster_ip: create.headless.then(|| "None".to_owned()),
        // All families that the cluster has, because addresses may be of any.
        ip_family_policy: Some("PreferDualStack".to_owned()),
        ports: Some(database.ports.iter().map(port).collect()),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

/// Builds a port. Without a selector kube-proxy sends to the port of the endpoint, whatever the
/// target port says. The number is the same everywhere, so that nobody wonders which one counts.
fn port(port: &Port) -> ServicePort {
    ServicePort {
        name: port.name.clone(),
        port: port.number.into(),
        target_port: Some(IntOrString::Int(port.number.into())),
        protocol: Some(port.protocol.as_str().to_owned()),
        ..ServicePort::default()
    }
}
