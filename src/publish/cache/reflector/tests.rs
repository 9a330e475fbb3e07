//! What comes of news that arrives in any order.

use super::*;
use crate::annotations::{FAILBACK, MAINTENANCE};
use crate::publish::ConditionKind;
use kube::core::Status;

fn endpoints(uid: &str, version: u64) -> Endpoints {
    let mut endpoints = Endpoints::default();
    endpoints.metadata.uid = Some(uid.into());
    endpoints.metadata.resource_version = Some(version.to_string());
    endpoints
}

fn held(sight: &CachedObject<Endpoints>) -> Option<u64> {
    sight.object.as_deref().and_then(version)
}

/// After a list in which the object was, at this version, or was not.
fn synced(at: Option<u64>) -> CachedObject<Endpoints> {
    let mut sight = CachedObject::default();
    sight.init();
    if let Some(version) = at {
        sight.init_apply(endpoints("a", version));
    }
    sight.init_done();
    sight
}

#[test]
fn an_answer_that_overtakes_its_event_counts_and_the_event_is_no_news() {
    let mut sight = synced(Some(8));
    assert!(sight.apply_response(endpoints("a", 10), 1));
    assert!(!sight.take(endpoints("a", 9), false), "older than the answer");
    assert!(!sight.take(endpoints("a", 10), false));
    assert!(sight.take(endpoints("a", 11), false));
    assert_eq!(held(&sight), Some(11));
}

#[test]
fn an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back() {
    let mut sight = synced(Some(8));
    sight.take(endpoints("a", 10), false);
    sight.take(endpoints("a", 11), true);
    assert!(!sight.apply_response(endpoints("a", 10), 1));
    assert_eq!(held(&sight), None);
}

#[test]
fn late_news_of_a_forerunner_does_not_replace_the_object() {
    let mut sight = synced(None);
    assert!(sight.apply_response(endpoints("new", 12), 1));
    assert!(!sight.take(endpoints("old", 10), false));
    assert!(!sight.take(endpoints("old", 11), true));
    assert_eq!(held(&sight), Some(12));
}

#[test]
fn an_answer_from_before_a_new_list_or_during_one_does_not_count() {
    let mut sight = synced(Some(8));
    sight.init();
    assert!(
        !sight.apply_response(endpoints("a", 10), 2),
        "the list may be from before or after it"
    );
    sight.init_done();
    assert!(!sight.apply_response(endpoints("a", 10), 1), "the list says that it is gone");
    assert_eq!(held(&sight), None);
    assert!(sight.apply_response(endpoints("b", 12), 2));
}

#[test]
fn a_list_may_go_back_in_time() {
    let mut sight = synced(Some(80));
    sight.init();
    sight.init_apply(endpoints("a", 8));
    sight.init_done();
    assert_eq!(held(&sight), Some(8));
    assert!(sight.take(endpoints("a", 9), false));
}

#[test]
fn of_an_object_is_kept_what_decisions_ask_for() {
    let json = serde_json::json!({
        "metadata": {
            "name": "orders",
            "uid": "a",
            "resourceVersion": "8",
            "labels": {"app": "orders"},
            "annotations": {"acquireTime": "now", "note": "by hand"},
            "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:subsets": {}}}],
        },
    });
    let mut sight = synced(None);
    sight.take(serde_json::from_value::<Endpoints>(json.clone()).expect("Endpoints"), false);
    let mut kept = json.clone();
    kept["metadata"]["annotations"] = serde_json::json!({"acquireTime": ""});
    kept["metadata"]["managedFields"] =
        serde_json::json!([{"manager": "kubectl", "operation": "Update"}]);
    assert_eq!(sight.object.as_deref(), Some(&serde_json::from_value(kept).expect("Endpoints")));

    let mut service = json;
    service["metadata"]["annotations"][MAINTENANCE] = "10.20.0.11=disk swap".into();
    service["spec"] = serde_json::json!({"selector": {"app": "orders"}, "ports": [{"port": 5432}]});
    service["status"] = serde_json::json!({"loadBalancer": {}});
    let strip = serde_json::from_value::<Service>(service.clone()).expect("a Service").strip();
    let metadata = service["metadata"].as_object_mut().expect("a map");
    metadata.retain(|key, _| key != "managedFields");
    metadata["annotations"] = serde_json::json!({MAINTENANCE: "10.20.0.11=disk swap"});
    service.as_object_mut().expect("a map").remove("status");
    assert_eq!(strip, serde_json::from_value(service).expect("a Service"));
}

#[test]
fn annotations_for_us_are_cut_and_all_others_dropped() {
    let many = "10.20.0.11=é,".repeat(20_000);
    let annotations = serde_json::json!({MAINTENANCE: many, FAILBACK: many, "external-endpoints/note": many, "note": many});
    let json = serde_json::json!({"metadata": {"name": "orders", "annotations": annotations}});
    let service = serde_json::from_value::<Service>(json).expect("a Service").strip();
    let kept = service.metadata.annotations.expect("annotations");
    assert_eq!(kept.keys().collect::<Vec<_>>(), [FAILBACK, MAINTENANCE]);
    assert!(kept.values().all(|text| text.capacity() < 8200 && many.starts_with(text)));
}

#[test]
fn a_version_that_the_server_forgot_is_no_fault() {
    let gone = Status::failure("too old resource version", "Expired").with_code(410).boxed();
    assert!(watch_error::<Endpoints>(watcher::Error::WatchError(gone), "prod").is_none());
    let other = Status::failure("no", "InternalError").with_code(500).boxed();
    let error =
        watch_error::<Endpoints>(watcher::Error::WatchError(other), "prod").expect("an error");
    assert_eq!(Condition::from(error).kind, ConditionKind::ApiUnavailable);
}
