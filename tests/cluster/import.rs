//! `import` and `rbac` on a real cluster: what is imported is published without a write, with the
//! Roles that are derived for it and no others.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::deploy::permissions::{atoms, grant, rule_in, without_rights};
use crate::cluster::fixture::{Fixture, TIMEOUT, database, replace_in, wait_for_checks};
use crate::support::{Daemon, case::cases, eventually, shared, temp_dir, with_timeout};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        an_imported_config_writes_nothing_until_an_address_fails,
        an_import_of_all_namespaces_leaves_out_what_is_no_database,
        the_roles_of_rbac_are_all_that_the_daemon_asks_for,
        rbac_names_the_rights_that_a_cluster_lacks,
    ]
}

/// Runs a command of the program with a kubeconfig. Returns its exit status and output.
pub(crate) async fn command(kubeconfig: &Path, arguments: &[&str]) -> (i32, String, String) {
    let program = env!("CARGO_BIN_EXE_external-endpoints");
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let what = format!("external-endpoints {}", arguments.join(" "));
    let output: Output = with_timeout(Duration::from_secs(60), &what, child).await.expect(&what);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().expect("an exit status");
    (status, text(&output.stdout), text(&output.stderr))
}

/// Returns the path of a file with this text.
pub(crate) fn file(text: &str) -> PathBuf {
    let path = temp_dir("import").join("config.yaml");
    std::fs::write(&path, text).expect("a file in the sandbox");
    path
}

/// Makes the check fast enough for a test.
fn with_fast_checks(config: &str) -> String {
    replace_in(config, "check: {tcp: {}}", "check: {tcp: {}, interval: 250ms, timeout: 1s}")
}

async fn an_imported_config_writes_nothing_until_an_address_fails() {
    let mut fixture = Fixture::new("import").await;
    // Two subsets, not in order, as a person may have written them.
    let subset = |which: &[usize]| {
        let addresses: Vec<Value> = fixture.ips(which).iter().map(|ip| json!({"ip": ip})).collect();
        json!({"addresses": addresses, "ports": [{"port": 3306}]})
    };
    let subsets = [subset(&[2]), subset(&[0, 1])];
    let endpoints = json!({"metadata": {"name": "mysql"}, "subsets": subsets});
    fixture.namespace.create_object::<Endpoints>(endpoints).await;
    let namespace = fixture.namespace.name.clone();
    let kubeconfig = shared().kubeconfig();
    let (status, config, stderr) = command(&kubeconfig, &["import", "-n", &namespace]).await;
    assert_eq!((status, stderr.as_str()), (0, ""), "{config}");
    let history = fixture.history().await;
    let daemon = Daemon::start(&with_fast_checks(&config), &kubeconfig, &[]).await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 6).await;
    assert_eq!(daemon.metric("external_endpoints_writes_total", &[]).await, None);
    assert_eq!(history.steps(), [], "nothing was written");
    fixture.databases[1].stop().await;
    fixture.expect_slices(&[0, 2]).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
    // A restart knows them as its own.
    drop(daemon);
    let (status, _, stderr) = command(&kubeconfig, &["import", "-n", &namespace]).await;
    assert_eq!(status, 1, "{stderr}");
    let daemon = Daemon::start(&with_fast_checks(&config), &kubeconfig, &[]).await;
    fixture.expect_condition(&daemon, "Published").await;
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
}

async fn an_import_of_all_namespaces_leaves_out_what_is_no_database() {
    let fixture = Fixture::new("import-all").await;
    let namespace = &fixture.namespace;
    let ips: Vec<_> = fixture.databases.iter().map(|database| database.ip).collect();
    namespace.create_endpoints("mysql", &ips, &[("", 3306)]).await;
    namespace.create_service("lock", &[("", 1)]).await;
    namespace.create_endpoints("lock", &ips[..1], &[("", 1)]).await;
    let leader = json!({"metadata": {"annotations": {
        "control-plane.alpha.kubernetes.io/leader": "{}",
    }}});
    let api: Api<Endpoints> = namespace.api();
    api.patch("lock", &PatchParams::default(), &Patch::Merge(leader)).await.expect("a patch");
    namespace.create_service("empty", &[("", 2)]).await;
    let kubeconfig = shared().kubeconfig();
    let (status, config, stderr) = command(&kubeconfig, &["import", "-A"]).await;
    assert_eq!((status, stderr.as_str()), (0, ""), "{config}");
    for line in [
        "# - default/kubernetes: the API server's own Service".to_owned(),
        format!("# - {}/lock: a lock of leader election", namespace.name),
        format!("# - {}/empty: it has no addresses", namespace.name),
        format!("- service: mysql\n  namespace: {}\n", namespace.name),
    ] {
        assert!(config.contains(&line), "{line}\n{config}");
    }
    let (status, _, stderr) =
        command(&kubeconfig, &["validate", file(&config).to_str().expect("UTF-8")]).await;
    assert_eq!(status, 0, "{stderr}");
    // The cluster has none of these kinds.
    let (status, _, stderr) = command(&kubeconfig, &["import", "--from", "clusterendpoints"]).await;
    assert_eq!(status, 1);
    assert!(stderr.contains("the cluster has no clusterendpoints (sealos.io, "), "{stderr}");
}

