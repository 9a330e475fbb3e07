//! The Service that is created for a database with `createService`, and the facts about an
//! existing one that its names depend on. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{CreateService, Database, Port};
use crate::endpoints;
use crate::monitor::ServiceFacts;
use crate::names::Families;
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

/// Returns the facts about a Service that decide which answers of DNS are followed.
pub(crate) fn facts(service: &Service) -> ServiceFacts {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_deref()).filter(|it| !it.is_empty());
    let has = |families: &[String], family| families.iter().any(|it| it == family);
    let cluster_ips = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    let cluster_ip = spec.and_then(|spec| spec.cluster_ip.as_ref());
    ServiceFacts {
        families: families
            .map(|families| Families { ipv4: has(families, "IPv4"), ipv6: has(families, "IPv6") }),
        // A headless Service has "None" here.
        cluster_ips: cluster_ips
            .iter()
            .chain(cluster_ip)
            .filter_map(|ip| ip.parse().ok())
            .collect(),
    }
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
