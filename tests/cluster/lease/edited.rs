//! A Lease that people delete or edit: its holder continues, and nobody else begins before it has
//! stopped.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use super::replicas::{
    LEASE, LONG_TIMEOUT, identity, leads, lease, never_two, pair, published, replica, replica_at,
    standby, takes_over, terms_of_leading,
};
use crate::cluster::fixture::{Fixture, TIMEOUT, wait_for_checks};
use crate::support::{ApiProxy, Daemon, case::cases, consistently, eventually, shared};

pub(super) fn cases() -> Vec<Trial> {
    cases![
        a_deleted_lease_is_not_taken_before_its_holder_has_stopped,
        an_emptied_lease_is_not_taken_before_its_holder_has_stopped,
        a_holder_takes_back_what_was_edited_by_hand,
        a_new_lease_waits_where_something_is_published,
        a_first_installation_publishes_at_once,
    ]
}

/// Empties the holder, as `kubectl patch` would.
async fn empty(fixture: &Fixture) {
    let api: Api<Lease> = fixture.namespace.api();
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
    api.patch(LEASE, &PatchParams::default(), &patch).await.expect("a patch");
}

/// Starts a holder that has published all, behind a proxy that can cut it off from the API.
async fn behind_proxy(fixture: &Fixture) -> (Daemon, ApiProxy<'static>) {
    let proxy = ApiProxy::start(shared()).await;
    let first = replica_at(fixture, &proxy.kubeconfig()).await;
    (published(fixture, first).await, proxy)
}

async fn a_deleted_lease_is_not_taken_before_its_holder_has_stopped() {
    let fixture = Fixture::new("deleted-away").await;
    let (first, proxy) = behind_proxy(&fixture).await;
    proxy.hang();
    fixture.namespace.delete::<Lease>(LEASE).await;
    let second = replica(&fixture).await;
    takes_over(&second).await;
    never_two(&[&first, &second]);
}

async fn an_emptied_lease_is_not_taken_before_its_holder_has_stopped() {
    let fixture = Fixture::new("emptied-away").await;
    let (first, proxy) = behind_proxy(&fixture).await;
    let second = standby(&fixture).await;
    proxy.hang();
    empty(&fixture).await;
    takes_over(&second).await;
    never_two(&[&first, &second]);
}

async fn a_holder_takes_back_what_was_edited_by_hand() {
    let fixture = Fixture::new("edited").await;
    let (first, second) = pair(&fixture).await;
    let third = replica(&fixture).await;
    let me = identity(&first).await;
    for deletes in [false, true, false, true] {
        if deletes {
            fixture.namespace.delete::<Lease>(LEASE).await;
        } else {
            empty(&fixture).await;
        }
        eventually(TIMEOUT, "the holder has it again", async || {
            lease(&fixture).await.and_then(|lease| lease.holder_identity).as_ref() == Some(&me)
        })
        .await;
    }
    wait_for_checks(&first, 4).await;
    assert!(leads(&first).await);
    assert_eq!(terms_of_leading(&first).len(), 1, "without a pause");
    assert!(terms_of_leading(&second).is_empty() && terms_of_leading(&third).is_empty());
}

/// Starts a replica where the label shows that there was a holder, which may still write.
async fn a_new_lease_waits_where_something_is_published() {
    let fixture = Fixture::new("label").await;
    drop(fixture.start_published().await);
    let started = Instant::now();
    let daemon = replica(&fixture).await;
    let held = async || if leads(&daemon).await { Err("it leads".to_owned()) } else { Ok(()) };
    consistently(Duration::from_secs(12).saturating_sub(started.elapsed()), "it waits", held).await;
    takes_over(&daemon).await;
    let took = started.elapsed();
    assert!((Duration::from_secs(15)..LONG_TIMEOUT).contains(&took), "took {took:?}");
}

async fn a_first_installation_publishes_at_once() {
    let fixture = Fixture::new("first").await;
    let started = Instant::now();
    let daemon = replica(&fixture).await;
    published(&fixture, daemon).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "took {took:?}");
}
