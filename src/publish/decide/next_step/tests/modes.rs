//! The truth table of slices: those that are created, written and deleted, and in which order, in
//! each mode and between the modes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::fixture::{Cluster, EPOCH, database, known, selecting};
use super::*;
use crate::config::CreateService;
use crate::endpoints::slices::{self, SliceManager};
use crate::publish::cache::object::Store;
use crate::publish::decide::serving;

const ONE: &str = "198.51.100.1";

#[test]
fn slices_are_created_blank_then_written_and_then_left_alone() {
    let mut cluster = Cluster::new();
    let said = cluster.settle(PublishMode::Slices, &publish(&[1]));
    assert_eq!(said, ["mysql-external-ipv4-1 none", &format!("mysql-external-ipv4-1 {ONE}")]);
    assert_eq!(cluster.next_step(&database(PublishMode::Slices), &publish(&[1])), Step::InSync);
    let Step::WriteSlice(slice) =
        cluster.next_step(&database(PublishMode::Slices), &publish(&[1, 2]))
    else {
        panic!("not written")
    };
    assert_eq!(
        slice.metadata.resource_version.as_deref(),
        Some("12"),
        "on the version that was seen"
    );
    assert_eq!(slice.metadata.uid.as_deref(), Some("uid"));
}

#[test]
fn a_family_without_an_address_gets_no_slice_and_a_zone_is_told() {
    let mut cluster = Cluster::new();
    cluster.service.as_mut().unwrap().spec.as_mut().unwrap().ip_families = None;
    let said = cluster.settle(PublishMode::Slices, &publish(&[1]));
    assert_eq!(said, ["mysql-external-ipv4-1 none", &format!("mysql-external-ipv4-1 {ONE}")]);
    let mut database = database(PublishMode::Slices);
    database.addresses[0].zone = Some("here".into());
    let Step::WriteSlice(slice) = cluster.next_step(&database, &publish(&[1])) else {
        panic!("not written")
    };
    assert_eq!(slice.endpoints[0].zone.as_deref(), Some("here"));
}

#[test]
fn a_dead_member_leaves_before_others_come() {
    let mut cluster = Cluster::new();
    let (full, more): (Vec<u8>, Vec<u8>) = ((1..=100).collect(), (2..=102).collect());
    cluster.settle(PublishMode::Slices, &publish(&full));
    let step = cluster.next_step(&database(PublishMode::Slices), &publish(&more));
    let Step::WriteSlice(slice) = &step else { panic!("{step:?}") };
    assert!(slices::ready_members(slice).all(|member| member.ip.to_string() != ONE));
    cluster.take(step);
    let step = cluster.next_step(&database(PublishMode::Slices), &publish(&more));
    assert_eq!(cluster.take(step), "mysql-external-ipv4-2 none");
}

#[test]
fn from_endpoints_to_slices_the_slices_come_first() {
    let mut cluster = Cluster::new();
    cluster.settle(PublishMode::Endpoints, &publish(&[1]));
    cluster.mirror();
    let said = cluster.settle(PublishMode::Slices, &publish(&[1]));
    let expected = [
        "mysql-external-ipv4-1 none",
        &format!("mysql-external-ipv4-1 {ONE}"),
        "endpoints none unmirrored",
    ];
    assert_eq!(said, expected);
}

#[test]
fn back_to_endpoints_slices_are_kept_until_mirrored() {
    let mut cluster = Cluster::new();
    cluster.settle(PublishMode::Slices, &publish(&[1]));
    let said = cluster.settle(PublishMode::Endpoints, &publish(&[1]));
    assert_eq!(said, ["endpoints none mirrored", &format!("endpoints {ONE} mirrored")]);
    assert_eq!(cluster.served(), [ONE], "slices stay");
    // Kubernetes takes its time, and the address dies.
    let said = cluster.settle(PublishMode::Endpoints, &publish(&[2]));
    assert_eq!(said, ["mysql-external-ipv4-1 198.51.100.2", "endpoints 198.51.100.2 mirrored"]);
    cluster.mirror();
    assert_eq!(
        cluster.settle(PublishMode::Endpoints, &publish(&[2])),
        ["delete mysql-external-ipv4-1"]
    );
    assert_eq!(cluster.served(), ["1 mirrored"]);
}

