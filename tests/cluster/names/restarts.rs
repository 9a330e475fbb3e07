//! Starts and reloads: neither a restart nor a change between IPs and their name writes anything.

use std::time::Duration;

use libtest_mimic::Trial;

use super::fixture::{
    NAME, at, expect_checks, expect_metric, expect_queries, expect_resolved, name_server, start,
    start_published, steps_beside, yaml,
};
use crate::cluster::fixture::Fixture;
use crate::cluster::reload::edit;
use crate::support::name_server::Reply;
use crate::support::{case::cases, eventually};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        a_restart_without_dns_changes_nothing_and_checks,
        a_restart_while_dns_says_no_such_name_changes_nothing,
        after_a_restart_all_names_must_resolve_before_one_leaves,
        from_ips_to_their_name_and_back_writes_nothing,
        from_ips_to_a_name_that_does_not_resolve_keeps_them,
        a_name_that_leaves_the_config_takes_its_addresses_away,
    ]
}

async fn a_restart_without_dns_changes_nothing_and_checks() {
    let mut fixture = Fixture::new("dns-restart").await;
    let dns = name_server().await;
    drop(start_published(&fixture, &dns, &[0, 1, 2], "").await);
    dns.fail_all(Reply::Silence);
    let history = fixture.history().await;
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    expect_metric(&daemon, "target_healthy", &[], Some(3.0)).await;
    expect_resolved(&daemon, NAME, 0.0).await;
    expect_checks(&daemon, 20.0).await;
    fixture.expect_condition(&daemon, "Published").await;
    assert_eq!(history.steps(), []);
    // It is checked, and leaves by its check alone.
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0, 2]).await;
    expect_checks(&daemon, 20.0).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
    // It comes back by its check alone as well.
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // DNS is back, and gives one of them.
    dns.set(NAME, at(&fixture, &[1]));
    dns.recover();
    let patience = Duration::from_secs(60);
    eventually(patience, "the newest answer is published", async || {
        fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[1])
    })
    .await;
    history
        .expect_steps(&[
            Some(fixture.ips(&[0, 2])),
            Some(fixture.ips(&[0, 1, 2])),
            Some(fixture.ips(&[1])),
        ])
        .await;
}

async fn a_restart_while_dns_says_no_such_name_changes_nothing() {
    let fixture = Fixture::new("dns-restart-nx").await;
    let dns = name_server().await;
    drop(start_published(&fixture, &dns, &[0, 1], "").await);
    for reply in [Reply::NoSuchName, Reply::NoRecords, Reply::Code(2)] {
        dns.set(NAME, reply);
        let history = fixture.history().await;
        let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
        expect_metric(&daemon, "target_healthy", &[], Some(2.0)).await;
        expect_resolved(&daemon, NAME, 0.0).await;
        expect_checks(&daemon, 12.0).await;
        assert_eq!(history.steps(), []);
    }
}

/// Restarts, after which nobody knows which name an address came from.
async fn after_a_restart_all_names_must_resolve_before_one_leaves() {
    let fixture = Fixture::new("dns-adopts").await;
    let dns = name_server().await;
    let other = "other.corp.example";
    dns.set(NAME, at(&fixture, &[0]));
    dns.set(other, at(&fixture, &[1]));
    let yaml = yaml(&fixture, &format!("{NAME}, {other}"), "");
    let before = start(&dns, &yaml).await;
    fixture.expect_endpoints(&[0, 1]).await;
    drop(before);
    let history = fixture.history().await;
    dns.set(other, Reply::Code(2));
    let daemon = start(&dns, &yaml).await;
    expect_resolved(&daemon, NAME, 1.0).await;
    expect_resolved(&daemon, other, 0.0).await;
    expect_metric(&daemon, "target_healthy", &[], Some(2.0)).await;
    expect_checks(&daemon, 12.0).await;
    assert_eq!(history.steps(), [], "the address of the name that does not resolve stays");
    dns.set(other, at(&fixture, &[2]));
    eventually(Duration::from_secs(60), "all names have resolved", async || {
        fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[0, 2])
    })
    .await;
    // The address that no name gives leaves in exchange for any that one gives.
    let between = steps_beside(&history, &fixture, &[&[0], &[0, 2]]);
    assert_eq!(between, []);
}

async fn from_ips_to_their_name_and_back_writes_nothing() {
    let fixture = Fixture::new("dns-replace").await;
    let dns = name_server().await;
    // The first question takes a while, so that a decision before it would be seen.
    dns.set(NAME, at(&fixture, &[0, 1, 2]).late(Duration::from_millis(400)));
    let by_ips = fixture.config();
    let by_name = yaml(&fixture, NAME, "");
    let daemon = start(&dns, &by_ips).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    for _ in 0..2 {
        edit(&daemon, &by_name);
        expect_resolved(&daemon, NAME, 1.0).await;
        expect_checks(&daemon, 12.0).await;
        fixture.expect_condition(&daemon, "Published").await;
        edit(&daemon, &by_ips);
        expect_metric(&daemon, "name_resolved", &[], None).await;
        expect_checks(&daemon, 12.0).await;
        fixture.expect_condition(&daemon, "Published").await;
    }
    assert_eq!(history.steps(), []);
    let logged =
        |message: &str| daemon.logs().iter().filter(|line| line["message"] == message).count();
    assert_eq!(logged("target is up"), 3, "health goes on: {:#?}", daemon.lines());
}

async fn from_ips_to_a_name_that_does_not_resolve_keeps_them() {
    let mut fixture = Fixture::new("dns-replace-nx").await;
    let dns = name_server().await;
    let daemon = start(&dns, &fixture.config()).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    edit(&daemon, &yaml(&fixture, NAME, ""));
    expect_resolved(&daemon, NAME, 0.0).await;
    expect_checks(&daemon, 12.0).await;
    assert_eq!(history.steps(), []);
    fixture.databases[2].stop().await;
    fixture.expect_endpoints(&[0, 1]).await;
}

async fn a_name_that_leaves_the_config_takes_its_addresses_away() {
    let fixture = Fixture::new("dns-removed").await;
    let dns = name_server().await;
    let other = "other.corp.example";
    dns.set(NAME, at(&fixture, &[0, 1]));
    dns.set(other, at(&fixture, &[1, 2]));
    let daemon = start(&dns, &yaml(&fixture, &format!("{NAME}, {other}"), "")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    edit(&daemon, &yaml(&fixture, other, ""));
    fixture.expect_endpoints(&[1, 2]).await;
    history.expect_steps(&[Some(fixture.ips(&[1, 2]))]).await;
    let asked = dns.count(NAME);
    expect_queries(&dns, other, 3).await;
    assert!(dns.count(NAME) <= asked + 1, "it is still asked");
}
