//! What is under our label and of no database of the config: found by the watches, and known until it is gone.
//!
//! An object is deleted only if it was known when a new config with `prune: true` took its database away, and when `pruning`
//! says so. Any other may be of another deployment of this daemon, whose label is the same.
//!
//! | an object of ours, of a database that                     | fate                           |
//! | ---                                                       | ---                            |
//! | left with `prune: true`, and that was known then, by UID  | is deleted                     |
//! | left with `prune: true`, and that was not                 | stays: someone else made it    |
//! | left with `prune: false`, or before a `prune: false`      | stays, also if it is true later |
//! | was not in any config of this process                     | stays                          |

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use tokio::sync::watch;

use crate::config::{DatabaseId, Spec};
use crate::endpoints::{self, slices};
use crate::plan::Members;
use crate::publish::decide::next_step::leader_annotation;
use crate::publish::decide::prune_gate::{Gate, gate};
use crate::publish::decide::service;

/// The kinds of object that can be left behind, in the order in which they are deleted: what clients are sent by goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    Slice,
    Endpoints,
    Service,
}

impl ObjectKind {
    const ALL: [ObjectKind; 3] = [ObjectKind::Slice, ObjectKind::Endpoints, ObjectKind::Service];
}

/// One object that is left behind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Orphan {
    pub members: Members,
    /// Its name, and the version that was seen.
    pub metadata: ObjectMeta,
    /// Whether it is ours alone.
    ours: bool,
}

impl Orphan {
    pub(crate) fn of_slice(held: &EndpointSlice) -> Option<Self> {
        let ours = held.metadata.name.as_deref().and_then(slices::service_by_name).is_some()
            && slices::managed_by(held) == Some(endpoints::FIELD_MANAGER);
        ours.then(|| Self::new(held, slices::ready_members(held).collect(), true))?
    }

    pub(crate) fn of_endpoints(held: &Endpoints) -> Option<Self> {
        let ours = endpoints::managed_by(held) == Some(endpoints::FIELD_MANAGER);
        ours.then(|| Self::new(held, endpoints::members(held), leader_annotation(held).is_none()))?
    }

    /// A Service is left behind if we have created it. It is ours alone while nobody has changed it.
    pub(crate) fn of_service(held: &Service) -> Option<Self> {
        service::is_created_by_us(held)
            .then(|| Self::new(held, Members::default(), service::is_ours_alone(held)))?
    }

    fn new(held: &impl Resource, members: Members, ours: bool) -> Option<Self> {
        let ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, .. } =
            held.meta().clone();
        let metadata =
            ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        deletion_timestamp.is_none().then_some(Self { members, metadata, ours })
    }
}

/// Names one object of a database.
type Key = (DatabaseId, ObjectKind, String);

/// All that is left behind in the namespaces that are watched.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// With whether each has come in the list under way.
    found: BTreeMap<Key, (Orphan, bool)>,
    /// What has been listed.
    synced: BTreeSet<(String, ObjectKind)>,
    /// The databases that a new config took away to have them deleted.
    departed: BTreeMap<DatabaseId, Departure>,
    /// The databases of the config, and since when it has them.
    configured: BTreeMap<DatabaseId, Instant>,
    /// When the config last changed; none before there was one.
    changed_at: Option<Instant>,
}

/// A database's departure from the config.
#[derive(Debug)]
struct Departure {
    at: Instant,
    /// The UIDs of its objects that were known then: no other is deleted.
    uids: BTreeSet<String>,
}

/// What there is to delete, and when.
#[derive(Debug, PartialEq)]
pub(crate) enum Pruning {
    Nothing,
    /// Not yet: the config is too new.
    Settling(Duration),
    /// Not yet: so many databases have left, and so few of those that were published with them remain.
    SecondLook {
        departed: Vec<DatabaseId>,
        remain: usize,
        delay: Duration,
    },
    /// These, in order.
    Delete(Vec<(DatabaseId, ObjectKind, Orphan)>),
}

