//! A container that starts again in the same Pod: it takes up the Lease of the process before it.

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use super::replicas::{LEASE, identity, leads, published, standby, takes_over, terms_of_leading};
use crate::cluster::scene::{SOON, Scene};
use crate::support::daemon::{PROGRAM, field};
use crate::support::{Daemon, eventually, holds, shared, trial::trials};

pub(super) fn trials() -> Vec<Trial> {
    trials![
        a_container_that_starts_again_writes_at_once,
        of_two_replicas_with_one_pod_uid_the_older_stands_by,
        a_pod_uid_that_is_none_is_told_and_not_used,
    ]
}

const UID: &str = "3f2b8c1e-7d4a-4c0e-9b1f-2a6d5e8c7f90";

/// Starts a replica in a Pod with this UID.
async fn replica_in_pod(scene: &Scene, uid: &str) -> Daemon {
    let mut command = Command::new(PROGRAM);
    command.env("KUBECONFIG", shared().kubeconfig()).env("POD_UID", uid);
    let lease = format!("{}/{LEASE}", scene.namespace.name);
    Daemon::start_by(command, &scene.config(), &["--lease", &lease]).await
}

async fn a_container_that_starts_again_writes_at_once() {
    let scene = Scene::new("container").await;
    let first = replica_in_pod(&scene, UID).await;
    let mut first = published(&scene, first).await;
    let me = identity(&first).await;
    assert!(me.ends_with(&format!("_{UID}")), "{me}");
    let other = standby(&scene).await;

    let killed = Instant::now();
    first.kill();
    // Someone empties the Endpoints while nobody looks.
    let api: Api<Endpoints> = scene.namespace.api();
    let empty = Patch::Merge(json!({"subsets": []}));
    api.patch("mysql", &PatchParams::default(), &empty).await.expect("a patch");
    assert!(scene.namespace.endpoint_ips("mysql").await.is_empty());
    let again = replica_in_pod(&scene, UID).await;
    scene.published(&[0, 1, 2]).await;
    let took = killed.elapsed();
    println!("after SIGKILL the same Pod has written within {took:?}");
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(identity(&again).await, me);
    assert!(leads(&again).await);
    holds(Duration::from_secs(3), "the standby stands by", async || {
        if leads(&other).await { Err("it leads".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(terms_of_leading(&other).is_empty());
}

/// A mistake in the manifest: both can't be told apart by their names.
async fn of_two_replicas_with_one_pod_uid_the_older_stands_by() {
    let scene = Scene::new("twins").await;
    let older = replica_in_pod(&scene, UID).await;
    let older = published(&scene, older).await;
    let newer = replica_in_pod(&scene, UID).await;
    takes_over(&newer).await;
    eventually(SOON, "the older one stands by", async || !leads(&older).await).await;
    let trouble = eventually(SOON, "it says why", async || {
        older.status().await["lease"]["trouble"].as_str().map(str::to_owned).ok_or("no trouble")
    })
    .await;
    assert!(trouble.contains("another process") && trouble.contains("POD_UID"), "{trouble}");
    let is_error = |line: &serde_json::Value| {
        line["level"] == "ERROR" && field(line, "reason") == Some(&trouble)
    };
    let errors = || older.logs().iter().filter(|line| is_error(line)).count();
    eventually(SOON, "the log says so", async || errors() == 1).await;
    holds(Duration::from_secs(4), "the newer one leads", async || {
        if leads(&newer).await && !leads(&older).await {
            Ok(())
        } else {
            Err("they change places".to_owned())
        }
    })
    .await;
    assert_eq!(errors(), 1);
}

async fn a_pod_uid_that_is_none_is_told_and_not_used() {
    let scene = Scene::new("no-uid").await;
    let daemon = replica_in_pod(&scene, "$(POD_UID)").await;
    assert!(!identity(&daemon).await.contains('$'));
    let told = |line: &serde_json::Value| {
        field(line, "message").is_some_and(|message| message.starts_with("POD_UID is not"))
    };
    assert!(daemon.logs().iter().any(told));
}
