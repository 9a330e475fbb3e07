//! What is under our label and of no database of the config: found by the watches, and known until it is gone.
//!
//! Only what a new config took away while this daemon ran is ever deleted. What was there before may be of another deployment of
//! this daemon, whose label is the same.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use tokio::sync::watch;

use super::assess::leader_annotation;
use super::service;
use crate::config::{DatabaseId, Spec};
use crate::plan::Members;
use crate::slice::{self, endpoint_slices};

/// The kinds of object that can be left behind, in the order in which they are deleted: what clients are sent by goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Slice,
    Endpoints,
    Service,
}

impl Part {
    const ALL: [Part; 3] = [Part::Slice, Part::Endpoints, Part::Service];
}

/// One object that is left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Leftover {
    pub members: Members,
    /// Its name, and the version that was seen.
    pub metadata: ObjectMeta,
    /// Whether it is ours alone.
    ours: bool,
}

impl Leftover {
    pub fn of_slice(held: &EndpointSlice) -> Option<Self> {
        let ours = held.metadata.name.as_deref().and_then(endpoint_slices::service_by_name).is_some()
            && endpoint_slices::managed_by(held) == Some(slice::OURS);
        ours.then(|| Self::new(held, endpoint_slices::ready(held).collect(), true))?
    }

    pub fn of_endpoints(held: &Endpoints) -> Option<Self> {
        let ours = slice::managed_by(held) == Some(slice::OURS);
        ours.then(|| Self::new(held, slice::members(held), leader_annotation(held).is_none()))?
    }

    /// A Service is left behind if we have created it. It is ours alone while nobody has changed it.
    pub fn of_service(held: &Service) -> Option<Self> {
        service::is_created_by_us(held).then(|| Self::new(held, Members::default(), service::is_ours_alone(held)))?
    }

    fn new(held: &impl Resource, members: Members, ours: bool) -> Option<Self> {
        let ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, .. } = held.meta().clone();
        let metadata = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        deletion_timestamp.is_none().then_some(Self { members, metadata, ours })
    }
}

/// Names one object of a database.
type Key = (DatabaseId, Part, String);

/// All that is left behind in the namespaces that are watched.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// With whether each has come in the list under way.
    found: BTreeMap<Key, (Leftover, bool)>,
    /// What has been listed.
    listed: BTreeSet<(String, Part)>,
    /// The databases that a new config took away.
    departed: BTreeSet<DatabaseId>,
    prune: bool,
}

impl Leftovers {
    /// For each database of which something is published still: to whom it leads.
    pub fn all(&self) -> BTreeMap<DatabaseId, Members> {
        let mut all: BTreeMap<DatabaseId, Vec<_>> = BTreeMap::new();
        for ((id, part, _), (leftover, _)) in &self.found {
            if *part != Part::Service {
                all.entry(id.clone()).or_default().extend(leftover.members.iter().cloned());
            }
        }
        all.into_iter().map(|(id, members)| (id, members.into_iter().collect())).collect()
    }

    /// Whether there is anything in a namespace.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.found.keys().any(|(id, ..)| id.namespace == namespace)
    }

    /// Takes note of a new config, which has no longer the databases that are `gone`.
    pub fn reload(&mut self, spec: &Spec, gone: impl IntoIterator<Item = DatabaseId>) {
        self.prune = spec.prune;
        self.departed.extend(gone);
        let there: BTreeSet<&DatabaseId> = spec.databases.iter().map(|database| &database.id).collect();
        self.departed.retain(|id| !there.contains(id));
        self.found.retain(|(id, ..), _| !there.contains(id));
    }

    /// What is to be deleted, in order.
    pub fn doomed(&self) -> Vec<(DatabaseId, Part, Leftover)> {
        let doomed = |(key, (leftover, _)): &(&Key, &(Leftover, bool))| {
            let (id, part, _) = key;
            self.may_go(id, leftover) && (*part != Part::Service || self.is_alone(id))
        };
        let found = self.found.iter().filter(doomed);
        found.map(|((id, part, _), (leftover, _))| (id.clone(), *part, leftover.clone())).collect()
    }

    /// Whether this is still to be deleted.
    pub fn is_doomed(&self, id: &DatabaseId, part: Part, leftover: &Leftover) -> bool {
        let key = (id.clone(), part, leftover.metadata.name.clone().unwrap_or_default());
        self.found.get(&key).is_some_and(|(found, _)| found == leftover) && self.may_go(id, leftover)
    }

    fn may_go(&self, id: &DatabaseId, leftover: &Leftover) -> bool {
        self.prune && leftover.ours && self.departed.contains(id)
    }

    /// Whether all has been looked for, and nothing but a Service is left.
    fn is_alone(&self, id: &DatabaseId) -> bool {
        let listed = |part| self.listed.contains(&(id.namespace.clone(), part));
        let members = self.found.keys().any(|(of, part, _)| of == id && *part != Part::Service);
        !members && Part::ALL.into_iter().all(listed)
    }

    /// Changes what is known of one object; says whether that is news.
    fn note(&mut self, key: Key, leftover: Option<Leftover>) -> bool {
        match leftover {
            Some(leftover) => {
                let before = self.found.insert(key, (leftover.clone(), true));
                before.is_none_or(|(before, _)| before != leftover)
            }
            None => self.found.remove(&key).is_some(),
        }
    }

    fn begin_list(&mut self, namespace: &str, part: Part) {
        self.listed.remove(&(namespace.to_owned(), part));
        let listed = self.found.iter_mut().filter(|((id, of, _), _)| id.namespace == namespace && *of == part);
        listed.for_each(|(_, (_, in_list))| *in_list = false);
    }

    fn end_list(&mut self, namespace: &str, part: Part) -> bool {
        let before = self.found.len();
        self.found.retain(|(id, of, _), (_, in_list)| *in_list || id.namespace != namespace || *of != part);
        // That a list has ended may be what a Service waited for.
        self.listed.insert((namespace.to_owned(), part)) || self.found.len() != before
    }
}

/// Takes note of what is left behind of a database under this name, if anything.
pub fn note(leftovers: &watch::Sender<Leftovers>, id: DatabaseId, part: Part, name: &str, leftover: Option<Leftover>) {
    leftovers.send_if_modified(|leftovers| leftovers.note((id, part, name.to_owned()), leftover));
}

pub fn begin_list(leftovers: &watch::Sender<Leftovers>, namespace: &str, part: Part) {
    leftovers.send_if_modified(|leftovers| {
        leftovers.begin_list(namespace, part);
        false
    });
}

/// Forgets what is no longer there.
pub fn end_list(leftovers: &watch::Sender<Leftovers>, namespace: &str, part: Part) {
    leftovers.send_if_modified(|leftovers| leftovers.end_list(namespace, part));
}
