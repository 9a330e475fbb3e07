//! The way of members into EndpointSlices and back.

use k8s_openapi::api::core::v1::ServiceSpec;
use proptest::prelude::*;

use super::*;

fn service(families: &[&str], cluster_ip: &str) -> Service {
    let mut service = Service::default();
    service.metadata.name = Some("orders".into());
    service.metadata.uid = Some("service-1".into());
    service.spec = Some(ServiceSpec {
        cluster_ip: Some(cluster_ip.into()),
        ip_families: Some(families.iter().map(|family| (*family).to_owned()).collect()),
        ..ServiceSpec::default()
    });
    service
}

fn ports() -> Vec<CorePort> {
    vec![CorePort { name: None, port: 5432, protocol: Some("TCP".into()), app_protocol: None }]
}

fn member(ip: &str) -> Member {
    Member { ip: ip.parse().unwrap(), hostname: None }
}

fn slices(service: &Service, members: &Members, held: &[EndpointSlice]) -> Vec<EndpointSlice> {
    let zones = BTreeMap::from([("198.51.100.2".parse().unwrap(), "dc-west")]);
    let ports = ports();
    let held = held.iter().map(|slice| (slice.metadata.name.as_deref().unwrap(), slice)).collect();
    SliceTemplate { namespace: "prod", service, families: families(service), ports: &ports, zones }
        .slices(members, &held)
}

fn names(slices: &[EndpointSlice]) -> Vec<&str> {
    slices.iter().map(|slice| slice.metadata.name.as_deref().unwrap()).collect()
}

#[test]
fn a_slice_says_all_that_its_readers_ask_for() {
    let hostname = Some("pg-1".to_owned());
    let members = [member("198.51.100.1"), Member { hostname, ..member("198.51.100.2") }]
        .into_iter()
        .collect();
    let slices = slices(&service(&["IPv4"], "None"), &members, &[]);
    let conditions = serde_json::json!({"ready": true, "serving": true});
    assert_eq!(
        serde_json::to_value(&slices).unwrap(),
        serde_json::json!([{
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "orders-external-ipv4-1",
                "namespace": "prod",
                "labels": {
                    "kubernetes.io/service-name": "orders",
                    "endpointslice.kubernetes.io/managed-by": "external-endpoints",
                    "service.kubernetes.io/headless": "",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": "orders", "uid": "service-1",
                    "blockOwnerDeletion": false,
                }],
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["198.51.100.1"], "conditions": conditions},
                {
                "addresses": ["198.51.100.2"], "conditions": conditions,
                "hostname": "pg-1", "zone": "dc-west",
            },
            ],
            "ports": [{"name": "", "port": 5432, "protocol": "TCP"}],
        }])
    );
}

#[test]
fn only_the_families_of_the_service_have_slices() {
    let members: Members = [member("198.51.100.1"), member("2001:db8::1")].into_iter().collect();
    let of =
        |families: &[&str]| names(&slices(&service(families, "10.0.0.1"), &members, &[])).join(" ");
    assert_eq!(of(&["IPv6", "IPv4"]), "orders-external-ipv4-1 orders-external-ipv6-1");
    assert_eq!(of(&["IPv4"]), "orders-external-ipv4-1");
    assert_eq!(of(&["IPv6"]), "orders-external-ipv6-1");
    let mut silent = service(&[], "10.0.0.1");
    assert_eq!(families(&silent), IpFamily::BOTH);
    silent.spec = None;
    assert_eq!(families(&silent), IpFamily::BOTH);
    assert_eq!(outside_families(&members, &[IpFamily::V4]).to_string(), "2001:db8::1");
}

#[test]
fn names_lead_back_to_their_service_and_others_do_not() {
    for (name, service) in [
        ("orders-external-ipv4-1", Some("orders")),
        ("orders-external-ipv6-12", Some("orders")),
        ("a-external-ipv4-1-external-ipv6-1", Some("a-external-ipv4-1")),
        ("orders-external-ipv4-24567", None),
        ("orders-external-ipv4-01", None),
        ("orders-external-ipv4-0", None),
        ("orders-external-ipv4-+1", None),
        ("orders-external-ipv4", None),
        ("orders-external-fqdn-1", None),
        ("-external-ipv4-1", None),
        ("orders-x7k2p", None),
    ] {
        assert_eq!(service_by_name(name), service, "{name}");
    }
}

