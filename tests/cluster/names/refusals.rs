//! Addresses of answers that may not be published: they are refused before they are targets.

use libtest_mimic::Trial;

use super::fixture::{
    NAME, TTL, at, expect_checks, expect_metric, expect_queries, expect_resolved, ips, lines_with,
    name_server, start, start_with, yaml,
};
use crate::cluster::events::expect_event;
use crate::cluster::fixture::{Fixture, config, database};
use crate::cluster::reload::edit;
use crate::support::name_server::Reply;
use crate::support::{Behavior, Database, case::cases};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        refused_answers_are_never_connected_to,
        a_name_that_leads_back_to_its_own_service_is_refused,
        a_name_that_moves_outside_of_what_is_allowed_stays,
        a_narrower_within_takes_an_address_away_at_once,
    ]
}

/// Addresses that no Service may lead to: of the host itself, of a link, of a cloud's metadata, and
/// the same behind a translation to IPv6.
const REFUSED: [&str; 12] = [
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "::1",
    "fe80::1",
    "::ffff:127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "fd00:ec2::254",
];

/// A check that databases notice: the usual one ends before the handshake does.
const NOTICED: &str = "{tcp: {accept: true}, interval: 250ms, timeout: 1s}";

async fn refused_answers_are_never_connected_to() {
    let fixture = Fixture::new("dns-refused").await;
    let dns = name_server().await;
    // Only this case uses the loopback address.
    let local = [
        Database::start_with([127, 0, 0, 1].into(), 3306, Behavior::Greet).await,
        Database::start_with("::1".parse().expect("an IP"), 3306, Behavior::Greet).await,
    ];
    let of_all = Reply::addresses(REFUSED, TTL);
    let Reply::Addresses(mut refused, _) = of_all.clone() else { unreachable!("addresses") };
    refused.extend(ips(&fixture, &[0, 1]));
    dns.set(NAME, Reply::Addresses(refused, TTL));
    let more = "  dns: {families: [IPv4, IPv6]}\n";
    let daemon = start(&dns, &config(&fixture.namespace.name, NAME, NOTICED, more)).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    // The name moves to them altogether: the last good addresses stay.
    dns.set(NAME, of_all);
    expect_resolved(&daemon, NAME, 0.0).await;
    expect_queries(&dns, NAME, 2).await;
    expect_checks(&daemon, 12.0).await;
    assert_eq!(history.steps(), []);
    expect_event(&fixture.namespace, "AddressRefused", "169.254.169.254").await;
    let status = database(&daemon.status().await);
    let name = status["names"][0]["refused"].to_string();
    for refused in REFUSED {
        assert!(name.contains(&format!("\"{refused}\"")), "{refused}: {name}");
        assert!(lines_with(&daemon, &[refused]) >= 1, "{refused}: {:#?}", daemon.lines());
    }
    for database in &local {
        assert_eq!(database.accept_count(), 0, "{} was checked", database.ip);
    }
    let targets = database(&daemon.status().await)["targets"].as_array().map(Vec::len);
    assert_eq!(targets, Some(2), "none of them is a target");
    assert!(fixture.databases[0].accept_count() > 0, "checks that databases count");
}

async fn a_name_that_leads_back_to_its_own_service_is_refused() {
    let fixture = Fixture::new("dns-itself").await;
    let dns = name_server().await;
    let cluster_ip = fixture.namespace.cluster_ip("mysql").await;
    let mut both = ips(&fixture, &[0]);
    both.push(cluster_ip);
    dns.set(NAME, Reply::Addresses(both, TTL));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    let history = fixture.history().await;
    expect_event(&fixture.namespace, "AddressRefused", "is this Service's own address").await;
    expect_queries(&dns, NAME, 3).await;
    expect_checks(&daemon, 4.0).await;
    assert_eq!(history.steps(), []);
}

async fn a_name_that_moves_outside_of_what_is_allowed_stays() {
    let fixture = Fixture::new("dns-within").await;
    let networks: Vec<String> = fixture.ips(&[0, 1]).iter().map(|ip| format!("{ip}/32")).collect();
    let within = format!("  dns: {{within: [{}]}}\n", networks.join(", "));
    let allow: Vec<String> = networks.iter().map(|it| format!("--allow-cidr={it}")).collect();
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    for (more, arguments) in [(within.as_str(), &[][..]), ("", &allow)] {
        let dns = name_server().await;
        dns.set(NAME, at(&fixture, &[0, 2]));
        let yaml = config(&fixture.namespace.name, NAME, NOTICED, more);
        let daemon = start_with(&dns, &yaml, arguments).await;
        fixture.expect_endpoints(&[0]).await;
        let history = fixture.history().await;
        dns.set(NAME, at(&fixture, &[2]));
        expect_resolved(&daemon, NAME, 0.0).await;
        expect_checks(&daemon, 8.0).await;
        assert_eq!(history.steps(), []);
        assert_eq!(fixture.databases[2].accept_count(), 0, "it was checked");
        dns.set(NAME, at(&fixture, &[1]));
        fixture.expect_endpoints(&[1]).await;
        history.expect_steps(&[Some(fixture.ips(&[1]))]).await;
    }
}

async fn a_narrower_within_takes_an_address_away_at_once() {
    let fixture = Fixture::new("dns-narrower").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1, 2]));
    let daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let networks: Vec<String> = fixture.ips(&[0, 1]).iter().map(|ip| format!("{ip}/32")).collect();
    let more = format!("  dns: {{within: [{}]}}\n", networks.join(", "));
    let history = fixture.history().await;
    edit(&daemon, &yaml(&fixture, NAME, &more));
    fixture.expect_endpoints(&[0, 1]).await;
    expect_metric(&daemon, "target_healthy", &[], Some(2.0)).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1]))]).await;
}
