//! Services that are created where there is none, and left alone where there is one.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::scene::{CHECK, SOON, Scene, checked, config};
use crate::support::{Arrival, Daemon, Traffic, eventually, shared, trial::trials};

pub fn trials() -> Vec<Trial> {
    trials![
        a_missing_service_is_created,
        a_headless_service_names_each_replica,
        a_service_that_is_there_is_never_changed
    ]
}

async fn service(scene: &Scene) -> Option<Service> {
    scene.namespace.api().get_opt("mysql").await.expect("reading a Service")
}

async fn a_missing_service_is_created() {
    let scene = Scene::without_service("created").await;
    let daemon = scene.start_with("  createService: {}\n").await;
    scene.published(&[0, 1, 2]).await;
    scene.condition(&daemon, "Published").await;
    let created = service(&scene).await.expect("a Service");
    assert_eq!(created.labels().get("app.kubernetes.io/managed-by").map(String::as_str), Some("external-endpoints"));
    let spec = created.spec.as_ref().expect("a spec");
    assert_eq!((spec.type_.as_deref(), spec.selector.as_ref()), (Some("ClusterIP"), None));
    assert_eq!(spec.ip_families.as_deref().unwrap_or_default().len(), 2, "all that the cluster has");
    let traffic = Traffic::start(scene.namespace.cluster_ip("mysql").await, 3306, std::time::Duration::from_millis(50));
    eventually(SOON, "clients arrive", async || {
        traffic.tally_all().keys().any(|arrival| matches!(arrival, Arrival::Reached(_)))
    })
    .await;
    // Changed by someone, it is theirs; deleted by someone, there is none.
    let api: Api<Service> = scene.namespace.api();
    let patch = json!({"metadata": {"labels": {"team": "orders"}}, "spec": {"sessionAffinity": "ClientIP"}});
    let changed = api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    checked(&daemon, 4).await;
    assert_eq!(service(&scene).await.and_then(|service| service.resource_version()), changed.resource_version());
    scene.namespace.delete::<Service>("mysql").await;
    eventually(SOON, "created again", async || {
        service(&scene).await.is_some_and(|service| service.uid() != changed.uid())
    })
    .await;
    scene.published(&[0, 1, 2]).await;
    scene.condition(&daemon, "Published").await;
}

async fn a_headless_service_names_each_replica() {
    let scene = Scene::without_service("headless").await;
    let addresses = scene.databases.iter().enumerate();
    let list: Vec<String> =
        addresses.map(|(index, database)| format!("{{address: {}, hostname: mongo-{index}}}", database.ip)).collect();
    let more = "  publish: slices\n  createService: {headless: true}\n";
    let yaml = config(&scene.namespace.name, &list.join(", "), CHECK, more).replace("service: mysql", "service: mongo");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    scene.condition(&daemon, "Published").await;
    let created: Service = scene.namespace.api().get("mongo").await.expect("a Service");
    assert_eq!(created.spec.and_then(|spec| spec.cluster_ip).as_deref(), Some("None"));
    let slice: EndpointSlice = scene.namespace.api().get("mongo-external-ipv4-1").await.expect("a slice");
    assert_eq!(slice.labels().get("service.kubernetes.io/headless").map(String::as_str), Some(""));
    // What DNS makes mongo-0.mongo.NAMESPACE.svc of.
    let mut names: Vec<_> =
        slice.endpoints.into_iter().map(|e| (e.hostname.unwrap_or_default(), e.addresses)).collect();
    names.sort();
    let wanted: Vec<_> = scene
        .databases
        .iter()
        .enumerate()
        .map(|(index, d)| (format!("mongo-{index}"), vec![d.ip.to_string()]))
        .collect();
    assert_eq!(names, wanted);
}

async fn a_service_that_is_there_is_never_changed() {
    let scene = Scene::new("kept").await;
    let before = service(&scene).await.and_then(|service| service.resource_version());
    let daemon = scene.start_with("  createService: {headless: true}\n").await;
    scene.published(&[0, 1, 2]).await;
    scene.condition(&daemon, "Published").await;
    checked(&daemon, 4).await;
    assert_eq!(service(&scene).await.and_then(|service| service.resource_version()), before);
}
