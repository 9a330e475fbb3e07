//! Refused addresses: they are never published, even if they were published before, and they do not
//! delay other addresses.

use std::net::IpAddr;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::fixture::{
    CHECK, Fixture, TIMEOUT, config, database, replace_in, wait_for_checks,
};
use crate::cluster::ownership::merge;
use crate::support::{Daemon, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        bad_addresses_are_refused_and_the_others_published,
        outside_the_allow_list_nothing_is_published_or_checked,
        a_refused_address_is_removed_before_any_verdict,
        a_database_with_only_refused_addresses_is_not_changed,
    ]
}

fn refused(status: &Value) -> Vec<String> {
    let refused = database(status)["refused"].as_array().cloned().unwrap_or_default();
    refused.iter().map(|one| one["address"].as_str().expect("an address").to_owned()).collect()
}

async fn counted(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(&format!("external_endpoints_{name}"), &[]).await.expect("a gauge")
}

async fn bad_addresses_are_refused_and_the_others_published() {
    let fixture = Fixture::new("bad").await;
    let bad = [
        "127.0.0.1",
        "169.254.1.2",
        "224.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::ffff:10.20.0.11",
    ];
    let quoted = bad.map(|ip| format!("'{ip}'")).join(", ");
    let ips = format!("{}, {quoted}", fixture.ips(&[0, 1, 2]).join(", "));
    let yaml = config(&fixture.namespace.name, &ips, CHECK, "");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let status = daemon.status().await;
    assert_eq!(refused(&status), bad);
    assert_eq!(database(&status)["targets"].as_array().map(Vec::len), Some(3));
    assert_eq!(counted(&daemon, "refused_addresses").await, 6.0);
    assert_eq!(counted(&daemon, "configured_addresses").await, 9.0);
    for ip in bad {
        let said =
            daemon.lines().iter().filter(|line| line.contains(&format!("`{ip}` is "))).count();
        assert_eq!(said, 1, "{ip}: {:#?}", daemon.lines());
    }
}

/// Returns the flags that allow all databases of the fixture except the last.
fn allowed(fixture: &Fixture) -> [String; 2] {
    let ips = fixture.ips(&[0, 1]);
    [format!("--allow-cidr={}/32", ips[0]), format!("--allow-cidr={}/32", ips[1])]
}

async fn outside_the_allow_list_nothing_is_published_or_checked() {
    let fixture = Fixture::new("outside").await;
    let before = fixture.start_published().await;
    drop(before);
    let history = fixture.history().await;
    let [first, second] = allowed(&fixture);
    let yaml = replace_in(&fixture.config(), "tcp: {}", "tcp: {accept: true}");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[&first, &second]).await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.expect_condition(&daemon, "Published").await;
    // An address that a person adds by hand is removed again.
    let ips: Vec<IpAddr> = fixture.databases.iter().map(|database| database.ip).collect();
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let subsets = json!([{"addresses": addresses, "ports": [{"port": 3306}]}]);
    merge(&fixture, json!({"subsets": subsets})).await;
    history
        .expect_steps(&[
            Some(fixture.ips(&[0, 1])),
            Some(fixture.ips(&[0, 1, 2])),
            Some(fixture.ips(&[0, 1])),
        ])
        .await;
    wait_for_checks(&daemon, 5).await;
    assert!(fixture.databases[0].accept_count() > 0, "checks that databases count");
    assert_eq!(fixture.databases[2].accept_count(), 0, "it was checked");
    assert_eq!(refused(&daemon.status().await), fixture.ips(&[2]));
    assert_eq!(counted(&daemon, "refused_addresses").await, 1.0);
    let ip = &fixture.ips(&[2])[0];
    let said = format!("{ip} is outside of what --allow-cidr allows");
    assert!(daemon.lines().iter().any(|line| line.contains(&said)), "{:#?}", daemon.lines());
}

async fn a_refused_address_is_removed_before_any_verdict() {
    let fixture = Fixture::new("before").await;
    let before = fixture.start_published().await;
    drop(before);
    let history = fixture.history().await;
    let [first, second] = allowed(&fixture);
    // An address that is not published has a check that runs for longer than this case, so that
    // there is no plan.
    let more = crate::support::addresses::allocate_one();
    let ips = format!(
        "{}, {{address: {more}, check: {{exec: {{command: [/bin/sleep, '60']}}}}}}",
        fixture.ips(&[0, 1, 2]).join(", ")
    );
    let yaml = config(
        &fixture.namespace.name,
        &ips,
        "{exec: {command: [/bin/sleep, '60']}, interval: 60s, timeout: 60s}",
        "",
    );
    let also = format!("--allow-cidr={more}/32");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[&first, &second, &also]).await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.expect_condition(&daemon, "WaitingForVerdicts").await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1]))]).await;
}

async fn a_database_with_only_refused_addresses_is_not_changed() {
    let fixture = Fixture::new("all").await;
    let before = fixture.start_published().await;
    drop(before);
    let history = fixture.history().await;
    let [first, second] = allowed(&fixture);
    let yaml = config(&fixture.namespace.name, &fixture.ips(&[2]).join(", "), CHECK, "");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[&first, &second]).await;
    let reason = fixture.expect_condition(&daemon, "AddressesRefused").await;
    assert!(reason.contains("--allow-cidr"), "{reason}");
    eventually(TIMEOUT, "it is ready", async || daemon.get("/readyz").await.0 == 200).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1]))]).await;
}
