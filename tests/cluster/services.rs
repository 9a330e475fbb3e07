//! `createService`: a missing Service is created, an existing one is not changed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::events::expect_event;
use crate::cluster::fixture::{
    CHECK, Fixture, TIMEOUT, config, database, replace_in, wait_for_checks,
};
use crate::support::{ConnectOutcome, Daemon, Traffic, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_missing_service_is_created,
        a_headless_service_names_each_replica,
        an_existing_service_is_never_changed,
        all_ports_that_lead_to_the_database_get_its_traffic,
        a_local_traffic_policy_is_reported,
        a_long_annotation_is_read_in_part_and_reported,
    ]
}

async fn service(fixture: &Fixture) -> Option<Service> {
    fixture.namespace.api().get_opt("mysql").await.expect("reading a Service")
}

async fn a_missing_service_is_created() {
    let fixture = Fixture::without_service("created").await;
    let daemon = fixture.start_with("  createService: {}\n").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let created = service(&fixture).await.expect("a Service");
    assert_eq!(
        created.labels().get("app.kubernetes.io/managed-by").map(String::as_str),
        Some("external-endpoints")
    );
    let spec = created.spec.as_ref().expect("a spec");
    assert_eq!((spec.type_.as_deref(), spec.selector.as_ref()), (Some("ClusterIP"), None));
    assert_eq!(
        spec.ip_families.as_deref().unwrap_or_default().len(),
        2,
        "all that the cluster has"
    );
    let traffic = Traffic::start(
        fixture.namespace.cluster_ip("mysql").await,
        3306,
        Duration::from_millis(50),
    );
    eventually(TIMEOUT, "clients arrive", async || {
        traffic.tally_all().keys().any(|outcome| matches!(outcome, ConnectOutcome::Reached(_)))
    })
    .await;
    // A Service that someone changed is not changed back. A deleted one is created again.
    let api: Api<Service> = fixture.namespace.api();
    let patch = json!({
        "metadata": {"labels": {"team": "orders"}},
        "spec": {"sessionAffinity": "ClientIP"},
    });
    let changed =
        api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    wait_for_checks(&daemon, 4).await;
    assert_eq!(
        service(&fixture).await.and_then(|service| service.resource_version()),
        changed.resource_version()
    );
    fixture.namespace.delete::<Service>("mysql").await;
    eventually(TIMEOUT, "created again", async || {
        service(&fixture).await.is_some_and(|service| service.uid() != changed.uid())
    })
    .await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn a_headless_service_names_each_replica() {
    let fixture = Fixture::without_service("headless").await;
    let addresses = fixture.databases.iter().enumerate();
    let list: Vec<String> = addresses
        .map(|(index, database)| format!("{{address: {}, hostname: mongo-{index}}}", database.ip))
        .collect();
    let more = "  publish: slices\n  createService: {headless: true}\n";
    let yaml = config(&fixture.namespace.name, &list.join(", "), CHECK, more);
    let yaml = replace_in(&yaml, "service: mysql", "service: mongo");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let created: Service = fixture.namespace.api().get("mongo").await.expect("a Service");
    assert_eq!(created.spec.and_then(|spec| spec.cluster_ip).as_deref(), Some("None"));
    let slice: EndpointSlice =
        fixture.namespace.api().get("mongo-external-ipv4-1").await.expect("a slice");
    assert_eq!(slice.labels().get("service.kubernetes.io/headless").map(String::as_str), Some(""));
    // DNS answers mongo-0.mongo.NAMESPACE.svc from these.
    let mut names: Vec<_> = slice
        .endpoints
        .into_iter()
        .map(|e| (e.hostname.unwrap_or_default(), e.addresses))
        .collect();
    names.sort();
    let wanted: Vec<_> = fixture
        .databases
        .iter()
        .enumerate()
        .map(|(index, d)| (format!("mongo-{index}"), vec![d.ip.to_string()]))
        .collect();
    assert_eq!(names, wanted);
}

async fn an_existing_service_is_never_changed() {
    let fixture = Fixture::new("kept").await;
    let before = service(&fixture).await.and_then(|service| service.resource_version());
    let daemon = fixture.start_with("  createService: {headless: true}\n").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(service(&fixture).await.and_then(|service| service.resource_version()), before);
}

/// Creates a Service with two ports that lead to the database, and one that does not.
async fn create_twins(fixture: &Fixture) {
    let ports = json!([
        {"name": "mysql", "port": 3306, "targetPort": 3306},
        {"name": "mysqlx", "port": 33060, "targetPort": 3306},
        {"name": "metrics", "port": 9104},
    ]);
    let service = json!({"metadata": {"name": "mysql"}, "spec": {"ports": ports}});
    fixture.namespace.create_object::<Service>(service).await;
}

async fn all_ports_that_lead_to_the_database_get_its_traffic() {
    for (prefix, publish) in [("twins", "endpoints"), ("twins-slices", "slices")] {
        let mut fixture = Fixture::without_service(prefix).await;
        create_twins(&fixture).await;
        let daemon = fixture.start_with(&format!("  publish: {publish}\n")).await;
        fixture.expect_slices(&[0, 1, 2]).await;
        let reason = fixture.expect_condition(&daemon, "Published").await;
        assert!(
            reason.ends_with("[metrics (9104/TCP)], which have no endpoints; add them to `ports`"),
            "{reason}"
        );
        let ip = fixture.namespace.cluster_ip("mysql").await;
        let traffic = [3306, 33060].map(|port| Traffic::start(ip, port, Duration::from_millis(50)));
        for (traffic, port) in traffic.iter().zip([3306, 33060]) {
            for database in &fixture.databases {
                eventually(TIMEOUT, &format!("{} is reached by {port}", database.ip), async || {
                    traffic.tally_all().contains_key(&ConnectOutcome::Reached(database.ip))
                })
                .await;
            }
        }
        // Steady state, also with two names for one port.
        let writes = async || daemon.metric("external_endpoints_writes_total", &[]).await;
        let before = writes().await;
        wait_for_checks(&daemon, 4).await;
        assert_eq!(writes().await, before);
        let dead = fixture.databases[1].ip;
        fixture.databases[1].stop().await;
        for traffic in &traffic {
            eventually(TIMEOUT, "the dead one gets nothing any more", async || {
                let lately = traffic.tally_since(Instant::now() - Duration::from_secs(1));
                !lately.is_empty()
                    && lately
                        .keys()
                        .all(|to| matches!(to, ConnectOutcome::Reached(ip) if *ip != dead))
            })
            .await;
        }
    }
}

async fn a_local_traffic_policy_is_reported() {
    let fixture = Fixture::new("local").await;
    let daemon = fixture.start_published().await;
    let ip = fixture.namespace.cluster_ip("mysql").await;
    let traffic = Traffic::start(ip, 3306, Duration::from_millis(50));
    let lately = || traffic.tally_since(Instant::now() - Duration::from_secs(3));
    let reached = |outcome: &ConnectOutcome| matches!(outcome, ConnectOutcome::Reached(_));
    eventually(TIMEOUT, "clients arrive", async || lately().keys().any(reached)).await;
    let api: Api<Service> = fixture.namespace.api();
    let patch = json!({"spec": {"internalTrafficPolicy": "Local"}});
    api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    let words = "`internalTrafficPolicy: Local` of Service";
    let reason = fixture.expect_condition_with(&daemon, "Published", words).await;
    let reached_by_none = async || {
        let lately = lately();
        if !lately.is_empty() && !lately.keys().any(reached) {
            Ok(())
        } else {
            Err(format!("{lately:?}"))
        }
    };
    eventually(TIMEOUT, "it is true", reached_by_none).await;
    expect_event(&fixture.namespace, "LocalTrafficPolicy", words).await;
    wait_for_checks(&daemon, 4).await;
    let warned = daemon.lines().iter().filter(|line| line.contains("clients are kept out")).count();
    assert_eq!(warned, 1, "{:#?}", daemon.lines());
    // The way out that it names is one.
    let command = reason.split("allow all: ").nth(1).expect("a command");
    let arguments: Vec<&str> =
        command.split_whitespace().skip(1).map(|word| word.trim_matches('\'')).collect();
    let output = shared().kubectl(&arguments).await;
    assert!(output.status.success(), "{output:?}");
    fixture.expect_condition_with(&daemon, "Published", &fixture.ips(&[0, 1, 2]).join(", ")).await;
    eventually(TIMEOUT, "clients arrive again", async || lately().keys().all(reached)).await;
    let reason = fixture.expect_condition(&daemon, "Published").await;
    assert!(!reason.contains("Local"), "{reason}");
}

async fn a_long_annotation_is_read_in_part_and_reported() {
    let fixture = Fixture::new("long-annotation").await;
    let daemon = fixture.start_published().await;
    let [first, last] = [fixture.ips(&[0]).remove(0), fixture.ips(&[2]).remove(0)];
    // About as much as Kubernetes takes.
    let maintenance = format!("{first}=disk swap,{last}={}", "x".repeat(250_000));
    let api: Api<Service> = fixture.namespace.api();
    let patch =
        json!({"metadata": {"annotations": {"external-endpoints/maintenance": maintenance}}});
    api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    fixture.expect_endpoints(&[1, 2]).await;
    let problems = database(&daemon.status().await)["policy"].to_string();
    assert!(
        problems.contains(
            "annotation external-endpoints/maintenance: it is over 8 kB: only its first 8 kB are \
             read"
        ),
        "{problems}"
    );
    wait_for_checks(&daemon, 3).await;
    fixture.expect_endpoints(&[1, 2]).await;
}
