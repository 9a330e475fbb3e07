//! The elector: acquires the Lease, renews it, and releases it at the end.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{OwnedRwLockWriteGuard, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use super::decision::Action;
use super::election::{Draft, Election, Installation, Record, Step};
use super::fitness::{CheckFacts, Checks};
use super::identity::Identity;
use super::mark::{self, Mark};
use super::{Handle, LEASE_DURATION, Name, RENEW_DEADLINE, RETRY_PERIOD, Role, STANDBY_PERIOD};
use crate::api::{ApiError, Call, ErrorKind};
use crate::clock;

/// The time within which the API must have answered a call: short enough for three calls before the
/// renew deadline.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for which the release waits for writes that are in flight. It is longer than they can
/// take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// The holder of a Lease that has none, in the log.
const NOBODY: &str = "nobody";

/// The number of steps in one tick. A Lease that others keep changing would need more.
const MAX_STEPS: usize = 8;

/// The task of the elector. Dropping it leaves the Lease to expire.
pub(crate) struct ElectionTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<WritesDrained>>,
}

/// The proof that no write is in flight, and that none begins while it exists.
pub(super) type WritesDrained = OwnedRwLockWriteGuard<()>;

impl ElectionTask {
    /// Waits until the task ends by itself, which is a fault, and returns the reason.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(_) => "it returned".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Drains the writes and releases the Lease, so that another replica can acquire it at once.
    /// Nothing is written while the returned proof exists.
    pub(crate) async fn release(self) -> Option<WritesDrained> {
        // Sending fails only if the task has ended, by a panic.
        let _ = self.stop.send(());
        if self.task.is_finished() { None } else { self.task.await.ok().flatten() }
    }
}

/// The functions by which the elector asks the rest of the daemon.
pub(crate) struct Callbacks {
    /// Returns the facts about the checks of this replica.
    pub checks: Box<dyn Fn() -> CheckFacts + Send + Sync>,
    /// Reads from the API whether anything bears our label, when the call begins or later.
    pub installation:
        Box<dyn Fn() -> BoxFuture<'static, Result<Installation, String>> + Send + Sync>,
}

/// A replica that does not compete for the Lease yet.
pub(crate) struct Candidate {
    client: Client,
    name: Name,
    identity: Identity,
    handle: Handle,
}

/// Makes this replica a candidate for the Lease.
pub(crate) fn candidate(client: Client, name: Name) -> io::Result<(Handle, Candidate)> {
    let identity = Identity::for_this_process()?;
    let handle = Handle::for_lease(name.clone(), identity.replica.clone());
    Ok((handle.clone(), Candidate { client, name, identity, handle }))
}

impl Candidate {
    /// Starts the election.
    pub(crate) fn start(self, callbacks: Callbacks) -> ElectionTask {
        let Self { client, name, identity: Identity { replica, process }, handle } = self;
        info!(lease = %name, identity = replica, "competing for the lease");
        let api = Api::namespaced(client, &name.namespace);
        let election = Election::new(replica, process);
        let (object, logged_duplicate) = (None, None);
        let elector =
            LeaderElector { api, name, handle, callbacks, election, object, logged_duplicate };
        let (stop, stopped) = oneshot::channel();
        ElectionTask { stop, task: tokio::spawn(elector.run(stopped)) }
    }
}

struct LeaderElector {
    api: Api<Lease>,
    name: Name,
    handle: Handle,
    callbacks: Callbacks,
    election: Election,
    /// The Lease as it was last observed; none if it was absent.
    object: Option<Lease>,
    /// The message that was last logged about another process with our identity.
    logged_duplicate: Option<String>,
}

