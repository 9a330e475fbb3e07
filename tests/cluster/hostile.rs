//! Databases that misbehave in every way that a check can meet, while fifty healthy ones keep their
//! schedule.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::cluster::fixture::TIMEOUT;
use crate::support::pki::{Authority, Validity};
use crate::support::{
    Behavior, Daemon, Database, addresses, case::cases, eventually, shared, temp_dir,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![hostile_databases_do_not_delay_the_others]
}

/// The number of healthy databases.
pub(crate) const GOOD: usize = 50;

/// A hostile database, its check, and how the reason of its verdict begins. `|` separates
/// alternatives.
struct Case {
    service: &'static str,
    database: Option<Database>,
    ip: std::net::IpAddr,
    check: String,
    reason: &'static str,
}

async fn case(
    service: &'static str,
    behavior: Behavior,
    check: &str,
    reason: &'static str,
) -> Case {
    let ip = addresses::allocate_one();
    let database = Some(Database::start_with(ip, 3306, behavior).await);
    Case { service, database, ip, check: check.to_owned(), reason }
}

async fn hostile_targets(folder: &Path, swarm: &Path) -> Vec<Case> {
    let authority = Authority::new("databases");
    let stranger = Authority::new("strangers");
    std::fs::write(folder.join("ca.crt"), authority.certificate()).expect("a file in the sandbox");
    let https = format!(
        "http: {{scheme: https, tls: {{caFile: {}/ca.crt, serverName: db.example}}}}",
        folder.display()
    );
    let https = https.as_str();
    let with = |identity: crate::support::pki::Identity| Behavior::Https(identity.server_config());
    let expired = with(authority.issue(&["db.example"], Validity::Expired));
    let wrong_name = with(authority.issue(&["other.example"], Validity::Now));
    let unknown = with(stranger.issue(&["db.example"], Validity::Now));
    const EXPECT: &str = "tcp: {expect: welcome}";
    const HTTP: &str = "http: {expectedBody: welcome}";
    let mut cases = vec![
        case("tcp-silent", Behavior::Silent, EXPECT, "expect: no answer in 1s").await,
        case("tcp-drip", Behavior::Drip, EXPECT, "expect: the expected text did not arrive in 1s")
            .await,
        case("tcp-reset", Behavior::Reset, EXPECT, "expect: connection reset|connect: reset").await,
        case("tcp-endless", Behavior::Endless, EXPECT, "expect: ").await,
        case("tcp-garbage", Behavior::Garbage, EXPECT, "expect: ").await,
        case("http-silent", Behavior::Silent, HTTP, "http: no answer in 1s").await,
        case("http-drip", Behavior::Drip, HTTP, "http: ").await,
        case("http-reset", Behavior::Reset, HTTP, "http: connection reset|connect: reset").await,
        case("http-endless", Behavior::Endless, HTTP, "http: ").await,
        case("http-garbage", Behavior::Garbage, HTTP, "http: ").await,
        case("https-silent", Behavior::Silent, https, "tls: no answer in 1s").await,
        case("https-garbage", Behavior::Garbage, https, "tls: ").await,
        case("https-expired", expired, https, "tls: certificate expired on 2021-01-01").await,
        case(
            "https-wrong-name",
            wrong_name,
            https,
            "tls: certificate is not valid for name db.example",
        )
        .await,
        case("https-unknown", unknown, https, "tls: certificate signed by an unknown authority")
            .await,
    ];
    let mut refused = case("refused", Behavior::Greet, "tcp: {}", "connect: refused").await;
    refused.database.as_mut().expect("a database").stop().await;
    cases.push(refused);
    let mut black_hole =
        case("black-hole", Behavior::Greet, "tcp: {}", "connect: no answer in 1s").await;
    black_hole.database.as_mut().expect("a database").black_hole().await;
    cases.push(black_hole);
    let check = format!("exec: {{command: [{}, $(TARGET_IP)]}}", swarm.display());
    cases.push(Case {
        service: "exec-swarm",
        database: None,
        ip: addresses::allocate_one(),
        check,
        reason: "exec: the command did not exit in 1s",
    });
    cases
}

/// Writes a script that ignores SIGTERM, forks children that do too, and never ends.
fn swarm(folder: &Path) -> PathBuf {
    let path = folder.join("swarm.sh");
    let script = "#!/bin/sh
trap '' TERM
for i in 1 2 3; do
  ( trap '' TERM; while :; do /bin/sleep 60; done ) &
done
while :; do /bin/sleep 60; done
";
    std::fs::write(&path, script).expect("a file in the sandbox");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    path
}

