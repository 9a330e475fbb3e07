//! Orphans from the removal of their database until they may be deleted.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::config::Spec;
use crate::endpoints;
use crate::publish::decide::next_step::tests::database;

const NAMESPACE: &str = "prod";

fn id(service: &str) -> DatabaseId {
    DatabaseId { namespace: NAMESPACE.into(), service: service.into() }
}

fn spec(services: &[&str]) -> Spec {
    let databases = services
        .iter()
        .map(|service| crate::config::Database { id: id(service), ..database(false) }.into());
    Spec { databases: databases.collect(), prune: true }
}

/// Some published databases, a clock, and what is in the cluster of those that leave.
struct Scene {
    orphans: Orphans,
    spec: Spec,
    now: Instant,
    deleted: BTreeSet<DatabaseId>,
    /// The `prune` of the configs from now on.
    prune: bool,
}

impl Scene {
    fn new(services: &[&str], now: Instant) -> Self {
        let mut orphans = Orphans::default();
        orphans.reload(&spec(services), [], now);
        let now = now + Duration::from_secs(3600);
        Self { orphans, spec: spec(services), now, deleted: BTreeSet::new(), prune: true }
    }

    /// Applies another config, and lists the namespace again, as after each change of its
    /// databases.
    fn reload(&mut self, services: &[&str]) {
        let new = Spec { prune: self.prune, ..spec(services) };
        let before = std::mem::replace(&mut self.spec, new.clone());
        let gone = before.databases.iter().map(|database| database.id.clone());
        let gone: Vec<DatabaseId> =
            gone.filter(|id| !services.contains(&id.service.as_str())).collect();
        self.orphans.reload(&new, gone.into_iter().map(|id| (id, held())), self.now);
        for kind in ObjectKind::ALL {
            self.orphans.init(NAMESPACE, kind);
        }
        let removed: Vec<DatabaseId> = self.orphans.removed.keys().cloned().collect();
        for id in removed.into_iter().filter(|id| !self.deleted.contains(id)) {
            self.orphans.set(
                (id.clone(), ObjectKind::Endpoints, id.service.clone()),
                Some(endpoints(&id.service, UID)),
            );
        }
        for kind in ObjectKind::ALL {
            self.orphans.init_done(NAMESPACE, kind);
        }
    }

    /// Has the watch bring the Endpoints of a Service.
    fn appears(&mut self, service: &str, uid: &str) {
        self.orphans.set(
            (id(service), ObjectKind::Endpoints, service.into()),
            Some(endpoints(service, uid)),
        );
    }

