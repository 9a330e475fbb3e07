//! One database's publisher: looks at the cluster and the plan, takes one step, waits for a change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::ResourceExt;
use prometheus::Histogram;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::annotations::ServiceAnnotations;
use crate::api::ApiError;
use crate::clock;
use crate::config::{Database, DatabaseId, RejectedAddress};
use crate::endpoints;
use crate::lease;
use crate::monitor::{self, DatabasePlan};
use crate::notice::{LogLine, Notice, Reason, Recorder, Regarding};
use crate::plan::{KeepReason, Members, Plan};
use crate::publish::apply::calls::{DEADLINE, WriteError};
use crate::publish::apply::executor::Executor;
use crate::publish::apply::queue::{Urgency, WritePermit, WriteQueue};
use crate::publish::apply::throttle::WriteThrottle;
use crate::publish::backoff::{Backoff, sleep_if};
use crate::publish::cache::reflector::Observed;
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::decide::inputs::Inputs;
use crate::publish::decide::mirroring::doubt;
use crate::publish::decide::next_step::{Step, next_step};
use crate::publish::decide::remarks;
use crate::publish::{Cluster, PublishStatus};

pub(crate) struct Reconciler {
    /// As it was when the plan in hand was decided.
    pub database: Arc<Database>,
    pub cluster: Cluster,
    pub monitor: monitor::Handle,
    pub lease: lease::Handle,
    pub status: watch::Sender<PublishStatus>,
    pub budget: Arc<WriteQueue>,
    pub write_duration: Histogram,
    pub recorder: Recorder,
    /// Has the namespace listed anew.
    pub relist: Arc<Notify>,
}

/// What a publisher remembers from step to step.
#[derive(Default)]
pub(crate) struct ReconcileState {
    /// The UID of the Endpoints that this process has written.
    pub written: Option<String>,
    /// The plan that the cluster held last.
    pub held: Option<Plan>,
    told: LastSent,
    /// Pauses between tries of what does not succeed.
    pub backoff: Backoff,
    pub conflicts: u32,
    /// Pauses between writes that do.
    pub pace: WriteThrottle,
    /// What has been written of a plan, until the cluster holds all of it.
    round: Option<(Plan, Vec<String>)>,
    /// What has been in doubt, and since when.
    doubt: Option<(ConditionKind, Instant)>,
    /// The remark on the Service's traffic policy that was told last.
    local_traffic: Option<String>,
}

/// What the monitor knows.
#[derive(Default)]
struct LastSent {
    /// Whether it knows what the cluster held at first sight.
    seen: bool,
    /// What it takes to be published.
    published: Option<Members>,
    /// What it knows of the Service's annotations; none is as good as no annotations.
    asked: Option<Box<ServiceAnnotations>>,
}

impl ReconcileState {
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
        self.conflicts = 0;
    }

    /// Takes note that an object was written for a plan; says whether for the first time.
    pub(crate) fn first_in_round(&mut self, name: String, plan: &Plan) -> bool {
        let (_, names) = match self.round.take().filter(|(of, _)| of == plan) {
            Some(round) => self.round.insert(round),
            None => self.round.insert((plan.clone(), Vec::new())),
        };
        let first = !names.contains(&name);
        if first {
            names.push(name);
        }
        first
    }

    /// Takes note that all of a plan has been written, or that someone undoes it.
    pub(crate) fn end_round(&mut self) {
        self.round = None;
    }

    /// Whether the plan takes more than one object.
    pub(crate) fn in_round(&self) -> bool {
        self.round.is_some()
    }

    /// How much it matters to make of the view what is decided.
    fn urgency(&self, view: &Inputs) -> Urgency {
        match &view.plan {
            plan if self.held.as_ref() == Some(plan) => Urgency::Repair,
            Plan::Publish(members) if view.held().iter().all(|held| members.contains(held.ip)) => {
                Urgency::Change
            }
            _ => Urgency::Removal,
        }
    }
}

/// What to wait for after a step, besides a change of the cluster or the plan.
pub(crate) enum Requeue {
    OnChange,
    /// A change, or this pause.
    OnChangeOr(Duration),
    /// This pause, whatever changes.
    After(Duration),
}

