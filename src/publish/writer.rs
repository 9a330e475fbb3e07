//! Carries out one step that writes, and makes of the answer what a publisher waits for next.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch;
use tracing::{info, warn};

use super::assess::Step;
use super::condition::{Condition, Kind};
use super::publisher::{Memory, Next, Publisher};
use super::sight::{Intake, Observed, Watchable, learn};
use super::view::View;
use super::write::{self, Applied, Failure};
use crate::config::DatabaseId;
use crate::endpoints;
use crate::notice::{LogLine, Reason};
use crate::plan::Members;

/// Conflicts in a row before they are told: one or two are how others' changes show.
const CONFLICTS: u32 = 3;

/// One step that writes, and all that it needs.
pub(super) struct Writer<'a> {
    pub publisher: &'a Publisher,
    pub client: &'a Client,
    pub view: &'a View,
    pub observed: &'a watch::Sender<Observed>,
    pub memory: &'a mut Memory,
}

impl Writer<'_> {
    pub(super) async fn carry_out(mut self, step: Step) -> Next {
        match self.confirm(step).await {
            Ok(Step::Create(blank)) => self.create(&*blank).await,
            Ok(Step::CreateSlice(blank)) => self.create(&*blank).await,
            Ok(Step::Write(endpoints)) => self.write(&*endpoints).await,
            Ok(Step::WriteSlice(slice)) => self.write(&*slice).await,
            Ok(Step::DeleteSlice(slice)) => self.delete(&slice).await,
            Ok(Step::CreateService(service)) => self.create_service(&service).await,
            Ok(Step::Hold) => Next::Change,
            Ok(Step::Wait(condition)) => {
                // The watch will say the same in a moment; if it does not, it is worth another look.
                self.publisher.report(None, condition);
                Next::ChangeOr(self.memory.backoff.next())
            }
            Err(next) => next,
        }
    }

    /// Decides again on the Service as it is now, where there is doubt whether it is the one that was seen.
    async fn confirm(&mut self, step: Step) -> Result<Step, Next> {
        if !self.view.doubts_service(&step) {
            return Ok(step);
        }
        match write::read_service(&self.api(), &self.publisher.database.id).await {
            Ok(service) => Ok(self.publisher.assess(self.view, service.as_ref(), self.memory)),
            Err(failure) => Err(self.fault(failure)),
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.publisher.database.id.namespace)
    }

    fn learn<K: Watchable>(&self, object: K) -> bool {
        learn(self.observed, object, K::seen(&self.view.seen).list())
    }

    async fn create<K: Applied + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        blank: &K,
    ) -> Next {
        let api = self.api();
        match self.publisher.timed(write::create(&api, blank)).await {
            Ok(created) => {
                self.learn(created);
                Next::ChangeOr(self.memory.backoff.next())
            }
            Err(failure) => self.failed(&api, blank, failure).await,
        }
    }

    async fn write<K: Applied + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        object: &K,
    ) -> Next {
        let api = self.api();
        match self.publisher.timed(write::write(&api, object)).await {
            Ok(now) => self.wrote(now, object).await,
            Err(failure) => self.failed(&api, object, failure).await,
        }
    }

    async fn delete(&mut self, slice: &EndpointSlice) -> Next {
        let api = self.api();
        match self.publisher.timed(write::delete(&api, &slice.metadata)).await {
            Ok(()) => {
                let DatabaseId { namespace, service } = &self.publisher.database.id;
                info!(%namespace, %service, slice = slice.name_any(), "EndpointSlice deleted");
                // That it is gone comes by the watch; if it does not, another try does no harm.
                Next::ChangeOr(self.memory.backoff.next())
            }
            Err(failure) => self.failed(&api, slice, failure).await,
        }
    }

    async fn create_service(&mut self, wanted: &Service) -> Next {
        let api = self.api();
        match self.publisher.timed(write::create_service(&api, wanted)).await {
            Ok(created) => {
                let DatabaseId { namespace, service } = &self.publisher.database.id;
                info!(%namespace, %service, "Service created");
                self.learn(created);
                Next::ChangeOr(self.memory.backoff.next())
            }
            Err(failure) => self.failed(&api, wanted, failure).await,
        }
    }

    /// Takes the answer to a write.
    async fn wrote<K: Applied>(&mut self, now: K, sent: &K) -> Next {
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
            let rejected = Condition::new(Kind::Rejected, why);
            self.publisher.report(
                Some(self.view.held()),
                self.view.seen.fault().cloned().unwrap_or(rejected),
            );
            self.learn(now);
            return Next::Pause(self.memory.backoff.next());
        }
        self.announce::<K>(&name, &members);
        self.learn(now);
        self.memory.succeeded();
        let view = View {
            seen: self.observed.borrow().clone(),
            plan: self.view.plan.clone(),
            may_answer: self.view.may_answer.clone(),
            publish: self.view.publish,
        };
        let next = self.publisher.assess(&view, view.seen.service.object.as_deref(), self.memory);
        let undone = next.object() == Some(name.as_str());
        let undecided =
            |why: &Condition| matches!(why.kind, Kind::WaitingForVerdicts | Kind::AddressesRefused);
        if next == Step::Hold {
            self.published(&view).await;
        } else if matches!(&next, Step::Wait(why) if undecided(why)) {
            // What may not stay while the database waits is out. Putting it back is an outside change, which is repaired.
            self.memory.held = Some(view.plan);
        } else if !undone && self.memory.first_in_round(name, &view.plan) {
            // What was decided takes more than this object.
            self.memory.pace.go_on();
            return Next::Pause(Duration::ZERO);
        } else if undone && !self.memory.in_round() {
            self.memory.held = Some(view.plan);
        }
        self.end_round()
    }

    /// Tells that the cluster now holds what was decided.
    async fn published(&mut self, view: &View) {
        let held = view.held();
        let published = self.publisher.published(view, &held);
        let fault = view.seen.fault();
        self.publisher.report(Some(held.clone()), fault.cloned().unwrap_or(published));
        if fault.is_some() {
            self.publisher.nudge.notify_waiters();
        }
        self.memory.held = Some(view.plan.clone());
        self.publisher.tell_published(&held, self.memory).await;
    }

    /// Ends a round of writes.
    fn end_round(&mut self) -> Next {
        self.memory.end_round();
        if self.memory.pace.is_quarrel() {
            let DatabaseId { namespace, service } = &self.publisher.database.id;
            warn!(%namespace, %service, "someone keeps changing these Endpoints; they are repaired, ever more slowly");
        }
        Next::Change
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
    async fn failed<K: Watchable>(&mut self, api: &Api<K>, sent: &K, failure: Failure) -> Next {
        let Failure::Conflict(said) = failure else { return self.fault(failure) };
        match write::read(api, sent).await {
            Ok(now) => {
                if !now.is_some_and(|now| self.learn(now)) {
                    // The watch should have told us what the conflict is with, and has not.
                    self.publisher.nudge.notify_waiters();
                }
            }
            Err(failure) => return self.fault(failure),
        }
        self.memory.conflicts += 1;
        if self.memory.conflicts >= CONFLICTS {
            self.publisher.report(
                Some(self.view.held()),
                Condition::new(Kind::ApiUnavailable, format!("conflict after conflict: {said}")),
            );
        }
        Next::ChangeOr(self.memory.backoff.next())
    }

    fn fault(&mut self, failure: Failure) -> Next {
        let pause = self.memory.backoff.next();
        match failure {
            Failure::Conflict(_) => Next::ChangeOr(pause),
            Failure::Fault(condition, asked) => {
                self.publisher.report(Some(self.view.held()), condition);
                if asked.is_zero() { Next::ChangeOr(pause) } else { Next::Pause(asked.max(pause)) }
            }
        }
    }
}
