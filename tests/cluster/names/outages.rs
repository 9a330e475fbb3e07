//! DNS that fails: nothing leaves because of it, and checks go on.

use std::time::Duration;

use libtest_mimic::Trial;

use super::fixture::{
    NAME, TTL, at, expect_checks, expect_metric, expect_resolved, ips, lines_with, name_server,
    start, start_published, yaml,
};
use crate::cluster::events::{events, expect_event};
use crate::cluster::fixture::{CHECK, Fixture, History, TIMEOUT};
use crate::cluster::lease::replicas::LEASE;
use crate::cluster::reload::expect_published;
use crate::support::name_server::{NameServer, Reply};
use crate::support::{Daemon, case::cases, consistently, eventually, shared};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        no_answer_takes_nothing_away,
        who_dies_in_a_dns_outage_leaves,
        a_name_that_never_resolves_holds_nobody_up,
        a_database_of_unresolved_names_writes_nothing,
        a_dead_name_server_is_one_event_and_one_line,
        a_refusing_server_is_no_answer_while_another_answers,
    ]
}

/// Longer than any TTL of these cases.
const OUTAGE: Duration = Duration::from_secs(10);

/// Returns the ways in which DNS gives no address that may be published, each with the name of a
/// Service.
fn failures() -> Vec<(&'static str, Reply)> {
    let loopback = Reply::addresses(["127.0.0.1", "::1"], TTL);
    let noise: Vec<u8> =
        (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        ("nxdomain", Reply::NoSuchName),
        ("nxdomain-soa", Reply::NoSuchNameWithSoa(1)),
        ("nodata", Reply::NoRecords),
        ("servfail", Reply::Code(2)),
        ("refused", Reply::Code(5)),
        ("silence", Reply::Silence),
        ("garbage", Reply::Garbage(noise)),
        ("truncated", Reply::TruncatedWithoutTcp),
        ("loopback", loopback),
        ("circle", Reply::Alias("circle.corp.example".to_owned(), TTL)),
        ("no-service", Reply::BareAlias("nowhere.corp.example".to_owned(), TTL)),
    ]
}

async fn no_answer_takes_nothing_away() {
    let fixture = Fixture::without_service("dns-fails").await;
    let dns = name_server().await;
    let failures = failures();
    let host = |service: &str| format!("{service}.corp.example");
    let namespace = &fixture.namespace.name;
    let mut yaml = format!("defaults: {{namespace: {namespace}, check: {CHECK}}}\ndatabases:\n");
    for (service, _) in &failures {
        fixture.namespace.create_service(service, &[("", 3306)]).await;
        dns.set(&host(service), at(&fixture, &[0, 1]));
        let name = host(service);
        yaml += &format!("- {{service: {service}, port: 3306, addresses: [{name}]}}\n");
    }
    let daemon = start(&dns, &yaml).await;
    let mut histories = Vec::new();
    for (service, _) in &failures {
        expect_published(&fixture, service, &[0, 1]).await;
        histories.push((*service, History::start(&fixture.namespace, service).await));
    }
    for (service, reply) in &failures {
        dns.set(&host(service), reply.clone());
    }
    for (service, _) in &failures {
        expect_resolved(&daemon, &host(service), 0.0).await;
    }
    consistently(OUTAGE, "nothing leaves", async || {
        let changed = histories.iter().find(|(_, history)| !history.steps().is_empty());
        changed
            .map_or(Ok(()), |(service, history)| Err(format!("{service}: {:?}", history.steps())))
    })
    .await;
    expect_checks(&daemon, 100.0).await;

    // News arrive again, at the latest after the longest pause between two questions.
    for (service, _) in &failures {
        dns.set(&host(service), at(&fixture, &[2]));
    }
    for (service, history) in &histories {
        let wanted = [Some(fixture.ips(&[2]))];
        eventually(Duration::from_secs(60), &format!("{service} is followed"), async || {
            if history.steps() == wanted { Ok(()) } else { Err(format!("{:?}", history.steps())) }
        })
        .await;
    }
}

async fn who_dies_in_a_dns_outage_leaves() {
    let mut fixture = Fixture::new("dns-away").await;
    let dns = name_server().await;
    let daemon = start_published(&fixture, &dns, &[0, 1, 2], "").await;
    let history = fixture.history().await;
    dns.fail_all(Reply::Silence);
    expect_resolved(&daemon, NAME, 0.0).await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0, 2]).await;
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.databases[2].black_hole().await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.databases[2].restore().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    expect_resolved(&daemon, NAME, 0.0).await;
    history
        .expect_steps(&[
            Some(fixture.ips(&[0, 2])),
            Some(fixture.ips(&[0, 1, 2])),
            Some(fixture.ips(&[0, 1])),
            Some(fixture.ips(&[0, 1, 2])),
        ])
        .await;
}

