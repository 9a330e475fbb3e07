//! Values of Endpoints: builds them from members, reads members back, and compares the two. Pure.
//! `slices` does the same for EndpointSlices, and `packing` spreads members over them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::plan::{Member, Members};

mod packing;
pub mod slices;

/// The label that names the manager of Endpoints.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The name of this daemon as a manager of fields and labels.
pub const FIELD_MANAGER: &str = "external-endpoints";

/// The label that keeps Kubernetes from mirroring Endpoints into EndpointSlices.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The largest number of addresses that Kubernetes mirrors from Endpoints into EndpointSlices.
pub const MAX_MIRRORED_ADDRESSES: usize = 1000;

/// The wish to have Endpoints mirrored into EndpointSlices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirror {
    /// Kubernetes mirrors them.
    Yes,
    /// A label keeps Kubernetes from mirroring them.
    No,
}

/// Builds Endpoints that are applied on top of the `existing` ones.
///
/// The version and the UID of the existing ones are part of it: the API refuses the version if they
/// have changed, and the UID if they are gone, because an apply would otherwise create them again.
/// No members means no subsets: the API refuses a subset without an address.
pub fn build(
    existing: &ObjectMeta,
    members: &Members,
    ports: &[EndpointPort],
    mirror: Mirror,
) -> Endpoints {
    let mut labels = BTreeMap::from([(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned())]);
    if mirror == Mirror::No {
        labels.insert(SKIP_MIRROR.to_owned(), "true".to_owned());
    }
    let metadata = ObjectMeta {
        name: existing.name.clone(),
        namespace: existing.namespace.clone(),
        uid: existing.uid.clone(),
        resource_version: existing.resource_version.clone(),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    Endpoints { metadata, subsets: Some(subsets(members, ports)) }
}

/// Builds Endpoints that have nothing but their name, which are applied to create them. Applied to
/// Endpoints that someone else has created meanwhile, they change nothing.
pub fn placeholder(namespace: &str, name: &str) -> Endpoints {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    Endpoints { metadata, subsets: None }
}

/// Returns whether these Endpoints are a placeholder that nobody has changed.
pub fn is_placeholder(endpoints: &Endpoints) -> bool {
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
    vec![EndpointSubset {
        addresses: Some(addresses),
        ports: Some(ports.to_vec()),
        not_ready_addresses: None,
    }]
}

/// Returns the ready addresses of Endpoints. An address that is no IP is left out.
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

/// Returns whether Endpoints have exactly these members on these ports under the daemon's label, so
/// that a write would change nothing.
pub fn matches(
    endpoints: &Endpoints,
    wanted: &Members,
    ports: &[EndpointPort],
    mirror: Mirror,
) -> bool {
    let mirror = match mirror {
        // A label that someone else has set is theirs to remove.
        Mirror::Yes => !we_set_skip_mirror(endpoints),
        Mirror::No => skips_mirror(endpoints),
    };
    mirror
        && managed_by(endpoints) == Some(FIELD_MANAGER)
        && subsets_of(endpoints) == subsets(wanted, ports).as_slice()
}

/// Returns whether Endpoints send clients to exactly these members on these ports, however they are
/// written: in any order, and in any number of subsets.
pub fn serves(endpoints: &Endpoints, wanted: &Members, ports: &[EndpointPort]) -> bool {
    served(subsets_of(endpoints)) == served(&subsets(wanted, ports))
}

/// An address with its DNS label, and a port with its name and protocol. Without any port, DNS
/// still sends the clients of a headless Service to the address.
type Served<'a> = (&'a str, Option<&'a str>, Option<(Option<&'a str>, i32, &'a str)>);

fn served(subsets: &[EndpointSubset]) -> BTreeSet<Served<'_>> {
    let mut served = BTreeSet::new();
    for subset in subsets {
        for address in subset.addresses.iter().flatten() {
            let label = address.hostname.as_deref().filter(|label| !label.is_empty());
            let ports = subset.ports.as_deref().unwrap_or_default();
            if ports.is_empty() {
                served.insert((&*address.ip, label, None));
            }
            served.extend(ports.iter().map(|port| {
                let name = port.name.as_deref().filter(|name| !name.is_empty());
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                (&*address.ip, label, Some((name, port.port, protocol)))
            }));
        }
    }
    served
}

/// Returns whether Endpoints, as stored, have all fields that were `sent`.
pub fn matches_sent(endpoints: &Endpoints, sent: &Endpoints) -> bool {
    managed_by(endpoints) == managed_by(sent)
        && subsets_of(endpoints) == subsets_of(sent)
        && (skips_mirror(endpoints) || !skips_mirror(sent))
}

/// Returns whether Endpoints have the label against mirroring.
pub fn skips_mirror(endpoints: &Endpoints) -> bool {
    let label = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR));
    label.is_some_and(|label| label == "true")
}

