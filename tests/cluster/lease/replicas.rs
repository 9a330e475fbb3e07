//! The frame of the lease cases: replicas that compete for a Lease of their own, and its history.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, WatchEvent, WatchParams};
use tokio::task::JoinHandle;

use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::daemon::log_field;
use crate::support::{Daemon, eventually, runtime, shared};

/// The Lease's name.
pub(crate) const LEASE: &str = "external-endpoints";

/// A time-out that is longer than a lease, on a busy machine.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a replica that competes for the Lease in the fixture's namespace.
pub(crate) async fn replica(fixture: &Fixture) -> Daemon {
    replica_at(fixture, &shared().kubeconfig()).await
}

/// Starts a replica like [`replica`], with its own kubeconfig.
pub(crate) async fn replica_at(fixture: &Fixture, kubeconfig: &std::path::Path) -> Daemon {
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    Daemon::start(&fixture.config(), kubeconfig, &["--lease", &lease]).await
}

/// Starts a leader that has published all three addresses, and a standby.
pub(crate) async fn pair(fixture: &Fixture) -> (Daemon, Daemon) {
    let first = replica(fixture).await;
    (published(fixture, first).await, standby(fixture).await)
}

/// Waits until this replica holds the lease and all is published.
pub(crate) async fn published(fixture: &Fixture, first: Daemon) -> Daemon {
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&first, "Published").await;
    assert!(leads(&first).await);
    first
}

/// Starts a standby that knows all that it needs to take over.
pub(crate) async fn standby(fixture: &Fixture) -> Daemon {
    let second = replica(fixture).await;
    fixture.expect_condition_with(&second, "Standby", "the cluster holds").await;
    up(&second, 3.0).await;
    assert!(!leads(&second).await);
    second
}

/// Waits until the replica has found this many targets up.
pub(crate) async fn up(daemon: &Daemon, targets: f64) {
    eventually(TIMEOUT, &format!("{targets} targets are up"), async || {
        let up = daemon.metric("external_endpoints_target_healthy", &[]).await;
        if up == Some(targets) { Ok(()) } else { Err(format!("{up:?}")) }
    })
    .await;
}

/// Returns whether this replica is the one that writes.
pub(crate) async fn leads(daemon: &Daemon) -> bool {
    daemon.metric("external_endpoints_leader", &[]).await.expect("the metric") == 1.0
}

/// Waits until this replica is the one that writes.
pub(crate) async fn takes_over(daemon: &Daemon) {
    eventually(LONG_TIMEOUT, "the replica takes over", async || leads(daemon).await).await;
}

/// Returns the number of calls that write that this replica has made, whatever their result.
pub(crate) async fn writes(daemon: &Daemon) -> f64 {
    daemon.metric("external_endpoints_writes_total", &[]).await.unwrap_or_default()
}

/// Returns the identity of a replica in the Lease.
pub(crate) async fn identity(daemon: &Daemon) -> String {
    daemon.status().await["lease"]["identity"].as_str().expect("an identity").to_owned()
}

/// Reads the Lease; none if there is none.
pub(crate) async fn lease(fixture: &Fixture) -> Option<LeaseSpec> {
    let api: Api<Lease> = fixture.namespace.api();
    api.get_opt(LEASE).await.expect("reading the Lease").and_then(|lease| lease.spec)
}

/// The changes of the Lease since the history was started.
pub(crate) struct LeaseHistory {
    changes: Arc<Mutex<Vec<LeaseSpec>>>,
    task: JoinHandle<()>,
}

impl LeaseHistory {
    pub(crate) async fn start(fixture: &Fixture) -> LeaseHistory {
        let api: Api<Lease> = fixture.namespace.api();
        let version =
            api.list(&Default::default()).await.expect("listing Leases").metadata.resource_version;
        let params = WatchParams::default().timeout(290);
        let events =
            api.watch(&params, &version.expect("a version")).await.expect("watching Leases");
        let changes: Arc<Mutex<Vec<LeaseSpec>>> = Arc::default();
        let seen = changes.clone();
        let task = runtime().spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let (WatchEvent::Added(lease) | WatchEvent::Modified(lease)) =
                    event.expect("a watch without errors")
                else {
                    continue;
                };
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(lease.spec.expect("a spec"));
            }
        });
        LeaseHistory { changes, task }
    }

    pub(crate) fn changes(&self) -> Vec<LeaseSpec> {
        assert!(!self.task.is_finished(), "the watch has ended");
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for LeaseHistory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A period in which a replica might write, by its log.
#[derive(Debug)]
pub(crate) struct Term {
    from: Timestamp,
    /// The end; none if it still might.
    until: Option<Timestamp>,
}

/// Returns the periods in which a replica might write.
pub(crate) fn terms_of_leading(daemon: &Daemon) -> Vec<Term> {
    let mut terms: Vec<Term> = Vec::new();
    for line in daemon.logs() {
        let message = log_field(&line, "message").unwrap_or_default();
        let at = || line["timestamp"].as_str().expect("a time").parse().expect("RFC 3339");
        if message.starts_with("holding the lease") {
            terms.push(Term { from: at(), until: None });
        } else if message.starts_with("lost the lease") || message == "lease released" {
            terms.last_mut().expect("held before").until.get_or_insert_with(at);
        }
    }
    terms
}

/// Asserts that no two of these replicas might write at the same time.
pub(crate) fn never_two(daemons: &[&Daemon]) {
    let mut terms: Vec<Term> = daemons.iter().flat_map(|daemon| terms_of_leading(daemon)).collect();
    terms.sort_by_key(|term| term.from);
    for pair in terms.windows(2) {
        assert!(
            pair[0].until.is_some_and(|until| until <= pair[1].from),
            "two at once: {terms:#?}"
        );
    }
}
