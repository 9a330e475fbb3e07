//! Gets the Lease, renews it, and gives it up at the end.

use std::fs;
use std::io;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{OwnedRwLockWriteGuard, oneshot};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Action, DURATION, HELD, Handle, Name, Sighting, Standing, decide};
use crate::api;
use crate::clock::{self, Moment};

/// How often the holder renews the Lease, and how soon it tries again.
const RENEW: Duration = Duration::from_secs(2);

/// How often the others look: the sooner they see that it was given up, the shorter nobody writes.
const LOOK: Duration = Duration::from_millis(500);

/// An API call that takes longer has failed: short enough for three in the time that the holder has.
const CALL: Duration = Duration::from_secs(3);

/// At the end, how long writes that are under way may take: longer than they can.
const LAST_WRITES: Duration = Duration::from_secs(6);

/// The task that keeps the Lease. Dropping it leaves the Lease to run out.
pub struct Keeping {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<Ended>>,
}

/// That no write is under way, and none will be.
pub type Ended = OwnedRwLockWriteGuard<()>;

impl Keeping {
    /// Waits for it to end, which it should not do by itself, and says why it did.
    pub async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(_) => "it returned".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Lets no new write begin, waits for those that are under way, and gives the Lease up, so that another can take it at
    /// once. Nothing is written while the answer is kept.
    pub async fn give_up(self) -> Option<Ended> {
        // An error only says that it has ended already, by a panic.
        let _ = self.stop.send(());
        if self.task.is_finished() { None } else { self.task.await.ok().flatten() }
    }
}

/// Starts to compete for the Lease.
pub fn start(client: Client, name: Name) -> io::Result<(Handle, Keeping)> {
    let me = identity()?;
    let handle = Handle::of(name.clone(), me.clone());
    info!(lease = %name, identity = me, "competing for the lease");
    let api = Api::namespaced(client, &name.namespace);
    let keeper = Keeper { api, name, me, handle: handle.clone(), object: None, seen: None };
    let (stop, stopped) = oneshot::channel();
    Ok((handle, Keeping { stop, task: tokio::spawn(keeper.run(stopped)) }))
}

/// The host's name, which is the Pod's, and something that no other process has: after a restart we are another.
fn identity() -> io::Result<String> {
    let read = |path| fs::read_to_string(path).map(|text: String| text.trim().to_owned());
    Ok(format!("{}_{}", read("/proc/sys/kernel/hostname")?, read("/proc/sys/kernel/random/uuid")?))
}

struct Keeper {
    api: Api<Lease>,
    name: Name,
    me: String,
    handle: Handle,
    /// The Lease as it was last seen; none if it was not there.
    object: Option<Lease>,
    seen: Option<Sighting>,
}

