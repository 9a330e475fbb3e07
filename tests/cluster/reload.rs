//! Changes of the config while the daemon runs. A bad config changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Endpoints;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::fixture::{
    CHECK, Fixture, History, TIMEOUT, config, databases_of, replace_in, wait_for_checks,
};
use crate::support::{Daemon, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        databases_are_added_and_removed_at_runtime,
        unchanged_targets_keep_their_health_and_streak,
        an_added_address_is_published_when_healthy,
        a_changed_port_is_one_write,
        a_changed_check_restarts_the_threshold_of_published_targets,
        an_equivalent_config_writes_nothing,
        a_bad_config_changes_nothing_and_is_logged_once,
        a_config_map_is_reloaded_through_its_symlinks,
        removed_databases_stay_published_and_are_reported,
        left_behind_objects_are_reported_at_startup_and_kept,
    ]
}

/// Replaces the config in place, as an editor does.
pub(crate) fn edit(daemon: &Daemon, yaml: &str) {
    fs::write(daemon.config(), yaml).expect("a file in the sandbox");
}

/// Returns one more database for a config, on an address of the fixture.
pub(crate) fn database(fixture: &Fixture, service: &str, which: usize) -> String {
    let (namespace, ip) = (&fixture.namespace.name, fixture.databases[which].ip);
    format!(
        "- service: {service}
  namespace: {namespace}
  port: 3306
  addresses: [{ip}]
  check: {CHECK}
"
    )
}

/// Waits until the status has exactly these databases, and returns the status.
pub(crate) async fn databases(daemon: &Daemon, services: &[&str]) -> Value {
    eventually(TIMEOUT, &format!("databases {services:?}"), async || {
        let status = daemon.status().await;
        let there: Vec<&str> =
            status["databases"].as_array().expect("a list").iter().map(service).collect();
        if there == services { Ok(status.clone()) } else { Err(format!("{there:?}")) }
    })
    .await
}

fn service(database: &Value) -> &str {
    database["service"].as_str().expect("a name")
}

/// Waits until a Service's Endpoints have exactly these databases.
pub(crate) async fn expect_published(fixture: &Fixture, service: &str, which: &[usize]) {
    let wanted = fixture.ips(which);
    eventually(TIMEOUT, &format!("{service} has {wanted:?}"), async || {
        let there = fixture.namespace.endpoint_ips(service).await;
        if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

/// Waits until exactly these are left behind.
pub(crate) async fn expect_left_behind(daemon: &Daemon, services: &[&str]) {
    eventually(TIMEOUT, &format!("{services:?} are left behind"), async || {
        let left = daemon.status().await["leftBehind"].clone();
        let there: Vec<&str> = left.as_array().expect("a list").iter().map(service).collect();
        if there == services { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

async fn load_successful(daemon: &Daemon, wanted: f64) {
    eventually(TIMEOUT, &format!("the last load counts {wanted}"), async || {
        daemon.metric("external_endpoints_config_last_load_successful", &[]).await == Some(wanted)
    })
    .await;
}

/// Counts the log lines with this text.
pub(crate) fn logged(daemon: &Daemon, words: &str) -> usize {
    daemon.lines().iter().filter(|line| line.contains(words)).count()
}

async fn databases_are_added_and_removed_at_runtime() {
    let mut fixture = Fixture::new("come-go").await;
    let other = shared().namespace("come-go-other").await;
    other.create_service("redis", &[("", 3306)]).await;
    fixture.namespace.create_service("orders", &[("", 3306)]).await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    let ip = fixture.databases[2].ip;
    let elsewhere = format!(
        "- {{service: redis, namespace: {}, port: 3306, addresses: [{ip}], check: {CHECK}}}\n",
        other.name
    );
    edit(&daemon, &(fixture.config() + &database(&fixture, "orders", 1) + &elsewhere));
    databases(&daemon, &["mysql", "orders", "redis"]).await;
    expect_published(&fixture, "orders", &[1]).await;
    eventually(TIMEOUT, "redis is published", async || {
        other.endpoint_ips("redis").await == fixture.ips(&[2])
    })
    .await;
    assert_eq!(history.steps(), [], "nothing of this is the first database's business");
    assert_eq!(daemon.get("/readyz").await.0, 200);
    // New databases are repaired like all others.
    other.delete::<Endpoints>("redis").await;
    eventually(TIMEOUT, "redis is repaired", async || {
        other.endpoint_ips("redis").await == fixture.ips(&[2])
    })
    .await;
    fixture.databases[1].stop().await;
    expect_published(&fixture, "orders", &[]).await;
    expect_published(&fixture, "mysql", &[0, 2]).await;

    edit(&daemon, &format!("databases:\n{}", database(&fixture, "orders", 1)));
    databases(&daemon, &["orders"]).await;
    let metrics = daemon.metrics().await;
    assert!(
        !metrics
            .lines()
            .any(|line| line.contains("service=\"redis\"") && !line.contains("left_behind"))
    );
    expect_left_behind(&daemon, &["mysql", "redis"]).await;
    // Databases that left are neither checked nor repaired.
    fixture.databases[2].stop().await;
    other.delete::<Endpoints>("redis").await;
    expect_left_behind(&daemon, &["mysql"]).await;
    wait_for_checks(&daemon, 8).await;
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[0, 2]));
    assert!(other.endpoints("redis").await.is_none());

    // Published addresses count as up until a check disproves it.
    edit(&daemon, &(fixture.config() + &database(&fixture, "orders", 1)));
    expect_published(&fixture, "mysql", &[0]).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2])), Some(fixture.ips(&[0]))]).await;
    expect_left_behind(&daemon, &[]).await;
}

