//! The fixture of most cases: three databases behind one Service, a config for them, and the
//! history of their Endpoints.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Endpoints;
use kube::ResourceExt as _;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{Daemon, Database, Namespace, addresses, eventually, runtime, shared};

/// Far longer than anything takes on a busy machine, and far shorter than the time limit of a case.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A check that is fast enough for a test, and patient enough for a busy machine.
pub(crate) const CHECK: &str = "{tcp: {}, interval: 250ms, timeout: 1s}";

/// Three databases behind the Service `mysql`, in a namespace of their own.
pub(crate) struct Fixture {
    pub namespace: Namespace,
    pub databases: Vec<Database>,
}

impl Fixture {
    /// Creates the databases and the Service.
    pub(crate) async fn new(prefix: &str) -> Fixture {
        let fixture = Fixture::without_service(prefix).await;
        fixture.namespace.create_service("mysql", &[("", 3306)]).await;
        fixture
    }

    pub(crate) async fn without_service(prefix: &str) -> Fixture {
        Fixture::on(shared().namespace(prefix).await).await
    }

    pub(crate) async fn on(namespace: Namespace) -> Fixture {
        let mut databases = Vec::new();
        for ip in addresses::allocate(3) {
            databases.push(Database::start(ip, 3306).await);
        }
        Fixture { namespace, databases }
    }

    pub(crate) fn config(&self) -> String {
        self.config_with("")
    }

    /// Returns the config with more keys for the database, one line each.
    pub(crate) fn config_with(&self, more: &str) -> String {
        let ips: Vec<String> =
            self.databases.iter().map(|database| database.ip.to_string()).collect();
        config(&self.namespace.name, &ips.join(", "), CHECK, more)
    }

    pub(crate) async fn start(&self) -> Daemon {
        Daemon::start(&self.config(), &shared().kubeconfig(), &[]).await
    }

    /// Starts the daemon with more keys for the database, one line each.
    pub(crate) async fn start_with(&self, more: &str) -> Daemon {
        Daemon::start(&self.config_with(more), &shared().kubeconfig(), &[]).await
    }

    /// Starts the daemon and waits until the Endpoints have all three databases.
    pub(crate) async fn start_published(&self) -> Daemon {
        let daemon = self.start().await;
        self.expect_endpoints(&[0, 1, 2]).await;
        self.expect_condition(&daemon, "Published").await;
        daemon
    }

    /// Returns the addresses of these databases as the cluster should show them.
    pub(crate) fn ips(&self, which: &[usize]) -> Vec<String> {
        let mut ips: Vec<IpAddr> = which.iter().map(|index| self.databases[*index].ip).collect();
        ips.sort();
        ips.iter().map(ToString::to_string).collect()
    }

