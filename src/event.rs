//! Kubernetes Events: notices about a database are published on its Service, and notices about the
//! daemon as a whole on its Lease.
//!
//! Events are published one at a time, and never delay a check or a write. The recorder of
//! kube-runtime treats notices that differ only in their note as repetitions and keeps the first
//! note: of two addresses that go down it would show one, twice. Here each address has an Event of
//! its own, and the newest Event always says what is so now:
//!
//! ```text
//! notices --> aggregator --> client --> Events     a newer truth is written at once, in the
//!                 ^                        |       Event that is there where it is recent
//!                 |                        |
//!               audit <--------------------+       Events that are no longer so, also those of a
//!                 ^                                former leader, are corrected
//!                 |
//!         publish, monitor                         the state
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use kube::Client;
use tracing::{info, warn};

use crate::api::{ApiError, ErrorKind};
use crate::clock;
use crate::lease;
use crate::monitor::{self, Snapshot};
use crate::notice::{Notice, Receiver, Regarding};
use crate::publish;
use aggregator::{EventAggregator, EventKey, Next, Pending, Recorded};
use audit::Audit;
use client::{EventClient, EventError};
use object::{REPORTING_COMPONENT, RegardingObject};

mod aggregator;
mod audit;
mod client;
mod object;
mod truth;

/// The least time between two calls: 50 Events a second. They don't count towards the rate limit of
/// writes.
const CALL_INTERVAL: Duration = Duration::from_millis(20);

/// The shortest and the longest pause after a call that the API did not answer.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// The shortest and the longest time for which no Events are sent to a namespace in which a right
/// is missing.
const FORBIDDEN_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The delay from which on a missing right is reported and notices are discarded. An API server
/// that has just started forbids everything for a moment.
const LASTING_DELAY: Duration = Duration::from_secs(8);

/// The time for which a standby replica retains notices. It is as long as a takeover may take after
/// the leader was killed.
const STANDBY_RETENTION: Duration = Duration::from_secs(20);

/// The time for which the leader retains notices that the API does not take. The API would have
/// deleted their Events after as long.
const LEADER_RETENTION: Duration = Duration::from_secs(3600);

/// The interval at which notices that are too old are discarded, and Events are audited.
const AUDIT_INTERVAL: Duration = Duration::from_millis(500);

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
    client: EventClient,
    monitor: monitor::Handle,
    /// Only the leader publishes, because all replicas record the same happenings.
    lease: lease::Handle,
    receiver: Receiver,
    counts: Counts,
    aggregator: EventAggregator,
    audit: Audit,
    /// True while this replica is known to be the leader.
    leads: bool,
    /// The names of the Events whose creation had no answer.
    attempted: HashMap<EventKey, String>,
    /// The namespaces in which a right is missing.
    forbidden: HashMap<String, Forbidden>,
    /// The last pause after calls that failed; zero after a call that succeeded.
    backoff: Duration,
}

/// The refusal of Events in a namespace.
#[derive(Default)]
struct Forbidden {
    /// The last pause.
    delay: Duration,
    /// The end of the pause.
    until: Option<Instant>,
}

