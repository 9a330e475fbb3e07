//! Two replicas and one Lease: one writes, the other takes over soon, and a late write of the old
//! leader never takes effect.

use std::time::{Duration, Instant};

use external_endpoints::endpoints;
use external_endpoints::plan::{Member, Members};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{EndpointPort, Endpoints};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::fixture::{Fixture, TIMEOUT, wait_for_checks};
use crate::support::daemon::log_field;
use crate::support::{ApiProxy, addresses, case::cases, consistently, eventually, shared};

mod edited;
mod names;
pub(crate) mod replicas;
mod restart;
mod unfit;

use replicas::{
    LEASE, LONG_TIMEOUT, LeaseHistory, identity, leads, lease, pair, published, replica,
    replica_at, standby, takes_over, up, writes,
};

/// The time after which nothing is late any more.
const STEADY: Duration = Duration::from_secs(120);

pub(crate) fn cases() -> Vec<Trial> {
    let own = cases![
        a_holder_that_was_stopped_writes_nothing_when_it_resumes,
        a_write_in_flight_is_refused_once_another_has_written,
        a_takeover_after_sigkill_takes_17_seconds_and_writes_nothing,
        a_holder_without_the_api_stops_before_another_begins,
        in_steady_state_there_are_only_renewals,
        a_takeover_after_sigterm_takes_2_seconds_and_writes_nothing,
        a_holder_keeps_the_lease_while_the_api_is_away_for_a_moment,
        one_of_several_replicas_leads,
        a_lease_that_is_deleted_stays_with_its_holder,
        a_lease_is_created_or_changed_only_as_it_was_observed,
        a_late_create_changes_nothing,
        without_leader_election_there_is_no_lease,
    ];
    [own, edited::cases(), names::cases(), unfit::cases(), restart::cases()]
        .into_iter()
        .flatten()
        .collect()
}

async fn a_takeover_after_sigterm_takes_2_seconds_and_writes_nothing() {
    let mut fixture = Fixture::new("sigterm").await;
    let (mut first, second) = pair(&fixture).await;
    let identities = (identity(&first).await, identity(&second).await);
    assert_ne!(identities.0, identities.1);
    assert_eq!(second.status().await["lease"]["holder"], identities.0.as_str());
    assert_eq!(second.get("/readyz").await.0, 200, "a standby is ready");
    let history = fixture.history().await;

    let asked = Instant::now();
    first.signal(Signal::SIGTERM);
    takes_over(&second).await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert!(first.wait().await.success());
    assert_eq!(lease(&fixture).await.and_then(|lease| lease.holder_identity), Some(identities.1));
    fixture.expect_condition(&second, "Published").await;
    wait_for_checks(&second, 4).await;
    assert_eq!(history.steps(), []);

    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    history.expect_steps(&[Some(fixture.ips(&[1, 2]))]).await;
}

async fn a_takeover_after_sigkill_takes_17_seconds_and_writes_nothing() {
    let mut fixture = Fixture::new("sigkill").await;
    let (mut first, second) = pair(&fixture).await;
    let history = fixture.history().await;
    let killed = Instant::now();
    first.kill();
    takes_over(&second).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(17), "took {took:?}");
    // It was renewed at most 2 s before, and the other replica goes by its own clock.
    assert!(took > Duration::from_secs(12), "took only {took:?}");
    fixture.expect_condition(&second, "Published").await;
    wait_for_checks(&second, 4).await;
    assert_eq!(history.steps(), []);
    // A replica that was killed and starts again has another identity, and stands by.
    let third = standby(&fixture).await;
    assert_ne!(identity(&third).await, identity(&second).await);

    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    history.expect_steps(&[Some(fixture.ips(&[1, 2]))]).await;
}

async fn in_steady_state_there_are_only_renewals() {
    let fixture = Fixture::new("renewals").await;
    let (first, second) = pair(&fixture).await;
    let (history, renewals) = (fixture.history().await, LeaseHistory::start(&fixture).await);
    let begun = Instant::now();
    consistently(STEADY, "no Endpoints are written", async || {
        let steps = history.steps();
        if steps.is_empty() { Ok(()) } else { Err(format!("{steps:?}")) }
    })
    .await;
    wait_for_checks(&first, 2).await;
    wait_for_checks(&second, 2).await;
    let (changes, most) = (renewals.changes(), begun.elapsed().as_secs() / 2 + 1);
    assert!(
        (1..=most).contains(&(changes.len() as u64)),
        "{} renewals, and not {most}",
        changes.len()
    );
    let but_the_time = |lease: &LeaseSpec| LeaseSpec { renew_time: None, ..lease.clone() };
    let held = identity(&first).await;
    for change in &changes {
        assert_eq!(change.holder_identity.as_ref(), Some(&held));
        assert_eq!(
            but_the_time(change),
            but_the_time(&changes[0]),
            "nothing but the time of renewal changes"
        );
    }
    assert_eq!(history.steps(), [], "nor at the end");
}