    /// Waits until the Endpoints have exactly these databases, in order.
    pub(crate) async fn expect_endpoints(&self, which: &[usize]) {
        let wanted = self.ips(which);
        eventually(TIMEOUT, &format!("the Endpoints have {wanted:?}"), async || {
            let there = self.namespace.endpoint_ips("mysql").await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }

    /// Waits until all EndpointSlices together have exactly these databases.
    pub(crate) async fn expect_slices(&self, which: &[usize]) {
        let mut wanted = self.ips(which);
        wanted.sort();
        eventually(TIMEOUT, &format!("the EndpointSlices have {wanted:?}"), async || {
            let there = self.namespace.slice_ips("mysql").await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }

    /// Waits until the daemon reports this condition for the database. Returns the reason.
    pub(crate) async fn expect_condition(&self, daemon: &Daemon, kind: &str) -> String {
        self.expect_condition_with(daemon, kind, "").await
    }

    /// Waits until the daemon reports this condition for the database, with these words in the
    /// reason. Returns the reason.
    pub(crate) async fn expect_condition_with(
        &self,
        daemon: &Daemon,
        kind: &str,
        words: &str,
    ) -> String {
        eventually(TIMEOUT, &format!("condition {kind}, {words:?}"), async || {
            let database = database(&daemon.status().await);
            let reason = database["reason"].as_str().unwrap_or_default();
            if database["condition"] == kind && reason.contains(words) {
                Ok(reason.to_owned())
            } else {
                Err(database.to_string())
            }
        })
        .await
    }

    pub(crate) async fn history(&self) -> History {
        History::start(&self.namespace, "mysql").await
    }
}

/// Returns a config with one database, `mysql`.
pub(crate) fn config(namespace: &str, addresses: &str, check: &str, more: &str) -> String {
    format!(
        "databases:
- service: mysql
  namespace: {namespace}
  port: 3306
  addresses: [{addresses}]
  check: {check}
{more}"
    )
}

/// Returns a config with a text replaced. Panics if the config does not have it: the case would
/// otherwise run with a config that it did not mean.
#[track_caller]
pub(crate) fn replace_in(yaml: &str, from: &str, to: &str) -> String {
    assert!(yaml.contains(from), "the config has no {from:?}:\n{yaml}");
    yaml.replace(from, to)
}

/// Returns the databases of a config, without the key above them, to append to another config.
#[track_caller]
pub(crate) fn databases_of(yaml: &str) -> &str {
    yaml.strip_prefix("databases:\n").expect("a config that begins with its databases")
}

/// Returns the first database of a status.
pub(crate) fn database(status: &Value) -> Value {
    status["databases"][0].clone()
}

/// Waits until each target has had this many more checks on average. Tests use it to wait for
/// things that must not happen.
pub(crate) async fn wait_for_checks(daemon: &Daemon, times: u32) {
    let tried =
        async || daemon.metric("external_endpoints_checks_total", &[]).await.unwrap_or_default();
    let targets =
        daemon.metric("external_endpoints_configured_addresses", &[]).await.expect("addresses");
    let enough = tried().await + targets * f64::from(times);
    eventually(TIMEOUT, "every target is tried", async || {
        let tried = tried().await;
        if tried >= enough { Ok(()) } else { Err(format!("{tried} of {enough}")) }
    })
    .await;
}

/// The changes of one Endpoints object since the history was started, without gaps.
pub(crate) struct History {
    changes: Arc<Mutex<Vec<Change>>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub version: String,
    /// The ready addresses, or none if the object was deleted.
    pub ips: Option<Vec<String>>,
}

impl History {
    pub(crate) async fn start(namespace: &Namespace, name: &str) -> History {
        let api: Api<Endpoints> = namespace.api();
        let list = api.list(&Default::default()).await.expect("listing Endpoints");
        let version = list.metadata.resource_version.expect("a list has a version");
        let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(290);
        let events = api.watch(&params, &version).await.expect("watching Endpoints");
        let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
        let seen = changes.clone();
        let task = runtime().spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let change = match event.expect("a watch without errors") {
                    WatchEvent::Added(endpoints) | WatchEvent::Modified(endpoints) => Change {
                        version: endpoints.resource_version().unwrap_or_default(),
                        ips: Some(ips(&endpoints)),
                    },
                    WatchEvent::Deleted(endpoints) => Change {
                        version: endpoints.resource_version().unwrap_or_default(),
                        ips: None,
                    },
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) => panic!("watching Endpoints: {status}"),
                };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(change);
            }
        });
        History { changes, task }
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        assert!(!self.task.is_finished(), "the watch has ended");
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until these are the steps and there are no others. The watch may be a little late.
    pub(crate) async fn expect_steps(&self, expected: &[Option<Vec<String>>]) {
        eventually(TIMEOUT, &format!("the steps are {expected:?}"), async || {
            let steps = self.steps();
            if steps == expected { Ok(()) } else { Err(format!("{steps:?}")) }
        })
        .await;
    }

    /// Waits until the watch has seen these as the newest addresses. It may be a little late.
    pub(crate) async fn expect_last_step(&self, expected: &[String]) {
        eventually(TIMEOUT, &format!("the last step is {expected:?}"), async || {
            let steps = self.steps();
            match steps.last() {
                Some(Some(last)) if last == expected => Ok(()),
                _ => Err(format!("{steps:?}")),
            }
        })
        .await;
    }

    /// Returns the addresses of the Endpoints after each change.
    pub(crate) fn steps(&self) -> Vec<Option<Vec<String>>> {
        self.changes().into_iter().map(|change| change.ips).collect()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ips(endpoints: &Endpoints) -> Vec<String> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .flat_map(|subset| subset.addresses.iter().flatten())
        .map(|address| address.ip.clone())
        .collect()
}
