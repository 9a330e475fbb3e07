//! Two replicas with their Pods, databases of every kind of policy and check, and a Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::monitoring::prometheus::{HOME, Prometheus, Speed};
use crate::monitoring::runbook;
use crate::support::daemon::PROGRAM;
use crate::support::name_server::{NameServer, Reply};
use crate::support::process::Process;
use crate::support::sandbox::NODE_IP;
use crate::support::{Behavior, Daemon, Database, Namespace, addresses, blocking, eventually};
use crate::support::{runtime, shared, temp_dir};

/// Far longer than anything takes on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The name of the database that is followed by DNS.
pub(crate) const NAME: &str = "crm.corp.example";

/// The databases. `legacy` is what leaves the config, and `late` what is too much to check.
const CONFIG: &str = "defaults:
  namespace: prod
  check: {tcp: {}, interval: 1s, timeout: 1s}
databases:
- service: mysql
  port: 3306
  addresses: [203.0.113.11, 203.0.113.12, 203.0.113.13]
  policy: {maxFlips: 1000}
- service: orders
  port: 3306
  addresses: [203.0.113.21, 203.0.113.22]
  policy: {exactlyOne: true}
- service: reports
  port: 3306
  addresses: [203.0.113.31, 203.0.113.32]
  policy: {minHealthy: 1, maxFlips: 1000}
- service: crm
  port: 3306
  addresses: [crm.corp.example]
- service: sessions
  port: 3306
  addresses: [{address: 203.0.113.51, priority: 0}, {address: 203.0.113.52, priority: 1}]
  policy: {failback: {delay: 1h}}
- service: cart
  port: 6379
  addresses: [203.0.113.61]
  check: {redis: {role: primary}}
- service: cart-replicas
  port: 6379
  addresses: [203.0.113.62]
  check: {redis: {role: replica, maxLag: 1m}}
- service: cache
  port: 3306
  addresses: [203.0.113.71, 203.0.113.72]
  policy: {maxFlips: 1}
- service: batch
  port: 3306
  addresses: [203.0.113.81]
  check: {exec: {command: [/bin/sh, -c, test ! -e FLAG || exit 127]}, interval: 1s}
- service: steady
  port: 3306
  addresses: [203.0.113.91, 203.0.113.92, 203.0.113.93, 203.0.113.94, 203.0.113.95]
";

pub(crate) const LEGACY: &str = "- {service: legacy, port: 3306, addresses: [203.0.113.99]}\n";

pub(crate) const LATE: &str = "- service: late
  port: 3306
  addresses: [203.0.113.91, 203.0.113.92, 203.0.113.93, 203.0.113.94]
  check: {exec: {command: [/bin/sleep, '0.4']}, interval: 500ms, timeout: 5s}
";

/// The last numbers of the addresses on which a database listens at first.
const UP: [u8; 16] = [11, 12, 13, 21, 31, 32, 41, 51, 52, 71, 72, 91, 92, 93, 94, 95];

/// The names of the Pods. The runbooks name the first one.
const PODS: [&str; 2] = ["external-endpoints-7c9f-x2x", "external-endpoints-7c9f-q5k"];

/// A replica with its Pod.
pub(crate) struct Replica {
    pod: &'static str,
    listen: SocketAddr,
    uid: String,
    daemon: Option<Daemon>,
}

pub(crate) struct Scene {
    pub prometheus: Prometheus,
    pub dns: NameServer,
    pub databases: BTreeMap<u8, Database>,
    pub replicas: Vec<Replica>,
    /// A folder with the config, in which the commands run.
    folder: PathBuf,
    _redis: Vec<Process>,
    _kubelet: Kubelet,
}

pub(crate) fn ip(last: u8) -> IpAddr {
    [203, 0, 113, last].into()
}

impl Scene {
    /// Starts everything, and waits until all is published and scraped.
    pub(crate) async fn new() -> Scene {
        create_objects().await;
        let mut databases = BTreeMap::new();
        for last in UP.into_iter().chain([99]) {
            databases.insert(last, Database::start(ip(last), 3306).await);
        }
        let dns = NameServer::start_on((addresses::allocate_one(), 53).into()).await;
        dns.set(NAME, Reply::Addresses(vec![ip(41), [127, 0, 0, 1].into()], 1));
        let listen: Vec<SocketAddr> =
            addresses::allocate(2).into_iter().map(|ip| (ip, 8080).into()).collect();
        let mut scene = Scene {
            prometheus: Prometheus::start(Speed::Fast, &listen).await,
            dns,
            databases,
            replicas: Vec::new(),
            folder: temp_dir("commands"),
            _redis: vec![redis(61, &[]), redis(62, &["--replicaof", "203.0.113.61", "6379"])],
            _kubelet: Kubelet::start().await,
        };
        for (pod, listen) in PODS.into_iter().zip(listen) {
            let uid = ensure_pod(pod, listen).await;
            scene.replicas.push(Replica { pod, listen, uid, daemon: None });
        }
        scene.write_config(LEGACY);
        scene.start(0).await;
        scene.becomes("external_endpoints_leader == 1").await;
        scene.start(1).await;
        scene.becomes("count(external_endpoints_leader) == 2").await;
        let published = "sum(max by (service) (external_endpoints_published_addresses)) == 19";
        scene.becomes(published).await;
        scene
    }

