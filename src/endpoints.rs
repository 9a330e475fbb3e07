//! Members to and from the values the API holds: builds Endpoints, reads members back, and says whether the two agree. Pure.
//! `endpoint_slices` does the same for EndpointSlices, which `fill` says who stands in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::plan::{Member, Members};

mod packing;
pub mod slices;

/// The label that says whose Endpoints these are, and its value for ours.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const FIELD_MANAGER: &str = "external-endpoints";

/// The label by which Endpoints ask Kubernetes not to mirror them into EndpointSlices.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Whether Kubernetes shall mirror Endpoints into EndpointSlices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirror {
    Yes,
    No,
}

/// Endpoints in full as they shall be applied on top of those that are `held`.
///
/// The held ones' version and UID go along: the version is refused if they have changed, and the UID if they are gone,
/// which an apply would otherwise take as a wish to create them. No members means no subsets: the API refuses a subset
/// without an address.
pub fn build(
    held: &ObjectMeta,
    members: &Members,
    ports: &[EndpointPort],
    mirror: Mirror,
) -> Endpoints {
    let mut labels = BTreeMap::from([(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned())]);
    if mirror == Mirror::No {
        labels.insert(SKIP_MIRROR.to_owned(), "true".to_owned());
    }
    let metadata = ObjectMeta {
        name: held.name.clone(),
        namespace: held.namespace.clone(),
        uid: held.uid.clone(),
        resource_version: held.resource_version.clone(),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    Endpoints { metadata, subsets: Some(subsets(members, ports)) }
}

/// Endpoints that say nothing but their name: what is applied to create them. Applied to Endpoints that someone else has
/// created meanwhile, it changes nothing.
pub fn placeholder(namespace: &str, name: &str) -> Endpoints {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    Endpoints { metadata, subsets: None }
}

/// Whether nobody has said anything in these Endpoints yet.
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
pub fn matches(
    endpoints: &Endpoints,
    wanted: &Members,
    ports: &[EndpointPort],
    mirror: Mirror,
) -> bool {
    let mirror = match mirror {
        // A label of someone else's is theirs to take away.
        Mirror::Yes => !we_set_skip_mirror(endpoints),
        Mirror::No => skips_mirror(endpoints),
    };
    mirror
        && managed_by(endpoints) == Some(FIELD_MANAGER)
        && subsets_of(endpoints) == subsets(wanted, ports).as_slice()
}

/// Whether Endpoints say all that was `sent`.
pub fn matches_sent(endpoints: &Endpoints, sent: &Endpoints) -> bool {
    managed_by(endpoints) == managed_by(sent)
        && subsets_of(endpoints) == subsets_of(sent)
        && (skips_mirror(endpoints) || !skips_mirror(sent))
}

/// Whether Endpoints ask not to be mirrored.
pub fn skips_mirror(endpoints: &Endpoints) -> bool {
    let label = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR));
    label.is_some_and(|label| label == "true")
}

/// Whether it was us who asked.
pub fn we_set_skip_mirror(endpoints: &Endpoints) -> bool {
    skips_mirror(endpoints)
        && endpoints.metadata.managed_fields.iter().flatten().any(is_our_skip_mirror)
}

/// Whether an entry records that we have applied the label against mirroring.
pub fn is_our_skip_mirror(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:labels"]);
    is_our_apply(entry)
        && fields.is_some_and(|labels| labels.get(format!("f:{SKIP_MIRROR}")).is_some())
}

/// Whether any of an object is as we have applied it.
pub fn applied_by_us(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(is_our_apply)
}

fn is_our_apply(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
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
    fn blank_endpoints_name_neither_subsets_nor_labels() {
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
    fn an_address_of_another_shape_is_not_what_we_hold() {
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
    fn the_label_against_mirroring_is_taken_away_if_it_is_ours() {
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
            let entry = serde_json::json!({"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields});
            Some(vec![serde_json::from_value(entry).unwrap()])
        };
        skipped.metadata.managed_fields = ours(MANAGED_BY);
        assert!(matches(&skipped, &wanted, &ports(), Mirror::Yes));
        skipped.metadata.managed_fields = ours(SKIP_MIRROR);
        assert!(!matches(&skipped, &wanted, &ports(), Mirror::Yes));
    }

    proptest! {
        #[test]
        fn members_survive_the_way_there_and_back(ips in prop::collection::vec(any::<[u8; 4]>(), 0..20), six in prop::collection::vec(any::<[u8; 16]>(), 0..5)) {
            let all = ips.into_iter().map(IpAddr::from).chain(six.into_iter().map(IpAddr::from));
            let wanted: Members = all.map(member).collect();
            let written = build(&placeholder("prod", "orders").metadata, &wanted, &ports(), Mirror::Yes);
            prop_assert_eq!(&members(&written), &wanted);
            prop_assert!(matches(&written, &wanted, &ports(), Mirror::Yes));
        }
    }
}
