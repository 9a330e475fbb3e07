//! Ownership: managed Endpoints are repaired after outside changes, foreign ones are never written.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::fixture::{Fixture, TIMEOUT, config, replace_in, wait_for_checks};
use crate::support::{Daemon, case::cases, eventually, shared};

/// The longest time for a repair after a watch event, on a busy machine. A repair after a resync
/// takes longer.
const AT_ONCE: Duration = Duration::from_secs(4);

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        an_outside_edit_is_repaired_at_once,
        an_outside_deletion_is_repaired,
        repairs_against_another_writer_are_throttled,
        a_removed_label_is_restored,
        labels_and_annotations_of_others_are_kept,
        the_service_is_deleted_and_created_again,
        a_missing_service_is_published_once_it_is_created,
        a_service_gains_a_selector_and_loses_it,
        foreign_endpoints_are_not_written,
        foreign_endpoints_are_adopted_with_adopt,
        endpoints_with_a_leader_annotation_are_never_adopted,
        endpoints_labelled_for_another_manager_are_not_written,
        external_name_and_kubernetes_services_are_never_written,
        ports_that_do_not_match_are_reported,
    ]
}

pub(crate) async fn merge(fixture: &Fixture, patch: Value) {
    let api: Api<Endpoints> = fixture.namespace.api();
    api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
}

async fn merge_service(fixture: &Fixture, patch: Value) {
    let api: Api<Service> = fixture.namespace.api();
    api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
}

async fn an_outside_edit_is_repaired_at_once() {
    let fixture = Fixture::new("edit").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    let edited = Instant::now();
    merge(
        &fixture,
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.99"}], "ports": [{"port": 3306}]}]}),
    )
    .await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let took = edited.elapsed();
    assert!(took < AT_ONCE, "repaired after {took:?}");
    history
        .expect_steps(&[Some(vec!["192.0.2.99".to_owned()]), Some(fixture.ips(&[0, 1, 2]))])
        .await;
    // A person who edited by hand finds the reason on the log.
    eventually(TIMEOUT, "the repair is on the log", async || {
        let logs = daemon.logs();
        let repair = logs
            .iter()
            .find(|line| line["message"] == "an outside change of the Endpoints was repaired")?;
        repair["changes"]
            .as_str()
            .filter(|changes| changes.ends_with(", -192.0.2.99"))
            .map(str::to_owned)
    })
    .await;
}

async fn an_outside_deletion_is_repaired() {
    let fixture = Fixture::new("deletion").await;
    let _daemon = fixture.start_published().await;
    let deleted = Instant::now();
    fixture.namespace.delete::<Endpoints>("mysql").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let took = deleted.elapsed();
    assert!(took < AT_ONCE, "repaired after {took:?}");
}