impl Reconciler {
    /// Publishes until the database leaves the config, or the daemon ends.
    pub(crate) async fn run(
        mut self: Box<Self>,
        observed: Arc<watch::Sender<Observed>>,
        mut plan: watch::Receiver<DatabasePlan>,
    ) {
        let mut sights = observed.subscribe();
        let mut standing = self.lease.subscribe();
        let mut memory = ReconcileState::default();
        while decides(&plan) {
            // Boxed, and so is the write within: a turn takes kilobytes, and thousands of publishers wait most of the time.
            let turn = Box::pin(self.turn(&observed, &mut sights, &mut plan, &mut memory));
            let pause = match turn.await {
                Requeue::After(pause) => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Requeue::OnChangeOr(pause) => Some(pause),
                Requeue::OnChange => None,
            };
            tokio::select! {
                Ok(()) = sights.changed() => {}
                changed = plan.changed() => if changed.is_err() { return },
                Ok(()) = standing.changed() => {}
                () = sleep_if(pause) => {}
            }
        }
    }

    /// Looks, and does what is to be done.
    async fn turn(
        &mut self,
        observed: &watch::Sender<Observed>,
        sights: &mut watch::Receiver<Observed>,
        plan: &mut watch::Receiver<DatabasePlan>,
        memory: &mut ReconcileState,
    ) -> Requeue {
        let first = self.view(sights, plan, memory);
        if !matches!(self.cluster, Cluster::Write(_)) {
            return self.dry_turn(&first, memory).await;
        }
        if let Err(next) = self.look(&first, memory).await {
            return next;
        }
        let urgency = memory.urgency(&first);
        if let Some(rest) = memory.pace.rest(urgency, clock::now()) {
            return Requeue::OnChangeOr(rest);
        }
        // Something is to be written. When it is our turn to write, it may be something else, or no longer ours to write.
        let budget = self.budget.clone();
        let _turn = turn_to_write(&budget, urgency, sights, plan, memory).await;
        if !decides(plan) {
            return Requeue::OnChange;
        }
        let view = self.view(sights, plan, memory);
        let Cluster::Write(client) = &self.cluster else { return Requeue::OnChange };
        match self.look(&view, memory).await {
            Ok(step) => {
                memory.pace.begin(memory.urgency(&view), step.is_placeholder(), clock::now());
                Box::pin(
                    Executor { publisher: self, client, view: &view, observed, memory }
                        .execute(step),
                )
                .await
            }
            Err(next) => next,
        }
    }

    /// Looks at all that is known now. A plan is for the database that it was decided for, and for no other version of it.
    fn view(
        &mut self,
        sights: &mut watch::Receiver<Observed>,
        plan: &mut watch::Receiver<DatabasePlan>,
        memory: &mut ReconcileState,
    ) -> Inputs {
        let DatabasePlan { database, plan, may_answer } = plan.borrow_and_update().clone();
        if !Arc::ptr_eq(&self.database, &database) {
            self.database = database;
            memory.held = None;
            // The monitor asks for these again: of addresses that are new to it, and for a policy that is.
            memory.told.seen = false;
            memory.told.published = None;
        }
        Inputs {
            seen: sights.borrow_and_update().clone(),
            plan,
            may_answer,
            publish: self.database.publish,
        }
    }

    async fn dry_turn(&self, view: &Inputs, memory: &mut ReconcileState) -> Requeue {
        if !matches!(self.cluster, Cluster::None) {
            if view.synced() {
                // Nothing of this view is about to be repaired by us: it is what another replica has decided.
                self.tell_published(&view.held(), memory).await;
            }
            let step = match self.look(view, memory).await {
                Ok(step) => step,
                Err(next) => return next,
            };
            let first = if matches!(step, Step::CreateService(_)) {
                "would create the Service; "
            } else {
                ""
            };
            let would = format!("{first}{}", would_publish(&view.held(), &view.plan, &step));
            self.report(Some(view.held()), Condition::new(ConditionKind::DryRun, would));
            return Requeue::OnChange;
        }
        self.tell_monitor(Members::default(), memory).await;
        let condition = match &view.plan {
            // It has just been told, and decides anew at once.
            Plan::Keep(KeepReason::NotSynced) => return Requeue::OnChange,
            Plan::Keep(why) => Condition::new(ConditionKind::WaitingForVerdicts, why.to_string()),
            Plan::Publish(members) => {
                self.tell_published(members, memory).await;
                Condition::new(ConditionKind::DryRun, format!("would publish {members}"))
            }
        };
        self.report(None, condition);
        Requeue::OnChange
    }

