//! Names that move: the new address comes in one write with the leaving of the old one, and only
//! when it is Up.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::fixture::{
    NAME, TTL, assert_within, at, expect_checks, expect_metric, expect_queries, ips, name_server,
    start, start_published, steps_beside, yaml,
};
use crate::cluster::events::expect_event;
use crate::cluster::fixture::{Fixture, History, TIMEOUT, config};
use crate::support::name_server::{NameServer, Reply};
use crate::support::traffic::connect;
use crate::support::{
    ConnectOutcome, CoreDns, Daemon, Traffic, case::cases, consistently, eventually, shared,
};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        a_primary_that_moves_is_followed_within_ttl_and_a_check,
        the_same_through_a_cluster_s_coredns,
        a_move_to_who_does_not_answer_keeps_the_old_one,
        an_old_address_that_dies_leaves,
        a_move_back_before_the_new_one_was_up_changes_nothing,
        an_exchanged_address_does_not_return_by_itself,
        a_writer_that_moves_is_never_doubled,
        another_address_every_second_keeps_nothing_dead,
        a_failing_target_has_its_name_asked_at_once,
        a_minimum_is_kept_by_the_departed_that_was_up_longest,
    ]
}

/// The longest time from a move to the write, after the TTL that the daemon was told: a check of
/// an address that answers, and a second.
const CHECK_AND_WRITE: Duration = Duration::from_secs(2);

/// Starts connections to the Service, once kube-proxy routes them.
async fn traffic(fixture: &Fixture) -> Traffic {
    let ip = fixture.namespace.cluster_ip("mysql").await;
    eventually(TIMEOUT, "the Service answers", async || {
        matches!(connect(ip, 3306).await, ConnectOutcome::Reached(_))
    })
    .await;
    Traffic::start(ip, 3306, Duration::from_millis(50))
}

#[track_caller]
fn assert_none_lost(traffic: &Traffic) {
    let tally = traffic.tally_all();
    let is_lost = |outcome: &ConnectOutcome| !matches!(outcome, ConnectOutcome::Reached(_));
    assert!(!tally.keys().any(is_lost), "{tally:?}");
}

/// Moves the name from one database to the next, and checks the time and the writes of each move.
async fn follow_moves(fixture: &Fixture, dns: &NameServer, history: &History, told_ttl: Duration) {
    let mut steps = Vec::new();
    for to in [1, 2, 0] {
        let moved = Instant::now();
        dns.set(NAME, at(fixture, &[to]));
        fixture.expect_endpoints(&[to]).await;
        assert_within(told_ttl + CHECK_AND_WRITE, moved, "the move");
        steps.push(Some(fixture.ips(&[to])));
        history.expect_steps(&steps).await;
    }
}

async fn a_primary_that_moves_is_followed_within_ttl_and_a_check() {
    let fixture = Fixture::new("dns-moves").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0]));
    // A new address is checked at once, however rarely the others are.
    let rarely = "{tcp: {}, interval: 10s, timeout: 1s}";
    let daemon = start(&dns, &config(&fixture.namespace.name, NAME, rarely, "")).await;
    fixture.expect_endpoints(&[0]).await;
    let (history, traffic) = (fixture.history().await, traffic(&fixture).await);
    follow_moves(&fixture, &dns, &history, Duration::from_secs(TTL.into())).await;
    assert_none_lost(&traffic);
    expect_event(&fixture.namespace, "AddressesChanged", NAME).await;
    // The old addresses are no targets any more.
    expect_metric(&daemon, "target_healthy", &[], Some(1.0)).await;
}