/// Returns whether the daemon has set the label against mirroring.
pub fn we_set_skip_mirror(endpoints: &Endpoints) -> bool {
    skips_mirror(endpoints)
        && endpoints.metadata.managed_fields.iter().flatten().any(is_our_skip_mirror)
}

/// Returns whether an entry of the managed fields records that the daemon has applied the label
/// against mirroring.
pub fn is_our_skip_mirror(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:labels"]);
    is_our_apply(entry)
        && fields.is_some_and(|labels| labels.get(format!("f:{SKIP_MIRROR}")).is_some())
}

/// Returns whether the daemon has applied any field of an object.
pub fn applied_by_us(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(is_our_apply)
}

fn is_our_apply(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
}

/// Returns the subsets. The API returns no list where it was given an empty one.
fn subsets_of(endpoints: &Endpoints) -> &[EndpointSubset] {
    endpoints.subsets.as_deref().unwrap_or_default()
}

/// Returns the manager that the label names.
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
        let json = serde_json::to_value(build(
            &placeholder("prod", "orders").metadata,
            &Members::default(),
            &ports(),
            Mirror::Yes,
        ))
        .unwrap();
        assert_eq!(json["subsets"], serde_json::json!([]));
    }

    #[test]
    fn a_placeholder_has_neither_subsets_nor_labels() {
        let blank = placeholder("prod", "orders");
        let json = serde_json::to_value(&blank).unwrap();
        assert_eq!((json.get("subsets"), json["metadata"].get("labels")), (None, None));
        assert!(is_placeholder(&blank));
        assert!(!is_placeholder(&build(
            &blank.metadata,
            &Members::default(),
            &ports(),
            Mirror::Yes
        )));
    }

    #[test]
    fn endpoints_that_differ_in_any_field_do_not_match() {
        let wanted: Members = [member("198.51.100.1".parse().unwrap())].into_iter().collect();
        let ours = build(&placeholder("prod", "orders").metadata, &wanted, &ports(), Mirror::Yes);
        assert!(matches(&ours, &wanted, &ports(), Mirror::Yes));

        let mut unready = ours.clone();
        unready.subsets.as_mut().unwrap()[0].not_ready_addresses =
            Some(vec![EndpointAddress { ip: "198.51.100.9".into(), ..Default::default() }]);
        assert!(!matches(&unready, &wanted, &ports(), Mirror::Yes));

        let mut unlabelled = ours.clone();
        unlabelled.metadata.labels = None;
        assert!(!matches(&unlabelled, &wanted, &ports(), Mirror::Yes));

        assert!(!matches(&ours, &wanted, &ports()[..1], Mirror::Yes));
        assert!(!matches(&ours, &Members::default(), &ports(), Mirror::Yes));
    }

    #[test]
    fn the_label_against_mirroring_is_removed_if_it_is_ours() {
        let wanted: Members = [member("198.51.100.1".parse().unwrap())].into_iter().collect();
        let write =
            |mirror| build(&placeholder("prod", "orders").metadata, &wanted, &ports(), mirror);
        let (mirrored, mut skipped) = (write(Mirror::Yes), write(Mirror::No));
        assert!(
            matches(&skipped, &wanted, &ports(), Mirror::No)
                && !matches(&mirrored, &wanted, &ports(), Mirror::No)
        );
        assert!(!matches_sent(&mirrored, &skipped) && matches_sent(&skipped, &mirrored));
        assert!(matches(&skipped, &wanted, &ports(), Mirror::Yes), "someone else's label");
        let ours = |label: &str| {
            let fields =
                serde_json::json!({"f:metadata": {"f:labels": {(format!("f:{label}")): {}}}});
            let entry = serde_json::json!({
                "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields,
            });
            Some(vec![serde_json::from_value(entry).unwrap()])
        };
        skipped.metadata.managed_fields = ours(MANAGED_BY);
        assert!(matches(&skipped, &wanted, &ports(), Mirror::Yes));
        skipped.metadata.managed_fields = ours(SKIP_MIRROR);
        assert!(!matches(&skipped, &wanted, &ports(), Mirror::Yes));
    }

    proptest! {
        #[test]
        fn members_survive_the_round_trip(
            ips in prop::collection::vec(any::<[u8; 4]>(), 0..20),
            six in prop::collection::vec(any::<[u8; 16]>(), 0..5),
        ) {
            let all = ips.into_iter().map(IpAddr::from).chain(six.into_iter().map(IpAddr::from));
            let wanted: Members = all.map(member).collect();
            let existing = placeholder("prod", "orders").metadata;
            let written = build(&existing, &wanted, &ports(), Mirror::Yes);
            prop_assert_eq!(&members(&written), &wanted);
            prop_assert!(matches(&written, &wanted, &ports(), Mirror::Yes));
        }
    }
}
