//! The additional Roles of deploy/ for slices and for creating a Service: they are sufficient, and
//! they allow nothing else.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::deploy::kustomize::role_of;
use crate::cluster::deploy::permissions::{atoms, denied, grant, rule_in, without_rights};
use crate::cluster::fixture::{Fixture, database};
use crate::support::{Daemon, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_further_roles_are_what_forbidden_asks_for,
        the_further_roles_allow_no_other_slice_and_no_service,
    ]
}

const TIMEOUT: Duration = Duration::from_secs(60);

const ROLES: [&str; 3] = ["watched-namespace", "create-service", "slices"];

async fn the_further_roles_are_what_forbidden_asks_for() {
    let fixture = Fixture::without_service("asks-more").await;
    let token = without_rights(&fixture.namespace).await;
    let mut granted = role_of(ROLES[0]);
    grant(&fixture.namespace, &json!(granted)).await;
    let kubeconfig = shared().kubeconfig_for_token(&token);
    let yaml = fixture.config_with("  publish: both\n  createService: {}\n");
    let mut daemon = Daemon::start(&yaml, &kubeconfig, &[]).await;
    for role in &ROLES[1..] {
        let asked = eventually(TIMEOUT, &format!("it asks for {role}"), async || {
            let database = database(&daemon.status().await);
            let reason = database["reason"].as_str().unwrap_or_default().to_owned();
            let rule = (database["condition"] == "Forbidden").then(|| rule_in(&reason)).flatten();
            rule.filter(|rule| !granted.contains(rule)).ok_or(database)
        })
        .await;
        assert_eq!(atoms(std::slice::from_ref(&asked)), atoms(&role_of(role)), "{role}");
        granted.push(asked);
        grant(&fixture.namespace, &json!(granted)).await;
    }
    fixture.expect_condition(&daemon, "Published").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    // They are sufficient for the way back to Endpoints too.
    daemon.terminate().await;
    let daemon = Daemon::start(&fixture.config(), &kubeconfig, &[]).await;
    eventually(TIMEOUT, "our slice is deleted", async || own(&fixture).await.is_none()).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn own(fixture: &Fixture) -> Option<EndpointSlice> {
    fixture
        .namespace
        .api()
        .get_opt("mysql-external-ipv4-1")
        .await
        .expect("reading an EndpointSlice")
}

async fn the_further_roles_allow_no_other_slice_and_no_service() {
    let fixture = Fixture::new("no-more").await;
    let token = without_rights(&fixture.namespace).await;
    let all: Vec<PolicyRule> = ROLES.iter().flat_map(|role| role_of(role)).collect();
    grant(&fixture.namespace, &json!(all)).await;
    let client = shared().client_with_token(&token).await;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &fixture.namespace.name);
    let apply = PatchParams::apply("external-endpoints-create");
    let slice = |name: &str| {
        let version = "discovery.k8s.io/v1";
        let metadata = json!({"name": name});
        let kind = "EndpointSlice";
        Patch::Apply(json!({
            "apiVersion": version, "kind": kind, "metadata": metadata,
            "addressType": "IPv4", "endpoints": [],
        }))
    };
    eventually(TIMEOUT, "the rights have come", async || {
        slices.patch("mysql-external-ipv4-1", &apply, &slice("mysql-external-ipv4-1")).await
    })
    .await;
    denied("another slice", slices.patch("mysql-x7k2p", &apply, &slice("mysql-x7k2p")).await);
    denied("delete another slice", slices.delete("mysql-x7k2p", &DeleteParams::default()).await);
    let services: Api<Service> = Api::namespaced(client, &fixture.namespace.name);
    let selector = Patch::Merge(json!({"spec": {"selector": {"app": "mine"}}}));
    denied("change a Service", services.patch("mysql", &PatchParams::default(), &selector).await);
    denied("delete a Service", services.delete("mysql", &DeleteParams::default()).await);
}