    /// Finds what is to be written. Where nothing is, says why and what to wait for.
    async fn look(&self, view: &Inputs, memory: &mut ReconcileState) -> Result<Step, Requeue> {
        let fault = || view.seen.fault().cloned();
        if !view.synced() {
            self.report(None, fault().unwrap_or_else(Condition::waiting_for_cluster));
            return Err(Requeue::OnChange);
        }
        if self.status.send_if_modified(|status| !std::mem::replace(&mut status.synced, true)) {
            self.emit_rejected_addresses();
        }
        let held = view.held();
        self.forward_asked(view, memory).await;
        self.tell_monitor(view.published(), memory).await;
        if view.plan == Plan::Keep(KeepReason::NotSynced) {
            // It has just been told, and decides anew at once.
            return Err(Requeue::OnChange);
        }
        match self.next_step(view, view.seen.service.object.as_deref(), memory) {
            Step::Blocked(condition) => {
                let ours = matches!(
                    condition.kind,
                    ConditionKind::WaitingForVerdicts
                        | ConditionKind::AddressesRefused
                        | ConditionKind::NotMirrored
                );
                self.report(ours.then_some(held), fault().unwrap_or(condition));
                Err(Requeue::OnChange)
            }
            Step::InSync => {
                memory.succeeded();
                // What we found well is ours as if we had written it.
                let ours = |endpoints: &&Endpoints| {
                    endpoints::managed_by(endpoints) == Some(endpoints::FIELD_MANAGER)
                };
                memory.written = view.endpoints().filter(ours).and_then(ResourceExt::uid);
                memory.held = Some(view.plan.clone());
                memory.end_round();
                self.tell_published(&held, memory).await;
                let (condition, next) = self.standing(view, &held, memory);
                let settled = fault().or_else(|| self.standby(format!("the cluster holds {held}")));
                self.report(Some(held), settled.unwrap_or(condition));
                Err(next)
            }
            step => match self.standby(would_publish(&held, &view.plan, &step)) {
                Some(standby) => {
                    self.tell_published(&held, memory).await;
                    self.report(Some(held), fault().unwrap_or(standby));
                    Err(Requeue::OnChange)
                }
                None => Ok(step),
            },
        }
    }

    /// Why this replica does not write, if it is for another to do.
    fn standby(&self, about: String) -> Option<Condition> {
        self.lease
            .standby_reason()
            .map(|why| Condition::new(ConditionKind::Standby, format!("{why}; {about}")))
    }

    /// Returns the condition of a database for which the cluster holds what was decided.
    pub(crate) fn published(&self, view: &Inputs, held: &Members) -> Condition {
        let service = view.seen.service.object.as_deref();
        Condition::new(
            ConditionKind::Published,
            remarks::describe(&self.database, service, &view.plan, held),
        )
    }

    /// Tells once that the Service lets nobody through, for as long as it does.
    fn tell_local_traffic(&self, view: &Inputs, memory: &mut ReconcileState) {
        let service = view.seen.service.object.as_deref();
        let remark = service.and_then(|service| remarks::local_traffic(&self.database.id, service));
        if let Some(remark) = remark.as_ref().filter(|_| memory.local_traffic != remark) {
            let message = "published, but clients are kept out";
            self.recorder.log_and_event(
                self.notice(Reason::LocalTrafficPolicy, remark.clone()),
                &LogLine { reason: Some(remark), ..LogLine::new(message) },
            );
        }
        memory.local_traffic = remark;
    }

