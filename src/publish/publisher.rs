//! One database's publisher: looks at the cluster and the plan, takes one step, waits for a change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use kube::{Api, ResourceExt};
use prometheus::Histogram;
use tokio::sync::{Notify, Semaphore, watch};
use tracing::{debug, info, warn};

use super::assess::{Step, assess};
use super::backoff::Backoff;
use super::condition::{Condition, Kind};
use super::sight::{Observed, learn};
use super::write::{self, Failure};
use super::{Cluster, Publication};
use crate::clock;
use crate::config::{Database, DatabaseId};
use crate::monitor;
use crate::plan::{Members, Plan};
use crate::slice;

/// After this long without a write, the pauses between writes start short again.
const QUIET: Duration = Duration::from_secs(10);

pub struct Publisher {
    pub database: Arc<Database>,
    pub cluster: Cluster,
    pub monitor: monitor::Handle,
    pub publication: watch::Sender<Publication>,
    pub permits: Arc<Semaphore>,
    pub write_duration: Histogram,
    /// Tells the watches that the API answers again.
    pub answers: Arc<Notify>,
}

/// What a publisher remembers from step to step.
#[derive(Default)]
struct Memory {
    /// The UID of the Endpoints that this process has written.
    written: Option<String>,
    /// Whether the monitor knows what the cluster held at first sight.
    told: bool,
    /// Pauses between tries of what does not succeed.
    backoff: Backoff,
    /// Pauses between writes that do, so that a quarrel with someone who undoes them stays harmless.
    pace: Backoff,
    last_write: Option<Instant>,
}

impl Memory {
    /// How long to leave the Endpoints alone after a write.
    fn paced(&mut self, now: Instant) -> Duration {
        if self.last_write.replace(now).is_none_or(|last| now.saturating_duration_since(last) > QUIET) {
            self.pace.reset();
        }
        self.pace.next()
    }
}

/// What to wait for after a step, besides a change of the cluster or the plan.
enum Next {
    Change,
    /// A change, or this pause.
    ChangeOr(Duration),
    /// This pause, whatever changes: the API asked for it.
    Pause(Duration),
}

impl Publisher {
    /// Publishes until the daemon ends.
    pub async fn run(self, observed: Arc<watch::Sender<Observed>>, mut plan: watch::Receiver<Plan>) {
        let mut sights = observed.subscribe();
        let mut memory = Memory::default();
        loop {
            let seen = sights.borrow_and_update().clone();
            let wanted = plan.borrow_and_update().clone();
            let next = match &self.cluster {
                Cluster::None => self.step_without_cluster(&wanted, &mut memory).await,
                _ => self.step(&seen, &wanted, &observed, &mut memory).await,
            };
            let pause = match next {
                Next::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Next::ChangeOr(pause) => Some(pause),
                Next::Change => None,
            };
            tokio::select! {
                Ok(()) = sights.changed() => {}
                changed = plan.changed() => if changed.is_err() { return },
                () = sleep_if(pause) => {}
            }
        }
    }

    async fn step_without_cluster(&self, plan: &Plan, memory: &mut Memory) -> Next {
        self.tell_monitor(Members::default(), memory).await;
        self.report(
            None,
            match plan {
                Plan::Keep(why) => Condition::new(Kind::WaitingForVerdicts, why.to_string()),
                Plan::Publish(members) => Condition::new(Kind::DryRun, format!("would publish {members}")),
            },
        );
        Next::Change
    }

    async fn step(
        &self,
        seen: &Observed,
        plan: &Plan,
        observed: &watch::Sender<Observed>,
        memory: &mut Memory,
    ) -> Next {
        if !seen.listed() {
            let waiting = || Condition::new(Kind::WaitingForCluster, "the cluster has not been read yet");
            self.report(None, seen.fault().cloned().unwrap_or_else(waiting));
            return Next::Change;
        }
        self.publication.send_if_modified(|publication| !std::mem::replace(&mut publication.listed, true));
        let endpoints = seen.endpoints.object.as_deref();
        let held = endpoints.map(slice::members).unwrap_or_default();
        self.tell_monitor(held.clone(), memory).await;

        match assess(&self.database, plan, seen.service.object.as_deref(), endpoints, memory.written.as_deref()) {
            Step::Wait(condition) => {
                let ours = condition.kind == Kind::WaitingForVerdicts;
                self.report(ours.then_some(held), seen.fault().cloned().unwrap_or(condition));
                Next::Change
            }
            Step::Hold => {
                memory.backoff.reset();
                // What we adopted in whole is ours as if we had written it.
                memory.written = endpoints.and_then(ResourceExt::uid);
                let published = Condition::new(Kind::Published, held.to_string());
                self.report(Some(held), seen.fault().cloned().unwrap_or(published));
                Next::Change
            }
            Step::Create(_) | Step::Write(_) if matches!(self.cluster, Cluster::Read(_)) => {
                self.report(Some(held.clone()), Condition::new(Kind::DryRun, would_publish(&held, plan)));
                Next::Change
            }
            Step::Create(blank) => self.create(&blank, held, observed, memory).await,
            Step::Write(endpoints) => self.write(&endpoints, held, seen.fault(), observed, memory).await,
        }
    }

