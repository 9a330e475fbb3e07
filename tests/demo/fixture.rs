//! The fixture of the demo: a cluster, a Service without a selector, three databases, the daemon,
//! and a client that keeps connecting.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::traffic::connect;
use crate::support::{
    ConnectOutcome, ControlPlane, Daemon, Database, Namespace, Options, Traffic, addresses,
    eventually,
};

/// Long enough for any step on a busy machine. A step that takes longer has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
const SERVICE: &str = "mysql";
const PORT: u16 = 3306;

pub(crate) struct Fixture {
    pub namespace: Namespace,
    pub cluster_ip: IpAddr,
    pub databases: Vec<Database>,
    pub daemon: Daemon,
    pub config: String,
    /// The last field, because the others need it.
    pub plane: ControlPlane,
}

impl Fixture {
    pub(crate) async fn start() -> Fixture {
        let plane = ControlPlane::start(Options { proxy: true, ..Options::default() }).await;
        let namespace = plane.namespace("demo").await;
        namespace.create_service(SERVICE, &[("", PORT)]).await;
        let cluster_ip = namespace.cluster_ip(SERVICE).await;
        let mut databases = Vec::new();
        for ip in addresses::allocate(3) {
            databases.push(Database::start(ip, PORT).await);
        }
        let config = config(&namespace.name, &databases);
        let daemon = Daemon::start(&config, &plane.kubeconfig(), &[]).await;
        Fixture { namespace, cluster_ip, databases, daemon, config, plane }
    }

    /// Starts a client that connects to the ClusterIP fifty times a second.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic::start(self.cluster_ip, PORT, Duration::from_millis(20))
    }

    /// Returns the name of a database on the screen.
    pub(crate) fn name(&self, index: usize) -> String {
        format!("mysql-{}", index + 1)
    }

    /// Waits until the Endpoints have exactly the addresses of these databases.
    pub(crate) async fn endpoints_are(&self, indices: &[usize]) {
        let mut wanted: Vec<String> =
            indices.iter().map(|index| self.databases[*index].ip.to_string()).collect();
        wanted.sort();
        eventually(TIMEOUT, &format!("the Endpoints are {}", wanted.join(", ")), async || {
            let mut ips = self.namespace.endpoint_ips(SERVICE).await;
            ips.sort();
            if ips == wanted { Ok(()) } else { Err(ips.join(", ")) }
        })
        .await;
    }

    /// Waits until a connection to the ClusterIP reaches a database.
    pub(crate) async fn answers(&self) {
        eventually(TIMEOUT, "the Service answers", async || {
            matches!(connect(self.cluster_ip, PORT).await, ConnectOutcome::Reached(_))
        })
        .await;
    }

    /// Waits for the daemon's first failing verdict on a database. Returns its reason.
    pub(crate) async fn fails(&self, index: usize) -> String {
        let what = format!("a check of {} fails", self.name(index));
        eventually(TIMEOUT, &what, async || {
            let target = self.target(index).await;
            let failing = target["failures"].as_u64().is_some_and(|failures| failures > 0);
            failing.then(|| target["reason"].as_str().unwrap_or("no reason").to_owned())
        })
        .await
    }

    /// Waits for the daemon's first passing verdict on a database.
    pub(crate) async fn passes(&self, index: usize) {
        let what = format!("a check of {} passes", self.name(index));
        eventually(TIMEOUT, &what, async || {
            self.target(index).await["passes"].as_u64().is_some_and(|passes| passes > 0)
        })
        .await;
    }

    /// Returns how often the daemon wrote, successfully or not.
    pub(crate) async fn writes(&self) -> f64 {
        self.daemon
            .metric("external_endpoints_writes_total", &[("service", SERVICE)])
            .await
            .unwrap_or(0.0)
    }

    async fn target(&self, index: usize) -> Value {
        let ip = self.databases[index].ip.to_string();
        let status = self.daemon.status().await;
        let targets = status["databases"][0]["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().find(|target| target["address"] == ip.as_str()).unwrap_or_default()
    }
}

fn config(namespace: &str, databases: &[Database]) -> String {
    let ips: Vec<String> = databases.iter().map(|database| database.ip.to_string()).collect();
    format!(
        "databases:
- service: {SERVICE}
  namespace: {namespace}
  port: {PORT}
  addresses: [{}]
  check:
    tcp: {{}}
    interval: 1s
    timeout: 500ms
    healthyThreshold: 2
    unhealthyThreshold: 2
",
        ips.join(", ")
    )
}

/// Returns the start of the last connection since an instant that did not reach a database.
pub(crate) fn last_lost(traffic: &Traffic, since: Instant) -> Option<Instant> {
    let connections = traffic.connections().into_iter();
    let lost =
        connections.filter(|connection| !matches!(connection.outcome, ConnectOutcome::Reached(_)));
    lost.map(|connection| connection.started).filter(|started| *started >= since).max()
}