#[test]
fn an_existing_slice_gives_its_version_and_its_uid() {
    let service = service(&["IPv4"], "10.0.0.1");
    let members = [member("198.51.100.1")].into_iter().collect();
    let fresh = slices(&service, &members, &[]);
    let blank = placeholder(&fresh[0]);
    assert!(
        blank.endpoints.is_empty()
            && blank.metadata.owner_references.is_none()
            && is_managed(&blank)
    );
    assert_eq!(
        (blank.metadata.name.as_deref(), blank.address_type.as_str()),
        (Some("orders-external-ipv4-1"), "IPv4")
    );

    let mut there = blank;
    there.metadata.uid = Some("slice-1".into());
    there.metadata.resource_version = Some("7".into());
    let wanted = slices(&service, &members, std::slice::from_ref(&there));
    assert_eq!(wanted[0].metadata.uid.as_deref(), Some("slice-1"));
    assert_eq!(wanted[0].metadata.resource_version.as_deref(), Some("7"));
    assert!(!matches(&there, &wanted[0]));
}

#[test]
fn a_slice_matches_if_all_fields_of_ours_do() {
    let members = [member("198.51.100.1")].into_iter().collect();
    let wanted = slices(&service(&["IPv4"], "10.0.0.1"), &members, &[]).remove(0);
    let with = |change: fn(&mut EndpointSlice)| {
        let mut slice = wanted.clone();
        change(&mut slice);
        matches(&slice, &wanted)
    };
    assert!(with(|_| ()));
    assert!(with(|slice| {
        slice.metadata.labels.as_mut().unwrap().insert("team".into(), "orders".into());
        let other =
            OwnerReference { kind: "Team".into(), uid: "x".into(), ..OwnerReference::default() };
        slice.metadata.owner_references.as_mut().unwrap().push(other);
    }));
    assert!(!with(|slice| drop(slice.metadata.labels.as_mut().unwrap().remove(SERVICE_NAME))));
    assert!(!with(
        |slice| slice.metadata.owner_references.as_mut().unwrap()[0].uid = "service-0".into()
    ));
    assert!(!with(|slice| slice.metadata.owner_references = None));
    assert!(!with(|slice| slice.ports.as_mut().unwrap()[0].name = Some("other".into())));
    assert!(!with(|slice| slice.endpoints[0].conditions = None));
    assert!(!with(|slice| slice.endpoints.clear()));
}

#[test]
fn members_are_the_ready_ones() {
    let mut slice = slices(
        &service(&["IPv4"], "10.0.0.1"),
        &["198.51.100.1", "198.51.100.2", "198.51.100.3"].map(member).into_iter().collect(),
        &[],
    )
    .remove(0);
    slice.endpoints[0].conditions =
        Some(EndpointConditions { ready: Some(false), ..EndpointConditions::default() });
    slice.endpoints[1].conditions = None;
    slice.endpoints[2].addresses = vec!["db.example".into()];
    assert_eq!(ready_members(&slice).collect::<Members>().to_string(), "198.51.100.2");
}

#[test]
fn a_slice_without_its_label_is_ours_and_a_relabelled_one_not() {
    let mut slice = EndpointSlice::default();
    assert!(!is_managed(&slice));
    slice.metadata.managed_fields = Some(vec![
        serde_json::from_value(
            serde_json::json!({"manager": "external-endpoints", "operation": "Apply"}),
        )
        .unwrap(),
    ]);
    assert!(is_managed(&slice));
    slice.metadata.labels = Some(BTreeMap::from([(MANAGED_BY.to_owned(), "someone".to_owned())]));
    assert!(!is_managed(&slice));
}

proptest! {
    #[test]
    fn members_survive_the_round_trip_and_digests_tell_sets_apart(
        four in prop::collection::btree_set(any::<[u8; 4]>(), 0..250),
        six in prop::collection::btree_set(any::<[u8; 16]>(), 0..150),
    ) {
        let six_ips = || six.iter().map(|ip| IpAddr::from(*ip));
        let all = || four.iter().map(|ip| IpAddr::from(*ip)).chain(six_ips());
        let members: Members = all().map(|ip| Member { ip, hostname: None }).collect();
        let service = service(&["IPv4", "IPv6"], "10.0.0.1");
        let slices = slices(&service, &members, &[]);
        prop_assert_eq!(&slices.iter().flat_map(ready_members).collect::<Members>(), &members);
        let digest: Digest = slices.iter().map(|slice| ips(slice).collect::<Digest>()).sum();
        prop_assert_eq!(digest, all().collect::<Digest>());
        if let Some(first) = all().next() {
            prop_assert_ne!(digest, all().skip(1).collect::<Digest>());
            prop_assert_ne!(digest, all().chain([first]).collect::<Digest>());
        }
    }
}
