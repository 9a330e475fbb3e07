//! Two replicas of the daemon, each with its own proxy to the API.
//!
//! Each start of a replica has its own ServiceAccount, so that the API's audit log distinguishes
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::sync::Mutex;

use super::config::Config;
use super::dns::Dns;
use super::fixture::{DATABASES, service};
use super::scenario::is_named;
use super::views::Pages;
use crate::support::daemon::log_field;
use crate::support::{ApiProxy, ControlPlane, Daemon, Namespace, eventually, rbac};

/// Far longer than anything takes without a fault.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The number of replicas whose pages are read. One that has exited costs nothing.
const MAX_PAGES: usize = 4;

const LEASE: &str = "external-endpoints";

pub(crate) struct Replicas {
    slots: Vec<Slot>,
    /// The config that all replicas read.
    pub config: Arc<Mutex<Config>>,
    dns: Dns,
    lease: String,
    /// The tokens of unused ServiceAccounts by name. They are created in advance, because the API
    /// may be away when one is needed.
    tokens: Vec<(String, String)>,
    /// The ServiceAccount of each identity so far.
    pub accounts: BTreeMap<String, String>,
    /// The addresses of the pages of the replicas.
    pub pages: Pages,
    /// The logs of replicas that have exited.
    logs: Vec<String>,
}

struct Slot {
    proxy: Arc<ApiProxy<'static>>,
    daemon: Daemon,
    identity: String,
}

impl Replicas {
    /// Starts two replicas, with ServiceAccounts for at most `most` starts.
    pub(crate) async fn start(
        plane: &'static ControlPlane,
        namespace: &Namespace,
        config: Config,
        services: &[String],
        dns: &Dns,
        most: usize,
    ) -> Replicas {
        allow(namespace, services).await;
        let mut tokens = Vec::new();
        for number in (1..=most).rev() {
            let name = format!("replica-{number}");
            namespace.create_service_account(&name).await;
            tokens.push((name.clone(), namespace.token(&name).await));
        }
        let lease = format!("{}/{LEASE}", namespace.name);
        let config = Arc::new(Mutex::new(config));
        let mut replicas = Replicas {
            slots: Vec::new(),
            config,
            dns: dns.clone(),
            lease,
            tokens,
            accounts: BTreeMap::new(),
            pages: Pages::default(),
            logs: Vec::new(),
        };
        for slot in 0..2 {
            let proxy = Arc::new(ApiProxy::start(plane).await);
            let (daemon, identity) = replicas.run(slot, &proxy).await;
            replicas.slots.push(Slot { proxy, daemon, identity });
        }
        replicas
    }

    async fn run(&mut self, slot: usize, proxy: &ApiProxy<'static>) -> (Daemon, String) {
        let (account, token) = self.tokens.pop().expect("a ServiceAccount that is left");
        // Nobody edits the config meanwhile, so this replica reads the same as all others.
        let mut config = self.config.lock().await;
        let kubeconfig = proxy.kubeconfig_for_token(&token);
        let dns = self.dns.address(slot).to_string();
        let arguments = ["--lease", &self.lease, "--dns-server", &dns];
        let daemon = Daemon::start(&config.text(), &kubeconfig, &arguments).await;
        config.add_file(daemon.config().to_owned());
        drop(config);
        let identity = eventually(TIMEOUT, "the replica competes for the lease", async || {
            let logs = daemon.logs();
            logs.iter().find_map(|line| log_field(line, "identity").map(str::to_owned))
        })
        .await;
        self.accounts.insert(identity.clone(), account);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // Those before it have exited, but for the other replica's.
        pages.push(daemon.admin());
        let begin = pages.len().saturating_sub(MAX_PAGES);
        pages.drain(..begin);
        drop(pages);
        (daemon, identity)
    }

    /// Waits until both replicas have checked every target of the config, so that either can take
    /// over. Targets that DNS gives may be fewer during a fault.
    pub(crate) async fn wait_until_checked(&self) {
        let named: Vec<String> = (0..DATABASES)
            .filter(|database| is_named(*database))
            .map(|database| format!("service=\"{}\"", service(database)))
            .collect();
        let of_name = |line: &str| named.iter().any(|label| line.contains(label));
        for slot in &self.slots {
            eventually(TIMEOUT, "a replica knows every target", async || {
                let metrics = slot.daemon.metrics().await;
                let known = metrics
                    .lines()
                    .filter(|line| line.starts_with("external_endpoints_target_healthy{"))
                    .filter(|line| !of_name(line))
                    .count();
                let targets = self.config.lock().await.targets();
                if known == targets { Ok(()) } else { Err(format!("{known} of {targets}")) }
            })
            .await;
        }
    }