impl Keeper {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Option<Ended> {
        loop {
            let pause = self.turn().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped => return self.give_up().await,
            }
        }
    }

    /// Does what is to be done now, and says how long to wait before the next turn.
    async fn turn(&mut self) -> Duration {
        let begun = clock::moment();
        let pause = match self.step().await {
            Ok(pause) => pause,
            Err(trouble) => {
                self.tell(trouble);
                RENEW.saturating_sub(clock::moment().saturating_duration_since(begun))
            }
        };
        // Never past the moment at which it runs out, for all to know at once.
        self.left().map_or(pause, |left| pause.min(left))
    }

    /// How long we still hold it; none if we don't.
    fn left(&self) -> Option<Duration> {
        let left = self.handle.until()?.saturating_duration_since(clock::moment());
        (!left.is_zero()).then_some(left)
    }

    async fn step(&mut self) -> Result<Duration, String> {
        if self.left().is_none() {
            if self.handle.standing() == Standing::Holder {
                self.stand_by(Some(format!("it was not renewed within {}", humantime::format_duration(HELD))));
            }
            self.look().await?;
        }
        let Some(seen) = &self.seen else { return Ok(LOOK) };
        match decide(seen, clock::moment(), &self.me) {
            Action::Wait(left) => {
                self.stand_by(None);
                Ok(left.min(LOOK))
            }
            action => {
                if self.claim(action).await? {
                    return Ok(RENEW);
                }
                // Someone was faster: whoever holds it now, the next turn begins with that.
                self.look().await?;
                if self.seen.as_ref().is_some_and(|seen| seen.holder.as_ref() != Some(&self.me)) {
                    self.stand_by(None);
                }
                Ok(LOOK)
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let object = self.call("get", self.api.get_opt(&self.name.name)).await.map_err(|refused| refused.words)?;
        self.see(object);
        Ok(())
    }

    /// Takes the Lease as it is now.
    fn see(&mut self, object: Option<Lease>) {
        let version = |lease: Option<&Lease>| lease.and_then(|lease| lease.metadata.resource_version.clone());
        let unchanged = version(self.object.as_ref()) == version(object.as_ref());
        match &mut self.seen {
            Some(_) if unchanged => {}
            // Its holder goes on, until it finds out.
            Some(seen) if object.is_none() => *seen = Sighting { there: false, since: clock::moment(), ..seen.clone() },
            _ => self.seen = Some(sighting(object.as_ref(), clock::moment())),
        }
        self.object = object;
    }

    /// Creates, takes or renews the Lease. Says no if it is no longer as it was seen.
    async fn claim(&mut self, action: Action) -> Result<bool, String> {
        // From before the call, as the others count from after it.
        let begun = clock::moment();
        match self.put(self.lease_of(action)).await {
            Ok(now) => {
                let version = now.metadata.resource_version.clone().unwrap_or_default();
                self.see(Some(now));
                if self.handle.hold(begun + HELD) {
                    info!(lease = %self.name, version, "holding the lease: this replica writes");
                }
                Ok(true)
            }
            // One that has gone is no longer as it was seen.
            Err(refused) if refused.conflict || (refused.gone && action != Action::Create) => Ok(false),
            Err(refused) => Err(refused.words),
        }
    }

    /// Writes the Lease on the version that it has, or as a new one where it has none: one that is there meanwhile is refused.
    ///
    /// A replace that creates, other than a create, may be allowed for a name.
    async fn put(&self, lease: Lease) -> Result<Lease, Refused> {
        self.call("update", self.api.replace(&self.name.name, &PostParams::default(), &lease)).await
    }

    /// The Lease as it shall be after this action.
    fn lease_of(&self, action: Action) -> Lease {
        let now = Some(now());
        let held = self.object.as_ref().filter(|_| action != Action::Create);
        let before = held.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let again = action == Action::Renew;
        let transitions = before.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if again { before.acquire_time.clone() } else { now.clone() },
            lease_transitions: Some(transitions.saturating_add(i32::from(action == Action::Take))),
            renew_time: now,
            ..before
        };
        Lease { metadata: self.metadata(held), spec: Some(spec) }
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
    async fn give_up(mut self) -> Option<Ended> {
        let ended = tokio::time::timeout(LAST_WRITES, self.handle.no_more_writes()).await.ok()?;
        if self.left().is_none() {
            return Some(ended);
        }
        if self.handle.may_still_arrive() {
            info!(lease = %self.name, "the lease is left to run out, as a write that had no answer may still arrive");
            return Some(ended);
        }
        // The last renewal may have come through without an answer: what it wrote is seen at the second try.
        for _ in 0..2 {
            let Some(held) = self.object.clone().filter(|held| holder(held) == Some(&self.me)) else { break };
            let spec = LeaseSpec { holder_identity: None, renew_time: Some(now()), ..held.spec.unwrap_or_default() };
            match self
                .put(Lease { metadata: ObjectMeta { managed_fields: None, ..held.metadata }, spec: Some(spec) })
                .await
            {
                Ok(_) => {
                    info!(lease = %self.name, "lease given up");
                    break;
                }
                Err(refused) if refused.conflict && self.look().await.is_ok() => {}
                Err(refused) => {
                    warn!(lease = %self.name, reason = refused.words, "the lease could not be given up, and is left to run out");
                    break;
                }
            }
        }
        Some(ended)
    }

    async fn call<T>(&self, verb: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Refused> {
        let limit = self.left().map_or(CALL, |left| left.min(CALL));
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refused::new(&error, verb, &self.name)),
            Err(_) => {
                let words = format!("{verb}: no answer in {}", humantime::format_duration(CALL));
                Err(Refused { conflict: false, gone: false, words })
            }
        }
    }

    /// Makes it known that we don't hold the Lease.
    fn stand_by(&self, trouble: Option<String>) {
        let held = self.handle.standing() == Standing::Holder;
        let holder = self.seen.as_ref().and_then(|seen| seen.holder.clone()).filter(|holder| *holder != self.me);
        if !self.handle.stand_by(holder.clone(), trouble.clone()) {
            return;
        }
        let holder = holder.unwrap_or_else(|| "nobody".to_owned());
        match trouble {
            Some(reason) if held => warn!(lease = %self.name, reason, "lost the lease: this replica no longer writes"),
            Some(reason) => warn!(lease = %self.name, reason, "the lease can't be had"),
            None if held => warn!(lease = %self.name, holder, "lost the lease: this replica no longer writes"),
            None => info!(lease = %self.name, holder, "standing by: another holds the lease"),
        }
    }

    /// Makes known what went wrong, and logs it if it is news.
    fn tell(&self, trouble: String) {
        if self.left().is_some() {
            warn!(lease = %self.name, reason = trouble, "the lease could not be renewed; trying again");
        } else {
            self.stand_by(Some(trouble));
        }
    }
}

fn now() -> MicroTime {
    // Told to people only, so a clock that is far off does no harm.
    MicroTime(Timestamp::try_from(clock::wall(clock::now())).unwrap_or_default())
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

fn sighting(lease: Option<&Lease>, since: Moment) -> Sighting {
    let seconds = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds).unwrap_or_default();
    Sighting {
        there: lease.is_some(),
        holder: lease.and_then(holder).cloned(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        since,
    }
}

/// Why a call changed nothing.
struct Refused {
    /// The Lease is not as it was seen.
    conflict: bool,
    /// There is no such Lease, or no such namespace.
    gone: bool,
    words: String,
}

impl Refused {
    fn new(error: &kube::Error, verb: &str, name: &Name) -> Self {
        let kube::Error::Api(status) = error else {
            return Self { conflict: false, gone: false, words: format!("{verb}: {}", api::words(error)) };
        };
        let said = &status.message;
        let words = match status.code {
            403 => forbidden(verb, name, said),
            code => format!("{verb}: the API answered {code}: {said}"),
        };
        // A replace without a version is refused as not valid where there is something to replace.
        let conflict = status.code == 409 || (status.code == 422 && said.contains("resourceVersion"));
        Self { conflict, gone: status.code == 404, words }
    }
}

fn forbidden(verb: &str, Name { namespace, name }: &Name, said: &str) -> String {
    format!(
        "may not {verb} lease {name} in namespace {namespace}; allow it there with a Role whose rules have \
         {{apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [{name}], verbs: [get, create, update]}}, \
         bound to this daemon's ServiceAccount, or use --no-leader-election for one replica (the API says: {said})"
    )
}