    fn delete(&mut self, service: &str) {
        self.deleted.insert(id(service));
        self.orphans.set((id(service), ObjectKind::Endpoints, service.into()), None);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn pruning(&self) -> Pruning {
        pruning(&self.orphans, self.now, |_| true)
    }

    /// Returns the services whose Endpoints may be deleted now.
    fn prunable(&self) -> Vec<String> {
        match self.pruning() {
            Pruning::Delete(prunable) => {
                let all = |(id, kind, orphan): &(DatabaseId, ObjectKind, Orphan)| {
                    is_prunable(&self.orphans, (id, *kind, orphan), self.now, |_| true)
                };
                assert!(prunable.iter().all(all), "{prunable:?}");
                prunable.into_iter().map(|(id, ..)| id.service).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The UID of all that this daemon has published.
const UID: &str = "uid";

fn held() -> BTreeSet<String> {
    BTreeSet::from([UID.to_owned()])
}

fn endpoints(service: &str, uid: &str) -> Orphan {
    let metadata = json!({
        "name": service, "namespace": NAMESPACE, "uid": uid, "resourceVersion": "7",
        "labels": {(endpoints::MANAGED_BY): endpoints::FIELD_MANAGER}});
    let subsets = json!([{"addresses": [{"ip": "198.51.100.1"}], "ports": [{"port": 3306}]}]);
    let endpoints =
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap();
    Orphan::from_endpoints(&endpoints).expect("ours")
}

#[tokio::test(start_paused = true)]
async fn one_of_three_goes_once_the_config_has_stood() {
    let mut scene = Scene::new(&["a", "b", "c"], crate::clock::now());
    assert_eq!(scene.pruning(), Pruning::Nothing);
    scene.reload(&["a", "b"]);
    assert_eq!(scene.pruning(), Pruning::Settling(Duration::from_secs(30)));
    scene.pass(20);
    // Another change starts the time anew.
    scene.reload(&["a", "b", "d"]);
    assert_eq!(scene.pruning(), Pruning::Settling(Duration::from_secs(30)));
    scene.pass(29);
    assert_eq!(scene.prunable(), [""; 0]);
    scene.pass(1);
    assert_eq!(scene.prunable(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_in_two_halves_deletes_nothing() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], crate::clock::now());
    scene.reload(&["a", "b"]);
    scene.pass(29);
    scene.reload(&["a", "b", "c", "d"]);
    assert_eq!(scene.pruning(), Pruning::Nothing);
    scene.pass(3600);
    assert_eq!(scene.pruning(), Pruning::Nothing);
}

#[tokio::test(start_paused = true)]
async fn more_than_half_has_a_second_look_after_several_changes() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"], crate::clock::now());
    scene.reload(&["a", "b", "c"]);
    scene.pass(29);
    scene.reload(&["a", "b"]);
    scene.pass(30);
    let removed = vec![id("c"), id("d"), id("e")];
    assert_eq!(
        scene.pruning(),
        Pruning::SecondLook { removed, remaining: 2, delay: Duration::from_secs(300) }
    );
    scene.pass(299);
    assert_eq!(scene.prunable(), [""; 0]);
    scene.pass(1);
    assert_eq!(scene.prunable(), ["c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn databases_added_with_the_change_do_not_count_as_remaining() {
    // As when `defaults.namespace` is mistyped: each has left, and as many others have come.
    let mut scene = Scene::new(&["a", "b"], crate::clock::now());
    scene.reload(&["c", "d", "e"]);
    scene.pass(30);
    assert!(
        matches!(scene.pruning(), Pruning::SecondLook { remaining: 0, .. }),
        "{:?}",
        scene.pruning()
    );
}

#[tokio::test(start_paused = true)]
async fn databases_that_are_not_published_do_not_count_as_remaining() {
    let mut scene = Scene::new(&["a", "b", "c"], crate::clock::now());
    scene.reload(&["b", "c"]);
    scene.pass(30);
    let published = |id: &DatabaseId| id.service == "b";
    assert!(
        matches!(pruning(&scene.orphans, scene.now, published), Pruning::Delete(_)),
        "one of two"
    );
    let due = pruning(&scene.orphans, scene.now, |_| false);
    assert!(matches!(due, Pruning::SecondLook { remaining: 0, .. }), "{due:?}");
}

#[tokio::test(start_paused = true)]
async fn deleted_databases_do_not_count_the_next_time() {
    let mut scene = Scene::new(&["a", "b", "c"], crate::clock::now());
    scene.reload(&["a", "b"]);
    scene.pass(30);
    assert_eq!(scene.prunable(), ["c"]);
    scene.delete("c");
    assert_eq!(scene.pruning(), Pruning::Nothing);
    scene.reload(&["a"]);
    scene.pass(30);
    assert_eq!(scene.prunable(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_listed_yet_counts_as_departed() {
    let mut scene = Scene::new(&["a", "b", "c"], crate::clock::now());
    scene.reload(&["a"]);
    scene.delete("c");
    scene.orphans.init(NAMESPACE, ObjectKind::Slice);
    scene.pass(30);
    assert!(
        matches!(scene.pruning(), Pruning::SecondLook { remaining: 1, .. }),
        "{:?}",
        scene.pruning()
    );
    scene.orphans.init_done(NAMESPACE, ObjectKind::Slice);
    assert_eq!(scene.prunable(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_appears_after_the_departure_stays() {
    let mut scene = Scene::new(&["a", "b", "c"], crate::clock::now());
    scene.reload(&["a", "b"]);
    scene.pass(30);
    assert_eq!(scene.prunable(), ["c"]);
    scene.delete("c");
    // A week later another deployment publishes it.
    scene.pass(7 * 86_400);
    scene.appears("c", "another");
    assert_eq!(scene.pruning(), Pruning::Nothing);
    assert!(!will_prune(&scene.orphans, &id("c")), "it is announced as one that stays");
    assert_eq!(scene.orphans.all().keys().collect::<Vec<_>>(), [&id("c")]);
    // A relist finds the same.
    scene.reload(&["a", "b"]);
    scene.appears("c", "another");
    scene.pass(3600);
    assert_eq!(scene.prunable(), [""; 0]);
    // A database that comes back and leaves again departs anew.
    scene.deleted.clear();
    scene.reload(&["a", "b", "c"]);
    scene.reload(&["a", "b"]);
    scene.pass(30);
    assert_eq!(scene.prunable(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_database_removed_without_prune_is_never_deleted() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], crate::clock::now());
    // As docs/concepts/reload.md says of a database that moves to another deployment.
    scene.prune = false;
    scene.reload(&["a", "b", "c", "d"]);
    scene.reload(&["a", "b", "c"]);
    scene.prune = true;
    scene.reload(&["a", "b", "c"]);
    scene.appears("d", UID);
    scene.pass(3600);
    assert_eq!(scene.prunable(), [""; 0]);
    // In the same edit, and also when it had left before.
    scene.reload(&["a", "b"]);
    scene.prune = false;
    scene.reload(&["a"]);
    scene.prune = true;
    scene.reload(&["a"]);
    for service in ["b", "c", "d"] {
        scene.appears(service, UID);
    }
    scene.pass(3600);
    assert_eq!(scene.prunable(), [""; 0]);
}

#[test]
fn a_thousand_that_leave_at_once_are_deleted_without_long_work() {
    let names: Vec<String> = (0..1000).map(|index| format!("service-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut scene = Scene::new(&names, crate::clock::now());
    scene.reload(&["service-0"]);
    scene.pass(330);
    let begun = crate::clock::now();
    assert_eq!(scene.prunable().len(), 999);
    let took = crate::clock::now() - begun;
    assert!(took < Duration::from_secs(20), "{took:?}");
}