async fn one_of_several_replicas_leads() {
    let fixture = Fixture::new("at-once").await;
    let replicas = futures::future::join_all((0..3).map(|_| replica(&fixture))).await;
    let leaders = async || {
        let mut leaders = 0;
        for replica in &replicas {
            leaders += usize::from(leads(replica).await);
        }
        leaders
    };
    eventually(TIMEOUT, "one leads", async || leaders().await == 1).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    consistently(Duration::from_secs(3), "one leads", async || leaders().await == 1).await;
    let mut wrote = 0;
    for replica in &replicas {
        wrote += usize::from(writes(replica).await > 0.0);
    }
    assert_eq!(wrote, 1, "only one has written");
}

/// Resumes a holder with an old decision: it does not know yet that a database is dead.
async fn a_holder_that_was_stopped_writes_nothing_when_it_resumes() {
    let mut fixture = Fixture::new("stopped").await;
    let (first, second) = pair(&fixture).await;
    let history = fixture.history().await;
    let before = writes(&first).await;
    first.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    takes_over(&second).await;
    assert!(stopped.elapsed() > Duration::from_secs(10), "{:?}", stopped.elapsed());
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;

    first.signal(Signal::SIGCONT);
    fixture.expect_condition_with(&first, "Standby", "is held by").await;
    up(&first, 2.0).await;
    fixture.expect_condition_with(&first, "Standby", "the cluster holds").await;
    wait_for_checks(&first, 8).await;
    assert_eq!(writes(&first).await, before, "not one write of its own");
    history.expect_steps(&[Some(fixture.ips(&[1, 2]))]).await;
    // The other replica has counted each change in the cluster since then.
    let succeeded =
        second.metric("external_endpoints_writes_total", &[("result", "success")]).await;
    assert_eq!(succeeded, Some(history.steps().len() as f64));
    assert_eq!(first.status().await["lease"]["held"], false);
}

/// Delays a write of the old holder until the new one has written. The API refuses it for the
/// version that it carries.
async fn a_write_in_flight_is_refused_once_another_has_written() {
    let mut fixture = Fixture::new("on-its-way").await;
    let proxy = ApiProxy::start(shared()).await;
    let first = replica_at(&fixture, &proxy.kubeconfig()).await;
    let first = published(&fixture, first).await;
    let second = standby(&fixture).await;
    let history = fixture.history().await;
    let before = writes(&first).await;
    proxy.hang();
    fixture.databases[0].stop().await;
    // It has begun to write, and has had no answer.
    eventually(TIMEOUT, "the holder has begun to write", async || writes(&first).await > before)
        .await;
    first.signal(Signal::SIGSTOP);
    takes_over(&second).await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.databases[0].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // Now all delayed calls arrive.
    proxy.heal().await;
    first.signal(Signal::SIGCONT);
    fixture.expect_condition_with(&first, "Standby", "the cluster holds").await;
    wait_for_checks(&first, 8).await;
    history.expect_steps(&[Some(fixture.ips(&[1, 2])), Some(fixture.ips(&[0, 1, 2]))]).await;
}

async fn a_holder_keeps_the_lease_while_the_api_is_away_for_a_moment() {
    let fixture = Fixture::new("moment").await;
    let proxy = ApiProxy::start(shared()).await;
    let first = replica_at(&fixture, &proxy.kubeconfig()).await;
    let first = published(&fixture, first).await;
    let second = standby(&fixture).await;
    let before = lease(&fixture).await.expect("a Lease");
    proxy.hang();
    let tells = "the lease could not be renewed; trying again";
    eventually(TIMEOUT, "a renewal fails", async || {
        first.logs().iter().any(|line| log_field(line, "message") == Some(tells))
    })
    .await;
    assert!(leads(&first).await, "it has some seconds left");
    proxy.heal().await;
    let after = eventually(TIMEOUT, "it is renewed", async || {
        lease(&fixture).await.filter(|lease| lease.renew_time != before.renew_time)
    })
    .await;
    assert_eq!(LeaseSpec { renew_time: None, ..after }, LeaseSpec { renew_time: None, ..before });
    assert!(leads(&first).await && !leads(&second).await);
}

async fn a_holder_without_the_api_stops_before_another_begins() {
    let mut fixture = Fixture::new("away").await;
    let proxy = ApiProxy::start(shared()).await;
    let first = replica_at(&fixture, &proxy.kubeconfig()).await;
    let first = published(&fixture, first).await;
    let second = standby(&fixture).await;
    let history = fixture.history().await;
    proxy.refuse().await;
    eventually(LONG_TIMEOUT, "it no longer leads", async || !leads(&first).await).await;
    assert!(!leads(&second).await, "nobody leads for some seconds");
    takes_over(&second).await;
    assert!(!leads(&first).await);
    let trouble = first.status().await["lease"]["trouble"].as_str().unwrap_or_default().to_owned();
    assert!(trouble.contains("refused"), "{trouble}");
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    up(&first, 2.0).await;
    fixture.databases[0].restart().await;
    proxy.heal().await;
    fixture.expect_condition_with(&first, "Standby", "is held by").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    wait_for_checks(&first, 4).await;
    history.expect_steps(&[Some(fixture.ips(&[1, 2])), Some(fixture.ips(&[0, 1, 2]))]).await;
    assert!(!leads(&first).await && leads(&second).await);
}

