//! Switches between Endpoints, EndpointSlices and both under live traffic, and a cluster that does
//! not mirror Endpoints.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::events::expect_event;
use crate::cluster::fixture::{Fixture, TIMEOUT, wait_for_checks};
use crate::support::{
    ConnectOutcome, ControlPlane, Daemon, Namespace, Options, Traffic, case::cases, eventually,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_switch_of_the_mode_refuses_no_connection,
        a_cluster_that_does_not_mirror_is_detected,
        a_foreign_skip_mirror_label_is_reported,
    ]
}

const MIRRORING: &str = "endpointslicemirroring-controller.k8s.io";
const OURS: &str = "external-endpoints";

/// Returns the managers of the Service's slices that have endpoints.
async fn managers(namespace: &Namespace) -> Vec<String> {
    let slices = namespace.slices("mysql").await;
    let serving = slices.iter().filter(|slice| !slice.endpoints.is_empty());
    let manager = |slice: &EndpointSlice| {
        slice.labels().get("endpointslice.kubernetes.io/managed-by").cloned()
    };
    let mut managers: Vec<String> = serving.filter_map(manager).collect();
    managers.sort();
    managers
}

async fn a_switch_of_the_mode_refuses_no_connection() {
    let mut fixture = Fixture::new("modes").await;
    let mut daemon = fixture.start_published().await;
    let traffic = Traffic::start(
        fixture.namespace.cluster_ip("mysql").await,
        3306,
        Duration::from_millis(10),
    );
    let reached = |outcome: &ConnectOutcome| matches!(outcome, ConnectOutcome::Reached(_));
    eventually(TIMEOUT, "kube-proxy follows", async || traffic.tally_all().keys().any(reached))
        .await;
    let from = Instant::now();
    // All switches, once by a restart and once by an edit of the config.
    let ways = ["slices", "both", "endpoints", "both", "slices", "endpoints"];
    for (number, mode) in ways.into_iter().chain(ways).enumerate() {
        let more = format!("  publish: {mode}\n");
        if number < ways.len() {
            daemon.terminate().await;
            daemon = fixture.start_with(&more).await;
        } else {
            std::fs::write(daemon.config(), fixture.config_with(&more))
                .expect("a file in the sandbox");
        }
        let wanted = if mode == "endpoints" { MIRRORING } else { OURS };
        eventually(TIMEOUT, &format!("{mode}: slices by {wanted} alone"), async || {
            let managers = managers(&fixture.namespace).await;
            if managers == [wanted] { Ok(()) } else { Err(format!("{managers:?}")) }
        })
        .await;
        fixture.expect_condition(&daemon, "Published").await;
        fixture.expect_slices(&[0, 1, 2]).await;
        let in_endpoints = if mode == "slices" { vec![] } else { fixture.ips(&[0, 1, 2]) };
        eventually(TIMEOUT, &format!("{mode}: Endpoints hold {in_endpoints:?}"), async || {
            let there = fixture.namespace.endpoint_ips("mysql").await;
            if there == in_endpoints { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
        // What is there is what is kept up.
        wait_for_checks(&daemon, 3).await;
    }
    let tally = traffic.tally_since(from);
    assert!(tally.keys().all(reached), "{tally:?}");
    assert!(tally.values().sum::<u64>() > 200, "too little traffic to prove anything: {tally:?}");
    fixture.databases[0].stop().await;
    fixture.expect_slices(&[1, 2]).await;
}

async fn a_cluster_that_does_not_mirror_is_detected() {
    let plane = ControlPlane::start(Options { proxy: false, ..Options::default() }).await;
    let mut fixture = Fixture::on(plane.namespace("unmirrored").await).await;
    fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    let daemon = Daemon::start(&fixture.config(), &plane.kubeconfig(), &[]).await;
    fixture.expect_slices(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let labels = [("condition", "NotMirrored")];
    let metric = async || daemon.metric("external_endpoints_database_condition", &labels).await;
    assert_eq!(metric().await, None);

    plane.pause_controllers();
    let dead = Instant::now();
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    eventually(TIMEOUT, "it is found out", async || metric().await == Some(1.0)).await;
    // The address had to be found dead first.
    let took = dead.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let reason = fixture.expect_condition(&daemon, "NotMirrored").await;
    assert!(reason.contains("endpointslice-mirroring-controller"), "{reason}");
    expect_event(&fixture.namespace, "NotMirrored", "endpointslice-mirroring-controller").await;
    let logged = async || daemon.logs().iter().any(|line| line["condition"] == "NotMirrored");
    eventually(TIMEOUT, "it is on the log", logged).await;

    // The remedy in the reason needs no controller except the one that deletes mirrored slices.
    drop(daemon);
    let yaml = fixture.config_with("  publish: slices\n");
    let daemon = Daemon::start(&yaml, &plane.kubeconfig(), &[]).await;
    let own = async || {
        let slice: Option<EndpointSlice> =
            fixture.namespace.api().get_opt("mysql-external-ipv4-1").await.expect("reading");
        slice.map(|slice| slice.endpoints.len())
    };
    eventually(TIMEOUT, "our slice has the two", async || own().await == Some(2)).await;
    let reason = fixture.expect_condition(&daemon, "NotMirrored").await;
    assert!(reason.contains("are still there"), "{reason}");
    plane.resume_controllers();
    fixture.expect_condition(&daemon, "Published").await;
    fixture.expect_slices(&[1, 2]).await;

    // The way back waits until it mirrors: until then our slice is all there is, and follows.
    drop(daemon);
    plane.pause_controllers();
    let daemon = Daemon::start(&fixture.config(), &plane.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[1, 2]).await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(own().await, Some(2), "not given up before there is another");
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[2]).await;
    eventually(TIMEOUT, "our slice follows", async || own().await == Some(1)).await;
    plane.resume_controllers();
    eventually(TIMEOUT, "our slice is deleted", async || own().await.is_none()).await;
    fixture.expect_slices(&[2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn a_foreign_skip_mirror_label_is_reported() {
    let fixture = Fixture::new("skipped").await;
    let daemon = fixture.start_published().await;
    fixture.expect_slices(&[0, 1, 2]).await;
    let api: Api<Endpoints> = fixture.namespace.api();
    let label = |value: Option<&str>| {
        let labels = json!({"endpointslice.kubernetes.io/skip-mirror": value});
        json!({"metadata": {"labels": labels}})
    };
    let patch = async |value| {
        api.patch("mysql", &PatchParams::default(), &Patch::Merge(label(value)))
            .await
            .expect("a patch")
            .resource_version()
    };
    let version = patch(Some("true")).await;
    let reason = fixture.expect_condition(&daemon, "NotMirrored").await;
    assert!(reason.contains("carry the label endpointslice.kubernetes.io/skip-mirror"), "{reason}");
    assert_eq!(
        fixture.namespace.resource_version("mysql").await,
        version,
        "a label of someone else's is theirs"
    );
    patch(None).await;
    fixture.expect_condition(&daemon, "Published").await;
    fixture.expect_slices(&[0, 1, 2]).await;
}
