//! Tells what is left behind of databases that the config no longer has, and deletes it if the config asks for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use prometheus::Histogram;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Cluster;
use super::backoff::{Backoff, sleep_if};
use super::budget::{Budget, Urgency};
use super::leftover::{self, Leftover, Leftovers, Part};
use super::sight::Watchable;
use super::write::{self, DEADLINE, Failure};
use crate::clock;
use crate::config::DatabaseId;
use crate::lease;
use crate::news::{About, News, Teller};
use crate::slice;

/// What an Event says of them.
const NOTE: &str = "the config has this database no more; what is published stays as it is, and is not kept up to date";

/// What tells of leftovers, and deletes them.
pub struct Pruner {
    pub leftovers: Arc<watch::Sender<Leftovers>>,
    pub cluster: Cluster,
    pub lease: lease::Handle,
    pub budget: Arc<Budget>,
    pub news: Teller,
    pub write_duration: Histogram,
}

impl Pruner {
    /// Goes on until the daemon ends.
    pub async fn run(self) {
        let mut changes = self.leftovers.subscribe();
        let mut standing = self.lease.changes();
        let mut told = BTreeSet::new();
        let mut trouble = None;
        let mut backoff = Backoff::default();
        loop {
            let doomed = {
                let leftovers = changes.borrow_and_update();
                self.tell(&leftovers, &mut told);
                leftovers.doomed()
            };
            let pause = match self.prune(doomed).await {
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
            };
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = standing.changed() => {}
                () = sleep_if(pause) => {}
            }
        }
    }

    /// Says once what is newly left behind.
    fn tell(&self, leftovers: &Leftovers, told: &mut BTreeSet<DatabaseId>) {
        let found = leftovers.all();
        told.retain(|id| found.contains_key(id));
        for (id, members) in found {
            if told.insert(id.clone()) {
                let DatabaseId { namespace, service } = &id;
                warn!(%namespace, %service, %members, "left behind: the config has no such database; delete its Endpoints and EndpointSlices if nobody needs them");
                self.news.tell(|| News {
                    about: About::Database(id.clone()),
                    reason: "LeftBehind".into(),
                    action: "Publish",
                    warning: true,
                    subject: String::new(),
                    note: NOTE.into(),
                    at: clock::now(),
                });
            }
        }
    }

    /// Deletes these, if it is this replica's turn to write.
    async fn prune(&self, doomed: Vec<(DatabaseId, Part, Leftover)>) -> Result<(), String> {
        let Cluster::Write(client) = &self.cluster else { return Ok(()) };
        let mut trouble = Ok(());
        for (id, part, leftover) in doomed {
            let deleted = match part {
                Part::Slice => self.delete::<EndpointSlice>(client, &id, part, &leftover).await,
                Part::Endpoints => self.delete::<Endpoints>(client, &id, part, &leftover).await,
                Part::Service => match has_endpoints(client, &id).await {
                    // With it Kubernetes would delete them.
                    Ok(true) => Err(format!("Service {id} stays, as it has Endpoints of someone else")),
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
    async fn delete<K>(&self, client: &Client, id: &DatabaseId, part: Part, leftover: &Leftover) -> Result<bool, String>
    where
        K: Watchable<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let _turn = self.budget.turn(Urgency::Repair).await;
        let Some(permission) = self.lease.permission().await else { return Ok(false) };
        // The config may have it again by now.
        if !self.leftovers.borrow().is_doomed(id, part, leftover) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(client.clone(), &id.namespace);
        let started = clock::now();
        let answer = permission.make(DEADLINE, write::delete(&api, &leftover.metadata)).await;
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

/// Whether a Service has Endpoints now, whoever made them.
async fn has_endpoints(client: &Client, id: &DatabaseId) -> Result<bool, String> {
    let api: Api<Endpoints> = Api::namespaced(client.clone(), &id.namespace);
    match write::read(&api, &slice::blank(&id.namespace, &id.service)).await {
        Ok(held) => Ok(held.is_some()),
        Err(Failure::Fault(condition, _)) => Err(condition.reason),
        Err(Failure::Conflict(why)) => Err(why),
    }
}

fn name(leftover: &Leftover) -> String {
    leftover.metadata.name.clone().unwrap_or_default()
}
