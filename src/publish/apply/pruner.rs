//! The pruner: announces orphans, and deletes those that a config with `prune: true` has made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use prometheus::Histogram;
use tokio::sync::watch;
use tracing::{info, warn};

use super::calls::{self, DEADLINE};
use super::queue::{Urgency, WriteQueue};
use crate::api::ErrorKind;
use crate::clock;
use crate::config::DatabaseId;
use crate::endpoints;
use crate::lease;
use crate::notice::{LogLine, Notice, Reason, Recorder, Regarding};
use crate::publish::backoff::{Backoff, sleep_if};
use crate::publish::cache::observed::CachedKind;
use crate::publish::cache::orphans::{self, ObjectKind, Orphan, Orphans};
use crate::publish::cluster::Cluster;
use crate::publish::decide::prune::{self, Pruning};
use crate::publish::status::DatabaseHandles;

/// The log's message and the Event's note for objects that stay.
const RETAINED: (&str, &str) = (
    "left behind: the config has no such database; delete its Endpoints and EndpointSlices if \
     nobody needs them",
    "the config no longer has this database; what is published stays as it is, and is not kept up \
     to date; delete it if nobody needs it",
);

/// The log's message and the Event's note for objects that will be deleted.
const DELETED: (&str, &str) = (
    "left behind: the config has no such database; it is deleted once the config has stood for a \
     while",
    "the config no longer has this database; what is published is deleted once the config has \
     stood for 30s, or for 5m more if more than half of all databases left with it; put the \
     database back into the config to keep it",
);

/// The pruner of all namespaces.
pub(crate) struct Pruner {
    pub orphans: Arc<watch::Sender<Orphans>>,
    pub databases: watch::Receiver<Arc<DatabaseHandles>>,
    pub cluster: Cluster,
    pub lease: lease::Handle,
    pub queue: Arc<WriteQueue>,
    pub recorder: Recorder,
    pub write_duration: Histogram,
}

