//! The truth table of what may be written, a row a test.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointPort, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::config::{
    self, Address, AllowedNetworks, Check, CheckKind, Database, DatabaseId, Options, Port,
    Protocol, PublishMode, TcpCheck,
};
use crate::endpoints::Mirror;
use crate::health::Thresholds;
use crate::plan::Plan;
use crate::plan::{KeepReason, Member, Members, Policy};
use crate::publish::cache::observed::Existing;
use crate::publish::cache::slices::SliceCache;
use crate::publish::cache::watch_state::WatchSnapshot;
use crate::publish::ownership::LEADER_ANNOTATIONS;

mod fixture;
mod modes;
mod one;
mod waiting;

pub(crate) fn database(adopt: bool) -> Database {
    let check = Check {
        kind: CheckKind::Tcp(TcpCheck {
            port: 3306,
            tls: None,
            send: None,
            expect: None,
            accept: false,
        }),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        recheck_interval: Duration::from_secs(1),
        thresholds: Thresholds { healthy: 2, unhealthy: 3 },
    };
    Database {
        id: DatabaseId { namespace: "prod".into(), service: "mysql".into() },
        ports: vec![Port { name: None, number: 3306, protocol: Protocol::Tcp }],
        addresses: vec![Address {
            ip: [198, 51, 100, 1].into(),
            hostname: None,
            name: None,
            zone: None,
            priority: 0,
            maintenance: None,
            check: Arc::new(check),
        }],
        rejected: Vec::new(),
        allowed_networks: AllowedNetworks::default(),
        policy: Policy::default(),
        publish: PublishMode::Endpoints,
        names: Arc::default(),
        refused_answers: Arc::default(),
        create_service: None,
        adopt,
    }
}

/// Creates the inputs of a decision where all objects have been listed.
pub(crate) fn inputs(
    database: &Database,
    plan: &Plan,
    endpoints: Option<&Endpoints>,
    slices: Arc<SliceCache>,
    may_answer: &[IpAddr],
) -> Inputs {
    let synced = || WatchSnapshot { synced: true, ..WatchSnapshot::default() };
    let existing = Existing {
        service: None,
        endpoints: endpoints.cloned().map(Arc::new),
        slices,
        watches: [synced(), synced(), synced()],
    };
    Inputs {
        database: Arc::new(database.clone()),
        plan: plan.clone(),
        may_answer: may_answer.into(),
        existing,
    }
}

/// Decides where there are no slices.
fn next_step(
    database: &Database,
    plan: &Plan,
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    written_uid: Option<&str>,
) -> Step {
    let inputs = inputs(database, plan, endpoints, Arc::default(), &[]);
    super::next_step(&inputs, service, written_uid)
}

pub(crate) fn service() -> Service {
    let port = ServicePort { name: Some("mysql".into()), port: 3306, ..ServicePort::default() };
    Service {
        spec: Some(ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() }),
        ..Service::default()
    }
}

pub(crate) fn members(last: &[u8]) -> Members {
    last.iter().map(|last| Member { ip: [198, 51, 100, *last].into(), hostname: None }).collect()
}

pub(crate) fn publish(last: &[u8]) -> Plan {
    Plan::Publish(members(last))
}

/// Endpoints as we would have written them, at resourceVersion 7.
pub(crate) fn ours(last: &[u8]) -> Endpoints {
    let port = EndpointPort {
        name: Some("mysql".into()),
        port: 3306,
        protocol: Some("TCP".into()),
        app_protocol: None,
    };
    let mut held = endpoints::placeholder("prod", "mysql").metadata;
    held.resource_version = Some("7".into());
    held.uid = Some("uid-1".into());
    endpoints::build(&held, &members(last), &[port], Mirror::Yes)
}

/// Returns the same Endpoints under another label, or none.
pub(crate) fn theirs(last: &[u8], manager: Option<&str>) -> Endpoints {
    let mut endpoints = ours(last);
    endpoints.metadata.labels = manager
        .map(|manager| BTreeMap::from([(endpoints::MANAGED_BY.to_owned(), manager.to_owned())]));
    endpoints
}

fn applied_by(manager: &str, operation: &str) -> Option<Vec<ManagedFieldsEntry>> {
    Some(vec![ManagedFieldsEntry {
        manager: Some(manager.into()),
        operation: Some(operation.into()),
        ..ManagedFieldsEntry::default()
    }])
}

