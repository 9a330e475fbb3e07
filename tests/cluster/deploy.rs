//! The manifests of deploy/: they are admitted, the daemon works with their rights, and it has no
//! others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{Api, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::cluster::fixture::{CHECK, Fixture, config, database, replace_in};
use crate::support::{
    Daemon, Database, Namespace, case::cases, daemon, eventually, shared, temp_dir,
};

pub(crate) mod kustomize;
mod network;
pub(crate) mod permissions;
mod replicas;

use kustomize::{
    components_give_what_rbac_derives, install_yaml_is_the_base, the_base_works_by_a_url,
};
use network::only_prometheus_may_reach_the_pages;
use permissions::{
    grant, nothing_else_is_allowed, nothing_else_is_done, the_role_is_what_forbidden_asks_for,
    without_rights,
};
use replicas::both_are_kept_apart_and_in_the_budget;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        as_shipped_it_does_the_main_job,
        the_pod_is_admitted_where_restricted_is_enforced,
        the_pod_has_the_files_and_variables_of_its_spec,
        nothing_else_is_allowed,
        nothing_else_is_done,
        both_are_kept_apart_and_in_the_budget,
        only_prometheus_may_reach_the_pages,
        the_role_is_what_forbidden_asks_for,
        a_pod_finds_its_cluster_and_its_namespace,
        install_yaml_is_the_base,
        the_base_works_by_a_url,
        components_give_what_rbac_derives,
    ]
}

/// Three failures at the default interval, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The names in the shipped files.
const HOME: &str = "external-endpoints";
const WATCHED: &str = "external-endpoints-example";
const ACCOUNT: &str = "external-endpoints";
const SERVICE: &str = "mysql";
const LEASE: &str = "external-endpoints";

fn namespace(name: &str) -> Namespace {
    Namespace { name: name.to_owned(), client: shared().client() }
}

async fn apply() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let output = shared().kubectl(&["apply", "-k", &folder.to_string_lossy()]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Warning"), "{output:?}");
    said
}

/// Applies deploy/ once for all cases. Returns the token of its ServiceAccount.
async fn applied() -> &'static str {
    static TOKEN: OnceCell<String> = OnceCell::const_new();
    let token = TOKEN.get_or_init(async || {
        apply().await;
        let again = apply().await;
        // kubectl always reports a PodDisruptionBudget as changed: it replaces the selector by the
        // same one.
        let budget =
            |line: &str| line == "poddisruptionbudget.policy/external-endpoints configured";
        let same = again.lines().all(|line| line.ends_with(" unchanged") || budget(line));
        assert!(same, "a second time changes nothing: {again}");
        let budget: PodDisruptionBudget =
            namespace(HOME).api().get(HOME).await.expect("the PodDisruptionBudget");
        assert_eq!(budget.metadata.generation, Some(1));
        namespace(HOME).token(ACCOUNT).await
    });
    token.await
}

async fn deployment() -> Deployment {
    namespace(HOME).api().get(HOME).await.expect("the Deployment")
}

/// Reads the ConfigMap that the Deployment mounts.
async fn config_map() -> ConfigMap {
    let spec = deployment().await.spec.and_then(|spec| spec.template.spec).expect("a Pod's spec");
    let names: Vec<String> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| Some(v.config_map.as_ref()?.name.clone()))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    namespace(HOME).api().get(&names[0]).await.expect("the ConfigMap that the Deployment names")
}

async fn shipped_config() -> String {
    config_map().await.data.and_then(|mut data| data.remove("config.yaml")).expect("a config.yaml")
}

