//! The executor of one step that writes: makes the call, and applies the response to the cache.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt};
use prometheus::Histogram;
use tokio::sync::{Notify, watch};

use super::calls::{self, Applied, DEADLINE, WriteError};
use super::report::{Cause, Reporter, Write};
use super::state::{ReconcileState, Requeue};
use crate::api::{ApiError, ErrorKind};
use crate::clock;
use crate::endpoints;
use crate::lease;
use crate::plan::Members;
use crate::publish::cache::observed::{CachedKind, Existing, Observed, apply_response};
use crate::publish::cache::orphans::ObjectKind;
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::decide::inputs::Inputs;
use crate::publish::decide::next_step::next_step;
use crate::publish::decide::step::Step;
use crate::publish::foreign_writer::last_writer;

/// The number of conflicts in a row that is reported. One or two are how others' changes show.
const MIN_REPORTED_CONFLICTS: u32 = 3;

/// The executor of one step.
pub(crate) struct Executor<'a> {
    pub client: &'a Client,
    pub lease: &'a lease::Handle,
    pub write_duration: &'a Histogram,
    pub reporter: &'a Reporter,
    /// Makes the reflectors of the namespace list again.
    pub relist: &'a Notify,
    pub inputs: &'a Inputs,
    pub observed: &'a watch::Sender<Observed>,
    pub state: &'a mut ReconcileState,
}

/// The outcome of a step.
pub(crate) enum Outcome {
    /// The members of the object with this name are in the cluster.
    Written(String),
    /// Nothing was written, or only a placeholder. The reconciler decides again after this.
    Requeue(Requeue),
}

