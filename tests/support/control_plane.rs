//! A real control plane: etcd, kube-apiserver with RBAC, kube-controller-manager and, optionally,
//! kube-proxy in nftables mode.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::Signal;
use serde_json::json;

use super::namespace::Namespace;
use super::pki::{Authority, Identity, Validity, signing_key};
use super::process::Process;
use super::sandbox::{NODE_IP, NODE_IP6};
use super::{addresses, binaries, blocking, http, temp_dir};

const ADMIN_TOKEN: &str = "admin-token";
const CONTROLLERS_TOKEN: &str = "controllers-token";
const PROXY_TOKEN: &str = "proxy-token";
/// The token of a user without any rights.
pub(crate) const UNPRIVILEGED_TOKEN: &str = "stranger-token";

/// Records complete writes of the kinds that the daemon writes, with their results.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "RequestResponse",
            "verbs": ["create", "update", "patch", "delete"],
            "resources": [
                {"group": "", "resources": ["endpoints"]},
                {"group": "discovery.k8s.io", "resources": ["endpointslices"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]}
            ]
        },
        {"level": "None"}
    ]
}"#;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Runs kube-proxy, which routes ClusterIPs. A sandbox can have only one.
    pub proxy: bool,
    /// Lets the API server record who changed what.
    pub audited: bool,
}

pub(crate) struct ControlPlane {
    pub api_url: String,
    api_port: u16,
    etcd_url: String,
    folder: PathBuf,
    authority: Authority,
    client: kube::Client,
    api: Mutex<Option<Process>>,
    audited: bool,
    /// Exits if it loses the API server during its own start. The next start of the API server
    /// restarts it.
    controllers: Mutex<Option<Process>>,
    others: Mutex<Vec<Process>>,
}

/// Returns the control plane with kube-proxy that all cases of a run share. `main` starts it before
/// the first case.
pub(crate) fn shared() -> &'static ControlPlane {
    SHARED.get().expect("main started the control plane")
}

static SHARED: OnceLock<ControlPlane> = OnceLock::new();

pub(crate) async fn start_shared() {
    let plane = ControlPlane::start(Options { proxy: true, ..Options::default() }).await;
    assert!(SHARED.set(plane).is_ok(), "started twice");
}

impl ControlPlane {
    pub(crate) async fn start(options: Options) -> ControlPlane {
        let folder = temp_dir("control-plane");
        let authority = Authority::new("external-endpoints tests");
        write_credentials(&folder, &authority);
        let api_port = addresses::allocate_port();
        let api_url = format!("https://127.0.0.1:{api_port}");
        let ca = folder.join("ca.crt");
        let kubeconfig =
            write_kubeconfig(&folder.join("admin.kubeconfig"), &api_url, &ca, ADMIN_TOKEN);
        let (etcd, etcd_url) = start_etcd(&folder);
        let plane = ControlPlane {
            client: client_from(&kubeconfig).await,
            api_url,
            api_port,
            etcd_url,
            folder,
            authority,
            api: Mutex::new(None),
            audited: options.audited,
            controllers: Mutex::new(None),
            others: Mutex::new(vec![etcd]),
        };
        plane.start_api().await;
        if options.proxy {
            plane.start_proxy().await;
        }
        plane
    }

    /// Returns a client with all rights.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Returns a new client that sends this token.
    pub(crate) async fn client_with_token(&self, token: &str) -> kube::Client {
        client_from(&self.kubeconfig_for_token(token)).await
    }

