//! Repairs that name the writer: kubectl, Flux, Argo CD, or nobody.

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::events::{events, expect_event};
use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::daemon::log_field;
use crate::support::{Daemon, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_repair_names_the_manager_that_wrote,
        the_third_repair_in_a_row_names_the_tool_to_stop,
        a_repaired_slice_names_the_manager_and_all_members,
    ]
}

const STRANGER: &str = "192.0.2.99";

fn subsets() -> Value {
    json!([{"addresses": [{"ip": STRANGER}], "ports": [{"port": 3306}]}])
}

/// Applies Endpoints with a stranger's address, as a GitOps controller does.
async fn apply_as(fixture: &Fixture, manager: &str) {
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mysql"},
        "subsets": subsets(),
    });
    let api: Api<Endpoints> = fixture.namespace.api();
    let params = PatchParams::apply(manager).force();
    api.patch("mysql", &params, &Patch::Apply(endpoints)).await.expect("an apply");
}

/// Waits for the Event of a repair of a change by this writer, which names all members.
async fn expect_repair_of(fixture: &Fixture, writer: &str) {
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let members = fixture.ips(&[0, 1, 2]).join(", ");
    let words = format!("an outside change{writer} was repaired: {members} (");
    expect_event(&fixture.namespace, "Repaired", &words).await;
}

async fn a_repair_names_the_manager_that_wrote() {
    let fixture = Fixture::new("whose").await;
    let daemon = fixture.start_published().await;
    let patch = json!({"subsets": subsets()}).to_string();
    let namespace = &fixture.namespace.name;
    let arguments = ["patch", "endpoints", "mysql", "-n", namespace, "--type=merge", "-p", &patch];
    let patched = shared().kubectl(&arguments).await;
    assert!(patched.status.success(), "{patched:?}");
    expect_repair_of(&fixture, " by kubectl-patch").await;
    apply_as(&fixture, "argocd-controller").await;
    expect_repair_of(&fixture, " by argocd-controller").await;
    apply_as(&fixture, "kustomize-controller").await;
    expect_repair_of(&fixture, " by kustomize-controller").await;
    // Within a minute, the Event is the same.
    let repaired = events(&fixture.namespace, "Repaired").await;
    assert_eq!(repaired.len(), 1, "{repaired:#?}");
    let managers: Vec<String> = daemon
        .logs()
        .iter()
        .filter_map(|line| Some(log_field(line, "manager")?.to_owned()))
        .collect();
    assert_eq!(managers, ["kubectl-patch", "argocd-controller", "kustomize-controller"]);

    // A deletion leaves nobody's name.
    let api: Api<Endpoints> = fixture.namespace.api();
    api.delete("mysql", &DeleteParams::default()).await.expect("a deletion");
    expect_repair_of(&fixture, "").await;
}

/// Returns the writers that the log says to stop.
fn to_stop(daemon: &Daemon) -> Vec<String> {
    let logs = daemon.logs();
    logs.iter().filter_map(|line| Some(log_field(line, "writer")?.to_owned())).collect()
}

async fn the_third_repair_in_a_row_names_the_tool_to_stop() {
    let fixture = Fixture::new("which-tool").await;
    let daemon = fixture.start_published().await;
    for round in 0..4 {
        let expected = usize::from(round >= 3);
        assert_eq!(to_stop(&daemon).len(), expected, "after {round}");
        apply_as(&fixture, "kustomize-controller").await;
        fixture.expect_endpoints(&[0, 1, 2]).await;
        eventually(TIMEOUT, "the repair is on the log", async || {
            let repairs = daemon.lines().iter().filter(|line| line.contains("repaired\"")).count();
            if repairs == round + 1 { Ok(()) } else { Err(repairs) }
        })
        .await;
    }
    let writers = to_stop(&daemon);
    assert_eq!(writers.len(), 1, "once: {writers:?}");
    assert!(writers[0].starts_with("Flux (field manager kustomize-controller); take"));
}

async fn a_repaired_slice_names_the_manager_and_all_members() {
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    let fixture = Fixture::new("whose-slice").await;
    let _daemon = fixture.start_with("  publish: slices\n").await;
    fixture.expect_slices(&[0, 1, 2]).await;
    let members = fixture.ips(&[0, 1, 2]).join(", ");
    let name = "mysql-external-ipv4-1";
    let published = format!("{members} (EndpointSlice {name}: +");
    expect_event(&fixture.namespace, "Published", &published).await;
    let api: Api<EndpointSlice> = fixture.namespace.api();
    let endpoints = json!([{"addresses": [STRANGER], "conditions": {"ready": true}}]);
    let patch = Patch::Merge(json!({"endpoints": endpoints}));
    let person =
        PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    api.patch(name, &person, &patch).await.expect("a patch");
    fixture.expect_slices(&[0, 1, 2]).await;
    let repaired = format!(
        "an outside change by kubectl-edit was repaired: {members} (EndpointSlice {name}: "
    );
    expect_event(&fixture.namespace, "Repaired", &repaired).await;
}
