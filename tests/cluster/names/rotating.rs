//! Names that give a part of their addresses with each answer, as the reader endpoint of Aurora.

use std::time::Duration;

use libtest_mimic::Trial;

use super::fixture::{
    NAME, TTL, at, expect_checks, expect_metric, expect_queries, expect_resolved, ips, name_server,
    start, yaml,
};
use crate::cluster::events::{events, expect_event};
use crate::cluster::fixture::Fixture;
use crate::support::name_server::{NameServer, Reply};
use crate::support::{Daemon, Database, addresses, case::cases, consistently};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        a_reader_endpoint_is_all_its_replicas,
        rotating_answers_survive_a_restart,
        undeclared_rotation_is_reported_and_never_empty,
    ]
}

/// The key for names that give a part of their addresses with each answer.
pub(crate) const ROTATING: &str = "  dns: {rotating: true}\n";

/// Returns the reply that gives one of these databases after the other.
pub(crate) fn in_turns(fixture: &Fixture, which: &[usize]) -> Reply {
    Reply::Turns(ips(fixture, which).into_iter().map(|ip| vec![ip]).collect(), TTL)
}

/// Starts the daemon with a rotating name, once all of its databases are published.
async fn start_rotating(fixture: &Fixture, dns: &NameServer) -> Daemon {
    let all: Vec<usize> = (0..fixture.databases.len()).collect();
    dns.set(NAME, in_turns(fixture, &all));
    let daemon = start(dns, &yaml(fixture, NAME, ROTATING)).await;
    fixture.expect_endpoints(&all).await;
    daemon
}

async fn a_reader_endpoint_is_all_its_replicas() {
    let mut fixture = Fixture::new("dns-reader").await;
    for ip in addresses::allocate(3) {
        fixture.databases.push(Database::start(ip, 3306).await);
    }
    let dns = name_server().await;
    let daemon = start_rotating(&fixture, &dns).await;
    let history = fixture.history().await;
    expect_queries(&dns, NAME, 12).await;
    assert_eq!(history.steps(), [], "none comes or goes");
    expect_metric(&daemon, "name_kept_addresses", &[], None).await;
    // A replica dies, and comes back.
    fixture.databases[4].stop().await;
    fixture.expect_endpoints(&[0, 1, 2, 3, 5]).await;
    fixture.databases[4].restart().await;
    fixture.expect_endpoints(&[0, 1, 2, 3, 4, 5]).await;
    history.expect_last_step(&fixture.ips(&[0, 1, 2, 3, 4, 5])).await;
    assert_eq!(history.steps().len(), 2);
    assert!(events(&fixture.namespace, "AddressesChanged").await.is_empty(), "it always changes");
}

async fn rotating_answers_survive_a_restart() {
    let fixture = Fixture::new("dns-turns").await;
    let dns = name_server().await;
    drop(start_rotating(&fixture, &dns).await);
    let history = fixture.history().await;
    let daemon = start(&dns, &yaml(&fixture, NAME, ROTATING)).await;
    expect_resolved(&daemon, NAME, 1.0).await;
    expect_metric(&daemon, "target_healthy", &[], Some(3.0)).await;
    expect_queries(&dns, NAME, 5).await;
    expect_checks(&daemon, 12.0).await;
    assert_eq!(history.steps(), []);
    // Also when DNS fails at the start, and when it then gives one replica only.
    drop(daemon);
    dns.fail_all(Reply::Silence);
    let daemon = start(&dns, &yaml(&fixture, NAME, ROTATING)).await;
    expect_metric(&daemon, "target_healthy", &[], Some(3.0)).await;
    dns.recover();
    dns.set(NAME, at(&fixture, &[2]));
    expect_resolved(&daemon, NAME, 1.0).await;
    expect_queries(&dns, NAME, 5).await;
    expect_checks(&daemon, 12.0).await;
    assert_eq!(history.steps(), []);
}

/// Leaves `rotating` out: one replica at a time serves, and people are told what to set.
async fn undeclared_rotation_is_reported_and_never_empty() {
    let fixture = Fixture::new("dns-undeclared").await;
    let dns = name_server().await;
    dns.set(NAME, in_turns(&fixture, &[0, 1, 2]));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_condition(&daemon, "Published").await;
    let history = fixture.history().await;
    consistently(Duration::from_secs(12), "one serves at any time", async || {
        let steps = history.steps();
        let wrong = |step: &Option<Vec<String>>| step.as_ref().map(Vec::len) != Some(1);
        if steps.iter().any(wrong) { Err(format!("{steps:?}")) } else { Ok(()) }
    })
    .await;
    assert!(history.steps().len() >= 4, "{:?}", history.steps());
    expect_event(&fixture.namespace, "NameRotates", "rotating: true").await;
}
