//! Orphans: objects with the daemon's label that belong to no database of the config. The watches
//! find them, and they are known until they are gone. `decide::prune` says which are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use tokio::sync::watch;

use crate::config::{DatabaseId, Spec};
use crate::endpoints::{self, slices};
use crate::plan::Members;
use crate::publish::ownership;

/// The kinds of object that a database has, in the order in which orphans are deleted: first the
/// ones that clients are sent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    Slice,
    Endpoints,
    Service,
}

impl ObjectKind {
    pub(crate) const ALL: [ObjectKind; 3] =
        [ObjectKind::Slice, ObjectKind::Endpoints, ObjectKind::Service];
}

/// One orphaned object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Orphan {
    pub members: Members,
    /// The name, and the version at which it was found.
    pub metadata: ObjectMeta,
    /// True if nobody but the daemon has a stake in it.
    pub exclusive: bool,
}

impl Orphan {
    /// Creates an orphan from a slice that has the daemon's label and one of its names.
    pub(crate) fn from_slice(slice: &EndpointSlice) -> Option<Self> {
        let managed = slice.metadata.name.as_deref().and_then(slices::service_by_name).is_some()
            && slices::managed_by(slice) == Some(endpoints::FIELD_MANAGER);
        if !managed {
            return None;
        }
        let members = slices::ready_members(slice).collect();
        Some(Self { members, metadata: metadata(slice)?, exclusive: true })
    }

    /// Creates an orphan from Endpoints that have the daemon's label.
    pub(crate) fn from_endpoints(existing: &Endpoints) -> Option<Self> {
        if endpoints::managed_by(existing) != Some(endpoints::FIELD_MANAGER) {
            return None;
        }
        let exclusive = ownership::leader_annotation(existing).is_none();
        let members = endpoints::members(existing);
        Some(Self { members, metadata: metadata(existing)?, exclusive })
    }

    /// Creates an orphan from a Service that the daemon has created.
    pub(crate) fn from_service(service: &Service) -> Option<Self> {
        if !ownership::is_created_by_us(service) {
            return None;
        }
        let exclusive = ownership::is_unchanged_by_others(service);
        Some(Self { members: Members::default(), metadata: metadata(service)?, exclusive })
    }
}

/// Returns the metadata that a deletion needs; none if the object is being deleted already.
fn metadata(object: &impl Resource) -> Option<ObjectMeta> {
    let ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, .. } =
        object.meta().clone();
    deletion_timestamp.is_none().then_some(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        ..ObjectMeta::default()
    })
}

/// The name of one object of a database.
type Key = (DatabaseId, ObjectKind, String);

/// An orphan, and whether the newest list has shown it.
#[derive(Debug)]
struct Found {
    orphan: Orphan,
    in_relist: bool,
}

/// The orphans in all namespaces that are watched, and the history of the config.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    found: BTreeMap<Key, Found>,
    /// The namespaces and kinds of which a list is complete and no newer one is under way.
    synced: BTreeSet<(String, ObjectKind)>,
    /// The databases that a new config removed with `prune: true`.
    pub removed: BTreeMap<DatabaseId, Removal>,
    /// The databases of the config, and the times at which they were added to it.
    pub configured: BTreeMap<DatabaseId, Instant>,
    /// The time of the last change of the config; none before the first.
    pub changed_at: Option<Instant>,
}

/// The removal of a database from the config.
#[derive(Debug)]
pub(crate) struct Removal {
    pub at: Instant,
    /// The UIDs of its objects that were known then: no other is deleted.
    pub uids: BTreeSet<String>,
}

impl Orphans {
    /// Returns the members that are still published for databases that the config does not have.
    pub(crate) fn all(&self) -> BTreeMap<DatabaseId, Members> {
        let mut all: BTreeMap<DatabaseId, Vec<_>> = BTreeMap::new();
        for ((id, kind, _), found) in &self.found {
            if *kind != ObjectKind::Service {
                all.entry(id.clone()).or_default().extend(found.orphan.members.iter().cloned());
            }
        }
        all.into_iter().map(|(id, members)| (id, members.into_iter().collect())).collect()
    }

    /// Returns whether there is any orphan in a namespace.
    pub(crate) fn any_in(&self, namespace: &str) -> bool {
        self.found.keys().any(|(id, ..)| id.namespace == namespace)
    }

