//! The supervisor: runs a reconciler for each database of the config and the reflectors of their
//! namespaces, and applies a new config to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use prometheus::Histogram;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::apply::feedback::Feedback;
use super::apply::pruner::Pruner;
use super::apply::queue::WriteQueue;
use super::apply::report::Reporter;
use super::cache::observed::Observed;
use super::cache::orphans::Orphans;
use super::cache::reflector::{NamespaceCache, run_reflector};
use super::cache::watch_state::NamespaceWatches;
use super::cluster::Cluster;
use super::condition::Condition;
use super::reconciler::Reconciler;
use super::status::{DatabaseHandle, DatabaseHandles, PublishStatus};
use super::{Handle, Options};
use crate::clock;
use crate::config::{Database, DatabaseId, Spec};
use crate::lease;
use crate::monitor;
use crate::notice::Recorder;

/// The reconcilers and reflectors that run. Dropping it ends them, and leaves the cluster as it is.
pub struct Supervisor {
    tasks: JoinSet<()>,
    namespaces: BTreeMap<String, Namespace>,
    databases: watch::Sender<Arc<DatabaseHandles>>,
    orphans: Arc<watch::Sender<Orphans>>,
    cluster: Cluster,
    monitor: monitor::Handle,
    lease: lease::Handle,
    queue: Arc<WriteQueue>,
    recorder: Recorder,
    write_duration: Histogram,
}

/// A namespace that is watched.
#[derive(Default)]
struct Namespace {
    /// The caches of its databases, by the name of their Service.
    databases: HashMap<String, Arc<watch::Sender<Observed>>>,
    watches: Arc<NamespaceWatches>,
    /// Makes its reflectors list again.
    relist: Arc<Notify>,
    /// Stops its reflectors. Each holds a receiver until it has ended.
    stop: watch::Sender<bool>,
}

impl Namespace {
    /// Stops its reflectors, and waits until they have ended.
    async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// A new config that is not yet in force, and how it differs from the one that is.
pub struct PendingReload {
    spec: Arc<Spec>,
    previous: Arc<DatabaseHandles>,
    /// The databases that the new config does not have.
    removed: Vec<DatabaseId>,
    /// The namespaces whose watches are stopped.
    namespaces: BTreeSet<String>,
}

impl Supervisor {
    /// Starts the queue and the pruner.
    pub(crate) fn new(
        cluster: Cluster,
        monitor: monitor::Handle,
        lease: lease::Handle,
        options: &Options,
        write_duration: Histogram,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let orphans = Arc::new(watch::Sender::new(Orphans::default()));
        let databases = watch::Sender::new(Arc::default());
        let queue = Arc::new(WriteQueue::new(options.rate));
        tasks.spawn(queue.clone().run());
        let pruner = Pruner {
            orphans: orphans.clone(),
            databases: databases.subscribe(),
            cluster: cluster.clone(),
            lease: lease.clone(),
            queue: queue.clone(),
            recorder: options.recorder.clone(),
            write_duration: write_duration.clone(),
        };
        tasks.spawn(pruner.run());
        Self {
            tasks,
            namespaces: BTreeMap::new(),
            databases,
            orphans,
            cluster,
            monitor,
            lease,
            queue,
            recorder: options.recorder.clone(),
            write_duration,
        }
    }

    /// Returns the view that the rest of the daemon has.
    pub(crate) fn handle(&self) -> Handle {
        Handle {
            databases: self.databases.subscribe(),
            all_synced: Arc::new(AtomicBool::new(false)),
            orphans: self.orphans.clone(),
            write_duration: self.write_duration.clone(),
        }
    }

    /// Starts the reconcilers of the first config.
    pub(crate) fn start(&mut self, spec: &Spec) {
        self.orphans.send_modify(|orphans| orphans.reload(spec, [], clock::now()));
        let started = spec.databases.iter().filter_map(|database| self.add(database));
        let databases: DatabaseHandles = started.collect();
        self.databases.send_replace(Arc::new(databases));
        self.namespaces
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .iter()
            .for_each(|namespace| self.watch(namespace));
    }

    /// Begins to put a new config in force: stops the watches of each namespace whose databases
    /// change. After this the monitor must get `spec`, before
    /// [`finish_reload`](Self::finish_reload) is called.
    pub async fn begin_reload(&mut self, spec: &Arc<Spec>) -> PendingReload {
        let previous = self.databases.borrow().clone();
        let ids: BTreeSet<&DatabaseId> =
            spec.databases.iter().map(|database| &database.id).collect();
        let removed: Vec<DatabaseId> =
            previous.keys().filter(|id| !ids.contains(id)).cloned().collect();
        let added = ids.into_iter().filter(|id| !previous.contains_key(id));
        // A watch is started with the databases that it is for, so other databases need another.
        let mut namespaces: BTreeSet<String> =
            added.chain(&removed).map(|id| id.namespace.clone()).collect();
        namespaces.extend(self.idle());
        for namespace in &namespaces {
            if let Some(watched) = self.namespaces.get(namespace) {
                watched.stop().await;
            }
        }
        PendingReload { spec: spec.clone(), previous, removed, namespaces }
    }

