//! All that publishes: a publisher for each database and the watches of their namespaces, as the config in force has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use prometheus::Histogram;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::budget::Budget;
use super::condition::Condition;
use super::leftover::Leftovers;
use super::prune::Pruner;
use super::publisher::Publisher;
use super::sight::{Observed, Sights, watch_kind};
use super::{Cluster, Handle, Options, Outlet, Outlets, Publication};
use crate::clock;
use crate::config::{Database, DatabaseId, Spec};
use crate::lease;
use crate::monitor;
use crate::notice::Recorder;

/// The publishers and watches that run. Dropping it ends them, and leaves the cluster as it is.
pub struct Publishing {
    tasks: JoinSet<()>,
    namespaces: BTreeMap<String, Namespace>,
    outlets: watch::Sender<Arc<Outlets>>,
    leftovers: Arc<watch::Sender<Leftovers>>,
    cluster: Cluster,
    monitor: monitor::Handle,
    lease: lease::Handle,
    budget: Arc<Budget>,
    recorder: Recorder,
    write_duration: Histogram,
}

/// A namespace that is watched: what is known for each of its Services, and a way to have it listed anew.
#[derive(Default)]
struct Namespace {
    databases: HashMap<String, Arc<watch::Sender<Observed>>>,
    nudge: Arc<Notify>,
    /// What its watches listen to until they end.
    stop: watch::Sender<bool>,
}

impl Namespace {
    /// Ends its watches, and waits until nothing more comes from them.
    async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

impl Publishing {
    pub(super) fn new(
        cluster: Cluster,
        monitor: monitor::Handle,
        lease: lease::Handle,
        options: &Options,
        write_duration: Histogram,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let leftovers = Arc::new(watch::Sender::new(Leftovers::default()));
        let outlets = watch::Sender::new(Arc::default());
        let budget = Arc::new(Budget::new(options.rate));
        tasks.spawn(budget.clone().run());
        let pruner = Pruner {
            leftovers: leftovers.clone(),
            outlets: outlets.subscribe(),
            cluster: cluster.clone(),
            lease: lease.clone(),
            budget: budget.clone(),
            recorder: options.recorder.clone(),
            write_duration: write_duration.clone(),
        };
        tasks.spawn(pruner.run());
        Self {
            tasks,
            namespaces: BTreeMap::new(),
            outlets,
            leftovers,
            cluster,
            monitor,
            lease,
            budget,
            recorder: options.recorder.clone(),
            write_duration,
        }
    }

    pub(super) fn handle(&self) -> Handle {
        Handle {
            outlets: self.outlets.subscribe(),
            ready: Arc::new(AtomicBool::new(false)),
            leftovers: self.leftovers.clone(),
            write_duration: self.write_duration.clone(),
        }
    }

    /// Starts with the databases of the first config.
    pub(super) fn begin(&mut self, spec: &Spec) {
        self.leftovers.send_modify(|leftovers| leftovers.reload(spec, [], clock::now()));
        let started = spec.databases.iter().filter_map(|database| self.add(database));
        let outlets: Outlets = started.collect();
        self.outlets.send_replace(Arc::new(outlets));
        self.namespaces
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .iter()
            .for_each(|namespace| self.watch(namespace));
    }

    /// Goes on with another config, from which the monitor decides from then on too. A database that stays keeps its publisher,
    /// which takes each plan together with the version of the database that it is for.
    pub async fn reload(&mut self, spec: &Arc<Spec>) {
        let before = self.outlets.borrow().clone();
        let ids: BTreeSet<&DatabaseId> =
            spec.databases.iter().map(|database| &database.id).collect();
        let gone: Vec<DatabaseId> = before.keys().filter(|id| !ids.contains(id)).cloned().collect();
        let new: Vec<&Arc<Database>> =
            spec.databases.iter().filter(|database| !before.contains_key(&database.id)).collect();

        // Watches know which databases they are for, so those of other databases are others.
        let mut touched: BTreeSet<String> = gone.iter().map(|id| id.namespace.clone()).collect();
        touched.extend(new.iter().map(|database| database.id.namespace.clone()));
        touched.extend(self.idle());
        for namespace in &touched {
            if let Some(watched) = self.namespaces.get(namespace) {
                watched.stop().await;
            }
        }
        // A publisher ends when nobody decides for its database any more.
        self.monitor.reload(spec.clone()).await;
        let mut outlets = (*before).clone();
        for id in &gone {
            outlets.remove(id);
            self.namespaces
                .get_mut(&id.namespace)
                .and_then(|namespace| namespace.databases.remove(&id.service));
        }
        // Nothing looks into a namespace where there neither is nor was a database of ours.
        let idle = self.idle();
        self.namespaces.retain(|namespace, _| {
            !idle.contains(namespace) || gone.iter().any(|id| id.namespace == *namespace)
        });
        let gone = gone.into_iter().map(|id| {
            let uids =
                before.get(&id).map(|outlet| outlet.observed.borrow().uids()).unwrap_or_default();
            (id, uids)
        });
        self.leftovers.send_modify(|leftovers| leftovers.reload(spec, gone, clock::now()));
        outlets.extend(new.into_iter().filter_map(|database| self.add(database)));
        self.outlets.send_replace(Arc::new(outlets));
        touched.iter().for_each(|namespace| self.watch(namespace));
    }

