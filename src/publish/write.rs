//! The calls that change the cluster, each with a deadline, and what came of them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};

use super::condition::{Condition, Kind};
use super::fault;
use crate::slice;

/// An API call that takes longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Applies under a name of its own, so that a create that arrives late can never take back what a later write set.
const CREATOR: &str = "external-endpoints-create";

/// Why a call changed nothing.
#[derive(Debug)]
pub enum Failure {
    /// The object is not, or no longer, what the step was decided on; with what the API says of it.
    Conflict(String),
    /// Another try may help, after at least this pause.
    Fault(Condition, Duration),
}

impl Failure {
    /// One word for the metric.
    pub fn result(&self) -> &'static str {
        match self {
            Failure::Conflict(_) => "conflict",
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
    let (name, call) = (name_of(endpoints), Call { verb: "patch", plural: "endpoints" });
    call.within_deadline(endpoints, api.patch(name, params, &Patch::Apply(endpoints))).await
}

/// The Endpoints as they are now; none if there are none.
pub async fn read(api: &Api<Endpoints>, like: &Endpoints) -> Result<Option<Endpoints>, Failure> {
    let call = Call { verb: "get", plural: "endpoints" };
    call.within_deadline(like, api.get_opt(name_of(like))).await
}

/// The Service of the Endpoints as it is now; none if there is none.
pub async fn read_service(api: &Api<Service>, like: &Endpoints) -> Result<Option<Service>, Failure> {
    let call = Call { verb: "get", plural: "services" };
    call.within_deadline(like, api.get_opt(name_of(like))).await
}

/// Deletes Endpoints if they still are as they were `held`. That they are gone already is as good.
pub async fn delete(api: &Api<Endpoints>, held: &Endpoints) -> Result<(), Failure> {
    let ObjectMeta { uid, resource_version, .. } = held.metadata.clone();
    let params =
        DeleteParams { preconditions: Some(Preconditions { uid, resource_version }), ..DeleteParams::default() };
    let call = async {
        match api.delete(name_of(held), &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(drop),
        }
    };
    Call { verb: "delete", plural: "endpoints" }.within_deadline(held, call).await
}

fn name_of(endpoints: &Endpoints) -> &str {
    endpoints.metadata.name.as_deref().unwrap_or_default()
}

/// What is asked of the API, for the words in which it fails.
struct Call {
    verb: &'static str,
    plural: &'static str,
}

impl Call {
    async fn within_deadline<T>(
        &self,
        like: &Endpoints,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        let Call { verb, plural } = self;
        let namespace = like.metadata.namespace.as_deref().unwrap_or_default();
        let error = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                let why =
                    format!("{verb} {plural} in {namespace}: no answer in {}", humantime::format_duration(DEADLINE));
                return Err(Failure::Fault(Condition::new(Kind::ApiUnavailable, why), Duration::ZERO));
            }
        };
        if let kube::Error::Api(status) = &error
            && status.code == 409
        {
            return Err(Failure::Conflict(status.message.clone()));
        }
        let condition = fault::of(&error, verb, plural, namespace, like.metadata.name.as_deref());
        Err(Failure::Fault(condition, fault::retry_after(&error)))
    }
}