/// The next thing to do.
enum Step {
    Call(BoxFuture<'static, Outcome>),
    Wait(Duration),
}

/// The outcome of a call.
enum Outcome {
    Written(Box<(Pending, RegardingObject, Result<Recorded, EventError>)>),
    Listed(String, Result<Vec<(EventKey, Recorded)>, ApiError>),
    Snapshot(Option<Arc<Snapshot>>),
}

impl EventWriter {
    pub(crate) fn new(
        client: Client,
        services: publish::Handle,
        monitor: monitor::Handle,
        lease: lease::Handle,
        receiver: Receiver,
    ) -> Self {
        let counts = Counts { dropped: receiver.dropped.clone(), ..Counts::default() };
        let identity = lease.identity().map(|(_, identity)| identity);
        let instance = identity.unwrap_or(REPORTING_COMPONENT).to_owned();
        let client = EventClient { client, services, instance };
        Self {
            client,
            monitor,
            lease,
            receiver,
            counts,
            aggregator: EventAggregator::default(),
            audit: Audit::default(),
            leads: false,
            attempted: HashMap::new(),
            forbidden: HashMap::new(),
            backoff: Duration::ZERO,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Publishes Events until the last recorder is dropped. Notices are received also while a call
    /// is in flight.
    pub(crate) async fn run(mut self) {
        let mut received = Vec::new();
        let mut roles = self.lease.subscribe();
        let mut call: Option<BoxFuture<'static, Outcome>> = None;
        let mut next_call = clock::now();
        loop {
            let now = clock::now();
            if self.update_role() {
                call = None;
            }
            let pause = match &call {
                Some(_) => AUDIT_INTERVAL,
                None if next_call > now => next_call - now,
                None => match self.next(now) {
                    Step::Wait(pause) => pause,
                    Step::Call(started) => {
                        call = Some(started);
                        continue;
                    }
                },
            };
            let in_flight = async {
                match &mut call {
                    Some(call) => call.await,
                    None => std::future::pending().await,
                }
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
                outcome = in_flight => {
                    call = None;
                    next_call = clock::now() + self.apply(outcome);
                }
                Ok(()) = roles.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Follows the role of this replica. Returns whether a call in flight has to be given up.
    fn update_role(&mut self) -> bool {
        let leads = self.lease.is_leader();
        if std::mem::replace(&mut self.leads, leads) == leads {
            return false;
        }
        self.attempted.clear();
        self.audit = Audit::default();
        if leads {
            // Another replica may have written Events since this one knew them.
            self.aggregator.forget_events();
            let mut namespaces = self.client.services.namespaces();
            namespaces.extend(self.lease.identity().map(|(name, _)| name.namespace.clone()));
            self.audit.start(namespaces);
        }
        true
    }

    /// Returns what to do next. A standby replica publishes nothing. It retains notices for a while
    /// in case that the leader is gone and this replica takes over.
    fn next(&mut self, now: Instant) -> Step {
        let retention = if self.leads { LEADER_RETENTION } else { STANDBY_RETENTION };
        let expired = self.aggregator.expire(retention, now);
        if expired > 0 {
            self.attempted.clear();
        }
        if !self.leads {
            return Step::Wait(AUDIT_INTERVAL);
        }
        self.counts.failed.fetch_add(expired.into(), Ordering::Relaxed);
        if self.audit.due_at(AUDIT_INTERVAL, now) <= now {
            self.audit_members(now);
            if self.audit.needs_snapshot() {
                let monitor = self.monitor.clone();
                return Step::Call(
                    async move { Outcome::Snapshot(monitor.snapshot().await) }.boxed(),
                );
            }
        }
        let held_until = |regarding: &Regarding| {
            self.forbidden.get(namespace_of(regarding, &self.lease)?)?.until
        };
        let next = self.aggregator.next(held_until, now);
        if let Some(namespace) = self.namespace_to_list(&next, now) {
            let client = self.client.clone();
            let list = async move {
                let listed = client.list(&namespace).await;
                Outcome::Listed(namespace, listed)
            };
            return Step::Call(list.boxed());
        }
        match next {
            Next::Due(pending) => match self.start_write(*pending) {
                Some(call) => Step::Call(call),
                None => Step::Wait(Duration::ZERO),
            },
            Next::Wait(pause) => Step::Wait(pause.min(AUDIT_INTERVAL)),
            Next::Idle => Step::Wait(AUDIT_INTERVAL),
        }
    }

    /// Returns the namespace whose Events have to be listed first: that of the Event that is due,
    /// which may be counted in one of a former leader, else any.
    fn namespace_to_list(&self, next: &Next, now: Instant) -> Option<String> {
        let namespace = match next {
            Next::Due(pending) => namespace_of(&pending.key.regarding, &self.lease)
                .filter(|namespace| self.audit.has_to_list(namespace, now)),
            Next::Wait(_) | Next::Idle => self.audit.next_namespace(now),
        };
        namespace.map(str::to_owned)
    }

    /// Adds the truth where an Event says something else about the members of a database.
    fn audit_members(&mut self, now: Instant) {
        let services = &self.client.services;
        let corrections = self.audit.members(&self.aggregator, |id| services.status(id), now);
        self.add_corrections(corrections, now);
    }

    fn add_corrections(&mut self, corrections: Vec<Notice>, now: Instant) {
        for notice in corrections {
            if !self.aggregator.add(notice, now) {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Starts to publish an Event, or discards it.
    fn start_write(&mut self, pending: Pending) -> Option<BoxFuture<'static, Outcome>> {
        let Some(object) = self.object(&pending.key.regarding) else {
            self.discard(&pending, self.counts.dropped.clone());
            return None;
        };
        let name = || object::event_name(&object);
        let name = self.attempted.entry(pending.key.clone()).or_insert_with(name).clone();
        let client = self.client.clone();
        let write = async move {
            let written = client.write(&pending, &object, name).await;
            Outcome::Written(Box::new((pending, object, written)))
        };
        Some(write.boxed())
    }

    /// Applies the outcome of a call. Returns the time for which to make no other.
    fn apply(&mut self, outcome: Outcome) -> Duration {
        let now = clock::now();
        match outcome {
            Outcome::Written(written) => {
                let (pending, object, result) = *written;
                self.on_written(pending, &object, result)
            }
            Outcome::Listed(namespace, Ok(found)) => {
                for (key, recorded) in found {
                    let age = clock::to_wall_clock(now).duration_since(recorded.shown_at);
                    let at = now.checked_sub(age.unwrap_or_default()).unwrap_or(now);
                    self.audit.add_found(&key);
                    self.aggregator.on_found(key, recorded, at);
                }
                self.audit.on_listed(&namespace);
                self.on_success()
            }
            Outcome::Listed(namespace, Err(error)) => self.on_list_error(&namespace, &error),
            Outcome::Snapshot(None) => CALL_INTERVAL,
            Outcome::Snapshot(Some(snapshot)) => {
                let corrections = self.audit.others(&self.aggregator, &snapshot, now);
                self.add_corrections(corrections, now);
                Duration::ZERO
            }
        }
    }

    fn on_success(&mut self) -> Duration {
        if !std::mem::take(&mut self.backoff).is_zero() {
            info!("Events are published again");
        }
        CALL_INTERVAL
    }

    fn on_written(
        &mut self,
        pending: Pending,
        object: &RegardingObject,
        result: Result<Recorded, EventError>,
    ) -> Duration {
        match result {
            Ok(recorded) => {
                self.attempted.remove(&pending.key);
                self.on_allowed(&object.namespace);
                self.counts.published.fetch_add(pending.count.into(), Ordering::Relaxed);
                self.aggregator.on_published(pending, recorded, clock::now());
                self.on_success()
            }
            Err(EventError::Changed) => {
                self.aggregator.forget_event(&pending.key);
                CALL_INTERVAL
            }
            Err(EventError::NoObject) => {
                self.discard(&pending, self.counts.dropped.clone());
                Duration::ZERO
            }
            Err(EventError::Api(error)) => {
                if !is_outage(&error) && error.kind != ErrorKind::Forbidden {
                    self.discard(&pending, self.counts.failed.clone());
                }
                self.on_error(object, &error)
            }
        }
    }

    fn discard(&mut self, pending: &Pending, count: Arc<AtomicU64>) {
        count.fetch_add(pending.count.into(), Ordering::Relaxed);
        self.attempted.remove(&pending.key);
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
                self.on_forbidden(namespace, reason);
                CALL_INTERVAL
            }
            ErrorKind::Unauthorized | ErrorKind::Unavailable => {
                if self.backoff.is_zero() {
                    warn!(%namespace, kind, name, reason, "Events are not published for now");
                }
                self.next_backoff(error)
            }
        }
    }

    /// Holds back the Events of a namespace for ever longer. If that lasts, they are discarded, and
    /// the log says once which right is missing.
    fn on_forbidden(&mut self, namespace: &str, reason: &str) {
        let forbidden = self.forbidden.entry(namespace.to_owned()).or_default();
        let was_lasting = forbidden.delay >= LASTING_DELAY;
        forbidden.delay = (forbidden.delay * 2).clamp(FORBIDDEN_DELAYS[0], FORBIDDEN_DELAYS[1]);
        forbidden.until = Some(clock::now() + forbidden.delay);
        if forbidden.delay < LASTING_DELAY {
            return;
        }
        if !was_lasting {
            warn!(%namespace, reason, "Events are not published");
        }
        let lease = &self.lease;
        let is_here = |regarding: &Regarding| namespace_of(regarding, lease) == Some(namespace);
        let discarded = self.aggregator.discard_all(is_here);
        self.attempted.clear();
        self.counts.failed.fetch_add(discarded.into(), Ordering::Relaxed);
    }

    /// Ends the refusal of Events in a namespace.
    fn on_allowed(&mut self, namespace: &str) {
        let before = self.forbidden.remove(namespace);
        if before.is_some_and(|forbidden| forbidden.delay >= LASTING_DELAY) {
            info!(%namespace, "Events are published again");
        }
    }

    /// Logs why the Events of a former leader are not known. Tries again only if the API is away,
    /// or has just started.
    fn on_list_error(&mut self, namespace: &str, error: &ApiError) -> Duration {
        let now = clock::now();
        if is_outage(error) {
            self.audit.on_list_failed(namespace, now);
            return self.next_backoff(error);
        }
        if error.kind == ErrorKind::Forbidden && self.audit.on_list_forbidden(namespace, now) {
            return CALL_INTERVAL;
        }
        self.audit.on_listed(namespace);
        if error.kind == ErrorKind::Forbidden {
            let reason = &*error.message;
            warn!(namespace, reason, "Events of a former leader are not corrected");
        }
        CALL_INTERVAL
    }

    fn next_backoff(&mut self, error: &ApiError) -> Duration {
        self.backoff = (self.backoff * 2).clamp(RETRY_DELAYS[0], RETRY_DELAYS[1]);
        self.backoff.max(error.retry_after)
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
}

/// Returns the namespace of the Events of a notice.
fn namespace_of<'a>(regarding: &'a Regarding, lease: &'a lease::Handle) -> Option<&'a str> {
    match regarding {
        Regarding::Database(id) => Some(&id.namespace),
        Regarding::Daemon => lease.identity().map(|(name, _)| name.namespace.as_str()),
    }
}

/// Returns whether the API is away, so that a later call may succeed.
fn is_outage(error: &ApiError) -> bool {
    matches!(error.kind, ErrorKind::Unauthorized | ErrorKind::Unavailable)
}
