//! The only writer to the API: one publisher for each database applies its plan, and repairs what others change.
//!
//! A publisher looks at what the cluster holds and at the newest plan, takes one step, and waits for either to change. Every
//! write stands on the resourceVersion that it was decided on, so that nothing older can overwrite anything newer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::{Api, Client};
use prometheus::{Histogram, HistogramOpts};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{DatabaseId, Spec};
use crate::lease;
use crate::monitor;
use crate::news::Teller;
use crate::plan::Members;
use budget::Budget;
pub use budget::Rate;
pub use condition::{Condition, Kind};
pub use failback::ask_failback;
use publisher::Publisher;
use sight::{Observed, Sights, watch_kind};

mod assess;
mod backoff;
mod budget;
mod condition;
mod failback;
mod fault;
mod pace;
mod ports;
mod publisher;
mod sight;
mod write;
mod writer;

/// How a database's publishing stands.
#[derive(Debug, Clone)]
pub struct Publication {
    pub condition: Condition,
    /// When the condition last changed its kind.
    pub since: Instant,
    /// What the cluster holds; none while that is unknown or not ours.
    pub members: Option<Members>,
    /// Whether the database's Service and Endpoints have been looked for.
    pub listed: bool,
    /// Calls that write, by their result.
    pub writes: BTreeMap<&'static str, u64>,
}

/// What the rest of the daemon holds of publishing.
#[derive(Clone)]
pub struct Handle {
    publications: Arc<BTreeMap<DatabaseId, watch::Receiver<Publication>>>,
    observed: Arc<BTreeMap<DatabaseId, watch::Receiver<Observed>>>,
    write_duration: Histogram,
}

impl Handle {
    /// How a database's publishing stands now.
    pub fn publication(&self, id: &DatabaseId) -> Option<Publication> {
        Some(self.publications.get(id)?.borrow().clone())
    }

    /// The UID of a database's Service: none if the config has no such database, and within, none if there is no Service.
    pub fn service_uid(&self, id: &DatabaseId) -> Option<Option<String>> {
        let observed = self.observed.get(id)?.borrow();
        Some(observed.service.object.as_ref().and_then(|service| service.metadata.uid.clone()))
    }

    /// The databases whose Service and Endpoints have not been looked for yet.
    pub fn unlisted(&self) -> Vec<DatabaseId> {
        let unlisted = self.publications.iter().filter(|(_, publication)| !publication.borrow().listed);
        unlisted.map(|(id, _)| id.clone()).collect()
    }

    /// How long calls that write took, in seconds.
    pub fn write_duration(&self) -> Histogram {
        self.write_duration.clone()
    }
}

/// Where members are published.
#[derive(Clone)]
pub enum Cluster {
    /// Read and written.
    Write(Client),
    /// Read only: a dry run shows what it would change.
    Read(Client),
    /// A dry run with no cluster.
    None,
}

impl Cluster {
    fn client(&self) -> Option<&Client> {
        match self {
            Cluster::Write(client) | Cluster::Read(client) => Some(client),
            Cluster::None => None,
        }
    }
}

/// What publishing was asked for besides the config.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub rate: Rate,
    pub news: Teller,
}

/// Starts to publish what `monitor` decides, while `lease` permits it. Dropping the returned set of tasks ends it and leaves
/// the cluster as it is.
pub fn start(
    spec: &Spec,
    cluster: &Cluster,
    monitor: &monitor::Handle,
    lease: &lease::Handle,
    options: &Options,
) -> (Handle, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let mut publications = BTreeMap::new();
    let mut sights = BTreeMap::new();
    let mut namespaces: BTreeMap<String, Watched> = BTreeMap::new();
    let budget = Arc::new(Budget::new(options.rate));
    tasks.spawn(budget.clone().run());
    let write_duration = write_duration();

    for database in &spec.databases {
        let Some(plan) = monitor.plan(&database.id) else { continue };
        let observed = Arc::new(watch::Sender::new(Observed::default()));
        let first = Publication {
            condition: Condition::waiting_for_cluster(),
            since: clock::now(),
            members: None,
            listed: matches!(cluster, Cluster::None),
            writes: BTreeMap::new(),
        };
        let (publication, publication_out) = watch::channel(first);
        publications.insert(database.id.clone(), publication_out);
        sights.insert(database.id.clone(), observed.subscribe());
        let DatabaseId { namespace, service } = database.id.clone();
        let namespace = namespaces.entry(namespace).or_default();
        namespace.sights.insert(service, observed.clone());
        let publisher = Publisher {
            database: database.clone(),
            cluster: cluster.clone(),
            monitor: monitor.clone(),
            lease: lease.clone(),
            publication,
            budget: budget.clone(),
            news: options.news.clone(),
            write_duration: write_duration.clone(),
            nudge: namespace.nudge.clone(),
        };
        tasks.spawn(Box::new(publisher).run(observed, plan));
    }
    if let Some(client) = cluster.client() {
        for (namespace, watched) in namespaces {
            watch_namespace(&mut tasks, client, &namespace, watched, &options.news);
        }
    }
    (Handle { publications: Arc::new(publications), observed: Arc::new(sights), write_duration }, tasks)
}

/// A namespace that is watched: what is known for each of its Services, and a way to have it listed anew.
#[derive(Default)]
struct Watched {
    sights: HashMap<String, Arc<watch::Sender<Observed>>>,
    nudge: Arc<Notify>,
}

fn watch_namespace(tasks: &mut JoinSet<()>, client: &Client, namespace: &str, watched: Watched, news: &Teller) {
    let sights: Sights = Arc::new(watched.sights);
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    tasks.spawn(watch_kind(services, namespace.to_owned(), sights.clone(), watched.nudge.clone(), news.clone()));
    tasks.spawn(watch_kind(endpoints, namespace.to_owned(), sights, watched.nudge, news.clone()));
}

fn write_duration() -> Histogram {
    let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let opts =
        HistogramOpts::new("external_endpoints_write_duration_seconds", "How long calls that write to the API took.");
    Histogram::with_opts(opts.buckets(buckets)).expect("the buckets are sorted and the name is valid")
}
