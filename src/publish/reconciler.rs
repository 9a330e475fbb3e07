//! The reconciler of one database: observes the cluster and the plan, decides, applies one step and
//! waits for a change.
//!
//! ```text
//! observe -> decide -> in sync, blocked or standby: report and wait for a change
//!               |
//!             queue    until the throttle and the queue of all writes permit it
//!               |
//! observe -> decide    again, as time has passed; the Service is read afresh where it may be stale
//!               |
//!             apply    one call; its response goes to the cache
//! ```

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use kube::ResourceExt;
use prometheus::Histogram;
use tokio::sync::{Notify, watch};

use super::apply::executor::{Executor, Outcome};
use super::apply::feedback::Feedback;
use super::apply::queue::{Urgency, WritePermit, WriteQueue};
use super::apply::report::{Reporter, describe_write};
use super::apply::state::{ReconcileState, Requeue};
use super::apply::throttle::WriteSize;
use super::backoff::sleep_if;
use super::cache::observed::{Existing, Observed};
use super::cluster::Cluster;
use super::condition::{Condition, ConditionKind};
use super::decide::inputs::Inputs;
use super::decide::mirroring;
use super::decide::next_step::next_step;
use super::decide::remarks;
use super::decide::service;
use super::decide::step::Step;
use super::decide::waiting;
use crate::annotations::ServiceAnnotations;
use crate::clock;
use crate::config::Database;
use crate::endpoints;
use crate::lease;
use crate::monitor::DatabasePlan;
use crate::plan::{KeepReason, Members, Plan};

/// The reconciler of one database.
pub(crate) struct Reconciler {
    /// The database as it was when the current plan was decided.
    pub database: Arc<Database>,
    pub cluster: Cluster,
    pub lease: lease::Handle,
    pub queue: Arc<WriteQueue>,
    pub reporter: Reporter,
    pub feedback: Feedback,
    pub write_duration: Histogram,
    /// Makes the reflectors of the namespace list again.
    pub relist: Arc<Notify>,
}

/// The channels by which the cluster and the plan reach a reconciler.
struct Sources {
    cache: Arc<watch::Sender<Observed>>,
    observed: watch::Receiver<Observed>,
    plan: watch::Receiver<DatabasePlan>,
}

/// The result of a decision.
enum Decision {
    /// This step is to be applied.
    Apply(Step),
    /// There is nothing to apply, which has been reported.
    Wait(Requeue),
}

impl Reconciler {
    /// Runs until the database leaves the config, or the daemon ends.
    pub(crate) async fn run(
        mut self: Box<Self>,
        cache: Arc<watch::Sender<Observed>>,
        plan: watch::Receiver<DatabasePlan>,
    ) {
        let mut sources = Sources { observed: cache.subscribe(), cache, plan };
        let mut lease = self.lease.subscribe();
        let mut state = ReconcileState::new(self.lease.replica(), &self.database.id);
        while is_in_config(&sources.plan) {
            // The future is boxed, and so is the write within: each takes kilobytes, and thousands
            // of reconcilers wait most of the time.
            let delay = match Box::pin(self.reconcile(&mut sources, &mut state)).await {
                Requeue::After(delay) => {
                    tokio::time::sleep(delay).await;
                    continue;
                }
                Requeue::OnChangeOr(delay) => Some(delay),
                Requeue::OnChange => None,
            };
            tokio::select! {
                Ok(()) = sources.observed.changed() => {}
                changed = sources.plan.changed() => if changed.is_err() { return },
                Ok(()) = lease.changed() => {}
                () = sleep_if(delay) => {}
            }
        }
    }

