//! Endpoints under our label that no database of the config has: found by the watch, told, and deleted if the config asks for it.
//!
//! Only what a new config took away while this daemon ran is ever deleted. What was there before may be of another deployment of
//! this daemon, whose label is the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use kube::{Api, ResourceExt};
use prometheus::Histogram;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Cluster;
use super::assess::leader_annotation;
use super::backoff::Backoff;
use super::write::{self, DEADLINE, Failure};
use crate::clock;
use crate::config::{DatabaseId, Spec};
use crate::lease;
use crate::news::{News, Teller};
use crate::plan::Members;
use crate::slice;

/// What an Event says of them.
const NOTE: &str = "the config has this database no more; its Endpoints stay as they are, and are not kept up to date";

/// Endpoints that are left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub members: Members,
    uid: Option<String>,
    version: Option<String>,
    /// Whether they are ours alone.
    ours: bool,
}

impl Leftover {
    /// What is left behind by a database that had these Endpoints.
    pub fn of(endpoints: &Endpoints) -> Option<Self> {
        let stays = endpoints.metadata.deletion_timestamp.is_none();
        (stays && slice::managed_by(endpoints) == Some(slice::OURS)).then(|| Self {
            members: slice::members(endpoints),
            uid: endpoints.uid(),
            version: endpoints.resource_version(),
            ours: leader_annotation(endpoints).is_none(),
        })
    }
}

/// All that is left behind in the namespaces that are watched.
#[derive(Debug, Default)]
pub struct Leftovers {
    found: BTreeMap<DatabaseId, Leftover>,
    /// The databases that a new config took away.
    departed: BTreeSet<DatabaseId>,
    prune: bool,
}

impl Leftovers {
    pub fn all(&self) -> Vec<(DatabaseId, Leftover)> {
        self.found.iter().map(|(id, leftover)| (id.clone(), leftover.clone())).collect()
    }

    /// Whether there is anything in a namespace.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.found.keys().any(|id| id.namespace == namespace)
    }

    /// Takes note of a new config, which has no longer the databases that are `gone`.
    pub fn reload(&mut self, spec: &Spec, gone: impl IntoIterator<Item = DatabaseId>) {
        self.prune = spec.prune;
        self.departed.extend(gone);
        for database in &spec.databases {
            self.departed.remove(&database.id);
            self.found.remove(&database.id);
        }
    }

    fn doomed(&self) -> Vec<(DatabaseId, Leftover)> {
        let doomed =
            |(id, leftover): &(&DatabaseId, &Leftover)| self.prune && leftover.ours && self.departed.contains(*id);
        self.found.iter().filter(doomed).map(|(id, leftover)| (id.clone(), leftover.clone())).collect()
    }

    /// Changes what is known of one; says whether that is news.
    fn note(&mut self, id: DatabaseId, leftover: Option<Leftover>) -> bool {
        match leftover {
            Some(leftover) => self.found.insert(id, leftover.clone()).is_none_or(|held| held != leftover),
            None => self.found.remove(&id).is_some(),
        }
    }

    fn retain(&mut self, namespace: &str, there: &HashSet<String>) -> bool {
        let before = self.found.len();
        self.found.retain(|id, _| id.namespace != namespace || there.contains(&id.service));
        self.found.len() != before
    }
}

/// Takes note of what is left behind under this name.
pub fn note(leftovers: &watch::Sender<Leftovers>, id: DatabaseId, leftover: Option<Leftover>) {
    leftovers.send_if_modified(|leftovers| leftovers.note(id, leftover));
}

/// Forgets what is no longer there.
pub fn retain(leftovers: &watch::Sender<Leftovers>, namespace: &str, there: &HashSet<String>) {
    leftovers.send_if_modified(|leftovers| leftovers.retain(namespace, there));
}

/// What tells of leftovers, and deletes them.
pub struct Pruner {
    pub leftovers: Arc<watch::Sender<Leftovers>>,
    pub cluster: Cluster,
    pub lease: lease::Handle,
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
        told.retain(|id| leftovers.found.contains_key(id));
        for (id, Leftover { members, .. }) in &leftovers.found {
            if told.insert(id.clone()) {
                let DatabaseId { namespace, service } = id;
                warn!(%namespace, %service, %members, "Endpoints are left behind: the config has no such database; delete them if nobody needs them");
                self.news.tell(|| News {
                    about: id.clone(),
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
    async fn prune(&self, doomed: Vec<(DatabaseId, Leftover)>) -> Result<(), String> {
        let Cluster::Write(client) = &self.cluster else { return Ok(()) };
        for (id, leftover) in doomed {
            let Some(permission) = self.lease.permission().await else { return Ok(()) };
            let api: Api<Endpoints> = Api::namespaced(client.clone(), &id.namespace);
            let mut held = slice::blank(&id.namespace, &id.service);
            (held.metadata.uid, held.metadata.resource_version) = (leftover.uid, leftover.version);
            let started = clock::now();
            let answer = permission.make(DEADLINE, write::delete(&api, &held)).await;
            self.write_duration.observe(clock::now().saturating_duration_since(started).as_secs_f64());
            match answer {
                Some(Ok(())) => {
                    let DatabaseId { namespace, service } = &id;
                    let members = &leftover.members;
                    info!(%namespace, %service, %members, "Endpoints deleted: their database has left the config");
                    note(&self.leftovers, id, None);
                }
                // Someone has changed them since; the watch brings them as they are now.
                Some(Err(Failure::Conflict(_))) => {}
                Some(Err(Failure::Fault(condition, _))) => return Err(condition.reason),
                None => return Err(format!("no answer for {id} in the time that the lease was ours")),
            }
        }
        Ok(())
    }
}

async fn sleep_if(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
