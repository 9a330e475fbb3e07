//! `status` and `explain`, with the API server's real Pod proxy between them and the daemon.
//!
//! No kubelet runs here, so the Pods are objects alone: each has the address on which a replica
//! listens, as a kubelet would report it.

use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::cluster::lease::replicas::{LEASE, takes_over};
use crate::support::daemon::PROGRAM;
use crate::support::{
    Daemon, addresses, binaries, blocking, case::cases, eventually, rbac, shared, temp_dir,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_reader_sees_and_explains_what_is_published,
        a_standby_answers_for_a_leader_that_is_gone,
        each_right_that_a_reader_lacks_is_named,
        the_commands_work_as_a_plugin_of_kubectl,
    ]
}

/// The ServiceAccount of the reader.
const READER: &str = "reader";

/// Returns the rules of the Role of deploy/reader.yaml.
fn reader_rules() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/reader.yaml");
    let text = std::fs::read_to_string(path).expect("deploy/reader.yaml");
    let role = text.split("\n---\n").next().expect("a document");
    let role: Role = serde_saphyr::from_str(role).expect("a Role");
    let rules = role.rules.expect("rules").into_iter();
    rules.map(|rule| serde_json::to_value(rule).expect("JSON")).collect()
}

/// Creates a reader with these rules. Returns its kubeconfig.
async fn reader(fixture: &Fixture, rules: Vec<Value>) -> PathBuf {
    fixture.namespace.create_service_account(READER).await;
    rbac::grant(&fixture.namespace, READER, Value::Array(rules)).await;
    shared().kubeconfig_for_token(&fixture.namespace.token(READER).await)
}

/// Starts a replica that listens on an address of its own, and creates its Pod.
async fn replica(fixture: &Fixture, name: &str) -> Daemon {
    let ip = addresses::allocate(1)[0];
    let port = 8080;
    let uid = create_pod(fixture, name, ip, port).await;
    let mut command = Command::new(PROGRAM);
    command.env("KUBECONFIG", shared().kubeconfig()).env("POD_UID", uid);
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    let listen = format!("{ip}:{port}");
    let arguments = ["--lease", &lease, "--listen", &listen];
    Daemon::start_command(command, &fixture.config(), &arguments).await
}

/// Creates a Pod that is ready at this address. Returns its UID.
async fn create_pod(fixture: &Fixture, name: &str, ip: IpAddr, port: u16) -> String {
    let pod: Pod = fixture
        .namespace
        .create_object(json!({
            "metadata": {
                "name": name, "labels": {"app.kubernetes.io/name": "external-endpoints"},
            },
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "daemon", "image": "external-endpoints",
                    "ports": [{"name": "admin", "containerPort": port}],
                }],
            },
        }))
        .await;
    let pods: Api<Pod> = fixture.namespace.api();
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("the status of a Pod");
    pod.metadata.uid.expect("a UID")
}

/// Runs a command of the daemon's program that finds the replicas by their Lease.
async fn run(fixture: &Fixture, kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    command.env_remove("KUBECONFIG").args(arguments).args(["--lease", &lease]);
    command.arg("--kubeconfig").arg(kubeconfig);
    blocking(move || command.output().expect("the program runs")).await
}

/// Returns the exit status, standard output and standard error.
fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs a command until it ends with this exit status and prints all of these texts.
async fn shows(
    fixture: &Fixture,
    kubeconfig: &Path,
    arguments: &[&str],
    status: i32,
    expected: &[&str],
) -> String {
    eventually(TIMEOUT, &format!("{arguments:?} shows {expected:?}"), async || {
        let (code, stdout, stderr) = texts(&run(fixture, kubeconfig, arguments).await);
        let all = format!("{stdout}{stderr}");
        match code == Some(status) && expected.iter().all(|part| all.contains(part)) {
            true => Ok(all),
            false => Err(format!("{code:?}\n{all}")),
        }
    })
    .await
}

