//! What happened, as Kubernetes Events on the Services, and on the Lease what is about the daemon as a whole: one at a time, and never in the way of a check or a write.
//!
//! The library's recorder counts what differs only in its words as the same and keeps the first words, so that of two
//! addresses that go down it would show one, twice. Here each address is a thing of its own, and the words are the newest.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{info, warn};

use crate::api::{ApiError, Call, ErrorKind};
use crate::clock;
use crate::lease;
use crate::notice::{Notice, Receiver, Regarding};
use crate::publish;
use aggregator::{EventAggregator, Pending, Recorded};

mod aggregator;

/// Who reports.
const REPORTING_CONTROLLER: &str = "external-endpoints";

/// The longest note, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// An API call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time between two calls: Events get few of the API's requests, and none of those that writes may have.
const CALL_INTERVAL: Duration = Duration::from_millis(50);

/// The first pause after the API did not take an Event, and the longest.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// How long a namespace is left alone in which a right is missing.
const FORBIDDEN_DELAY: Duration = Duration::from_secs(60);

/// How long a replica that does not publish keeps notice: as long as it may take to take over from one that was killed.
const STANDBY_RETENTION: Duration = Duration::from_secs(20);

/// How often such a replica looks for what it need not keep any longer.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// News that are taken in before anything is told.
const RECV_BATCH: usize = 256;

/// What became of notice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    published: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Counts {
    /// By their result: Events that are in the cluster, notice that the API did not take, and those without room or Service.
    pub(crate) fn by_result(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("published", of(&self.published)),
            ("failed", of(&self.failed)),
            ("dropped", of(&self.dropped)),
        ]
    }
}

/// Publishes notice as Events for as long as it runs.
pub(crate) struct EventWriter {
    client: Client,
    services: publish::Handle,
    /// Only the replica that holds it publishes: all see the same.
    lease: lease::Handle,
    /// The name of this replica.
    instance: String,
    receiver: Receiver,
    counts: Counts,
    aggregator: EventAggregator,
    forbidden_until: HashMap<String, Instant>,
    /// How long to leave the API alone when it does not take the next one.
    backoff: Duration,
}

/// What an Event regards.
struct RegardingObject {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
}

