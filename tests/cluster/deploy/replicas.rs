//! The two replicas of deploy/: they are kept on different nodes, and one at a time may be evicted.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::{HOME, TIMEOUT, applied, deployment, namespace};
use crate::support::eventually;

/// Checks the selectors of the manifests. No scheduler runs here.
pub(super) async fn both_are_kept_apart_and_in_the_budget() {
    applied().await;
    let home = namespace(HOME);
    let budget: PodDisruptionBudget = home.api().get(HOME).await.expect("the PodDisruptionBudget");
    let budget = serde_json::to_value(budget.spec).expect("JSON");
    assert_eq!(budget["maxUnavailable"], 1);
    let template =
        serde_json::to_value(deployment().await.spec.expect("a spec").template).expect("JSON");
    let uid = &template["spec"]["containers"][0]["env"][0];
    assert_eq!(
        (&uid["name"], &uid["valueFrom"]["fieldRef"]["fieldPath"]),
        (&"POD_UID".into(), &"metadata.uid".into())
    );
    let apart = &template["spec"]["affinity"]["podAntiAffinity"];
    let apart = &apart["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    for selector in [&budget["selector"], &apart["labelSelector"]] {
        expect_both_replicas(selector).await;
    }
}

/// Waits until a label selector matches exactly the two replicas.
pub(super) async fn expect_both_replicas(selector: &Value) {
    let labels = selector["matchLabels"].as_object().expect("labels").iter();
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().expect("text"))).collect();
    let selected = ListParams::default().labels(&labels.join(","));
    let pods: Api<Pod> = namespace(HOME).api();
    eventually(TIMEOUT, "the selector matches both replicas", async || {
        let matched = pods.list(&selected).await.expect("Pods").items.len();
        if matched == 2 { Ok(()) } else { Err(format!("{matched}")) }
    })
    .await;
}