/// Moves a name behind CoreDNS, which tells a TTL of 1 s as 5 s and keeps the answer for as long.
async fn the_same_through_a_cluster_s_coredns() {
    let fixture = Fixture::new("dns-coredns").await;
    let dns = name_server().await;
    let coredns = CoreDns::start(dns.address.ip()).await;
    dns.set(NAME, at(&fixture, &[0]));
    let server = coredns.ip.to_string();
    let arguments = ["--dns-server", server.as_str()];
    let daemon = Daemon::start(&yaml(&fixture, NAME, ""), &shared().kubeconfig(), &arguments).await;
    fixture.expect_endpoints(&[0]).await;
    let (history, traffic) = (fixture.history().await, traffic(&fixture).await);
    follow_moves(&fixture, &dns, &history, Duration::from_secs(5)).await;
    assert_none_lost(&traffic);
    expect_metric(&daemon, "name_changes_total", &[("name", NAME)], Some(3.0)).await;
}

async fn a_move_to_who_does_not_answer_keeps_the_old_one() {
    let mut fixture = Fixture::new("dns-keeps").await;
    let dns = name_server().await;
    let daemon = start_published(&fixture, &dns, &[0], "").await;
    let (history, traffic) = (fixture.history().await, traffic(&fixture).await);
    fixture.databases[1].stop().await;
    dns.set(NAME, at(&fixture, &[1]));
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], Some(1.0)).await;
    expect_checks(&daemon, 20.0).await;
    expect_event(&fixture.namespace, "AddressKept", &fixture.ips(&[0])[0]).await;
    assert_eq!(history.steps(), []);

    let started = Instant::now();
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[1]).await;
    // A new address that is Down is tried each second.
    assert_within(Duration::from_secs(1) + CHECK_AND_WRITE, started, "the exchange");
    history.expect_steps(&[Some(fixture.ips(&[1]))]).await;
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], None).await;
    assert_none_lost(&traffic);
}

async fn an_old_address_that_dies_leaves() {
    let mut fixture = Fixture::new("dns-old-dies").await;
    let dns = name_server().await;
    let daemon = start_published(&fixture, &dns, &[0, 2], "").await;
    let history = fixture.history().await;
    fixture.databases[1].stop().await;
    dns.set(NAME, at(&fixture, &[1]));
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], Some(2.0)).await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[2]).await;
    // DNS does not give it any more, so it is dropped and does not come back.
    fixture.databases[0].restart().await;
    expect_checks(&daemon, 10.0).await;
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[1]).await;
    history.expect_steps(&[Some(fixture.ips(&[2])), Some(fixture.ips(&[1]))]).await;
}

async fn a_move_back_before_the_new_one_was_up_changes_nothing() {
    let mut fixture = Fixture::new("dns-back").await;
    let dns = name_server().await;
    let daemon = start_published(&fixture, &dns, &[0], "").await;
    let history = fixture.history().await;
    fixture.databases[1].stop().await;
    dns.set(NAME, at(&fixture, &[1]));
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], Some(1.0)).await;
    dns.set(NAME, at(&fixture, &[0]));
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], None).await;
    expect_metric(&daemon, "target_healthy", &[], Some(1.0)).await;
    fixture.databases[1].restart().await;
    expect_checks(&daemon, 8.0).await;
    assert_eq!(history.steps(), []);
}

async fn an_exchanged_address_does_not_return_by_itself() {
    let mut fixture = Fixture::new("dns-exchanged").await;
    let dns = name_server().await;
    let daemon = start_published(&fixture, &dns, &[0], "").await;
    let history = fixture.history().await;
    dns.set(NAME, at(&fixture, &[1]));
    fixture.expect_endpoints(&[1]).await;
    // The next one does not answer, and the present one dies. The first one is well, and DNS does
    // not give it.
    fixture.databases[2].stop().await;
    dns.set(NAME, at(&fixture, &[2]));
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], Some(1.0)).await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[]).await;
    expect_checks(&daemon, 4.0).await;
    history.expect_steps(&[Some(fixture.ips(&[1])), Some(Vec::new())]).await;
    // Only an answer that has it again brings it back.
    dns.set(NAME, at(&fixture, &[0]));
    fixture.expect_endpoints(&[0]).await;
}

