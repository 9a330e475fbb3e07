//! Events and responses that come in any order.

use k8s_openapi::api::core::v1::Endpoints;

use super::*;

fn endpoints(uid: &str, version: u64) -> Endpoints {
    let mut endpoints = Endpoints::default();
    endpoints.metadata.uid = Some(uid.into());
    endpoints.metadata.resource_version = Some(version.to_string());
    endpoints
}

fn existing(cached: &CachedObject<Endpoints>) -> Option<u64> {
    cached.object.as_deref().and_then(resource_version)
}

/// Creates a cache after its first list, which showed the object at this version, or did not.
fn synced(at: Option<u64>) -> CachedObject<Endpoints> {
    let mut cached = CachedObject::default();
    if let Some(version) = at {
        cached.init_apply(endpoints("a", version), 1);
    }
    cached.init_done(1);
    cached
}

#[test]
fn a_response_that_overtakes_its_event_counts() {
    let mut cached = synced(Some(8));
    assert!(cached.apply(endpoints("a", 10), 1));
    assert!(!cached.apply(endpoints("a", 9), 1), "older than the response");
    assert!(!cached.apply(endpoints("a", 10), 1), "the event of the response is no news");
    assert!(cached.apply(endpoints("a", 11), 1));
    assert_eq!(existing(&cached), Some(11));
}

#[test]
fn a_response_after_the_deletion_does_not_bring_the_object_back() {
    let mut cached = synced(Some(8));
    cached.apply(endpoints("a", 10), 1);
    cached.delete(endpoints("a", 11), 1);
    assert!(!cached.apply(endpoints("a", 10), 1));
    assert_eq!(existing(&cached), None);
}

#[test]
fn late_events_of_a_predecessor_do_not_replace_the_object() {
    let mut cached = synced(None);
    assert!(cached.apply(endpoints("new", 12), 1));
    assert!(!cached.apply(endpoints("old", 10), 1));
    assert!(!cached.delete(endpoints("old", 11), 1));
    assert_eq!(existing(&cached), Some(12));
}

#[test]
fn an_object_that_a_list_does_not_show_is_gone() {
    let mut cached = synced(Some(8));
    assert!(cached.init_done(2));
    assert_eq!(existing(&cached), None);
    assert!(!cached.init_done(3), "it was gone before");
    assert!(cached.apply(endpoints("b", 12), 3));
}

#[test]
fn a_list_may_go_back_in_time() {
    let mut cached = synced(Some(80));
    cached.init_apply(endpoints("a", 8), 2);
    assert!(!cached.init_done(2));
    assert_eq!(existing(&cached), Some(8));
    assert!(cached.apply(endpoints("a", 9), 2));
}