    pub(crate) fn config(&self, more: &str) -> String {
        let flag = self.folder.join("flag");
        CONFIG.replace("FLAG", &flag.display().to_string()) + more
    }

    /// Writes the config with more databases for both replicas, and for the commands.
    pub(crate) fn write_config(&self, more: &str) {
        let yaml = self.config(more);
        self.write_file(&yaml);
        fs::write(self.folder.join("databases.yaml"), yaml).expect("a file in the sandbox");
    }

    /// Writes what both replicas read.
    pub(crate) fn write_file(&self, yaml: &str) {
        for daemon in self.replicas.iter().filter_map(|replica| replica.daemon.as_ref()) {
            fs::write(daemon.config(), yaml).expect("a file in the sandbox");
        }
    }

    /// Makes the check of `batch` say nothing, or lets it work.
    pub(crate) fn break_batch(&self) {
        fs::write(self.folder.join("flag"), "").expect("a file in the sandbox");
    }

    /// Starts a replica as its Pod does.
    pub(crate) async fn start(&mut self, index: usize) {
        let yaml = fs::read_to_string(self.folder.join("databases.yaml")).expect("the config");
        let dns = self.dns.address.ip().to_string();
        let replica = &mut self.replicas[index];
        let mut command = Command::new(PROGRAM);
        command.env("KUBECONFIG", shared().kubeconfig()).env("POD_UID", &replica.uid);
        let lease = format!("{HOME}/external-endpoints");
        let listen = replica.listen.to_string();
        let arguments =
            ["--lease", &lease, "--listen", &listen, "--dns-server", &dns, "--max-exec", "1"];
        replica.daemon = Some(Daemon::start_command(command, &yaml, &arguments).await);
    }

    /// Kills the replica that writes. Returns its index.
    pub(crate) async fn kill_leader(&mut self) -> usize {
        let leader = &self.prometheus.query("external_endpoints_leader == 1").await[0];
        let instance = leader["metric"]["instance"].as_str().expect("an instance").to_owned();
        let mut replicas = self.replicas.iter();
        let index = replicas.position(|replica| replica.listen.to_string() == instance);
        let index = index.expect("a replica");
        self.kill(index);
        index
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.replicas[index].daemon.take().expect("a replica that runs").kill();
    }

    pub(crate) async fn stop(&mut self, which: &[u8]) {
        for last in which {
            self.database(*last).stop().await;
        }
    }

    pub(crate) async fn restart(&mut self, which: &[u8]) {
        for last in which {
            self.database(*last).restart().await;
        }
    }

    fn database(&mut self, last: u8) -> &mut Database {
        self.databases.get_mut(&last).expect("a database")
    }

    /// Runs a command of the daemon's program.
    pub(crate) async fn command(&self, arguments: &[&str]) {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("KUBECONFIG", shared().kubeconfig());
        let output = blocking(move || command.output().expect("the program runs")).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Waits until an expression has a result.
    pub(crate) async fn becomes(&self, expression: &str) {
        eventually(TIMEOUT, expression, async || {
            match self.prometheus.query(expression).await.is_empty() {
                true => Err(format!("{:?}", self.prometheus.firing().await)),
                false => Ok(()),
            }
        })
        .await;
    }

    /// Waits until an alert fires. No others may fire but these. Then runs its runbook, whose
    /// commands must print this text.
    pub(crate) async fn fires(&self, alert: &str, others: &[&str], text: &str) {
        let alert = format!("ExternalEndpoints{alert}");
        eventually(TIMEOUT, &format!("{alert} fires"), async || {
            let firing = self.prometheus.firing().await;
            if firing.contains(&alert) { Ok(()) } else { Err(format!("{firing:?}")) }
        })
        .await;
        println!("{alert} fires");
        let printed = runbook::run(&alert, &self.folder).await;
        assert!(printed.contains(text), "{alert}: {text:?} is not in\n{printed}");
        for replica in &self.replicas {
            ensure_pod(replica.pod, replica.listen).await;
        }
        let firing = self.prometheus.firing().await;
        let known =
            |name: &String| *name == alert || others.iter().any(|other| name.ends_with(other));
        assert!(firing.iter().all(known), "beside {alert}: {firing:?}");
    }

    /// Waits until no alert fires.
    pub(crate) async fn all_resolve(&self) {
        eventually(TIMEOUT, "all alerts resolve", async || {
            let firing = self.prometheus.firing().await;
            if firing.is_empty() { Ok(()) } else { Err(format!("{firing:?}")) }
        })
        .await;
    }

    /// Changes the ports of a Service.
    pub(crate) async fn set_ports(&self, service: &str, ports: Value) {
        let services: Api<Service> = namespace("prod").api();
        let patch = Patch::Merge(json!({"spec": {"ports": ports}}));
        services.patch(service, &PatchParams::default(), &patch).await.expect("a patch");
    }
}

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace { name: name.to_owned(), client: shared().client() }
}

