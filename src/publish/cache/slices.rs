//! What is known of the EndpointSlices of one Service: ours in full, those of others in a few bytes each.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::slices::{self, Digest, SliceManager};
use crate::plan::Member;
use crate::publish::cache::orphans::{ObjectKind, Orphan};
use crate::publish::cache::reflector::{CachedKind, Observed, Store, version};
use crate::publish::condition::Condition;

#[derive(Debug, Clone, Default)]
pub(crate) struct SliceCache {
    /// Whether they have been looked for: until then, that there are none says nothing.
    pub synced: bool,
    /// Why the watch does not run, if so. What is known may be old then.
    pub fault: Option<Condition>,
    list: u64,
    relisting: bool,
    /// Those that have a name of ours, whoever made them.
    own: BTreeMap<String, ManagedSlice>,
    others: Vec<ForeignSlice>,
}

#[derive(Debug, Clone, Default)]
struct ManagedSlice {
    object: Option<Arc<EndpointSlice>>,
    in_relist: bool,
    /// The version of the newest thing known of it in this list, its deletion included.
    newest: Option<u64>,
}

/// A slice of someone else's.
#[derive(Debug, Clone)]
struct ForeignSlice {
    name: Box<str>,
    of: SliceManager,
    /// The IPs that clients are sent to.
    ready: Digest,
    in_relist: bool,
}

impl SliceCache {
    /// The slices that have a name of ours, by their names.
    pub(crate) fn own(&self) -> BTreeMap<&str, &EndpointSlice> {
        self.own
            .iter()
            .filter_map(|(name, own)| Some((name.as_str(), own.object.as_deref()?)))
            .collect()
    }

    /// The endpoints in slices of ours that clients are sent to.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> {
        let ours = self.own.values().filter_map(|own| own.object.as_deref());
        ours.filter(|slice| slices::is_managed(slice)).flat_map(slices::ready_members)
    }

    /// The IPs that clients are sent to by the slices of someone else.
    pub(crate) fn ready(&self, of: SliceManager) -> Digest {
        self.others.iter().filter(|other| other.of == of).map(|other| other.ready).sum()
    }

    fn take_own(&mut self, slice: EndpointSlice, gone: bool) -> bool {
        let own = self.own.entry(slice.metadata.name.clone().unwrap_or_default()).or_default();
        let version = version(&slice);
        let newer = own.newest.zip(version).is_none_or(|(newest, version)| version > newest);
        if newer {
            own.newest = version;
            own.object = (!gone).then(|| Arc::new(slice.strip()));
        }
        newer
    }

    /// News of others comes from the watch alone, which is in order. What is not about those who matter is none.
    fn take_other(&mut self, slice: &EndpointSlice, gone: bool) -> bool {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let before = self
            .others
            .iter()
            .position(|other| *other.name == *name)
            .map(|at| self.others.swap_remove(at));
        let of = slices::manager_of(slice);
        let now = (!gone && of != SliceManager::Unknown).then(|| ForeignSlice {
            name: name.into(),
            of,
            ready: slices::ready_members(slice).map(|member| member.ip).collect(),
            in_relist: true,
        });
        let said = |other: &ForeignSlice| (other.of, other.ready);
        let news = before.as_ref().map(said) != now.as_ref().map(said);
        if let Some(now) = now {
            // Most Services have one, and there may be thousands of Services.
            self.others.reserve_exact(1);
            self.others.push(now);
        }
        news
    }
}

fn is_own(slice: &EndpointSlice) -> bool {
    slice.metadata.name.as_deref().is_some_and(|name| slices::service_by_name(name).is_some())
}

impl Store<EndpointSlice> for Arc<SliceCache> {
    fn list(&self) -> u64 {
        self.list
    }

    fn fault(&mut self) -> &mut Option<Condition> {
        &mut Arc::make_mut(self).fault
    }

    fn init(&mut self) {
        let slices = Arc::make_mut(self);
        slices.list += 1;
        slices.relisting = true;
        slices.others.iter_mut().for_each(|other| other.in_relist = false);
        slices.own.values_mut().for_each(|own| (own.in_relist, own.newest) = (false, None));
    }

    fn init_apply(&mut self, slice: EndpointSlice) -> bool {
        let slices = Arc::make_mut(self);
        if !is_own(&slice) {
            return slices.take_other(&slice, false);
        }
        let newest = version(&slice);
        let own = ManagedSlice { object: Some(Arc::new(slice.strip())), in_relist: true, newest };
        let name =
            own.object.as_ref().and_then(|slice| slice.metadata.name.clone()).unwrap_or_default();
        slices.own.insert(name, own);
        true
    }

    fn init_done(&mut self) -> bool {
        let slices = Arc::make_mut(self);
        slices.relisting = false;
        let count = |slices: &SliceCache| (slices.others.len(), slices.own.len());
        let before = count(slices);
        slices.others.retain(|other| other.in_relist);
        slices.own.retain(|_, own| own.in_relist);
        let first = !std::mem::replace(&mut slices.synced, true);
        first || count(slices) != before
    }

