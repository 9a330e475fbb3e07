//! The reflectors of a namespace: each lists and watches one kind, and fills the caches of all
//! databases in the namespace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{Notify, watch};

use super::object::Store;
use super::observed::{CachedKind, Observed};
use super::orphans::{self, Orphans};
use super::watch_state::NamespaceWatches;
use crate::api::{ApiError, Call};
use crate::clock;
use crate::config::DatabaseId;
use crate::publish::backoff::Backoff;
use crate::publish::condition::Condition;

/// The time for which the API server may leave a watch open. kube notices a connection that died
/// silently 5 s after that.
const WATCH_TIMEOUT: Duration = Duration::from_secs(60);

/// A list has failed if nothing of it comes for this long.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// A watch is healthy once it has run this long without an error.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);

/// The least time over which the reflectors of all namespaces and replicas list again after an
/// error that all of them had at once.
const LIST_SPREAD: Duration = Duration::from_millis(500);

/// The caches of one namespace.
pub(crate) struct NamespaceCache {
    pub namespace: String,
    /// The caches of its databases, by the name of their Service.
    pub databases: HashMap<String, Arc<watch::Sender<Observed>>>,
    pub orphans: Arc<watch::Sender<Orphans>>,
    pub watches: Arc<NamespaceWatches>,
    /// The identity of this replica; empty if it is the only one.
    pub replica: String,
}

impl NamespaceCache {
    /// Applies one event of the watch of a kind.
    fn apply<K: CachedKind>(&self, event: Event<K>) {
        match event {
            Event::Init => {
                self.watches.begin_list(K::KIND);
                orphans::init(&self.orphans, &self.namespace, K::KIND);
            }
            Event::InitApply(object) => self.apply_object(object, Store::init_apply),
            Event::InitDone => self.complete_list::<K>(),
            Event::Apply(object) => self.apply_object(object, Store::apply),
            Event::Delete(object) => match self.databases.get(object.service_name()) {
                Some(database) => self.store(database, object, Store::delete),
                None => self.set_orphan(&object, None),
            },
        }
    }

    fn apply_object<K: CachedKind>(&self, object: K, apply: fn(&mut K::Store, K, u64) -> bool) {
        match self.databases.get(object.service_name()) {
            Some(database) => self.store(database, object, apply),
            None => self.set_orphan(&object, object.orphan()),
        }
    }

    /// Changes the cache of one database, and wakes its reconciler if that was news.
    fn store<K: CachedKind>(
        &self,
        database: &watch::Sender<Observed>,
        object: K,
        apply: fn(&mut K::Store, K, u64) -> bool,
    ) {
        let epoch = self.watches.epoch(K::KIND);
        database.send_if_modified(|observed| apply(K::store(observed), object.strip(), epoch));
    }

    fn set_orphan<K: CachedKind>(&self, object: &K, orphan: Option<orphans::Orphan>) {
        let service = object.service_name().to_owned();
        let id = DatabaseId { namespace: self.namespace.clone(), service };
        let name = object.meta().name.as_deref().unwrap_or_default();
        orphans::set(&self.orphans, id, K::KIND, name, orphan);
    }

    /// Ends a list: objects that it did not show are gone. Wakes the reconcilers for which that is
    /// news, or for which it was the first list.
    fn complete_list<K: CachedKind>(&self) {
        let (epoch, completed_before) = self.watches.complete_list(K::KIND);
        for database in self.databases.values() {
            database.send_if_modified(|observed| {
                let is_first = observed.first_epoch(K::KIND) > completed_before;
                K::store(observed).init_done(epoch) || is_first
            });
        }
        orphans::init_done(&self.orphans, &self.namespace, K::KIND);
    }

    /// Sets or clears the error of a watch, and wakes the reconcilers for which that is news.
    fn set_error<K: CachedKind>(&self, error: Option<Condition>) {
        let is_news = self.watches.set_error(K::KIND, error);
        for database in self.databases.values() {
            database.send_if_modified(|observed| is_news(observed.first_epoch(K::KIND)));
        }
    }
}

