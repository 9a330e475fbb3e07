//! The freeze: while many targets of several databases fail together, no address is removed.
//! Tested on a real cluster, at runtime and at startup.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::cluster::events;
use crate::cluster::fixture::{History, TIMEOUT, wait_for_checks};
use crate::support::{Daemon, Database, Namespace, addresses, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        targets_that_fail_together_stay_published,
        a_freeze_ends_after_its_timeout,
        a_restart_during_an_outage_changes_nothing,
        both_replicas_freeze,
    ]
}

/// An interval so long that all targets have failed once before any has failed three times.
const SLOW: &str = "{tcp: {}, interval: 1s, timeout: 1s}";

const SERVICES: [&str; 3] = ["mysql", "orders", "redis"];

/// The spare server in the Endpoints of the first Service.
#[derive(Clone, Copy, PartialEq)]
enum Spare {
    Published,
    Absent,
}

/// Three databases with two servers each. The first also has a spare server, which is down.
pub(crate) struct Fleet {
    pub namespace: Namespace,
    servers: Vec<[Database; 2]>,
    spare: Database,
}

impl Fleet {
    pub(crate) async fn new(prefix: &str) -> Fleet {
        let namespace = shared().namespace(prefix).await;
        let mut servers = Vec::new();
        for service in SERVICES {
            namespace.create_service(service, &[("", 3306)]).await;
            let ips = addresses::allocate(2);
            servers
                .push([Database::start(ips[0], 3306).await, Database::start(ips[1], 3306).await]);
        }
        let mut spare = Database::start(addresses::allocate_one(), 3306).await;
        spare.stop().await;
        Fleet { namespace, servers, spare }
    }

    /// Returns the first address of the first Service.
    pub(crate) fn first_ip(&self) -> String {
        self.servers[0][0].ip.to_string()
    }

    fn config(&self) -> String {
        let mut yaml = format!(
            "defaults: {{namespace: {}, check: {SLOW}}}\ndatabases:\n",
            self.namespace.name
        );
        for (index, service) in SERVICES.iter().enumerate() {
            let mut ips: Vec<String> =
                self.servers[index].iter().map(|server| server.ip.to_string()).collect();
            ips.extend((index == 0).then(|| self.spare.ip.to_string()));
            yaml +=
                &format!("- {{service: {service}, port: 3306, addresses: [{}]}}\n", ips.join(", "));
        }
        yaml
    }

    pub(crate) async fn start(&self, extra: &[&str]) -> Daemon {
        Daemon::start(&self.config(), &shared().kubeconfig(), extra).await
    }

    /// Waits until the Service's Endpoints have exactly its first `servers` servers, and the spare
    /// one if `spare` says so.
    async fn expect_published(&self, index: usize, servers: usize, spare: Spare) {
        let service = SERVICES[index];
        let mut wanted: Vec<_> =
            self.servers[index][..servers].iter().map(|server| server.ip).collect();
        wanted.extend((spare == Spare::Published).then_some(self.spare.ip));
        wanted.sort();
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        eventually(TIMEOUT, &format!("{service} has {wanted:?}"), async || {
            let there = self.namespace.endpoint_ips(service).await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }

    pub(crate) async fn expect_all_published(&self) {
        for index in 0..SERVICES.len() {
            self.expect_published(index, 2, Spare::Absent).await;
        }
    }

    async fn histories(&self) -> Vec<History> {
        let mut histories = Vec::new();
        for service in SERVICES {
            histories.push(History::start(&self.namespace, service).await);
        }
        histories
    }

    pub(crate) async fn stop(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            server.stop().await;
        }
    }

    async fn restart(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            server.restart().await;
        }
    }
}

/// Waits until the metric of the freeze has this value.
async fn frozen(daemon: &Daemon, wanted: f64) {
    eventually(TIMEOUT, &format!("frozen is {wanted}"), async || {
        let frozen = daemon.metric("external_endpoints_frozen", &[]).await;
        if frozen == Some(wanted) { Ok(()) } else { Err(format!("{}", daemon.status().await)) }
    })
    .await;
}

/// Waits until at least this many targets are down.
async fn down(daemon: &Daemon, wanted: f64) {
    eventually(TIMEOUT, &format!("{wanted} are down"), async || {
        let down = daemon.metric("external_endpoints_transitions_total", &[("to", "down")]).await;
        if down >= Some(wanted) { Ok(()) } else { Err(format!("{down:?}")) }
    })
    .await;
}

/// Counts the log lines whose message begins with this text.
fn logged(daemon: &Daemon, words: &str) -> usize {
    let logs = daemon.logs();
    logs.iter()
        .filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with(words)))
        .count()
}

