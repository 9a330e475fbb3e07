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

use super::backoff::{Backoff, sleep_if};
use super::budget::{Budget, Urgency};
use super::leftover::{self, Leftover, Leftovers, Part, Pruning};
use super::sight::Watchable;
use super::write::{self, DEADLINE, Failure};
use super::{Cluster, Outlets};
use crate::clock;
use crate::config::DatabaseId;
use crate::endpoints;
use crate::lease;
use crate::notice::{LogLine, Notice, Reason, Recorder, Regarding};

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
pub(super) struct Pruner {
    pub leftovers: Arc<watch::Sender<Leftovers>>,
    pub outlets: watch::Receiver<Arc<Outlets>>,
    pub cluster: Cluster,
    pub lease: lease::Handle,
    pub budget: Arc<Budget>,
    pub recorder: Recorder,
    pub write_duration: Histogram,
}

impl Pruner {
    /// Goes on until the daemon ends.
    pub(super) async fn run(self) {
        let mut changes = self.leftovers.subscribe();
        let mut standing = self.lease.subscribe();
        let mut told = BTreeMap::new();
        let mut delayed = Vec::new();
        let mut trouble = None;
        let mut backoff = Backoff::default();
        loop {
            let pruning = {
                let leftovers = changes.borrow_and_update();
                self.tell(&leftovers, &mut told);
                leftovers.pruning(clock::now(), |id| self.is_published(id))
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
        let outlets = self.outlets.borrow();
        let Some(outlet) = outlets.get(id) else { return false };
        outlet.publication.borrow().members.as_ref().is_some_and(|members| !members.is_empty())
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
    fn tell(&self, leftovers: &Leftovers, told: &mut BTreeMap<DatabaseId, bool>) {
        let found = leftovers.all();
        told.retain(|id, _| found.contains_key(id));
        for (id, members) in found {
            let goes = leftovers.will_go(&id);
            if told.insert(id.clone(), goes) == Some(goes) {
                continue;
            }
            let (message, note) = if goes { DELETED } else { RETAINED };
            let line = LogLine { members: Some(&members), ..LogLine::new(message) };
            self.recorder.log_and_event(notice(&id, note), &line);
        }
    }

    /// Deletes these, if it is this replica's turn to write.
    async fn prune(&self, prunable: Vec<(DatabaseId, Part, Leftover)>) -> Result<(), String> {
        let Cluster::Write(client) = &self.cluster else { return Ok(()) };
        let mut trouble = Ok(());
        for (id, part, leftover) in prunable {
            let deleted = match part {
                Part::Slice => self.delete::<EndpointSlice>(client, &id, part, &leftover).await,
                Part::Endpoints => self.delete::<Endpoints>(client, &id, part, &leftover).await,
                Part::Service => match has_endpoints(client, &id).await {
                    // With it Kubernetes would delete them.
                    Ok(true) => {
                        Err(format!("Service {id} stays, as it has Endpoints of someone else"))
                    }
                    Ok(false) => self.delete::<Service>(client, &id, part, &leftover).await,
                    Err(why) => Err(why),
                },
            };
            match deleted {
                Ok(true) => leftover::note(&self.leftovers, id, part, &name(&leftover), None),
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
        part: Part,
        leftover: &Leftover,
    ) -> Result<bool, String>
    where
        K: Watchable<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let _turn = self.budget.turn(Urgency::Repair).await;
        let Some(permission) = self.lease.permission().await else { return Ok(false) };
        // The config may have it again by now.
        let is_published = |id: &DatabaseId| self.is_published(id);
        if !self.leftovers.borrow().is_prunable((id, part, leftover), clock::now(), is_published) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(client.clone(), &id.namespace);
        let started = clock::now();
        let answer = permission.run(DEADLINE, write::delete(&api, &leftover.metadata)).await;
        self.write_duration.observe(clock::now().saturating_duration_since(started).as_secs_f64());
        match answer {
            Some(Ok(())) => {
                let DatabaseId { namespace, service } = id;
                let (kind, name, members) = (K::kind(&()), name(leftover), &leftover.members);
                info!(%namespace, %service, %kind, name, %members, "deleted: its database has left the config");
                Ok(true)
            }
            // Someone has changed it since; the watch brings it as it is now.
            Some(Err(Failure::Conflict(_))) => Ok(false),
            Some(Err(Failure::Fault(condition, _))) => Err(condition.reason),
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
    match write::read(&api, &endpoints::blank(&id.namespace, &id.service)).await {
        Ok(held) => Ok(held.is_some()),
        Err(Failure::Fault(condition, _)) => Err(condition.reason),
        Err(Failure::Conflict(why)) => Err(why),
    }
}

fn name(leftover: &Leftover) -> String {
    leftover.metadata.name.clone().unwrap_or_default()
}