pub(crate) fn waits(step: Step) -> (ConditionKind, String) {
    match step {
        Step::Blocked(condition) => (condition.kind, condition.reason),
        other => panic!("did not wait: {other:?}"),
    }
}

fn writes(step: Step) -> Endpoints {
    match step {
        Step::Write(endpoints) => *endpoints,
        other => panic!("did not write: {other:?}"),
    }
}

#[test]
fn a_step_names_its_object_and_says_if_another_must_fill_it() {
    let endpoints = || Box::new(ours(&[1]));
    let mut slice = EndpointSlice::default();
    slice.metadata.name = Some("mysql-external-ipv4-1".into());
    let slice = || Box::new(slice.clone());
    let mut created = service();
    created.metadata.name = Some("mysql".into());
    let table = [
        (Step::Create(endpoints()), true, Some("mysql")),
        (Step::Write(endpoints()), false, Some("mysql")),
        (Step::CreateSlice(slice()), true, Some("mysql-external-ipv4-1")),
        (Step::WriteSlice(slice()), false, Some("mysql-external-ipv4-1")),
        (Step::DeleteSlice(slice()), false, Some("mysql-external-ipv4-1")),
        (Step::CreateService(Box::new(created)), true, Some("mysql")),
        (Step::Blocked(Condition::new(ConditionKind::NotOurs, "")), false, None),
        (Step::InSync, false, None),
    ];
    for (step, half, object) in table {
        assert_eq!((step.is_placeholder(), step.object_name()), (half, object), "{step:?}");
    }
}

#[test]
fn no_service_is_waited_for_even_if_endpoints_are_there() {
    let (kind, reason) =
        waits(next_step(&database(false), &publish(&[1]), None, Some(&ours(&[])), None));
    assert_eq!(kind, ConditionKind::WaitingForService);
    assert_eq!(reason, "there is no Service prod/mysql; create it, without a selector");

    let mut dying = service();
    dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let (kind, _) = waits(next_step(&database(false), &publish(&[1]), Some(&dying), None, None));
    assert_eq!(kind, ConditionKind::WaitingForService);
}

#[test]
fn services_whose_endpoints_are_not_for_us_to_write() {
    let mut selecting = service();
    selecting.spec.as_mut().unwrap().selector =
        Some(BTreeMap::from([("app".into(), "mysql".into())]));
    let mut external = service();
    external.spec.as_mut().unwrap().type_ = Some("ExternalName".into());
    for (service, expected) in [
        (selecting, ConditionKind::ServiceHasSelector),
        (external, ConditionKind::ServiceIsExternalName),
    ] {
        for adopt in [false, true] {
            let (kind, _) = waits(next_step(
                &database(adopt),
                &publish(&[1]),
                Some(&service),
                Some(&ours(&[])),
                None,
            ));
            assert_eq!(kind, expected);
        }
    }
    let mut kubernetes = database(true);
    kubernetes.id = DatabaseId { namespace: "default".into(), service: "kubernetes".into() };
    let (kind, _) = waits(next_step(&kubernetes, &publish(&[1]), Some(&service()), None, None));
    assert_eq!(kind, ConditionKind::ServiceIsKubernetes);
    for (namespace, name) in [("default", "mysql"), ("prod", "kubernetes")] {
        let mut other = database(false);
        other.id = DatabaseId { namespace: namespace.into(), service: name.into() };
        assert_eq!(
            next_step(&other, &publish(&[1]), Some(&service()), Some(&ours(&[1])), None),
            Step::InSync
        );
    }
}

#[test]
fn an_empty_selector_selects_nothing() {
    let mut service = service();
    service.spec.as_mut().unwrap().selector = Some(BTreeMap::new());
    assert_eq!(
        next_step(&database(false), &publish(&[1]), Some(&service), Some(&ours(&[1])), None),
        Step::InSync
    );
}

#[test]
fn what_is_held_already_is_not_written() {
    assert_eq!(
        next_step(
            &database(false),
            &publish(&[1, 2]),
            Some(&service()),
            Some(&ours(&[1, 2])),
            None
        ),
        Step::InSync
    );
    assert_eq!(
        next_step(&database(false), &publish(&[]), Some(&service()), Some(&ours(&[])), None),
        Step::InSync
    );
}

