//! The manifests of deploy/: they are admitted, the daemon works with their rights, and it has no
//! others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::cluster::fixture::{CHECK, Fixture, config, database};
use crate::support::{
    Daemon, Database, Namespace, case::cases, daemon, eventually, shared, temp_dir,
};

mod network;
mod replicas;

use network::only_prometheus_may_reach_the_pages;
use replicas::both_are_kept_apart_and_in_the_budget;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        as_shipped_it_does_the_main_job,
        the_pod_is_admitted_where_restricted_is_enforced,
        the_pod_finds_what_it_is_told_of,
        nothing_else_is_allowed,
        nothing_else_is_done,
        both_are_kept_apart_and_in_the_budget,
        only_prometheus_may_reach_the_pages,
        the_role_is_what_forbidden_asks_for,
        a_pod_finds_its_cluster_and_its_namespace,
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

async fn published(namespace: &Namespace, wanted: &[IpAddr]) {
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
    published(&watched, &ips).await;
    assert_eq!(daemon.status().await["lease"]["held"], true);
    databases[0].stop().await;
    published(&watched, &ips[1..]).await;
    databases[0].restart().await;
    published(&watched, &ips).await;
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
async fn the_pod_finds_what_it_is_told_of() {
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

const VERBS: [&str; 8] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// Resources with their groups, including subresources.
const RESOURCES: [(&str, &str); 22] = [
    ("", "endpoints"),
    ("", "services"),
    ("", "services/status"),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "pods"),
    ("", "pods/exec"),
    ("", "nodes"),
    ("", "namespaces"),
    ("", "events"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("discovery.k8s.io", "endpointslices"),
    ("discovery.k8s.io", "endpointslices/restricted"),
    ("events.k8s.io", "events"),
    ("coordination.k8s.io", "leases"),
    ("apps", "deployments"),
    ("networking.k8s.io", "ingresses"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("*", "*"),
];

/// Returns true if the daemon may do this. This is all that it may do.
fn may(verb: &str, resource: (&str, &str), namespace: &str, name: &str) -> bool {
    let read = ["get", "list", "watch"].contains(&verb);
    match (namespace, resource) {
        (WATCHED, ("", "services") | ("discovery.k8s.io", "endpointslices")) => read,
        (WATCHED, ("", "endpoints")) => {
            read || name == SERVICE && ["create", "patch"].contains(&verb)
        }
        (WATCHED | HOME, ("events.k8s.io", "events")) => ["create", "patch"].contains(&verb),
        (HOME, ("coordination.k8s.io", "leases")) => {
            name == LEASE && ["get", "create", "update"].contains(&verb)
        }
        _ => false,
    }
}

async fn nothing_else_is_allowed() {
    let client = shared().client_with_token(applied().await).await;
    let mut questions = Vec::new();
    for verb in VERBS {
        for resource in RESOURCES {
            // An empty namespace means all namespaces.
            for namespace in [WATCHED, HOME, "default", "kube-system", ""] {
                let named =
                    ["endpoints", "endpointslices", "services", "leases"].contains(&resource.1);
                for name in if named { &["", SERVICE, LEASE, "other"][..] } else { &[""] } {
                    questions.push((verb, resource, namespace, *name));
                }
            }
        }
    }
    let asked = questions.len();
    let wrong: Vec<String> = futures::stream::iter(questions)
        .map(|(verb, resource, namespace, name)| {
            let client = client.clone();
            async move {
                let allowed = allowed(client, verb, resource, namespace, name).await;
                (allowed != may(verb, resource, namespace, name)).then(|| {
                    format!("{verb} {resource:?} {name:?} in {namespace:?}: allowed is {allowed}")
                })
            }
        })
        .buffer_unordered(16)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked > 1000, "{asked}");
    only_the_role_is_added(client).await;
}

async fn allowed(
    client: kube::Client,
    verb: &str,
    (group, resource): (&str, &str),
    namespace: &str,
    name: &str,
) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({"spec": {"resourceAttributes": {
        "verb": verb, "group": group, "resource": resource, "subresource": subresource,
        "namespace": namespace, "name": name,
    }}});
    let review: SelfSubjectAccessReview = serde_json::from_value(review).expect("a review");
    let answer = Api::all(client).create(&PostParams::default(), &review).await.expect("an answer");
    answer.status.expect("a status").allowed
}

/// Returns the rights of the Role that is shipped for this namespace.
async fn shipped(name: &str) -> BTreeSet<String> {
    let role: Role = namespace(name).api().get(ACCOUNT).await.expect("the shipped Role");
    atoms(&role.rules.unwrap_or_default())
}

/// Checks the rules of each namespace for rights that the table does not list: they are those of
/// any ServiceAccount, and in two namespaces those of a Role.
async fn only_the_role_is_added(client: kube::Client) {
    let other = shared().namespace("nobody").await;
    other.create_service_account("nobody").await;
    let nobody = shared().client_with_token(&other.token("nobody").await).await;
    for namespace in [WATCHED, HOME, "default", "kube-system", &other.name] {
        let ours = rules(client.clone(), namespace).await;
        let theirs = rules(nobody.clone(), namespace).await;
        let more: BTreeSet<String> = ours.difference(&theirs).cloned().collect();
        let role = if [WATCHED, HOME].contains(&namespace) {
            shipped(namespace).await
        } else {
            BTreeSet::new()
        };
        assert_eq!(more, role, "in {namespace}");
    }
}

async fn rules(client: kube::Client, namespace: &str) -> BTreeSet<String> {
    let review = json!({"spec": {"namespace": namespace}});
    let review: SelfSubjectRulesReview = serde_json::from_value(review).expect("a review");
    let answer = Api::all(client).create(&PostParams::default(), &review).await.expect("an answer");
    let rules = answer.status.expect("a status").resource_rules;
    let rules = rules.into_iter().map(|rule| PolicyRule {
        api_groups: rule.api_groups,
        resources: rule.resources,
        resource_names: rule.resource_names,
        verbs: rule.verbs,
        ..PolicyRule::default()
    });
    atoms(&rules.collect::<Vec<_>>())
}

/// Splits rules into single rights.
pub(crate) fn atoms(rules: &[PolicyRule]) -> BTreeSet<String> {
    let mut atoms = BTreeSet::new();
    for rule in rules {
        let names = rule.resource_names.clone().filter(|names| !names.is_empty());
        for name in names.unwrap_or_else(|| vec!["any".to_owned()]) {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    atoms.extend(
                        rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource} {name}")),
                    );
                }
            }
        }
    }
    atoms
}

