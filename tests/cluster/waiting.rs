//! A database that waits for verdicts: addresses that left the config are removed nevertheless, and
//! no Service is emptied by that.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::fixture::{CHECK, Fixture, TIMEOUT, config, wait_for_checks};
use crate::cluster::ownership::merge;
use crate::support::{Daemon, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_removed_address_leaves_while_verdicts_are_inconclusive,
        a_removed_address_leaves_slices_while_verdicts_are_missing,
        a_restart_with_another_config_removes_before_any_verdict,
        a_replaced_writer_stays_until_the_new_one_passes,
        endpoints_are_adopted_only_after_the_verdicts,
        repairs_of_a_waiting_database_are_throttled,
    ]
}

/// A check by a program, so that another program can be named for one address.
const CONNECTS: &str = "{exec: {command: [/bin/bash, -c, ': < /dev/tcp/$TARGET_IP/$TARGET_PORT']}, \
                        interval: 250ms, timeout: 2s}";

/// A check whose verdict is always inconclusive.
const INCONCLUSIVE: &str = "{exec: {command: [/no/such/command]}, interval: 250ms, timeout: 1s}";

/// A check that runs for longer than a case.
const ENDLESS: &str = "{exec: {command: [/bin/sleep, '60']}, interval: 60s, timeout: 60s}";

/// Returns a config with the third database and with those of `usual`. Checks of the third are
/// always inconclusive. The policy keeps two addresses, and while the third has no verdict, the
/// last addresses stay too.
fn mixed(fixture: &Fixture, usual: &[usize], more: &str) -> String {
    let ip = fixture.databases[2].ip;
    let mut addresses = fixture.ips(usual);
    addresses.push(format!("{{address: {ip}, check: {{exec: {{command: [/no/such/command]}}}}}}"));
    config(
        &fixture.namespace.name,
        &addresses.join(", "),
        CONNECTS,
        &format!("  policy: {{minHealthy: 2}}\n{more}"),
    )
}

fn edit(daemon: &Daemon, yaml: &str) {
    fs::write(daemon.config(), yaml).expect("a file in the sandbox");
}

async fn a_removed_address_leaves_while_verdicts_are_inconclusive() {
    let mut fixture = Fixture::new("waits").await;
    let daemon = Daemon::start(&mixed(&fixture, &[0, 1], ""), &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let history = fixture.history().await;
    for index in [0, 1] {
        fixture.databases[index].stop().await;
    }
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", "no target is up").await;
    assert_eq!(history.steps(), [], "not knowing is no reason to take out the last ones");
    // One leaves the config, and leaves.
    edit(&daemon, &mixed(&fixture, &[0], ""));
    history.expect_steps(&[Some(fixture.ips(&[0]))]).await;
    let reason = fixture.expect_condition(&daemon, "WaitingForVerdicts").await;
    assert!(!reason.contains("does not have"), "{reason}");
    // With the last one the Service would be empty, and of the only other one nothing is known.
    edit(&daemon, &mixed(&fixture, &[], ""));
    let words = format!("until an address of the config has a verdict: {}", fixture.ips(&[0])[0]);
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", &words).await;
    wait_for_checks(&daemon, 4).await;
    history.expect_steps(&[Some(fixture.ips(&[0]))]).await;
    // Until something is.
    edit(&daemon, &config(&fixture.namespace.name, &fixture.ips(&[2]).join(", "), CHECK, ""));
    history.expect_steps(&[Some(fixture.ips(&[0])), Some(fixture.ips(&[2]))]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn a_removed_address_leaves_slices_while_verdicts_are_missing() {
    let mut fixture = Fixture::new("waits-slices").await;
    let more = "  publish: slices\n";
    let daemon = Daemon::start(&mixed(&fixture, &[0, 1], more), &shared().kubeconfig(), &[]).await;
    fixture.expect_slices(&[0, 1]).await;
    for index in [0, 1] {
        fixture.databases[index].stop().await;
    }
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", "no target is up").await;
    edit(&daemon, &mixed(&fixture, &[0], more));
    fixture.expect_slices(&[0]).await;
    edit(&daemon, &mixed(&fixture, &[], more));
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", "does not have it").await;
    wait_for_checks(&daemon, 4).await;
    fixture.expect_slices(&[0]).await;
    edit(&daemon, &config(&fixture.namespace.name, &fixture.ips(&[2]).join(", "), CHECK, more));
    fixture.expect_slices(&[2]).await;
}

async fn a_restart_with_another_config_removes_before_any_verdict() {
    let fixture = Fixture::new("waits-restart").await;
    drop(fixture.start_published().await);
    let history = fixture.history().await;
    let more = crate::support::addresses::allocate_one();
    let ips = format!("{}, {more}", fixture.ips(&[0, 1]).join(", "));
    let yaml = config(&fixture.namespace.name, &ips, ENDLESS, "");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1]))]).await;
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", &more.to_string()).await;
}