/// Creates the namespaces, the Services, and what the daemon's namespace has beside its Pods.
async fn create_objects() {
    for name in ["prod", HOME] {
        let output = shared().kubectl(&["create", "namespace", name]).await;
        assert!(output.status.success(), "{output:?}");
    }
    let prod = namespace("prod");
    for service in ["mysql", "orders", "reports", "crm", "sessions", "cache", "batch", "steady"] {
        prod.create_service(service, &[("", 3306)]).await;
    }
    for service in ["legacy", "late"] {
        prod.create_service(service, &[("", 3306)]).await;
    }
    for service in ["cart", "cart-replicas"] {
        prod.create_service(service, &[("", 6379)]).await;
    }
    let home = namespace(HOME);
    home.create_object::<ConfigMap>(json!({"metadata": {"name": "external-endpoints-config"}}))
        .await;
    let labels = json!({"app": "none"});
    // The replicas are processes and not its Pods: no kubelet runs here.
    home.create_object::<Deployment>(json!({
        "metadata": {"name": "external-endpoints"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "daemon", "image": "external-endpoints"}]},
            },
        },
    }))
    .await;
}

/// Creates a Pod that is ready at this address, unless it is there. Returns its UID.
async fn ensure_pod(name: &str, listen: SocketAddr) -> String {
    let home = namespace(HOME);
    let pods: Api<Pod> = home.api();
    if let Some(pod) = pods.get_opt(name).await.expect("a Pod or none")
        && pod.metadata.deletion_timestamp.is_none()
    {
        return pod.metadata.uid.expect("a UID");
    }
    eventually(TIMEOUT, "the deleted Pod is gone", async || {
        pods.get_opt(name).await.expect("a Pod or none").is_none()
    })
    .await;
    let pod: Pod = home
        .create_object(json!({
            "metadata": {
                "name": name, "labels": {"app.kubernetes.io/name": "external-endpoints"},
            },
            "spec": {
                "automountServiceAccountToken": false,
                "nodeName": "node1",
                "containers": [{
                    "name": "daemon", "image": "external-endpoints",
                    "ports": [{"name": "admin", "containerPort": listen.port()}],
                }],
            },
        }))
        .await;
    let status = json!({"status": {
        "phase": "Running", "podIP": listen.ip(), "podIPs": [{"ip": listen.ip()}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let patched = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await;
    patched.expect("the status of a Pod");
    pod.metadata.uid.expect("a UID")
}

/// A stand-in for the part of the kubelet that commands need: it answers when it is asked for a
/// log, and lets a Pod end that is deleted.
struct Kubelet {
    _logs: Database,
    pods: JoinHandle<()>,
}

impl Kubelet {
    async fn start() -> Kubelet {
        let identity = shared().server_identity();
        let node = NODE_IP.parse().expect("an IP");
        let logs = Behavior::Https(identity.server_config());
        let pods = runtime().spawn(async {
            let pods: Api<Pod> = namespace(HOME).api();
            loop {
                let list = pods.list(&ListParams::default()).await;
                let list = list.map(|list| list.items).unwrap_or_default();
                for pod in list.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                    // Another attempt follows.
                    let _ = pods.delete(&pod.name_any(), &now()).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Kubelet { _logs: Database::start_with(node, 10250, logs).await, pods }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.pods.abort();
    }
}

fn now() -> DeleteParams {
    DeleteParams::default().grace_period(0)
}

fn redis(last: u8, more: &[&str]) -> Process {
    let folder = temp_dir("redis");
    let mut command = Command::new("redis-server");
    command
        .args(["--port", "6379", "--bind", &ip(last).to_string(), "--protected-mode", "no"])
        .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--dir"])
        .arg(Path::new(&folder))
        .args(more);
    Process::start("redis-server", command, &folder.join("redis.log"))
}