    /// The condition of a database for which the cluster holds what was decided, and what to wait for.
    fn standing(
        &self,
        view: &Inputs,
        held: &Members,
        memory: &mut ReconcileState,
    ) -> (Condition, Requeue) {
        let published = self.published(view, held);
        self.tell_local_traffic(view, memory);
        let Some(doubt) = doubt(&self.database, view.endpoints(), &view.seen.slices) else {
            memory.doubt = None;
            return (published, Requeue::OnChange);
        };
        let (kind, now) = (doubt.condition.kind, clock::now());
        let since =
            memory.doubt.filter(|(doubted, _)| *doubted == kind).map_or(now, |(_, since)| since);
        memory.doubt = Some((kind, since));
        match doubt
            .after
            .checked_sub(now.saturating_duration_since(since))
            .filter(|left| !left.is_zero())
        {
            Some(left) => (published, Requeue::OnChangeOr(left)),
            None => (doubt.condition, Requeue::OnChange),
        }
    }

    pub(crate) fn next_step(
        &self,
        view: &Inputs,
        service: Option<&Service>,
        memory: &ReconcileState,
    ) -> Step {
        let written = memory.written.as_deref();
        next_step(
            &self.database,
            &view.plan,
            service,
            view.endpoints(),
            &view.seen.slices,
            &view.may_answer,
            written,
        )
    }

    /// Makes one call that writes, if the lease permits it; counts and times it. Whoever calls has the permit to.
    pub(crate) async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, WriteError> {
        let Some(permission) = self.lease.permission().await else {
            let why = self
                .lease
                .standby_reason()
                .unwrap_or_else(|| "the lease was not ours for a moment".to_owned());
            return Err(WriteError::Standby(why));
        };
        let started = clock::now();
        let answer = permission.run(DEADLINE, call).await.unwrap_or_else(|| {
            let message = "a write had no answer in the time that the lease was ours";
            Err(ApiError::unavailable(message))
        });
        let answer = answer.map_err(WriteError::from);
        self.write_duration.observe(clock::now().saturating_duration_since(started).as_secs_f64());
        let result = answer.as_ref().map_or_else(WriteError::result, |_| "success");
        self.status.send_modify(|status| *status.writes.entry(result).or_default() += 1);
        answer
    }

    async fn tell_monitor(&self, held: Members, memory: &mut ReconcileState) {
        if !std::mem::replace(&mut memory.told.seen, true) {
            self.monitor.set_initial_members(&self.database.id, held).await;
        }
    }

    /// Creates a notice about the database.
    pub(crate) fn notice(&self, reason: Reason, note: String) -> Notice {
        let regarding = Regarding::Database(self.database.id.clone());
        Notice::new(regarding, reason, note, clock::now())
    }

    /// Emits an Event for each address that may not be published. The log has had them with the
    /// warnings of the config.
    fn emit_rejected_addresses(&self) {
        for RejectedAddress { ip, reason } in &self.database.rejected {
            self.recorder.event(|| {
                let note = format!("not published: {reason}");
                self.notice(Reason::AddressRefused, note).with_dedup_key(ip.to_string())
            });
        }
    }

    /// Logs a condition that has come into force or changed its message, and emits its Event, if it
    /// has one.
    fn announce(&self, condition: &Condition, same_kind: bool) {
        let Some(reason) = condition.kind.event_reason() else {
            return log(&self.database.id, condition, same_kind);
        };
        let (message, note) = match condition.kind {
            ConditionKind::NotMirrored | ConditionKind::SlicesLeftBehind => {
                ("published, but clients may be sent elsewhere", condition.reason.clone())
            }
            _ => (NOT_PUBLISHED, format!("{NOT_PUBLISHED}: {}", condition.reason)),
        };
        let line = LogLine {
            condition: Some(reason),
            reason: Some(&condition.reason),
            ..LogLine::new(message)
        };
        self.recorder.log_and_event(self.notice(reason, note), &line);
    }

    /// Tells the monitor what the cluster holds by decision: of ours, or, where another replica writes, of that one. Not what
    /// it holds by an outside edit that is about to be repaired: the policy would take that for its own.
    pub(crate) async fn tell_published(&self, held: &Members, memory: &mut ReconcileState) {
        if memory.told.published.as_ref() != Some(held) {
            memory.told.published = Some(held.clone());
            self.monitor.set_published_members(&self.database.id, held.clone()).await;
        }
    }