#[test]
fn no_way_between_modes_has_a_moment_without_an_address() {
    let modes = [PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both];
    for from in modes {
        for to in modes {
            for slow in [false, true] {
                let mut cluster = Cluster::new();
                cluster.settle(from, &publish(&[1]));
                cluster.mirror();
                cluster.settle(from, &publish(&[1]));
                for _ in 0..20 {
                    assert!(!cluster.served().is_empty(), "{from:?} to {to:?}");
                    let step = cluster.next_step(&database(to), &publish(&[1]));
                    let said = cluster.take(step);
                    if !slow || said == "hold" {
                        cluster.mirror();
                    }
                }
                let served = if to == PublishMode::Endpoints { "1 mirrored" } else { ONE };
                assert_eq!(cluster.served(), [served], "{from:?} to {to:?}");
                let skips = cluster.endpoints.as_ref().is_some_and(endpoints::skips_mirror);
                assert_eq!(
                    skips,
                    to != PublishMode::Endpoints
                        && (from, to) != (PublishMode::Slices, PublishMode::Slices)
                );
            }
        }
    }
}

#[test]
fn a_dead_member_leaves_a_surplus_slice_at_once() {
    for mode in [PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both] {
        let mut cluster = Cluster::new();
        cluster.settle(PublishMode::Slices, &publish(&[1]));
        let mut second = cluster.slices.named()["mysql-external-ipv4-1"].clone();
        second.metadata.name = Some("mysql-external-ipv4-2".into());
        second.endpoints[0].addresses = vec!["198.51.100.9".into()];
        cluster.take(Step::WriteSlice(Box::new(second)));
        let step = cluster.next_step(&database(mode), &publish(&[1]));
        assert_eq!(cluster.take(step), "mysql-external-ipv4-2 none", "{mode:?}");
        cluster.settle(mode, &publish(&[1]));
        cluster.mirror();
        cluster.settle(mode, &publish(&[1]));
        assert!(!cluster.slices.named().contains_key("mysql-external-ipv4-2"), "{mode:?}");
    }
}

#[test]
fn a_slice_of_someone_else_holds_up_none_of_ours() {
    let mut cluster = Cluster::new();
    cluster.settle(PublishMode::Slices, &publish(&[1]));
    let mut second = cluster.slices.named()["mysql-external-ipv4-1"].clone();
    second.metadata.name = Some("mysql-external-ipv4-2".into());
    second.endpoints[0].addresses = vec!["198.51.100.2".into()];
    cluster.take(Step::WriteSlice(Box::new(second)));
    let mut first = cluster.slices.named()["mysql-external-ipv4-1"].clone();
    first
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("endpointslice.kubernetes.io/managed-by".into(), "someone".into());
    cluster.take(Step::WriteSlice(Box::new(first)));
    let step = cluster.next_step(&database(PublishMode::Slices), &publish(&[1]));
    assert_eq!(cluster.take(step), format!("mysql-external-ipv4-2 {ONE}"));
    assert_eq!(
        waits(cluster.next_step(&database(PublishMode::Slices), &publish(&[1]))).0,
        ConditionKind::NotOurs
    );
}

#[test]
fn on_the_way_from_slices_these_are_serving() {
    let mut cluster = Cluster::new();
    cluster.settle(PublishMode::Slices, &publish(&[1]));
    assert_eq!(serving::serving(PublishMode::Endpoints, None, &cluster.slices), members(&[1]));
    let empty = ours(&[]);
    assert_eq!(
        serving::serving(PublishMode::Endpoints, Some(&empty), &cluster.slices),
        members(&[1])
    );
    assert_eq!(
        serving::serving(PublishMode::Endpoints, Some(&ours(&[2])), &cluster.slices),
        members(&[2])
    );
}

#[test]
fn both_keeps_endpoints_with_the_members() {
    let mut cluster = Cluster::new();
    let said = cluster.settle(PublishMode::Both, &publish(&[1]));
    assert_eq!(
        said[2..],
        ["endpoints none mirrored".to_owned(), format!("endpoints {ONE} unmirrored")]
    );
}

