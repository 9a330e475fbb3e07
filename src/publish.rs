//! The only writer of Services, Endpoints and EndpointSlices: one reconciler for each database
//! applies its plan, and repairs the changes that others make.
//!
//! Every write stands on the resourceVersion that it was decided on, so that nothing older can
//! overwrite anything newer. The modules, each of which uses only those before it:
//!
//! ```text
//! condition  ownership  backoff     used by all below
//! foreign_writer                    who made an outside change, from the managed fields
//! cache                             the objects that exist, from lists, watches and responses
//! installation                      whether anything was published before
//! cluster  status                   the access to the cluster, the status that the daemon shows
//! decide                            desired against existing: the next step, pure
//! preview                           the effect on objects that are at hand, pure
//! apply                             the queue of writes, the calls, the reports
//! reconciler                        one database: observe, decide, apply, wait
//! supervisor                        the tasks of all databases and namespaces, reload
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
pub(crate) use apply::report::condition_note;
use cache::orphans::Orphans;
pub use cluster::Cluster;
pub use condition::{Condition, ConditionKind};
use status::DatabaseHandles;
pub use status::{LastWrite, PublishStatus};
pub use supervisor::Supervisor;

mod apply;
mod backoff;
mod cache;
mod cluster;
mod condition;
mod decide;
mod foreign_writer;
mod installation;
mod ownership;
pub(crate) mod preview;
mod reconciler;
mod status;
mod supervisor;

/// The UID of a Service, as far as the watches know it.
pub(crate) enum ServiceUid {
    /// No database of the config has this Service, or it has not been listed yet.
    NotWatched,
    /// There is no such Service.
    Absent,
    Known(String),
}

/// The view that the rest of the daemon has of publishing.
#[derive(Clone)]
pub struct Handle {
    databases: watch::Receiver<Arc<DatabaseHandles>>,
    /// True once every database has been synced.
    all_synced: Arc<AtomicBool>,
    orphans: Arc<watch::Sender<Orphans>>,
    write_duration: Histogram,
}

impl Handle {
    /// Returns the status of a database.
    pub fn status(&self, id: &DatabaseId) -> Option<PublishStatus> {
        Some(self.databases.borrow().get(id)?.status.borrow().clone())
    }

    /// Returns the namespaces of all databases.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        self.databases.borrow().keys().map(|id| id.namespace.clone()).collect()
    }

    /// Returns the UID of a database's Service, as the watches know it.
    pub(crate) fn service_uid(&self, id: &DatabaseId) -> ServiceUid {
        let databases = self.databases.borrow();
        let Some(database) = databases.get(id) else { return ServiceUid::NotWatched };
        if !database.status.borrow().synced {
            return ServiceUid::NotWatched;
        }
        let observed = database.observed.borrow();
        let uid = observed.service.object.as_ref().and_then(|service| service.metadata.uid.clone());
        uid.map_or(ServiceUid::Absent, ServiceUid::Known)
    }

    /// Returns the databases whose Service and Endpoints have not been listed yet. Once all have
    /// been, it returns none for ever: a database that a new config adds does not make a daemon
    /// unready that serves others.
    pub fn unsynced(&self) -> Vec<DatabaseId> {
        if self.all_synced.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let databases = self.databases.borrow();
        let unsynced = databases.iter().filter(|(_, database)| !database.status.borrow().synced);
        let unsynced: Vec<DatabaseId> = unsynced.map(|(id, _)| id.clone()).collect();
        self.all_synced.store(unsynced.is_empty(), Ordering::Relaxed);
        unsynced
    }

    /// Returns the members that are published under the daemon's label for Services that no
    /// database of the config has.
    pub fn orphans(&self) -> BTreeMap<DatabaseId, Members> {
        self.orphans.borrow().all()
    }

    /// Reads from the API whether any object in the namespaces of the config has the daemon's
    /// label. Endpoints that a former holder took over may not have it, so any with addresses
    /// count too, once they have been listed.
    pub fn installation(
        &self,
        client: &Client,
    ) -> BoxFuture<'static, Result<lease::Installation, String>> {
        let databases = self.databases.borrow();
        let observed = databases.values().map(|handle| handle.observed.clone()).collect();
        let namespaces = databases.keys().map(|id| id.namespace.clone()).collect();
        installation::find(client.clone(), observed, namespaces).boxed()
    }

    /// Returns the durations of calls that write, in seconds.
    pub fn write_duration(&self) -> Histogram {
        self.write_duration.clone()
    }
}

/// The options of publishing that are not in the config.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The rate limit of writes.
    pub rate: RateLimit,
    /// The recorder of notices.
    pub recorder: Recorder,
}

/// Starts to publish the plans of `monitor`, while `lease` permits it. Dropping the returned
/// [`Supervisor`] ends it, and leaves the cluster as it is.
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