    /// Returns the slot of the replica with this identity.
    pub(crate) fn slot(&self, identity: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.identity == identity)
    }

    /// Returns the ServiceAccount of the replica in a slot.
    pub(crate) fn account(&self, slot: usize) -> String {
        self.accounts[&self.slots[slot].identity].clone()
    }

    /// Returns the proxies between the replicas and the API.
    pub(crate) fn proxies(&self) -> Vec<Arc<ApiProxy<'static>>> {
        self.slots.iter().map(|slot| slot.proxy.clone()).collect()
    }

    pub(crate) fn kill(&mut self, slot: usize) {
        let daemon = &mut self.slots[slot].daemon;
        daemon.kill();
        self.logs.extend(daemon.lines());
    }

    /// Terminates a replica and waits until it has exited.
    pub(crate) async fn end(&mut self, slot: usize) {
        let daemon = &mut self.slots[slot].daemon;
        let (status, _) = daemon.terminate().await;
        assert!(status.success(), "a replica that was asked to end: {status}");
        self.logs.extend(daemon.lines());
    }

    /// Starts a new replica in place of one that has exited.
    pub(crate) async fn restart(&mut self, slot: usize) {
        let proxy = self.slots[slot].proxy.clone();
        let (daemon, identity) = self.run(slot, &proxy).await;
        self.slots[slot] = Slot { proxy, daemon, identity };
    }

    pub(crate) fn stop(&self, slot: usize) {
        self.slots[slot].daemon.signal(Signal::SIGSTOP);
    }

    pub(crate) fn resume(&self, slot: usize) {
        self.slots[slot].daemon.signal(Signal::SIGCONT);
    }

    pub(crate) fn cut_off(&self, slot: usize) {
        self.slots[slot].proxy.hang();
    }

    pub(crate) async fn reconnect(&self, slot: usize) {
        self.slots[slot].proxy.heal().await;
    }

    /// Returns the replicas that have exited by themselves. There should be none.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let ended = self
            .slots
            .iter_mut()
            .filter_map(|slot| Some((slot.daemon.exit_status()?, &slot.identity)));
        ended.map(|(status, identity)| format!("replica {identity} ended with {status}")).collect()
    }

    /// Returns all log lines of all replicas that contain one of these words.
    pub(crate) fn log(&self, words: &[&str]) -> Vec<String> {
        let alive = self.slots.iter().flat_map(|slot| slot.daemon.lines());
        let lines = self.logs.iter().cloned().chain(alive);
        let mut lines: Vec<String> =
            lines.filter(|line| words.iter().any(|word| line.contains(word))).collect();
        // Each line begins with its time.
        lines.sort();
        lines
    }
}

/// Grants the rights of deploy/ to all ServiceAccounts of the namespace.
async fn allow(namespace: &Namespace, services: &[String]) {
    let slices: Vec<String> =
        services.iter().map(|service| format!("{service}-external-ipv4-1")).collect();
    let rules = json!([
        rbac::rule("services", rbac::READ),
        rbac::rule("endpoints", rbac::READ),
        rbac::rule_for_names("endpoints", services, &["get", "create", "patch"]),
        rbac::rule("endpointslices.discovery.k8s.io", rbac::READ),
        rbac::rule_for_names(
            "endpointslices.discovery.k8s.io",
            &slices,
            &["get", "create", "patch", "delete"]
        ),
        rbac::rule("events", &["list", "create", "patch"]),
        rbac::rule_for_names("leases.coordination.k8s.io", &[LEASE], &["get", "create", "update"]),
    ]);
    namespace.create_object::<Role>(json!({"metadata": {"name": "replica"}, "rules": rules})).await;
    let group = format!("system:serviceaccounts:{}", namespace.name);
    let binding = json!({
        "metadata": {"name": "replica"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "replica"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    });
    namespace.create_object::<RoleBinding>(binding).await;
}