    /// Brings the cluster one step closer to the plan, if there is a difference.
    async fn reconcile(&mut self, sources: &mut Sources, state: &mut ReconcileState) -> Requeue {
        let inputs = self.observe(sources, state);
        match self.cluster {
            Cluster::Write(_) => {}
            Cluster::Read(_) => return self.reconcile_read_only(&inputs, state).await,
            Cluster::None => return self.reconcile_without_cluster(&inputs).await,
        }
        if let Decision::Wait(requeue) = self.decide(&inputs, state).await {
            return requeue;
        }
        let urgency = state.urgency(&inputs);
        if let Some(delay) = state.throttle.delay(urgency, clock::now()) {
            return Requeue::OnChangeOr(delay);
        }
        let queue = self.queue.clone();
        let _permit = wait_for_permit(&queue, urgency, sources, state).await;
        if !is_in_config(&sources.plan) {
            return Requeue::OnChange;
        }
        let inputs = self.observe(sources, state);
        match self.decide(&inputs, state).await {
            Decision::Apply(step) => {
                Box::pin(self.apply(&inputs, step, &sources.cache, state)).await
            }
            Decision::Wait(requeue) => requeue,
        }
    }

    /// Returns everything that is known now. A plan holds only for the version of the database that
    /// it was decided for.
    fn observe(&mut self, sources: &mut Sources, state: &mut ReconcileState) -> Inputs {
        let DatabasePlan { database, plan, may_answer } = sources.plan.borrow_and_update().clone();
        if !Arc::ptr_eq(&self.database, &database) {
            self.database = database.clone();
            state.synced_plan = None;
            self.feedback.reset_members();
        }
        let existing = Existing::read(&mut sources.observed);
        Inputs { database, plan, may_answer, existing }
    }

    /// Decides what is to be applied. If nothing is, reports why.
    async fn decide(&mut self, inputs: &Inputs, state: &mut ReconcileState) -> Decision {
        let error = || inputs.existing.error().cloned();
        if !inputs.is_synced() {
            let condition = error().unwrap_or_else(Condition::waiting_for_cluster);
            self.reporter.set_condition(None, condition);
            return Decision::Wait(Requeue::OnChange);
        }
        self.reporter.set_synced(&self.database);
        let annotations =
            inputs.service().and_then(|service| service.metadata.annotations.as_ref());
        self.feedback.send_annotations(ServiceAnnotations::from_map(annotations)).await;
        if let Some(service) = inputs.service().filter(|_| !self.database.names.is_empty()) {
            self.feedback.send_service_facts(service::facts(service)).await;
        }
        let own = inputs.own(state.written_uid.as_deref());
        self.feedback.send_initial_members(inputs.exposed(), own).await;
        if inputs.plan == Plan::Keep(KeepReason::NotSynced) {
            // The monitor has the members now, and decides again at once.
            return Decision::Wait(Requeue::OnChange);
        }
        let serving = inputs.serving();
        match next_step(inputs, inputs.service(), state.written_uid.as_deref()) {
            Step::Blocked(condition) => {
                let shows_members = matches!(
                    condition.kind,
                    ConditionKind::WaitingForVerdicts
                        | ConditionKind::WaitingForNames
                        | ConditionKind::AddressesRefused
                        | ConditionKind::NotMirrored
                );
                let members = shows_members.then_some(serving);
                self.reporter.set_condition(members, error().unwrap_or(condition));
                Decision::Wait(Requeue::OnChange)
            }
            Step::InSync => Decision::Wait(self.settle(inputs, serving, state).await),
            step => match self.standby(describe_write(&serving, &inputs.plan, &step)) {
                Some(standby) => {
                    self.feedback.send_published_members(&serving).await;
                    self.reporter.set_condition(Some(serving), error().unwrap_or(standby));
                    Decision::Wait(Requeue::OnChange)
                }
                None => Decision::Apply(step),
            },
        }
    }

    /// Records and reports that the cluster matches the plan.
    async fn settle(
        &mut self,
        inputs: &Inputs,
        serving: Members,
        state: &mut ReconcileState,
    ) -> Requeue {
        state.reset_failures();
        // Endpoints that match the plan count as written by this process.
        let is_labelled = |existing: &&Endpoints| {
            endpoints::managed_by(existing) == Some(endpoints::FIELD_MANAGER)
        };
        state.written_uid = inputs.endpoints().filter(is_labelled).and_then(ResourceExt::uid);
        state.synced_plan = Some(inputs.plan.clone());
        state.end_batch();
        self.feedback.send_published_members(&serving).await;
        self.warn_of_local_traffic(inputs, &serving, state);
        let (condition, requeue) = settled_condition(inputs, &serving, state);
        let existing_error = inputs.existing.error().cloned();
        let condition = existing_error
            .or_else(|| self.standby(format!("the cluster holds {serving}")))
            .unwrap_or(condition);
        self.reporter.set_condition(Some(serving), condition);
        requeue
    }