async fn a_reader_sees_and_explains_what_is_published() {
    let mut fixture = Fixture::new("reader").await;
    let kubeconfig = reader(&fixture, reader_rules()).await;
    let leader = replica(&fixture, "ee-0").await;
    takes_over(&leader).await;
    let _standby = replica(&fixture, "ee-1").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let [first, second, third] = [0, 1, 2].map(|index| fixture.databases[index].ip.to_string());
    let service = format!("{}/mysql", fixture.namespace.name);

    let healthy = ["1 standby", "1 database, 0 in trouble; 3 addresses: 3 published", "3 of 3"];
    let text = shows(&fixture, &kubeconfig, &["status"], 0, &healthy).await;
    assert!(text.contains("leader ") && !text.contains('\u{1b}'), "{text}");
    let up = format!("{first} is PUBLISHED in {service}");
    let parts = [up.as_str(), "leaves when", "this daemon wrote Endpoints mysql"];
    shows(&fixture, &kubeconfig, &["explain", &service, &first], 0, &parts).await;

    fixture.databases[0].stop().await;
    let trouble = ["1 in trouble", "2 of 3", &first, "▼ down", "`external-endpoints explain "];
    shows(&fixture, &kubeconfig, &["status"], 1, &trouble).await;
    let out = format!("{first} is OUT of {service}");
    let parts = [
        out.as_str(),
        "its check failed",
        "connect: ",
        "in a row pass",
        "tcp ",
        "not in maintenance",
        "the cluster holds",
    ];
    let text = shows(&fixture, &kubeconfig, &["explain", &service, &first], 0, &parts).await;
    assert!(text.contains(&second) && !text.contains(&format!("{second} is")), "{text}");
    let all = [out.as_str(), &format!("{third} is PUBLISHED")];
    shows(&fixture, &kubeconfig, &["explain", &service], 0, &all).await;

    // Programs read the same.
    let explain = ["explain", &service, &first, "-o", "json"];
    let (code, stdout, _) = texts(&run(&fixture, &kubeconfig, &explain).await);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &json["targets"][0]["membership"]["reason"]), (Some(0), &json!("down")));
    let (code, stdout, _) = texts(&run(&fixture, &kubeconfig, &["status", "-o", "yaml"]).await);
    let yaml: Value = serde_saphyr::from_str(&stdout).expect("YAML");
    assert_eq!((code, &yaml["role"]), (Some(1), &json!("leader")));
    // Another namespace has no database, and so no trouble.
    let elsewhere = ["0 databases, 0 in trouble"];
    shows(&fixture, &kubeconfig, &["status", "-n", "nowhere"], 0, &elsewhere).await;
    // Without the API server.
    let url = leader.url();
    shows(&fixture, Path::new("/nowhere"), &["status", "--url", &url], 1, &["2 of 3"]).await;
    let unknown = shows(&fixture, &kubeconfig, &["explain", &service, "10.9.9.9"], 1, &[]).await;
    assert!(unknown.contains("has no address 10.9.9.9; it has: "), "{unknown}");
}

async fn a_standby_answers_for_a_leader_that_is_gone() {
    let fixture = Fixture::new("gone").await;
    let kubeconfig = reader(&fixture, reader_rules()).await;
    let mut leader = replica(&fixture, "ee-0").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let _standby = replica(&fixture, "ee-1").await;
    shows(&fixture, &kubeconfig, &["status"], 0, &["leader ", "1 standby"]).await;
    leader.kill();
    let parts = [
        "Pod",
        "ee-0 can't be reached",
        "the status is that of another replica",
        "this replica does not write",
    ];
    shows(&fixture, &kubeconfig, &["status"], 1, &parts).await;
    // Nobody answers.
    let pods: Api<Pod> = fixture.namespace.api();
    pods.delete("ee-1", &kube::api::DeleteParams::default().grace_period(0)).await.expect("gone");
    let parts = ["ee-0 can't be reached", "logs ee-0"];
    shows(&fixture, &kubeconfig, &["status"], 1, &parts).await;
}

async fn each_right_that_a_reader_lacks_is_named() {
    let rules = reader_rules();
    assert_eq!(rules.len(), 3);
    for (missing, status, parts) in [
        (0, 1, vec!["you may not get leases external-endpoints", "3 of 3"]),
        (1, 0, vec!["leader ", "3 of 3"]),
        (2, 1, vec!["you may not get pods/proxy", "deploy/reader.yaml", "--url"]),
    ] {
        let fixture = Fixture::new("rights").await;
        let mut rules = rules.clone();
        rules.remove(missing);
        let kubeconfig = reader(&fixture, rules).await;
        let name = replica_name(missing);
        let _leader = replica(&fixture, &name).await;
        fixture.expect_endpoints(&[0, 1, 2]).await;
        let text = shows(&fixture, &kubeconfig, &["status"], status, &parts).await;
        assert!(missing != 1 || !text.contains("standby"), "the Pods are not known: {text}");
    }
    let fixture = Fixture::new("norights").await;
    let kubeconfig = reader(&fixture, Vec::new()).await;
    let parts = ["no daemon found", "you may not get leases", "you may not list pods", "--lease"];
    shows(&fixture, &kubeconfig, &["status"], 1, &parts).await;
}

/// Returns the name of the only Pod. Where Pods can't be listed, its name is known from the Lease,
/// which has the name of the host.
fn replica_name(missing: usize) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    if missing == 1 { host.trim().to_lowercase() } else { "ee-0".to_owned() }
}

async fn the_commands_work_as_a_plugin_of_kubectl() {
    let fixture = Fixture::new("plugin").await;
    let kubeconfig = reader(&fixture, reader_rules()).await;
    let _leader = replica(&fixture, "ee-0").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let folder = temp_dir("plugin");
    symlink(PROGRAM, folder.join("kubectl-external_endpoints")).expect("a link");
    let kubectl = async |arguments: &[&str]| {
        let mut command = Command::new(binaries::kubernetes("kubectl"));
        command.env("PATH", &folder).env("KUBECONFIG", &kubeconfig);
        command.arg("external-endpoints").args(arguments);
        texts(&blocking(move || command.output().expect("kubectl runs")).await)
    };
    let lease = format!("{}/{LEASE}", fixture.namespace.name);
    eventually(TIMEOUT, "the plugin shows the status", async || {
        let (code, stdout, stderr) = kubectl(&["status", "--lease", &lease]).await;
        match code == Some(0) && stdout.contains("3 of 3") {
            true => Ok(()),
            false => Err(format!("{code:?} {stdout}{stderr}")),
        }
    })
    .await;
    let (code, _, stderr) = kubectl(&["status", "--no-such-flag"]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("Usage: kubectl external-endpoints status"), "{stderr}");
}
