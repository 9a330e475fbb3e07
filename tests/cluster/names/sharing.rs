//! Addresses and names that are in several places: two names with one address, an entry and a name
//! with one address, one name in two databases, and a name in maintenance.

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::fixture::{
    NAME, TTL, at, expect_checks, expect_metric, expect_queries, name_server, start, yaml,
};
use crate::cluster::fixture::{Fixture, databases_of, replace_in};
use crate::cluster::reload::{edit, expect_published};
use crate::support::case::cases;
use crate::support::name_server::Reply;

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        two_names_with_one_address_are_one_target,
        an_entry_owns_its_address_whatever_dns_does,
        one_name_in_two_databases_is_asked_once,
        a_name_in_maintenance_takes_all_its_addresses_out,
        hostname_and_priority_are_those_of_the_entry,
    ]
}

const OTHER: &str = "other.corp.example";

async fn two_names_with_one_address_are_one_target() {
    let fixture = Fixture::new("dns-shared").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1]));
    dns.set(OTHER, at(&fixture, &[1, 2]));
    let daemon = start(&dns, &yaml(&fixture, &format!("{NAME}, {OTHER}"), "")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    expect_metric(&daemon, "target_healthy", &[], Some(3.0)).await;
    let history = fixture.history().await;
    // The first name leaves it, and the second has it: no gap.
    dns.set(NAME, at(&fixture, &[0]));
    expect_queries(&dns, NAME, 3).await;
    expect_checks(&daemon, 9.0).await;
    assert_eq!(history.steps(), []);
    // The second one leaves it too.
    dns.set(OTHER, at(&fixture, &[2]));
    fixture.expect_endpoints(&[0, 2]).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
}

async fn an_entry_owns_its_address_whatever_dns_does() {
    let fixture = Fixture::new("dns-entry").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1]));
    let addresses = format!("{NAME}, {}", fixture.databases[0].ip);
    let daemon = start(&dns, &yaml(&fixture, &addresses, "")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    // The name moves: its own old address leaves in exchange, and that of the entry stays.
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[0, 2]).await;
    // The entry goes while the name has its address again: the name owns it, without a gap.
    dns.set(NAME, at(&fixture, &[0, 2]));
    expect_queries(&dns, NAME, 3).await;
    edit(&daemon, &yaml(&fixture, NAME, ""));
    expect_checks(&daemon, 8.0).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
    dns.set(NAME, at(&fixture, &[2]));
    fixture.expect_endpoints(&[2]).await;
}

async fn one_name_in_two_databases_is_asked_once() {
    let fixture = Fixture::new("dns-twice").await;
    fixture.namespace.create_service("mysql-2", &[("", 3306)]).await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0]));
    let first = yaml(&fixture, NAME, "");
    let second = replace_in(databases_of(&first), "service: mysql", "service: mysql-2");
    let _daemon = start(&dns, &format!("{first}{second}")).await;
    expect_published(&fixture, "mysql", &[0]).await;
    expect_published(&fixture, "mysql-2", &[0]).await;
    dns.take_queries();
    dns.set(NAME, at(&fixture, &[1]));
    expect_published(&fixture, "mysql", &[1]).await;
    expect_published(&fixture, "mysql-2", &[1]).await;
    expect_queries(&dns, NAME, 4).await;
    let queries = dns.take_queries();
    let closest = queries.windows(2).map(|pair| pair[1].at - pair[0].at).min().expect("queries");
    assert!(closest.as_millis() > 700, "asked twice within {closest:?}: {queries:?}");
}

async fn annotate(fixture: &Fixture, value: Value) {
    let patch = json!({"metadata": {"annotations": {"external-endpoints/maintenance": value}}});
    let api = fixture.namespace.api::<Service>();
    api.patch("mysql", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
}

async fn a_name_in_maintenance_takes_all_its_addresses_out() {
    let fixture = Fixture::new("dns-maintenance").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0, 1]));
    dns.set(OTHER, at(&fixture, &[2]));
    let _daemon = start(&dns, &yaml(&fixture, &format!("{NAME}, {OTHER}"), "")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    annotate(&fixture, json!(format!("{NAME}=disk swap, in both"))).await;
    fixture.expect_endpoints(&[2]).await;
    // Also those that it has later.
    dns.set(NAME, at(&fixture, &[0]));
    expect_queries(&dns, NAME, 3).await;
    fixture.expect_endpoints(&[2]).await;
    annotate(&fixture, Value::Null).await;
    fixture.expect_endpoints(&[0, 2]).await;
    // One address of a name.
    annotate(&fixture, json!(format!("{}=disk swap", fixture.ips(&[0])[0]))).await;
    fixture.expect_endpoints(&[2]).await;
}

async fn hostname_and_priority_are_those_of_the_entry() {
    let mut fixture = Fixture::new("dns-attributes").await;
    let dns = name_server().await;
    dns.set(NAME, Reply::Addresses(super::fixture::ips(&fixture, &[0, 1]), TTL));
    dns.set(OTHER, at(&fixture, &[2]));
    let entries = format!(
        "{{address: {NAME}, hostname: db}}, {{address: {OTHER}, priority: 1, hostname: spare}}"
    );
    let _daemon = start(&dns, &yaml(&fixture, &entries, "")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let endpoints = fixture.namespace.endpoints("mysql").await.expect("Endpoints");
    let addresses = endpoints.subsets.into_iter().flatten().flat_map(|it| it.addresses);
    let hostnames: Vec<Option<String>> = addresses.flatten().map(|it| it.hostname).collect();
    assert_eq!(hostnames, [Some("db".to_owned()), Some("db".to_owned())]);
    fixture.databases[0].stop().await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[2]).await;
}