async fn hostile_databases_do_not_delay_the_others() {
    let folder = temp_dir("hostile");
    let swarm = swarm(&folder);
    let namespace = shared().namespace("hostile").await;
    let cases = hostile_targets(&folder, &swarm).await;
    let mut good = Vec::new();
    for ip in addresses::allocate(GOOD) {
        good.push(Database::start(ip, 3306).await);
    }
    let mut yaml = format!(
        "defaults:\n  namespace: {}\n  check: {{interval: 1s, timeout: 1s}}\ndatabases:\n",
        namespace.name
    );
    for Case { service, ip, check, .. } in &cases {
        yaml += &format!(
            "- service: {service}\n  port: 3306\n  addresses: [{ip}]\n  check: {{{check}}}\n"
        );
    }
    let ips: Vec<String> = good.iter().map(|database| database.ip.to_string()).collect();
    yaml += &format!(
        "- service: good
  port: 3306
  addresses: [{}]
  check: {{tcp: {{accept: true}}, timeout: 5s}}
",
        ips.join(", ")
    );
    let mut daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;

    eventually(TIMEOUT, "each hostile database is down, and for its reason", async || {
        let status = daemon.status().await;
        let wrong: Vec<String> = cases.iter().filter_map(|case| wrong(case, &status)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    })
    .await;

    assert_on_schedule(&daemon, &good).await;
    nothing_is_left(&daemon, &swarm).await;
    let (status, took) = daemon.terminate().await;
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
    eventually(TIMEOUT, "no process of the script is left", async || running(&swarm) == 0).await;
}

/// Returns the difference from the expected verdict, if there is one.
fn wrong(case: &Case, status: &Value) -> Option<String> {
    let databases = status["databases"].as_array()?;
    let database = databases.iter().find(|database| database["service"] == case.service)?;
    let target = &database["targets"][0];
    let reason = target["reason"].as_str().unwrap_or_default();
    let as_it_must_be = target["health"] == "down"
        && target["failures"].as_u64() >= Some(2)
        && case.reason.split('|').any(|start| reason.starts_with(start));
    (!as_it_must_be).then(|| format!("{}: {target}", case.service))
}

/// Checks that the databases behind the Service `good` are checked every second.
pub(crate) async fn assert_on_schedule(daemon: &Daemon, good: &[Database]) {
    let from = Instant::now();
    let before: Vec<u64> = good.iter().map(Database::accept_count).collect();
    eventually(TIMEOUT, "every good database is checked ten times more", async || {
        good.iter().zip(&before).all(|(database, before)| database.accept_count() >= before + 10)
    })
    .await;
    let passed = from.elapsed().as_secs_f64();
    for (database, before) in good.iter().zip(&before) {
        let checks = (database.accept_count() - before) as f64;
        assert!(checks <= passed + 2.0 && checks >= passed * 0.6, "{checks} checks in {passed} s");
    }
    assert_spread(daemon).await;
}

/// Checks that checks start when they are due, although the hostile ones take a second each.
async fn assert_spread(daemon: &Daemon) {
    let sum = daemon
        .metric("external_endpoints_check_start_delay_seconds_sum", &[])
        .await
        .expect("a sum");
    let count = daemon
        .metric("external_endpoints_check_start_delay_seconds_count", &[])
        .await
        .expect("a count");
    assert!(count > 0.0 && sum / count < 0.3, "started {} s late on average", sum / count);
    let failed = daemon
        .metric("external_endpoints_checks_total", &[("service", "good"), ("result", "fail")])
        .await;
    assert_eq!(failed, Some(0.0), "a good database failed");
}

/// Checks that each check's processes are gone when the next check starts.
async fn nothing_is_left(daemon: &Daemon, swarm: &Path) {
    eventually(TIMEOUT, "at most one round of the script runs", async || {
        let running = running(swarm);
        if running <= 4 { Ok(()) } else { Err(format!("{running} of them")) }
    })
    .await;
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("our own child").count();
    assert!(descriptors() < 120, "{} descriptors", descriptors());
}

/// Counts the processes that run this script.
fn running(script: &Path) -> usize {
    let script = script.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(script.len()).any(|part| part == script)).count()
}