/// Grants exactly what the daemon asks for, right by right, and compares with `rbac`.
async fn the_roles_of_rbac_are_all_that_the_daemon_asks_for() {
    let fixture = Fixture::without_service("least").await;
    let namespace = &fixture.namespace.name;
    let token = without_rights(&fixture.namespace).await;
    let kubeconfig = shared().kubeconfig_for_token(&token);
    let lease = format!("{namespace}/external-endpoints");
    let yaml = fixture.config_with("  publish: both\n  createService: {}\n");
    let daemon = Daemon::start(&yaml, &kubeconfig, &["--lease", &lease]).await;
    let mut granted: Vec<PolicyRule> = Vec::new();
    while let Some(rule) = asked_for(&daemon, &granted).await {
        granted.push(rule);
        grant(&fixture.namespace, &json!(granted)).await;
    }
    fixture.expect_slices(&[0, 1, 2]).await;
    // It works without the right to write Events, so only the log asks for it.
    let events = eventually(TIMEOUT, "it asks for Events", async || {
        let logs = daemon.logs();
        let line = logs.iter().find(|line| line["message"] == "Events are not published")?;
        line["reason"].as_str().and_then(rule_in)
    });
    granted.push(events.await);
    let path = file(&yaml);
    let account = format!("{namespace}/daemon");
    let arguments = ["rbac", path.to_str().expect("UTF-8"), "--service-account", &account];
    let (status, roles, stderr) = command(&shared().kubeconfig(), &arguments).await;
    assert_eq!(status, 0, "{stderr}");
    let role: Value =
        serde_saphyr::from_str(roles.split("---\n").next().expect("a Role")).expect("YAML");
    let derived: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone()).expect("rules");
    assert_eq!(atoms(&granted), atoms(&derived));
}

/// Returns the next rule that the daemon asks for; none once it publishes.
async fn asked_for(daemon: &Daemon, granted: &[PolicyRule]) -> Option<PolicyRule> {
    eventually(TIMEOUT, "it is published, or asks for more", async || {
        let database = database(&daemon.status().await);
        let asked = match database["condition"].as_str() {
            Some("Forbidden" | "Standby") => {
                rule_in(database["reason"].as_str().unwrap_or_default())
            }
            Some("Published") => return Ok(None),
            _ => None,
        };
        match asked.filter(|rule| !granted.contains(rule)) {
            Some(rule) => Ok(Some(rule)),
            None => Err(database.to_string()),
        }
    })
    .await
}

async fn rbac_names_the_rights_that_a_cluster_lacks() {
    let fixture = Fixture::new("lacks").await;
    let namespace = &fixture.namespace.name;
    let token = without_rights(&fixture.namespace).await;
    let path = file(&fixture.config());
    let account = format!("{namespace}/daemon");
    let config = path.to_str().expect("UTF-8");
    let check = ["rbac", config, "--service-account", &account, "--check"];
    let admin = shared().kubeconfig();
    let (status, text, _) = command(&admin, &check).await;
    assert_eq!(status, 1, "{text}");
    for right in ["patch endpoints mysql", "list services", "update leases external-endpoints"] {
        assert!(text.contains(&format!("{namespace}: may not {right}\n")), "{text}");
    }
    let (_, roles, _) = command(&admin, &check[..4]).await;
    let manifests = file(&roles);
    let manifests = manifests.to_str().expect("UTF-8");
    let applied = shared().kubectl(&["apply", "-f", manifests]).await;
    assert!(applied.status.success(), "{applied:?}");
    eventually(TIMEOUT, "all rights are there", async || {
        let (status, text, _) = command(&admin, &check).await;
        if status == 0 && text.contains("has all") { Ok(()) } else { Err(text) }
    })
    .await;
    // With these Roles alone the daemon does its work.
    let kubeconfig = shared().kubeconfig_for_token(&token);
    let lease = format!("{namespace}/external-endpoints");
    let daemon = Daemon::start(&fixture.config(), &kubeconfig, &["--lease", &lease]).await;
    fixture.expect_condition(&daemon, "Published").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let denied = |line: &Value| line.to_string().contains("may not ");
    assert!(!daemon.logs().iter().any(denied), "{:?}", daemon.lines());
    // A stranger may not ask for the rights of others.
    let (status, _, stderr) = command(&kubeconfig, &check).await;
    assert_eq!(status, 1);
    assert!(stderr.contains("you may not create subjectaccessreviews"), "{stderr}");
}
