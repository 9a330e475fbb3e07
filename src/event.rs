//! Kubernetes Events: notices about a database are published on its Service, and notices about the
//! daemon as a whole on its Lease.
//!
//! Events are published one at a time, and never delay a check or a write. The recorder of
//! kube-runtime treats notices that differ only in their note as repetitions and keeps the first
//! note: of two addresses that go down it would show one, twice. Here each address has an Event of
//! its own, with the newest note.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{info, warn};

use crate::api::{ApiError, Call, ErrorKind};
use crate::clock;
use crate::lease;
use crate::notice::{Receiver, Regarding};
use crate::publish::{self, ServiceUid};
use aggregator::{EventAggregator, Next, Pending, Recorded};
use object::{REPORTING_CONTROLLER, RegardingObject};

mod aggregator;
mod object;

/// The time within which the API must have taken an Event.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time between two calls: 20 Events a second. They don't count towards the rate limit of
/// writes.
const CALL_INTERVAL: Duration = Duration::from_millis(50);

/// The shortest and the longest pause after a call that the API did not answer.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The time for which no Events are sent to a namespace in which a right is missing.
const FORBIDDEN_DELAY: Duration = Duration::from_secs(60);

/// The time for which a standby replica retains notices. It is as long as a takeover may take after
/// the leader was killed.
const STANDBY_RETENTION: Duration = Duration::from_secs(20);

/// The interval at which a standby replica discards notices that are older.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The number of notices that are received before an Event is published.
const RECV_BATCH: usize = 256;

/// The number of notices by their result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    published: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Counts {
    /// Returns the counts: `published` are in the cluster, `failed` were not taken by the API, and
    /// `dropped` found a full buffer or no object.
    pub(crate) fn by_result(&self) -> [(&'static str, u64); 3] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("published", load(&self.published)),
            ("failed", load(&self.failed)),
            ("dropped", load(&self.dropped)),
        ]
    }
}

/// Writes notices as Events, for as long as there are recorders.
pub(crate) struct EventWriter {
    client: Client,
    services: publish::Handle,
    /// Only the leader publishes, because all replicas record the same happenings.
    lease: lease::Handle,
    /// The name of this replica.
    instance: String,
    receiver: Receiver,
    counts: Counts,
    aggregator: EventAggregator,
    /// The time until which no Event is sent to a namespace in which a right is missing.
    forbidden_until: HashMap<String, Instant>,
    /// The last pause after calls that failed; zero after a call that succeeded.
    backoff: Duration,
}