impl Pruner {
    /// Runs until the daemon ends.
    pub(crate) async fn run(self) {
        let mut changes = self.orphans.subscribe();
        let mut lease = self.lease.subscribe();
        let mut announced = BTreeMap::new();
        let mut delayed = Vec::new();
        let mut last_error = None;
        let mut backoff = Backoff::spread_by(self.lease.replica());
        loop {
            let pruning = {
                let orphans = changes.borrow_and_update();
                self.announce(&orphans, &mut announced);
                prune::pruning(&orphans, clock::now(), |id| self.is_published(id))
            };
            self.announce_second_look(&pruning, &mut delayed);
            let delay = match pruning {
                Pruning::Nothing => None,
                Pruning::Settling(delay) | Pruning::SecondLook { delay, .. } => Some(delay),
                Pruning::Delete(prunable) => match self.prune(prunable).await {
                    Ok(()) => {
                        backoff.reset();
                        None
                    }
                    Err(reason) => {
                        if last_error.as_ref() != Some(&reason) {
                            warn!(reason, "an orphaned object cannot be deleted");
                            last_error = Some(reason);
                        }
                        Some(backoff.next())
                    }
                },
            };
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = lease.changed() => {}
                () = sleep_if(delay) => {}
            }
        }
    }

    /// Returns whether the cluster is known to hold members of a database of the config.
    fn is_published(&self, id: &DatabaseId) -> bool {
        let databases = self.databases.borrow();
        let Some(handle) = databases.get(id) else { return false };
        handle.status.borrow().members.as_ref().is_some_and(|members| !members.is_empty())
    }

    /// Logs and announces once that a deletion is delayed because of its size.
    fn announce_second_look(&self, pruning: &Pruning, delayed: &mut Vec<DatabaseId>) {
        let Pruning::SecondLook { removed, remaining, delay } = pruning else {
            delayed.clear();
            return;
        };
        if !matches!(self.cluster, Cluster::Write(_)) || *delayed == *removed {
            return;
        }
        delayed.clone_from(removed);
        let (count, all) = (removed.len(), removed.len() + remaining);
        let delay =
            humantime::format_duration(Duration::from_secs(delay.as_secs_f64().ceil() as u64));
        warn!(
            "{count} of {all} published databases have left the config at once: their objects are \
             deleted in {delay}; put the databases back into the config to keep them"
        );
        for id in removed {
            self.recorder.event(|| {
                let note = format!(
                    "{count} of {all} published databases have left the config at once, so what is \
                     published stays for {delay} more, and is deleted then; put the database back \
                     into the config to keep it"
                );
                notice(id, note).with_dedup_key("second look")
            });
        }
    }

    /// Announces new orphans, and those of which it has become certain that they stay or go.
    /// `announced` says for each database whether its orphans will be deleted.
    fn announce(&self, orphans: &Orphans, announced: &mut BTreeMap<DatabaseId, bool>) {
        let found = orphans.all();
        announced.retain(|id, _| found.contains_key(id));
        for (id, members) in found {
            let will_prune = prune::will_prune(orphans, &id);
            if announced.insert(id.clone(), will_prune) == Some(will_prune) {
                continue;
            }
            let (message, note) = if will_prune { DELETED } else { RETAINED };
            let line = LogLine { members: Some(&members), ..LogLine::new(message) };
            self.recorder.log_and_event(notice(&id, note), &line);
        }
    }

    /// Deletes these objects, if this replica may write. Returns the first error.
    async fn prune(&self, prunable: Vec<(DatabaseId, ObjectKind, Orphan)>) -> Result<(), String> {
        let Cluster::Write(client) = &self.cluster else { return Ok(()) };
        let mut first_error = Ok(());
        for (id, kind, orphan) in prunable {
            let deletion = match kind {
                ObjectKind::Slice => self.delete::<EndpointSlice>(client, &id, &orphan).await,
                ObjectKind::Endpoints => self.delete::<Endpoints>(client, &id, &orphan).await,
                ObjectKind::Service => self.delete_service(client, &id, &orphan).await,
            };
            match deletion {
                Ok(Deletion::Done) => orphans::set(&self.orphans, id, kind, name(&orphan), None),
                Ok(Deletion::Skipped) => {}
                // A right that is missing in one namespace may exist in another.
                Err(reason) => first_error = first_error.and(Err(reason)),
            }
        }
        first_error
    }

    /// Deletes a Service, unless it has Endpoints: Kubernetes would delete these with it.
    async fn delete_service(
        &self,
        client: &Client,
        id: &DatabaseId,
        orphan: &Orphan,
    ) -> Result<Deletion, String> {
        if has_endpoints(client, id).await? {
            return Err(format!("Service {id} stays, because it has Endpoints of another manager"));
        }
        self.delete::<Service>(client, id, orphan).await
    }

    /// Deletes one object, if nobody has changed it since it was found.
    async fn delete<K>(
        &self,
        client: &Client,
        id: &DatabaseId,
        orphan: &Orphan,
    ) -> Result<Deletion, String>
    where
        K: CachedKind<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let _permit = self.queue.acquire(Urgency::Repair).await;
        let Some(permission) = self.lease.permission().await else { return Ok(Deletion::Skipped) };
        // The config may have the database again by now.
        let is_published = |id: &DatabaseId| self.is_published(id);
        let object = (id, K::KIND, orphan);
        if !prune::is_prunable(&self.orphans.borrow(), object, clock::now(), is_published) {
            return Ok(Deletion::Skipped);
        }
        let api: Api<K> = Api::namespaced(client.clone(), &id.namespace);
        let started = clock::now();
        let answer = permission.run(DEADLINE, calls::delete(&api, &orphan.metadata)).await;
        self.write_duration.observe(clock::now().saturating_duration_since(started).as_secs_f64());
        match answer {
            Some(Ok(())) => {
                let DatabaseId { namespace, service } = id;
                let (kind, name, members) = (K::kind(&()), name(orphan), &orphan.members);
                info!(
                    %namespace, %service, %kind, name, %members,
                    "deleted: its database has left the config"
                );
                Ok(Deletion::Done)
            }
            // Someone has changed it since. The watch brings the new version.
            Some(Err(error)) if error.kind == ErrorKind::Conflict => Ok(Deletion::Skipped),
            Some(Err(error)) => Err(error.message),
            None => Err(format!("no answer for {id} in the time that the lease was ours")),
        }
    }
}

/// The result of a deletion that did not fail.
enum Deletion {
    Done,
    /// The object has changed, or is no longer to be deleted.
    Skipped,
}

/// Creates a notice about the Service of a database that has left the config.
fn notice(id: &DatabaseId, note: impl Into<String>) -> Notice {
    Notice::new(Regarding::Database(id.clone()), Reason::LeftBehind, note, clock::now())
}

/// Reads from the API whether a Service has Endpoints, whoever manages them.
async fn has_endpoints(client: &Client, id: &DatabaseId) -> Result<bool, String> {
    let api: Api<Endpoints> = Api::namespaced(client.clone(), &id.namespace);
    let existing = calls::read(&api, &endpoints::placeholder(&id.namespace, &id.service)).await;
    existing.map(|existing| existing.is_some()).map_err(|error| error.message)
}

fn name(orphan: &Orphan) -> &str {
    orphan.metadata.name.as_deref().unwrap_or_default()
}
