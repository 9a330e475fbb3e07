//! The cache of the EndpointSlices of one Service: those with a name of the daemon's in full, those
//! of Kubernetes' controllers in a few bytes each.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::object::{CachedObject, Store};
use crate::endpoints::slices::{self, Digest, SliceManager};
use crate::plan::Member;

/// The EndpointSlices of one Service.
#[derive(Debug, Clone, Default)]
pub(crate) struct SliceCache {
    /// The slices that have a name of the daemon's, whoever manages them.
    named: BTreeMap<String, CachedObject<EndpointSlice>>,
    foreign: Vec<ForeignSlice>,
}

/// A slice of one of Kubernetes' controllers.
#[derive(Debug, Clone)]
struct ForeignSlice {
    name: Box<str>,
    manager: SliceManager,
    /// The IPs that clients are sent to.
    serving: Digest,
    /// The epoch in which it was applied last.
    epoch: u64,
}

impl SliceCache {
    /// Returns the slices that have a name of the daemon's, by name, whoever manages them.
    pub(crate) fn named(&self) -> BTreeMap<&str, &EndpointSlice> {
        self.named
            .iter()
            .filter_map(|(name, cached)| Some((name.as_str(), cached.object.as_deref()?)))
            .collect()
    }

    /// Returns the endpoints that clients are sent to by the slices that the daemon manages.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> {
        let named = self.named.values().filter_map(|cached| cached.object.as_deref());
        named.filter(|slice| slices::is_managed(slice)).flat_map(slices::ready_members)
    }

    /// Returns a digest of the IPs that clients are sent to by the slices of another manager.
    pub(crate) fn serving_digest(&self, manager: SliceManager) -> Digest {
        let foreign = self.foreign.iter().filter(|slice| slice.manager == manager);
        foreign.map(|slice| slice.serving).sum()
    }

    /// Returns whether a slice has a name of the daemon's.
    pub(crate) fn has_our_name(slice: &EndpointSlice) -> bool {
        slice.metadata.name.as_deref().and_then(slices::service_by_name).is_some()
    }

    fn cached(&mut self, slice: &EndpointSlice) -> &mut CachedObject<EndpointSlice> {
        self.named.entry(slice.metadata.name.clone().unwrap_or_default()).or_default()
    }

    /// Removes a foreign slice, and returns it.
    fn remove_foreign(&mut self, slice: &EndpointSlice) -> Option<ForeignSlice> {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let at = self.foreign.iter().position(|foreign| *foreign.name == *name)?;
        Some(self.foreign.swap_remove(at))
    }

    /// Applies a foreign slice. Returns whether it sends clients elsewhere than before.
    ///
    /// The epoch is not compared, because only the watch tells of these, and does so in order.
    fn apply_foreign(&mut self, slice: &EndpointSlice, epoch: u64) -> bool {
        let before = self.remove_foreign(slice);
        let manager = slices::manager_of(slice);
        let now = (manager != SliceManager::Unknown).then(|| ForeignSlice {
            name: slice.metadata.name.as_deref().unwrap_or_default().into(),
            manager,
            serving: slices::ready_members(slice).map(|member| member.ip).collect(),
            epoch,
        });
        let shown = |foreign: &ForeignSlice| (foreign.manager, foreign.serving);
        let changed = before.as_ref().map(shown) != now.as_ref().map(shown);
        if let Some(now) = now {
            // Most Services have one, and there may be thousands of Services.
            self.foreign.reserve_exact(1);
            self.foreign.push(now);
        }
        changed
    }
}

impl Store<EndpointSlice> for Arc<SliceCache> {
    fn init_apply(&mut self, slice: EndpointSlice, epoch: u64) -> bool {
        let cache = Arc::make_mut(self);
        match SliceCache::has_our_name(&slice) {
            true => cache.cached(&slice).init_apply(slice, epoch),
            false => cache.apply_foreign(&slice, epoch),
        }
    }

    fn init_done(&mut self, epoch: u64) -> bool {
        let cache = Arc::make_mut(self);
        let count = |cache: &SliceCache| (cache.foreign.len(), cache.named.len());
        let before = count(cache);
        cache.foreign.retain(|foreign| foreign.epoch == epoch);
        cache.named.retain(|_, cached| cached.is_of_epoch(epoch));
        count(cache) != before
    }

