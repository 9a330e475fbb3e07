//! Carries out one step that writes, and makes of the answer what a publisher waits for next.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Endpoints;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch;
use tracing::{info, warn};

use super::assess::Step;
use super::condition::{Condition, Kind};
use super::publisher::{Memory, Next, Publisher, View};
use super::sight::{Observed, learn};
use super::write::{self, Failure};
use crate::config::DatabaseId;
use crate::plan::Members;
use crate::slice;

/// Conflicts in a row before they are told: one or two are how others' changes show.
const CONFLICTS: u32 = 3;

/// One step that writes, and all that it needs.
pub struct Writer<'a> {
    pub publisher: &'a Publisher,
    pub client: &'a Client,
    pub view: &'a View,
    pub observed: &'a watch::Sender<Observed>,
    pub memory: &'a mut Memory,
}

impl Writer<'_> {
    pub async fn carry_out(mut self, step: Step) -> Next {
        let api = self.api();
        match self.confirm(step).await {
            Ok(Step::Create(blank)) => match self.publisher.timed(write::create(&api, &blank)).await {
                Ok(created) => {
                    self.learn(created);
                    Next::ChangeOr(self.memory.backoff.next())
                }
                Err(failure) => self.failed(&api, &blank, failure).await,
            },
            Ok(Step::Write(endpoints)) => match self.publisher.timed(write::write(&api, &endpoints)).await {
                Ok(now) => {
                    let held = slice::members(&now);
                    let next = self.wrote(now, &endpoints);
                    if self.memory.held.as_ref() == Some(&self.view.plan) {
                        self.publisher.tell_published(&held, self.memory).await;
                    }
                    next
                }
                Err(failure) => self.failed(&api, &endpoints, failure).await,
            },
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
        let (Step::Create(like) | Step::Write(like)) = &step else { return Ok(step) };
        if !self.view.doubts_service() {
            return Ok(step);
        }
        match write::read_service(&self.api(), like).await {
            Ok(service) => Ok(self.publisher.assess(self.view, service.as_ref(), self.memory)),
            Err(failure) => Err(self.fault(failure)),
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.publisher.database.id.namespace)
    }

    fn learn(&self, endpoints: Endpoints) -> bool {
        learn(self.observed, endpoints, self.view.seen.endpoints.list)
    }

    /// Takes the answer to a write.
    fn wrote(&mut self, now: Endpoints, sent: &Endpoints) -> Next {
        self.memory.written = now.uid();
        let members = slice::members(&now);
        let as_sent = slice::agree(&now, sent);
        let condition = if as_sent {
            self.tell(&members);
            Condition::new(Kind::Published, members.to_string())
        } else {
            Condition::new(Kind::Rejected, format!("the API stored {members}, which is not what was written"))
        };
        let fault = self.view.seen.fault();
        self.publisher.report(Some(members), fault.cloned().unwrap_or(condition));
        if fault.is_some() {
            self.publisher.nudge.notify_waiters();
        }
        self.learn(now);
        if !as_sent {
            return Next::Pause(self.memory.backoff.next());
        }
        self.memory.succeeded();
        self.memory.held = Some(self.view.plan.clone());
        if self.memory.pace.is_quarrel() {
            let DatabaseId { namespace, service } = &self.publisher.database.id;
            warn!(%namespace, %service, "someone keeps changing these Endpoints; they are repaired, ever more slowly");
        }
        Next::Change
    }

    /// Tells what was written, and on whose account: nobody shall wonder where an edit by hand has gone.
    fn tell(&self, members: &Members) {
        let DatabaseId { namespace, service } = &self.publisher.database.id;
        let changes = members.changes_from(&self.view.held());
        if self.memory.held.as_ref() == Some(&self.view.plan) {
            warn!(%namespace, %service, %members, changes, "an outside change of the Endpoints was repaired");
            let note = || format!("an outside change was repaired: {members} ({changes})");
            self.publisher.tell("Repaired", true, String::new(), note);
        } else {
            info!(%namespace, %service, %members, changes, "Endpoints written");
            self.publisher.tell("Published", false, String::new(), || format!("{members} ({changes})"));
        }
    }

    /// After a conflict, looks at what is there now; after a fault, says so. Either way tries again after a pause.
    async fn failed(&mut self, api: &Api<Endpoints>, sent: &Endpoints, failure: Failure) -> Next {
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