#[test]
fn a_selector_has_only_our_slices_deleted() {
    for mode in [PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both] {
        let mut cluster = Cluster::new();
        cluster.settle(PublishMode::Slices, &publish(&[1]));
        cluster.others("endpointslice-controller.k8s.io", &members(&[9]));
        cluster.service = Some(selecting());
        assert_eq!(cluster.settle(mode, &publish(&[1, 2])), ["delete mysql-external-ipv4-1"]);
        let (kind, _) = waits(cluster.next_step(&database(mode), &publish(&[1])));
        assert_eq!(kind, ConditionKind::ServiceHasSelector);
        assert_eq!(cluster.slices.serving_digest(SliceManager::SliceController).count, 1);
    }
}

#[test]
fn a_service_created_again_is_the_new_owner() {
    let mut cluster = Cluster::new();
    cluster.settle(PublishMode::Slices, &publish(&[1]));
    cluster.service = None;
    let (kind, _) = waits(cluster.next_step(&database(PublishMode::Slices), &publish(&[1])));
    assert_eq!(kind, ConditionKind::WaitingForService);
    let mut again = known();
    again.metadata.uid = Some("service-2".into());
    cluster.service = Some(again);
    let Step::WriteSlice(slice) = cluster.next_step(&database(PublishMode::Slices), &publish(&[1]))
    else {
        panic!("not written")
    };
    assert_eq!(slice.metadata.owner_references.unwrap()[0].uid, "service-2");
}

#[test]
fn a_family_that_the_service_loses_has_its_slice_deleted_last() {
    let mut cluster = Cluster::new();
    let mut database = database(PublishMode::Slices);
    let six = crate::config::Address {
        ip: "2001:db8::1".parse().unwrap(),
        ..database.addresses[0].clone()
    };
    database.addresses.push(six);
    let settle = |cluster: &mut Cluster, plan: &Plan| {
        let steps = (0..6).map(|_| {
            let step = cluster.next_step(&database, plan);
            cluster.take(step)
        });
        steps.take_while(|said| said != "hold").collect::<Vec<_>>()
    };
    cluster.service.as_mut().unwrap().spec.as_mut().unwrap().ip_families = None;
    settle(&mut cluster, &publish(&[1]));
    assert_eq!(cluster.slices.named().len(), 2);
    cluster.service = Some(known());
    let said = settle(&mut cluster, &publish(&[2]));
    assert_eq!(said, ["mysql-external-ipv4-1 198.51.100.2", "delete mysql-external-ipv6-1"]);
}

#[test]
fn a_foreign_or_dying_slice_of_our_name_is_left_alone() {
    let slice = |metadata: serde_json::Value| {
        let mut slice: EndpointSlice = serde_json::from_value(
            json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []}),
        )
        .unwrap();
        slice.metadata.name = Some("mysql-external-ipv4-1".into());
        slice
    };
    let labels = json!({
        "kubernetes.io/service-name": "mysql",
        "endpointslice.kubernetes.io/managed-by": "someone",
    });
    let mut dying = slice(json!({}));
    dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    for (theirs, kind, words) in [
        (slice(json!({"labels": labels})), ConditionKind::NotOurs, "belongs to someone; delete it"),
        (slice(json!({})), ConditionKind::NotOurs, "was written by someone else; delete it"),
        (dying, ConditionKind::WaitingForService, "is being deleted"),
    ] {
        let mut cluster = Cluster::new();
        cluster.slices.apply(theirs, EPOCH);
        let (found, reason) =
            waits(cluster.next_step(&database(PublishMode::Slices), &publish(&[1])));
        assert_eq!(found, kind);
        assert!(reason.ends_with(words), "{reason}");
        cluster.service = Some(selecting());
        let (found, _) = waits(cluster.next_step(&database(PublishMode::Slices), &publish(&[1])));
        assert_eq!(found, ConditionKind::ServiceHasSelector);
    }
}