impl LeaderElector {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Option<WritesDrained> {
        loop {
            let pause = self.tick().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped => return self.shut_down().await,
            }
        }
    }

    /// Does what is due now. Returns the time until the next tick.
    async fn tick(&mut self) -> Duration {
        let started = clock::boot_now();
        let pause = match self.run_steps().await {
            Ok(pause) => pause,
            Err(error) => {
                self.on_error(error);
                RETRY_PERIOD.saturating_sub(clock::boot_now().saturating_duration_since(started))
            }
        };
        // The role changes as soon as the permission ends.
        self.remaining().map_or(pause, |remaining| pause.min(remaining))
    }

    /// Returns the time for which we may still write; none if we may not.
    fn remaining(&self) -> Option<Duration> {
        self.election.remaining(clock::boot_now())
    }

    /// Runs steps until one is to wait. Returns for how long.
    async fn run_steps(&mut self) -> Result<Duration, String> {
        let checks = Checks::from_facts(&(self.callbacks.checks)(), clock::now());
        self.election.begin_tick(checks, clock::boot_now());
        if self.remaining().is_none() && self.handle.role() == Role::Leader {
            self.become_standby(Some(format!(
                "it was not renewed within {}",
                humantime::format_duration(RENEW_DEADLINE)
            )));
        }
        for _ in 0..MAX_STEPS {
            match self.election.next(clock::boot_now()) {
                Step::Observe => self.observe().await?,
                Step::Write(draft) => self.acquire_or_renew(draft).await?,
                Step::FindInstallation => match self.find_installation().await {
                    Ok(installation) => self.election.set_installation(installation),
                    Err(reason) => {
                        debug!(
                            lease = %self.name,
                            reason,
                            "it is not known whether this is a first installation"
                        );
                        self.become_standby(None);
                        break;
                    }
                },
                Step::Release => self.step_down().await,
                Step::Hold(pause) => return Ok(pause),
                Step::StandBy(pause) => {
                    let duplicate = self.election.duplicate_identity();
                    self.become_standby(duplicate.or_else(|| self.unfit_message()));
                    return Ok(pause);
                }
            }
        }
        Ok(STANDBY_PERIOD)
    }

    async fn observe(&mut self) -> Result<(), String> {
        let object = self
            .call("get", self.api.get_opt(&self.name.name))
            .await
            .map_err(|error| error.message)?;
        self.election.observe(object.as_ref().map(record), clock::boot_now());
        self.object = object;
        Ok(())
    }

    /// Creates, acquires or renews the Lease, unless it is no longer as it was observed.
    async fn acquire_or_renew(&mut self, draft: Draft) -> Result<(), String> {
        // The permission counts from before the call, because the others count from after it.
        let begun = clock::boot_now();
        match self.write(self.build_lease(&draft)).await {
            Ok(stored) => {
                let version = stored.metadata.resource_version.clone().unwrap_or_default();
                self.election.on_written(&draft, record(&stored), begun, clock::boot_now());
                self.object = Some(stored);
                if draft.action == Action::Create {
                    info!(lease = %self.name, version, "lease created: nobody holds it yet");
                } else if let Some(expires_at) = self.election.expires_at()
                    && self.handle.become_leader(expires_at)
                {
                    info!(lease = %self.name, version, "holding the lease: this replica writes");
                }
                Ok(())
            }
            // A Lease that is gone is no longer as it was observed.
            Err(error)
                if is_conflict(&error) || (is_gone(&error) && draft.action != Action::Create) =>
            {
                self.election.on_conflict();
                Ok(())
            }
            Err(error) => Err(error.message),
        }
    }

    async fn find_installation(&self) -> Result<Installation, String> {
        match tokio::time::timeout(CALL_TIMEOUT, (self.callbacks.installation)()).await {
            Ok(installation) => installation,
            Err(_) => Err(format!("no answer in {}", humantime::format_duration(CALL_TIMEOUT))),
        }
    }

    /// Writes the Lease on the version that it has. Without a version it is created, and the write
    /// is rejected if there is a Lease.
    ///
    /// A create is written as a replace, because a Role can limit the right to that to a name.
    async fn write(&self, lease: Lease) -> Result<Lease, ApiError> {
        self.call("update", self.api.replace(&self.name.name, &PostParams::default(), &lease)).await
    }

    /// Builds the Lease with the content of the draft.
    fn build_lease(&self, draft: &Draft) -> Lease {
        let now = Some(now());
        let existing = self.object.as_ref().filter(|_| draft.action != Action::Create);
        let before = existing.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_renewal = draft.action == Action::Renew;
        let spec = LeaseSpec {
            holder_identity: draft.holder.clone(),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if is_renewal { before.acquire_time.clone() } else { now.clone() },
            lease_transitions: Some(draft.transitions),
            renew_time: now,
            ..before
        };
        let mut metadata = self.metadata(existing);
        let annotations = metadata.annotations.get_or_insert_default();
        match &draft.mark {
            Some(mark) => drop(annotations.insert(mark::ANNOTATION.to_owned(), mark.to_string())),
            None => drop(annotations.remove(mark::ANNOTATION)),
        }
        Lease { metadata, spec: Some(spec) }
    }

    fn metadata(&self, existing: Option<&Lease>) -> ObjectMeta {
        match existing {
            Some(lease) => ObjectMeta { managed_fields: None, ..lease.metadata.clone() },
            None => ObjectMeta {
                name: Some(self.name.name.clone()),
                namespace: Some(self.name.namespace.clone()),
                ..ObjectMeta::default()
            },
        }
    }

    /// Drains the writes, and then releases the Lease.
    async fn shut_down(mut self) -> Option<WritesDrained> {
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, self.handle.drain_writes()).await.ok()?;
        self.release().await;
        Some(drained)
    }

    /// Leaves the Lease to a replica that can check, after the last write of this one.
    async fn step_down(&mut self) {
        let reason = self.election.unfit_reason(clock::boot_now()).unwrap_or_default();
        warn!(lease = %self.name, reason, "stepping down");
        // It is kept until permissions are no longer granted.
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, self.handle.drain_writes()).await;
        if drained.is_ok() {
            self.release().await;
        }
        self.election.step_down(clock::boot_now());
        self.become_standby(self.unfit_message());
    }

    /// Marks the Lease as released. The writes must have been drained.
    async fn release(&mut self) {
        if self.remaining().is_none() {
            return;
        }
        if self.handle.has_unacknowledged_write() {
            let reason = "a write that had no answer may still arrive";
            info!(lease = %self.name, reason, "the lease is not released, and will expire");
            return;
        }
        // The last renewal may have been stored without an answer. The second try finds that.
        for _ in 0..2 {
            let Some(draft) = self.election.release(clock::boot_now()) else { return };
            let begun = clock::boot_now();
            match self.write(self.build_lease(&draft)).await {
                Ok(stored) => {
                    self.election.on_written(&draft, record(&stored), begun, clock::boot_now());
                    self.object = Some(stored);
                    info!(lease = %self.name, "lease released");
                    return;
                }
                Err(error) if is_conflict(&error) && self.observe().await.is_ok() => {}
                Err(error) => {
                    let reason = error.message;
                    warn!(lease = %self.name, reason, "the lease is not released, and will expire");
                    return;
                }
            }
        }
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiError> {
        let Name { namespace, name } = &self.name;
        let description = Call { verb, plural: "leases", namespace, name: Some(name) };
        let limit = self.remaining().map_or(CALL_TIMEOUT, |left| left.min(CALL_TIMEOUT));
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| ApiError::new(error, description)),
            Err(_) => Err(ApiError::timed_out(description, CALL_TIMEOUT)),
        }
    }

    /// Describes for people what is wrong with the checks; none if they are good enough.
    fn unfit_message(&self) -> Option<String> {
        let reason = self.election.unfit_reason(clock::boot_now());
        reason.map(|reason| format!("this replica leaves the lease to another, as {reason}"))
    }

    /// Changes the role to standby, and logs it if that is a change.
    fn become_standby(&mut self, error: Option<String>) {
        let previous = self.handle.role();
        let duplicate = self.election.duplicate_identity();
        if let Some(reason) = duplicate.as_ref().filter(|_| self.logged_duplicate != duplicate) {
            error!(lease = %self.name, reason, "the lease can't be acquired");
        }
        let holder = self.election.other_holder().map(str::to_owned);
        let changed = self.handle.step_down(holder.clone(), error.clone());
        if changed && (duplicate.is_none() || previous == Role::Leader) {
            self.log_standby(&previous, holder, error);
        }
        self.logged_duplicate = duplicate;
    }

    fn log_standby(&self, previous: &Role, holder: Option<String>, error: Option<String>) {
        const LOST: &str = "lost the lease: this replica no longer writes";
        let lease = &self.name;
        let holder = holder.unwrap_or_else(|| NOBODY.to_owned());
        match (previous, error) {
            (Role::Leader, Some(reason)) => warn!(%lease, reason, "{LOST}"),
            (Role::Leader, None) => warn!(%lease, holder, "{LOST}"),
            (_, Some(reason)) => warn!(%lease, reason, "the lease can't be acquired"),
            (_, None) if holder == NOBODY => info!(
                %lease,
                "standing by: nobody holds the lease, but its last holder may still write"
            ),
            (_, None) => info!(%lease, holder, "standing by: another replica holds the lease"),
        }
    }

    /// Handles the error of a tick: logs it while we may still write, and stands by otherwise.
    fn on_error(&mut self, error: String) {
        if self.remaining().is_some() {
            let message = "the lease could not be renewed; trying again";
            warn!(lease = %self.name, reason = error, "{message}");
        } else {
            self.become_standby(Some(error));
        }
    }
}

