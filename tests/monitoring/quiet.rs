//! Everything that is no trouble: a start, a new database, a rolling update, a leader that is
//! killed, one replica instead of two, and a restart.

use std::net::SocketAddr;
use std::time::Duration;

use crate::fixture::{Fixture, databases_of, replace_in};
use crate::monitoring::prometheus::{Prometheus, Speed};
use crate::support::{Daemon, addresses, eventually, shared};

/// Longer than a takeover, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Alerts that begin to wait for their `for` in some of this, or on a busy machine. The others may
/// not even do that.
const MAY_WAIT: &str = "ExternalEndpoints(NoLeader|NotPublished|ChecksLate)";

pub(crate) async fn nothing_is_wrong() {
    let fixture = Fixture::new("quiet").await;
    fixture.namespace.create_service("orders", &[("", 3306)]).await;
    let ips = addresses::allocate(6);
    let replicas: Vec<SocketAddr> = ips.into_iter().map(|ip| (ip, 8080).into()).collect();
    let prometheus = Prometheus::start(Speed::Real, &replicas).await;
    let yaml = fixture.config();
    let mut first = start(&fixture, &yaml, replicas[0]).await;
    leads(&prometheus, replicas[0]).await;
    let mut second = start(&fixture, &yaml, replicas[1]).await;
    scraped(&prometheus, 2).await;

    let orders = replace_in(&yaml, "service: mysql", "service: orders");
    let yaml = yaml.clone() + databases_of(&orders);
    for replica in [&first, &second] {
        std::fs::write(replica.config(), &yaml).expect("a file in the sandbox");
    }
    let published = "sum(max by (service) (external_endpoints_published_addresses)) == 6";
    becomes(&prometheus, published).await;

    // A rolling update: a new Pod is ready before an old one ends.
    let third = start(&fixture, &yaml, replicas[2]).await;
    scraped(&prometheus, 3).await;
    assert!(first.terminate().await.0.success());
    let fourth = start(&fixture, &yaml, replicas[3]).await;
    scraped(&prometheus, 3).await;
    assert!(second.terminate().await.0.success());
    scraped(&prometheus, 2).await;
    becomes(&prometheus, "sum(external_endpoints_leader) == 1").await;

    // The leader is killed, and starts again as another replica; then there is only one.
    let leader = "external_endpoints_leader == 1";
    let name = prometheus.query(leader).await[0]["metric"]["instance"].clone();
    let (mut leader, mut standby) = match name == replicas[2].to_string() {
        true => (third, fourth),
        false => (fourth, third),
    };
    leader.kill();
    leads(&prometheus, standby.admin()).await;
    let last = start(&fixture, &yaml, replicas[4]).await;
    scraped(&prometheus, 2).await;
    assert!(standby.terminate().await.0.success());
    leads(&prometheus, replicas[4]).await;
    drop(last);
    let _alone = start(&fixture, &yaml, replicas[5]).await;
    leads(&prometheus, replicas[5]).await;
    becomes(&prometheus, published).await;

    let waited = format!("count_over_time(ALERTS{{alertname!~\"{MAY_WAIT}\"}}[1h])");
    assert_eq!(prometheus.query(&waited).await, Vec::<serde_json::Value>::new());
    let fired = "count_over_time(ALERTS{alertstate=\"firing\"}[1h])";
    assert_eq!(prometheus.query(fired).await, Vec::<serde_json::Value>::new());
}

async fn start(fixture: &Fixture, yaml: &str, listen: SocketAddr) -> Daemon {
    let lease = format!("{}/external-endpoints", fixture.namespace.name);
    let arguments = ["--lease", &lease, "--listen", &listen.to_string()];
    Daemon::start(yaml, &shared().kubeconfig(), &arguments).await
}

/// Waits until an expression has a result.
async fn becomes(prometheus: &Prometheus, expression: &str) {
    eventually(TIMEOUT, expression, async || {
        if prometheus.query(expression).await.is_empty() { Err("no result") } else { Ok(()) }
    })
    .await;
}

/// Waits until this many replicas are scraped.
async fn scraped(prometheus: &Prometheus, number: usize) {
    becomes(
        prometheus,
        &format!("sum(up) == {number} and count(external_endpoints_leader) == {number}"),
    )
    .await;
}

/// Waits until Prometheus knows this replica as the leader.
async fn leads(prometheus: &Prometheus, replica: SocketAddr) {
    becomes(prometheus, &format!("external_endpoints_leader{{instance=\"{replica}\"}} == 1")).await;
}
