//! A container that starts again in the same Pod: it acquires the Lease of the process before it.

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use super::replicas::{LEASE, identity, leads, published, standby, takes_over, terms_of_leading};
use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::daemon::{PROGRAM, log_field};
use crate::support::{Daemon, case::cases, consistently, eventually, shared};

pub(super) fn cases() -> Vec<Trial> {
    cases![
        a_container_that_starts_again_writes_at_once,
        the_older_of_two_replicas_with_one_pod_uid_stands_by,
        an_invalid_pod_uid_is_logged_and_not_used,
    ]
}

const UID: &str = "3f2b8c1e-7d4a-4c0e-9b1f-2a6d5e8c7f90";

/// Starts a replica in a Pod with this UID.
async fn replica_in_pod(fixture: &Fixture, uid: &str) -> Daemon {
    let mut command = Command::new(PROGRAM);
    command.env("KUBECONFIG", shared().kubeconfig()).env("POD_UID", uid);
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    Daemon::start_command(command, &fixture.config(), &["--lease", &lease]).await
}

async fn a_container_that_starts_again_writes_at_once() {
    let fixture = Fixture::new("container").await;
    let first = replica_in_pod(&fixture, UID).await;
    let mut first = published(&fixture, first).await;
    let me = identity(&first).await;
    assert!(me.ends_with(&format!("_{UID}")), "{me}");
    let other = standby(&fixture).await;

    let killed = Instant::now();
    first.kill();
    // Someone empties the Endpoints while nobody watches.
    let api: Api<Endpoints> = fixture.namespace.api();
    let empty = Patch::Merge(json!({"subsets": []}));
    api.patch("mysql", &PatchParams::default(), &empty).await.expect("a patch");
    assert!(fixture.namespace.endpoint_ips("mysql").await.is_empty());
    let again = replica_in_pod(&fixture, UID).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let took = killed.elapsed();
    println!("after SIGKILL the same Pod has written within {took:?}");
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(identity(&again).await, me);
    assert!(leads(&again).await);
    consistently(Duration::from_secs(3), "the standby stands by", async || {
        if leads(&other).await { Err("it leads".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(terms_of_leading(&other).is_empty());
}

/// Starts two replicas with the same name, as a mistake in the manifest would.
async fn the_older_of_two_replicas_with_one_pod_uid_stands_by() {
    let fixture = Fixture::new("twins").await;
    let older = replica_in_pod(&fixture, UID).await;
    let older = published(&fixture, older).await;
    let newer = replica_in_pod(&fixture, UID).await;
    takes_over(&newer).await;
    eventually(TIMEOUT, "the older one stands by", async || !leads(&older).await).await;
    let trouble = eventually(TIMEOUT, "it says why", async || {
        older.status().await["lease"]["trouble"].as_str().map(str::to_owned).ok_or("no trouble")
    })
    .await;
    assert!(
        trouble.contains("another running process") && trouble.contains("POD_UID"),
        "{trouble}"
    );
    let is_error = |line: &serde_json::Value| {
        line["level"] == "ERROR" && log_field(line, "reason") == Some(&trouble)
    };
    let errors = || older.logs().iter().filter(|line| is_error(line)).count();
    eventually(TIMEOUT, "the log says so", async || errors() == 1).await;
    consistently(Duration::from_secs(4), "the newer one leads", async || {
        if leads(&newer).await && !leads(&older).await {
            Ok(())
        } else {
            Err("they change places".to_owned())
        }
    })
    .await;
    assert_eq!(errors(), 1);
}

async fn an_invalid_pod_uid_is_logged_and_not_used() {
    let fixture = Fixture::new("no-uid").await;
    let daemon = replica_in_pod(&fixture, "$(POD_UID)").await;
    assert!(!identity(&daemon).await.contains('$'));
    let is_warning = |line: &serde_json::Value| {
        log_field(line, "message").is_some_and(|message| message.starts_with("POD_UID is not"))
    };
    assert!(daemon.logs().iter().any(is_warning));
}