async fn a_replaced_writer_stays_until_the_new_one_passes() {
    let fixture = Fixture::new("waits-writer").await;
    let writer = |which: usize, check: &str| {
        let one = fixture.ips(&[which]).join(", ");
        config(&fixture.namespace.name, &one, check, "  policy: {exactlyOne: true}\n")
    };
    let daemon = Daemon::start(&writer(0, CHECK), &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0]).await;
    let history = fixture.history().await;
    edit(&daemon, &writer(1, INCONCLUSIVE));
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", &fixture.ips(&[0])[0]).await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(history.steps(), []);
    edit(&daemon, &writer(1, CHECK));
    history.expect_steps(&[Some(fixture.ips(&[1]))]).await;
}

async fn endpoints_are_adopted_only_after_the_verdicts() {
    let fixture = Fixture::new("waits-adopt").await;
    let ips = [fixture.databases[0].ip, fixture.databases[1].ip];
    fixture.namespace.create_endpoints("mysql", &ips, &[("", 3306)]).await;
    let history = fixture.history().await;
    let daemon =
        Daemon::start(&mixed(&fixture, &[], "  adopt: true\n"), &shared().kubeconfig(), &[]).await;
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", "does not have it").await;
    edit(
        &daemon,
        &config(
            &fixture.namespace.name,
            &fixture.ips(&[0, 2]).join(", "),
            ENDLESS,
            "  adopt: true\n",
        ),
    );
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", "no verdict yet").await;
    let ready = async || daemon.get("/readyz").await.0 == 200;
    eventually(TIMEOUT, "it is ready", ready).await;
    assert_eq!(history.steps(), [], "taken over with a decision, and not before");
    edit(
        &daemon,
        &config(
            &fixture.namespace.name,
            &fixture.ips(&[0, 2]).join(", "),
            CHECK,
            "  adopt: true\n",
        ),
    );
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
}

async fn repairs_of_a_waiting_database_are_throttled() {
    let mut fixture = Fixture::new("waits-quarrel").await;
    let daemon = Daemon::start(&mixed(&fixture, &[0, 1], ""), &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1]).await;
    for index in [0, 1] {
        fixture.databases[index].stop().await;
    }
    fixture.expect_condition_with(&daemon, "WaitingForVerdicts", "no target is up").await;
    let writes =
        async || daemon.metric("external_endpoints_writes_total", &[]).await.unwrap_or_default();
    let before = writes().await;
    let mut addresses = fixture.ips(&[0, 1]);
    addresses.push("192.0.2.99".to_owned());
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let edited = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 3306}]}]});
    let (from, mut undone) = (Instant::now(), 0);
    while from.elapsed() < Duration::from_secs(5) {
        if fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[0, 1]) {
            undone += 1;
            merge(&fixture, edited.clone()).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let written = writes().await - before;
    assert!(undone >= 3 && written <= 8.0, "{written} writes against {undone}");
    fixture.expect_endpoints(&[0, 1]).await;
}