fn now() -> MicroTime {
    // Only people read it, so a clock that is far off does no harm.
    MicroTime(Timestamp::try_from(clock::to_wall_clock(clock::now())).unwrap_or_default())
}

/// Reads the fields of the Lease that the election decides by.
fn record(lease: &Lease) -> Record {
    let LeaseSpec { holder_identity, lease_duration_seconds, lease_transitions, .. } =
        lease.spec.clone().unwrap_or_default();
    let ObjectMeta { resource_version, uid, annotations, .. } = &lease.metadata;
    let mark = annotations.as_ref().and_then(|annotations| annotations.get(mark::ANNOTATION));
    Record {
        version: resource_version.clone().unwrap_or_default(),
        uid: uid.clone().unwrap_or_default(),
        holder: holder_identity.filter(|holder| !holder.is_empty()),
        duration: Duration::from_secs(
            u64::try_from(lease_duration_seconds.unwrap_or_default()).unwrap_or_default(),
        ),
        transitions: lease_transitions.unwrap_or_default(),
        mark: mark.and_then(|text| Mark::parse(text)),
    }
}

/// Tests whether the Lease is not as it was observed. The API rejects a replace without a version
/// as invalid where there is a Lease to replace.
fn is_conflict(error: &ApiError) -> bool {
    error.kind == ErrorKind::Conflict
        || error.code() == Some(422) && error.reply().contains("resourceVersion")
}

fn is_gone(error: &ApiError) -> bool {
    matches!(error.kind, ErrorKind::NotFound | ErrorKind::NamespaceNotFound)
}