    /// Applies one step, and decides what follows it.
    async fn apply(
        &mut self,
        inputs: &Inputs,
        step: Step,
        cache: &watch::Sender<Observed>,
        state: &mut ReconcileState,
    ) -> Requeue {
        let Cluster::Write(client) = &self.cluster else { return Requeue::OnChange };
        let size = match step.is_placeholder() {
            true => WriteSize::Placeholder,
            false => WriteSize::Full,
        };
        state.throttle.record_write(state.urgency(inputs), size, clock::now());
        let executor = Executor {
            client,
            lease: &self.lease,
            write_duration: &self.write_duration,
            reporter: &self.reporter,
            relist: &self.relist,
            inputs,
            observed: cache,
            state,
        };
        match executor.execute(step).await {
            Outcome::Written(name) => self.after_write(inputs, name, cache, state).await,
            Outcome::Requeue(requeue) => requeue,
        }
    }

    /// Decides whether the plan takes another write, after the object with this name was written.
    async fn after_write(
        &mut self,
        inputs: &Inputs,
        name: String,
        cache: &watch::Sender<Observed>,
        state: &mut ReconcileState,
    ) -> Requeue {
        let inputs = inputs.with_existing(Existing::from(&*cache.borrow()));
        let next = next_step(&inputs, inputs.service(), state.written_uid.as_deref());
        let is_undone = next.object_name() == Some(name.as_str());
        if next == Step::InSync {
            self.report_published(&inputs, state).await;
        } else if is_undecided(&next) {
            // All members that may not stay are out. Putting one back is an outside change.
            state.synced_plan = Some(inputs.plan);
        } else if !is_undone && state.is_first_write_of_batch(name, &inputs.plan) {
            state.throttle.continue_batch();
            return Requeue::After(Duration::ZERO);
        } else if is_undone && !state.is_in_batch() {
            state.synced_plan = Some(inputs.plan);
        }
        state.end_batch();
        if state.throttle.is_contended() {
            self.reporter.log_contended();
        }
        Requeue::OnChange
    }

    /// Reports that the plan has been written. The watch is made to list again if it does not run:
    /// the write has shown that the API answers.
    async fn report_published(&mut self, inputs: &Inputs, state: &mut ReconcileState) {
        let serving = inputs.serving();
        let error = inputs.existing.error();
        let condition = error.cloned().unwrap_or_else(|| published(inputs, &serving));
        self.reporter.set_condition(Some(serving.clone()), condition);
        if error.is_some() {
            self.relist.notify_waiters();
        }
        state.synced_plan = Some(inputs.plan.clone());
        self.feedback.send_published_members(&serving).await;
    }

    /// Returns the condition of a replica that leaves the writes to another one.
    fn standby(&self, description: String) -> Option<Condition> {
        let reason = self.lease.standby_reason()?;
        Some(Condition::new(ConditionKind::Standby, format!("{reason}; {description}")))
    }

    /// Warns, once for as long as it is so, that the Service's traffic policy lets nobody through.
    fn warn_of_local_traffic(
        &self,
        inputs: &Inputs,
        serving: &Members,
        state: &mut ReconcileState,
    ) {
        let service = inputs.service();
        let warning =
            service.and_then(|service| remarks::local_traffic(&self.database.id, service));
        if let Some(warning) = warning.as_ref().filter(|_| state.local_traffic != warning) {
            self.reporter.announce_local_traffic(warning);
        }
        if warning.is_none() && state.local_traffic.is_some() {
            self.reporter.announce_end_of_local_traffic(serving);
        }
        state.local_traffic = warning;
    }

