//! An upgrade to today's version and back, as a rolling update does both: two versions beside each
//! other, with one Lease.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::cluster::fixture::{Fixture, TIMEOUT, wait_for_checks};
use crate::cluster::lease::replicas::{LEASE, leads, never_two, published, takes_over, up};
use crate::support::daemon::PROGRAM;
use crate::support::{ConnectOutcome, Daemon, Traffic, binaries, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        an_upgrade_and_its_way_back_write_nothing_and_refuse_nobody,
        while_two_versions_run_a_dead_database_leaves,
    ]
}

/// A version of the daemon, by the path of its program.
struct Version(PathBuf);

impl Version {
    fn previous() -> Self {
        Self(binaries::previous_version())
    }

    fn today() -> Self {
        Self(Path::new(PROGRAM).to_owned())
    }

    /// Starts a replica that competes for the Lease.
    async fn replica(&self, fixture: &Fixture) -> Daemon {
        let mut command = Command::new(&self.0);
        command.env("KUBECONFIG", shared().kubeconfig());
        let lease = format!("{}/{LEASE}", fixture.namespace.name);
        Daemon::start_command(command, &fixture.config(), &["--lease", &lease]).await
    }

    /// Starts a replica and waits until it is ready, as a rolling update does.
    async fn ready_replica(&self, fixture: &Fixture) -> Daemon {
        let replica = self.replica(fixture).await;
        eventually(TIMEOUT, "it is ready", async || replica.get("/readyz").await.0 == 200).await;
        replica
    }

    /// Starts a leader that has published all databases, and a standby.
    async fn pair(&self, fixture: &Fixture) -> [Daemon; 2] {
        let first = self.replica(fixture).await;
        let first = published(fixture, first).await;
        [first, self.ready_replica(fixture).await]
    }

    /// Replaces both replicas, the leader first, which is the harder order. Returns the new ones,
    /// the leader first.
    async fn roll_out(&self, fixture: &Fixture, old: [Daemon; 2]) -> [Daemon; 2] {
        let [mut leader, mut standby] = old;
        let first = self.ready_replica(fixture).await;
        assert!(leader.terminate().await.0.success());
        let second = self.ready_replica(fixture).await;
        assert!(standby.terminate().await.0.success());
        never_two(&[&leader, &standby, &first, &second]);
        let leader = eventually(TIMEOUT, "one of them leads", async || {
            match (leads(&first).await, leads(&second).await) {
                (true, false) => Some(0),
                (false, true) => Some(1),
                _ => None,
            }
        })
        .await;
        for replica in [&first, &second] {
            up(replica, 3.0).await;
            wait_for_checks(replica, 4).await;
        }
        if leader == 0 { [first, second] } else { [second, first] }
    }
}

async fn an_upgrade_and_its_way_back_write_nothing_and_refuse_nobody() {
    let fixture = Fixture::new("upgrade").await;
    let pair = Version::previous().pair(&fixture).await;
    let ip = fixture.namespace.cluster_ip("mysql").await;
    let traffic = Traffic::start(ip, 3306, Duration::from_millis(20));
    eventually(TIMEOUT, "the Service has connections", async || {
        let reached = |outcome: &ConnectOutcome| matches!(outcome, ConnectOutcome::Reached(_));
        traffic.tally_all().keys().any(reached)
    })
    .await;
    let (history, begun) = (fixture.history().await, Instant::now());
    let pair = Version::today().roll_out(&fixture, pair).await;
    fixture.expect_condition(&pair[0], "Published").await;
    let pair = Version::previous().roll_out(&fixture, pair).await;
    fixture.expect_condition(&pair[0], "Published").await;
    assert_eq!(history.steps(), [], "nothing is written");
    let tally = traffic.tally_since(begun);
    let reached = |outcome: &ConnectOutcome| matches!(outcome, ConnectOutcome::Reached(_));
    assert!(tally.keys().all(reached), "{tally:?}");
    assert!(tally.values().sum::<u64>() > 100, "too little traffic to prove anything: {tally:?}");
}

async fn while_two_versions_run_a_dead_database_leaves() {
    let mut fixture = Fixture::new("versions").await;
    for versions in
        [[Version::previous(), Version::today()], [Version::today(), Version::previous()]]
    {
        let leader = versions[0].replica(&fixture).await;
        let mut leader = published(&fixture, leader).await;
        let standby = versions[1].ready_replica(&fixture).await;
        up(&standby, 3.0).await;
        fixture.databases[0].stop().await;
        fixture.expect_endpoints(&[1, 2]).await;
        // What one version has decided, the other one continues.
        up(&standby, 2.0).await;
        let history = fixture.history().await;
        assert!(leader.terminate().await.0.success());
        takes_over(&standby).await;
        fixture.expect_condition(&standby, "Published").await;
        wait_for_checks(&standby, 4).await;
        assert_eq!(history.steps(), [], "nothing is written");
        fixture.databases[0].restart().await;
        fixture.expect_endpoints(&[0, 1, 2]).await;
    }
}
