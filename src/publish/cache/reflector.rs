//! Lists and watches Services, Endpoints and EndpointSlices, one stream for each namespace and kind, and keeps what each
//! database's publisher needs of them.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::annotations;
use crate::api::{ApiError, Call};
use crate::clock;
use crate::config::DatabaseId;
use crate::endpoints;
use crate::publish::backoff::Backoff;
use crate::publish::cache::orphans::{self, ObjectKind, Orphan, Orphans};
use crate::publish::cache::slices::SliceCache;
use crate::publish::condition::Condition;
use crate::publish::decide::next_step::LEADER_ANNOTATIONS;

/// How long the API server may leave a watch open. A connection that died silently is noticed 5 s after that.
const WATCH: Duration = Duration::from_secs(60);

/// A list in which nothing comes for this long has failed.
const LIST: Duration = Duration::from_secs(10);

/// A watch that has run this long without an error runs.
const SETTLED: Duration = Duration::from_secs(1);

/// What is known of one object in the cluster.
///
/// News comes from a stream of events, which is in order, and from answers to our own calls, which may come before or
/// after the events that they belong to. An answer counts only if it is newer than all that is known, and only within the
/// list that the call was decided on: a new list says it all, and nothing older may come after it.
#[derive(Debug, Clone)]
pub(crate) struct CachedObject<K> {
    /// Whether the object has been looked for: until then, that it is missing says nothing.
    pub synced: bool,
    pub object: Option<Arc<K>>,
    /// Why the watch does not run, if so. What is known may be old then.
    pub fault: Option<Condition>,
    /// Counts the lists, from when each begins.
    pub list: u64,
    /// Whether a list is under way.
    relisting: bool,
    /// Whether the object has come in the list under way.
    in_relist: bool,
    /// The version of the newest thing known of the object in this list, its deletion included.
    newest: Option<u64>,
}

impl<K> Default for CachedObject<K> {
    fn default() -> Self {
        Self {
            synced: false,
            object: None,
            fault: None,
            list: 0,
            relisting: false,
            in_relist: false,
            newest: None,
        }
    }
}

impl<K: CachedKind> CachedObject<K> {
    /// Whether `object` is newer than all that is known; if so, it is now the newest. What has no version counts as newer.
    fn advances(&mut self, object: &K) -> bool {
        let version = version(object);
        let newer = self.newest.zip(version).is_none_or(|(newest, version)| version > newest);
        if newer {
            self.newest = version;
        }
        newer
    }
}

/// What is known of one kind in the cluster for one database, and how it comes to be known.
pub(crate) trait Store<K> {
    /// Counts the lists, from when each begins.
    fn list(&self) -> u64;

    fn fault(&mut self) -> &mut Option<Condition>;

    fn init(&mut self);

    /// Takes an object from a list. A list may go back in time, as after a restore of the cluster's storage.
    fn init_apply(&mut self, object: K) -> bool;

    /// Ends a list. Returns whether that is news.
    fn init_done(&mut self) -> bool;

    /// Takes an event: the object as it is, or that it is gone.
    fn take(&mut self, object: K, gone: bool) -> bool;

    /// Takes the answer to a call that was decided on the list numbered `list`.
    fn apply_response(&mut self, object: K, list: u64) -> bool;
}

impl<K: CachedKind> Store<K> for CachedObject<K> {
    fn list(&self) -> u64 {
        self.list
    }

    fn fault(&mut self) -> &mut Option<Condition> {
        &mut self.fault
    }

    fn init(&mut self) {
        self.list += 1;
        self.relisting = true;
        self.in_relist = false;
        self.newest = None;
    }

    fn init_apply(&mut self, object: K) -> bool {
        self.newest = version(&object);
        self.object = Some(Arc::new(object.strip()));
        self.in_relist = true;
        true
    }

    fn init_done(&mut self) -> bool {
        self.relisting = false;
        let gone = !self.in_relist && self.object.take().is_some();
        let first = !std::mem::replace(&mut self.synced, true);
        gone || first
    }

    fn take(&mut self, object: K, gone: bool) -> bool {
        let newer = self.advances(&object);
        if newer {
            self.object = (!gone).then(|| Arc::new(object.strip()));
        }
        newer
    }

