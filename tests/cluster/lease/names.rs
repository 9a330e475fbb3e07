//! A takeover by a replica that has seen other answers than the leader.

use libtest_mimic::Trial;

use super::replicas::{LEASE, leads, takes_over};
use crate::cluster::fixture::Fixture;
use crate::cluster::names::fixture::{
    NAME, expect_checks, expect_metric, expect_queries, expect_resolved, name_server, start_with,
    yaml,
};
use crate::cluster::names::rotating::{ROTATING, in_turns};
use crate::support::case::cases;

pub(super) fn cases() -> Vec<Trial> {
    cases![in lease: a_takeover_with_rotating_answers_writes_nothing]
}

async fn a_takeover_with_rotating_answers_writes_nothing() {
    let mut fixture = Fixture::new("dns-takeover").await;
    let (of_first, of_second) = (name_server().await, name_server().await);
    of_first.set(NAME, in_turns(&fixture, &[0, 1, 2]));
    // The standby's answers never have the last replica.
    of_second.set(NAME, in_turns(&fixture, &[0, 1]));
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    let (yaml, lease) = (yaml(&fixture, NAME, ROTATING), ["--lease", lease.as_str()]);
    let mut first = start_with(&of_first, &yaml, &lease).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    assert!(leads(&first).await);
    let second = start_with(&of_second, &yaml, &lease).await;
    fixture.expect_condition_with(&second, "Standby", "the cluster holds").await;
    expect_resolved(&second, NAME, 1.0).await;
    expect_metric(&second, "target_healthy", &[], Some(3.0)).await;
    // It knows a replica as well that the leader publishes while it stands by.
    fixture.databases[2].stop().await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.databases[2].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    expect_metric(&second, "target_healthy", &[], Some(3.0)).await;

    let history = fixture.history().await;
    first.kill();
    takes_over(&second).await;
    fixture.expect_condition(&second, "Published").await;
    expect_queries(&of_second, NAME, 5).await;
    expect_checks(&second, 12.0).await;
    assert_eq!(history.steps(), []);
    fixture.databases[2].stop().await;
    fixture.expect_endpoints(&[0, 1]).await;
}