    async fn create(
        &self,
        blank: &Endpoints,
        held: Members,
        observed: &watch::Sender<Observed>,
        memory: &mut Memory,
    ) -> Next {
        let Some(api) = self.api() else { return Next::Change };
        match self.timed(write::create(&api, blank)).await {
            Ok(created) => {
                learn(observed, Some(created));
                Next::Change
            }
            Err(failure) => self.failed(&api, blank, held, failure, observed, memory).await,
        }
    }

    async fn write(
        &self,
        endpoints: &Endpoints,
        held: Members,
        fault: Option<&Condition>,
        observed: &watch::Sender<Observed>,
        memory: &mut Memory,
    ) -> Next {
        let Some(api) = self.api() else { return Next::Change };
        match self.timed(write::write(&api, endpoints)).await {
            Ok(now) => {
                memory.written = now.uid();
                let members = slice::members(&now);
                let written = slice::agree(&now, endpoints);
                let condition = if written {
                    Condition::new(Kind::Published, members.to_string())
                } else {
                    Condition::new(Kind::Rejected, format!("the API stored {members}, which is not what was written"))
                };
                self.report(Some(members), fault.cloned().unwrap_or(condition));
                if fault.is_some() {
                    self.answers.notify_waiters();
                }
                learn(observed, Some(now));
                if !written {
                    return Next::Pause(memory.backoff.next());
                }
                memory.backoff.reset();
                Next::Pause(memory.paced(clock::now()))
            }
            Err(failure) => self.failed(&api, endpoints, held, failure, observed, memory).await,
        }
    }

    /// Counts and times one call that writes.
    async fn timed(&self, call: impl Future<Output = Result<Endpoints, Failure>>) -> Result<Endpoints, Failure> {
        let _permit = self.permits.acquire().await;
        let started = clock::now();
        let answer = call.await;
        self.write_duration.observe(clock::now().saturating_duration_since(started).as_secs_f64());
        let result = answer.as_ref().map_or_else(Failure::result, |_| "success");
        self.publication.send_modify(|publication| *publication.writes.entry(result).or_default() += 1);
        answer
    }

    /// After a conflict, looks at what is there now; after a fault, says so. Either way tries again after a pause.
    async fn failed(
        &self,
        api: &Api<Endpoints>,
        sent: &Endpoints,
        held: Members,
        failure: Failure,
        observed: &watch::Sender<Observed>,
        memory: &mut Memory,
    ) -> Next {
        let pause = memory.backoff.next();
        let fault = match failure {
            Failure::Fault(condition, asked) => Some((condition, asked)),
            Failure::Conflict => match write::read(api, sent).await {
                Ok(now) => {
                    learn(observed, now);
                    None
                }
                Err(Failure::Conflict) => None,
                Err(Failure::Fault(condition, asked)) => Some((condition, asked)),
            },
        };
        let Some((condition, asked)) = fault else { return Next::ChangeOr(pause) };
        self.report(Some(held), condition);
        if asked.is_zero() { Next::ChangeOr(pause) } else { Next::Pause(asked.max(pause)) }
    }

    fn api(&self) -> Option<Api<Endpoints>> {
        let Cluster::Write(client) = &self.cluster else { return None };
        Some(Api::namespaced(client.clone(), &self.database.id.namespace))
    }

    async fn tell_monitor(&self, held: Members, memory: &mut Memory) {
        if !std::mem::replace(&mut memory.told, true) {
            self.monitor.seen(&self.database.id, held).await;
        }
    }

    /// Makes the condition known, and logs it if it is news.
    fn report(&self, members: Option<Members>, condition: Condition) {
        self.publication.send_if_modified(|publication| {
            let same_kind = publication.condition.kind == condition.kind;
            let same_members = publication.members == members;
            if publication.condition == condition && same_members {
                return false;
            }
            if !same_kind {
                publication.since = clock::now();
            }
            if !same_kind || publication.condition.reason != condition.reason {
                log(&self.database.id, &condition, same_kind);
            }
            publication.condition = condition;
            publication.members = members;
            true
        });
    }
}

fn log(id: &DatabaseId, condition: &Condition, same_kind: bool) {
    let DatabaseId { namespace, service } = id;
    let Condition { kind, reason } = condition;
    match kind {
        // The words of these change with every verdict or every try; that they came is the news.
        Kind::WaitingForVerdicts | Kind::ApiUnavailable if same_kind => {
            debug!(%namespace, %service, condition = %kind, reason)
        }
        Kind::Published => info!(%namespace, %service, members = reason, "published"),
        Kind::DryRun => info!(%namespace, %service, "{reason}"),
        kind if kind.is_trouble() => warn!(%namespace, %service, condition = %kind, reason, "not published"),
        kind => info!(%namespace, %service, condition = %kind, reason, "not published yet"),
    }
}

/// `would publish 10.0.0.1, 10.0.0.3 (+10.0.0.3, -10.0.0.2)`
fn would_publish(held: &Members, plan: &Plan) -> String {
    let Plan::Publish(wanted) = plan else { return "would publish nothing yet".to_owned() };
    let added = wanted.iter().filter(|member| !held.contains(member.ip)).map(|member| format!("+{}", member.ip));
    let removed = held.iter().filter(|member| !wanted.contains(member.ip)).map(|member| format!("-{}", member.ip));
    let changes: Vec<String> = added.chain(removed).collect();
    let changes =
        if changes.is_empty() { "same addresses, other ports or labels".to_owned() } else { changes.join(", ") };
    format!("would publish {wanted} ({changes})")
}

async fn sleep_if(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