async fn a_lease_that_is_deleted_stays_with_its_holder() {
    let fixture = Fixture::new("deleted").await;
    let (first, second) = pair(&fixture).await;
    fixture.namespace.delete::<Lease>(LEASE).await;
    let me = identity(&first).await;
    eventually(TIMEOUT, "it is created again", async || {
        assert!(!leads(&second).await, "the holder keeps it");
        lease(&fixture).await.is_some_and(|lease| lease.holder_identity.as_ref() == Some(&me))
    })
    .await;
    wait_for_checks(&second, 4).await;
    assert!(leads(&first).await && !leads(&second).await);
}

/// Checks the answers of a real API that acquiring and renewing rest on.
async fn a_lease_is_created_or_changed_only_as_it_was_observed() {
    let namespace = shared().namespace("facts").await;
    let api: Api<Lease> = namespace.api();
    let put = async |lease: &Lease| api.replace(LEASE, &PostParams::default(), lease).await;
    let new = |holder: &str| -> Lease {
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15});
        let metadata = json!({"name": LEASE, "namespace": namespace.name});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Lease")
    };
    let refused = |answer: kube::Result<Lease>, codes: &[u16]| match answer {
        Err(kube::Error::Api(status)) => assert!(codes.contains(&status.code), "{status}"),
        other => panic!("not refused: {other:?}"),
    };
    let held = put(&new("a")).await.expect("a replace that creates");
    refused(put(&new("b")).await, &[422]);
    let renewed = put(&held).await.map(|same| same.metadata.resource_version);
    assert_eq!(
        renewed.expect("on its version"),
        held.metadata.resource_version,
        "it changes nothing"
    );
    let mut b = held.clone();
    b.spec.as_mut().expect("a spec").holder_identity = Some("b".into());
    let taken = put(&b).await.expect("on its version");
    refused(put(&held).await, &[409]);
    // Released, and then deleted.
    let mut free = taken.clone();
    free.spec.as_mut().expect("a spec").holder_identity = None;
    put(&free).await.expect("nobody may hold it");
    namespace.delete::<Lease>(LEASE).await;
    refused(put(&taken).await, &[404, 409]);
    // Of several that create it at once, one succeeds.
    let made =
        futures::future::join_all(["a", "b", "c", "d"].map(async |who| put(&new(who)).await)).await;
    assert_eq!(made.iter().filter(|answer| answer.is_ok()).count(), 1, "{made:#?}");
    for answer in made.into_iter().filter(Result::is_err) {
        refused(answer, &[409, 422]);
    }
}

/// Creates a placeholder late. It carries no version, and needs none.
async fn a_late_create_changes_nothing() {
    let namespace = shared().namespace("facts").await;
    let api: Api<Endpoints> = namespace.api();
    let create = async || {
        let blank = Patch::Apply(endpoints::placeholder(&namespace.name, "mysql"));
        api.patch("mysql", &PatchParams::apply("external-endpoints-create"), &blank)
            .await
            .expect("an apply")
    };
    let blank = create().await;
    let member = Member { ip: addresses::allocate_one(), hostname: None };
    let members: Members = [member].into_iter().collect();
    let port = EndpointPort { port: 3306, protocol: Some("TCP".into()), ..Default::default() };
    let endpoints = endpoints::build(
        &blank.metadata,
        &members,
        std::slice::from_ref(&port),
        endpoints::Mirror::Yes,
    );
    let apply = PatchParams::apply("external-endpoints").force();
    let filled = api.patch("mysql", &apply, &Patch::Apply(endpoints)).await.expect("filled");
    let after = create().await;
    assert_eq!(after.metadata.resource_version, filled.metadata.resource_version);
    assert!(endpoints::matches(&after, &members, &[port], endpoints::Mirror::Yes), "{after:?}");
}

async fn without_leader_election_there_is_no_lease() {
    let fixture = Fixture::new("alone").await;
    // The daemons of the tests have no Lease unless a case asks for one.
    let daemon = fixture.start_published().await;
    assert!(leads(&daemon).await);
    assert!(daemon.status().await["lease"].is_null());
    let leases: Api<Lease> = fixture.namespace.api();
    assert!(leases.list(&ListParams::default()).await.expect("a list").items.is_empty());
    let elsewhere: Api<Lease> = Api::namespaced(fixture.namespace.client.clone(), "default");
    assert!(elsewhere.get_opt(LEASE).await.expect("an answer").is_none());
}