async fn a_writer_that_moves_is_never_doubled() {
    let fixture = Fixture::new("dns-writer").await;
    let dns = name_server().await;
    let daemon = start_published(&fixture, &dns, &[0], "  policy: {exactlyOne: true}\n").await;
    let (history, traffic) = (fixture.history().await, traffic(&fixture).await);
    for to in [1, 2, 0] {
        dns.set(NAME, at(&fixture, &[to]));
        fixture.expect_endpoints(&[to]).await;
    }
    // Faster than the daemon asks, and for longer than any TTL.
    let mut to = 0;
    consistently(Duration::from_secs(6), "one is published", async || {
        to = (to + 1) % 3;
        dns.set(NAME, at(&fixture, &[to]));
        let others = steps_beside(&history, &fixture, &[&[0], &[1], &[2]]);
        if others.is_empty() { Ok(()) } else { Err(format!("{others:?}")) }
    })
    .await;
    dns.set(NAME, at(&fixture, &[1]));
    fixture.expect_endpoints(&[1]).await;
    assert_eq!(steps_beside(&history, &fixture, &[&[0], &[1], &[2]]), []);
    assert_none_lost(&traffic);

    // Two that DNS gives at the same time are a split brain: the published one stays.
    dns.set(NAME, at(&fixture, &[1, 2]));
    expect_metric(&daemon, "split_brain", &[("service", "mysql")], Some(1.0)).await;
    let before = history.steps().len();
    expect_checks(&daemon, 8.0).await;
    assert_eq!(history.steps().len(), before);
    // It ends when DNS names the writer.
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[2]).await;
}

async fn another_address_every_second_keeps_nothing_dead() {
    let mut fixture = Fixture::new("dns-churn").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[1]));
    let addresses = format!("{}, {NAME}", fixture.databases[0].ip);
    // An address of no machine has no verdict before the next answer comes.
    let patient = "{tcp: {}, interval: 250ms, timeout: 20s}";
    let daemon = start(&dns, &config(&fixture.namespace.name, &addresses, patient, "")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    let churn = (100..200).map(|host| vec![[192, 0, 2, host].into()]).collect();
    dns.set(NAME, Reply::Turns(churn, 0));
    expect_queries(&dns, NAME, 3).await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1]).await;
    fixture.databases[0].restart().await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0]).await;
    // The last one leaves as well.
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[]).await;
    history
        .expect_steps(&[
            Some(fixture.ips(&[1])),
            Some(fixture.ips(&[0, 1])),
            Some(fixture.ips(&[0])),
            Some(Vec::new()),
        ])
        .await;
    // A later answer that is well serves.
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[2]).await;
    drop(daemon);
}

/// Follows a failover by DNS although the TTL is far longer than this case.
async fn a_failing_target_has_its_name_asked_at_once() {
    let mut fixture = Fixture::new("dns-hurry").await;
    let dns = name_server().await;
    dns.set(NAME, Reply::Addresses(ips(&fixture, &[0]), 3600));
    let _daemon = start(&dns, &yaml(&fixture, NAME, "  dns: {refresh: 1h}\n")).await;
    fixture.expect_endpoints(&[0]).await;
    let asked = dns.count(NAME);
    let history = fixture.history().await;
    consistently(Duration::from_secs(3), "it is not asked", async || dns.count(NAME) == asked)
        .await;
    dns.set(NAME, Reply::Addresses(ips(&fixture, &[1]), 3600));
    let died = Instant::now();
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1]).await;
    assert_within(Duration::from_secs(8), died, "the failover");
    history.expect_last_step(&fixture.ips(&[1])).await;
}

async fn a_minimum_is_kept_by_the_departed_that_was_up_longest() {
    let mut fixture = Fixture::new("dns-minimum").await;
    fixture.databases[1].stop().await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1]));
    let yaml = yaml(&fixture, NAME, "  policy: {minHealthy: 2}\n");
    let daemon = start(&dns, &yaml).await;
    fixture.expect_endpoints(&[0]).await;
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[0, 2]).await;
    expect_checks(&daemon, 8.0).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
}