/// Checks the same with real calls on real objects.
async fn nothing_else_is_done() {
    let client = shared().client_with_token(applied().await).await;
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), WATCHED);
    // Applied with the daemon's field manager for creating, so that the objects look as if they had
    // existed before.
    let apply = PatchParams::apply("external-endpoints-create");
    let blank = |name: &str| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}}))
    };
    // It may create its own Service's Endpoints by name.
    endpoints.patch(SERVICE, &apply, &blank(SERVICE)).await.expect("its own Endpoints");
    let mut held = endpoints.get(SERVICE).await.expect("its own Endpoints");
    held.metadata.managed_fields = None;
    denied("another's Endpoints", endpoints.patch("other", &apply, &blank("other")).await);
    denied("create", endpoints.create(&PostParams::default(), &held).await);
    denied("replace", endpoints.replace(SERVICE, &PostParams::default(), &held).await);
    denied("delete", endpoints.delete(SERVICE, &DeleteParams::default()).await);
    let services: Api<Service> = Api::namespaced(client.clone(), WATCHED);
    services.get(SERVICE).await.expect("its own Service");
    let selector = Patch::Merge(json!({"spec": {"selector": {"app": "mine"}}}));
    denied("change a Service", services.patch(SERVICE, &PatchParams::default(), &selector).await);
    for namespace in [WATCHED, HOME, "default"] {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        denied("list Secrets", secrets.list(&ListParams::default()).await);
    }
    let elsewhere: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    denied("read elsewhere", elsewhere.get("kubernetes").await);
    denied("write elsewhere", elsewhere.patch(SERVICE, &apply, &blank(SERVICE)).await);
    let lease = |name: &str| {
        serde_json::from_value::<Lease>(json!({"metadata": {"name": name}})).expect("a Lease")
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), HOME);
    denied("another Lease", leases.replace("other", &PostParams::default(), &lease("other")).await);
    denied("a Lease without its name", leases.create(&PostParams::default(), &lease(LEASE)).await);
    denied("delete its Lease", leases.delete(LEASE, &DeleteParams::default()).await);
    denied("list Leases", leases.list(&ListParams::default()).await);
    let elsewhere: Api<Lease> = Api::namespaced(client.clone(), WATCHED);
    denied(
        "a Lease elsewhere",
        elsewhere.replace(LEASE, &PostParams::default(), &lease(LEASE)).await,
    );
    let maps: Api<ConfigMap> = Api::namespaced(client, HOME);
    denied("read its own config", maps.list(&ListParams::default()).await);
}

