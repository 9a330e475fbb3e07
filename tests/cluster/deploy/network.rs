//! The NetworkPolicy of deploy/: only Prometheus may reach the admin pages, and outgoing traffic is
//! not limited.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::{HOME, TIMEOUT, applied, deployment, namespace};
use crate::support::eventually;

/// Checks the selectors of the manifest. No network plugin runs here.
pub(super) async fn only_prometheus_may_reach_the_pages() {
    applied().await;
    let home = namespace(HOME);
    let policy: NetworkPolicy = home.api().get(HOME).await.expect("the NetworkPolicy");
    let policy = serde_json::to_value(policy.spec).expect("JSON");
    // A policy for Egress would block the checks.
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    assert_eq!(policy["egress"], json!(null));
    let labels = json!({"kubernetes.io/metadata.name": "monitoring"});
    let prometheus = json!({"namespaceSelector": {"matchLabels": labels}});
    assert_eq!(policy["ingress"][0]["from"], json!([prometheus]));
    assert_eq!(policy["ingress"].as_array().map(Vec::len), Some(1));
    let port = &policy["ingress"][0]["ports"][0]["port"];
    let template =
        serde_json::to_value(deployment().await.spec.expect("a spec").template).expect("JSON");
    let ports = template["spec"]["containers"][0]["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|named| named["name"] == *port), "no port is called {port}");

    let labels: BTreeMap<String, String> =
        serde_json::from_value(policy["podSelector"]["matchLabels"].clone()).expect("labels");
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Api<Pod> = home.api();
    eventually(TIMEOUT, "both replicas are meant", async || {
        let meant = pods
            .list(&ListParams::default().labels(&labels.join(",")))
            .await
            .expect("Pods")
            .items
            .len();
        if meant == 2 { Ok(()) } else { Err(format!("{meant}")) }
    })
    .await;
}