impl RegardingObject {
    /// Describes a call for an Event on the object.
    fn call(&self, verb: &'static str) -> Call<'_> {
        Call { verb, plural: "events", namespace: &self.namespace, name: None }
    }
}

/// An Event that is not in the cluster.
enum EventError {
    /// There is no object that it could regard.
    NoObject,
    Api(ApiError),
}

impl From<ApiError> for EventError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl EventWriter {
    pub(crate) fn new(
        client: Client,
        services: publish::Handle,
        lease: lease::Handle,
        listener: Receiver,
    ) -> Self {
        let counts = Counts { dropped: listener.dropped.clone(), ..Counts::default() };
        let instance = lease.identity().map_or(REPORTING_CONTROLLER, |(_, me)| me).to_owned();
        let (ledger, muted, away) = Default::default();
        Self {
            client,
            services,
            lease,
            instance,
            receiver: listener,
            counts,
            aggregator: ledger,
            forbidden_until: muted,
            backoff: away,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Publishes until nobody is left who could tell anything.
    pub(crate) async fn run(mut self) {
        let mut heard = Vec::new();
        let mut standing = self.lease.subscribe();
        // Until then nothing is told: the API has had its call.
        let mut quiet = clock::now();
        loop {
            let now = clock::now();
            let pause = match self.due(now) {
                Ok(due) if quiet <= now => {
                    let rest = self.publish(due).await;
                    quiet = clock::now() + rest;
                    continue;
                }
                Ok(_) => Some(quiet - now),
                Err(pause) => pause,
            };
            tokio::select! {
                count = self.receiver.notices.recv_many(&mut heard, RECV_BATCH) => {
                    if count == 0 {
                        return;
                    }
                    heard.drain(..).for_each(|notice| self.on_notice(notice));
                }
                Ok(()) = standing.changed() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        if !self.aggregator.add(notice, clock::now()) {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is to be told now; else how long until something may be.
    fn due(&mut self, now: Instant) -> Result<Pending, Option<Duration>> {
        if self.lease.is_leader() {
            return self.aggregator.due(now);
        }
        // Another tells it, unless that one has gone and this one takes over.
        Err(self.aggregator.expire(STANDBY_RETENTION, now).then_some(EXPIRY_INTERVAL))
    }

    /// Publishes it, or gives it up. Returns how long to leave the API alone.
    async fn publish(&mut self, due: Pending) -> Duration {
        let Some(object) = self.object(&due.key.about) else {
            self.discard(&due, self.counts.dropped.clone());
            return Duration::ZERO;
        };
        if self.forbidden_until.get(&object.namespace).is_some_and(|until| *until > clock::now()) {
            self.discard(&due, self.counts.failed.clone());
            return Duration::ZERO;
        }
        let answer = match tokio::time::timeout(CALL_TIMEOUT, self.send(&due, &object)).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::timed_out(object.call("create"), CALL_TIMEOUT).into()),
        };
        match answer {
            Ok(told) => {
                if !std::mem::take(&mut self.backoff).is_zero() {
                    info!("Events are published again");
                }
                self.counts.published.fetch_add(due.count.into(), Ordering::Relaxed);
                self.aggregator.recorded(due, told, clock::now());
                CALL_INTERVAL
            }
            Err(EventError::NoObject) => {
                self.discard(&due, self.counts.dropped.clone());
                Duration::ZERO
            }
            Err(EventError::Api(error)) => {
                self.discard(&due, self.counts.failed.clone());
                self.on_error(&object, &error)
            }
        }
    }

    fn discard(&mut self, due: &Pending, count: Arc<AtomicU64>) {
        count.fetch_add(due.count.into(), Ordering::Relaxed);
        self.aggregator.discard(&due.key);
    }

    /// Logs once why Events are missing, and returns how long to leave the API alone.
    fn on_error(&mut self, object: &RegardingObject, error: &ApiError) -> Duration {
        let RegardingObject { kind, namespace, name, .. } = object;
        let reason = &*error.message;
        match error.kind {
            ErrorKind::NotFound
            | ErrorKind::NamespaceNotFound
            | ErrorKind::NamespaceTerminating => CALL_INTERVAL,
            ErrorKind::Invalid | ErrorKind::Conflict => {
                warn!(%namespace, kind, name, reason, "an Event was not taken");
                CALL_INTERVAL
            }
            ErrorKind::Forbidden => {
                let until = clock::now() + FORBIDDEN_DELAY;
                if self.forbidden_until.insert(namespace.clone(), until).is_none() {
                    warn!(%namespace, reason, "Events are not published");
                }
                CALL_INTERVAL
            }
            ErrorKind::Unauthorized | ErrorKind::Unavailable => {
                if self.backoff.is_zero() {
                    warn!(%namespace, kind, name, reason, "Events are not published");
                }
                self.backoff = (self.backoff * 2).clamp(RETRY_DELAYS[0], RETRY_DELAYS[1]);
                self.backoff
            }
        }
    }

    /// Counts on in an Event that is there, or makes one.
    async fn send(&self, due: &Pending, object: &RegardingObject) -> Result<Recorded, EventError> {
        let uid = self.uid(&due.key.about, object).await?;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &object.namespace);
        if let Some(before) = due.existing.as_ref().filter(|before| before.uid == uid) {
            let count = before.count.saturating_add(due.count);
            let series = json!({"series": series(count, due.notice.at)});
            match api.patch(&before.name, &PatchParams::default(), &Patch::Merge(series)).await {
                Ok(_) => return Ok(Recorded { count, ..before.clone() }),
                // The API forgets Events after an hour, or whoever likes to sooner.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(ApiError::new(error, object.call("patch")).into()),
            }
        }
        let event = event(due, object, &uid, &self.instance);
        let made = api
            .create(&PostParams::default(), &event)
            .await
            .map_err(|error| ApiError::new(error, object.call("create")))?;
        Ok(Recorded { name: made.name_any(), uid, count: due.count })
    }

    /// What notice are told on; none where the daemon as a whole has nothing that stands for it.
    fn object(&self, about: &Regarding) -> Option<RegardingObject> {
        let (api_version, kind, namespace, name) = match about {
            Regarding::Database(id) => ("v1", "Service", &id.namespace, &id.service),
            Regarding::Daemon => {
                let (lease, _) = self.lease.identity()?;
                ("coordination.k8s.io/v1", "Lease", &lease.namespace, &lease.name)
            }
        };
        Some(RegardingObject {
            api_version,
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
        })
    }

    async fn uid(&self, about: &Regarding, object: &RegardingObject) -> Result<String, EventError> {
        let known = match about {
            Regarding::Database(id) => self.services.service_uid(id),
            Regarding::Daemon => None,
        };
        let uid = match (about, known) {
            (_, Some(uid)) => uid,
            // All others are watched.
            (Regarding::Database(_), None) => self.look_up::<Service>(object).await?,
            (Regarding::Daemon, None) => self.look_up::<Lease>(object).await?,
        };
        uid.ok_or(EventError::NoObject)
    }

    async fn look_up<K>(&self, object: &RegardingObject) -> Result<Option<String>, EventError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace);
        let found = api.get_opt(&object.name).await.map_err(|error| {
            let RegardingObject { namespace, name, .. } = object;
            let plural = K::plural(&());
            let call = Call { verb: "get", plural: &plural, namespace, name: Some(name) };
            ApiError::new(error, call)
        })?;
        Ok(found.and_then(|found| found.uid()))
    }
}

fn event(due: &Pending, object: &RegardingObject, uid: &str, instance: &str) -> Event {
    let Pending { notice, count, .. } = due;
    let RegardingObject { api_version, kind, namespace, name } = object;
    let happened = MicroTime(timestamp(notice.at));
    Event {
        // As client-go names them.
        metadata: ObjectMeta {
            namespace: Some(namespace.clone()),
            name: Some(format!("{name}.{:x}", timestamp(clock::now()).as_nanosecond())),
            ..ObjectMeta::default()
        },
        event_time: Some(happened),
        regarding: Some(ObjectReference {
            api_version: Some((*api_version).into()),
            kind: Some((*kind).into()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        }),
        type_: Some(notice.severity.event_type().to_string()),
        reason: Some(notice.reason.to_string()),
        action: Some(notice.reason.action().into()),
        note: Some(cut(&notice.note, MAX_NOTE_BYTES)),
        series: (*count > 1).then(|| series(*count, notice.at)),
        reporting_controller: Some(REPORTING_CONTROLLER.into()),
        reporting_instance: Some(cut(instance, 128)),
        ..Event::default()
    }
}

fn series(count: u32, at: Instant) -> EventSeries {
    EventSeries {
        count: count.try_into().unwrap_or(i32::MAX),
        last_observed_time: MicroTime(timestamp(at)),
    }
}

fn timestamp(moment: Instant) -> Timestamp {
    Timestamp::try_from(clock::to_wall_clock(moment)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// At most so many bytes, of which the last say that there were more.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("short", 8), "short");
        assert_eq!(cut("ééééé", 8), "éé…");
        let long = cut(&"é".repeat(2000), MAX_NOTE_BYTES);
        assert!(
            long.len() <= MAX_NOTE_BYTES && long.len() > MAX_NOTE_BYTES - 4 && long.ends_with('…')
        );
    }
}
