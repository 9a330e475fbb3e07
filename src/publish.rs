//! The only writer to the API: one publisher for each database applies its plan, and repairs what others change.
//!
//! A publisher looks at what the cluster holds and at the newest plan, takes one step, and waits for either to change. Every
//! write stands on the resourceVersion that it was decided on, so that nothing older can overwrite anything newer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kube::Client;
use prometheus::{Histogram, HistogramOpts};
use tokio::sync::watch;

use crate::config::{DatabaseId, Spec};
use crate::lease;
use crate::monitor;
use crate::plan::Members;
pub use condition::{Condition, Kind};
pub use failback::ask_failback;
pub use leftover::Leftover;
use leftover::Leftovers;
pub use publishing::Publishing;

mod assess;
mod backoff;
mod condition;
mod failback;
mod fault;
mod leftover;
mod ports;
mod publisher;
mod publishing;
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

type Publications = BTreeMap<DatabaseId, watch::Receiver<Publication>>;

/// What the rest of the daemon holds of publishing.
#[derive(Clone)]
pub struct Handle {
    publications: watch::Receiver<Arc<Publications>>,
    /// Whether every database has been looked for once.
    ready: Arc<AtomicBool>,
    leftovers: Arc<watch::Sender<Leftovers>>,
    write_duration: Histogram,
}

impl Handle {
    /// How a database's publishing stands now.
    pub fn publication(&self, id: &DatabaseId) -> Option<Publication> {
        Some(self.publications.borrow().get(id)?.borrow().clone())
    }

    /// The databases whose Service and Endpoints have not been looked for yet. None once all have been: what a new config adds
    /// does not make a daemon that serves less ready.
    pub fn unlisted(&self) -> Vec<DatabaseId> {
        if self.ready.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let publications = self.publications.borrow();
        let unlisted = publications.iter().filter(|(_, publication)| !publication.borrow().listed);
        let unlisted: Vec<DatabaseId> = unlisted.map(|(id, _)| id.clone()).collect();
        self.ready.store(unlisted.is_empty(), Ordering::Relaxed);
        unlisted
    }

    /// The Endpoints under our label that no database of the config has.
    pub fn leftovers(&self) -> Vec<(DatabaseId, Leftover)> {
        self.leftovers.borrow().all()
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

/// Starts to publish what `monitor` decides, while `lease` permits it. Dropping the returned [`Publishing`] ends it and leaves
/// the cluster as it is.
pub fn start(spec: &Spec, cluster: &Cluster, monitor: &monitor::Handle, lease: &lease::Handle) -> (Handle, Publishing) {
    let mut publishing = Publishing::new(cluster.clone(), monitor.clone(), lease.clone(), write_duration());
    publishing.begin(spec);
    (publishing.handle(), publishing)
}

fn write_duration() -> Histogram {
    let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let opts =
        HistogramOpts::new("external_endpoints_write_duration_seconds", "How long calls that write to the API took.");
    Histogram::with_opts(opts.buckets(buckets)).expect("the buckets are sorted and the name is valid")
}
