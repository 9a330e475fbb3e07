//! The calls that change the cluster, each with a deadline, and what came of them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::condition::{Condition, Kind};
use super::fault;
use crate::slice;

/// An API call that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Applies under a name of its own, so that a create that arrives late can never take back what a later write set.
const CREATOR: &str = "external-endpoints-create";

/// Why a call changed nothing.
#[derive(Debug)]
pub enum Failure {
    /// The object is not, or no longer, what the step was decided on.
    Conflict,
    /// Another try may help, after at least this pause.
    Fault(Condition, Duration),
}

impl Failure {
    /// One word for the metric.
    pub fn result(&self) -> &'static str {
        match self {
            Failure::Conflict => "conflict",
            Failure::Fault(condition, _) => match condition.kind {
                Kind::Forbidden => "forbidden",
                Kind::Rejected => "rejected",
                _ => "unavailable",
            },
        }
    }
}

/// Creates Endpoints that say nothing yet. If someone else was faster, this changes nothing of theirs.
pub async fn create(api: &Api<Endpoints>, blank: &Endpoints) -> Result<Endpoints, Failure> {
    apply(api, blank, &PatchParams::apply(CREATOR)).await
}

/// Applies the members. Forced, because whether the Endpoints are ours has been decided on this very resourceVersion.
pub async fn write(api: &Api<Endpoints>, endpoints: &Endpoints) -> Result<Endpoints, Failure> {
    apply(api, endpoints, &PatchParams::apply(slice::OURS).force()).await
}

async fn apply(api: &Api<Endpoints>, endpoints: &Endpoints, params: &PatchParams) -> Result<Endpoints, Failure> {
    let name = endpoints.metadata.name.as_deref().unwrap_or_default();
    within_deadline("patch", endpoints, api.patch(name, params, &Patch::Apply(endpoints))).await
}

/// The Endpoints as they are now; none if there are none.
pub async fn read(api: &Api<Endpoints>, expected: &Endpoints) -> Result<Option<Endpoints>, Failure> {
    let name = expected.metadata.name.as_deref().unwrap_or_default();
    within_deadline("get", expected, api.get_opt(name)).await
}

async fn within_deadline<T>(
    verb: &str,
    endpoints: &Endpoints,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    let namespace = endpoints.metadata.namespace.as_deref().unwrap_or_default();
    let error = match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => {
            let why = format!("{verb} endpoints in {namespace}: no answer in {}", humantime::format_duration(DEADLINE));
            return Err(Failure::Fault(Condition::new(Kind::ApiUnavailable, why), Duration::ZERO));
        }
    };
    if matches!(&error, kube::Error::Api(status) if status.code == 409) {
        return Err(Failure::Conflict);
    }
    let condition = fault::of(&error, verb, "endpoints", namespace, endpoints.metadata.name.as_deref());
    Err(Failure::Fault(condition, Duration::from_secs(fault::retry_after(&error))))
}