#[test]
fn a_difference_is_written_on_the_existing_version() {
    let written = writes(next_step(
        &database(false),
        &publish(&[1]),
        Some(&service()),
        Some(&ours(&[1, 2])),
        None,
    ));
    assert_eq!(written.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(written.metadata.uid.as_deref(), Some("uid-1"));
    assert_eq!(endpoints::members(&written), members(&[1]));
    assert_eq!(endpoints::managed_by(&written), Some(endpoints::FIELD_MANAGER));
}

#[test]
fn none_healthy_is_written_as_no_subsets() {
    let written = writes(next_step(
        &database(false),
        &publish(&[]),
        Some(&service()),
        Some(&ours(&[1])),
        None,
    ));
    assert_eq!(written.subsets, Some(Vec::new()));
}

#[test]
fn missing_endpoints_are_created_blank_first() {
    let step = next_step(&database(false), &publish(&[1]), Some(&service()), None, None);
    let Step::Create(blank) = step else { panic!("did not create: {step:?}") };
    assert_eq!((blank.subsets.as_ref(), blank.metadata.labels.as_ref()), (None, None));
    // The blank ones, as the API hands them back, are ours to fill.
    let mut created = *blank;
    created.metadata.resource_version = Some("3".into());
    let written =
        writes(next_step(&database(false), &publish(&[1]), Some(&service()), Some(&created), None));
    assert_eq!(written.metadata.resource_version.as_deref(), Some("3"));
}

#[test]
fn foreign_endpoints_need_adopt() {
    for foreign in [
        theirs(&[9], None),
        theirs(&[9], Some("someone")),
        theirs(&[9], Some("endpoint-controller")),
    ] {
        let (kind, reason) = waits(next_step(
            &database(false),
            &publish(&[1]),
            Some(&service()),
            Some(&foreign),
            None,
        ));
        assert_eq!(kind, ConditionKind::NotOurs);
        assert!(reason.contains("adopt: true"), "{reason}");
        let written = writes(next_step(
            &database(true),
            &publish(&[1]),
            Some(&service()),
            Some(&foreign),
            None,
        ));
        assert_eq!(endpoints::members(&written), members(&[1]));
    }
}

#[test]
fn nothing_is_written_only_to_take_endpoints_over() {
    let step = |foreign: &Endpoints, plan: &[u8]| {
        next_step(&database(true), &publish(plan), Some(&service()), Some(foreign), None)
    };
    for manager in [None, Some("someone")] {
        assert_eq!(step(&theirs(&[1, 2], manager), &[1, 2]), Step::InSync);
        writes(step(&theirs(&[1, 2], manager), &[1]));
    }
    // One subset for each address, in another order, serves the same.
    let mut scattered = theirs(&[2], None);
    scattered.subsets.get_or_insert_default().extend(theirs(&[1], None).subsets.unwrap());
    assert_eq!(step(&scattered, &[1, 2]), Step::InSync);
    // Kubernetes could clean up those that have its label, and ours keep our label.
    writes(step(&theirs(&[1], Some("endpoint-controller")), &[1]));
    let mut unlabelled = theirs(&[1], None);
    unlabelled.metadata.managed_fields = applied_by(endpoints::FIELD_MANAGER, "Apply");
    writes(step(&unlabelled, &[1]));
    let mut other_port = theirs(&[1], None);
    other_port.subsets.as_mut().unwrap()[0].ports.as_mut().unwrap()[0].port = 3307;
    writes(step(&other_port, &[1]));
    // An address without ports still is in the DNS of a headless Service.
    let mut portless = theirs(&[1], None);
    let mut more = theirs(&[9], None).subsets.unwrap();
    more[0].ports = None;
    portless.subsets.get_or_insert_default().extend(more);
    writes(step(&portless, &[1]));
}

#[test]
fn endpoints_of_a_database_with_names_get_the_label_at_once() {
    let config = "databases:
- {service: a, namespace: b, port: 1, addresses: [a.test], check: {tcp: {}}}";
    let parsed = config::parse("test", config, &Options::default()).unwrap().spec;
    let named = Database { names: parsed.databases[0].names.clone(), ..database(true) };
    let foreign = theirs(&[1], None);
    writes(next_step(&named, &publish(&[1]), Some(&service()), Some(&foreign), None));
}

#[test]
fn foreign_endpoints_stay_foreign_even_without_addresses() {
    let mut foreign = theirs(&[], None);
    foreign.metadata.managed_fields = applied_by("kubectl-create", "Update");
    let (kind, _) =
        waits(next_step(&database(false), &publish(&[1]), Some(&service()), Some(&foreign), None));
    assert_eq!(kind, ConditionKind::NotOurs);
}

#[test]
fn endpoints_with_a_leader_annotation_are_never_taken_over() {
    for annotation in LEADER_ANNOTATIONS {
        let mut locked = ours(&[]);
        locked.metadata.annotations =
            Some(BTreeMap::from([(annotation.to_owned(), "x".to_owned())]));
        let (kind, reason) = waits(next_step(
            &database(true),
            &publish(&[1]),
            Some(&service()),
            Some(&locked),
            None,
        ));
        assert_eq!(kind, ConditionKind::NotOurs);
        assert!(reason.contains(annotation), "{reason}");
    }
}

#[test]
fn a_label_that_someone_took_off_is_put_back() {
    let mut unlabelled = theirs(&[1], None);
    unlabelled.metadata.managed_fields = applied_by(endpoints::FIELD_MANAGER, "Apply");
    let written = writes(next_step(
        &database(false),
        &publish(&[1]),
        Some(&service()),
        Some(&unlabelled),
        None,
    ));
    assert_eq!(endpoints::managed_by(&written), Some(endpoints::FIELD_MANAGER));
    let known = theirs(&[1], None);
    writes(next_step(
        &database(false),
        &publish(&[1]),
        Some(&service()),
        Some(&known),
        Some("uid-1"),
    ));
}

#[test]
fn endpoints_are_taken_back_only_if_this_process_wrote_them() {
    let taken = theirs(&[9], Some("endpoint-controller"));
    writes(next_step(
        &database(false),
        &publish(&[1]),
        Some(&service()),
        Some(&taken),
        Some("uid-1"),
    ));
    for written in [None, Some("uid-0")] {
        let (kind, _) = waits(next_step(
            &database(false),
            &publish(&[1]),
            Some(&service()),
            Some(&taken),
            written,
        ));
        assert_eq!(kind, ConditionKind::NotOurs);
    }
    let handed_over = theirs(&[9], Some("someone"));
    let (kind, _) = waits(next_step(
        &database(false),
        &publish(&[1]),
        Some(&service()),
        Some(&handed_over),
        Some("uid-1"),
    ));
    assert_eq!(kind, ConditionKind::NotOurs, "a label with another name is a deliberate act");
}

#[test]
fn endpoints_that_are_being_deleted_are_left_alone() {
    let mut dying = ours(&[1]);
    dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    waits(next_step(&database(false), &publish(&[2]), Some(&service()), Some(&dying), None));
}

#[test]
fn ports_without_a_join_are_reported_and_nothing_is_written() {
    let mut database = database(false);
    database.ports[0].name = Some("postgres".into());
    let (kind, _) =
        waits(next_step(&database, &publish(&[1]), Some(&service()), Some(&ours(&[])), None));
    assert_eq!(kind, ConditionKind::PortMismatch);
}

#[test]
fn an_undecided_plan_writes_nothing() {
    let plan = Plan::Keep(KeepReason::NoVerdictYet(vec![[198, 51, 100, 1].into()]));
    for endpoints in [None, Some(ours(&[9]))] {
        let (kind, _) =
            waits(next_step(&database(false), &plan, Some(&service()), endpoints.as_ref(), None));
        assert_eq!(kind, ConditionKind::WaitingForVerdicts);
    }
}

/// Returns a database with these addresses in 198.51.100.0/24.
pub(crate) fn configured(database: Database, last: &[u8]) -> Database {
    let like = &database.addresses[0];
    let addresses = last
        .iter()
        .map(|last| Address { ip: [198, 51, 100, *last].into(), ..like.clone() })
        .collect();
    Database { addresses, ..database }
}

/// Returns a database with .1 and .2, of which 198.51.100.0/30 is allowed: .0 to .3.
pub(crate) fn restricted() -> Database {
    let allowed = AllowedNetworks::new(&["198.51.100.0/30".parse().expect("a network")]);
    Database { allowed_networks: allowed, ..configured(database(false), &[1, 2]) }
}