    /// Returns all orphans, in the order in which they may be deleted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&DatabaseId, ObjectKind, &Orphan)> {
        self.found.iter().map(|((id, kind, _), found)| (id, *kind, &found.orphan))
    }

    /// Returns the orphans of one database, without going through those of others.
    pub(crate) fn iter_of(&self, id: &DatabaseId) -> impl Iterator<Item = (ObjectKind, &Orphan)> {
        let first = (id.clone(), ObjectKind::ALL[0], String::new());
        let rest = self.found.range(first..).take_while(move |((of, ..), _)| of == id);
        rest.map(|((_, kind, _), found)| (*kind, &found.orphan))
    }

    /// Returns the orphan of this name.
    pub(crate) fn get(&self, id: &DatabaseId, kind: ObjectKind, name: &str) -> Option<&Orphan> {
        let key = (id.clone(), kind, name.to_owned());
        self.found.get(&key).map(|found| &found.orphan)
    }

    /// Returns whether all kinds have been listed in a namespace.
    pub(crate) fn is_synced(&self, namespace: &str) -> bool {
        ObjectKind::ALL.into_iter().all(|kind| self.synced.contains(&(namespace.to_owned(), kind)))
    }

    /// Applies a new config that no longer has the databases in `removed`, which come with the UIDs
    /// of their known objects.
    pub(crate) fn reload(
        &mut self,
        spec: &Spec,
        removed: impl IntoIterator<Item = (DatabaseId, BTreeSet<String>)>,
        now: Instant,
    ) {
        self.changed_at = Some(now);
        let configured = spec.databases.iter().map(|database| database.id.clone());
        self.configured = configured
            .map(|id| (id.clone(), self.configured.get(&id).copied().unwrap_or(now)))
            .collect();
        self.removed.extend(removed.into_iter().map(|(id, uids)| (id, Removal { at: now, uids })));
        // A config with `prune: false` also holds for databases that were removed before it.
        self.removed.retain(|id, _| spec.prune && !self.configured.contains_key(id));
        self.found.retain(|(id, ..), _| !self.configured.contains_key(id));
    }

    /// Sets or removes one object. Returns whether subscribers are to know at once.
    ///
    /// Changes within a list are announced together when it ends, so that a long list is not gone
    /// through once for each of its objects.
    pub(crate) fn set(&mut self, key: Key, orphan: Option<Orphan>) -> bool {
        let is_synced = self.synced.contains(&(key.0.namespace.clone(), key.1));
        let changed = match orphan {
            Some(orphan) => {
                let found = Found { orphan: orphan.clone(), in_relist: true };
                let before = self.found.insert(key, found);
                before.is_none_or(|before| before.orphan != orphan)
            }
            None => self.found.remove(&key).is_some(),
        };
        changed && is_synced
    }

    /// Begins a list.
    pub(crate) fn init(&mut self, namespace: &str, kind: ObjectKind) {
        self.synced.remove(&(namespace.to_owned(), kind));
        for ((id, of, _), found) in &mut self.found {
            if id.namespace == namespace && *of == kind {
                found.in_relist = false;
            }
        }
    }

    /// Ends a list. Returns whether subscribers are to know.
    pub(crate) fn init_done(&mut self, namespace: &str, kind: ObjectKind) -> bool {
        let before = self.found.len();
        self.found.retain(|(id, of, _), found| {
            found.in_relist || id.namespace != namespace || *of != kind
        });
        // The end of a list alone may allow the deletion of a Service.
        self.synced.insert((namespace.to_owned(), kind)) || self.found.len() != before
    }
}

/// Sets the orphan of this name, or removes it.
pub(crate) fn set(
    orphans: &watch::Sender<Orphans>,
    id: DatabaseId,
    kind: ObjectKind,
    name: &str,
    orphan: Option<Orphan>,
) {
    orphans.send_if_modified(|orphans| orphans.set((id, kind, name.to_owned()), orphan));
}

/// Begins a list of one kind in one namespace.
pub(crate) fn init(orphans: &watch::Sender<Orphans>, namespace: &str, kind: ObjectKind) {
    orphans.send_if_modified(|orphans| {
        orphans.init(namespace, kind);
        false
    });
}

/// Ends the list: orphans that it did not show are gone.
pub(crate) fn init_done(orphans: &watch::Sender<Orphans>, namespace: &str, kind: ObjectKind) {
    orphans.send_if_modified(|orphans| orphans.init_done(namespace, kind));
}
