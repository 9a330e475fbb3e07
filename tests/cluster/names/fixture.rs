//! The fixture of the cases with names: the databases of most cases, and a name server beside them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::cluster::fixture::{CHECK, Fixture, History, TIMEOUT, config};
use crate::support::name_server::{NameServer, Reply};
use crate::support::{Daemon, addresses, eventually, shared};

/// The name of the database in most cases.
pub(crate) const NAME: &str = "db.corp.example";

/// The TTL of most answers, in seconds.
pub(crate) const TTL: u32 = 1;

/// Starts a name server on an IP of its own.
pub(crate) async fn name_server() -> NameServer {
    NameServer::start_on((addresses::allocate_one(), 53).into()).await
}

/// Returns the IPs of these databases.
pub(crate) fn ips(fixture: &Fixture, which: &[usize]) -> Vec<IpAddr> {
    which.iter().map(|index| fixture.databases[*index].ip).collect()
}

/// Returns the reply with the addresses of these databases.
pub(crate) fn at(fixture: &Fixture, which: &[usize]) -> Reply {
    Reply::Addresses(ips(fixture, which), TTL)
}

/// Returns a config of `mysql` with these addresses, and more keys for it, one line each.
pub(crate) fn yaml(fixture: &Fixture, addresses: &str, more: &str) -> String {
    config(&fixture.namespace.name, addresses, CHECK, more)
}

/// Starts the daemon, which asks only this name server.
pub(crate) async fn start(dns: &NameServer, yaml: &str) -> Daemon {
    start_with(dns, yaml, &[]).await
}

/// Starts the daemon like [`start`], with more arguments.
pub(crate) async fn start_with(dns: &NameServer, yaml: &str, arguments: &[&str]) -> Daemon {
    let server = dns.address.ip().to_string();
    let arguments = [&["--dns-server", &server], arguments].concat();
    Daemon::start(yaml, &shared().kubeconfig(), &arguments).await
}

/// Starts the daemon with `NAME` as the only address, once these databases are published by it.
pub(crate) async fn start_published(
    fixture: &Fixture,
    dns: &NameServer,
    which: &[usize],
    more: &str,
) -> Daemon {
    dns.set(NAME, at(fixture, which));
    let daemon = start(dns, &yaml(fixture, NAME, more)).await;
    fixture.expect_endpoints(which).await;
    expect_resolved(&daemon, NAME, 1.0).await;
    daemon
}

/// Waits until the metric that says whether a name resolves has this value.
pub(crate) async fn expect_resolved(daemon: &Daemon, name: &str, wanted: f64) {
    expect_metric(daemon, "name_resolved", &[("name", name)], Some(wanted)).await;
}

/// Waits until a metric has this value.
pub(crate) async fn expect_metric(
    daemon: &Daemon,
    name: &str,
    labels: &[(&str, &str)],
    wanted: Option<f64>,
) {
    let name = format!("external_endpoints_{name}");
    eventually(TIMEOUT, &format!("{name} {labels:?} is {wanted:?}"), async || {
        let value = daemon.metric(&name, labels).await;
        if value == wanted { Ok(()) } else { Err(format!("{value:?}")) }
    })
    .await;
}

/// Waits until the name server has had this many more queries for a name.
pub(crate) async fn expect_queries(dns: &NameServer, name: &str, more: usize) {
    let enough = dns.count(name) + more;
    eventually(TIMEOUT, &format!("{more} queries for {name}"), async || {
        let count = dns.count(name);
        if count >= enough { Ok(()) } else { Err(format!("{count} of {enough}")) }
    })
    .await;
}

/// Waits until the daemon has made this many more checks of its targets.
pub(crate) async fn expect_checks(daemon: &Daemon, more: f64) {
    let count =
        async || daemon.metric("external_endpoints_checks_total", &[]).await.unwrap_or_default();
    let enough = count().await + more;
    eventually(TIMEOUT, &format!("{more} checks"), async || {
        let count = count().await;
        if count >= enough { Ok(()) } else { Err(format!("{count} of {enough}")) }
    })
    .await;
}

/// Returns the steps of a history that are no step to one of these sets of databases.
pub(crate) fn steps_beside(
    history: &History,
    fixture: &Fixture,
    allowed: &[&[usize]],
) -> Vec<Option<Vec<String>>> {
    let allowed: Vec<_> = allowed.iter().map(|which| Some(fixture.ips(which))).collect();
    history.steps().into_iter().filter(|step| !allowed.contains(step)).collect()
}

/// Returns how many lines of the daemon's log have all these words.
pub(crate) fn lines_with(daemon: &Daemon, words: &[&str]) -> usize {
    let lines = daemon.lines();
    lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// Asserts that no more time than this has passed.
#[track_caller]
pub(crate) fn assert_within(limit: Duration, since: Instant, what: &str) {
    let took = since.elapsed();
    assert!(took <= limit, "{what} took {took:?}, and may take {limit:?}");
}