    fn take(&mut self, slice: EndpointSlice, gone: bool) -> bool {
        let slices = Arc::make_mut(self);
        if is_own(&slice) { slices.take_own(slice, gone) } else { slices.take_other(&slice, gone) }
    }

    fn apply_response(&mut self, slice: EndpointSlice, list: u64) -> bool {
        self.list == list
            && !self.relisting
            && is_own(&slice)
            && Arc::make_mut(self).take_own(slice, false)
    }
}

impl CachedKind for EndpointSlice {
    type CachedObject = Arc<SliceCache>;
    const PLURAL: &'static str = "endpointslices";
    const PART: ObjectKind = ObjectKind::Slice;
    /// Those of Pods come too, with a hundred of them each.
    const PAGE: Option<u32> = Some(50);

    fn orphan(&self) -> Option<Orphan> {
        Orphan::of_slice(self)
    }

    fn sight(observed: &mut Observed) -> &mut Arc<SliceCache> {
        &mut observed.slices
    }

    fn seen(observed: &Observed) -> &Arc<SliceCache> {
        &observed.slices
    }

    /// By its name, so that one of ours is known again whatever someone did to its labels.
    fn service(&self) -> &str {
        let by_name = self.metadata.name.as_deref().and_then(slices::service_by_name);
        by_name.or_else(|| slices::service_of(self)).unwrap_or_default()
    }

    fn strip(mut self) -> Self {
        self.metadata.annotations = None;
        for entry in self.metadata.managed_fields.iter_mut().flatten() {
            entry.fields_v1 = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, manager: &str, version: u64, ips: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let labels = json!({
            "kubernetes.io/service-name": "orders", "endpointslice.kubernetes.io/managed-by": manager,
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

    fn synced(objects: Vec<EndpointSlice>) -> Arc<SliceCache> {
        let mut slices = Arc::new(SliceCache::default());
        slices.init();
        for object in objects {
            slices.init_apply(object);
        }
        assert!(slices.init_done());
        slices
    }

    #[test]
    fn ours_are_known_by_their_name_and_an_answer_that_overtakes_its_event_counts() {
        let mut slices = synced(vec![ours(8, &["198.51.100.1"])]);
        assert!(slices.apply_response(ours(10, &["198.51.100.2"]), 1));
        assert!(!slices.take(ours(9, &["198.51.100.3"]), false));
        assert_eq!(members(&slices), ["198.51.100.2"]);
        assert!(slices.take(ours(11, &[]), true));
        assert!(!slices.apply_response(ours(10, &["198.51.100.2"]), 1), "it is gone");
        assert!(slices.own().is_empty());
        // One that someone put under another manager's label keeps its name, but its endpoints are not ours.
        assert!(
            slices.take(slice("orders-external-ipv4-1", "someone", 12, &["198.51.100.9"]), false)
        );
        assert_eq!((slices.own().len(), members(&slices).len()), (1, 0));
    }

    #[test]
    fn of_others_is_known_whom_they_send_clients_to() {
        let mut slices = synced(vec![mirrored(&["198.51.100.1"])]);
        assert_eq!(slices.ready(SliceManager::MirroringController), digest(&["198.51.100.1"]));
        assert!(slices.take(mirrored(&["198.51.100.1", "198.51.100.2"]), false));
        assert!(!slices.take(mirrored(&["198.51.100.2", "198.51.100.1"]), false), "the same set");
        let pods = |ips: &[&str]| slice("orders-abcde", "endpointslice-controller.k8s.io", 6, ips);
        assert!(slices.take(pods(&["10.0.0.1"]), false));
        assert!(!slices.take(slice("orders-byhand", "someone", 6, &["10.0.0.2"]), false));
        assert_eq!(
            slices.ready(SliceManager::MirroringController),
            digest(&["198.51.100.1", "198.51.100.2"])
        );
        assert_eq!(slices.ready(SliceManager::SliceController), digest(&["10.0.0.1"]));
        assert!(slices.take(pods(&[]), true));
        assert_eq!(slices.ready(SliceManager::SliceController), Digest::default());
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut slices = synced(vec![ours(8, &["198.51.100.1"]), mirrored(&["198.51.100.1"])]);
        slices.init();
        assert!(!slices.apply_response(ours(9, &[]), 2), "the list may be from before or after it");
        slices.init_apply(mirrored(&["198.51.100.1"]));
        assert!(slices.init_done());
        assert!(slices.own().is_empty());
        assert_eq!(slices.ready(SliceManager::MirroringController), digest(&["198.51.100.1"]));
        slices.init();
        slices.init_apply(mirrored(&["198.51.100.1"]));
        assert!(!slices.init_done(), "no news");
    }
}