impl Orphans {
    /// For each database of which something is published still: to whom it leads.
    pub(crate) fn all(&self) -> BTreeMap<DatabaseId, Members> {
        let mut all: BTreeMap<DatabaseId, Vec<_>> = BTreeMap::new();
        for ((id, part, _), (orphan, _)) in &self.found {
            if *part != ObjectKind::Service {
                all.entry(id.clone()).or_default().extend(orphan.members.iter().cloned());
            }
        }
        all.into_iter().map(|(id, members)| (id, members.into_iter().collect())).collect()
    }

    /// Whether there is anything in a namespace.
    pub(crate) fn any_in(&self, namespace: &str) -> bool {
        self.found.keys().any(|(id, ..)| id.namespace == namespace)
    }

    /// Applies a new config, which has no longer the databases that are `gone`, each with the UIDs of its known objects.
    pub(crate) fn reload(
        &mut self,
        spec: &Spec,
        gone: impl IntoIterator<Item = (DatabaseId, BTreeSet<String>)>,
        now: Instant,
    ) {
        self.changed_at = Some(now);
        let configured = spec.databases.iter().map(|database| database.id.clone());
        self.configured = configured
            .map(|id| (id.clone(), self.configured.get(&id).copied().unwrap_or(now)))
            .collect();
        self.departed.extend(gone.into_iter().map(|(id, uids)| (id, Departure { at: now, uids })));
        // A config that prunes nothing says so of all that left before, too.
        self.departed.retain(|id, _| spec.prune && !self.configured.contains_key(id));
        self.found.retain(|(id, ..), _| !self.configured.contains_key(id));
    }

    /// Finds what is to be deleted now, or when to look again. `is_published` knows the databases of the config that have
    /// members in the cluster.
    pub(crate) fn pruning(
        &self,
        now: Instant,
        is_published: impl Fn(&DatabaseId) -> bool,
    ) -> Pruning {
        let prunable = |(key, (orphan, _)): &(&Key, &(Orphan, bool))| {
            let (id, part, _) = key;
            self.may_go(id, orphan) && (*part != ObjectKind::Service || self.is_alone(id))
        };
        let found = self.found.iter().filter(prunable);
        let prunable: Vec<_> =
            found.map(|((id, part, _), (orphan, _))| (id.clone(), *part, orphan.clone())).collect();
        if prunable.is_empty() {
            return Pruning::Nothing;
        }
        match self.gate(now, &is_published) {
            (Gate::Open, ..) => Pruning::Delete(prunable),
            (Gate::Settling(delay), ..) => Pruning::Settling(delay),
            (Gate::SecondLook(delay), departed, remain) => {
                Pruning::SecondLook { departed, remain, delay }
            }
        }
    }

    /// Returns whether one object is still to be deleted.
    pub(crate) fn is_prunable(
        &self,
        (id, part, orphan): (&DatabaseId, ObjectKind, &Orphan),
        now: Instant,
        is_published: impl Fn(&DatabaseId) -> bool,
    ) -> bool {
        let key = (id.clone(), part, orphan.metadata.name.clone().unwrap_or_default());
        self.found.get(&key).is_some_and(|(found, _)| found == orphan)
            && self.may_go(id, orphan)
            && self.gate(now, &is_published).0 == Gate::Open
    }

    /// Returns whether anything of a database will be deleted.
    pub(crate) fn will_go(&self, id: &DatabaseId) -> bool {
        self.objects_of(id).any(|(_, orphan)| self.may_go(id, orphan))
    }

    /// Returns the objects of one database, without a look at those of others.
    fn objects_of(&self, id: &DatabaseId) -> impl Iterator<Item = (ObjectKind, &Orphan)> {
        let first = (id.clone(), ObjectKind::ALL[0], String::new());
        let rest = self.found.range(first..).take_while(move |((of, ..), _)| of == id);
        rest.map(|((_, part, _), (orphan, _))| (*part, orphan))
    }