impl Executor<'_> {
    /// Carries out a step.
    pub(crate) async fn execute(mut self, step: Step) -> Outcome {
        let requeue = match self.confirm(step).await {
            Err(error) => self.report_error(error.into()),
            Ok(Step::Create(placeholder)) => self.create(&*placeholder).await,
            Ok(Step::CreateSlice(placeholder)) => self.create(&*placeholder).await,
            Ok(Step::Write(endpoints)) => return self.write(&*endpoints).await,
            Ok(Step::WriteSlice(slice)) => return self.write(&*slice).await,
            Ok(Step::DeleteSlice(slice)) => self.delete(&slice).await,
            Ok(Step::CreateService(service)) => self.create_service(&service).await,
            Ok(Step::InSync) => Requeue::OnChange,
            Ok(Step::Blocked(condition)) => {
                // The watch should bring this Service in a moment. If it does not, it is tried
                // again.
                self.reporter.set_condition(None, condition);
                Requeue::OnChangeOr(self.state.backoff.next())
            }
        };
        Outcome::Requeue(requeue)
    }

    /// Confirms a step right before the write: decides again with the Service as it is now, where
    /// the cached one may be stale.
    async fn confirm(&self, step: Step) -> Result<Step, ApiError> {
        if !step.needs_fresh_service(self.inputs) {
            return Ok(step);
        }
        let service = calls::read_service(&self.api(), &self.inputs.database.id).await?;
        Ok(next_step(self.inputs, service.as_ref(), self.state.written_uid.as_deref()))
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.inputs.database.id.namespace)
    }

    /// Applies a response to the cache. Returns whether it was news.
    fn apply_response<K: CachedKind>(&self, object: K) -> bool {
        apply_response(self.observed, object, self.inputs.existing.watch(K::KIND).epoch)
    }

    async fn create<K: Applied + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        placeholder: &K,
    ) -> Requeue {
        let api = self.api();
        match self.call_as_leader(calls::create(&api, placeholder)).await {
            Ok(created) => {
                self.apply_response(created);
                Requeue::OnChangeOr(self.state.backoff.next())
            }
            Err(error) => self.resolve_error(&api, placeholder, error).await,
        }
    }

    async fn write<K: Applied + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        object: &K,
    ) -> Outcome {
        let api = self.api();
        match self.call_as_leader(calls::write(&api, object)).await {
            Ok(stored) => self.check_stored(stored, object),
            Err(error) => Outcome::Requeue(self.resolve_error(&api, object, error).await),
        }
    }

    async fn delete(&mut self, slice: &EndpointSlice) -> Requeue {
        let api = self.api();
        match self.call_as_leader(calls::delete(&api, &slice.metadata)).await {
            Ok(()) => {
                self.reporter.log_slice_deleted(&slice.name_any());
                // The watch brings the deletion. If it does not, another attempt does no harm.
                Requeue::OnChangeOr(self.state.backoff.next())
            }
            Err(error) => self.resolve_error(&api, slice, error).await,
        }
    }

    async fn create_service(&mut self, service: &Service) -> Requeue {
        let api = self.api();
        match self.call_as_leader(calls::create_service(&api, service)).await {
            Ok(created) => {
                self.reporter.log_service_created();
                self.apply_response(created);
                Requeue::OnChangeOr(self.state.backoff.next())
            }
            Err(error) => self.resolve_error(&api, service, error).await,
        }
    }

    /// Compares the response to a write with the object that was sent.
    fn check_stored<K: Applied>(&mut self, stored: K, sent: &K) -> Outcome {
        let (name, members) = (stored.name_any(), stored.members());
        if K::KIND == ObjectKind::Endpoints {
            self.state.written_uid = stored.uid();
        }
        if !stored.matches(sent) {
            let kind = K::kind(&());
            let reason =
                format!("the API stored {members} in {kind} {name}, which is not what was written");
            let rejected = Condition::new(ConditionKind::Rejected, reason);
            let condition = self.inputs.existing.error().cloned().unwrap_or(rejected);
            self.reporter.set_condition(Some(self.inputs.serving()), condition);
            self.apply_response(stored);
            return Outcome::Requeue(Requeue::After(self.state.backoff.next()));
        }
        // With the response in the cache, the announcement has all members that are published.
        let existing = self.existing_object::<K>(&name);
        let version = stored.resource_version().unwrap_or_default();
        self.reporter.record_write(format!("{} {name}", K::kind(&())), version);
        self.apply_response(stored);
        self.announce::<K>(&name, &members, existing);
        self.state.reset_failures();
        Outcome::Written(name)
    }

    // With the response in the cache, the announcement has all that is published.
    fn existing_object<K: Applied>(&self, name: &str) -> (Members, Option<String>) {
        let writer = |metadata| last_writer(metadata).map(str::to_owned);
        if K::KIND == ObjectKind::Endpoints {
            let existing = self.inputs.endpoints();
            let writer = existing.and_then(|existing| writer(&existing.metadata));
            return (existing.map(endpoints::members).unwrap_or_default(), writer);
        }
        let named = self.inputs.existing.slices.named();
        let existing = named.get(name);
        let writer = existing.and_then(|slice| writer(&slice.metadata));
        (existing.map(|slice| slice.members()).unwrap_or_default(), writer)
    }

    fn announce<K: Applied>(
        &mut self,
        name: &str,
        members: &Members,
        (existing, writer): (Members, Option<String>),
    ) {
        let serving = self.inputs.with_existing(Existing::from(&*self.observed.borrow())).serving();
        let slice = (K::KIND != ObjectKind::Endpoints).then_some(name);
        let write = Write { slice, existing: &existing, members, serving: &serving };
        if self.state.synced_plan.as_ref() != Some(&self.inputs.plan) {
            return self.reporter.announce_write(&Cause::Plan, &write);
        }
        let repeated = self.state.repairs.record(writer.as_deref(), clock::now());
        self.reporter.announce_write(&Cause::OutsideChange(writer), &write);
        if let Some(writer) = repeated {
            self.reporter.log_repeated_repairs(&writer);
        }
    }

    /// Makes one call that writes, if the lease permits it, and counts and times it.
    async fn call_as_leader<T>(
        &self,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, WriteError> {
        let Some(permission) = self.lease.permission().await else {
            let reason = self.lease.standby_reason();
            let reason = reason.unwrap_or_else(|| "the lease was not ours for a moment".to_owned());
            return Err(WriteError::Standby(reason));
        };
        let started = clock::now();
        let result = permission.run(DEADLINE, call).await.unwrap_or_else(|| {
            Err(ApiError::unavailable("a write had no answer in the time that the lease was ours"))
        });
        let result = result.map_err(WriteError::from);
        let duration = clock::now().saturating_duration_since(started);
        self.write_duration.observe(duration.as_secs_f64());
        self.reporter.count_write(result.as_ref().map_or_else(WriteError::result, |_| "success"));
        result
    }

    /// Reads the object after a conflict, and reports any other error. The step is tried again
    /// after a delay.
    async fn resolve_error<K: CachedKind>(
        &mut self,
        api: &Api<K>,
        sent: &K,
        error: WriteError,
    ) -> Requeue {
        let reply = match error {
            WriteError::Api(error) if error.kind == ErrorKind::Conflict => error.reply().to_owned(),
            error => return self.report_error(error),
        };
        match calls::read(api, sent).await {
            Ok(existing) => {
                if !existing.is_some_and(|existing| self.apply_response(existing)) {
                    // The watch should have brought the change that the conflict is with.
                    self.relist.notify_waiters();
                }
            }
            Err(error) => return self.report_error(error.into()),
        }
        self.state.conflicts += 1;
        if self.state.conflicts >= MIN_REPORTED_CONFLICTS {
            let reason = format!("conflict after conflict: {reply}");
            let condition = Condition::new(ConditionKind::ApiUnavailable, reason);
            self.reporter.set_condition(Some(self.inputs.serving()), condition);
        }
        Requeue::OnChangeOr(self.state.backoff.next())
    }

    fn report_error(&mut self, error: WriteError) -> Requeue {
        let (condition, retry_after) = match error {
            WriteError::Standby(reason) => {
                (Condition::new(ConditionKind::Standby, reason), Duration::ZERO)
            }
            WriteError::Api(error) => {
                let retry_after = error.retry_after;
                (Condition::from(error), retry_after)
            }
        };
        self.reporter.set_condition(Some(self.inputs.serving()), condition);
        let delay = self.state.backoff.next_after(retry_after);
        match retry_after.is_zero() {
            true => Requeue::OnChangeOr(delay),
            false => Requeue::After(delay),
        }
    }
}