    /// Publishes by the new config, once the monitor plans by it. The reconciler of a removed
    /// database ends by itself, because nothing plans for it any more. That of a database that
    /// stays gets the new version of the database together with the next plan.
    pub fn finish_reload(&mut self, pending: PendingReload) {
        let PendingReload { spec, previous, removed, namespaces } = pending;
        let mut databases = (*previous).clone();
        for id in &removed {
            databases.remove(id);
            self.namespaces
                .get_mut(&id.namespace)
                .and_then(|namespace| namespace.databases.remove(&id.service));
        }
        // A namespace without databases is watched further only if a database was just removed.
        let idle = self.idle();
        self.namespaces.retain(|namespace, _| {
            !idle.contains(namespace) || removed.iter().any(|id| id.namespace == *namespace)
        });
        let removed = removed.into_iter().map(|id| {
            let uids =
                previous.get(&id).map(|handle| handle.observed.borrow().uids()).unwrap_or_default();
            (id, uids)
        });
        self.orphans.send_modify(|orphans| orphans.reload(&spec, removed, clock::now()));
        let added = spec.databases.iter().filter(|database| !previous.contains_key(&database.id));
        databases.extend(added.filter_map(|database| self.add(database)));
        self.databases.send_replace(Arc::new(databases));
        namespaces.iter().for_each(|namespace| self.watch(namespace));
    }

    /// Returns the namespaces without a database and without an orphan.
    fn idle(&self) -> Vec<String> {
        let orphans = self.orphans.borrow();
        let idle = |(name, namespace): &(&String, &Namespace)| {
            namespace.databases.is_empty() && !orphans.any_in(name)
        };
        self.namespaces.iter().filter(idle).map(|(name, _)| name.clone()).collect()
    }

    /// Starts the reconciler of one database.
    fn add(&mut self, database: &Arc<Database>) -> Option<(DatabaseId, DatabaseHandle)> {
        let plan = self.monitor.plan(&database.id)?;
        let DatabaseId { namespace, service } = database.id.clone();
        let namespace = self.namespaces.entry(namespace).or_default();
        let observed = Arc::new(watch::Sender::new(Observed::new(namespace.watches.clone())));
        namespace.databases.insert(service, observed.clone());
        let (status, status_receiver) = watch::channel(PublishStatus {
            condition: Condition::waiting_for_cluster(),
            last_transition: clock::now(),
            members: None,
            synced: matches!(self.cluster, Cluster::None),
            writes: BTreeMap::new(),
            last_write: None,
        });
        let handle = DatabaseHandle { status: status_receiver, observed: observed.subscribe() };
        let id = database.id.clone();
        let reconciler = Reconciler {
            database: plan.borrow().database.clone(),
            cluster: self.cluster.clone(),
            lease: self.lease.clone(),
            queue: self.queue.clone(),
            reporter: Reporter { id: id.clone(), status, recorder: self.recorder.clone() },
            feedback: Feedback::new(self.monitor.clone(), id.clone()),
            write_duration: self.write_duration.clone(),
            relist: namespace.relist.clone(),
        };
        self.tasks.spawn(Box::new(reconciler).run(observed, plan));
        Some((id, handle))
    }

    /// Starts the reflectors of a namespace, for the databases that are in it now.
    fn watch(&mut self, namespace: &str) {
        let Some(client) = self.cluster.client() else { return };
        let Some(watched) = self.namespaces.get_mut(namespace) else { return };
        watched.stop = watch::Sender::new(false);
        let cache = NamespaceCache {
            namespace: namespace.to_owned(),
            databases: watched.databases.clone(),
            orphans: self.orphans.clone(),
            watches: watched.watches.clone(),
            replica: self.lease.replica().to_owned(),
        };
        watch_namespace(&mut self.tasks, client, watched, Arc::new(cache));
    }

    /// Waits until a task fails, and returns the reason. A reconciler may end when its database has
    /// left the config, and a reflector when it is stopped.
    pub async fn task_failure(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(())) => {}
                Some(Err(error)) => return error.to_string(),
                None => std::future::pending().await,
            }
        }
    }

    /// Runs a task of another module, until it ends or is ended.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Ends all tasks.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

fn watch_namespace(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: &Namespace,
    cache: Arc<NamespaceCache>,
) {
    let services: Api<Service> = Api::namespaced(client.clone(), &cache.namespace);
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), &cache.namespace);
    // Where only Endpoints are written, slices show whether Kubernetes mirrors them.
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &cache.namespace);
    let (stop, relist) = (&namespace.stop, &namespace.relist);
    tasks.spawn(run_until(stop, run_reflector(services, cache.clone(), relist.clone())));
    tasks.spawn(run_until(stop, run_reflector(endpoints, cache.clone(), relist.clone())));
    tasks.spawn(run_until(stop, run_reflector(slices, cache, relist.clone())));
}

/// Runs this until it is stopped.
fn run_until<W: Future<Output = ()>>(
    stop: &watch::Sender<bool>,
    work: W,
) -> impl Future<Output = ()> + use<W> {
    let mut stopped = stop.subscribe();
    async move {
        tokio::select! {
            () = work => {}
            // It also ends when the sender is gone.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}