async fn targets_that_fail_together_stay_published() {
    let mut fleet = Fleet::new("freeze").await;
    let daemon = fleet.start(&[]).await;
    fleet.expect_all_published().await;
    frozen(&daemon, 0.0).await;
    assert!(daemon.status().await["frozen"].is_null());
    let histories = fleet.histories().await;

    fleet.stop().await;
    frozen(&daemon, 1.0).await;
    // The spare server was down before.
    down(&daemon, 7.0).await;
    wait_for_checks(&daemon, 2).await;
    histories.iter().for_each(|history| assert_eq!(history.steps(), []));
    let status = daemon.status().await;
    assert_eq!(
        (&status["frozen"]["failed"], &status["frozen"]["published"]),
        (&6.into(), &6.into()),
        "{status}"
    );
    assert!(status["frozen"]["until"].is_string(), "{status}");
    let note = status["databases"][1]["policy"][0].as_str().unwrap_or_default();
    assert!(
        note.ends_with(
            "stay: so many targets fail together that the fault is probably the daemon's own"
        ),
        "{status}"
    );

    events::expect_event(&fleet.namespace, "Frozen", "the fault is probably the daemon's own")
        .await;

    // A server that comes up is added.
    fleet.spare.restart().await;
    fleet.expect_published(0, 2, Spare::Published).await;
    frozen(&daemon, 1.0).await;

    // Three of seven targets still fail. They are removed.
    for server in &mut fleet.servers[1] {
        server.restart().await;
    }
    fleet.servers[0][0].restart().await;
    frozen(&daemon, 0.0).await;
    events::expect_event(&fleet.namespace, "Thawed", "the freeze is over").await;
    fleet.expect_published(0, 1, Spare::Published).await;
    fleet.expect_published(2, 0, Spare::Absent).await;
    fleet.expect_published(1, 2, Spare::Absent).await;
    assert_eq!(histories[1].steps(), []);
    assert_eq!(
        (logged(&daemon, "frozen: "), logged(&daemon, "the freeze is over")),
        (1, 1),
        "{:#?}",
        daemon.lines()
    );
}

async fn a_freeze_ends_after_its_timeout() {
    let mut fleet = Fleet::new("freeze-timeout").await;
    let daemon = fleet.start(&["--max-unhealthy", "80%", "--freeze-timeout", "5s"]).await;
    fleet.expect_all_published().await;
    fleet.stop().await;
    frozen(&daemon, 1.0).await;
    fleet.expect_all_published().await;
    for index in 0..SERVICES.len() {
        fleet.expect_published(index, 0, Spare::Absent).await;
    }
    frozen(&daemon, 0.0).await;
    assert_eq!(
        logged(&daemon, "the freeze is over: it ran into --freeze-timeout"),
        1,
        "{:#?}",
        daemon.lines()
    );
    wait_for_checks(&daemon, 2).await;
    frozen(&daemon, 0.0).await;
}

async fn a_restart_during_an_outage_changes_nothing() {
    let mut fleet = Fleet::new("freeze-start").await;
    let daemon = fleet.start(&[]).await;
    fleet.expect_all_published().await;
    fleet.stop().await;
    frozen(&daemon, 1.0).await;
    let histories = fleet.histories().await;
    // Killed in the middle of a freeze, twice.
    drop(daemon);
    let daemon = fleet.start(&[]).await;
    frozen(&daemon, 1.0).await;
    drop(daemon);
    let daemon = fleet.start(&[]).await;
    frozen(&daemon, 1.0).await;
    down(&daemon, 7.0).await;
    wait_for_checks(&daemon, 2).await;
    fleet.restart().await;
    frozen(&daemon, 0.0).await;
    wait_for_checks(&daemon, 2).await;
    histories.iter().for_each(|history| assert_eq!(history.steps(), []));
}

async fn both_replicas_freeze() {
    let mut fleet = Fleet::new("freeze-two").await;
    let lease = format!("--lease={}/freeze", fleet.namespace.name);
    let mut leader = fleet.start(&[&lease]).await;
    fleet.expect_all_published().await;
    let standby = fleet.start(&[&lease]).await;
    wait_for_checks(&standby, 1).await;
    let histories = fleet.histories().await;
    fleet.stop().await;
    frozen(&leader, 1.0).await;
    frozen(&standby, 1.0).await;
    let event = events::expect_event(&fleet.namespace, "Frozen", "nothing is taken out").await;
    let regarding = event.regarding.expect("an object that the Event regards");
    assert_eq!(
        (regarding.kind.as_deref(), regarding.name.as_deref()),
        (Some("Lease"), Some("freeze"))
    );
    // The replica that takes over continues the freeze.
    leader.terminate().await;
    eventually(Duration::from_secs(30), "the standby leads", async || {
        standby.metric("external_endpoints_leader", &[]).await == Some(1.0)
    })
    .await;
    down(&standby, 7.0).await;
    wait_for_checks(&standby, 2).await;
    frozen(&standby, 1.0).await;
    histories.iter().for_each(|history| assert_eq!(history.steps(), []));
}
