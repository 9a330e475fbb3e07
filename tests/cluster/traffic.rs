//! Client traffic through kube-proxy: connections leave a database that died, and return when it
//! does.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::{ConnectOutcome, Traffic, case::cases, consistently, eventually};

pub(crate) fn cases() -> Vec<Trial> {
    cases![connections_leave_a_dead_database, connections_leave_a_black_hole]
}

async fn traffic(fixture: &Fixture) -> Traffic {
    let traffic = Traffic::start(
        fixture.namespace.cluster_ip("mysql").await,
        3306,
        Duration::from_millis(50),
    );
    for database in &fixture.databases {
        reached(&traffic, database.ip).await;
    }
    traffic
}

async fn reached(traffic: &Traffic, ip: IpAddr) {
    let from = Instant::now();
    eventually(TIMEOUT, &format!("{ip} gets connections"), async || {
        traffic.tally_since(from).contains_key(&ConnectOutcome::Reached(ip))
    })
    .await;
}

/// Waits until kube-proxy sends every connection to one of the other databases, and checks that it
/// stays so.
async fn all_reach_the_others(fixture: &Fixture, traffic: &Traffic, dead: IpAddr) {
    fixture.expect_endpoints(&[0, 2]).await;
    let good =
        |outcome: &ConnectOutcome| matches!(outcome, ConnectOutcome::Reached(ip) if *ip != dead);
    // A connection that gets no answer is known as such after a second.
    eventually(TIMEOUT, "kube-proxy follows", async || {
        let lately = traffic.tally_since(Instant::now() - Duration::from_millis(2500));
        !lately.is_empty() && lately.keys().all(good)
    })
    .await;
    let from = Instant::now();
    consistently(
        Duration::from_secs(3),
        "every connection reaches a healthy database",
        async || {
            let tally = traffic.tally_since(from);
            if tally.keys().all(good) { Ok(()) } else { Err(format!("{tally:?}")) }
        },
    )
    .await;
    assert!(
        traffic.tally_since(from).values().sum::<u64>() > 20,
        "too little traffic to prove anything"
    );
}

async fn connections_leave_a_dead_database() {
    let mut fixture = Fixture::new("traffic").await;
    let _daemon = fixture.start_published().await;
    let traffic = traffic(&fixture).await;
    let dead = fixture.databases[1].ip;
    fixture.databases[1].stop().await;
    all_reach_the_others(&fixture, &traffic, dead).await;
    fixture.databases[1].restart().await;
    reached(&traffic, dead).await;
}

async fn connections_leave_a_black_hole() {
    let mut fixture = Fixture::new("swallowed").await;
    let _daemon = fixture.start_published().await;
    let traffic = traffic(&fixture).await;
    let dead = fixture.databases[1].ip;
    fixture.databases[1].black_hole().await;
    all_reach_the_others(&fixture, &traffic, dead).await;
    fixture.databases[1].restore().await;
    reached(&traffic, dead).await;
}
