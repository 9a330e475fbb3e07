//! The fixture of a chaos run: a cluster, thirty databases of three targets each, two replicas of
//! the daemon, and the API's history.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::Api;

use super::config::Config;
use super::dns::Dns;
use super::record::Limits;
use super::replicas::Replicas;
pub(crate) use super::scenario::is_named;
use super::scenario::{keeps_last_target, uses_slice};
use super::views::Views;
use super::watch::{Publishes as _, Stalls, Watch};
use crate::support::traffic::connect;
use crate::support::{
    ConnectOutcome, ControlPlane, Database, Namespace, Options, addresses, eventually,
};

pub(crate) const DATABASES: usize = 30;
pub(crate) const ADDRESSES: usize = 3;
pub(crate) const PORT: u16 = 3306;
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);
pub(crate) const RECHECK_INTERVAL: Duration = Duration::from_millis(500);
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const UNHEALTHY_THRESHOLD: u32 = 3;
pub(crate) const HEALTHY_THRESHOLD: u32 = 2;

/// Far longer than anything takes without a fault.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the times that docs/operations/failure-modes.md promises for the check above.
pub(crate) fn limits() -> Limits {
    // A target is checked at the earliest half an interval after its last check, and a check that
    // fails takes its whole time-out.
    let first = CHECK_INTERVAL + CHECK_INTERVAL / 2 + CHECK_TIMEOUT;
    Limits {
        detection: first + (UNHEALTHY_THRESHOLD - 1) * RECHECK_INTERVAL.max(CHECK_TIMEOUT),
        // The check that was running when the target came back fails.
        recovery: first + (HEALTHY_THRESHOLD - 1) * RECHECK_INTERVAL,
        slack: Duration::from_secs(2),
        // The file is read twice with the same content, a second apart. Then new targets get their
        // first check.
        config: 3 * Duration::from_secs(1) + CHECK_INTERVAL + CHECK_TIMEOUT,
        // A TTL of 1 s, and a lookup.
        dns: Duration::from_secs(2),
        handover: Duration::from_secs(2),
        // 15 s, half a second between two reads of the Lease, and a call.
        lease: Duration::from_millis(16_500),
        backoff: Duration::from_secs(5),
    }
}

/// Returns the name of a database's Service.
pub(crate) fn service(database: usize) -> String {
    format!("db-{database}")
}

/// Returns the host name of a database whose addresses come from DNS.
pub(crate) fn host_name(database: usize) -> String {
    format!("db-{database}.corp.example")
}

/// Returns the name of the object that a database is published in.
pub(crate) fn object(database: usize) -> String {
    let service = service(database);
    if uses_slice(database) { format!("{service}-external-ipv4-1") } else { service }
}

pub(crate) struct Fixture {
    pub plane: &'static ControlPlane,
    /// A namespace whose client uses the API server without faults.
    pub namespace: Namespace,
    pub databases: Vec<Vec<Database>>,
    pub replicas: Replicas,
    pub dns: Dns,
    pub watch: Watch,
    pub stalls: Stalls,
    pub views: Views,
    pub began: Instant,
}