async fn repairs_against_another_writer_are_throttled() {
    let fixture = Fixture::new("quarrel").await;
    let daemon = fixture.start_published().await;
    let writes =
        async || daemon.metric("external_endpoints_writes_total", &[]).await.unwrap_or_default();
    let before = writes().await;
    let from = Instant::now();
    let mut undone = 0;
    while from.elapsed() < Duration::from_secs(5) {
        if fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[0, 1, 2]) {
            undone += 1;
            let addresses = json!([{"ip": "192.0.2.99"}]);
            let subsets = json!([{"addresses": addresses, "ports": [{"port": 3306}]}]);
            merge(&fixture, json!({"subsets": subsets})).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let written = writes().await - before;
    assert!(undone >= 3 && written <= 8.0, "{written} writes against {undone}");
    fixture.expect_endpoints(&[0, 1, 2]).await;
}

async fn a_removed_label_is_restored() {
    let fixture = Fixture::new("label").await;
    let _daemon = fixture.start_published().await;
    merge(&fixture, json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": null}}}))
        .await;
    eventually(TIMEOUT, "our label", async || {
        let labels = fixture.namespace.endpoints("mysql").await?.metadata.labels?;
        labels
            .get("endpoints.kubernetes.io/managed-by")
            .filter(|manager| *manager == "external-endpoints")
            .cloned()
    })
    .await;
}

async fn labels_and_annotations_of_others_are_kept() {
    let mut fixture = Fixture::new("survive").await;
    let _daemon = fixture.start_published().await;
    merge(
        &fixture,
        json!({"metadata": {"labels": {"team": "orders"}, "annotations": {"note": "by hand"}}}),
    )
    .await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    let endpoints = fixture.namespace.endpoints("mysql").await.expect("Endpoints");
    assert_eq!(
        endpoints.metadata.labels.unwrap_or_default().get("team").map(String::as_str),
        Some("orders")
    );
    assert_eq!(
        endpoints.metadata.annotations.unwrap_or_default().get("note").map(String::as_str),
        Some("by hand")
    );
}

async fn the_service_is_deleted_and_created_again() {
    let fixture = Fixture::new("recreated").await;
    let daemon = fixture.start_published().await;
    let before =
        fixture.namespace.endpoints("mysql").await.and_then(|endpoints| endpoints.metadata.uid);
    fixture.namespace.delete::<Service>("mysql").await;
    fixture.expect_condition(&daemon, "WaitingForService").await;
    eventually(TIMEOUT, "Kubernetes deletes the Endpoints", async || {
        fixture.namespace.endpoints("mysql").await.is_none()
    })
    .await;
    let history = fixture.history().await;
    wait_for_checks(&daemon, 3).await;
    assert_eq!(history.steps(), [], "no Endpoints without a Service");
    fixture.namespace.create_service("mysql", &[("sql", 3306)]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let endpoints = fixture.namespace.endpoints("mysql").await.expect("Endpoints");
    assert_ne!(endpoints.metadata.uid, before);
    let subsets = serde_json::to_value(endpoints.subsets).expect("JSON");
    assert_eq!(
        subsets[0]["ports"],
        json!([{"name": "sql", "port": 3306, "protocol": "TCP"}]),
        "the new Service's name"
    );
}

async fn a_missing_service_is_published_once_it_is_created() {
    let fixture = Fixture::without_service("missing").await;
    let history = fixture.history().await;
    let daemon = fixture.start().await;
    let reason = fixture.expect_condition(&daemon, "WaitingForService").await;
    assert_eq!(
        reason,
        format!(
            "there is no Service {}/mysql; create it, without a selector",
            fixture.namespace.name
        )
    );
    wait_for_checks(&daemon, 3).await;
    assert_eq!(history.steps(), []);
    assert_eq!(daemon.get("/readyz").await.0, 200, "the lists are synced all the same");
    fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn a_service_gains_a_selector_and_loses_it() {
    let mut fixture = Fixture::new("selector").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    merge_service(&fixture, json!({"spec": {"selector": {"app": "mysql"}}})).await;
    fixture.expect_condition(&daemon, "ServiceHasSelector").await;
    eventually(TIMEOUT, "Kubernetes takes the Endpoints over", async || {
        fixture.namespace.endpoint_ips("mysql").await.is_empty()
    })
    .await;
    fixture.databases[0].stop().await;
    eventually(TIMEOUT, "the dead one is down", async || {
        daemon.metric("external_endpoints_target_healthy", &[]).await == Some(2.0)
    })
    .await;
    wait_for_checks(&daemon, 3).await;
    assert!(
        history.steps().iter().all(|step| step.as_ref().is_some_and(Vec::is_empty)),
        "never written while there is a selector"
    );
    merge_service(&fixture, json!({"spec": {"selector": null}})).await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

/// Creates Endpoints as a person would write them, with one address that no config has.
async fn create_by_hand(fixture: &Fixture, metadata: Value) {
    let mut endpoints = json!({
        "metadata": {"name": "mysql"},
        "subsets": [{"addresses": [{"ip": "192.0.2.50"}], "ports": [{"port": 3306}]}],
    });
    for (key, value) in metadata.as_object().expect("an object") {
        endpoints["metadata"][key] = value.clone();
    }
    let api: Api<Endpoints> = fixture.namespace.api();
    let endpoints = serde_json::from_value(endpoints).expect("Endpoints");
    api.create(&PostParams::default(), &endpoints).await.expect("creating Endpoints");
}

async fn foreign_endpoints_are_not_written() {
    let fixture = Fixture::new("foreign").await;
    create_by_hand(&fixture, json!({})).await;
    let history = fixture.history().await;
    let daemon = fixture.start().await;
    let reason = fixture.expect_condition(&daemon, "NotOurs").await;
    assert!(
        reason.contains("set `adopt: true` on the database to take them over, or delete them"),
        "{reason}"
    );
    wait_for_checks(&daemon, 4).await;
    assert_eq!(history.steps(), []);
    // The second way out that the reason names.
    fixture.namespace.delete::<Endpoints>("mysql").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
}

async fn foreign_endpoints_are_adopted_with_adopt() {
    let fixture = Fixture::new("adopt").await;
    create_by_hand(&fixture, json!({"labels": {"team": "orders"}})).await;
    let history = fixture.history().await;
    let yaml = fixture.config_with("  adopt: true\n");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1, 2]))]).await;
    let labels = fixture
        .namespace
        .endpoints("mysql")
        .await
        .and_then(|e| e.metadata.labels)
        .unwrap_or_default();
    assert_eq!(labels.get("team").map(String::as_str), Some("orders"));
}

