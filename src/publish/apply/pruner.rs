//! Tells what is left behind of databases that the config no longer has, and deletes it if the config asks for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use prometheus::Histogram;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::ErrorKind;
use crate::clock;
use crate::config::DatabaseId;
use crate::endpoints;
use crate::lease;
use crate::notice::{LogLine, Notice, Reason, Recorder, Regarding};
use crate::publish::apply::calls::{self, DEADLINE};
use crate::publish::apply::queue::{Urgency, WriteQueue};
use crate::publish::backoff::{Backoff, sleep_if};
use crate::publish::cache::orphans::{self, ObjectKind, Orphan, Orphans, Pruning};
use crate::publish::cache::reflector::CachedKind;
use crate::publish::{Cluster, DatabaseHandles};

/// The log's message and the Event's note for objects that stay.
const RETAINED: (&str, &str) = (
    "left behind: the config has no such database; delete its Endpoints and EndpointSlices if nobody needs them",
    "the config has this database no more; what is published stays as it is, and is not kept up to date",
);

/// The log's message and the Event's note for objects that will be deleted.
const DELETED: (&str, &str) = (
    "left behind: the config has no such database; it is deleted once the config has stood for a while",
    "the config has this database no more; what is published is deleted once the config has stood for 30s, or for \
     5m more if more than half of all databases left with it; put it back into the config to keep it",
);

/// What tells of leftovers, and deletes them.
pub(crate) struct Pruner {
    pub orphans: Arc<watch::Sender<Orphans>>,
    pub databases: watch::Receiver<Arc<DatabaseHandles>>,
    pub cluster: Cluster,
    pub lease: lease::Handle,
    pub budget: Arc<WriteQueue>,
    pub recorder: Recorder,
    pub write_duration: Histogram,
}