    fn apply(&mut self, slice: EndpointSlice, epoch: u64) -> bool {
        let cache = Arc::make_mut(self);
        match SliceCache::has_our_name(&slice) {
            true => cache.cached(&slice).apply(slice, epoch),
            false => cache.apply_foreign(&slice, epoch),
        }
    }

    fn delete(&mut self, slice: EndpointSlice, epoch: u64) -> bool {
        let cache = Arc::make_mut(self);
        match SliceCache::has_our_name(&slice) {
            true => cache.cached(&slice).delete(slice, epoch),
            false => cache.remove_foreign(&slice).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, manager: &str, version: u64, ips: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let labels = json!({
            "kubernetes.io/service-name": "orders",
            "endpointslice.kubernetes.io/managed-by": manager,
        });
        let metadata =
            json!({"name": name, "labels": labels, "resourceVersion": version.to_string()});
        serde_json::from_value(
            json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}),
        )
        .unwrap()
    }

    fn ours(version: u64, ips: &[&str]) -> EndpointSlice {
        slice("orders-external-ipv4-1", "external-endpoints", version, ips)
    }

    fn mirrored(ips: &[&str]) -> EndpointSlice {
        slice("orders-x7k2p", "endpointslicemirroring-controller.k8s.io", 5, ips)
    }

    fn members(slices: &SliceCache) -> Vec<String> {
        slices.members().map(|member| member.ip.to_string()).collect()
    }

    fn digest(ips: &[&str]) -> Digest {
        ips.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn listed(objects: Vec<EndpointSlice>) -> Arc<SliceCache> {
        let mut slices = Arc::new(SliceCache::default());
        for object in objects {
            slices.init_apply(object, 1);
        }
        assert!(!slices.init_done(1));
        slices
    }

    #[test]
    fn a_named_slice_is_the_newest_of_events_and_responses() {
        let mut slices = listed(vec![ours(8, &["198.51.100.1"])]);
        assert!(slices.apply(ours(10, &["198.51.100.2"]), 1), "a response");
        assert!(!slices.apply(ours(9, &["198.51.100.3"]), 1), "a late event");
        assert_eq!(members(&slices), ["198.51.100.2"]);
        assert!(slices.delete(ours(11, &[]), 1));
        assert!(!slices.apply(ours(10, &["198.51.100.2"]), 1), "it is gone");
        assert!(slices.named().is_empty());
        // Under another manager's label it keeps its name, but its endpoints are not managed.
        let relabelled = slice("orders-external-ipv4-1", "someone", 12, &["198.51.100.9"]);
        assert!(slices.apply(relabelled, 1));
        assert_eq!((slices.named().len(), members(&slices).len()), (1, 0));
    }

    #[test]
    fn foreign_slices_are_known_by_the_ips_that_they_serve() {
        let mut slices = listed(vec![mirrored(&["198.51.100.1"])]);
        let mirror = SliceManager::MirroringController;
        assert_eq!(slices.serving_digest(mirror), digest(&["198.51.100.1"]));
        assert!(slices.apply(mirrored(&["198.51.100.1", "198.51.100.2"]), 1));
        assert!(!slices.apply(mirrored(&["198.51.100.2", "198.51.100.1"]), 1), "the same set");
        let pods = |ips: &[&str]| slice("orders-abcde", "endpointslice-controller.k8s.io", 6, ips);
        assert!(slices.apply(pods(&["10.0.0.1"]), 1));
        assert!(!slices.apply(slice("orders-byhand", "someone", 6, &["10.0.0.2"]), 1));
        assert_eq!(slices.serving_digest(mirror), digest(&["198.51.100.1", "198.51.100.2"]));
        assert_eq!(slices.serving_digest(SliceManager::SliceController), digest(&["10.0.0.1"]));
        assert!(slices.delete(pods(&[]), 1));
        assert_eq!(slices.serving_digest(SliceManager::SliceController), Digest::default());
    }

    #[test]
    fn slices_that_a_list_does_not_show_are_gone() {
        let mut slices = listed(vec![ours(8, &["198.51.100.1"]), mirrored(&["198.51.100.1"])]);
        slices.init_apply(mirrored(&["198.51.100.1"]), 2);
        assert!(slices.init_done(2));
        assert!(slices.named().is_empty());
        let mirror = SliceManager::MirroringController;
        assert_eq!(slices.serving_digest(mirror), digest(&["198.51.100.1"]));
        slices.init_apply(mirrored(&["198.51.100.1"]), 3);
        assert!(!slices.init_done(3), "no news");
    }
}