async fn endpoints_with_a_leader_annotation_are_never_adopted() {
    let fixture = Fixture::new("leader").await;
    create_by_hand(
        &fixture,
        json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
    )
    .await;
    let history = fixture.history().await;
    let yaml = fixture.config_with("  adopt: true\n");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let reason = fixture.expect_condition(&daemon, "NotOurs").await;
    assert!(reason.contains("control-plane.alpha.kubernetes.io/leader"), "{reason}");
    wait_for_checks(&daemon, 4).await;
    assert_eq!(history.steps(), []);
}

async fn endpoints_labelled_for_another_manager_are_not_written() {
    let fixture = Fixture::new("handover").await;
    let daemon = fixture.start_published().await;
    // Another manager claims the Endpoints.
    let label = json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": "someone"}}});
    merge(&fixture, label).await;
    fixture.expect_condition(&daemon, "NotOurs").await;
    let history = fixture.history().await;
    merge(
        &fixture,
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.51"}], "ports": [{"port": 3306}]}]}),
    )
    .await;
    wait_for_checks(&daemon, 4).await;
    history.expect_steps(&[Some(vec!["192.0.2.51".to_owned()])]).await;
}

async fn external_name_and_kubernetes_services_are_never_written() {
    let fixture = Fixture::without_service("never").await;
    let external = json!({
        "metadata": {"name": "mysql"},
        "spec": {"type": "ExternalName", "externalName": "db.example"},
    });
    fixture.namespace.create_object::<Service>(external).await;
    let daemon = fixture.start().await;
    fixture.expect_condition(&daemon, "ServiceIsExternalName").await;
    wait_for_checks(&daemon, 3).await;
    assert!(fixture.namespace.endpoints("mysql").await.is_none());
    // The patch by which a guide moves the name to a Service with an IP.
    let patch = json!({"spec": {
        "type": "ClusterIP", "externalName": null, "ports": [{"port": 3306}],
    }});
    merge_service(&fixture, patch).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;

    let api: Api<Endpoints> = Api::namespaced(shared().client(), "default");
    let before = api.get("kubernetes").await.expect("the API server's own Endpoints");
    let yaml = config(
        "default",
        &fixture.ips(&[0]).join(", "),
        "{tcp: {}, interval: 250ms, timeout: 1s}",
        "  adopt: true\n",
    );
    let yaml = replace_in(&yaml, "service: mysql", "service: kubernetes");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_condition(&daemon, "ServiceIsKubernetes").await;
    wait_for_checks(&daemon, 3).await;
    let after = api.get("kubernetes").await.expect("the API server's own Endpoints");
    assert_eq!(after.subsets, before.subsets);
    assert_eq!(daemon.metric("external_endpoints_writes_total", &[]).await, None);
}

async fn ports_that_do_not_match_are_reported() {
    let fixture = Fixture::without_service("ports").await;
    fixture.namespace.create_service("mysql", &[("a", 1), ("b", 2)]).await;
    let daemon = fixture.start().await;
    let reason = fixture.expect_condition(&daemon, "PortMismatch").await;
    assert!(
        reason.starts_with(
            "the database's ports [unnamed (3306/TCP)] do not match the Service's ports \
             [a (1/TCP), b (2/TCP)]"
        ),
        "{reason}"
    );
    wait_for_checks(&daemon, 3).await;
    assert!(fixture.namespace.endpoints("mysql").await.is_none());
    let ports = json!([
        {"name": "a", "port": 1},
        {"name": "sql", "port": 2, "targetPort": 3306},
    ]);
    merge_service(&fixture, json!({"spec": {"ports": ports}})).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let endpoints = fixture.namespace.endpoints("mysql").await.expect("Endpoints");
    let subsets = serde_json::to_value(endpoints.subsets).expect("JSON");
    assert_eq!(subsets[0]["ports"][0]["name"], "sql", "by its target port");
}