impl Fixture {
    /// Sets everything up, and waits until every database is published.
    pub(crate) async fn start(starts: usize) -> Fixture {
        let options = Options { proxy: true, audited: true };
        // It ends with the sandbox.
        let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(options).await));
        let observer = plane.start_observer().await;
        let namespace = Namespace::create(observer, "chaos").await;
        let mut databases = Vec::new();
        let mut names = Vec::new();
        for database in 0..DATABASES {
            namespace.create_service(&service(database), &[("", PORT)]).await;
            names.push(service(database));
            let mut targets = Vec::new();
            for ip in addresses::allocate(ADDRESSES) {
                targets.push(Database::start(ip, PORT).await);
            }
            databases.push(targets);
        }
        let config = Config::new(&namespace.name, ips(&databases));
        let dns = Dns::start(&ips(&databases)).await;
        let replicas = Replicas::start(plane, &namespace, config, &names, &dns, starts).await;
        replicas.wait_until_checked().await;
        let began = Instant::now();
        let pages = replicas.pages.clone();
        let mut fixture = Fixture {
            plane,
            watch: Watch::start(&namespace, objects(), began).await,
            stalls: Stalls::start(began),
            views: Views::start(pages.clone(), began),
            namespace,
            databases,
            replicas,
            dns,
            began,
        };
        fixture.wait_until_published().await;
        // The record starts here, so that the first publishing is not checked.
        fixture.began = Instant::now();
        fixture.dns.forget_changes();
        fixture.watch = Watch::start(&fixture.namespace, objects(), fixture.began).await;
        fixture.stalls = Stalls::start(fixture.began);
        fixture.views = Views::start(pages, fixture.began);
        fixture
    }

    /// Returns the published IPs by the name of their object.
    async fn published(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let endpoints: Api<Endpoints> = self.namespace.api();
        let slices: Api<EndpointSlice> = self.namespace.api();
        let endpoints = endpoints.list(&Default::default()).await.expect("a list");
        let slices = slices.list(&Default::default()).await.expect("a list");
        let endpoints =
            endpoints.items.iter().map(|endpoints| (endpoints.name_any(), endpoints.ips()));
        endpoints.chain(slices.items.iter().map(|slice| (slice.name_any(), slice.ips()))).collect()
    }

    /// Waits until each database is published with exactly the targets that are up, or with the one
    /// that a policy keeps.
    pub(crate) async fn wait_until_published(&self) {
        eventually(TIMEOUT, "each database is published as is true", async || {
            let (published, up) = (self.published().await, self.up().await);
            let wrong = (0..DATABASES).find_map(|database| {
                let there = published.get(&object(database)).cloned().unwrap_or_default();
                let wanted: BTreeSet<IpAddr> = up[database].iter().copied().collect();
                let kept = wanted.is_empty() && keeps_last_target(database) && there.len() == 1;
                (there != wanted && !kept)
                    .then(|| format!("{}: {there:?} and not {wanted:?}", service(database)))
            });
            wrong.map_or(Ok(()), Err)
        })
        .await;
    }

    /// Waits until connections to each Service reach a target that is up, if there is one.
    pub(crate) async fn wait_until_reachable(&self) {
        for (database, up) in self.up().await.into_iter().enumerate() {
            let service_ip = self.namespace.cluster_ip(&service(database)).await;
            eventually(TIMEOUT, &format!("{} leads to {up:?}", service(database)), async || {
                match connect(service_ip, PORT).await {
                    ConnectOutcome::Reached(ip) if up.contains(&ip) => Ok(()),
                    ConnectOutcome::Refused if up.is_empty() => Ok(()),
                    ConnectOutcome::NoAnswer if up.is_empty() && keeps_last_target(database) => {
                        Ok(())
                    }
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
    }

    /// Returns the targets of each database that are up and in the config.
    async fn up(&self) -> Vec<Vec<IpAddr>> {
        let config = self.replicas.config.lock().await;
        let up = |(database, targets): (usize, &Vec<Database>)| {
            let targets = targets.iter().enumerate();
            let up =
                targets.filter(|(index, target)| target.is_up() && config.has((database, *index)));
            up.map(|(_, target)| target.ip).collect()
        };
        self.databases.iter().enumerate().map(up).collect()
    }

    pub(crate) fn ips(&self) -> Vec<Vec<IpAddr>> {
        ips(&self.databases)
    }
}

fn objects() -> Vec<String> {
    (0..DATABASES).map(object).collect()
}

fn ips(databases: &[Vec<Database>]) -> Vec<Vec<IpAddr>> {
    databases.iter().map(|targets| targets.iter().map(|target| target.ip).collect()).collect()
}