    fn apply_response(&mut self, object: K, list: u64) -> bool {
        self.list == list && !self.relisting && self.take(object, false)
    }
}

/// Resource versions are decimal numbers that grow, as Kubernetes says since 1.35 and etcd has always done it.
pub(crate) fn version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

/// What is known of the cluster for one database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub service: CachedObject<Service>,
    pub endpoints: CachedObject<Endpoints>,
    pub slices: Arc<SliceCache>,
}

impl Observed {
    /// Returns the UIDs of all objects that are known, whoever made them.
    pub(crate) fn uids(&self) -> BTreeSet<String> {
        let service = self.service.object.as_ref().map(|service| &service.metadata);
        let endpoints = self.endpoints.object.as_ref().map(|endpoints| &endpoints.metadata);
        let slices = self.slices.own().into_values().map(|slice| &slice.metadata);
        service
            .into_iter()
            .chain(endpoints)
            .chain(slices)
            .filter_map(|metadata| metadata.uid.clone())
            .collect()
    }

    pub(crate) fn fault(&self) -> Option<&Condition> {
        self.service.fault.as_ref().or(self.endpoints.fault.as_ref()).or(self.slices.fault.as_ref())
    }
}

/// The kinds that are watched, and where an [`Observed`] keeps them.
pub(crate) trait CachedKind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
    type CachedObject: Store<Self>;
    const PLURAL: &'static str;
    const PART: ObjectKind;
    /// How many the API shall send at once, where objects may be large.
    const PAGE: Option<u32> = None;

    fn sight(observed: &mut Observed) -> &mut Self::CachedObject;

    fn seen(observed: &Observed) -> &Self::CachedObject;

    /// The name of the Service that the object belongs to.
    fn service(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// What is left behind, if this is ours and of no database.
    fn orphan(&self) -> Option<Orphan>;

    /// Without what no decision asks for, which would be most of the memory that it takes.
    fn strip(self) -> Self;
}

impl CachedKind for Service {
    type CachedObject = CachedObject<Self>;
    const PLURAL: &'static str = "services";
    const PART: ObjectKind = ObjectKind::Service;

    fn orphan(&self) -> Option<Orphan> {
        Orphan::of_service(self)
    }

    fn sight(observed: &mut Observed) -> &mut CachedObject<Self> {
        &mut observed.service
    }

