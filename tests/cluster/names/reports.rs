//! The words about names: nothing in steady state, and no series that outlives its address.

use std::time::Duration;

use libtest_mimic::Trial;

use super::fixture::{
    NAME, TTL, at, expect_checks, expect_metric, expect_queries, expect_resolved, ips, name_server,
    start, yaml,
};
use super::rotating::in_turns;
use crate::cluster::fixture::{CHECK, Fixture, History, database};
use crate::cluster::reload::{edit, expect_published};
use crate::support::name_server::Reply;
use crate::support::{case::cases, consistently};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        steady_state_for_a_minute,
        no_series_outlives_an_address,
        the_page_says_why_an_address_stays,
    ]
}

async fn steady_state_for_a_minute() {
    let fixture = Fixture::without_service("dns-steady").await;
    let dns = name_server().await;
    let (rotating, service, alias) =
        ("ro.corp.example", "_mysql._tcp.corp.example", "alias.corp.example");
    dns.set(NAME, at(&fixture, &[0, 1]));
    dns.set(rotating, in_turns(&fixture, &[0, 1, 2]));
    dns.set(service, Reply::Services(vec![(0, 0, 3306, NAME.to_owned())], TTL));
    dns.set(alias, Reply::Alias(NAME.to_owned(), TTL));
    let namespace = &fixture.namespace.name;
    let services = [
        ("plain", format!("[{NAME}, {}]", fixture.databases[2].ip), &[0, 1, 2][..]),
        ("reader", format!("[{{address: {rotating}, dns: {{rotating: true}}}}]"), &[0, 1, 2]),
        ("service", format!("[{service}]"), &[0, 1]),
        ("alias", format!("[{alias}]"), &[0, 1]),
    ];
    let mut yaml = format!("defaults: {{namespace: {namespace}, check: {CHECK}}}\ndatabases:\n");
    for (service, addresses, _) in &services {
        fixture.namespace.create_service(service, &[("", 3306)]).await;
        yaml += &format!("- {{service: {service}, port: 3306, addresses: {addresses}}}\n");
    }
    let daemon = start(&dns, &yaml).await;
    let mut histories = Vec::new();
    for (service, _, which) in &services {
        expect_published(&fixture, service, which).await;
        histories.push(History::start(&fixture.namespace, service).await);
    }
    // The last news are told.
    expect_queries(&dns, rotating, 6).await;
    let (asked, lines) = (dns.total(), daemon.lines().len());
    consistently(Duration::from_secs(60), "nothing is written and nothing logged", async || {
        let steps: Vec<_> = histories.iter().flat_map(History::steps).collect();
        let news = &daemon.lines()[lines..];
        if steps.is_empty() && news.is_empty() {
            Ok(())
        } else {
            Err(format!("{steps:?} {news:?}"))
        }
    })
    .await;
    let asked = dns.total() - asked;
    assert!((150..700).contains(&asked), "{asked} queries in a minute");
}

async fn no_series_outlives_an_address() {
    let fixture = Fixture::new("dns-series").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1]));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let old = fixture.ips(&[0, 1]);
    let all = |text: &str| old.iter().filter(|ip| text.contains(&format!("\"{ip}\""))).count();
    assert_eq!(all(&daemon.metrics().await), 2);
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[2]).await;
    expect_metric(&daemon, "target_healthy", &[], Some(1.0)).await;
    let metrics = daemon.metrics().await;
    assert_eq!(all(&metrics), 0, "{metrics}");
    expect_metric(&daemon, "targets", &[], Some(1.0)).await;
    expect_metric(&daemon, "configured_addresses", &[], Some(1.0)).await;
    // The name leaves the config, and its series go as well.
    edit(&daemon, &fixture.config());
    fixture.expect_endpoints(&[0, 1, 2]).await;
    expect_metric(&daemon, "name_resolved", &[], None).await;
    let metrics = daemon.metrics().await;
    assert!(!metrics.contains(NAME), "{metrics}");
}

async fn the_page_says_why_an_address_stays() {
    let mut fixture = Fixture::new("dns-page").await;
    let dns = name_server().await;
    dns.set(NAME, Reply::Alias("ip-0.corp.example".to_owned(), TTL));
    dns.set("ip-0.corp.example", Reply::Addresses(ips(&fixture, &[0]), TTL));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    let status = database(&daemon.status().await);
    let name = &status["names"][0];
    assert_eq!(name["name"], NAME, "{status:#}");
    assert!(name.to_string().contains("ip-0.corp.example"), "aliases: {name:#}");
    assert_eq!(status["targets"][0]["name"], NAME, "{status:#}");
    fixture.databases[1].stop().await;
    dns.set("ip-0.corp.example", Reply::Addresses(ips(&fixture, &[1]), TTL));
    expect_metric(&daemon, "name_kept_addresses", &[("name", NAME)], Some(1.0)).await;
    expect_checks(&daemon, 4.0).await;
    let status = database(&daemon.status().await);
    let why = format!("{} stays: DNS no longer gives it for {NAME}", fixture.ips(&[0])[0]);
    assert!(status["policy"].to_string().contains(&why), "why it stays: {status:#}");
    expect_resolved(&daemon, NAME, 1.0).await;
}