pub(crate) fn denied<T: std::fmt::Debug>(what: &str, answer: Result<T, kube::Error>) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// Binds `daemon`, without rights, in the fixture's namespace. Returns its token.
pub(crate) async fn without_rights(namespace: &Namespace) -> String {
    namespace.create_service_account("daemon").await;
    namespace.create_object::<Role>(json!({"metadata": {"name": "daemon"}, "rules": []})).await;
    let binding = json!({
        "metadata": {"name": "daemon"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "daemon"},
        "subjects": [{"kind": "ServiceAccount", "name": "daemon", "namespace": namespace.name}],
    });
    namespace.create_object::<RoleBinding>(binding).await;
    namespace.token("daemon").await
}

pub(crate) async fn grant(namespace: &Namespace, rules: &Value) {
    let roles: Api<Role> = namespace.api();
    roles
        .patch("daemon", &PatchParams::default(), &Patch::Merge(json!({"rules": rules})))
        .await
        .expect("a patch");
}

/// Checks that granting each right that the daemon asks for ends with the Role that is shipped.
async fn the_role_is_what_forbidden_asks_for() {
    applied().await;
    let fixture = Fixture::new("asks").await;
    let token = without_rights(&fixture.namespace).await;
    let lease = ["--lease", &format!("{}/{LEASE}", fixture.namespace.name)];
    let daemon =
        Daemon::start(&fixture.config(), &shared().kubeconfig_for_token(&token), &lease).await;
    let mut granted: Vec<PolicyRule> = Vec::new();
    loop {
        let asked = eventually(TIMEOUT, "it is published, or asks for more", async || {
            let database = database(&daemon.status().await);
            match database["condition"].as_str() {
                Some("Published") => Ok(None),
                Some("Forbidden" | "Standby") => {
                    let Some(rule) = rule_in(database["reason"].as_str().unwrap_or_default())
                    else {
                        return Err(database.to_string());
                    };
                    if granted.contains(&rule) {
                        Err(format!("still {database}"))
                    } else {
                        Ok(Some(rule))
                    }
                }
                _ => Err(database.to_string()),
            }
        })
        .await;
        let Some(rule) = asked else { break };
        granted.push(rule);
        grant(&fixture.namespace, &json!(granted)).await;
    }
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // Without the right to create Events it works, so only the log asks for it.
    let events = eventually(TIMEOUT, "it asks for Events", async || {
        let logs = daemon.logs();
        let line = logs.iter().find(|line| line["message"] == "Events are not published")?;
        line["reason"].as_str().and_then(rule_in)
    })
    .await;
    granted.push(events);
    let shipped = [shipped(WATCHED).await, shipped(HOME).await];
    assert_eq!(atoms(&granted), shipped.into_iter().flatten().collect());
}

/// Returns the rule that a reason quotes, if it quotes one.
pub(crate) fn rule_in(reason: &str) -> Option<PolicyRule> {
    let rule = reason[reason.find("{apiGroups")?..].split_inclusive('}').next().unwrap_or_default();
    let rule: Value =
        serde_saphyr::from_str(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    Some(serde_json::from_value(rule).expect("a rule"))
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
    let yaml = config("-", &ips, CHECK, "").replace("  namespace: -\n", "");
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