async fn unchanged_targets_keep_their_health_and_streak() {
    let mut fixture = Fixture::new("keeps").await;
    fixture.databases[1].stop().await;
    let daemon = fixture.start().await;
    fixture.expect_endpoints(&[0, 2]).await;
    wait_for_checks(&daemon, 4).await;
    let before = databases(&daemon, &["mysql"]).await["databases"][0]["targets"].clone();
    let history = fixture.history().await;
    // Another order, another policy, and a name for one address.
    let [a, b, c] = [0, 1, 2].map(|which| fixture.databases[which].ip);
    let addresses = format!("{{address: {c}, hostname: db-c}}, {a}, {b}");
    let yaml = config(&fixture.namespace.name, &addresses, CHECK, "  policy: {minHealthy: 1}\n");
    edit(&daemon, &yaml);
    let after = eventually(TIMEOUT, "the new config is in force", async || {
        let targets = databases(&daemon, &["mysql"]).await["databases"][0]["targets"].clone();
        if targets[0]["address"] == c.to_string() { Ok(targets) } else { Err(targets.to_string()) }
    })
    .await;
    for (old, new) in [(0, 1), (1, 2), (2, 0)] {
        assert_eq!(before[old]["address"], after[new]["address"]);
        assert_eq!(before[old]["health"], after[new]["health"]);
        assert_eq!(before[old]["since"], after[new]["since"], "it did not flip");
        let streak = |target: &Value| target["passes"].as_u64().max(target["failures"].as_u64());
        assert!(streak(&after[new]) >= streak(&before[old]), "{before} {after}");
    }
    // Only the name is written.
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
}

async fn an_added_address_is_published_when_healthy() {
    let mut fixture = Fixture::new("added").await;
    let two = fixture.ips(&[0, 1]).join(", ");
    let daemon = Daemon::start(
        &config(&fixture.namespace.name, &two, CHECK, ""),
        &shared().kubeconfig(),
        &[],
    )
    .await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.databases[2].stop().await;
    let history = fixture.history().await;
    edit(&daemon, &fixture.config());
    eventually(TIMEOUT, "the third is down", async || {
        databases(&daemon, &["mysql"]).await["databases"][0]["targets"][2]["health"] == "down"
    })
    .await;
    wait_for_checks(&daemon, 3).await;
    assert_eq!(history.steps(), [], "nothing was taken away meanwhile");
    fixture.databases[2].restart().await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1, 2]))]).await;
    // An address that is removed from the config leaves the Endpoints.
    edit(&daemon, &config(&fixture.namespace.name, &two, CHECK, ""));
    history.expect_steps(&[Some(fixture.ips(&[0, 1, 2])), Some(fixture.ips(&[0, 1]))]).await;
}