async fn a_name_that_never_resolves_holds_nobody_up() {
    let mut fixture = Fixture::new("dns-typo").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[1]));
    dns.set("silent.corp.example", Reply::Silence);
    let addresses =
        format!("typo.corp.example, silent.corp.example, {}, {NAME}", fixture.databases[0].ip);
    let daemon = start(&dns, &yaml(&fixture, &addresses, "")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.expect_condition(&daemon, "Published").await;
    expect_resolved(&daemon, "typo.corp.example", 0.0).await;
    expect_resolved(&daemon, "silent.corp.example", 0.0).await;
    // The others are decided as if it were not there.
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1]).await;
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[2]).await;
    expect_event(&fixture.namespace, "NameUnresolved", "typo.corp.example").await;
    // It is followed as soon as it resolves, without a restart.
    fixture.databases[0].restart().await;
    dns.set("typo.corp.example", at(&fixture, &[0]));
    eventually(Duration::from_secs(60), "the typo is corrected", async || {
        fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[0, 2])
    })
    .await;
    expect_event(&fixture.namespace, "NameResolved", "typo.corp.example").await;
}

async fn a_database_of_unresolved_names_writes_nothing() {
    let fixture = Fixture::new("dns-waits").await;
    let dns = name_server().await;
    dns.set("other.corp.example", Reply::Code(2));
    let daemon = start(&dns, &yaml(&fixture, &format!("{NAME}, other.corp.example"), "")).await;
    let reason = fixture.expect_condition(&daemon, "WaitingForNames").await;
    assert!(reason.contains(NAME), "{reason}");
    eventually(TIMEOUT, "it is ready", async || daemon.get("/readyz").await.0 == 200).await;
    let writes = daemon.metric("external_endpoints_writes_total", &[]).await.unwrap_or_default();
    assert_eq!(writes, 0.0);
    assert_eq!(fixture.namespace.endpoints("mysql").await, None);
    dns.set(NAME, at(&fixture, &[0]));
    fixture.expect_endpoints(&[0]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

/// Reports an outage of DNS once, and not for each of the names.
async fn a_dead_name_server_is_one_event_and_one_line() {
    const NAMES: usize = 20;
    let fixture = Fixture::new("dns-dead").await;
    let mut dns = name_server().await;
    let names: Vec<String> = (0..NAMES).map(|n| format!("db-{n}.corp.example")).collect();
    for name in &names {
        dns.set(name, at(&fixture, &[0, 1, 2]));
    }
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    let daemon = with_lease(&dns, &yaml(&fixture, &names.join(", "), ""), &lease).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    for name in &names {
        expect_resolved(&daemon, name, 1.0).await;
    }
    let history = fixture.history().await;
    dns.close().await;
    expect_event(&fixture.namespace, "DnsUnavailable", "their addresses stay").await;
    consistently(OUTAGE, "nothing leaves", async || history.steps().is_empty()).await;
    expect_metric(&daemon, "name_resolved", &[], Some(0.0)).await;
    assert_eq!(lines_with(&daemon, &["their addresses stay"]), 1, "{:#?}", daemon.lines());
    assert_eq!(lines_with(&daemon, &["does not resolve"]), 0, "{:#?}", daemon.lines());
    assert_eq!(events(&fixture.namespace, "NameUnresolved").await.len(), 0);
    dns.reopen().await;
    eventually(Duration::from_secs(60), "DNS is back", async || {
        !events(&fixture.namespace, "DnsAvailable").await.is_empty()
    })
    .await;
    assert_eq!(history.steps(), []);
}

async fn with_lease(dns: &NameServer, yaml: &str, lease: &str) -> Daemon {
    super::fixture::start_with(dns, yaml, &["--lease", lease]).await
}

/// Fails with a resolver that takes the fastest word for an answer.
async fn a_refusing_server_is_no_answer_while_another_answers() {
    let fixture = Fixture::new("dns-two").await;
    let (hasty, right) = (name_server().await, name_server().await);
    hasty.fail_all(Reply::Code(5));
    let answer = |which: &[usize]| {
        Reply::Addresses(ips(&fixture, which), TTL).late(Duration::from_millis(20))
    };
    right.set(NAME, answer(&[0]));
    let servers = [hasty.address.ip().to_string(), right.address.ip().to_string()];
    let arguments = ["--dns-server", &servers[0], "--dns-server", &servers[1]];
    let daemon = Daemon::start(&yaml(&fixture, NAME, ""), &shared().kubeconfig(), &arguments).await;
    fixture.expect_endpoints(&[0]).await;
    expect_resolved(&daemon, NAME, 1.0).await;
    for reply in [Reply::Code(2), Reply::Silence] {
        hasty.fail_all(reply);
        for to in [1, 0] {
            right.set(NAME, answer(&[to]));
            fixture.expect_endpoints(&[to]).await;
        }
    }
    expect_resolved(&daemon, NAME, 1.0).await;
}
