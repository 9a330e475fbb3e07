//! The only writer to the API: one publisher for each database applies its plan, and repairs what others change.
//!
//! A publisher looks at what the cluster holds and at the newest plan, takes one step, and waits for either to change. Every
//! write stands on the resourceVersion that it was decided on, so that nothing older can overwrite anything newer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use prometheus::{Histogram, HistogramOpts};
use tokio::sync::watch;

use crate::config::{DatabaseId, Spec};
use crate::lease;
use crate::monitor;
use crate::notice::Recorder;
use crate::plan::Members;
pub use apply::queue::RateLimit;
use cache::orphans::Orphans;
use cache::reflector::Observed;
pub use condition::{Condition, ConditionKind};
pub use supervisor::Supervisor;

mod apply;
mod backoff;
mod cache;
mod condition;
mod decide;
mod installation;
mod reconciler;
mod supervisor;

/// How a database's publishing stands.
#[derive(Debug, Clone)]
pub struct PublishStatus {
    pub condition: Condition,
    /// When the condition last changed its kind.
    pub last_transition: Instant,
    /// What the cluster holds; none while that is unknown or not ours.
    pub members: Option<Members>,
    /// Whether the database's Service and Endpoints have been looked for.
    pub synced: bool,
    /// Calls that write, by their result.
    pub writes: BTreeMap<&'static str, u64>,
}

/// What is known of one database's publishing, as it changes.
#[derive(Clone)]
struct DatabaseHandle {
    status: watch::Receiver<PublishStatus>,
    observed: watch::Receiver<Observed>,
}

type DatabaseHandles = BTreeMap<DatabaseId, DatabaseHandle>;

/// What the rest of the daemon holds of publishing.
#[derive(Clone)]
pub struct Handle {
    databases: watch::Receiver<Arc<DatabaseHandles>>,
    /// Whether every database has been looked for once.
    ready: Arc<AtomicBool>,
    orphans: Arc<watch::Sender<Orphans>>,
    write_duration: Histogram,
}

impl Handle {
    /// How a database's publishing stands now.
    pub fn status(&self, id: &DatabaseId) -> Option<PublishStatus> {
        Some(self.databases.borrow().get(id)?.status.borrow().clone())
    }

    /// The UID of a database's Service: none if the config has no such database, and within, none if there is no Service.
    pub fn service_uid(&self, id: &DatabaseId) -> Option<Option<String>> {
        let databases = self.databases.borrow();
        let observed = databases.get(id)?.observed.borrow();
        Some(observed.service.object.as_ref().and_then(|service| service.metadata.uid.clone()))
    }

    /// The databases whose Service and Endpoints have not been looked for yet. None once all have been: what a new config adds
    /// does not make a daemon that serves less ready.
    pub fn unsynced(&self) -> Vec<DatabaseId> {
        if self.ready.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let databases = self.databases.borrow();
        let unsynced = databases.iter().filter(|(_, database)| !database.status.borrow().synced);
        let unsynced: Vec<DatabaseId> = unsynced.map(|(id, _)| id.clone()).collect();
        self.ready.store(unsynced.is_empty(), Ordering::Relaxed);
        unsynced
    }

    /// What is published under our label for Services that no database of the config has.
    pub fn orphans(&self) -> BTreeMap<DatabaseId, Members> {
        self.orphans.borrow().all()
    }

    /// Reads from the API whether anything in the namespaces of the config bears our label yet.
    pub fn installation(
        &self,
        client: &Client,
    ) -> BoxFuture<'static, Result<lease::Installation, String>> {
        let namespaces = self.databases.borrow().keys().map(|id| id.namespace.clone()).collect();
        installation::read(client.clone(), namespaces).boxed()
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
    pub rate: RateLimit,
    pub recorder: Recorder,
}

/// Starts to publish what `monitor` decides, while `lease` permits it. Dropping the returned [`Supervisor`] ends it and leaves
/// the cluster as it is.
pub fn start(
    spec: &Spec,
    cluster: &Cluster,
    monitor: &monitor::Handle,
    lease: &lease::Handle,
    options: &Options,
) -> (Handle, Supervisor) {
    let mut supervisor =
        Supervisor::new(cluster.clone(), monitor.clone(), lease.clone(), options, write_duration());
    supervisor.start(spec);
    (supervisor.handle(), supervisor)
}

fn write_duration() -> Histogram {
    let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let opts = HistogramOpts::new(
        "external_endpoints_write_duration_seconds",
        "How long calls that write to the API took.",
    );
    Histogram::with_opts(opts.buckets(buckets))
        .expect("the buckets are sorted and the name is valid")
}