async fn a_changed_port_is_one_write() {
    let fixture = Fixture::new("port").await;
    let check = "{tcp: {port: 3306}, interval: 250ms, timeout: 1s}";
    let ips = fixture.ips(&[0, 1, 2]);
    let yaml = config(&fixture.namespace.name, &ips.join(", "), check, "");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    edit(&daemon, &replace_in(&yaml, "  port: 3306", "  port: 3307"));
    history.expect_steps(&[Some(ips.clone())]).await;
    let endpoints = fixture.namespace.endpoints("mysql").await.expect("Endpoints");
    let ports: Vec<i32> = endpoints
        .subsets
        .iter()
        .flatten()
        .flat_map(|subset| subset.ports.iter().flatten())
        .map(|port| port.port)
        .collect();
    assert_eq!(ports, [3307]);
    assert_eq!(logged(&daemon, "an outside change"), 0);
    wait_for_checks(&daemon, 3).await;
    history.expect_steps(&[Some(ips)]).await;
}

async fn a_changed_check_restarts_the_threshold_of_published_targets() {
    let fixture = Fixture::new("check").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    let failures = async || {
        daemon.metric("external_endpoints_checks_total", &[("result", "fail")]).await.unwrap_or(0.0)
    };
    // Nothing listens on that port. Each target leaves after as many failures as the threshold
    // requires.
    edit(&daemon, &replace_in(&fixture.config(), "tcp: {}", "tcp: {port: 9}"));
    eventually(TIMEOUT, "all have left", async || {
        fixture.namespace.endpoint_ips("mysql").await.is_empty()
    })
    .await;
    assert!(failures().await >= 9.0, "{}", failures().await);
    let transitions =
        daemon.metric("external_endpoints_transitions_total", &[("to", "down")]).await;
    assert_eq!(transitions, Some(3.0));
    // A target that is down and not published comes up by its first verdict.
    edit(&daemon, &fixture.config());
    fixture.expect_endpoints(&[0, 1, 2]).await;
    assert!(history.steps().iter().flatten().all(|ips| ips.len() <= 3));
}

async fn an_equivalent_config_writes_nothing() {
    let fixture = Fixture::new("same").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    let writes = daemon.metric("external_endpoints_writes_total", &[]).await;
    edit(&daemon, &format!("# Only a comment.\n{}", fixture.config()));
    eventually(TIMEOUT, "it was read", async || {
        logged(&daemon, "has changed, but not its meaning") == 1
    })
    .await;
    // Databases before and after it in the config do not concern it.
    fixture.namespace.create_service("orders", &[("", 3306)]).await;
    edit(
        &daemon,
        &format!(
            "databases:\n{}{}",
            database(&fixture, "orders", 0),
            databases_of(&fixture.config())
        ),
    );
    databases(&daemon, &["orders", "mysql"]).await;
    expect_published(&fixture, "orders", &[0]).await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(history.steps(), []);
    assert_eq!(
        daemon.metric("external_endpoints_writes_total", &[("service", "mysql")]).await,
        writes
    );
}

async fn a_bad_config_changes_nothing_and_is_logged_once() {
    let mut fixture = Fixture::new("bad").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    load_successful(&daemon, 1.0).await;
    edit(&daemon, &replace_in(&fixture.config(), "interval: 250ms", "interval: 250"));
    load_successful(&daemon, 0.0).await;
    let problems = daemon.status().await["config"]["problems"].clone();
    let problem = problems[0].as_str().expect("a problem");
    let place = format!(
        "{}:6:30: databases[0].check.interval: a duration needs a unit",
        daemon.config().display()
    );
    assert!(problem.starts_with(&place), "{problem}");
    wait_for_checks(&daemon, 8).await;
    assert_eq!(logged(&daemon, "a duration needs a unit"), 1, "once for each content");
    // Half of a file, and then no file.
    let whole = fixture.config();
    edit(&daemon, &whole[..whole.len() / 2]);
    eventually(TIMEOUT, "half of a file is bad", async || {
        logged(&daemon, "the config file is bad") == 2
    })
    .await;
    fs::remove_file(daemon.config()).expect("a file");
    eventually(TIMEOUT, "no file is bad", async || logged(&daemon, "there is no such file") == 1)
        .await;
    load_successful(&daemon, 0.0).await;
    // The last good config stays in force.
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0, 2]).await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    edit(&daemon, &whole);
    load_successful(&daemon, 1.0).await;
    assert_eq!(daemon.status().await["config"]["problems"], json!([]));
    wait_for_checks(&daemon, 3).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
}