    fn may_go(&self, id: &DatabaseId, orphan: &Orphan) -> bool {
        let known = |uids: &BTreeSet<String>| {
            orphan.metadata.uid.as_ref().is_some_and(|uid| uids.contains(uid))
        };
        orphan.ours && self.departed.get(id).is_some_and(|departure| known(&departure.uids))
    }

    /// Returns the gate, the databases that have left and may have left something behind that is to be deleted, and the number
    /// of those that were published with them and remain. Databases that came later say nothing of what was there before.
    fn gate(
        &self,
        now: Instant,
        is_published: &dyn Fn(&DatabaseId) -> bool,
    ) -> (Gate, Vec<DatabaseId>, usize) {
        let is_pending = |id: &DatabaseId| !self.is_listed(&id.namespace) || self.will_go(id);
        let departed: Vec<(&DatabaseId, Instant)> = self
            .departed
            .iter()
            .filter(|(id, _)| is_pending(id))
            .map(|(id, departure)| (id, departure.at))
            .collect();
        let first = departed.iter().map(|(_, at)| *at).min().unwrap_or(now);
        let remain = self
            .configured
            .iter()
            .filter(|(id, since)| **since < first && is_published(id))
            .count();
        let stood_for =
            self.changed_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let gate = gate(departed.len(), remain, stood_for);
        (gate, departed.into_iter().map(|(id, _)| id.clone()).collect(), remain)
    }

    /// Whether all of a namespace has been looked for.
    fn is_listed(&self, namespace: &str) -> bool {
        ObjectKind::ALL.into_iter().all(|part| self.synced.contains(&(namespace.to_owned(), part)))
    }

    /// Whether all has been looked for, and nothing but a Service is left.
    fn is_alone(&self, id: &DatabaseId) -> bool {
        self.objects_of(id).all(|(part, _)| part == ObjectKind::Service)
            && self.is_listed(&id.namespace)
    }

    /// Changes what is known of one object; says whether that is news. News of a list is told as a whole at its end, so that
    /// a long one is not gone through once for each of its objects.
    fn note(&mut self, key: Key, orphan: Option<Orphan>) -> bool {
        let is_listed = self.synced.contains(&(key.0.namespace.clone(), key.1));
        let changed = match orphan {
            Some(orphan) => {
                let before = self.found.insert(key, (orphan.clone(), true));
                before.is_none_or(|(before, _)| before != orphan)
            }
            None => self.found.remove(&key).is_some(),
        };
        changed && is_listed
    }

    fn init(&mut self, namespace: &str, part: ObjectKind) {
        self.synced.remove(&(namespace.to_owned(), part));
        let synced = self
            .found
            .iter_mut()
            .filter(|((id, of, _), _)| id.namespace == namespace && *of == part);
        synced.for_each(|(_, (_, in_relist))| *in_relist = false);
    }

    fn init_done(&mut self, namespace: &str, part: ObjectKind) -> bool {
        let before = self.found.len();
        self.found.retain(|(id, of, _), (_, in_relist)| {
            *in_relist || id.namespace != namespace || *of != part
        });
        // That a list has ended may be what a Service waited for.
        self.synced.insert((namespace.to_owned(), part)) || self.found.len() != before
    }
}

/// Takes note of what is left behind of a database under this name, if anything.
pub(crate) fn note(
    orphans: &watch::Sender<Orphans>,
    id: DatabaseId,
    part: ObjectKind,
    name: &str,
    orphan: Option<Orphan>,
) {
    orphans.send_if_modified(|orphans| orphans.note((id, part, name.to_owned()), orphan));
}

pub(crate) fn init(orphans: &watch::Sender<Orphans>, namespace: &str, part: ObjectKind) {
    orphans.send_if_modified(|orphans| {
        orphans.init(namespace, part);
        false
    });
}

/// Forgets what is no longer there.
pub(crate) fn init_done(orphans: &watch::Sender<Orphans>, namespace: &str, part: ObjectKind) {
    orphans.send_if_modified(|orphans| orphans.init_done(namespace, part));
}

#[cfg(test)]
mod tests;