#[test]
fn foreign_endpoints_block_slices_only_if_they_serve() {
    let mut cluster = Cluster::new();
    for (last, skip, allowed) in [(&[9][..], false, false), (&[9], true, true), (&[], false, true)]
    {
        let mut foreign = theirs(last, Some("someone"));
        if skip {
            foreign
                .metadata
                .labels
                .as_mut()
                .unwrap()
                .insert(endpoints::SKIP_MIRROR.into(), "true".into());
        }
        cluster.endpoints = Some(foreign.clone());
        match cluster.next_step(&database(PublishMode::Slices), &publish(&[1])) {
            Step::CreateSlice(_) => assert!(allowed),
            step => assert!(!allowed && waits(step).0 == ConditionKind::NotOurs),
        }
        let mut settled = cluster.clone();
        settled.settle(PublishMode::Slices, &publish(&[1]));
        assert_eq!(settled.endpoints, Some(foreign), "never written");
        assert_eq!(
            waits(cluster.next_step(&database(PublishMode::Both), &publish(&[1]))).0,
            ConditionKind::NotOurs
        );
    }
    let adopting = Database { adopt: true, ..database(PublishMode::Slices) };
    cluster.endpoints = Some(ours(&[9]));
    cluster.settle(PublishMode::Slices, &publish(&[1]));
    cluster.endpoints = Some(theirs(&[9], Some("someone")));
    let Step::Write(emptied) = cluster.next_step(&adopting, &publish(&[1])) else {
        panic!("not emptied")
    };
    assert!(endpoints::skips_mirror(&emptied) && endpoints::members(&emptied).is_empty());
}

#[test]
fn slices_of_pods_are_told_beside_endpoints_of_others() {
    for mode in [PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both] {
        let mut cluster = Cluster::new();
        cluster.settle(PublishMode::Slices, &publish(&[1]));
        for settled in [cluster, Cluster::new()] {
            let mut cluster = settled;
            cluster.endpoints = Some(theirs(&[9], Some("someone")));
            let (_, reason) = waits(cluster.next_step(&database(mode), &publish(&[1])));
            assert!(!reason.contains("delete endpointslices"), "{mode:?}: {reason}");
            cluster.others("endpointslice-controller.k8s.io", &members(&[9]));
            let (kind, reason) = waits(cluster.next_step(&database(mode), &publish(&[1])));
            assert_eq!(kind, ConditionKind::NotOurs, "{mode:?}");
            assert!(
                reason.contains("adopt: true") && reason.contains("delete endpointslices"),
                "{mode:?}: {reason}"
            );
        }
    }
}

#[test]
fn existing_slices_are_kept_up_to_date_beside_foreign_endpoints() {
    for mode in [PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both] {
        let mut cluster = Cluster::new();
        cluster.settle(PublishMode::Slices, &publish(&[1, 2]));
        let foreign = theirs(&[9], Some("someone"));
        cluster.endpoints = Some(foreign.clone());
        cluster.mirror();
        assert_eq!(cluster.settle(mode, &publish(&[1])), [format!("mysql-external-ipv4-1 {ONE}")]);
        assert_eq!(
            waits(cluster.next_step(&database(mode), &publish(&[1]))).0,
            ConditionKind::NotOurs
        );
        assert_eq!(cluster.endpoints, Some(foreign));
    }
}

#[test]
fn an_undecided_plan_writes_no_slice() {
    let cluster = Cluster::new();
    let plan = Plan::Keep(crate::plan::KeepReason::NoVerdictYet(vec![[198, 51, 100, 1].into()]));
    let (kind, _) = waits(cluster.next_step(&database(PublishMode::Slices), &plan));
    assert_eq!(kind, ConditionKind::WaitingForVerdicts);
}

#[test]
fn a_missing_service_is_created_and_an_existing_one_kept() {
    for headless in [false, true] {
        let asked = Database {
            create_service: Some(CreateService { headless }),
            ..database(PublishMode::Slices)
        };
        let mut cluster = Cluster::new();
        cluster.service = None;
        let Step::CreateService(service) = cluster.next_step(&asked, &publish(&[])) else {
            panic!("not created")
        };
        let cluster_ip = if headless { json!("None") } else { json!(null) };
        let json = serde_json::to_value(&service).unwrap();
        assert_eq!(json["spec"]["clusterIP"], cluster_ip);
        assert_eq!(json["spec"]["selector"], json!(null));
        assert_eq!(
            json["spec"]["ports"],
            json!([{"port": 3306, "targetPort": 3306, "protocol": "TCP"}])
        );
        assert_eq!(
            json["metadata"]["labels"],
            json!({"app.kubernetes.io/managed-by": "external-endpoints"})
        );

        let mut dying = known();
        dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        cluster.service = Some(dying);
        assert_eq!(
            waits(cluster.next_step(&asked, &publish(&[]))).0,
            ConditionKind::WaitingForService
        );
        cluster.service = Some(selecting());
        assert_eq!(
            waits(cluster.next_step(&asked, &publish(&[]))).0,
            ConditionKind::ServiceHasSelector
        );
    }
}