/// Writes a config as the kubelet mounts a ConfigMap: `config.yaml -> ..data/config.yaml` and
/// `..data -> ..N`.
fn as_kubelet(volume: &Path, number: u32, yaml: &str) {
    let content = volume.join(format!("..{number}"));
    fs::create_dir(&content).expect("a folder");
    fs::write(content.join("config.yaml"), yaml).expect("a file");
    let new = volume.join("..data_tmp");
    symlink(content.file_name().expect("a name"), &new).expect("a symlink");
    fs::rename(&new, volume.join("..data")).expect("a swap");
    let path = volume.join("config.yaml");
    if !path.is_symlink() {
        // The daemon was started with a plain file there.
        let link = volume.join("link");
        symlink("..data/config.yaml", &link).expect("a symlink");
        fs::rename(&link, &path).expect("a swap");
    }
}

async fn a_config_map_is_reloaded_through_its_symlinks() {
    let fixture = Fixture::new("symlink").await;
    let daemon = fixture.start_published().await;
    let volume: PathBuf = daemon.config().parent().expect("a folder").to_owned();
    let of = |which: &[usize]| {
        config(&fixture.namespace.name, &fixture.ips(which).join(", "), CHECK, "")
    };
    for (number, which) in [(1, &[0, 1][..]), (2, &[1, 2]), (3, &[0])] {
        as_kubelet(&volume, number, &of(which));
        if number > 1 {
            fs::remove_dir_all(volume.join(format!("..{}", number - 1))).expect("the old content");
        }
        fixture.expect_endpoints(which).await;
    }
    assert_eq!(logged(&daemon, "the config file is bad"), 0, "at no moment was there none");
}

async fn removed_databases_stay_published_and_are_reported() {
    let fixture = Fixture::new("left").await;
    fixture.namespace.create_service("orders", &[("", 3306)]).await;
    let both = fixture.config() + &database(&fixture, "orders", 1);
    let daemon = Daemon::start(&both, &shared().kubeconfig(), &[]).await;
    expect_published(&fixture, "orders", &[1]).await;
    expect_left_behind(&daemon, &[]).await;
    assert_eq!(daemon.metric("external_endpoints_left_behind_addresses", &[]).await, None);
    let before = fixture.namespace.resource_version("orders").await;
    edit(&daemon, &fixture.config());
    expect_left_behind(&daemon, &["orders"]).await;
    let of_orders = [("service", "orders")];
    assert_eq!(
        daemon.metric("external_endpoints_left_behind_addresses", &of_orders).await,
        Some(1.0)
    );
    assert_eq!(logged(&daemon, "left behind: the config has no such database"), 1);
    wait_for_checks(&daemon, 4).await;
    assert_eq!(fixture.namespace.resource_version("orders").await, before);
    fixture.namespace.delete::<Endpoints>("orders").await;
    expect_left_behind(&daemon, &[]).await;
}

async fn left_behind_objects_are_reported_at_startup_and_kept() {
    let fixture = Fixture::new("found").await;
    fixture.namespace.create_service("orders", &[("", 3306)]).await;
    let both = fixture.config() + &database(&fixture, "orders", 1);
    let daemon = Daemon::start(&both, &shared().kubeconfig(), &[]).await;
    expect_published(&fixture, "orders", &[1]).await;
    drop(daemon);
    let history = History::start(&fixture.namespace, "orders").await;
    // It could belong to another deployment with a config of its own.
    let daemon =
        Daemon::start(&(fixture.config() + "prune: true\n"), &shared().kubeconfig(), &[]).await;
    expect_left_behind(&daemon, &["orders"]).await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(history.steps(), []);
    assert_eq!(logged(&daemon, "left behind: the config has no such database"), 1);
}