    /// Returns the path of a kubeconfig with all rights.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    pub(crate) fn kubeconfig_for_token(&self, token: &str) -> PathBuf {
        self.kubeconfig_at(&self.api_url, token)
    }

    /// Writes a kubeconfig with all rights for another URL of the API, such as that of a proxy.
    pub(crate) fn kubeconfig_at_url(&self, url: &str) -> PathBuf {
        self.kubeconfig_at(url, ADMIN_TOKEN)
    }

    /// Writes a kubeconfig with a token for another URL of the API.
    pub(crate) fn kubeconfig_at(&self, url: &str, token: &str) -> PathBuf {
        static WRITTEN: AtomicU32 = AtomicU32::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("user-{number}.kubeconfig"));
        write_kubeconfig(&path, url, &self.ca(), token)
    }

    /// Returns the path of the certificate of the authority that signed the API server's
    /// certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Issues a server certificate that clients of this API server trust, for a proxy in front of
    /// it.
    pub(crate) fn server_identity(&self) -> Identity {
        server_identity(&self.authority)
    }

    /// Returns `HOST:PORT` of the API server.
    pub(crate) fn api_address(&self) -> String {
        format!("127.0.0.1:{}", self.api_port)
    }

    /// Creates a Kubernetes namespace whose name begins with the prefix.
    pub(crate) async fn namespace(&self, prefix: &str) -> Namespace {
        Namespace::create(self.client(), prefix).await
    }

    /// Runs kubectl with all rights.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries::kubernetes("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        blocking(move || command.output().expect("kubectl runs")).await
    }

    /// Kills the API server. Its storage stays.
    pub(crate) async fn kill_api(&self) {
        let api = lock(&self.api).take().expect("the API server runs");
        blocking(move || drop(api)).await;
    }

    /// Starts the API server on the same port and storage, and waits until it is ready.
    pub(crate) async fn start_api(&self) {
        let process = self.spawn_api();
        let before = lock(&self.api).replace(process);
        assert!(before.is_none(), "the API server runs already");
        self.wait_ready("kube-apiserver", async || check_ready(&self.client).await).await;
        let mut controllers = lock(&self.controllers);
        if controllers.as_mut().is_none_or(|process| process.exit_status().is_some()) {
            *controllers = Some(self.spawn_controllers());
        }
    }

    /// Suspends the API server: connections stay open and nothing answers.
    pub(crate) fn pause_api(&self) {
        let api = lock(&self.api);
        api.as_ref().expect("the API server runs").pause();
    }

    pub(crate) fn resume_api(&self) {
        let api = lock(&self.api);
        api.as_ref().expect("the API server runs").signal(Signal::SIGCONT);
    }

    /// Suspends the controllers: nothing is mirrored or garbage-collected.
    pub(crate) fn pause_controllers(&self) {
        let controllers = lock(&self.controllers);
        controllers.as_ref().expect("the controllers run").pause();
    }

    pub(crate) fn resume_controllers(&self) {
        let controllers = lock(&self.controllers);
        controllers.as_ref().expect("the controllers run").signal(Signal::SIGCONT);
    }

    /// Returns the process IDs of everything that runs.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let (api, controllers, others) =
            (lock(&self.api), lock(&self.controllers), lock(&self.others));
        others.iter().chain(controllers.iter()).chain(api.iter()).map(Process::pid).collect()
    }

    fn spawn_api(&self) -> Process {
        let mut command = self.api_command(self.api_port);
        if self.audited {
            let policy = self.folder.join("audit-policy.json");
            fs::write(&policy, AUDIT_POLICY).expect("a file in the sandbox");
            command.arg(format!("--audit-policy-file={}", policy.display()));
            command.arg(format!("--audit-log-path={}", self.audit_log().display()));
        }
        Process::start("kube-apiserver", command, &self.log("kube-apiserver"))
    }

    /// Returns the path of the audit log: a line of JSON for each write of Endpoints,
    /// EndpointSlices and Leases, written before the API server answers.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Starts another API server on the same storage, and returns a client of it with all rights.
    ///
    /// It shows the storage while the first API server is under attack.
    pub(crate) async fn start_observer(&self) -> kube::Client {
        let port = addresses::allocate_port();
        let mut command = self.api_command(port);
        // The first API server maintains the Endpoints of `default/kubernetes`.
        command.arg("--endpoint-reconciler-type=none");
        let name = "kube-apiserver-observer";
        lock(&self.others).push(Process::start(name, command, &self.log(name)));
        let client =
            client_from(&self.kubeconfig_at_url(&format!("https://127.0.0.1:{port}"))).await;
        self.wait_ready(name, async || check_ready(&client).await).await;
        client
    }

    fn api_command(&self, port: u16) -> Command {
        let mut command = Command::new(binaries::kubernetes("kube-apiserver"));
        let file =
            |flag: &str, name: &str| format!("--{flag}={}", self.folder.join(name).display());
        command
            .args([
                "--bind-address=127.0.0.1".to_owned(),
                format!("--advertise-address={NODE_IP}"),
                format!("--secure-port={port}"),
                format!("--etcd-servers={}", self.etcd_url),
                file("tls-cert-file", "api.crt"),
                file("tls-private-key-file", "api.key"),
                file("token-auth-file", "tokens.csv"),
                file("service-account-key-file", "accounts.pub"),
                file("service-account-signing-key-file", "accounts.key"),
                file("cert-dir", "certificates"),
            ])
            .args([
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.0.0.0/16,fd00:10::/112",
            ]);
        command
    }

    fn spawn_controllers(&self) -> Process {
        let mut command = Command::new(binaries::kubernetes("kube-controller-manager"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig_for_token(CONTROLLERS_TOKEN))
            .args([
                "--use-service-account-credentials",
                "--leader-elect=false",
                "--secure-port=0",
                // Only those that Services need, and those that make Pods of a Deployment for
                // admission to check.
                "--controllers=endpoints-controller,endpointslice-controller,\
                 endpointslice-mirroring-controller,garbage-collector-controller,\
                 namespace-controller,serviceaccount-controller,\
                 deployment-controller,replicaset-controller",
            ])
            .arg(format!(
                "--service-account-private-key-file={}",
                self.folder.join("accounts.key").display()
            ));
        let name = "kube-controller-manager";
        Process::start(name, command, &self.log(name))
    }

    async fn start_proxy(&self) {
        self.create_node().await;
        let health = format!("127.0.0.1:{}", addresses::allocate_port());
        let mut command = Command::new(binaries::kubernetes("kube-proxy"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig_for_token(PROXY_TOKEN))
            .args([
                "--proxy-mode=nftables",
                "--hostname-override=node1",
                // Settings of the whole machine, which the sandbox cannot change.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ])
            .arg(format!("--healthz-bind-address={health}"))
            .arg(format!("--metrics-bind-address=127.0.0.1:{}", addresses::allocate_port()));
        lock(&self.others).push(Process::start("kube-proxy", command, &self.log("kube-proxy")));
        self.wait_ready("kube-proxy", async || match http::get(&health, "/healthz").await {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// Creates the Node whose addresses kube-proxy reads.
    async fn create_node(&self) {
        let nodes: Api<Node> = Api::all(self.client());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}});
        let addresses = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": NODE_IP},
            {"type": "InternalIP", "address": NODE_IP6},
        ]}});
        let apply = PatchParams::apply("tests").force();
        nodes.patch("node1", &apply, &Patch::Apply(&node)).await.expect("a Node");
        nodes
            .patch_status("node1", &PatchParams::default(), &Patch::Merge(&addresses))
            .await
            .expect("the Node's addresses");
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Waits until a health check succeeds. Panics with the ends of all logs if it does not, or if
    /// a process has exited.
    async fn wait_ready(&self, what: &str, check_ready: impl AsyncFn() -> Result<(), String>) {
        let started = Instant::now();
        loop {
            let seen = match tokio::time::timeout(Duration::from_secs(2), check_ready()).await {
                Ok(Ok(())) => return,
                Ok(Err(seen)) => seen,
                Err(_) => "no answer in 2s".to_owned(),
            };
            let ended = self.first_ended();
            if ended.is_some() || started.elapsed() > READY_TIMEOUT {
                let why = ended.unwrap_or(format!("not ready within {READY_TIMEOUT:?}: {seen}"));
                panic!("{what} doesn't start: {why}\n{}", self.log_tails());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn first_ended(&self) -> Option<String> {
        let (mut api, mut others) = (lock(&self.api), lock(&self.others));
        others.iter_mut().chain(api.iter_mut()).find_map(|process| {
            let status = process.exit_status()?;
            Some(format!("{} ended with {status}", process.name))
        })
    }

    fn log_tails(&self) -> String {
        let (api, controllers, others) =
            (lock(&self.api), lock(&self.controllers), lock(&self.others));
        let all = others.iter().chain(controllers.iter()).chain(api.iter());
        all.map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
        lock(&self.api).take();
        lock(&self.controllers).take();
        lock(&self.others).clear();
        // The folder is in a tmpfs.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn check_ready(client: &kube::Client) -> Result<(), String> {
    let request = Request::get("/readyz").body(Vec::new()).expect("a request");
    client.request_text(request).await.map(drop).map_err(|error| error.to_string())
}

fn lock<T>(processes: &Mutex<T>) -> MutexGuard<'_, T> {
    processes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_credentials(folder: &Path, authority: &Authority) {
    let server = server_identity(authority);
    let (private, public) = signing_key();
    let tokens = format!(
        "{ADMIN_TOKEN},admin,1,\"system:masters\"\n\
         {CONTROLLERS_TOKEN},system:kube-controller-manager,2\n\
         {PROXY_TOKEN},system:kube-proxy,3\n\
         {UNPRIVILEGED_TOKEN},stranger,4\n"
    );
    for (name, text) in [
        ("ca.crt", authority.certificate()),
        ("api.crt", &server.certificate),
        ("api.key", &server.key),
        ("accounts.key", &private),
        ("accounts.pub", &public),
        ("tokens.csv", &tokens),
    ] {
        fs::write(folder.join(name), text).expect("a file in the sandbox");
    }
}

fn server_identity(authority: &Authority) -> Identity {
    let names = ["127.0.0.1", NODE_IP, "localhost", "kubernetes.default.svc"];
    authority.issue(&names, Validity::Now)
}

fn start_etcd(folder: &Path) -> (Process, String) {
    let url = || format!("http://127.0.0.1:{}", addresses::allocate_port());
    let (clients, peers) = (url(), url());
    let mut command = Command::new(binaries::kubernetes("etcd"));
    command.args([
        "--name=etcd".to_owned(),
        // The data is in a tmpfs, and nothing in the sandbox survives a crash anyway.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=etcd={peers}"),
    ]);
    (Process::start("etcd", command, &folder.join("etcd.log")), clients)
}

fn write_kubeconfig(path: &Path, url: &str, ca: &Path, token: &str) -> PathBuf {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{
            "name": "sandbox",
            "context": {"cluster": "sandbox", "user": "user", "namespace": "default"},
        }],
        "current-context": "sandbox",
    });
    fs::write(path, kubeconfig.to_string()).expect("a file in the sandbox");
    path.to_owned()
}

async fn client_from(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("our own kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("our own kubeconfig");
    kube::Client::try_from(config).expect("a client")
}