async fn expect_published(namespace: &Namespace, wanted: &[IpAddr]) {
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    eventually(TIMEOUT, &format!("the Endpoints have {wanted:?}"), async || {
        let there = namespace.endpoint_ips(SERVICE).await;
        if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

async fn as_shipped_it_does_the_main_job() {
    let token = applied().await;
    let yaml = shipped_config().await;
    let parsed: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    let shipped = &parsed["databases"][0];
    assert_eq!((&shipped["namespace"], &shipped["service"]), (&json!(WATCHED), &json!(SERVICE)));
    // The shipped addresses are reserved for documentation. In the sandbox they are local.
    let ips: Vec<IpAddr> = serde_json::from_value(shipped["addresses"].clone()).expect("IPs");
    assert!(ips.iter().all(|ip| ip.to_string().starts_with("203.0.113.")), "{ips:?}");
    let mut databases = Vec::new();
    for ip in &ips {
        databases.push(Database::start(*ip, 3306).await);
    }
    let watched = namespace(WATCHED);
    // The Lease that a Pod uses by default.
    let lease = ["--lease", &format!("{HOME}/{LEASE}")];
    let daemon = Daemon::start(&yaml, &shared().kubeconfig_for_token(token), &lease).await;
    expect_published(&watched, &ips).await;
    assert_eq!(daemon.status().await["lease"]["held"], true);
    databases[0].stop().await;
    expect_published(&watched, &ips[1..]).await;
    databases[0].restart().await;
    expect_published(&watched, &ips).await;
    assert_eq!(database(&daemon.status().await)["condition"], "Published");
    the_reference_has(&daemon.metrics().await);
}

/// Checks that the reference lists every metric. By now each has a series.
fn the_reference_has(metrics: &str) {
    let reference = include_str!("../../docs/reference/metrics.md");
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let names: BTreeSet<&str> =
        names.filter(|name| name.starts_with("external_endpoints_")).collect();
    assert!(names.len() > 10, "{names:?}");
    let missing: Vec<_> =
        names.iter().filter(|name| !reference.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

async fn the_pod_is_admitted_where_restricted_is_enforced() {
    applied().await;
    let home = namespace(HOME);
    let pods: Api<Pod> = home.api();
    let of_daemon = ListParams::default().labels("app.kubernetes.io/name=external-endpoints");
    let pod = eventually(TIMEOUT, "the Deployment's Pod is created", async || {
        pods.list(&of_daemon).await.map(|list| list.items.into_iter().next()).ok().flatten()
    })
    .await;
    let spec = pod.spec.expect("a Pod's spec");
    assert_eq!(spec.service_account_name.as_deref(), Some(ACCOUNT));
    assert!(
        spec.volumes.iter().flatten().any(|volume| volume.name.starts_with("kube-api-access-")),
        "it has the ServiceAccount's token"
    );
    // The same Pod with one looser setting is refused, so it is the manifest that makes it pass.
    let template =
        serde_json::to_value(deployment().await.spec.expect("a spec").template.spec).expect("JSON");
    refused(&pods, &template, "").await.expect("the template as it is");
    for (path, value) in [
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/containers/0/securityContext/capabilities", json!({"add": ["NET_ADMIN"]})),
        ("/containers/0/securityContext/capabilities/drop", json!([])),
        ("/volumes/0", json!({"name": "config", "hostPath": {"path": "/etc"}})),
    ] {
        let mut looser = template.clone();
        *looser.pointer_mut(path).unwrap_or_else(|| panic!("the template has no {path}")) = value;
        let error = refused(&pods, &looser, path).await.expect_err(path);
        assert!(error.contains("violates PodSecurity \"restricted"), "{path}: {error}");
    }
}

/// Creates a Pod of this spec in a dry run and checks that it is refused.
async fn refused(pods: &Api<Pod>, spec: &Value, what: &str) -> Result<Pod, String> {
    let pod = json!({"metadata": {"name": "test"}, "spec": spec});
    let pod: Pod = serde_json::from_value(pod).unwrap_or_else(|error| panic!("{what}: {error}"));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &pod).await.map_err(|error| error.to_string())
}

/// Checks that the paths and ports of the manifest are those of the daemon.
async fn the_pod_has_the_files_and_variables_of_its_spec() {
    let token = applied().await;
    let template =
        serde_json::to_value(deployment().await.spec.expect("a spec").template).expect("JSON");
    let container = &template["spec"]["containers"][0];
    let mount = container["volumeMounts"][0]["mountPath"].as_str().expect("a mount");
    let keys = config_map().await.data.expect("data").into_keys().collect::<Vec<_>>();
    assert_eq!(keys, ["config.yaml"]);
    let arguments: Vec<&str> =
        container["args"].as_array().expect("args").iter().filter_map(Value::as_str).collect();
    // All daemons of the tests get the same log format.
    assert_eq!(arguments, ["run", &format!("--config={mount}/config.yaml"), "--log-format=json"]);

    let help = Command::new(daemon::PROGRAM)
        .args(["run", "--help"])
        .output()
        .expect("the daemon's program");
    let port = container["ports"][0]["containerPort"].as_u64().expect("a port");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains(&format!("[default: 0.0.0.0:{port}]")), "{help}");
    assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], port.to_string());

    // A dry run, because another case runs the daemon that writes.
    let kubeconfig = shared().kubeconfig_for_token(token);
    let mut daemon = Daemon::start(&shipped_config().await, &kubeconfig, &["--dry-run"]).await;
    let metrics =
        template["metadata"]["annotations"]["prometheus.io/path"].as_str().expect("a path");
    let probe =
        |name: &str| container[name]["httpGet"]["path"].as_str().expect("a path").to_owned();
    for path in [probe("livenessProbe"), probe("readinessProbe"), metrics.to_owned()] {
        eventually(TIMEOUT, &format!("{path} answers 200"), async || {
            daemon.get(&path).await.0 == 200
        })
        .await;
    }
    let (status, took) = daemon.terminate().await;
    let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a period");
    assert!(status.success() && took < Duration::from_secs(grace), "{status} after {took:?}");
}

/// A script that puts the files of a Pod where the kubelet mounts them, on a /run of its own, and
/// runs the daemon.
const AS_A_POD: &str = r#"
    run=$(readlink -f /var/run)
    mount -t tmpfs tmpfs "$run"
    mkdir -p "$run/secrets/kubernetes.io/serviceaccount"
    cp "$1"/* "$run/secrets/kubernetes.io/serviceaccount/"
    shift
    exec "$@"
"#;

async fn a_pod_finds_its_cluster_and_its_namespace() {
    let fixture = Fixture::new("in-pod").await;
    let token = without_rights(&fixture.namespace).await;
    applied().await;
    let mut rules = Vec::new();
    for shipped in [WATCHED, HOME] {
        let role: Role = namespace(shipped).api().get(ACCOUNT).await.expect("the shipped Role");
        rules.extend(role.rules.unwrap_or_default());
    }
    grant(&fixture.namespace, &json!(rules)).await;
    let mounted = temp_dir("mounted");
    std::fs::write(mounted.join("token"), token).expect("a file in the sandbox");
    std::fs::write(mounted.join("namespace"), &fixture.namespace.name)
        .expect("a file in the sandbox");
    std::fs::copy(shared().ca(), mounted.join("ca.crt")).expect("a file in the sandbox");

    let address = shared().api_address();
    let (host, port) = address.rsplit_once(':').expect("a host and a port");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--", "sh", "-ec", AS_A_POD, "sh"])
        .arg(&mounted)
        .arg(daemon::PROGRAM)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // The user may have a kubeconfig at home. A Pod has none.
        .env("HOME", "/nowhere")
        .env("KUBERNETES_SERVICE_HOST", host)
        .env("KUBERNETES_SERVICE_PORT", port);
    let ips = fixture
        .databases
        .iter()
        .map(|database| database.ip.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let yaml = replace_in(&config("-", &ips, CHECK, ""), "  namespace: -\n", "");
    assert!(!yaml.contains("namespace"), "{yaml}");
    let daemon = Daemon::start_command(command, &yaml, &[daemon::DEFAULT_LEASE]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let status = daemon.status().await;
    assert_eq!(database(&status)["namespace"], fixture.namespace.name.as_str());
    let lease: Lease =
        fixture.namespace.api().get(LEASE).await.expect("the Lease, in the Pod's namespace");
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.as_deref(), status["lease"]["identity"].as_str());
}