    /// Decides and reports, but applies nothing.
    async fn reconcile_read_only(
        &mut self,
        inputs: &Inputs,
        state: &mut ReconcileState,
    ) -> Requeue {
        let serving = inputs.serving();
        if inputs.is_synced() {
            // A dry run repairs nothing, so this is what another replica has decided.
            self.feedback.send_published_members(&serving).await;
        }
        let step = match self.decide(inputs, state).await {
            Decision::Apply(step) => step,
            Decision::Wait(requeue) => return requeue,
        };
        let creates = match step {
            Step::CreateService(_) => "would create the Service; ",
            _ => "",
        };
        let reason = format!("{creates}{}", describe_write(&serving, &inputs.plan, &step));
        let condition = Condition::new(ConditionKind::DryRun, reason);
        self.reporter.set_condition(Some(serving), condition);
        Requeue::OnChange
    }

    /// Reports the plan: there is no cluster to compare it with.
    async fn reconcile_without_cluster(&mut self, inputs: &Inputs) -> Requeue {
        self.feedback.send_initial_members(Members::default(), Members::default()).await;
        let condition = match &inputs.plan {
            // The monitor has the members now, and decides again at once.
            Plan::Keep(KeepReason::NotSynced) => return Requeue::OnChange,
            Plan::Keep(reason) => waiting::condition(reason),
            Plan::Publish(members) => {
                self.feedback.send_published_members(members).await;
                Condition::new(ConditionKind::DryRun, format!("would publish {members}"))
            }
        };
        self.reporter.set_condition(None, condition);
        Requeue::OnChange
    }
}

/// Waits for the permit to write. Queues again when a new plan is more urgent.
async fn wait_for_permit(
    queue: &WriteQueue,
    mut urgency: Urgency,
    sources: &mut Sources,
    state: &ReconcileState,
) -> WritePermit {
    let mut permit = std::pin::pin!(queue.acquire(urgency));
    loop {
        tokio::select! {
            permit = &mut permit => return permit,
            Ok(()) = sources.plan.changed() => {
                let DatabasePlan { database, plan, may_answer } =
                    sources.plan.borrow_and_update().clone();
                let existing = Existing::from(&*sources.observed.borrow());
                let now = state.urgency(&Inputs { database, plan, may_answer, existing });
                if now < urgency {
                    urgency = now;
                    permit.set(queue.acquire(now));
                }
            }
        }
    }
}

/// Returns whether the monitor still decides for the database, as it does for those of the config.
fn is_in_config(plan: &watch::Receiver<DatabasePlan>) -> bool {
    plan.has_changed().is_ok()
}

/// Returns whether a step waits for a decision of the monitor.
fn is_undecided(step: &Step) -> bool {
    let Step::Blocked(condition) = step else { return false };
    matches!(
        condition.kind,
        ConditionKind::WaitingForVerdicts
            | ConditionKind::WaitingForNames
            | ConditionKind::AddressesRefused
    )
}

/// Returns the condition of a database for which the cluster matches the plan.
fn published(inputs: &Inputs, serving: &Members) -> Condition {
    let database = &inputs.database;
    if let Some(refused) =
        database.refused_answers.first().filter(|_| database.addresses.is_empty())
    {
        let description = format!("no address of its names may be published: {}", refused.reason);
        return Condition::new(ConditionKind::AddressesRefused, description);
    }
    let description = remarks::describe(database, inputs.service(), &inputs.plan, serving);
    Condition::new(ConditionKind::Published, description)
}

/// Returns the condition of a database for which the cluster matches the plan, and the event to
/// wait for: a warning comes into force if its cause is still there after a delay.
fn settled_condition(
    inputs: &Inputs,
    serving: &Members,
    state: &mut ReconcileState,
) -> (Condition, Requeue) {
    let Some(warning) = mirroring::delayed_warning(inputs) else {
        state.delayed_warning = None;
        return (published(inputs, serving), Requeue::OnChange);
    };
    let (kind, now) = (warning.condition.kind, clock::now());
    let known = state.delayed_warning.filter(|(known, _)| *known == kind);
    let since = known.map_or(now, |(_, since)| since);
    state.delayed_warning = Some((kind, since));
    let rest = warning.delay.checked_sub(now.saturating_duration_since(since));
    match rest.filter(|rest| !rest.is_zero()) {
        Some(rest) => (published(inputs, serving), Requeue::OnChangeOr(rest)),
        None => (warning.condition, Requeue::OnChange),
    }
}
