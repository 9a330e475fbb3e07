//! SRV records: their priorities are tiers, and only what fits the database is followed.

use libtest_mimic::Trial;

use super::fixture::{
    TTL, at, expect_checks, expect_metric, expect_queries, expect_resolved, name_server, start,
    yaml,
};
use crate::cluster::fixture::Fixture;
use crate::support::case::cases;
use crate::support::name_server::{NameServer, Reply};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        priorities_of_srv_records_are_tiers,
        srv_records_that_do_not_fit_are_left_out,
        no_answer_for_an_srv_name_takes_nothing_away,
    ]
}

const SERVICE: &str = "_mysql._tcp.corp.example";

/// Gives each database a name, `db-0.corp.example` and so on.
fn name_databases(fixture: &Fixture, dns: &NameServer) {
    for index in 0..fixture.databases.len() {
        dns.set(&host(index), at(fixture, &[index]));
    }
}

fn host(index: usize) -> String {
    format!("db-{index}.corp.example")
}

/// Returns the reply with these records: a priority, a port and a target each.
fn records(records: &[(u16, u16, &str)]) -> Reply {
    let records = records.iter();
    Reply::Services(
        records.map(|(priority, port, host)| (*priority, 5, *port, (*host).to_owned())).collect(),
        TTL,
    )
}

async fn priorities_of_srv_records_are_tiers() {
    let mut fixture = Fixture::new("dns-srv").await;
    let dns = name_server().await;
    name_databases(&fixture, &dns);
    let (zero, one, two) = (host(0), host(1), host(2));
    dns.set(SERVICE, records(&[(10, 3306, &zero), (10, 3306, &one), (70, 3306, &two)]));
    let daemon = start(&dns, &yaml(&fixture, SERVICE, "  policy: {failback: {delay: 0s}}\n")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1]).await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[2]).await;
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[1]).await;
    history
        .expect_steps(&[Some(fixture.ips(&[1])), Some(fixture.ips(&[2])), Some(fixture.ips(&[1]))])
        .await;
    // A target moves, and the tiers change places.
    fixture.databases[0].restart().await;
    fixture.expect_endpoints(&[0, 1]).await;
    dns.set(SERVICE, records(&[(10, 3306, &two), (20, 3306, &one)]));
    fixture.expect_endpoints(&[2]).await;
    expect_resolved(&daemon, SERVICE, 1.0).await;
}

async fn srv_records_that_do_not_fit_are_left_out() {
    let fixture = Fixture::new("dns-srv-left").await;
    let dns = name_server().await;
    name_databases(&fixture, &dns);
    dns.set("db.elsewhere.example", at(&fixture, &[2]));
    let (zero, one) = (host(0), host(1));
    dns.set(
        SERVICE,
        records(&[(0, 3306, &zero), (0, 3307, &one), (0, 3306, "db.elsewhere.example")]),
    );
    let daemon = start(&dns, &yaml(&fixture, SERVICE, "")).await;
    fixture.expect_endpoints(&[0]).await;
    let history = fixture.history().await;
    expect_queries(&dns, SERVICE, 3).await;
    expect_checks(&daemon, 4.0).await;
    assert_eq!(history.steps(), []);
    let page = daemon.status().await.to_string();
    for skipped in ["3307", "db.elsewhere.example"] {
        assert!(page.contains(skipped), "the page does not say why {skipped} is left out: {page}");
    }
}

async fn no_answer_for_an_srv_name_takes_nothing_away() {
    let fixture = Fixture::new("dns-srv-fails").await;
    let dns = name_server().await;
    name_databases(&fixture, &dns);
    let (zero, one) = (host(0), host(1));
    dns.set(SERVICE, records(&[(0, 3306, &zero), (0, 3306, &one)]));
    let daemon = start(&dns, &yaml(&fixture, SERVICE, "")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    let no_service = records(&[(0, 0, "")]);
    for reply in [Reply::NoSuchName, Reply::Code(2), Reply::NoRecords, no_service] {
        dns.set(SERVICE, reply);
        expect_resolved(&daemon, SERVICE, 0.0).await;
        expect_checks(&daemon, 8.0).await;
        dns.set(SERVICE, records(&[(0, 3306, &zero), (0, 3306, &one)]));
        expect_resolved(&daemon, SERVICE, 1.0).await;
    }
    history.expect_steps(&[]).await;
    // Of one target nothing is known: the other one is news all the same. It comes with the write
    // in which the old one leaves, or right after it, because the second target is up throughout.
    dns.set(&one, Reply::Code(2));
    dns.set(&zero, at(&fixture, &[2]));
    fixture.expect_endpoints(&[1, 2]).await;
    expect_checks(&daemon, 8.0).await;
    history.expect_last_step(&fixture.ips(&[1, 2])).await;
    let steps = history.steps();
    let (new, between) = (Some(fixture.ips(&[1, 2])), Some(fixture.ips(&[1])));
    assert!(steps == [new.clone()] || steps == [between, new], "{steps:?}");
    expect_metric(&daemon, "target_healthy", &[], Some(2.0)).await;
}
