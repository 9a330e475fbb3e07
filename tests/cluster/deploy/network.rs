//! The NetworkPolicy of deploy/: only Prometheus may reach the admin pages, and outgoing traffic is
//! not limited.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::replicas::expect_both_replicas;
use super::{HOME, applied, deployment, namespace};

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

    expect_both_replicas(&policy["podSelector"]).await;
}