/// Lists and watches one kind in one namespace for ever.
///
/// It lists again after an error, so that no event is missed, and when a reconciler asks for a
/// `relist`, having found that the API answers or that the cache is stale.
pub(crate) async fn run_reflector<K: CachedKind>(
    api: Api<K>,
    cache: Arc<NamespaceCache>,
    relist: Arc<Notify>,
) {
    let caller = (&cache.replica, &cache.namespace, K::PLURAL);
    let mut backoff = Backoff::spread_by(caller).over_at_least(LIST_SPREAD);
    loop {
        let WatchEnd { error, healthy } = list_and_watch(&api, &cache, &relist).await;
        if healthy {
            backoff.reset();
        }
        let retry_after = error.as_ref().map_or(Duration::ZERO, |error| error.retry_after);
        if let Some(error) = error {
            cache.set_error::<K>(Some(error.into()));
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_after(retry_after)) => {}
            () = relist.notified() => {}
        }
    }
}

/// The end of a watch.
struct WatchEnd {
    /// The error; none if a relist is all that is needed.
    error: Option<ApiError>,
    /// True if the watch had become healthy.
    healthy: bool,
}

/// Lists, then watches, until that fails or a relist is asked for.
async fn list_and_watch<K: CachedKind>(
    api: &Api<K>,
    cache: &NamespaceCache,
    relist: &Notify,
) -> WatchEnd {
    let mut config = watcher::Config::default().timeout(WATCH_TIMEOUT.as_secs() as u32);
    config.page_size = K::PAGE_SIZE.or(config.page_size);
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    let (mut synced_at, mut healthy) = (None, false);
    loop {
        // It becomes healthy at this time however many events come until then.
        let healthy_at = synced_at.map(|at: Instant| at + HEALTHY_AFTER);
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(LIST_TIMEOUT), if synced_at.is_none() => {
                let error = ApiError::timed_out(call::<K>("list", &cache.namespace), LIST_TIMEOUT);
                return WatchEnd { error: Some(error), healthy };
            }
            () = sleep_until(healthy_at), if !healthy => {
                healthy = true;
                cache.set_error::<K>(None);
                continue;
            }
            () = relist.notified(), if healthy => {
                return WatchEnd { error: None, healthy };
            }
        };
        match event {
            Some(Ok(event)) => {
                if matches!(event, Event::InitDone) {
                    synced_at.get_or_insert(clock::now());
                }
                cache.apply(event);
            }
            Some(Err(error)) => {
                let error = watch_error::<K>(error, &cache.namespace);
                return WatchEnd { error, healthy };
            }
            None => return WatchEnd { error: None, healthy },
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns the API error of a watch; none if the version is too old for the server, which is how it
/// asks for a relist.
fn watch_error<K: CachedKind>(error: watcher::Error, namespace: &str) -> Option<ApiError> {
    let call = |verb| call::<K>(verb, namespace);
    Some(match error {
        watcher::Error::InitialListFailed(error) => ApiError::new(error, call("list")),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            ApiError::new(error, call("watch"))
        }
        watcher::Error::WatchError(status) if status.code == 410 => return None,
        other => ApiError::unavailable(format!("{}: {other}", call("watch"))),
    })
}

fn call<'a, K: CachedKind>(verb: &'static str, namespace: &'a str) -> Call<'a> {
    Call { verb, plural: K::PLURAL, namespace, name: None }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Endpoints;
    use kube::core::Status;

    use super::*;
    use crate::publish::condition::ConditionKind;

    #[test]
    fn a_version_that_the_server_forgot_is_no_error() {
        let gone = Status::failure("too old resource version", "Expired").with_code(410).boxed();
        assert!(watch_error::<Endpoints>(watcher::Error::WatchError(gone), "prod").is_none());
        let other = Status::failure("no", "InternalError").with_code(500).boxed();
        let error =
            watch_error::<Endpoints>(watcher::Error::WatchError(other), "prod").expect("an error");
        assert_eq!(Condition::from(error).kind, ConditionKind::ApiUnavailable);
    }
}