/// The error of an Event that is not in the cluster.
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
        receiver: Receiver,
    ) -> Self {
        let counts = Counts { dropped: receiver.dropped.clone(), ..Counts::default() };
        let identity = lease.identity().map(|(_, identity)| identity);
        let instance = identity.unwrap_or(REPORTING_CONTROLLER).to_owned();
        let (aggregator, forbidden_until, backoff) = Default::default();
        Self {
            client,
            services,
            lease,
            instance,
            receiver,
            counts,
            aggregator,
            forbidden_until,
            backoff,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Publishes Events until the last recorder is dropped.
    pub(crate) async fn run(mut self) {
        let mut received = Vec::new();
        let mut roles = self.lease.subscribe();
        let mut next_call = clock::now();
        loop {
            let now = clock::now();
            let pause = match self.next(now) {
                Next::Due(_) if next_call > now => Some(next_call - now),
                Next::Due(pending) => {
                    let pause = self.publish(*pending).await;
                    next_call = clock::now() + pause;
                    continue;
                }
                Next::Wait(pause) => Some(pause),
                Next::Idle => None,
            };
            tokio::select! {
                count = self.receiver.notices.recv_many(&mut received, RECV_BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for notice in received.drain(..) {
                        if !self.aggregator.add(notice, clock::now()) {
                            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                Ok(()) = roles.changed() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Returns what to do next. A standby replica publishes nothing. It retains notices for a while
    /// in case that the leader is gone and this replica takes over.
    fn next(&mut self, now: Instant) -> Next {
        if self.lease.is_leader() {
            return self.aggregator.next(now);
        }
        self.aggregator.expire(STANDBY_RETENTION, now);
        if self.aggregator.has_pending() { Next::Wait(EXPIRY_INTERVAL) } else { Next::Idle }
    }

    /// Publishes an Event, or discards it. Returns the time for which to make no other call.
    async fn publish(&mut self, pending: Pending) -> Duration {
        let Some(object) = self.object(&pending.key.regarding) else {
            self.discard(&pending, self.counts.dropped.clone());
            return Duration::ZERO;
        };
        if self.forbidden_until.get(&object.namespace).is_some_and(|until| *until > clock::now()) {
            self.discard(&pending, self.counts.failed.clone());
            return Duration::ZERO;
        }
        let written = tokio::time::timeout(CALL_TIMEOUT, self.write(&pending, &object)).await;
        let written = written.unwrap_or_else(|_| {
            Err(ApiError::timed_out(object.event_call("create"), CALL_TIMEOUT).into())
        });
        match written {
            Ok(recorded) => {
                if !std::mem::take(&mut self.backoff).is_zero() {
                    info!("Events are published again");
                }
                self.counts.published.fetch_add(pending.count.into(), Ordering::Relaxed);
                self.aggregator.on_published(pending, recorded, clock::now());
                CALL_INTERVAL
            }
            Err(EventError::NoObject) => {
                self.discard(&pending, self.counts.dropped.clone());
                Duration::ZERO
            }
            Err(EventError::Api(error)) => {
                self.discard(&pending, self.counts.failed.clone());
                self.on_error(&object, &error)
            }
        }
    }

    fn discard(&mut self, pending: &Pending, count: Arc<AtomicU64>) {
        count.fetch_add(pending.count.into(), Ordering::Relaxed);
        self.aggregator.discard(&pending.key);
    }

    /// Logs once why Events are missing. Returns the time for which to make no other call.
    fn on_error(&mut self, object: &RegardingObject, error: &ApiError) -> Duration {
        let RegardingObject { kind, namespace, name, .. } = object;
        let reason = &*error.message;
        match error.kind {
            // The namespace is going, and its Events with it.
            ErrorKind::NotFound
            | ErrorKind::NamespaceNotFound
            | ErrorKind::NamespaceTerminating => CALL_INTERVAL,
            ErrorKind::Invalid | ErrorKind::Conflict => {
                warn!(%namespace, kind, name, reason, "the API did not take an Event");
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

    /// Raises the count of an Event that exists, or creates one.
    async fn write(
        &self,
        pending: &Pending,
        object: &RegardingObject,
    ) -> Result<Recorded, EventError> {
        let uid = self.uid(&pending.key.regarding, object).await?;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &object.namespace);
        if let Some(existing) = pending.existing.as_ref().filter(|existing| existing.uid == uid) {
            let count = existing.count.saturating_add(pending.count);
            let series = json!({"series": object::series(count, pending.notice.at)});
            let patch = Patch::Merge(series);
            match api.patch(&existing.name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(Recorded { count, ..existing.clone() }),
                // The API deletes Events after an hour, and people may do so earlier.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(ApiError::new(error, object.event_call("patch")).into()),
            }
        }
        let event = object::event(pending, object, &uid, &self.instance);
        let created = api
            .create(&PostParams::default(), &event)
            .await
            .map_err(|error| ApiError::new(error, object.event_call("create")))?;
        Ok(Recorded { name: created.name_any(), uid, count: pending.count })
    }

    /// Returns the object for the Events of a notice. The daemon as a whole has none without a
    /// Lease.
    fn object(&self, regarding: &Regarding) -> Option<RegardingObject> {
        let (api_version, kind, namespace, name) = match regarding {
            Regarding::Database(id) => ("v1", "Service", &id.namespace, &id.service),
            Regarding::Daemon => {
                let (lease, _) = self.lease.identity()?;
                ("coordination.k8s.io/v1", "Lease", &lease.namespace, &lease.name)
            }
        };
        let (namespace, name) = (namespace.clone(), name.clone());
        Some(RegardingObject { api_version, kind, namespace, name })
    }

    /// Returns the UID of the object. Services of the config are in the cache, and all others are
    /// read from the API.
    async fn uid(
        &self,
        regarding: &Regarding,
        object: &RegardingObject,
    ) -> Result<String, EventError> {
        let uid = match regarding {
            Regarding::Database(id) => match self.services.service_uid(id) {
                ServiceUid::Known(uid) => Some(uid),
                ServiceUid::Absent => None,
                ServiceUid::NotWatched => self.read_uid::<Service>(object).await?,
            },
            Regarding::Daemon => self.read_uid::<Lease>(object).await?,
        };
        uid.ok_or(EventError::NoObject)
    }

    async fn read_uid<K>(&self, object: &RegardingObject) -> Result<Option<String>, ApiError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let RegardingObject { namespace, name, .. } = object;
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let plural = K::plural(&());
        let call = Call { verb: "get", plural: &plural, namespace, name: Some(name) };
        let read = api.get_opt(name).await.map_err(|error| ApiError::new(error, call))?;
        Ok(read.and_then(|object| object.uid()))
    }
}
