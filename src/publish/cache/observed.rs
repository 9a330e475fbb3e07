//! The cache of one database: its Service, its Endpoints and its EndpointSlices.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::object::{CachedObject, Store};
use super::orphans::{ObjectKind, Orphan};
use super::slices::SliceCache;
use super::watch_state::{FirstEpochs, NamespaceWatches, WatchSnapshot};
use crate::annotations;
use crate::endpoints::{self, slices};
use crate::publish::condition::Condition;
use crate::publish::ownership::LEADER_ANNOTATIONS;

/// The cache of one database, which the reflectors of its namespace fill.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub service: CachedObject<Service>,
    pub endpoints: CachedObject<Endpoints>,
    pub slices: Arc<SliceCache>,
    watches: Arc<NamespaceWatches>,
    first_epochs: FirstEpochs,
}

impl Observed {
    /// Creates the cache of a database that the next lists of its namespace will show.
    pub(crate) fn new(watches: Arc<NamespaceWatches>) -> Self {
        let first_epochs = watches.next_epochs();
        Self { watches, first_epochs, ..Self::default() }
    }

    /// Returns the epoch of the first list that shows the database's objects.
    pub(crate) fn first_epoch(&self, kind: ObjectKind) -> u64 {
        self.first_epochs[kind as usize]
    }

    /// Returns the UIDs of all known objects, whoever manages them.
    pub(crate) fn uids(&self) -> BTreeSet<String> {
        let service = self.service.object.as_ref().map(|service| &service.metadata);
        let endpoints = self.endpoints.object.as_ref().map(|endpoints| &endpoints.metadata);
        let slices = self.slices.named().into_values().map(|slice| &slice.metadata);
        service
            .into_iter()
            .chain(endpoints)
            .chain(slices)
            .filter_map(|metadata| metadata.uid.clone())
            .collect()
    }
}

/// The objects that exist for one database, as they are known at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Existing {
    pub service: Option<Arc<Service>>,
    pub endpoints: Option<Arc<Endpoints>>,
    pub slices: Arc<SliceCache>,
    pub watches: [WatchSnapshot; 3],
}

impl Existing {
    /// Reads the cache as it is now. A change after that is one that the receiver has not seen.
    pub(crate) fn read(observed: &mut watch::Receiver<Observed>) -> Self {
        Self::from(&*observed.borrow_and_update())
    }

    /// Returns the watch of one kind.
    pub(crate) fn watch(&self, kind: ObjectKind) -> &WatchSnapshot {
        &self.watches[kind as usize]
    }

    /// Returns the error of the first watch that does not run, if any.
    pub(crate) fn error(&self) -> Option<&Condition> {
        let kinds = [ObjectKind::Service, ObjectKind::Endpoints, ObjectKind::Slice];
        kinds.into_iter().find_map(|kind| self.watch(kind).error.as_ref())
    }
}

impl From<&Observed> for Existing {
    fn from(observed: &Observed) -> Self {
        Self {
            watches: observed.watches.snapshot(&observed.first_epochs),
            service: observed.service.object.clone(),
            endpoints: observed.endpoints.object.clone(),
            slices: observed.slices.clone(),
        }
    }
}

/// A kind of object that is cached.
pub(crate) trait CachedKind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
    type Store: Store<Self>;
    const PLURAL: &'static str;
    const KIND: ObjectKind;
    /// The number of objects in one page of a list, where objects may be large.
    const PAGE_SIZE: Option<u32> = None;

    /// Returns the part of a cache that holds this kind.
    fn store(observed: &mut Observed) -> &mut Self::Store;

    /// Returns the name of the Service that the object belongs to.
    fn service_name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// Returns whether the cache takes this object from a response to a call, too.
    fn is_cached_from_responses(&self) -> bool {
        true
    }

    /// Returns what is orphaned, if the object is managed by the daemon and of no database.
    fn orphan(&self) -> Option<Orphan>;

    /// Drops the fields that no decision needs, which take most of an object's memory.
    fn strip(self) -> Self;
}

impl CachedKind for Service {
    type Store = CachedObject<Self>;
    const PLURAL: &'static str = "services";
    const KIND: ObjectKind = ObjectKind::Service;

    fn store(observed: &mut Observed) -> &mut CachedObject<Self> {
        &mut observed.service
    }

    fn orphan(&self) -> Option<Orphan> {
        Orphan::from_service(self)
    }

    fn strip(mut self) -> Self {
        self.metadata.annotations.iter_mut().for_each(annotations::strip);
        self.metadata.annotations.take_if(|annotations| annotations.is_empty());
        self.metadata.managed_fields = None;
        self.status = None;
        self
    }
}

impl CachedKind for Endpoints {
    type Store = CachedObject<Self>;
    const PLURAL: &'static str = "endpoints";
    const KIND: ObjectKind = ObjectKind::Endpoints;

    fn store(observed: &mut Observed) -> &mut CachedObject<Self> {
        &mut observed.endpoints
    }

    fn orphan(&self) -> Option<Orphan> {
        Orphan::from_endpoints(self)
    }

    /// Drops all annotations but those of leader election, of which the names are enough. The
    /// managed fields keep the managers, and the one field that says whether the daemon has set the
    /// label against mirroring.
    fn strip(mut self) -> Self {
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.retain(|name, _| LEADER_ANNOTATIONS.contains(&name.as_str()));
            annotations.values_mut().for_each(|value| *value = String::new());
        }
        for entry in self.metadata.managed_fields.iter_mut().flatten() {
            if !endpoints::is_our_skip_mirror(entry) {
                entry.fields_v1 = None;
            }
        }
        self
    }
}

