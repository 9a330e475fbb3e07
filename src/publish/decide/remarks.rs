//! Remarks on clients that get no answer although the plan is published. Pure.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::config::{Database, DatabaseId, PublishMode};
use crate::endpoints::{MAX_MIRRORED_ADDRESSES, slices};
use crate::plan::{Members, Plan};
use crate::publish::decide::ports;

/// Describes the published members: `10.0.0.1, 10.0.0.2`, and what a person should know of them.
pub(crate) fn describe(
    database: &Database,
    service: Option<&Service>,
    plan: &Plan,
    existing: &Members,
) -> String {
    let mut parts = vec![existing.to_string()];
    if let (Plan::Publish(desired), Some(service)) = (plan, service) {
        parts.extend(not_mirrored(database, desired));
        parts.extend(left_out(database, service, desired));
        parts.extend(unserved_ports(database, service));
        parts.extend(local_traffic(&database.id, service));
    }
    parts.join("; ")
}

/// Says how many members Endpoints leave out, because Kubernetes mirrors no more.
fn not_mirrored(database: &Database, desired: &Members) -> Option<String> {
    let left_out = desired.len().checked_sub(MAX_MIRRORED_ADDRESSES).filter(|more| *more > 0)?;
    (database.publish == PublishMode::Endpoints).then(|| {
        format!(
            "{left_out} more are left out, because Kubernetes copies only \
             {MAX_MIRRORED_ADDRESSES} of them from Endpoints into EndpointSlices; add `publish: \
             slices` to the database"
        )
    })
}

/// Names the members whose IP family the Service does not have. Endpoints take them, slices can't.
fn left_out(database: &Database, service: &Service, desired: &Members) -> Option<String> {
    let left_out = match database.publish {
        PublishMode::Endpoints => Members::default(),
        PublishMode::Slices | PublishMode::Both => {
            slices::outside_families(desired, &slices::families(service))
        }
    };
    (!left_out.is_empty()).then(|| format!("the Service does not have the IP family of {left_out}"))
}

/// Names the ports of the Service that lead nowhere.
fn unserved_ports(database: &Database, service: &Service) -> Option<String> {
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    let unserved = ports::unserved(&database.ports, ports)?;
    Some(format!(
        "no port of the database joins the Service's ports {unserved}, which have no endpoints; \
         add them to `ports`"
    ))
}

/// Returns the warning about a traffic policy that lets nobody through: to kube-proxy an endpoint
/// without a node is on no node.
pub(crate) fn local_traffic(id: &DatabaseId, service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let (field, clients) = local_policy(spec)?;
    let DatabaseId { namespace, service } = id;
    Some(format!(
        "`{field}: Local` of Service {id} lets {clients} reach none of these addresses, as they \
         are on no node of the cluster; allow all: kubectl -n {namespace} patch service {service} \
         -p '{{\"spec\":{{\"{field}\":\"Cluster\"}}}}'"
    ))
}

/// Returns the field, and the clients that it keeps out. A headless Service has no proxy that would
/// apply it.
fn local_policy(spec: &ServiceSpec) -> Option<(&'static str, &'static str)> {
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    if spec.cluster_ip.as_deref() != Some("None") && is_local(&spec.internal_traffic_policy) {
        Some(("internalTrafficPolicy", "clients in the cluster"))
    } else if is_local(&spec.external_traffic_policy) {
        Some(("externalTrafficPolicy", "clients outside of the cluster"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::decide::next_step::tests::{database, members, publish, service};

    fn policies(internal: Option<&str>, external: Option<&str>, cluster_ip: &str) -> Service {
        let mut service = service();
        let spec = service.spec.as_mut().unwrap();
        spec.cluster_ip = Some(cluster_ip.into());
        spec.internal_traffic_policy = internal.map(Into::into);
        spec.external_traffic_policy = external.map(Into::into);
        service
    }

    #[test]
    fn members_alone_where_all_clients_get_through() {
        let described =
            describe(&database(false), Some(&service()), &publish(&[1]), &members(&[1]));
        assert_eq!(described, "198.51.100.1");
        let cluster = policies(Some("Cluster"), Some("Cluster"), "10.0.0.1");
        assert_eq!(local_traffic(&database(false).id, &cluster), None);
    }

    #[test]
    fn a_local_policy_is_described_with_the_way_out() {
        let id = database(false).id;
        let both = local_traffic(&id, &policies(Some("Local"), Some("Local"), "10.0.0.1"))
            .expect("a remark");
        assert!(
            both.starts_with(
                "`internalTrafficPolicy: Local` of Service prod/mysql lets clients in the cluster"
            ),
            "{both}"
        );
        assert!(both.ends_with(
            "kubectl -n prod patch service mysql -p \
                 '{\"spec\":{\"internalTrafficPolicy\":\"Cluster\"}}'"
        ));
        let external = local_traffic(&id, &policies(Some("Cluster"), Some("Local"), "10.0.0.1"))
            .expect("a remark");
        assert!(
            external.contains("`externalTrafficPolicy: Local`") && external.contains("outside"),
            "{external}"
        );
        assert_eq!(
            local_traffic(&id, &policies(Some("Local"), None, "None")),
            None,
            "a headless Service has no proxy"
        );
    }

    #[test]
    fn a_port_of_the_service_without_endpoints_is_described() {
        let mut service = service();
        let ports = service.spec.as_mut().unwrap().ports.as_mut().unwrap();
        ports.push(k8s_openapi::api::core::v1::ServicePort {
            name: Some("metrics".into()),
            port: 9104,
            ..ports[0].clone()
        });
        let described = describe(&database(false), Some(&service), &publish(&[1]), &members(&[1]));
        assert_eq!(
            described,
            "198.51.100.1; no port of the database joins the Service's ports [metrics (9104/TCP)], \
             which have no endpoints; add them to `ports`"
        );
    }
}