    /// The namespaces in which there is no database, and nothing left behind.
    fn idle(&self) -> Vec<String> {
        let leftovers = self.leftovers.borrow();
        let idle = |(name, namespace): &(&String, &Namespace)| {
            namespace.databases.is_empty() && !leftovers.any_in(name)
        };
        self.namespaces.iter().filter(idle).map(|(name, _)| name.clone()).collect()
    }

    /// Starts to publish one database.
    fn add(&mut self, database: &Arc<Database>) -> Option<(DatabaseId, Outlet)> {
        let plan = self.monitor.plan(&database.id)?;
        let observed = Arc::new(watch::Sender::new(Observed::default()));
        let first = Publication {
            condition: Condition::waiting_for_cluster(),
            since: clock::now(),
            members: None,
            listed: matches!(self.cluster, Cluster::None),
            writes: BTreeMap::new(),
        };
        let (publication, publication_out) = watch::channel(first);
        let outlet = Outlet { publication: publication_out, observed: observed.subscribe() };
        let DatabaseId { namespace, service } = database.id.clone();
        let namespace = self.namespaces.entry(namespace).or_default();
        namespace.databases.insert(service, observed.clone());
        let publisher = Publisher {
            database: plan.borrow().database.clone(),
            cluster: self.cluster.clone(),
            monitor: self.monitor.clone(),
            lease: self.lease.clone(),
            publication,
            budget: self.budget.clone(),
            recorder: self.recorder.clone(),
            write_duration: self.write_duration.clone(),
            nudge: namespace.nudge.clone(),
        };
        self.tasks.spawn(Box::new(publisher).run(observed, plan));
        Some((database.id.clone(), outlet))
    }

    /// Watches a namespace for the databases that are in it now.
    fn watch(&mut self, namespace: &str) {
        let Some(client) = self.cluster.client() else { return };
        let Some(watched) = self.namespaces.get_mut(namespace) else { return };
        watched.stop = watch::Sender::new(false);
        let sights = Sights {
            databases: watched.databases.clone(),
            leftovers: self.leftovers.clone(),
            namespace: namespace.to_owned(),
        };
        watch_namespace(&mut self.tasks, client, watched, Arc::new(sights));
    }

    /// Waits until something ends that should not. A publisher whose database has left the config should, and so should a watch
    /// that was told to stop.
    pub async fn ended(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(())) => {}
                Some(Err(error)) => return error.to_string(),
                None => std::future::pending().await,
            }
        }
    }

    /// Runs something else beside it, until it ends or is ended.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Ends all of it.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

fn watch_namespace(
    tasks: &mut JoinSet<()>,
    client: &Client,
    watched: &Namespace,
    sights: Arc<Sights>,
) {
    let services: Api<Service> = Api::namespaced(client.clone(), &sights.namespace);
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), &sights.namespace);
    tasks.spawn(until(&watched.stop, watch_kind(services, sights.clone(), watched.nudge.clone())));
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &sights.namespace);
    tasks.spawn(until(&watched.stop, watch_kind(endpoints, sights.clone(), watched.nudge.clone())));
    // Where only Endpoints are written, it shows whether Kubernetes mirrors them.
    tasks.spawn(until(&watched.stop, watch_kind(slices, sights, watched.nudge.clone())));
}

/// Does this until told to stop.
fn until<W: Future<Output = ()>>(
    stop: &watch::Sender<bool>,
    work: W,
) -> impl Future<Output = ()> + use<W> {
    let mut stopped = stop.subscribe();
    async move {
        tokio::select! {
            () = work => {}
            // Whether told or left alone.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}
