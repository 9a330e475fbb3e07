//! Gets the Lease, renews it, and gives it up at the end.

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

/// An API call that takes longer has failed: short enough for three in the time that the holder has.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// At the end, how long writes that are under way may take: longer than they can.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// The holder of a Lease without one, in the log.
const NOBODY: &str = "nobody";

/// The most steps in one turn, for a Lease that others keep changing.
const MAX_STEPS: usize = 8;

/// The task that keeps the Lease. Dropping it leaves the Lease to run out.
pub(crate) struct ElectionTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<WritesDrained>>,
}

/// That no write is under way, and none will be.
pub(super) type WritesDrained = OwnedRwLockWriteGuard<()>;

impl ElectionTask {
    /// Waits for it to end, which it should not do by itself, and says why it did.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(_) => "it returned".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Lets no new write begin, waits for those that are under way, and gives the Lease up, so that another can take it at
    /// once. Nothing is written while the answer is kept.
    pub(crate) async fn release(self) -> Option<WritesDrained> {
        // An error only says that it has ended already, by a panic.
        let _ = self.stop.send(());
        if self.task.is_finished() { None } else { self.task.await.ok().flatten() }
    }
}

/// The answers that the keeper needs from the rest of the daemon.
pub(crate) struct Callbacks {
    /// The facts about the checks of this replica.
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

/// Makes this replica one that may compete for the Lease.
pub(crate) fn candidate(client: Client, name: Name) -> io::Result<(Handle, Candidate)> {
    let identity = Identity::of_this_process()?;
    let handle = Handle::of(name.clone(), identity.replica.clone());
    Ok((handle.clone(), Candidate { client, name, identity, handle }))
}

impl Candidate {
    /// Starts to compete.
    pub(crate) fn start(self, conditions: Callbacks) -> ElectionTask {
        let Self { client, name, identity: Identity { replica, process }, handle } = self;
        info!(lease = %name, identity = replica, "competing for the lease");
        let api = Api::namespaced(client, &name.namespace);
        let election = Election::new(replica, process);
        let keeper =
            LeaderElector { api, name, handle, conditions, election, object: None, twin: None };
        let (stop, stopped) = oneshot::channel();
        ElectionTask { stop, task: tokio::spawn(keeper.run(stopped)) }
    }
}

struct LeaderElector {
    api: Api<Lease>,
    name: Name,
    handle: Handle,
    conditions: Callbacks,
    election: Election,
    /// The Lease as it was last seen; none if it was absent.
    object: Option<Lease>,
    /// The line that was last logged about another process with our identity.
    twin: Option<String>,
}

impl LeaderElector {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Option<WritesDrained> {
        loop {
            let pause = self.tick().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped => return self.give_up().await,
            }
        }
    }

    /// Does what is to be done now, and says how long to wait before the next turn.
    async fn tick(&mut self) -> Duration {
        let begun = clock::boot_now();
        let pause = match self.steps().await {
            Ok(pause) => pause,
            Err(trouble) => {
                self.on_error(trouble);
                RETRY_PERIOD.saturating_sub(clock::boot_now().saturating_duration_since(begun))
            }
        };
        // Never past the moment at which it runs out, for all to know at once.
        self.remaining().map_or(pause, |left| pause.min(left))
    }

    /// How long we may still write; none if we may not.
    fn remaining(&self) -> Option<Duration> {
        self.election.remaining(clock::boot_now())
    }

