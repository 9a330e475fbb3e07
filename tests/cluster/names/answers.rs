//! Answers of every shape: aliases, many addresses, odd TTLs, and both families.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use libtest_mimic::Trial;
use serde_json::json;

use super::fixture::{
    NAME, TTL, at, expect_checks, expect_metric, expect_queries, expect_resolved, ips, lines_with,
    name_server, start, yaml,
};
use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::name_server::Reply;
use crate::support::{Database, addresses, case::cases, consistently, eventually};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        an_alias_that_moves_is_followed,
        an_odd_ttl_is_followed_all_the_same,
        one_write_for_each_answer_that_changes,
        a_hundred_addresses_and_no_more_are_followed,
        both_families_of_a_name_are_published,
    ]
}

/// Follows a name like those of RDS: an alias that points to the standby after a failover.
async fn an_alias_that_moves_is_followed() {
    let fixture = Fixture::new("dns-alias").await;
    let dns = name_server().await;
    let hosts = ["ip-0.corp.example", "ip-1.corp.example"];
    dns.set(hosts[0], Reply::Addresses(ips(&fixture, &[0]), 300));
    dns.set(hosts[1], Reply::Addresses(ips(&fixture, &[1]), 300));
    dns.set("middle.corp.example", Reply::Alias(hosts[0].to_owned(), TTL));
    dns.set(NAME, Reply::Alias("middle.corp.example".to_owned(), 300));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    let history = fixture.history().await;
    // Without the records of the target, which is asked for then. Its address is the same.
    dns.set("middle.corp.example", Reply::BareAlias(hosts[0].to_owned(), TTL));
    expect_queries(&dns, hosts[0], 2).await;
    expect_checks(&daemon, 4.0).await;
    assert_eq!(history.steps(), []);
    dns.set("middle.corp.example", Reply::Alias(hosts[1].to_owned(), TTL));
    fixture.expect_endpoints(&[1]).await;
    history.expect_steps(&[Some(fixture.ips(&[1]))]).await;
}

async fn an_odd_ttl_is_followed_all_the_same() {
    let fixture = Fixture::new("dns-ttl").await;
    let dns = name_server().await;
    dns.set(NAME, Reply::Addresses(ips(&fixture, &[0]), 0));
    let daemon = start(&dns, &yaml(&fixture, NAME, "  dns: {refresh: 2s}\n")).await;
    fixture.expect_endpoints(&[0]).await;
    let before = dns.count(NAME);
    consistently(Duration::from_secs(3), "once a second", async || dns.count(NAME) < before + 5)
        .await;
    // A week, and one with the top bit set: it is asked again after `refresh`.
    for (to, ttl) in [(1, 604_800), (2, 0x8000_0001), (0, u32::MAX)] {
        dns.set(NAME, Reply::Addresses(ips(&fixture, &[to]), ttl));
        fixture.expect_endpoints(&[to]).await;
    }
    expect_resolved(&daemon, NAME, 1.0).await;
}

async fn one_write_for_each_answer_that_changes() {
    let fixture = Fixture::new("dns-sets").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1, 2]));
    let _daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    let mut steps = Vec::new();
    for which in [&[0, 1][..], &[2], &[0, 2], &[0, 1, 2]] {
        dns.set(NAME, at(&fixture, which));
        fixture.expect_endpoints(which).await;
        steps.push(Some(fixture.ips(which)));
        history.expect_steps(&steps).await;
    }
}

async fn a_hundred_addresses_and_no_more_are_followed() {
    let namespace = crate::support::shared().namespace("dns-many").await;
    namespace.create_service("mysql", &[("", 3306)]).await;
    let mut databases = Vec::new();
    let mut all: Vec<IpAddr> = addresses::allocate(105);
    for ip in &all {
        databases.push(Database::start(*ip, 3306).await);
    }
    all.sort();
    let dns = name_server().await;
    // Too many for UDP, so that they come over TCP.
    dns.set(NAME, Reply::Addresses(all[..65].to_vec(), TTL));
    let fixture = Fixture { namespace, databases };
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    let published = async |wanted: &[IpAddr]| {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        eventually(TIMEOUT, &format!("{} addresses", wanted.len()), async || {
            let there = fixture.namespace.endpoint_ips("mysql").await;
            if there == wanted { Ok(()) } else { Err(format!("{}: {there:?}", there.len())) }
        })
        .await;
    };
    published(&all[..65]).await;
    // Those that are targets stay before others: the highest are known.
    dns.set(NAME, Reply::Addresses(all[5..].to_vec(), TTL));
    published(&all[5..]).await;
    let history = fixture.history().await;
    dns.set(NAME, Reply::Addresses(all.clone(), TTL));
    expect_queries(&dns, NAME, 4).await;
    expect_checks(&daemon, 200.0).await;
    assert_eq!(history.steps(), []);
    assert_eq!(lines_with(&daemon, &["too many addresses"]), 1, "told once: {:#?}", daemon.lines());
}

async fn both_families_of_a_name_are_published() {
    let fixture = Fixture::without_service("dns-dual").await;
    let spec = json!({"ports": [{"port": 3306}], "ipFamilyPolicy": "RequireDualStack"});
    let service = json!({"metadata": {"name": "mysql"}, "spec": spec});
    fixture.namespace.create_object::<Service>(service).await;
    let six = addresses::allocate_v6(1)[0];
    let _six = Database::start(six, 3306).await;
    let dns = name_server().await;
    let four = fixture.databases[0].ip;
    dns.set(NAME, Reply::Addresses(vec![four, six], TTL));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    let published = async |wanted: &[IpAddr]| {
        let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        wanted.sort();
        eventually(TIMEOUT, &format!("{wanted:?}"), async || {
            let mut there = fixture.namespace.endpoint_ips("mysql").await;
            there.sort();
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    };
    published(&[four, six]).await;
    // One family is unknown: it stays as it is, and the other one is followed.
    let moved = Reply::Addresses(ips(&fixture, &[1]), TTL);
    dns.set(NAME, Reply::ByFamily(Box::new(moved.clone()), Box::new(Reply::Code(2))));
    published(&[fixture.databases[1].ip, six]).await;
    // It has no record any more: its address leaves in exchange for the other family's.
    dns.set(NAME, Reply::ByFamily(Box::new(moved), Box::new(Reply::NoRecords)));
    published(&[fixture.databases[1].ip]).await;
    // A broken server says that there is no such name, for the family that it lacks.
    let back = Reply::Addresses(vec![six], TTL);
    dns.set(NAME, Reply::ByFamily(Box::new(Reply::NoSuchName), Box::new(back)));
    published(&[six]).await;
    expect_metric(&daemon, "name_resolved", &[("name", NAME)], Some(1.0)).await;
}
