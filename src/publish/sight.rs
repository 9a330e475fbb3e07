//! Lists and watches Services and Endpoints, one stream for each namespace and kind, and keeps what each database's
//! publisher needs of them.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::condition::{Condition, Kind};
use super::fault;

/// How long the API server may leave a watch open. A connection that died silently is noticed 5 s after that.
const WATCH: Duration = Duration::from_secs(60);

/// What is known of one object in the cluster.
#[derive(Debug, Clone)]
pub struct Sight<K> {
    /// Whether the object has been looked for: until then, that it is missing says nothing.
    pub listed: bool,
    pub object: Option<Arc<K>>,
    /// Why the watch does not run, if so. What is known may be old then.
    pub fault: Option<Condition>,
}

impl<K> Default for Sight<K> {
    fn default() -> Self {
        Self { listed: false, object: None, fault: None }
    }
}

impl<K: Resource> Sight<K> {
    /// Takes what was learnt of the object, unless something newer is known already: an answer to our own write may
    /// overtake the watch.
    fn learn(&mut self, object: K) -> bool {
        let outdated = self.object.as_ref().is_some_and(|held| {
            held.meta().uid == object.meta().uid
                && version(held.as_ref()).zip(version(&object)).is_some_and(|(h, n)| n <= h)
        });
        if !outdated {
            self.object = Some(Arc::new(object));
        }
        !outdated
    }

    fn unlearn(&mut self, deleted: &K) -> bool {
        let newer = |held: &Arc<K>| {
            held.meta().uid != deleted.meta().uid
                && version(held.as_ref()).zip(version(deleted)).is_some_and(|(held, deleted)| held > deleted)
        };
        if self.object.as_ref().is_none_or(newer) {
            return false;
        }
        self.object = None;
        true
    }
}

/// Resource versions are decimal numbers that grow, as Kubernetes says since 1.35 and etcd has always done it. One that is
/// not gets no ordering.
fn version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

/// What is known of the cluster for one database.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub service: Sight<Service>,
    pub endpoints: Sight<Endpoints>,
}

impl Observed {
    pub fn listed(&self) -> bool {
        self.service.listed && self.endpoints.listed
    }

    pub fn fault(&self) -> Option<&Condition> {
        self.service.fault.as_ref().or(self.endpoints.fault.as_ref())
    }
}

/// The kinds that are watched, and where an [`Observed`] keeps them.
pub trait Watchable: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    const PLURAL: &'static str;
    fn sight(observed: &mut Observed) -> &mut Sight<Self>;
}

impl Watchable for Service {
    const PLURAL: &'static str = "services";
    fn sight(observed: &mut Observed) -> &mut Sight<Self> {
        &mut observed.service
    }
}

impl Watchable for Endpoints {
    const PLURAL: &'static str = "endpoints";
    fn sight(observed: &mut Observed) -> &mut Sight<Self> {
        &mut observed.endpoints
    }
}

/// The databases of one namespace, by the name of their Service.
pub type Sights = Arc<HashMap<String, Arc<watch::Sender<Observed>>>>;

/// Takes what an answer to our own call says of the object, or that there is none.
pub fn learn<K: Watchable>(observed: &watch::Sender<Observed>, object: Option<K>) {
    observed.send_if_modified(|observed| match (K::sight(observed), object) {
        (sight, Some(object)) => sight.learn(object),
        (sight, None) => sight.object.take().is_some(),
    });
}

/// Watches one kind in one namespace for ever. After a fault it lists anew, so that nothing is missed, and so that the
/// end of the fault shows; at once if a publisher says that the API `answers` again.
pub async fn watch_kind<K: Watchable>(api: Api<K>, namespace: String, sights: Sights, answers: Arc<Notify>) {
    let mut backoff = Backoff::default();
    loop {
        let config = watcher::Config::default().timeout(WATCH.as_secs() as u32);
        let mut events = std::pin::pin!(watcher(api.clone(), config));
        let mut names = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if matches!(event, Event::InitDone) {
                        backoff.reset();
                    }
                    take(event, &mut names, &sights);
                }
                Err(error) => {
                    fail::<K>(&error, &namespace, &sights);
                    break;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = answers.notified() => {}
        }
    }
}

fn take<K: Watchable>(event: Event<K>, names: &mut HashSet<String>, sights: &Sights) {
    let with = |object: K, change: fn(&mut Sight<K>, K) -> bool| {
        if let Some(sender) = sights.get(&object.name_any()) {
            sender.send_if_modified(|observed| change(K::sight(observed), object));
        }
    };
    match event {
        Event::Init => names.clear(),
        Event::InitApply(object) => {
            names.insert(object.name_any());
            with(object, Sight::learn);
        }
        Event::InitDone => {
            for (name, sender) in sights.iter() {
                sender.send_if_modified(|observed| {
                    let sight = K::sight(observed);
                    let gone = !names.contains(name) && sight.object.take().is_some();
                    let first = !std::mem::replace(&mut sight.listed, true);
                    sight.fault.take().is_some() || gone || first
                });
            }
        }
        Event::Apply(object) => with(object, Sight::learn),
        Event::Delete(object) => with(object, |sight, deleted| sight.unlearn(&deleted)),
    }
}

fn fail<K: Watchable>(error: &watcher::Error, namespace: &str, sights: &Sights) {
    let fault = match error {
        watcher::Error::InitialListFailed(error) => fault::of(error, "list", K::PLURAL, namespace, None),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            fault::of(error, "watch", K::PLURAL, namespace, None)
        }
        // The server forgot where we were (410): listing anew is all it takes.
        watcher::Error::WatchError(status) if status.code == 410 => return,
        other => Condition::new(Kind::ApiUnavailable, format!("watching {} in {namespace}: {other}", K::PLURAL)),
    };
    for sender in sights.values() {
        sender.send_if_modified(|observed| {
            K::sight(observed).fault.replace(fault.clone()).is_none_or(|held| held != fault)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(uid: &str, version: &str) -> Endpoints {
        let mut endpoints = Endpoints::default();
        endpoints.metadata.uid = Some(uid.into());
        endpoints.metadata.resource_version = Some(version.into());
        endpoints
    }

    fn held(sight: &Sight<Endpoints>) -> Option<String> {
        sight.object.as_ref().and_then(|object| object.resource_version())
    }

    #[test]
    fn an_older_event_does_not_replace_the_answer_to_our_own_write() {
        let mut sight = Sight::default();
        assert!(sight.learn(endpoints("a", "9")));
        assert!(!sight.learn(endpoints("a", "8")));
        assert!(sight.learn(endpoints("a", "10")));
        assert_eq!(held(&sight).as_deref(), Some("10"));
    }

    #[test]
    fn the_late_news_that_a_forerunner_was_deleted_changes_nothing() {
        let mut sight = Sight::default();
        sight.learn(endpoints("new", "12"));
        assert!(!sight.unlearn(&endpoints("old", "11")));
        assert_eq!(held(&sight).as_deref(), Some("12"));
        assert!(sight.unlearn(&endpoints("new", "13")));
        assert_eq!(held(&sight), None);
    }
}