    /// Takes step after step until there is something to wait for.
    async fn steps(&mut self) -> Result<Duration, String> {
        let checks = Checks::judge(&(self.conditions.checks)(), clock::now());
        self.election.begin_turn(checks, clock::boot_now());
        if self.remaining().is_none() && self.handle.role() == Role::Holder {
            self.step_aside(Some(format!(
                "it was not renewed within {}",
                humantime::format_duration(RENEW_DEADLINE)
            )));
        }
        for _ in 0..MAX_STEPS {
            match self.election.next(clock::boot_now()) {
                Step::Observe => self.observe().await?,
                Step::Write(draft) => self.acquire_or_renew(draft).await?,
                Step::FindInstallation => match self.find_installation().await {
                    Ok(installation) => self.election.answered(installation),
                    Err(reason) => {
                        debug!(lease = %self.name, reason, "it is not known whether this is a first installation");
                        self.step_aside(None);
                        break;
                    }
                },
                Step::Release => self.step_down().await,
                Step::Hold(pause) => return Ok(pause),
                Step::StandBy(pause) => {
                    let trouble = self.election.twin().or_else(|| self.unfit());
                    self.step_aside(trouble);
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

    /// Creates, takes or renews the Lease, unless it is no longer as it was seen.
    async fn acquire_or_renew(&mut self, draft: Draft) -> Result<(), String> {
        // From before the call, as the others count from after it.
        let begun = clock::boot_now();
        match self.write(self.lease_of(&draft)).await {
            Ok(now) => {
                let version = now.metadata.resource_version.clone().unwrap_or_default();
                self.election.wrote(&draft, record(&now), begun, clock::boot_now());
                self.object = Some(now);
                if draft.action == Action::Create {
                    info!(lease = %self.name, version, "lease created: nobody holds it yet");
                } else if let Some(expires_at) = self.election.expires_at()
                    && self.handle.become_leader(expires_at)
                {
                    info!(lease = %self.name, version, "holding the lease: this replica writes");
                }
                Ok(())
            }
            // A Lease that has gone is no longer as it was observed.
            Err(error)
                if is_conflict(&error) || (is_gone(&error) && draft.action != Action::Create) =>
            {
                self.election.refused();
                Ok(())
            }
            Err(error) => Err(error.message),
        }
    }

    async fn find_installation(&self) -> Result<Installation, String> {
        match tokio::time::timeout(CALL_TIMEOUT, (self.conditions.installation)()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {}", humantime::format_duration(CALL_TIMEOUT))),
        }
    }

    /// Writes the Lease on the version that it has, or as a new one where it has none: one that is there meanwhile is refused.
    ///
    /// A replace that creates, other than a create, may be allowed for a name.
    async fn write(&self, lease: Lease) -> Result<Lease, ApiError> {
        self.call("update", self.api.replace(&self.name.name, &PostParams::default(), &lease)).await
    }

    /// The Lease as it shall be after this.
    fn lease_of(&self, draft: &Draft) -> Lease {
        let now = Some(now());
        let held = self.object.as_ref().filter(|_| draft.action != Action::Create);
        let before = held.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let again = draft.action == Action::Renew;
        let spec = LeaseSpec {
            holder_identity: draft.holder.clone(),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if again { before.acquire_time.clone() } else { now.clone() },
            lease_transitions: Some(draft.transitions),
            renew_time: now,
            ..before
        };
        let mut metadata = self.metadata(held);
        let annotations = metadata.annotations.get_or_insert_default();
        match &draft.mark {
            Some(mark) => drop(annotations.insert(mark::ANNOTATION.to_owned(), mark.to_string())),
            None => drop(annotations.remove(mark::ANNOTATION)),
        }
        Lease { metadata, spec: Some(spec) }
    }

    fn metadata(&self, held: Option<&Lease>) -> ObjectMeta {
        match held {
            Some(held) => ObjectMeta { managed_fields: None, ..held.metadata.clone() },
            None => ObjectMeta {
                name: Some(self.name.name.clone()),
                namespace: Some(self.name.namespace.clone()),
                ..ObjectMeta::default()
            },
        }
    }

    /// Ends all writing, and then lets another have the Lease.
    async fn give_up(mut self) -> Option<WritesDrained> {
        let ended = tokio::time::timeout(DRAIN_TIMEOUT, self.handle.drain_writes()).await.ok()?;
        self.release().await;
        Some(ended)
    }

    /// Leaves the Lease to a replica that can check. Our own writes end first.
    async fn step_down(&mut self) {
        let reason = self.election.unfit(clock::boot_now()).unwrap_or_default();
        warn!(lease = %self.name, reason, "stepping down");
        // Kept until nobody is given permission any more.
        let ended = tokio::time::timeout(DRAIN_TIMEOUT, self.handle.drain_writes()).await;
        if ended.is_ok() {
            self.release().await;
        }
        self.election.step_down(clock::boot_now());
        self.step_aside(self.unfit());
    }

    /// Marks the Lease as given up, once no write of ours is under way.
    async fn release(&mut self) {
        if self.remaining().is_none() {
            return;
        }
        if self.handle.has_unacknowledged_write() {
            info!(lease = %self.name, "the lease is left to run out, as a write that had no answer may still arrive");
            return;
        }
        // The last renewal may have come through without an answer: what it wrote is seen at the second try.
        for _ in 0..2 {
            let Some(draft) = self.election.release(clock::boot_now()) else { return };
            let begun = clock::boot_now();
            match self.write(self.lease_of(&draft)).await {
                Ok(now) => {
                    self.election.wrote(&draft, record(&now), begun, clock::boot_now());
                    self.object = Some(now);
                    info!(lease = %self.name, "lease given up");
                    return;
                }
                Err(error) if is_conflict(&error) && self.observe().await.is_ok() => {}
                Err(error) => {
                    warn!(lease = %self.name, reason = error.message, "the lease could not be given up, and is left to run out");
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

    /// The trouble with our checks, if there is any, for people.
    fn unfit(&self) -> Option<String> {
        let reason = self.election.unfit(clock::boot_now());
        reason.map(|reason| format!("this replica leaves the lease to another, as {reason}"))
    }

    /// Makes it known that we don't hold the Lease.
    fn step_aside(&mut self, trouble: Option<String>) {
        let held = self.handle.role() == Role::Holder;
        let twin = self.election.twin();
        if let Some(reason) = twin.as_ref().filter(|_| self.twin != twin) {
            error!(lease = %self.name, reason, "the lease can't be had");
        }
        let holder = self.election.other_holder().map(str::to_owned);
        let news = self.handle.step_down(holder.clone(), trouble.clone());
        if news && (twin.is_none() || held) {
            self.log_standby(holder, trouble, held);
        }
        self.twin = twin;
    }

    fn log_standby(&self, holder: Option<String>, trouble: Option<String>, held: bool) {
        let holder = holder.unwrap_or_else(|| NOBODY.to_owned());
        match trouble {
            Some(reason) if held => {
                warn!(lease = %self.name, reason, "lost the lease: this replica no longer writes")
            }
            Some(reason) => warn!(lease = %self.name, reason, "the lease can't be had"),
            None if held => {
                warn!(lease = %self.name, holder, "lost the lease: this replica no longer writes")
            }
            None if holder == NOBODY => {
                info!(lease = %self.name, "standing by: nobody holds the lease, but its last holder may still write");
            }
            None => info!(lease = %self.name, holder, "standing by: another holds the lease"),
        }
    }

    /// Makes known what went wrong, and logs it if it is news.
    fn on_error(&mut self, trouble: String) {
        if self.remaining().is_some() {
            warn!(lease = %self.name, reason = trouble, "the lease could not be renewed; trying again");
        } else {
            self.step_aside(Some(trouble));
        }
    }
}

fn now() -> MicroTime {
    // Told to people only, so a clock that is far off does no harm.
    MicroTime(Timestamp::try_from(clock::to_wall_clock(clock::now())).unwrap_or_default())
}

/// The Lease as the election sees it.
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
        || error.kind == ErrorKind::Invalid && error.reply().contains("resourceVersion")
}

fn is_gone(error: &ApiError) -> bool {
    matches!(error.kind, ErrorKind::NotFound | ErrorKind::NamespaceNotFound)
}