    /// Tells the monitor what the Service's annotations ask for.
    async fn forward_asked(&self, view: &Inputs, memory: &mut ReconcileState) {
        let service = view.seen.service.object.as_ref();
        let annotations = service.and_then(|service| service.metadata.annotations.as_ref());
        let asked = ServiceAnnotations::from_map(annotations);
        let held = memory.told.asked.as_deref();
        if held.map_or(asked != ServiceAnnotations::default(), |held| *held != asked) {
            memory.told.asked = Some(Box::new(asked.clone()));
            self.monitor.set_annotations(&self.database.id, asked).await;
        }
    }

    /// Makes the condition known, and logs it if it is news.
    pub(crate) fn report(&self, members: Option<Members>, condition: Condition) {
        self.status.send_if_modified(|status| {
            let same_kind = status.condition.kind == condition.kind;
            let same_members = status.members == members;
            if status.condition == condition && same_members {
                return false;
            }
            if !same_kind {
                status.last_transition = clock::now();
            }
            if !same_kind || status.condition.reason != condition.reason {
                self.announce(&condition, same_kind);
            }
            status.condition = condition;
            status.members = members;
            true
        });
    }
}

/// Waits for a turn to write: a better one, when what is decided meanwhile matters more.
async fn turn_to_write(
    budget: &WriteQueue,
    mut urgency: Urgency,
    sights: &watch::Receiver<Observed>,
    plan: &mut watch::Receiver<DatabasePlan>,
    memory: &ReconcileState,
) -> WritePermit {
    let mut turn = std::pin::pin!(budget.turn(urgency));
    loop {
        tokio::select! {
            turn = &mut turn => return turn,
            Ok(()) = plan.changed() => {
                let DatabasePlan { database, plan, may_answer } = plan.borrow_and_update().clone();
                let view = Inputs { seen: sights.borrow().clone(), plan, may_answer, publish: database.publish };
                let now = memory.urgency(&view);
                if now < urgency {
                    urgency = now;
                    turn.set(budget.turn(now));
                }
            }
        }
    }
}

/// Whether the monitor still decides for the database: it does not once the database has left the config.
fn decides(plan: &watch::Receiver<DatabasePlan>) -> bool {
    plan.has_changed().is_ok()
}

/// The message for a database whose decision is not in the cluster.
const NOT_PUBLISHED: &str = "not published";

/// Logs a condition that has no Event.
fn log(id: &DatabaseId, condition: &Condition, same_kind: bool) {
    let DatabaseId { namespace, service } = id;
    let Condition { kind, reason } = condition;
    match kind {
        // The messages of these change with every verdict, try or write. Only the kind is logged.
        ConditionKind::WaitingForVerdicts
        | ConditionKind::ApiUnavailable
        | ConditionKind::Published
            if same_kind =>
        {
            debug!(%namespace, %service, condition = %kind, reason)
        }
        // The lease logs once that another replica holds it, and not for each database.
        ConditionKind::Standby => debug!(%namespace, %service, condition = %kind, reason),
        ConditionKind::Published => info!(%namespace, %service, members = reason, "published"),
        ConditionKind::DryRun => info!(%namespace, %service, "{reason}"),
        kind if kind.is_trouble() => {
            warn!(%namespace, %service, condition = %kind, reason, "{NOT_PUBLISHED}")
        }
        kind => info!(%namespace, %service, condition = %kind, reason, "not published yet"),
    }
}

/// `would publish 10.0.0.1, 10.0.0.3 (+10.0.0.3, -10.0.0.2)`
fn would_publish(held: &Members, plan: &Plan, step: &Step) -> String {
    let wanted = match (plan, step) {
        (Plan::Publish(wanted), _) => wanted.clone(),
        (Plan::Keep(_), Step::Write(endpoints)) => endpoints::members(endpoints),
        (Plan::Keep(_), Step::InSync | Step::Blocked(_)) => {
            return "would publish nothing yet".to_owned();
        }
        (Plan::Keep(_), _) => return "would take out what the config does not have".to_owned(),
    };
    match wanted.changes_from(held).as_str() {
        "" => format!("would publish {wanted} (same addresses, other ports or labels)"),
        changes => format!("would publish {wanted} ({changes})"),
    }
}