impl Pruner {
    /// Goes on until the daemon ends.
    pub(crate) async fn run(self) {
        let mut changes = self.orphans.subscribe();
        let mut standing = self.lease.subscribe();
        let mut told = BTreeMap::new();
        let mut delayed = Vec::new();
        let mut trouble = None;
        let mut backoff = Backoff::default();
        loop {
            let pruning = {
                let orphans = changes.borrow_and_update();
                self.tell(&orphans, &mut told);
                orphans.pruning(clock::now(), |id| self.is_published(id))
            };
            self.tell_second_look(&pruning, &mut delayed);
            let pause = match pruning {
                Pruning::Nothing => None,
                Pruning::Settling(delay) | Pruning::SecondLook { delay, .. } => Some(delay),
                Pruning::Delete(prunable) => match self.prune(prunable).await {
                    Ok(()) => {
                        backoff.reset();
                        None
                    }
                    Err(why) => {
                        if trouble.as_ref() != Some(&why) {
                            warn!(reason = why, "what is left behind can't be deleted");
                            trouble = Some(why);
                        }
                        Some(backoff.next())
                    }
                },
            };
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = standing.changed() => {}
                () = sleep_if(pause) => {}
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
    fn tell_second_look(&self, pruning: &Pruning, delayed: &mut Vec<DatabaseId>) {
        let Pruning::SecondLook { departed, remain, delay } = pruning else {
            delayed.clear();
            return;
        };
        if !matches!(self.cluster, Cluster::Write(_)) || *delayed == *departed {
            return;
        }
        delayed.clone_from(departed);
        let (count, all) = (departed.len(), departed.len() + remain);
        let delay =
            humantime::format_duration(Duration::from_secs(delay.as_secs_f64().ceil() as u64));
        warn!(
            "{count} of {all} published databases have left the config at once: what they left behind is deleted in {delay}, unless the \
             config has them again"
        );
        for id in departed {
            self.recorder.event(|| {
                let note = format!(
                    "{count} of {all} published databases have left the config at once, so what is published stays for {delay} more, and \
                     is deleted then; put it back into the config to keep it"
                );
                notice(id, note).with_dedup_key("second look")
            });
        }
    }

    /// Logs and announces what is newly left behind, and again when its fate has changed. `told` says of which it will go.
    fn tell(&self, orphans: &Orphans, told: &mut BTreeMap<DatabaseId, bool>) {
        let found = orphans.all();
        told.retain(|id, _| found.contains_key(id));
        for (id, members) in found {
            let goes = orphans.will_go(&id);
            if told.insert(id.clone(), goes) == Some(goes) {
                continue;
            }
            let (message, note) = if goes { DELETED } else { RETAINED };
            let line = LogLine { members: Some(&members), ..LogLine::new(message) };
            self.recorder.log_and_event(notice(&id, note), &line);
        }
    }

    /// Deletes these, if it is this replica's turn to write.
    async fn prune(&self, prunable: Vec<(DatabaseId, ObjectKind, Orphan)>) -> Result<(), String> {
        let Cluster::Write(client) = &self.cluster else { return Ok(()) };
        let mut trouble = Ok(());
        for (id, part, orphan) in prunable {
            let deleted = match part {
                ObjectKind::Slice => self.delete::<EndpointSlice>(client, &id, part, &orphan).await,
                ObjectKind::Endpoints => self.delete::<Endpoints>(client, &id, part, &orphan).await,
                ObjectKind::Service => match has_endpoints(client, &id).await {
                    // With it Kubernetes would delete them.
                    Ok(true) => {
                        Err(format!("Service {id} stays, as it has Endpoints of someone else"))
                    }
                    Ok(false) => self.delete::<Service>(client, &id, part, &orphan).await,
                    Err(why) => Err(why),
                },
            };
            match deleted {
                Ok(true) => orphans::note(&self.orphans, id, part, &name(&orphan), None),
                Ok(false) => {}
                // What is missing for one is there for another.
                Err(why) => trouble = trouble.and(Err(why)),
            }
        }
        trouble
    }

    /// Deletes one object if it is as it was seen; says whether it is gone.
    async fn delete<K>(
        &self,
        client: &Client,
        id: &DatabaseId,
        part: ObjectKind,
        orphan: &Orphan,
    ) -> Result<bool, String>
    where
        K: CachedKind<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let _turn = self.budget.turn(Urgency::Repair).await;
        let Some(permission) = self.lease.permission().await else { return Ok(false) };
        // The config may have it again by now.
        let is_published = |id: &DatabaseId| self.is_published(id);
        if !self.orphans.borrow().is_prunable((id, part, orphan), clock::now(), is_published) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(client.clone(), &id.namespace);
        let started = clock::now();
        let answer = permission.run(DEADLINE, calls::delete(&api, &orphan.metadata)).await;
        self.write_duration.observe(clock::now().saturating_duration_since(started).as_secs_f64());
        match answer {
            Some(Ok(())) => {
                let DatabaseId { namespace, service } = id;
                let (kind, name, members) = (K::kind(&()), name(orphan), &orphan.members);
                info!(%namespace, %service, %kind, name, %members, "deleted: its database has left the config");
                Ok(true)
            }
            // Someone has changed it since; the watch brings it as it is now.
            Some(Err(error)) if error.kind == ErrorKind::Conflict => Ok(false),
            Some(Err(error)) => Err(error.message),
            None => Err(format!("no answer for {id} in the time that the lease was ours")),
        }
    }
}

/// Creates a notice about the Service of a database that has left the config.
fn notice(id: &DatabaseId, note: impl Into<String>) -> Notice {
    Notice::new(Regarding::Database(id.clone()), Reason::LeftBehind, note, clock::now())
}

/// Whether a Service has Endpoints now, whoever made them.
async fn has_endpoints(client: &Client, id: &DatabaseId) -> Result<bool, String> {
    let api: Api<Endpoints> = Api::namespaced(client.clone(), &id.namespace);
    let existing = calls::read(&api, &endpoints::placeholder(&id.namespace, &id.service)).await;
    existing.map(|existing| existing.is_some()).map_err(|error| error.message)
}

fn name(orphan: &Orphan) -> String {
    orphan.metadata.name.clone().unwrap_or_default()
}
