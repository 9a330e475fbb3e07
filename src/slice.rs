//! Members to and from the values the API holds: builds Endpoints, reads members back, and says whether the two agree. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::plan::{Member, Members};

/// The label that says whose Endpoints these are, and its value for ours.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const OURS: &str = "external-endpoints";

/// Endpoints in full as they shall be applied, on top of `resource_version`.
///
/// No members means no subsets: the API refuses a subset without an address.
pub fn endpoints(
    namespace: &str,
    name: &str,
    members: &Members,
    ports: &[EndpointPort],
    resource_version: Option<String>,
) -> Endpoints {
    let labels = Some(BTreeMap::from([(MANAGED_BY.to_owned(), OURS.to_owned())]));
    let mut endpoints = blank(namespace, name);
    endpoints.metadata = ObjectMeta { labels, resource_version, ..endpoints.metadata };
    endpoints.subsets = Some(subsets(members, ports));
    endpoints
}

/// Endpoints that say nothing but their name: what is applied to create them. Applied to Endpoints that someone else has
/// created meanwhile, it changes nothing.
pub fn blank(namespace: &str, name: &str) -> Endpoints {
    let metadata =
        ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
    Endpoints { metadata, subsets: None }
}

/// Whether nobody has said anything in these Endpoints yet.
pub fn is_blank(endpoints: &Endpoints) -> bool {
    managed_by(endpoints).is_none()
        && endpoints.metadata.managed_fields.as_deref().unwrap_or_default().is_empty()
        && subsets_of(endpoints).is_empty()
}

fn subsets(members: &Members, ports: &[EndpointPort]) -> Vec<EndpointSubset> {
    if members.is_empty() {
        return Vec::new();
    }
    let addresses = members
        .iter()
        .map(|member| EndpointAddress {
            ip: member.ip.to_string(),
            hostname: member.hostname.clone(),
            ..EndpointAddress::default()
        })
        .collect();
    vec![EndpointSubset { addresses: Some(addresses), ports: Some(ports.to_vec()), not_ready_addresses: None }]
}

/// The ready addresses of Endpoints. One that is no IP is left out.
pub fn members(endpoints: &Endpoints) -> Members {
    subsets_of(endpoints)
        .iter()
        .flat_map(|subset| subset.addresses.iter().flatten())
        .filter_map(|address| {
            let ip: IpAddr = address.ip.parse().ok()?;
            Some(Member { ip, hostname: address.hostname.clone() })
        })
        .collect()
}

/// Whether Endpoints already hold exactly these members on these ports under our label, so that a write would change
/// nothing.
pub fn holds(endpoints: &Endpoints, wanted: &Members, ports: &[EndpointPort]) -> bool {
    managed_by(endpoints) == Some(OURS) && subsets_of(endpoints) == subsets(wanted, ports).as_slice()
}

/// Whether two Endpoints say the same of all that we write.
pub fn agree(one: &Endpoints, other: &Endpoints) -> bool {
    managed_by(one) == managed_by(other) && subsets_of(one) == subsets_of(other)
}

/// The API returns no list where it was given an empty one.
fn subsets_of(endpoints: &Endpoints) -> &[EndpointSubset] {
    endpoints.subsets.as_deref().unwrap_or_default()
}

/// The value of the label that says whose Endpoints these are.
pub fn managed_by(endpoints: &Endpoints) -> Option<&str> {
    endpoints.metadata.labels.as_ref()?.get(MANAGED_BY).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ports() -> Vec<EndpointPort> {
        let port = |name: &str, port| EndpointPort {
            name: Some(name.into()),
            port,
            protocol: Some("TCP".into()),
            app_protocol: None,
        };
        vec![port("postgres", 5432), port("patroni", 8008)]
    }

    fn member(ip: IpAddr) -> Member {
        Member { ip, hostname: None }
    }

    #[test]
    fn no_members_are_no_subsets_in_the_json() {
        let json = serde_json::to_value(endpoints("prod", "orders", &Members::default(), &ports(), None)).unwrap();
        assert_eq!(json["subsets"], serde_json::json!([]));
    }

    #[test]
    fn blank_endpoints_name_neither_subsets_nor_labels() {
        let blank = blank("prod", "orders");
        let json = serde_json::to_value(&blank).unwrap();
        assert_eq!((json.get("subsets"), json["metadata"].get("labels")), (None, None));
        assert!(is_blank(&blank));
        assert!(!is_blank(&endpoints("prod", "orders", &Members::default(), &ports(), None)));
    }

    #[test]
    fn an_address_of_another_shape_is_not_what_we_hold() {
        let wanted: Members = [member("198.51.100.1".parse().unwrap())].into_iter().collect();
        let ours = endpoints("prod", "orders", &wanted, &ports(), None);
        assert!(holds(&ours, &wanted, &ports()));

        let mut unready = ours.clone();
        unready.subsets.as_mut().unwrap()[0].not_ready_addresses =
            Some(vec![EndpointAddress { ip: "198.51.100.9".into(), ..Default::default() }]);
        assert!(!holds(&unready, &wanted, &ports()));

        let mut unlabelled = ours.clone();
        unlabelled.metadata.labels = None;
        assert!(!holds(&unlabelled, &wanted, &ports()));

        assert!(!holds(&ours, &wanted, &ports()[..1]));
        assert!(!holds(&ours, &Members::default(), &ports()));
    }

    proptest! {
        #[test]
        fn members_survive_the_way_there_and_back(ips in prop::collection::vec(any::<[u8; 4]>(), 0..20), six in prop::collection::vec(any::<[u8; 16]>(), 0..5)) {
            let all = ips.into_iter().map(IpAddr::from).chain(six.into_iter().map(IpAddr::from));
            let wanted: Members = all.map(member).collect();
            let written = endpoints("prod", "orders", &wanted, &ports(), None);
            prop_assert_eq!(&members(&written), &wanted);
            prop_assert!(holds(&written, &wanted, &ports()));
        }
    }
}