    fn seen(observed: &Observed) -> &CachedObject<Self> {
        &observed.service
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
    type CachedObject = CachedObject<Self>;
    const PLURAL: &'static str = "endpoints";
    const PART: ObjectKind = ObjectKind::Endpoints;

    fn orphan(&self) -> Option<Orphan> {
        Orphan::of_endpoints(self)
    }

    fn sight(observed: &mut Observed) -> &mut CachedObject<Self> {
        &mut observed.endpoints
    }

    fn seen(observed: &Observed) -> &CachedObject<Self> {
        &observed.endpoints
    }

    /// Who has managed any of it says whose they are; which fields those were does not, but for the label against mirroring. That
    /// an annotation of leader election is there says enough.
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

/// One namespace that is watched.
pub(crate) struct NamespaceCache {
    /// Its databases, by the name of their Service.
    pub databases: HashMap<String, Arc<watch::Sender<Observed>>>,
    /// What is under our label and of no database.
    pub orphans: Arc<watch::Sender<Orphans>>,
    pub namespace: String,
}

impl NamespaceCache {
    fn note_leftover<K: CachedKind>(&self, object: &K, gone: bool) {
        let id =
            DatabaseId { namespace: self.namespace.clone(), service: object.service().to_owned() };
        let name = object.meta().name.as_deref().unwrap_or_default();
        orphans::note(&self.orphans, id, K::PART, name, object.orphan().filter(|_| !gone));
    }
}

/// Takes the answer to a call that was decided on the list numbered `list`; says whether it was news.
pub(crate) fn learn<K: CachedKind>(
    observed: &watch::Sender<Observed>,
    object: K,
    list: u64,
) -> bool {
    observed.send_if_modified(|observed| K::sight(observed).apply_response(object, list))
}

/// Watches one kind in one namespace for ever. After a fault it lists anew, so that nothing is missed; also when a
/// publisher `relist`s it, who has seen that the API answers, or that what is known here is old.
pub(crate) async fn run_reflector<K: CachedKind>(
    api: Api<K>,
    sights: Arc<NamespaceCache>,
    relist: Arc<Notify>,
) {
    let mut backoff = Backoff::default();
    loop {
        let Ended { error, settled } = follow(&api, &sights, &relist).await;
        if settled {
            backoff.reset();
        }
        let retry_after = error.as_ref().map_or(Duration::ZERO, |error| error.retry_after);
        if let Some(fault) = error.map(Condition::from) {
            each::<K>(&sights, |sight| {
                sight.fault().replace(fault.clone()).is_none_or(|held| held != fault)
            });
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next().max(retry_after)) => {}
            () = relist.notified() => {}
        }
    }
}

/// How a watch ended.
#[derive(Default)]
struct Ended {
    error: Option<ApiError>,
    /// Whether the watch ran.
    settled: bool,
}

/// Lists, then watches, until that fails or there is a relist.
async fn follow<K: CachedKind>(api: &Api<K>, sights: &NamespaceCache, relist: &Notify) -> Ended {
    let namespace = sights.namespace.as_str();
    let mut config = watcher::Config::default().timeout(WATCH.as_secs() as u32);
    config.page_size = K::PAGE.or(config.page_size);
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    let (mut synced, mut settled) = (None, false);
    loop {
        // However many events come meanwhile.
        let settles = synced.map(|at: Instant| at + SETTLED);
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(LIST), if synced.is_none() => {
                let call = Call { verb: "list", plural: K::PLURAL, namespace, name: None };
                return Ended { error: Some(ApiError::timed_out(call, LIST)), ..Ended::default() };
            }
            () = sleep_until(settles), if !settled => {
                settled = true;
                each::<K>(sights, |sight| sight.fault().take().is_some());
                continue;
            }
            () = relist.notified(), if settled => return Ended { settled, ..Ended::default() },
        };
        match event {
            Some(Ok(event)) => {
                if matches!(event, Event::InitDone) {
                    synced.get_or_insert(clock::now());
                }
                take(event, sights);
            }
            Some(Err(error)) => {
                return Ended { error: watch_error::<K>(error, namespace), settled };
            }
            None => return Ended { settled, ..Ended::default() },
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Changes the sight of every database, and tells those for whom it was news.
fn each<K: CachedKind>(sights: &NamespaceCache, change: impl Fn(&mut K::CachedObject) -> bool) {
    for sender in sights.databases.values() {
        sender.send_if_modified(|observed| change(K::sight(observed)));
    }
}

fn take<K: CachedKind>(event: Event<K>, sights: &NamespaceCache) {
    let with = |object: K, gone: bool, change: fn(&mut K::CachedObject, K) -> bool| {
        if let Some(sender) = sights.databases.get(object.service()) {
            sender.send_if_modified(|observed| change(K::sight(observed), object));
        } else {
            sights.note_leftover(&object, gone);
        }
    };
    match event {
        Event::Init => {
            each::<K>(sights, |sight| {
                sight.init();
                false
            });
            orphans::init(&sights.orphans, &sights.namespace, K::PART);
        }
        Event::InitApply(object) => with(object, false, Store::init_apply),
        Event::InitDone => {
            each::<K>(sights, Store::init_done);
            orphans::init_done(&sights.orphans, &sights.namespace, K::PART);
        }
        Event::Apply(object) => with(object, false, |sight, object| sight.take(object, false)),
        Event::Delete(object) => with(object, true, |sight, object| sight.take(object, true)),
    }
}

/// Makes an API error of the error of a watch; none where the server has only forgotten the version:
/// listing anew is all it takes.
fn watch_error<K: CachedKind>(error: watcher::Error, namespace: &str) -> Option<ApiError> {
    let call = |verb| Call { verb, plural: K::PLURAL, namespace, name: None };
    Some(match error {
        watcher::Error::InitialListFailed(error) => ApiError::new(error, call("list")),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            ApiError::new(error, call("watch"))
        }
        watcher::Error::WatchError(status) if status.code == 410 => return None,
        other => ApiError::unavailable(format!("{}: {other}", call("watch"))),
    })
}

#[cfg(test)]
mod tests;
