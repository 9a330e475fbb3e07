//! Carries out one step that writes, and makes of the answer what a publisher waits for next.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::ErrorKind;
use crate::config::DatabaseId;
use crate::endpoints;
use crate::notice::{LogLine, Reason};
use crate::plan::Members;
use crate::publish::apply::calls::{self, Applied, WriteError};
use crate::publish::cache::reflector::{CachedKind, Observed, Store, learn};
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::decide::inputs::Inputs;
use crate::publish::decide::next_step::Step;
use crate::publish::reconciler::{ReconcileState, Reconciler, Requeue};

/// Conflicts in a row before they are told: one or two are how others' changes show.
const CONFLICTS: u32 = 3;

/// One step that writes, and all that it needs.
pub(crate) struct Executor<'a> {
    pub publisher: &'a Reconciler,
    pub client: &'a Client,
    pub view: &'a Inputs,
    pub observed: &'a watch::Sender<Observed>,
    pub memory: &'a mut ReconcileState,
}

impl Executor<'_> {
    pub(crate) async fn execute(mut self, step: Step) -> Requeue {
        match self.confirm(step).await {
            Ok(Step::Create(blank)) => self.create(&*blank).await,
            Ok(Step::CreateSlice(blank)) => self.create(&*blank).await,
            Ok(Step::Write(endpoints)) => self.write(&*endpoints).await,
            Ok(Step::WriteSlice(slice)) => self.write(&*slice).await,
            Ok(Step::DeleteSlice(slice)) => self.delete(&slice).await,
            Ok(Step::CreateService(service)) => self.create_service(&service).await,
            Ok(Step::InSync) => Requeue::OnChange,
            Ok(Step::Blocked(condition)) => {
                // The watch will say the same in a moment; if it does not, it is worth another look.
                self.publisher.report(None, condition);
                Requeue::OnChangeOr(self.memory.backoff.next())
            }
            Err(next) => next,
        }
    }

    /// Decides again on the Service as it is now, where there is doubt whether it is the one that was seen.
    async fn confirm(&mut self, step: Step) -> Result<Step, Requeue> {
        if !self.view.needs_fresh_service(&step) {
            return Ok(step);
        }
        match calls::read_service(&self.api(), &self.publisher.database.id).await {
            Ok(service) => Ok(self.publisher.next_step(self.view, service.as_ref(), self.memory)),
            Err(error) => Err(self.fault(error.into())),
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.publisher.database.id.namespace)
    }

    fn learn<K: CachedKind>(&self, object: K) -> bool {
        learn(self.observed, object, K::seen(&self.view.seen).list())
    }

    async fn create<K: Applied + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        blank: &K,
    ) -> Requeue {
        let api = self.api();
        match self.publisher.timed(calls::create(&api, blank)).await {
            Ok(created) => {
                self.learn(created);
                Requeue::OnChangeOr(self.memory.backoff.next())
            }
            Err(error) => self.failed(&api, blank, error).await,
        }
    }

    async fn write<K: Applied + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        object: &K,
    ) -> Requeue {
        let api = self.api();
        match self.publisher.timed(calls::write(&api, object)).await {
            Ok(now) => self.wrote(now, object).await,
            Err(error) => self.failed(&api, object, error).await,
        }
    }

    async fn delete(&mut self, slice: &EndpointSlice) -> Requeue {
        let api = self.api();
        match self.publisher.timed(calls::delete(&api, &slice.metadata)).await {
            Ok(()) => {
                let DatabaseId { namespace, service } = &self.publisher.database.id;
                info!(%namespace, %service, slice = slice.name_any(), "EndpointSlice deleted");
                // That it is gone comes by the watch; if it does not, another try does no harm.
                Requeue::OnChangeOr(self.memory.backoff.next())
            }
            Err(error) => self.failed(&api, slice, error).await,
        }
    }

    async fn create_service(&mut self, wanted: &Service) -> Requeue {
        let api = self.api();
        match self.publisher.timed(calls::create_service(&api, wanted)).await {
            Ok(created) => {
                let DatabaseId { namespace, service } = &self.publisher.database.id;
                info!(%namespace, %service, "Service created");
                self.learn(created);
                Requeue::OnChangeOr(self.memory.backoff.next())
            }
            Err(error) => self.failed(&api, wanted, error).await,
        }
    }

    /// Takes the answer to a write.
    async fn wrote<K: Applied>(&mut self, now: K, sent: &K) -> Requeue {
        let name = now.name_any();
        let members = now.members();
        if K::PLURAL == Endpoints::PLURAL {
            self.memory.written = now.uid();
        }
        if !now.agrees(sent) {
            let why = format!(
                "the API stored {members} in {} {name}, which is not what was written",
                K::kind(&())
            );
            let rejected = Condition::new(ConditionKind::Rejected, why);
            self.publisher.report(
                Some(self.view.held()),
                self.view.seen.fault().cloned().unwrap_or(rejected),
            );
            self.learn(now);
            return Requeue::After(self.memory.backoff.next());
        }
        self.announce::<K>(&name, &members);
        self.learn(now);
        self.memory.succeeded();
        let view = Inputs {
            seen: self.observed.borrow().clone(),
            plan: self.view.plan.clone(),
            may_answer: self.view.may_answer.clone(),
            publish: self.view.publish,
        };
        let next =
            self.publisher.next_step(&view, view.seen.service.object.as_deref(), self.memory);
        let undone = next.object() == Some(name.as_str());
        let undecided = |why: &Condition| {
            matches!(why.kind, ConditionKind::WaitingForVerdicts | ConditionKind::AddressesRefused)
        };
        if next == Step::InSync {
            self.published(&view).await;
        } else if matches!(&next, Step::Blocked(why) if undecided(why)) {
            // What may not stay while the database waits is out. Putting it back is an outside change, which is repaired.
            self.memory.held = Some(view.plan);
        } else if !undone && self.memory.first_in_round(name, &view.plan) {
            // What was decided takes more than this object.
            self.memory.pace.go_on();
            return Requeue::After(Duration::ZERO);
        } else if undone && !self.memory.in_round() {
            self.memory.held = Some(view.plan);
        }
        self.end_round()
    }

    /// Tells that the cluster now holds what was decided.
    async fn published(&mut self, view: &Inputs) {
        let held = view.held();
        let published = self.publisher.published(view, &held);
        let fault = view.seen.fault();
        self.publisher.report(Some(held.clone()), fault.cloned().unwrap_or(published));
        if fault.is_some() {
            self.publisher.relist.notify_waiters();
        }
        self.memory.held = Some(view.plan.clone());
        self.publisher.tell_published(&held, self.memory).await;
    }

    /// Ends a round of writes.
    fn end_round(&mut self) -> Requeue {
        self.memory.end_round();
        if self.memory.pace.is_quarrel() {
            let DatabaseId { namespace, service } = &self.publisher.database.id;
            warn!(%namespace, %service, "someone keeps changing these Endpoints; they are repaired, ever more slowly");
        }
        Requeue::OnChange
    }

    /// Announces a write, and whether it undid an outside change: people must be able to find out
    /// where an edit by hand has gone.
    fn announce<K: Applied>(&self, name: &str, members: &Members) {
        let repaired = self.memory.held.as_ref() == Some(&self.view.plan);
        let reason = if repaired { Reason::Repaired } else { Reason::Published };
        if K::PLURAL == Endpoints::PLURAL {
            self.announce_endpoints(reason, members);
        } else {
            self.announce_slice(reason, name, members);
        }
    }

    fn announce_endpoints(&self, reason: Reason, members: &Members) {
        let existing = self.view.endpoints().map(endpoints::members).unwrap_or_default();
        let changes = members.changes_from(&existing);
        let (message, note) = match reason {
            Reason::Repaired => (
                "an outside change of the Endpoints was repaired",
                format!("an outside change was repaired: {members} ({changes})"),
            ),
            _ => ("Endpoints written", format!("{members} ({changes})")),
        };
        self.publisher.recorder.log_and_event(
            self.publisher.notice(reason, note),
            &LogLine { members: Some(members), changes: Some(&changes), ..LogLine::new(message) },
        );
    }

    fn announce_slice(&self, reason: Reason, name: &str, members: &Members) {
        let existing = self.view.seen.slices.own().get(name).map(|slice| slice.members());
        let changes = members.changes_from(&existing.unwrap_or_default());
        let (message, note) = match reason {
            Reason::Repaired => (
                "an outside change of an EndpointSlice was repaired",
                format!("an outside change of EndpointSlice {name} was repaired ({changes})"),
            ),
            _ => ("EndpointSlice written", format!("EndpointSlice {name}: {changes}")),
        };
        self.publisher.recorder.log_and_event(
            self.publisher.notice(reason, note).with_dedup_key(name),
            &LogLine { slice: Some(name), changes: Some(&changes), ..LogLine::new(message) },
        );
    }

    /// After a conflict, looks at what is there now; after a fault, says so. Either way tries again after a pause.
    async fn failed<K: CachedKind>(
        &mut self,
        api: &Api<K>,
        sent: &K,
        error: WriteError,
    ) -> Requeue {
        let said = match error {
            WriteError::Api(error) if error.kind == ErrorKind::Conflict => error.reply().to_owned(),
            error => return self.fault(error),
        };
        match calls::read(api, sent).await {
            Ok(now) => {
                if !now.is_some_and(|now| self.learn(now)) {
                    // The watch should have told us what the conflict is with, and has not.
                    self.publisher.relist.notify_waiters();
                }
            }
            Err(error) => return self.fault(error.into()),
        }
        self.memory.conflicts += 1;
        if self.memory.conflicts >= CONFLICTS {
            self.publisher.report(
                Some(self.view.held()),
                Condition::new(
                    ConditionKind::ApiUnavailable,
                    format!("conflict after conflict: {said}"),
                ),
            );
        }
        Requeue::OnChangeOr(self.memory.backoff.next())
    }

    fn fault(&mut self, error: WriteError) -> Requeue {
        let pause = self.memory.backoff.next();
        let (condition, retry_after) = match error {
            WriteError::Standby(reason) => {
                (Condition::new(ConditionKind::Standby, reason), Duration::ZERO)
            }
            WriteError::Api(error) if error.kind == ErrorKind::Conflict => {
                return Requeue::OnChangeOr(pause);
            }
            WriteError::Api(error) => {
                let retry_after = error.retry_after;
                (Condition::from(error), retry_after)
            }
        };
        self.publisher.report(Some(self.view.held()), condition);
        if retry_after.is_zero() {
            Requeue::OnChangeOr(pause)
        } else {
            Requeue::After(retry_after.max(pause))
        }
    }
}