impl CachedKind for EndpointSlice {
    type Store = Arc<SliceCache>;
    const PLURAL: &'static str = "endpointslices";
    const KIND: ObjectKind = ObjectKind::Slice;
    /// Slices of Pods come too, with a hundred endpoints each.
    const PAGE_SIZE: Option<u32> = Some(50);

    fn store(observed: &mut Observed) -> &mut Arc<SliceCache> {
        &mut observed.slices
    }

    /// Returns the Service by the slice's own name first: one of the daemon's slices is then found
    /// even if someone has changed its labels.
    fn service_name(&self) -> &str {
        let by_name = self.metadata.name.as_deref().and_then(slices::service_by_name);
        by_name.or_else(|| slices::service_of(self)).unwrap_or_default()
    }

    fn is_cached_from_responses(&self) -> bool {
        SliceCache::has_our_name(self)
    }

    fn orphan(&self) -> Option<Orphan> {
        Orphan::from_slice(self)
    }

    fn strip(mut self) -> Self {
        self.metadata.annotations = None;
        for entry in self.metadata.managed_fields.iter_mut().flatten() {
            entry.fields_v1 = None;
        }
        self
    }
}

/// Applies the response to a call that was decided in this epoch. Returns whether it was news.
pub(crate) fn apply_response<K: CachedKind>(
    observed: &watch::Sender<Observed>,
    object: K,
    epoch: u64,
) -> bool {
    observed.send_if_modified(|observed| {
        // The lock of this cache is held: no object of a newer list can come in between.
        observed.watches.accepts_response(K::KIND, epoch)
            && object.is_cached_from_responses()
            && K::store(observed).apply(object.strip(), epoch)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::annotations::{FAILBACK, MAINTENANCE};

    fn orders() -> serde_json::Value {
        json!({
            "metadata": {
                "name": "orders",
                "uid": "a",
                "resourceVersion": "8",
                "labels": {"app": "orders"},
                "annotations": {"acquireTime": "now", "note": "by hand"},
                "managedFields": [
                    {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:subsets": {}}},
                ],
            },
        })
    }

    fn endpoints(version: u64) -> Endpoints {
        let mut endpoints = Endpoints::default();
        endpoints.metadata.name = Some("orders".into());
        endpoints.metadata.resource_version = Some(version.to_string());
        endpoints
    }

    #[test]
    fn a_response_counts_only_in_its_epoch_and_outside_a_list() {
        let watches = Arc::<NamespaceWatches>::default();
        let (observed, _) = watch::channel(Observed::new(watches.clone()));
        let version = || {
            let existing = Existing::from(&*observed.borrow());
            existing.endpoints.and_then(|endpoints| endpoints.metadata.resource_version.clone())
        };
        watches.begin_list(ObjectKind::Endpoints);
        assert!(!apply_response(&observed, endpoints(10), 1), "a list is under way");
        watches.complete_list(ObjectKind::Endpoints);
        assert!(apply_response(&observed, endpoints(10), 1));
        assert!(!apply_response(&observed, endpoints(9), 1), "it is older");
        assert_eq!(version().as_deref(), Some("10"));
        watches.begin_list(ObjectKind::Endpoints);
        watches.complete_list(ObjectKind::Endpoints);
        assert!(!apply_response(&observed, endpoints(11), 1), "a newer list has been read");
        assert!(apply_response(&observed, endpoints(11), 2));
        assert_eq!(version().as_deref(), Some("11"));
    }

    #[test]
    fn a_response_with_a_slice_of_another_name_is_not_cached() {
        let watches = Arc::<NamespaceWatches>::default();
        let (observed, _) = watch::channel(Observed::new(watches.clone()));
        watches.begin_list(ObjectKind::Slice);
        watches.complete_list(ObjectKind::Slice);
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some("orders-x7k2p".into());
        assert!(!apply_response(&observed, slice, 1));
    }

    #[test]
    fn endpoints_keep_the_fields_that_decisions_need() {
        let endpoints = serde_json::from_value::<Endpoints>(orders()).expect("Endpoints").strip();
        let mut kept = orders();
        kept["metadata"]["annotations"] = json!({"acquireTime": ""});
        kept["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Update"}]);
        assert_eq!(endpoints, serde_json::from_value(kept).expect("Endpoints"));
    }

    #[test]
    fn a_service_keeps_the_fields_that_decisions_need() {
        let mut service = orders();
        service["metadata"]["annotations"][MAINTENANCE] = "10.20.0.11=disk swap".into();
        service["spec"] = json!({"selector": {"app": "orders"}, "ports": [{"port": 5432}]});
        service["status"] = json!({"loadBalancer": {}});
        let stripped = serde_json::from_value::<Service>(service.clone()).expect("a Service");
        let metadata = service["metadata"].as_object_mut().expect("a map");
        metadata.retain(|key, _| key != "managedFields");
        metadata["annotations"] = json!({MAINTENANCE: "10.20.0.11=disk swap"});
        service.as_object_mut().expect("a map").remove("status");
        assert_eq!(stripped.strip(), serde_json::from_value(service).expect("a Service"));
    }

    #[test]
    fn our_annotations_are_cut_and_all_others_dropped() {
        let many = "10.20.0.11=é,".repeat(20_000);
        let note = "external-endpoints/note";
        let annotations = json!({MAINTENANCE: many, FAILBACK: many, note: many, "note": many});
        let json = json!({"metadata": {"name": "orders", "annotations": annotations}});
        let service = serde_json::from_value::<Service>(json).expect("a Service").strip();
        let kept = service.metadata.annotations.expect("annotations");
        assert_eq!(kept.keys().collect::<Vec<_>>(), [FAILBACK, MAINTENANCE]);
        assert!(kept.values().all(|text| text.capacity() < 8200 && many.starts_with(text)));
    }
}
